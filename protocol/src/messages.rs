//! What the actors say to one another: plain data, fit for a wire.

use crate::{
    Addresses, Epoch, ExecutorId, Incarnation, PartitionId, PartitionRanges, Release,
    StageAttemptId, SyncError, TaskAttemptId, TaskFailure,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Which call a task made to reach the sync. All tasks of a round must make the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
// A word, as what it travels with: as a byte it has its neighbours copied across word boundaries,
// in every arrival and release.
#[repr(u64)]
pub enum SyncMethod {
    /// `barrier()`: no payload.
    Barrier,
    /// `all_gather()`: one payload per task, all go to all.
    AllGather,
    /// `broadcast()`: the root's payload goes to all.
    Broadcast,
    /// `all_reduce()`: one payload per task, folded in partition order.
    AllReduce,
}

impl fmt::Display for SyncMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SyncMethod::Barrier => "barrier()",
            SyncMethod::AllGather => "all_gather()",
            SyncMethod::Broadcast => "broadcast()",
            SyncMethod::AllReduce => "all_reduce()",
        })
    }
}

/// Tasks have reached a sync and ask to be released when all others have.
///
/// Sent by an executor's gatherer (or by anyone who plays tasks) to the `ContextBarrierState` of
/// the attempt, straight or through the `BarrierCoordinator`. One message holds the tasks that
/// arrived together. It is accepted or refused as a whole and gets exactly one [`SyncReply`].
/// Sending it again is harmless: arrivals are identified by (partition, task attempt), never
/// counted. The wait ends with the release, the round's failure or the attempt's end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestToSync {
    /// The stage attempt of the tasks.
    pub attempt: StageAttemptId,
    /// How many tasks the senders believe the gang to have (world size).
    pub num_tasks: u32,
    /// The sync they are at.
    pub epoch: Epoch,
    /// The call they made.
    pub method: SyncMethod,
    /// Who has arrived; at least one.
    pub arrivals: Vec<Arrival>,
}

/// One task at a sync.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Arrival {
    /// The task's partition.
    pub partition: PartitionId,
    /// The task's attempt id.
    pub task_attempt: TaskAttemptId,
    /// What it gives to the others; empty for `barrier()`.
    pub message: Bytes,
}

/// One task's arrival at a sync, as its [`TaskSync`](crate::TaskSync) gives it to the gatherer,
/// which sends those that come together in one [`RequestToSync`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SyncArrival {
    /// The stage attempt of the task.
    pub attempt: StageAttemptId,
    /// How many tasks it believes the gang to have.
    pub num_tasks: u32,
    /// The sync it is at.
    pub epoch: Epoch,
    /// The call it made.
    pub method: SyncMethod,
    /// The task.
    pub arrival: Arrival,
}

impl From<SyncArrival> for RequestToSync {
    /// The request of this task alone.
    fn from(alone: SyncArrival) -> Self {
        let SyncArrival { attempt, num_tasks, epoch, method, arrival } = alone;
        RequestToSync { attempt, num_tasks, epoch, method, arrivals: vec![arrival] }
    }
}

/// The answer to a [`RequestToSync`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SyncReply {
    /// The stage attempt asked for.
    pub attempt: StageAttemptId,
    /// The epoch asked for.
    pub epoch: Epoch,
    /// The release, or why there is none.
    pub result: Result<Release, SyncError>,
}

/// To those who wait in a round for a while: who is missing. Not an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StillWaiting {
    /// The stage attempt.
    pub attempt: StageAttemptId,
    /// The round.
    pub epoch: Epoch,
    /// The partitions that have not arrived.
    pub missing: PartitionRanges,
}

/// A task no longer waits in a round it had arrived at, and may come back to it.
///
/// Sent by the gatherer after the task's request, on the same path. No reply. Without effect if the
/// round has been released. Not to be sent again after the task's next request, which it would take
/// back: it names the task and the round, not the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WithdrawSync {
    /// The stage attempt.
    pub attempt: StageAttemptId,
    /// The round.
    pub epoch: Epoch,
    /// The task's partition.
    pub partition: PartitionId,
    /// The task's attempt id.
    pub task_attempt: TaskAttemptId,
}

/// A task will never sync again. Sent by the gatherer after all of the task's requests, on the
/// same path. No reply. Idempotent: the first reason counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskLeft {
    /// The stage attempt.
    pub attempt: StageAttemptId,
    /// The task's partition.
    pub partition: PartitionId,
    /// The task's attempt id.
    pub task_attempt: TaskAttemptId,
    /// Why.
    pub reason: LeaveReason,
}

/// Why a task will never sync again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LeaveReason {
    /// It returned successfully.
    Returned,
    /// It failed.
    Failed(TaskFailure),
    /// It was killed.
    Killed {
        /// The killer's words.
        reason: String,
    },
}

impl fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeaveReason::Returned => f.write_str("has returned"),
            LeaveReason::Failed(failure) => write!(f, "failed: {failure}"),
            LeaveReason::Killed { reason } => write!(f, "was killed: {reason}"),
        }
    }
}

/// Scheduler to coordinator, before any task of the attempt is launched: syncs of this attempt are
/// welcome. No reply. Sending it again while the attempt is open changes nothing; an attempt that
/// has ended is never opened again, its successor has another number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenBarrier {
    /// The stage attempt.
    pub attempt: StageAttemptId,
    /// The gang, by partition.
    pub task_attempts: Vec<TaskAttemptId>,
    /// How long a round may last from its first arrival.
    pub sync_timeout: Duration,
}

/// Scheduler to coordinator: the stage attempt has ended. Everyone who waits in it or comes later
/// is answered with the reason. No reply. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StageCompleted {
    /// The stage attempt.
    pub attempt: StageAttemptId,
    /// How it ended.
    pub reason: CloseReason,
}

/// How a stage attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CloseReason {
    /// All tasks succeeded.
    Succeeded,
    /// It failed; the text names the first cause.
    Failed(String),
    /// The stage was cancelled, for the reason given.
    Cancelled(String),
    /// The runtime shuts down.
    Shutdown,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Succeeded => f.write_str("all of its tasks have returned"),
            CloseReason::Failed(cause) => f.write_str(cause),
            CloseReason::Cancelled(reason) => write!(f, "the stage was cancelled: {reason}"),
            CloseReason::Shutdown => f.write_str("the runtime shuts down"),
        }
    }
}

/// Scheduler to executor: run these tasks of one stage attempt. Answered by one [`TaskReport`] per
/// task, whatever happens to it, or by the loss of the executor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LaunchTasks {
    /// The stage attempt.
    pub attempt: StageAttemptId,
    /// World size.
    pub num_tasks: u32,
    /// The tasks for this executor.
    pub tasks: Vec<LaunchTask>,
    /// Where every task of the gang runs, by partition; empty for plain stages. Shared.
    pub task_infos: Arc<[TaskInfo]>,
}

/// One task to run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LaunchTask {
    /// Its partition.
    pub partition: PartitionId,
    /// Its attempt id.
    pub task_attempt: TaskAttemptId,
    /// How many cpus it was given.
    pub cpus: u32,
    /// The addresses of the named resources it was given.
    pub addresses: Addresses,
}

/// Where a task of a gang runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskInfo {
    /// The executor.
    pub executor: ExecutorId,
    /// The executor's address; tasks of one executor repeat it.
    pub address: Arc<str>,
}

/// Scheduler to executor: these tasks shall end. Their waits end at once; their own code is asked,
/// not forced. Each still answers with its [`TaskReport`]. Idempotent: the first reason counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KillTask {
    /// The tasks, all on one executor.
    pub tasks: Vec<TaskAttemptId>,
    /// Why.
    pub reason: String,
}

/// Executor to scheduler: a task has ended. No reply. A second report of the same task attempt, or
/// one of an executor that was given up, is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskReport {
    /// The executor that ran it.
    pub executor: ExecutorId,
    /// Which life of the executor.
    pub incarnation: Incarnation,
    /// The stage attempt.
    pub attempt: StageAttemptId,
    /// The partition.
    pub partition: PartitionId,
    /// The task attempt.
    pub task_attempt: TaskAttemptId,
    /// How it ended.
    pub outcome: TaskOutcome,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaskOutcome {
    /// It returned a value.
    Succeeded,
    /// It did not.
    Failed(TaskFailure),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_as_users_write_them() {
        let all = [
            SyncMethod::Barrier,
            SyncMethod::AllGather,
            SyncMethod::Broadcast,
            SyncMethod::AllReduce,
        ];
        let names = all.map(|method| method.to_string());
        assert_eq!(names, ["barrier()", "all_gather()", "broadcast()", "all_reduce()"]);
    }

    #[test]
    fn an_arrival_alone_is_a_request() {
        let (attempt, epoch, method) = (StageAttemptId::default(), Epoch(3), SyncMethod::AllGather);
        let (partition, task_attempt) = (PartitionId(1), TaskAttemptId(7));
        let arrival = Arrival { partition, task_attempt, message: Bytes::from_static(b"mine") };
        let alone = SyncArrival { attempt, num_tasks: 2, epoch, method, arrival: arrival.clone() };
        let request =
            RequestToSync { attempt, num_tasks: 2, epoch, method, arrivals: vec![arrival] };
        assert_eq!(RequestToSync::from(alone), request);
    }

    #[test]
    fn who_left_is_told_how() {
        let failure = TaskFailure::Panicked("index out of bounds".to_owned());
        let reason = "by hand".to_owned();
        let texts =
            [LeaveReason::Returned, LeaveReason::Failed(failure), LeaveReason::Killed { reason }];
        let texts = texts.map(|reason| reason.to_string());
        let expected =
            ["has returned", "failed: panicked: index out of bounds", "was killed: by hand"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn what_closed_an_attempt_is_told() {
        let texts = [
            CloseReason::Succeeded,
            CloseReason::Failed("partition 1 failed".to_owned()),
            CloseReason::Cancelled("too slow".to_owned()),
            CloseReason::Shutdown,
        ];
        let expected = [
            "all of its tasks have returned",
            "partition 1 failed",
            "the stage was cancelled: too slow",
            "the runtime shuts down",
        ];
        assert_eq!(texts.map(|reason| reason.to_string()), expected);
    }
}

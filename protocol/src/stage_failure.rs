//! Why tasks and stages fail.

use crate::{ExecutorId, PartitionId, StageAttemptId, TaskAttemptId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// Why a task did not return a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
pub enum TaskFailure {
    /// Its code returned an error, given here as text.
    #[error("{0}")]
    Error(String),
    /// Its code panicked with this message.
    #[error("panicked: {0}")]
    Panicked(String),
    /// It ended because it was killed, for this reason.
    #[error("was killed: {0}")]
    Killed(String),
    /// The executor could not start it.
    #[error("could not be started: {0}")]
    NotStarted(String),
    /// The executor that ran it is gone.
    #[error("lost its executor: {0}")]
    ExecutorLost(String),
    /// The coordinator of its barrier is gone.
    #[error("lost its barrier coordinator: {0}")]
    BarrierLost(String),
    /// Its input is gone.
    #[error("could not fetch its input: {0}")]
    FetchFailed(FetchFailed),
}

impl TaskFailure {
    /// Whether the machinery failed, not the task's own code: such failures have their own budget.
    pub fn is_infrastructure(&self) -> bool {
        match self {
            TaskFailure::NotStarted(_)
            | TaskFailure::ExecutorLost(_)
            | TaskFailure::BarrierLost(_)
            | TaskFailure::FetchFailed(_) => true,
            TaskFailure::Error(_) | TaskFailure::Panicked(_) | TaskFailure::Killed(_) => false,
        }
    }
}

/// An output of a map stage that a later stage has not found: the executor that held it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
#[error("the output of partition {partition} of {input} is not there any more")]
pub struct FetchFailed {
    /// The map stage, and the attempt whose outputs were read.
    pub input: StageAttemptId,
    /// The map stage's partition.
    pub partition: PartitionId,
}

/// Which task a failure came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskOrigin {
    /// Its partition.
    pub partition: PartitionId,
    /// Its attempt id.
    pub task_attempt: TaskAttemptId,
    /// Where it ran.
    pub executor: ExecutorId,
}

/// The first failure of a stage attempt: the one that made the others be killed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FailureCause {
    /// The stage attempt that failed.
    pub attempt: StageAttemptId,
    /// The task that failed first; `None` if the attempt's barrier coordinator failed.
    pub origin: Option<TaskOrigin>,
    /// What happened to it.
    pub failure: TaskFailure,
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match &self.failure {
            TaskFailure::Error(_) => "failed: ",
            TaskFailure::Panicked(_)
            | TaskFailure::Killed(_)
            | TaskFailure::NotStarted(_)
            | TaskFailure::ExecutorLost(_)
            | TaskFailure::BarrierLost(_)
            | TaskFailure::FetchFailed(_) => "",
        };
        match self.origin {
            Some(TaskOrigin { partition, task_attempt, executor }) => write!(
                f,
                "partition {partition} (task {task_attempt} of {} on executor {executor}) {verb}{}",
                self.attempt, self.failure
            ),
            None => write!(f, "{} {verb}{}", self.attempt, self.failure),
        }
    }
}

/// Why a stage has no result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
pub enum StageFailure {
    /// Its attempts are used up.
    #[error("failed {attempts} times in a row, the most allowed; the last time, {cause}")]
    AttemptsExhausted {
        /// How many attempts failed through the tasks' own errors.
        attempts: u32,
        /// First cause of the last one.
        cause: FailureCause,
    },
    /// Executors were lost too often.
    #[error(
        "lost executors, coordinators or inputs {losses} times, more than the {allowed} allowed; the last time, {cause}"
    )]
    InfrastructureExhausted {
        /// How many losses there were.
        losses: u32,
        /// How many the stage allows.
        allowed: u32,
        /// First cause of the last one.
        cause: FailureCause,
    },
    /// A task of a stage that may not be repeated failed.
    #[error("was aborted at its first failure, as OnFailure::Abort asks: {cause}")]
    Aborted {
        /// The first cause.
        cause: FailureCause,
    },
    /// A task failed when others of its attempt had had their effects.
    #[error(
        "cannot be run again: {} succeeded, and what they did cannot be repeated; {cause}",
        who_committed(*committed)
    )]
    Committed {
        /// How many tasks of the attempt had succeeded; 0 if only one on a lost executor may have.
        committed: u32,
        /// The first cause.
        cause: FailureCause,
    },
    /// It is a gang, and executors come and go by policy.
    #[error(
        "was refused: a barrier stage needs {required} slots that stay, and dynamic_allocation.enabled is on: turn it off (executors may still join), or make it a plain stage"
    )]
    DynamicAllocation {
        /// Slots the stage needs at once.
        required: u64,
    },
    /// The executors, busy ones included, never had enough slots.
    #[error(
        "needs {required} slots at once and all executors together have {available} (checked {checks} times, every {interval:?}): add slots, ask for fewer resources per task, or use fewer tasks (of a dataset: repartition it){}",
        after(.last_cause)
    )]
    NotEnoughSlots {
        /// Slots the stage needs at once.
        required: u64,
        /// Slots of all executors for the stage's task resources, busy ones included.
        available: u64,
        /// How many checks failed.
        checks: u32,
        /// The pause between two checks.
        interval: Duration,
        /// Why its last attempt failed, if one was started: perhaps an executor was lost.
        last_cause: Option<Box<FailureCause>>,
    },
    /// Too many stages are waiting or running.
    #[error(
        "was refused: the scheduler has {limit} stages already, the most allowed (queue.max_stages)"
    )]
    QueueFull {
        /// The configured limit.
        limit: usize,
    },
    /// It cannot be run as it stands.
    #[error("was refused: {reason}")]
    Refused {
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// It was cancelled.
    #[error("was cancelled: {reason}")]
    Cancelled {
        /// The canceller's words.
        reason: String,
    },
    /// The runtime shut down before it ended.
    #[error("was ended by the shutdown of the runtime")]
    Shutdown,
}

fn who_committed(committed: u32) -> String {
    match committed {
        0 => "tasks on a lost executor may have".to_owned(),
        committed => format!("{committed} of its tasks had"),
    }
}

fn after(last_cause: &Option<Box<FailureCause>>) -> String {
    let last = last_cause.as_deref();
    last.map_or_else(String::new, |cause| format!("; its last attempt failed: {cause}"))
}

impl StageFailure {
    /// The first cause of the last attempt, if a task or the machinery failed.
    pub fn first_cause(&self) -> Option<&FailureCause> {
        match self {
            StageFailure::AttemptsExhausted { cause, .. }
            | StageFailure::InfrastructureExhausted { cause, .. }
            | StageFailure::Aborted { cause }
            | StageFailure::Committed { cause, .. } => Some(cause),
            StageFailure::NotEnoughSlots { last_cause, .. } => last_cause.as_deref(),
            StageFailure::QueueFull { .. }
            | StageFailure::DynamicAllocation { .. }
            | StageFailure::Refused { .. }
            | StageFailure::Cancelled { .. }
            | StageFailure::Shutdown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_tasks_and_machinery_have_a_first_cause() {
        let attempt = StageAttemptId::default();
        let cause = FailureCause { attempt, origin: None, failure: TaskFailure::Error("e".into()) };
        let with_cause = [
            StageFailure::AttemptsExhausted { attempts: 1, cause: cause.clone() },
            StageFailure::InfrastructureExhausted { losses: 1, allowed: 0, cause: cause.clone() },
            StageFailure::Aborted { cause: cause.clone() },
            StageFailure::Committed { committed: 1, cause: cause.clone() },
        ];
        assert!(with_cause.iter().all(|failure| failure.first_cause() == Some(&cause)));
        let not_enough = |last_cause| {
            let interval = Duration::from_secs(1);
            StageFailure::NotEnoughSlots {
                required: 2,
                available: 1,
                checks: 1,
                interval,
                last_cause,
            }
        };
        let lost = not_enough(Some(Box::new(cause.clone())));
        assert_eq!(lost.first_cause(), Some(&cause));
        let end = "repartition it); its last attempt failed: Stage 0 (Attempt 0) failed: e";
        assert!(lost.to_string().ends_with(end), "{lost}");
        assert!(not_enough(None).to_string().ends_with("repartition it)"));
        let without = [
            not_enough(None),
            StageFailure::QueueFull { limit: 1 },
            StageFailure::DynamicAllocation { required: 2 },
            StageFailure::Refused { reason: String::new() },
            StageFailure::Cancelled { reason: String::new() },
            StageFailure::Shutdown,
        ];
        assert!(without.iter().all(|failure| failure.first_cause().is_none()));
    }
}

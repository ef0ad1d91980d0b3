//! The task's half of a sync: where one task is in its sequence of syncs.

use crate::{
    Arrival, Epoch, LeaveReason, PartitionId, Release, StageAttemptId, SyncArrival, SyncError,
    SyncMethod, SyncReply, TaskAttemptId, TaskLeft, WithdrawSync,
};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

/// One task's way through the syncs of its attempt.
///
/// ```text
///   ┌──────┐ call: Arrive       ┌─────────┐ release: answer the calls, epoch + 1 ──▶ answered
///   │ idle │ ─────────────────▶ │ waiting │ failure: answer the calls, same epoch ─▶ idle
///   └──────┘                    └─────────┘    answered: a caller took it ─▶ idle; all dropped
///      ▲                          │     ▲                without looking ─▶ unclaimed, epoch - 1
///      │ failure   all dropped:   ▼     │ call: Arrive
///      │            Withdraw   ┌───────────┐ release: it was counted after all
///      └────────────────────── │ withdrawn │ ──────────────▶ ┌───────────┐
///                              └───────────┘                 │ unclaimed │
///      same call again: the release; another: an error ◀──── └───────────┘
/// ```
///
/// A release that finds the task idle (a belated copy of its request was counted, and the call made
/// since was refused because of it) leads to unclaimed, too.
///
/// So a call that was dropped half-way may be made again and goes on where it was. Several calls
/// at once (threads of one task) are one arrival. Killed or left, every call fails at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskSync {
    attempt: StageAttemptId,
    num_tasks: u32,
    partition: PartitionId,
    task_attempt: TaskAttemptId,
    epoch: Epoch,
    state: State,
    /// Set once; what every later call is answered.
    ended: Option<SyncError>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Idle,
    Waiting {
        call: Call,
        callers: Calls,
    },
    Withdrawn,
    /// The callers have been answered, but none of them has looked yet.
    Answered {
        release: Release,
        callers: Calls,
    },
    Unclaimed {
        release: Release,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Call {
    method: SyncMethod,
    message: Bytes,
}

/// One call of the user's code, unique within the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Calls that are one arrival: usually one.
pub type Calls = SmallVec<[CallId; 1]>;

/// What can happen to a task's sync.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TaskSyncEvent {
    /// User code calls.
    Call {
        /// This call.
        call: CallId,
        /// Which function.
        method: SyncMethod,
        /// Its payload.
        message: Bytes,
    },
    /// User code has seen the answer of a call.
    Taken(CallId),
    /// User code dropped a call whose answer it has not seen.
    Dropped(CallId),
    /// The coordinator answered. Answers must come in the order in which they were given.
    Reply(SyncReply),
    /// The task is to end.
    Kill {
        /// The killer's words.
        reason: String,
    },
    /// The task's code has ended.
    Ended(LeaveReason),
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TaskSyncEffect {
    /// Tell the coordinator that the task has arrived.
    Arrive(SyncArrival),
    /// Tell the coordinator that it no longer waits.
    Withdraw(WithdrawSync),
    /// Tell the coordinator that it will never arrive again.
    Leave(TaskLeft),
    /// Answer user code's calls.
    Complete {
        /// Which.
        calls: Calls,
        /// With what.
        result: Result<Release, SyncError>,
    },
}

impl TaskSync {
    /// A task at its first epoch.
    pub fn new(
        attempt: StageAttemptId,
        num_tasks: u32,
        partition: PartitionId,
        task_attempt: TaskAttemptId,
    ) -> Self {
        let (epoch, state) = (Epoch(0), State::Idle);
        TaskSync { attempt, num_tasks, partition, task_attempt, epoch, state, ended: None }
    }

    /// The task's attempt id.
    pub fn task_attempt(&self) -> TaskAttemptId {
        self.task_attempt
    }

    /// The epoch of the task's current or next sync.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether a call waits for its answer.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Takes one event and appends what is to be done.
    ///
    /// To whatever takes effects: every task does this in every round, so its shell carries them
    /// out as they come instead of from a `Vec`.
    #[inline(always)]
    pub fn handle(&mut self, event: TaskSyncEvent, effects: &mut impl Extend<TaskSyncEffect>) {
        match event {
            TaskSyncEvent::Call { call, method, message } => {
                self.call(call, Call { method, message }, effects);
            }
            TaskSyncEvent::Taken(call) => {
                if matches!(&self.state, State::Answered { callers, .. } if callers.contains(&call))
                {
                    self.state = State::Idle;
                }
            }
            TaskSyncEvent::Dropped(call) => self.dropped(call, effects),
            TaskSyncEvent::Reply(reply) => self.reply(reply, effects),
            TaskSyncEvent::Kill { reason } => {
                let (attempt, partition) = (self.attempt, self.partition);
                let error = SyncError::Killed { attempt, partition, reason: reason.clone() };
                self.end(error, LeaveReason::Killed { reason }, effects);
            }
            TaskSyncEvent::Ended(reason) => {
                let (attempt, epoch, partition) = (self.attempt, self.epoch, self.partition);
                let error =
                    SyncError::PeerLeft { attempt, epoch, partition, reason: reason.clone() };
                self.end(error, reason, effects);
            }
        }
    }

    #[inline(always)]
    fn call(&mut self, id: CallId, call: Call, effects: &mut impl Extend<TaskSyncEffect>) {
        let refuse =
            |error| [TaskSyncEffect::Complete { calls: smallvec![id], result: Err(error) }];
        if let Some(error) = &self.ended {
            effects.extend(refuse(error.clone()));
            return;
        }
        let (attempt, partition, epoch) = (self.attempt, self.partition, self.epoch);
        match &mut self.state {
            State::Idle | State::Withdrawn | State::Answered { .. } => {
                effects.extend([TaskSyncEffect::Arrive(self.arrival(&call))]);
                self.state = State::Waiting { call, callers: smallvec![id] };
            }
            State::Waiting { call: waiting, callers } if *waiting == call => callers.push(id),
            State::Waiting { call: waiting, .. } if waiting.method == call.method => {
                let error = SyncError::ConflictingMessage { attempt, partition, epoch };
                effects.extend(refuse(error));
            }
            State::Waiting { call: waiting, .. } => {
                let (waiting, called) = (waiting.method, call.method);
                let error =
                    SyncError::ConcurrentCall { attempt, partition, epoch, waiting, called };
                effects.extend(refuse(error));
            }
            State::Unclaimed { release } => {
                let release = release.clone();
                self.state = State::Waiting { call, callers: smallvec![id] };
                self.released(release, effects);
            }
        }
    }

    fn dropped(&mut self, call: CallId, effects: &mut impl Extend<TaskSyncEffect>) {
        match &mut self.state {
            State::Waiting { callers, .. } => {
                callers.retain(|caller| *caller != call);
                if callers.is_empty() {
                    self.state = State::Withdrawn;
                    effects.extend([TaskSyncEffect::Withdraw(WithdrawSync {
                        attempt: self.attempt,
                        epoch: self.epoch,
                        partition: self.partition,
                        task_attempt: self.task_attempt,
                    })]);
                }
            }
            State::Answered { release, callers } => {
                callers.retain(|caller| *caller != call);
                if callers.is_empty() {
                    self.state = State::Unclaimed { release: release.clone() };
                    self.epoch = Epoch(self.epoch.0 - 1);
                }
            }
            State::Idle | State::Withdrawn | State::Unclaimed { .. } => {}
        }
    }

    #[inline(always)]
    fn reply(&mut self, reply: SyncReply, effects: &mut impl Extend<TaskSyncEffect>) {
        if reply.attempt != self.attempt || reply.epoch != self.epoch {
            return;
        }
        match reply.result {
            Ok(release) => match &self.state {
                State::Waiting { .. } => self.released(release, effects),
                State::Withdrawn => self.state = State::Unclaimed { release },
                // A belated copy of a request was counted, and the call since was refused.
                State::Idle if self.ended.is_none() => self.state = State::Unclaimed { release },
                State::Idle | State::Answered { .. } | State::Unclaimed { .. } => {}
            },
            // The answer to a request that was withdrawn; the call made since has its own.
            Err(SyncError::Withdrawn { .. }) => {}
            Err(error) => match &self.state {
                State::Waiting { .. } => self.fail(error, effects),
                State::Withdrawn => self.state = State::Idle,
                State::Idle | State::Answered { .. } | State::Unclaimed { .. } => {}
            },
        }
    }

    /// The gang passed this epoch. The call that was counted may be one that was dropped before.
    #[inline(always)]
    fn released(&mut self, release: Release, effects: &mut impl Extend<TaskSyncEffect>) {
        let State::Waiting { call, callers } = std::mem::replace(&mut self.state, State::Idle)
        else {
            return;
        };
        let counted = release.messages.get(self.partition.0 as usize);
        let same = release.method == call.method
            && counted.is_none_or(|message| is_same(message, &call.message));
        let calls = Calls::from_slice(&callers);
        let result = if same {
            self.state = State::Answered { release: release.clone(), callers };
            Ok(release)
        } else {
            let (attempt, partition, epoch) = (self.attempt, self.partition, self.epoch);
            Err(SyncError::AbandonedCall { attempt, partition, epoch })
        };
        self.epoch = Epoch(self.epoch.0 + 1);
        effects.extend([TaskSyncEffect::Complete { calls, result }]);
    }

    /// Those who call, if any, have an error.
    fn fail(&mut self, error: SyncError, effects: &mut impl Extend<TaskSyncEffect>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Waiting { callers: calls, .. } => {
                effects.extend([TaskSyncEffect::Complete { calls, result: Err(error) }]);
            }
            State::Idle | State::Withdrawn | State::Answered { .. } | State::Unclaimed { .. } => {}
        }
    }

    fn end(
        &mut self,
        error: SyncError,
        reason: LeaveReason,
        effects: &mut impl Extend<TaskSyncEffect>,
    ) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(error.clone());
        self.fail(error, effects);
        effects.extend([TaskSyncEffect::Leave(TaskLeft {
            attempt: self.attempt,
            partition: self.partition,
            task_attempt: self.task_attempt,
            reason,
        })]);
    }

    fn arrival(&self, call: &Call) -> SyncArrival {
        SyncArrival {
            attempt: self.attempt,
            num_tasks: self.num_tasks,
            epoch: self.epoch,
            method: call.method,
            arrival: Arrival {
                partition: self.partition,
                task_attempt: self.task_attempt,
                message: call.message.clone(),
            },
        }
    }
}

/// Whether two messages are equal; usually they are one, and perhaps large.
pub(crate) fn is_same(one: &Bytes, other: &Bytes) -> bool {
    (one.as_ptr(), one.len()) == (other.as_ptr(), other.len()) || one == other
}

#[cfg(test)]
mod tests;

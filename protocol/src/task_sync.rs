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
    ended: Option<Box<SyncError>>,
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

/// Takes what a [`TaskSync`] wants done, in order: a `Vec`, or a shell that does it at once.
pub trait TaskSyncEffects {
    /// The next effect.
    fn push(&mut self, effect: TaskSyncEffect);
}

impl TaskSyncEffects for Vec<TaskSyncEffect> {
    fn push(&mut self, effect: TaskSyncEffect) {
        Vec::push(self, effect);
    }
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
    pub fn handle(&mut self, event: TaskSyncEvent, effects: &mut impl TaskSyncEffects) {
        match event {
            TaskSyncEvent::Call { call, method, message } => {
                self.call(call, method, message, effects);
            }
            TaskSyncEvent::Taken(call) => self.taken(call),
            TaskSyncEvent::Dropped(call) => self.dropped(call, effects),
            TaskSyncEvent::Reply(reply) => self.reply(&reply, effects),
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

    /// [`TaskSyncEvent::Call`], without the way through an event: every task does this in every
    /// round.
    #[inline]
    pub fn call(
        &mut self,
        id: CallId,
        method: SyncMethod,
        message: Bytes,
        effects: &mut impl TaskSyncEffects,
    ) {
        let refuse = |error| TaskSyncEffect::Complete { calls: smallvec![id], result: Err(error) };
        if let Some(error) = &self.ended {
            effects.push(refuse(SyncError::clone(error)));
            return;
        }
        let (attempt, partition, epoch) = (self.attempt, self.partition, self.epoch);
        match &mut self.state {
            State::Idle | State::Withdrawn | State::Answered { .. } => {
                effects.push(TaskSyncEffect::Arrive(self.arrival(method, message.clone())));
                let call = Call { method, message };
                self.state = State::Waiting { call, callers: smallvec![id] };
            }
            State::Waiting { call, callers }
                if (call.method, &call.message) == (method, &message) =>
            {
                callers.push(id);
            }
            State::Waiting { call: waiting, .. } if waiting.method == method => {
                let error = SyncError::ConflictingMessage { attempt, partition, epoch };
                effects.push(refuse(error));
            }
            State::Waiting { call: waiting, .. } => {
                let (waiting, called) = (waiting.method, method);
                let error =
                    SyncError::ConcurrentCall { attempt, partition, epoch, waiting, called };
                effects.push(refuse(error));
            }
            State::Unclaimed { release } => {
                let (release, call) = (release.clone(), Call { method, message });
                self.state = State::Waiting { call, callers: smallvec![id] };
                self.released(release, effects);
            }
        }
    }

    /// [`TaskSyncEvent::Taken`], as [`call`](Self::call).
    #[inline]
    pub fn taken(&mut self, call: CallId) {
        if matches!(&self.state, State::Answered { callers, .. } if callers.contains(&call)) {
            self.state = State::Idle;
        }
    }

    fn dropped(&mut self, call: CallId, effects: &mut impl TaskSyncEffects) {
        match &mut self.state {
            State::Waiting { callers, .. } => {
                callers.retain(|caller| *caller != call);
                if callers.is_empty() {
                    self.state = State::Withdrawn;
                    effects.push(TaskSyncEffect::Withdraw(WithdrawSync {
                        attempt: self.attempt,
                        epoch: self.epoch,
                        partition: self.partition,
                        task_attempt: self.task_attempt,
                    }));
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

    /// [`TaskSyncEvent::Reply`], as [`call`](Self::call); the reply to many tasks is one.
    #[inline]
    pub fn reply(&mut self, reply: &SyncReply, effects: &mut impl TaskSyncEffects) {
        if reply.attempt != self.attempt || reply.epoch != self.epoch {
            return;
        }
        match &reply.result {
            Ok(release) => self.released_or_late(release.clone(), effects),
            // The answer to a request that was withdrawn; the call made since has its own.
            Err(SyncError::Withdrawn { .. }) => {}
            Err(error) => match &self.state {
                State::Waiting { .. } => self.fail(error.clone(), effects),
                State::Withdrawn => self.state = State::Idle,
                State::Idle | State::Answered { .. } | State::Unclaimed { .. } => {}
            },
        }
    }

    #[inline]
    fn released_or_late(&mut self, release: Release, effects: &mut impl TaskSyncEffects) {
        match &self.state {
            State::Waiting { .. } => self.released(release, effects),
            State::Withdrawn => self.state = State::Unclaimed { release },
            // A belated copy of a request was counted, and the call since was refused.
            State::Idle if self.ended.is_none() => self.state = State::Unclaimed { release },
            State::Idle | State::Answered { .. } | State::Unclaimed { .. } => {}
        }
    }

    /// The gang passed this epoch. The call that was counted may be one that was dropped before.
    #[inline]
    fn released(&mut self, release: Release, effects: &mut impl TaskSyncEffects) {
        let State::Waiting { call, callers } = &mut self.state else { return };
        let counted = release.messages.get(self.partition.0 as usize);
        let same = release.method == call.method
            && counted.is_none_or(|message| is_same(message, &call.message));
        let callers = std::mem::take(callers);
        let calls = Calls::from_slice(&callers);
        let result = if same {
            self.state = State::Answered { release: release.clone(), callers };
            Ok(release)
        } else {
            self.state = State::Idle;
            let (attempt, partition, epoch) = (self.attempt, self.partition, self.epoch);
            Err(SyncError::AbandonedCall { attempt, partition, epoch })
        };
        self.epoch = Epoch(self.epoch.0 + 1);
        effects.push(TaskSyncEffect::Complete { calls, result });
    }

    /// Those who call, if any, have an error.
    fn fail(&mut self, error: SyncError, effects: &mut impl TaskSyncEffects) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Waiting { callers: calls, .. } => {
                effects.push(TaskSyncEffect::Complete { calls, result: Err(error) });
            }
            State::Idle | State::Withdrawn | State::Answered { .. } | State::Unclaimed { .. } => {}
        }
    }

    fn end(&mut self, error: SyncError, reason: LeaveReason, effects: &mut impl TaskSyncEffects) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(Box::new(error.clone()));
        self.fail(error, effects);
        effects.push(TaskSyncEffect::Leave(TaskLeft {
            attempt: self.attempt,
            partition: self.partition,
            task_attempt: self.task_attempt,
            reason,
        }));
    }

    #[inline]
    fn arrival(&self, method: SyncMethod, message: Bytes) -> SyncArrival {
        let &TaskSync { attempt, num_tasks, partition, task_attempt, epoch, .. } = self;
        let arrival = Arrival { partition, task_attempt, message };
        SyncArrival { attempt, num_tasks, epoch, method, arrival }
    }
}

/// Whether two messages are equal; usually they are one, and perhaps large.
pub(crate) fn is_same(one: &Bytes, other: &Bytes) -> bool {
    (one.as_ptr(), one.len()) == (other.as_ptr(), other.len()) || one == other
}

#[cfg(test)]
mod tests;

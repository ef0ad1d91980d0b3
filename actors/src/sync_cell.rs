//! One task's machine, and the calls of its code that wait for it.

use crate::task::CallWaker;
use phalanx_protocol::{CallId, Release, SyncError, TaskSync};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::SystemTime;
use tokio::time::Instant;
use tracing::error;

/// When a call began.
pub(crate) type Since = (SystemTime, Instant);

/// One task's `TaskSync` and the calls of its code that wait for it.
pub(crate) struct SyncCell {
    pub(crate) machine: TaskSync,
    pub(crate) calls: PendingCalls,
}

/// The calls of a task's code that have not ended.
#[derive(Default)]
pub(crate) struct PendingCalls {
    /// Usually there is but one, in its place without moving.
    one: Option<PendingCall>,
    more: Vec<PendingCall>,
    next: u64,
}

struct PendingCall {
    id: CallId,
    /// When it began, if somebody reads the log.
    since: Option<Box<Since>>,
    state: CallState,
}

enum CallState {
    New,
    Waiting(CallWaker),
    /// Its caller has not looked since.
    Answered(Answer),
}

/// What a call has come to.
pub(crate) type Answer = Result<Release, Box<SyncError>>;

/// Whom to wake, once no lock is held.
#[derive(Default)]
pub(crate) struct Wakes {
    /// Tasks of the group, by index: they are polled by it and need no waker.
    pub(crate) tasks: Vec<u32>,
    others: Vec<Waker>,
}

impl SyncCell {
    pub(crate) fn new(machine: TaskSync) -> Self {
        SyncCell { machine, calls: PendingCalls::default() }
    }
}

impl PendingCalls {
    pub(crate) fn begin(&mut self, since: Option<&Since>) -> CallId {
        let id = CallId(self.next);
        self.next += 1;
        let since = since.copied().map(Box::new);
        if self.one.is_none() {
            self.one = Some(PendingCall { id, since, state: CallState::New });
        } else {
            self.more.push(PendingCall { id, since, state: CallState::New });
        }
        id
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut PendingCall> {
        self.one.iter_mut().chain(&mut self.more)
    }

    fn take(&mut self, id: CallId) -> Option<PendingCall> {
        let one = self.one.take_if(|call| call.id == id);
        one.or_else(|| {
            let index = self.more.iter().position(|call| call.id == id)?;
            Some(self.more.swap_remove(index))
        })
    }

    /// These calls, of the task of this index, have been answered.
    #[inline]
    pub(crate) fn complete(
        &mut self,
        task: u32,
        calls: &[CallId],
        result: Result<Release, SyncError>,
        wakes: &mut Wakes,
    ) {
        let answer = result.map_err(Box::new);
        for call in self.iter_mut().filter(|call| calls.contains(&call.id)) {
            let answered = CallState::Answered(answer.clone());
            match std::mem::replace(&mut call.state, answered) {
                CallState::Waiting(CallWaker::Group) => wakes.tasks.push(task),
                CallState::Waiting(CallWaker::Other(waker)) => wakes.others.push(waker),
                CallState::New | CallState::Answered(_) => {}
            }
        }
    }

    /// The answer of a call, which then has ended; or else has it wait. The former waker, which is
    /// to be dropped outside of the lock, takes the place of the new one.
    #[inline]
    pub(crate) fn take_or_wait(&mut self, id: CallId, waker: &mut CallWaker) -> Option<Answer> {
        let call = self.iter_mut().find(|call| call.id == id);
        let call = call.expect("a call is listed until it has its answer or is dropped");
        let answer = match &mut call.state {
            CallState::Answered(answer) => answer.clone(),
            CallState::Waiting(former) => {
                std::mem::swap(former, waker);
                return None;
            }
            state @ CallState::New => {
                *state = CallState::Waiting(std::mem::replace(waker, CallWaker::Group));
                return None;
            }
        };
        self.take(id);
        Some(answer)
    }

    /// A call was dropped by its caller. Leaves its waker, to be dropped outside of the lock.
    pub(crate) fn remove(&mut self, id: CallId) -> Option<CallWaker> {
        match self.take(id)?.state {
            CallState::Waiting(waker) => Some(waker),
            CallState::New | CallState::Answered(_) => None,
        }
    }

    /// When a call began, if somebody reads the log.
    pub(crate) fn since(&self) -> Option<Since> {
        let mut calls = self.one.iter().chain(&self.more);
        calls.find_map(|call| call.since.as_deref().copied())
    }
}

impl Wakes {
    /// These tasks, and who is added.
    pub(crate) fn of_tasks(tasks: Vec<u32>) -> Self {
        Wakes { tasks, others: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.others.is_empty()
    }

    /// Wakes those that are not polled by their group; one whose waker panics must not keep the
    /// others from it.
    pub(crate) fn wake_others(&mut self) {
        for waker in self.others.drain(..) {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                // Dropping it might panic again.
                std::mem::forget(panic);
                error!("a waker of a waiting call panicked");
            }
        }
    }
}

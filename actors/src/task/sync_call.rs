//! One call of a task to its gang's sync, as a future.

use super::Task;
use crate::sealed::sealed;
use crate::sync_cell::Since;
use crate::sync_gatherer::{CallStep, Polled, SyncGatherer};
use bytes::Bytes;
use phalanx_protocol::{CallId, Epoch, Release, StageAttemptId, SyncError, SyncMethod};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;
use tokio::time::Instant;
use tracing::{Level, enabled, info, trace};

/// A call of `barrier()` and its like under way. Dropping it half-way withdraws the arrival: the
/// gang is not released without this task, which may make the same call again.
#[must_use = "a sync does nothing unless awaited"]
pub struct SyncCall {
    task: Arc<Task>,
    state: CallState,
    /// When it began, if somebody reads the log.
    since: Option<Box<Since>>,
}

enum CallState {
    New { method: SyncMethod, message: Bytes, caller: &'static Location<'static> },
    Waiting(CallId),
    Done,
}

/// How a waiting call goes on.
pub(crate) enum CallWaker {
    /// The group polls the task again: the task itself waits, and nothing in between.
    Group,
    /// This is woken.
    Other(Waker),
}

impl SyncCall {
    #[inline]
    pub(super) fn new(
        task: Arc<Task>,
        method: SyncMethod,
        message: Bytes,
        caller: &'static Location<'static>,
    ) -> Self {
        SyncCall {
            task,
            state: CallState::New { method, message: sealed(message), caller },
            since: None,
        }
    }
}

impl Future for SyncCall {
    type Output = Result<Release, SyncError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let SyncCall { task, state, since } = &mut *self;
        let Some(sync) = &task.group.sync else {
            return Poll::Ready(Err(SyncError::NotABarrierStage { attempt: task.attempt() }));
        };
        // The caller's code: if it panics nothing has happened.
        let waker = CallWaker::of(task, cx.waker());
        let step = match std::mem::replace(state, CallState::Done) {
            CallState::New { method, message, caller } => {
                *since = task.log_entered(sync, caller);
                CallStep::New { method, message }
            }
            CallState::Waiting(call) => CallStep::Waiting(call),
            CallState::Done => panic!("a sync was polled after its end"),
        };
        match sync.poll(task.index, step, waker, since.as_deref()) {
            Polled::Waits { call, is_something_to_send, former } => {
                *state = CallState::Waiting(call);
                if is_something_to_send {
                    task.group.send();
                }
                drop(former);
                Poll::Pending
            }
            Polled::Answered { answer, epoch } => {
                if let Some(since) = since {
                    task.log_left(epoch, since.1, answer.as_ref().err().map(Box::as_ref));
                }
                Poll::Ready(answer.map_err(|error| *error))
            }
        }
    }
}

impl Drop for SyncCall {
    fn drop(&mut self) {
        let CallState::Waiting(id) = self.state else { return };
        if let Some(sync) = &self.task.group.sync
            && sync.drop_call(self.task.index, id)
        {
            self.task.group.send();
        }
    }
}

impl CallWaker {
    /// A waker that is the task's own has its address.
    fn of(task: &Arc<Task>, waker: &Waker) -> Self {
        if task.group.is_polled() && waker.data() == Arc::as_ptr(task).cast() {
            CallWaker::Group
        } else {
            CallWaker::Other(waker.clone())
        }
    }
}

impl Task {
    /// When the call began, if anybody reads the log.
    fn log_entered(&self, sync: &SyncGatherer, caller: &Location<'_>) -> Option<Box<Since>> {
        if !enabled!(Level::INFO) {
            return None;
        }
        let (epoch, StageAttemptId { stage, attempt }) = (sync.epoch(self.index), self.attempt());
        info!(
            task_attempt = %self.task_attempt(), %stage, attempt, %epoch,
            "Task {} from Stage {stage}(Attempt {attempt}) has entered the global sync, \
             current barrier epoch is {epoch}.",
            self.task_attempt(),
        );
        trace!("Current callSite: {caller}");
        Some(Box::new((SystemTime::now(), Instant::now())))
    }

    fn log_left(&self, epoch: Epoch, since: Instant, error: Option<&SyncError>) {
        let StageAttemptId { stage, attempt } = self.attempt();
        let seconds = since.elapsed().as_secs_f64();
        match error {
            None => info!(
                task_attempt = %self.task_attempt(), %stage, attempt, %epoch, waited_s = seconds,
                "Task {} from Stage {stage}(Attempt {attempt}) finished global sync successfully, \
                 waited for {seconds:.3} seconds, current barrier epoch is {epoch}.",
                self.task_attempt(),
            ),
            Some(error) => info!(
                task_attempt = %self.task_attempt(), %stage, attempt, %epoch, waited_s = seconds,
                "Task {} from Stage {stage}(Attempt {attempt}) failed to perform global sync, \
                 waited for {seconds:.3} seconds, current barrier epoch is {epoch}: {error}.",
                self.task_attempt(),
            ),
        }
    }
}

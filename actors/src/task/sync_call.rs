//! One call of a task to its gang's sync, as a future.

use super::{PendingCall, Task, WOKEN, lock, wake};
use bytes::Bytes;
use phalanx_protocol::{CallId, Release, SyncError, SyncMethod, TaskSyncEvent};
use std::cell::Cell;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::time::Instant;

/// A call of `barrier()` and its like under way. Dropping it half-way withdraws the arrival: the
/// gang is not released without this task, which may make the same call again.
#[must_use = "a sync does nothing unless awaited"]
pub struct SyncCall {
    task: Arc<Task>,
    state: CallState,
}

enum CallState {
    New { method: SyncMethod, message: Bytes, caller: &'static Location<'static> },
    Waiting(CallId),
    Done,
}

impl SyncCall {
    pub(super) fn new(
        task: Arc<Task>,
        method: SyncMethod,
        message: Bytes,
        caller: &'static Location<'static>,
    ) -> Self {
        SyncCall { task, state: CallState::New { method, message, caller } }
    }
}

impl Future for SyncCall {
    type Output = Result<Release, SyncError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let SyncCall { task, state } = &mut *self;
        let Some(sync) = &task.sync else {
            return Poll::Ready(Err(SyncError::NotABarrierStage { attempt: task.attempt }));
        };
        // A waker is the caller's code: it is cloned and dropped outside of the lock.
        let mut waker = Some(cx.waker().clone());
        let mut woken = WOKEN.try_with(Cell::take).unwrap_or_default();
        let mut cell = lock(&sync.cell);
        let id = match std::mem::replace(state, CallState::Done) {
            CallState::New { method, message, caller } => {
                task.log_entered(cell.machine.epoch(), caller);
                let id = CallId(cell.next_call);
                cell.next_call += 1;
                let is_read = tracing::enabled!(tracing::Level::INFO);
                let since = is_read.then(|| (SystemTime::now(), Instant::now()));
                if cell.calls.is_empty() {
                    // Usually there is but one: room for more would be most of a task's memory.
                    cell.calls.reserve_exact(1);
                }
                cell.calls.push(PendingCall { id, since, waker: None, result: None });
                let call = TaskSyncEvent::Call { call: id, method, message };
                task.run(call, sync, &mut cell, &mut woken);
                id
            }
            CallState::Waiting(id) => id,
            CallState::Done => panic!("a sync was polled after its end"),
        };
        let index = cell.calls.iter().position(|call| call.id == id);
        let index = index.expect("a call is listed until it has its result or is dropped");
        let result = match cell.calls[index].result.take() {
            Some(result) => {
                let call = cell.calls.swap_remove(index);
                task.run(TaskSyncEvent::Taken(id), sync, &mut cell, &mut woken);
                let (since, error) = (call.since.map(|(_, start)| start), result.as_ref().err());
                task.log_left(cell.machine.epoch(), since, error);
                Poll::Ready(result)
            }
            None => {
                std::mem::swap(&mut cell.calls[index].waker, &mut waker);
                *state = CallState::Waiting(id);
                Poll::Pending
            }
        };
        drop(cell);
        drop(waker);
        wake(woken);
        result
    }
}

impl Drop for SyncCall {
    fn drop(&mut self) {
        let CallState::Waiting(id) = self.state else { return };
        if let Some(sync) = &self.task.sync {
            let dropped = {
                let mut cell = lock(&sync.cell);
                let index = cell.calls.iter().position(|call| call.id == id);
                index.map(|index| cell.calls.swap_remove(index))
            };
            self.task.handle(TaskSyncEvent::Dropped(id));
            drop(dropped);
        }
    }
}

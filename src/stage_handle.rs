//! A stage that was handed in.

use crate::task_context::StageProgress;
use crate::{Progress, StageError, StageFailure, StageId, StageStatus};
use phalanx_actors::{
    CancelStage, GetStageStatus, GetSyncStatus, KillPartition, Orders, Payload, StageEnded,
    SyncStatus, current_task, runs_async_tasks,
};
use phalanx_protocol::PartitionId;
use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::{oneshot, watch};

/// Blocks the thread for it; `None` if it is a blocking task's, which was killed meanwhile.
pub(crate) fn block_until_killed<F: Future>(future: F) -> Option<F::Output> {
    match current_task() {
        Some(task) => pollster::block_on(task.killed().run_until_cancelled(future)),
        None => Some(pollster::block_on(future)),
    }
}

/// Why a stage or job is cancelled that a task waited for.
pub(crate) const WAITER_KILLED: &str = "the task that waited for it was killed";

/// A submitted stage. Await it (or [`wait`](StageHandle::wait) for it) to get the tasks' values in
/// partition order, or why there are none.
///
/// Dropping it lets the stage run on; [`cancel`](StageControl::cancel) ends it. It does not keep
/// the runtime, which ends with its last [`Runtime`](crate::Runtime).
#[must_use = "the stage runs on, but its result is lost"]
pub struct StageHandle<T> {
    control: StageControl,
    ended: oneshot::Receiver<StageEnded>,
    read: fn(Payload) -> Result<T, String>,
}

/// The controls of a stage, apart from its result: any number of clones, from any thread.
#[derive(Clone)]
pub struct StageControl {
    pub(crate) id: StageId,
    pub(crate) name: Arc<str>,
    pub(crate) progress: Arc<StageProgress>,
    pub(crate) orders: Orders,
    pub(crate) outcome: watch::Receiver<Option<Result<(), StageFailure>>>,
}

impl fmt::Debug for StageControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageControl")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for StageHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StageHandle").field(&self.control).finish()
    }
}

impl<T: 'static> StageHandle<T> {
    /// `read`: makes the values of what the tasks hand over, or says why it cannot.
    pub(crate) fn new(
        control: StageControl,
        ended: oneshot::Receiver<StageEnded>,
        read: fn(Payload) -> Result<T, String>,
    ) -> Self {
        StageHandle { control, ended, read }
    }

    /// The controls, to be kept while this handle is awaited elsewhere.
    pub fn control(&self) -> StageControl {
        self.control.clone()
    }

    /// Blocks the thread until the stage has ended. Refused on a thread that runs this runtime's
    /// async tasks, where the stage might wait for this very thread; other async code it holds up.
    /// Await the handle there. In a blocking task it waits as long as the task is not killed, and
    /// then cancels the stage; the stage needs slots that the task does not hold, and waits for
    /// ever if there are none.
    ///
    /// # Errors
    /// Why there is no result.
    pub fn wait(self) -> Result<Vec<T>, StageError> {
        if runs_async_tasks() {
            let reason = "wait() would block a thread that runs async tasks; await the handle";
            return Err(StageError {
                stage: self.control.id,
                name: self.control.name.to_string(),
                failure: Box::new(StageFailure::Refused { reason: reason.to_owned() }),
                source: None,
            });
        }
        let control = self.control();
        block_until_killed(self).unwrap_or_else(|| {
            let reason = WAITER_KILLED.to_owned();
            control.cancel(reason.clone());
            let failure = Box::new(StageFailure::Cancelled { reason });
            Err(StageError {
                stage: control.id,
                name: control.name.to_string(),
                failure,
                source: None,
            })
        })
    }
}

impl<T> Deref for StageHandle<T> {
    type Target = StageControl;

    fn deref(&self) -> &StageControl {
        &self.control
    }
}

impl<T: 'static> Future for StageHandle<T> {
    type Output = Result<Vec<T>, StageError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // No answer: the runtime is gone.
        let ended = ready!(Pin::new(&mut self.ended).poll(cx))
            .map_or_else(|_| Err((StageFailure::Shutdown, None)), |ended| ended.result);
        let values = ended.and_then(|values| {
            let read = |(partition, value)| {
                (self.read)(value).map_err(|error| {
                    let reason =
                        format!("the value of partition {partition} cannot be read: {error}");
                    (StageFailure::Refused { reason }, None)
                })
            };
            values.into_iter().enumerate().map(read).collect()
        });
        Poll::Ready(values.map_err(|(failure, source)| StageError {
            stage: self.control.id,
            name: self.control.name.to_string(),
            failure: Box::new(failure),
            source,
        }))
    }
}

impl StageControl {
    /// The stage's id.
    pub fn id(&self) -> StageId {
        self.id
    }

    /// Ends the stage: its tasks are killed and its result is an error with this reason. Without
    /// effect if it has its result.
    pub fn cancel(&self, reason: impl Into<String>) {
        self.orders.send(CancelStage { stage: self.id, reason: reason.into() });
    }

    /// Kills one running task, which fails its gang: the gang starts again if attempts are left.
    /// Without effect if the task does not run.
    pub fn kill_task(&self, partition: usize, reason: impl Into<String>) {
        if let Ok(partition) = u32::try_from(partition) {
            let (partition, reason) = (PartitionId(partition), reason.into());
            self.orders.send(KillPartition { stage: self.id, partition, reason });
        }
    }

    /// The stage's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the stage ended; `None` while it has no result. A runtime that is gone ended it, too.
    pub fn outcome(&self) -> Option<Result<(), StageFailure>> {
        // In this order: what was told before the teller went away is known then.
        let is_gone = self.outcome.has_changed().is_err();
        let known = self.outcome.borrow().clone();
        known.or_else(|| is_gone.then_some(Err(StageFailure::Shutdown)))
    }

    /// Waits until the stage has its result; see [`StageControl::outcome`]. Any number may wait.
    ///
    /// # Errors
    /// Why it has none.
    pub async fn ended(&self) -> Result<(), StageFailure> {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        ended.unwrap_or(Err(StageFailure::Shutdown))
    }

    /// What the stage does or waits for; `None` once it has its result and all of its tasks have
    /// ended, or the runtime is gone. A stage that has its result while killed tasks still run is
    /// in phase `Ended` with those tasks: they hold their slots.
    pub async fn status(&self) -> Option<StageStatus> {
        // No answer: the runtime is gone, and with it the stage.
        self.orders.scheduler().send(GetStageStatus(self.id)).await.ok().flatten()
    }

    /// Whom the stage's open sync waits for; `None` if none is open.
    pub async fn sync_status(&self) -> Option<SyncStatus> {
        // No answer: the runtime is gone, and with it the sync.
        self.orders.scheduler().send(GetSyncStatus(self.id)).await.ok().flatten()
    }

    /// What the tasks of the current attempt last reported with `report_progress`, by partition.
    pub fn progress(&self) -> Vec<Option<Progress>> {
        self.progress.get()
    }
}

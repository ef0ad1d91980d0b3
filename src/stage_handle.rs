//! A stage that was handed in.

use crate::task_context::StageShared;
use crate::{Progress, StageError, StageFailure, StageId, StageStatus};
use actix::Addr;
use phalanx_actors::{
    CancelStage, GetStageStatus, KillPartition, Payload, StageEnded, TaskSchedulerActor,
};
use phalanx_protocol::PartitionId;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;

/// A submitted stage. Await it (or [`wait`](StageHandle::wait) for it) to get the tasks' values in
/// partition order, or why there are none.
///
/// Dropping it lets the stage run on; [`cancel`](StageControl::cancel) ends it.
#[must_use = "the stage runs on, but its result is lost"]
pub struct StageHandle<T> {
    control: StageControl,
    ended: oneshot::Receiver<StageEnded>,
    value: PhantomData<fn() -> T>,
}

/// The controls of a stage, apart from its result: any number of clones, from any thread.
#[derive(Clone)]
pub struct StageControl {
    pub(crate) id: StageId,
    pub(crate) shared: Arc<StageShared>,
    pub(crate) scheduler: Addr<TaskSchedulerActor>,
}

impl<T: 'static> StageHandle<T> {
    pub(crate) fn new(control: StageControl, ended: oneshot::Receiver<StageEnded>) -> Self {
        StageHandle { control, ended, value: PhantomData }
    }

    /// The controls, to be kept while this handle is awaited elsewhere.
    pub fn control(&self) -> StageControl {
        self.control.clone()
    }

    /// Blocks the thread until the stage has ended.
    ///
    /// # Errors
    /// Why there is no result.
    pub fn wait(self) -> Result<Vec<T>, StageError> {
        pollster::block_on(self)
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
            .unwrap_or(Err((StageFailure::Shutdown, None)));
        Poll::Ready(ended.map(|values| values.into_iter().map(value_of).collect()).map_err(
            |(failure, source)| StageError {
                stage: self.control.id,
                name: self.control.shared.name.clone(),
                failure: Box::new(failure),
                source,
            },
        ))
    }
}

fn value_of<T: 'static>(payload: Payload) -> T {
    *payload.downcast().expect("the stage's own code made the value")
}

impl StageControl {
    /// The stage's id.
    pub fn id(&self) -> StageId {
        self.id
    }

    /// Ends the stage: its tasks are killed and its result is an error with this reason. Without
    /// effect if it has its result.
    pub fn cancel(&self, reason: impl Into<String>) {
        self.scheduler.do_send(CancelStage { stage: self.id, reason: reason.into() });
    }

    /// Kills one running task, which fails its gang: the gang starts again if attempts are left.
    /// Without effect if the task does not run.
    pub fn kill_task(&self, partition: usize, reason: impl Into<String>) {
        if let Ok(partition) = u32::try_from(partition) {
            let (partition, reason) = (PartitionId(partition), reason.into());
            self.scheduler.do_send(KillPartition { stage: self.id, partition, reason });
        }
    }

    /// What the stage does or waits for; `None` once it has its result and all of its tasks have
    /// ended.
    pub async fn status(&self) -> Option<StageStatus> {
        // No answer: the runtime is gone, and with it the stage.
        self.scheduler.send(GetStageStatus(self.id)).await.ok().flatten()
    }

    /// What the tasks last reported with `report_progress`, by partition.
    pub fn progress(&self) -> Vec<Option<Progress>> {
        self.shared.progress()
    }
}

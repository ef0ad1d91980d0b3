//! The same for code that blocks its thread.

use crate::reduce::{Number, Numbers};
use crate::{
    CheckpointError, CollectiveError, ReduceOp, Reducible, Restored, SyncError, TaskContext,
};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Deref;
use std::sync::Arc;

/// A task of a gang that has a thread of its own; see [`crate::BarrierTaskContext`] for what the
/// calls do. They block the thread and end at once when the task is killed.
#[derive(Clone)]
pub struct BarrierTaskContext {
    inner: crate::BarrierTaskContext,
}

impl Deref for BarrierTaskContext {
    type Target = TaskContext;

    fn deref(&self) -> &TaskContext {
        &self.inner
    }
}

impl BarrierTaskContext {
    pub(crate) fn new(inner: crate::BarrierTaskContext) -> Self {
        BarrierTaskContext { inner }
    }

    /// Waits until all tasks of the gang are here.
    ///
    /// # Errors
    /// If they cannot all come; see [`SyncError`].
    #[track_caller]
    pub fn barrier(&self) -> Result<(), SyncError> {
        pollster::block_on(self.inner.barrier())
    }

    /// Gives `value` to all and waits for the values of all, in partition order.
    ///
    /// # Errors
    /// If the tasks cannot all come, or a value cannot be sent or read.
    #[track_caller]
    pub fn all_gather<T: Serialize + DeserializeOwned>(
        &self,
        value: &T,
    ) -> Result<Vec<T>, CollectiveError> {
        pollster::block_on(self.inner.all_gather(value))
    }

    /// [`all_gather`](Self::all_gather) of raw bytes, without copying.
    ///
    /// # Errors
    /// If the tasks cannot all come, or the message is too large.
    #[track_caller]
    pub fn all_gather_bytes(&self, message: Bytes) -> Result<Arc<[Bytes]>, CollectiveError> {
        pollster::block_on(self.inner.all_gather_bytes(message))
    }

    /// Gives the value of partition `root` to all. The root passes `Some`, the others' are ignored.
    ///
    /// # Errors
    /// If the tasks cannot all come, disagree about the root, or the value cannot be sent or read.
    #[track_caller]
    pub fn broadcast<T: Serialize + DeserializeOwned>(
        &self,
        root: usize,
        value: Option<&T>,
    ) -> Result<T, CollectiveError> {
        pollster::block_on(self.inner.broadcast(root, value))
    }

    /// Folds the numbers or vectors of all tasks in partition order; the same bits for all.
    ///
    /// # Errors
    /// If the tasks cannot all come, their vectors differ in length, or an integer sum overflows.
    #[track_caller]
    pub fn all_reduce<V: Reducible>(&self, op: ReduceOp, value: &V) -> Result<V, CollectiveError> {
        pollster::block_on(self.inner.all_reduce(op, value))
    }

    /// [`all_reduce`](Self::all_reduce) of vectors that are not copied: the tasks of this process
    /// share the result.
    ///
    /// # Errors
    /// As `all_reduce`.
    #[track_caller]
    pub fn all_reduce_shared<N: Number>(
        &self,
        op: ReduceOp,
        numbers: &Numbers<N>,
    ) -> Result<Numbers<N>, CollectiveError> {
        pollster::block_on(self.inner.all_reduce_shared(op, numbers))
    }

    /// Blocks until the task shall end.
    pub fn wait_killed(&self) {
        pollster::block_on(self.inner.killed());
    }

    /// Saves `value` as the stage's checkpoint at `step`.
    ///
    /// # Errors
    /// If the value cannot be encoded or written, or another task has saved this step.
    pub fn checkpoint<T: Serialize + ?Sized>(
        &self,
        step: u64,
        value: &T,
    ) -> Result<(), CheckpointError> {
        let bytes = TaskContext::checkpoint_bytes(step, value)?;
        self.inner.save_checkpoint(step, bytes)
    }

    /// The last complete checkpoint of an earlier attempt; see
    /// [`restore`](crate::BarrierTaskContext::restore).
    ///
    /// # Errors
    /// If checkpoints are there but none can be read, or the value is not of this type.
    pub fn restore<T: DeserializeOwned>(&self) -> Result<Option<Restored<T>>, CheckpointError> {
        self.inner.restore_checkpoint()
    }
}

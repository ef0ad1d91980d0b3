//! What the tasks of a gang can do together, in async code.

use crate::reduce::{Number, Numbers, ReduceError};
use crate::{
    CheckpointError, ReduceOp, Reducible, Restored, SyncError, SyncMethod, TaskContext, codec,
};
use bytes::Bytes;
use phalanx_actors::SyncCall;
use phalanx_protocol::Release;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Deref;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use thiserror::Error;

/// A task of a gang, in async code. Has all of [`TaskContext`], and the calls by which the gang
/// meets.
///
/// Every task of the gang must make the same calls in the same order. A call ends when all have
/// made it; when that can no longer happen (a task returned, failed, was killed, made another call,
/// or did not come within the sync timeout) it fails at once and says who and why.
///
/// A call that is dropped half-way withdraws: the gang is not released without this task. Making
/// the same call again goes on where it was. Clones act as the same task: calls made at the same
/// time from several threads are one arrival.
#[derive(Clone)]
pub struct BarrierTaskContext {
    task: TaskContext,
}

/// Why a call that exchanges values failed.
#[derive(Debug, Error)]
pub enum CollectiveError {
    /// The gang did not meet.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The task's own value cannot be sent.
    #[error("the value cannot be turned into bytes: {0}")]
    Encode(String),
    /// Another task's value is not of the type expected here.
    #[error("the value of partition {partition} is not of the expected type: {reason}")]
    Decode {
        /// Whose.
        partition: usize,
        /// What is wrong with its bytes.
        reason: String,
    },
    /// The task's own value is larger than allowed. It was not sent.
    #[error(
        "the value has {size} bytes, allowed are {limit} (sync.max_message_size): send less, or raise the limit"
    )]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The tasks' vectors do not fit together, or their sum overflows.
    #[error(transparent)]
    Reduce(#[from] ReduceError),
    /// The root of a broadcast has nothing to send, or does not exist.
    #[error("broadcast from partition {root} of {num_tasks}: {problem}")]
    Broadcast {
        /// The root asked for.
        root: usize,
        /// World size.
        num_tasks: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

/// A call of `barrier()` under way.
struct Meeting(SyncCall);

impl Future for Meeting {
    type Output = Result<(), SyncError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_ok(drop)
    }
}

impl Deref for BarrierTaskContext {
    type Target = TaskContext;

    fn deref(&self) -> &TaskContext {
        &self.task
    }
}

impl BarrierTaskContext {
    pub(crate) fn new(task: TaskContext) -> Self {
        BarrierTaskContext { task }
    }

    /// Waits until all tasks of the gang are here.
    ///
    /// # Errors
    /// If they cannot all come; see [`SyncError`].
    #[inline]
    #[track_caller]
    pub fn barrier(&self) -> impl Future<Output = Result<(), SyncError>> + Send + use<> {
        let call = self.task.task.sync(SyncMethod::Barrier, Bytes::new(), Location::caller());
        Meeting(call)
    }

    /// Gives `value` to all and waits for the values of all, in partition order. All tasks must use
    /// the same type.
    ///
    /// # Errors
    /// If the tasks cannot all come, or a value cannot be sent or read.
    #[track_caller]
    pub fn all_gather<T>(
        &self,
        value: &T,
    ) -> impl Future<Output = Result<Vec<T>, CollectiveError>> + Send + use<T>
    where
        T: Serialize + DeserializeOwned,
    {
        let call = self.exchange(SyncMethod::AllGather, encode(value), Location::caller());
        async move {
            let messages = call.await?;
            (0..).zip(messages.iter()).map(|(partition, bytes)| decode(partition, bytes)).collect()
        }
    }

    /// [`all_gather`](Self::all_gather) of raw bytes. Nothing is copied: all tasks in this process
    /// share the result.
    ///
    /// # Errors
    /// If the tasks cannot all come, or the message is too large.
    #[track_caller]
    pub fn all_gather_bytes(
        &self,
        message: Bytes,
    ) -> impl Future<Output = Result<Arc<[Bytes]>, CollectiveError>> + Send + use<> {
        self.exchange(SyncMethod::AllGather, Ok(message), Location::caller())
    }

    /// Gives the value of partition `root` to all. The root passes `Some`, the others' are ignored.
    ///
    /// # Errors
    /// If the tasks cannot all come, disagree about the root, or the value cannot be sent or read.
    #[track_caller]
    pub fn broadcast<T>(
        &self,
        root: usize,
        value: Option<&T>,
    ) -> impl Future<Output = Result<T, CollectiveError>> + Send + use<T>
    where
        T: Serialize + DeserializeOwned,
    {
        let (rank, num_tasks) = (self.rank(), self.world_size());
        let problem = move |problem| CollectiveError::Broadcast { root, num_tasks, problem };
        // Every message begins with its sender's root, so that a disagreement is seen.
        let named = (root as u64).to_le_bytes();
        let message = match value {
            _ if root >= num_tasks => Err(problem("there is no such partition")),
            None if rank == root => Err(problem("its value is None")),
            Some(value) if rank == root => {
                encode(value).map(|bytes| Bytes::from([&named[..], &bytes].concat()))
            }
            Some(_) | None => Ok(Bytes::copy_from_slice(&named)),
        };
        let call = self.exchange(SyncMethod::Broadcast, message, Location::caller());
        async move {
            let messages = call.await?;
            if messages.iter().any(|message| !message.starts_with(&named)) {
                return Err(problem("another task named another root"));
            }
            decode(root, &messages[root][named.len()..])
        }
    }

    /// Folds the numbers or vectors of all tasks, element by element, in partition order: every
    /// task gets the same result, to the last bit, in every run.
    ///
    /// # Errors
    /// If the tasks cannot all come, their vectors differ in length, or an integer sum overflows.
    #[track_caller]
    pub fn all_reduce<V: Reducible>(
        &self,
        op: ReduceOp,
        value: &V,
    ) -> impl Future<Output = Result<V, CollectiveError>> + Send + use<V> {
        let call = self.exchange(SyncMethod::AllReduce, Ok(value.to_bytes()), Location::caller());
        let shared = self.task.shared.clone();
        async move { Ok(shared.fold.fold_value(op, &call.await?)?) }
    }

    /// [`all_reduce`](Self::all_reduce) of vectors that are not copied: the tasks of this process
    /// share the result. May meet tasks that call `all_reduce` with the same op and type.
    ///
    /// # Errors
    /// As `all_reduce`.
    #[track_caller]
    pub fn all_reduce_shared<N: Number>(
        &self,
        op: ReduceOp,
        numbers: &Numbers<N>,
    ) -> impl Future<Output = Result<Numbers<N>, CollectiveError>> + Send + use<N> {
        let call = self.exchange(SyncMethod::AllReduce, Ok(numbers.to_bytes()), Location::caller());
        let shared = self.task.shared.clone();
        async move { Ok(shared.fold.fold(op, &call.await?)?) }
    }

    /// Saves `value` as the stage's checkpoint at `step`; at most one task does so per step,
    /// usually rank 0. It is complete when this returns.
    ///
    /// # Errors
    /// If the value cannot be encoded or written, or another task has saved this step.
    pub async fn checkpoint<T: Serialize + ?Sized>(
        &self,
        step: u64,
        value: &T,
    ) -> Result<(), CheckpointError> {
        let bytes = TaskContext::checkpoint_bytes(step, value)?;
        let task = self.task.clone();
        off_thread(move || task.save_checkpoint(step, bytes)).await
    }

    /// The last complete checkpoint that an earlier attempt left behind, or with
    /// [`Stage::resume`](crate::Stage::resume) an earlier run: the same one for every task of this
    /// attempt, whatever the gang saves meanwhile.
    ///
    /// # Errors
    /// If checkpoints are there but none can be read, or the value is not of this type.
    pub async fn restore<T: DeserializeOwned + Send + 'static>(
        &self,
    ) -> Result<Option<Restored<T>>, CheckpointError> {
        let task = self.task.clone();
        off_thread(move || task.restore_checkpoint()).await
    }

    fn exchange(
        &self,
        method: SyncMethod,
        message: Result<Bytes, CollectiveError>,
        caller: &'static Location<'static>,
    ) -> impl Future<Output = Result<Arc<[Bytes]>, CollectiveError>> + Send + use<> {
        let limit = self.task.shared.max_message_size;
        let call = message.and_then(|message| match message.len() {
            size if size > limit => Err(CollectiveError::TooLarge { size, limit }),
            _ => Ok(self.task.task.sync(method, message, caller)),
        });
        async move {
            let Release { messages, .. } = call?.await?;
            Ok(messages.into_shared())
        }
    }
}

/// File work must not hold up the other tasks of the thread.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CheckpointError> + Send + 'static,
) -> Result<T, CheckpointError> {
    // A context may be used on a thread without tokio: then there is nobody to hold up.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return work() };
    match runtime.spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(CheckpointError::Interrupted { reason: error.to_string() }),
    }
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, CollectiveError> {
    codec::encode(value).map_err(|error| CollectiveError::Encode(error.to_string()))
}

fn decode<T: DeserializeOwned>(partition: usize, bytes: &[u8]) -> Result<T, CollectiveError> {
    codec::decode(bytes)
        .map_err(|error| CollectiveError::Decode { partition, reason: error.to_string() })
}

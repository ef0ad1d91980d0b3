//! What every task knows and can do, in any stage.

use crate::reduce::SharedFold;
use crate::remote_stage::StageSide;
use crate::{CheckpointError, Restored, StageAttemptId, StageId, SyncError, codec};
use bytes::Bytes;
use phalanx_actors::Task;
use phalanx_protocol::{
    Addresses, ExecutorId, PartitionId, TaskAttemptId, TaskFailure, TaskInfo, TaskOutcome,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A running task: who it is, what it was given, whether it was killed.
#[derive(Clone)]
pub struct TaskContext {
    pub(crate) task: Arc<Task>,
    pub(crate) shared: Arc<StageShared>,
}

/// How far a task is: `done` of `total`, in units of the task's choice.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
}

/// What the tasks of one stage share in this process. Gone, with the checkpoints kept in memory,
/// once the stage and its tasks have ended.
pub(crate) struct StageShared {
    pub(crate) max_message_size: usize,
    pub(crate) side: StageSide,
    pub(crate) fold: SharedFold,
}

/// What the tasks last reported, for as long as someone can look.
#[derive(Debug)]
pub(crate) struct StageProgress(Mutex<(u32, Vec<Option<Progress>>)>);

impl StageProgress {
    pub(crate) fn new(num_tasks: usize) -> Arc<Self> {
        Arc::new(StageProgress(Mutex::new((0, vec![None; num_tasks]))))
    }

    pub(crate) fn get(&self) -> Vec<Option<Progress>> {
        self.lock().1.clone()
    }

    /// A task of this attempt starts: what earlier attempts reported is past.
    pub(crate) fn begin(&self, attempt: u32) {
        let mut progress = self.lock();
        if progress.0 < attempt {
            progress.0 = attempt;
            progress.1.fill(None);
        }
    }

    pub(crate) fn report(&self, attempt: u32, rank: usize, report: Progress) {
        let mut progress = self.lock();
        if progress.0 == attempt {
            progress.1[rank] = Some(report);
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u32, Vec<Option<Progress>>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TaskContext {
    /// Of a task that is about to begin.
    pub(crate) fn begin(task: Arc<Task>, shared: Arc<StageShared>) -> Self {
        shared.side.begin(task.attempt());
        TaskContext { task, shared }
    }

    /// The task's partition, `0..num_tasks`.
    pub fn partition_id(&self) -> PartitionId {
        self.task.partition()
    }

    /// The partition as an index: the rank in the gang.
    pub fn rank(&self) -> usize {
        self.task.partition().0 as usize
    }

    /// How many tasks the stage has.
    pub fn num_tasks(&self) -> u32 {
        self.task.num_tasks()
    }

    /// How many tasks the stage has, as a count: the world size.
    pub fn world_size(&self) -> usize {
        self.task.num_tasks() as usize
    }

    /// The stage.
    pub fn stage_id(&self) -> StageId {
        self.task.attempt().stage
    }

    /// Which attempt of the stage this is, from 0. Always 0 in a plain stage.
    pub fn stage_attempt_number(&self) -> u32 {
        self.task.attempt().attempt
    }

    /// The stage and its attempt.
    pub fn stage_attempt(&self) -> StageAttemptId {
        self.task.attempt()
    }

    /// The task attempt, unique in the runtime.
    pub fn task_attempt_id(&self) -> TaskAttemptId {
        self.task.task_attempt()
    }

    /// The executor that runs it.
    pub fn executor(&self) -> ExecutorId {
        self.task.executor()
    }

    /// Where every task of the gang runs, by partition: executor and its address. Empty in a plain
    /// stage.
    pub fn task_infos(&self) -> &[TaskInfo] {
        self.task.task_infos()
    }

    /// Cpus the task was given.
    pub fn cpus(&self) -> u32 {
        self.task.cpus()
    }

    /// Named resources the task was given: name to addresses.
    pub fn resources(&self) -> &Addresses {
        self.task.addresses()
    }

    /// Whether the task shall end: it was killed, its gang failed, its stage was cancelled. Code
    /// that computes for long without syncing looks here from time to time.
    pub fn is_killed(&self) -> bool {
        self.task.is_killed()
    }

    /// Resolves when the task shall end; never before.
    pub fn killed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.task.killed().cancelled_owned()
    }

    /// An error if the task shall end: `ctx.check_killed()?` in a long computation.
    ///
    /// # Errors
    /// [`SyncError::Killed`] with the reason.
    pub fn check_killed(&self) -> Result<(), SyncError> {
        let (attempt, partition) = (self.stage_attempt(), self.partition_id());
        let killed = |reason| SyncError::Killed { attempt, partition, reason };
        self.kill_reason().map_or(Ok(()), |reason| Err(killed(reason)))
    }

    /// Runs `future`, which knows nothing of kills, but drops it when the task shall end:
    /// `ctx.until_killed(sleep(pause)).await?`.
    ///
    /// # Errors
    /// [`SyncError::Killed`] with the reason.
    pub async fn until_killed<F: Future>(&self, future: F) -> Result<F::Output, SyncError> {
        let ended = self.task.killed().run_until_cancelled(future).await;
        match ended {
            Some(output) => Ok(output),
            None => Err(self
                .check_killed()
                .err()
                .unwrap_or(SyncError::NotOpen { attempt: self.stage_attempt() })),
        }
    }

    /// Why the task shall end, if it shall.
    pub fn kill_reason(&self) -> Option<String> {
        self.task.kill_reason().map(str::to_owned)
    }

    /// Has `listener` called once when the task's code has ended, with how it ended. In the order
    /// in which they were added; a panic in one is logged and changes nothing.
    pub fn on_completion(&self, listener: impl FnOnce(&TaskOutcome) + Send + 'static) {
        self.task.on_completion(listener);
    }

    /// Has `listener` called once if the task fails, with why.
    pub fn on_failure(&self, listener: impl FnOnce(&TaskFailure) + Send + 'static) {
        self.task.on_completion(move |outcome| match outcome {
            TaskOutcome::Succeeded => {}
            TaskOutcome::Failed(failure) => listener(failure),
        });
    }

    /// Tells those who watch the stage how far this task is. Cheap: keeps only the last.
    pub fn report_progress(&self, done: u64, total: u64) {
        let (attempt, partition) = (self.stage_attempt(), self.partition_id());
        self.shared.side.report_progress(attempt, partition, Progress { done, total });
    }

    pub(crate) fn checkpoint_bytes<T: Serialize + ?Sized>(
        step: u64,
        value: &T,
    ) -> Result<Bytes, CheckpointError> {
        codec::encode(value)
            .map_err(|error| CheckpointError::Encode { step, reason: error.to_string() })
    }

    pub(crate) fn save_checkpoint(&self, step: u64, bytes: Bytes) -> Result<(), CheckpointError> {
        self.shared.side.save(self.stage_attempt(), self.partition_id(), step, bytes)
    }

    pub(crate) fn restore_checkpoint<T: DeserializeOwned>(
        &self,
    ) -> Result<Option<Restored<T>>, CheckpointError> {
        let restored = self.shared.side.restore(self.stage_attempt(), self.partition_id())?;
        let Some((step, bytes)) = restored else { return Ok(None) };
        let value = codec::decode(&bytes)
            .map_err(|error| CheckpointError::Decode { step, reason: error.to_string() })?;
        Ok(Some(Restored { step, value }))
    }
}

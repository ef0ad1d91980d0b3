//! What happens in a runtime, told to those who watch.

use crate::{
    Epoch, ExecutorId, ExecutorResources, FailureCause, Incarnation, JobFailure, JobId,
    PartitionId, PartitionRanges, PlannedStage, StageAttemptId, StageFailure, StageId, StageSpec,
    SyncError, SyncMethod, TaskAttemptId, TaskOutcome,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Something that happened. Told in the order in which each machine decided it; events of a
/// stage's rounds come from another machine than the rest and may be seen slightly before or after.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RuntimeEvent {
    /// An executor brought its slots.
    ExecutorJoined {
        /// Which.
        executor: ExecutorId,
        /// Which life of it.
        incarnation: Incarnation,
        /// What it has.
        resources: ExecutorResources,
    },
    /// An executor is gone, with all that ran on it.
    ExecutorLost {
        /// Which.
        executor: ExecutorId,
        /// Which life of it.
        incarnation: Incarnation,
        /// Why.
        reason: String,
    },
    /// A stage was handed in.
    StageSubmitted {
        /// Which.
        stage: StageId,
        /// What it asks for.
        spec: StageSpec,
    },
    /// All executors together have too few slots; it is looked again.
    StageDeferred {
        /// Which.
        stage: StageId,
        /// Slots needed at once.
        required: u64,
        /// Slots there are, busy ones included.
        available: u64,
        /// How many more checks may fail.
        checks_left: u32,
        /// The pause until the next.
        next_check: Duration,
    },
    /// There are enough slots, but not free ones: the stage waits its turn.
    StageQueued {
        /// Which attempt waits.
        attempt: StageAttemptId,
        /// Slots needed at once.
        required: u64,
        /// Slots free now.
        free: u64,
    },
    /// All tasks of a gang, or the first of a plain stage, were launched.
    AttemptStarted {
        /// Which.
        attempt: StageAttemptId,
        /// World size.
        num_tasks: u32,
    },
    /// A task was launched.
    TaskStarted {
        /// Its stage attempt.
        attempt: StageAttemptId,
        /// Its partition.
        partition: PartitionId,
        /// Its attempt id.
        task_attempt: TaskAttemptId,
        /// Where.
        executor: ExecutorId,
    },
    /// A task ended.
    TaskEnded {
        /// Its stage attempt.
        attempt: StageAttemptId,
        /// Its partition.
        partition: PartitionId,
        /// Its attempt id.
        task_attempt: TaskAttemptId,
        /// Where.
        executor: ExecutorId,
        /// How.
        outcome: TaskOutcome,
    },
    /// A killed task has not ended within `kill.grace`: its slot stays taken.
    TaskIgnoresKill {
        /// Its stage attempt.
        attempt: StageAttemptId,
        /// Its partition.
        partition: PartitionId,
        /// Its attempt id.
        task_attempt: TaskAttemptId,
        /// Where.
        executor: ExecutorId,
    },
    /// A stage attempt failed.
    AttemptFailed {
        /// The first failure.
        cause: FailureCause,
        /// Whether another attempt follows.
        will_retry: bool,
    },
    /// The first task of a round has arrived.
    RoundOpened {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The round.
        epoch: Epoch,
        /// The call.
        method: SyncMethod,
    },
    /// All tasks of a round have arrived and go on.
    RoundReleased {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The round.
        epoch: Epoch,
        /// The call.
        method: SyncMethod,
    },
    /// A round failed: all who waited in it have this error.
    RoundFailed {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The round.
        epoch: Epoch,
        /// What they were told.
        error: SyncError,
    },
    /// A job on datasets has passed the checks of all of its stages.
    JobStarted {
        /// Which.
        job: JobId,
        /// Its name.
        name: String,
        /// Its stages, parents before children; also those whose outputs are there and which are
        /// skipped.
        stages: Vec<PlannedStage>,
    },
    /// Outputs of a map stage are forgotten, because some of them are lost. They are made again
    /// when a job needs them.
    OutputsForgotten {
        /// The map stage.
        stage: StageId,
        /// Which outputs; all of a barrier stage.
        partitions: PartitionRanges,
    },
    /// A job has its result.
    JobEnded {
        /// Which.
        job: JobId,
        /// Why it has none, if it failed.
        failure: Option<JobFailure>,
    },
    /// A stage has its result.
    StageCompleted {
        /// Which.
        stage: StageId,
        /// How many attempts it took; 0 if none was started.
        attempts: u32,
        /// Why it has none, if it failed.
        failure: Option<StageFailure>,
    },
}

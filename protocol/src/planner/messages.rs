//! What the planner is told, and what it says.

use crate::{
    ExecutorLife, FetchFailed, JobFailure, JobId, PartitionId, PlannedStage, RuntimeEvent,
    StageFailure, StageId, StageSpec, SubmitStage,
};
use serde::{Deserialize, Serialize};

/// Client to planner: run these stages. Ends with one `JobEnded` for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SubmitJob {
    /// The job's id, unique within the runtime.
    pub job: JobId,
    /// A name for logs.
    pub name: String,
    /// Its stages, parents before children; the last one is the result stage.
    pub stages: Vec<JobStage>,
}

/// One stage of a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobStage {
    /// Its place in the job.
    pub planned: PlannedStage,
    /// What it asks for. Of a map stage that is known already, the first counts.
    pub spec: StageSpec,
}

/// What can happen to the planner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PlannerEvent {
    /// A job is handed in. Ignored if its id is known.
    SubmitJob(SubmitJob),
    /// A job shall end. Ignored if it has.
    CancelJob {
        /// Which.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// A stage fits, and waits for its input.
    AwaitsInput(StageId),
    /// A task of a stage has not found its input: the stage waits for it again.
    InputLost {
        /// Which stage.
        stage: StageId,
        /// What was not found.
        failed: FetchFailed,
    },
    /// A stage has ended.
    StageEnded {
        /// Which.
        stage: StageId,
        /// The number that its next attempt would have.
        next_attempt: u32,
        /// Of a map stage: which outputs were made where.
        result: Result<Vec<(PartitionId, ExecutorLife)>, StageFailure>,
    },
    /// An executor is gone, with the outputs that it held.
    ExecutorLost(ExecutorLife),
    /// No job can need the outputs of this map stage any more.
    DatasetDropped(StageId),
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PlannerEffect {
    /// Hand a stage to the scheduler.
    SubmitStage(SubmitStage),
    /// Tell the scheduler that the stage's input is ready.
    InputReady(StageId),
    /// Have the scheduler end a stage.
    CancelStage {
        /// Which.
        stage: StageId,
        /// Why.
        reason: String,
    },
    /// Drop these outputs of a map stage.
    DropOutputs {
        /// Which stage.
        stage: StageId,
        /// Which outputs.
        partitions: Vec<PartitionId>,
    },
    /// Drop all that is kept for a stage, its code and its outputs.
    ForgetStage(StageId),
    /// Tell whoever submitted the job.
    JobEnded {
        /// Which.
        job: JobId,
        /// Whether it succeeded.
        result: Result<(), JobFailure>,
    },
    /// Tell those who watch.
    Emit(RuntimeEvent),
}

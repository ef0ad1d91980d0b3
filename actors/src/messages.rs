//! Envelopes: what actix needs around the plain messages of `phalanx-protocol`.

use crate::run_task::{BoxError, Payload, TaskBody, TaskOutput};
use crate::{ContextBarrierStateActor, ExecutorActor, GangBarrier, PlannerActor};
use actix::prelude::*;
use phalanx_protocol::{
    Epoch, ExecutorId, ExecutorJoined, ExecutorStatus, Incarnation, JobFailure, JobId, KillTask,
    LaunchTasks, OpenBarrier, PartitionId, PartitionRanges, RequestToSync, StageAttemptId,
    StageFailure, StageId, StageStatus, SubmitJob, SubmitStage, SyncReply, TaskReport,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// A plain message that nobody answers: `addr.do_send(Tell(StageCompleted { .. }))`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell<T>(pub T);

impl<T: 'static> Message for Tell<T> {
    type Result = ();
}

/// A plain message and its answer: `addr.send(Ask(request_to_sync)).await`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask<T>(pub T);

impl Message for Ask<RequestToSync> {
    type Result = SyncReply;
}

/// Opens the attempt and gives the address of its child; `None` if it was open or the coordinator
/// has been shut down.
impl Message for Ask<OpenBarrier> {
    type Result = Option<Addr<ContextBarrierStateActor>>;
}

/// To a [`ContextBarrierStateActor`]: whom does the open round wait for? `None`: none is open.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<PartitionRanges>")]
pub struct GetMissing;

/// Client to scheduler or coordinator: whom does the stage's open round wait for? `None`: none is
/// open.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<SyncStatus>")]
pub struct GetSyncStatus(pub StageId);

/// A round that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// The stage attempt.
    pub attempt: StageAttemptId,
    /// The round.
    pub epoch: Epoch,
    /// Who has not arrived.
    pub missing: PartitionRanges,
}

/// Child to coordinator: this attempt's actor is gone, by its end or by a panic.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct ChildStopped(pub StageAttemptId);

/// Coordinator to scheduler: the barrier of a running attempt is gone.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct BarrierLost {
    /// The attempt.
    pub attempt: StageAttemptId,
    /// What is known of it.
    pub reason: String,
}

/// Client to scheduler: run a stage. The result arrives on `ended`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Submit {
    /// What to run.
    pub submit: SubmitStage,
    /// The tasks' code.
    pub body: TaskBody,
    /// Where the result goes.
    pub ended: oneshot::Sender<StageEnded>,
    /// Where all who watch see that and how it ended.
    pub outcome: watch::Sender<Option<Result<(), StageFailure>>>,
}

/// How a stage ended.
pub struct StageEnded {
    /// The tasks' values by partition, or why there are none and the error of the task that failed
    /// first.
    pub result: Result<Vec<Payload>, (StageFailure, Option<BoxError>)>,
    /// The code, given back to be dropped by who submitted it: what it captured may take its time.
    /// `None` if it never got there.
    pub body: Option<TaskBody>,
}

/// Planner to scheduler: run a stage of a job once its input is ready. The planner is told how it
/// goes by [`PlannerEvent`](phalanx_protocol::PlannerEvent)s and [`StageOfJobEnded`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct SubmitOfJob {
    /// What to run.
    pub submit: SubmitStage,
    /// The tasks' code; that of a map stage returns [`MapOutput`](crate::MapOutput)s.
    pub body: TaskBody,
    /// Whom to tell.
    pub planner: Addr<PlannerActor>,
}

/// Planner to scheduler: the input of this stage of a job is ready. Ignored if it does not wait.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct InputReady(pub StageId);

/// Scheduler to planner: a stage of a job has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StageOfJobEnded {
    /// Which.
    pub stage: StageId,
    /// The number that its next attempt would have.
    pub next_attempt: u32,
    /// How.
    pub ended: StageEnded,
}

/// Client to planner: run a job. The result arrives on `ended`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RunJob {
    /// What to run.
    pub submit: SubmitJob,
    /// The code of its stages, in their order. Of a map stage that the scheduler has already it is
    /// not taken.
    pub bodies: Vec<TaskBody>,
    /// Where the result goes.
    pub ended: oneshot::Sender<JobEnded>,
    /// Where all who watch see that and how it ended.
    pub outcome: watch::Sender<Option<Result<(), JobFailure>>>,
}

/// How a job ended.
pub struct JobEnded {
    /// The values of the result stage's tasks by partition, or why there are none and the error of
    /// the task that failed first.
    pub result: Result<Vec<Payload>, (JobFailure, Option<BoxError>)>,
}

/// Client to planner: what is there?
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "JobsStatus")]
pub struct GetJobs;

/// The jobs of a runtime, and what is kept for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsStatus {
    /// The jobs that have no result yet, by id.
    pub jobs: Vec<JobStatus>,
    /// Map stages that are known: a job needs them, or their dataset is still there.
    pub map_stages: usize,
    /// Outputs of map stages that are kept, one per task.
    pub map_outputs: usize,
}

/// A job that has no result yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Which.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// Its stages that are not done, parents before children.
    pub stages: Vec<StageId>,
}

/// Client to scheduler: end this stage. Ignored if it has its result.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct CancelStage {
    /// Which.
    pub stage: StageId,
    /// Why; the stage's error repeats it.
    pub reason: String,
}

/// Client to scheduler: end one running task, which fails its gang. Ignored if it does not run.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct KillPartition {
    /// Its stage.
    pub stage: StageId,
    /// Its partition.
    pub partition: PartitionId,
    /// Why; the task is told.
    pub reason: String,
}

/// Client to scheduler: what is this stage at? `None`: it is over, or never was.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<StageStatus>")]
pub struct GetStageStatus(pub StageId);

/// Client to scheduler: what is there, and what does it do?
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "RuntimeStatus")]
pub struct GetStatus;

/// What there is and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeStatus {
    /// The executors, by id.
    pub executors: Vec<ExecutorStatus>,
    /// The stages that are not over, by id.
    pub stages: Vec<StageStatus>,
}

/// Executor to scheduler: here are slots, and this is how to use them.
#[derive(Message)]
#[rtype(result = "()")]
pub struct JoinExecutor {
    /// What it has.
    pub joined: ExecutorJoined,
    /// How to reach it.
    pub link: ExecutorLink,
}

/// How the scheduler reaches an executor, wherever it is.
#[derive(Clone)]
pub struct ExecutorLink {
    /// Takes tasks to run.
    pub launch: Recipient<LaunchOnExecutor>,
    /// Takes kills.
    pub kill: Recipient<Tell<KillTask>>,
    /// Gives the executor up.
    pub retire: Recipient<RetireExecutor>,
}

impl ExecutorLink {
    /// The link to a local executor.
    pub(crate) fn local(addr: Addr<ExecutorActor>) -> Self {
        ExecutorLink {
            launch: addr.clone().recipient(),
            kill: addr.clone().recipient(),
            retire: addr.recipient(),
        }
    }
}

/// Scheduler to executor: [`LaunchTasks`] with the code and the way to the gang's barrier.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LaunchOnExecutor {
    /// What to run.
    pub launch: LaunchTasks,
    /// The stage's name.
    pub name: Arc<str>,
    /// The code.
    pub body: TaskBody,
    /// The gang's barrier; `None` for plain stages.
    pub barrier: Option<GangBarrier>,
}

/// Scheduler to executor: you have been given up. A local one comes back as its next incarnation,
/// on new threads, if it `comes_back`.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct RetireExecutor {
    /// Whether a next incarnation is started.
    pub comes_back: bool,
}

/// Client to scheduler: take this executor away; what runs on it is lost. Answers whether it was
/// there.
#[derive(Clone, Debug, Message)]
#[rtype(result = "bool")]
pub struct RemoveExecutor {
    /// Which.
    pub executor: ExecutorId,
    /// Why.
    pub reason: String,
}

/// Executor to scheduler: an executor is gone, with all that ran on it.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ExecutorLost {
    /// Which.
    pub executor: ExecutorId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Why.
    pub reason: String,
}

/// Executor to scheduler: [`TaskReport`] with the value or error itself.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TaskEnded {
    /// The report.
    pub report: TaskReport,
    /// What the task returned; `None` if it did not get that far.
    pub output: Option<TaskOutput>,
}

/// Client to scheduler: end everything, take nothing new. Answered when no task runs any more.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown;

//! A job that was handed in.

use crate::stage_handle::{WAITER_KILLED, block_until_killed};
use crate::task_context::StageProgress;
use crate::{BoxError, FailureCause, Progress, Runtime, StageFailure, StageId};
use actix::Addr;
use phalanx_actors::{JobEnded, Orders, Payload, PlannerActor, Tell, runs_async_tasks};
use phalanx_protocol::{JobFailure, JobId, PlannerEvent};
use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::{oneshot, watch};

/// A submitted job. Await it (or [`wait`](JobHandle::wait) for it) to get its value, or why there
/// is none.
///
/// Dropping it lets the job run on; [`cancel`](JobControl::cancel) ends it. It does not keep the
/// runtime, which ends with its last [`Runtime`] or [`Dataset`](crate::Dataset).
#[must_use = "the job runs on, but its result is lost"]
pub struct JobHandle<R> {
    control: JobControl,
    ended: oneshot::Receiver<JobEnded>,
    /// Taken when the job has ended.
    finish: Option<Finish<R>>,
}

type Finish<R> = Box<dyn FnOnce(Vec<Payload>) -> R + Send>;
type Outcome = Option<Result<(), JobFailure>>;

/// The controls of a job, apart from its result: any number of clones, from any thread.
#[derive(Clone)]
pub struct JobControl {
    id: JobId,
    name: Arc<str>,
    stages: Arc<[StageId]>,
    /// Of the result stage.
    progress: Arc<StageProgress>,
    planner: Addr<PlannerActor>,
    orders: Orders,
    outcome: watch::Receiver<Outcome>,
}

impl<R: 'static> JobHandle<R> {
    pub(super) fn new(
        runtime: &Runtime,
        id: JobId,
        name: String,
        stages: Vec<StageId>,
        progress: Arc<StageProgress>,
        finish: impl FnOnce(Vec<Payload>) -> R + Send + 'static,
    ) -> (oneshot::Sender<JobEnded>, watch::Sender<Outcome>, Self) {
        let (tell, ended) = oneshot::channel();
        let (outcome, watched) = watch::channel(None);
        let (planner, orders) = (runtime.planner().clone(), runtime.orders().clone());
        let (name, stages) = (name.into(), stages.into());
        let control = JobControl { id, name, stages, progress, planner, orders, outcome: watched };
        let finish: Option<Finish<R>> = Some(Box::new(finish));
        (tell, outcome, JobHandle { control, ended, finish })
    }

    /// The same job, and then this of its value.
    pub(super) fn then<S: 'static>(
        self,
        next: impl FnOnce(R) -> S + Send + 'static,
    ) -> JobHandle<S> {
        let JobHandle { control, ended, finish } = self;
        let finish = finish
            .map(|finish| Box::new(move |values: Vec<Payload>| next(finish(values))) as Finish<S>);
        JobHandle { control, ended, finish }
    }

    /// The controls, to be kept while this handle is awaited elsewhere.
    pub fn control(&self) -> JobControl {
        self.control.clone()
    }

    /// Blocks the thread until the job has ended. Refused on a thread that runs this runtime's
    /// async tasks, where the job might wait for this very thread; other async code it holds up:
    /// await the handle there. In a blocking task it waits as long as the task is not killed, and
    /// then cancels the job; the job needs slots that the task does not hold, and waits for ever
    /// if there are none.
    ///
    /// # Errors
    /// Why there is no result.
    pub fn wait(self) -> Result<R, JobError> {
        if runs_async_tasks() {
            let reason = "wait() would block a thread that runs async tasks; await the handle";
            let failure = JobFailure::Refused { reason: reason.to_owned() };
            return Err(self.control.error(failure, None));
        }
        let control = self.control();
        block_until_killed(self).unwrap_or_else(|| {
            let reason = WAITER_KILLED.to_owned();
            control.cancel(reason.clone());
            Err(control.error(JobFailure::Cancelled { reason }, None))
        })
    }
}

impl<R> Deref for JobHandle<R> {
    type Target = JobControl;

    fn deref(&self) -> &JobControl {
        &self.control
    }
}

impl<R: 'static> Future for JobHandle<R> {
    type Output = Result<R, JobError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // No answer: the runtime is gone.
        let ended = match ready!(Pin::new(&mut self.ended).poll(cx)) {
            Ok(ended) => ended.result,
            Err(_) => Err((JobFailure::Shutdown, None)),
        };
        let finish = self.finish.take().expect("a handle is not polled after its result");
        Poll::Ready(match ended {
            Ok(values) => Ok(finish(values)),
            Err((failure, source)) => Err(self.control.error(failure, source)),
        })
    }
}

impl JobControl {
    /// The job's id.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// The job's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its stages, parents before children; the last one is the result stage. Those whose outputs
    /// are there already are skipped.
    pub fn stages(&self) -> &[StageId] {
        &self.stages
    }

    /// Ends the job, with all of its stages that no other job needs. Without effect if it has its
    /// result.
    pub fn cancel(&self, reason: impl Into<String>) {
        let (job, reason) = (self.id, reason.into());
        let cancel = Tell(PlannerEvent::CancelJob { job, reason });
        self.orders.send_to_planner(&self.planner, cancel);
    }

    /// How the job ended; `None` while it has no result. A runtime that is gone ended it, too.
    pub fn outcome(&self) -> Option<Result<(), JobFailure>> {
        // In this order: what was told before the teller went away is known then.
        let is_gone = self.outcome.has_changed().is_err();
        let known = self.outcome.borrow().clone();
        known.or_else(|| is_gone.then_some(Err(JobFailure::Shutdown)))
    }

    /// Waits until the job has its result; see [`JobControl::outcome`]. Any number may wait.
    ///
    /// # Errors
    /// Why it has none.
    pub async fn ended(&self) -> Result<(), JobFailure> {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        ended.unwrap_or(Err(JobFailure::Shutdown))
    }

    /// What the tasks of the result stage's current attempt last reported with `report_progress`,
    /// by partition. Only code that has a context reports: that of a gang.
    pub fn progress(&self) -> Vec<Option<Progress>> {
        self.progress.get()
    }

    fn error(&self, failure: JobFailure, source: Option<BoxError>) -> JobError {
        let (job, name) = (self.id, self.name.to_string());
        JobError { job, name, failure: Box::new(failure), source }
    }
}

impl fmt::Debug for JobControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobControl")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("stages", &self.stages)
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for JobHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JobHandle").field(&self.control).finish()
    }
}

/// A job that ended without a result: which stage, which task, which attempt, why, and the task's
/// own error as [`Error::source`].
#[derive(Debug)]
pub struct JobError {
    job: JobId,
    name: String,
    /// Boxed to keep results small.
    failure: Box<JobFailure>,
    source: Option<BoxError>,
}

impl JobError {
    /// The job.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// What ended it.
    pub fn failure(&self) -> &JobFailure {
        &self.failure
    }

    /// Why the stage failed that made the job fail, if one did.
    pub fn stage_failure(&self) -> Option<&StageFailure> {
        match &*self.failure {
            JobFailure::Stage { failure, .. } => Some(failure),
            JobFailure::UnsupportedChain { .. }
            | JobFailure::Refused { .. }
            | JobFailure::Cancelled { .. }
            | JobFailure::Shutdown => None,
        }
    }

    /// The task that failed first in the last attempt of the stage that failed, if one did.
    pub fn first_cause(&self) -> Option<&FailureCause> {
        self.stage_failure().and_then(StageFailure::first_cause)
    }

    /// Whether someone cancelled it.
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.failure, JobFailure::Cancelled { .. })
    }

    /// The error that the first failing task returned, if it returned one.
    pub fn into_source(self) -> Option<BoxError> {
        self.source
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {} '{}' {}", self.job, self.name, self.failure)
    }
}

impl Error for JobError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

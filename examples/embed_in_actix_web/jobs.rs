//! The jobs of the service: what runs, and what became of the rest.

use crate::training::{self, Model, Plan};
use actix_web::rt;
use phalanx::{PartitionId, Progress, Runtime, StageControl, StageError, StagePhase, StageStatus};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::SetOnce;

/// Jobs that are remembered; the oldest that are over are forgotten first.
const JOBS_KEPT: usize = 1000;

pub struct Jobs {
    runtime: Runtime,
    jobs: Mutex<BTreeMap<u64, Arc<Job>>>,
}

pub struct Job {
    id: u64,
    name: String,
    control: StageControl,
    outcome: SetOnce<Result<Vec<Model>, StageError>>,
}

/// What the service tells about a job.
#[derive(Default, Serialize)]
pub struct View {
    pub id: u64,
    pub name: String,
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    progress: Vec<Option<Progress>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<String>,
    /// Tasks of a job that is over which have not heeded their kill yet. They hold their slots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    still_running: Vec<PartitionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Model>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Jobs {
    pub fn new(runtime: Runtime) -> Self {
        Jobs { runtime, jobs: Mutex::default() }
    }

    pub fn start(&self, plan: Plan) -> u64 {
        let name = plan.name.clone();
        let handle = training::start(&self.runtime, plan);
        let (control, outcome) = (handle.control(), SetOnce::new());
        let id = control.id().0;
        let job = Arc::new(Job { id, name, control, outcome });
        self.remember(job.clone());
        rt::spawn(async move {
            // Nobody else sets it.
            let _ = job.outcome.set(handle.await);
        });
        id
    }

    fn remember(&self, job: Arc<Job>) {
        let mut jobs = self.lock();
        jobs.insert(job.id, job);
        if jobs.len() > JOBS_KEPT {
            let oldest = jobs.values().find(|job| job.outcome.initialized()).map(|job| job.id);
            oldest.and_then(|oldest| jobs.remove(&oldest));
        }
    }

    pub fn get(&self, id: u64) -> Option<Arc<Job>> {
        self.lock().get(&id).cloned()
    }

    pub async fn views(&self) -> Vec<View> {
        let jobs: Vec<Arc<Job>> = self.lock().values().cloned().collect();
        let stages = self.runtime.status().await.stages;
        let mut stages: BTreeMap<u64, StageStatus> =
            stages.into_iter().map(|status| (status.stage.0, status)).collect();
        let mut views = Vec::with_capacity(jobs.len());
        for job in jobs {
            views.push(job.view_of(stages.remove(&job.id)).await);
        }
        views
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    pub async fn view(&self) -> View {
        self.view_of(self.control.status().await).await
    }

    /// Without effect if the job is over.
    pub fn cancel(&self, reason: &str) {
        self.control.cancel(reason);
    }

    async fn view_of(&self, status: Option<StageStatus>) -> View {
        let (id, name) = (self.id, self.name.clone());
        let progress = self.control.progress();
        let view = View { id, name, progress, ..View::default() };
        match status {
            Some(status) if status.phase != StagePhase::Ended => view.live(status),
            ended => view.over(ended, self.outcome.wait().await),
        }
    }
}

impl View {
    fn live(self, status: StageStatus) -> View {
        let (state, waiting_for) = match status.phase {
            StagePhase::Deferred { required, available, checks_left } => (
                "deferred",
                Some(json!({
                    "required": required, "available": available, "checks_left": checks_left
                })),
            ),
            StagePhase::Queued { required, free, ahead, reserves } => (
                "queued",
                Some(json!({
                    "required": required, "free": free, "ahead": ahead, "reserves": reserves
                })),
            ),
            StagePhase::AwaitingInput => ("awaiting_input", None),
            StagePhase::Running { .. } => ("running", None),
            StagePhase::Stopping { waiting_for } => {
                ("stopping", Some(json!({ "tasks": waiting_for.to_string() })))
            }
            StagePhase::BackingOff => ("backing_off", None),
            StagePhase::Ended => ("ended", None),
        };
        let attempt = Some(status.attempt.attempt);
        let last_failure = status.last_cause.map(|cause| cause.to_string());
        View { state, attempt, waiting_for, last_failure, ..self }
    }

    fn over(self, status: Option<StageStatus>, outcome: &Result<Vec<Model>, StageError>) -> View {
        let tasks = status.into_iter().flat_map(|status| status.tasks);
        let still_running = tasks.map(|task| task.partition).collect();
        let (state, result, error) = match outcome {
            Ok(models) => ("succeeded", models.first().cloned(), None),
            Err(error) if error.is_cancelled() => ("cancelled", None, Some(error.to_string())),
            Err(error) => ("failed", None, Some(error.to_string())),
        };
        View { state, still_running, result, error, ..self }
    }

    pub fn is_over(&self) -> bool {
        self.result.is_some() || self.error.is_some()
    }
}

//! Tells those who watch what happens, and the log.

use phalanx_protocol::{
    JobFailure, JobId, RuntimeEvent, StageFailure, StageId, StageSpec, TaskOutcome,
};
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// An event and when it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Time of day.
    pub at: SystemTime,
    /// Time since the runtime was started. Events that follow from the same cause have the same
    /// time; those of a stage's rounds may be told slightly before older ones of other events.
    pub since_start: Duration,
    /// What happened.
    pub event: RuntimeEvent,
}

#[derive(Clone, Copy)]
pub(crate) struct Moment {
    at: SystemTime,
    since_start: Duration,
}

/// Hands events to any number of subscribers. It holds the last ones in a ring: who is too slow
/// loses the oldest and is told how many; nobody is waited for.
#[derive(Clone, Debug)]
pub struct EventBus {
    started: Instant,
    sender: broadcast::Sender<EventRecord>,
}

impl EventBus {
    /// A bus that holds the last `capacity` events for those who are slow; at least 1.
    pub fn new(capacity: usize) -> Self {
        let (sender, _) = broadcast::channel(capacity.max(1));
        EventBus { started: Instant::now(), sender }
    }

    /// All events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<EventRecord> {
        self.sender.subscribe()
    }

    /// The time that the events of one step have.
    pub(crate) fn now(&self) -> Moment {
        Moment { at: SystemTime::now(), since_start: self.started.elapsed() }
    }

    /// `now`: asked for only if somebody listens.
    pub(crate) fn emit(&self, now: impl FnOnce() -> Moment, event: RuntimeEvent) {
        let tell = || {
            log(&event);
            if self.sender.receiver_count() > 0 {
                let Moment { at, since_start } = now();
                // The last subscriber may have left since the line above.
                let _ = self.sender.send(EventRecord { at, since_start, event });
            }
        };
        // Who hears it is somebody else's code, and what is to happen next must happen.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(tell)) {
            // Dropping it might panic again.
            std::mem::forget(panic);
        }
    }
}

fn log(event: &RuntimeEvent) {
    match event {
        RuntimeEvent::ExecutorJoined { executor, incarnation, resources } => {
            info!(%executor, %incarnation, cpus = resources.cpus, "executor {executor} joined");
        }
        RuntimeEvent::ExecutorLost { executor, incarnation, reason } => {
            warn!(%executor, %incarnation, %reason, "executor {executor} is lost: {reason}");
        }
        RuntimeEvent::StageSubmitted { stage, spec: StageSpec { name, num_tasks, .. } } => {
            info!(%stage, %name, num_tasks, "stage {stage} '{name}' of {num_tasks} tasks submitted");
        }
        RuntimeEvent::StageDeferred { stage, required, available, checks_left, next_check } => {
            warn!(
                %stage, required, available, checks_left,
                "stage {stage} needs {required} slots, all executors together have {available}; \
                 next check in {next_check:?}, {checks_left} more may fail"
            );
        }
        RuntimeEvent::StageQueued { attempt, required, free } => {
            info!(%attempt, required, free, "{attempt} waits for {required} slots, {free} are free");
        }
        RuntimeEvent::AttemptStarted { attempt, num_tasks } => {
            info!(%attempt, num_tasks, "{attempt}: all {num_tasks} tasks scheduled");
        }
        RuntimeEvent::TaskStarted { attempt, partition, task_attempt, executor } => {
            debug!(%attempt, %partition, %task_attempt, %executor, "task started");
        }
        RuntimeEvent::TaskEnded { attempt, partition, task_attempt, executor, outcome } => {
            match outcome {
                TaskOutcome::Succeeded => {
                    debug!(%attempt, %partition, %task_attempt, %executor, "task succeeded");
                }
                TaskOutcome::Failed(failure) => info!(
                    %attempt, %partition, %task_attempt, %executor,
                    "task {task_attempt} (partition {partition} of {attempt}) ended: {failure}"
                ),
            }
        }
        RuntimeEvent::TaskIgnoresKill { attempt, partition, task_attempt, executor } => {
            warn!(
                %attempt, %partition, %task_attempt, %executor,
                "task {task_attempt} (partition {partition} of {attempt}) was killed but still \
                 runs on executor {executor}: it keeps its slot until it ends"
            );
        }
        RuntimeEvent::AttemptFailed { cause, will_retry } => {
            let next = if *will_retry { "will be retried" } else { "will not be retried" };
            warn!(attempt = %cause.attempt, will_retry, "{next}: {cause}");
        }
        RuntimeEvent::RoundOpened { attempt, epoch, method } => {
            debug!(%attempt, %epoch, %method, "round opened");
        }
        RuntimeEvent::RoundReleased { attempt, epoch, method } => {
            debug!(%attempt, %epoch, %method, "round released");
        }
        RuntimeEvent::RoundFailed { attempt, epoch, error } => {
            info!(%attempt, %epoch, "round failed: {error}");
        }
        RuntimeEvent::JobStarted { job, name, stages } => {
            info!(%job, %name, stages = stages.len(), "job {job} '{name}' started");
        }
        RuntimeEvent::OutputsForgotten { stage, partitions } => {
            warn!(%stage, %partitions, "outputs of map stage {stage} are gone: {partitions}");
        }
        RuntimeEvent::JobEnded { job, failure } => log_end_of_job(*job, failure.as_ref()),
        RuntimeEvent::StageCompleted { stage, attempts, failure } => {
            log_end_of_stage(*stage, *attempts, failure.as_ref());
        }
    }
}

fn log_end_of_stage(stage: StageId, attempts: u32, failure: Option<&StageFailure>) {
    match failure {
        None => info!(%stage, attempts, "stage {stage} succeeded, attempts: {attempts}"),
        Some(StageFailure::Cancelled { reason }) => {
            info!(%stage, attempts, %reason, "stage {stage} was cancelled: {reason}");
        }
        Some(failure) => warn!(%stage, attempts, "stage {stage} {failure}"),
    }
}

fn log_end_of_job(job: JobId, failure: Option<&JobFailure>) {
    match failure {
        None => info!(%job, "job {job} succeeded"),
        Some(JobFailure::Cancelled { reason }) => {
            info!(%job, %reason, "job {job} was cancelled: {reason}");
        }
        Some(failure) => warn!(%job, "job {job} {failure}"),
    }
}

//! The events of one runtime or simulation, and what they say about it.

use super::ousterhout::OusterhoutMatrix;
use crate::{
    EventRecord, EventStream, EventStreamError, ExecutorId, RuntimeEvent, StageFailure, StageId,
    TaskAttemptId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Events in the order in which they were told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLog {
    records: Vec<EventRecord>,
}

/// When a stage was where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageTimes {
    /// The stage.
    pub stage: StageId,
    /// Its name.
    pub name: String,
    /// World size.
    pub num_tasks: u32,
    /// When it was handed in.
    pub submitted: Duration,
    /// When its first task started.
    pub started: Option<Duration>,
    /// When it had its result.
    pub ended: Option<Duration>,
    /// How many attempts it took.
    pub attempts: u32,
    /// Why it has no result, if it failed.
    pub failure: Option<StageFailure>,
}

impl StageTimes {
    /// From its submission to its first task; `None` if it never started.
    pub fn waited(&self) -> Option<Duration> {
        Some(self.started?.saturating_sub(self.submitted))
    }
}

impl From<Vec<EventRecord>> for EventLog {
    fn from(records: Vec<EventRecord>) -> Self {
        EventLog { records }
    }
}

impl FromIterator<EventRecord> for EventLog {
    fn from_iter<I: IntoIterator<Item = EventRecord>>(records: I) -> Self {
        EventLog { records: records.into_iter().collect() }
    }
}

impl EventLog {
    /// Reads all that comes, to the end of the runtime.
    ///
    /// # Errors
    /// [`EventStreamError::Missed`] if events were lost: start reading at once, or raise
    /// `events.capacity`.
    pub async fn collect(mut events: EventStream) -> Result<EventLog, EventStreamError> {
        let mut records = Vec::new();
        loop {
            match events.next().await {
                Ok(record) => records.push(record),
                Err(EventStreamError::Ended) => return Ok(EventLog { records }),
                Err(missed @ EventStreamError::Missed(_)) => return Err(missed),
            }
        }
    }

    /// The events.
    pub fn records(&self) -> &[EventRecord] {
        &self.records
    }

    /// A number that is the same for logs of the same events at the same times since the start;
    /// comparable within one build of a program.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for record in &self.records {
            record.since_start.hash(&mut hasher);
            record.event.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// From the first submission to the end of the last stage.
    pub fn makespan(&self) -> Duration {
        let (from, to) = self.span();
        to.saturating_sub(from)
    }

    fn span(&self) -> (Duration, Duration) {
        let times = |is_it: fn(&RuntimeEvent) -> bool| {
            self.records.iter().filter(move |it| is_it(&it.event)).map(|it| it.since_start)
        };
        let first = times(|it| matches!(it, RuntimeEvent::StageSubmitted { .. })).min();
        let last = times(|it| matches!(it, RuntimeEvent::StageCompleted { .. })).max();
        (first.unwrap_or_default(), last.unwrap_or_default())
    }

    /// The share of the executors' cpu time that tasks held, from the first submission to the end
    /// of the last stage: 0 to 1. 0 if there was no such time.
    pub fn utilisation(&self) -> f64 {
        let (from, to) = self.span();
        let within = |begin: Duration, end: Duration| {
            end.min(to).saturating_sub(begin.max(from)).as_secs_f64()
        };
        let (mut used, mut offered) = (0.0, 0.0);
        let mut executors: BTreeMap<ExecutorId, (u32, Duration)> = BTreeMap::new();
        let mut tasks: BTreeMap<TaskAttemptId, (u32, Duration)> = BTreeMap::new();
        let mut cpus_of: BTreeMap<StageId, u32> = BTreeMap::new();
        for EventRecord { since_start: now, event, .. } in &self.records {
            match event {
                RuntimeEvent::ExecutorJoined { executor, resources, .. } => {
                    executors.insert(*executor, (resources.cpus, *now));
                }
                RuntimeEvent::ExecutorLost { executor, .. } => {
                    if let Some((cpus, since)) = executors.remove(executor) {
                        offered += f64::from(cpus) * within(since, *now);
                    }
                }
                RuntimeEvent::StageSubmitted { stage, spec } => {
                    cpus_of.insert(*stage, spec.resources.cpus());
                }
                RuntimeEvent::TaskStarted { attempt, task_attempt, .. } => {
                    let cpus = cpus_of.get(&attempt.stage).copied().unwrap_or(1);
                    tasks.insert(*task_attempt, (cpus, *now));
                }
                RuntimeEvent::TaskEnded { task_attempt, .. } => {
                    if let Some((cpus, since)) = tasks.remove(task_attempt) {
                        used += f64::from(cpus) * within(since, *now);
                    }
                }
                RuntimeEvent::StageDeferred { .. }
                | RuntimeEvent::StageQueued { .. }
                | RuntimeEvent::AttemptStarted { .. }
                | RuntimeEvent::TaskIgnoresKill { .. }
                | RuntimeEvent::AttemptFailed { .. }
                | RuntimeEvent::RoundOpened { .. }
                | RuntimeEvent::RoundReleased { .. }
                | RuntimeEvent::RoundFailed { .. }
                | RuntimeEvent::JobStarted { .. }
                | RuntimeEvent::OutputsForgotten { .. }
                | RuntimeEvent::JobEnded { .. }
                | RuntimeEvent::StageCompleted { .. } => {}
            }
        }
        // Those that are still there.
        let until_the_end = |(cpus, since): (u32, Duration)| f64::from(cpus) * within(since, to);
        offered += executors.into_values().map(until_the_end).sum::<f64>();
        used += tasks.into_values().map(until_the_end).sum::<f64>();
        if offered > 0.0 { used / offered } else { 0.0 }
    }

    /// When each stage was where, in order of submission.
    pub fn stage_times(&self) -> Vec<StageTimes> {
        let mut stages: BTreeMap<StageId, StageTimes> = BTreeMap::new();
        for EventRecord { since_start: now, event, .. } in &self.records {
            match event {
                RuntimeEvent::StageSubmitted { stage, spec } => {
                    let times = StageTimes {
                        stage: *stage,
                        name: spec.name.clone(),
                        num_tasks: spec.num_tasks,
                        submitted: *now,
                        started: None,
                        ended: None,
                        attempts: 0,
                        failure: None,
                    };
                    stages.insert(*stage, times);
                }
                RuntimeEvent::AttemptStarted { attempt, .. } => {
                    if let Some(times) = stages.get_mut(&attempt.stage) {
                        times.started.get_or_insert(*now);
                    }
                }
                RuntimeEvent::StageCompleted { stage, attempts, failure } => {
                    if let Some(times) = stages.get_mut(stage) {
                        times.ended = Some(*now);
                        times.attempts = *attempts;
                        times.failure = failure.clone();
                    }
                }
                _ => {}
            }
        }
        stages.into_values().collect()
    }

    /// Which task was on which slot when.
    pub fn matrix(&self) -> OusterhoutMatrix {
        OusterhoutMatrix::of(&self.records)
    }
}

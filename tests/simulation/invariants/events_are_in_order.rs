//! The events tell a story that can be true: a task starts before it ends, an attempt fails before
//! the next one starts, nothing of a stage starts after its end.

use super::Invariant;
use crate::facts::Facts;
use phalanx::protocol::SchedulerEffect;
use phalanx::simulation::{Observation, Simulator};
use phalanx::{RuntimeEvent, StageAttemptId, StageId, TaskAttemptId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Default)]
pub struct EventsAreInOrder {
    submitted: BTreeSet<StageId>,
    completed: BTreeSet<StageId>,
    attempts: BTreeMap<StageId, StageAttemptId>,
    failed: BTreeSet<StageAttemptId>,
    running: BTreeMap<TaskAttemptId, StageAttemptId>,
    launched: BTreeSet<TaskAttemptId>,
}

impl EventsAreInOrder {
    fn is_next(&mut self, facts: &Facts, event: &RuntimeEvent) -> bool {
        match event {
            RuntimeEvent::StageSubmitted { stage, .. } => self.submitted.insert(*stage),
            RuntimeEvent::StageDeferred { stage, .. } => self.is_open(*stage),
            RuntimeEvent::StageQueued { attempt, .. } => self.is_open(attempt.stage),
            RuntimeEvent::AttemptStarted { attempt, .. } => {
                let former = self.attempts.insert(attempt.stage, *attempt);
                let follows = match former {
                    None => attempt.attempt == 0,
                    Some(former) => {
                        self.failed.contains(&former) && attempt.attempt == former.attempt + 1
                    }
                };
                follows && self.is_open(attempt.stage)
            }
            RuntimeEvent::TaskStarted { attempt, task_attempt, .. } => {
                self.running.insert(*task_attempt, *attempt);
                self.is_open(attempt.stage)
                    && self.attempts.get(&attempt.stage) == Some(attempt)
                    && self.launched.insert(*task_attempt)
            }
            RuntimeEvent::TaskEnded { attempt, task_attempt, .. } => {
                self.running.remove(task_attempt) == Some(*attempt)
            }
            RuntimeEvent::TaskIgnoresKill { task_attempt, .. } => {
                self.running.contains_key(task_attempt) && facts.tasks[task_attempt].kill_sent
            }
            RuntimeEvent::AttemptFailed { cause, .. } => {
                let is_first = self.failed.insert(cause.attempt);
                self.is_open(cause.attempt.stage)
                    && (is_first || !facts.is_gang(cause.attempt.stage))
            }
            RuntimeEvent::StageCompleted { stage, .. } => {
                self.submitted.contains(stage) && self.completed.insert(*stage)
            }
            // No jobs are simulated.
            RuntimeEvent::JobStarted { .. }
            | RuntimeEvent::OutputsForgotten { .. }
            | RuntimeEvent::JobEnded { .. } => false,
            RuntimeEvent::ExecutorJoined { .. }
            | RuntimeEvent::ExecutorLost { .. }
            | RuntimeEvent::RoundOpened { .. }
            | RuntimeEvent::RoundReleased { .. }
            | RuntimeEvent::RoundFailed { .. } => true,
        }
    }

    fn is_open(&self, stage: StageId) -> bool {
        self.submitted.contains(&stage) && !self.completed.contains(&stage)
    }
}

impl Invariant for EventsAreInOrder {
    fn check(
        &mut self,
        facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        let Observation::Scheduler { effects, .. } = observation else { return Ok(()) };
        for effect in effects {
            if let SchedulerEffect::Emit(event) = effect
                && !self.is_next(facts, event)
            {
                return Err(format!("this cannot come next: {event:?}"));
            }
        }
        Ok(())
    }

    fn at_end(&mut self, _facts: &Facts, _simulator: &Simulator) -> Result<(), String> {
        match self.running.first_key_value() {
            Some((task, attempt)) => Err(format!("task {task} of {attempt} started, never ended")),
            None => Ok(()),
        }
    }
}

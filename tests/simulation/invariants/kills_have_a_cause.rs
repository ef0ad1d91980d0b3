//! Tasks are told to end only when their attempt failed or their stage ended (or somebody asked),
//! and then all of them at once.

use super::Invariant;
use crate::facts::Facts;
use phalanx::protocol::{SchedulerEffect, SchedulerEvent};
use phalanx::simulation::Observation;
use phalanx::{RuntimeEvent, StageAttemptId};
use std::time::Duration;

pub struct KillsHaveACause;

impl KillsHaveACause {
    fn all_are_told(facts: &Facts, attempt: StageAttemptId) -> Result<(), String> {
        let left = facts.tasks_of(attempt).find(|task| !task.known_ended && !task.kill_sent);
        match left {
            Some(task) => Err(format!("{attempt} is over, but {task:?} is not told to end")),
            None => Ok(()),
        }
    }
}

impl Invariant for KillsHaveACause {
    fn check(
        &mut self,
        facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        let Observation::Scheduler { event, effects } = observation else { return Ok(()) };
        for effect in effects {
            match effect {
                SchedulerEffect::KillTask { kill, .. } => {
                    for task in kill.tasks.iter().map(|id| &facts.tasks[id]) {
                        let stage = &facts.stages[&task.attempt.stage];
                        let is_asked = matches!(event, SchedulerEvent::KillPartition { .. });
                        let has_failed = stage.causes.contains_key(&task.attempt)
                            && facts.is_gang(task.attempt.stage);
                        if !has_failed && stage.ended.is_none() && !is_asked {
                            return Err(format!("{task:?} is killed without a cause"));
                        }
                    }
                }
                SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, .. })
                    if facts.is_gang(cause.attempt.stage) =>
                {
                    Self::all_are_told(facts, cause.attempt)?;
                }
                SchedulerEffect::StageEnded { stage, result: Err(_), .. } => {
                    if let Some(attempt) = facts.stages[stage].attempts.last() {
                        Self::all_are_told(facts, *attempt)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

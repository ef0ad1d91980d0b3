//! Nothing of attempt k changes attempt k + 1, and the two never run at the same time.

use super::Invariant;
use crate::facts::{Facts, Life};
use phalanx::protocol::{SchedulerEffect, SchedulerEvent};
use phalanx::simulation::Observation;
use phalanx::{RuntimeEvent, StageAttemptId};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub struct AttemptsDoNotMix {
    /// The latest attempt of each stage that was launched before this step.
    latest: BTreeMap<phalanx::StageId, StageAttemptId>,
}

impl AttemptsDoNotMix {
    /// A word of an attempt that is over may free slots, and nothing else, in its stage.
    fn old_word(
        &self,
        old: StageAttemptId,
        facts: &Facts,
        effects: &[SchedulerEffect],
    ) -> Result<(), String> {
        for effect in effects {
            let is_wrong = match effect {
                SchedulerEffect::StageEnded { stage, .. } => *stage == old.stage,
                SchedulerEffect::StageCompleted(completed) => completed.attempt.stage == old.stage,
                SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, .. }) => {
                    cause.attempt.stage == old.stage
                }
                SchedulerEffect::KillTask { kill, .. } => {
                    kill.tasks.iter().any(|task| facts.tasks[task].attempt.stage == old.stage)
                }
                SchedulerEffect::KeepPayload { stage, .. } => *stage == old.stage,
                _ => false,
            };
            if is_wrong {
                return Err(format!("a word of {old} had an effect on a later one: {effect:?}"));
            }
        }
        Ok(())
    }

    /// Unless the scheduler had to give up the executor of the older one.
    fn meets_older(facts: &Facts, attempt: StageAttemptId, life: Life) -> Result<(), String> {
        for task in facts.tasks.values().filter(|task| task.runs()) {
            let Some((executor, incarnation)) = task.life else { continue };
            let is_older = task.attempt.stage == attempt.stage && task.attempt < attempt;
            if is_older && facts.believed.get(&executor) == Some(&incarnation) {
                return Err(format!("{attempt} began on {life:?} while {task:?} runs"));
            }
        }
        Ok(())
    }
}

impl Invariant for AttemptsDoNotMix {
    fn check(
        &mut self,
        facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        match observation {
            Observation::Scheduler { event, effects } => {
                let of = match event {
                    SchedulerEvent::TaskReport(report) => Some(report.attempt),
                    SchedulerEvent::BarrierLost { attempt, .. } => Some(*attempt),
                    _ => None,
                };
                let is_old = |of: &StageAttemptId| {
                    self.latest.get(&of.stage).is_some_and(|latest| of < latest)
                };
                if let Some(old) = of.filter(is_old) {
                    self.old_word(old, facts, effects)?;
                }
                for effect in effects {
                    if let SchedulerEffect::LaunchTasks { launch, .. } = effect {
                        self.latest.insert(launch.attempt.stage, launch.attempt);
                    }
                }
                Ok(())
            }
            Observation::TaskBegan { executor, incarnation, attempt, .. } => {
                Self::meets_older(facts, *attempt, (*executor, *incarnation))
            }
            _ => Ok(()),
        }
    }
}

//! Every stage that was handed in has one result, and nothing of it is launched afterwards.

use super::Invariant;
use crate::facts::Facts;
use phalanx::StageId;
use phalanx::protocol::SchedulerEffect;
use phalanx::simulation::{Observation, Simulator};
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Default)]
pub struct EveryStageEndsOnce {
    ended: BTreeSet<StageId>,
}

impl Invariant for EveryStageEndsOnce {
    fn check(
        &mut self,
        _facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        let Observation::Scheduler { effects, .. } = observation else { return Ok(()) };
        for effect in effects {
            match effect {
                SchedulerEffect::StageEnded { stage, .. } if !self.ended.insert(*stage) => {
                    return Err(format!("stage {stage} ends again"));
                }
                SchedulerEffect::LaunchTasks { launch, .. }
                    if self.ended.contains(&launch.attempt.stage) =>
                {
                    return Err(format!("{} is launched after its end", launch.attempt));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn at_end(&mut self, facts: &Facts, _simulator: &Simulator) -> Result<(), String> {
        let open = facts.stages.iter().filter(|(_, stage)| stage.submitted);
        match open.map(|(id, _)| id).find(|id| !self.ended.contains(id)) {
            Some(stage) => Err(format!("stage {stage} never ended")),
            None => Ok(()),
        }
    }
}

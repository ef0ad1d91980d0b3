//! A stage succeeds only when every partition has: a gang's in one and the same attempt. The values
//! that are handed over are those of these tasks.

use super::Invariant;
use crate::facts::Facts;
use phalanx::protocol::SchedulerEffect;
use phalanx::simulation::Observation;
use phalanx::{PartitionId, StageId, TaskAttemptId, TaskOutcome};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub struct SuccessIsEveryones {
    kept: BTreeMap<StageId, BTreeMap<PartitionId, TaskAttemptId>>,
}

impl SuccessIsEveryones {
    fn succeeded(&mut self, facts: &Facts, stage: StageId) -> Result<(), String> {
        let kept = self.kept.remove(&stage).unwrap_or_default();
        let (all, last) = (facts.specs[&stage].num_tasks, facts.stages[&stage].attempts.last());
        if !kept.keys().map(|partition| partition.0).eq(0..all) {
            return Err(format!("stage {stage} of {all} tasks succeeds with {kept:?}"));
        }
        for task in kept.values().map(|id| &facts.tasks[id]) {
            let is_good = task.ended == Some(TaskOutcome::Succeeded)
                && task.reported == Some(TaskOutcome::Succeeded);
            if !is_good || Some(&task.attempt) != last {
                return Err(format!("stage {stage} succeeds with the value of {task:?}"));
            }
        }
        Ok(())
    }
}

impl Invariant for SuccessIsEveryones {
    fn check(
        &mut self,
        facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        let Observation::Scheduler { effects, .. } = observation else { return Ok(()) };
        for effect in effects {
            match effect {
                SchedulerEffect::KeepPayload { stage, partition, task_attempt } => {
                    let kept = self.kept.entry(*stage).or_default();
                    kept.insert(*partition, *task_attempt);
                    let attempt = |id| facts.tasks.get(id).map(|task| task.attempt);
                    if kept.values().any(|id| attempt(id) != attempt(task_attempt)) {
                        return Err(format!("values of two attempts are kept: {kept:?}"));
                    }
                }
                SchedulerEffect::DiscardPayloads(stage) => {
                    self.kept.remove(stage);
                }
                SchedulerEffect::StageEnded { stage, result: Ok(()), .. } => {
                    self.succeeded(facts, *stage)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

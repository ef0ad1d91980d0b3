//! The tasks that really run on an executor never take more than it has, whatever the scheduler
//! believes.

use super::Invariant;
use crate::facts::{Facts, Life};
use crate::workload::GPU_SHARES;
use phalanx::ExecutorResources;
use phalanx::simulation::Observation;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub struct SlotsAreNotOvercommitted {
    lives: BTreeMap<Life, ExecutorResources>,
}

impl SlotsAreNotOvercommitted {
    fn of_life(&self, facts: &Facts, life: Life) -> Result<(), String> {
        let all = &self.lives[&life];
        let (mut cpus, mut gpus): (u32, BTreeMap<&str, u32>) = (0, BTreeMap::new());
        for task in facts.tasks.values().filter(|task| task.runs() && task.life == Some(life)) {
            cpus += task.launch.cpus;
            let spec = &facts.specs[&task.attempt.stage];
            for address in task.launch.addresses.get("gpu").into_iter().flatten() {
                *gpus.entry(address).or_insert(0) += GPU_SHARES / shares_of(spec);
                if !all.named.get("gpu").is_some_and(|all| all.contains(address)) {
                    return Err(format!("{life:?} has no gpu {address}"));
                }
            }
        }
        let full = gpus.iter().find(|(_, shares)| **shares > GPU_SHARES);
        if cpus > all.cpus || full.is_some() {
            return Err(format!("{life:?} has {all:?}, but {cpus} cpus and {gpus:?} are in use"));
        }
        Ok(())
    }
}

/// How many tasks of the stage share a gpu; the workload names stages so.
fn shares_of(spec: &phalanx::protocol::StageSpec) -> u32 {
    let shares = spec.name.rsplit_once("gpu/").and_then(|(_, shares)| shares.parse().ok());
    shares.unwrap_or(1)
}

impl Invariant for SlotsAreNotOvercommitted {
    fn check(
        &mut self,
        facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        match observation {
            Observation::ExecutorBegan { executor, incarnation, resources } => {
                self.lives.insert((*executor, *incarnation), resources.clone());
                Ok(())
            }
            Observation::TaskBegan { executor, incarnation, .. } => {
                self.of_life(facts, (*executor, *incarnation))
            }
            _ => Ok(()),
        }
    }
}

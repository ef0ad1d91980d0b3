//! Once everything has ended, every slot is free and nobody is registered anywhere.

use super::Invariant;
use crate::facts::Facts;
use phalanx::simulation::{Observation, Simulator};
use std::time::Duration;

pub struct NothingIsLeft;

impl Invariant for NothingIsLeft {
    fn check(
        &mut self,
        _facts: &Facts,
        _now: Duration,
        _observation: &Observation,
    ) -> Result<(), String> {
        Ok(())
    }

    fn at_end(&mut self, facts: &Facts, simulator: &Simulator) -> Result<(), String> {
        if let Some(stage) = simulator.scheduler().stages().next() {
            return Err(format!("the scheduler still has {stage:?}"));
        }
        if let Some(busy) = simulator.scheduler().executors().find(|it| it.running > 0) {
            return Err(format!("slots are still taken: {busy:?}"));
        }
        if let Some(attempt) = simulator.coordinator().open_attempts().next() {
            return Err(format!("{attempt} is still open"));
        }
        match facts.tasks.iter().find(|(_, task)| task.runs()) {
            Some((id, task)) => Err(format!("task {id} still runs: {task:?}")),
            None => Ok(()),
        }
    }
}

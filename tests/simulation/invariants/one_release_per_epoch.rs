//! The rounds of an attempt are released one by one: each epoch once, in order.

use super::Invariant;
use crate::facts::Facts;
use phalanx::protocol::BarrierEffect;
use phalanx::simulation::Observation;
use phalanx::{RuntimeEvent, StageAttemptId};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub struct OneReleasePerEpoch {
    next: BTreeMap<StageAttemptId, u64>,
}

impl Invariant for OneReleasePerEpoch {
    fn check(
        &mut self,
        _facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        let Observation::Barrier { effects, .. } = observation else { return Ok(()) };
        for effect in effects {
            if let BarrierEffect::Emit(RuntimeEvent::RoundReleased { attempt, epoch, .. }) = effect
            {
                let next = self.next.entry(*attempt).or_insert(0);
                if epoch.0 != *next {
                    return Err(format!("{attempt} releases epoch {epoch}, {next} is the next"));
                }
                *next += 1;
            }
        }
        Ok(())
    }
}

//! Once a member of a gang has left, or its attempt is over, nobody waits in a round of it: those
//! who did are answered in the same step, those who come later in theirs.

use super::Invariant;
use crate::facts::Facts;
use phalanx::StageAttemptId;
use phalanx::protocol::{BarrierEffect, BarrierEvent, ReplyToken};
use phalanx::simulation::Observation;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Default)]
pub struct NobodyWaitsInVain {
    waiting: BTreeMap<StageAttemptId, BTreeSet<ReplyToken>>,
    in_vain: BTreeSet<StageAttemptId>,
}

impl Invariant for NobodyWaitsInVain {
    fn check(
        &mut self,
        _facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        let Observation::Barrier { attempt, event, effects } = observation else { return Ok(()) };
        let waiting = self.waiting.entry(*attempt).or_default();
        match event {
            BarrierEvent::RequestToSync { reply_to, .. } => {
                waiting.insert(*reply_to);
            }
            BarrierEvent::TaskLeft(_) | BarrierEvent::Close(_) => {
                self.in_vain.insert(*attempt);
            }
            BarrierEvent::WithdrawSync(_) | BarrierEvent::TimerFired(_) => {}
        }
        for effect in effects {
            if let BarrierEffect::Reply { to, .. } = effect {
                waiting.remove(to);
            }
        }
        if self.in_vain.contains(attempt) && !waiting.is_empty() {
            return Err(format!("{attempt} cannot meet any more, but {waiting:?} wait"));
        }
        Ok(())
    }
}

//! Every request to sync is answered exactly once, unless its barrier died.

use super::Invariant;
use crate::facts::Facts;
use phalanx::StageAttemptId;
use phalanx::protocol::{
    BarrierEffect, BarrierEvent, CoordinatorEffect, CoordinatorEvent, ReplyToken,
};
use phalanx::simulation::{Observation, Simulator};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub struct EveryRequestIsAnsweredOnce {
    open: BTreeMap<ReplyToken, StageAttemptId>,
}

impl EveryRequestIsAnsweredOnce {
    fn answered(&mut self, token: ReplyToken) -> Result<(), String> {
        let known = self.open.remove(&token);
        known.map(drop).ok_or_else(|| format!("an answer for {token}, which waits for none"))
    }
}

impl Invariant for EveryRequestIsAnsweredOnce {
    fn check(
        &mut self,
        _facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        match observation {
            Observation::Barrier { attempt, event, effects } => {
                if let BarrierEvent::RequestToSync { reply_to, .. } = event {
                    self.open.insert(*reply_to, *attempt);
                }
                for effect in effects {
                    match effect {
                        BarrierEffect::Reply { to, .. } => self.answered(*to)?,
                        BarrierEffect::NotifyWaiting { to, .. } if !self.open.contains_key(to) => {
                            return Err(format!("{to} is notified, but does not wait"));
                        }
                        _ => {}
                    }
                }
            }
            Observation::Coordinator { event, effects } => {
                if let CoordinatorEvent::RequestToSync { request, reply_to } = event {
                    self.open.insert(*reply_to, request.attempt);
                }
                if let CoordinatorEvent::ChildStopped(attempt) = event {
                    self.open.retain(|_, of| of != attempt);
                }
                for effect in effects {
                    if let CoordinatorEffect::Refuse { to, .. } = effect {
                        self.answered(*to)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn at_end(&mut self, _facts: &Facts, _simulator: &Simulator) -> Result<(), String> {
        if self.open.is_empty() {
            return Ok(());
        }
        Err(format!("requests that nobody answered: {:?}", self.open))
    }
}

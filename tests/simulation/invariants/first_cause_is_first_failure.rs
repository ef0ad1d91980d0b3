//! The cause that a gang's failure names is the first failure that the scheduler was told of, and
//! it is named in the step in which it was told.

use super::Invariant;
use crate::facts::Facts;
use phalanx::protocol::SchedulerEffect;
use phalanx::simulation::Observation;
use phalanx::{FailureCause, RuntimeEvent, StageAttemptId};
use std::collections::BTreeMap;
use std::time::Duration;

pub struct FirstCauseIsFirstFailure;

impl Invariant for FirstCauseIsFirstFailure {
    fn check(
        &mut self,
        facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        let Observation::Scheduler { effects, .. } = observation else { return Ok(()) };
        let mut told: BTreeMap<StageAttemptId, &FailureCause> = BTreeMap::new();
        for effect in effects {
            if let SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, .. }) = effect
                && facts.is_gang(cause.attempt.stage)
                && told.insert(cause.attempt, cause).is_some()
            {
                return Err(format!("{} fails twice", cause.attempt));
            }
        }
        for (attempt, causes) in &facts.fresh_causes {
            match told.remove(attempt) {
                Some(cause) if *cause == causes[0] => {}
                cause => return Err(format!("{cause:?} is told, but {:?} was first", causes[0])),
            }
        }
        match told.first_key_value() {
            Some((attempt, cause)) => Err(format!("{attempt} fails, but nothing failed: {cause}")),
            None => Ok(()),
        }
    }
}

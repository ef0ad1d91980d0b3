//! A stage fails for the reasons it gives, after as many failures as it allows, and attempts are
//! as far apart as it asks.

use super::Invariant;
use crate::facts::{Facts, StageFact};
use phalanx::protocol::{SchedulerEffect, StageKind, StageSpec};
use phalanx::simulation::Observation;
use phalanx::{OnFailure, PartitionId, RuntimeEvent, StageAttemptId, StageFailure, StageId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Default)]
pub struct BudgetsAreKept {
    /// By stage, and for plain stages by partition.
    own: BTreeMap<(StageId, Option<PartitionId>), u32>,
    losses: BTreeMap<StageId, u32>,
    /// When an attempt failed.
    failed_at: BTreeMap<StageAttemptId, Duration>,
    /// When a stage was put off for want of slots, and how many more checks might fail.
    deferred: BTreeMap<StageId, (Duration, u32)>,
}

impl BudgetsAreKept {
    fn failed(&mut self, spec: &StageSpec, cause: &phalanx::FailureCause) {
        let stage = cause.attempt.stage;
        if cause.failure.is_infrastructure() {
            *self.losses.entry(stage).or_insert(0) += 1;
        } else {
            *self.own.entry((stage, self.partition(spec, cause))).or_insert(0) += 1;
        }
    }

    fn partition(&self, spec: &StageSpec, cause: &phalanx::FailureCause) -> Option<PartitionId> {
        match spec.kind {
            StageKind::Barrier => None,
            StageKind::Plain => cause.origin.map(|origin| origin.partition),
        }
    }

    fn ended(
        &self,
        facts: &Facts,
        now: Duration,
        stage: StageId,
        failure: &StageFailure,
    ) -> Result<(), String> {
        let spec = &facts.specs[&stage];
        let fact = &facts.stages[&stage];
        let is_true = match failure {
            StageFailure::AttemptsExhausted { attempts, cause } => {
                let counted = self.own.get(&(stage, self.partition(spec, cause)));
                spec.on_failure == OnFailure::Restart
                    && *attempts == spec.max_attempts
                    && counted == Some(attempts)
            }
            StageFailure::InfrastructureExhausted { losses, allowed, .. } => {
                spec.on_failure == OnFailure::Restart
                    && *allowed == spec.max_infrastructure_failures
                    && *losses == allowed + 1
                    && self.losses.get(&stage) == Some(losses)
            }
            StageFailure::Committed { committed, .. } => {
                spec.on_failure == OnFailure::RestartUnlessCommitted && *committed > 0
            }
            StageFailure::DynamicAllocation { .. } => false,
            StageFailure::Aborted { .. } => spec.on_failure == OnFailure::Abort,
            StageFailure::NotEnoughSlots { required, available, checks, interval, .. } => {
                let (since, _) = self.deferred.get(&stage).copied().unwrap_or((now, 0));
                required > available && now >= since + *interval * (checks - 1)
            }
            StageFailure::QueueFull { limit } => {
                let is_there = |it: &&StageFact| {
                    let mut tasks = it.attempts.iter().flat_map(|it| facts.tasks_of(*it));
                    it.submitted && (it.ended.is_none() || tasks.any(|it| !it.known_ended))
                };
                let all = facts.stages.values().filter(is_there);
                all.count() >= *limit
            }
            StageFailure::Cancelled { .. } => fact.cancelled,
            StageFailure::Shutdown => facts.shutting_down,
            StageFailure::Refused { .. } => false,
        };
        if is_true {
            Ok(())
        } else {
            Err(format!("stage {stage} ended without cause: {failure:?}"))
        }
    }

    fn attempt_starts(
        &self,
        facts: &Facts,
        now: Duration,
        attempt: StageAttemptId,
    ) -> Result<(), String> {
        let Some(former) = attempt.attempt.checked_sub(1) else { return Ok(()) };
        let former = StageAttemptId { attempt: former, ..attempt };
        let delay = facts.specs[&attempt.stage].retry_delay;
        match self.failed_at.get(&former) {
            Some(failed) if now >= *failed + delay => Ok(()),
            failed => Err(format!("{attempt} starts at {now:?}; its former failed at {failed:?}")),
        }
    }
}

impl Invariant for BudgetsAreKept {
    fn check(
        &mut self,
        facts: &Facts,
        now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        let Observation::Scheduler { effects, .. } = observation else { return Ok(()) };
        let mut hit = BTreeSet::new();
        for effect in effects {
            match effect {
                // One step may lose several.
                SchedulerEffect::Emit(RuntimeEvent::ExecutorLost { .. }) => hit.clear(),
                SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, .. }) => {
                    let stage = cause.attempt.stage;
                    if cause.failure.is_infrastructure() && !hit.insert(stage) {
                        return Err(format!("stage {stage} is charged twice for one loss"));
                    }
                    self.failed(&facts.specs[&cause.attempt.stage], cause);
                    self.failed_at.insert(cause.attempt, now);
                }
                SchedulerEffect::Emit(RuntimeEvent::StageDeferred {
                    stage, checks_left, ..
                }) => {
                    let (_, before) = self.deferred.get(stage).copied().unwrap_or_default();
                    // The first check of a deferral: fewer may fail after every other.
                    if *checks_left >= before {
                        self.deferred.insert(*stage, (now, *checks_left));
                    }
                    self.deferred.entry(*stage).and_modify(|(_, left)| *left = *checks_left);
                }
                SchedulerEffect::Emit(RuntimeEvent::AttemptStarted { attempt, .. }) => {
                    self.attempt_starts(facts, now, *attempt)?;
                }
                SchedulerEffect::StageEnded { stage, result: Err(failure), .. } => {
                    self.ended(facts, now, *stage, failure)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

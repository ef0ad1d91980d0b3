//! Every invariant can be broken: each is shown a run from which something was left out, or in
//! which something was changed, and objects.

use crate::facts::Facts;
use crate::{invariants, workload};
use phalanx::protocol::{BarrierEffect, BarrierEvent, SchedulerEffect};
use phalanx::simulation::{Observation, Simulator};
use phalanx::{RuntimeEvent, StageFailure, SyncError, SyncMethod};
use std::time::Duration;

/// What is shown instead of what happened.
type Doctor = fn(&mut Observation) -> bool;

/// The objection of one invariant to the first doctored run that it does not believe.
fn objection(name: &str, doctor: Doctor) -> String {
    (0..300).find_map(|seed| objection_to(seed, name, doctor)).expect("somebody objects")
}

fn objection_to(seed: u64, name: &str, doctor: Doctor) -> Option<String> {
    let mut plan = workload::plan(seed);
    let specs = plan.stages_mut().map(|(id, stage)| (id, stage.spec.clone())).collect();
    let mut facts = Facts::new(specs);
    let named = invariants::all().into_iter().find(|(it, _)| *it == name);
    let (_, mut invariant) = named.expect("there is such an invariant");
    let mut simulator = Simulator::new(&plan).unwrap();
    while simulator.step() {
        for observation in simulator.observed() {
            let mut observation = observation.clone();
            if !doctor(&mut observation) {
                continue;
            }
            facts.note(&observation);
            if let Err(wrong) = invariant.check(&facts, simulator.now(), &observation) {
                return Some(wrong);
            }
        }
    }
    invariant.at_end(&facts, &simulator).err()
}

fn without(observation: &mut Observation, left_out: fn(&SchedulerEffect) -> bool) -> bool {
    if let Observation::Scheduler { effects, .. } = observation {
        effects.retain(|effect| !left_out(effect));
    }
    true
}

fn without_ends(observation: &mut Observation) -> bool {
    !matches!(observation, Observation::TaskEnded { .. })
}

#[test]
fn attempts_that_meet_are_noticed() {
    let wrong = objection("attempts do not mix", without_ends);
    assert!(wrong.contains("began on"), "{wrong}");
}

#[test]
fn an_untrue_answer_is_noticed() {
    let wrong = objection("answers are true", |observation| {
        if let Observation::Answered { result: result @ Ok(_), .. } = observation {
            let (attempt, epoch) = Default::default();
            let (after, missing) = (Duration::MAX / 2, Default::default());
            *result = Err(SyncError::Timeout { attempt, epoch, after, missing });
        }
        true
    });
    assert!(wrong.contains("is told what is not true: Timeout"), "{wrong}");
}

#[test]
fn an_attempt_too_many_is_noticed() {
    let wrong = objection("budgets are kept", |observation| {
        if let Observation::Scheduler { effects, .. } = observation {
            for effect in effects {
                if let SchedulerEffect::StageEnded {
                    result: Err(StageFailure::AttemptsExhausted { attempts, .. }),
                    ..
                } = effect
                {
                    *attempts += 1;
                }
            }
        }
        true
    });
    assert!(wrong.contains("ended without cause: AttemptsExhausted"), "{wrong}");
}

#[test]
fn a_request_without_answer_is_noticed() {
    let wrong = objection("every request is answered once", |observation| {
        if let Observation::Barrier { effects, .. } = observation {
            effects.retain(|effect| !matches!(effect, BarrierEffect::Reply { .. }));
        }
        true
    });
    assert!(wrong.contains("nobody answered"), "{wrong}");
}

#[test]
fn a_stage_without_end_is_noticed() {
    let wrong = objection("every stage ends once", |observation| {
        without(observation, |effect| matches!(effect, SchedulerEffect::StageEnded { .. }))
    });
    assert!(wrong.contains("never ended"), "{wrong}");
}

#[test]
fn an_event_that_is_missing_is_noticed() {
    let wrong = objection("events are in order", |observation| {
        without(observation, |effect| {
            matches!(effect, SchedulerEffect::Emit(RuntimeEvent::TaskStarted { .. }))
        })
    });
    assert!(wrong.contains("cannot come next: TaskEnded"), "{wrong}");
}

#[test]
fn a_failure_that_is_not_told_is_noticed() {
    let wrong = objection("first cause is the first failure", |observation| {
        without(observation, |effect| {
            matches!(effect, SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { .. }))
        })
    });
    assert!(wrong.contains("was first"), "{wrong}");
}

#[test]
fn half_a_gang_is_noticed() {
    let wrong = objection("gangs start whole", |observation| {
        if let Observation::Scheduler { effects, .. } = observation {
            for effect in effects {
                if let SchedulerEffect::LaunchTasks { launch, .. } = effect {
                    launch.tasks.retain(|task| task.partition.0 != 1);
                }
            }
        }
        true
    });
    assert!(wrong.contains("starts in part"), "{wrong}");
}

#[test]
fn a_task_that_is_not_told_to_end_is_noticed() {
    let wrong = objection("kills have a cause", |observation| {
        without(observation, |effect| matches!(effect, SchedulerEffect::KillTask { .. }))
    });
    assert!(wrong.contains("is not told to end"), "{wrong}");
}

#[test]
fn a_task_that_is_left_is_noticed() {
    let wrong = objection("nothing is left", without_ends);
    assert!(wrong.contains("still runs"), "{wrong}");
}

#[test]
fn who_waits_for_one_that_has_left_is_noticed() {
    let wrong = objection("nobody waits in vain", |observation| {
        if let Observation::Barrier { event: BarrierEvent::TaskLeft(_), effects, .. } = observation
        {
            effects.clear();
        }
        true
    });
    assert!(wrong.contains("cannot meet any more"), "{wrong}");
}

#[test]
fn a_release_of_one_that_has_withdrawn_is_noticed() {
    let wrong = objection("releases reach full gangs", |observation| {
        if let Observation::Barrier { event: BarrierEvent::WithdrawSync(_), effects, .. } =
            observation
        {
            let (attempt, epoch) = Default::default();
            let method = SyncMethod::Barrier;
            effects.push(BarrierEffect::Emit(RuntimeEvent::RoundReleased {
                attempt,
                epoch,
                method,
            }));
        }
        true
    });
    assert!(wrong.contains("is released with"), "{wrong}");
}

#[test]
fn a_second_release_is_noticed() {
    let wrong = objection("one release per epoch", |observation| {
        if let Observation::Barrier { effects, .. } = observation {
            let is_release = |effect: &&BarrierEffect| {
                matches!(effect, BarrierEffect::Emit(RuntimeEvent::RoundReleased { .. }))
            };
            let again = effects.iter().find(is_release).cloned();
            effects.extend(again);
        }
        true
    });
    assert!(wrong.contains("releases epoch 0, 1 is the next"), "{wrong}");
}

#[test]
fn a_release_without_everyone_is_noticed() {
    let wrong = objection("releases reach full gangs", |observation| match observation {
        Observation::Called { partition, .. } => partition.0 != 1,
        _ => true,
    });
    assert!(wrong.contains("is released from"), "{wrong}");
}

#[test]
fn a_slot_given_twice_is_noticed() {
    let wrong = objection("slots are not overcommitted", without_ends);
    assert!(wrong.contains("in use"), "{wrong}");
}

#[test]
fn a_value_that_is_missing_is_noticed() {
    let wrong = objection("success is everyone's", |observation| {
        without(observation, |effect| matches!(effect, SchedulerEffect::KeepPayload { .. }))
    });
    assert!(wrong.contains("succeeds with"), "{wrong}");
}

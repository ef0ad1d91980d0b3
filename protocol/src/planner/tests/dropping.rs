//! Datasets that are dropped.

use super::*;

#[test]
fn a_dataset_that_is_dropped_takes_its_outputs_with_it() {
    let mut jobs = Jobs::mapped(&[Gang(2), Plain(2)]);
    jobs.made(RESULT, 1, &[]);
    assert_eq!(jobs.drop_all(&[MAP]), [PlannerEffect::ForgetStage(MAP)]);
    jobs.is_empty();
    jobs.ignores(PlannerEvent::DatasetDropped(MAP));
}

#[test]
fn a_dataset_that_is_dropped_while_a_job_runs_is_kept_for_it() {
    let stages = chain(&[Gang(2), Plain(2)], RESULT);
    let mut jobs = Jobs::mapped(&[Gang(2), Plain(2)]);
    assert_eq!(jobs.drop_all(&[MAP]), []);
    let effects = jobs.not_found(RESULT, (MAP, 0), 0);
    assert_eq!(effects, all([&forgotten(MAP, &[0, 1]), &[hands_in(&stages[0], 1, &[])]]));
    jobs.awaits_all(&[MAP]);
    jobs.made(MAP, 2, &[(0, E1), (1, E2)]);
    let effects = jobs.made(RESULT, 2, &[]);
    assert_eq!(effects[2..], [MAP, RESULT].map(PlannerEffect::ForgetStage));
    jobs.is_empty();
}

/// Before each of these events, and after the last.
#[test]
fn a_dataset_may_be_dropped_at_any_time() {
    let events = [
        PlannerEvent::AwaitsInput(MAP),
        PlannerEvent::AwaitsInput(RESULT),
        ended(MAP, 1, Ok(places(&[(0, E1), (1, E2)]))),
        PlannerEvent::ExecutorLost(E1),
        input_lost(RESULT, (MAP, 0), 0),
        PlannerEvent::AwaitsInput(MAP),
        ended(MAP, 2, Ok(places(&[(0, E2), (1, E2)]))),
        ended(RESULT, 2, Ok(Vec::new())),
    ];
    for dropped_before in 0..=events.len() {
        let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
        let mut effects = Vec::new();
        for (index, event) in events.iter().enumerate() {
            if index == dropped_before {
                assert_eq!(jobs.drop_all(&[MAP]), [], "before event {index}");
            }
            effects.extend(jobs.handle(event.clone()));
        }
        effects.extend(jobs.drop_all(&[MAP]));
        jobs.is_empty();
        let forgets = |it: &&PlannerEffect| matches!(it, PlannerEffect::ForgetStage(MAP));
        assert_eq!(effects.iter().filter(forgets).count(), 1, "dropped before {dropped_before}");
    }
}

#[test]
fn a_dataset_that_is_dropped_while_its_stage_is_cancelled_is_forgotten_with_its_end() {
    for result in [Ok(places(&[(0, E1), (1, E2)])), Err(was_cancelled())] {
        let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
        jobs.awaits_all(&[MAP, RESULT]);
        jobs.cancel(JOB);
        assert_eq!(jobs.drop_all(&[MAP]), []);
        jobs.failed(RESULT, 0, was_cancelled());
        assert_eq!(jobs.handle(ended(MAP, 1, result)), [PlannerEffect::ForgetStage(MAP)]);
        jobs.is_empty();
    }
}

#[test]
fn a_dataset_that_is_dropped_is_forgotten_with_the_failure_of_its_stage() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    jobs.drop_all(&[MAP]);
    let effects = jobs.failed(MAP, 0, StageFailure::Shutdown);
    assert!(effects.contains(&PlannerEffect::ForgetStage(MAP)));
    jobs.failed(RESULT, 0, StageFailure::Shutdown);
    jobs.is_empty();
}

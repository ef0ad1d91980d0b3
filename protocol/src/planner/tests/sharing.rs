//! Two jobs on one map stage.

use super::*;

/// Two jobs on one gang, both started.
fn two() -> Jobs {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    let stages = chain(&[Gang(2), Plain(2)], OTHER_RESULT);
    let effects = jobs.submit(OTHER_JOB, stages.clone());
    assert_eq!(effects, [hands_in(&stages[1], 0, &[])], "the gang is with the scheduler already");
    jobs.awaits_all(&[MAP, RESULT]);
    jobs.awaits_all(&[OTHER_RESULT]);
    jobs
}

fn two_mapped() -> Jobs {
    let mut jobs = two();
    let effects = jobs.made(MAP, 1, &[(0, E1), (1, E2)]);
    assert_eq!(effects, [RESULT, OTHER_RESULT].map(PlannerEffect::InputReady));
    jobs
}

#[test]
fn one_of_two_jobs_is_cancelled_and_the_stage_goes_on_for_the_other() {
    let mut jobs = two();
    let effects = jobs.cancel(JOB);
    assert_eq!(effects, all([&job_ended(JOB, Some(not_needed())), &[cancels(RESULT)]]));
    let effects = jobs.made(MAP, 1, &[(0, E1), (1, E2)]);
    assert_eq!(effects, [PlannerEffect::InputReady(OTHER_RESULT)]);
    assert_eq!(jobs.cancel(OTHER_JOB)[2..], [cancels(OTHER_RESULT)], "the outputs are kept");
}

#[test]
fn both_of_two_jobs_are_cancelled_and_so_is_the_stage() {
    let mut jobs = two();
    jobs.cancel(JOB);
    assert_eq!(jobs.cancel(OTHER_JOB)[2..], [cancels(MAP), cancels(OTHER_RESULT)]);
    for (stage, next) in [(MAP, 1), (RESULT, 0), (OTHER_RESULT, 0)] {
        jobs.failed(stage, next, was_cancelled());
    }
    jobs.drop_all(&[MAP]);
    jobs.is_empty();
}

#[test]
fn a_stage_that_is_being_cancelled_is_handed_in_again_for_who_came_since() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    jobs.awaits_all(&[MAP, RESULT]);
    jobs.cancel(JOB);
    let stages = chain(&[Gang(2), Plain(2)], OTHER_RESULT);
    let effects = jobs.submit(OTHER_JOB, stages.clone());
    assert_eq!(effects, [hands_in(&stages[1], 0, &[])]);
    assert_eq!(jobs.awaits_all(&[OTHER_RESULT]), [], "not before the gang is checked");
    let effects = jobs.failed(MAP, 1, was_cancelled());
    assert_eq!(effects, [hands_in(&stages[0], 1, &[])]);
    let effects = jobs.awaits_all(&[MAP]);
    let started = job_started(OTHER_JOB, &stages);
    assert_eq!(effects, [started, PlannerEffect::InputReady(MAP)]);
}

#[test]
fn the_failure_of_a_shared_stage_fails_both_jobs() {
    let mut jobs = two();
    let effects = jobs.failed(MAP, 1, StageFailure::QueueFull { limit: 2 });
    let ends = effects.iter().filter_map(|effect| match effect {
        PlannerEffect::JobEnded { job, result } => Some((*job, result.is_err())),
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [(JOB, true), (OTHER_JOB, true)]);
}

#[test]
fn one_output_that_two_jobs_do_not_find_is_made_again_once() {
    let stages = chain(&[Gang(2), Plain(2)], RESULT);
    let mut jobs = two_mapped();
    let effects = jobs.not_found(RESULT, (MAP, 0), 0);
    assert_eq!(effects, all([&forgotten(MAP, &[0, 1]), &[hands_in(&stages[0], 1, &[])]]));
    assert_eq!(jobs.not_found(OTHER_RESULT, (MAP, 0), 1), []);
    jobs.awaits_all(&[MAP]);
    let effects = jobs.made(MAP, 2, &[(0, E1), (1, E2)]);
    assert_eq!(effects, [RESULT, OTHER_RESULT].map(PlannerEffect::InputReady));
}

#[test]
fn one_output_that_two_stages_of_a_job_do_not_find_is_made_again_once() {
    let mut lineage = Lineage::default();
    let node = |num_partitions, parents| {
        let name = "rows".to_owned();
        DatasetNode { name, num_partitions, from_barrier: false, parents }
    };
    let shuffle = |parent, stage| Dependency::Shuffle { parent, stage: StageId(stage) };
    lineage.push(node(2, vec![]));
    lineage.push(node(1, vec![shuffle(0, 0)]));
    lineage.push(node(1, vec![shuffle(0, 0)]));
    lineage.push(node(1, vec![shuffle(1, 1), shuffle(2, 2)]));
    let stages = staged(&lineage, RESULT);
    let (second, third) = (StageId(1), StageId(2));
    let mut jobs = Jobs::new();
    jobs.submit(JOB, stages.clone());
    jobs.awaits_all(&[MAP, second, third, RESULT]);
    let effects = jobs.made(MAP, 1, &[(0, E1), (1, E2)]);
    assert_eq!(effects, [second, third].map(PlannerEffect::InputReady));
    let effects = jobs.not_found(second, (MAP, 0), 0);
    assert_eq!(effects, all([&forgotten(MAP, &[0]), &[hands_in(&stages[0], 1, &[1])]]));
    assert_eq!(jobs.not_found(third, (MAP, 0), 0), []);
    let effects = jobs.made(MAP, 2, &[(0, E2)]);
    assert_eq!(effects, [second, third].map(PlannerEffect::InputReady));
}

#[test]
fn what_a_cancelled_stage_has_not_found_is_made_again_for_others() {
    let stages = chain(&[Gang(2), Plain(2)], RESULT);
    let mut jobs = two_mapped();
    jobs.cancel(OTHER_JOB);
    let effects = jobs.not_found(OTHER_RESULT, (MAP, 0), 0);
    assert_eq!(effects, forgotten(MAP, &[0, 1]), "the result that runs may have read it");
    assert_eq!(jobs.not_found(RESULT, (MAP, 0), 0), [hands_in(&stages[0], 1, &[])]);
}

/// As [`chain`] of a gang of two, asked for by somebody who wants other things of its stages.
fn with_other_settings() -> Vec<JobStage> {
    let mut stages = chain(&[Gang(2), Plain(2)], OTHER_RESULT);
    stages.iter_mut().for_each(|stage| stage.spec.max_attempts += 5);
    stages
}

#[test]
fn a_stage_that_failed_in_one_job_is_run_with_the_settings_of_the_next() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    jobs.failed(MAP, 0, StageFailure::QueueFull { limit: 2 });
    let stages = with_other_settings();
    let effects = jobs.submit(OTHER_JOB, stages.clone());
    assert_eq!(effects, [hands_in(&stages[0], 0, &[]), hands_in(&stages[1], 0, &[])]);
}

#[test]
fn a_stage_that_was_handed_in_keeps_its_settings_until_it_is_cancelled() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    assert!(jobs.machine.is_handed_in(MAP));
    let stages = with_other_settings();
    jobs.submit(OTHER_JOB, stages.clone());
    jobs.cancel(JOB);
    jobs.cancel(OTHER_JOB);
    assert!(!jobs.machine.is_handed_in(MAP));
    jobs.failed(OTHER_RESULT, 0, was_cancelled());
    jobs.submit(OTHER_JOB, stages.clone());
    let effects = jobs.failed(MAP, 0, was_cancelled());
    assert_eq!(effects, [hands_in(&stages[0], 0, &[])], "not as it was handed in first");
}

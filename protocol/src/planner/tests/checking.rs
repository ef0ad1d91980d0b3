//! What keeps a job from starting.

use super::*;

fn node(
    name: &str,
    num_partitions: u32,
    from_barrier: bool,
    parents: Vec<Dependency>,
) -> DatasetNode {
    DatasetNode { name: name.to_owned(), num_partitions, from_barrier, parents }
}

/// A gang of two made into one partition: it cannot be one.
fn unsupported(result: StageId) -> Vec<JobStage> {
    let mut lineage = Lineage::default();
    let map = lineage.push(node("rows", 1, false, vec![]));
    let shuffle = Dependency::Shuffle { parent: map, stage: MAP };
    let gang = lineage.push(node("train", 2, true, vec![shuffle]));
    lineage.push(node("coalesce", 1, false, vec![Dependency::Narrow { parent: gang }]));
    staged(&lineage, result)
}

fn too_few() -> StageFailure {
    let interval = Duration::from_secs(15);
    let (required, available, checks) = (2, 1, 40);
    StageFailure::NotEnoughSlots { required, available, checks, interval, last_cause: None }
}

#[test]
fn a_job_whose_stage_fails_its_check_never_starts() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    assert_eq!(jobs.handle(PlannerEvent::AwaitsInput(RESULT)), []);
    let effects = jobs.failed(MAP, 0, too_few());
    let failure = JobFailure::Stage {
        stage: MAP,
        name: "stage-0".to_owned(),
        role: StageRole::Map,
        is_barrier: true,
        failure: too_few(),
    };
    let reason = format!("its job was {failure}");
    let text = "aborted due to stage failure: stage 0 'stage-0' needs 2 slots at once and all \
                executors together have 1 (checked 40 times, every 15s)";
    assert!(failure.to_string().starts_with(text), "{failure}");
    let cancel = PlannerEffect::CancelStage { stage: RESULT, reason };
    assert_eq!(effects, all([&job_ended(JOB, Some(failure)), &[cancel]]));
    assert_eq!(jobs.failed(RESULT, 0, was_cancelled()), [PlannerEffect::ForgetStage(RESULT)]);
    assert_eq!(jobs.drop_all(&[MAP]), [PlannerEffect::ForgetStage(MAP)]);
    jobs.is_empty();
}

/// Slots come first, as in Spark: who has too few hears of that.
#[test]
fn a_chain_that_is_not_supported_is_refused_when_all_stages_fit() {
    let stages = unsupported(RESULT);
    let mut jobs = Jobs::new();
    let effects = jobs.submit(JOB, stages.clone());
    assert_eq!(effects, [0, 1].map(|it| hands_in(&stages[it], 0, &[])));
    assert_eq!(jobs.handle(PlannerEvent::AwaitsInput(RESULT)), []);
    let effects = jobs.handle(PlannerEvent::AwaitsInput(MAP));
    let chain = UnsupportedChain::PartitionsDiffer {
        dataset: "train".to_owned(),
        num_partitions: 2,
        last: "coalesce".to_owned(),
        num_tasks: 1,
    };
    let failure = JobFailure::UnsupportedChain { stage: RESULT, chain };
    let reason = format!("its job was {failure}");
    assert!(reason.starts_with("its job was refused: stage 8: a barrier stage cannot hold"));
    let cancel = |stage| PlannerEffect::CancelStage { stage, reason: reason.clone() };
    let over = job_ended(JOB, Some(failure));
    assert_eq!(effects, all([&over, &[cancel(MAP), cancel(RESULT)]]), "nothing was started");
}

#[test]
fn a_refused_job_does_not_touch_another_that_shares_its_map_stage() {
    let mut jobs = Jobs::new();
    jobs.submit(JOB, unsupported(RESULT));
    let other = chain(&[Plain(1), Plain(1)], OTHER_RESULT);
    jobs.submit(OTHER_JOB, other.clone());
    jobs.handle(PlannerEvent::AwaitsInput(RESULT));
    jobs.handle(PlannerEvent::AwaitsInput(OTHER_RESULT));
    let effects = jobs.handle(PlannerEvent::AwaitsInput(MAP));
    let [PlannerEffect::JobEnded { job: JOB, .. }, PlannerEffect::Emit(_), cancel, go_on @ ..] =
        &effects[..]
    else {
        panic!("{effects:#?}")
    };
    assert!(matches!(cancel, PlannerEffect::CancelStage { stage: RESULT, .. }));
    let started = job_started(OTHER_JOB, &other);
    assert_eq!(go_on, [started, PlannerEffect::InputReady(MAP)]);
}

#[test]
fn a_job_waits_for_its_own_checks_while_another_runs_the_stage_they_share() {
    let mut jobs = Jobs::new();
    jobs.submit(JOB, chain(&[Plain(1), Gang(2)], RESULT));
    jobs.submit(OTHER_JOB, chain(&[Plain(1), Plain(1)], OTHER_RESULT));
    assert_eq!(jobs.handle(PlannerEvent::AwaitsInput(MAP)), []);
    let effects = without_events(jobs.handle(PlannerEvent::AwaitsInput(OTHER_RESULT)));
    assert_eq!(effects, [PlannerEffect::InputReady(MAP)]);
    let ready = [PlannerEffect::InputReady(OTHER_RESULT)];
    assert_eq!(jobs.made(MAP, 1, &[(0, E1)]), ready, "of the job that has started");
    let effects = jobs.handle(PlannerEvent::AwaitsInput(RESULT));
    assert_eq!(without_events(effects), [PlannerEffect::InputReady(RESULT)]);
}

#[test]
fn a_shutdown_is_no_failure_of_a_stage() {
    let (mut jobs, _) = Jobs::of(&[Plain(1)]);
    let effects = jobs.failed(RESULT, 0, StageFailure::Shutdown);
    let over = job_ended(JOB, Some(JobFailure::Shutdown));
    assert_eq!(effects, all([&over, &[PlannerEffect::ForgetStage(RESULT)]]));
    jobs.is_empty();
}

/// A result of no tasks, of a gang of two that is behind a shuffle.
fn of_no_partitions(last: &str) -> Vec<JobStage> {
    let mut lineage = Lineage::default();
    let map = lineage.push(node("rows", 1, false, vec![]));
    let shuffle = Dependency::Shuffle { parent: map, stage: MAP };
    let before = lineage.push(node("before", 2, last == "of a gang", vec![shuffle]));
    lineage.push(node(last, 0, false, vec![Dependency::Narrow { parent: before }]));
    staged(&lineage, RESULT)
}

#[test]
fn a_result_of_no_tasks_needs_no_input_to_be_checked_and_to_start() {
    let stages = of_no_partitions("of rows");
    let mut jobs = Jobs::new();
    assert_eq!(jobs.submit(JOB, stages.clone()), [hands_in(&stages[1], 0, &[])]);
    let effects = jobs.handle(PlannerEvent::AwaitsInput(RESULT));
    assert_eq!(effects, [job_started(JOB, &stages), PlannerEffect::InputReady(RESULT)]);
}

#[test]
fn the_chain_of_a_gang_of_no_tasks_is_checked() {
    let mut jobs = Jobs::new();
    jobs.submit(JOB, of_no_partitions("of a gang"));
    let effects = jobs.handle(PlannerEvent::AwaitsInput(RESULT));
    let failure = match effects.first() {
        Some(PlannerEffect::JobEnded { job: JOB, result: Err(failure) }) => failure,
        other => panic!("{other:?}"),
    };
    let told = "a barrier stage cannot hold";
    assert!(failure.to_string().contains(told), "{failure}");
}

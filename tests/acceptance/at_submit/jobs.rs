//! Jobs that no executor could run: rows B9 to B15, and the order of the refusals.

use super::{INTERVAL, four_of_three, one_of_four, without_time};
use crate::observe::{advance, deferred, is_slot_check, launched, no_pause, until, until_armed};
use crate::observe_jobs::{failed, gang, is_a_run, job_story, no_job_is_left, refused, sorted};
use phalanx::{
    Config, Dataset, EventStream, ExecutorResources, JobFailure, JobHandle, Runtime, Stage,
    StageFailure, StageId, StagePhase, StageRole, UnsupportedChain,
};
use std::time::Duration;

fn with_dynamic_allocation(slots: u32) -> Runtime {
    let config = Config { slots, dynamic_allocation_enabled: true, ..no_pause() };
    Runtime::start(config).unwrap()
}

fn of_stage(failure: &JobFailure) -> (StageId, StageRole, &StageFailure) {
    match failure {
        JobFailure::Stage { stage, role, failure, is_barrier: true, .. } => {
            (*stage, *role, failure)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn b9_dynamic_allocation_and_a_result_stage() {
    let runtime = with_dynamic_allocation(4);
    let dataset = gang(&runtime.parallelize(1..=10, 4));
    let error = failed(dataset.count());
    let stage = of_stage(error.failure()).0;
    assert_eq!(
        error.to_string(),
        format!(
            "job 0 'job' aborted due to stage failure: stage {stage} 'job' was refused: a barrier \
             stage needs 4 slots that stay, and dynamic_allocation.enabled is on: turn it off \
             (executors may still join), or make it a plain stage"
        )
    );
    let failure = refused(&runtime, || dataset.collect());
    let told = (StageRole::Result, &StageFailure::DynamicAllocation { required: 4 });
    let (_, role, failure) = of_stage(&failure);
    assert_eq!((role, failure), told);
}

#[test]
fn b10_dynamic_allocation_and_a_map_stage() {
    let runtime = with_dynamic_allocation(4);
    let dataset = gang(&runtime.parallelize(1..=10, 4)).repartition(2);
    let failure = refused(&runtime, || dataset.collect());
    let told = (StageRole::Map, &StageFailure::DynamicAllocation { required: 4 });
    let (_, role, failure) = of_stage(&failure);
    assert_eq!((role, failure), told);
}

/// A stage before the gang does not run, either.
#[test]
fn b10_dynamic_allocation_and_a_gang_behind_a_plain_stage() {
    let runtime = with_dynamic_allocation(4);
    let dataset = gang(&runtime.parallelize(1..=10, 4).repartition(2)).repartition(3);
    let failure = refused(&runtime, || dataset.collect());
    assert_eq!(*of_stage(&failure).2, StageFailure::DynamicAllocation { required: 2 });
}

#[test]
fn b9_dynamic_allocation_and_a_gang_without_a_dataset() {
    let runtime = with_dynamic_allocation(4);
    let stage = Stage::tasks(2).name("ranks").run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    let error = stage.wait().unwrap_err();
    assert_eq!(*error.failure(), StageFailure::DynamicAllocation { required: 2 });
    assert!(error.to_string().starts_with("stage 0 'ranks' was refused: a barrier stage needs 2"));
    no_job_is_left(&runtime);
}

#[test]
fn b9_dynamic_allocation_and_plain_stages() {
    let runtime = with_dynamic_allocation(2);
    let stage = Stage::tasks(5).plain().run(&runtime, async |ctx| Ok(ctx.rank()));
    assert_eq!(stage.wait().unwrap(), [0, 1, 2, 3, 4]);
    let rows = runtime.parallelize(1..=10, 4).repartition(3).map(|it| it + 1);
    assert_eq!(sorted(rows.collect().wait().unwrap()), (2..=11).collect::<Vec<_>>());
}

/// One failed check after another of this stage, each after its second and not before.
fn fails_by_checks(
    runtime: &Runtime,
    events: &mut EventStream,
    stage: StageId,
    (required, available, max_failures): (u64, u64, u32),
) {
    for check in 1..=max_failures {
        let checks_left = max_failures - check + 1;
        assert_eq!(until(events, deferred), (required, available, checks_left));
        until_armed(runtime, is_slot_check(check));
        assert_eq!(advance(runtime, INTERVAL - Duration::from_millis(1)), []);
        let status = pollster::block_on(runtime.status());
        let phase = status.stages.into_iter().find(|it| it.stage == stage).map(|it| it.phase);
        assert_eq!(phase, Some(StagePhase::Deferred { required, available, checks_left }));
        assert_eq!(pollster::block_on(runtime.jobs()).jobs.len(), 1, "not yet");
        let fired = advance(runtime, Duration::from_millis(1));
        assert!(fired.iter().all(is_slot_check(check)) && fired.len() == 1, "{fired:?}");
    }
}

/// The job fails with the numbers after a check at once and three more.
fn too_many(runtime: &Runtime, job: impl FnOnce() -> JobHandle<u64>, role: StageRole) -> String {
    let mut events = runtime.subscribe();
    let job = job();
    let (id, index) = (job.id(), usize::from(role == StageRole::Result));
    let stage = if job.stages().len() == 1 { job.stages()[0] } else { job.stages()[index] };
    fails_by_checks(runtime, &mut events, stage, (5, 4, 3));
    let error = failed(job);
    let failure = StageFailure::NotEnoughSlots {
        required: 5,
        available: 4,
        checks: 4,
        interval: INTERVAL,
        last_cause: None,
    };
    assert_eq!(of_stage(error.failure()), (stage, role, &failure));
    no_job_is_left(runtime);
    let told = job_story(&mut events, id);
    assert!(told.iter().all(|event| !is_a_run(event)), "{told:?}");
    error.to_string()
}

fn five(runtime: &Runtime, cpus: u32) -> Dataset<i32> {
    let numbers = runtime.parallelize(1..=10, 5);
    gang(&numbers.settings(|stage| stage.name("wide").cpus(cpus)))
}

#[test]
fn b11_too_many_tasks_of_a_result_stage_of_a_dataset() {
    let runtime = without_time(3, one_of_four());
    let text = too_many(&runtime, || five(&runtime, 1).count(), StageRole::Result);
    assert_eq!(
        text,
        "job 0 'wide' aborted due to stage failure: stage 0 'wide' needs 5 slots at once and all \
         executors together have 4 (checked 4 times, every 1s): add slots, ask for fewer resources \
         per task, or use fewer tasks (of a dataset: repartition it)"
    );
    // Behind a plain stage, which does not run in vain.
    let behind = || gang(&runtime.parallelize(1..=10, 4).repartition(5)).count();
    too_many(&runtime, behind, StageRole::Result);
}

#[test]
fn b12_too_many_tasks_of_a_map_stage_of_a_dataset() {
    let runtime = without_time(3, one_of_four());
    let job = || five(&runtime, 1).repartition(2).count();
    let text = too_many(&runtime, job, StageRole::Map);
    assert!(text.contains("stage 0 'wide-map-0' needs 5 slots at once"), "{text}");
}

#[test]
fn b13_too_many_tasks_of_a_result_stage_of_a_dataset_in_a_cluster() {
    let runtime = without_time(3, four_of_three());
    too_many(&runtime, || five(&runtime, 2).count(), StageRole::Result);
}

#[test]
fn b14_too_many_tasks_of_a_map_stage_of_a_dataset_in_a_cluster() {
    let runtime = without_time(3, four_of_three());
    too_many(&runtime, || five(&runtime, 2).repartition(2).count(), StageRole::Map);
}

#[test]
fn b11_a_plain_dataset_may_have_more_partitions_than_slots() {
    let runtime = without_time(0, one_of_four());
    let plain = runtime.parallelize(1..=10, 5).repartition(7);
    assert_eq!(plain.count().wait().unwrap(), 10);
    assert_eq!(gang(&plain.repartition(4)).count().wait().unwrap(), 10, "as many as slots");
}

#[test]
fn b15_all_resources_are_counted_for_a_dataset() {
    let runtime = without_time(1, vec![ExecutorResources::new(2).with("gpu", ["0"])]);
    let mut events = runtime.subscribe();
    let two = runtime.parallelize(0..4, 2).settings(|stage| stage.resource("gpu", 1.0));
    let job = gang(&two).count();
    fails_by_checks(&runtime, &mut events, job.stages()[0], (2, 1, 1));
    let text = failed(job).to_string();
    assert!(text.contains("needs 2 slots at once and all executors together have 1"), "{text}");
    assert_eq!(two.count().wait().unwrap(), 4, "one after the other");
}

/// The slots come before the chain: a union that is also too wide is told of the slots, after all
/// checks.
#[test]
fn b5_what_is_also_too_large_is_told_of_the_slots_first() {
    let runtime = without_time(3, one_of_four());
    let three = runtime.parallelize(1..=6, 3);
    let both = || gang(&three).union(&runtime.parallelize(1..=2, 2)).count();
    too_many(&runtime, both, StageRole::Result);
    let map = || gang(&three).union(&runtime.parallelize(1..=2, 2)).repartition(2).count();
    too_many(&runtime, map, StageRole::Map);
    // When the slots are there, it is told of the chain.
    let job = both();
    pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    let error = failed(job);
    let JobFailure::UnsupportedChain { chain, .. } = error.failure() else { panic!("{error}") };
    assert!(matches!(chain, UnsupportedChain::PartitionsDiffer { num_tasks: 5, .. }), "{error}");
    no_job_is_left(&runtime);
}

/// One stage has too few slots, and another one an unsupported chain.
#[test]
fn b2_the_slots_of_all_stages_come_before_the_chain_of_any() {
    let runtime = without_time(3, one_of_four());
    let pruned = runtime.parallelize(1..=10, 4).prune_partitions(|index| index > 1);
    let job = || gang(&gang(&pruned).repartition(5)).count();
    too_many(&runtime, job, StageRole::Result);
}

/// Dynamic allocation comes before everything: at once, and without a check.
#[test]
fn b9_what_is_wrong_in_all_ways_is_told_of_dynamic_allocation_first() {
    let runtime = with_dynamic_allocation(4);
    let union = gang(&runtime.parallelize(1..=6, 3)).union(&runtime.parallelize(1..=2, 2));
    let mut events = runtime.subscribe();
    for dataset in [union.clone(), union.repartition(2)] {
        let failure = refused(&runtime, || dataset.collect());
        assert_eq!(*of_stage(&failure).2, StageFailure::DynamicAllocation { required: 5 });
    }
    let probe = runtime.parallelize([1], 1).count();
    let id = probe.id();
    probe.wait().unwrap();
    let told = job_story(&mut events, id);
    assert_eq!(told.iter().filter_map(deferred).count(), 0, "{told:?}");
}

/// With the clock of the machine.
#[test]
fn b11_too_many_tasks_of_a_dataset_in_real_time() {
    let config = Config {
        slots: 4,
        slot_check_interval: Duration::from_millis(10),
        slot_check_max_failures: 3,
        ..Config::default()
    };
    let runtime = Runtime::start(config).unwrap();
    let mut events = runtime.subscribe();
    let job = five(&runtime, 1).count();
    let id = job.id();
    let text = failed(job).to_string();
    assert!(text.contains("have 4 (checked 4 times, every 10ms)"), "{text}");
    let told = job_story(&mut events, id);
    assert_eq!(told.iter().filter_map(deferred).count(), 3);
    assert_eq!(launched(&told), []);
}

//! What is refused or put off when a stage is handed in: rows B and I.

mod chains;
mod deferred;
mod deferred_jobs;
mod jobs;

use crate::observe::{
    advance, deferred, is_slot_check, launched, local, running, start_without_time, story, until,
    until_armed,
};
use phalanx::{
    Config, EventStream, ExecutorResources, OnFailure, Runtime, Stage, StageFailure, StageHandle,
    StagePhase, TaskResult,
};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(1);

fn without_time(max_failures: u32, executors: Vec<ExecutorResources>) -> Runtime {
    let config = Config {
        slot_check_interval: INTERVAL,
        slot_check_max_failures: max_failures,
        ..crate::observe::no_pause()
    };
    start_without_time(config, executors)
}

/// One failed check after another, each after its second and not before.
fn fails_by_checks(
    runtime: &Runtime,
    events: &mut EventStream,
    stage: &StageHandle<()>,
    (required, available, max_failures): (u64, u64, u32),
) {
    for check in 1..=max_failures {
        let checks_left = max_failures - check + 1;
        assert_eq!(until(events, deferred), (required, available, checks_left));
        until_armed(runtime, is_slot_check(check));
        assert_eq!(advance(runtime, INTERVAL - Duration::from_millis(1)), []);
        let status = pollster::block_on(stage.status()).expect("not yet");
        assert_eq!(status.phase, StagePhase::Deferred { required, available, checks_left });
        let fired = advance(runtime, Duration::from_millis(1));
        assert!(fired.iter().all(is_slot_check(check)) && fired.len() == 1, "{fired:?}");
    }
}

/// Five tasks on four slots.
fn too_many(executors: Vec<ExecutorResources>, cpus: u32, on_failure: OnFailure) {
    let runtime = without_time(3, executors);
    let mut events = runtime.subscribe();
    let stage = Stage::tasks(5).name("wide").cpus(cpus).on_failure(on_failure);
    let stage = stage.run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    let id = stage.id();
    fails_by_checks(&runtime, &mut events, &stage, (5, 4, 3));
    let error = stage.wait().unwrap_err();
    let failure = StageFailure::NotEnoughSlots {
        required: 5,
        available: 4,
        checks: 4,
        interval: INTERVAL,
        last_cause: None,
    };
    assert_eq!(*error.failure(), failure);
    assert_eq!(
        error.to_string(),
        "stage 0 'wide' needs 5 slots at once and all executors together have 4 (checked 4 times, \
         every 1s): add slots, ask for fewer resources per task, or use fewer tasks (of a dataset: \
         repartition it)"
    );
    assert_eq!(launched(&story(&mut events, id)), []);
    assert!(crate::observe::is_idle(&runtime));
}

fn one_of_four() -> Vec<ExecutorResources> {
    vec![ExecutorResources::new(4)]
}

fn four_of_three() -> Vec<ExecutorResources> {
    vec![ExecutorResources::new(3); 4]
}

#[test]
fn b11_too_many_tasks_of_a_result_stage() {
    too_many(one_of_four(), 1, OnFailure::Abort);
}

#[test]
fn b12_too_many_tasks_of_a_map_stage() {
    too_many(one_of_four(), 1, OnFailure::Restart);
}

#[test]
fn b13_too_many_tasks_of_a_result_stage_in_a_cluster() {
    too_many(four_of_three(), 2, OnFailure::Abort);
}

#[test]
fn b14_too_many_tasks_of_a_map_stage_in_a_cluster() {
    too_many(four_of_three(), 2, OnFailure::Restart);
}

/// The check is for gangs: a plain stage of as many tasks runs in waves.
#[test]
fn b11_a_plain_stage_may_have_more_tasks_than_slots() {
    let runtime = without_time(0, one_of_four());
    let stage = Stage::tasks(5).plain().run(&runtime, async |ctx| Ok(ctx.rank()));
    assert_eq!(stage.wait().unwrap(), [0, 1, 2, 3, 4]);
}

#[test]
fn b11_as_many_tasks_as_slots_are_not_too_many() {
    let runtime = without_time(0, one_of_four());
    let stage = Stage::tasks(4).run(&runtime, async |ctx| Ok(ctx.all_gather(&ctx.rank()).await?));
    assert_eq!(stage.wait().unwrap(), vec![[0, 1, 2, 3]; 4]);
}

/// With the clock of the machine.
#[test]
fn b11_too_many_tasks_in_real_time() {
    let config = Config {
        slots: 4,
        slot_check_interval: Duration::from_millis(10),
        slot_check_max_failures: 3,
        ..Config::default()
    };
    let runtime = Runtime::start(config).unwrap();
    let mut events = runtime.subscribe();
    let stage = Stage::tasks(5).run_blocking(&runtime, |_| Ok(()));
    let id = stage.id();
    let text = stage.wait().unwrap_err().to_string();
    assert!(text.contains("needs 5 slots at once"), "{text}");
    assert!(text.contains("have 4 (checked 4 times, every 10ms)"), "{text}");
    let told = story(&mut events, id);
    assert_eq!(told.iter().filter_map(deferred).count(), 3);
    assert_eq!(launched(&told), []);
}

/// 2 cpus, but 1 gpu: the scarcest resource counts.
#[test]
fn b15_all_resources_are_counted() {
    let runtime = without_time(1, vec![ExecutorResources::new(2).with("gpu", ["0"])]);
    let mut events = runtime.subscribe();
    let two = || Stage::tasks(2).resource("gpu", 1.0);
    let stage = two().run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    fails_by_checks(&runtime, &mut events, &stage, (2, 1, 1));
    let text = stage.wait().unwrap_err().to_string();
    assert!(text.contains("needs 2 slots at once and all executors together have 1"), "{text}");
    let plain = two().plain().run(&runtime, async |ctx| Ok(ctx.resources()["gpu"].clone()));
    assert_eq!(plain.wait().unwrap(), [["0"], ["0"]], "one after the other");
    assert_eq!(running(&runtime), 0);
}

/// Every input is a partition of its own, also one that is given twice: nobody can name a partition
/// twice, and a sync counts as many as there are tasks.
#[test]
fn b16_repeated_inputs_are_partitions_of_their_own() {
    let runtime = local(3);
    let inputs = [0, 1, 1];
    let stage = Stage::partitions(inputs).max_attempts(1).run(&runtime, async |ctx, input| {
        let everyone = ctx.all_gather(&(ctx.rank(), *input)).await?;
        TaskResult::Ok((ctx.num_tasks(), everyone))
    });
    let everyone = vec![(0, 0), (1, 1), (2, 1)];
    assert_eq!(stage.wait().unwrap(), vec![(3, everyone); 3]);
}

/// Two tasks of one input are two slots, and not one.
#[test]
fn b16_repeated_inputs_count_for_the_slot_check() {
    let runtime = without_time(0, vec![ExecutorResources::new(1)]);
    let stage = Stage::partitions([0, 0]).run(&runtime, async |_, _| Ok(()));
    let text = stage.wait().unwrap_err().to_string();
    assert!(text.contains("needs 2 slots at once and all executors together have 1"), "{text}");
}

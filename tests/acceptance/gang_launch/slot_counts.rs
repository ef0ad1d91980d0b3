//! How many tasks can run at once: rows F.

use super::hog;
use crate::observe::{queued, start, until};
use phalanx::{Config, ExecutorResources, Runtime, Stage, StageFailure};

fn four_of_three() -> Runtime {
    let config = Config { slot_check_max_failures: 0, ..crate::observe::no_pause() };
    start(config, vec![ExecutorResources::new(3); 4])
}

/// The number in the refusal of a gang that is too large anyway.
fn max_concurrent_tasks(runtime: &Runtime, cpus: u32) -> u64 {
    let gang = Stage::tasks(1000).cpus(cpus).run(runtime, async |_| Ok(()));
    match gang.wait().unwrap_err().failure() {
        StageFailure::NotEnoughSlots { required: 1000, available, checks: 1, .. } => *available,
        other => panic!("{other}"),
    }
}

#[test]
fn f1_every_cpu_is_a_slot() {
    assert_eq!(max_concurrent_tasks(&four_of_three(), 1), 12);
}

/// What is left over on each executor does not add up.
#[test]
fn f2_two_cpus_per_task() {
    let runtime = four_of_three();
    assert_eq!(max_concurrent_tasks(&runtime, 2), 4);
    assert_eq!(max_concurrent_tasks(&runtime, 3), 4);
    assert_eq!(max_concurrent_tasks(&runtime, 4), 0);
}

#[test]
fn f3_busy_slots_count() {
    let runtime = four_of_three();
    let mut events = runtime.subscribe();
    let (busy, gate) = hog(&runtime, Stage::tasks(4).cpus(2));
    assert_eq!(max_concurrent_tasks(&runtime, 2), 4);
    assert_eq!(max_concurrent_tasks(&runtime, 1), 12);
    let gang = Stage::tasks(4).cpus(2).run(&runtime, async |ctx| Ok(ctx.task_infos().len()));
    assert_eq!(until(&mut events, queued), (4, 0), "it waits and is not refused");
    gate.open();
    busy.wait().unwrap();
    assert_eq!(gang.wait().unwrap(), [4; 4]);
}

/// Slots come and go with their executors.
#[test]
fn f3_executors_that_come_and_go_count_at_once() {
    let runtime = four_of_three();
    let new = pollster::block_on(runtime.add_executor(ExecutorResources::new(5))).unwrap();
    assert_eq!(max_concurrent_tasks(&runtime, 2), 6);
    assert!(pollster::block_on(runtime.remove_executor(new, "was taken away")));
    assert_eq!(max_concurrent_tasks(&runtime, 2), 4);
}

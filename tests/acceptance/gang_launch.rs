//! Which tasks start when: rows E and F.

mod ends;
mod gpus;
mod slot_counts;

use crate::observe::{
    Gate, deferred, launched, launched_in, no_pause, queued, running, start_without_time, story,
    until,
};
use phalanx::{
    ExecutorId, ExecutorResources, PartitionId, Runtime, RuntimeEvent, Stage, StageHandle, Tasks,
};
use std::collections::BTreeMap;

/// So many executors with so many cpus and gpus; no time passes.
fn offers(executors: usize, cpus: u32, gpus: usize) -> Runtime {
    let addresses: Vec<String> = (0..gpus).map(|gpu| gpu.to_string()).collect();
    let one = match gpus {
        0 => ExecutorResources::new(cpus),
        _ => ExecutorResources::new(cpus).with("gpu", addresses),
    };
    start_without_time(no_pause(), vec![one; executors])
}

/// None of its tasks starts; returns required and available slots.
fn nothing_starts(runtime: &Runtime, stage: Stage<Tasks>) -> (u64, u64) {
    let mut events = runtime.subscribe();
    let handle = stage.run(runtime, async |ctx| Ok(ctx.barrier().await?));
    let id = handle.id();
    let (required, available, _) = until(&mut events, deferred);
    assert_eq!(running(runtime), 0);
    handle.cancel("seen enough");
    assert!(handle.wait().unwrap_err().is_cancelled());
    let story = story(&mut events, id);
    assert_eq!(launched(&story), []);
    assert!(
        matches!(story.last(), Some(RuntimeEvent::StageCompleted { attempts: 0, .. })),
        "{story:?}"
    );
    (required, available)
}

/// Its tasks start all in one step; returns how many on which executor.
fn all_start(runtime: &Runtime, stage: Stage<Tasks>) -> Vec<usize> {
    let mut events = runtime.subscribe();
    let handle = stage.run(runtime, async |ctx| Ok(ctx.all_gather(&ctx.rank()).await?));
    let id = handle.id();
    let everyone = handle.wait().unwrap();
    assert_eq!(everyone, vec![(0..everyone.len()).collect::<Vec<_>>(); everyone.len()]);
    let story = story(&mut events, id);
    let starts =
        story.iter().skip_while(|event| !matches!(event, RuntimeEvent::AttemptStarted { .. }));
    // Only scheduler events can be between them, and there are none.
    let block: Vec<RuntimeEvent> = starts.skip(1).take(everyone.len()).cloned().collect();
    let partitions: Vec<_> = launched(&block).iter().map(|(_, partition, _)| partition.0).collect();
    assert_eq!(partitions, (0..everyone.len() as u32).collect::<Vec<_>>(), "{story:?}");
    let mut on: BTreeMap<ExecutorId, usize> = BTreeMap::new();
    for (.., executor) in launched(&story) {
        *on.entry(executor).or_insert(0) += 1;
    }
    on.into_values().collect()
}

/// A plain task that holds its slot until the gate opens.
fn hog(runtime: &Runtime, stage: Stage<Tasks>) -> (StageHandle<()>, Gate) {
    let gate = Gate::closed();
    let busy = gate.clone();
    let handle = stage.plain().run(runtime, async move |_| {
        busy.pass().await;
        Ok(())
    });
    (handle, gate)
}

#[test]
fn e1_too_few_slots() {
    let runtime = offers(2, 3, 0);
    assert_eq!(nothing_starts(&runtime, Stage::tasks(3).cpus(2)), (3, 2));
    assert_eq!(all_start(&runtime, Stage::tasks(2).cpus(2)), [1, 1]);
}

/// Six cpus are free, but not two beside each other for a third task.
#[test]
fn e1_a_plain_stage_of_as_many_starts_what_fits() {
    let runtime = offers(2, 3, 0);
    let mut events = runtime.subscribe();
    let (stage, gate) = hog(&runtime, Stage::tasks(3).cpus(2));
    until(&mut events, queued);
    assert_eq!(running(&runtime), 2);
    gate.open();
    stage.wait().unwrap();
}

/// There are slots in all, but not free ones: none of the gang starts, and then all.
#[test]
fn e1_too_few_free_slots() {
    let runtime = offers(3, 3, 0);
    let mut events = runtime.subscribe();
    let (busy, gate) = hog(&runtime, Stage::tasks(1).cpus(2));
    let gang = Stage::tasks(3).cpus(2).run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    assert_eq!(until(&mut events, queued), (3, 2));
    assert_eq!(running(&runtime), 1, "the hog alone");
    gate.open();
    busy.wait().unwrap();
    let id = gang.id();
    gang.wait().unwrap();
    let partitions = [0, 1, 2].map(PartitionId);
    assert_eq!(launched_in(&story(&mut events, id), id, 0), partitions);
}

#[test]
fn e2_gpus_limit() {
    let runtime = offers(2, 3, 1);
    let stage = |tasks| Stage::tasks(tasks).resource("gpu", 1.0);
    assert_eq!(nothing_starts(&runtime, stage(3)), (3, 2));
    assert_eq!(all_start(&runtime, stage(2)), [1, 1]);
}

#[test]
fn e3_gpus_suffice() {
    let runtime = offers(3, 3, 1);
    assert_eq!(all_start(&runtime, Stage::tasks(3).resource("gpu", 1.0)), [1, 1, 1]);
}

/// Executors of another kind have slots for others, but not for this gang.
#[test]
fn e4_executors_of_two_kinds() {
    let with_gpus = ExecutorResources::new(2).with("gpu", ["0", "1"]);
    let without = ExecutorResources::new(8);
    let executors = vec![without.clone(), with_gpus.clone(), without, with_gpus];
    let runtime = start_without_time(no_pause(), executors);
    let mut events = runtime.subscribe();
    let stage = Stage::tasks(3).resource("gpu", 1.0).run(&runtime, async |_| Ok(()));
    let id = stage.id();
    stage.wait().unwrap();
    let story = story(&mut events, id);
    let places: Vec<u64> = launched(&story).iter().map(|(.., executor)| executor.0).collect();
    assert_eq!(places.len(), 3);
    assert!(places.iter().all(|executor| [1, 3].contains(executor)), "{places:?}");
}

#[test]
fn e5_executors_of_two_kinds_with_too_few_gpus() {
    let with_gpu = ExecutorResources::new(2).with("gpu", ["0"]);
    let without = ExecutorResources::new(8);
    let executors = vec![without.clone(), with_gpu.clone(), without, with_gpu];
    let runtime = start_without_time(no_pause(), executors);
    assert_eq!(nothing_starts(&runtime, Stage::tasks(3).resource("gpu", 1.0)), (3, 2));
}

#[test]
fn e6_all_fit() {
    let runtime = offers(3, 3, 0);
    assert_eq!(all_start(&runtime, Stage::tasks(3).cpus(2)), [1, 1, 1]);
}

/// Three slots, of which one task holds all, so that they come free in one step.
fn one_large_executor() -> (Runtime, StageHandle<()>, Gate) {
    let runtime = offers(1, 6, 0);
    let (blocker, blocks) = hog(&runtime, Stage::tasks(1).cpus(6));
    (runtime, blocker, blocks)
}

/// Who goes first leaves too few for the gang, though that was there earlier.
#[test]
fn e7_a_stage_of_higher_priority_takes_the_slots() {
    let (runtime, blocker, blocks) = one_large_executor();
    let mut events = runtime.subscribe();
    let gang = Stage::tasks(3).cpus(2).run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    assert_eq!(until(&mut events, queued), (3, 0));
    let (urgent, gate) = hog(&runtime, Stage::tasks(1).cpus(2).priority(1));
    assert_eq!(until(&mut events, queued), (1, 0));
    blocks.open();
    blocker.wait().unwrap();
    assert_eq!(running(&runtime), 1, "the urgent one alone");
    assert_eq!(gang.outcome(), None);
    gate.open();
    urgent.wait().unwrap();
    let id = gang.id();
    gang.wait().unwrap();
    assert_eq!(launched_in(&story(&mut events, id), id, 0).len(), 3);
}

#[test]
fn e7_a_gang_of_higher_priority_goes_first() {
    let (runtime, blocker, blocks) = one_large_executor();
    let mut events = runtime.subscribe();
    let (small, gate) = hog(&runtime, Stage::tasks(1).cpus(2));
    assert_eq!(until(&mut events, queued), (1, 0));
    let gang = Stage::tasks(3).cpus(2).priority(1);
    let gang = gang.run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    assert_eq!(until(&mut events, queued), (3, 0));
    blocks.open();
    blocker.wait().unwrap();
    gang.wait().unwrap();
    gate.open();
    small.wait().unwrap();
}

/// There are no places that a task prefers: whatever executor there is, and no time passes.
#[test]
fn e10_no_gang_waits_for_a_better_place() {
    for executors in [1, 2, 5] {
        assert_eq!(all_start(&offers(executors, 1, 0), Stage::tasks(1)), [1]);
    }
}

/// Half a gpu is busy: it is its fraction that counts, and not its address.
#[test]
fn e11_a_gang_that_fits_in_part_starts_not_at_all() {
    let runtime = offers(1, 8, 2);
    let half = |tasks| Stage::tasks(tasks).resource("gpu", 0.5);
    let mut events = runtime.subscribe();
    let (busy, gate) = hog(&runtime, half(1));
    let gang = half(4).run(&runtime, async |ctx| Ok(ctx.resources()["gpu"].concat()));
    assert_eq!(until(&mut events, queued), (4, 3));
    assert_eq!(running(&runtime), 1);
    assert_eq!(all_start(&runtime, half(3)), [3], "what is free is not held by the gang");
    gate.open();
    busy.wait().unwrap();
    assert_eq!(gang.wait().unwrap(), ["0", "0", "1", "1"]);
}

//! Gpus that tasks share or have several of: E12 to E17.

use super::{all_start, nothing_starts, offers};
use crate::observe::{no_pause, running, start_without_time};
use phalanx::{ExecutorId, ExecutorResources, Runtime, Stage, Tasks};
use std::sync::mpsc;

/// How many tasks share a gpu, in every case.
const SHARES: std::ops::RangeInclusive<usize> = 1..=12;

fn one_executor() -> Runtime {
    offers(1, 50, 4)
}

/// Each with a gpu of its own name.
fn four_executors() -> Runtime {
    let executors = ["0", "1", "2", "3"].map(|gpu| ExecutorResources::new(50).with("gpu", [gpu]));
    start_without_time(no_pause(), executors.into())
}

fn share(stage: Stage<Tasks>, k: usize) -> Stage<Tasks> {
    stage.resource("gpu", 1.0 / k as f64)
}

/// The gpu of every task of a gang, by partition, and where it is.
fn of_gang(runtime: &Runtime, stage: Stage<Tasks>) -> Vec<(ExecutorId, usize)> {
    let handle = stage.run(runtime, async |ctx| {
        ctx.barrier().await?;
        let gpu = ctx.resources()["gpu"].concat().parse()?;
        Ok((ctx.task_infos()[ctx.rank()].executor, gpu))
    });
    handle.wait().unwrap()
}

/// The gpus of the plain tasks that start at once, by partition.
fn of_plain_stage(runtime: &Runtime, stage: Stage<Tasks>, starts: usize) -> Vec<usize> {
    let (tell, told) = mpsc::channel();
    let handle = stage.plain().run(runtime, async move |ctx| {
        let gpu: usize = ctx.resources()["gpu"].concat().parse()?;
        tell.send((ctx.rank(), gpu))?;
        ctx.killed().await;
        Ok(())
    });
    assert_eq!(running(runtime), starts);
    let mut gpus: Vec<(usize, usize)> = told.iter().take(starts).collect();
    handle.cancel("seen enough");
    assert!(handle.wait().unwrap_err().is_cancelled());
    while running(runtime) > 0 {
        std::thread::yield_now();
    }
    gpus.sort_unstable();
    assert!(gpus.iter().map(|(rank, _)| *rank).eq(0..starts), "{gpus:?}");
    gpus.into_iter().map(|(_, gpu)| gpu).collect()
}

/// Addresses are filled one after the other.
fn on_one_executor(base: impl Fn(usize) -> Stage<Tasks>) {
    let runtime = one_executor();
    for k in SHARES {
        let gpus = of_gang(&runtime, share(base(4 * k), k));
        let expected: Vec<_> = (0..4 * k).map(|task| (ExecutorId(0), task / k)).collect();
        assert_eq!(gpus, expected, "{k} per gpu");
        for tasks in [10, 100] {
            let starts = tasks.min(4 * k);
            let gpus = of_plain_stage(&runtime, share(base(tasks), k), starts);
            let expected: Vec<_> = (0..starts).map(|task| task / k).collect();
            assert_eq!(gpus, expected, "{k} per gpu, {tasks} plain tasks");
        }
    }
}

/// As many tasks on each gpu as can share it.
fn on_four_executors(base: impl Fn(usize) -> Stage<Tasks>) {
    let runtime = four_executors();
    let on_each = |gpus: &[usize]| {
        [0, 1, 2, 3].map(|address| gpus.iter().filter(|gpu| **gpu == address).count())
    };
    for k in SHARES {
        let gang = of_gang(&runtime, share(base(4 * k), k));
        assert!(gang.iter().all(|(executor, gpu)| executor.0 == *gpu as u64), "{gang:?}");
        let gpus: Vec<usize> = gang.into_iter().map(|(_, gpu)| gpu).collect();
        assert_eq!(on_each(&gpus), [k; 4], "{gpus:?}");
        let gpus = of_plain_stage(&runtime, share(base(100), k), 4 * k);
        assert_eq!(on_each(&gpus), [k; 4], "{gpus:?}");
        let starts = of_plain_stage(&runtime, share(base(10), k), 10.min(4 * k));
        assert!(on_each(&starts).into_iter().all(|count| count <= k), "{starts:?}");
    }
}

#[test]
fn e12_fractions_of_gpus_on_one_executor() {
    on_one_executor(Stage::tasks);
}

#[test]
fn e13_fractions_of_gpus_on_four_executors() {
    on_four_executors(Stage::tasks);
}

/// What a stage says last about a resource counts.
#[test]
fn e14_another_fraction_than_the_usual_on_one_executor() {
    on_one_executor(|tasks| Stage::tasks(tasks).resource("gpu", 0.1));
}

#[test]
fn e15_another_fraction_than_the_usual_on_four_executors() {
    on_four_executors(|tasks| Stage::tasks(tasks).resource("gpu", 0.1));
}

/// Four gpus; what is more than a whole one is rounded up, what is less shares no second one.
#[test]
fn e16_slots_for_every_amount() {
    let runtime = one_executor();
    let slots = [
        (0.2, 20),
        (0.3, 12),
        (0.4, 8),
        (0.5, 8),
        (0.8, 4),
        (1.0, 4),
        (1.5, 2),
        (2.0, 2),
        (3.0, 1),
        (4.0, 1),
    ];
    for (amount, slots) in slots {
        let stage = |tasks| Stage::tasks(tasks).resource("gpu", amount);
        let refused = nothing_starts(&runtime, stage(slots + 1));
        assert_eq!(refused, (slots as u64 + 1, slots as u64), "{amount} per task");
        assert_eq!(all_start(&runtime, stage(slots)), [slots], "{amount} per task");
    }
    let refused = nothing_starts(&runtime, Stage::tasks(1).resource("gpu", 4.5));
    assert_eq!(refused, (1, 0));
}

#[test]
fn e16_several_gpus_per_task_on_one_executor() {
    let runtime = one_executor();
    let pairs = Stage::tasks(2).resource("gpu", 2.0);
    let pairs = pairs.run(&runtime, async |ctx| Ok(ctx.resources()["gpu"].clone()));
    assert_eq!(pairs.wait().unwrap(), [["0", "1"], ["2", "3"]]);
    let plain = Stage::tasks(10).plain().resource("gpu", 2.0);
    let plain = plain.run(&runtime, async |ctx| Ok(ctx.resources()["gpu"].len()));
    assert_eq!(plain.wait().unwrap(), [2; 10]);
}

/// Two gpus, but not beside each other, are no pair.
#[test]
fn e16_several_gpus_per_task_on_four_executors() {
    let refused = nothing_starts(&four_executors(), Stage::tasks(1).resource("gpu", 2.0));
    assert_eq!(refused, (1, 0));
    assert_eq!(all_start(&offers(2, 50, 2), Stage::tasks(2).resource("gpu", 2.0)), [1, 1]);
}

/// Executors may have resources that the tasks do not ask for.
#[test]
fn e17_all_fit_whatever_else_there_is() {
    assert_eq!(all_start(&offers(3, 3, 4), Stage::tasks(3).cpus(2)), [1, 1, 1]);
}

//! Which stages are barrier stages: rows C, and K16.

use crate::observe::{Gate, local, no_pause};
use crate::observe_jobs::{gang, met, refused, sorted};
use phalanx::{Config, Dataset, JobFailure, Runtime, Stage, StageFailure, SyncError, TaskResult};
use std::sync::{Arc, Barrier};

#[test]
fn c1_what_a_gang_makes_is_barrier() {
    let runtime = local(4);
    let plain = runtime.parallelize(1..=10, 4);
    assert!(!plain.is_barrier());
    let one = plain.barrier().map_partitions(|_, rows| Ok(rows));
    assert!(one.is_barrier());
    assert!(!plain.is_barrier(), "what it is made of is not");
    assert_eq!(one.collect().wait().unwrap(), (1..=10).collect::<Vec<_>>());
}

#[test]
fn c2_a_gang_that_is_given_the_index() {
    let runtime = local(4);
    let indices =
        runtime.parallelize(0..4, 4).barrier().map_partitions_with_index(|_, index, _| Ok([index]));
    assert!(indices.is_barrier());
    assert_eq!(indices.collect().wait().unwrap(), [0, 1, 2, 3]);
}

/// All that is in the stage is of the gang: what comes after the operation by rule, and what comes
/// before because the same tasks make it.
#[test]
fn c3_a_gang_in_the_middle_of_a_chain() {
    let runtime = local(4);
    let before = runtime.parallelize(1..=8, 4).map(|it| it * 2);
    let last = gang(&before).map(|it| it + 1).filter(|it| *it > 3).flat_map(|it| [it, it]);
    let last = last.map_partitions(Ok).map_partitions_with_index(|_, rows| Ok(rows));
    assert!(!before.is_barrier() && last.is_barrier());
    assert_eq!(last.count().wait().unwrap(), 14);
    assert_eq!(
        last.explain(),
        "stage 0: result, barrier, 4 tasks: parallelize -> map -> barrier map_partitions* -> \
         map* -> filter* -> flat_map* -> map_partitions* -> map_partitions_with_index*\n"
    );
}

#[test]
fn c4_a_shuffle_ends_it() {
    let runtime = local(4);
    let one = gang(&runtime.parallelize(1..=10, 4));
    let pairs = one.map(|it| (it % 3, it));
    assert!(pairs.is_barrier());
    let sums = pairs.reduce_by_key(|a, b| a + b);
    assert!(![one.repartition(4).is_barrier(), sums.is_barrier()].contains(&true));
    assert!(!one.group_by(|it| it % 3).map(|it| it.0).is_barrier());
    assert_eq!(sorted(sums.collect().wait().unwrap()), [(0, 18), (1, 22), (2, 15)]);
    // Another gang may begin behind it.
    let again = gang(&one.repartition(2));
    assert!(again.is_barrier());
    assert_eq!(sorted(again.collect().wait().unwrap()), (1..=10).collect::<Vec<_>>());
    assert_eq!(
        again.explain(),
        "stage 0: map, barrier, 4 tasks: parallelize -> barrier map_partitions*\n\
         stage 1: result, barrier, 2 tasks: repartition -> barrier map_partitions*; after stage 0\n"
    );
}

/// The rule says barrier, and the job says that it cannot be.
#[test]
fn c4_what_is_made_of_gangs_in_one_stage_is_barrier_and_refused_by_the_job() {
    let runtime = local(8);
    let plain = runtime.parallelize(1..=10, 4);
    let one = gang(&plain);
    let made: [Dataset<i32>; 5] = [
        one.union(&plain),
        plain.union(&one),
        one.coalesce(2),
        one.prune_partitions(|index| index == 0),
        one.zip(&one).map(|(one, _)| one),
    ];
    for dataset in made {
        assert!(dataset.is_barrier());
        let explained = dataset.explain();
        let JobFailure::UnsupportedChain { chain, .. } = refused(&runtime, || dataset.collect())
        else {
            panic!("{explained}")
        };
        let told = format!("; would be refused: {chain}\n");
        assert!(explained.ends_with(&told), "{explained}");
    }
    assert!(one.zip(&plain).is_barrier() && plain.zip(&one).is_barrier(), "and these can be run");
}

/// Three tasks that meet without the runtime: they are there at once, or the test does not end.
fn meets(tasks: usize) -> impl Fn() + Clone + Send + Sync + 'static {
    let all = Arc::new(Barrier::new(tasks));
    move || {
        all.wait();
    }
}

/// What is in the stage of a gang is run by its tasks, all at once; a plain operation is given no
/// context, so it cannot meet.
#[test]
fn c7_plain_operations_in_the_stage_of_a_gang_are_run_by_its_tasks() {
    let runtime = local(3);
    let (before, after) = (meets(3), meets(3));
    let dataset = runtime.parallelize(0..3, 3).map_partitions(move |rows| {
        before();
        Ok(rows)
    });
    let dataset = gang(&dataset).map_partitions(move |rows| {
        after();
        Ok(rows)
    });
    assert_eq!(dataset.collect().wait().unwrap(), [0, 1, 2]);
}

/// A plain stage beside it needs only one slot.
#[test]
fn c7_the_same_operation_makes_a_gang_with_barrier_and_none_without() {
    let config = Config { slots: 2, slot_check_max_failures: 0, ..no_pause() };
    let runtime = Runtime::start(config).unwrap();
    let three = runtime.parallelize(0..3, 3);
    let plain = three.map_partitions(Ok);
    assert_eq!(plain.collect().wait().unwrap(), [0, 1, 2]);
    let one = three.barrier().map_partitions(|_, rows| Ok(rows));
    let JobFailure::Stage { failure, is_barrier: true, .. } = refused(&runtime, || one.collect())
    else {
        panic!()
    };
    assert!(matches!(failure, StageFailure::NotEnoughSlots { required: 3, available: 2, .. }));
    // Both in one job: a gang, and then its rows in waves.
    let both = gang(&three.repartition(2)).repartition(5).map_partitions(Ok);
    assert_eq!(sorted(both.collect().wait().unwrap()), [0, 1, 2]);
}

/// Only a stage of one's own can be plain and have a context.
#[test]
fn c8_a_task_of_a_plain_stage_cannot_meet() {
    let runtime = local(2);
    let stage = Stage::tasks(2)
        .plain()
        .max_attempts(1)
        .run_blocking(&runtime, |ctx| TaskResult::Ok((ctx.barrier(), ctx.all_gather(&1).is_err())));
    for (met, gathered) in stage.wait().unwrap() {
        assert!(matches!(met, Err(SyncError::NotABarrierStage { .. })), "{met:?}");
        assert!(gathered);
    }
    let met = met(&runtime, 2).collect().wait().unwrap();
    assert_eq!(met, vec![(0, vec![0, 1]); 2]);
}

/// There are two operations that take what `barrier()` gives. Both make gangs, of all partitions,
/// wherever their stage is.
#[test]
fn c9_both_operations_of_a_barrier_dataset_start_all_tasks_together() {
    let runtime = local(4);
    let numbers = runtime.parallelize(0..4, 4);
    let (one, other) = (meets(4), meets(4));
    let plainly = numbers.barrier().map_partitions(move |ctx, _| {
        one();
        Ok(ctx.all_gather(&ctx.rank())?)
    });
    let with_index = numbers.barrier().map_partitions_with_index(move |ctx, index, _| {
        other();
        Ok(ctx.all_gather(&index)?)
    });
    for dataset in [plainly, with_index] {
        assert!(dataset.is_barrier());
        assert_eq!(dataset.collect().wait().unwrap(), [0, 1, 2, 3].repeat(4));
        assert_eq!(dataset.repartition(1).count().wait().unwrap(), 16, "as a map stage");
    }
}

/// One task of another stage holds a slot: the gang starts when all of its slots are free, by
/// whichever operation it was made, and no task of it before.
#[test]
fn c9_no_task_of_a_gang_starts_before_all_can() {
    let runtime = local(3);
    let mut events = runtime.subscribe();
    for with_index in [false, true] {
        let gate = Gate::closed();
        let busy = gate.clone();
        let one = Stage::tasks(1).run_blocking(&runtime, move |_| {
            busy.pass_blocking();
            Ok(())
        });
        crate::observe::until(&mut events, crate::observe_jobs::starts(one.id(), 0));
        let numbers = runtime.parallelize(0..3, 3).barrier();
        let dataset = if with_index {
            numbers.map_partitions_with_index(|ctx, _, _| Ok([ctx.all_gather(&0)?.len()]))
        } else {
            numbers.map_partitions(|ctx, _| Ok([ctx.all_gather(&0)?.len()]))
        };
        let job = dataset.collect();
        assert_eq!(crate::observe::until(&mut events, crate::observe::queued), (3, 2));
        assert_eq!(crate::observe::running(&runtime), 1);
        gate.open();
        assert_eq!(job.wait().unwrap(), [3, 3, 3]);
        one.wait().unwrap();
    }
}

//! Which chains of datasets can be a gang: rows B1 to B8, and B16.

use crate::observe::local;
use crate::observe_jobs::{gang, refused, sorted};
use phalanx::{Dataset, JobFailure, JobHandle, Runtime, StageId, UnsupportedChain};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The stage that cannot be a gang, and why.
#[track_caller]
fn unsupported<R: 'static>(
    runtime: &Runtime,
    ask: impl FnOnce() -> JobHandle<R>,
) -> (StageId, UnsupportedChain) {
    match refused(runtime, ask) {
        JobFailure::UnsupportedChain { stage, chain } => (stage, chain),
        other => panic!("{other}"),
    }
}

/// The datasets that do not fit: this one has so many partitions, and the last so many.
#[track_caller]
fn differ(dataset: &Dataset<i32>, runtime: &Runtime) -> (String, u32, String, u32) {
    match unsupported(runtime, || dataset.collect()).1 {
        UnsupportedChain::PartitionsDiffer { dataset, num_partitions, last, num_tasks } => {
            (dataset, num_partitions, last, num_tasks)
        }
        other => panic!("{other}"),
    }
}

fn as_told(
    dataset: &str,
    num_partitions: u32,
    last: &str,
    tasks: u32,
) -> (String, u32, String, u32) {
    (dataset.to_owned(), num_partitions, last.to_owned(), tasks)
}

/// 1 to 10 in 4 partitions, of which the last two are kept: 6 to 10.
fn pruned(runtime: &Runtime) -> Dataset<i32> {
    runtime.parallelize(1..=10, 4).prune_partitions(|index| index > 1)
}

#[test]
fn b1_a_pruned_parent_of_a_result_stage() {
    let runtime = local(4);
    let dataset = gang(&pruned(&runtime));
    let job = dataset.collect();
    let result = job.stages()[0];
    assert_eq!(
        job.wait().unwrap_err().to_string(),
        format!(
            "job 0 'job' refused: stage {result}: a barrier stage cannot hold datasets of \
             different numbers of partitions: it has 2 tasks, for 'barrier map_partitions', and \
             'parallelize' has 4 partitions; put a repartition(2) between the two, so that they \
             are made by different stages"
        )
    );
    let told = as_told("parallelize", 4, "barrier map_partitions", 2);
    assert_eq!(differ(&dataset, &runtime), told);
    // Wherever in the stage it is, and also if it is the gang's rows that are pruned.
    let mapped = gang(&pruned(&runtime).map(|it| it + 1)).filter(|_| true);
    assert_eq!(differ(&mapped, &runtime), as_told("parallelize", 4, "filter", 2));
    let after = gang(&runtime.parallelize(1..=10, 4)).prune_partitions(|index| index > 1);
    assert_eq!(differ(&after, &runtime), as_told("parallelize", 4, "prune_partitions", 2));
}

#[test]
fn b1_pruning_that_keeps_all_partitions_is_fine() {
    let runtime = local(4);
    let all = gang(&runtime.parallelize(1..=10, 4).prune_partitions(|_| true));
    assert_eq!(all.count().wait().unwrap(), 10);
}

#[test]
fn b2_a_pruned_parent_of_a_map_stage() {
    let runtime = local(4);
    let dataset = gang(&pruned(&runtime)).repartition(2).map(|it| it + 1);
    let mut map_stage = None;
    let (stage, chain) = unsupported(&runtime, || {
        let job = dataset.collect();
        map_stage = Some(job.stages()[0]);
        job
    });
    assert_eq!(Some(stage), map_stage, "the map stage is named");
    assert!(matches!(chain, UnsupportedChain::PartitionsDiffer { num_tasks: 2, .. }), "{chain}");
}

/// All stages are checked before the first of them runs.
#[test]
fn b2_no_stage_before_the_refused_one_runs() {
    let runtime = local(4);
    let runs = Arc::new(AtomicU32::new(0));
    let count = runs.clone();
    let made = runtime.parallelize(1..=10, 4).map(move |it| {
        count.fetch_add(1, Ordering::SeqCst);
        it
    });
    let behind = gang(&made.repartition(4).prune_partitions(|index| index > 1));
    assert_eq!(differ(&behind, &runtime).0, "repartition");
    let between = gang(&gang(&made).coalesce(1)).repartition(2);
    let last = as_told("parallelize", 4, "barrier map_partitions", 1);
    assert_eq!(differ(&between, &runtime), last);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[test]
fn b3_pruning_behind_a_shuffle_works() {
    let runtime = local(4);
    let rows = gang(&pruned(&runtime).repartition(2)).collect().wait().unwrap();
    assert_eq!(sorted(rows), [6, 7, 8, 9, 10]);
    // Nor does it matter on the other side of the gang.
    let gang = gang(&runtime.parallelize(1..=10, 4)).repartition(4);
    let rows = gang.prune_partitions(|index| index < 4).coalesce(2).collect().wait().unwrap();
    assert_eq!(sorted(rows), (1..=10).collect::<Vec<_>>());
}

#[test]
fn b4_a_part_of_the_partitions() {
    let runtime = local(4);
    let dataset = gang(&runtime.parallelize(1..=10, 4));
    let ask = |partitions: &[usize]| {
        let partitions = partitions.to_vec();
        unsupported(&runtime, || dataset.collect_partitions(partitions)).1
    };
    for (partitions, requested) in [(&[1, 3][..], 2), (&[], 0), (&[3, 2, 0], 3)] {
        let UnsupportedChain::PartialPartitions { requested: told, num_partitions: 4, .. } =
            ask(partitions)
        else {
            panic!("{}", ask(partitions))
        };
        assert_eq!(told, requested);
    }
    assert_eq!(
        ask(&[1, 3]).to_string(),
        "a barrier stage makes all of its partitions or none: 2 of the 4 partitions of 'barrier \
         map_partitions' are asked for; collect() all and take what is needed"
    );
    let all = dataset.collect_partitions(0..4).wait().unwrap();
    assert_eq!(all, [vec![1, 2], vec![3, 4, 5], vec![6, 7], vec![8, 9, 10]]);
}

/// A part of a dataset that is no gang is fine, also if one is behind its shuffle.
#[test]
fn b4_a_part_of_what_comes_behind_a_gang() {
    let runtime = local(4);
    let behind = gang(&runtime.parallelize(1..=10, 4)).repartition(4);
    let all = behind.collect_partitions(0..4).wait().unwrap();
    let part = behind.collect_partitions([1, 3]).wait().unwrap();
    assert_eq!(part, [all[1].clone(), all[3].clone()]);
    assert_eq!(behind.collect_partitions([]).wait().unwrap(), Vec::<Vec<i32>>::new());
}

/// In whatever order they are asked for, the gang's tasks are those of their partitions.
#[test]
fn b4_all_partitions_in_another_order() {
    let runtime = local(3);
    let ranks =
        runtime.parallelize(0..3, 3).barrier().map_partitions_with_index(|ctx, index, rows| {
            let rows: Vec<i32> = rows.collect();
            let all = ctx.all_gather(&rows)?.concat();
            Ok([(index, ctx.rank(), rows, all)])
        });
    let all = vec![0, 1, 2];
    let of = |partition: usize| vec![(partition, partition, vec![partition as i32], all.clone())];
    let asked = ranks.collect_partitions([2, 0, 1]).wait().unwrap();
    assert_eq!(asked, [of(2), of(0), of(1)]);
}

#[test]
fn b5_a_union_of_a_gang_and_a_plain_dataset() {
    let runtime = local(4);
    let (one, other) = (gang(&runtime.parallelize(1..=4, 2)), runtime.parallelize(5..=8, 2));
    let union = one.union(&other);
    assert!(union.is_barrier());
    let told = as_told("parallelize", 2, "map", 4);
    assert_eq!(differ(&union.map(|it| it + 1), &runtime), told);
    assert_eq!(differ(&other.union(&one).map(|it| it + 1), &runtime), told);
    assert_eq!(differ(&one.union(&one), &runtime), as_told("parallelize", 2, "union", 4));
    assert_eq!(differ(&gang(&other.union(&other)), &runtime).1, 2, "also before the gang");
    let nothing = one.union(&runtime.from_partitions([]));
    assert_eq!(differ(&nothing, &runtime), as_told("from_partitions", 0, "union", 2));
    // As the text advises.
    let rows = one.repartition(4).union(&other).map(|it| it + 1).collect().wait().unwrap();
    assert_eq!(sorted(rows), (2..=9).collect::<Vec<_>>());
}

#[test]
fn b6_a_coalesced_gang() {
    let runtime = local(4);
    let one = gang(&runtime.parallelize(1..=10, 4));
    let told = as_told("parallelize", 4, "coalesce", 1);
    assert_eq!(differ(&one.coalesce(1), &runtime), told);
    let before = gang(&runtime.parallelize(1..=10, 4).coalesce(1));
    assert_eq!(differ(&before, &runtime).3, 1);
    // To as many as there are is no change, and behind a shuffle it is another stage's.
    assert_eq!(one.coalesce(4).count().wait().unwrap(), 10);
    assert_eq!(one.repartition(1).coalesce(1).count().wait().unwrap(), 10);
}

#[test]
fn b7_two_barrier_parents() {
    let runtime = local(4);
    let gang_of_4 = || gang(&runtime.parallelize(1..=10, 4));
    let (one, other) = (gang_of_4(), gang_of_4());
    let several = |dataset: &Dataset<i32>| unsupported(&runtime, || dataset.collect()).1;
    let chain = several(&one.zip(&other).map(|(one, _)| one));
    let told = UnsupportedChain::SeveralBarrierParents {
        dataset: "zip".to_owned(),
        barrier_parents: 2,
        num_partitions: 4,
    };
    assert_eq!(chain, told);
    assert_eq!(
        chain.to_string(),
        "a dataset of a barrier stage can have one barrier parent: 'zip' has 2; zip what they are \
         made of before one barrier(), or, if it does not matter which rows meet, put a \
         repartition(4) behind all but one of them"
    );
    assert_eq!(several(&one.zip(&one).map(|(one, _)| one)), told, "also twice the same");
    let mapped = one.map(|it| it + 1).zip(&other.filter(|_| true)).map(|(one, _)| one);
    assert_eq!(several(&gang(&mapped)), told, "wherever in the stage");
    assert_eq!(several(&mapped.repartition(2)), told, "also of a map stage");
    // As the text advises.
    let counts = |dataset: &Dataset<i32>| dataset.map_partitions(|rows| Ok([rows.count()]));
    let counted = counts(&one).zip(&counts(&other.repartition(4))).collect().wait().unwrap();
    assert_eq!(counted.iter().map(|(one, other)| one + other).sum::<usize>(), 20);
}

#[test]
fn b8_a_gang_beside_a_plain_dataset() {
    let runtime = local(4);
    let plain = runtime.parallelize(1..=10, 4);
    let numbers: Vec<(i32, i32)> = (1..=10).map(|it| (it, it)).collect();
    let one = gang(&plain);
    assert_eq!(one.zip(&plain).collect().wait().unwrap(), numbers);
    assert_eq!(plain.zip(&one).collect().wait().unwrap(), numbers);
    assert_eq!(gang(&plain.zip(&plain)).collect().wait().unwrap(), numbers);
    // One gang upon another is the same gang.
    assert_eq!(gang(&gang(&plain)).zip(&plain).collect().wait().unwrap(), numbers);
}

#[test]
fn b16_repeated_partitions_of_a_gang() {
    let runtime = local(4);
    let dataset = gang(&runtime.parallelize(1..=4, 2));
    let ask =
        |partitions: Vec<usize>| unsupported(&runtime, || dataset.collect_partitions(partitions)).1;
    for (partitions, partition) in [(vec![0, 1, 1], 1), (vec![0, 0], 0), (vec![1, 0, 1, 0], 1)] {
        let told = UnsupportedChain::RepeatedPartitions {
            dataset: "barrier map_partitions".to_owned(),
            partition,
            num_partitions: 2,
        };
        assert_eq!(ask(partitions), told);
    }
    assert_eq!(
        ask(vec![0, 1, 1]).to_string(),
        "a barrier stage makes every partition once: partition 1 of 'barrier map_partitions' is \
         asked for more than once; name each of its 2 partitions once, or collect() all"
    );
    let JobFailure::Refused { reason } = refused_at_once(&dataset, [0, 1, 2]) else { panic!() };
    assert_eq!(reason, "partition 2 is asked for, there are 2, from 0 on");
}

/// Refused before there is a job, so that no event tells of it.
fn refused_at_once(dataset: &Dataset<i32>, partitions: [usize; 3]) -> JobFailure {
    dataset.collect_partitions(partitions).wait().unwrap_err().failure().clone()
}

#[test]
fn b16_repeated_partitions_of_a_plain_dataset_are_made_twice() {
    let runtime = local(1);
    let plain = runtime.parallelize(1..=4, 2);
    let rows = plain.collect_partitions([1, 0, 1]).wait().unwrap();
    assert_eq!(rows, [vec![3, 4], vec![1, 2], vec![3, 4]]);
}

/// What Spark refuses (D22): the whole gang runs, and then its rows are cut.
#[test]
fn b4_the_first_rows_of_a_gang_are_cut_from_all_of_them() {
    let runtime = local(4);
    let (met, made) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (counts, makes) = (met.clone(), made.clone());
    let dataset = runtime.parallelize(1..=12, 4).barrier().map_partitions(move |ctx, rows| {
        counts.fetch_add(1, Ordering::SeqCst);
        let makes = makes.clone();
        // All tasks meet at each of their three rows, as they are asked for.
        Ok(rows.inspect(move |_| {
            makes.fetch_add(1, Ordering::SeqCst);
            ctx.barrier().expect("the others come, too");
        }))
    });
    let runs = || (met.swap(0, Ordering::SeqCst), made.swap(0, Ordering::SeqCst));
    assert_eq!(dataset.first().wait().unwrap(), Some(1));
    assert_eq!(runs(), (4, 12));
    for count in [0, 1, 2, 5, 12, 13] {
        let first: Vec<i32> = (1..=12).take(count).collect();
        assert_eq!(dataset.take(count).wait().unwrap(), first);
        assert_eq!(runs(), (4, 12), "the first {count}");
    }
}

//! Datasets and their jobs, through the public API.

use phalanx::{Runtime, TaskResult};

#[test]
fn rows_go_through_a_gang_and_back() -> TaskResult<()> {
    let runtime = Runtime::with_slots(3)?;
    let numbers = runtime.parallelize(0..9, 3).map(|number| number * 2);
    let gang = numbers.barrier().map_partitions(|ctx, rows| {
        let mine: Vec<i32> = rows.collect();
        let sizes = ctx.all_gather(&mine.len())?;
        assert_eq!(sizes, [3, 3, 3]);
        Ok(mine)
    });
    assert!(gang.is_barrier() && !numbers.is_barrier());
    assert_eq!(gang.collect().wait()?, [0, 2, 4, 6, 8, 10, 12, 14, 16]);
    assert_eq!(gang.count().wait()?, 9);
    assert_eq!(gang.take(4).wait()?, [0, 2, 4, 6]);
    assert_eq!(gang.first().wait()?, Some(0));
    Ok(())
}

#[test]
fn rows_go_through_a_shuffle() -> TaskResult<()> {
    let runtime = Runtime::with_slots(4)?;
    let numbers = runtime.parallelize(0..100, 10).repartition(4);
    let gang = numbers.barrier().map_partitions(|ctx, rows| {
        ctx.barrier()?;
        Ok(rows)
    });
    let mut all = gang.collect().wait()?;
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    let words = ["a", "b", "a", "c", "a"];
    let counts = runtime.parallelize(words, 2).map(|word| (word, 1)).reduce_by_key(|a, b| a + b);
    let mut counts = counts.collect().wait()?;
    counts.sort_unstable();
    assert_eq!(counts, [("a", 3), ("b", 1), ("c", 1)]);
    Ok(())
}

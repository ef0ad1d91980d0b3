//! A gang of three on one slot, and its remedy. After "get stuck because of insufficient resources"
//! in `BarrierTest.scala` of waitingforcode.com; ours, too, does not get stuck: it is refused, with
//! numbers, before any of its tasks runs.
//!
//! ```sh
//! cargo run --example seed_insufficient_slots
//! ```

use phalanx::{Config, JobError, JobFailure, Runtime, StageFailure};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn main() -> anyhow::Result<()> {
    match numbers_through_a_gang(1)? {
        (Err(error), started) if is_for_slots(&error) => {
            println!("1 slot: {error}");
            println!("1 slot: {started} tasks of the gang were started");
        }
        (Err(error), _) => return Err(error.into()),
        (Ok(_), _) => anyhow::bail!("three tasks ran at once on one slot"),
    }
    let (numbers, started) = numbers_through_a_gang(3)?;
    let mut numbers = numbers?;
    numbers.sort_unstable(); // repartition has dealt them out
    let is_all = numbers.iter().copied().eq(1..=100);
    println!("3 slots: {started} tasks of the gang were started");
    println!("3 slots: {} elements, all of 1 to 100: {is_all}", numbers.len());
    Ok(())
}

type Collected = Result<Vec<i32>, JobError>;

/// What comes out of the gang, and how many of its tasks were started.
fn numbers_through_a_gang(slots: u32) -> anyhow::Result<(Collected, u32)> {
    let runtime = Runtime::start(Config {
        slots,
        // It looks twice, because an executor may still join.
        slot_check_max_failures: 1,
        slot_check_interval: Duration::from_millis(100),
        ..Config::default()
    })?;
    let started = Arc::new(AtomicU32::new(0));
    let count = started.clone();
    let gang = runtime
        .parallelize(1..=100, slots as usize)
        .repartition(3)
        .map(|number| number)
        .barrier()
        .map_partitions(move |_, numbers| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(numbers)
        });
    let collected = gang.collect().wait();
    Ok((collected, started.load(Ordering::SeqCst)))
}

fn is_for_slots(error: &JobError) -> bool {
    let JobFailure::Stage { failure, .. } = error.failure() else { return false };
    matches!(failure, StageFailure::NotEnoughSlots { .. })
}

//! A task of a result gang fails once: the job fails, because results may be out already. After
//! "not restart the tasks for result stage" in `BarrierTest.scala` of waitingforcode.com.
//!
//! Who knows that a repeat does no harm asks for it, and the same job succeeds.
//! The panics in what it prints are the planned failures.
//!
//! ```sh
//! cargo run --example seed_abort_result_stage
//! ```

use phalanx::{Dataset, JobError, JobFailure, OnFailure, Runtime, StageRole};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn main() -> anyhow::Result<()> {
    let runtime = Runtime::with_slots(3)?;

    let (gang, has_failed) = even_numbers(&runtime);
    match gang.collect().wait() {
        Err(error) if is_of_result_stage(&error) => {
            println!("by default, has failed: {}", has_failed.load(Ordering::SeqCst));
            println!("  {error}");
        }
        Err(error) => return Err(error.into()),
        Ok(_) => anyhow::bail!("the failed gang was started again, and nobody asked for it"),
    }

    let (gang, has_failed) = even_numbers(&runtime);
    let gang = gang.settings(|stage| stage.on_failure(OnFailure::Restart));
    let numbers = gang.collect().wait()?;
    println!("with OnFailure::Restart, has failed: {}", has_failed.load(Ordering::SeqCst));
    println!("  {} elements: {numbers:?}", numbers.len());
    Ok(())
}

/// Made by a gang that fails on 5, once; and whether it has failed.
fn even_numbers(runtime: &Runtime) -> (Dataset<i32>, Arc<AtomicBool>) {
    let has_failed = Arc::new(AtomicBool::new(false));
    let failed = has_failed.clone();
    let numbers = runtime.parallelize(1..=10, 3).filter(move |number| {
        if *number == 5 && !failed.swap(true, Ordering::SeqCst) {
            panic!("expected failure"); // whether to keep a row is no Result
        }
        number % 2 == 0
    });
    // The filter is in the gang's stage: rows are made when its tasks ask for them.
    let gang = numbers.barrier().map_partitions(|ctx, numbers| {
        ctx.barrier()?;
        Ok(numbers)
    });
    (gang, has_failed)
}

fn is_of_result_stage(error: &JobError) -> bool {
    matches!(error.failure(), JobFailure::Stage { role: StageRole::Result, .. })
}

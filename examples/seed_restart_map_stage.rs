//! A task of a map gang fails once: all tasks of the gang start again, and the job succeeds. After
//! "restart all stages together for ShuffleMapStage" in `BarrierTest.scala` of waitingforcode.com.
//!
//! The original fails on 5, which its filter has taken out, so that nothing ever fails; here it is
//! 6, and here the map stage is a gang. Rows say which attempt has made them: none is left of the
//! first one, also not those of tasks that had done all of their work.
//! The panic in what it prints is the planned failure.
//!
//! ```sh
//! cargo run --example seed_restart_map_stage
//! ```

use phalanx::Runtime;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn main() -> anyhow::Result<()> {
    let runtime = Runtime::with_slots(3)?;
    let failed = Arc::new(AtomicBool::new(false));
    let has_failed = failed.clone();

    let numbers = runtime.parallelize(1..=10, 3).filter(|number| number % 2 == 0);
    let map_gang = numbers.barrier().map_partitions(|ctx, numbers| {
        let (task, attempt) = (ctx.rank(), ctx.stage_attempt_number());
        println!("map stage: task {task}, attempt {attempt}");
        ctx.barrier()?;
        Ok(numbers.map(move |number| (number, task, attempt)))
    });
    let groups = map_gang.group_by(move |(number, _, _)| {
        // The same stage: it ends where rows change their partition.
        if *number == 6 && !failed.swap(true, Ordering::SeqCst) {
            panic!("expected failure"); // the key of a row is no Result
        }
        *number
    });
    let result_gang = groups.barrier().map_partitions(|ctx, groups| {
        let (task, attempt) = (ctx.task_attempt_id(), ctx.stage_attempt_number());
        println!("result stage: context={task} / {attempt}");
        ctx.barrier()?;
        Ok(groups)
    });

    print!("{}", result_gang.explain());
    let mut groups = result_gang.collect().wait()?;
    groups.sort_unstable();
    println!("has failed: {}", has_failed.load(Ordering::SeqCst));
    println!("{} groups", groups.len());
    for (number, made) in &groups {
        for (_, task, attempt) in made {
            println!("  {number}: by task {task} in attempt {attempt}");
        }
    }
    Ok(())
}

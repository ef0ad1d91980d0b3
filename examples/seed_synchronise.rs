//! A gang starts together; only `ctx.barrier()` makes it go on together. After the two programs
//! "synchronize tasks" in `BarrierTest.scala` of waitingforcode.com.
//!
//! Three tasks sleep for different times. The original compares the times of day at which they
//! finish. A busy machine makes of such times what it likes, so here the clock is the number of
//! tasks that are awake: a task finishes at 1, 2 or 3. Without `ctx.barrier()` there are three
//! finishing times, the first while the others sleep. With it there is one, 3, whatever the machine
//! does.
//!
//! ```sh
//! cargo run --example seed_synchronise
//! ```

use phalanx::{JobError, Runtime};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// Not random as in the original: two that are nearly the same would be one moment.
const SLEEPS: [u32; 3] = [2, 3, 1];

fn main() -> anyhow::Result<()> {
    let runtime = Runtime::with_slots(3)?;
    let mut unit = Duration::from_millis(100);
    let mut alone = finish(&runtime, unit, false)?;
    // It took a busy machine so long to wake one that another one was up, too: sleep for longer.
    while distinct(&alone) < 3 && unit < Duration::from_secs(5) {
        unit *= 3;
        alone = finish(&runtime, unit, false)?;
    }
    show("without ctx.barrier()", unit, &alone);
    show("with ctx.barrier()", unit, &finish(&runtime, unit, true)?);
    Ok(())
}

/// How many tasks are awake when each of them finishes.
fn finish(runtime: &Runtime, unit: Duration, meet: bool) -> Result<Vec<u32>, JobError> {
    let awake = Arc::new(AtomicU32::new(0));
    let gang = runtime.parallelize(1..=10, 3).repartition(3).barrier().map_partitions(
        move |ctx, _numbers| {
            sleep(unit * SLEEPS[ctx.rank()]);
            awake.fetch_add(1, Ordering::SeqCst);
            if meet {
                ctx.barrier()?;
            }
            Ok([awake.load(Ordering::SeqCst)])
        },
    );
    gang.collect().wait()
}

fn distinct(moments: &[u32]) -> usize {
    moments.iter().collect::<BTreeSet<_>>().len()
}

fn show(how: &str, unit: Duration, moments: &[u32]) {
    println!("{how}, distinct finishing times: {}", distinct(moments));
    for (task, (moment, sleep)) in moments.iter().zip(SLEEPS).enumerate() {
        let slept = unit * sleep;
        println!("  task {task} slept {slept:?} and finished when {moment} of 3 were awake");
    }
}

//! From the start of a process to the first barrier done.

use crate::measure::{Fallible, Samples, Spread, micros};
use crate::row::{Bar, Row};
use crate::{Bench, child, ours, reference};
use phalanx::Stage;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Barrier;

const WHAT: &str = "cold-start";
const TASKS: usize = 4;

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    if !bench.wants(WHAT, TASKS, 0) {
        return Ok(());
    }
    let [mut ours, mut bare] = [Samples::new(), Samples::new()];
    for _ in 0..if bench.effort.quick { 10 } else { 100 } {
        ours.push(once("ours")?);
        bare.push(once("tokio")?);
    }
    let row = Row::new(WHAT, TASKS, Spread::of(ours)).against("bare tokio", Spread::of(bare));
    bench.add(row.bar(Bar::Ours(50_000.0)).note("from the start of the process"));
    Ok(())
}

fn once(side: &str) -> Fallible<f64> {
    let start = SystemTime::now();
    let done = Duration::from_nanos(child::start(&["cold-start", side])?.trim().parse()?);
    Ok(micros((SystemTime::UNIX_EPOCH + done).duration_since(start)?))
}

/// Prints the moment at which the first barrier is done.
pub fn child(side: &str) -> Fallible<()> {
    let done = match side {
        "ours" => {
            let runtime = ours::runtime(TASKS, 2)?;
            let gang = Stage::tasks(TASKS).run(&runtime, async |ctx| {
                ctx.barrier().await?;
                Ok(SystemTime::now())
            });
            gang.wait()?.into_iter().max()
        }
        _ => reference::runtime(2)?.block_on(async {
            let barrier = Arc::new(Barrier::new(TASKS));
            let tasks = [(); TASKS].map(|()| {
                let barrier = barrier.clone();
                tokio::spawn(async move {
                    barrier.wait().await;
                    SystemTime::now()
                })
            });
            let mut done = None;
            for task in tasks {
                done = done.max(task.await.ok());
            }
            done
        }),
    };
    let done = done.ok_or("nobody came")?;
    println!("{}", done.duration_since(SystemTime::UNIX_EPOCH)?.as_nanos());
    Ok(())
}

//! Many gangs that meet at the same time.

use crate::measure::{Fallible, Plan, alternate, timed};
use crate::row::Row;
use crate::{Bench, ours, reference};
use phalanx::{Runtime, Stage};
use std::sync::Arc;
use tokio::sync::Barrier;

const WHAT: &str = "many-gangs";
const GANGS: usize = 1_000;
const TASKS: usize = 16;
const ROUNDS: usize = 100;

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    if !bench.wants(WHAT, GANGS * TASKS, 0) {
        return Ok(());
    }
    let (runtime, tokio) = (ours::runtime(GANGS * TASKS, 2)?, reference::runtime(2)?);
    let [ours, bare] = alternate(
        bench.effort,
        [&mut |plan: Plan| timed(plan, || gangs(&runtime)), &mut |plan: Plan| {
            timed(plan, || tokio.block_on(bare()))
        }],
    )?;
    let note = format!("{GANGS} gangs of {TASKS} at once, {ROUNDS} rounds each: the time of all");
    bench.add(Row::new(WHAT, GANGS * TASKS, ours).against("tokio::sync::Barrier", bare).note(note));
    Ok(())
}

fn gangs(runtime: &Runtime) -> Fallible<()> {
    let gangs: Vec<_> = (0..GANGS)
        .map(|_| {
            Stage::tasks(TASKS).max_attempts(1).run(runtime, async |ctx| {
                for _ in 0..ROUNDS {
                    ctx.barrier().await?;
                }
                Ok(())
            })
        })
        .collect();
    for gang in gangs {
        gang.wait()?;
    }
    Ok(())
}

async fn bare() -> Fallible<()> {
    let mut tasks = Vec::new();
    for _ in 0..GANGS {
        let barrier = Arc::new(Barrier::new(TASKS));
        for _ in 0..TASKS {
            let barrier = barrier.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    barrier.wait().await;
                }
            }));
        }
    }
    for task in tasks {
        task.await?;
    }
    Ok(())
}

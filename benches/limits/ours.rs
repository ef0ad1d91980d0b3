//! Runtimes and gangs as the rows need them.

use crate::measure::{Fallible, Laps, Plan, Samples};
use phalanx::{BarrierTaskContext, Config, Runtime, Stage, TaskResult};
use std::collections::HashSet;
use std::thread;
use std::time::Duration;

/// A runtime whose one executor has so many slots and threads; retries do not pause.
pub fn runtime(slots: usize, threads: usize) -> Fallible<Runtime> {
    let slots = u32::try_from(slots)?;
    let config = Config {
        slots,
        worker_threads: threads,
        stage_retry_delay: Duration::ZERO,
        ..Config::default()
    };
    Ok(Runtime::start(config)?)
}

/// What a gang that went through a plan tells.
pub struct Told {
    /// Rank 0's.
    pub samples: Samples,
    /// On how many threads the tasks were.
    pub threads: usize,
}

/// Has a gang of `n` async tasks go through the rounds of a plan; `state` makes what a task keeps.
pub fn rounds<S: 'static>(
    runtime: &Runtime,
    n: usize,
    plan: Plan,
    state: impl Fn(usize) -> S + Send + Sync + 'static,
    round: impl AsyncFn(&BarrierTaskContext, &S) -> TaskResult<()> + Send + Sync + 'static,
) -> Fallible<Told> {
    let gang = Stage::tasks(n).max_attempts(1).run(runtime, async move |ctx| {
        let state = state(ctx.rank());
        let mut laps = (ctx.rank() == 0).then(|| Laps::new(plan));
        for _ in 0..plan.total() {
            round(&ctx, &state).await?;
            if let Some(laps) = &mut laps {
                laps.round();
            }
        }
        Ok((laps.map(Laps::samples), thread::current().id()))
    });
    told(gang.wait()?)
}

/// Rounds of `barrier()` in a gang of `n` async tasks.
pub fn barrier(runtime: &Runtime, n: usize, plan: Plan) -> Fallible<Told> {
    rounds(runtime, n, plan, |_| (), async |ctx, ()| Ok(ctx.barrier().await?))
}

/// Rounds of `barrier()` in a gang of `n` tasks with a thread each.
pub fn blocking_barrier(runtime: &Runtime, n: usize, plan: Plan) -> Fallible<Told> {
    let gang = Stage::tasks(n).max_attempts(1).run_blocking(runtime, move |ctx| {
        let mut laps = (ctx.rank() == 0).then(|| Laps::new(plan));
        for _ in 0..plan.total() {
            ctx.barrier()?;
            if let Some(laps) = &mut laps {
                laps.round();
            }
        }
        Ok((laps.map(Laps::samples), thread::current().id()))
    });
    told(gang.wait()?)
}

fn told(ends: Vec<(Option<Samples>, thread::ThreadId)>) -> Fallible<Told> {
    let threads = ends.iter().map(|(_, thread)| thread).collect::<HashSet<_>>().len();
    let samples = ends.into_iter().find_map(|(samples, _)| samples).ok_or("rank 0 is silent")?;
    Ok(Told { samples, threads })
}

/// A gang of `n` from its submission to its results; all meet once.
pub async fn launch(runtime: &Runtime, n: usize) -> Fallible<()> {
    let gang = Stage::tasks(n).max_attempts(1);
    gang.run(runtime, async |ctx| Ok(ctx.barrier().await?)).await?;
    Ok(())
}

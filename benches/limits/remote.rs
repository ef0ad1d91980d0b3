//! Gangs whose executors are processes of their own.

mod crowd;
mod loss;
mod peers;
mod raw;

use crate::Bench;
use crate::measure::{Fallible, Laps, Plan, Samples, alternate};
use crate::row::{Bar, Row, Unit};
use bytes::Bytes;
use phalanx::{
    BarrierTaskContext, Cluster, Config, ExecutorResources, Registry, Runtime, Stage, TaskResult,
    TlsFiles,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub use raw::echo;

pub const PING_PONG: &str = "TCP ping-pong of 64 B";

/// What one task has to do.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Work {
    rounds: usize,
    samples: usize,
    /// Bytes given to the others; 0: `barrier()`.
    payload: usize,
}

/// What executors of this program can run.
pub fn registry() -> Registry {
    Registry::new("limits", env!("CARGO_PKG_VERSION"))
        .register("rounds", rounds)
        .register("meet", loss::meet)
}

async fn rounds(ctx: BarrierTaskContext, work: Work) -> TaskResult<Samples> {
    let plan = Plan { rounds: work.rounds, samples: work.samples };
    let mut laps = Laps::new(plan);
    let message = Bytes::from(vec![ctx.rank() as u8; work.payload]);
    for _ in 0..plan.total() {
        if work.payload == 0 {
            ctx.barrier().await?;
        } else {
            let messages = ctx.all_gather_bytes(message.clone()).await?;
            assert!(messages.iter().all(|it| it.len() == work.payload));
        }
        laps.round();
    }
    Ok(if ctx.rank() == 0 { laps.samples() } else { Samples::new() })
}

/// A driver with so many executors on this machine, each with so many slots.
pub fn cluster(executors: usize, slots: u32, tls: Option<TlsFiles>) -> Fallible<Runtime> {
    cluster_with(config(), executors, slots, tls)
}

fn config() -> Config {
    Config { worker_threads: 1, stage_retry_delay: Duration::ZERO, ..Config::default() }
}

fn cluster_with(
    config: Config,
    executors: usize,
    slots: u32,
    tls: Option<TlsFiles>,
) -> Fallible<Runtime> {
    let mut cluster = Cluster::processes(executors, ExecutorResources::new(slots));
    if let Some(files) = tls {
        cluster = cluster.tls(files);
    }
    let builder = Runtime::builder().registry(registry()).config(config);
    Ok(builder.cluster(cluster).start()?)
}

fn gang(runtime: &Runtime, n: usize, plan: Plan, payload: usize) -> Fallible<Samples> {
    let work = Work { rounds: plan.rounds, samples: plan.samples, payload };
    let stage = Stage::named("rounds", vec![work; n]).max_attempts(1);
    Ok(stage.run::<Samples>(runtime).wait()?.swap_remove(0))
}

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    for (executors, each, bar) in [(2, 1, 3.0), (4, 1, 5.0)] {
        let n = executors * each;
        if bench.wants("remote/barrier", n, 0) {
            let (runtime, mut echo) = (cluster(executors, each as u32, None)?, raw::Echo::start()?);
            let [ours, reference] = alternate(
                bench.effort,
                [&mut |plan| gang(&runtime, n, plan, 0), &mut |plan| echo.rounds(plan)],
            )?;
            let row = Row::new("remote/barrier", n, ours).against(PING_PONG, reference);
            bench.add(row.bar(Bar::Ratio(bar)).note(format!("over {executors} executors")));
        }
    }
    many_tasks(bench)?;
    tls(bench)?;
    all_gather(bench)?;
    loss::measure(bench)?;
    crowd::measure(bench)?;
    peers::measure(bench)
}

fn many_tasks(bench: &mut Bench) -> Fallible<()> {
    if !bench.wants("remote/barrier", 256, 0) {
        return Ok(());
    }
    let runtime = cluster(4, 64, None)?;
    let [ours, reference] = alternate(
        bench.effort,
        [&mut |plan| gang(&runtime, 256, plan, 0), &mut |plan| gang(&runtime, 4, plan, 0)],
    )?;
    let row = Row::new("remote/barrier", 256, ours).against("ours, 4 x 1", reference);
    bench.add(row.bar(Bar::Ratio(2.0)).note("4 executors of 64"));
    Ok(())
}

fn tls(bench: &mut Bench) -> Fallible<()> {
    if !bench.wants("remote/tls", 2, 0) {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let files = raw::certificates(directory.path())?;
    let (plain, secret) = (cluster(2, 1, None)?, cluster(2, 1, Some(files))?);
    let [ours, reference] = alternate(
        bench.effort,
        [&mut |plan| gang(&secret, 2, plan, 0), &mut |plan| gang(&plain, 2, plan, 0)],
    )?;
    let row = Row::new("remote/tls", 2, ours).against("ours, without", reference);
    bench.add(row.bar(Bar::Ratio(1.2)));
    Ok(())
}

const PAYLOAD: usize = 1 << 20;

fn all_gather(bench: &mut Bench) -> Fallible<()> {
    if !bench.wants("remote/all_gather", 4, PAYLOAD) {
        return Ok(());
    }
    let runtime = cluster(4, 1, None)?;
    let [ours] = alternate(bench.effort, [&mut |plan| gang(&runtime, 4, plan, PAYLOAD)])?;
    bench.add(Row::new("remote/all_gather", 4, ours).payload(PAYLOAD));
    let plan = Plan { rounds: 1, samples: 20 };
    let before = raw::loopback_bytes()?;
    gang(&runtime, 4, plan, PAYLOAD)?;
    let moved = (raw::loopback_bytes()? - before) as f64 / plan.total() as f64;
    // Each of 4 links carries its own payload up and all 4 down.
    let least = (4 * (1 + 4) * PAYLOAD) as f64;
    let spread = |value| crate::measure::Spread { p50: value, p99: value };
    let row = Row::new("remote/all_gather/moved", 4, spread(moved)).payload(PAYLOAD);
    let row = row.unit(Unit::Bytes).against("once a link and direction", spread(least));
    bench.add(row.bar(Bar::Ratio(1.02)));
    Ok(())
}

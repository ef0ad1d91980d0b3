//! A small tour of a cluster program: one binary that is the driver and its executors.
//!
//! `cargo run --example cluster_tasks` starts two executors as child processes. Three kinds of
//! registered code run on them: a gang whose tasks meet, blocking code in a gang that is started
//! again after a failure, and a plain stage. With `--cluster listen:127.0.0.1:7077` the driver
//! waits for executors that you start yourself:
//!
//! ```sh
//! cluster_tasks phalanx-executor --driver 127.0.0.1:7077 --token-file secret --slots 2
//! ```

use clap::Parser;
use phalanx::{
    BarrierTaskContext, Cluster, Config, ReduceOp, Registry, Runtime, Stage, TaskResult, blocking,
};
use std::process::ExitCode;
use std::time::Duration;

/// Runs three stages on executors that are processes of their own.
#[derive(Parser)]
struct Options {
    /// Where executors come from: processes:4, slurm, slurm:3 or listen:0.0.0.0:7077.
    #[arg(long, default_value = "processes:2")]
    cluster: Cluster,
}

/// Driver and executors make the same registry, which is compared when an executor joins.
fn main() -> ExitCode {
    let registry = Registry::new("cluster_tasks", env!("CARGO_PKG_VERSION"))
        .register("introduce", introduce)
        .register_blocking("count_down", count_down)
        .register("square", square);
    phalanx::main(registry, drive)
}

/// A task of a gang tells the others its name and learns theirs.
async fn introduce(ctx: BarrierTaskContext, name: String) -> TaskResult<String> {
    let names = ctx.all_gather(&name).await?;
    let other = &names[(ctx.rank() + 1) % names.len()];
    Ok(format!("{name} meets {other}"))
}

/// Counts down together; what is done is saved with the driver. Each task has a thread of its own.
fn count_down(ctx: blocking::BarrierTaskContext, from: u64) -> TaskResult<String> {
    let restored = ctx.restore::<u64>()?;
    let first = restored.map_or(from, |checkpoint| checkpoint.value);
    for left in (0..first).rev() {
        ctx.all_reduce(ReduceOp::Min, &left)?;
        if ctx.rank() == 0 {
            ctx.checkpoint(from - left, &left)?;
        }
        ctx.barrier()?;
        if left == from / 2 && ctx.stage_attempt_number() == 0 {
            return Err("the countdown was held".into());
        }
    }
    Ok(format!("attempt {} counted down from {first}", ctx.stage_attempt_number()))
}

/// A task of a plain stage is alone.
async fn square(_ctx: BarrierTaskContext, number: u64) -> TaskResult<u64> {
    Ok(number * number)
}

fn drive(registry: Registry) -> anyhow::Result<()> {
    let Options { cluster } = Options::parse();
    let config = Config::load(None)?;
    let builder = Runtime::builder().config(config).registry(registry).cluster(cluster);
    let runtime = builder.start()?;
    if let Some(address) = runtime.listen_address() {
        println!("executors dial {address}");
    }
    let names = ["Ada".to_owned(), "Alan".to_owned()];
    for line in Stage::named("introduce", names).run::<String>(&runtime).wait()? {
        println!("{line}");
    }
    for line in Stage::named("count_down", [10_u64; 2]).run::<String>(&runtime).wait()? {
        println!("{line}");
    }
    let squares = Stage::named("square", 1..=5_u64).plain().run::<u64>(&runtime).wait()?;
    println!("{squares:?}");
    Ok(runtime.shutdown_blocking(Duration::from_secs(5))?)
}

//! The code of the tests' tasks.

use bytes::Bytes;
use phalanx::{
    BarrierTaskContext, CheckpointError, Cluster, ExecutorResources, ReduceOp, Registry, Runtime,
    SyncError, TaskContext, TaskResult, blocking,
};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::sleep;

pub const VERSION: &str = "CLUSTER_TEST_VERSION";

pub fn registry() -> Registry {
    // So that a test can start an executor of another version.
    let version = std::env::var(VERSION).unwrap_or("1".to_owned());
    Registry::new("cluster_tests", version)
        .register("meet", meet)
        .register("gather_large", gather_large)
        .register("steps", steps)
        .register("save_twice", save_twice)
        .register("hold", hold)
        .register("last_words", last_words)
        .register("come_late", come_late)
        .register("await_end", await_end)
        .register_blocking("await_end_blocking", await_end_blocking)
        .register_blocking("value_of", value_of)
        .register_blocking("stubborn", stubborn)
        .register_blocking("nested", nested)
        .register_blocking("process_of", process_of)
}

/// What a task of `meet` has seen of the others.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Met {
    pub names: Vec<String>,
    pub sum: i64,
    pub largest: Vec<f64>,
    pub from_last: String,
    /// By partition.
    pub executors: Vec<u64>,
    pub pid: u32,
}

async fn meet(ctx: BarrierTaskContext, name: String) -> TaskResult<Met> {
    ctx.barrier().await?;
    let (rank, last) = (ctx.rank(), ctx.world_size() - 1);
    let names = ctx.all_gather(&name).await?;
    let sum = ctx.all_reduce(ReduceOp::Sum, &(rank as i64 + 1)).await?;
    let largest = ctx.all_reduce(ReduceOp::Max, &vec![rank as f64, -(rank as f64)]).await?;
    let from_last = ctx.broadcast(last, (rank == last).then_some(&name)).await?;
    ctx.barrier().await?;
    let executors = ctx.task_infos().iter().map(|info| info.executor.0).collect();
    Ok(Met { names, sum, largest, from_last, executors, pid: std::process::id() })
}

/// Gives so many bytes; returns the first and last byte and the length of what it got of each.
async fn gather_large(ctx: BarrierTaskContext, size: usize) -> TaskResult<Vec<(u8, u8, usize)>> {
    let mut mine = vec![ctx.rank() as u8; size];
    mine[size - 1] = 100 + ctx.rank() as u8;
    let all = ctx.all_gather_bytes(mine.into()).await?;
    Ok(all.iter().map(|it| (it[0], it[it.len() - 1], it.len())).collect())
}

/// What ends a task in its first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fault {
    Error,
    Panic,
    Exit,
    Abort,
}

/// So many steps of all together.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Steps {
    pub count: u64,
    pub pause: Duration,
    /// Who fails at which step, and how.
    pub fault: Option<(usize, u64, Fault)>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Stepped {
    pub total: i64,
    pub attempt: u32,
    pub resumed_from: Option<u64>,
}

impl Steps {
    /// What they sum up to in a gang of this size.
    pub fn total(&self, num_tasks: i64) -> i64 {
        let steps = self.count as i64;
        steps * (steps + 1) / 2 * num_tasks * (num_tasks + 1) / 2
    }
}

async fn steps(ctx: BarrierTaskContext, work: Steps) -> TaskResult<Stepped> {
    let restored = ctx.restore::<i64>().await?;
    let resumed_from = restored.as_ref().map(|it| it.step);
    let mut total = restored.map_or(0, |it| it.value);
    for step in resumed_from.map_or(1, |step| step + 1)..=work.count {
        if let Some((rank, at, fault)) = work.fault
            && (rank, at, 0) == (ctx.rank(), step, ctx.stage_attempt_number())
        {
            fail(fault)?;
        }
        let mine = step as i64 * (ctx.rank() as i64 + 1);
        total += ctx.all_reduce(ReduceOp::Sum, &mine).await?;
        ctx.report_progress(step, work.count);
        if ctx.rank() == 0 {
            ctx.checkpoint(step, &total).await?;
        }
        ctx.until_killed(sleep(work.pause)).await?;
    }
    Ok(Stepped { total, attempt: ctx.stage_attempt_number(), resumed_from })
}

fn fail(fault: Fault) -> TaskResult<()> {
    match fault {
        Fault::Error => Err("out of luck".into()),
        Fault::Panic => panic!("out of its mind"),
        Fault::Exit => std::process::exit(0),
        Fault::Abort => std::process::abort(),
    }
}

/// Whether the second who saves the step is told so, with the error's own type.
async fn save_twice(ctx: BarrierTaskContext, step: u64) -> TaskResult<Option<(u64, u32)>> {
    if ctx.rank() == 0 {
        ctx.checkpoint(step, "first").await?;
    }
    ctx.barrier().await?;
    let again = ctx.checkpoint(step, "again").await;
    Ok(match again {
        Ok(()) => None,
        Err(CheckpointError::AlreadySaved { step, by }) => Some((step, by.0)),
        Err(other) => return Err(other.into()),
    })
}

/// Which files a gang waits for, by attempt; `deaf`: whose task ignores its kill meanwhile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hold {
    pub gates: Vec<PathBuf>,
    pub deaf: Option<usize>,
}

/// Attempt and process of each task.
async fn hold(ctx: BarrierTaskContext, hold: Hold) -> TaskResult<(u32, u32)> {
    let attempt = ctx.stage_attempt_number();
    let gate = hold.gates.get(attempt as usize).or(hold.gates.last()).ok_or("no gate")?;
    ctx.report_progress(u64::from(std::process::id()), u64::from(attempt));
    ctx.barrier().await?;
    while !gate.exists() {
        if hold.deaf != Some(ctx.rank()) {
            ctx.check_killed()?;
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok((attempt, std::process::id()))
}

/// The task whose process gets SIGTERM saves the reason; the next attempt returns it.
async fn last_words(ctx: BarrierTaskContext, (): ()) -> TaskResult<(u32, u64, String)> {
    if let Some(saved) = ctx.restore::<String>().await? {
        ctx.barrier().await?;
        return Ok((ctx.stage_attempt_number(), saved.step, saved.value));
    }
    if ctx.stage_attempt_number() > 0 {
        return Err("nothing was saved".into());
    }
    ctx.report_progress(u64::from(std::process::id()), 0);
    // A kill may come before the release that has been told to those who watch.
    let _ = ctx.barrier().await;
    ctx.killed().await;
    let reason = ctx.kill_reason().unwrap_or_default();
    if reason.starts_with("its executor got SIGTERM") {
        let saved = ctx.checkpoint(7, &reason).await;
        say(format!("\nlast words: {saved:?}"));
    }
    Err(reason.into())
}

/// Task 1 never comes.
async fn come_late(ctx: BarrierTaskContext, (): ()) -> TaskResult<()> {
    if ctx.rank() == 1 {
        ctx.killed().await;
    }
    Ok(ctx.barrier().await?)
}

/// The first attempt waits for its kill, and tells its process's standard error why it came.
async fn await_end(ctx: BarrierTaskContext, (): ()) -> TaskResult<u32> {
    // As above.
    let met = ctx.barrier().await;
    if ctx.stage_attempt_number() == 0 {
        ctx.killed().await;
    }
    end(&ctx, met)
}

fn await_end_blocking(ctx: blocking::BarrierTaskContext, (): ()) -> TaskResult<u32> {
    let met = ctx.barrier();
    if ctx.stage_attempt_number() == 0 {
        ctx.wait_killed();
    }
    end(&ctx, met)
}

fn end(ctx: &TaskContext, met: Result<(), SyncError>) -> TaskResult<u32> {
    if let (0, Some(reason)) = (ctx.stage_attempt_number(), ctx.kill_reason()) {
        say(format!("\nkilled: {reason}"));
        return Err(reason.into());
    }
    Ok(met.map(|()| ctx.stage_attempt_number())?)
}

fn value_of(ctx: blocking::BarrierTaskContext, size: usize) -> TaskResult<Bytes> {
    Ok(vec![ctx.rank() as u8; size].into())
}

/// In the first attempt task 0 ignores its kill, for ever. Returns attempt and process.
fn stubborn(ctx: blocking::BarrierTaskContext, (): ()) -> TaskResult<(u32, u32)> {
    let met = ctx.barrier();
    while ctx.stage_attempt_number() == 0 && ctx.rank() == 0 {
        std::thread::park();
    }
    met?;
    if ctx.stage_attempt_number() == 0 {
        ctx.wait_killed();
        ctx.check_killed()?;
    }
    Ok((ctx.stage_attempt_number(), std::process::id()))
}

/// Why an executor's process starts no runtime with executors of its own.
fn nested(_: blocking::BarrierTaskContext, (): ()) -> TaskResult<String> {
    let cluster = Cluster::processes(1, ExecutorResources::new(1));
    match Runtime::builder().registry(registry()).cluster(cluster).start() {
        Ok(_) => Err("it was started".into()),
        Err(error) => Ok(error.to_string()),
    }
}

/// Of a plain stage: its process, or the error that `fail` asks for.
fn process_of(ctx: blocking::BarrierTaskContext, fail: bool) -> TaskResult<(usize, u32)> {
    assert!(ctx.task_infos().is_empty(), "it is no gang");
    if fail { Err("as asked".into()) } else { Ok((ctx.rank(), std::process::id())) }
}

/// In one piece: several processes write to the same pipe.
pub fn say(line: String) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

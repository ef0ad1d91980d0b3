//! A driver with many executors, which are played by this process.

use crate::Bench;
use crate::measure::{Fallible, Samples, Spread, micros};
use crate::row::{Bar, Row};
use phalanx::actors::remote::wire::{ExecutorHello, Message, Payloads};
use phalanx::actors::testing::Peer;
use phalanx::protocol::{
    Arrival, Epoch, LaunchTasks, RequestToSync, SyncMethod, TaskOutcome, TaskReport,
};
use phalanx::{
    BarrierTaskContext, Cluster, ExecutorId, ExecutorResources, Incarnation, Registry, Runtime,
    Stage, TaskResult,
};
use std::thread;
use std::time::Instant;

const EXECUTORS: usize = 256;
const TASKS: u32 = 16;
const WHAT: &str = "remote/crowd";

async fn never_here(_: BarrierTaskContext, (): ()) -> TaskResult<()> {
    Err("only played executors run this".into())
}

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    let n = EXECUTORS * TASKS as usize;
    if !bench.wants(WHAT, n, 0) {
        return Ok(());
    }
    let rounds = if bench.effort.quick { 100 } else { 1_000 };
    let registry = Registry::new("crowd", "1").register("never", never_here);
    let builder = Runtime::builder().registry(registry);
    let runtime = builder.cluster(Cluster::listen("127.0.0.1:0")).start()?;
    let address = runtime.listen_address().ok_or("it does not listen")?.to_string();
    let crowd = thread::spawn(move || play(&address, rounds));
    Stage::named("never", vec![(); n]).max_attempts(1).run::<()>(&runtime).wait()?;
    drop(runtime);
    let samples = crowd.join().map_err(|_| "the crowd panicked")??;
    let row = Row::new(WHAT, n, Spread::of(samples)).bar(Bar::Rate(100.0));
    bench.add(row.note("256 executors of 16, played in one process"));
    Ok(())
}

/// Plays all executors until the driver says goodbye; rank 0's executor takes the times.
fn play(address: &str, rounds: u64) -> Fallible<Samples> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut crowd = tokio::task::JoinSet::new();
        for index in 0..EXECUTORS {
            crowd.spawn(executor(address.to_owned(), index, rounds));
        }
        let mut samples = Samples::new();
        while let Some(played) = crowd.join_next().await {
            samples.extend(played??);
        }
        Ok(samples)
    })
}

async fn executor(address: String, index: usize, rounds: u64) -> Fallible<Samples> {
    let registry = Registry::new("crowd", "1").register("never", never_here);
    let hello = ExecutorHello {
        program: registry.program(),
        name: format!("played-{index}"),
        lives: 0,
        resources: ExecutorResources::new(TASKS),
        address: None,
    };
    let (mut peer, _) = Peer::dial(&address, hello, None, None).await?;
    let launch = loop {
        match peer.hear().await?.ok_or("the driver is gone")?.0 {
            Message::Launch { launch, .. } => break launch,
            _ => peer.say(&Message::Heartbeat, &[]).await,
        }
    };
    let mut samples = Samples::new();
    let takes_times = launch.tasks.iter().any(|task| task.partition.0 == 0);
    for epoch in 0..rounds {
        let start = Instant::now();
        round(&mut peer, &launch, Epoch(epoch)).await?;
        if takes_times {
            samples.push(micros(start.elapsed()));
        }
    }
    for task in &launch.tasks {
        let report = TaskReport {
            executor: ExecutorId(0),
            incarnation: Incarnation(0),
            attempt: launch.attempt,
            partition: task.partition,
            task_attempt: task.task_attempt,
            outcome: TaskOutcome::Succeeded,
        };
        peer.say(&Message::Ended { report }, &[Default::default()]).await;
    }
    while peer.hear().await.is_ok_and(|heard| heard.is_some()) {}
    Ok(samples)
}

/// All tasks of one executor arrive and are released.
async fn round(peer: &mut Peer, launch: &LaunchTasks, epoch: Epoch) -> Fallible<()> {
    let arrival = |task: &phalanx::protocol::LaunchTask| Arrival {
        partition: task.partition,
        task_attempt: task.task_attempt,
        message: Default::default(),
    };
    let request = RequestToSync {
        attempt: launch.attempt,
        num_tasks: launch.num_tasks,
        epoch,
        method: SyncMethod::Barrier,
        arrivals: launch.tasks.iter().map(arrival).collect(),
    };
    let messages: Payloads = vec![Default::default(); launch.tasks.len()];
    peer.say(&Message::Request { id: epoch.0, request }, &messages).await;
    loop {
        match peer.hear().await?.ok_or("the driver is gone")?.0 {
            Message::Reply { reply, .. } => return Ok(reply.result.map(drop)?),
            _ => peer.say(&Message::Heartbeat, &[]).await,
        }
    }
}

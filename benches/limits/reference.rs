//! What a user could take instead, and would lose everything else.

use crate::measure::{Fallible, Laps, Plan, Samples, timed};
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;

/// A tokio runtime with so many threads for tasks; with 1 they run on the caller's.
pub fn runtime(threads: usize) -> io::Result<Runtime> {
    match threads {
        1 => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

/// Rounds of tokio's barrier among `n` tasks.
pub fn tokio_barrier(runtime: &Runtime, n: usize, plan: Plan) -> Fallible<Samples> {
    runtime.block_on(async {
        let barrier = Arc::new(Barrier::new(n));
        let others: Vec<_> = (1..n)
            .map(|_| {
                let barrier = barrier.clone();
                tokio::spawn(async move {
                    for _ in 0..plan.total() {
                        barrier.wait().await;
                    }
                })
            })
            .collect();
        let first = tokio::spawn(async move {
            let mut laps = Laps::new(plan);
            for _ in 0..plan.total() {
                barrier.wait().await;
                laps.round();
            }
            laps.samples()
        });
        for other in others {
            other.await?;
        }
        Ok(first.await?)
    })
}

/// Rounds of the standard library's barrier among `n` threads.
pub fn std_barrier(n: usize, plan: Plan) -> Fallible<Samples> {
    let barrier = std::sync::Barrier::new(n);
    thread::scope(|scope| {
        for _ in 1..n {
            scope.spawn(|| {
                for _ in 0..plan.total() {
                    barrier.wait();
                }
            });
        }
        // A thread of its own, too: the caller's is needed by nobody else.
        let first = scope.spawn(|| {
            timed(plan, || {
                barrier.wait();
                Ok(())
            })
        });
        first.join().map_err(|_| "a thread panicked")?
    })
}

/// Messages to another thread and back: a tokio runtime on each, channels between.
pub fn tokio_round_trip(plan: Plan) -> Fallible<Samples> {
    let (there, mut arrives) = tokio::sync::mpsc::unbounded_channel::<()>();
    let (back, mut returns) = tokio::sync::mpsc::unbounded_channel::<()>();
    let other = thread::spawn(move || -> io::Result<()> {
        runtime(1)?
            .block_on(async { while arrives.recv().await.is_some() && back.send(()).is_ok() {} });
        Ok(())
    });
    let samples = runtime(1)?.block_on(async {
        let mut laps = Laps::new(plan);
        for _ in 0..plan.total() {
            there.send(())?;
            returns.recv().await.ok_or("the other thread is gone")?;
            laps.round();
        }
        Fallible::Ok(laps.samples())
    });
    drop(there);
    other.join().map_err(|_| "a thread panicked")??;
    samples
}

/// The same with the standard library's channels, whose receivers park their thread.
pub fn std_round_trip(plan: Plan) -> Fallible<Samples> {
    let (there, arrives) = mpsc::channel::<()>();
    let (back, returns) = mpsc::channel::<()>();
    let other = thread::spawn(move || while arrives.recv().is_ok() && back.send(()).is_ok() {});
    let samples = timed(plan, || {
        there.send(())?;
        Ok(returns.recv()?)
    });
    drop(there);
    other.join().map_err(|_| "a thread panicked")?;
    samples
}

/// Spawns `n` tasks that meet once, and joins them.
pub async fn spawn_and_join(n: usize) -> Fallible<()> {
    let barrier = Arc::new(Barrier::new(n));
    let tasks: Vec<_> = (0..n)
        .map(|_| {
            let barrier = barrier.clone();
            tokio::spawn(async move {
                barrier.wait().await;
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    Ok(())
}

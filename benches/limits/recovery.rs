//! From the failure of one task to all tasks of the next attempt past their first barrier.

use crate::measure::{Fallible, Plan, Samples, alternate, micros};
use crate::row::{Bar, Row};
use crate::{Bench, ours, reference};
use phalanx::{Runtime, Stage};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::Barrier;
use tokio::task::{JoinHandle, yield_now};

const WHAT: &str = "recovery";

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    for n in [4, 64, 1_024] {
        if !bench.wants(WHAT, n, 0) {
            continue;
        }
        let (runtime, tokio) = (ours::runtime(n, 2)?, reference::runtime(2)?);
        let [ours, bare] = alternate(
            bench.effort,
            [&mut |plan| samples(plan, || gang(&runtime, n)), &mut |plan| {
                samples(plan, || tokio.block_on(async { tokio::spawn(bare(n)).await? }))
            }],
        )?;
        let bar = (n == 64).then_some(Bar::Ours(250.0));
        bench.add(Row::new(WHAT, n, ours).against("abort and respawn on tokio", bare).bar(bar));
    }
    Ok(())
}

/// A sample is one recovery: what comes before and after it does not count.
fn samples(plan: Plan, mut recover: impl FnMut() -> Fallible<f64>) -> Fallible<Samples> {
    for _ in 0..plan.warm_up().min(10) {
        recover()?;
    }
    (0..plan.samples).map(|_| recover()).collect()
}

/// All meet; then the others wait, and the one in the middle fails.
fn gang(runtime: &Runtime, n: usize) -> Fallible<f64> {
    let failed = Arc::new(Mutex::new(None));
    let (fails, waiting) = (failed.clone(), AtomicUsize::new(0));
    let gang = Stage::tasks(n).max_attempts(2).run(runtime, async move |ctx| {
        ctx.barrier().await?;
        if ctx.stage_attempt_number() > 0 {
            return Ok(Instant::now());
        }
        if ctx.rank() != n / 2 {
            waiting.fetch_add(1, Ordering::SeqCst);
            ctx.barrier().await?;
            return Err("the culprit came".into());
        }
        while waiting.load(Ordering::SeqCst) < n - 1 {
            yield_now().await;
        }
        *fails.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Err("out of rows".into())
    });
    let last = gang.wait()?.into_iter().max().ok_or("nobody came")?;
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(micros(last - failed.ok_or("nobody failed")?))
}

/// The same by hand: whoever spawned the tasks waits for the one that fails.
async fn bare(n: usize) -> Fallible<f64> {
    let (barrier, waiting) = (Arc::new(Barrier::new(n)), Arc::new(AtomicUsize::new(0)));
    let mut others: Vec<JoinHandle<()>> = Vec::new();
    for _ in 1..n {
        let (barrier, waiting) = (barrier.clone(), waiting.clone());
        others.push(tokio::spawn(async move {
            barrier.wait().await;
            waiting.fetch_add(1, Ordering::SeqCst);
            barrier.wait().await;
        }));
    }
    let culprit = tokio::spawn(async move {
        barrier.wait().await;
        while waiting.load(Ordering::SeqCst) < n - 1 {
            yield_now().await;
        }
        Instant::now()
    });
    let failed = culprit.await?;
    for other in &others {
        other.abort();
    }
    for other in others {
        if other.await.is_ok() {
            return Err("the culprit came".into());
        }
    }
    let barrier = Arc::new(Barrier::new(n));
    let again: Vec<JoinHandle<Instant>> = (0..n)
        .map(|_| {
            let barrier = barrier.clone();
            tokio::spawn(async move {
                barrier.wait().await;
                Instant::now()
            })
        })
        .collect();
    let mut last = failed;
    for task in again {
        last = last.max(task.await?);
    }
    Ok(micros(last - failed))
}

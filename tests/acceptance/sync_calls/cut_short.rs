//! Syncs to which someone does not come: A6 to A8.

use super::stage;
use crate::observe::{
    Gate, advance, is_idle, is_sync_timeout, local, no_pause, start_without_time, until_armed,
};
use phalanx::protocol::TimerKey;
use phalanx::{Config, ExecutorResources, PartitionId, Runtime, StageError, SyncError};
use std::sync::mpsc;
use std::time::Duration;

fn without_time() -> Runtime {
    let config = Config { barrier_sync_timeout: Duration::from_secs(1), ..no_pause() };
    start_without_time(config, vec![ExecutorResources::new(1); 4])
}

/// Crosses the second after which the sync fails, exactly, once all but partition 3 are there.
fn cross_the_timeout(runtime: &Runtime, stage: &phalanx::StageHandle<()>) {
    let waits_for = || pollster::block_on(stage.sync_status()).map(|it| it.missing.to_string());
    while waits_for().as_deref() != Some("3") {
        std::thread::yield_now();
    }
    until_armed(runtime, is_sync_timeout);
    assert_eq!(advance(runtime, Duration::from_millis(999)), []);
    assert_eq!(waits_for().as_deref(), Some("3"), "not a moment too early");
    let fired = advance(runtime, Duration::from_millis(1));
    assert!(fired.iter().any(is_sync_timeout), "{fired:?}");
}

fn names_the_missing(error: &StageError) {
    let text = error.to_string();
    assert!(
        text.ends_with(
            "the coordinator did not get all sync requests for epoch 0 within 1 second(s); \
             missing: partition 3"
        ),
        "{text}"
    );
}

#[test]
fn a6_timeout() {
    let runtime = without_time();
    let (late, begun, (tell, told)) = (Gate::closed(), Gate::closed(), mpsc::channel());
    let (gate, is_there) = (late.clone(), begun.clone());
    let stage = stage(4).run(&runtime, async move |ctx| {
        if ctx.rank() == 3 {
            is_there.open();
            gate.pass().await;
            tell.send(ctx.barrier().await)?;
            return Ok(());
        }
        Ok(ctx.barrier().await?)
    });
    begun.pass_blocking();
    cross_the_timeout(&runtime, &stage);
    names_the_missing(&stage.wait().unwrap_err());
    late.open();
    told.recv().unwrap().expect_err("it comes too late");
}

#[test]
fn a6_timeout_blocking() {
    let runtime = without_time();
    let (late, begun, (tell, told)) = (Gate::closed(), Gate::closed(), mpsc::channel());
    let (gate, is_there) = (late.clone(), begun.clone());
    let stage = stage(4).run_blocking(&runtime, move |ctx| {
        if ctx.rank() == 3 {
            is_there.open();
            gate.pass_blocking();
            tell.send(ctx.barrier())?;
            return Ok(());
        }
        Ok(ctx.barrier()?)
    });
    begun.pass_blocking();
    cross_the_timeout(&runtime, &stage);
    names_the_missing(&stage.wait().unwrap_err());
    late.open();
    told.recv().unwrap().expect_err("it comes too late");
}

/// With the clock of the machine, and a limit of this stage alone.
#[test]
fn a6_timeout_in_real_time() {
    let runtime = local(4);
    let late = Gate::closed();
    let gate = late.clone();
    let stage = stage(4).sync_timeout(Duration::from_millis(50));
    let stage = stage.run(&runtime, async move |ctx| {
        if ctx.rank() == 3 {
            gate.pass().await;
        }
        Ok(ctx.barrier().await?)
    });
    let text = stage.wait().unwrap_err().to_string();
    assert!(text.contains("for epoch 0 within 0.05 second(s); missing: partition "), "{text}");
    assert!(text.ends_with('3'), "{text}");
    late.open();
}

/// Each sync has its own second, from its own first arrival.
#[test]
fn a6_a_sync_that_follows_has_its_full_time() {
    let runtime = without_time();
    let (first, second) = (Gate::closed(), Gate::closed());
    let (before, between) = (first.clone(), second.clone());
    let stage = stage(4).run(&runtime, async move |ctx| {
        if ctx.rank() == 3 {
            before.pass().await;
        }
        ctx.barrier().await?;
        if ctx.rank() == 3 {
            between.pass().await;
        }
        Ok(ctx.barrier().await?)
    });
    let waits_in = |epoch: u64| {
        let status = || pollster::block_on(stage.sync_status());
        while status().is_none_or(|it| it.epoch.0 != epoch || it.missing.to_string() != "3") {
            std::thread::yield_now();
        }
        until_armed(&runtime, |key| {
            is_sync_timeout(key) && matches!(key, TimerKey::Sync(timer) if timer.epoch.0 == epoch)
        });
    };
    waits_in(0);
    assert_eq!(advance(&runtime, Duration::from_millis(999)), []);
    first.open();
    waits_in(1);
    assert_eq!(advance(&runtime, Duration::from_millis(999)), []);
    second.open();
    stage.wait().unwrap();
}

/// Spark waits for the timeout; here no time passes.
#[test]
fn a7_a_task_never_calls() {
    let runtime = without_time();
    let stage = stage(4).run(&runtime, async |ctx| match ctx.rank() {
        0 => Ok(()),
        _ => Ok(ctx.barrier().await?),
    });
    let text = stage.wait().unwrap_err().to_string();
    assert!(
        text.ends_with("the sync of epoch 0 cannot be completed: partition 0 has returned"),
        "{text}"
    );
}

#[test]
fn a7_a_task_never_calls_blocking() {
    let runtime = without_time();
    let stage = stage(4).run_blocking(&runtime, |ctx| match ctx.rank() {
        0 => Ok(()),
        _ => Ok(ctx.barrier()?),
    });
    let text = stage.wait().unwrap_err().to_string();
    assert!(
        text.ends_with("the sync of epoch 0 cannot be completed: partition 0 has returned"),
        "{text}"
    );
}

#[test]
fn a8_one_task_calls_less_often() {
    let runtime = without_time();
    let stage = stage(4).run(&runtime, async |ctx| {
        for _ in 0..if ctx.rank() == 2 { 2 } else { 3 } {
            ctx.barrier().await?;
        }
        Ok(())
    });
    let text = stage.wait().unwrap_err().to_string();
    assert!(
        text.ends_with("the sync of epoch 2 cannot be completed: partition 2 has returned"),
        "{text}"
    );
}

#[test]
fn a8_one_task_calls_more_often() {
    let runtime = without_time();
    let stage = stage(4).run_blocking(&runtime, |ctx| {
        for _ in 0..if ctx.rank() == 2 { 2 } else { 1 } {
            ctx.barrier()?;
        }
        Ok(())
    });
    let error = stage.wait().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("the sync of epoch 1 cannot be completed: partition "), "{text}");
    assert!(text.ends_with("has returned"), "{text}");
    let origin = error.first_cause().unwrap().origin.unwrap();
    assert_eq!(origin.partition, PartitionId(2), "the others have done all that they wanted");
}

/// A task that swallows its error is not let through at the next sync.
#[test]
fn a8_nobody_passes_a_later_sync_after_a_peer_has_returned() {
    let runtime = without_time();
    let stage = stage(2).run(&runtime, async |ctx| {
        if ctx.rank() == 1 {
            return Ok(Vec::new());
        }
        let first = ctx.barrier().await.unwrap_err();
        Ok(vec![first, ctx.barrier().await.unwrap_err()])
    });
    let errors = stage.wait().unwrap().remove(0);
    assert!(matches!(&errors[0], SyncError::PeerLeft { .. }), "{}", errors[0]);
    assert_eq!(errors[0], errors[1]);
    assert!(is_idle(&runtime));
}

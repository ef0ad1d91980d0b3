//! Who waits and why no longer: K3, K8 to K11, K14.

use super::{is_within, until_missing};
use crate::observe::{Gate, advance, is_idle, is_sync_timeout, no_pause};
use crate::observe::{running, start_without_time, until_armed};
use phalanx::{
    CollectiveError, ExecutorResources, LeaveReason, PartitionId, Runtime, Stage, SyncError,
    TaskResult,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn without_time(slots: u32) -> Runtime {
    start_without_time(no_pause(), vec![ExecutorResources::new(slots)])
}

#[test]
fn k3_syncs_of_another_stage_do_not_put_off_a_timeout() {
    let runtime = without_time(4);
    let slow = Stage::tasks(2).max_attempts(1).sync_timeout(4 * SECOND);
    let slow = slow.run(&runtime, async |ctx| {
        if ctx.rank() == 1 {
            ctx.killed().await;
        }
        Ok(ctx.barrier().await?)
    });
    until_missing(&slow, "1");
    until_armed(&runtime, is_sync_timeout);
    for _ in 0..2 {
        advance(&runtime, 3 * SECOND / 2);
        let busy = Stage::tasks(2).sync_timeout(4 * SECOND);
        busy.run(&runtime, async |ctx| Ok(ctx.barrier().await?)).wait().unwrap();
    }
    assert!(!advance(&runtime, SECOND - Duration::from_nanos(1)).iter().any(is_sync_timeout));
    assert!(advance(&runtime, Duration::from_nanos(1)).iter().any(is_sync_timeout));
    let text = slow.wait().unwrap_err().to_string();
    assert!(text.contains("within 4 second(s); missing: partition 1"), "{text}");
}

#[test]
fn k8_two_threads_of_a_task_are_released_with_its_peer_and_not_before() {
    let runtime = without_time(2);
    let (peer_may_come, released) = (Gate::closed(), Arc::new(AtomicBool::new(false)));
    let (gate, (tell, is_in)) = (peer_may_come.clone(), mpsc::channel());
    let handle = Stage::tasks(2).max_attempts(1).run(&runtime, async move |ctx| {
        if ctx.rank() == 1 {
            gate.pass().await;
            assert!(!released.load(Ordering::SeqCst), "released without partition 1");
            ctx.barrier().await?;
            return Ok(ctx.all_gather(&1).await?);
        }
        let calls = [(), ()].map(|()| {
            let (ctx, tell, released) = (ctx.clone(), tell.clone(), released.clone());
            let in_thread = async move {
                let mut call = Box::pin(ctx.barrier());
                assert!(futures_util::poll!(call.as_mut()).is_pending());
                tell.send(()).unwrap();
                let result = call.await;
                released.store(true, Ordering::SeqCst);
                result
            };
            tokio::task::spawn_blocking(move || pollster::block_on(in_thread))
        });
        for call in calls {
            call.await??;
        }
        // Two threads were one arrival: the next round is the peer's next round.
        Ok(ctx.all_gather(&0).await?)
    });
    for _ in 0..2 {
        is_in.recv().unwrap();
    }
    until_missing(&handle, "1");
    advance(&runtime, 5 * SECOND);
    peer_may_come.open();
    assert_eq!(handle.wait().unwrap(), [[0, 1], [0, 1]]);
}

/// From the return of partition 1 to the error of partition 0, which waits for it, or comes later.
fn told_after_return(runtime: &Runtime, waits: bool) -> Duration {
    let (returns, comes) = (Gate::closed(), Gate::closed());
    let gates = [comes.clone(), returns.clone()];
    let stage = Stage::tasks(2).max_attempts(1).sync_timeout(8 * SECOND);
    let handle = stage.run_blocking(runtime, move |ctx| {
        gates[ctx.rank()].pass_blocking();
        if ctx.rank() == 1 {
            return Ok(Instant::now());
        }
        let error = ctx.barrier().unwrap_err();
        let at = Instant::now();
        let (attempt, partition) = (ctx.stage_attempt(), PartitionId(1));
        let (epoch, reason) = (phalanx::Epoch(0), LeaveReason::Returned);
        assert_eq!(error, SyncError::PeerLeft { attempt, epoch, partition, reason });
        assert!(error.to_string().ends_with("partition 1 has returned"), "{error}");
        Ok(at)
    });
    if waits {
        comes.open();
        until_missing(&handle, "1");
        returns.open();
    } else {
        returns.open();
        while running(runtime) != 1 {
            std::thread::yield_now();
        }
        comes.open();
    }
    let times = handle.wait().unwrap();
    times[0].saturating_duration_since(times[1])
}

#[test]
fn k9_a_peer_that_returns_without_calling_is_named_at_once_and_not_at_the_timeout() {
    let runtime = without_time(2);
    for waits in [true, false] {
        is_within(Duration::from_millis(100), || told_after_return(&runtime, waits));
    }
}

#[test]
fn k9_a_call_more_than_the_peers_make_is_not_waited_for() {
    let runtime = without_time(4);
    let stage = Stage::tasks(4).max_attempts(1).sync_timeout(8 * SECOND);
    let handle = stage.run(&runtime, async |ctx| {
        for _ in 0..2 + usize::from(ctx.rank() == 2) {
            ctx.barrier().await?;
        }
        Ok(())
    });
    let text = handle.wait().unwrap_err().to_string();
    assert!(text.contains("partition 2 (") && text.contains("sync of epoch 2 cannot"), "{text}");
    assert!(text.ends_with("has returned"), "{text}");
}

fn sync_error(result: Result<Vec<usize>, CollectiveError>) -> SyncError {
    match result {
        Err(CollectiveError::Sync(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn k10_mixed_calls_give_one_clear_error_that_does_not_change() {
    for tasks in [2, 4] {
        let runtime = without_time(4);
        let (tell, told) = mpsc::channel();
        let all_have_called = Arc::new(tokio::sync::Barrier::new(tasks));
        let handle = Stage::tasks(tasks).max_attempts(2).run(&runtime, async move |ctx| {
            if ctx.stage_attempt_number() == 1 {
                return Ok(ctx.barrier().await?);
            }
            let first = match ctx.rank() {
                0 => ctx.barrier().await.unwrap_err(),
                rank => sync_error(ctx.all_gather(&rank).await),
            };
            // Swallowed by all, who now make the same call.
            let again = [ctx.barrier().await.unwrap_err(), ctx.barrier().await.unwrap_err()];
            tell.send((first.clone(), again)).unwrap();
            all_have_called.wait().await;
            Err(first.into())
        });
        let (error, _) = told.recv().unwrap();
        assert!(matches!(error, SyncError::MixedMethods { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("barrier()") && text.contains("all_gather()"), "{text}");
        assert_eq!(handle.wait().unwrap().len(), tasks, "the next attempt is not poisoned");
        let others: Vec<_> = told.iter().collect();
        assert_eq!(others, vec![(error.clone(), [error.clone(), error]); tasks - 1]);
        assert!(is_idle(&runtime));
    }
}

/// From the moment at which partition 0 throws to the last of its peers' errors.
fn told_after_throw(runtime: &Runtime, tasks: usize, blocking: bool) -> Duration {
    let (tell, told) = mpsc::channel();
    let (gate, thrown) = (Gate::closed(), tell.clone());
    let (in_task, thrown) = (gate.clone(), Mutex::new(thrown));
    let throw = move || -> TaskResult<()> {
        thrown.lock().unwrap().send((Instant::now(), None)).unwrap();
        Err("boom".into())
    };
    let stage = Stage::tasks(tasks).max_attempts(1);
    let handle = if blocking {
        stage.run_blocking(runtime, move |ctx| {
            if ctx.rank() == 0 {
                in_task.pass_blocking();
                return throw();
            }
            let error = ctx.barrier().unwrap_err();
            tell.send((Instant::now(), Some(error)))?;
            Ok(())
        })
    } else {
        stage.run(runtime, async move |ctx| {
            if ctx.rank() == 0 {
                in_task.pass().await;
                return throw();
            }
            let error = ctx.barrier().await.unwrap_err();
            tell.send((Instant::now(), Some(error)))?;
            Ok(())
        })
    };
    until_missing(&handle, "0");
    advance(runtime, 6 * SECOND / 5);
    gate.open();
    let (start, nothing) = told.recv().unwrap();
    assert_eq!(nothing, None, "nobody was out before");
    let mut last = start;
    for _ in 1..tasks {
        let (at, error) = told.recv().unwrap();
        let text = error.unwrap().to_string();
        assert!(text.contains("partition 0") && text.ends_with("boom"), "{text}");
        last = last.max(at);
    }
    assert!(handle.wait().unwrap_err().to_string().ends_with("failed: boom"));
    last - start
}

#[test]
fn k11_peers_of_a_task_that_throws_are_out_in_less_than_50_ms() {
    let runtime = without_time(64);
    for tasks in [2, 4, 64] {
        for blocking in [false, true] {
            is_within(Duration::from_millis(50), || told_after_throw(&runtime, tasks, blocking));
        }
    }
}

#[test]
fn k14_a_swallowed_timeout_never_pairs_calls_from_different_places() {
    let runtime = without_time(2);
    let (late, (tell, told)) = (Gate::closed(), mpsc::channel());
    let in_task = late.clone();
    let stage = Stage::tasks(2).max_attempts(1).sync_timeout(2 * SECOND);
    let handle = stage.run_blocking(&runtime, move |ctx| {
        if ctx.rank() == 1 {
            in_task.pass_blocking();
        }
        let first = ctx.barrier().unwrap_err();
        tell.send(first.clone()).unwrap();
        if ctx.rank() == 0 {
            in_task.pass_blocking();
        }
        assert_eq!(ctx.barrier().unwrap_err(), first);
        Ok(())
    });
    until_missing(&handle, "1");
    until_armed(&runtime, is_sync_timeout);
    advance(&runtime, 2 * SECOND);
    let first = told.recv().unwrap();
    assert!(first.to_string().ends_with("missing: partition 1"), "{first}");
    late.open();
    assert_eq!(told.recv().unwrap(), first, "who comes late is told the same");
    handle.wait().unwrap();
}

//! Syncs through the public API: what meets, what fails, who is named, how soon.

use phalanx::actors::testing::{Advance, GetArmed};
use phalanx::{
    CollectiveError, Config, LeaveReason, Numbers, PartitionId, ReduceOp, Runtime, Stage,
    StageFailure, SyncError, TaskFailure,
};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

fn runtime(slots: u32) -> Runtime {
    let config = Config { stage_retry_delay: Duration::ZERO, slots, ..Config::default() };
    Runtime::start(config).unwrap()
}

#[test]
fn collectives_give_the_same_to_all_in_partition_order() {
    let runtime = runtime(4);
    let stage = Stage::tasks(4).run(&runtime, async |ctx| {
        let rank = ctx.rank();
        let texts = ctx.all_gather(&rank.to_string()).await?;
        let bytes = ctx.all_gather_bytes(vec![rank as u8; rank].into()).await?;
        let lengths: Vec<usize> = bytes.iter().map(|bytes| bytes.len()).collect();
        let chosen = ctx.broadcast(2, (rank == 2).then_some(&"from two".to_owned())).await?;
        let sum = ctx.all_reduce(ReduceOp::Sum, &vec![rank as f64, 0.1]).await?;
        let shared = Numbers::from(vec![rank as f64, 0.1]);
        let again = match rank {
            0 => ctx.all_reduce(ReduceOp::Sum, &shared.to_vec()).await?,
            _ => ctx.all_reduce_shared(ReduceOp::Sum, &shared).await?.to_vec(),
        };
        assert_eq!(again, sum, "those who share and those who copy meet");
        let max = ctx.all_reduce(ReduceOp::Max, &(rank as u64)).await?;
        Ok((texts, lengths, chosen, sum, max))
    });
    let results = stage.wait().unwrap();
    let sum = vec![6.0, 0.1 + 0.1 + 0.1 + 0.1];
    let texts = ["0", "1", "2", "3"].map(str::to_owned).to_vec();
    assert_eq!(results[0], (texts, vec![0, 1, 2, 3], "from two".to_owned(), sum, 3));
    assert!(results.iter().all(|result| *result == results[0]));
}

#[test]
fn the_blocking_form_does_the_same() {
    let runtime = runtime(3);
    let stage = Stage::tasks(3).run_blocking(&runtime, |ctx| {
        ctx.barrier()?;
        let gathered = ctx.all_gather(&ctx.rank())?;
        let shared = ctx.all_gather_bytes("x".into())?;
        let chosen = ctx.broadcast(0, Some(&ctx.world_size()))?;
        let sum = ctx.all_reduce(ReduceOp::Sum, &1_u32)?;
        assert_eq!(*ctx.all_reduce_shared(ReduceOp::Sum, &vec![1_u32].into())?, [sum]);
        let saved = if ctx.rank() == 0 { ctx.checkpoint(1, &sum) } else { Ok(()) };
        saved?;
        Ok((gathered, shared.len(), chosen, sum, ctx.restore::<u32>()?))
    });
    assert_eq!(stage.wait().unwrap(), vec![(vec![0, 1, 2], 3, 3, 3, None); 3]);
}

#[test]
fn values_that_cannot_be_exchanged_are_refused_with_the_reason() {
    let config = Config { sync_max_message_size: 12, slots: 2, ..Config::default() };
    let runtime = Runtime::start(config).unwrap();
    let stage = Stage::tasks(2).run(&runtime, async |ctx| {
        let large = ctx.all_gather(&"x".repeat(19)).await.unwrap_err().to_string();
        let root = ctx.broadcast(7, Some(&1)).await.unwrap_err().to_string();
        let disagree = ctx.broadcast(ctx.rank(), Some(&1_u8)).await.unwrap_err().to_string();
        let mixed = ctx.all_reduce(ReduceOp::Sum, &vec![0_u8 as i32; ctx.rank() + 1]).await;
        Ok((large, root, disagree, mixed.unwrap_err().to_string()))
    });
    for (large, root, disagree, mixed) in stage.wait().unwrap() {
        assert!(large.contains("has 20 bytes, allowed are 12 (sync.max_message_size)"), "{large}");
        assert!(root.ends_with("partition 7 of 2: there is no such partition"), "{root}");
        assert!(disagree.ends_with("another task named another root"), "{disagree}");
        assert!(mixed.contains("partition 1 has 2 elements, partition 0 has 1"), "{mixed}");
    }
}

#[test]
fn different_calls_in_one_round_give_one_clear_error_to_all_and_close_the_attempt() {
    let runtime = runtime(4);
    let stage = Stage::tasks(4).run(&runtime, async |ctx| {
        let first = match ctx.rank() {
            0 => ctx.barrier().await.unwrap_err(),
            rank => sync_error(ctx.all_gather(&rank).await.unwrap_err()),
        };
        // Swallowed by all; there is no second, misleading story.
        let second = ctx.barrier().await.unwrap_err();
        Ok((first, second))
    });
    let results = stage.wait().unwrap();
    let (first, _) = results[0].clone();
    assert!(matches!(first, SyncError::MixedMethods { .. }), "{first}");
    let text = first.to_string();
    assert!(text.contains("barrier()") && text.contains("all_gather()"), "{text}");
    for (mine, again) in results {
        assert_eq!((mine, again), (first.clone(), first.clone()));
    }
}

fn sync_error(error: CollectiveError) -> SyncError {
    match error {
        CollectiveError::Sync(error) => error,
        other => panic!("{other}"),
    }
}

/// What ends one of the tasks of a gang while the others wait.
#[derive(Clone, Copy, Debug)]
enum End {
    Returns,
    Fails,
    Panics,
    IsKilled,
}

/// All 63 others have their error, naming the partition, though no time passes: nothing waits for a
/// timer. How soon is measured by `benches/fail_together.rs`.
fn the_others_are_told_at_once(end: End) {
    let (tasks, culprit) = (64, 17);
    let runtime = Runtime::builder().slots(tasks).manual_time().start().unwrap();
    let waiting = Arc::new(AtomicU32::new(0));
    let entering = waiting.clone();
    let (tell, told) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let stage = Stage::tasks(tasks as usize).max_attempts(1);
    let handle = stage.run_blocking(&runtime, move |ctx| {
        if ctx.rank() != culprit {
            entering.fetch_add(1, Ordering::SeqCst);
            let error = ctx.barrier().unwrap_err();
            tell.send(error).unwrap();
            return Ok(());
        }
        match end {
            End::IsKilled => ctx.wait_killed(),
            End::Returns | End::Fails | End::Panics => gate.lock().unwrap().recv().unwrap(),
        }
        match end {
            End::Returns => Ok(()),
            End::Fails | End::IsKilled => Err("out of rows".into()),
            // Without the hook, whose backtrace takes its time in a debug build.
            End::Panics => std::panic::resume_unwind(Box::new("out of rows")),
        }
    });
    // The last one to count itself is in barrier() a few instructions later, or comes late and is
    // told the same.
    while waiting.load(Ordering::SeqCst) < tasks - 1 {
        thread::yield_now();
    }
    match end {
        End::IsKilled => handle.kill_task(culprit, "out of rows"),
        End::Returns | End::Fails | End::Panics => go.send(()).unwrap(),
    }
    for _ in 1..tasks {
        let error = told.recv().unwrap();
        assert!(error.to_string().contains("partition 17"), "{end:?}: {error}");
    }
    assert_eq!(handle.wait().is_ok(), matches!(end, End::Returns));
}

#[test]
fn when_one_of_64_returns_the_63_others_are_told_at_once() {
    the_others_are_told_at_once(End::Returns);
}

#[test]
fn when_one_of_64_fails_the_63_others_are_told_at_once() {
    the_others_are_told_at_once(End::Fails);
}

#[test]
fn when_one_of_64_panics_the_63_others_are_told_at_once() {
    the_others_are_told_at_once(End::Panics);
}

#[test]
fn when_one_of_64_is_killed_the_63_others_are_told_at_once() {
    the_others_are_told_at_once(End::IsKilled);
}

#[test]
fn the_first_cause_is_the_task_that_failed_first_and_not_those_it_pulled_down() {
    let runtime = runtime(16);
    for _ in 0..50 {
        let stage = Stage::tasks(16).max_attempts(1).run(&runtime, async |ctx| {
            if ctx.rank() == 5 {
                ctx.barrier().await?;
                return Err("the real cause".into());
            }
            ctx.barrier().await?;
            ctx.barrier().await?;
            Ok(())
        });
        let error = stage.wait().unwrap_err();
        let cause = error.first_cause().unwrap();
        assert_eq!(cause.origin.unwrap().partition, PartitionId(5), "{error}");
        assert_eq!(cause.failure, TaskFailure::Error("the real cause".to_owned()));
    }
}

#[test]
fn a_timeout_of_hours_runs_per_round_and_names_the_missing() {
    let config = Config { slots: 2, ..Config::default() };
    let runtime = Runtime::builder().config(config).manual_time().start().unwrap();
    let timer = runtime.manual_timer().unwrap().clone();
    let hour = Duration::from_secs(3600);
    let (tell, told) = mpsc::channel();
    let stage = Stage::tasks(2).max_attempts(1).sync_timeout(hour);
    let handle: phalanx::StageHandle<()> = stage.run_blocking(&runtime, move |ctx| {
        ctx.barrier()?;
        if ctx.rank() == 1 {
            ctx.wait_killed();
            return Err("too late".into());
        }
        let first = ctx.barrier().unwrap_err();
        tell.send((first, ctx.barrier().unwrap_err())).unwrap();
        Err(ctx.barrier().unwrap_err().into())
    });
    // Two timers per round: those of the first are gone when the second is open.
    let armed = |epoch: u64| {
        let epoch = format!("Epoch({epoch})");
        let keys = pollster::block_on(timer.send(GetArmed)).unwrap();
        keys.iter().filter(|(key, _)| format!("{key:?}").contains(&epoch)).count()
    };
    while armed(1) < 2 {
        thread::yield_now();
    }
    assert_eq!(armed(0), 0);
    pollster::block_on(timer.send(Advance(hour))).unwrap();
    let (first, second) = told.recv().unwrap();
    assert!(matches!(first, SyncError::Timeout { .. }), "{first}");
    assert_eq!(first, second, "the attempt is closed: no new round is opened");
    let text = handle.wait().unwrap_err().to_string();
    assert!(text.contains("for epoch 1 within 3600 second(s)"), "{text}");
    assert!(text.contains("missing: partition 1"), "{text}");
}

#[test]
fn dropping_a_sync_half_way_never_releases_a_partial_gang() {
    let runtime = runtime(2);
    let released = Arc::new(AtomicBool::new(false));
    let seen = released.clone();
    let stage = Stage::tasks(2).run(&runtime, async move |ctx| {
        if ctx.rank() == 0 {
            ctx.barrier().await?;
            seen.store(true, Ordering::SeqCst);
            return Ok(0);
        }
        for _ in 0..100 {
            // Polled once, so that it has arrived, then dropped.
            let mut call = Box::pin(ctx.barrier());
            let polled = futures_util::poll!(call.as_mut());
            assert!(polled.is_pending(), "released though dropped again and again");
            drop(call);
            tokio::task::yield_now().await;
        }
        assert!(!seen.load(Ordering::SeqCst));
        ctx.barrier().await?;
        Ok(1)
    });
    assert_eq!(stage.wait().unwrap(), [0, 1]);
    assert!(released.load(Ordering::SeqCst));
}

#[test]
fn a_sync_that_lost_a_race_and_is_made_again_goes_on_where_it_was() {
    let runtime = runtime(4);
    let stage = Stage::tasks(4).run(&runtime, async |ctx| {
        let mut epochs = Vec::new();
        for epoch in 0..200_u32 {
            // Each task gives up at another moment, before, at and after the release.
            let mut patience = (ctx.rank() as u32 * 7 + epoch) % 5;
            let gathered = loop {
                let mut call = Box::pin(ctx.all_gather(&epoch));
                let mut polls = 0;
                let result = std::future::poll_fn(|cx| {
                    polls += 1;
                    match call.as_mut().poll(cx) {
                        std::task::Poll::Ready(result) => std::task::Poll::Ready(Some(result)),
                        _ if polls > patience => std::task::Poll::Ready(None),
                        pending => {
                            cx.waker().wake_by_ref();
                            pending.map(Some)
                        }
                    }
                })
                .await;
                match result {
                    Some(result) => break result?,
                    None => patience += 1,
                }
                tokio::task::yield_now().await;
            };
            epochs.push(gathered);
        }
        Ok(epochs)
    });
    for epochs in stage.wait().unwrap() {
        for (epoch, gathered) in (0..).zip(epochs) {
            assert_eq!(gathered, [epoch; 4]);
        }
    }
}

#[test]
fn two_threads_of_one_task_are_one_arrival() {
    let runtime = runtime(2);
    // Rank 1 comes when both threads of rank 0 are known to be in barrier().
    let both_in = Arc::new(tokio::sync::Barrier::new(3));
    let stage = Stage::tasks(2).run(&runtime, async move |ctx| {
        let in_thread = |_| {
            let (ctx, both_in) = (ctx.clone(), both_in.clone());
            let in_barrier = async move {
                let mut call = Box::pin(ctx.barrier());
                assert!(futures_util::poll!(call.as_mut()).is_pending(), "without partition 1");
                let other = ctx.all_gather(&0).await.unwrap_err().to_string();
                assert!(
                    other.contains("called all_gather() while it waits in barrier()"),
                    "{other}"
                );
                both_in.wait().await;
                call.await
            };
            tokio::task::spawn_blocking(move || pollster::block_on(in_barrier))
        };
        if ctx.rank() == 1 {
            both_in.wait().await;
            return Ok(ctx.barrier().await?);
        }
        let [first, second] = [(), ()].map(in_thread);
        first.await??;
        Ok(second.await??)
    });
    assert_eq!(stage.wait().unwrap().len(), 2);
}

#[test]
fn a_peer_that_returned_is_named_to_who_comes_later_too() {
    let runtime = runtime(2);
    let stage = Stage::tasks(2).max_attempts(1).run_blocking(&runtime, |ctx| {
        if ctx.rank() == 1 {
            return Ok(());
        }
        let error = ctx.barrier().unwrap_err();
        let reason = LeaveReason::Returned;
        let (attempt, epoch) = (ctx.stage_attempt(), phalanx::protocol::Epoch(0));
        let left = SyncError::PeerLeft { attempt, epoch, partition: PartitionId(1), reason };
        assert_eq!(error, left);
        Err(error.into())
    });
    let error = stage.wait().unwrap_err();
    assert!(matches!(error.failure(), StageFailure::AttemptsExhausted { attempts: 1, .. }));
    let text = error.to_string();
    assert!(text.contains("cannot be completed: partition 1 has returned"), "{text}");
}

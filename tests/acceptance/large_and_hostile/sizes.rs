//! Gangs of one, of none, and of more than 16 bits can count: L10.

use crate::observe::{is_idle, local, no_pause, start_without_time};
use phalanx::{Config, ExecutorResources, ReduceOp, Runtime, RuntimeEvent, Stage, StageFailure};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[test]
fn l10_a_gang_of_one_meets_itself_at_once() {
    let runtime = start_without_time(no_pause(), vec![ExecutorResources::new(1)]);
    let stage = Stage::tasks(1).run(&runtime, async |ctx| {
        for _ in 0..1_000 {
            ctx.barrier().await?;
        }
        let sum = ctx.all_reduce(ReduceOp::Sum, &5_u32).await?;
        Ok((ctx.all_gather(&7).await?, ctx.broadcast(0, Some(&8)).await?, sum))
    });
    assert_eq!(stage.wait().unwrap(), [(vec![7], 8, 5)]);
    let stage = Stage::tasks(1).run_blocking(&runtime, |ctx| {
        ctx.barrier()?;
        Ok(ctx.all_gather(&7)?)
    });
    assert_eq!(stage.wait().unwrap(), [[7]]);
}

#[test]
fn l10_a_gang_of_none_succeeds_without_an_attempt() {
    let runtime = local(1);
    let mut events = runtime.subscribe();
    let runs = Arc::new(AtomicU32::new(0));
    let count = runs.clone();
    let hog = Stage::tasks(1).run(&runtime, async |ctx| {
        ctx.killed().await;
        Ok(())
    });
    // Though no slot is free.
    let none = Stage::tasks(0).run(&runtime, async move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let id = none.id();
    assert_eq!(none.wait().unwrap(), []);
    let no_inputs: Vec<u8> = Vec::new();
    let none = Stage::partitions(no_inputs).run_blocking(&runtime, |_, input| Ok(*input));
    assert_eq!(none.wait().unwrap(), Vec::<u8>::new());
    hog.cancel("the others are done");
    assert!(hog.wait().unwrap_err().is_cancelled());
    for event in crate::observe::story(&mut events, id) {
        match event {
            RuntimeEvent::AttemptStarted { attempt, .. } => assert_ne!(attempt.stage, id),
            RuntimeEvent::StageCompleted { stage, attempts, failure } if stage == id => {
                assert_eq!((attempts, failure), (0, None));
            }
            _ => {}
        }
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[test]
fn l10_a_gang_of_forty_thousand_is_exact() {
    const TASKS: u32 = 40_000;
    let runtime = local(TASKS);
    let stage = Stage::tasks(TASKS as usize).max_attempts(1).run(&runtime, async |ctx| {
        assert_eq!(ctx.num_tasks(), TASKS);
        ctx.barrier().await?;
        let mine = ctx.partition_id().0.to_le_bytes();
        let all = ctx.all_gather_bytes(mine.to_vec().into()).await?;
        // All of them only once: the release is the same memory for all.
        let checked = if ctx.rank() == 0 { 0..TASKS } else { 32_766..32_770 };
        for partition in checked {
            assert_eq!(all[partition as usize], partition.to_le_bytes()[..]);
        }
        assert_eq!(all[ctx.rank()], mine[..]);
        Ok((ctx.rank(), all.len()))
    });
    let expected = (0..TASKS as usize).map(|rank| (rank, TASKS as usize));
    assert!(stage.wait().unwrap().into_iter().eq(expected));
    assert!(is_idle(&runtime));
}

#[test]
fn l10_one_of_forty_thousand_that_is_missing_is_named() {
    const TASKS: u32 = 40_000;
    let config = Config { slots: TASKS, ..no_pause() };
    let runtime = Runtime::builder().config(config).manual_time().start().unwrap();
    let stage = Stage::tasks(TASKS as usize).max_attempts(1);
    let handle = stage.sync_timeout(Duration::from_secs(1)).run(&runtime, async |ctx| {
        if ctx.rank() == 39_999 {
            ctx.killed().await;
        }
        Ok(ctx.barrier().await?)
    });
    let waits_for_one =
        || pollster::block_on(handle.sync_status()).is_some_and(|it| it.missing.len() == 1);
    while !waits_for_one() {
        std::thread::yield_now();
    }
    crate::observe::until_armed(&runtime, crate::observe::is_sync_timeout);
    crate::observe::advance(&runtime, Duration::from_secs(1));
    let text = handle.wait().unwrap_err().to_string();
    assert!(text.ends_with("within 1 second(s); missing: partition 39999"), "{text}");
}

#[test]
fn l10_more_tasks_than_allowed_are_refused_with_both_numbers() {
    let config = Config { slots: 1, stage_max_tasks: 40_000, ..Config::default() };
    let runtime = Runtime::start(config).unwrap();
    let handle = Stage::tasks(40_001).run(&runtime, async |_| Ok(()));
    let error = handle.wait().unwrap_err();
    assert!(matches!(error.failure(), StageFailure::Refused { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("40001 tasks, allowed are at most 40000 (stage.max_tasks)"), "{text}");
}

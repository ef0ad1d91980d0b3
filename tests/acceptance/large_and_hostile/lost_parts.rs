//! Parts of the machinery that fail: L6, L8, L9.

use crate::observe::{cluster, is_idle, local};
use actix::Actor;
use phalanx::actors::testing::{InjectPanic, ManualTimer};
use phalanx::actors::{Ask, BarrierCoordinatorActor, EventBus};
use phalanx::protocol::{Arrival, OpenBarrier, RequestToSync};
use phalanx::{
    Epoch, ExecutorId, OnFailure, PartitionId, Runtime, Stage, StageAttemptId, StageFailure,
    StageHandle, SyncMethod, TaskAttemptId, TaskFailure, TaskResult,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Which actor dies.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Child,
    Coordinator,
}

/// A coordinator that reports to this runtime's scheduler dies while a task waits in this attempt.
async fn dies(runtime: &Runtime, attempt: StageAttemptId, victim: Victim) {
    let hour = Duration::from_secs(3600);
    let timer = ManualTimer::default().start().recipient();
    let coordinator = BarrierCoordinatorActor::new(hour, timer, EventBus::new(8))
        .with_scheduler(runtime.scheduler().clone().recipient())
        .start();
    let task_attempts = vec![TaskAttemptId(0), TaskAttemptId(1)];
    let open = OpenBarrier { attempt, task_attempts, sync_timeout: hour };
    let child = coordinator.send(Ask(open)).await.unwrap().unwrap();
    let (partition, task_attempt) = (PartitionId(0), TaskAttemptId(0));
    let message = Default::default();
    let arrivals = vec![Arrival { partition, task_attempt, message }];
    let (num_tasks, epoch, method) = (2, Epoch(0), SyncMethod::Barrier);
    let request = RequestToSync { attempt, num_tasks, epoch, method, arrivals };
    let waiting = child.send(Ask(request));
    let died = match victim {
        Victim::Child => child.send(InjectPanic).await,
        Victim::Coordinator => coordinator.send(InjectPanic).await,
    };
    assert!(died.is_err(), "it did panic");
    let error = waiting.await.unwrap().result.unwrap_err();
    assert!(error.to_string().ends_with("the barrier coordinator is gone"), "{error}");
}

/// A gang that waits for its partition 1, in every attempt before this one.
fn waits_until_attempt(
    runtime: &Runtime,
    good: u32,
) -> (StageHandle<u32>, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let handle = Stage::tasks(2).max_attempts(1).max_infrastructure_failures(2).run(
        runtime,
        async move |ctx| {
            if ctx.rank() == 1 && ctx.stage_attempt_number() < good {
                ctx.killed().await;
            }
            let met = ctx.barrier().await;
            if ctx.rank() == 0
                && let Err(error) = &met
            {
                tell.send(error.to_string()).unwrap();
            }
            met?;
            Ok(ctx.stage_attempt_number())
        },
    );
    (handle, told)
}

async fn until_waiting(handle: &StageHandle<u32>, number: u32) -> StageAttemptId {
    loop {
        match handle.sync_status().await {
            Some(status) if status.attempt.attempt == number => return status.attempt,
            _ => tokio::task::yield_now().await,
        }
    }
}

#[actix::test]
async fn l6_when_the_coordinator_dies_all_who_wait_are_told_and_the_stage_is_retried() {
    for victim in [Victim::Child, Victim::Coordinator] {
        let runtime = local(2);
        let (handle, mut told) = waits_until_attempt(&runtime, 2);
        for number in 0..2 {
            let attempt = until_waiting(&handle, number).await;
            dies(&runtime, attempt, victim).await;
            let text = told.recv().await.unwrap();
            assert!(text.contains("lost its barrier coordinator"), "{victim:?}: {text}");
        }
        let values = handle.await.unwrap();
        assert_eq!(values, [2, 2], "it costs none of the tasks' attempts");
        assert_eq!(told.recv().await, None, "nobody was told anything else");
    }
}

#[actix::test]
async fn l6_a_coordinator_that_dies_for_ever_ends_the_stage() {
    let runtime = local(2);
    let (handle, _told) = waits_until_attempt(&runtime, u32::MAX);
    for number in 0..3 {
        let attempt = until_waiting(&handle, number).await;
        dies(&runtime, attempt, Victim::Coordinator).await;
    }
    let error = handle.await.unwrap_err();
    let StageFailure::InfrastructureExhausted { losses: 3, allowed: 2, cause } = error.failure()
    else {
        panic!("{error}");
    };
    assert!(matches!(cause.failure, TaskFailure::BarrierLost(_)), "{cause}");
}

/// A gang that fails wherever it has a task on a bad node. The attempt that succeeded and where it
/// ran, or the failure.
fn with_bad_nodes(
    runtime: &Runtime,
    tasks: usize,
    bad: &'static [u64],
    panics: bool,
) -> Result<(u32, Vec<ExecutorId>), phalanx::StageError> {
    let handle = Stage::tasks(tasks).run(runtime, async move |ctx| {
        let here = ctx.task_infos()[ctx.rank()].executor;
        if bad.contains(&here.0) {
            if panics {
                std::panic::resume_unwind(Box::new("bad memory"));
            }
            return Err("bad disk".into());
        }
        ctx.barrier().await?;
        Ok((ctx.stage_attempt_number(), here))
    });
    let values = handle.wait()?;
    Ok((values[0].0, values.into_iter().map(|(_, here)| here).collect()))
}

#[test]
fn l8_a_node_on_which_every_task_fails_is_avoided() {
    for panics in [false, true] {
        let runtime = cluster(3, 2);
        let (attempt, placed) = with_bad_nodes(&runtime, 4, &[1], panics).unwrap();
        assert_eq!(attempt, 1, "the first attempt was on all three");
        assert!(!placed.contains(&ExecutorId(1)), "{placed:?}");
    }
}

#[test]
fn l8_two_bad_nodes_are_avoided_after_two_attempts() {
    for _ in 0..20 {
        let runtime = cluster(4, 1);
        let (attempt, placed) = with_bad_nodes(&runtime, 2, &[0, 1], false).unwrap();
        assert!(attempt <= 2, "{attempt}");
        assert_eq!(placed, [ExecutorId(2), ExecutorId(3)]);
    }
}

#[test]
fn l8_a_bad_node_that_is_needed_is_named_after_the_last_attempt() {
    let runtime = cluster(2, 2);
    let error = with_bad_nodes(&runtime, 4, &[1], false).unwrap_err();
    assert!(matches!(error.failure(), StageFailure::AttemptsExhausted { attempts: 4, .. }));
    let text = error.to_string();
    assert!(text.contains("on executor 1) failed: bad disk"), "{text}");
}

/// Partition 0 returns its attempt's number; then partition 1 fails, in the first attempt.
fn half_done(runtime: &Runtime, on_failure: OnFailure, runs: &Arc<AtomicU32>) -> StageHandle<u32> {
    let count = runs.clone();
    let runtime_of_task = runtime.clone();
    Stage::tasks(2).on_failure(on_failure).run(runtime, async move |ctx| {
        count.fetch_add(1, Ordering::SeqCst);
        let attempt = ctx.stage_attempt_number();
        if ctx.rank() == 1 && attempt == 0 {
            let has_returned = async || {
                let status = runtime_of_task.status().await;
                status.stages[0].tasks.len() == 1
            };
            while !has_returned().await {
                tokio::task::yield_now().await;
            }
            return Err("too late".into());
        }
        Ok(attempt)
    })
}

#[test]
fn l9_with_restart_a_gang_is_repeated_and_nothing_of_the_first_try_is_handed_over() {
    let (runtime, runs) = (local(2), Arc::new(AtomicU32::new(0)));
    let handle = half_done(&runtime, OnFailure::Restart, &runs);
    assert_eq!(handle.wait().unwrap(), [1, 1]);
    assert_eq!(runs.load(Ordering::SeqCst), 4);
    assert!(is_idle(&runtime));
}

#[test]
fn l9_with_abort_nothing_is_repeated_and_the_cause_is_kept() {
    let (runtime, runs) = (local(2), Arc::new(AtomicU32::new(0)));
    let error = half_done(&runtime, OnFailure::Abort, &runs).wait().unwrap_err();
    let StageFailure::Aborted { cause } = error.failure() else { panic!("{error}") };
    assert_eq!(cause.failure, TaskFailure::Error("too late".to_owned()));
    assert_eq!(runs.load(Ordering::SeqCst), 2, "each task ran once");
    assert_eq!(error.into_source().unwrap().to_string(), "too late");
    assert!(is_idle(&runtime));
}

#[test]
fn l9_abort_also_holds_for_the_loss_of_an_executor() {
    let runtime = cluster(2, 1);
    let stage = Stage::tasks(2).on_failure(OnFailure::Abort);
    let handle = stage.run(&runtime, async |ctx| {
        if ctx.rank() == 1 {
            ctx.killed().await;
        }
        ctx.barrier().await?;
        TaskResult::Ok(())
    });
    while pollster::block_on(handle.sync_status()).is_none() {
        std::thread::yield_now();
    }
    assert!(pollster::block_on(runtime.remove_executor(ExecutorId(1), "was taken away")));
    let error = handle.wait().unwrap_err();
    let StageFailure::Aborted { cause } = error.failure() else { panic!("{error}") };
    assert!(matches!(cause.failure, TaskFailure::ExecutorLost(_)), "{cause}");
}

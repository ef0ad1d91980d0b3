//! How often a gang is tried, and with what: rows J16 to J22.

mod played_executor;

use crate::observe::{cluster, is_idle, launched, launched_in, local, story, until};
use crate::observe::{start_without_time, until_armed};
use phalanx::protocol::{KillTask, LaunchTasks, SchedulerTimer, TimerKey};
use phalanx::{
    Config, ExecutorId, ExecutorResources, Incarnation, OnFailure, Runtime, RuntimeEvent, Stage,
    StageFailure, StageHandle, StagePhase, TaskFailure, TaskResult,
};
use played_executor::PlayedExecutor;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Code of a gang whose partition 1 fails three times and then no more.
fn fails_three_times(runtime: &Runtime) -> StageHandle<u32> {
    Stage::tasks(2).name("shaky").run(runtime, async |ctx| {
        if ctx.stage_attempt_number() < 3 && ctx.rank() == 1 {
            return Err("not yet".into());
        }
        ctx.barrier().await?;
        Ok(ctx.stage_attempt_number())
    })
}

#[test]
fn j16_what_failed_before_a_success_does_not_count_when_it_is_run_again() {
    let runtime = local(2);
    for _ in 0..3 {
        assert_eq!(fails_three_times(&runtime).wait().unwrap(), [3, 3]);
    }
    assert!(is_idle(&runtime));
}

#[test]
fn j16_stages_of_one_name_do_not_share_their_attempts() {
    let runtime = local(6);
    let handles: Vec<_> = (0..6).map(|_| fails_three_times(&runtime)).collect();
    for handle in handles {
        assert_eq!(handle.wait().unwrap(), [3, 3]);
    }
}

#[test]
fn j17_four_failures_in_a_row_end_the_stage_with_the_number_and_the_last_cause() {
    let runtime = local(4);
    let mut events = runtime.subscribe();
    let handle = Stage::tasks(4).run(&runtime, async |ctx| {
        if ctx.rank() == ctx.stage_attempt_number() as usize {
            return TaskResult::<()>::Err(format!("cause {}", ctx.rank()).into());
        }
        Ok(ctx.barrier().await?)
    });
    let id = handle.id();
    let error = handle.wait().unwrap_err();
    assert!(matches!(error.failure(), StageFailure::AttemptsExhausted { attempts: 4, .. }));
    let text = error.to_string();
    assert!(text.contains("failed 4 times in a row"), "{text}");
    assert!(text.contains("partition 3 ") && text.ends_with("failed: cause 3"), "{text}");
    let retries = story(&mut events, id).into_iter().filter_map(|event| match event {
        RuntimeEvent::AttemptFailed { cause, will_retry } => {
            Some((cause.attempt.attempt, cause.failure.to_string(), will_retry))
        }
        _ => None,
    });
    let expected = (0..4).map(|number| (number, format!("cause {number}"), number < 3));
    assert_eq!(retries.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    // The result does not wait for the others to heed their kill.
    while !is_idle(&runtime) {
        std::thread::yield_now();
    }
}

#[test]
fn j18_a_straggler_of_a_gang_never_gets_a_second_copy() {
    let executors = vec![ExecutorResources::new(4); 3];
    let runtime = start_without_time(Config::default(), executors);
    let mut events = runtime.subscribe();
    let (gate, runs) = (crate::observe::Gate::closed(), Arc::new(AtomicU32::new(0)));
    let (in_task, count) = (gate.clone(), runs.clone());
    let handle = Stage::tasks(4).run(&runtime, async move |ctx| {
        count.fetch_add(1, Ordering::SeqCst);
        if ctx.rank() == 3 {
            in_task.pass().await;
        }
        Ok(ctx.barrier().await?)
    });
    let waits_for_the_straggler =
        || pollster::block_on(handle.sync_status()).is_some_and(|it| it.missing.to_string() == "3");
    while !waits_for_the_straggler() {
        std::thread::yield_now();
    }
    for _ in 0..48 {
        crate::observe::advance(&runtime, Duration::from_secs(3600));
    }
    assert_eq!(pollster::block_on(handle.status()).unwrap().tasks.len(), 4);
    gate.open();
    let id = handle.id();
    handle.wait().unwrap();
    assert_eq!((launched(&story(&mut events, id)).len(), runs.load(Ordering::SeqCst)), (4, 4));
}

#[test]
fn j19_one_failure_of_one_task_is_a_retry_of_the_stage_under_the_defaults() {
    let runtime = local(4);
    let mut events = runtime.subscribe();
    let handle = Stage::tasks(4).run(&runtime, async |ctx| {
        ctx.barrier().await?;
        if ctx.rank() == 2 && ctx.stage_attempt_number() == 0 {
            return Err("once".into());
        }
        Ok((ctx.stage_attempt_number(), ctx.task_attempt_id().0))
    });
    let id = handle.id();
    // All four again, also those that had returned, each as a new task attempt.
    assert_eq!(handle.wait().unwrap(), [(1, 4), (1, 5), (1, 6), (1, 7)]);
    let story = story(&mut events, id);
    for number in [0, 1] {
        assert_eq!(launched_in(&story, id, number).len(), 4);
    }
}

#[test]
fn j19_a_stage_that_is_allowed_one_attempt_is_not_retried() {
    let runtime = local(2);
    for (stage, text) in [
        (Stage::tasks(2).max_attempts(1), "failed 1 times in a row"),
        (Stage::tasks(2).on_failure(OnFailure::Abort), "was aborted at its first failure"),
    ] {
        let runs = Arc::new(AtomicU32::new(0));
        let count = runs.clone();
        let handle = stage.run(&runtime, async move |ctx| {
            count.fetch_add(1, Ordering::SeqCst);
            drop(ctx.barrier().await);
            TaskResult::<()>::Err("once".into())
        });
        let error = handle.wait().unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }
}

/// A gang of two with a task that waits in `barrier()` while the other's executor is taken away, as
/// often as there are losses.
fn loses_executors(blocking: bool, losses: u32) {
    let runtime = cluster(2 + losses as usize, 1);
    let mut events = runtime.subscribe();
    let (tell, told) = mpsc::channel();
    let stage = Stage::tasks(2).max_attempts(1);
    let handle = if blocking {
        stage.run_blocking(&runtime, move |ctx| {
            if ctx.stage_attempt_number() == losses || ctx.rank() == 0 {
                let met = ctx.barrier().map_err(|error| tell.send(error.to_string()));
                return met.map_err(|_| "pulled down".into());
            }
            ctx.wait_killed();
            Err("was lost".into())
        })
    } else {
        stage.run(&runtime, async move |ctx| {
            if ctx.stage_attempt_number() == losses || ctx.rank() == 0 {
                let met = ctx.barrier().await.map_err(|error| tell.send(error.to_string()));
                return met.map_err(|_| "pulled down".into());
            }
            ctx.killed().await;
            Err("was lost".into())
        })
    };
    let id = handle.id();
    let mut told_so_far = Vec::new();
    for number in 0..losses {
        while pollster::block_on(handle.sync_status()).is_none_or(|it| it.attempt.attempt < number)
        {
            std::thread::yield_now();
        }
        let status = pollster::block_on(handle.status()).unwrap();
        let lost = status.tasks.iter().find(|task| task.partition.0 == 1).unwrap().executor;
        assert!(pollster::block_on(runtime.remove_executor(lost, "was taken away")));
        let failed = until(&mut events, |event| {
            told_so_far.push(event.clone());
            match event {
                RuntimeEvent::AttemptFailed { cause, will_retry } => {
                    Some((cause.failure.clone(), *will_retry))
                }
                _ => None,
            }
        });
        let text = format!("executor {lost} was taken away");
        assert_eq!(failed, (TaskFailure::ExecutorLost(text), true));
        assert!(!told.recv().unwrap().is_empty(), "the one that waited was told");
    }
    assert_eq!(handle.wait().unwrap().len(), 2, "though no attempt may fail");
    told_so_far.extend(story(&mut events, id));
    for number in 0..=losses {
        assert_eq!(launched_in(&told_so_far, id, number).len(), 2, "the whole gang");
    }
}

#[test]
fn j20_the_loss_of_an_executor_stops_the_gang_and_all_of_it_runs_again() {
    loses_executors(false, 1);
    loses_executors(true, 1);
}

#[test]
fn j20_losses_of_executors_are_not_charged_to_the_tasks() {
    loses_executors(false, 5);
}

#[actix::test]
async fn j20_a_value_that_was_handed_over_survives_the_executor_that_made_it() {
    let runtime = cluster(1, 1);
    let (one, two) = (ExecutorId(101), ExecutorId(102));
    let mut first = PlayedExecutor::join(&runtime, one, 1);
    let mut second = PlayedExecutor::join(&runtime, two, 1);
    let handle: StageHandle<u32> = seated(&runtime, 2);
    let (at_first, at_second) = (first.launched().await, second.launched().await);
    first.report(&at_first, 0, Ok(10));
    assert!(runtime.remove_executor(one, "was taken away").await);
    second.report(&at_second, 0, Ok(11));
    assert_eq!(handle.await.unwrap(), [10, 11]);
}

/// A gang whose tasks only played executors can run.
fn seated(runtime: &Runtime, tasks: usize) -> StageHandle<u32> {
    Stage::tasks(tasks).resource("seat", 1.0).run(runtime, async |_| Ok(0))
}

#[actix::test]
async fn j21_reports_of_an_older_attempt_change_nothing() {
    let runtime = cluster(1, 1);
    let mut played = PlayedExecutor::join(&runtime, ExecutorId(100), 2);
    let handle = seated(&runtime, 2);
    let old = played.launched().await;
    played.report(&old, 0, Err("boom"));
    assert_eq!(played.killed().await.tasks, [old.tasks[1].task_attempt]);
    played.report(&old, 1, Err("as I was told to"));
    let new = played.launched().await;
    assert_eq!((new.attempt.attempt, new.tasks.len()), (1, 2));
    for index in [0, 1] {
        played.report(&old, index, Ok(900));
        played.report(&old, index, Err("again"));
        // The old task under the new attempt's number.
        played.report(&LaunchTasks { attempt: new.attempt, ..old.clone() }, index, Ok(901));
    }
    played.report(&new, 1, Ok(11));
    played.report(&new, 1, Err("a second report of the same task"));
    played.report(&new, 1, Ok(902));
    let status = handle.status().await.unwrap();
    assert_eq!((status.phase, status.failures), (StagePhase::Running { succeeded: 1 }, 1));
    played.report(&new, 0, Ok(10));
    assert_eq!(handle.await.unwrap(), [10, 11]);
}

#[actix::test]
async fn j21_reports_of_an_older_life_of_the_executor_change_nothing() {
    let runtime = cluster(1, 1);
    let mut former = PlayedExecutor::join(&runtime, ExecutorId(100), 2);
    let handle = seated(&runtime, 2);
    let old = former.launched().await;
    let mut played = former.comes_back(&runtime);
    let new = played.launched().await;
    assert_eq!((new.attempt.attempt, played.incarnation), (1, Incarnation(1)));
    former.report(&old, 0, Ok(900));
    former.report(&new, 0, Ok(901));
    former.report(&new, 1, Err("from another life"));
    played.report(&new, 1, Ok(11));
    played.report(&new, 0, Ok(10));
    assert_eq!(handle.await.unwrap(), [10, 11]);
}

/// A gang of two that failed; its partition 1 was told to end and does not.
async fn with_one_that_does_not_end(
    deadline: Option<Duration>,
) -> (Runtime, PlayedExecutor, StageHandle<u32>, LaunchTasks) {
    let config = Config { kill_zombie_deadline: deadline, ..crate::observe::no_pause() };
    let runtime = start_without_time(config, vec![ExecutorResources::new(1)]);
    let mut played = PlayedExecutor::join(&runtime, ExecutorId(100), 2);
    let handle = seated(&runtime, 2);
    let old = played.launched().await;
    played.report(&old, 0, Err("boom"));
    let KillTask { tasks, reason } = played.killed().await;
    assert_eq!(tasks, [old.tasks[1].task_attempt]);
    assert!(reason.contains("partition 0") && reason.ends_with("boom"), "{reason}");
    until_armed(&runtime, |key| matches!(key, TimerKey::Scheduler(SchedulerTimer::KillOverdue(_))));
    (runtime, played, handle, old)
}

#[actix::test]
async fn j22_a_task_that_cannot_be_killed_is_named_and_its_executor_given_up() {
    let deadline = Duration::from_secs(30);
    let (runtime, mut played, handle, old) = with_one_that_does_not_end(Some(deadline)).await;
    let mut events = runtime.subscribe();
    crate::observe::advance(&runtime, runtime.config().kill_grace);
    let ignores = until(&mut events, |event| match event {
        RuntimeEvent::TaskIgnoresKill { task_attempt, .. } => Some(*task_attempt),
        _ => None,
    });
    assert_eq!(ignores, old.tasks[1].task_attempt);
    crate::observe::advance(&runtime, deadline - runtime.config().kill_grace);
    assert!(played.is_retired().await, "a new life of it is asked for");
    let mut next = played.comes_back(&runtime);
    let new = next.launched().await;
    played.report(&old, 1, Ok(900));
    next.report(&new, 0, Ok(10));
    next.report(&new, 1, Ok(11));
    assert_eq!(handle.await.unwrap(), [10, 11]);
}

#[actix::test]
async fn j22_without_a_deadline_it_is_waited_for_visibly_and_a_cancel_ends_that() {
    let (runtime, mut played, handle, old) = with_one_that_does_not_end(None).await;
    for _ in 0..24 {
        crate::observe::advance(&runtime, Duration::from_secs(3600));
    }
    let status = handle.status().await.unwrap();
    assert_eq!(status.phase.to_string(), "stopping: waits for the killed tasks of partition 1");
    assert!(status.tasks[0].ignores_kill);
    assert_eq!(status.attempt.attempt, 0, "no attempt beside a task that may still run");
    let control = handle.control();
    handle.cancel("we give up");
    assert!(handle.await.unwrap_err().is_cancelled());
    let status = control.status().await.unwrap();
    assert_eq!((status.phase, status.tasks.len()), (StagePhase::Ended, 1));
    let next = seated(&runtime, 2);
    let queued = StagePhase::Queued { required: 2, free: 1, ahead: 0, reserves: false };
    assert_eq!(next.status().await.unwrap().phase, queued, "its slot is not given twice");
    played.report(&old, 1, Err("at last"));
    let new = played.launched().await;
    played.report(&new, 0, Ok(10));
    played.report(&new, 1, Ok(11));
    assert_eq!(next.await.unwrap(), [10, 11]);
    assert_eq!(control.status().await, None);
}

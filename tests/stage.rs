//! Stages through the public API: results, failures, retries, checkpoints, control, events.

use phalanx::{
    Config, EventStream, ExecutorResources, OnFailure, Progress, Runtime, RuntimeEvent, Stage,
    StageFailure, StageId, StagePhase, TaskFailure, TaskResult,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

fn runtime(slots: u32) -> Runtime {
    let config = Config { stage_retry_delay: Duration::ZERO, slots, ..Config::default() };
    Runtime::start(config).unwrap()
}

/// Reads events until one of them is the awaited one.
fn until<T>(events: &mut EventStream, mut wanted: impl FnMut(&RuntimeEvent) -> Option<T>) -> T {
    loop {
        let event = events.next_blocking().expect("the runtime runs and the reader is fast").event;
        if let Some(found) = wanted(&event) {
            return found;
        }
    }
}

fn started(stage: StageId) -> impl FnMut(&RuntimeEvent) -> Option<()> {
    move |event| match event {
        RuntimeEvent::AttemptStarted { attempt, .. } if attempt.stage == stage => Some(()),
        _ => None,
    }
}

#[test]
fn values_come_back_in_partition_order_async_and_blocking() {
    let runtime = runtime(8);
    let squares = Stage::tasks(8).run(&runtime, async |ctx| Ok(ctx.rank() * ctx.rank()));
    assert_eq!(squares.wait().unwrap(), [0, 1, 4, 9, 16, 25, 36, 49]);
    let words = Stage::partitions(["a", "bb", "ccc"])
        .run_blocking(&runtime, |ctx, word| Ok(format!("{}:{word}", ctx.partition_id())));
    assert_eq!(words.wait().unwrap(), ["0:a", "1:bb", "2:ccc"]);
}

#[test]
fn futures_of_tasks_need_not_be_send() {
    let runtime = runtime(2);
    let stage = Stage::tasks(2).run(&runtime, async |ctx| {
        let local = std::rc::Rc::new(ctx.rank());
        ctx.barrier().await?;
        Ok(*local)
    });
    assert_eq!(stage.wait().unwrap(), [0, 1]);
}

#[test]
fn a_stage_of_no_tasks_and_one_of_one_task_end_at_once() {
    let runtime = runtime(1);
    let none = Stage::tasks(0).run(&runtime, async |_| Ok(1)).wait().unwrap();
    assert_eq!(none, Vec::<i32>::new());
    let one = Stage::tasks(1).run(&runtime, async |ctx| {
        ctx.barrier().await?;
        Ok(ctx.all_gather(&7).await?)
    });
    assert_eq!(one.wait().unwrap(), [[7]]);
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("disk {0} is full")]
struct DiskFull(u32);

#[test]
fn the_error_names_task_attempt_and_reason_and_keeps_the_source() {
    let runtime = runtime(4);
    let handle = Stage::tasks(4).name("train").max_attempts(2).run(&runtime, async |ctx| {
        if ctx.rank() == 2 {
            return Err(DiskFull(7).into());
        }
        ctx.barrier().await?;
        Ok(())
    });
    let error = handle.wait().unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("stage 0 'train' failed 2 times in a row"), "{text}");
    assert!(text.contains("partition 2 (task 6 of Stage 0 (Attempt 1) on executor 0)"), "{text}");
    assert!(text.ends_with("failed: disk 7 is full"), "{text}");
    let cause = error.first_cause().unwrap();
    assert_eq!(cause.failure, TaskFailure::Error("disk 7 is full".to_owned()));
    assert_eq!(*error.into_source().unwrap().downcast::<DiskFull>().unwrap(), DiskFull(7));
}

#[test]
fn a_panic_is_a_failure_of_its_task_async_and_blocking() {
    let runtime = runtime(2);
    let fails = |result: Result<Vec<()>, phalanx::StageError>| {
        let cause = result.unwrap_err().first_cause().unwrap().clone();
        assert_eq!(cause.failure, TaskFailure::Panicked("no row 1".to_owned()));
    };
    let stage = || Stage::tasks(2).max_attempts(1);
    fails(stage().run(&runtime, async |ctx| panic!("no row {}", ctx.rank().max(1))).wait());
    fails(stage().run_blocking(&runtime, |ctx| panic!("no row {}", ctx.rank().max(1))).wait());
}

#[test]
fn a_gang_starts_again_as_a_whole_and_resumes_from_its_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    for place in [None, Some(directory.path())] {
        let runtime = runtime(3);
        let mut stage = Stage::tasks(3).name("resume");
        if let Some(path) = place {
            stage = stage.checkpoint_directory(path);
        }
        let handle = stage.run(&runtime, async |ctx| {
            let restored = ctx.restore::<u64>().await?;
            let (from, mut sum) = restored.map_or((0, 0), |it| (it.step, it.value));
            for step in from + 1..=10 {
                sum += ctx.all_gather(&step).await?.iter().sum::<u64>();
                if ctx.rank() == 0 {
                    ctx.checkpoint(step, &sum).await?;
                }
                ctx.barrier().await?;
                if step == 6 && ctx.rank() == 1 && ctx.stage_attempt_number() == 0 {
                    return Err("lost the connection".into());
                }
            }
            Ok((from, sum, ctx.stage_attempt_number()))
        });
        assert_eq!(handle.wait().unwrap(), [(6, 165, 1); 3], "{place:?}");
    }
}

#[test]
fn two_tasks_that_save_the_same_step_are_told() {
    let runtime = runtime(2);
    let stage = Stage::tasks(2).max_attempts(1).run(&runtime, async |ctx| {
        if ctx.rank() == 0 {
            ctx.checkpoint(1, "from 0").await?;
        }
        ctx.barrier().await?;
        Ok(ctx.checkpoint(1, "again").await.map_err(|error| error.to_string()))
    });
    let results = stage.wait().unwrap();
    assert_eq!(results[0], Ok(()), "its own it may write again");
    assert!(results[1].as_ref().unwrap_err().contains("saved by partition 0 already"));
}

#[test]
fn a_stage_that_must_not_be_repeated_fails_at_its_first_failure() {
    let runtime = runtime(2);
    let tries = Arc::new(AtomicU32::new(0));
    let count = tries.clone();
    let stage = Stage::tasks(2).on_failure(OnFailure::Abort).run(&runtime, async move |ctx| {
        count.fetch_add(1, Ordering::SeqCst);
        ctx.barrier().await?;
        TaskResult::<()>::Err("paid twice".into())
    });
    let error = stage.wait().unwrap_err();
    assert!(matches!(error.failure(), StageFailure::Aborted { .. }), "{error}");
    assert_eq!(tries.load(Ordering::SeqCst), 2, "each task ran once");
}

#[test]
fn plain_tasks_run_in_waves_and_are_retried_one_by_one() {
    let runtime = runtime(2);
    let tries = Arc::new(Mutex::new(vec![0; 10]));
    let seen = tries.clone();
    let stage = Stage::tasks(10).plain().run_blocking(&runtime, move |ctx| {
        let mut tries = seen.lock().unwrap();
        tries[ctx.rank()] += 1;
        if ctx.rank() % 5 == 0 && tries[ctx.rank()] < 3 {
            return Err("not yet".into());
        }
        Ok(ctx.rank())
    });
    assert_eq!(stage.wait().unwrap(), (0..10).collect::<Vec<_>>());
    assert_eq!(*tries.lock().unwrap(), [3, 1, 1, 1, 1, 3, 1, 1, 1, 1]);
    let sync = Stage::tasks(1).plain().max_attempts(1).run(&runtime, async |ctx| {
        ctx.barrier().await?;
        Ok(())
    });
    let text = sync.wait().unwrap_err().to_string();
    assert!(text.contains("is not a barrier stage"), "{text}");
}

#[test]
fn cancelling_ends_waiting_tasks_with_the_reason_and_frees_the_slots() {
    let runtime = runtime(2);
    let (told, reasons) = mpsc::channel();
    let stage = Stage::tasks(2).run(&runtime, async move |ctx| {
        told.send("begun".to_owned()).unwrap();
        ctx.killed().await;
        told.send(ctx.kill_reason().unwrap()).unwrap();
        Ok(())
    });
    for _ in 0..2 {
        assert_eq!(reasons.recv().unwrap(), "begun");
    }
    stage.cancel("changed my mind");
    let error = stage.wait().unwrap_err();
    assert!(error.is_cancelled());
    assert!(error.to_string().ends_with("was cancelled: changed my mind"), "{error}");
    for _ in 0..2 {
        assert_eq!(reasons.recv().unwrap(), "the stage was cancelled: changed my mind");
    }
    let next = Stage::tasks(2).run(&runtime, async |_| Ok(()));
    assert_eq!(next.wait().unwrap().len(), 2, "the slots are free again");
}

#[test]
fn a_single_task_can_be_killed_and_its_gang_starts_again() {
    let runtime = runtime(2);
    let mut events = runtime.subscribe();
    let stage = Stage::tasks(2).run(&runtime, async |ctx| {
        if ctx.stage_attempt_number() == 0 {
            ctx.killed().await;
            return Err("ended by a kill".into());
        }
        Ok(())
    });
    until(&mut events, started(stage.id()));
    stage.kill_task(1, "wrong machine");
    let cause = until(&mut events, |event| match event {
        RuntimeEvent::AttemptFailed { cause, will_retry: true } => Some(cause.clone()),
        _ => None,
    });
    assert_eq!(cause.failure, TaskFailure::Killed("wrong machine".to_owned()));
    assert_eq!(stage.wait().unwrap().len(), 2);
}

#[test]
fn status_and_progress_are_seen_while_it_runs_and_gone_afterwards() {
    let runtime = runtime(3);
    let (go, wait) = mpsc::channel::<()>();
    let (reached, at) = mpsc::channel();
    let wait = Mutex::new(wait);
    let stage = Stage::tasks(3).name("slow").run_blocking(&runtime, move |ctx| {
        ctx.report_progress(ctx.rank() as u64, 3);
        ctx.barrier()?;
        if ctx.rank() == 0 {
            reached.send(()).unwrap();
            wait.lock().unwrap().recv().unwrap();
        }
        ctx.barrier()?;
        Ok(())
    });
    at.recv().unwrap();
    let progress = (0..3).map(|done| Some(Progress { done, total: 3 })).collect::<Vec<_>>();
    assert_eq!(stage.progress(), progress);
    let control = stage.control();
    let status = pollster::block_on(control.status()).unwrap();
    assert_eq!((status.name.as_str(), status.tasks.len()), ("slow", 3));
    assert_eq!(status.phase, StagePhase::Running { succeeded: 0 });
    let queued = Stage::tasks(1).run(&runtime, async |_| Ok(()));
    let waits = StagePhase::Queued { required: 1, free: 0, ahead: 0, reserves: false };
    assert_eq!(pollster::block_on(queued.status()).unwrap().phase, waits);
    go.send(()).unwrap();
    stage.wait().unwrap();
    queued.wait().unwrap();
    assert_eq!(pollster::block_on(control.status()), None);
}

#[test]
fn listeners_hear_how_their_task_ended() {
    let runtime = runtime(1);
    let (tell, heard) = mpsc::channel();
    for fails in [false, true] {
        let tell = tell.clone();
        let stage = Stage::tasks(1).max_attempts(1).run(&runtime, async move |ctx| {
            let (done, failed) = (tell.clone(), tell.clone());
            ctx.on_completion(|_| std::panic::resume_unwind(Box::new("a listener's own fault")));
            ctx.on_completion(move |outcome| done.send(format!("{outcome:?}")).unwrap());
            ctx.on_failure(move |failure| failed.send(format!("failed: {failure}")).unwrap());
            if fails { Err("boom".into()) } else { Ok(()) }
        });
        assert_eq!(stage.wait().is_err(), fails);
    }
    drop(tell);
    let heard: Vec<String> = heard.iter().collect();
    assert_eq!(heard, ["Succeeded", "Failed(Error(\"boom\"))", "failed: boom"]);
}

#[test]
fn named_resources_are_handed_out_with_their_addresses() {
    let resources = ExecutorResources::new(4).with("gpu", ["0", "1"]);
    let runtime = Runtime::builder().executor(resources).start().unwrap();
    let stage = Stage::tasks(4)
        .resource("gpu", 0.5)
        .run(&runtime, async |ctx| Ok((ctx.cpus(), ctx.resources()["gpu"].clone())));
    let gpus: Vec<String> =
        stage.wait().unwrap().into_iter().map(|(_, gpu)| gpu.concat()).collect();
    assert_eq!(gpus, ["0", "0", "1", "1"]);
    let nonsense = Stage::tasks(1).resource("gpu", -1.0).run(&runtime, async |_| Ok(()));
    let text = nonsense.wait().unwrap_err().to_string();
    assert!(text.contains("resource 'gpu': amount -1 is not allowed"), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused_by_value_and_remedy() {
    let config = Config { stage_max_tasks: 10, slots: 1, ..Config::default() };
    let runtime = Runtime::start(config).unwrap();
    let refused = |stage: Stage<phalanx::Tasks>| {
        stage.name("odd").run(&runtime, async |_| Ok(())).wait().unwrap_err().to_string()
    };
    let text = refused(Stage::tasks(11));
    assert!(text.contains("11 tasks, allowed are at most 10 (stage.max_tasks)"), "{text}");
    let text = refused(Stage::tasks(1).max_attempts(0));
    assert!(text.contains("max_attempts is 0, allowed is 1 or more"), "{text}");
    let text = refused(Stage::tasks(1).cpus(0));
    assert!(text.contains("0 cpus, allowed is 1 or more"), "{text}");
    let text = refused(Stage::tasks(1).sync_timeout(Duration::ZERO));
    assert!(text.contains("sync_timeout is 0s"), "{text}");
}

#[test]
fn events_tell_the_whole_story_in_order_to_every_subscriber() {
    let runtime = runtime(2);
    let mut subscribers = [runtime.subscribe(), runtime.subscribe()];
    let stage = Stage::tasks(2).name("story").run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    stage.wait().unwrap();
    for events in &mut subscribers {
        let mut story = Vec::new();
        until(events, |event| {
            let text = format!("{event:?}");
            story.push(text.split([' ', '(']).next().unwrap().to_owned());
            matches!(event, RuntimeEvent::StageCompleted { .. }).then_some(())
        });
        story.retain(|name| name != "ExecutorJoined");
        let expected = [
            "StageSubmitted",
            "AttemptStarted",
            "TaskStarted",
            "TaskStarted",
            "RoundOpened",
            "RoundReleased",
            "TaskEnded",
            "TaskEnded",
            "StageCompleted",
        ];
        assert_eq!(story, expected);
    }
}

#[test]
fn a_slow_subscriber_misses_events_and_is_told_but_slows_nobody() {
    let config = Config { events_capacity: 4, slots: 2, ..Config::default() };
    let runtime = Runtime::start(config).unwrap();
    let mut slow = runtime.subscribe();
    for _ in 0..10 {
        Stage::tasks(2).run(&runtime, async |_| Ok(())).wait().unwrap();
    }
    let missed = slow.next_blocking().unwrap_err();
    assert!(matches!(missed, phalanx::EventStreamError::Missed(count) if count > 10), "{missed}");
    assert!(slow.next_blocking().is_ok(), "it goes on after the gap");
}

#[test]
fn a_lost_executor_is_not_charged_to_the_tasks() {
    let two = || ExecutorResources::new(1);
    let config = Config { stage_retry_delay: Duration::ZERO, ..Config::default() };
    let builder = Runtime::builder().config(config).executor(two()).executor(two());
    let runtime = builder.start().unwrap();
    let mut events = runtime.subscribe();
    let (at, runs) = mpsc::channel();
    let stage = Stage::tasks(2).max_attempts(1).run(&runtime, async move |ctx| {
        if ctx.stage_attempt_number() == 0 {
            at.send(()).unwrap();
            ctx.killed().await;
            return Err("its gang has failed".into());
        }
        Ok(ctx.task_infos().iter().map(|info| info.executor).collect::<Vec<_>>())
    });
    for _ in 0..2 {
        runs.recv().unwrap();
    }
    let executor = pollster::block_on(runtime.status()).executors[1].executor;
    assert!(pollster::block_on(runtime.remove_executor(executor, "was taken away")));
    assert!(!pollster::block_on(runtime.remove_executor(executor, "was taken away")));
    let deferred = until(&mut events, |event| match event {
        RuntimeEvent::StageDeferred { required, available, .. } => Some((*required, *available)),
        _ => None,
    });
    assert_eq!(deferred, (2, 1));
    let new = pollster::block_on(runtime.add_executor(two())).unwrap();
    let placed = stage.wait().unwrap();
    assert!(placed[0].contains(&new), "capacity that arrives is noticed at once: {placed:?}");
}

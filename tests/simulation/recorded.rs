//! A real run, recorded and replayed.

use phalanx::simulation::{EventLog, Plan, ReplayError};
use phalanx::{
    Config, Epoch, EventRecord, ExecutorResources, Runtime, RuntimeEvent, Stage, StageAttemptId,
    StageHandle, TaskResult,
};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

fn config() -> Config {
    Config { stage_retry_delay: Duration::ZERO, worker_threads: 2, ..Config::default() }
}

/// Everything that can befall a stage, on real threads.
fn record() -> EventLog {
    let builder = Runtime::builder().config(config());
    let builder = builder.executor(ExecutorResources::new(2)).executor(ExecutorResources::new(2));
    let (runtime, events) = builder.start_recorded().unwrap();
    let gathers = Stage::tasks(3).name("gathers").run(&runtime, async |ctx| {
        ctx.barrier().await?;
        Ok(ctx.all_gather(&ctx.rank()).await?.len())
    });
    let fails_once = Stage::tasks(2).name("fails once").run(&runtime, async |ctx| {
        ctx.barrier().await?;
        if ctx.stage_attempt_number() == 0 && ctx.rank() == 1 {
            return Err("cold cache".into());
        }
        Ok(ctx.barrier().await?)
    });
    let tried = AtomicBool::new(false);
    let plain = Stage::tasks(5).name("plain").plain().run(&runtime, async move |ctx| {
        if ctx.rank() == 3 && !tried.swap(true, Ordering::Relaxed) {
            return Err("again".into());
        }
        Ok(())
    });
    let panics = Stage::tasks(2).name("panics").max_attempts(2).run(&runtime, async |ctx| {
        ctx.barrier().await?;
        assert_ne!(ctx.rank(), 0, "as it should");
        Ok(ctx.barrier().await?)
    });
    gathers.wait().unwrap();
    fails_once.wait().unwrap();
    plain.wait().unwrap();
    panics.wait().unwrap_err();
    let (begun, begins) = mpsc::channel();
    let waits: StageHandle<()> =
        Stage::tasks(4).name("waits").run(&runtime, async move |ctx| -> TaskResult<()> {
            begun.send(()).unwrap();
            Ok(ctx.until_killed(std::future::pending()).await?)
        });
    let late = Stage::tasks(4).name("late").run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    (0..4).for_each(|_| begins.recv().unwrap());
    waits.kill_task(2, "by hand");
    (0..4).for_each(|_| begins.recv().unwrap());
    waits.cancel("no longer needed");
    waits.wait().unwrap_err();
    late.wait().unwrap();
    runtime.shutdown_blocking(Duration::from_secs(5)).unwrap();
    drop(runtime);
    pollster::block_on(EventLog::collect(events)).unwrap()
}

/// The scheduler's events, and apart from them those of the rounds that were released: a round that
/// a failure cut short may have had no time to begin, or another of several causes.
fn story(log: &EventLog) -> (Vec<&RuntimeEvent>, Vec<&RuntimeEvent>) {
    let events = log.records().iter().map(|record| &record.event);
    let released: BTreeSet<_> = events.clone().filter_map(released_round).collect();
    let is_released = |event: &&RuntimeEvent| match event {
        RuntimeEvent::RoundOpened { attempt, epoch, .. } => released.contains(&(*attempt, *epoch)),
        event => released_round(event).is_some(),
    };
    let is_round = |event: &&RuntimeEvent| {
        matches!(event, RuntimeEvent::RoundOpened { .. } | RuntimeEvent::RoundFailed { .. })
            || released_round(event).is_some()
    };
    let mut rounds: Vec<_> = events.clone().filter(is_released).collect();
    // Gangs release theirs on threads of their own.
    rounds.sort_by_key(|event| format!("{event:?}"));
    (events.filter(|event| !is_round(event)).collect(), rounds)
}

fn released_round(event: &RuntimeEvent) -> Option<(StageAttemptId, Epoch)> {
    match event {
        RuntimeEvent::RoundReleased { attempt, epoch, .. } => Some((*attempt, *epoch)),
        _ => None,
    }
}

#[test]
fn a_recorded_run_reproduces_itself() {
    let log = record();
    let replayed = Plan::replay(&log, config()).unwrap().run().unwrap();
    let ((events, rounds), (events_again, rounds_again)) = (story(&log), story(&replayed));
    for (index, (event, again)) in events.iter().zip(&events_again).enumerate() {
        assert_eq!(event, again, "event {index} of {}", events.len());
    }
    assert_eq!(events.len(), events_again.len());
    assert_eq!(rounds, rounds_again);
    for kind in ["AttemptFailed", "Panicked", "Killed", "Cancelled", "RoundReleased"] {
        assert!(format!("{log:?}").contains(kind), "{kind} is in what was recorded");
    }
    // A replay is a log as well, and has no timers that were late.
    let third = Plan::replay(&replayed, config()).unwrap().run().unwrap();
    assert_eq!(third.fingerprint(), replayed.fingerprint());
}

#[test]
fn a_recorded_run_can_be_kept_and_read_again() {
    let log = record();
    let text = serde_json::to_string(&log).unwrap();
    let read: EventLog = serde_json::from_str(&text).unwrap();
    assert_eq!(read, log);
}

#[test]
fn other_slots_and_priorities_give_another_story() {
    let log = record();
    let mut plan = Plan::replay(&log, config()).unwrap();
    plan.replace_executors([1, 1].map(ExecutorResources::new));
    let failed: Vec<String> = plan
        .run()
        .unwrap()
        .stage_times()
        .into_iter()
        .filter(|stage| format!("{:?}", stage.failure).contains("NotEnoughSlots"))
        .map(|stage| stage.name)
        .collect();
    assert_eq!(failed, ["gathers", "late"], "two slots in all; the other was cancelled");
}

#[test]
fn half_a_log_is_refused_with_the_remedy() {
    let log = record();
    let is_joined =
        |record: &&EventRecord| !matches!(record.event, RuntimeEvent::ExecutorJoined { .. });
    let late: EventLog = log.records().iter().filter(is_joined).cloned().collect();
    let refused = Plan::replay(&late, config()).unwrap_err();
    assert!(matches!(refused, ReplayError::UnknownExecutor(_)), "{refused}");
    assert!(refused.to_string().contains("start_recorded"), "{refused}");
    let early: EventLog = log.records()[..log.records().len() / 2].iter().cloned().collect();
    let refused = Plan::replay(&early, config()).unwrap_err();
    assert!(refused.to_string().contains("record to the end"), "{refused}");
    let no_submission =
        |record: &&EventRecord| !matches!(record.event, RuntimeEvent::StageSubmitted { .. });
    let cut: EventLog = log.records().iter().filter(no_submission).cloned().collect();
    assert!(matches!(Plan::replay(&cut, config()), Err(ReplayError::UnknownStage(_))));
}

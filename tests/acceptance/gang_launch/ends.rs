//! How the tasks of a stage end together: E8 and E9.

use super::offers;
use crate::observe::{Gate, is_idle, launched_in, running, story, until};
use phalanx::{RuntimeEvent, Stage, StagePhase, TaskFailure};
use std::sync::mpsc;

/// From the first failure on nothing of the attempt is started, though two of it still run.
#[test]
fn e8_the_first_failure_ends_the_attempt() {
    let runtime = offers(3, 1, 0);
    let mut events = runtime.subscribe();
    let (begun, runs) = mpsc::channel();
    let deaf = Gate::closed();
    let gate = deaf.clone();
    let stage = Stage::tasks(3).max_attempts(2).run(&runtime, async move |ctx| {
        if ctx.stage_attempt_number() == 0 {
            begun.send(())?;
            if ctx.rank() == 0 { ctx.killed().await } else { gate.pass().await }
        }
        Ok(ctx.stage_attempt_number())
    });
    let id = stage.id();
    for _ in 0..3 {
        runs.recv().unwrap();
    }
    stage.kill_task(0, "preempted");
    let cause = until(&mut events, |event| match event {
        RuntimeEvent::AttemptFailed { cause, will_retry: true } => Some(cause.clone()),
        _ => None,
    });
    assert_eq!(cause.failure, TaskFailure::Killed("preempted".to_owned()));
    until(&mut events, |event| {
        matches!(event, RuntimeEvent::TaskEnded { partition, .. } if partition.0 == 0).then_some(())
    });
    let status = pollster::block_on(stage.status()).unwrap();
    assert_eq!(status.phase.to_string(), "stopping: waits for the killed tasks of partition 1-2");
    assert!(status.tasks.iter().all(|task| task.killed), "{status:?}");
    assert_eq!(running(&runtime), 2, "a slot is free, but only a whole gang starts");
    deaf.open();
    assert_eq!(stage.wait().unwrap(), [1; 3]);
    let story = story(&mut events, id);
    assert_eq!(launched_in(&story, id, 0), []);
    assert_eq!(launched_in(&story, id, 1).len(), 3);
}

#[test]
fn e8_a_plain_task_that_fails_ends_nobody_else() {
    let runtime = offers(3, 1, 0);
    let mut events = runtime.subscribe();
    let go = Gate::closed();
    let gate = go.clone();
    let stage = Stage::tasks(3).plain().max_attempts(2).run(&runtime, async move |ctx| {
        // The first three are the first tries.
        if ctx.rank() == 0 && ctx.task_attempt_id().0 < 3 {
            return Err("preempted".into());
        }
        gate.pass().await;
        Ok(ctx.kill_reason())
    });
    let id = stage.id();
    until(&mut events, |event| {
        matches!(event, RuntimeEvent::AttemptFailed { will_retry: true, .. }).then_some(())
    });
    // Its second try.
    until(&mut events, |event| matches!(event, RuntimeEvent::TaskStarted { .. }).then_some(()));
    assert_eq!(running(&runtime), 3);
    go.open();
    assert_eq!(stage.wait().unwrap(), [None, None, None], "nobody was killed");
    assert_eq!(launched_in(&story(&mut events, id), id, 0), [], "one more try and no other");
}

/// Ten plain tasks, two of which run.
#[test]
fn e9_cancelling_kills_all_that_run_and_says_why() {
    let runtime = offers(2, 1, 0);
    let mut events = runtime.subscribe();
    let (tell, told) = mpsc::channel();
    let deaf = Gate::closed();
    let gate = deaf.clone();
    let stage = Stage::tasks(10).plain().run(&runtime, async move |ctx| {
        tell.send("begun".to_owned())?;
        ctx.killed().await;
        tell.send(ctx.kill_reason().unwrap())?;
        gate.pass().await;
        Ok(())
    });
    let (id, control) = (stage.id(), stage.control());
    for _ in 0..2 {
        assert_eq!(told.recv().unwrap(), "begun");
    }
    stage.cancel("test message");
    for _ in 0..2 {
        assert_eq!(told.recv().unwrap(), "the stage was cancelled: test message");
    }
    assert!(stage.wait().unwrap_err().is_cancelled());
    let status = pollster::block_on(control.status()).expect("two still run");
    assert_eq!((status.phase, status.tasks.len()), (StagePhase::Ended, 2));
    assert_eq!(running(&runtime), 2);
    deaf.open();
    let mut ended = 0;
    let seen = story(&mut events, id);
    assert_eq!(launched_in(&seen, id, 0).len(), 2, "and no other was started");
    while ended < 2 {
        let event = events.next_blocking().unwrap().event;
        assert!(matches!(event, RuntimeEvent::TaskEnded { .. }), "{event:?}");
        ended += 1;
    }
    assert_eq!(pollster::block_on(control.status()), None);
    assert!(is_idle(&runtime));
}

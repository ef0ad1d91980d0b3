//! What can happen to a stage while it is deferred: rows I.

use super::{INTERVAL, one_of_four, without_time};
use crate::observe::{
    advance, deferred, is_idle, is_slot_check, launched, launched_in, story, until, until_armed,
};
use phalanx::actors::CancelStage;
use phalanx::{
    EventStream, EventStreamError, ExecutorId, ExecutorResources, Runtime, RuntimeEvent, Stage,
    StageFailure, StageHandle,
};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A gang of 5, and what its code holds as long as anyone holds the code.
fn wide(runtime: &Runtime, name: &str) -> (StageHandle<()>, Weak<()>) {
    let held = Arc::new(());
    let holds = Arc::downgrade(&held);
    let stage = Stage::tasks(5).name(name).run(runtime, async move |ctx| {
        let _also_here = &held;
        Ok(ctx.barrier().await?)
    });
    (stage, holds)
}

/// Events about this stage that come after its end, up to the end of another.
fn after_its_end(runtime: &Runtime, events: &mut EventStream) -> Vec<RuntimeEvent> {
    let probe = Stage::tasks(0).run(runtime, async |_| Ok(()));
    let id = probe.id();
    probe.wait().unwrap();
    let mut told = story(events, id);
    told.retain(|event| {
        !matches!(event, RuntimeEvent::StageSubmitted { .. } | RuntimeEvent::StageCompleted { .. })
    });
    told
}

#[test]
fn i1_cancelled_while_deferred() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let (stage, holds) = wide(&runtime, "wide");
    let id = stage.id();
    until(&mut events, deferred);
    stage.cancel("not needed");
    let error = stage.wait().unwrap_err();
    assert!(error.is_cancelled());
    assert_eq!(error.to_string(), "stage 0 'wide' was cancelled: not needed");
    let completed = RuntimeEvent::StageCompleted {
        stage: id,
        attempts: 0,
        failure: Some(StageFailure::Cancelled { reason: "not needed".to_owned() }),
    };
    assert_eq!(story(&mut events, id), [completed], "and nothing else");
    assert!(is_idle(&runtime));
    assert_eq!(holds.strong_count(), 0, "nobody has its code any more");
}

/// A group is what the caller keeps together: the controls of its stages.
#[test]
fn i2_cancelled_by_group_while_deferred() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let stages = ["a", "b", "c"].map(|name| wide(&runtime, name).0);
    for _ in &stages {
        until(&mut events, deferred);
    }
    let group = [stages[0].control(), stages[2].control()];
    let canceller = std::thread::spawn(move || group.map(|stage| stage.cancel("the user left")));
    canceller.join().unwrap();
    let [a, b, c] = stages;
    for cancelled in [a, c] {
        let error = cancelled.wait().unwrap_err();
        assert!(error.to_string().ends_with("was cancelled: the user left"), "{error}");
    }
    assert_eq!(b.outcome(), None);
    pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    b.wait().unwrap();
}

/// A tag is a part of the name, looked up in the status.
#[test]
fn i2_cancelled_by_tag_while_deferred() {
    let runtime = without_time(3, one_of_four());
    let stages = ["nightly/a", "daily/b", "nightly/c"].map(|name| wide(&runtime, name).0);
    let status = pollster::block_on(runtime.status());
    let tagged = status.stages.iter().filter(|stage| stage.name.starts_with("nightly/"));
    let tagged: Vec<_> = tagged.map(|stage| stage.stage).collect();
    assert_eq!(tagged, [stages[0].id(), stages[2].id()]);
    for stage in tagged {
        runtime.scheduler().do_send(CancelStage { stage, reason: "no nightly run".to_owned() });
    }
    let [a, b, c] = stages;
    assert!(a.wait().unwrap_err().is_cancelled());
    assert!(c.wait().unwrap_err().is_cancelled());
    assert_eq!(b.outcome(), None);
    b.cancel("the end");
    assert!(b.wait().unwrap_err().is_cancelled());
}

/// The check that was due finds nothing to check, and new slots find nothing to start.
#[test]
fn i3_a_check_after_the_cancel_does_nothing() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let (stage, _) = wide(&runtime, "wide");
    let id = stage.id();
    until(&mut events, deferred);
    until_armed(&runtime, is_slot_check(1));
    stage.cancel("not needed");
    assert!(stage.wait().unwrap_err().is_cancelled());
    story(&mut events, id);
    let fired = advance(&runtime, INTERVAL);
    assert!(fired.iter().any(is_slot_check(1)), "it was due: {fired:?}");
    assert_eq!(after_its_end(&runtime, &mut events), []);
    pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    let told = after_its_end(&runtime, &mut events);
    assert!(matches!(told[..], [RuntimeEvent::ExecutorJoined { .. }]), "{told:?}");
    assert!(is_idle(&runtime));
}

#[test]
fn i3_a_second_cancel_changes_nothing() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let (stage, _) = wide(&runtime, "wide");
    let (id, control) = (stage.id(), stage.control());
    until(&mut events, deferred);
    control.cancel("the first");
    control.cancel("the second");
    let text = stage.wait().unwrap_err().to_string();
    assert!(text.ends_with("was cancelled: the first"), "{text}");
    story(&mut events, id);
    control.cancel("the third");
    assert_eq!(after_its_end(&runtime, &mut events), []);
}

#[test]
fn i4_shut_down_while_deferred() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let (stage, holds) = wide(&runtime, "wide");
    let control = stage.control();
    until(&mut events, deferred);
    runtime.shutdown_blocking(Duration::from_secs(60)).unwrap();
    assert_eq!(*stage.wait().unwrap_err().failure(), StageFailure::Shutdown);
    assert_eq!(control.outcome(), Some(Err(StageFailure::Shutdown)));
    assert_eq!(holds.strong_count(), 0, "nobody has its code any more");
    assert!(is_idle(&runtime));
    while let Ok(record) = events.next_blocking() {
        assert_eq!(launched(&[record.event]), []);
    }
    assert_eq!(events.next_blocking(), Err(EventStreamError::Ended));
}

#[test]
fn i4_dropped_while_deferred() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let (stage, holds) = wide(&runtime, "wide");
    until(&mut events, deferred);
    drop(runtime);
    assert_eq!(*stage.wait().unwrap_err().failure(), StageFailure::Shutdown);
    assert_eq!(holds.strong_count(), 0, "nobody has its code any more");
    while events.next_blocking().is_ok() {}
    assert_eq!(events.next_blocking(), Err(EventStreamError::Ended));
}

/// Spark finds it at the next check, ours at once; and the next deferral counts from the start.
#[test]
fn i5_slots_that_arrive_between_checks() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let stage = Stage::tasks(5).run(&runtime, async |ctx| {
        if ctx.stage_attempt_number() == 0 {
            ctx.killed().await;
        }
        Ok(ctx.stage_attempt_number())
    });
    let id = stage.id();
    for check in 1..3 {
        assert_eq!(until(&mut events, deferred), (5, 4, 4 - check));
        until_armed(&runtime, is_slot_check(check));
        advance(&runtime, INTERVAL);
    }
    assert_eq!(until(&mut events, deferred), (5, 4, 1));
    until_armed(&runtime, is_slot_check(3));
    let fifth = pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    until(&mut events, |event| matches!(event, RuntimeEvent::AttemptStarted { .. }).then_some(()));
    // The check that was due is of a deferral that is over.
    let fired = advance(&runtime, INTERVAL);
    assert!(fired.iter().any(is_slot_check(3)), "{fired:?}");
    assert!(pollster::block_on(runtime.remove_executor(fifth, "was taken away")));
    assert_eq!(until(&mut events, deferred), (5, 4, 3), "it counts from the start");
    pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    assert_eq!(stage.wait().unwrap(), [1; 5]);
    assert_eq!(launched_in(&story(&mut events, id), id, 1).len(), 5);
}

/// Too few slots arrive: they are counted, and the stage goes on waiting.
#[test]
fn i5_slots_that_arrive_and_do_not_suffice() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let stage = Stage::tasks(6).run(&runtime, async |ctx| Ok(ctx.task_infos().len()));
    assert_eq!(until(&mut events, deferred), (6, 4, 3));
    until_armed(&runtime, is_slot_check(1));
    let fifth = pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    assert_eq!(fifth, ExecutorId(1));
    advance(&runtime, INTERVAL);
    assert_eq!(until(&mut events, deferred), (6, 5, 2));
    pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    assert_eq!(stage.wait().unwrap(), [6; 6]);
}

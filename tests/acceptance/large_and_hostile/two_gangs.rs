//! Gangs that want the same slots: L5.

use crate::observe::{Gate, advance, is_idle, no_pause, running, start_without_time, until_armed};
use phalanx::protocol::{SchedulerTimer, TimerKey};
use phalanx::{
    Config, ExecutorResources, Runtime, RuntimeEvent, Stage, StageHandle, StageId, StagePhase,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn held(runtime: &Runtime, stage: Stage<phalanx::Tasks>) -> (Gate, StageHandle<()>) {
    let gate = Gate::closed();
    let in_task = gate.clone();
    let handle = stage.run(runtime, async move |_| {
        in_task.pass().await;
        Ok(())
    });
    (gate, handle)
}

fn phase(stage: &StageHandle<()>) -> StagePhase {
    pollster::block_on(stage.status()).expect("it is not over").phase
}

fn until_old(runtime: &Runtime, stage: StageId) {
    until_armed(runtime, |key| match key {
        TimerKey::Scheduler(SchedulerTimer::Reserve(attempt)) => attempt.stage == stage,
        _ => false,
    });
}

#[test]
fn l5_slots_that_come_free_add_up_for_the_first_gang_and_then_for_the_second() {
    let runtime = start_without_time(no_pause(), vec![ExecutorResources::new(4)]);
    let mut load: Vec<_> = (0..4).map(|_| held(&runtime, Stage::tasks(1).plain())).collect();
    let (first_gate, first) = held(&runtime, Stage::tasks(3));
    let (second_gate, second) = held(&runtime, Stage::tasks(3));
    for gang in [&first, &second] {
        until_old(&runtime, gang.id());
    }
    advance(&runtime, runtime.config().reserve_after);
    // Comes later, needs little and waits all the same.
    let (late_gate, late) = held(&runtime, Stage::tasks(1).plain());
    for free in 1..=3 {
        assert!(matches!(phase(&first), StagePhase::Queued { .. }), "no part of it has begun");
        let (gate, handle) = load.remove(0);
        gate.open();
        handle.wait().unwrap();
        let expected = if free < 3 { 4 - free } else { 1 + 3 };
        assert_eq!(running(&runtime), expected, "{free} came free");
        assert!(matches!(phase(&late), StagePhase::Queued { .. }));
    }
    assert_eq!(phase(&first), StagePhase::Running { succeeded: 0 });
    let (gate, handle) = load.remove(0);
    gate.open();
    handle.wait().unwrap();
    let waits = StagePhase::Queued { required: 3, free: 1, ahead: 0, reserves: true };
    assert_eq!((phase(&second), running(&runtime)), (waits, 3));
    first_gate.open();
    first.wait().unwrap();
    assert_eq!(phase(&second), StagePhase::Running { succeeded: 0 });
    assert_eq!(running(&runtime), 4, "the slot beside it is the late one's");
    late_gate.open();
    late.wait().unwrap();
    second_gate.open();
    second.wait().unwrap();
    assert!(is_idle(&runtime));
}

/// How many tasks of one gang run.
type Count = Arc<AtomicUsize>;

fn gang(runtime: &Runtime, own: &Count, other: &Count) -> StageHandle<()> {
    let (own, other) = (own.clone(), other.clone());
    Stage::tasks(3).max_attempts(1).run(runtime, async move |ctx| {
        own.fetch_add(1, Ordering::SeqCst);
        // The last of the other gang may be about to end.
        assert!(other.load(Ordering::SeqCst) <= 1, "4 slots");
        for _ in 0..3 {
            ctx.barrier().await?;
        }
        own.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    })
}

#[test]
fn l5_two_gangs_of_3_on_4_slots_under_plain_load_both_finish() {
    let config = Config { slots: 4, reserve_after: Duration::from_millis(1), ..no_pause() };
    let runtime = Runtime::start(config).unwrap();
    let mut events = runtime.subscribe();
    for _ in 0..30 {
        let plain = || {
            Stage::tasks(6).plain().run(&runtime, async |_| {
                tokio::task::yield_now().await;
                Ok(())
            })
        };
        let (one, two) = (Count::default(), Count::default());
        let before = plain();
        let gangs = [gang(&runtime, &one, &two), gang(&runtime, &two, &one)];
        let after = plain();
        for stage in gangs.into_iter().chain([before, after]) {
            stage.wait().unwrap();
        }
    }
    assert!(is_idle(&runtime));
    runtime.shutdown_blocking(Duration::from_secs(60)).unwrap();
    let mut started = Vec::new();
    let mut wanted = 0;
    while let Ok(record) = events.next_blocking() {
        match record.event {
            RuntimeEvent::AttemptStarted { num_tasks: 3, .. } => {
                assert_eq!(wanted, 0);
                wanted = 3;
            }
            RuntimeEvent::TaskStarted { attempt, .. } if wanted > 0 => {
                started.push(attempt);
                wanted -= 1;
            }
            _ => assert_eq!(wanted, 0, "a gang's launch is one step"),
        }
    }
    assert_eq!(started.len(), 30 * 2 * 3);
    assert!(started.chunks(3).all(|gang| gang.iter().all(|attempt| *attempt == gang[0])));
}

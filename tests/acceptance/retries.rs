//! What follows from failures: rows R.

mod lost_outputs;
mod map_gangs;
mod result_gangs;

use crate::observe::{Gate, is_idle, launched, launched_in, local, no_pause, story, until};
use phalanx::{
    Config, ExecutorId, ExecutorResources, OnFailure, PartitionId, Runtime, RuntimeEvent, Stage,
    StageControl, StageFailure, StageId,
};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

fn attempt_failed(event: &RuntimeEvent) -> Option<(u32, bool)> {
    match event {
        RuntimeEvent::AttemptFailed { cause, will_retry } => {
            Some((cause.attempt.attempt, *will_retry))
        }
        _ => None,
    }
}

fn both() -> [PartitionId; 2] {
    [PartitionId(0), PartitionId(1)]
}

/// Nothing is left of a stage that is over.
fn nothing_is_left(runtime: &Runtime, stage: &StageControl) {
    assert!(is_idle(runtime));
    assert_eq!(pollster::block_on(stage.status()), None);
    assert_eq!(pollster::block_on(stage.sync_status()), None);
}

/// What a gang has given its caller is not lost by what comes after: a child that fails is tried
/// again by itself, also when the executors that ran its parent are gone.
#[test]
fn r1_a_child_that_fails_needs_no_second_run_of_its_parent() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let map = Stage::tasks(2).name("map");
    let map = map.run(&runtime, async |ctx| Ok(ctx.all_gather(&ctx.rank()).await?));
    let (parent, outputs) = (map.id(), map.wait().unwrap());
    pollster::block_on(runtime.add_executor(ExecutorResources::new(2))).unwrap();
    assert!(pollster::block_on(runtime.remove_executor(ExecutorId(0), "was taken away")));
    let reduce = Stage::partitions(outputs).plain().run(&runtime, async |ctx, output| {
        if ctx.rank() == 0 && ctx.task_attempt_id().0 < 4 {
            return Err("cannot read output 0".into());
        }
        Ok(output.iter().sum::<usize>())
    });
    let (child, control) = (reduce.id(), reduce.control());
    assert_eq!(reduce.wait().unwrap(), [1, 1]);
    let told = story(&mut events, child);
    assert!(told.iter().filter_map(attempt_failed).eq([(0, true)]), "the fault happened, once");
    assert_eq!(launched_in(&told, parent, 0), both());
    assert_eq!(launched(&told).len(), 2 + 3, "the parent once, and one task of the child twice");
    nothing_is_left(&runtime, &control);
}

/// Before the gang has succeeded its outputs are nobody's: if one is missing, both are made again.
#[test]
fn r1_an_output_that_is_lost_before_the_end_has_the_whole_gang_run_again() {
    let runtime = crate::observe::cluster(2, 1);
    let mut events = runtime.subscribe();
    let stage = Stage::tasks(2).run(&runtime, async |ctx| {
        if ctx.rank() == 1 && ctx.stage_attempt_number() == 0 {
            ctx.killed().await;
        }
        Ok((ctx.rank(), ctx.stage_attempt_number()))
    });
    let (id, control) = (stage.id(), stage.control());
    until(&mut events, |event| matches!(event, RuntimeEvent::TaskEnded { .. }).then_some(()));
    assert!(pollster::block_on(runtime.remove_executor(ExecutorId(1), "was taken away")));
    pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    assert_eq!(stage.wait().unwrap(), [(0, 1), (1, 1)]);
    assert_eq!(launched_in(&story(&mut events, id), id, 1), both());
    nothing_is_left(&runtime, &control);
}

/// A value that was handed in stays, though its executor goes before the gang is through.
#[test]
fn r1_a_finished_task_is_not_run_again_because_its_executor_goes() {
    let runtime = crate::observe::cluster(2, 1);
    let mut events = runtime.subscribe();
    let go = Gate::closed();
    let gate = go.clone();
    let stage = Stage::tasks(2).run(&runtime, async move |ctx| {
        if ctx.rank() == 1 {
            gate.pass().await;
        }
        Ok((ctx.rank(), ctx.stage_attempt_number()))
    });
    until(&mut events, |event| matches!(event, RuntimeEvent::TaskEnded { .. }).then_some(()));
    assert!(pollster::block_on(runtime.remove_executor(ExecutorId(0), "was taken away")));
    go.open();
    assert_eq!(stage.wait().unwrap(), [(0, 0), (1, 0)]);
}

/// What ends task 1 of the map gang after task 0 has succeeded.
#[derive(Clone, Copy, Debug)]
enum End {
    IsKilled,
    Fails,
    Panics,
}

fn task_1_ends_by(end: End) {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let go = Gate::closed();
    let gate = go.clone();
    let map = Stage::tasks(2).run(&runtime, async move |ctx| {
        if ctx.rank() == 1 && ctx.stage_attempt_number() == 0 {
            gate.pass().await;
            match end {
                End::IsKilled => ctx.killed().await,
                End::Fails => return Err("no route".into()),
                End::Panics => std::panic::resume_unwind(Box::new("no route")),
            }
        }
        Ok((ctx.rank(), ctx.stage_attempt_number()))
    });
    let (id, control) = (map.id(), map.control());
    let first = until(&mut events, |event| match event {
        RuntimeEvent::TaskEnded { partition, .. } => Some(*partition),
        _ => None,
    });
    assert_eq!(first, PartitionId(0));
    go.open();
    if let End::IsKilled = end {
        map.kill_task(1, "preempted");
    }
    let outputs = map.wait().unwrap();
    assert_eq!(outputs, [(0, 1), (1, 1)], "{end:?}: also the good one is made again");
    let told = story(&mut events, id);
    assert!(told.iter().filter_map(attempt_failed).eq([(0, true)]), "{end:?}");
    assert_eq!(launched_in(&told, id, 1), both());
    let result = Stage::partitions(outputs).on_failure(OnFailure::Abort);
    let result = result.run(&runtime, async |ctx, output| {
        ctx.barrier().await?;
        Ok((output.0, ctx.stage_attempt_number()))
    });
    assert_eq!(result.wait().unwrap(), [(0, 0), (1, 0)], "{end:?}");
    nothing_is_left(&runtime, &control);
}

#[test]
fn r2_a_killed_task_has_all_run_again() {
    task_1_ends_by(End::IsKilled);
}

#[test]
fn r2_a_failed_task_has_all_run_again() {
    task_1_ends_by(End::Fails);
}

#[test]
fn r2_a_panic_has_all_run_again() {
    task_1_ends_by(End::Panics);
}

#[test]
fn r3_a_result_gang_that_fails_fails_the_job() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let map = Stage::tasks(2).plain().run(&runtime, async |ctx| Ok(ctx.rank()));
    let result = Stage::partitions(map.wait().unwrap()).name("save").on_failure(OnFailure::Abort);
    let result = result.run(&runtime, async |ctx, _| {
        ctx.barrier().await?;
        ctx.killed().await;
        Ok(())
    });
    let (id, control) = (result.id(), result.control());
    until(&mut events, |event| matches!(event, RuntimeEvent::RoundReleased { .. }).then_some(()));
    result.kill_task(0, "preempted");
    let error = result.wait().unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(
            "stage 1 'save' was aborted at its first failure, as OnFailure::Abort asks: \
             partition 0 (task 2 of Stage 1 (Attempt 0) on executor 0) was killed: preempted"
        ),
        "{text}"
    );
    let told = story(&mut events, id);
    assert!(told.iter().filter_map(attempt_failed).eq([(0, false)]));
    assert!(matches!(told.last(), Some(RuntimeEvent::StageCompleted { attempts: 1, .. })));
    // Its tasks heard of it and end, too.
    while pollster::block_on(control.status()).is_some() {
        std::thread::yield_now();
    }
    nothing_is_left(&runtime, &control);
}

/// The result gang's attempts are one, whatever the number allowed.
#[test]
fn r3_a_result_gang_has_no_second_attempt() {
    let runtime = local(2);
    let tries = Arc::new(AtomicU32::new(0));
    let count = tries.clone();
    let stage = Stage::tasks(2).on_failure(OnFailure::Abort).max_attempts(4);
    let stage = stage.run(&runtime, async move |ctx| {
        count.fetch_add(1, Ordering::SeqCst);
        ctx.barrier().await?;
        Err::<(), _>("half of it is saved".into())
    });
    let error = stage.wait().unwrap_err();
    assert!(matches!(error.failure(), StageFailure::Aborted { .. }), "{error}");
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

/// All of them fail of their own, not of each other.
#[test]
fn r4_several_failures_of_one_attempt_are_one() {
    let runtime = local(4);
    let mut events = runtime.subscribe();
    // Two attempts may fail, so four failures that counted would be too many.
    let stage = Stage::tasks(4).max_attempts(3).run_blocking(&runtime, |ctx| {
        if ctx.stage_attempt_number() < 2 {
            // All have begun.
            let _ = ctx.barrier();
            return Err(format!("the fault of {}", ctx.rank()).into());
        }
        Ok(ctx.stage_attempt_number())
    });
    let id = stage.id();
    assert_eq!(stage.wait().unwrap(), [2; 4]);
    let told = story(&mut events, id);
    assert!(told.iter().filter_map(attempt_failed).eq([(0, true), (1, true)]), "{told:?}");
    let failed = |event: &&RuntimeEvent| match event {
        RuntimeEvent::TaskEnded { outcome, .. } => *outcome != phalanx::TaskOutcome::Succeeded,
        _ => false,
    };
    assert_eq!(told.iter().filter(failed).count(), 8, "all the faults happened");
    for attempt in 0..3 {
        assert_eq!(launched_in(&told, id, attempt).len(), 4, "attempt {attempt}");
    }
    assert_eq!(launched(&told).len(), 12);
}

/// Tells that it is dropped.
struct Farewell(mpsc::Sender<()>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody may listen any more, and a panic here would end the process.
        let _ = self.0.send(());
    }
}

thread_local! {
    /// Dropped after all else that the thread does.
    static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) };
}

/// A task that ignored its kill fails while the next attempt runs, on an executor that took the
/// place of its own.
#[test]
fn r5_a_failure_of_a_former_attempt_does_not_touch_the_next() {
    let config =
        Config { slots: 2, kill_zombie_deadline: Some(Duration::from_millis(1)), ..no_pause() };
    let runtime = Runtime::start(config).unwrap();
    let mut events = runtime.subscribe();
    let (zombie, go, begun) = (Gate::closed(), Gate::closed(), Gate::closed());
    let (deaf, gate) = (zombie.clone(), go.clone());
    let (farewell, ended) = mpsc::channel();
    let stage = Stage::tasks(2).max_attempts(2).run_blocking(&runtime, move |ctx| {
        if ctx.stage_attempt_number() > 0 {
            ctx.barrier()?;
            gate.pass_blocking();
            return Ok(ctx.stage_attempt_number());
        }
        if ctx.rank() == 0 {
            begun.pass_blocking();
            return Err("the cause".into());
        }
        FAREWELL.set(Some(Farewell(farewell.clone())));
        begun.open();
        deaf.pass_blocking();
        Err("far too late".into())
    });
    until(&mut events, |event| matches!(event, RuntimeEvent::ExecutorLost { .. }).then_some(()));
    until(&mut events, |event| {
        matches!(event, RuntimeEvent::RoundReleased { attempt, .. } if attempt.attempt == 1)
            .then_some(())
    });
    zombie.open();
    // It has reported; whoever asks the scheduler now asks after that.
    ended.recv().unwrap();
    let status = pollster::block_on(stage.status()).unwrap();
    assert_eq!((status.attempt.attempt, status.failures), (1, 1));
    go.open();
    let id: StageId = stage.id();
    assert_eq!(stage.wait().unwrap(), [1, 1]);
    let told = story(&mut events, id);
    assert_eq!(told.iter().filter_map(attempt_failed).count(), 0);
    assert!(matches!(told.last(), Some(RuntimeEvent::StageCompleted { attempts: 2, .. })));
}

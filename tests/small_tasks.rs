//! Many small tasks: their threads begin with the next one as soon as one has succeeded, without
//! asking another thread. Nobody may see a difference.

use phalanx::blocking::BarrierTaskContext;
use phalanx::{
    Config, ExecutorId, ExecutorResources, PartitionId, Runtime, RuntimeEvent, Stage, StageControl,
    TaskResult,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

fn small_tasks(tasks: usize) -> Stage<phalanx::Tasks> {
    Stage::tasks(tasks).plain()
}

#[test]
fn a_task_that_cancels_its_stage_is_not_overtaken_by_its_success() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    for round in 0..300 {
        let mine: Arc<OnceLock<StageControl>> = Arc::default();
        let control = mine.clone();
        let stage = small_tasks(6).run_blocking(&runtime, move |ctx| {
            if ctx.rank() == round % 6 {
                control.wait().cancel("enough");
            }
            Ok(())
        });
        drop(mine.set(stage.control()));
        let error = stage.wait().expect_err("one of its tasks had cancelled it");
        assert!(error.is_cancelled(), "round {round}: {error}");
    }
    Ok(())
}

#[test]
fn a_task_that_its_thread_began_with_by_itself_can_be_killed() -> TaskResult<()> {
    let runtime = Runtime::start(Config {
        stage_retry_delay: Duration::ZERO,
        slots: 1,
        ..Config::default()
    })?;
    for _ in 0..50 {
        let (begun, has_begun) = mpsc::channel();
        let is_first = AtomicBool::new(true);
        let stage = small_tasks(3).run_blocking(&runtime, move |ctx| {
            if ctx.rank() == 1 && is_first.swap(false, Ordering::SeqCst) {
                begun.send(std::thread::current().id())?;
                while !ctx.is_killed() {
                    std::thread::yield_now();
                }
            }
            Ok(std::thread::current().id())
        });
        let second = has_begun.recv()?;
        stage.kill_task(1, "by hand");
        let threads = stage.wait()?;
        assert_eq!(threads[0], second, "the thread of the first task went on with the second");
    }
    Ok(())
}

/// Each of two tasks at a time says that it has begun, and ends when it is let go.
struct Gate {
    begun: Sender<usize>,
    go: Mutex<Receiver<()>>,
}

impl Gate {
    fn pass(&self, ctx: &BarrierTaskContext) -> TaskResult<()> {
        self.begun.send(ctx.rank())?;
        Ok(self.go.lock().map_err(|_| "a task panicked")?.recv()?)
    }
}

#[test]
fn a_gang_gets_the_slots_that_small_tasks_leave() -> TaskResult<()> {
    for _ in 0..20 {
        let runtime = Runtime::start(Config {
            slots: 2,
            reserve_after: Duration::ZERO,
            ..Config::default()
        })?;
        let ((begun, has_begun), (go, gate)) = (mpsc::channel(), mpsc::channel());
        let gate = Gate { begun, go: Mutex::new(gate) };
        let small = small_tasks(200).run_blocking(&runtime, move |ctx| gate.pass(&ctx));
        let first_two = [has_begun.recv()?, has_begun.recv()?];
        assert_eq!(first_two.iter().sum::<usize>(), 1);
        let mut events = runtime.subscribe();
        let gang = Stage::tasks(2).priority(1).run_blocking(&runtime, |ctx| {
            ctx.barrier()?;
            Ok(ctx.rank())
        });
        while !matches!(events.next_blocking()?.event, RuntimeEvent::StageQueued { .. }) {}
        // The timer that makes it old has no time, but comes when it comes.
        (0..200).try_for_each(|_| go.send(()))?;
        assert_eq!(gang.wait()?, [0, 1]);
        small.wait()?;
    }
    Ok(())
}

#[test]
fn an_executor_that_is_taken_away_begins_with_nothing_more() -> TaskResult<()> {
    for _ in 0..20 {
        let config = Config { slots: 1, stage_retry_delay: Duration::ZERO, ..Config::default() };
        let runtime = Runtime::start(config)?;
        pollster::block_on(runtime.add_executor(ExecutorResources::new(1)))?;
        let mut events = runtime.subscribe();
        let is_removed = Arc::new(AtomicBool::new(false));
        let knows = is_removed.clone();
        let stage = small_tasks(300).run_blocking(&runtime, move |ctx| {
            while ctx.rank() >= 200 && !knows.load(Ordering::SeqCst) {
                ctx.check_killed()?;
                std::thread::yield_now();
            }
            Ok(ctx.rank())
        });
        let gone = ExecutorId(0);
        let mut ended = 0;
        while ended < 20 {
            let event = events.next_blocking()?.event;
            ended += u32::from(matches!(event, RuntimeEvent::TaskEnded { .. }));
        }
        assert!(pollster::block_on(runtime.remove_executor(gone, "no more")));
        is_removed.store(true, Ordering::SeqCst);
        assert_eq!(stage.wait()?, (0..300).collect::<Vec<_>>());
        let mut is_lost = false;
        loop {
            match events.next_blocking()?.event {
                RuntimeEvent::ExecutorLost { executor, .. } => is_lost = executor == gone,
                RuntimeEvent::TaskStarted { executor, partition, .. } => {
                    assert!(!(is_lost && executor == gone), "{partition:?} was started on it");
                }
                RuntimeEvent::StageCompleted { .. } => break,
                _ => {}
            }
        }
        assert!(is_lost);
    }
    Ok(())
}

#[test]
fn a_failed_small_task_is_tried_again_and_the_others_are_not() -> TaskResult<()> {
    let runtime = Runtime::start(Config {
        stage_retry_delay: Duration::ZERO,
        slots: 2,
        ..Config::default()
    })?;
    let mut events = runtime.subscribe();
    let fails: Vec<_> = (0..100).map(|task| AtomicBool::new(task % 10 == 3)).collect();
    let stage = small_tasks(100).run_blocking(&runtime, move |ctx| {
        if fails[ctx.rank()].swap(false, Ordering::SeqCst) {
            return Err("once".into());
        }
        Ok(ctx.rank())
    });
    assert_eq!(stage.wait()?, (0..100).collect::<Vec<_>>());
    let mut starts = [0; 100];
    loop {
        match events.next_blocking()?.event {
            RuntimeEvent::TaskStarted { partition: PartitionId(partition), .. } => {
                starts[partition as usize] += 1;
            }
            RuntimeEvent::StageCompleted { .. } => break,
            _ => {}
        }
    }
    let expected: Vec<_> = (0..100).map(|task| if task % 10 == 3 { 2 } else { 1 }).collect();
    assert_eq!(starts.to_vec(), expected);
    Ok(())
}

//! Many small tasks: their threads begin with the next one as soon as one has succeeded, without
//! asking another thread. Nobody may see a difference.

use phalanx::blocking::BarrierTaskContext;
use phalanx::{
    Config, ExecutorId, ExecutorResources, JobControl, OnFailure, PartitionId, Runtime,
    RuntimeEvent, Stage, StageControl, StagePhase, TaskResult, Tasks,
};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Wake};
use std::time::{Duration, Instant};

fn small_tasks(tasks: usize) -> Stage<Tasks> {
    Stage::tasks(tasks).plain()
}

fn with_slots(slots: u32) -> TaskResult<Runtime> {
    let at_once = Duration::ZERO;
    let config =
        Config { slots, stage_retry_delay: at_once, reserve_after: at_once, ..Config::default() };
    Ok(Runtime::start(config)?)
}

/// Has `look` true before long.
#[track_caller]
fn soon(what: &str, mut look: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !look() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

/// Tasks say that they have begun, and end when they are let go.
struct Gate {
    begun: Sender<usize>,
    go: Mutex<Receiver<()>>,
}

impl Gate {
    fn new() -> (Self, Receiver<usize>, Sender<()>) {
        let ((begun, has_begun), (go, gate)) = (mpsc::channel(), mpsc::channel());
        (Gate { begun, go: Mutex::new(gate) }, has_begun, go)
    }

    fn pass(&self, ctx: &BarrierTaskContext) -> TaskResult<()> {
        self.begun.send(ctx.rank())?;
        Ok(self.go.lock().map_err(|_| "a task panicked")?.recv()?)
    }
}

/// A waker that holds up whoever wakes it.
struct HoldsUp {
    has_come: AtomicBool,
    go: Mutex<Receiver<()>>,
}

impl Wake for HoldsUp {
    fn wake(self: Arc<Self>) {
        self.has_come.store(true, Ordering::SeqCst);
        let _ = self.go.lock().map(|go| go.recv());
    }
}

#[test]
fn small_tasks_go_on_while_the_thread_of_the_actors_is_held_up() -> TaskResult<()> {
    let runtime = with_slots(3)?;
    let (end, ends) = mpsc::channel::<()>();
    let ends = Mutex::new(ends);
    let mut job = runtime
        .parallelize(0..1, 1)
        .map(move |_| ends.lock().is_ok_and(|it| it.recv().is_ok()))
        .count();
    let (hold, held) = mpsc::channel();
    let holds_up = Arc::new(HoldsUp { has_come: AtomicBool::new(false), go: Mutex::new(held) });
    let waker = holds_up.clone().into();
    assert!(Pin::new(&mut job).poll(&mut Context::from_waker(&waker)).is_pending());
    soon("the job runs", || pollster::block_on(runtime.status()).executors[0].running == 1);
    let (gate, has_begun, go) = Gate::new();
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = begun.clone();
    let small = small_tasks(100).run_blocking(&runtime, move |ctx| {
        counted.fetch_add(1, Ordering::SeqCst);
        if ctx.rank() < 2 { gate.pass(&ctx) } else { Ok(()) }
    });
    has_begun.iter().take(2).for_each(drop);
    end.send(())?;
    soon("the planner tells of the job's end", || holds_up.has_come.load(Ordering::SeqCst));
    (0..2).try_for_each(|_| go.send(()))?;
    // But for one that was launched on the job's slot.
    soon("the others begin", || begun.load(Ordering::SeqCst) >= 99);
    assert!(small.outcome().is_none(), "its end is for the actors to tell");
    hold.send(())?;
    small.wait()?;
    Ok(())
}

#[test]
fn nothing_begins_after_a_task_has_cancelled_its_stage() -> TaskResult<()> {
    let runtime = with_slots(1)?;
    for round in 0..100 {
        let mine: Arc<OnceLock<StageControl>> = Arc::default();
        let (control, begun) = (mine.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = begun.clone();
        let stage = small_tasks(6).run_blocking(&runtime, move |ctx| {
            counted.fetch_add(1, Ordering::SeqCst);
            if ctx.rank() == round % 6 {
                control.wait().cancel("enough");
            }
            Ok(())
        });
        drop(mine.set(stage.control()));
        let error = stage.wait().expect_err("one of its tasks has cancelled it");
        assert!(error.is_cancelled(), "round {round}: {error}");
        assert_eq!(begun.load(Ordering::SeqCst), round % 6 + 1);
    }
    Ok(())
}

#[test]
fn hardly_anything_begins_after_a_task_has_cancelled_its_job() -> TaskResult<()> {
    let runtime = with_slots(1)?;
    for _ in 0..50 {
        let mine: Arc<OnceLock<JobControl>> = Arc::default();
        let (control, begun) = (mine.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = begun.clone();
        let rows = runtime.parallelize(0..100, 100).map(move |row| {
            counted.fetch_add(1, Ordering::SeqCst);
            if row == 7 {
                control.wait().cancel("enough");
            }
        });
        let job = rows.count();
        drop(mine.set(job.control()));
        assert!(job.wait().unwrap_err().is_cancelled());
        drop(rows);
        // The planner is told first, so its word may be one task late.
        assert!(begun.load(Ordering::SeqCst) <= 9, "{begun:?}");
    }
    Ok(())
}

#[test]
fn nothing_begins_when_tasks_end_after_somebody_has_cancelled() -> TaskResult<()> {
    let runtime = with_slots(2)?;
    for _ in 0..50 {
        let (gate, has_begun, go) = Gate::new();
        let stage = small_tasks(50).run_blocking(&runtime, move |ctx| gate.pass(&ctx));
        let first_two = [has_begun.recv()?, has_begun.recv()?];
        assert_eq!(first_two.iter().sum::<usize>(), 1);
        stage.cancel("before they end");
        (0..50).try_for_each(|_| go.send(()))?;
        assert!(stage.wait().unwrap_err().is_cancelled());
        drop(go);
        // The last of its tasks has gone when the channel is closed.
        assert_eq!(has_begun.iter().collect::<Vec<_>>(), [] as [usize; 0]);
    }
    Ok(())
}

#[test]
fn what_a_task_hands_in_is_next_if_it_goes_before() -> TaskResult<()> {
    let runtime = with_slots(1)?;
    for _ in 0..50 {
        let order = Arc::new(Mutex::new(Vec::new()));
        let (urgent, inner, outer) = (Arc::new(OnceLock::new()), order.clone(), order.clone());
        let (handle, within) = (urgent.clone(), runtime.clone());
        let note = |order: &Mutex<Vec<usize>>, what| {
            order.lock().map(|mut order| order.push(what)).map_err(|_| "a task panicked")
        };
        let small = small_tasks(20).run_blocking(&runtime, move |ctx| {
            note(&outer, ctx.rank())?;
            if ctx.rank() == 0 {
                let order = inner.clone();
                let urgent = small_tasks(1).priority(5);
                let urgent = urgent.run_blocking(&within, move |_| Ok(note(&order, 999)?));
                drop(handle.set(urgent.control()));
            }
            Ok(())
        });
        small.wait()?;
        pollster::block_on(urgent.wait().ended())?;
        let order = order.lock().map_err(|_| "a task panicked")?;
        assert_eq!(order[..3], [0, 999, 1]);
    }
    Ok(())
}

#[test]
fn a_kill_of_a_task_that_has_not_begun_hits_nobody() -> TaskResult<()> {
    let runtime = with_slots(1)?;
    for _ in 0..50 {
        let mine: Arc<OnceLock<StageControl>> = Arc::default();
        let control = mine.clone();
        let stage = small_tasks(3).max_attempts(1).run_blocking(&runtime, move |ctx| {
            match ctx.rank() {
                0 => control.wait().kill_task(1, "it does not run"),
                // A kill would be here by the time of an answer of the scheduler.
                1 => drop(pollster::block_on(control.wait().status())),
                _ => {}
            }
            Ok(ctx.check_killed()?)
        });
        drop(mine.set(stage.control()));
        stage.wait()?;
    }
    Ok(())
}

#[test]
fn a_task_that_its_thread_began_with_by_itself_can_be_killed() -> TaskResult<()> {
    let runtime = with_slots(1)?;
    for _ in 0..50 {
        let (begun, has_begun) = mpsc::channel();
        let tries = AtomicUsize::new(0);
        let stage = small_tasks(3).run_blocking(&runtime, move |ctx| {
            if ctx.rank() != 1 || tries.fetch_add(1, Ordering::SeqCst) > 0 {
                return Ok(tries.load(Ordering::SeqCst));
            }
            begun.send(())?;
            while !ctx.is_killed() {
                std::thread::yield_now();
            }
            Err("killed".into())
        });
        has_begun.recv()?;
        stage.kill_task(1, "by hand");
        assert_eq!(stage.wait()?[1], 2, "it was tried again");
    }
    Ok(())
}

#[test]
fn a_gang_gets_the_slots_that_small_tasks_leave() -> TaskResult<()> {
    for _ in 0..20 {
        let runtime = with_slots(2)?;
        let (gate, has_begun, go) = Gate::new();
        let small = small_tasks(200).run_blocking(&runtime, move |ctx| gate.pass(&ctx));
        let first_two = [has_begun.recv()?, has_begun.recv()?];
        assert_eq!(first_two.iter().sum::<usize>(), 1);
        let gang = Stage::tasks(2).priority(1).run_blocking(&runtime, |ctx| {
            ctx.barrier()?;
            Ok(ctx.rank())
        });
        soon("the gang keeps slots", || {
            let status = pollster::block_on(gang.status());
            status.is_some_and(|it| matches!(it.phase, StagePhase::Queued { reserves: true, .. }))
        });
        // As many as the gang needs, one after the other: each frees a slot.
        (0..2).try_for_each(|_| go.send(()))?;
        soon("the gang ends while the others wait", || gang.outcome().is_some());
        assert_eq!(gang.wait()?, [0, 1]);
        (0..198).try_for_each(|_| go.send(()))?;
        small.wait()?;
    }
    Ok(())
}

#[test]
fn tasks_run_on_the_executor_that_they_were_started_on() -> TaskResult<()> {
    for _ in 0..20 {
        let runtime = with_slots(1)?;
        pollster::block_on(runtime.add_executor(ExecutorResources::new(1)))?;
        let mut events = runtime.subscribe();
        let is_removed = Arc::new(AtomicBool::new(false));
        let knows = is_removed.clone();
        let stage = small_tasks(300).run_blocking(&runtime, move |ctx| {
            while ctx.rank() >= 200 && !knows.load(Ordering::SeqCst) {
                ctx.check_killed()?;
                std::thread::yield_now();
            }
            Ok(ctx.executor())
        });
        let (gone, mut ended) = (ExecutorId(0), 0);
        let mut started = BTreeMap::new();
        let mut see = |event, is_lost: bool| {
            if let RuntimeEvent::TaskStarted { partition, executor, .. } = event {
                assert!(!(is_lost && executor == gone), "{partition:?} was started on it");
                started.insert(partition, executor);
            }
        };
        while ended < 20 {
            let event = events.next_blocking()?.event;
            ended += u32::from(matches!(event, RuntimeEvent::TaskEnded { .. }));
            see(event, false);
        }
        assert!(pollster::block_on(runtime.remove_executor(gone, "no more")));
        is_removed.store(true, Ordering::SeqCst);
        let ran_on = stage.wait()?;
        let mut is_lost = false;
        loop {
            match events.next_blocking()?.event {
                RuntimeEvent::ExecutorLost { executor, .. } => is_lost = executor == gone,
                RuntimeEvent::StageCompleted { .. } => break,
                event => see(event, is_lost),
            }
        }
        assert!(is_lost);
        assert_eq!(started.into_values().collect::<Vec<_>>(), ran_on);
    }
    Ok(())
}

#[test]
fn a_failed_small_task_is_tried_again_and_the_others_are_not() -> TaskResult<()> {
    let runtime = with_slots(2)?;
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

#[test]
fn after_a_failure_that_ends_the_stage_no_success_begins_another() -> TaskResult<()> {
    let runtime = with_slots(1)?;
    for _ in 0..50 {
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = begun.clone();
        let stage =
            small_tasks(100).on_failure(OnFailure::Abort).run_blocking(&runtime, move |ctx| {
                counted.fetch_add(1, Ordering::SeqCst);
                if ctx.rank() == 7 { Err("the end".into()) } else { Ok(()) }
            });
        assert!(stage.wait().is_err());
        assert_eq!(begun.load(Ordering::SeqCst), 8);
    }
    Ok(())
}

#[test]
fn the_runtime_answers_while_many_threads_report() -> TaskResult<()> {
    let runtime = with_slots(64)?;
    let stage = small_tasks(50_000).run_blocking(&runtime, |_| Ok(()));
    let mut answers = 0;
    while stage.outcome().is_none() {
        drop(pollster::block_on(stage.status()));
        answers += 1;
    }
    stage.wait()?;
    assert!(answers > 100, "{answers} answers while 50,000 tasks ran");
    Ok(())
}

//! Threads that are held up or end, calls that are moved or lost: nobody waits for ever.

use phalanx::{
    Config, EventStreamError, ExecutorResources, Runtime, RuntimeEvent, Stage, StageFailure,
    SyncError, TaskFailure,
};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

fn runtime(slots: u32) -> Runtime {
    let config = Config { slots, stage_retry_delay: Duration::ZERO, ..Config::default() };
    Runtime::start(Config { worker_threads: 2, ..config }).unwrap()
}

/// Whichever rank does not yield, and so wherever the gang's barrier lives.
#[test]
fn a_task_that_does_not_yield_is_named_by_the_timeout_all_the_same() {
    for culprit in [0, 1] {
        let runtime = runtime(2);
        let (go, gate) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let gate = Mutex::new(gate);
        let stage = Stage::tasks(2).max_attempts(1).sync_timeout(Duration::from_millis(20));
        let stage = stage.run(&runtime, async move |ctx| {
            if ctx.rank() == culprit {
                // Holds its thread.
                gate.lock().unwrap().recv().unwrap();
                return Ok(());
            }
            let error = ctx.barrier().await.unwrap_err();
            tell.send(error.to_string()).unwrap();
            Err(error.into())
        });
        let text = told.recv().unwrap();
        assert!(text.ends_with(&format!("missing: partition {culprit}")), "{text}");
        assert!(matches!(
            stage.wait().unwrap_err().failure(),
            StageFailure::AttemptsExhausted { .. }
        ));
        go.send(()).unwrap();
    }
}

#[test]
fn who_is_waited_for_can_be_asked_while_a_thread_is_held_up() {
    let runtime = runtime(3);
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let stage = Stage::tasks(3).run(&runtime, async move |ctx| {
        if ctx.rank() == 0 {
            gate.lock().unwrap().recv().unwrap();
        }
        Ok(ctx.barrier().await?)
    });
    // Rank 2 shares rank 0's thread.
    let missing = loop {
        if let Some(status) = pollster::block_on(stage.sync_status()) {
            break status.missing.to_string();
        }
        std::thread::yield_now();
    };
    assert!(["0", "0, 2"].contains(&&*missing), "{missing}");
    go.send(()).unwrap();
    stage.wait().unwrap();
}

#[test]
fn a_killed_task_that_never_began_does_not_hold_its_slot() {
    let config = Config { slots: 2, worker_threads: 1, ..Config::default() };
    let runtime = Runtime::start(config).unwrap();
    let mut events = runtime.subscribe();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let hog = Stage::tasks(1).run(&runtime, async move |_| Ok(gate.lock().unwrap().recv()?));
    let victim = Stage::tasks(1).run(&runtime, async |_| Ok(()));
    let started = |event: &RuntimeEvent| matches!(event, RuntimeEvent::TaskStarted { .. });
    let mut count = 0;
    while count < 2 {
        count += usize::from(started(&events.next_blocking().unwrap().event));
    }
    victim.cancel("in the way");
    let next = Stage::tasks(1).run_blocking(&runtime, |_| Ok(()));
    next.wait().unwrap();
    go.send(()).unwrap();
    hog.wait().unwrap();
}

#[test]
fn a_task_that_ends_its_thread_is_a_loss_and_the_runtime_goes_on() {
    let runtime = runtime(2);
    let once = Arc::new(AtomicBool::new(true));
    let stage = Stage::tasks(2).run(&runtime, async move |ctx| {
        if ctx.rank() == 0 && once.swap(false, Ordering::SeqCst) {
            actix::Arbiter::current().stop();
            std::future::pending::<()>().await;
        }
        Ok(ctx.barrier().await?)
    });
    stage.wait().unwrap();
    runtime.shutdown_blocking(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_task_whose_future_is_dropped_has_ended_for_its_listeners_too() {
    let runtime = runtime(1);
    let (tell, told) = mpsc::channel();
    let (at, runs) = mpsc::channel();
    let stage = Stage::tasks(1).max_infrastructure_failures(0).run(&runtime, async move |ctx| {
        let tell = tell.clone();
        ctx.on_completion(move |outcome| tell.send(format!("{outcome:?}")).unwrap());
        at.send(ctx.clone()).unwrap();
        std::future::pending::<()>().await;
        Ok(())
    });
    let ctx = runs.recv().unwrap();
    let executor = pollster::block_on(runtime.status()).executors[0].executor;
    assert!(pollster::block_on(runtime.remove_executor(executor, "was taken away")));
    let failure = stage.wait().unwrap_err().first_cause().unwrap().failure.clone();
    assert!(matches!(failure, TaskFailure::ExecutorLost(_)), "{failure}");
    let heard = told.recv().unwrap();
    assert!(heard.contains("its thread ended before its code did"), "{heard}");
    // What waits for a kill need not wait any more, and who comes late is told at once.
    pollster::block_on(ctx.killed());
    let (late, late_heard) = mpsc::channel();
    ctx.on_completion(move |outcome| late.send(outcome.clone()).unwrap());
    assert!(format!("{:?}", late_heard.recv().unwrap()).contains("ExecutorLost"));
}

#[test]
fn the_event_stream_ends_with_the_runtime() {
    let runtime = runtime(1);
    let mut events = runtime.subscribe();
    let watcher = std::thread::spawn(move || {
        loop {
            if let Err(end) = events.next_blocking() {
                return (end, events.next_blocking().unwrap_err());
            }
        }
    });
    runtime.shutdown_blocking(Duration::from_secs(5)).unwrap();
    assert_eq!(watcher.join().unwrap(), (EventStreamError::Ended, EventStreamError::Ended));
}

#[test]
fn waiting_on_a_thread_that_runs_tasks_is_refused() {
    let runtime = runtime(2);
    let inner = runtime.clone();
    let stage = Stage::tasks(1).run(&runtime, async move |_| {
        let below = Stage::tasks(1).run(&inner, async |_| Ok(()));
        Ok(below.wait().unwrap_err().to_string())
    });
    let text = stage.wait().unwrap().remove(0);
    assert!(text.contains("would block a thread that runs async tasks; await"), "{text}");
}

struct PanicsWhenWoken;

impl Wake for PanicsWhenWoken {
    fn wake(self: Arc<Self>) {
        std::panic::resume_unwind(Box::new("a waker's own fault"));
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_from_the_release() {
    let runtime = runtime(4);
    let stage = Stage::tasks(4).run(&runtime, async |ctx| {
        if ctx.rank() == 1 {
            let mut call = Box::pin(ctx.barrier());
            let waker = Waker::from(Arc::new(PanicsWhenWoken));
            while call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                tokio::task::yield_now().await;
            }
            return Ok(());
        }
        Ok(ctx.barrier().await?)
    });
    assert_eq!(stage.wait().unwrap().len(), 4);
}

type OwnedFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An executor task as in the smallest of executors: its waker owns its future.
struct OwnsFuture {
    _future: Mutex<OwnedFuture>,
}

impl Wake for OwnsFuture {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_that_owns_another_call_of_the_task_can_be_replaced() {
    let runtime = runtime(2);
    let stage = Stage::tasks(2).max_attempts(1).run(&runtime, async |ctx| {
        if ctx.rank() == 0 {
            let other = ctx.clone();
            let mut owned: OwnedFuture = Box::pin(async move { drop(other.barrier().await) });
            assert!(owned.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            let waker = Waker::from(Arc::new(OwnsFuture { _future: Mutex::new(owned) }));
            let mut call = Box::pin(ctx.barrier());
            assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            // Replaces the last reference to the waker, and so drops the other call.
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            return Ok(call.await?);
        }
        Ok(ctx.barrier().await?)
    });
    stage.wait().unwrap();
}

#[test]
fn executors_that_come_and_go_leave_no_threads_behind() {
    let runtime = runtime(1);
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let cycle = || {
        let executor = pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
        assert!(pollster::block_on(runtime.remove_executor(executor, "was taken away")));
    };
    for _ in 0..50 {
        cycle();
    }
    // They end in the background; other tests of this process come and go as well.
    while threads() > 100 {
        std::thread::yield_now();
    }
    let stage = Stage::tasks(1).run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    stage.wait().unwrap();
}

#[test]
fn a_sync_moved_to_another_thread_is_answered_when_its_own_ends() {
    let runtime = runtime(2);
    let (give, calls) = mpsc::channel();
    let stage = Stage::tasks(2).max_infrastructure_failures(0).run(&runtime, async move |ctx| {
        if ctx.rank() == 0 {
            give.send(ctx.barrier()).unwrap();
        }
        std::future::pending::<()>().await;
        Ok(())
    });
    let call = calls.recv().unwrap();
    let elsewhere = std::thread::spawn(move || pollster::block_on(call));
    while pollster::block_on(stage.sync_status()).is_none() {
        std::thread::yield_now();
    }
    let executor = pollster::block_on(runtime.status()).executors[0].executor;
    pollster::block_on(runtime.remove_executor(executor, "was taken away"));
    let error: SyncError = elsewhere.join().unwrap().unwrap_err();
    assert!(!error.to_string().is_empty(), "told, whatever came first: {error}");
    stage.wait().unwrap_err();
}

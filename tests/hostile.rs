//! Users' values that misbehave: the runtime goes on.

use bytes::Bytes;
use futures_util::FutureExt;
use phalanx::{BarrierTaskContext, Config, Runtime, Stage, StageFailure, TaskFailure, TaskResult};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake};
use std::time::Duration;
use tokio::sync::Notify;

fn runtime() -> Runtime {
    let config = Config { slots: 2, stage_retry_delay: Duration::ZERO, ..Config::default() };
    Runtime::start(config).unwrap()
}

#[track_caller]
fn goes_on(runtime: &Runtime) {
    let stage = Stage::tasks(2).run(runtime, async |ctx| Ok(ctx.barrier().await?));
    assert_eq!(stage.wait().unwrap().len(), 2);
    runtime.shutdown_blocking(Duration::from_secs(5)).unwrap();
}

/// Panics when it is dropped, and counts that.
#[derive(Clone)]
struct Bomb(Arc<AtomicU32>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        // Without the hook: the output of the tests stays readable.
        std::panic::resume_unwind(Box::new("dropped"));
    }
}

/// Waits until so many have gone off: unwanted values are dropped in the background.
fn until_dropped(dropped: &AtomicU32, count: u32) {
    while dropped.load(Ordering::SeqCst) < count {
        std::thread::yield_now();
    }
}

#[test]
fn values_of_a_failed_attempt_may_panic_when_they_are_dropped() {
    let runtime = runtime();
    let dropped = Arc::new(AtomicU32::new(0));
    let count = dropped.clone();
    let stage = Stage::tasks(2).run(&runtime, async move |ctx| {
        // So that both have begun; whether it was a kill that ended it does not matter.
        drop(ctx.barrier().await);
        if ctx.stage_attempt_number() == 0 && ctx.rank() == 1 {
            return Err("perhaps after the other has returned".into());
        }
        Ok((ctx.stage_attempt_number() == 0).then(|| Bomb(count.clone())))
    });
    let values = stage.wait().unwrap();
    assert!(values.iter().all(Option::is_none));
    until_dropped(&dropped, 1);
    goes_on(&runtime);
}

#[test]
fn a_result_that_nobody_wants_may_panic_when_it_is_dropped() {
    let runtime = runtime();
    let dropped = Arc::new(AtomicU32::new(0));
    let count = dropped.clone();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let stage = Stage::tasks(2).run_blocking(&runtime, move |ctx| {
        if ctx.rank() == 0 {
            gate.lock().unwrap().recv().unwrap();
        }
        ctx.barrier()?;
        Ok(Bomb(count.clone()))
    });
    let control = stage.control();
    drop(stage);
    go.send(()).unwrap();
    pollster::block_on(control.ended()).unwrap();
    until_dropped(&dropped, 2);
    goes_on(&runtime);
}

struct Unprintable;

impl fmt::Debug for Unprintable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl fmt::Display for Unprintable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::panic::resume_unwind(Box::new("no words"));
    }
}

impl std::error::Error for Unprintable {}

#[test]
fn an_error_whose_text_panics_is_a_failure_all_the_same() {
    let runtime = runtime();
    let stage = Stage::tasks(2).max_attempts(1);
    let stage = stage.run(&runtime, async |_| Err::<(), _>(Unprintable.into()));
    let failure = stage.wait().unwrap_err().first_cause().unwrap().failure.clone();
    assert_eq!(failure, TaskFailure::Panicked("no words".to_owned()));
    goes_on(&runtime);
}

#[test]
fn what_is_thrown_may_panic_when_it_is_dropped() {
    let runtime = runtime();
    let dropped = Arc::new(AtomicU32::new(0));
    for blocking in [false, true] {
        let stage = Stage::tasks(2).max_attempts(1);
        let bomb = dropped.clone();
        let error = if blocking {
            let stage = stage.run_blocking(&runtime, move |_| -> phalanx::TaskResult<()> {
                std::panic::resume_unwind(Box::new(Bomb(bomb.clone())))
            });
            stage.wait().unwrap_err()
        } else {
            let stage = stage.run(&runtime, async move |_| -> phalanx::TaskResult<()> {
                std::panic::resume_unwind(Box::new(Bomb(bomb.clone())))
            });
            stage.wait().unwrap_err()
        };
        assert!(error.to_string().contains("panicked: with a value that is not a text"), "{error}");
    }
    until_dropped(&dropped, 2);
    goes_on(&runtime);
}

#[test]
fn a_task_may_submit_a_stage_and_wait_for_it() {
    let runtime = Runtime::with_slots(4).unwrap();
    let inner = runtime.clone();
    let stage = Stage::tasks(2).run(&runtime, async move |ctx| {
        let rank = ctx.rank();
        let below = Stage::tasks(1).run(&inner, async move |_| Ok(rank * 10));
        Ok(ctx.all_gather(&below.await?[0]).await?)
    });
    assert_eq!(stage.wait().unwrap(), [[0, 10], [0, 10]]);
    goes_on(&runtime);
}

#[test]
fn a_context_that_outlives_its_task_is_answered() {
    let runtime = runtime();
    let (send, contexts) = std::sync::mpsc::channel();
    let stage = Stage::tasks(2).run(&runtime, async move |ctx| {
        send.send(ctx.clone()).unwrap();
        Ok(ctx.barrier().await?)
    });
    stage.wait().unwrap();
    let late: Vec<_> = (0..2).map(|_| contexts.recv().unwrap()).collect();
    for ctx in &late {
        let error = pollster::block_on(ctx.barrier()).unwrap_err();
        assert!(error.to_string().contains("has returned"), "{error}");
    }
    goes_on(&runtime);
    for ctx in &late {
        assert!(pollster::block_on(ctx.barrier()).is_err());
    }
}

/// Bytes whose owner uses its task's context when it is dropped.
struct Meddler(BarrierTaskContext, Arc<AtomicU32>);

impl AsRef<[u8]> for Meddler {
    fn as_ref(&self) -> &[u8] {
        b"mine"
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        // Takes whatever lock the task's calls take.
        drop(self.0.barrier().now_or_never());
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_owner_of_gathered_bytes_may_use_its_context_when_it_is_dropped() {
    for _ in 0..20 {
        let runtime = runtime();
        let dropped = Arc::new(AtomicU32::new(0));
        let count = dropped.clone();
        let stage = Stage::tasks(2).max_attempts(1);
        let message = move |ctx| Bytes::from_owner(Meddler(ctx, count.clone()));
        let waits = Notify::new();
        let code = async move |ctx: BarrierTaskContext| {
            if ctx.rank() == 1 {
                waits.notified().await;
                return Err("on its own".into());
            }
            let mut call = Box::pin(ctx.all_gather_bytes(message(ctx.clone())));
            assert!(futures_util::poll!(call.as_mut()).is_pending());
            waits.notify_one();
            drop(call.await?);
            Ok(())
        };
        let failure = stage.run(&runtime, code).wait();
        assert!(failure.unwrap_err().to_string().contains("on its own"));
        until_dropped(&dropped, 1);
        goes_on(&runtime);
    }
}

#[test]
fn a_panic_whose_value_panics_ends_its_own_task_only() {
    let config = Config { slots: 4, worker_threads: 1, ..Config::default() };
    let runtime = Runtime::start(config).unwrap();
    let dropped = Arc::new(AtomicU32::new(0));
    let count = dropped.clone();
    let stage = Stage::tasks(4).plain().max_attempts(1).max_infrastructure_failures(0);
    let stage = stage.run(&runtime, async move |ctx| {
        if ctx.rank() == 0 {
            std::panic::resume_unwind(Box::new(Bomb(count.clone())));
        }
        tokio::task::yield_now().await;
        Ok(())
    });
    let failure = stage.wait().unwrap_err().first_cause().unwrap().clone();
    assert!(matches!(failure.failure, TaskFailure::Panicked(_)), "{failure}");
    assert_eq!(failure.origin.unwrap().partition.0, 0);
    until_dropped(&dropped, 1);
    goes_on(&runtime);
}

#[test]
fn a_waker_of_one_who_waits_for_the_kill_may_panic() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("a waker panics"));
        }
    }
    let runtime = runtime();
    let (at, waits) = mpsc::channel();
    let stage = Stage::tasks(2).max_attempts(1).run(&runtime, async move |ctx| {
        let mut killed = Box::pin(ctx.killed());
        let waker = Arc::new(Panics).into();
        assert!(killed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        at.send(()).unwrap();
        Ok(ctx.until_killed(std::future::pending::<()>()).await?)
    });
    (0..2).for_each(|_| waits.recv().unwrap());
    stage.kill_task(0, "by hand");
    let failure = stage.wait().unwrap_err().first_cause().unwrap().failure.clone();
    assert_eq!(failure, TaskFailure::Killed("by hand".to_owned()));
    assert_eq!(pollster::block_on(runtime.status()).executors[0].incarnation.0, 0, "none was lost");
    goes_on(&runtime);
}

#[test]
fn a_failure_of_many_words_is_told_in_fewer() {
    const SIZE: usize = 300_000;
    let runtime = runtime();
    for panics in [false, true] {
        let stage = Stage::tasks(2).max_attempts(1).run(&runtime, async move |ctx| {
            if ctx.rank() == 0 {
                let text = "\u{e4}".repeat(SIZE / 2);
                if panics {
                    panic!("{text}");
                }
                return Err(text.into());
            }
            Ok(ctx.barrier().await?)
        });
        let error = stage.wait().unwrap_err();
        let (TaskFailure::Error(text) | TaskFailure::Panicked(text)) =
            &error.first_cause().unwrap().failure
        else {
            panic!("{:.100}", error.to_string());
        };
        assert!(text.len() < 70_000 && text.ends_with("... (300000 bytes in all)"));
    }
    goes_on(&runtime);
}

#[test]
fn a_task_that_waits_for_a_stage_without_slots_can_be_cancelled() -> TaskResult<()> {
    let runtime = Runtime::with_slots(1)?;
    let inner = runtime.clone();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let stage = Stage::tasks(1).run_blocking(&runtime, move |_| {
        let no_slot_is_left = Stage::tasks(1).run(&inner, async |_| Ok(()));
        begun.send(no_slot_is_left.control())?;
        Ok(no_slot_is_left.wait().map(drop)?)
    });
    let waits = has_begun.recv()?;
    stage.cancel("it goes on for ever");
    assert!(stage.wait().unwrap_err().is_cancelled());
    let ended = actix_rt::System::new().block_on(waits.ended());
    let reason = "the task that waited for it was killed".to_owned();
    assert_eq!(ended, Err(StageFailure::Cancelled { reason }));
    Stage::tasks(1).run(&runtime, async |_| Ok(())).wait()?;
    Ok(())
}

#[test]
fn a_task_that_stops_the_actors_ends_the_runtime_and_all_who_wait_are_told() -> TaskResult<()> {
    let runtime = runtime();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let waits = Stage::tasks(1).plain().run_blocking(&runtime, move |_| {
        // Until the other end is gone.
        let _ = gate.lock().unwrap().recv();
        Ok(())
    });
    let stops = Stage::tasks(1).plain().run(&runtime, async |_| {
        actix::System::current().stop();
        std::future::pending().await
    });
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send([waits.wait(), stops.wait()]));
    let ends = told.recv_timeout(Duration::from_secs(20)).expect("nobody waits for ever");
    drop(go);
    let late = Stage::tasks(1).plain().run(&runtime, async |_| Ok(())).wait();
    for end in ends.into_iter().chain([late]) {
        assert!(matches!(end.unwrap_err().failure(), StageFailure::Shutdown));
    }
    Ok(())
}

#[test]
fn a_waker_of_one_who_waits_for_a_result_may_panic() -> TaskResult<()> {
    struct Panics(AtomicU32);
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            std::panic::resume_unwind(Box::new("a waker panics"));
        }
    }
    let runtime = runtime();
    let panics = Arc::new(Panics(AtomicU32::new(0)));
    let waker = panics.clone().into();
    let mut cx = Context::from_waker(&waker);
    let (go, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let waits = move || gate.lock().unwrap().recv().is_err();
    let of_job = waits.clone();
    let mut stage = Stage::tasks(1).plain().run_blocking(&runtime, move |_| Ok(waits()));
    let mut job = runtime.parallelize(0..1, 1).map(move |_| of_job()).collect();
    let (stage_control, job_control) = (stage.control(), job.control());
    let stage_ends = async { stage_control.ended().await.is_ok() };
    let job_ends = async { job_control.ended().await.is_ok() };
    let mut ends = [stage_ends.boxed(), job_ends.boxed()];
    assert!(stage.poll_unpin(&mut cx).is_pending() && job.poll_unpin(&mut cx).is_pending());
    assert!(ends.iter_mut().all(|end| end.poll_unpin(&mut cx).is_pending()));
    drop(go);
    until_dropped(&panics.0, 4);
    assert_eq!((stage.wait()?, job.wait()?), (vec![true], vec![true]), "told all the same");
    goes_on(&runtime);
    Ok(())
}

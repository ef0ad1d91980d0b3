//! The runtime inside programs of every kind, and its end.

use phalanx::{
    Config, ExecutorResources, Progress, Runtime, RuntimeEvent, Stage, StageFailure, StartError,
};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// The same small job everywhere.
async fn works(runtime: &Runtime) {
    let stage = Stage::tasks(3).run(runtime, async |ctx| {
        ctx.barrier().await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(ctx.all_gather(&ctx.rank()).await?)
    });
    assert_eq!(stage.await.unwrap(), vec![vec![0, 1, 2]; 3]);
    let stage = Stage::tasks(3).run_blocking(runtime, |ctx| Ok(ctx.all_gather(&ctx.rank())?));
    assert_eq!(stage.await.unwrap(), vec![vec![0, 1, 2]; 3]);
    let status = runtime.status().await;
    assert_eq!((status.executors.len(), status.stages.len()), (1, 0));
}

async fn starts_works_and_ends() {
    let runtime = Runtime::with_slots(3).unwrap();
    works(&runtime).await;
    runtime.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[test]
fn in_a_plain_main() {
    let runtime = Runtime::with_slots(3).unwrap();
    pollster::block_on(works(&runtime));
    runtime.shutdown_blocking(Duration::from_secs(5)).unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn in_tokio_on_one_thread() {
    starts_works_and_ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_tokio_on_several_threads() {
    let runtime = Runtime::with_slots(6).unwrap();
    let tasks = (0..4).map(|_| {
        let runtime = runtime.clone();
        tokio::spawn(async move { works(&runtime).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        // Others' stages may be there: only that all end well is of interest here.
        drop(task.await);
    }
    runtime.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[actix_web::test]
async fn in_actix_web() {
    starts_works_and_ends().await;
}

#[actix::test]
async fn in_an_actix_system() {
    starts_works_and_ends().await;
    starts_works_and_ends().await;
}

#[test]
fn the_handle_can_be_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let runtime = Runtime::with_slots(2).unwrap();
    shared(&runtime);
    let handle = Stage::tasks(1).run(&runtime, async |_| Ok(()));
    shared(&handle.control());
    std::thread::spawn(move || handle.wait().unwrap()).join().unwrap();
}

#[test]
fn several_runtimes_do_not_meet() {
    let runtimes: Vec<Runtime> = (0..4).map(|_| Runtime::with_slots(2).unwrap()).collect();
    let handles: Vec<_> = runtimes
        .iter()
        .enumerate()
        .map(|(index, runtime)| {
            let stage = Stage::tasks(2);
            stage.run(runtime, async move |ctx| Ok(ctx.all_gather(&(index, ctx.rank())).await?))
        })
        .collect();
    runtimes[3].shutdown_blocking(Duration::from_secs(5)).unwrap();
    for (index, handle) in handles.into_iter().enumerate().take(3) {
        assert_eq!(handle.id().0, 0, "each counts its own stages");
        assert_eq!(handle.wait().unwrap(), vec![vec![(index, 0), (index, 1)]; 2]);
    }
}

/// A stage whose first task ignores its kill until the sender is dropped.
fn stuck(runtime: &Runtime) -> (phalanx::StageHandle<()>, mpsc::Sender<()>) {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let (at, runs) = mpsc::channel();
    let handle = Stage::tasks(2).name("stuck").run_blocking(runtime, move |ctx| {
        if ctx.rank() == 0 {
            at.send(()).unwrap();
            // Ends when the test is over.
            let _ = gate.lock().unwrap().recv();
        }
        ctx.barrier()?;
        Ok(())
    });
    runs.recv().unwrap();
    (handle, release)
}

#[test]
fn shutdown_is_bounded_and_names_the_task_that_does_not_end() {
    let runtime = Runtime::with_slots(2).unwrap();
    let (handle, release) = stuck(&runtime);
    let start = Instant::now();
    let error = runtime.shutdown_blocking(Duration::from_millis(50)).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let text = error.to_string();
    let expected = "tasks ignored their kill for 50ms and were left behind: \
                    partition 0 of Stage 0 (Attempt 0) 'stuck' (task 0 on executor 0)";
    assert_eq!(text, expected);
    let failure = handle.wait().unwrap_err();
    assert_eq!(*failure.failure(), StageFailure::Shutdown);
    assert_eq!(runtime.shutdown_blocking(Duration::ZERO).unwrap_err().tasks, error.tasks, "again");
    drop(release);
}

#[tokio::test]
async fn shutdowns_at_the_same_time_are_told_the_same() {
    let runtime = Runtime::with_slots(2).unwrap();
    let (_handle, release) = stuck(&runtime);
    let (long, short) = tokio::join!(
        runtime.shutdown(Duration::from_secs(60)),
        runtime.shutdown(Duration::from_millis(50)),
    );
    assert_eq!(long.unwrap_err().tasks, short.unwrap_err().tasks);
    drop(release);
}

#[test]
fn a_task_on_an_executor_that_was_given_up_is_named_too() {
    let config = Config {
        slots: 2,
        kill_zombie_deadline: Some(Duration::from_millis(1)),
        ..Config::default()
    };
    let runtime = Runtime::start(config).unwrap();
    let mut events = runtime.subscribe();
    let (handle, release) = stuck(&runtime);
    handle.cancel("not needed");
    while !matches!(events.next_blocking().unwrap().event, RuntimeEvent::ExecutorLost { .. }) {}
    let error = runtime.shutdown_blocking(Duration::from_millis(50)).unwrap_err();
    assert_eq!((error.tasks.len(), error.tasks[0].partition.0), (1, 0));
    drop(release);
}

#[test]
fn shutdown_answers_all_who_wait_and_refuses_what_comes_later() {
    let runtime = Runtime::with_slots(2).unwrap();
    let mut events = runtime.subscribe();
    let waiting = Stage::tasks(2).run(&runtime, async |ctx| {
        if ctx.rank() == 0 {
            return Ok(ctx.barrier().await.unwrap_err().to_string());
        }
        ctx.killed().await;
        Ok(ctx.kill_reason().unwrap())
    });
    let queued = Stage::tasks(2).run(&runtime, async |_| Ok(()));
    let deferred = Stage::tasks(3).run(&runtime, async |_| Ok(()));
    while !matches!(events.next_blocking().unwrap().event, RuntimeEvent::StageDeferred { .. }) {}
    runtime.shutdown_blocking(Duration::from_secs(5)).unwrap();
    assert_eq!(*waiting.wait().unwrap_err().failure(), StageFailure::Shutdown);
    assert_eq!(*queued.wait().unwrap_err().failure(), StageFailure::Shutdown);
    assert_eq!(*deferred.wait().unwrap_err().failure(), StageFailure::Shutdown);
    let late = Stage::tasks(1).run(&runtime, async |_| Ok(()));
    assert_eq!(*late.wait().unwrap_err().failure(), StageFailure::Shutdown);
    assert!(pollster::block_on(runtime.status()).executors.is_empty());
    let refused = pollster::block_on(runtime.add_executor(ExecutorResources::new(1)));
    assert!(matches!(refused, Err(StartError::Threads(_))));
}

#[test]
fn dropping_the_last_handle_ends_the_tasks_in_the_background() {
    let runtime = Runtime::with_slots(2).unwrap();
    let (told, reason) = mpsc::channel();
    let handle = Stage::tasks(1).run_blocking(&runtime, move |ctx| {
        told.send("begun".to_owned()).unwrap();
        ctx.wait_killed();
        told.send(ctx.kill_reason().unwrap()).unwrap();
        Ok(())
    });
    assert_eq!(reason.recv().unwrap(), "begun");
    drop(runtime);
    assert_eq!(reason.recv().unwrap(), "the runtime shuts down");
    assert_eq!(*handle.wait().unwrap_err().failure(), StageFailure::Shutdown);
}

#[test]
fn an_outcome_can_be_seen_by_any_number_while_the_handle_is_awaited_elsewhere() {
    let runtime = Runtime::with_slots(1).unwrap();
    let good = Stage::tasks(1).run(&runtime, async |_| Ok(()));
    let bad =
        Stage::tasks(1).max_attempts(1).run(&runtime, async |_| Err::<(), _>("out of luck".into()));
    let odd = Stage::tasks(1).cpus(0).run(&runtime, async |_| Ok(()));
    pollster::block_on(good.control().ended()).unwrap();
    let failure = pollster::block_on(bad.ended()).unwrap_err();
    assert!(failure.to_string().ends_with("out of luck"), "{failure}");
    assert_eq!(bad.outcome(), Some(Err(failure)));
    assert!(matches!(pollster::block_on(odd.ended()), Err(StageFailure::Refused { .. })));
    good.wait().unwrap();
}

#[test]
fn progress_is_that_of_the_current_attempt() {
    let config = Config { slots: 2, stage_retry_delay: Duration::ZERO, ..Config::default() };
    let runtime = Runtime::start(config).unwrap();
    let (at, reached) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let stage = Stage::tasks(2).run_blocking(&runtime, move |ctx| {
        if ctx.stage_attempt_number() == 0 {
            ctx.report_progress(9, 10);
            ctx.barrier()?;
            return Err("again".into());
        }
        ctx.barrier()?;
        if ctx.rank() == 0 {
            ctx.report_progress(1, 10);
            at.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap();
        }
        ctx.barrier()?;
        Ok(())
    });
    reached.recv().unwrap();
    assert_eq!(stage.progress(), [Some(Progress { done: 1, total: 10 }), None]);
    go.send(()).unwrap();
    stage.wait().unwrap();
}

#[test]
fn a_kill_ends_what_knows_nothing_of_kills() {
    let runtime = Runtime::with_slots(2).unwrap();
    let (told, errors) = mpsc::channel();
    let (at, runs) = mpsc::channel();
    let stage = Stage::tasks(1).run(&runtime, async move |ctx| {
        ctx.check_killed()?;
        at.send(()).unwrap();
        let slept = ctx.until_killed(tokio::time::sleep(Duration::from_secs(3600))).await;
        told.send((slept.unwrap_err(), ctx.check_killed().unwrap_err())).unwrap();
        Ok(())
    });
    runs.recv().unwrap();
    stage.cancel("enough");
    let (slept, checked) = errors.recv().unwrap();
    assert_eq!(slept, checked);
    assert!(slept.to_string().ends_with("was killed: the stage was cancelled: enough"), "{slept}");
}

#[test]
fn a_runtime_of_no_slots_is_refused_with_the_key() {
    let text = Runtime::with_slots(0).unwrap_err().to_string();
    assert_eq!(text, "the program: slots = \"0\" is not allowed; allowed is a whole number from 1");
}

#[test]
fn settings_come_from_a_file_and_variables() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("phalanx.toml");
    std::fs::write(&file, "slots = 3\n[kill]\ngrace = '2s'\n").unwrap();
    if std::env::var_os("PHALANX_SLOTS").is_none() {
        // Variables of this process cannot be set safely: run this test again with them set.
        let test = std::env::current_exe().unwrap();
        let name = "settings_come_from_a_file_and_variables";
        let child = Command::new(test).args(["--exact", name]).env("PHALANX_SLOTS", "5").output();
        let output = child.unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let config = Config::load(Some(&file)).unwrap();
    assert_eq!((config.slots, config.kill_grace), (5, Duration::from_secs(2)));
}

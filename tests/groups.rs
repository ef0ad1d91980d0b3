//! The async tasks of an attempt on one thread are polled together: nobody notices.

use futures_util::future::join_all;
use phalanx::{Config, Runtime, Stage, SyncError, TaskFailure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

const ROUNDS: u32 = 200;

fn runtime(slots: u32, threads: usize) -> Runtime {
    let config = Config { slots, worker_threads: threads, ..Config::default() };
    Runtime::start(config).unwrap()
}

#[test]
fn tasks_that_sync_from_threads_of_their_own_meet_those_that_do_not() {
    for threads in [1, 2] {
        let runtime = runtime(6, threads);
        let stage = Stage::tasks(6).run(&runtime, async |ctx| {
            let mine = ctx.clone();
            let rounds = move || {
                (0..ROUNDS).try_for_each(|_| pollster::block_on(mine.barrier()))?;
                pollster::block_on(mine.all_gather(&mine.rank()))
            };
            match ctx.rank() % 2 {
                0 => Ok(tokio::task::spawn_blocking(rounds).await??),
                _ => {
                    for _ in 0..ROUNDS {
                        ctx.barrier().await?;
                    }
                    Ok(ctx.all_gather(&ctx.rank()).await?)
                }
            }
        });
        assert_eq!(stage.wait().unwrap(), vec![(0..6).collect::<Vec<_>>(); 6]);
    }
}

#[test]
fn calls_of_one_task_are_one_arrival_whoever_wakes_them() {
    let runtime = runtime(4, 2);
    let stage = Stage::tasks(4).run(&runtime, async |ctx| {
        for round in 0..ROUNDS {
            // Two are woken with the task itself; of so many each has a waker of its own.
            let calls = if round % 2 == 0 { 2 } else { 40 };
            let answers = join_all((0..calls).map(|_| ctx.all_gather(&round))).await;
            for gathered in answers {
                assert_eq!(gathered?, vec![round; 4]);
            }
        }
        Ok(())
    });
    stage.wait().unwrap();
}

#[test]
fn a_clone_goes_on_before_another_has_looked_at_its_answer() {
    let runtime = runtime(3, 1);
    let stage = Stage::tasks(3).run(&runtime, async |ctx| {
        for round in 0..ROUNDS {
            let mut slow = Box::pin(ctx.all_gather(&round));
            assert!(futures_util::poll!(slow.as_mut()).is_pending());
            let quick = ctx.all_gather(&round).await?;
            // Another round, which ends before the first one's answer is looked at.
            ctx.barrier().await?;
            assert_eq!((slow.await?, quick), (vec![round; 3], vec![round; 3]));
        }
        Ok(())
    });
    stage.wait().unwrap();
}

#[test]
fn timers_and_others_have_their_turn_beside_tasks_that_never_rest() {
    let runtime = runtime(203, 1);
    let (enough, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (told, counted) = (enough.clone(), turns.clone());
    let restless = Stage::tasks(200).run(&runtime, async move |ctx| {
        while !told.load(Ordering::SeqCst) {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
        Ok(ctx.barrier().await?)
    });
    while turns.load(Ordering::SeqCst) < 1_000 {
        std::thread::yield_now();
    }
    let others = Stage::tasks(3).run(&runtime, async move |ctx| {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ctx.barrier().await?;
        }
        enough.store(true, Ordering::SeqCst);
        Ok(())
    });
    others.wait().unwrap();
    restless.wait().unwrap();
}

#[test]
fn one_that_asks_to_be_polled_at_once_does_not_keep_the_others_arrivals_back() {
    let runtime = runtime(3, 1);
    let stage = Stage::tasks(3).run(&runtime, async |ctx| {
        let mut call = Box::pin(ctx.barrier());
        std::future::poll_fn(|cx| {
            if ctx.rank() == 0 {
                cx.waker().wake_by_ref();
            }
            call.as_mut().poll(cx)
        })
        .await?;
        Ok(())
    });
    stage.wait().unwrap();
}

#[test]
fn when_their_thread_ends_each_is_lost_even_if_dropping_them_panics() {
    struct Bomb(mpsc::Sender<usize>, usize);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.send(self.1).unwrap();
            panic!("a Drop panics");
        }
    }
    let runtime = runtime(4, 1);
    let (tell, told) = mpsc::channel();
    let (at, runs) = mpsc::channel();
    let stage = Stage::tasks(4).max_infrastructure_failures(0).run(&runtime, async move |ctx| {
        let _bomb = Bomb(tell.clone(), ctx.rank());
        at.send(()).unwrap();
        std::future::pending::<()>().await;
        Ok(())
    });
    (0..4).for_each(|_| runs.recv().unwrap());
    let executor = pollster::block_on(runtime.status()).executors[0].executor;
    assert!(pollster::block_on(runtime.remove_executor(executor, "was taken away")));
    let failure = stage.wait().unwrap_err().first_cause().unwrap().failure.clone();
    assert!(matches!(failure, TaskFailure::ExecutorLost(_)), "{failure}");
    let mut dropped: Vec<usize> = (0..4).map(|_| told.recv().unwrap()).collect();
    dropped.sort();
    assert_eq!(dropped, [0, 1, 2, 3]);
    runtime.shutdown_blocking(Duration::from_secs(5)).unwrap();
}

/// A gang of 6 in which one fails as soon as it is released; what each was told of the release.
fn told_of_the_release(runtime: &Runtime, blocking: bool) -> Vec<Result<(), SyncError>> {
    let (tell, told) = mpsc::channel();
    let after = move |rank: usize, released: Result<(), SyncError>| {
        tell.send(released).unwrap();
        if rank == 1 { Err("right after the release".into()) } else { Ok(()) }
    };
    let stage = Stage::tasks(6).max_attempts(1);
    let ended = if blocking {
        stage.run_blocking(runtime, move |ctx| after(ctx.rank(), ctx.barrier())).wait()
    } else {
        stage.run(runtime, async move |ctx| after(ctx.rank(), ctx.barrier().await)).wait()
    };
    ended.unwrap_err();
    told.iter().take(6).collect()
}

#[test]
fn a_release_is_not_overtaken_by_the_kill_that_follows_from_it() {
    let runtime = runtime(6, 2);
    for round in 0..300 {
        let told = told_of_the_release(&runtime, round % 2 == 0);
        assert!(told.len() == 6 && told.iter().all(Result::is_ok), "round {round}: {told:?}");
    }
}

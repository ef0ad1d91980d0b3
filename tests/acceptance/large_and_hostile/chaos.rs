//! Faults at moments that nobody chose: L2, L3, L7.

use super::Dice;
use crate::observe::{cluster, is_idle, local};
use phalanx::actors::KillPartition;
use phalanx::{ExecutorResources, Stage, StageFailure, StageHandle, TaskResult};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How one task ends its attempt.
const FAULTS: usize = 4;

#[test]
fn l2_gangs_whose_tasks_fail_anywhere_are_whole_again_in_the_next_attempt() {
    const GANGS: usize = 60;
    let runtime = local(12);
    let fired = Arc::new([const { AtomicUsize::new(0) }; FAULTS]);
    let run = |gang: usize| {
        let (fired, scheduler) = (fired.clone(), runtime.scheduler().clone());
        let tasks = 2 + gang % 7;
        Stage::tasks(tasks).run(&runtime, async move |ctx| {
            let attempt = ctx.stage_attempt_number() as usize;
            let mut dice = Dice::new(gang * 16 + attempt);
            let (fault, culprit, at) = (dice.roll(FAULTS), dice.roll(tasks), dice.roll(6));
            for round in 0..6 {
                if attempt < 2 && (round, ctx.rank()) == (at, culprit) {
                    fired[fault].fetch_add(1, Ordering::SeqCst);
                    match fault {
                        0 => return Err("fails".into()),
                        1 => std::panic::resume_unwind(Box::new("panics")),
                        2 => return Ok((attempt, Vec::new())),
                        _ => {
                            let (stage, partition) = (ctx.stage_id(), ctx.partition_id());
                            let reason = "is killed".to_owned();
                            scheduler.do_send(KillPartition { stage, partition, reason });
                            ctx.killed().await;
                        }
                    }
                }
                let all = ctx.all_gather(&(gang, attempt, round, ctx.rank())).await?;
                let mine = (0..tasks).map(|rank| (gang, attempt, round, rank));
                assert!(all.into_iter().eq(mine), "gang {gang}, round {round}");
            }
            Ok((attempt, ctx.all_gather(&ctx.rank()).await?))
        })
    };
    let handles: Vec<_> = (0..GANGS).map(run).collect();
    for (gang, handle) in handles.into_iter().enumerate() {
        let all = (2, (0..2 + gang % 7).collect());
        assert!(handle.wait().unwrap().iter().all(|value| *value == all), "gang {gang}");
    }
    let fired: Vec<usize> = fired.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    assert_eq!(fired.iter().sum::<usize>(), 2 * GANGS, "one in each attempt before: {fired:?}");
    assert!(fired.iter().all(|count| *count > 0), "{fired:?}");
    assert!(is_idle(&runtime));
}

#[test]
fn l3_gangs_outlive_executors_that_are_lost_at_any_moment() {
    const GANGS: usize = 6;
    const LOSSES: usize = 12;
    let runtime = cluster(4, 4);
    let enough = Arc::new(AtomicBool::new(false));
    let run = |gang: usize| {
        let enough = enough.clone();
        let stage = Stage::tasks(2 + gang % 3).max_attempts(1).max_infrastructure_failures(10_000);
        stage.run(&runtime, async move |ctx| {
            loop {
                let mine = (gang, ctx.rank(), enough.load(Ordering::SeqCst));
                let all = ctx.all_gather(&mine).await?;
                assert!(
                    all.iter()
                        .map(|(of, rank, _)| (*of, *rank))
                        .eq((0..ctx.world_size()).map(|rank| (gang, rank)))
                );
                if all.iter().all(|(.., enough)| *enough) {
                    return Ok(());
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let handles: Vec<_> = (0..GANGS).map(run).collect();
    let mut dice = Dice::new(3);
    for _ in 0..LOSSES {
        let busy = loop {
            let executors = pollster::block_on(runtime.status()).executors;
            let at = dice.roll(executors.len());
            if executors[at].running > 0 {
                break executors[at].executor;
            }
            std::thread::yield_now();
        };
        assert!(pollster::block_on(runtime.remove_executor(busy, "was taken away")));
        pollster::block_on(runtime.add_executor(ExecutorResources::new(4))).unwrap();
    }
    let hit = |handle: &StageHandle<()>| {
        let status = pollster::block_on(handle.status()).expect("it goes on until told");
        assert_eq!(status.failures, 0);
        status.infrastructure_failures
    };
    let hits: u32 = handles.iter().map(hit).sum();
    enough.store(true, Ordering::SeqCst);
    for handle in handles {
        handle.wait().unwrap();
    }
    assert!(hits > 0, "no gang was hit");
    assert!(is_idle(&runtime));
}

#[test]
fn l7_stages_cancelled_at_any_moment_end_and_give_their_slots_back() {
    let runtime = local(8);
    let (mut cancelled, mut dice) = (0, Dice::new(7));
    for _ in 0..20 {
        let run = |index: usize| {
            Stage::tasks(1 + index % 8).max_attempts(2).run(&runtime, async move |ctx| {
                // One of them has no end of its own.
                for round in 0..if index == 3 { usize::MAX } else { 20 } {
                    ctx.barrier().await?;
                    if index == 6 && round == 10 && ctx.stage_attempt_number() == 0 {
                        return TaskResult::<()>::Err("on its own".into());
                    }
                }
                Ok(())
            })
        };
        let handles: Vec<_> = (0..8).map(run).collect();
        for handle in &handles {
            (0..dice.roll(20)).for_each(|_| std::thread::yield_now());
            handle.cancel("at any moment");
        }
        for handle in handles {
            if let Err(error) = handle.wait() {
                let reason = "at any moment".to_owned();
                assert_eq!(*error.failure(), StageFailure::Cancelled { reason });
                cancelled += 1;
            }
        }
    }
    assert!(cancelled >= 20, "{cancelled}");
    let all = Stage::tasks(8).run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    assert_eq!(all.wait().unwrap().len(), 8, "every slot came back");
}

#[test]
fn l7_a_shutdown_in_the_middle_answers_every_stage() {
    for round in 0..10 {
        let runtime = local(8);
        let run = |index: usize| {
            Stage::tasks(1 + index % 8).run(&runtime, async |ctx| {
                loop {
                    ctx.barrier().await?;
                }
            })
        };
        let handles: Vec<phalanx::StageHandle<()>> = (0..20).map(run).collect();
        (0..round * 50).for_each(|_| std::thread::yield_now());
        handles[3].kill_task(0, "at the same time");
        runtime.shutdown_blocking(Duration::from_secs(60)).unwrap();
        for handle in handles {
            assert_eq!(*handle.wait().unwrap_err().failure(), StageFailure::Shutdown);
        }
    }
}

//! Calls that meet the gang, inside tasks: rows A.

mod cut_short;
mod kills;

use crate::observe::{cluster, local, no_pause, some_time, start_without_time, until};
use bytes::Bytes;
use phalanx::{
    BarrierTaskContext, CollectiveError, ExecutorResources, ReduceOp, Runtime, RuntimeEvent, Stage,
    SyncMethod, TaskResult,
};
use std::time::{Duration, Instant};

/// When a task came to a sync and when it left it.
type Stay = (Instant, Instant);

/// In every round the last came before the first left, and all left together.
fn met(tasks: &[Vec<Stay>]) {
    for round in 0..tasks[0].len() {
        let came = tasks.iter().map(|stays| stays[round].0).max().unwrap();
        let left = || tasks.iter().map(|stays| stays[round].1);
        let (first, last) = (left().min().unwrap(), left().max().unwrap());
        assert!(came <= first, "round {round}: one left {:?} too early", came - first);
        let spread = last - first;
        assert!(spread <= Duration::from_secs(1), "round {round}: they left {spread:?} apart");
    }
}

async fn come_late(ctx: &BarrierTaskContext) -> TaskResult<Stay> {
    tokio::time::sleep(some_time()).await;
    let came = Instant::now();
    ctx.barrier().await?;
    Ok((came, Instant::now()))
}

fn come_late_blocking(ctx: &phalanx::blocking::BarrierTaskContext) -> TaskResult<Stay> {
    std::thread::sleep(some_time());
    let came = Instant::now();
    ctx.barrier()?;
    Ok((came, Instant::now()))
}

fn stage(tasks: usize) -> Stage<phalanx::Tasks> {
    Stage::tasks(tasks).max_attempts(1)
}

#[test]
fn a1_global_sync() {
    let runtime = cluster(4, 1);
    let handle = stage(4).run(&runtime, async |ctx| Ok(vec![come_late(&ctx).await?]));
    met(&handle.wait().unwrap());
}

#[test]
fn a1_global_sync_blocking() {
    let runtime = cluster(4, 1);
    let handle = stage(4).run_blocking(&runtime, |ctx| Ok(vec![come_late_blocking(&ctx)?]));
    met(&handle.wait().unwrap());
}

#[test]
fn a1_global_sync_of_any_size() {
    let runtime = local(33);
    for tasks in [1, 2, 3, 8, 33] {
        let handle = stage(tasks).run(&runtime, async |ctx| Ok(vec![come_late(&ctx).await?]));
        let stays = handle.wait().unwrap();
        assert_eq!(stays.len(), tasks);
        met(&stays);
    }
}

/// Spark's tasks look once a second whether they are released; ours are woken.
#[test]
fn a1_a_release_waits_for_no_timer() {
    let runtime = start_without_time(no_pause(), vec![ExecutorResources::new(1); 4]);
    let handle = stage(4).run_blocking(&runtime, |ctx| {
        let stays = [(); 5].map(|()| come_late_blocking(&ctx));
        stays.into_iter().collect()
    });
    met(&handle.wait().unwrap());
}

#[test]
fn a2_all_gather_shares_messages() {
    let runtime = cluster(4, 1);
    let handle = stage(4).run(&runtime, async |ctx| {
        tokio::time::sleep(some_time()).await;
        Ok(ctx.all_gather(&ctx.partition_id().to_string()).await?)
    });
    assert_eq!(handle.wait().unwrap(), vec![["0", "1", "2", "3"]; 4]);
}

#[test]
fn a2_all_gather_shares_messages_blocking() {
    let runtime = cluster(4, 1);
    let handle = stage(4).run_blocking(&runtime, |ctx| {
        std::thread::sleep(some_time());
        Ok(ctx.all_gather(&ctx.partition_id().to_string())?)
    });
    assert_eq!(handle.wait().unwrap(), vec![["0", "1", "2", "3"]; 4]);
}

/// By number, not by text: 10 comes after 9.
#[test]
fn a2_all_gather_of_more_than_ten_is_in_partition_order() {
    let runtime = local(12);
    let handle = stage(12).run(&runtime, async |ctx| {
        tokio::time::sleep(some_time()).await;
        Ok(ctx.all_gather(&ctx.partition_id().to_string()).await?)
    });
    let texts: Vec<String> = (0..12).map(|partition: u32| partition.to_string()).collect();
    assert_eq!(handle.wait().unwrap(), vec![texts; 12]);
}

async fn call(ctx: &BarrierTaskContext, method: SyncMethod) -> Result<(), CollectiveError> {
    match method {
        SyncMethod::Barrier => Ok(ctx.barrier().await?),
        SyncMethod::AllGather => ctx.all_gather(&1_u8).await.map(drop),
        SyncMethod::Broadcast => ctx.broadcast(0, Some(&1_u8)).await.map(drop),
        SyncMethod::AllReduce => ctx.all_reduce(ReduceOp::Sum, &1_u32).await.map(drop),
    }
}

#[test]
fn a3_different_calls_in_one_sync() {
    let runtime = cluster(4, 1);
    let methods =
        [SyncMethod::Barrier, SyncMethod::AllGather, SyncMethod::Broadcast, SyncMethod::AllReduce];
    for one in methods {
        for others in methods.into_iter().filter(|others| *others != one) {
            let handle = stage(4).run(&runtime, async move |ctx| {
                Ok(call(&ctx, if ctx.rank() == 0 { one } else { others }).await?)
            });
            let text = handle.wait().unwrap_err().to_string();
            assert!(text.contains("different sync calls met in epoch 0: partition"), "{text}");
            assert!(text.contains(&one.to_string()), "{one}: {text}");
            assert!(text.contains(&others.to_string()), "{others}: {text}");
        }
    }
}

#[test]
fn a3_different_calls_in_one_sync_blocking() {
    let runtime = cluster(4, 1);
    let handle = stage(4).run_blocking(&runtime, |ctx| match ctx.rank() {
        0 => Ok(ctx.barrier()?),
        rank => Ok(ctx.all_gather(&rank).map(drop)?),
    });
    let text = handle.wait().unwrap_err().to_string();
    assert!(text.contains("different sync calls met in epoch 0: partition"), "{text}");
    assert!(text.contains("barrier()") && text.contains("all_gather()"), "{text}");
}

/// What was released, as the events tell it.
fn releases(runtime: &Runtime, run: impl FnOnce()) -> Vec<(u64, SyncMethod)> {
    let mut events = runtime.subscribe();
    run();
    let mut released = Vec::new();
    until(&mut events, |event| {
        if let RuntimeEvent::RoundReleased { epoch, method, .. } = event {
            released.push((epoch.0, *method));
        }
        matches!(event, RuntimeEvent::StageCompleted { .. }).then_some(())
    });
    released
}

#[test]
fn a4_barrier_then_all_gather() {
    let runtime = cluster(4, 1);
    let released = releases(&runtime, || {
        let handle = stage(4).run(&runtime, async |ctx| {
            let first = come_late(&ctx).await?;
            tokio::time::sleep(some_time()).await;
            let came = Instant::now();
            let ranks = ctx.all_gather(&ctx.rank()).await?;
            assert_eq!(ranks, [0, 1, 2, 3]);
            Ok(vec![first, (came, Instant::now())])
        });
        met(&handle.wait().unwrap());
    });
    assert_eq!(released, [(0, SyncMethod::Barrier), (1, SyncMethod::AllGather)]);
}

#[test]
fn a5_several_barriers_in_one_task() {
    let runtime = cluster(4, 1);
    let released = releases(&runtime, || {
        let handle = stage(4)
            .run(&runtime, async |ctx| Ok(vec![come_late(&ctx).await?, come_late(&ctx).await?]));
        met(&handle.wait().unwrap());
    });
    assert_eq!(released, [(0, SyncMethod::Barrier), (1, SyncMethod::Barrier)]);
}

#[test]
fn a5_several_barriers_in_one_task_blocking() {
    let runtime = cluster(4, 1);
    let released = releases(&runtime, || {
        let handle = stage(4).run_blocking(&runtime, |ctx| {
            Ok(vec![come_late_blocking(&ctx)?, come_late_blocking(&ctx)?])
        });
        met(&handle.wait().unwrap());
    });
    assert_eq!(released, [(0, SyncMethod::Barrier), (1, SyncMethod::Barrier)]);
}

/// The next syncs change nothing in what an earlier one gave.
#[test]
fn a13_gathered_messages_outlive_the_next_syncs() {
    let runtime = cluster(4, 1);
    let handle = stage(4).run(&runtime, async |ctx| {
        let message = |text: &str| Bytes::from(format!("{text} of {}", ctx.rank()));
        tokio::time::sleep(some_time()).await;
        let texts = ctx.all_gather(&ctx.partition_id().to_string()).await?;
        let first = ctx.all_gather_bytes(message("first")).await?;
        ctx.barrier().await?;
        let second = ctx.all_gather_bytes(message("second")).await?;
        ctx.barrier().await?;
        Ok((texts, first, second))
    });
    for (texts, first, second) in handle.wait().unwrap() {
        assert_eq!(texts, ["0", "1", "2", "3"]);
        assert_eq!(*first, ["first of 0", "first of 1", "first of 2", "first of 3"]);
        assert_eq!(*second, ["second of 0", "second of 1", "second of 2", "second of 3"]);
    }
}

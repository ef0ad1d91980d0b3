//! Many tasks and many gangs on a small machine.

use phalanx::{Config, Runtime, Stage};
use std::time::Duration;

fn runtime(slots: u32) -> Runtime {
    let config = Config { stage_retry_delay: Duration::ZERO, slots, ..Config::default() };
    Runtime::start(config).unwrap()
}

#[test]
fn ten_thousand_async_tasks_meet_ten_times() {
    let runtime = runtime(10_000);
    let stage = Stage::tasks(10_000).run(&runtime, async |ctx| {
        for _ in 0..10 {
            ctx.barrier().await?;
        }
        Ok(ctx.rank())
    });
    assert!(stage.wait().unwrap().into_iter().eq(0..10_000));
}

#[test]
fn two_hundred_blocking_tasks_meet_ten_times() {
    let runtime = runtime(200);
    let stage = Stage::tasks(200).run_blocking(&runtime, |ctx| {
        for _ in 0..10 {
            ctx.barrier()?;
        }
        Ok(ctx.rank())
    });
    assert!(stage.wait().unwrap().into_iter().eq(0..200));
}

#[test]
fn forty_thousand_tasks_gather_more_than_an_i16_can_count() {
    let tasks = 40_000;
    let runtime = runtime(tasks);
    let stage = Stage::tasks(tasks as usize).run(&runtime, async |ctx| {
        let all = ctx.all_gather_bytes(ctx.rank().to_le_bytes().to_vec().into()).await?;
        Ok(all.len())
    });
    assert!(stage.wait().unwrap().into_iter().all(|count| count == tasks as usize));
}

#[test]
fn many_gangs_at_a_time_do_not_touch_each_others_rounds() {
    let runtime = runtime(160);
    let gangs: Vec<_> = (0..100_usize)
        .map(|gang| {
            Stage::tasks(16).run(&runtime, async move |ctx| {
                for round in 0..20_usize {
                    let all = ctx.all_gather(&(gang, round, ctx.rank())).await?;
                    assert!(all.into_iter().eq((0..16).map(|rank| (gang, round, rank))));
                }
                Ok(())
            })
        })
        .collect();
    for gang in gangs {
        gang.wait().unwrap();
    }
}

#[test]
fn gangs_that_fail_at_random_moments_all_end_and_leave_no_slot_taken() {
    let runtime = runtime(12);
    let gangs: Vec<_> = (0..60_u32)
        .map(|gang| {
            Stage::tasks(3 + gang as usize % 7).max_attempts(3).run(&runtime, async move |ctx| {
                let fails_at = (gang * 7 + ctx.stage_attempt_number() * 5) % 11;
                for round in 0..8 {
                    if round == fails_at && ctx.rank() as u32 == gang % 3 {
                        return Err(format!("gang {gang} at round {round}").into());
                    }
                    ctx.barrier().await?;
                }
                Ok(())
            })
        })
        .collect();
    for (gang, handle) in gangs.into_iter().enumerate() {
        if let Err(error) = handle.wait() {
            let cause = error.first_cause().unwrap().to_string();
            assert!(cause.contains(&format!("failed: gang {gang} at round ")), "{cause}");
        }
    }
    let all = Stage::tasks(12).run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    assert_eq!(all.wait().unwrap().len(), 12, "every slot came back");
    let executors = pollster::block_on(runtime.status()).executors;
    assert_eq!(executors[0].running, 0);
}

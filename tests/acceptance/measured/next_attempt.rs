//! From a failure to the next attempt: K4 to K6, K12, K13.

use super::{is_within, scheduler_timers, until_missing};
use crate::observe::{Gate, advance, is_idle, launched_in, local, no_pause, start_without_time};
use crate::observe::{story, until};
use phalanx::protocol::SchedulerTimer;
use phalanx::{
    Config, ExecutorResources, PartitionId, Runtime, RuntimeEvent, Stage, StageFailure,
    StageHandle, StagePhase, TaskResult,
};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

const MILLISECOND: Duration = Duration::from_millis(1);

/// A task that cannot read its input throws while its peer waits in `barrier()`.
fn cannot_read(runtime: &Runtime, blocking: bool) -> StageHandle<u32> {
    let gate = Gate::closed();
    let reads = gate.clone();
    let stage = Stage::tasks(2);
    let handle = if blocking {
        stage.run_blocking(runtime, move |ctx| {
            if ctx.rank() == 0 && ctx.stage_attempt_number() == 0 {
                reads.pass_blocking();
                return Err("lost its input".into());
            }
            ctx.barrier()?;
            Ok(ctx.stage_attempt_number())
        })
    } else {
        stage.run(runtime, async move |ctx| {
            if ctx.rank() == 0 && ctx.stage_attempt_number() == 0 {
                reads.pass().await;
                return Err("lost its input".into());
            }
            ctx.barrier().await?;
            Ok(ctx.stage_attempt_number())
        })
    };
    until_missing(&handle, "0");
    gate.open();
    handle
}

/// No time passes: neither the sync's timeout nor a poll can be what ends the wait.
#[test]
fn k4_a_gang_on_all_slots_does_not_hang_when_a_task_loses_its_input() {
    let runtime = start_without_time(no_pause(), vec![ExecutorResources::new(2)]);
    for blocking in [false, true] {
        assert_eq!(cannot_read(&runtime, blocking).wait().unwrap(), [1, 1]);
    }
    assert!(is_idle(&runtime));
}

#[test]
fn k5_nor_does_it_leave_a_slot_taken_if_there_are_more() {
    let runtime = start_without_time(no_pause(), vec![ExecutorResources::new(6)]);
    for blocking in [false, true] {
        for _ in 0..20 {
            assert_eq!(cannot_read(&runtime, blocking).wait().unwrap(), [1, 1]);
            assert!(is_idle(&runtime));
        }
    }
    let all = Stage::tasks(6).run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    assert_eq!(all.wait().unwrap().len(), 6, "every slot came back");
}

/// A task returns just as another throws, in any order.
#[test]
fn k6_a_success_beside_a_failure_does_not_make_the_next_gang_smaller() {
    for tasks in [2, 16] {
        let runtime = local(tasks as u32);
        let mut events = runtime.subscribe();
        for round in 0..60 {
            let handle = Stage::tasks(tasks).run(&runtime, async move |ctx| {
                if ctx.stage_attempt_number() > 0 {
                    return Ok(ctx.all_gather(&ctx.rank()).await?.len());
                }
                for _ in 0..(round + ctx.rank()) % 3 {
                    tokio::task::yield_now().await;
                }
                if ctx.rank() == round % tasks { Err("boom".into()) } else { Ok(0) }
            });
            let id = handle.id();
            assert_eq!(handle.wait().unwrap(), vec![tasks; tasks]);
            assert_eq!(launched_in(&story(&mut events, id), id, 1).len(), tasks);
        }
    }
}

/// Its delay is the default; time is moved by hand.
fn always_fails(runtime: &Runtime) -> StageHandle<()> {
    Stage::tasks(2).run(runtime, async |ctx| {
        if ctx.rank() == 1 {
            return TaskResult::Err(format!("try {}", ctx.stage_attempt_number()).into());
        }
        Ok(ctx.barrier().await?)
    })
}

#[test]
fn k12_a_gang_that_always_fails_is_tried_four_times_with_the_delay_between() {
    let runtime = start_without_time(Config::default(), vec![ExecutorResources::new(2)]);
    let delay = runtime.config().stage_retry_delay;
    assert_eq!(delay, 200 * MILLISECOND, "the default");
    let handle = always_fails(&runtime);
    let retry = || {
        let timers = scheduler_timers(&runtime).into_iter();
        let mut retries = timers.filter_map(|(timer, due)| match timer {
            SchedulerTimer::Retry(next) => Some((next.attempt, due)),
            _ => None,
        });
        retries.next()
    };
    for next in 1..4 {
        let due = loop {
            match retry() {
                Some((attempt, due)) if attempt == next => break due,
                _ => std::thread::yield_now(),
            }
        };
        assert_eq!(due, delay);
        advance(&runtime, delay - MILLISECOND);
        // Once the killed tasks have ended.
        let status = loop {
            let status = pollster::block_on(handle.status()).unwrap();
            if status.phase == StagePhase::BackingOff {
                break status;
            }
            std::thread::yield_now();
        };
        assert_eq!(status.failures, next);
        advance(&runtime, MILLISECOND);
    }
    let error = handle.wait().unwrap_err();
    assert!(matches!(error.failure(), StageFailure::AttemptsExhausted { attempts: 4, .. }));
    assert!(error.to_string().ends_with("failed: try 3"), "{error}");
    assert_eq!(retry(), None);
}

#[test]
fn k12_a_cycle_takes_the_delay_and_less_than_50_ms_more() {
    let runtime = Runtime::start(Config { slots: 2, ..Config::default() }).unwrap();
    let delay = runtime.config().stage_retry_delay;
    let mut events = runtime.subscribe();
    is_within(delay + 50 * MILLISECOND, || {
        let handle = always_fails(&runtime);
        let id = handle.id();
        assert!(handle.wait().is_err());
        let mut started = Vec::new();
        loop {
            let record = events.next_blocking().unwrap();
            match record.event {
                RuntimeEvent::AttemptStarted { .. } => started.push(record.since_start),
                RuntimeEvent::StageCompleted { stage, .. } if stage == id => break,
                _ => {}
            }
        }
        assert_eq!(started.len(), 4);
        let cycles: Vec<Duration> = started.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(cycles.iter().all(|cycle| *cycle >= delay), "{cycles:?}");
        cycles.into_iter().min().unwrap()
    });
}

/// A gang whose partition 1 ignores its kill in the first attempt, until the gate is opened. The
/// channel has the moment at which it ended, and that at which the next attempt began.
fn ignores_its_kill(runtime: &Runtime, gate: &Gate) -> (StageHandle<u32>, mpsc::Receiver<Instant>) {
    let (tell, told) = mpsc::channel();
    let (tell, in_task) = (Mutex::new(tell), gate.clone());
    let handle = Stage::tasks(2).run_blocking(runtime, move |ctx| {
        if ctx.stage_attempt_number() > 0 {
            ctx.barrier()?;
            if ctx.rank() == 0 {
                tell.lock().unwrap().send(Instant::now())?;
            }
            return Ok(ctx.stage_attempt_number());
        }
        // So that both have begun; whether it was a kill that ended it does not matter.
        drop(ctx.barrier());
        if ctx.rank() == 0 {
            return Err("boom".into());
        }
        ctx.wait_killed();
        in_task.pass_blocking();
        tell.lock().unwrap().send(Instant::now())?;
        Ok(900)
    });
    (handle, told)
}

fn until_overdue_is_set(runtime: &Runtime) {
    until_set(runtime, |timer| matches!(timer, SchedulerTimer::KillOverdue(_)));
}

fn until_set(runtime: &Runtime, wanted: fn(&SchedulerTimer) -> bool) {
    while !scheduler_timers(runtime).iter().any(|(timer, _)| wanted(timer)) {
        std::thread::yield_now();
    }
}

#[test]
fn k13_who_ignores_its_kill_is_named_by_event_and_status() {
    let runtime = start_without_time(no_pause(), vec![ExecutorResources::new(2)]);
    let (mut events, gate) = (runtime.subscribe(), Gate::closed());
    let (handle, _told) = ignores_its_kill(&runtime, &gate);
    until_overdue_is_set(&runtime);
    advance(&runtime, Duration::from_secs(5));
    let named = until(&mut events, |event| match event {
        RuntimeEvent::TaskIgnoresKill { partition, attempt, .. } => {
            Some((*partition, attempt.attempt))
        }
        _ => None,
    });
    assert_eq!(named, (PartitionId(1), 0));
    advance(&runtime, Duration::from_secs(1));
    let status = pollster::block_on(handle.status()).unwrap();
    assert_eq!(status.attempt.attempt, 0);
    assert_eq!(status.phase.to_string(), "stopping: waits for the killed tasks of partition 1");
    assert!(
        status.tasks[0].ignores_kill && status.last_cause.unwrap().to_string().ends_with("boom")
    );
    gate.open();
    assert_eq!(handle.wait().unwrap(), [1, 1]);
}

/// From the end of the task that ignored its kill to the first round of the next attempt.
fn begins_after_zombie(config: Config) -> Duration {
    let runtime = Runtime::start(Config { slots: 2, ..config }).unwrap();
    let gate = Gate::closed();
    let (handle, told) = ignores_its_kill(&runtime, &gate);
    let is_stopping = || {
        let status = pollster::block_on(handle.status());
        status.is_some_and(
            |it| matches!(it.phase, StagePhase::Stopping { waiting_for } if waiting_for.len() == 1),
        )
    };
    while !is_stopping() {
        std::thread::yield_now();
    }
    gate.open();
    let (ended, begun) = (told.recv().unwrap(), told.recv().unwrap());
    assert_eq!(handle.wait().unwrap(), [1, 1], "nothing of the zombie is in the result");
    begun - ended
}

#[test]
fn k13_the_next_attempt_begins_less_than_50_ms_after_the_zombie_has_ended() {
    is_within(50 * MILLISECOND, || begins_after_zombie(no_pause()));
}

#[test]
fn k13_the_delay_before_a_retry_runs_while_the_zombie_is_waited_for() {
    let runtime = start_without_time(Config::default(), vec![ExecutorResources::new(2)]);
    let gate = Gate::closed();
    let (handle, _told) = ignores_its_kill(&runtime, &gate);
    until_set(&runtime, |timer| matches!(timer, SchedulerTimer::Retry(_)));
    advance(&runtime, Duration::from_secs(6));
    gate.open();
    while let Some(status) = pollster::block_on(handle.status()) {
        let late = "6 s after the failure, its delay of 200 ms is over";
        assert_ne!(status.phase, StagePhase::BackingOff, "{late}");
        std::thread::yield_now();
    }
    assert_eq!(handle.wait().unwrap(), [1, 1]);
}

#[test]
fn k13_after_the_zombie_deadline_its_executor_is_replaced() {
    let config = Config { kill_zombie_deadline: Some(Duration::from_secs(8)), ..no_pause() };
    let runtime = start_without_time(config, vec![ExecutorResources::new(2)]);
    let (mut events, gate) = (runtime.subscribe(), Gate::closed());
    let (handle, _told) = ignores_its_kill(&runtime, &gate);
    until_overdue_is_set(&runtime);
    advance(&runtime, Duration::from_secs(8) - MILLISECOND);
    let status = pollster::block_on(handle.status()).unwrap();
    assert!(matches!(status.phase, StagePhase::Stopping { .. }), "{}", status.phase);
    advance(&runtime, MILLISECOND);
    assert_eq!(handle.wait().unwrap(), [1, 1], "though the zombie has not ended");
    let reason = until(&mut events, |event| match event {
        RuntimeEvent::ExecutorLost { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("does not heed its kill"), "{reason}");
    gate.open();
}

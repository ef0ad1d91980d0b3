//! Slots that are few, busy or missing: K7, K15.

use super::PATIENCE;
use crate::observe::{advance, deferred, is_idle, is_slot_check, no_pause};
use crate::observe::{start_without_time, until, until_armed};
use phalanx::{Config, ExecutorResources, Runtime, Stage, StageFailure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn k7_streams_of_small_stages_do_not_starve_a_gang() {
    let config = Config { slots: 4, reserve_after: Duration::from_millis(5), ..no_pause() };
    let runtime = Runtime::start(config).unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let streams: Vec<_> = (0..3)
        .map(|_| {
            let (runtime, stop, done) = (runtime.clone(), stop.clone(), done.clone());
            std::thread::spawn(move || {
                let small = || {
                    Stage::tasks(1).plain().run(&runtime, async |_| {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        Ok(())
                    })
                };
                // The next are in line before one is over.
                let mut ahead: Vec<_> = (0..4).map(|_| small()).collect();
                while !stop.load(Ordering::SeqCst) {
                    ahead.push(small());
                    ahead.remove(0).wait().unwrap();
                    done.fetch_add(1, Ordering::SeqCst);
                }
                for last in ahead {
                    last.wait().unwrap();
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let before = done.load(Ordering::SeqCst);
        while done.load(Ordering::SeqCst) < before + 3 {
            std::thread::yield_now();
        }
        let gang = Stage::tasks(4).run(&runtime, async |ctx| Ok(ctx.barrier().await?));
        let start = Instant::now();
        while gang.outcome().is_none() {
            assert!(start.elapsed() < PATIENCE, "starved, while the streams went on");
            std::thread::yield_now();
        }
        assert_eq!(gang.wait().unwrap().len(), 4);
    }
    stop.store(true, Ordering::SeqCst);
    for stream in streams {
        stream.join().unwrap();
    }
    assert!(is_idle(&runtime));
}

/// A gang of three on two slots, as measured: checked every second, three failures tolerated.
fn two_slots() -> Runtime {
    let config =
        Config { slot_check_interval: SECOND, slot_check_max_failures: 3, ..Config::default() };
    start_without_time(config, vec![ExecutorResources::new(2)])
}

fn until_check(runtime: &Runtime, number: u32) {
    until_armed(runtime, is_slot_check(number));
}

#[test]
fn k15_a_gang_that_does_not_fit_fails_after_three_intervals_and_not_before() {
    let runtime = two_slots();
    let handle = Stage::tasks(3).run(&runtime, async |_| Ok(()));
    for check in 1..=3 {
        until_check(&runtime, check);
        advance(&runtime, SECOND - Duration::from_nanos(1));
        let status = pollster::block_on(handle.status()).unwrap();
        assert_eq!(status.phase.name(), "deferred", "check {check}");
        advance(&runtime, Duration::from_nanos(1));
    }
    let error = handle.wait().unwrap_err();
    let expected = StageFailure::NotEnoughSlots {
        required: 3,
        available: 2,
        checks: 4,
        interval: SECOND,
        last_cause: None,
    };
    assert_eq!(*error.failure(), expected);
    assert!(is_idle(&runtime));
}

#[test]
fn k15_the_defaults_are_sparks() {
    let config = Config::default();
    let check = (config.slot_check_interval, config.slot_check_max_failures);
    assert_eq!(check, (15 * SECOND, 40));
}

#[test]
fn k15_capacity_that_arrives_is_used_at_once_though_no_time_passes() {
    for checks_before in [0, 2] {
        let runtime = two_slots();
        let mut events = runtime.subscribe();
        let handle = Stage::tasks(3).run(&runtime, async |ctx| Ok(ctx.barrier().await?));
        for check in 0..checks_before {
            until_check(&runtime, check + 1);
            advance(&runtime, SECOND);
        }
        let told = until(&mut events, |event| {
            deferred(event).filter(|(.., left)| *left == 3 - checks_before)
        });
        assert_eq!(told, (3, 2, 3 - checks_before));
        pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
        assert_eq!(handle.wait().unwrap().len(), 3);
        // The check that was still to come finds nothing to do.
        advance(&runtime, 10 * SECOND);
        assert!(is_idle(&runtime));
    }
}

//! The loss of an executor, from `kill -9` on.

use super::cluster;
use crate::Bench;
use crate::measure::{Fallible, Samples, Spread, micros};
use crate::row::{Bar, Row};
use phalanx::{BarrierTaskContext, Config, RuntimeEvent, Stage, StageControl, TaskResult};
use std::process::Command;
use std::time::{Duration, Instant};

/// Says which process it is in, meets the others and then waits for its end, which in the next
/// attempt is at once.
pub async fn meet(ctx: BarrierTaskContext, attempts: u32) -> TaskResult<u32> {
    let processes = ctx.all_gather(&std::process::id()).await?;
    let victim = processes[processes.len() - 1];
    ctx.report_progress(u64::from(victim), u64::from(ctx.stage_attempt_number()));
    ctx.barrier().await?;
    if ctx.stage_attempt_number() + 1 < attempts {
        ctx.killed().await;
        ctx.check_killed()?;
    }
    Ok(victim)
}

const WHAT: [&str; 2] = ["remote/loss/detected", "remote/loss/next-barrier"];

const SILENT: &str = "remote/loss/silent";

/// Of the row above.
const LIMIT: Duration = Duration::from_secs(2);

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    killed(bench)?;
    stopped(bench)
}

/// One that is stopped is as silent as one without power.
fn stopped(bench: &mut Bench) -> Fallible<()> {
    if !bench.wants(SILENT, 2, 0) {
        return Ok(());
    }
    let mut samples = Samples::new();
    for _ in 0..if bench.effort.quick { 1 } else { 3 } {
        let config = Config { link_heartbeat_timeout: LIMIT, ..super::config() };
        let runtime = super::cluster_with(config, 2, 1, None)?;
        let mut events = runtime.subscribe();
        let handle = Stage::named("meet", vec![2_u32; 2]).run::<u32>(&runtime);
        let start = signal("-STOP", victim_of(&handle))?;
        while !matches!(events.next_blocking()?.event, RuntimeEvent::ExecutorLost { .. }) {}
        samples.push(micros(start.elapsed()));
        handle.wait()?;
    }
    let bar = Bar::Ours(micros(LIMIT + Duration::from_secs(1)));
    let row = Row::new(SILENT, 2, Spread::of(samples)).bar(bar);
    bench.add(row.note("SIGSTOP; link.heartbeat_timeout 2 s, interval 1 s"));
    Ok(())
}

/// The process of the gang's last task, once all have met.
fn victim_of(handle: &StageControl) -> u64 {
    loop {
        let progress = handle.progress();
        match progress.iter().flatten().next() {
            Some(it) if progress.iter().all(Option::is_some) => return it.done,
            Some(_) | None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// When it was sent.
fn signal(signal: &str, process: u64) -> Fallible<Instant> {
    let start = Instant::now();
    let sent = Command::new("kill").args([signal, &process.to_string()]).status()?;
    if !sent.success() {
        return Err(format!("process {process} got no signal").into());
    }
    Ok(start)
}

fn killed(bench: &mut Bench) -> Fallible<()> {
    if !WHAT.iter().any(|what| bench.wants(what, 4, 0)) {
        return Ok(());
    }
    let kills = if bench.effort.quick { 5 } else { 20 };
    // One more than the gang needs: a slot is free when one is lost.
    let runtime = cluster(5, 1, None)?;
    let mut events = runtime.subscribe();
    let (mut detected, mut met) = (Samples::new(), Samples::new());
    for _ in 0..kills {
        // The one that was killed last has been replaced.
        while pollster::block_on(runtime.status()).executors.len() < 5 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let stage = Stage::named("meet", vec![2_u32; 4]).max_infrastructure_failures(1);
        let handle = stage.run::<u32>(&runtime);
        let start = signal("-9", victim_of(&handle))?;
        let mut is_lost = false;
        loop {
            match events.next_blocking()?.event {
                RuntimeEvent::ExecutorLost { .. } => {
                    is_lost = true;
                    detected.push(micros(start.elapsed()));
                }
                // The second of the next attempt's is the first that all have passed.
                RuntimeEvent::RoundReleased { attempt, .. } if is_lost && attempt.attempt == 1 => {
                    met.push(micros(start.elapsed()));
                    break;
                }
                _ => {}
            }
        }
        handle.wait()?;
    }
    let limits = [50_000.0, 200_000.0];
    for (what, (samples, limit)) in WHAT.into_iter().zip([detected, met].into_iter().zip(limits)) {
        let row = Row::new(what, 4, Spread::of(samples)).bar(Bar::Ours(limit));
        bench.add(row.note(format!("{kills} kills of a process, retry_delay 0")));
    }
    Ok(())
}

//! The loss of an executor, from `kill -9` on.

use super::cluster;
use crate::Bench;
use crate::measure::{Fallible, Samples, Spread, micros};
use crate::row::{Bar, Row};
use phalanx::{BarrierTaskContext, RuntimeEvent, Stage, TaskResult};
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

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    if !WHAT.iter().any(|what| bench.wants(what, 4, 0)) {
        return Ok(());
    }
    let kills = if bench.effort.quick { 5 } else { 20 };
    // One more than the gang needs: a slot is free when one is lost.
    let runtime = cluster(5, 1, None)?;
    let mut events = runtime.subscribe();
    let (mut detected, mut met) = (Samples::new(), Samples::new());
    for _ in 0..kills {
        let stage = Stage::named("meet", vec![2_u32; 4]).max_infrastructure_failures(1);
        let handle = stage.run::<u32>(&runtime);
        let victim = loop {
            let progress = handle.progress();
            match progress.iter().flatten().next() {
                Some(it) if progress.iter().all(Option::is_some) => break it.done,
                Some(_) | None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let start = Instant::now();
        let killed = Command::new("kill").args(["-9", &victim.to_string()]).status()?;
        if !killed.success() {
            return Err(format!("process {victim} could not be killed").into());
        }
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

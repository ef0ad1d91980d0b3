//! How soon 63 tasks that wait in `barrier()` know that the 64th cannot come: from the moment at
//! which its code ends (or its kill is asked for) to the last of the 63 errors.
//!
//! `cargo bench --bench fail_together`

use phalanx::{Runtime, Stage};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const TASKS: usize = 64;
const CULPRIT: usize = 17;
const RUNS: usize = 200;

#[derive(Clone, Copy, Debug)]
enum End {
    Returns,
    Fails,
    Panics,
    IsKilled,
}

fn main() -> Result<(), phalanx::BoxError> {
    let runtime = Runtime::with_slots(TASKS as u32)?;
    println!("{:>9} {:>10} {:>10} {:>10}", "", "p50", "p99", "max");
    for end in [End::Returns, End::Fails, End::Panics, End::IsKilled] {
        let mut times = Vec::new();
        for _ in 0..RUNS {
            times.push(until_the_last_is_told(&runtime, end)?);
        }
        times.sort();
        let [median, most, all] = [RUNS / 2, RUNS * 99 / 100, RUNS - 1].map(|at| times[at]);
        println!("{:>9} {median:>10.1?} {most:>10.1?} {all:>10.1?}", format!("{end:?}"));
    }
    Ok(())
}

fn until_the_last_is_told(runtime: &Runtime, end: End) -> Result<Duration, phalanx::BoxError> {
    let waiting = Arc::new(AtomicU32::new(0));
    let entering = waiting.clone();
    let (tell, told) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let stage = Stage::tasks(TASKS).max_attempts(1);
    let handle = stage.run_blocking(runtime, move |ctx| {
        if ctx.rank() != CULPRIT {
            entering.fetch_add(1, Ordering::SeqCst);
            let error = ctx.barrier().expect_err("the culprit never comes");
            assert!(error.to_string().contains("partition 17"), "{error}");
            tell.send(Instant::now())?;
            return Ok(());
        }
        match end {
            End::IsKilled => ctx.wait_killed(),
            End::Returns | End::Fails | End::Panics => {
                gate.lock().map_err(|error| error.to_string())?.recv()?;
            }
        }
        match end {
            End::Returns => Ok(()),
            End::Fails | End::IsKilled => Err("out of rows".into()),
            // Without the hook, which prints.
            End::Panics => std::panic::resume_unwind(Box::new("out of rows")),
        }
    });
    while waiting.load(Ordering::SeqCst) < TASKS as u32 - 1 {
        std::thread::yield_now();
    }
    // The last few are on their way from the counter into barrier().
    std::thread::sleep(Duration::from_millis(2));
    let start = Instant::now();
    match end {
        End::IsKilled => handle.kill_task(CULPRIT, "out of rows"),
        End::Returns | End::Fails | End::Panics => go.send(())?,
    }
    let last = (1..TASKS).map(|_| told.recv()).collect::<Result<Vec<_>, _>>()?.into_iter().max();
    // Of no interest here: it fails in three of four cases.
    drop(handle.wait());
    Ok(last.unwrap_or(start) - start)
}

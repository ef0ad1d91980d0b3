//! Rounds of `barrier()`, async tasks.

use crate::measure::{Fallible, alternate};
use crate::row::{Bar, Row};
use crate::{Bench, ours, reference};

const SIZES: [usize; 7] = [2, 4, 16, 64, 1_024, 10_000, 100_000];
const TOKIO: &str = "tokio::sync::Barrier";
const ROUND_TRIP: &str = "message round trip, tokio";

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    for threads in [2, 1] {
        for n in SIZES {
            let what = name(threads);
            if bench.wants(&what, n, 0) {
                if threads == 2 && n <= 16 {
                    few_on_two_threads(bench, &what, n)?;
                } else {
                    many(bench, &what, n, threads)?;
                }
            }
        }
        growth(bench, &name(threads));
    }
    Ok(())
}

pub fn name(threads: usize) -> String {
    format!("barrier/async/{threads}-thread{}", if threads == 1 { "" } else { "s" })
}

/// For the smallest gangs the hops between threads are all there is: they are measured, too.
fn few_on_two_threads(bench: &mut Bench, what: &str, n: usize) -> Fallible<()> {
    let (runtime, tokio) = (ours::runtime(n, 2)?, reference::runtime(2)?);
    let mut threads = 0;
    let [ours, barrier, trip, parked] = alternate(
        bench.effort,
        [
            &mut |plan| {
                let told = ours::barrier(&runtime, n, plan)?;
                threads = told.threads;
                Ok(told.samples)
            },
            &mut |plan| reference::tokio_barrier(&tokio, n, plan),
            &mut reference::tokio_round_trip,
            &mut reference::std_round_trip,
        ],
    )?;
    let parked = parked.p50;
    let note = format!("tasks on {threads} of 2 threads; of std channels {parked:.2} µs");
    bench.add(Row::new(what, n, ours).against(TOKIO, barrier));
    let row = Row::new(what, n, ours).against(ROUND_TRIP, trip);
    bench.add(row.bar(Bar::Ratio(1.5)).note(note));
    Ok(())
}

fn many(bench: &mut Bench, what: &str, n: usize, threads: usize) -> Fallible<()> {
    let (runtime, tokio) = (ours::runtime(n, threads)?, reference::runtime(threads)?);
    let mut used = 0;
    let [ours, barrier] = alternate(
        bench.effort,
        [
            &mut |plan| {
                let told = ours::barrier(&runtime, n, plan)?;
                used = told.threads;
                Ok(told.samples)
            },
            &mut |plan| reference::tokio_barrier(&tokio, n, plan),
        ],
    )?;
    let bar = match (threads, n) {
        (1, ..=64) => Bar::Ratio(1.5),
        (1, _) => Bar::Ratio(1.0),
        (_, ..=64) => Bar::Ratio(1.3),
        (_, ..=1_024) => Bar::Ratio(0.4),
        (_, ..=10_000) => Bar::Ratio(0.25),
        (_, _) => Bar::Ratio(0.15),
    };
    let note = format!("tasks on {used} of {threads} threads");
    bench.add(Row::new(what, n, ours).against(TOKIO, barrier).bar(bar).note(note));
    Ok(())
}

/// How the cost of a round grows from 10,000 tasks to 100,000.
fn growth(bench: &mut Bench, what: &str) {
    let [small, large] = [10_000, 100_000].map(|n| bench.row(what, n).map(|row| row.ours));
    if let (Some(small), Some(large)) = (small, large) {
        let row = Row::new(format!("{what}/growth"), 100_000, large);
        bench.add(row.against("ours at 10,000", small).bar(Bar::Ratio(12.0)));
    }
}

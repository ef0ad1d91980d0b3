//! From the submission of a gang to its results.

use crate::measure::{Contender, Fallible, Plan, alternate, timed};
use crate::row::{Bar, Row, count};
use crate::{Bench, ours, reference};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::time::Instant;

pub const WHAT: &str = "launch";
const STREAM: &str = "launch/64-in-flight";
const BARE: &str = "spawn + tokio barrier + join";
const IN_FLIGHT: usize = 64;

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    for n in [1, 4, 64, 1_024, 10_000] {
        if bench.wants(WHAT, n, 0) {
            one_at_a_time(bench, n)?;
        }
    }
    if bench.wants(STREAM, 4, 0) {
        many_at_a_time(bench)?;
    }
    Ok(())
}

fn one_at_a_time(bench: &mut Bench, n: usize) -> Fallible<()> {
    let (runtime, tokio) = (ours::runtime(n, 2)?, reference::runtime(2)?);
    let [ours, bare] = alternate(
        bench.effort,
        [&mut |plan| timed(plan, || pollster::block_on(ours::launch(&runtime, n))), &mut |plan| {
            timed(plan, || tokio.block_on(reference::spawn_and_join(n)))
        }],
    )?;
    let bar = (n >= 64).then_some(Bar::Ratio(3.0));
    bench.add(Row::new(WHAT, n, ours).against(BARE, bare).bar(bar));
    Ok(())
}

/// Gangs of 4, 64 of them at any moment; a sample is the mean of many.
fn many_at_a_time(bench: &mut Bench) -> Fallible<()> {
    let gangs = if bench.effort.quick { 500 } else { 5_000 };
    let (runtime, tokio) = (ours::runtime(4 * IN_FLIGHT, 2)?, reference::runtime(2)?);
    let mut ours: Contender<'_> = &mut |plan: Plan| {
        timed(plan, || pollster::block_on(stream_of(gangs, || ours::launch(&runtime, 4))))
    };
    let mut bare: Contender<'_> = &mut |plan: Plan| {
        timed(plan, || tokio.block_on(stream_of(gangs, || reference::spawn_and_join(4))))
    };
    let start = Instant::now();
    let [mut ours, mut bare] = alternate(bench.effort, [&mut ours, &mut bare])?;
    for spread in [&mut ours, &mut bare] {
        spread.p50 /= gangs as f64;
        spread.p99 /= gangs as f64;
    }
    let [own, other] = [ours, bare].map(|spread| count((1e6 / spread.p50) as usize));
    let note = format!("gangs a second: {own}, bare {other} ({:.0?})", start.elapsed());
    let row = Row::new(STREAM, 4, ours).against(BARE, bare);
    bench.add(row.bar(Bar::Rate(20_000.0)).note(note));
    Ok(())
}

async fn stream_of<F: Future<Output = Fallible<()>>>(
    gangs: usize,
    launch: impl Fn() -> F,
) -> Fallible<()> {
    let mut flying: FuturesUnordered<F> = (0..IN_FLIGHT.min(gangs)).map(|_| launch()).collect();
    let mut started = flying.len();
    while let Some(ended) = flying.next().await {
        ended?;
        if started < gangs {
            started += 1;
            flying.push(launch());
        }
    }
    Ok(())
}

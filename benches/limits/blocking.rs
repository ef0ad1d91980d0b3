//! Rounds of `barrier()`, tasks with a thread each.

use crate::measure::{Fallible, alternate};
use crate::row::{Bar, Row};
use crate::{Bench, ours, reference};

pub const WHAT: &str = "barrier/blocking";

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    for n in [2, 4, 16, 64, 256] {
        if !bench.wants(WHAT, n, 0) {
            continue;
        }
        let runtime = ours::runtime(n, 2)?;
        let [ours, barrier] = alternate(
            bench.effort,
            [&mut |plan| Ok(ours::blocking_barrier(&runtime, n, plan)?.samples), &mut |plan| {
                reference::std_barrier(n, plan)
            }],
        )?;
        let bar = match n {
            ..=3 => None,
            4..=63 => Some(Bar::Ratio(1.2)),
            _ => Some(Bar::Ratio(1.0)),
        };
        bench.add(Row::new(WHAT, n, ours).against("std::sync::Barrier", barrier).bar(bar));
    }
    Ok(())
}

//! A job on a dataset next to the same work without one: rows are changed, dealt out to other
//! tasks, which meet once, and gathered.

use crate::measure::{Fallible, alternate, timed};
use crate::row::{Bar, Row, count};
use crate::{Bench, ours};
use phalanx::Dataset;
use rayon::prelude::*;
use std::hint::black_box;
use std::thread;

pub const WHAT: &str = "dataset/shuffle-and-gang";
/// With the partitions put together to a few tasks per slot.
const COALESCED: &str = "dataset/coalesced";
const BARE: &str = "rayon";
const CHUNKS: usize = 1_000;
const ROWS: usize = 1_000;

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    let cores = thread::available_parallelism()?.get();
    let mut slots = vec![cores, 16];
    slots.dedup();
    for slots in slots {
        for what in [WHAT, COALESCED] {
            if bench.wants(what, slots, 0) {
                shuffle_and_gang(bench, what, slots)?;
            }
        }
    }
    Ok(())
}

fn shuffle_and_gang(bench: &mut Bench, what: &'static str, slots: usize) -> Fallible<()> {
    let runtime = ours::runtime(slots, 2)?;
    let chunks: Vec<Vec<u64>> = (0..CHUNKS)
        .map(|chunk| (0..ROWS).map(|row| (chunk * ROWS + row) as u64).collect())
        .collect();
    let source = runtime.from_partitions(chunks.clone());
    let source = if what == COALESCED { source.coalesce(4 * slots) } else { source };
    let sorted = |mut rows: Vec<u64>| {
        rows.sort_unstable();
        rows
    };
    if sorted(on_datasets(&source, slots)?) != sorted(on_rayon(&chunks, slots)) {
        return Err("the rows are not those that rayon made".into());
    }
    let [ours, bare] = alternate(
        bench.effort,
        [
            &mut |plan| {
                timed(plan, || on_datasets(&source, slots).map(|rows| drop(black_box(rows))))
            },
            &mut |plan| {
                timed(plan, || {
                    drop(black_box(on_rayon(&chunks, slots)));
                    Ok(())
                })
            },
        ],
    )?;
    let [own, other] =
        [ours, bare].map(|spread| count(((CHUNKS * ROWS) as f64 / spread.p50) as usize));
    let note = format!("million rows a second: {own}, rayon {other}");
    bench.add(Row::new(what, slots, ours).against(BARE, bare).bar(Bar::Ratio(2.0)).note(note));
    Ok(())
}

fn change(row: u64) -> u64 {
    row.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

/// What a shuffle has made is kept, so each round has a new one.
fn on_datasets(source: &Dataset<u64>, slots: usize) -> Fallible<Vec<u64>> {
    let dealt = source.map(change).repartition(slots);
    let gang = dealt.barrier().map_partitions(|ctx, rows| {
        ctx.barrier()?;
        Ok(rows)
    });
    Ok(gang.collect().wait()?)
}

fn on_rayon(chunks: &[Vec<u64>], slots: usize) -> Vec<u64> {
    let dealt: Vec<Vec<Vec<u64>>> =
        chunks.par_iter().enumerate().map(|(at, chunk)| deal(at, chunk, slots)).collect();
    let gathered: Vec<Vec<u64>> = (0..slots)
        .into_par_iter()
        .map(|slot| dealt.iter().flat_map(|parts| &parts[slot]).copied().collect())
        .collect();
    gathered.concat()
}

fn deal(at: usize, chunk: &[u64], slots: usize) -> Vec<Vec<u64>> {
    let mut parts = vec![Vec::with_capacity(chunk.len().div_ceil(slots)); slots];
    for (row, number) in chunk.iter().enumerate() {
        parts[(at + row) % slots].push(change(*number));
    }
    parts
}

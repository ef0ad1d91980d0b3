//! Rounds in which the tasks of a gang give bytes or vectors to each other.

use crate::measure::{Fallible, Plan, Samples, alternate, timed};
use crate::row::{Bar, Row, bytes};
use crate::{Bench, ours};
use ::bytes::Bytes;
use phalanx::{Numbers, ReduceOp, Runtime, Stage};
use std::hint::black_box;

pub const GATHER: &str = "all_gather";
pub const REDUCE: &str = "all_reduce";
const BARRIER: &str = "our barrier()";
const SIZES: [usize; 3] = [4, 16, 64];
const PAYLOADS: [usize; 4] = [16, 1 << 10, 64 << 10, 1 << 20];
const LARGE: usize = 1 << 20;

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    for n in SIZES {
        for payload in PAYLOADS {
            if bench.wants(GATHER, n, payload) {
                gather_next_to_barrier(bench, n, payload)?;
            }
        }
    }
    if bench.wants("all_gather/any-size", 16, LARGE) {
        gather_of_any_size(bench)?;
    }
    for n in SIZES {
        for payload in PAYLOADS {
            if bench.wants(REDUCE, n, payload) {
                reduce_next_to_barrier(bench, n, payload)?;
            }
        }
    }
    if bench.wants("all_reduce/one-thread", 16, LARGE) {
        reduce_next_to_one_thread(bench)?;
    }
    Ok(())
}

pub fn gather(runtime: &Runtime, n: usize, payload: usize, plan: Plan) -> Fallible<Samples> {
    let told = ours::rounds(
        runtime,
        n,
        plan,
        move |rank| Bytes::from(vec![rank as u8; payload]),
        async |ctx, message| {
            black_box(ctx.all_gather_bytes(message.clone()).await?);
            Ok(())
        },
    );
    Ok(told?.samples)
}

fn reduce(runtime: &Runtime, n: usize, payload: usize, plan: Plan) -> Fallible<Samples> {
    let told = ours::rounds(
        runtime,
        n,
        plan,
        move |rank| vector(rank, payload),
        async |ctx, vector| {
            black_box(ctx.all_reduce(ReduceOp::Sum, vector).await?);
            Ok(())
        },
    );
    Ok(told?.samples)
}

/// The same of vectors that are not copied.
fn reduce_shared(runtime: &Runtime, n: usize, payload: usize, plan: Plan) -> Fallible<Samples> {
    let told = ours::rounds(
        runtime,
        n,
        plan,
        move |rank| Numbers::from(vector(rank, payload)),
        async |ctx, numbers| {
            black_box(ctx.all_reduce_shared(ReduceOp::Sum, numbers).await?);
            Ok(())
        },
    );
    Ok(told?.samples)
}

/// Of so many bytes; no sum of these is exact, so that their order shows in the result.
fn vector(rank: usize, payload: usize) -> Vec<f32> {
    (0..payload / 4).map(|at| 1.0 / (1 + at + 7 * rank) as f32).collect()
}

/// The time that one thread takes to copy once what all tasks give.
fn copy(n: usize, payload: usize, plan: Plan) -> Fallible<Samples> {
    let from: Vec<Vec<u8>> = (0..n).map(|rank| vec![rank as u8; payload]).collect();
    let mut to = vec![0; n * payload];
    timed(plan, || {
        for (to, from) in to.chunks_mut(payload).zip(black_box(&from)) {
            to.copy_from_slice(from);
        }
        black_box(&mut to);
        Ok(())
    })
}

fn gather_next_to_barrier(bench: &mut Bench, n: usize, payload: usize) -> Fallible<()> {
    let runtime = ours::runtime(n, 2)?;
    let [ours, barrier, copied] = alternate(
        bench.effort,
        [
            &mut |plan| gather(&runtime, n, payload, plan),
            &mut |plan| Ok(ours::barrier(&runtime, n, plan)?.samples),
            &mut |plan| copy(n, payload, plan),
        ],
    )?;
    let all = bytes((n * payload) as f64);
    let note = format!("one thread copies {all} in {:.2} µs", copied.p50);
    bench.add(Row::new(GATHER, n, ours).payload(payload).against(BARRIER, barrier).note(note));
    Ok(())
}

fn gather_of_any_size(bench: &mut Bench) -> Fallible<()> {
    let runtime = ours::runtime(16, 2)?;
    let [large, small] = alternate(
        bench.effort,
        [&mut |plan| gather(&runtime, 16, LARGE, plan), &mut |plan| gather(&runtime, 16, 16, plan)],
    )?;
    let row = Row::new("all_gather/any-size", 16, large).payload(LARGE);
    bench.add(row.against("our all_gather of 16 B", small).bar(Bar::Ratio(1.5)));
    Ok(())
}

fn reduce_next_to_barrier(bench: &mut Bench, n: usize, payload: usize) -> Fallible<()> {
    let runtime = ours::runtime(n, 2)?;
    let [ours, barrier] = alternate(
        bench.effort,
        [&mut |plan| reduce(&runtime, n, payload, plan), &mut |plan| {
            Ok(ours::barrier(&runtime, n, plan)?.samples)
        }],
    )?;
    bench.add(Row::new(REDUCE, n, ours).payload(payload).against(BARRIER, barrier));
    Ok(())
}

fn reduce_next_to_one_thread(bench: &mut Bench) -> Fallible<()> {
    let runtime = ours::runtime(16, 2)?;
    let vectors: Vec<Vec<f32>> = (0..16).map(|rank| vector(rank, LARGE)).collect();
    let [ours, alone] = alternate(
        bench.effort,
        [&mut |plan| reduce_shared(&runtime, 16, LARGE, plan), &mut |plan| {
            timed(plan, || {
                drop(black_box(sum(black_box(&vectors))));
                Ok(())
            })
        }],
    )?;
    for _ in 0..3 {
        same_bits(&runtime, &sum(&vectors))?;
    }
    let row = Row::new("all_reduce/one-thread", 16, ours).payload(LARGE);
    let row = row.against("one thread adds the vectors", alone).bar(Bar::Ratio(1.5));
    bench.add(
        row.note(
            "all_reduce_shared; the same bits for all 16 tasks in 3 runs, and as one thread's",
        ),
    );
    Ok(())
}

fn sum(vectors: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vectors[0].clone();
    for vector in &vectors[1..] {
        for (sum, number) in sum.iter_mut().zip(vector) {
            *sum += number;
        }
    }
    sum
}

fn same_bits(runtime: &Runtime, expected: &[f32]) -> Fallible<()> {
    let gang = Stage::tasks(16).run(runtime, async |ctx| {
        let mine = vector(ctx.rank(), LARGE);
        let sum = ctx.all_reduce(ReduceOp::Sum, &mine).await?;
        Ok([sum, ctx.all_reduce_shared(ReduceOp::Sum, &mine.into()).await?.to_vec()])
    });
    let same =
        |a: &[f32]| a.iter().map(|it| it.to_bits()).eq(expected.iter().map(|it| it.to_bits()));
    if gang.wait()?.iter().flatten().all(|sum| same(sum)) {
        return Ok(());
    }
    Err("all_reduce: not all tasks have the same bits".into())
}

//! docs/performance.md and its plots.

use crate::measure::Fallible;
use crate::plot::{Curve, draw};
use crate::row::{Bar, Row, TITLES, bytes};
use crate::{Bench, barrier, blocking, collectives, launch};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{fs, thread};

const INTRODUCTION: &str = "\
<!-- Written by `cargo bench --bench limits -- --write`. -->

# What it costs

Each row is ours next to what could be used instead on one machine, measured in turn in the same
run, warm. *p50* and *p99* are of samples; a sample of something cheap is the mean of up to 200
rounds that follow each other, so that reading the clock does not count. Of something slow there are
few samples, and p99 is the largest. The ratio is that of the medians; it depends less on the
machine than the times do.

References: `tokio::sync::Barrier` among tasks on a tokio runtime with the same number of threads;
`std::sync::Barrier` among threads; spawn + tokio barrier + join; abort and respawn. None of them
starts a gang all or nothing, tells who is missing, or notices that somebody can no longer come.
";

/// What is said about the rows that begin with a word.
const FAMILIES: [(&str, &str); 11] = [
    (
        "barrier/async",
        "A round of `barrier()`; async tasks, `worker_threads` 2 and 1. In the smallest \
         gangs on two threads the hops between threads are all there is: the round trip of \
         one message to another thread and back is measured in the same run.",
    ),
    ("barrier/blocking", "A round of `barrier()`; tasks with a thread each (`run_blocking`)."),
    (
        "all_gather",
        "A round of `all_gather_bytes`, by bytes per task, next to `barrier()` of the same gang.",
    ),
    (
        "all_reduce",
        "A round of `all_reduce` (sum of `f32`), by bytes per task, next to `barrier()` of \
         the same gang, and next to one thread that adds the same vectors.",
    ),
    (
        "launch",
        "From the submission of a gang to its results; its tasks meet once. `64-in-flight`: \
         the time per gang while 64 gangs are under way at any moment.",
    ),
    (
        "recovery",
        "From the failure of one task to the last task of the next attempt past its first \
         barrier, `retry_delay` 0.",
    ),
    ("many-gangs", "Many gangs that meet at the same time."),
    (
        "scheduler",
        "One decision of the scheduler's machine: a submission, and the report of an ended \
         task by which the next stage is placed.",
    ),
    (
        "dataset",
        "A job on a dataset of 1,000 partitions of 1,000 numbers, by slots: each is changed and \
         dealt out to as many partitions as there are slots, whose gang meets once, and all are \
         collected. `coalesced`: with `coalesce(4 * slots)` before. Next to the same work on \
         `rayon`, with a thread for each core.",
    ),
    ("memory", "Growth of the process by 100,000 tasks that wait, and by 50,000 queued stages."),
    (
        "remote",
        "Gangs whose executors are processes on this machine. A round of `barrier()` is next to \
         one message of 64 bytes to another process and back, which takes 5 µs if the system keeps \
         both processes on one warm processor and ten times that if it has to wake an idle one: \
         look at the time, too. `peers`: the same round of others, where they are installed \
         (`benches/limits/peers/run --install`), one after the other in the same run. `moved`: \
         bytes over the loopback in one round. `loss`: from `kill -9` of a process to the event, \
         and to the release of the next attempt's first sync. `crowd`: a driver with 256 executors \
         of 16 tasks each.",
    ),
];

/// Written by hand, with what was measured when these bars were not met.
const WHERE_IT_GOES: &str = "
## Where the rest goes

What keeps bars from being met, measured where they were first not met (Intel Xeon, 2 cores):

- *Two and four tasks on one thread.* A round has a part that does not depend on how many there
  are: 3,400 instructions, some 0.35 µs, for five locks, the check of the request, a deadline by
  the clock, two events and the reply. Each task adds 0.1 to 0.15 µs, a tokio task at a
  tokio barrier 0.15. From 16 tasks on ours is as fast; for two there is little to share the
  fixed part.
- *10,000 tasks on two threads.* A task's round is some 1,300 instructions (`callgrind`) and
  touches about ten cache lines: its place in the group, its future, its own machine and list of
  calls. That is 75 ns on each of two threads. Counting alone, which is what a bare barrier does,
  can be had for half of that; then a release could not tell who was counted, a call could not be
  dropped and made again, and two calls of one task could not be one arrival.
- *Growth from 10,000 to 100,000 tasks* is a ratio of two rows; it lies between 9.6 and 12.5 from
  run to run, because the smaller gang's tasks fit the processor's cache.
- *Recovery.* Four hops between threads that rest: the report to the scheduler, the kills, the
  reports of the killed, the launch. A thread that rests takes 25 to 30 µs to be woken on this
  machine (a round of two tasks on two threads took 28 µs before they looked out for each other).
  The rest is 63 kills, 64 reports and 64 launches at about 1 µs each.
- *Memory of a waiting task.* The `Task` that its context shares 152 B, its machine and calls 184
  B, its place in the group 56 B, its place on the executor's list 22 B, what its future's box
  has beyond it 66 B; in the scheduler, its attempt, place, resources and result. The remainder
  is room that lists of 100,000 had while the gang was launched.
";

pub fn write(bench: &Bench) -> Fallible<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    fs::create_dir_all(&docs)?;
    let mut text = INTRODUCTION.to_owned();
    machine(bench, &mut text)?;
    bars(bench, &mut text)?;
    text.push_str(WHERE_IT_GOES);
    writeln!(text, "\n## Curves\n")?;
    for (file, title) in plots(bench, &docs)? {
        writeln!(text, "![{title}]({file})\n")?;
    }
    writeln!(text, "## All rows")?;
    let mut rest: Vec<&Row> = bench.rows.iter().collect();
    for (family, says) in FAMILIES {
        let (these, others) = rest.into_iter().partition(|row: &&Row| row.what.starts_with(family));
        rest = others;
        section(family, says, &these, &mut text)?;
    }
    section("The rest", "", &rest, &mut text)?;
    let path = docs.join("performance.md");
    fs::write(&path, text)?;
    println!("wrote {}", path.display());
    Ok(())
}

fn machine(bench: &Bench, text: &mut String) -> Fallible<()> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = thread::available_parallelism()?;
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    writeln!(text, "\n| | |\n|---|---|")?;
    writeln!(text, "| machine | {}, {cores} cores |", model.unwrap_or("unknown"))?;
    writeln!(text, "| date | {} |", &now[..10])?;
    for (what, program, words) in
        [("compiler", "rustc", ["--version"].as_slice()), ("kernel", "uname", &["-sr"])]
    {
        if let Ok(output) = Command::new(program).args(words).output() {
            writeln!(text, "| {what} | {} |", String::from_utf8_lossy(&output.stdout).trim())?;
        }
    }
    let quick = if bench.effort.quick { " --quick" } else { "" };
    writeln!(text, "| repeat | `cargo bench --bench limits --{quick} --write` |")?;
    if bench.effort.quick {
        writeln!(text, "\nThis was a quick run: the figures are rough.")?;
    }
    Ok(())
}

fn bars(bench: &Bench, text: &mut String) -> Fallible<()> {
    let with_bar: Vec<&Row> = bench.rows.iter().filter(|row| row.bar.is_some()).collect();
    let met = with_bar.iter().filter(|row| row.is_met() == Some(true)).count();
    writeln!(text, "\n## What was to be reached: {met} of {}\n", with_bar.len())?;
    writeln!(text, "| what | n | bar | against | measured | |\n|---|--:|---|---|--:|---|")?;
    for row in with_bar {
        let [what, n, payload, p50, _, reference, _, _, ratio, bar, met, _] = row.cells();
        let measured = match row.bar {
            Some(Bar::Ratio(_)) => format!("{ratio}×"),
            Some(Bar::Rate(_)) => format!("{:.0}/s", 1e6 / row.ours.p50),
            Some(Bar::Ours(_)) | None => p50,
        };
        let met = if row.is_met() == Some(true) { met } else { format!("**{met}**") };
        let what = if payload.is_empty() { what } else { format!("{what}, {payload}") };
        writeln!(text, "| {what} | {n} | {bar} | {reference} | {measured} | {met} |")?;
    }
    Ok(())
}

fn section(name: &str, says: &str, rows: &[&Row], text: &mut String) -> Fallible<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n### {name}\n")?;
    if !says.is_empty() {
        writeln!(text, "{says}\n")?;
    }
    writeln!(
        text,
        "| {} |\n|---|--:|--:|--:|--:|---|--:|--:|--:|---|---|---|",
        TITLES.join(" | ")
    )?;
    for row in rows {
        writeln!(text, "| {} |", row.cells().join(" | "))?;
    }
    Ok(())
}

/// Draws all plots; their files and titles.
fn plots(bench: &Bench, docs: &Path) -> Fallible<Vec<(&'static str, &'static str)>> {
    let (two, one) = (barrier::name(2), barrier::name(1));
    let with_reference = |what: &str, ours: &str, theirs: &str| {
        let reference = |row: &Row| Some(row.reference?.1.p50);
        [curve(bench, what, ours, |row| Some(row.ours.p50)), curve(bench, what, theirs, reference)]
    };
    let mut drawn = Vec::new();
    let mut plot = |file: &'static str, title: &'static str, x: &str, curves| -> Fallible<()> {
        let path: PathBuf = docs.join(file);
        draw(&path, title, x, curves)?;
        drawn.push((file, title));
        Ok(())
    };
    let mut curves = Vec::from(with_reference(&two, "phalanx, 2 threads", "tokio, 2 threads"));
    curves.extend(with_reference(&one, "phalanx, 1 thread", "tokio, 1 thread"));
    plot("barrier-async.svg", "A round of barrier(), async tasks", "tasks", curves)?;
    let curves = with_reference(blocking::WHAT, "phalanx", "std::sync::Barrier").into();
    plot("barrier-blocking.svg", "A round of barrier(), blocking tasks", "threads", curves)?;
    let curves = with_reference(launch::WHAT, "phalanx", "spawn + tokio barrier + join").into();
    plot("launch.svg", "From submission to results", "tasks", curves)?;
    let curves = [collectives::GATHER, collectives::REDUCE].into_iter().map(|what| Curve {
        name: format!("{what}, 16 tasks"),
        points: points(bench, |row| {
            (row.what == what && row.n == 16).then_some((row.payload as f64, row.ours.p50))
        }),
    });
    let title = "A round of all_gather and all_reduce, 16 tasks";
    plot(
        "collectives.svg",
        title,
        &format!("bytes per task, to {}", bytes(1048576.0)),
        curves.collect(),
    )?;
    Ok(drawn)
}

fn curve(bench: &Bench, what: &str, name: &str, value: fn(&Row) -> Option<f64>) -> Curve {
    let points = points(bench, |row| {
        (row.what == what).then(|| Some((row.n as f64, value(row)?))).flatten()
    });
    Curve { name: name.to_owned(), points }
}

fn points(bench: &Bench, of: impl Fn(&Row) -> Option<(f64, f64)>) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = bench.rows.iter().filter_map(of).collect();
    // The smallest gangs have two rows each: the first is that against tokio's barrier.
    points.dedup_by_key(|(n, _)| *n);
    points
}

//! What phalanx costs next to what a user could take instead, measured in turn in the same run.
//!
//! `cargo bench --bench limits` measures all rows; `-- --quick` takes about a minute; `-- barrier`
//! measures the rows whose name (`barrier/async/2-threads/64/`) has that word, with several words
//! those that have all; `-- --write` writes docs/performance.md with its plots.

mod barrier;
mod blocking;
mod child;
mod cold_start;
mod collectives;
mod costs;
mod dataset;
mod launch;
mod many_gangs;
mod measure;
mod memory;
mod ours;
mod plot;
mod recovery;
mod reference;
mod remote;
mod report;
mod row;
mod scheduler;

use clap::Parser;
use measure::{Effort, Fallible};
use row::{Row, TITLES, line};
use std::process::ExitCode;
use std::time::Instant;

/// The costs of phalanx and of what could be used instead.
#[derive(Parser)]
struct Options {
    /// Measure only rows whose name contains all of these words.
    words: Vec<String>,
    /// About a minute in all: rougher figures.
    #[arg(long)]
    quick: bool,
    /// Write docs/performance.md and its plots.
    #[arg(long)]
    write: bool,
    /// What cargo says.
    #[arg(long, hide = true)]
    bench: bool,
    /// What a process started by this program does.
    #[arg(long, hide = true, num_args = 1..)]
    child: Vec<String>,
}

/// The rows so far, and which are wanted.
struct Bench {
    pub effort: Effort,
    words: Vec<String>,
    pub rows: Vec<Row>,
}

impl Bench {
    /// Whether a row is to be measured.
    pub fn wants(&self, what: &str, n: usize, payload: usize) -> bool {
        let name = format!("{what}/{n}/{payload}/");
        self.words.iter().all(|word| name.contains(word))
    }

    pub fn add(&mut self, row: Row) {
        println!("{}", line(row.cells()));
        self.rows.push(row);
    }

    /// Ours of a row that was measured.
    pub fn row(&self, what: &str, n: usize) -> Option<&Row> {
        self.rows.iter().find(|row| row.what == what && row.n == n)
    }
}

fn main() -> ExitCode {
    phalanx::main(remote::registry(), |_| run())
}

fn run() -> Fallible<()> {
    let Options { words, quick, write, bench: _, child } = Options::parse();
    if !child.is_empty() {
        return child::run(&child);
    }
    if write && !words.is_empty() {
        return Err("--write needs all rows: leave the words away".into());
    }
    let mut bench = Bench { effort: Effort::new(quick), words, rows: Vec::new() };
    let start = Instant::now();
    println!("{}", line(TITLES));
    for family in [
        barrier::measure,
        blocking::measure,
        collectives::measure,
        launch::measure,
        recovery::measure,
        many_gangs::measure,
        scheduler::measure,
        memory::measure,
        cold_start::measure,
        dataset::measure,
        remote::measure,
    ] {
        family(&mut bench)?;
    }
    println!();
    for row in &bench.rows {
        println!("{}", serde_json::to_string(row)?);
    }
    let met = bench.rows.iter().filter(|row| row.is_met() == Some(true)).count();
    let bars = bench.rows.iter().filter(|row| row.bar.is_some()).count();
    println!("\n{met} of {bars} bars met, {} rows in {:.0?}", bench.rows.len(), start.elapsed());
    if write {
        report::write(&bench)?;
    }
    Ok(())
}

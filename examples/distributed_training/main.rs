//! Trains a logistic regression that tells good red wines (quality 6 or better) from the others.
//!
//! Every task of a gang owns a part of the rows; `all_reduce` sums the tasks' gradients, so that
//! all of them make the same step. Task 0 saves a checkpoint after every epoch. Let a task fail
//! with `--fail-at-epoch 20`: the gang starts again from the checkpoint and ends with the same
//! model, to the last bit.

mod model;
mod options;
mod report;
mod training;
mod wines;

use clap::Parser;
use indicatif::ProgressBar;
use options::Options;
use phalanx::{Runtime, Stage};
use report::Report;
use std::time::{Duration, Instant};
use training::{Trained, train};
use wines::Wines;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    options.check().unwrap_or_else(|error| error.exit());
    let wines = Wines::load();
    if !options.json {
        let rows = wines.rows();
        println!("{rows} wines, {} tasks, {} epochs", options.tasks, options.epochs);
    }
    let started = Instant::now();
    let trained = train_in_gang(&wines, &options)?;
    let report = Report::new(options.tasks, trained);
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
        println!("took {:.3} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}

fn train_in_gang(wines: &Wines, options: &Options) -> anyhow::Result<Trained> {
    let runtime = Runtime::with_slots(options.tasks)?;
    let plan = options.plan();
    // Is not drawn if stderr is not a terminal.
    let bar = ProgressBar::new(plan.epochs);
    let in_task = bar.clone();
    // Training computes for long without waiting: each task gets a thread of its own.
    let trained = Stage::partitions(wines.split(options.tasks as usize))
        .name("wines")
        .run_blocking(&runtime, move |ctx, part| train(&ctx, &part, plan, &in_task))
        .wait();
    bar.finish_and_clear();
    let mut trained = trained?;
    runtime.shutdown_blocking(Duration::from_secs(5))?;
    // All tasks hold the same model.
    Ok(trained.swap_remove(0))
}

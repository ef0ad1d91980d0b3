//! Trains a logistic regression that tells good red wines (quality 6 or better) from the others.
//!
//! Every task of a gang owns a part of the rows; `all_reduce` sums the tasks' gradients, so that
//! all of them make the same step. Task 0 saves a checkpoint after every epoch. Let a task fail
//! with `--fail-at-epoch 20`: the gang starts again from the checkpoint and ends with the same
//! model, to the last bit. So it does with `--cluster processes:4` if you kill one of the four.
//!
//! With `--dataset` the wines are rows of a dataset, and the gang is a stage of its job. The tasks'
//! code is the same, and so is the model.

mod model;
mod options;
mod report;
mod training;
mod watch;
mod wines;

use clap::Parser;
use options::Options;
use phalanx::{Config, OnFailure, Registry, Runtime, Stage, Token};
use report::Report;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use training::{Trained, train};
use wines::Wines;

/// The driver, or an executor of it: see [`phalanx::main`].
fn main() -> ExitCode {
    watch::log_to_stderr();
    let registry = Registry::new("distributed_training", env!("CARGO_PKG_VERSION"));
    phalanx::main(registry.register_blocking("train", train), run)
}

fn run(registry: Registry) -> anyhow::Result<()> {
    let options = Options::parse();
    options.check().unwrap_or_else(|error| error.exit());
    let wines = Wines::load();
    if !options.json {
        let rows = wines.rows();
        println!("{rows} wines, {} tasks, {} epochs", options.tasks, options.epochs);
    }
    let started = Instant::now();
    let (trained, losses) = train_in_gang(registry, &wines, &options)?;
    let report = Report::new(options.tasks, losses, trained);
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
        println!("took {:.3} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The model, and how many executors were lost on the way to it.
fn train_in_gang(
    registry: Registry,
    wines: &Wines,
    options: &Options,
) -> anyhow::Result<(Trained, u32)> {
    let runtime = start(registry, options)?;
    let losses = watch::count_losses(&runtime);
    let trained = if options.dataset {
        train_on_dataset(&runtime, wines, options)
    } else {
        train_on_parts(&runtime, wines, options)
    };
    // Also after a failure: executors learn that there is nothing more to do.
    runtime.shutdown_blocking(Duration::from_secs(5))?;
    let mut trained = trained?;
    // All tasks hold the same model.
    Ok((trained.swap_remove(0), losses.join().unwrap_or_default()))
}

/// Each task is given its part, wherever it runs.
fn train_on_parts(
    runtime: &Runtime,
    wines: &Wines,
    options: &Options,
) -> anyhow::Result<Vec<Trained>> {
    let plan = options.plan();
    let parts = wines.split(options.tasks as usize).into_iter().map(|part| (part, plan));
    let handle = Stage::named("train", parts).name("wines").run::<Trained>(runtime);
    watch::show_progress(&handle);
    Ok(handle.wait()?)
}

/// Each task takes its part out of the rows of its partition.
fn train_on_dataset(
    runtime: &Runtime,
    wines: &Wines,
    options: &Options,
) -> anyhow::Result<Vec<Trained>> {
    let plan = options.plan();
    let gang = runtime
        .parallelize(wines.iter(), options.tasks as usize)
        // A model is handed out when all tasks have it: to train again does no harm.
        .settings(|stage| stage.name("wines").on_failure(OnFailure::Restart))
        .barrier()
        .map_partitions(move |ctx, rows| Ok([train(ctx, (rows.collect(), plan))?]));
    Ok(gang.collect().wait()?)
}

fn start(registry: Registry, options: &Options) -> anyhow::Result<Runtime> {
    let mut builder = Runtime::builder().registry(registry);
    match options.cluster.clone() {
        None => builder = builder.slots(options.tasks),
        Some(mut cluster) => {
            if let Some(file) = &options.token_file {
                cluster = cluster.token(Token::read(file).map_err(anyhow::Error::msg)?);
            }
            builder = builder.config(Config::load(None)?).cluster(cluster);
        }
    }
    Ok(builder.start()?)
}

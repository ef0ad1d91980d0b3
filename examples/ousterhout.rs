//! Draws which gang ran where and when, from the runtime's events alone: the Ousterhout matrix of
//! gang scheduling. A gang starts as a whole, so its tasks stand side by side in one row.
//!
//! Every executor has one slot. A row is a time in which nothing started or ended; gaps between two
//! gangs that are too short to see are left out. A watcher that is too slow is told what it missed:
//! try `PHALANX_EVENTS_CAPACITY=1`.

use anyhow::Context;
use clap::{Parser, value_parser};
use comfy_table::Table;
use phalanx::simulation::{EventLog, OusterhoutMatrix, Row};
use phalanx::{
    Config, EventStream, EventStreamError, ExecutorResources, Runtime, Stage, TaskResult,
};
use std::path::PathBuf;
use std::time::Duration;

/// Runs gangs of different sizes and draws which ran where and when.
#[derive(Parser)]
#[command(name = "ousterhout")]
struct Options {
    /// Executors of one slot each.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = value_parser!(u32).range(1..=16))]
    executors: u32,
    /// Also writes all events there, for `what_if --log`.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// How long a gang works.
const WORK: Duration = Duration::from_millis(40);
/// A row that lasted less is not drawn.
const SHORTEST: Duration = Duration::from_millis(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Options { executors, log } = Options::parse();
    // Strictly in line: smaller gangs behind a large one do not take the slots it waits for.
    let config = Config { reserve_after: Duration::ZERO, ..Config::load(None)? };
    let builder = Runtime::builder().config(config);
    let slots = (0..executors).map(|_| ExecutorResources::new(1));
    let builder = slots.fold(builder, |builder, slot| builder.executor(slot));
    let (runtime, events) = builder.start_recorded()?;
    let watcher = tokio::spawn(watch(events));
    run_gangs(&runtime, executors).await?;
    runtime.shutdown(Duration::from_secs(5)).await?;
    // The events end when the last runtime handle is gone.
    drop(runtime);
    let recorded = watcher.await?;
    println!("{}", table(&recorded.matrix()));
    if let Some(file) = log {
        std::fs::write(&file, serde_json::to_string(&recorded)?)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

async fn run_gangs(runtime: &Runtime, executors: u32) -> anyhow::Result<()> {
    let all = executors as usize;
    let sizes = [all, all - all / 3, all / 3, all, all / 2, all - all / 2];
    let gangs: Vec<_> = ('A'..)
        .zip(sizes.into_iter().filter(|size| *size > 0))
        .map(|(name, size)| {
            println!("gang {name}: {size} task{}", if size == 1 { "" } else { "s" });
            Stage::tasks(size).name(name).run(runtime, async |ctx| -> TaskResult<()> {
                tokio::time::sleep(WORK).await;
                Ok(ctx.barrier().await?)
            })
        })
        .collect();
    for gang in gangs {
        gang.await?;
    }
    Ok(())
}

/// Reads all events, to the end of the runtime.
async fn watch(mut events: EventStream) -> EventLog {
    let mut records = Vec::new();
    loop {
        match events.next().await {
            Ok(record) => records.push(record),
            Err(EventStreamError::Missed(count)) => println!("events missed: {count}"),
            Err(EventStreamError::Ended) => return EventLog::from(records),
        }
    }
}

/// Rows of the times in which something ran. After events were missed it is not known what runs.
fn table(matrix: &OusterhoutMatrix) -> Table {
    let mut table = Table::new();
    let columns = matrix.slots.iter().map(|(executor, _)| format!("executor {executor}"));
    table.set_header(["time".to_owned()].into_iter().chain(columns));
    for Row { from, to, cells } in matrix.rows.iter().filter(|row| row.to - row.from >= SHORTEST) {
        let time = format!("{} to {} ms", from.as_millis(), to.as_millis());
        let cells = cells.iter().map(|cell| matrix.label(*cell));
        table.add_row([time].into_iter().chain(cells));
    }
    table
}

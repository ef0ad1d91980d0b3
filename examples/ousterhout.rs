//! Draws which gang ran where and when, from the runtime's events alone: the Ousterhout matrix of
//! gang scheduling. A gang starts as a whole, so its tasks stand side by side in one row.
//!
//! Every executor has one slot. A row is a time in which nothing started or ended; gaps between two
//! gangs that are too short to see are left out. A watcher that is too slow is told what it missed:
//! try `PHALANX_EVENTS_CAPACITY=1`.

use clap::{Parser, value_parser};
use comfy_table::Table;
use phalanx::{
    Config, EventRecord, EventStream, EventStreamError, ExecutorId, ExecutorResources, Runtime,
    RuntimeEvent, Stage, StageId, TaskResult,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Runs gangs of different sizes and draws which ran where and when.
#[derive(Parser)]
#[command(name = "ousterhout")]
struct Options {
    /// Executors of one slot each.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = value_parser!(u32).range(1..=16))]
    executors: u32,
}

/// How long a gang works.
const WORK: Duration = Duration::from_millis(40);
/// A row that lasted less is not drawn.
const SHORTEST: Duration = Duration::from_millis(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Options { executors } = Options::parse();
    // Strictly in line: smaller gangs behind a large one do not take the slots it waits for.
    let config = Config { reserve_after: Duration::ZERO, ..Config::load(None)? };
    let builder = Runtime::builder().config(config);
    let slots = (0..executors).map(|_| ExecutorResources::new(1));
    let runtime = slots.fold(builder, |builder, slot| builder.executor(slot)).start()?;
    let ids = runtime.status().await.executors.iter().map(|it| it.executor).collect();
    let watcher = tokio::spawn(watch(runtime.subscribe(), Matrix::new(ids)));
    run_gangs(&runtime, executors).await?;
    runtime.shutdown(Duration::from_secs(5)).await?;
    // The events end when the last runtime handle is gone.
    drop(runtime);
    println!("{}", watcher.await?.table());
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
async fn watch(mut events: EventStream, mut matrix: Matrix) -> Matrix {
    loop {
        match events.next().await {
            Ok(record) => matrix.take(record),
            Err(EventStreamError::Missed(count)) => matrix.missed(count),
            Err(EventStreamError::Ended) => return matrix,
        }
    }
}

/// What ran on the executors, row by row.
struct Matrix {
    executors: Vec<ExecutorId>,
    names: BTreeMap<StageId, String>,
    running: BTreeMap<ExecutorId, String>,
    /// Since when exactly this is running.
    since: Duration,
    rows: Vec<Vec<String>>,
}

impl Matrix {
    fn new(executors: Vec<ExecutorId>) -> Self {
        let (names, running) = (BTreeMap::new(), BTreeMap::new());
        Matrix { executors, names, running, since: Duration::ZERO, rows: Vec::new() }
    }

    fn take(&mut self, record: EventRecord) {
        let EventRecord { since_start, event, .. } = record;
        match event {
            RuntimeEvent::StageSubmitted { stage, spec } => {
                self.names.insert(stage, spec.name);
            }
            RuntimeEvent::TaskStarted { attempt, partition, executor, .. } => {
                self.end_row(since_start);
                let name = self.names.get(&attempt.stage);
                let name = name.map_or_else(|| format!("{}/", attempt.stage), String::clone);
                self.running.insert(executor, format!("{name}{partition}"));
            }
            RuntimeEvent::TaskEnded { executor, .. } => {
                self.end_row(since_start);
                self.running.remove(&executor);
            }
            _ => {}
        }
    }

    /// What ran meanwhile is not known, nor what runs now.
    fn missed(&mut self, count: u64) {
        self.running.clear();
        self.rows.push(vec![format!("events missed: {count}")]);
    }

    fn end_row(&mut self, now: Duration) {
        if !self.running.is_empty() && now.saturating_sub(self.since) >= SHORTEST {
            let time = format!("{} to {} ms", self.since.as_millis(), now.as_millis());
            let cell = |executor| self.running.get(executor).cloned().unwrap_or_default();
            self.rows.push([time].into_iter().chain(self.executors.iter().map(cell)).collect());
        }
        self.since = now;
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        let columns = self.executors.iter().map(|id| format!("executor {id}"));
        table.set_header(["time".to_owned()].into_iter().chain(columns));
        table.add_rows(&self.rows);
        table
    }
}

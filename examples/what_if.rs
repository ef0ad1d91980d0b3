//! Would it be done by morning with six slots? With another priority? Plays a night of training
//! jobs, or a recorded run, on the scheduler that ships, in virtual time.
//!
//! To ask about a real run: `cargo run --example ousterhout -- --log run.json`, then
//! `cargo run --example what_if -- --log run.json --slots 3 --slots 6`.

use anyhow::Context;
use clap::Parser;
use comfy_table::Table;
use phalanx::simulation::{EventLog, Plan, TaskScript};
use phalanx::{Config, ExecutorResources, Stage};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Asks how a night of jobs would go with other slots or priorities.
#[derive(Parser)]
#[command(name = "what_if")]
struct Options {
    /// Slots to try, on one executor; may be repeated.
    #[arg(long = "slots", value_name = "N", default_values_t = [4, 6])]
    slots: Vec<u32>,
    /// Gives the stages of this name priority, in a further try of each.
    #[arg(long, value_name = "NAME", default_value = "report")]
    urgent: String,
    /// Replays the events of this file instead of the night.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let Options { slots, urgent, log } = Options::parse();
    let plan = match log {
        Some(file) => recorded(&file)?,
        None => night()?,
    };
    for slots in slots {
        let mut plan = plan.clone();
        plan.replace_executors([ExecutorResources::new(slots)]);
        show(&format!("{slots} slots"), &plan.run()?);
        let named = plan.stages_mut().filter(|(_, stage)| stage.spec.name == urgent);
        if named.map(|(_, stage)| stage.spec.priority += 1).count() > 0 {
            show(&format!("{slots} slots, '{urgent}' first"), &plan.run()?);
        }
    }
    Ok(())
}

/// Three jobs that want more than four slots together, and a report that somebody waits for.
fn night() -> anyhow::Result<Plan> {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let epochs = |count, minute| {
        (0..count).fold(TaskScript::new(), |script, _| script.then_work(minute).all_gather())
    };
    let mut plan = Plan::new(Config::load(None)?);
    plan.submit(minutes(0), Stage::tasks(4).name("vision"), epochs(90, minutes(1)))?;
    plan.submit(minutes(5), Stage::tasks(3).name("speech"), epochs(60, minutes(2)))?;
    plan.submit(minutes(10), Stage::tasks(2).name("tables"), epochs(45, minutes(1)))?;
    plan.submit(minutes(30), Stage::tasks(1).name("report"), TaskScript::work(minutes(15)))?;
    Ok(plan)
}

fn recorded(file: &Path) -> anyhow::Result<Plan> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    let log: EventLog = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a recorded log", file.display()))?;
    Ok(Plan::replay(&log, Config::load(None)?)?)
}

fn show(title: &str, log: &EventLog) {
    let time = |time: Option<Duration>| time.map_or("never".to_owned(), short);
    let mut table = Table::new();
    table.set_header(["stage", "submitted", "waited", "ended", "attempts", "result"]);
    for stage in log.stage_times() {
        table.add_row([
            stage.name.clone(),
            short(stage.submitted),
            time(stage.waited()),
            time(stage.ended),
            stage.attempts.to_string(),
            stage.failure.map_or("succeeded".to_owned(), |failure| failure.to_string()),
        ]);
    }
    let used = 100.0 * log.utilisation();
    println!("{title}: all done after {}, {used:.0} % of the slots used", short(log.makespan()));
    println!("{table}\n\n{}", log.matrix());
}

/// Without the digits that nobody reads.
fn short(time: Duration) -> String {
    let digits = if time < Duration::from_secs(10) { 1_000_000 } else { 1_000_000_000 };
    let rest = time.as_nanos() % digits;
    let time = time.saturating_sub(Duration::from_nanos(rest as u64));
    humantime::format_duration(time).to_string()
}

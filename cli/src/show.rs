//! A driver's status, for people.

use comfy_table::{Table, presets};
use phalanx::actors::remote::wire::DriverStatus;
use phalanx::protocol::{ExecutorStatus, PartitionRanges, StageStatus};
use std::fmt::Write;

/// Executors in a table, then every stage with what it does and whom it waits for.
pub fn text(status: &DriverStatus) -> String {
    let mut text = format!("{}\n\n{}\n", status.application, executors(status));
    if status.runtime.stages.is_empty() {
        text.push_str("no stages\n");
    }
    for stage in &status.runtime.stages {
        text.push_str(&self::stage(stage, status));
    }
    text
}

fn executors(status: &DriverStatus) -> String {
    if status.runtime.executors.is_empty() {
        return "no executor has joined\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["executor", "name", "address", "incarnation", "running", "resources"]);
    for executor in &status.runtime.executors {
        let name = status.names.iter().find(|(id, _)| *id == executor.executor);
        table.add_row([
            executor.executor.to_string(),
            name.map_or_else(String::new, |(_, name)| name.to_string()),
            executor.address.to_string(),
            executor.incarnation.to_string(),
            executor.running.to_string(),
            resources(executor),
        ]);
    }
    format!("{table}\n")
}

fn resources(executor: &ExecutorStatus) -> String {
    let mut text = format!("{} cpus", executor.resources.cpus);
    for (name, addresses) in &executor.resources.named {
        // A `String` takes what is written.
        let _ = write!(text, ", {name} {}", addresses.join(" "));
    }
    text
}

fn stage(stage: &StageStatus, status: &DriverStatus) -> String {
    let StageStatus { name, num_tasks, attempt, phase, .. } = stage;
    let mut text = format!("{attempt} '{name}' of {num_tasks} tasks: {phase}\n");
    let mut line = |what: String| text.push_str(&format!("  {what}\n"));
    for sync in status.syncs.iter().filter(|sync| sync.attempt == *attempt) {
        line(format!("waits at epoch {} for partitions {}", sync.epoch, sync.missing));
    }
    let killed: PartitionRanges =
        stage.tasks.iter().filter(|task| task.killed).map(|task| task.partition).collect();
    if !killed.is_empty() {
        line(format!("killed, not ended yet: partitions {killed}"));
    }
    for task in stage.tasks.iter().filter(|task| task.ignores_kill) {
        line(format!(
            "partition {} on executor {} ignores its kill",
            task.partition, task.executor
        ));
    }
    if stage.failures + stage.infrastructure_failures > 0 {
        let (own, lost) = (stage.failures, stage.infrastructure_failures);
        line(format!("failed before: {own} by its tasks, {lost} by losses"));
    }
    if let Some(cause) = &stage.last_cause {
        line(format!("the last time {cause}"));
    }
    text
}

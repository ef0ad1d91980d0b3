//! Which task was on which slot when, after J. Ousterhout, "Scheduling techniques for concurrent
//! systems", 1982: a gang that starts as a whole stands side by side in one row.

use crate::{EventRecord, ExecutorId, PartitionId, RuntimeEvent, StageId, TaskAttemptId};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Rows of time, columns of slots. An executor has one slot per cpu; a task of several cpus stands
/// in several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OusterhoutMatrix {
    /// The slots: executor, and number within it.
    pub slots: Vec<(ExecutorId, u32)>,
    /// The rows, in order of time; while nothing ran there is none.
    pub rows: Vec<Row>,
    /// The names of the stages.
    pub names: BTreeMap<StageId, String>,
}

/// A time in which nothing started or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
    /// What ran, by slot.
    pub cells: Vec<Option<(StageId, PartitionId)>>,
}

impl OusterhoutMatrix {
    pub(super) fn of(records: &[EventRecord]) -> Self {
        let mut matrix = OusterhoutMatrix { slots: slots(records), ..Default::default() };
        let mut cpus: BTreeMap<StageId, u32> = BTreeMap::new();
        let mut cells = vec![None; matrix.slots.len()];
        let mut columns: BTreeMap<TaskAttemptId, Vec<usize>> = BTreeMap::new();
        let mut since = Duration::ZERO;
        for EventRecord { since_start: now, event, .. } in records {
            match event {
                RuntimeEvent::StageSubmitted { stage, spec } => {
                    matrix.names.insert(*stage, spec.name.clone());
                    cpus.insert(*stage, spec.resources.cpus());
                }
                RuntimeEvent::TaskStarted { attempt, partition, task_attempt, executor } => {
                    matrix.end_row(&mut since, *now, &cells);
                    let wanted = cpus.get(&attempt.stage).copied().unwrap_or(1) as usize;
                    let free = (0..cells.len())
                        .filter(|&slot| matrix.slots[slot].0 == *executor && cells[slot].is_none());
                    let taken: Vec<usize> = free.take(wanted).collect();
                    for &slot in &taken {
                        cells[slot] = Some((attempt.stage, *partition));
                    }
                    columns.insert(*task_attempt, taken);
                }
                RuntimeEvent::TaskEnded { task_attempt, .. } => {
                    matrix.end_row(&mut since, *now, &cells);
                    for slot in columns.remove(task_attempt).unwrap_or_default() {
                        cells[slot] = None;
                    }
                }
                _ => {}
            }
        }
        let end = records.last().map_or(since, |record| record.since_start);
        matrix.end_row(&mut since, end, &cells);
        matrix
    }

    fn end_row(
        &mut self,
        since: &mut Duration,
        now: Duration,
        cells: &[Option<(StageId, PartitionId)>],
    ) {
        let from = std::mem::replace(since, now);
        if from < now && cells.iter().any(Option::is_some) {
            self.rows.push(Row { from, to: now, cells: cells.to_vec() });
        }
    }

    /// How a cell is written: the stage's name and the partition.
    pub fn label(&self, cell: Option<(StageId, PartitionId)>) -> String {
        cell.map_or_else(String::new, |(stage, partition)| match self.names.get(&stage) {
            Some(name) => format!("{name}/{partition}"),
            None => format!("{stage}/{partition}"),
        })
    }
}

/// The slots of all executors that ever joined, or that tasks are known to have run on.
fn slots(records: &[EventRecord]) -> Vec<(ExecutorId, u32)> {
    let mut cpus: BTreeMap<ExecutorId, u32> = BTreeMap::new();
    for record in records {
        match &record.event {
            RuntimeEvent::ExecutorJoined { executor, resources, .. } => {
                let known = cpus.entry(*executor).or_insert(0);
                *known = (*known).max(resources.cpus);
            }
            RuntimeEvent::TaskStarted { executor, .. } => {
                cpus.entry(*executor).or_insert(1);
            }
            _ => {}
        }
    }
    let of_one = |(executor, cpus)| (0..cpus).map(move |slot| (executor, slot));
    cpus.into_iter().flat_map(of_one).collect()
}

impl fmt::Display for OusterhoutMatrix {
    /// A table for people: a line per row, a column per slot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |row: &Row| {
            let (from, to) = (row.from, row.to);
            format!("{} - {}", humantime::format_duration(from), humantime::format_duration(to))
        };
        let head = self.slots.iter().map(|(executor, slot)| format!("{executor}.{slot}"));
        let mut table: Vec<Vec<String>> = vec![["".to_owned()].into_iter().chain(head).collect()];
        for row in &self.rows {
            let cells = row.cells.iter().map(|cell| self.label(*cell));
            table.push([time(row)].into_iter().chain(cells).collect());
        }
        let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..=self.slots.len()).filter_map(width).collect();
        for row in &table {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line: Vec<String> = cells.collect();
            writeln!(f, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

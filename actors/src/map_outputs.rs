//! What map stages have made, for the stages that read it.

use crate::task::lock;
use phalanx_protocol::{ExecutorLife, FetchFailed, PartitionId, StageAttemptId, StageId};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Rows of one map task, in whatever form the stages that read them expect. Shared, not copied.
pub type MapRows = Arc<dyn Any + Send + Sync>;

/// What a task of a map stage returns.
pub struct MapOutput {
    /// Its partition.
    pub partition: PartitionId,
    /// Where it ran: with the executor its output is lost.
    pub executor: ExecutorLife,
    /// What it made.
    pub rows: MapRows,
}

/// The outputs of all map stages. Cloned, it is the same; read by tasks on any thread.
#[derive(Clone, Default)]
pub struct MapOutputs(Arc<Mutex<HashMap<StageId, StageOutputs>>>);

#[derive(Default)]
struct StageOutputs {
    attempt: u32,
    by_partition: Vec<Option<MapRows>>,
}

impl MapOutputs {
    /// What the first `count` tasks of a map stage have made.
    ///
    /// # Errors
    /// The first that is lost, or was never made.
    pub fn fetch(&self, stage: StageId, count: usize) -> Result<Vec<MapRows>, FetchFailed> {
        let stages = lock(&self.0);
        let none = StageOutputs::default();
        let StageOutputs { attempt, by_partition } = stages.get(&stage).unwrap_or(&none);
        let input = StageAttemptId { stage, attempt: *attempt };
        (0..count)
            .map(|partition| {
                let rows = by_partition.get(partition).and_then(Clone::clone);
                rows.ok_or(FetchFailed { input, partition: PartitionId(partition as u32) })
            })
            .collect()
    }

    pub(crate) fn put(&self, made_by: StageAttemptId, made: Vec<MapOutput>) {
        let mut stages = lock(&self.0);
        let StageOutputs { attempt, by_partition } = stages.entry(made_by.stage).or_default();
        *attempt = made_by.attempt;
        for MapOutput { partition, rows, .. } in made {
            let place = partition.0 as usize;
            if by_partition.len() <= place {
                by_partition.resize(place + 1, None);
            }
            by_partition[place] = Some(rows);
        }
    }

    /// Returns what is taken out, to be dropped where users' code may run.
    pub(crate) fn take(&self, stage: StageId, partitions: &[PartitionId]) -> Vec<MapRows> {
        let mut stages = lock(&self.0);
        let Some(outputs) = stages.get_mut(&stage) else { return Vec::new() };
        let place =
            |partition: &PartitionId| outputs.by_partition.get_mut(partition.0 as usize)?.take();
        partitions.iter().filter_map(place).collect()
    }

    pub(crate) fn take_all(&self, stage: StageId) -> Vec<MapRows> {
        let outputs = lock(&self.0).remove(&stage).unwrap_or_default();
        outputs.by_partition.into_iter().flatten().collect()
    }
}

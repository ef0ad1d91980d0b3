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
    by_partition: HashMap<PartitionId, MapRows>,
}

impl MapOutputs {
    /// What a map task has made.
    ///
    /// # Errors
    /// If it is lost, or was never made.
    pub fn fetch(&self, stage: StageId, partition: PartitionId) -> Result<MapRows, FetchFailed> {
        let stages = lock(&self.0);
        let outputs = stages.get(&stage);
        let attempt = outputs.map_or(0, |outputs| outputs.attempt);
        let rows = outputs.and_then(|outputs| outputs.by_partition.get(&partition));
        let input = StageAttemptId { stage, attempt };
        rows.cloned().ok_or(FetchFailed { input, partition })
    }

    pub(crate) fn put(&self, made_by: StageAttemptId, made: Vec<MapOutput>) {
        let mut stages = lock(&self.0);
        let outputs = stages.entry(made_by.stage).or_default();
        outputs.attempt = made_by.attempt;
        outputs.by_partition.extend(made.into_iter().map(|it| (it.partition, it.rows)));
    }

    /// Returns what is taken out, to be dropped where users' code may run.
    pub(crate) fn take(&self, stage: StageId, partitions: &[PartitionId]) -> Vec<MapRows> {
        let mut stages = lock(&self.0);
        let Some(outputs) = stages.get_mut(&stage) else { return Vec::new() };
        partitions.iter().filter_map(|it| outputs.by_partition.remove(it)).collect()
    }

    pub(crate) fn take_all(&self, stage: StageId) -> Vec<MapRows> {
        let outputs = lock(&self.0).remove(&stage).unwrap_or_default();
        outputs.by_partition.into_values().collect()
    }
}

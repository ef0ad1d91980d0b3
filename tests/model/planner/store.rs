//! What map stages have made, as the planner's shell keeps it and as it is in truth.

use phalanx::protocol::{ExecutorLife, FetchFailed, PartitionId, StageAttemptId, StageId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    stages: BTreeMap<StageId, Made>,
    /// Executors of whose loss the planner was told.
    lost: BTreeSet<ExecutorLife>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Made {
    /// Of the outputs that came last.
    attempt: u32,
    outputs: BTreeMap<PartitionId, Output>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Output {
    attempt: u32,
    executor: ExecutorLife,
    /// The planner has been told that it is not there.
    is_lost: bool,
}

impl Store {
    pub fn put(&mut self, by: StageAttemptId, made: &[(PartitionId, ExecutorLife)]) {
        let stage = self.stages.entry(by.stage).or_default();
        stage.attempt = by.attempt;
        for &(partition, executor) in made {
            let is_lost = self.lost.contains(&executor);
            let output = Output { attempt: by.attempt, executor, is_lost };
            stage.outputs.insert(partition, output);
        }
    }

    pub fn executor_lost(&mut self, executor: ExecutorLife) {
        self.lost.insert(executor);
        let all = self.stages.values_mut().flat_map(|it| it.outputs.values_mut());
        all.filter(|it| it.executor == executor).for_each(|it| it.is_lost = true);
    }

    pub fn not_found(&mut self, failed: FetchFailed) {
        let FetchFailed { input, partition } = failed;
        let stage = self.stages.get_mut(&input.stage).filter(|it| it.attempt == input.attempt);
        if let Some(output) = stage.and_then(|it| it.outputs.get_mut(&partition)) {
            output.is_lost = true;
        }
    }

    /// Whether outputs of a gang, or all of these, are lost.
    pub fn are_lost(&self, stage: StageId, partitions: &[PartitionId], of_gang: bool) -> bool {
        let Some(made) = self.stages.get(&stage) else { return false };
        let is_lost = |it: &PartitionId| made.outputs.get(it).is_some_and(|it| it.is_lost);
        let all_of_gang = of_gang && partitions.len() == made.outputs.len();
        match all_of_gang {
            true => partitions.iter().any(is_lost),
            false => !of_gang && partitions.iter().all(is_lost),
        }
    }

    pub fn drop_outputs(&mut self, stage: StageId, partitions: &[PartitionId]) {
        if let Some(made) = self.stages.get_mut(&stage) {
            made.outputs.retain(|partition, _| !partitions.contains(partition));
        }
    }

    pub fn forget(&mut self, stage: StageId) {
        self.stages.remove(&stage);
    }

    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    pub fn outputs(&self) -> usize {
        self.stages.values().map(|it| it.outputs.len()).sum()
    }

    /// Whether all outputs are there.
    pub fn is_complete(&self, stage: StageId, num_tasks: u32) -> bool {
        let made = self.stages.get(&stage).map(|it| &it.outputs);
        (0..num_tasks).map(PartitionId).all(|partition| {
            made.and_then(|it| it.get(&partition)).is_some_and(|output| !output.is_lost)
        })
    }

    /// Whether all outputs were made by the same attempt.
    pub fn is_of_one_attempt(&self, stage: StageId) -> bool {
        let outputs = self.stages.get(&stage).into_iter().flat_map(|it| it.outputs.values());
        outputs.map(|it| it.attempt).collect::<BTreeSet<_>>().len() <= 1
    }

    /// What a task that looks for the outputs now may not find; `any`: even one that is there.
    pub fn missing(&self, stage: StageId, num_tasks: u32, any: bool) -> Option<FetchFailed> {
        let made = self.stages.get(&stage);
        let is_missing =
            |partition: &PartitionId| made.is_none_or(|it| !it.outputs.contains_key(partition));
        let mut partitions = (0..num_tasks).map(PartitionId);
        let partition = partitions.find(is_missing).or(any.then_some(PartitionId(0)))?;
        let attempt = made.map_or(0, |it| it.attempt);
        Some(FetchFailed { input: StageAttemptId { stage, attempt }, partition })
    }

    pub fn is_made_again(&self) -> bool {
        self.stages.values().any(|it| it.outputs.values().any(|it| it.attempt > 0))
    }

    pub fn has_part_of(&self, stage: StageId) -> bool {
        self.stages.get(&stage).is_some_and(|it| !it.outputs.is_empty())
    }

    /// Whether it means outputs that have been made again since.
    pub fn is_stale(&self, failed: &FetchFailed) -> bool {
        let made = self.stages.get(&failed.input.stage);
        made.is_some_and(|it| it.attempt > failed.input.attempt)
    }
}

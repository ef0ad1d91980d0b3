//! What the planner knows of one stage.

use super::JobStage;
use crate::{
    ExecutorLife, JobFailure, JobId, PartitionId, PlannedStage, StageFailure, StageRole, StageSpec,
};
use std::collections::{BTreeMap, BTreeSet};

/// A stage that a job needs, or whose dataset may be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stage {
    pub(super) planned: PlannedStage,
    pub(super) spec: StageSpec,
    pub(super) state: State,
    /// Those that have it among their stages.
    pub(super) jobs: BTreeSet<JobId>,
    /// Jobs may come that need it: its dataset is there.
    pub(super) is_held: bool,
    pub(super) outputs: MapOutputs,
    /// Executors that were lost while the scheduler had it.
    pub(super) lost: BTreeSet<ExecutorLife>,
    pub(super) next_attempt: u32,
}

/// Where a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// Not with the scheduler.
    Idle,
    /// Handed to the scheduler, which has not said yet whether it fits.
    Checking,
    /// It fits, and waits for its input.
    Waiting,
    /// Its input is ready.
    Started,
    /// The scheduler was asked to end it.
    Cancelled,
}

/// Which outputs of a map stage are where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct MapOutputs(BTreeMap<PartitionId, ExecutorLife>);

impl MapOutputs {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &PartitionId> {
        self.0.keys()
    }

    pub(super) fn extend(&mut self, more: MapOutputs) {
        self.0.extend(more.0);
    }

    pub(super) fn of_executor(&self, executor: ExecutorLife) -> Vec<PartitionId> {
        let held = self.0.iter().filter(|(_, holder)| **holder == executor);
        held.map(|(partition, _)| *partition).collect()
    }

    /// Takes out these, or all if they are `of_gang`: what one of a gang made is of no use without
    /// the others, and they are made together. Says what was taken out.
    pub(super) fn forget(
        &mut self,
        partitions: impl IntoIterator<Item = PartitionId>,
        of_gang: bool,
    ) -> Vec<PartitionId> {
        let partitions = partitions.into_iter().filter(|it| self.0.contains_key(it));
        let mut forgotten: BTreeSet<PartitionId> = partitions.collect();
        if of_gang && !forgotten.is_empty() {
            forgotten = self.0.keys().copied().collect();
        }
        self.0.retain(|partition, _| !forgotten.contains(partition));
        forgotten.into_iter().collect()
    }
}

impl FromIterator<(PartitionId, ExecutorLife)> for MapOutputs {
    fn from_iter<I: IntoIterator<Item = (PartitionId, ExecutorLife)>>(outputs: I) -> Self {
        MapOutputs(outputs.into_iter().collect())
    }
}

impl Stage {
    pub(super) fn new(JobStage { planned, spec }: JobStage) -> Self {
        let is_held = planned.role == StageRole::Map;
        Stage {
            planned,
            spec,
            state: State::Idle,
            jobs: BTreeSet::new(),
            is_held,
            outputs: MapOutputs::default(),
            lost: BTreeSet::new(),
            next_attempt: 0,
        }
    }

    pub(super) fn is_map(&self) -> bool {
        match self.planned.role {
            StageRole::Map => true,
            StageRole::Result => false,
        }
    }

    /// Whether the scheduler has it, with this spec, and was not asked to end it.
    pub(super) fn is_handed_in(&self) -> bool {
        match self.state {
            State::Checking | State::Waiting | State::Started => true,
            State::Idle | State::Cancelled => false,
        }
    }

    /// Whether it has no tasks.
    pub(super) fn is_empty(&self) -> bool {
        self.planned.num_tasks == 0
    }

    /// Whether all of its outputs are there, and it does not run any more.
    pub(super) fn is_available(&self) -> bool {
        self.is_map()
            && self.state == State::Idle
            && self.outputs.len() == self.planned.num_tasks as usize
    }

    /// Whether the scheduler has let it pass.
    pub(super) fn is_checked(&self) -> bool {
        match self.state {
            State::Waiting | State::Started => true,
            State::Idle | State::Checking | State::Cancelled => false,
        }
    }

    pub(super) fn failure(&self, failure: StageFailure) -> JobFailure {
        match failure {
            StageFailure::Shutdown => JobFailure::Shutdown,
            failure => JobFailure::Stage {
                stage: self.planned.stage,
                name: self.spec.name.clone(),
                role: self.planned.role,
                is_barrier: self.planned.is_barrier(),
                failure,
            },
        }
    }
}

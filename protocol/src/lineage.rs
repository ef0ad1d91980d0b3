//! Where a dataset comes from, and the stages that make it.

use crate::StageId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiserror::Error;

/// Datasets and what each is made of, parents before children. The last one is what a job is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lineage {
    nodes: Vec<DatasetNode>,
}

/// One dataset.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DatasetNode {
    /// What made it, for people: `map`, `union`.
    pub name: String,
    /// How many partitions it has.
    pub num_partitions: u32,
    /// Made by an operation of `barrier()`.
    pub from_barrier: bool,
    /// What it is made of.
    pub parents: Vec<Dependency>,
}

/// How a dataset is made of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dependency {
    /// By the same task: a partition needs a few partitions of the parent.
    Narrow {
        /// The parent's place in the lineage.
        parent: usize,
    },
    /// By way of a map stage, whose outputs every partition reads.
    Shuffle {
        /// The parent's place in the lineage.
        parent: usize,
        /// The map stage.
        stage: StageId,
    },
}

/// What a stage is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StageRole {
    /// Its outputs feed a shuffle, and can be made again.
    Map,
    /// Its values are the job's result.
    Result,
}

/// One stage of a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlannedStage {
    /// Which.
    pub stage: StageId,
    /// What it is for.
    pub role: StageRole,
    /// How many tasks it has.
    pub num_tasks: u32,
    /// The stages that make its input.
    pub parents: Vec<StageId>,
    /// The datasets that its tasks make, parents before children.
    pub datasets: Vec<DatasetInfo>,
    /// Whether it can be a barrier stage, if it is one.
    pub chain: Result<(), UnsupportedChain>,
}

/// A dataset as one of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DatasetInfo {
    /// What made it.
    pub name: String,
    /// How many partitions it has.
    pub num_partitions: u32,
    /// Whether it is made by a gang. Records written without it are of none.
    #[serde(default)]
    pub is_barrier: bool,
    /// What it is made of by the same tasks: places in the stage's list. Records written without it
    /// tell nothing of that.
    #[serde(default)]
    pub parents: Vec<usize>,
}

/// A barrier stage in which a task would not be one partition of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
pub enum UnsupportedChain {
    /// A union, a coalesce, pruned partitions.
    #[error(
        "a barrier stage cannot hold datasets of different numbers of partitions: it has {num_tasks} tasks, for '{last}', and '{dataset}' has {num_partitions} partitions; put a repartition({num_tasks}) between the two, so that they are made by different stages"
    )]
    PartitionsDiffer {
        /// The dataset that does not fit.
        dataset: String,
        /// How many partitions it has.
        num_partitions: u32,
        /// The last dataset of the stage.
        last: String,
        /// How many tasks the stage has.
        num_tasks: u32,
    },
    /// Only some partitions are asked for.
    #[error(
        "a barrier stage makes all of its partitions or none: {requested} of the {num_partitions} partitions of '{dataset}' are asked for; collect() all and take what is needed"
    )]
    PartialPartitions {
        /// The dataset.
        dataset: String,
        /// How many partitions are asked for.
        requested: u32,
        /// How many it has.
        num_partitions: u32,
    },
    /// A partition is asked for twice.
    #[error(
        "a barrier stage makes every partition once: partition {partition} of '{dataset}' is asked for more than once; name each of its {num_partitions} partitions once, or collect() all"
    )]
    RepeatedPartitions {
        /// The dataset.
        dataset: String,
        /// Which partition.
        partition: u32,
        /// How many it has.
        num_partitions: u32,
    },
    /// Two gangs would be one.
    #[error(
        "a dataset of a barrier stage can have one barrier parent: '{dataset}' has {barrier_parents}; zip what they are made of before one barrier(), or, if it does not matter which rows meet, put a repartition({num_partitions}) behind all but one of them"
    )]
    SeveralBarrierParents {
        /// The dataset.
        dataset: String,
        /// How many.
        barrier_parents: u32,
        /// How many partitions it has.
        num_partitions: u32,
    },
}

impl PlannedStage {
    /// Whether its tasks are a gang.
    pub fn is_barrier(&self) -> bool {
        self.datasets.last().is_some_and(|last| last.is_barrier)
    }
}

impl Lineage {
    /// Adds a dataset; returns its place.
    ///
    /// # Panics
    /// If a parent is not there yet.
    pub fn push(&mut self, node: DatasetNode) -> usize {
        let place = self.nodes.len();
        let known = node.parents.iter().all(|parent| parent.place() < place);
        assert!(known, "dataset {place} '{}' comes before one of its parents", node.name);
        self.nodes.push(node);
        place
    }

    /// How many partitions the last dataset has; 0 if there is none.
    pub fn num_partitions(&self) -> u32 {
        self.nodes.last().map_or(0, |last| last.num_partitions)
    }

    /// Which datasets are made by a gang: what an operation of `barrier()` made, and all that is
    /// made of it by the same tasks. A shuffle ends it.
    pub fn barrier_datasets(&self) -> Vec<bool> {
        let mut is_barrier: Vec<bool> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let inherits = narrow(node).any(|parent| is_barrier[parent]);
            is_barrier.push(node.from_barrier || inherits);
        }
        is_barrier
    }

    /// The stages that make the last dataset, cut at its shuffles, parents before children; the
    /// last is the result stage, of this id. `partitions`: those asked for, if not all.
    pub fn stages(&self, result: StageId, partitions: Option<&[u32]>) -> Vec<PlannedStage> {
        let Some(last) = self.nodes.len().checked_sub(1) else { return Vec::new() };
        let is_barrier = self.barrier_datasets();
        let (mut known, mut stages) = (BTreeSet::new(), Vec::new());
        for place in self.reached_from(last) {
            for dependency in &self.nodes[place].parents {
                if let Dependency::Shuffle { parent, stage } = *dependency
                    && known.insert(stage)
                {
                    stages.push(self.stage(stage, StageRole::Map, parent, None, &is_barrier));
                }
            }
        }
        stages.push(self.stage(result, StageRole::Result, last, partitions, &is_barrier));
        stages
    }

    /// The places of all that a dataset is made of, itself included, ascending.
    fn reached_from(&self, last: usize) -> BTreeSet<usize> {
        let (mut reached, mut next) = (BTreeSet::new(), vec![last]);
        while let Some(place) = next.pop() {
            if reached.insert(place) {
                next.extend(self.nodes[place].parents.iter().map(Dependency::place));
            }
        }
        reached
    }

    fn stage(
        &self,
        stage: StageId,
        role: StageRole,
        last: usize,
        partitions: Option<&[u32]>,
        is_barrier: &[bool],
    ) -> PlannedStage {
        let (mut places, mut next) = (BTreeSet::new(), vec![last]);
        let mut parents = BTreeSet::new();
        while let Some(place) = next.pop() {
            if places.insert(place) {
                next.extend(narrow(&self.nodes[place]));
                parents.extend(self.nodes[place].parents.iter().filter_map(Dependency::stage));
            }
        }
        let all = self.nodes[last].num_partitions;
        let mut chain = Ok(());
        let mut num_tasks = all;
        if is_barrier[last] {
            chain = self.check_requested(last, partitions);
            let checked = places.iter().map(|place| self.check_dataset(*place, last, is_barrier));
            chain = checked.fold(chain, Result::and);
        } else if let Some(partitions) = partitions {
            num_tasks = partitions.len() as u32;
        }
        let places: Vec<usize> = places.into_iter().collect();
        let datasets = places.iter().map(|&place| DatasetInfo {
            name: self.nodes[place].name.clone(),
            num_partitions: self.nodes[place].num_partitions,
            is_barrier: is_barrier[place],
            parents: narrow(&self.nodes[place])
                .filter_map(|parent| places.binary_search(&parent).ok())
                .collect(),
        });
        let (datasets, parents) = (datasets.collect(), parents.into_iter().collect());
        PlannedStage { stage, role, num_tasks, parents, datasets, chain }
    }

    fn check_requested(
        &self,
        last: usize,
        partitions: Option<&[u32]>,
    ) -> Result<(), UnsupportedChain> {
        let Some(partitions) = partitions else { return Ok(()) };
        let DatasetNode { name, num_partitions, .. } = &self.nodes[last];
        let (dataset, num_partitions) = (name.clone(), *num_partitions);
        let mut seen = BTreeSet::new();
        for &partition in partitions {
            if !seen.insert(partition) {
                let repeated =
                    UnsupportedChain::RepeatedPartitions { dataset, partition, num_partitions };
                return Err(repeated);
            }
        }
        let requested = seen.len() as u32;
        if requested < num_partitions {
            let partial =
                UnsupportedChain::PartialPartitions { dataset, requested, num_partitions };
            return Err(partial);
        }
        Ok(())
    }

    fn check_dataset(
        &self,
        place: usize,
        last: usize,
        is_barrier: &[bool],
    ) -> Result<(), UnsupportedChain> {
        let (node, last) = (&self.nodes[place], &self.nodes[last]);
        let (dataset, num_partitions) = (node.name.clone(), node.num_partitions);
        if num_partitions != last.num_partitions {
            let (last, num_tasks) = (last.name.clone(), last.num_partitions);
            return Err(UnsupportedChain::PartitionsDiffer {
                dataset,
                num_partitions,
                last,
                num_tasks,
            });
        }
        let barrier_parents = narrow(node).filter(|parent| is_barrier[*parent]).count() as u32;
        if barrier_parents > 1 {
            return Err(UnsupportedChain::SeveralBarrierParents {
                dataset,
                barrier_parents,
                num_partitions,
            });
        }
        Ok(())
    }
}

impl Dependency {
    fn place(&self) -> usize {
        match self {
            Dependency::Narrow { parent } | Dependency::Shuffle { parent, .. } => *parent,
        }
    }

    fn stage(&self) -> Option<StageId> {
        match self {
            Dependency::Narrow { .. } => None,
            Dependency::Shuffle { stage, .. } => Some(*stage),
        }
    }
}

fn narrow(node: &DatasetNode) -> impl Iterator<Item = usize> + '_ {
    node.parents.iter().filter_map(|parent| match parent {
        Dependency::Narrow { parent } => Some(*parent),
        Dependency::Shuffle { .. } => None,
    })
}

#[cfg(test)]
mod tests;

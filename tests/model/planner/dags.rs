//! The jobs of the worlds, planned as those of users are.

use super::Config;
use phalanx::protocol::{
    DatasetNode, Dependency, JobId, JobStage, Lineage, OnFailure, PlannedStage, StageId, StageKind,
    StageRole, StageSpec, SubmitJob, TaskResources,
};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(1);

/// A job that a user will submit.
#[derive(Clone, Debug)]
pub struct SubmittedJob(pub Vec<JobStage>);

impl SubmittedJob {
    pub fn maps(&self) -> impl Iterator<Item = StageId> {
        let maps = self.0.iter().filter(|it| it.planned.role == StageRole::Map);
        maps.map(|it| it.planned.stage)
    }

    pub fn submit(&self, job: usize) -> SubmitJob {
        SubmitJob { job: JobId(job as u64), name: String::new(), stages: self.0.clone() }
    }
}

impl<P> Config<P> {
    pub fn planned(&self, stage: StageId) -> &PlannedStage {
        let mut stages = self.jobs.iter().flat_map(|job| &job.0);
        &stages.find(|it| it.planned.stage == stage).expect("a stage of a job").planned
    }
}

/// A stage of a chain: how many tasks it has, and whether they are a gang.
#[derive(Clone, Copy)]
pub enum Link {
    Gang(u32),
    Plain(u32),
}

/// Stages that each read all of the one before. Map stages are numbered from 0, so jobs share
/// those that they have in common; the result stage has this id.
pub fn chain(links: &[Link], result: u64) -> SubmittedJob {
    let mut lineage = Lineage::default();
    for (index, link) in links.iter().enumerate() {
        let (num_partitions, from_barrier) = match *link {
            Link::Gang(num_tasks) => (num_tasks, true),
            Link::Plain(num_tasks) => (num_tasks, false),
        };
        let parent = index.checked_sub(1);
        let shuffle = |parent| Dependency::Shuffle { parent, stage: StageId(parent as u64) };
        let parents = parent.map(shuffle).into_iter().collect();
        let name = String::new();
        lineage.push(DatasetNode { name, num_partitions, from_barrier, parents });
    }
    SubmittedJob(staged(&lineage, result))
}

/// A gang whose dataset was coalesced: it cannot be one.
pub fn unsupported(result: u64) -> SubmittedJob {
    let mut lineage = Lineage::default();
    let node = |num_partitions, from_barrier, parents| {
        let name = String::new();
        DatasetNode { name, num_partitions, from_barrier, parents }
    };
    let map = lineage.push(node(1, false, vec![]));
    let shuffle = Dependency::Shuffle { parent: map, stage: StageId(0) };
    let gang = lineage.push(node(2, true, vec![shuffle]));
    lineage.push(node(1, false, vec![Dependency::Narrow { parent: gang }]));
    SubmittedJob(staged(&lineage, result))
}

/// A result that reads two map stages, of which the first makes the second's input as well.
pub fn diamond(first: Link, second: Link, result: u64) -> SubmittedJob {
    let mut lineage = Lineage::default();
    let node = |link, parents| {
        let (num_partitions, from_barrier) = match link {
            Link::Gang(num_tasks) => (num_tasks, true),
            Link::Plain(num_tasks) => (num_tasks, false),
        };
        DatasetNode { name: String::new(), num_partitions, from_barrier, parents }
    };
    let shuffle = |parent| Dependency::Shuffle { parent, stage: StageId(parent as u64) };
    lineage.push(node(first, vec![]));
    lineage.push(node(second, vec![shuffle(0)]));
    lineage.push(node(Link::Plain(1), vec![shuffle(0), shuffle(1)]));
    SubmittedJob(staged(&lineage, result))
}

fn staged(lineage: &Lineage, result: u64) -> Vec<JobStage> {
    let planned = lineage.stages(StageId(result), None).into_iter();
    planned.map(|planned| JobStage { spec: spec_of(&planned), planned }).collect()
}

fn spec_of(planned: &PlannedStage) -> StageSpec {
    StageSpec {
        name: String::new(),
        kind: if planned.is_barrier() { StageKind::Barrier } else { StageKind::Plain },
        num_tasks: planned.num_tasks,
        resources: TaskResources::default(),
        max_attempts: 1,
        max_infrastructure_failures: 2,
        retry_delay: Duration::ZERO,
        priority: 0,
        sync_timeout: SOON,
        on_failure: OnFailure::Restart,
    }
}

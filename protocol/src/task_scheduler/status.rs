//! What the scheduler tells about its stages and executors.

use super::TaskScheduler;
use super::stage::{Phase, Stage};
use super::wait_queue::Place;
use crate::{
    ExecutorId, ExecutorResources, FailureCause, Incarnation, PartitionId, PartitionRanges,
    StageAttemptId, StageId, TaskAttemptId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a stage is at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StageStatus {
    /// The stage.
    pub stage: StageId,
    /// Its name.
    pub name: String,
    /// World size.
    pub num_tasks: u32,
    /// The attempt that runs, or the next one while none does.
    pub attempt: StageAttemptId,
    /// What it does or waits for.
    pub phase: StagePhase,
    /// Tasks that have not ended, also killed ones, in order of launch.
    pub tasks: Vec<TaskStatus>,
    /// Failures so far that were the tasks' own.
    pub failures: u32,
    /// Failures so far of executors and coordinators.
    pub infrastructure_failures: u32,
    /// First cause of the last failure.
    pub last_cause: Option<FailureCause>,
}

/// What a stage does or waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StagePhase {
    /// All executors together have too few slots; checked again from time to time.
    Deferred {
        /// Slots needed at once.
        required: u64,
        /// Slots there are, busy ones included.
        available: u64,
        /// How many more checks may fail.
        checks_left: u32,
    },
    /// It waits for free slots.
    Queued {
        /// Slots needed at once.
        required: u64,
        /// Slots free now.
        free: u64,
        /// Stages in line before it.
        ahead: usize,
        /// Whether slots that come free are kept for it.
        reserves: bool,
    },
    /// It fits, and waits until the stages before it in its job have made its input.
    AwaitingInput,
    /// All its tasks are launched.
    Running {
        /// Tasks that have succeeded.
        succeeded: u32,
    },
    /// An attempt failed; it waits for its killed tasks to end.
    Stopping {
        /// Who has not ended yet.
        waiting_for: PartitionRanges,
    },
    /// The pause before the next attempt.
    BackingOff,
    /// It has its result; killed tasks may still be ending.
    Ended,
}

impl StagePhase {
    /// One word: `deferred`, `queued`, `awaiting_input`, `running`, `stopping`, `backing_off` or
    /// `ended`.
    pub fn name(&self) -> &'static str {
        match self {
            StagePhase::Deferred { .. } => "deferred",
            StagePhase::Queued { .. } => "queued",
            StagePhase::AwaitingInput => "awaiting_input",
            StagePhase::Running { .. } => "running",
            StagePhase::Stopping { .. } => "stopping",
            StagePhase::BackingOff => "backing_off",
            StagePhase::Ended => "ended",
        }
    }
}

impl fmt::Display for StagePhase {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StagePhase::Deferred { required, available, checks_left } => write!(
                f,
                "deferred: needs {required} slots, all executors together have {available}; \
                 {checks_left} more checks may fail"
            ),
            StagePhase::Queued { required, free, ahead, reserves } => {
                let keeps = if *reserves { "; slots that come free are kept for it" } else { "" };
                write!(
                    f,
                    "queued: needs {required} slots, {free} are free, {ahead} stages are before \
                     it{keeps}"
                )
            }
            StagePhase::AwaitingInput => f.write_str("awaiting the output of the stages before it"),
            StagePhase::Running { succeeded } => {
                write!(f, "running: {succeeded} tasks have succeeded")
            }
            StagePhase::Stopping { waiting_for } => {
                write!(f, "stopping: waits for the killed tasks of partition {waiting_for}")
            }
            StagePhase::BackingOff => f.write_str("backing off before the next attempt"),
            StagePhase::Ended => f.write_str("ended"),
        }
    }
}

/// A task that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Its partition.
    pub partition: PartitionId,
    /// Its attempt id.
    pub task_attempt: TaskAttemptId,
    /// Where it runs.
    pub executor: ExecutorId,
    /// Whether it was told to end.
    pub killed: bool,
    /// Whether it was told to end longer ago than `kill.grace`.
    pub ignores_kill: bool,
}

/// An executor and what runs on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExecutorStatus {
    /// The executor.
    pub executor: ExecutorId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Where its tasks can be found.
    pub address: Arc<str>,
    /// What it has.
    pub resources: ExecutorResources,
    /// How many tasks hold slots of it.
    pub running: usize,
}

impl TaskScheduler {
    /// The status of a stage; `None` once it has its result and its last task has ended.
    pub fn stage_status(&self, stage: StageId) -> Option<StageStatus> {
        let stage = self.stages.get(&stage)?;
        Some(self.status_of(stage, || self.queue.ahead(&stage.place())))
    }

    /// Whether this is a plain stage that has tasks in line: none of its tasks' ends is its own.
    pub fn has_tasks_in_line(&self, stage: StageId) -> bool {
        let is_plain = |stage: &&Stage| !stage.is_gang() && stage.phase == Phase::Queued;
        self.stages.get(&stage).filter(is_plain).is_some()
    }

    /// The status of all stages that are not over, in order of submission.
    pub fn stages(&self) -> impl Iterator<Item = StageStatus> + '_ {
        let ahead: BTreeMap<Place, usize> = self.queue.places().into_iter().zip(0..).collect();
        self.stages.values().map(move |stage| {
            self.status_of(stage, || ahead.get(&stage.place()).copied().unwrap_or(0))
        })
    }

    /// The executors that are there, in order.
    pub fn executors(&self) -> impl Iterator<Item = ExecutorStatus> + '_ {
        let mut running: BTreeMap<ExecutorId, usize> = BTreeMap::new();
        for task in self.tasks.values() {
            *running.entry(task.executor).or_insert(0) += 1;
        }
        self.ledger.executors().map(move |(id, executor)| ExecutorStatus {
            executor: id,
            incarnation: executor.incarnation,
            address: executor.address.clone(),
            resources: executor.resources.clone(),
            running: running.get(&id).copied().unwrap_or(0),
        })
    }

    /// How many tasks of these resources all executors could run at once, busy slots included.
    pub fn max_concurrent_tasks(&self, resources: &crate::TaskResources) -> u64 {
        self.ledger.slots_in_total(resources)
    }

    /// `ahead`: how many stages stand in line before this one, if it does.
    fn status_of(&self, stage: &Stage, ahead: impl Fn() -> usize) -> StageStatus {
        let tasks = stage.live.iter().filter_map(|id| {
            let task = self.tasks.get(id)?;
            Some(TaskStatus {
                partition: task.partition,
                task_attempt: *id,
                executor: task.executor,
                killed: task.killed.is_some(),
                ignores_kill: task.overdue,
            })
        });
        StageStatus {
            stage: stage.id,
            name: stage.spec.name.clone(),
            num_tasks: stage.spec.num_tasks,
            attempt: stage.attempt_id(),
            phase: self.phase_of(stage, ahead),
            tasks: tasks.collect(),
            failures: stage.failures,
            infrastructure_failures: stage.losses,
            last_cause: stage.last_cause.clone(),
        }
    }

    fn phase_of(&self, stage: &Stage, ahead: impl Fn() -> usize) -> StagePhase {
        let resources = &stage.spec.resources;
        match stage.phase {
            Phase::Deferred { failed_checks } => StagePhase::Deferred {
                required: stage.slots_needed(),
                available: self.ledger.slots_in_total(resources),
                checks_left: self.config.slot_check_max_failures - (failed_checks - 1),
            },
            Phase::Queued => StagePhase::Queued {
                required: stage.slots_needed(),
                free: self.ledger.slots_free(resources),
                ahead: ahead(),
                reserves: self.queue.first_old() == Some(stage.place())
                    && self.reservation(stage.id).is_some(),
            },
            Phase::AwaitingInput => StagePhase::AwaitingInput,
            Phase::Running => StagePhase::Running { succeeded: stage.succeeded },
            Phase::Stopping { .. } => {
                let partition = |id| self.tasks.get(id).map(|task| task.partition);
                let live = stage.live.iter().filter_map(partition);
                StagePhase::Stopping { waiting_for: live.collect() }
            }
            Phase::BackingOff => StagePhase::BackingOff,
            Phase::Ended => StagePhase::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_a_name_and_a_line_for_people() {
        let waiting_for = [1, 2].map(PartitionId).into_iter().collect();
        let phases = [
            StagePhase::Deferred { required: 4, available: 2, checks_left: 3 },
            StagePhase::Queued { required: 4, free: 2, ahead: 1, reserves: false },
            StagePhase::Queued { required: 4, free: 2, ahead: 0, reserves: true },
            StagePhase::AwaitingInput,
            StagePhase::Running { succeeded: 1 },
            StagePhase::Stopping { waiting_for },
            StagePhase::BackingOff,
            StagePhase::Ended,
        ];
        let names = phases.each_ref().map(StagePhase::name);
        let expected = "deferred queued queued awaiting_input running stopping backing_off ended";
        assert_eq!(names.join(" "), expected);
        let expected = [
            "deferred: needs 4 slots, all executors together have 2; 3 more checks may fail",
            "queued: needs 4 slots, 2 are free, 1 stages are before it",
            "queued: needs 4 slots, 2 are free, 0 stages are before it; \
             slots that come free are kept for it",
            "awaiting the output of the stages before it",
            "running: 1 tasks have succeeded",
            "stopping: waits for the killed tasks of partition 1-2",
            "backing off before the next attempt",
            "ended",
        ];
        assert_eq!(phases.map(|phase| phase.to_string()), expected);
    }
}

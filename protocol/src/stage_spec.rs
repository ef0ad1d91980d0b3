//! What a stage asks for.

use crate::{PartitionRanges, StageId, TaskResources};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// Client to scheduler: run this stage. Ends with one `StageEnded` for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SubmitStage {
    /// The stage's id, unique within the runtime.
    pub stage: StageId,
    /// What it asks for.
    pub spec: StageSpec,
    /// Of a stage of a job.
    pub of_job: Option<OfJob>,
}

/// What a [`Planner`](crate::Planner) adds: a stage of a job is checked at once, but starts only
/// when its input is ready, and it may go on where it had been before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OfJob {
    /// The number of its first attempt.
    pub first_attempt: u32,
    /// Partitions of a plain stage that need not run: their outputs are there.
    pub done: PartitionRanges,
}

/// Whether the tasks of a stage are a gang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StageKind {
    /// All tasks start together or none, may sync, and fail together.
    Barrier,
    /// Tasks start as slots come free, run independently and are retried one by one.
    Plain,
}

/// What happens when a task of the stage fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnFailure {
    /// The stage starts again as a whole (a plain stage: the task), as often as allowed.
    Restart,
    /// The stage fails at once: its effects cannot be repeated.
    Abort,
    /// As `Restart`, unless a task of the failed attempt has succeeded, or may have because its
    /// executor was lost: its effects are out and cannot be repeated.
    RestartUnlessCommitted,
}

/// What a stage asks for. Checked by [`StageSpec::validate`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StageSpec {
    /// A name for logs and status.
    pub name: String,
    /// Gang or independent tasks.
    pub kind: StageKind,
    /// Number of tasks (world size); 0 completes at once.
    pub num_tasks: u32,
    /// What each task occupies while it runs.
    pub resources: TaskResources,
    /// Consecutive attempts that may fail through the tasks' own errors, at least 1; for a plain
    /// stage, of each task.
    pub max_attempts: u32,
    /// Losses of executors or coordinators that do not count as attempts.
    pub max_infrastructure_failures: u32,
    /// Pause between an attempt's failure and the next attempt, which also waits for the killed
    /// tasks to end; tasks of a plain stage are tried again at once.
    pub retry_delay: Duration,
    /// Higher goes first; equal ones in order of submission.
    pub priority: i32,
    /// How long one sync may last from its first arrival.
    pub sync_timeout: Duration,
    /// What happens when a task fails.
    pub on_failure: OnFailure,
}

/// A stage that cannot be run as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum InvalidStage {
    /// No attempt is allowed.
    #[error("stage '{name}': max_attempts is 0, allowed is 1 or more")]
    NoAttempts {
        /// The stage's name.
        name: String,
    },
    /// A task that takes no cpu would never be limited by slots.
    #[error("stage '{name}': a task needs 0 cpus, allowed is 1 or more")]
    NoCpus {
        /// The stage's name.
        name: String,
    },
    /// A sync may not last at all.
    #[error("stage '{name}': sync_timeout is 0s, allowed is more than that")]
    NoSyncTimeout {
        /// The stage's name.
        name: String,
    },
    /// More tasks than the runtime allows.
    #[error(
        "stage '{name}': it has {num_tasks} tasks, allowed are at most {limit} (stage.max_tasks)"
    )]
    TooManyTasks {
        /// The stage's name.
        name: String,
        /// What it asks for.
        num_tasks: usize,
        /// The configured limit.
        limit: u32,
    },
}

impl StageSpec {
    /// Checks the values that have no meaning.
    ///
    /// # Errors
    /// Names the value and what is allowed.
    pub fn validate(&self) -> Result<(), InvalidStage> {
        let name = || self.name.clone();
        if self.max_attempts == 0 {
            return Err(InvalidStage::NoAttempts { name: name() });
        }
        if self.resources.cpus() == 0 {
            return Err(InvalidStage::NoCpus { name: name() });
        }
        if self.sync_timeout.is_zero() {
            return Err(InvalidStage::NoSyncTimeout { name: name() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> StageSpec {
        StageSpec {
            name: "train".to_owned(),
            kind: StageKind::Barrier,
            num_tasks: 2,
            resources: TaskResources::default(),
            max_attempts: 1,
            max_infrastructure_failures: 0,
            retry_delay: Duration::ZERO,
            priority: 0,
            sync_timeout: Duration::from_nanos(1),
            on_failure: OnFailure::Restart,
        }
    }

    #[test]
    fn the_least_that_has_a_meaning_is_taken() {
        assert_eq!(spec().validate(), Ok(()));
        assert_eq!(StageSpec { num_tasks: 0, ..spec() }.validate(), Ok(()));
    }

    #[test]
    fn what_has_no_meaning_is_named() {
        let wrong = [
            StageSpec { max_attempts: 0, ..spec() },
            StageSpec { resources: TaskResources::default().with_cpus(0), ..spec() },
            StageSpec { sync_timeout: Duration::ZERO, ..spec() },
        ];
        let expected = [
            "stage 'train': max_attempts is 0, allowed is 1 or more",
            "stage 'train': a task needs 0 cpus, allowed is 1 or more",
            "stage 'train': sync_timeout is 0s, allowed is more than that",
        ];
        assert_eq!(wrong.map(|spec| spec.validate().unwrap_err().to_string()), expected);
    }
}

//! What the world knows of executors, stages and tasks, by its own record.

use super::{Fault, executor_id};
use phalanx::protocol::{
    Incarnation, PartitionId, SchedulerTimer, StageAttemptId, StageFailure, TaskAttemptId,
    TaskFailure, TaskOutcome, TaskReport,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Executor {
    /// How many there were so far.
    pub lives: u32,
    /// The last of them.
    pub here: Here,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Here {
    No,
    Lives,
    /// The scheduler does not know yet.
    Dead,
    /// Given up by the scheduler because of tasks that do not end.
    Retired,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stage {
    /// The last that was launched.
    pub attempt: Option<u32>,
    /// The attempt of a gang has failed.
    pub failed: bool,
    /// Tasks of the attempt (a plain stage: of the stage) that have succeeded.
    pub succeeded: u32,
    pub wait: Wait,
    pub ended: Option<Ended>,
}

/// What a stage was last said to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wait {
    #[default]
    Nothing,
    /// Enough slots; this timer is the next check.
    Slots(SchedulerTimer),
    Queued,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    Succeeded,
    SucceededAfterFailure,
    NotEnoughSlots,
    QueueFull,
    Cancelled,
    Shutdown,
    AttemptsExhausted,
    InfrastructureExhausted,
    Aborted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    pub attempt: StageAttemptId,
    pub partition: PartitionId,
    pub executor: usize,
    pub incarnation: u32,
    pub cpus: u32,
    /// `KillTask` was sent.
    pub killed: bool,
    /// `TaskIgnoresKill` was said.
    pub overdue: bool,
    pub run: Run,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Run {
    Runs,
    /// Will never end.
    Sticks,
    /// Its report is on its way.
    Ended(Outcome),
    /// With its executor, of whose death the scheduler will hear.
    Vanished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    Succeeded,
    Error,
    Killed,
    /// Never reported by a task.
    ExecutorLost,
    /// Never reported by a task.
    BarrierLost,
}

impl Outcome {
    /// As the cause of an attempt's failure.
    pub fn of(failure: &TaskFailure) -> Self {
        match failure {
            TaskFailure::Error(_) | TaskFailure::Panicked(_) | TaskFailure::NotStarted(_) => {
                Outcome::Error
            }
            TaskFailure::Killed(_) => Outcome::Killed,
            TaskFailure::ExecutorLost(_) => Outcome::ExecutorLost,
            TaskFailure::BarrierLost(_) => Outcome::BarrierLost,
            TaskFailure::FetchFailed(_) => panic!("no stage here has input"),
        }
    }

    fn reported(self) -> TaskOutcome {
        // Without words, so that states are small.
        TaskOutcome::Failed(match self {
            Outcome::Succeeded => return TaskOutcome::Succeeded,
            Outcome::Error => TaskFailure::Error(String::new()),
            Outcome::Killed => TaskFailure::Killed(String::new()),
            Outcome::ExecutorLost => TaskFailure::ExecutorLost(String::new()),
            Outcome::BarrierLost => TaskFailure::BarrierLost(String::new()),
        })
    }
}

impl Executor {
    /// Whether the scheduler counts on it.
    pub fn is_known(&self) -> bool {
        match self.here {
            Here::Lives | Here::Dead => true,
            Here::No | Here::Retired => false,
        }
    }
}

impl Task {
    /// Whether it uses its cpus.
    pub fn runs(&self) -> bool {
        match self.run {
            Run::Runs | Run::Sticks => true,
            Run::Ended(_) | Run::Vanished => false,
        }
    }

    pub fn report(&self, task_attempt: TaskAttemptId, outcome: Outcome) -> TaskReport {
        TaskReport {
            executor: executor_id(self.executor),
            incarnation: Incarnation(self.incarnation),
            attempt: self.attempt,
            partition: self.partition,
            task_attempt,
            outcome: outcome.reported(),
        }
    }
}

impl Stage {
    /// Its tasks' ends still count.
    pub fn is_well(&self) -> bool {
        self.attempt.is_some() && !self.failed && self.ended.is_none()
    }

    /// Books the result; the rest of the record is history and would keep states apart.
    pub fn end(&mut self, result: Result<(), StageFailure>, num_tasks: u32) -> Option<Fault> {
        let ended = match result {
            Ok(()) if self.attempt.unwrap_or(0) > 0 => Ended::SucceededAfterFailure,
            Ok(()) => Ended::Succeeded,
            Err(StageFailure::NotEnoughSlots { .. }) => Ended::NotEnoughSlots,
            Err(StageFailure::QueueFull { .. }) => Ended::QueueFull,
            Err(StageFailure::Cancelled { .. }) => Ended::Cancelled,
            Err(StageFailure::Shutdown) => Ended::Shutdown,
            Err(StageFailure::AttemptsExhausted { .. }) => Ended::AttemptsExhausted,
            Err(StageFailure::InfrastructureExhausted { .. }) => Ended::InfrastructureExhausted,
            Err(StageFailure::Aborted { .. }) => Ended::Aborted,
            Err(StageFailure::Refused { .. }) => panic!("said by the shell only"),
            Err(StageFailure::Committed { .. } | StageFailure::DynamicAllocation { .. }) => {
                panic!("asked for by no stage here")
            }
        };
        let success = matches!(ended, Ended::Succeeded | Ended::SucceededAfterFailure);
        let fault = if self.ended.is_some() {
            Some(Fault::EndedAgain)
        } else if success && (self.failed || self.succeeded < num_tasks) {
            Some(Fault::FalseSuccess)
        } else {
            None
        };
        let attempt = self.attempt;
        *self = Stage { attempt, ended: Some(ended), ..Stage::default() };
        fault
    }
}

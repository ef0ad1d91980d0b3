//! What a simulated task does.

use crate::{SyncMethod, TaskFailure};
use std::time::Duration;

/// The life of one task: its steps in order, then its end.
///
/// ```
/// use phalanx::simulation::TaskScript;
/// use std::time::Duration;
///
/// let second = Duration::from_secs(1);
/// let epoch = TaskScript::work(second).barrier();
/// let fails_late = TaskScript::work(second).barrier().then_work(second).fails("out of memory");
/// # let _ = (epoch, fails_late);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskScript {
    /// What it does first to last.
    pub steps: Vec<Step>,
    /// How it ends if nothing ends it before.
    pub end: TaskEnd,
    /// How long it goes on once it is killed; `None`: it ignores the kill and does all its steps.
    /// Default: not at all.
    pub ends_after_kill: Option<Duration>,
    /// Whether it goes on when a sync fails; by default it fails with the sync's error.
    pub ignores_sync_errors: bool,
}

/// One step of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It works for so long; [`Duration::MAX`]: until something ends it.
    Work(Duration),
    /// It works until so long after it began.
    WorkUntil(Duration),
    /// It calls and waits for the others of its gang.
    Sync(SyncMethod),
    /// It calls, and drops the call if it is not answered in time.
    TrySync(SyncMethod, Duration),
}

/// How a task ends on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// It succeeds.
    Returns,
    /// It fails with this.
    Fails(TaskFailure),
}

impl TaskScript {
    /// Does nothing and succeeds.
    pub fn new() -> Self {
        TaskScript {
            steps: Vec::new(),
            end: TaskEnd::Returns,
            ends_after_kill: Some(Duration::ZERO),
            ignores_sync_errors: false,
        }
    }

    /// The executor cannot even start it, for this reason.
    pub fn cannot_start(reason: impl Into<String>) -> Self {
        let end = TaskEnd::Fails(TaskFailure::NotStarted(reason.into()));
        TaskScript { end, ..TaskScript::new() }
    }

    /// Works for so long and succeeds.
    pub fn work(duration: Duration) -> Self {
        TaskScript::new().then_work(duration)
    }

    /// Then works for so long.
    pub fn then_work(self, duration: Duration) -> Self {
        self.then(Step::Work(duration))
    }

    /// Then meets the others in `barrier()`.
    pub fn barrier(self) -> Self {
        self.then(Step::Sync(SyncMethod::Barrier))
    }

    /// Then meets the others in `all_gather()`.
    pub fn all_gather(self) -> Self {
        self.then(Step::Sync(SyncMethod::AllGather))
    }

    /// Then does this.
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Ends with this error.
    pub fn fails(mut self, error: impl Into<String>) -> Self {
        self.end = TaskEnd::Fails(TaskFailure::Error(error.into()));
        self
    }

    /// Ends with a panic of this message.
    pub fn panics(mut self, message: impl Into<String>) -> Self {
        self.end = TaskEnd::Fails(TaskFailure::Panicked(message.into()));
        self
    }

    /// Once killed goes on for so long; `None`: to its own end.
    pub fn ends_after_kill(mut self, lag: Option<Duration>) -> Self {
        self.ends_after_kill = lag;
        self
    }

    /// Goes on with the next step when a sync fails.
    pub fn ignores_sync_errors(mut self) -> Self {
        self.ignores_sync_errors = true;
        self
    }
}

impl Default for TaskScript {
    fn default() -> Self {
        TaskScript::new()
    }
}

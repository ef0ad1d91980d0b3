//! What the scheduler knows of one stage.

use super::wait_queue::{Demand, Place};
use crate::{
    ExecutorId, FailureCause, OfJob, OnFailure, PartitionId, StageAttemptId, StageFailure, StageId,
    StageKind, StageSpec, SubmitStage, TaskAttemptId, TaskFailure, TaskOutcome,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// One stage from its submission until the last of its tasks has ended.
///
/// ```text
///  submit ─▶ Deferred ◀──▶ Queued ──all N placed──▶ Running ──all succeeded──▶ Ended
///               │             ▲                        │ first failure: kill the others
///     too often │             │ retry_delay is over    ▼
///               │          BackingOff ◀──all ended── Stopping
///               ▼                                      
///             Ended ◀── attempts used up, OnFailure::Abort, cancel, shutdown (from anywhere)
/// ```
///
/// A stage of a job is taken out of line, into `AwaitingInput`, until its input is ready; so it is
/// again when a task of it has not found its input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stage {
    pub(super) id: StageId,
    pub(super) spec: StageSpec,
    pub(super) phase: Phase,
    /// Has a planner, who is told of lost inputs.
    pub(super) is_of_job: bool,
    pub(super) awaits_input: bool,
    pub(super) first_attempt: u32,
    /// The current attempt, or the next one while none runs.
    pub(super) attempt: u32,
    /// Attempts started so far.
    pub(super) started: u32,
    /// Failed attempts that were the tasks' own fault.
    pub(super) failures: u32,
    /// Failures of the infrastructure.
    pub(super) losses: u32,
    pub(super) last_cause: Option<FailureCause>,
    /// How often a task of this stage failed on an executor that is still there.
    pub(super) failed_on: BTreeMap<ExecutorId, u32>,
    /// Older than `reserve_after`.
    pub(super) aged: bool,
    /// Times this stage was deferred; tells late timers.
    pub(super) deferrals: u32,
    /// Kills so far.
    pub(super) kills: u32,
    /// Tasks that have not ended, also killed ones.
    pub(super) live: BTreeSet<TaskAttemptId>,
    /// Tasks of the current attempt (a plain stage: of the stage) that succeeded.
    pub(super) succeeded: u32,
    /// Of a plain stage: partitions to be launched.
    pub(super) pending: BTreeSet<PartitionId>,
    /// Of a plain stage: failures by partition.
    pub(super) task_failures: BTreeMap<PartitionId, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// All executors together have too few slots.
    Deferred { failed_checks: u32 },
    /// In the queue; a plain stage may have tasks running.
    Queued,
    /// It fits, and its input is not ready.
    AwaitingInput,
    /// All tasks are launched.
    Running,
    /// Failed; its killed tasks are ending. The pause before the next attempt may still last.
    Stopping { pauses: bool },
    /// The pause before the next attempt.
    BackingOff,
    /// Has its result; killed tasks may still be ending.
    Ended,
}

impl Stage {
    pub(super) fn new(submit: SubmitStage) -> Self {
        let SubmitStage { stage: id, spec, of_job } = submit;
        let is_of_job = of_job.is_some();
        let OfJob { first_attempt, done } = of_job.unwrap_or_default();
        let (pending, succeeded) = match spec.kind {
            StageKind::Barrier => (BTreeSet::new(), 0),
            StageKind::Plain => {
                let done: BTreeSet<PartitionId> = done.iter().collect();
                let all = (0..spec.num_tasks).map(PartitionId);
                let pending: BTreeSet<_> = all.filter(|it| !done.contains(it)).collect();
                let succeeded = spec.num_tasks - pending.len() as u32;
                (pending, succeeded)
            }
        };
        Stage {
            id,
            spec,
            phase: Phase::Queued,
            is_of_job,
            awaits_input: is_of_job,
            first_attempt,
            attempt: first_attempt,
            started: 0,
            failures: 0,
            losses: 0,
            last_cause: None,
            failed_on: BTreeMap::new(),
            aged: false,
            deferrals: 0,
            kills: 0,
            live: BTreeSet::new(),
            succeeded,
            pending,
            task_failures: BTreeMap::new(),
        }
    }

    pub(super) fn attempt_id(&self) -> StageAttemptId {
        StageAttemptId { stage: self.id, attempt: self.attempt }
    }

    pub(super) fn next_attempt_id(&self) -> StageAttemptId {
        StageAttemptId { stage: self.id, attempt: self.attempt + 1 }
    }

    pub(super) fn is_gang(&self) -> bool {
        match self.spec.kind {
            StageKind::Barrier => true,
            StageKind::Plain => false,
        }
    }

    /// Goes on as the stage of this id whose killed tasks are still ending: waits for them, and
    /// uses none of its names again.
    pub(super) fn follow(&mut self, former: &Stage) {
        self.phase = Phase::Stopping { pauses: false };
        // The next attempt comes when the last of them has ended.
        self.attempt = former.attempt.max(self.first_attempt.saturating_sub(1));
        self.first_attempt = self.attempt + 1;
        self.kills = former.kills;
        self.live.clone_from(&former.live);
    }

    /// Whether no task of the current attempt has been started.
    pub(super) fn is_attempt_new(&self) -> bool {
        self.attempt == self.first_attempt + self.started
    }

    /// Slots without which nothing of the stage can start.
    pub(super) fn slots_needed(&self) -> u64 {
        match self.spec.kind {
            StageKind::Barrier => u64::from(self.spec.num_tasks),
            StageKind::Plain => u64::from(!self.pending.is_empty()),
        }
    }

    /// Whether it needs no task to end any more.
    pub(super) fn is_done(&self) -> bool {
        self.succeeded == self.spec.num_tasks
    }

    pub(super) fn demand(&self) -> Demand {
        let gang = self.is_gang().then_some(self.spec.num_tasks);
        Demand { gang, resources: self.spec.resources.clone() }
    }

    pub(super) fn place(&self) -> Place {
        Place { priority: Reverse(self.spec.priority), stage: self.id }
    }

    /// Books a failure; says whether it ends the stage.
    pub(super) fn book_failure(&mut self, cause: &FailureCause) -> Option<StageFailure> {
        self.last_cause = Some(cause.clone());
        let infrastructure = cause.failure.is_infrastructure();
        self.avoid(cause);
        let failures = if infrastructure {
            self.losses += 1;
            self.losses
        } else {
            self.book_own_failure(cause)
        };
        let cause = cause.clone();
        match self.spec.on_failure {
            OnFailure::Abort => Some(StageFailure::Aborted { cause }),
            OnFailure::RestartUnlessCommitted if self.may_be_committed(&cause) => {
                Some(StageFailure::Committed { committed: self.succeeded, cause })
            }
            OnFailure::Restart | OnFailure::RestartUnlessCommitted if infrastructure => {
                let (losses, allowed) = (failures, self.spec.max_infrastructure_failures);
                (losses > allowed).then_some(StageFailure::InfrastructureExhausted {
                    losses,
                    allowed,
                    cause,
                })
            }
            OnFailure::Restart | OnFailure::RestartUnlessCommitted => (failures
                >= self.spec.max_attempts)
                .then_some(StageFailure::AttemptsExhausted { attempts: failures, cause }),
        }
    }

    /// What a task on a lost executor has done nobody knows.
    fn may_be_committed(&self, cause: &FailureCause) -> bool {
        self.succeeded > 0 || matches!(cause.failure, TaskFailure::ExecutorLost(_))
    }

    /// Whether this end of a killed task says that its effects are out, or leaves it open, and they
    /// cannot be repeated.
    pub(super) fn may_have_committed_late(
        &self,
        of: StageAttemptId,
        outcome: &TaskOutcome,
    ) -> bool {
        let may_have = match outcome {
            TaskOutcome::Succeeded | TaskOutcome::Failed(TaskFailure::ExecutorLost(_)) => true,
            TaskOutcome::Failed(_) => false,
        };
        may_have
            && self.spec.on_failure == OnFailure::RestartUnlessCommitted
            && matches!(self.phase, Phase::Stopping { .. })
            && self.attempt_id() == of
    }

    /// The next attempt prefers other executors, if the executor may be at fault.
    fn avoid(&mut self, cause: &FailureCause) {
        let may_be_at_fault = match &cause.failure {
            TaskFailure::Error(_) | TaskFailure::Panicked(_) | TaskFailure::NotStarted(_) => true,
            TaskFailure::Killed(_)
            | TaskFailure::ExecutorLost(_)
            | TaskFailure::BarrierLost(_)
            | TaskFailure::FetchFailed(_) => false,
        };
        if let Some(origin) = cause.origin.filter(|_| may_be_at_fault) {
            *self.failed_on.entry(origin.executor).or_insert(0) += 1;
        }
    }

    /// Failures of the gang, or of a plain stage's task, with this one.
    fn book_own_failure(&mut self, cause: &FailureCause) -> u32 {
        self.failures += 1;
        match (self.spec.kind, cause.origin) {
            (StageKind::Plain, Some(origin)) => {
                let of_task = self.task_failures.entry(origin.partition).or_insert(0);
                *of_task += 1;
                *of_task
            }
            (StageKind::Plain, None) | (StageKind::Barrier, _) => self.failures,
        }
    }
}

//! A plan made of what was recorded.

use super::plan::{Fault, Plan};
use super::{EventLog, Step, TaskEnd, TaskScript};
use crate::protocol::{StageKind, StageSpec};
use crate::{
    Config, EventRecord, ExecutorId, JobId, PartitionId, RuntimeEvent, StageAttemptId,
    StageFailure, StageId, SyncError, SyncMethod, TaskAttemptId, TaskFailure, TaskOutcome,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use thiserror::Error;

/// A log that does not say enough.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// The log begins too late.
    #[error(
        "the log does not show the submission of stage {0}: record from the start of the runtime"
    )]
    UnknownStage(StageId),
    /// The log begins too late.
    #[error(
        "the log does not show executor {0} joining: record with RuntimeBuilder::start_recorded"
    )]
    UnknownExecutor(ExecutorId),
    /// The log ends too early.
    #[error("the log ends before stage {0} does: record to the end of the runtime")]
    UnfinishedStage(StageId),
    /// A job's stages wait for each other, which no plan can say.
    #[error(
        "the log shows job {0} on datasets, and only stages can be replayed: record without it"
    )]
    HasJob(JobId),
}

/// One try of a task, as recorded.
struct Try {
    attempt: StageAttemptId,
    partition: PartitionId,
    /// Counted as in [`PlannedStage::tries`](super::plan::PlannedStage::tries).
    tried: u32,
    began: Duration,
    end: Option<(Duration, TaskOutcome)>,
}

struct Round {
    method: SyncMethod,
    opened: Duration,
    released: Option<Duration>,
    /// Who cannot have been the first to arrive.
    absent: BTreeSet<PartitionId>,
}

#[derive(Default)]
struct Recorded {
    executors: BTreeSet<ExecutorId>,
    specs: BTreeMap<StageId, StageSpec>,
    tries: BTreeMap<TaskAttemptId, Try>,
    launches: BTreeMap<(StageId, PartitionId), u32>,
    rounds: BTreeMap<StageAttemptId, Vec<Round>>,
    /// Which partition failed first.
    causes: BTreeMap<StageAttemptId, PartitionId>,
    /// When the tasks of an attempt were killed.
    stopped: BTreeMap<StageAttemptId, Duration>,
    running: BTreeMap<StageId, StageAttemptId>,
    completed: BTreeSet<StageId>,
}

impl Plan {
    /// A plan that does what the log shows: the same executors, submissions, cancellations and
    /// losses at the same times, tasks that take as long and fail as they did, syncs included. Run
    /// under the same settings it reproduces the log; then change the executors, the stages or
    /// `config` and see.
    ///
    /// What differs: timers fire when they are due (real ones are some milliseconds late); a round
    /// that a failure cut short may be missing or name another of its causes. A task whose end was
    /// not seen, because its executor was lost, takes as long as the longest of its stage that
    /// succeeded.
    ///
    /// # Errors
    /// If the log begins too late or ends too early.
    pub fn replay(log: &EventLog, config: Config) -> Result<Plan, ReplayError> {
        let mut recorded = Recorded::default();
        let mut plan = Plan::new(config);
        plan.given_up_returns_after = None;
        for (index, record) in log.records().iter().enumerate() {
            recorded.take(record)?;
            let next = log.records()[index + 1..].iter().find(|next| !is_round(&next.event));
            plan.take(record, next);
        }
        for stage in recorded.specs.keys() {
            if !recorded.completed.contains(stage) {
                return Err(ReplayError::UnfinishedStage(*stage));
            }
        }
        recorded.write_scripts(&mut plan);
        Ok(plan)
    }

    /// What came from outside.
    fn take(&mut self, record: &EventRecord, next: Option<&EventRecord>) {
        let at = record.since_start;
        match &record.event {
            RuntimeEvent::ExecutorJoined { executor, incarnation, resources } => {
                self.add_life(at, *executor, *incarnation, resources.clone());
            }
            RuntimeEvent::ExecutorLost { executor: lost, reason, .. } => {
                // A new life is the loss of the former one.
                let is_replaced = next.is_some_and(|next| {
                    next.since_start == at
                        && matches!(&next.event, RuntimeEvent::ExecutorJoined { executor, .. }
                            if executor == lost)
                });
                if !is_replaced {
                    let (executor, reason) = (*lost, reason.clone());
                    let (noticed_after, back_after) = (Duration::ZERO, None);
                    let fault =
                        Fault::ExecutorCrashes { executor, reason, noticed_after, back_after };
                    self.fault(at, fault);
                }
            }
            RuntimeEvent::StageSubmitted { stage, spec } => {
                self.add_stage(*stage, at, spec.clone(), TaskScript::new());
            }
            RuntimeEvent::AttemptFailed { cause, .. } => match (&cause.failure, cause.origin) {
                (TaskFailure::Killed(reason), Some(origin)) => {
                    self.kill_task(at, cause.attempt.stage, origin.partition, reason.clone());
                }
                (TaskFailure::BarrierLost(_), _) => {
                    self.fault(at, Fault::BarrierDies { stage: cause.attempt.stage });
                }
                _ => {}
            },
            RuntimeEvent::StageCompleted { stage, failure: Some(failure), .. } => match failure {
                StageFailure::Cancelled { reason } => self.cancel(at, *stage, reason.clone()),
                StageFailure::Shutdown => self.shutdown(at),
                _ => {}
            },
            _ => {}
        }
    }
}

fn is_round(event: &RuntimeEvent) -> bool {
    matches!(
        event,
        RuntimeEvent::RoundOpened { .. }
            | RuntimeEvent::RoundReleased { .. }
            | RuntimeEvent::RoundFailed { .. }
    )
}

impl Recorded {
    fn take(&mut self, record: &EventRecord) -> Result<(), ReplayError> {
        let now = record.since_start;
        match &record.event {
            RuntimeEvent::StageSubmitted { stage, spec } => {
                self.specs.insert(*stage, spec.clone());
            }
            RuntimeEvent::ExecutorJoined { executor, .. } => {
                self.executors.insert(*executor);
            }
            RuntimeEvent::TaskStarted { attempt, partition, task_attempt, executor } => {
                if !self.executors.contains(executor) {
                    return Err(ReplayError::UnknownExecutor(*executor));
                }
                let tried = self.count_try(*attempt, *partition)?;
                let (attempt, partition) = (*attempt, *partition);
                self.running.insert(attempt.stage, attempt);
                let begun = Try { attempt, partition, tried, began: now, end: None };
                self.tries.insert(*task_attempt, begun);
            }
            RuntimeEvent::TaskEnded { task_attempt, outcome, .. } => {
                if let Some(running) = self.tries.get_mut(task_attempt) {
                    running.end = Some((now, outcome.clone()));
                }
            }
            RuntimeEvent::AttemptFailed { cause, .. } if self.is_gang(cause.attempt.stage) => {
                let partition = cause.origin.map(|origin| origin.partition);
                self.causes.extend(partition.map(|partition| (cause.attempt, partition)));
                self.stopped.entry(cause.attempt).or_insert(now);
            }
            RuntimeEvent::RoundOpened { attempt, method, .. } => {
                let opened =
                    Round { method: *method, opened: now, released: None, absent: BTreeSet::new() };
                self.rounds.entry(*attempt).or_default().push(opened);
            }
            RuntimeEvent::RoundReleased { attempt, .. } => {
                let open = self.rounds.get_mut(attempt).and_then(|rounds| rounds.last_mut());
                if let Some(round) = open {
                    round.released = Some(now);
                }
            }
            RuntimeEvent::RoundFailed { attempt, error, .. } => self.round_failed(*attempt, error),
            RuntimeEvent::JobStarted { job, .. } | RuntimeEvent::JobEnded { job, .. } => {
                return Err(ReplayError::HasJob(*job));
            }
            RuntimeEvent::StageCompleted { stage, failure, .. } => {
                self.completed.insert(*stage);
                if let (Some(_), Some(running)) = (failure, self.running.get(stage)) {
                    self.stopped.entry(*running).or_insert(now);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn round_failed(&mut self, attempt: StageAttemptId, error: &SyncError) {
        let Some(rounds) = self.rounds.get_mut(&attempt) else { return };
        let Some(round) = rounds.last_mut() else { return };
        match error {
            // All who had arrived went away again.
            SyncError::Withdrawn { .. } => drop(rounds.pop()),
            SyncError::PeerLeft { partition, .. } | SyncError::MixedMethods { partition, .. } => {
                round.absent.insert(*partition);
            }
            SyncError::Timeout { missing, .. } => round.absent.extend(missing.iter()),
            _ => {}
        }
    }

    /// Who arrived first in each round of an attempt: any of those who may have been.
    fn openers(&self, attempt: StageAttemptId, tries: &[&Try]) -> Vec<Option<PartitionId>> {
        let failed = self.causes.get(&attempt);
        let opener = |round: &Round| {
            let may_be = tries.iter().map(|it| it.partition).filter(|partition| {
                let is_cause = round.released.is_none() && failed == Some(partition);
                !round.absent.contains(partition) && !is_cause
            });
            may_be.min()
        };
        self.rounds.get(&attempt).into_iter().flatten().map(opener).collect()
    }

    fn is_gang(&self, stage: StageId) -> bool {
        self.specs.get(&stage).is_some_and(|spec| spec.kind == StageKind::Barrier)
    }

    fn count_try(
        &mut self,
        attempt: StageAttemptId,
        partition: PartitionId,
    ) -> Result<u32, ReplayError> {
        let stage = attempt.stage;
        let spec = self.specs.get(&stage).ok_or(ReplayError::UnknownStage(stage))?;
        Ok(match spec.kind {
            StageKind::Barrier => attempt.attempt,
            StageKind::Plain => {
                let launches = self.launches.entry((stage, partition)).or_insert(0);
                *launches += 1;
                *launches - 1
            }
        })
    }

    fn write_scripts(&self, plan: &mut Plan) {
        let mut attempts: BTreeMap<StageAttemptId, Vec<&Try>> = BTreeMap::new();
        for it in self.tries.values() {
            attempts.entry(it.attempt).or_default().push(it);
        }
        for (attempt, tries) in attempts {
            let openers = self.openers(attempt, &tries);
            for it in tries {
                let script = self.script(it, &openers, plan);
                let Some(stage) = plan.stage_mut(attempt.stage) else { continue };
                // The last try is what later ones do, if other settings lead to some.
                stage.partitions.insert(it.partition, script.clone());
                stage.tries.insert((it.partition, it.tried), script);
            }
        }
    }

    fn script(&self, it: &Try, openers: &[Option<PartitionId>], plan: &mut Plan) -> TaskScript {
        let mut script = self.syncs(it, openers);
        let stop = self.stopped.get(&it.attempt).copied();
        let Some((end, outcome)) = &it.end else {
            return script.then_work(Duration::MAX).ends_after_kill(None);
        };
        let until = |end: Duration| Step::WorkUntil(end.saturating_sub(it.began));
        if stop.is_some_and(|stop| stop < *end) {
            script.ends_after_kill = None;
        }
        match outcome {
            TaskOutcome::Succeeded => script.then(until(*end)),
            TaskOutcome::Failed(TaskFailure::Killed(reason)) => {
                let killed = stop.filter(|stop| stop <= end).unwrap_or_else(|| {
                    plan.kill_task(*end, it.attempt.stage, it.partition, reason.clone());
                    *end
                });
                let script = script.then_work(Duration::MAX);
                script.ends_after_kill(Some(end.saturating_sub(killed)))
            }
            TaskOutcome::Failed(TaskFailure::ExecutorLost(_)) => {
                let longest = self.longest_success(it.attempt.stage).unwrap_or_default();
                script.then(until((*end).max(it.began + longest)))
            }
            TaskOutcome::Failed(failure) => {
                let mut script = script.then(until(*end));
                script.end = TaskEnd::Fails(failure.clone());
                script
            }
        }
    }

    fn longest_success(&self, stage: StageId) -> Option<Duration> {
        let of_stage = self.tries.values().filter(|it| it.attempt.stage == stage);
        let lasted = |it: &Try| match &it.end {
            Some((end, TaskOutcome::Succeeded)) => Some(end.saturating_sub(it.began)),
            Some((_, TaskOutcome::Failed(_))) | None => None,
        };
        of_stage.filter_map(lasted).max()
    }

    /// The log shows when the first and the last task arrived, not who they were.
    fn syncs(&self, it: &Try, openers: &[Option<PartitionId>]) -> TaskScript {
        let mut script = TaskScript::new().ignores_sync_errors();
        let rounds = self.rounds.get(&it.attempt).into_iter().flatten();
        for (round, opener) in rounds.zip(openers) {
            let arrived = if *opener == Some(it.partition) {
                round.opened
            } else {
                match round.released {
                    Some(released) => released,
                    None => break,
                }
            };
            let offset = arrived.saturating_sub(it.began);
            script = script.then(Step::WorkUntil(offset)).then(Step::Sync(round.method));
        }
        script
    }
}

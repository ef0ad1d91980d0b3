//! From a task's end to the stage's: success, first cause, kills, retries, losses.

use super::stage::{Phase, Stage};
use super::{RunningTask, SchedulerEffect, TaskScheduler};
use crate::{
    CloseReason, ExecutorId, FailureCause, Incarnation, PartitionId, RuntimeEvent, SchedulerTimer,
    StageAttemptId, StageCompleted, StageFailure, StageId, TaskAttemptId, TaskFailure, TaskOrigin,
    TaskOutcome, TaskReport,
};
use std::collections::{BTreeMap, BTreeSet};

/// How it is known that a task has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// By its own report, which came with a value or error.
    Reported,
    /// By the loss of its executor.
    Lost,
    /// By the same loss as another task of its stage, which has been booked.
    LostWithOthers,
}

impl TaskScheduler {
    pub(super) fn task_report(&mut self, report: TaskReport, effects: &mut Vec<SchedulerEffect>) {
        let known = self.tasks.get(&report.task_attempt).is_some_and(|task| {
            (task.executor, task.attempt, task.partition)
                == (report.executor, report.attempt, report.partition)
        });
        let incarnation = self.ledger.get(report.executor).map(|it| it.incarnation);
        if !known || incarnation != Some(report.incarnation) {
            return;
        }
        let Some(task) = self.tasks.remove(&report.task_attempt) else { return };
        self.ledger.give_back(task.executor, &task.held);
        self.task_ended(report.task_attempt, task, report.outcome, Ending::Reported, effects);
    }

    /// A task that is already out of the books has ended.
    fn task_ended(
        &mut self,
        task_attempt: TaskAttemptId,
        task: RunningTask,
        outcome: TaskOutcome,
        ending: Ending,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let RunningTask { attempt, partition, executor, .. } = task;
        effects.push(SchedulerEffect::Emit(RuntimeEvent::TaskEnded {
            attempt,
            partition,
            task_attempt,
            executor,
            outcome: outcome.clone(),
        }));
        let Some(stage) = self.stages.get_mut(&attempt.stage) else { return };
        stage.live.remove(&task_attempt);
        let counts = match stage.phase {
            Phase::Running | Phase::Queued | Phase::Deferred { .. } => true,
            Phase::AwaitingInput | Phase::Stopping { .. } | Phase::BackingOff | Phase::Ended => {
                false
            }
        };
        if !counts && stage.may_have_committed_late(attempt, &outcome) {
            self.end_committed(attempt.stage, &outcome, effects);
        }
        if counts {
            if ending == Ending::Reported {
                let stage = attempt.stage;
                effects.push(SchedulerEffect::KeepPayload { stage, partition, task_attempt });
            }
            match outcome {
                TaskOutcome::Succeeded => self.task_succeeded(attempt, effects),
                TaskOutcome::Failed(_) if ending == Ending::LostWithOthers => {
                    self.retry_plain_task(attempt.stage, partition);
                }
                TaskOutcome::Failed(failure) => {
                    let origin = Some(TaskOrigin { partition, task_attempt, executor });
                    self.attempt_failed(FailureCause { attempt, origin, failure }, effects);
                }
            }
        }
        self.after_task_end(attempt);
    }

    /// A task of the failed attempt had its effects though it was killed, or may have had.
    fn end_committed(
        &mut self,
        id: StageId,
        outcome: &TaskOutcome,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let committed = u32::from(*outcome == TaskOutcome::Succeeded);
        let cause = self.stages.get(&id).and_then(|stage| stage.last_cause.clone());
        if let Some(cause) = cause {
            self.end_stage(id, StageFailure::Committed { committed, cause }, effects);
        }
    }

    fn task_succeeded(&mut self, attempt: StageAttemptId, effects: &mut Vec<SchedulerEffect>) {
        let Some(stage) = self.stages.get_mut(&attempt.stage) else { return };
        stage.succeeded += 1;
        if stage.is_done() {
            if stage.is_gang() {
                let reason = CloseReason::Succeeded;
                effects.push(SchedulerEffect::StageCompleted(StageCompleted { attempt, reason }));
            }
            self.conclude(attempt.stage, Ok(()), effects);
        }
    }

    /// Once the last killed task has ended: the next attempt, or the end of the books.
    fn after_task_end(&mut self, attempt: StageAttemptId) {
        let Some(stage) = self.stages.get_mut(&attempt.stage) else { return };
        if !stage.live.is_empty() {
            return;
        }
        match stage.phase {
            Phase::Stopping { pauses } => self.attempt_is_over(attempt.stage, pauses),
            Phase::Ended => {
                self.stages.remove(&attempt.stage);
            }
            Phase::Deferred { .. }
            | Phase::Queued
            | Phase::AwaitingInput
            | Phase::Running
            | Phase::BackingOff => {}
        }
    }

    fn attempt_is_over(&mut self, id: StageId, pauses: bool) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        stage.attempt += 1;
        if pauses {
            stage.phase = Phase::BackingOff;
        } else {
            self.enqueue(id);
        }
    }

    /// The pause before this attempt is over; perhaps its former has not ended yet.
    pub(super) fn retry(&mut self, next: StageAttemptId) {
        let Some(stage) = self.stages.get_mut(&next.stage) else { return };
        if stage.phase == Phase::BackingOff && stage.attempt_id() == next {
            self.enqueue(next.stage);
        } else if stage.phase == (Phase::Stopping { pauses: true })
            && stage.next_attempt_id() == next
        {
            stage.phase = Phase::Stopping { pauses: false };
        }
    }

    /// The first failure of a gang, or any failure of a plain stage's task.
    pub(super) fn attempt_failed(
        &mut self,
        cause: FailureCause,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let id = cause.attempt.stage;
        let Some(stage) = self.stages.get_mut(&id) else { return };
        let verdict = stage.book_failure(&cause);
        effects.push(SchedulerEffect::Emit(RuntimeEvent::AttemptFailed {
            cause: cause.clone(),
            will_retry: verdict.is_none(),
        }));
        if let Some(failure) = verdict {
            self.end_stage(id, failure, effects);
            return;
        }
        let mut has_lost_input = false;
        if let (TaskFailure::FetchFailed(failed), true) = (&cause.failure, stage.is_of_job) {
            has_lost_input = true;
            stage.awaits_input = true;
            effects.push(SchedulerEffect::InputLost { stage: id, failed: *failed });
        }
        if !stage.is_gang() {
            cause.origin.iter().for_each(|origin| self.retry_plain_task(id, origin.partition));
            if has_lost_input {
                self.stop_plain_attempt(&cause, effects);
            }
            return;
        }
        let (next, delay) = (stage.next_attempt_id(), stage.spec.retry_delay);
        stage.phase = Phase::Stopping { pauses: !delay.is_zero() };
        effects.push(SchedulerEffect::DiscardPayloads(id));
        self.stop_attempt(cause.attempt, CloseReason::Failed(cause.to_string()), effects);
        if !delay.is_zero() {
            effects
                .push(SchedulerEffect::SetTimer { key: SchedulerTimer::Retry(next), after: delay });
        }
    }

    /// Its other tasks look for the same input: they are stopped and run again in the next attempt.
    /// What has succeeded is kept.
    fn stop_plain_attempt(&mut self, cause: &FailureCause, effects: &mut Vec<SchedulerEffect>) {
        let Some(stage) = self.stages.get_mut(&cause.attempt.stage) else { return };
        self.queue.remove(&stage.demand(), &stage.place());
        stage.phase = Phase::Stopping { pauses: false };
        let live = stage.live.iter().filter_map(|id| self.tasks.get(id));
        stage.pending.extend(live.map(|task| task.partition));
        self.stop_attempt(cause.attempt, CloseReason::Failed(cause.to_string()), effects);
    }

    fn retry_plain_task(&mut self, id: StageId, partition: PartitionId) {
        let Some(stage) = self.stages.get_mut(&id).filter(|stage| !stage.is_gang()) else { return };
        stage.pending.insert(partition);
        if stage.phase == Phase::Running {
            self.enqueue(id);
        }
    }

    /// Answers all who wait in the attempt's barrier and kills what still runs.
    fn stop_attempt(
        &mut self,
        attempt: StageAttemptId,
        reason: CloseReason,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let Some(stage) = self.stages.get(&attempt.stage) else { return };
        let live: Vec<TaskAttemptId> = stage.live.iter().copied().collect();
        let text = reason.to_string();
        if stage.is_gang() {
            effects.push(SchedulerEffect::StageCompleted(StageCompleted { attempt, reason }));
        }
        self.kill(attempt, live, &text, effects);
    }

    /// A life that is over before its joining was heard of must not join any more, and was the end
    /// of the one before.
    pub(super) fn life_is_over(
        &mut self,
        executor: ExecutorId,
        incarnation: Incarnation,
        reason: &str,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let mut over = incarnation;
        if self.ledger.is_newer(executor, incarnation) {
            over = self.ledger.get(executor).map_or(over, |former| former.incarnation);
            self.ledger.note_life(executor, incarnation);
        }
        self.executor_lost(executor, over, reason, effects);
    }

    /// What follows for the stages. Stages in line that no longer fit are the caller's to defer.
    pub(super) fn executor_lost(
        &mut self,
        executor: ExecutorId,
        incarnation: Incarnation,
        reason: &str,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        if self.ledger.get(executor).map(|it| it.incarnation) != Some(incarnation) {
            return;
        }
        self.ledger.remove(executor);
        effects.push(SchedulerEffect::Emit(RuntimeEvent::ExecutorLost {
            executor,
            incarnation,
            reason: reason.to_owned(),
        }));
        let tasks = std::mem::take(&mut self.tasks).into_iter();
        let (lost, kept): (BTreeMap<_, _>, _) =
            tasks.partition(|(_, task)| task.executor == executor);
        self.tasks = kept;
        let mut hit = BTreeSet::new();
        for (task_attempt, task) in lost {
            let is_first = hit.insert(task.attempt.stage);
            let ending = if is_first { Ending::Lost } else { Ending::LostWithOthers };
            let text = format!("executor {executor} {reason}");
            let outcome = TaskOutcome::Failed(TaskFailure::ExecutorLost(text));
            self.task_ended(task_attempt, task, outcome, ending, effects);
        }
    }

    pub(super) fn barrier_lost(
        &mut self,
        attempt: StageAttemptId,
        reason: String,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let runs = |stage: &Stage| {
            stage.is_gang() && stage.phase == Phase::Running && stage.attempt_id() == attempt
        };
        if self.stages.get(&attempt.stage).is_some_and(runs) {
            let failure = TaskFailure::BarrierLost(reason);
            self.attempt_failed(FailureCause { attempt, origin: None, failure }, effects);
        }
    }

    /// Ends a stage without success, from any phase. Its tasks are killed and end on their own.
    pub(super) fn end_stage(
        &mut self,
        id: StageId,
        failure: StageFailure,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let Some(stage) = self.stages.get(&id) else { return };
        let attempt = stage.attempt_id();
        if stage.phase == Phase::Ended {
            return;
        }
        let reason = match &failure {
            StageFailure::Cancelled { reason } => CloseReason::Cancelled(reason.clone()),
            StageFailure::Shutdown => CloseReason::Shutdown,
            StageFailure::AttemptsExhausted { cause, .. }
            | StageFailure::InfrastructureExhausted { cause, .. }
            | StageFailure::Aborted { cause }
            | StageFailure::Committed { cause, .. } => CloseReason::Failed(cause.to_string()),
            StageFailure::NotEnoughSlots { .. }
            | StageFailure::DynamicAllocation { .. }
            | StageFailure::QueueFull { .. }
            | StageFailure::Refused { .. } => CloseReason::Failed(failure.to_string()),
        };
        if !stage.live.is_empty() || stage.phase == Phase::Running {
            self.stop_attempt(attempt, reason, effects);
        }
        self.conclude(id, Err(failure), effects);
    }

    /// Hands over the result. The stage is forgotten once no task of it is left.
    pub(super) fn conclude(
        &mut self,
        id: StageId,
        result: Result<(), StageFailure>,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        self.queue.remove(&stage.demand(), &stage.place());
        stage.phase = Phase::Ended;
        let (attempts, next_attempt) = (stage.started, stage.first_attempt + stage.started);
        let failure = result.clone().err();
        effects.extend([
            SchedulerEffect::StageEnded { stage: id, next_attempt, result },
            SchedulerEffect::Emit(RuntimeEvent::StageCompleted { stage: id, attempts, failure }),
        ]);
        if stage.live.is_empty() {
            self.stages.remove(&id);
        }
    }
}

//! What an action does, and what an event must and must not bring about.

use super::{
    Action, Config, Fault, Here, Outcome, Run, Scheduler, Stage, State, Stopped, Task, Wait,
    attempt_id, executor_id, stage_id,
};
use phalanx::protocol::{
    ExecutorId, ExecutorJoined, ExecutorResources, FailureCause, Incarnation, PartitionId,
    SchedulerEvent, SchedulerTimer, StageAttemptId, StageId, SubmitStage, TaskAttemptId,
    TaskOutcome, TaskReport,
};
use std::collections::BTreeMap;

/// A failure that the scheduler is told of.
#[derive(PartialEq)]
pub struct Told {
    pub attempt: StageAttemptId,
    /// With its partition and executor.
    pub task: Option<(TaskAttemptId, PartitionId, ExecutorId)>,
    pub failure: Outcome,
}

impl Told {
    fn of(id: TaskAttemptId, task: &Task, failure: Outcome) -> Self {
        let at = Some((id, task.partition, executor_id(task.executor)));
        Told { attempt: task.attempt, task: at, failure }
    }
}

/// One event: what the scheduler was told by it and what it did.
#[derive(Default)]
pub struct Step {
    pub told: Vec<Told>,
    pub failed: Vec<FailureCause>,
    pub opened: BTreeMap<StageAttemptId, Vec<TaskAttemptId>>,
    pub launched: BTreeMap<StageAttemptId, BTreeMap<PartitionId, TaskAttemptId>>,
}

impl<S: Scheduler> State<S> {
    pub fn act(&mut self, config: &Config<S>, action: Action) {
        match action {
            Action::Submit => {
                let stage = self.stages.len();
                self.stages.push(Stage::default());
                let (stage, spec) = (stage_id(stage), config.stages[stage].clone());
                self.tell(
                    config,
                    SchedulerEvent::SubmitStage(SubmitStage { stage, spec, of_job: None }),
                );
            }
            Action::Join { executor } => {
                self.budget.joins -= 1;
                self.join(config, executor, self.executors[executor].lives);
            }
            Action::JoinLate { executor } => {
                self.budget.late -= 1;
                self.join(config, executor, self.executors[executor].lives - 1);
            }
            Action::Die { executor } => self.die(executor),
            Action::DieUnheard { executor } => {
                self.budget.unheard -= 1;
                self.notice_death(config, executor, self.executors[executor].lives);
            }
            Action::NoticeDeath { executor, incarnation } => {
                self.notices.remove(&(executor, incarnation));
                self.notice_death(config, executor, incarnation);
            }
            Action::Cancel { stage } => {
                self.budget.cancels -= 1;
                let (stage, reason) = (stage_id(stage), String::new());
                self.tell(config, SchedulerEvent::CancelStage { stage, reason });
            }
            Action::KillPartition { stage, partition } => {
                self.budget.kills -= 1;
                let (stage, partition) = (stage_id(stage), PartitionId(partition));
                let reason = String::new();
                self.tell(config, SchedulerEvent::KillPartition { stage, partition, reason });
            }
            Action::LoseBarrier { stage, attempt } => {
                self.budget.barriers -= 1;
                let (attempt, reason) = (attempt_id(stage, attempt), String::new());
                self.tell(config, SchedulerEvent::BarrierLost { attempt, reason });
            }
            Action::End { task, outcome } => self.end_task(config, task, outcome),
            Action::Report { task } => self.report(config, task),
            Action::ReportLate { task, outcome } => {
                self.budget.late -= 1;
                let report = self.past[&task].report(task, outcome);
                self.tell(config, SchedulerEvent::TaskReport(report));
            }
            Action::Stick { task } => {
                self.budget.zombies -= 1;
                self.tasks.entry(task).and_modify(|task| task.run = Run::Sticks);
            }
            Action::Fire(key) => {
                if !config.refires {
                    self.timers.remove(&key);
                }
                self.tell(config, SchedulerEvent::TimerFired(key));
            }
            Action::Shutdown => {
                self.budget.shutdowns -= 1;
                self.stopped = Stopped::Asked;
                self.tell(config, SchedulerEvent::Shutdown);
            }
        }
    }

    pub fn join(&mut self, config: &Config<S>, executor: usize, incarnation: u32) {
        let joined = ExecutorJoined {
            executor: executor_id(executor),
            incarnation: Incarnation(incarnation),
            address: "".into(),
            resources: ExecutorResources::new(config.executors[executor]),
        };
        self.tell(config, SchedulerEvent::ExecutorJoined(joined));
    }

    fn notice_death(&mut self, config: &Config<S>, executor: usize, incarnation: u32) {
        let (executor, incarnation) = (executor_id(executor), Incarnation(incarnation));
        let reason = String::new();
        self.tell(config, SchedulerEvent::ExecutorLost { executor, incarnation, reason });
    }

    fn die(&mut self, executor: usize) {
        self.budget.deaths -= 1;
        let it = &mut self.executors[executor];
        it.here = Here::Dead;
        self.notices.insert((executor, it.lives - 1));
        let tasks = self.tasks.values_mut().filter(|task| task.executor == executor && task.runs());
        tasks.for_each(|task| task.run = Run::Vanished);
    }

    fn end_task(&mut self, config: &Config<S>, task: TaskAttemptId, outcome: Outcome) {
        self.budget.errors -= u8::from(outcome == Outcome::Error);
        self.tasks.entry(task).and_modify(|task| task.run = Run::Ended(outcome));
        if !config.in_flight {
            self.report(config, task);
        }
    }

    fn report(&mut self, config: &Config<S>, task: TaskAttemptId) {
        let Run::Ended(outcome) = self.tasks[&task].run else { return };
        let report = self.tasks[&task].report(task, outcome);
        self.tell(config, SchedulerEvent::TaskReport(report));
    }

    fn tell(&mut self, config: &Config<S>, event: SchedulerEvent) {
        let late = self.lateness(&event);
        let before = late.map(|fault| (fault, self.scheduler.clone()));
        let mut step = Step::default();
        self.book(config, &event, &mut step);
        let mut effects = Vec::new();
        self.scheduler.handle(event, &mut effects);
        if let Some((fault, before)) = before
            && (!effects.is_empty() || self.scheduler != before)
        {
            self.faults.insert(fault);
        }
        for effect in effects {
            self.carry_out(config, effect, &mut step);
        }
        self.check(config, &step);
    }

    /// What it would be if the event had any effect: by the world's record it comes too late.
    fn lateness(&self, event: &SchedulerEvent) -> Option<Fault> {
        let (attempt, is_late) = match event {
            SchedulerEvent::TaskReport(report) => {
                (report.attempt, !self.tasks.contains_key(&report.task_attempt))
            }
            SchedulerEvent::BarrierLost { attempt, .. } => (*attempt, !self.is_well(*attempt)),
            SchedulerEvent::TimerFired(key) => self.lateness_of_timer(*key),
            SchedulerEvent::ExecutorLost { executor, incarnation, .. } => {
                let it = &self.executors[executor.0 as usize];
                let is_last = it.here == Here::Dead && it.lives == incarnation.0 + 1;
                let is_late = incarnation.0 < it.lives && !is_last;
                return is_late.then_some(Fault::LateActed);
            }
            SchedulerEvent::ExecutorJoined(joined) => {
                let is_late =
                    joined.incarnation.0 < self.executors[joined.executor.0 as usize].lives;
                return is_late.then_some(Fault::LateActed);
            }
            SchedulerEvent::CancelStage { stage, .. } => {
                let is_late = self.stages[stage.0 as usize].ended.is_some();
                return is_late.then_some(Fault::LateActed);
            }
            SchedulerEvent::KillPartition { stage, partition, .. } => {
                let found = self.task_of(*stage, *partition);
                return found.is_none_or(|(_, it)| it.killed).then_some(Fault::LateActed);
            }
            SchedulerEvent::SubmitStage(_)
            | SchedulerEvent::InputReady(_)
            | SchedulerEvent::Shutdown => return None,
        };
        let is_old = self.stage(attempt).attempt > Some(attempt.attempt);
        (is_late || is_old).then_some(if is_old { Fault::OldActed } else { Fault::LateActed })
    }

    fn lateness_of_timer(&self, key: SchedulerTimer) -> (StageAttemptId, bool) {
        match key {
            SchedulerTimer::SlotCheck { stage, .. } => {
                let it = &self.stages[stage.0 as usize];
                let attempt = StageAttemptId { stage, attempt: it.attempt.unwrap_or(0) };
                (attempt, it.wait != Wait::Slots(key))
            }
            SchedulerTimer::Reserve(next) | SchedulerTimer::Retry(next) => {
                let it = self.stage(next);
                (next, it.ended.is_some() || it.attempt == Some(next.attempt))
            }
            SchedulerTimer::KillOverdue(kill) | SchedulerTimer::ZombieDeadline(kill) => {
                let killed = |task: &Task| task.killed && task.attempt == kill.attempt;
                (kill.attempt, !self.tasks.values().any(killed))
            }
        }
    }

    fn stage(&self, attempt: StageAttemptId) -> &Stage {
        &self.stages[attempt.stage.0 as usize]
    }

    fn task_of(&self, stage: StageId, partition: PartitionId) -> Option<(TaskAttemptId, &Task)> {
        let is_it = |it: &Task| it.attempt.stage == stage && it.partition == partition;
        self.tasks.iter().find(|(_, task)| is_it(task)).map(|(id, task)| (*id, task))
    }

    /// Whether the attempt's tasks run and have not failed.
    pub fn is_well(&self, attempt: StageAttemptId) -> bool {
        let stage = self.stage(attempt);
        stage.attempt == Some(attempt.attempt) && stage.is_well()
    }

    /// What the scheduler learns by the event.
    fn book(&mut self, config: &Config<S>, event: &SchedulerEvent, step: &mut Step) {
        match event {
            SchedulerEvent::ExecutorJoined(joined) => {
                let executor = joined.executor.0 as usize;
                if joined.incarnation.0 < self.executors[executor].lives {
                    return;
                }
                self.give_up(executor, step);
                let it = &mut self.executors[executor];
                it.lives += 1;
                it.here = if self.stopped == Stopped::No { Here::Lives } else { Here::No };
            }
            SchedulerEvent::ExecutorLost { executor, incarnation, .. } => {
                let executor = executor.0 as usize;
                if incarnation.0 + 1 >= self.executors[executor].lives {
                    self.give_up(executor, step);
                    let it = &mut self.executors[executor];
                    (it.lives, it.here) = (incarnation.0 + 1, Here::No);
                }
            }
            SchedulerEvent::KillPartition { stage, partition, .. } => {
                let is_it = |it: &&Task| it.attempt.stage == *stage && it.partition == *partition;
                let found = self.tasks.iter().find(|(_, task)| is_it(task));
                if let Some((&id, task)) = found.filter(|_| config.is_gang(stage.0 as usize))
                    && self.is_well(task.attempt)
                {
                    step.told.push(Told::of(id, task, Outcome::Killed));
                }
            }
            SchedulerEvent::TaskReport(report) => self.book_report(report, step),
            SchedulerEvent::BarrierLost { attempt, .. } if self.is_well(*attempt) => {
                let failure = Outcome::BarrierLost;
                step.told.push(Told { attempt: *attempt, task: None, failure });
            }
            SchedulerEvent::BarrierLost { .. }
            | SchedulerEvent::SubmitStage(_)
            | SchedulerEvent::InputReady(_)
            | SchedulerEvent::CancelStage { .. }
            | SchedulerEvent::TimerFired(_)
            | SchedulerEvent::Shutdown => {}
        }
    }

    fn book_report(&mut self, report: &TaskReport, step: &mut Step) {
        let id = report.task_attempt;
        let Some(task) = self.tasks.remove(&id) else { return };
        if self.is_well(task.attempt) {
            match &report.outcome {
                TaskOutcome::Succeeded => {
                    self.stages[task.attempt.stage.0 as usize].succeeded += 1;
                }
                TaskOutcome::Failed(failure) => {
                    step.told.push(Told::of(id, &task, Outcome::of(failure)));
                }
            }
        }
        self.past.insert(id, task);
    }

    /// Reports that are on their way from there count as late.
    pub fn give_up(&mut self, executor: usize, step: &mut Step) {
        let tasks = std::mem::take(&mut self.tasks).into_iter();
        let (lost, kept): (BTreeMap<_, _>, _) =
            tasks.partition(|(_, task)| task.executor == executor);
        self.tasks = kept;
        for (id, task) in lost {
            if self.is_well(task.attempt) {
                step.told.push(Told::of(id, &task, Outcome::ExecutorLost));
            }
            self.past.insert(id, task);
        }
    }
}

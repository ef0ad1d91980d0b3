//! Schedulers with one rule broken each: the model must refute them, or it proves nothing.

use super::Scheduler;
use phalanx::protocol::{
    ExecutorId, Incarnation, KillTask, SchedulerConfig, SchedulerEffect, SchedulerEvent,
    SchedulerTimer, StageFailure, TaskAttemptId, TaskFailure, TaskOutcome, TaskReport,
    TaskScheduler,
};
use std::mem::discriminant;

/// Every task that the scheduler counts as running, as it would report its success.
fn running(scheduler: &TaskScheduler) -> Vec<TaskReport> {
    let stages = scheduler.stages();
    let tasks = stages.flat_map(|it| it.tasks.into_iter().map(move |task| (it.attempt, task)));
    tasks
        .map(|(attempt, task)| TaskReport {
            executor: task.executor,
            incarnation: incarnation(scheduler, task.executor).expect("it is there"),
            attempt,
            partition: task.partition,
            task_attempt: task.task_attempt,
            outcome: TaskOutcome::Succeeded,
        })
        .collect()
}

fn incarnation(scheduler: &TaskScheduler, executor: ExecutorId) -> Option<Incarnation> {
    scheduler.executors().find(|it| it.executor == executor).map(|it| it.incarnation)
}

/// Counts a killed task's slot as free as soon as the kill is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FreesOnKill(TaskScheduler);

impl FreesOnKill {
    fn ends(&mut self, task: TaskAttemptId, effects: &mut Vec<SchedulerEffect>) {
        let found = running(&self.0).into_iter().find(|it| it.task_attempt == task);
        if let Some(report) = found {
            let outcome = TaskOutcome::Failed(TaskFailure::Killed(String::new()));
            self.0.handle(SchedulerEvent::TaskReport(TaskReport { outcome, ..report }), effects);
        }
    }
}

impl Scheduler for FreesOnKill {
    fn new(config: SchedulerConfig) -> Self {
        FreesOnKill(TaskScheduler::new(config))
    }

    fn handle(&mut self, event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>) {
        self.0.handle(event, effects);
        let kills = effects.iter().filter_map(|effect| match effect {
            SchedulerEffect::KillTask { kill, .. } => Some(kill.tasks.clone()),
            _ => None,
        });
        let killed: Vec<TaskAttemptId> = kills.flatten().collect();
        killed.into_iter().for_each(|task| self.ends(task, effects));
    }

    fn shipped(&self) -> &TaskScheduler {
        &self.0
    }
}

/// Takes a report for one of the partition's present task, or even of any task of the stage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TakesAnyReport<const COMPARES_PARTITIONS: bool>(TaskScheduler);

impl<const COMPARES_PARTITIONS: bool> Scheduler for TakesAnyReport<COMPARES_PARTITIONS> {
    fn new(config: SchedulerConfig) -> Self {
        TakesAnyReport(TaskScheduler::new(config))
    }

    fn handle(&mut self, mut event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>) {
        if let SchedulerEvent::TaskReport(report) = &mut event {
            let known = running(&self.0);
            let is_known = known.iter().any(|it| it.task_attempt == report.task_attempt);
            let found = known.into_iter().find(|it| {
                let same = it.partition == report.partition || !COMPARES_PARTITIONS;
                it.attempt.stage == report.attempt.stage && same
            });
            if let Some(taken_for) = found.filter(|_| !is_known) {
                *report = TaskReport { outcome: report.outcome.clone(), ..taken_for };
            }
        }
        self.0.handle(event, effects);
    }

    fn shipped(&self) -> &TaskScheduler {
        &self.0
    }
}

/// Takes every slot check for the one that is due.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NoTimerCheck {
    scheduler: TaskScheduler,
    due: Option<SchedulerTimer>,
}

impl Scheduler for NoTimerCheck {
    fn new(config: SchedulerConfig) -> Self {
        NoTimerCheck { scheduler: TaskScheduler::new(config), due: None }
    }

    fn handle(&mut self, mut event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>) {
        if let SchedulerEvent::TimerFired(key @ SchedulerTimer::SlotCheck { .. }) = &mut event {
            *key = self.due.unwrap_or(*key);
        }
        self.scheduler.handle(event, effects);
        for effect in effects {
            if let SchedulerEffect::SetTimer { key, .. } = effect
                && let SchedulerTimer::SlotCheck { .. } = key
            {
                self.due = Some(*key);
            }
        }
    }

    fn shipped(&self) -> &TaskScheduler {
        &self.scheduler
    }
}

/// Launches what goes to a second executor one step later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LaunchesInParts {
    scheduler: TaskScheduler,
    kept: Vec<SchedulerEffect>,
}

impl Scheduler for LaunchesInParts {
    fn new(config: SchedulerConfig) -> Self {
        LaunchesInParts { scheduler: TaskScheduler::new(config), kept: Vec::new() }
    }

    fn handle(&mut self, event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>) {
        effects.append(&mut self.kept);
        self.scheduler.handle(event, effects);
        let is_launch = |it: &SchedulerEffect| matches!(it, SchedulerEffect::LaunchTasks { .. });
        if let Some(first) = effects.iter().position(is_launch) {
            let later = effects.split_off(first + 1);
            let (kept, others) = later.into_iter().partition(is_launch);
            self.kept = kept;
            effects.extend::<Vec<_>>(others);
        }
    }

    fn shipped(&self) -> &TaskScheduler {
        &self.scheduler
    }
}

/// Does not ask which life of an executor was lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NoIncarnationCheck(TaskScheduler);

impl Scheduler for NoIncarnationCheck {
    fn new(config: SchedulerConfig) -> Self {
        NoIncarnationCheck(TaskScheduler::new(config))
    }

    fn handle(&mut self, mut event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>) {
        if let SchedulerEvent::ExecutorLost { executor, incarnation: lost, .. } = &mut event {
            *lost = incarnation(&self.0, *executor).unwrap_or(*lost);
        }
        self.0.handle(event, effects);
    }

    fn shipped(&self) -> &TaskScheduler {
        &self.0
    }
}

/// Forgets the loss of a life that has not joined yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ForgetsUnheard(TaskScheduler);

impl Scheduler for ForgetsUnheard {
    fn new(config: SchedulerConfig) -> Self {
        ForgetsUnheard(TaskScheduler::new(config))
    }

    fn handle(&mut self, event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>) {
        let is_heard_of = match &event {
            SchedulerEvent::ExecutorLost { executor, incarnation: lost, .. } => {
                incarnation(&self.0, *executor) == Some(*lost)
            }
            _ => true,
        };
        if is_heard_of {
            self.0.handle(event, effects);
        }
    }

    fn shipped(&self) -> &TaskScheduler {
        &self.0
    }
}

/// Tells the executor to kill a partition and leaves the rest to the report.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WaitsForTheReport(TaskScheduler);

impl Scheduler for WaitsForTheReport {
    fn new(config: SchedulerConfig) -> Self {
        WaitsForTheReport(TaskScheduler::new(config))
    }

    fn handle(&mut self, event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>) {
        let SchedulerEvent::KillPartition { stage, partition, reason } = event else {
            return self.0.handle(event, effects);
        };
        let tasks = running(&self.0);
        let is_it = |it: &&TaskReport| it.attempt.stage == stage && it.partition == partition;
        effects.extend(tasks.iter().find(is_it).map(|it| {
            let kill = KillTask { tasks: vec![it.task_attempt], reason };
            SchedulerEffect::KillTask { executor: it.executor, kill }
        }));
    }

    fn shipped(&self) -> &TaskScheduler {
        &self.0
    }
}

/// What shall not be done of what the scheduler says.
pub trait Omission: Clone + std::fmt::Debug + Eq + std::hash::Hash + Send + Sync + 'static {
    fn is_omitted(effect: &SchedulerEffect) -> bool;
}

/// Omits some of what is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Omits<O>(TaskScheduler, std::marker::PhantomData<O>);

impl<O: Omission> Scheduler for Omits<O> {
    fn new(config: SchedulerConfig) -> Self {
        Omits(TaskScheduler::new(config), std::marker::PhantomData)
    }

    fn handle(&mut self, event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>) {
        self.0.handle(event, effects);
        effects.retain(|effect| !O::is_omitted(effect));
    }

    fn shipped(&self) -> &TaskScheduler {
        &self.0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kills;

impl Omission for Kills {
    fn is_omitted(effect: &SchedulerEffect) -> bool {
        matches!(effect, SchedulerEffect::KillTask { .. })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deadlines;

impl Omission for Deadlines {
    fn is_omitted(effect: &SchedulerEffect) -> bool {
        let key = match effect {
            SchedulerEffect::SetTimer { key, .. } => Some(key),
            _ => None,
        };
        matches!(key, Some(SchedulerTimer::ZombieDeadline(_)))
    }
}

/// Says at every cancel that the stage was cancelled, and at the shutdown that it is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AnswersAtOnce(TaskScheduler);

impl Scheduler for AnswersAtOnce {
    fn new(config: SchedulerConfig) -> Self {
        AnswersAtOnce(TaskScheduler::new(config))
    }

    fn handle(&mut self, event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>) {
        let answer = match event.clone() {
            SchedulerEvent::CancelStage { stage, reason } => Some(SchedulerEffect::StageEnded {
                stage,
                next_attempt: 0,
                result: Err(StageFailure::Cancelled { reason }),
            }),
            SchedulerEvent::Shutdown => Some(SchedulerEffect::Drained),
            _ => None,
        };
        self.0.handle(event, effects);
        let is_said = |answer: &SchedulerEffect| {
            effects.iter().any(|it| discriminant(it) == discriminant(answer))
        };
        if let Some(answer) = answer.filter(|answer| !is_said(answer)) {
            effects.push(answer);
        }
    }

    fn shipped(&self) -> &TaskScheduler {
        &self.0
    }
}

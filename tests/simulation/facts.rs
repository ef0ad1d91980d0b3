//! What is true of the simulated world, noted independently of the machines that ship.

use phalanx::protocol::{
    LaunchTask, SchedulerEffect, SchedulerEvent, StageKind, StageSpec, TaskReport,
};
use phalanx::simulation::Observation;
use phalanx::{
    ExecutorId, FailureCause, Incarnation, PartitionId, RuntimeEvent, StageAttemptId, StageFailure,
    StageId, TaskAttemptId, TaskFailure, TaskOrigin, TaskOutcome,
};
use std::collections::BTreeMap;

pub type Life = (ExecutorId, Incarnation);

#[derive(Clone, Debug)]
pub struct TaskFact {
    pub attempt: StageAttemptId,
    pub partition: PartitionId,
    pub launched_on: ExecutorId,
    /// Where its code runs, once it does.
    pub life: Option<Life>,
    pub launch: LaunchTask,
    /// How its code ended.
    pub ended: Option<TaskOutcome>,
    /// Its executor ended with it.
    pub vanished: bool,
    /// The scheduler knows that it has ended.
    pub known_ended: bool,
    /// What the scheduler was told of it.
    pub reported: Option<TaskOutcome>,
    /// The scheduler told it to end.
    pub kill_sent: bool,
    pub killed: bool,
}

impl TaskFact {
    pub fn runs(&self) -> bool {
        self.life.is_some() && self.ended.is_none() && !self.vanished
    }
}

#[derive(Clone, Debug, Default)]
pub struct StageFact {
    pub submitted: bool,
    pub ended: Option<Result<(), StageFailure>>,
    pub cancelled: bool,
    pub attempts: Vec<StageAttemptId>,
    /// First causes of gang attempts, as they came to the scheduler.
    pub causes: BTreeMap<StageAttemptId, FailureCause>,
}

/// Updated with every observation, before the invariants look at it.
#[derive(Debug, Default)]
pub struct Facts {
    pub specs: BTreeMap<StageId, StageSpec>,
    pub stages: BTreeMap<StageId, StageFact>,
    pub tasks: BTreeMap<TaskAttemptId, TaskFact>,
    pub tasks_of: BTreeMap<StageAttemptId, Vec<TaskAttemptId>>,
    /// Lives of executors as the scheduler believes.
    pub believed: BTreeMap<ExecutorId, Incarnation>,
    /// The first failures of this step, if they concern a running gang.
    pub fresh_causes: BTreeMap<StageAttemptId, Vec<FailureCause>>,
    pub shutting_down: bool,
}

impl Facts {
    pub fn new(specs: BTreeMap<StageId, StageSpec>) -> Self {
        Facts { specs, ..Facts::default() }
    }

    pub fn is_gang(&self, stage: StageId) -> bool {
        self.specs[&stage].kind == StageKind::Barrier
    }

    pub fn tasks_of(&self, attempt: StageAttemptId) -> impl Iterator<Item = &TaskFact> {
        self.tasks_of.get(&attempt).into_iter().flatten().map(|id| &self.tasks[id])
    }

    /// Whether the attempt runs, as far as the scheduler was told.
    fn is_open(&self, attempt: StageAttemptId) -> bool {
        self.stages.get(&attempt.stage).is_some_and(|stage| {
            stage.ended.is_none()
                && stage.attempts.last() == Some(&attempt)
                && !stage.causes.contains_key(&attempt)
        })
    }

    pub fn note(&mut self, observation: &Observation) {
        match observation {
            Observation::Scheduler { event, effects } => {
                self.fresh_causes.clear();
                self.note_event(event);
                for effect in effects {
                    self.note_effect(effect);
                }
            }
            Observation::TaskBegan { executor, incarnation, task, .. } => {
                if let Some(fact) = self.tasks.get_mut(&task.task_attempt) {
                    fact.life = Some((*executor, *incarnation));
                }
            }
            Observation::TaskEnded { task_attempt, outcome, .. } => {
                if let Some(task) = self.tasks.get_mut(task_attempt) {
                    task.ended = Some(outcome.clone());
                }
            }
            Observation::TaskKilled(task) => {
                if let Some(task) = self.tasks.get_mut(task) {
                    task.killed = true;
                }
            }
            Observation::ExecutorEnded { executor, incarnation } => {
                let life = Some((*executor, *incarnation));
                for task in self.tasks.values_mut().filter(|task| task.life == life) {
                    task.vanished |= task.ended.is_none();
                }
            }
            _ => {}
        }
    }

    fn note_event(&mut self, event: &SchedulerEvent) {
        match event {
            SchedulerEvent::SubmitStage(submit) => {
                self.stages.entry(submit.stage).or_default().submitted = true;
            }
            SchedulerEvent::CancelStage { stage, .. } => {
                self.stages.entry(*stage).or_default().cancelled = true;
            }
            SchedulerEvent::TaskReport(report) => self.note_report(report),
            SchedulerEvent::ExecutorLost { executor, incarnation, reason } => {
                self.note_loss(*executor, *incarnation, reason);
            }
            SchedulerEvent::ExecutorJoined(joined) => {
                let known = self.believed.get(&joined.executor).copied();
                if let Some(known) = known.filter(|known| *known < joined.incarnation) {
                    let reason = format!("it came back as incarnation {}", joined.incarnation);
                    self.note_loss(joined.executor, known, &reason);
                }
            }
            SchedulerEvent::BarrierLost { attempt, reason } => {
                let failure = TaskFailure::BarrierLost(reason.clone());
                self.note_failure(FailureCause { attempt: *attempt, origin: None, failure });
            }
            SchedulerEvent::KillPartition { stage, partition, reason } => {
                let attempt = self.stages.get(stage).and_then(|it| it.attempts.last().copied());
                let Some(attempt) = attempt.filter(|_| self.is_gang(*stage)) else { return };
                let ids = self.tasks_of.get(&attempt).into_iter().flatten();
                let live = ids.map(|id| (*id, &self.tasks[id]));
                let runs = |task: &TaskFact| task.partition == *partition && !task.known_ended;
                let Some((task_attempt, task)) = live.clone().find(|(_, task)| runs(task)) else {
                    return;
                };
                let (partition, executor) = (*partition, task.launched_on);
                let origin = Some(TaskOrigin { partition, task_attempt, executor });
                let failure = TaskFailure::Killed(reason.clone());
                self.note_failure(FailureCause { attempt, origin, failure });
            }
            SchedulerEvent::Shutdown => self.shutting_down = true,
            SchedulerEvent::InputReady(_) | SchedulerEvent::TimerFired(_) => {}
        }
    }

    fn note_report(&mut self, report: &TaskReport) {
        let is_believed = self.believed.get(&report.executor) == Some(&report.incarnation);
        let Some(task) = self.tasks.get_mut(&report.task_attempt) else { return };
        if !is_believed || task.known_ended {
            return;
        }
        task.known_ended = true;
        task.reported = Some(report.outcome.clone());
        if let TaskOutcome::Failed(failure) = &report.outcome {
            let TaskReport { attempt, partition, task_attempt, executor, .. } = *report;
            let origin = Some(TaskOrigin { partition, task_attempt, executor });
            self.note_failure(FailureCause { attempt, origin, failure: failure.clone() });
        }
    }

    fn note_loss(&mut self, executor: ExecutorId, incarnation: Incarnation, reason: &str) {
        if self.believed.get(&executor) != Some(&incarnation) {
            return;
        }
        self.believed.remove(&executor);
        let mut causes = Vec::new();
        let on_it = |task: &TaskFact| task.launched_on == executor && !task.known_ended;
        for (task_attempt, task) in self.tasks.iter_mut().filter(|(_, task)| on_it(task)) {
            task.known_ended = true;
            let (task_attempt, partition) = (*task_attempt, task.partition);
            let origin = Some(TaskOrigin { partition, task_attempt, executor });
            let failure = TaskFailure::ExecutorLost(format!("executor {executor} {reason}"));
            causes.push(FailureCause { attempt: task.attempt, origin, failure });
        }
        causes.into_iter().for_each(|cause| self.note_failure(cause));
    }

    fn note_failure(&mut self, cause: FailureCause) {
        let attempt = cause.attempt;
        if self.is_gang(attempt.stage) && self.is_open(attempt) {
            self.fresh_causes.entry(attempt).or_default().push(cause);
        }
    }

    fn note_effect(&mut self, effect: &SchedulerEffect) {
        match effect {
            SchedulerEffect::LaunchTasks { executor, launch } => {
                let stage = self.stages.entry(launch.attempt.stage).or_default();
                if stage.attempts.last() != Some(&launch.attempt) {
                    stage.attempts.push(launch.attempt);
                }
                for task in &launch.tasks {
                    self.tasks_of.entry(launch.attempt).or_default().push(task.task_attempt);
                    let fact = TaskFact {
                        attempt: launch.attempt,
                        partition: task.partition,
                        launched_on: *executor,
                        life: None,
                        launch: task.clone(),
                        ended: None,
                        vanished: false,
                        known_ended: false,
                        reported: None,
                        kill_sent: false,
                        killed: false,
                    };
                    self.tasks.insert(task.task_attempt, fact);
                }
            }
            SchedulerEffect::KillTask { kill, .. } => {
                for id in &kill.tasks {
                    if let Some(task) = self.tasks.get_mut(id) {
                        task.kill_sent = true;
                    }
                }
            }
            SchedulerEffect::StageEnded { stage, result, .. } => {
                self.stages.entry(*stage).or_default().ended = Some(result.clone());
            }
            SchedulerEffect::Emit(event) => self.note_told(event),
            _ => {}
        }
    }

    fn note_told(&mut self, event: &RuntimeEvent) {
        match event {
            RuntimeEvent::ExecutorJoined { executor, incarnation, .. } => {
                self.believed.insert(*executor, *incarnation);
            }
            // The scheduler gave it up itself; the tasks on it are known to be lost.
            RuntimeEvent::ExecutorLost { executor, incarnation, reason } => {
                self.note_loss(*executor, *incarnation, reason);
            }
            RuntimeEvent::AttemptFailed { cause, .. } => {
                let stage = self.stages.entry(cause.attempt.stage).or_default();
                stage.causes.entry(cause.attempt).or_insert_with(|| cause.clone());
            }
            _ => {}
        }
    }
}

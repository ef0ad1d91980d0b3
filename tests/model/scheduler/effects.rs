//! What the world does as the scheduler says, and what it thinks of it.

use super::steps::{Step, Told};
use super::{
    Config, Fault, Here, Outcome, Run, Scheduler, State, Stopped, Task, Wait, executor_id,
};
use phalanx::protocol::{
    ExecutorId, FailureCause, LaunchTasks, OpenBarrier, PartitionId, RuntimeEvent, SchedulerEffect,
    SchedulerTimer, StageAttemptId, StageFailure, StageId,
};

impl<S: Scheduler> State<S> {
    pub fn carry_out(&mut self, config: &Config<S>, effect: SchedulerEffect, step: &mut Step) {
        match effect {
            SchedulerEffect::OpenBarrier(OpenBarrier { attempt, task_attempts, .. }) => {
                step.opened.insert(attempt, task_attempts);
            }
            SchedulerEffect::LaunchTasks { executor, launch } => {
                self.launch(config, executor, &launch, step);
            }
            SchedulerEffect::KillTask { executor, kill } => {
                let there = |task: &Task| executor_id(task.executor) == executor;
                for id in kill.tasks {
                    if let Some(task) = self.tasks.get_mut(&id).filter(|task| there(task)) {
                        task.killed = true;
                    }
                }
            }
            SchedulerEffect::StageEnded { stage, result, .. } => {
                self.end_stage(config, stage, result, step);
            }
            SchedulerEffect::RetireExecutor { executor, incarnation } => {
                let executor = executor.0 as usize;
                let it = &self.executors[executor];
                if it.is_known() && it.lives - 1 == incarnation.0 {
                    self.give_up(executor, step);
                    self.executors[executor].here = Here::Retired;
                } else {
                    self.faults.insert(Fault::NoSuchExecutor);
                }
            }
            SchedulerEffect::SetTimer { key, .. } => {
                self.timers.insert(key);
                if let SchedulerTimer::SlotCheck { stage, .. } = key {
                    self.stages[stage.0 as usize].wait = Wait::Slots(key);
                }
            }
            SchedulerEffect::Emit(event) => self.hear(config, event, step),
            SchedulerEffect::Drained => {
                if self.stopped != Stopped::Asked || !self.tasks.is_empty() {
                    self.faults.insert(Fault::FalseDrain);
                }
                self.stopped = Stopped::Drained;
            }
            SchedulerEffect::AwaitsInput(_)
            | SchedulerEffect::InputLost { .. }
            | SchedulerEffect::StageCompleted(_)
            | SchedulerEffect::KeepPayload { .. }
            | SchedulerEffect::DiscardPayloads(_) => {}
        }
    }

    fn hear(&mut self, config: &Config<S>, event: RuntimeEvent, step: &mut Step) {
        match event {
            RuntimeEvent::AttemptFailed { cause, .. } => {
                let stage = cause.attempt.stage.0 as usize;
                self.stages[stage].failed = config.is_gang(stage);
                step.failed.push(cause);
            }
            RuntimeEvent::StageQueued { attempt, .. } => {
                self.stages[attempt.stage.0 as usize].wait = Wait::Queued;
            }
            RuntimeEvent::TaskIgnoresKill { task_attempt, .. } => {
                self.tasks.entry(task_attempt).and_modify(|task| task.overdue = true);
            }
            _ => {}
        }
    }

    fn launch(
        &mut self,
        config: &Config<S>,
        executor: ExecutorId,
        launch: &LaunchTasks,
        step: &mut Step,
    ) {
        let attempt = launch.attempt;
        let (stage, executor) = (attempt.stage.0 as usize, executor.0 as usize);
        let it = &self.executors[executor];
        if !it.is_known() {
            self.faults.insert(Fault::NoSuchExecutor);
            return;
        }
        let (incarnation, is_dead) = (it.lives - 1, it.here == Here::Dead);
        let gang = config.is_gang(stage);
        let is_former = |task: &Task, partition: PartitionId| {
            let replaced = if gang { task.attempt != attempt } else { task.partition == partition };
            task.attempt.stage == attempt.stage && replaced && task.runs()
        };
        for launched in &launch.tasks {
            let (id, partition) = (launched.task_attempt, launched.partition);
            if self.tasks.values().any(|task| is_former(task, partition)) {
                self.faults.insert(Fault::StartedTooSoon);
            }
            let task = Task {
                attempt,
                partition,
                executor,
                incarnation,
                cpus: launched.cpus,
                killed: false,
                overdue: false,
                run: if is_dead { Run::Vanished } else { Run::Runs },
            };
            self.tasks.insert(id, task);
            step.launched.entry(attempt).or_default().insert(partition, id);
        }
        let it = &mut self.stages[stage];
        if it.ended.is_some() {
            self.faults.insert(Fault::EndedAgain);
            return;
        }
        it.wait = Wait::Nothing;
        if it.attempt != Some(attempt.attempt) {
            it.attempt = Some(attempt.attempt);
            (it.failed, it.succeeded) = (false, 0);
        }
    }

    fn end_stage(
        &mut self,
        config: &Config<S>,
        id: StageId,
        result: Result<(), StageFailure>,
        step: &Step,
    ) {
        let cause = result.as_ref().err().and_then(StageFailure::first_cause);
        // A stage that finds too few slots failed in an earlier step, if it did.
        let is_of_this_step = !matches!(result, Err(StageFailure::NotEnoughSlots { .. }));
        if cause.is_some_and(|cause| is_of_this_step && !step.failed.contains(cause)) {
            self.faults.insert(Fault::WrongCause);
        }
        let stage = id.0 as usize;
        if let Err(StageFailure::NotEnoughSlots { required, available, .. }) = &result
            && (*available != self.slots(config, stage) || required <= available)
        {
            self.faults.insert(Fault::FalseRefusal);
        }
        let fault = self.stages[stage].end(result, config.stages[stage].num_tasks);
        self.faults.extend(fault);
    }

    /// Slots for tasks of the stage, busy ones included.
    fn slots(&self, config: &Config<S>, stage: usize) -> u64 {
        let all = self.executors.iter().zip(&config.executors).filter(|(it, _)| it.is_known());
        all.map(|(_, cpus)| u64::from(cpus / config.stages[stage].resources.cpus())).sum()
    }

    /// When the event has had all its effects.
    pub fn check(&mut self, config: &Config<S>, step: &Step) {
        let is_gang = |attempt: &StageAttemptId| config.is_gang(attempt.stage.0 as usize);
        for (attempt, tasks) in step.launched.iter().filter(|(attempt, _)| is_gang(attempt)) {
            let all = 0..config.stages[attempt.stage.0 as usize].num_tasks;
            let opened = step.opened.get(attempt).into_iter().flatten();
            if !tasks.keys().copied().eq(all.map(PartitionId)) || !tasks.values().eq(opened) {
                self.faults.insert(Fault::PartOfGang);
            }
        }
        let failed = step.failed.iter();
        let is_told = |cause: &FailureCause| step.told.iter().any(|told| told.is(cause));
        let mut right = failed.clone().all(is_told);
        for told in &step.told {
            let named = failed.clone().filter(|cause| cause.attempt == told.attempt).count();
            right &= named == 1 || named > 1 && !is_gang(&told.attempt);
        }
        if !right {
            self.faults.insert(Fault::WrongCause);
        }
        let is_forgotten = |task: &Task| {
            let stage = &self.stages[task.attempt.stage.0 as usize];
            !task.killed && (stage.failed || stage.ended.is_some())
        };
        if self.tasks.values().any(is_forgotten) {
            self.faults.insert(Fault::NotKilled);
        }
    }
}

impl Told {
    fn is(&self, cause: &FailureCause) -> bool {
        let origin = cause.origin.map(|it| (it.task_attempt, it.partition, it.executor));
        (self.attempt, self.task, self.failure)
            == (cause.attempt, origin, Outcome::of(&cause.failure))
    }
}

//! What an action does.

use super::{Action, Config, Fault, Planning, State};
use phalanx::protocol::{
    ExecutorId, ExecutorJoined, ExecutorLife, ExecutorResources, Incarnation, JobId, PlannerEvent,
    SchedulerEvent, StageAttemptId, TaskAttemptId, TaskFailure, TaskOutcome, TaskReport,
};

pub fn executor_id(executor: usize) -> ExecutorId {
    ExecutorId(executor as u64)
}

impl<P: Planning> State<P> {
    pub fn act(&mut self, config: &Config<P>, action: Action) {
        match action {
            Action::Submit => {
                let job = &config.jobs[self.jobs.len()];
                self.code.extend(job.0.iter().map(|it| it.planned.stage));
                let submit = job.submit(self.jobs.len());
                self.jobs.push(None);
                self.tell_planner(config, PlannerEvent::SubmitJob(submit));
            }
            Action::Cancel { job } => {
                self.budget.cancels -= 1;
                let (job, reason) = (JobId(job as u64), String::new());
                self.tell_planner(config, PlannerEvent::CancelJob { job, reason });
            }
            Action::Drop(stage) => {
                self.dropped.insert(stage);
                self.tell_planner(config, PlannerEvent::DatasetDropped(stage));
            }
            Action::ToPlanner => {
                let event = self.to_planner.pop_front().expect("it was there");
                self.tell_planner(config, event);
            }
            Action::ToScheduler => {
                let event = self.to_scheduler.pop_front().expect("it was there");
                if let SchedulerEvent::InputReady(stage) = event {
                    self.started.insert(stage);
                }
                self.tell_scheduler(config, event);
            }
            Action::Join { executor } => {
                self.budget.joins -= 1;
                self.join(config, executor);
            }
            Action::Lose { executor } => self.lose(config, executor),
            Action::Succeed(task) => self.end_task(config, task, TaskOutcome::Succeeded),
            Action::HeedKill(task) => {
                self.fail_task(config, task, TaskFailure::Killed(String::new()));
            }
            Action::Fail(task) => {
                self.budget.errors -= 1;
                self.fail_task(config, task, TaskFailure::Error(String::new()));
            }
            Action::NotFound { task, failed } => {
                let stage = failed.input.stage;
                if self.store.is_complete(stage, config.planned(stage).num_tasks) {
                    self.budget.fetches -= 1;
                }
                self.tasks.entry(task).and_modify(|it| it.not_found = Some(failed));
            }
            Action::ReportNotFound(task) => {
                let failed = self.tasks[&task].not_found.expect("it was there");
                self.fail_task(config, task, TaskFailure::FetchFailed(failed));
            }
            Action::Fire(key) => {
                self.timers.remove(&key);
                self.tell_scheduler(config, SchedulerEvent::TimerFired(key));
            }
            Action::Shutdown => {
                self.budget.shutdowns -= 1;
                self.tell_scheduler(config, SchedulerEvent::Shutdown);
            }
        }
    }

    fn lose(&mut self, config: &Config<P>, executor: usize) {
        self.budget.losses -= 1;
        self.executors[executor].is_here = false;
        let ExecutorLife { executor, incarnation } = self.life(executor);
        self.tasks.retain(|_, task| task.on.executor != executor);
        let reason = String::new();
        self.tell_scheduler(config, SchedulerEvent::ExecutorLost { executor, incarnation, reason });
    }

    pub fn join(&mut self, config: &Config<P>, executor: usize) {
        let it = &mut self.executors[executor];
        (it.lives, it.is_here) = (it.lives + 1, true);
        let incarnation = self.life(executor).incarnation;
        let joined = ExecutorJoined {
            executor: executor_id(executor),
            incarnation,
            address: "".into(),
            resources: ExecutorResources::new(config.executors[executor]),
        };
        self.tell_scheduler(config, SchedulerEvent::ExecutorJoined(joined));
    }

    /// The last of this executor.
    pub fn life(&self, executor: usize) -> ExecutorLife {
        let incarnation = Incarnation(self.executors[executor].lives - 1);
        ExecutorLife { executor: executor_id(executor), incarnation }
    }

    fn fail_task(&mut self, config: &Config<P>, task: TaskAttemptId, failure: TaskFailure) {
        self.end_task(config, task, TaskOutcome::Failed(failure));
    }

    fn end_task(&mut self, config: &Config<P>, id: TaskAttemptId, outcome: TaskOutcome) {
        let Some(task) = self.tasks.remove(&id) else { return };
        let report = TaskReport {
            executor: task.on.executor,
            incarnation: task.on.incarnation,
            attempt: task.attempt,
            partition: task.partition,
            task_attempt: id,
            outcome,
        };
        self.tell_scheduler(config, SchedulerEvent::TaskReport(report));
    }

    fn tell_scheduler(&mut self, config: &Config<P>, event: SchedulerEvent) {
        let succeeded_on = match &event {
            SchedulerEvent::TaskReport(report) if report.outcome == TaskOutcome::Succeeded => {
                let (executor, incarnation) = (report.executor, report.incarnation);
                Some(ExecutorLife { executor, incarnation })
            }
            _ => None,
        };
        let mut effects = Vec::new();
        self.scheduler.handle(event, &mut effects);
        for effect in effects {
            self.carry_out_for_scheduler(config, effect, succeeded_on);
        }
    }

    fn tell_planner(&mut self, config: &Config<P>, event: PlannerEvent) {
        match &event {
            PlannerEvent::StageEnded { stage, next_attempt, result: Ok(made) }
                if self.planner.shipped().is_map_stage(*stage) =>
            {
                let attempt = next_attempt.saturating_sub(1);
                self.store.put(StageAttemptId { stage: *stage, attempt }, made);
            }
            PlannerEvent::ExecutorLost(executor) => self.store.executor_lost(*executor),
            PlannerEvent::InputLost { failed, .. } => self.store.not_found(*failed),
            _ => {}
        }
        let mut effects = Vec::new();
        self.planner.handle(event, &mut effects);
        for effect in effects {
            self.carry_out_for_planner(config, effect);
        }
        if self.planner.shipped().outputs() != self.store.outputs() {
            self.faults.insert(Fault::DroppedInVain);
        }
    }
}

//! What the world does as the two machines say, and what it thinks of it.

use super::{Config, Ended, Fault, Planning, State, Task};
use phalanx::protocol::{
    ExecutorId, ExecutorLife, JobFailure, LaunchTasks, PlannerEffect, PlannerEvent, RuntimeEvent,
    SchedulerEffect, SchedulerEvent, SchedulerTimer, StageFailure, StageId, StageRole, SubmitStage,
};

impl<P: Planning> State<P> {
    pub fn carry_out_for_planner(&mut self, config: &Config<P>, effect: PlannerEffect) {
        match effect {
            PlannerEffect::SubmitStage(submit) => self.hand_in(config, submit),
            PlannerEffect::InputReady(stage) => {
                for &parent in &config.planned(stage).parents {
                    let planned = config.planned(parent);
                    if !self.store.is_complete(parent, planned.num_tasks) {
                        self.faults.insert(Fault::StartedEarly);
                    }
                    if planned.is_barrier() && !self.store.is_of_one_attempt(parent) {
                        self.faults.insert(Fault::MixedGang);
                    }
                }
                self.to_scheduler.push_back(SchedulerEvent::InputReady(stage));
            }
            PlannerEffect::CancelStage { stage, .. } => {
                // Without words, so that states are small.
                let reason = String::new();
                self.to_scheduler.push_back(SchedulerEvent::CancelStage { stage, reason });
            }
            PlannerEffect::DropOutputs { stage, partitions } => {
                let of_gang = config.planned(stage).is_barrier();
                if !self.store.are_lost(stage, &partitions, of_gang) {
                    self.faults.insert(Fault::DroppedInVain);
                }
                self.store.drop_outputs(stage, &partitions);
            }
            PlannerEffect::ForgetStage(stage) => {
                self.store.forget(stage);
                self.code.remove(&stage);
            }
            PlannerEffect::JobEnded { job, result } => {
                let ended = match result {
                    Ok(()) => Ended::Succeeded,
                    Err(failure) => Ended::of(&failure),
                };
                match self.jobs.get_mut(job.0 as usize) {
                    Some(known @ None) => *known = Some(ended),
                    Some(Some(_)) | None => drop(self.faults.insert(Fault::EndedAgain)),
                }
            }
            PlannerEffect::Emit(_) => {}
        }
    }

    fn hand_in(&mut self, config: &Config<P>, submit: SubmitStage) {
        let planned = config.planned(submit.stage);
        if !self.code.contains(&submit.stage) {
            self.faults.insert(Fault::NoCode);
        }
        let of_job = submit.of_job.as_ref().expect("what the planner hands in is of a job");
        if planned.is_barrier() && !of_job.done.is_empty() {
            self.faults.insert(Fault::PartOfGang);
        }
        self.to_scheduler.push_back(SchedulerEvent::SubmitStage(submit));
    }

    /// `succeeded_on`: where the task ran whose success this step is about.
    pub fn carry_out_for_scheduler(
        &mut self,
        config: &Config<P>,
        effect: SchedulerEffect,
        succeeded_on: Option<ExecutorLife>,
    ) {
        match effect {
            SchedulerEffect::LaunchTasks { executor, launch } => {
                self.launch(config, executor, &launch);
            }
            SchedulerEffect::KillTask { kill, .. } => {
                for id in kill.tasks {
                    self.tasks.entry(id).and_modify(|task| task.killed = true);
                }
            }
            SchedulerEffect::KeepPayload { stage, partition, .. } => {
                // The others bring an error.
                if let Some(life) = succeeded_on {
                    self.kept.entry(stage).or_default().insert(partition, life);
                }
            }
            SchedulerEffect::DiscardPayloads(stage) => drop(self.kept.remove(&stage)),
            SchedulerEffect::AwaitsInput(stage) => {
                self.to_planner.push_back(PlannerEvent::AwaitsInput(stage));
            }
            SchedulerEffect::InputLost { stage, failed } => {
                self.started.remove(&stage);
                self.to_planner.push_back(PlannerEvent::InputLost { stage, failed });
            }
            SchedulerEffect::StageEnded { stage, next_attempt, result } => {
                self.started.remove(&stage);
                let kept = self.kept.remove(&stage).unwrap_or_default();
                let is_map = config.planned(stage).role == StageRole::Map;
                let made = kept.into_iter().filter(|_| is_map).collect();
                let result = result.map(|()| made);
                let ended = PlannerEvent::StageEnded { stage, next_attempt, result };
                self.to_planner.push_back(ended);
            }
            SchedulerEffect::SetTimer { key: key @ SchedulerTimer::SlotCheck { .. }, .. } => {
                self.timers.insert(key);
            }
            SchedulerEffect::Emit(RuntimeEvent::ExecutorLost { executor, incarnation, .. }) => {
                let life = ExecutorLife { executor, incarnation };
                self.to_planner.push_back(PlannerEvent::ExecutorLost(life));
            }
            // Those of slots, kills and barriers are another model's.
            SchedulerEffect::SetTimer { .. }
            | SchedulerEffect::OpenBarrier(_)
            | SchedulerEffect::StageCompleted(_)
            | SchedulerEffect::RetireExecutor { .. }
            | SchedulerEffect::Emit(_)
            | SchedulerEffect::Drained => {}
        }
    }

    fn launch(&mut self, config: &Config<P>, executor: ExecutorId, launch: &LaunchTasks) {
        let attempt = launch.attempt;
        if !self.started.contains(&attempt.stage) {
            self.faults.insert(Fault::StartedEarly);
        }
        let is_former =
            |task: &Task| task.attempt.stage == attempt.stage && task.attempt != attempt;
        if config.planned(attempt.stage).is_barrier() && self.tasks.values().any(is_former) {
            self.faults.insert(Fault::MixedGang);
        }
        let on = self.life(executor.0 as usize);
        for launched in &launch.tasks {
            let partition = launched.partition;
            let task = Task { attempt, partition, on, killed: false, not_found: None };
            self.tasks.insert(launched.task_attempt, task);
        }
    }

    /// Whether tasks of the stage are still there.
    pub fn runs(&self, stage: StageId) -> bool {
        self.tasks.values().any(|task| task.attempt.stage == stage)
    }
}

impl Ended {
    fn of(failure: &JobFailure) -> Self {
        match failure {
            JobFailure::Shutdown => Ended::Shutdown,
            JobFailure::Cancelled { .. } => Ended::Cancelled,
            JobFailure::UnsupportedChain { .. } => Ended::Refused,
            JobFailure::Refused { .. } => panic!("said by the shell only"),
            JobFailure::Stage { failure, .. } => match failure {
                StageFailure::NotEnoughSlots { .. } => Ended::NotEnoughSlots,
                StageFailure::AttemptsExhausted { .. }
                | StageFailure::InfrastructureExhausted { .. } => Ended::Exhausted,
                StageFailure::Shutdown => Ended::Shutdown,
                StageFailure::Aborted { .. }
                | StageFailure::Committed { .. }
                | StageFailure::DynamicAllocation { .. }
                | StageFailure::QueueFull { .. }
                | StageFailure::Refused { .. }
                | StageFailure::Cancelled { .. } => panic!("asked for by nobody here: {failure}"),
            },
        }
    }
}

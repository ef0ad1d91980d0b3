//! Which stages a job needs, and in what order.

mod messages;
mod stages;

use crate::{
    ExecutorLife, FetchFailed, JobFailure, JobId, OfJob, PartitionId, RuntimeEvent, StageFailure,
    StageId, SubmitStage,
};
pub use messages::{JobStage, PlannerEffect, PlannerEvent, SubmitJob};
use stages::{MapOutputs, Stage, State};
use std::collections::{BTreeMap, BTreeSet};

/// Runs the stages of jobs on datasets in order, and those again whose outputs are lost.
///
/// A job hands in all stages that it needs at once: the scheduler checks each (may it be a gang,
/// are there enough slots) and keeps it until its input is ready. When all have passed, and every
/// barrier stage can be one, the job starts. The outputs of a map stage count when all of it has
/// succeeded; they are kept, for later jobs too, until the dataset they belong to is gone.
///
/// ```text
///  SubmitJob ─▶ checking ──all fit, all chains supported──▶ started ──result stage ended──▶ over
///                  │                                           │
///                  └── a stage or chain is refused, cancel ────┴──▶ over, and so are its stages,
///                                                                   but those of other jobs
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Planner {
    jobs: BTreeMap<JobId, Job>,
    stages: BTreeMap<StageId, Stage>,
}

/// A job that has no result yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Job {
    name: String,
    /// Parents before children.
    stages: Vec<StageId>,
    result: StageId,
    /// All of its stages have passed their checks.
    is_started: bool,
}

impl Planner {
    /// A planner without jobs.
    pub fn new() -> Self {
        Planner::default()
    }

    /// Takes one event and appends what is to be done.
    pub fn handle(&mut self, event: PlannerEvent, effects: &mut Vec<PlannerEffect>) {
        match event {
            PlannerEvent::SubmitJob(submit) => self.submit_job(submit, effects),
            PlannerEvent::CancelJob { job, reason } => {
                self.end_job(job, Err(JobFailure::Cancelled { reason }), effects);
            }
            PlannerEvent::AwaitsInput(stage) => self.awaits_input(stage, effects),
            PlannerEvent::InputLost { stage, failed } => self.input_lost(stage, failed, effects),
            PlannerEvent::StageEnded { stage, next_attempt, result } => {
                self.stage_ended(stage, next_attempt, result, effects);
            }
            PlannerEvent::ExecutorLost(executor) => self.executor_lost(executor, effects),
            PlannerEvent::DatasetDropped(stage) => {
                if let Some(known) = self.stages.get_mut(&stage) {
                    known.is_held = false;
                }
                self.forget_if_unused(stage, effects);
            }
        }
    }

    /// The jobs that have no result, and the stages of each that are not done.
    pub fn jobs(&self) -> impl Iterator<Item = (JobId, &str, Vec<StageId>)> + '_ {
        self.jobs.iter().map(|(id, job)| {
            let is_open = |id: &&StageId| self.stages.get(*id).is_some_and(|it| !it.is_available());
            (*id, job.name.as_str(), job.stages.iter().filter(is_open).copied().collect())
        })
    }

    /// How many outputs of map stages there are.
    pub fn outputs(&self) -> usize {
        self.stages.values().map(|stage| stage.outputs.len()).sum()
    }

    /// How many map stages are known, with or without outputs.
    pub fn map_stages(&self) -> usize {
        self.stages.values().filter(|stage| stage.is_map()).count()
    }

    /// Whether this is one of them.
    pub fn is_map_stage(&self, stage: StageId) -> bool {
        self.stages.get(&stage).is_some_and(Stage::is_map)
    }

    /// Whether the scheduler has this stage and was not asked to end it.
    pub fn is_handed_in(&self, stage: StageId) -> bool {
        self.stages.get(&stage).is_some_and(Stage::is_handed_in)
    }

    fn submit_job(&mut self, submit: SubmitJob, effects: &mut Vec<PlannerEffect>) {
        let SubmitJob { job: id, name, stages } = submit;
        let Some(result) = stages.last().map(|last| last.planned.stage) else { return };
        if self.jobs.contains_key(&id) {
            return;
        }
        let mut ids = Vec::new();
        for stage in stages {
            let stage_id = stage.planned.stage;
            ids.push(stage_id);
            let known = self.stages.entry(stage_id).or_insert_with(|| Stage::new(stage.clone()));
            if !known.is_handed_in() {
                known.spec = stage.spec;
            }
            known.jobs.insert(id);
        }
        self.jobs.insert(id, Job { name, stages: ids, result, is_started: false });
        self.go_on(id, effects);
    }

    /// What a job needs and what is not there is handed in, or started if all before it is there.
    fn go_on(&mut self, id: JobId, effects: &mut Vec<PlannerEffect>) {
        let needed = self.needed(id);
        for stage in &needed {
            self.hand_in(*stage, effects);
        }
        if !self.is_checked(id, &needed, effects) {
            return;
        }
        for stage in needed {
            let Some(known) = self.stages.get(&stage) else { continue };
            let is_available = |parent: &StageId| {
                self.stages.get(parent).is_some_and(|parent| parent.is_available())
            };
            let has_input = known.is_empty() || known.planned.parents.iter().all(is_available);
            if known.state == State::Waiting && has_input {
                effects.push(PlannerEffect::InputReady(stage));
                self.set_state(stage, State::Started);
            }
        }
    }

    /// Whether a job has passed its checks. With the last of them it starts, or is refused.
    fn is_checked(
        &mut self,
        id: JobId,
        needed: &[StageId],
        effects: &mut Vec<PlannerEffect>,
    ) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        if job.is_started {
            return true;
        }
        if needed.iter().filter_map(|id| self.stages.get(id)).any(|stage| !stage.is_checked()) {
            return false;
        }
        for stage in job.stages.iter().filter_map(|id| self.stages.get(id)) {
            if let Err(chain) = stage.planned.chain.clone() {
                let stage = stage.planned.stage;
                let failure = JobFailure::UnsupportedChain { stage, chain };
                self.end_job(id, Err(failure), effects);
                return false;
            }
        }
        job.is_started = true;
        let (name, ids) = (job.name.clone(), job.stages.iter());
        let stages = ids.filter_map(|id| Some(self.stages.get(id)?.planned.clone())).collect();
        effects.push(PlannerEffect::Emit(RuntimeEvent::JobStarted { job: id, name, stages }));
        true
    }

    /// The stages that a job still needs, parents before children. One that runs has found its
    /// input, or will say that it has not; one of no tasks needs none.
    fn needed(&self, id: JobId) -> Vec<StageId> {
        let Some(job) = self.jobs.get(&id) else { return Vec::new() };
        let (mut needed, mut next) = (BTreeSet::new(), vec![job.result]);
        while let Some(id) = next.pop() {
            let Some(stage) = self.stages.get(&id).filter(|stage| !stage.is_available()) else {
                continue;
            };
            if needed.insert(id) && stage.state != State::Started && !stage.is_empty() {
                next.extend(&stage.planned.parents);
            }
        }
        job.stages.iter().copied().filter(|id| needed.contains(id)).collect()
    }

    fn hand_in(&mut self, id: StageId, effects: &mut Vec<PlannerEffect>) {
        let Some(stage) = self.stages.get_mut(&id).filter(|it| it.state == State::Idle) else {
            return;
        };
        stage.state = State::Checking;
        stage.lost.clear();
        let done = stage.outputs.keys().copied().collect();
        let of_job = Some(OfJob { first_attempt: stage.next_attempt, done });
        let submit = SubmitStage { stage: id, spec: stage.spec.clone(), of_job };
        effects.push(PlannerEffect::SubmitStage(submit));
    }

    fn awaits_input(&mut self, id: StageId, effects: &mut Vec<PlannerEffect>) {
        let is_checking = |stage: &&Stage| stage.state == State::Checking;
        let Some(stage) = self.stages.get(&id).filter(is_checking) else { return };
        let jobs = stage.jobs.clone();
        self.set_state(id, State::Waiting);
        self.all_go_on(jobs, effects);
    }

    fn input_lost(&mut self, id: StageId, failed: FetchFailed, effects: &mut Vec<PlannerEffect>) {
        let is_active = |stage: &&mut Stage| stage.state != State::Idle;
        let Some(stage) = self.stages.get_mut(&id).filter(is_active) else { return };
        let mut jobs = BTreeSet::new();
        // One that was cancelled waits for nothing, but what it has found out is true for others.
        if stage.state == State::Started {
            stage.state = State::Waiting;
            jobs.extend(&stage.jobs);
        }
        let input = self.stages.get_mut(&failed.input.stage);
        // Outputs that have been made again since are not meant.
        if let Some(input) = input.filter(|it| it.next_attempt == failed.input.attempt + 1) {
            let forgotten = input.outputs.forget([failed.partition], input.planned.is_barrier());
            jobs.extend(&input.jobs);
            tell_forgotten(failed.input.stage, forgotten, effects);
        }
        self.all_go_on(jobs, effects);
    }

    fn executor_lost(&mut self, executor: ExecutorLife, effects: &mut Vec<PlannerEffect>) {
        let mut jobs = BTreeSet::new();
        for (id, stage) in &mut self.stages {
            if stage.state != State::Idle {
                stage.lost.insert(executor);
            }
            let held = stage.outputs.of_executor(executor);
            let forgotten = stage.outputs.forget(held, stage.planned.is_barrier());
            if !forgotten.is_empty() {
                jobs.extend(&stage.jobs);
            }
            tell_forgotten(*id, forgotten, effects);
        }
        self.all_go_on(jobs, effects);
    }

    fn stage_ended(
        &mut self,
        id: StageId,
        next_attempt: u32,
        result: Result<Vec<(PartitionId, ExecutorLife)>, StageFailure>,
        effects: &mut Vec<PlannerEffect>,
    ) {
        let is_active = |stage: &&mut Stage| stage.state != State::Idle;
        let Some(stage) = self.stages.get_mut(&id).filter(is_active) else { return };
        let was_cancelled = stage.state == State::Cancelled;
        stage.state = State::Idle;
        stage.next_attempt = next_attempt;
        let jobs = stage.jobs.clone();
        match result {
            Ok(made) if stage.is_map() => {
                let made: MapOutputs = made.into_iter().collect();
                stage.outputs.extend(made);
                // Those that were lost before the stage was done.
                let lost = std::mem::take(&mut stage.lost);
                let held = lost.iter().flat_map(|executor| stage.outputs.of_executor(*executor));
                let held: Vec<_> = held.collect();
                let forgotten = stage.outputs.forget(held, stage.planned.is_barrier());
                tell_forgotten(id, forgotten, effects);
                self.forget_if_unused(id, effects);
                self.all_go_on(jobs, effects);
            }
            Ok(_) => {
                jobs.into_iter().for_each(|job| self.end_job(job, Ok(()), effects));
                // Its job may have been cancelled while this was on its way.
                self.forget_if_unused(id, effects);
            }
            // For those who came after the cancelling it is handed in again.
            Err(_) if was_cancelled => {
                self.forget_if_unused(id, effects);
                self.all_go_on(jobs, effects);
            }
            Err(failure) => {
                let failure = stage.failure(failure);
                for job in jobs {
                    self.end_job(job, Err(failure.clone()), effects);
                }
                self.forget_if_unused(id, effects);
            }
        }
    }

    fn all_go_on(&mut self, jobs: BTreeSet<JobId>, effects: &mut Vec<PlannerEffect>) {
        jobs.into_iter().for_each(|job| self.go_on(job, effects));
    }

    /// Hands over the result, or why there is none. Stages that no other job needs are cancelled.
    fn end_job(
        &mut self,
        id: JobId,
        result: Result<(), JobFailure>,
        effects: &mut Vec<PlannerEffect>,
    ) {
        let Some(job) = self.jobs.remove(&id) else { return };
        let failure = result.clone().err();
        let reason = match &failure {
            Some(failure) => format!("its job was {failure}"),
            None => "its job has its result".to_owned(),
        };
        effects.extend([
            PlannerEffect::JobEnded { job: id, result },
            PlannerEffect::Emit(RuntimeEvent::JobEnded { job: id, failure }),
        ]);
        for stage_id in job.stages {
            let Some(stage) = self.stages.get_mut(&stage_id) else { continue };
            stage.jobs.remove(&id);
            if stage.is_handed_in() && stage.jobs.is_empty() {
                stage.state = State::Cancelled;
                let reason = reason.clone();
                effects.push(PlannerEffect::CancelStage { stage: stage_id, reason });
            }
            self.forget_if_unused(stage_id, effects);
        }
    }

    fn forget_if_unused(&mut self, id: StageId, effects: &mut Vec<PlannerEffect>) {
        let is_unused =
            |stage: &Stage| stage.jobs.is_empty() && stage.state == State::Idle && !stage.is_held;
        if self.stages.get(&id).is_some_and(is_unused) {
            self.stages.remove(&id);
            effects.push(PlannerEffect::ForgetStage(id));
        }
    }

    fn set_state(&mut self, id: StageId, state: State) {
        if let Some(stage) = self.stages.get_mut(&id) {
            stage.state = state;
        }
    }
}

fn tell_forgotten(stage: StageId, partitions: Vec<PartitionId>, effects: &mut Vec<PlannerEffect>) {
    if partitions.is_empty() {
        return;
    }
    let ranges = partitions.iter().copied().collect();
    effects.extend([
        PlannerEffect::DropOutputs { stage, partitions },
        PlannerEffect::Emit(RuntimeEvent::OutputsForgotten { stage, partitions: ranges }),
    ]);
}

#[cfg(test)]
mod tests;

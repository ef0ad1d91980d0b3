use super::*;
use crate::{
    DatasetNode, Dependency, ExecutorId, Incarnation, Lineage, OnFailure, PartitionRanges,
    PlannedStage, StageAttemptId, StageKind, StageRole, StageSpec, TaskResources, UnsupportedChain,
};
use std::time::Duration;

mod checking;
mod dropping;
mod ending;
mod losing;
mod sharing;

const E1: ExecutorLife = life(1, 0);
const E2: ExecutorLife = life(2, 0);
const MAP: StageId = StageId(0);
const SECOND_MAP: StageId = StageId(1);
const RESULT: StageId = StageId(8);
const OTHER_RESULT: StageId = StageId(9);
const JOB: JobId = JobId(0);
const OTHER_JOB: JobId = JobId(1);

type Effects = Vec<PlannerEffect>;

const fn life(executor: u64, incarnation: u32) -> ExecutorLife {
    let (executor, incarnation) = (ExecutorId(executor), Incarnation(incarnation));
    ExecutorLife { executor, incarnation }
}

/// The machine, and those whom it talks to.
#[derive(Clone)]
struct Jobs {
    machine: Planner,
}

impl Jobs {
    fn new() -> Self {
        Jobs { machine: Planner::new() }
    }

    /// A job of these stages, parents before children, as [`chain`] makes it.
    fn of(links: &[Link]) -> (Self, Effects) {
        let mut jobs = Jobs::new();
        let effects = jobs.submit(JOB, chain(links, RESULT));
        (jobs, effects)
    }

    /// Its map stage was made: the first of two partitions on one executor, the second on another.
    fn mapped(links: &[Link]) -> Self {
        let (mut jobs, _) = Jobs::of(links);
        jobs.awaits_all(&[MAP, RESULT]);
        let effects = jobs.made(MAP, 1, &[(0, E1), (1, E2)]);
        assert_eq!(effects, [PlannerEffect::InputReady(RESULT)]);
        jobs
    }

    fn handle(&mut self, event: PlannerEvent) -> Effects {
        let mut effects = Vec::new();
        self.machine.handle(event, &mut effects);
        effects
    }

    /// The event leaves no trace.
    #[track_caller]
    fn ignores(&mut self, event: PlannerEvent) {
        let before = self.machine.clone();
        let effects = self.handle(event.clone());
        assert_eq!(effects, [], "effects of {event:?}");
        assert!(self.machine == before, "the state has changed by {event:?}");
    }

    fn submit(&mut self, job: JobId, stages: Vec<JobStage>) -> Effects {
        self.handle(submitted(job, stages))
    }

    fn cancel(&mut self, job: JobId) -> Effects {
        self.handle(cancelled(job))
    }

    /// All of these fit; what follows from the last.
    fn awaits_all(&mut self, stages: &[StageId]) -> Effects {
        let mut effects = Vec::new();
        for stage in stages {
            assert_eq!(without_events(effects), [], "before {stage} was checked");
            effects = self.handle(PlannerEvent::AwaitsInput(*stage));
        }
        effects
    }

    fn made(&mut self, stage: StageId, next: u32, made: &[(u32, ExecutorLife)]) -> Effects {
        self.handle(ended(stage, next, Ok(places(made))))
    }

    fn failed(&mut self, stage: StageId, next: u32, failure: StageFailure) -> Effects {
        self.handle(ended(stage, next, Err(failure)))
    }

    fn not_found(&mut self, stage: StageId, of: (StageId, u32), partition: u32) -> Effects {
        self.handle(input_lost(stage, of, partition))
    }

    fn lose(&mut self, executor: ExecutorLife) -> Effects {
        self.handle(PlannerEvent::ExecutorLost(executor))
    }

    fn drop_all(&mut self, stages: &[StageId]) -> Effects {
        let drops = stages.iter().map(|stage| self.handle(PlannerEvent::DatasetDropped(*stage)));
        drops.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    fn open_stages(&self) -> Vec<(JobId, Vec<StageId>)> {
        self.machine.jobs().map(|(job, _, stages)| (job, stages)).collect()
    }

    #[track_caller]
    fn is_empty(&self) {
        assert!(self.machine == Planner::new(), "{:#?}", self.machine);
    }
}

/// A stage of a chain.
#[derive(Clone, Copy)]
enum Link {
    Gang(u32),
    Plain(u32),
}
use Link::{Gang, Plain};

/// Stages that each read all of the one before; map stages are numbered from 0.
fn chain(links: &[Link], result: StageId) -> Vec<JobStage> {
    let mut lineage = Lineage::default();
    for (index, link) in links.iter().enumerate() {
        let (num_partitions, from_barrier) = match *link {
            Gang(num_tasks) => (num_tasks, true),
            Plain(num_tasks) => (num_tasks, false),
        };
        let shuffle = |parent| Dependency::Shuffle { parent, stage: StageId(parent as u64) };
        let parents = index.checked_sub(1).map(shuffle).into_iter().collect();
        let name = "rows".to_owned();
        lineage.push(DatasetNode { name, num_partitions, from_barrier, parents });
    }
    staged(&lineage, result)
}

fn staged(lineage: &Lineage, result: StageId) -> Vec<JobStage> {
    let planned = lineage.stages(result, None).into_iter();
    planned.map(|planned| JobStage { spec: spec_of(&planned), planned }).collect()
}

fn spec_of(planned: &PlannedStage) -> StageSpec {
    StageSpec {
        name: format!("stage-{}", planned.stage),
        kind: if planned.is_barrier() { StageKind::Barrier } else { StageKind::Plain },
        num_tasks: planned.num_tasks,
        resources: TaskResources::default(),
        max_attempts: 4,
        max_infrastructure_failures: 3,
        retry_delay: Duration::ZERO,
        priority: 0,
        sync_timeout: Duration::from_secs(600),
        on_failure: OnFailure::Restart,
    }
}

fn submitted(job: JobId, stages: Vec<JobStage>) -> PlannerEvent {
    PlannerEvent::SubmitJob(SubmitJob { job, name: format!("job-{job}"), stages })
}

fn cancelled(job: JobId) -> PlannerEvent {
    PlannerEvent::CancelJob { job, reason: "not needed".to_owned() }
}

fn places(made: &[(u32, ExecutorLife)]) -> Vec<(PartitionId, ExecutorLife)> {
    made.iter().map(|(partition, executor)| (PartitionId(*partition), *executor)).collect()
}

fn ended(
    stage: StageId,
    next_attempt: u32,
    result: Result<Vec<(PartitionId, ExecutorLife)>, StageFailure>,
) -> PlannerEvent {
    PlannerEvent::StageEnded { stage, next_attempt, result }
}

fn input_lost(stage: StageId, (input, attempt): (StageId, u32), partition: u32) -> PlannerEvent {
    let input = StageAttemptId { stage: input, attempt };
    let failed = FetchFailed { input, partition: PartitionId(partition) };
    PlannerEvent::InputLost { stage, failed }
}

fn was_cancelled() -> StageFailure {
    StageFailure::Cancelled { reason: "its job was cancelled: not needed".to_owned() }
}

/// Handed to the scheduler, from this attempt on, without these.
fn hands_in(stage: &JobStage, first_attempt: u32, done: &[u32]) -> PlannerEffect {
    let done: PartitionRanges = done.iter().copied().map(PartitionId).collect();
    let of_job = Some(OfJob { first_attempt, done });
    let (stage, spec) = (stage.planned.stage, stage.spec.clone());
    PlannerEffect::SubmitStage(SubmitStage { stage, spec, of_job })
}

fn job_started(job: JobId, stages: &[JobStage]) -> PlannerEffect {
    let stages = stages.iter().map(|stage| stage.planned.clone()).collect();
    PlannerEffect::Emit(RuntimeEvent::JobStarted { job, name: format!("job-{job}"), stages })
}

fn job_ended(job: JobId, failure: Option<JobFailure>) -> [PlannerEffect; 2] {
    let result = failure.clone().map_or(Ok(()), Err);
    [
        PlannerEffect::JobEnded { job, result },
        PlannerEffect::Emit(RuntimeEvent::JobEnded { job, failure }),
    ]
}

fn not_needed() -> JobFailure {
    JobFailure::Cancelled { reason: "not needed".to_owned() }
}

/// Of a stage that no job needs after one was cancelled.
fn cancels(stage: StageId) -> PlannerEffect {
    let reason = "its job was cancelled: not needed".to_owned();
    PlannerEffect::CancelStage { stage, reason }
}

fn forgotten(stage: StageId, partitions: &[u32]) -> [PlannerEffect; 2] {
    let partitions: Vec<_> = partitions.iter().copied().map(PartitionId).collect();
    let ranges = partitions.iter().copied().collect();
    [
        PlannerEffect::DropOutputs { stage, partitions },
        PlannerEffect::Emit(RuntimeEvent::OutputsForgotten { stage, partitions: ranges }),
    ]
}

/// All of these, in order.
fn all<const N: usize>(effects: [&[PlannerEffect]; N]) -> Effects {
    effects.concat()
}

/// For tests that are not about events.
fn without_events(effects: Effects) -> Effects {
    effects.into_iter().filter(|it| !matches!(it, PlannerEffect::Emit(_))).collect()
}

#[test]
fn a_job_hands_in_all_of_its_stages_at_once_and_starts_when_all_fit() {
    let stages = chain(&[Gang(2), Plain(3), Plain(1)], RESULT);
    let (mut jobs, effects) = Jobs::of(&[Gang(2), Plain(3), Plain(1)]);
    let handed_in = [0, 1, 2].map(|it| hands_in(&stages[it], 0, &[]));
    assert_eq!(effects, handed_in);
    assert_eq!(jobs.handle(PlannerEvent::AwaitsInput(RESULT)), []);
    assert_eq!(jobs.handle(PlannerEvent::AwaitsInput(MAP)), []);
    let effects = jobs.handle(PlannerEvent::AwaitsInput(SECOND_MAP));
    assert_eq!(effects, [job_started(JOB, &stages), PlannerEffect::InputReady(MAP)]);
    assert_eq!(jobs.open_stages(), [(JOB, vec![MAP, SECOND_MAP, RESULT])]);
    assert_eq!((jobs.machine.map_stages(), jobs.machine.outputs()), (2, 0));
}

#[test]
fn each_stage_starts_when_the_one_before_it_has_made_all_of_its_outputs() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(3), Plain(1)]);
    jobs.awaits_all(&[MAP, SECOND_MAP, RESULT]);
    let effects = jobs.made(MAP, 1, &[(0, E1), (1, E2)]);
    assert_eq!(effects, [PlannerEffect::InputReady(SECOND_MAP)]);
    assert_eq!(jobs.open_stages(), [(JOB, vec![SECOND_MAP, RESULT])]);
    let effects = jobs.made(SECOND_MAP, 1, &[(0, E1), (1, E1), (2, E2)]);
    assert_eq!(effects, [PlannerEffect::InputReady(RESULT)]);
    assert_eq!(jobs.machine.outputs(), 5);
    let effects = jobs.made(RESULT, 1, &[]);
    let over = job_ended(JOB, None);
    assert_eq!(effects, all([&over, &[PlannerEffect::ForgetStage(RESULT)]]));
    assert_eq!(jobs.open_stages(), []);
    assert_eq!((jobs.machine.map_stages(), jobs.machine.outputs()), (2, 5));
    assert!(jobs.machine.is_map_stage(MAP) && !jobs.machine.is_map_stage(RESULT));
}

#[test]
fn a_stage_with_two_parents_waits_for_both() {
    let mut lineage = Lineage::default();
    let node = |parents| {
        let name = "rows".to_owned();
        DatasetNode { name, num_partitions: 1, from_barrier: false, parents }
    };
    let shuffle = |parent| Dependency::Shuffle { parent, stage: StageId(parent as u64) };
    lineage.push(node(vec![]));
    lineage.push(node(vec![]));
    lineage.push(node(vec![shuffle(0), shuffle(1)]));
    let mut jobs = Jobs::new();
    jobs.submit(JOB, staged(&lineage, RESULT));
    let effects = without_events(jobs.awaits_all(&[MAP, SECOND_MAP, RESULT]));
    assert_eq!(effects, [MAP, SECOND_MAP].map(PlannerEffect::InputReady));
    assert_eq!(jobs.made(SECOND_MAP, 1, &[(0, E1)]), []);
    assert_eq!(jobs.made(MAP, 1, &[(0, E1)]), [PlannerEffect::InputReady(RESULT)]);
}

#[test]
fn a_map_stage_without_tasks_needs_not_run() {
    let stages = chain(&[Plain(0), Plain(2)], RESULT);
    let (mut jobs, effects) = Jobs::of(&[Plain(0), Plain(2)]);
    assert_eq!(effects, [hands_in(&stages[1], 0, &[])]);
    let effects = jobs.awaits_all(&[RESULT]);
    assert_eq!(effects, [job_started(JOB, &stages), PlannerEffect::InputReady(RESULT)]);
    jobs.made(RESULT, 1, &[]);
    assert_eq!(jobs.drop_all(&[MAP]), [PlannerEffect::ForgetStage(MAP)]);
    jobs.is_empty();
}

#[test]
fn a_second_job_on_what_was_made_runs_its_result_stage_only() {
    let mut jobs = Jobs::mapped(&[Gang(2), Plain(2)]);
    jobs.made(RESULT, 1, &[]);
    let stages = chain(&[Gang(2), Plain(2)], OTHER_RESULT);
    let effects = jobs.submit(OTHER_JOB, stages.clone());
    assert_eq!(effects, [hands_in(&stages[1], 0, &[])]);
    assert_eq!(jobs.open_stages(), [(OTHER_JOB, vec![OTHER_RESULT])]);
    let effects = jobs.awaits_all(&[OTHER_RESULT]);
    let ready = PlannerEffect::InputReady(OTHER_RESULT);
    assert_eq!(effects, [job_started(OTHER_JOB, &stages), ready], "with the stage that is skipped");
}

#[test]
fn what_is_not_known_or_not_due_is_ignored() {
    let unknown = StageId(77);
    let mut jobs = Jobs::mapped(&[Gang(2), Plain(2)]);
    jobs.ignores(cancelled(JobId(77)));
    jobs.ignores(submitted(JOB, chain(&[Plain(1)], OTHER_RESULT)));
    jobs.ignores(submitted(JobId(77), vec![]));
    for stage in [unknown, MAP, RESULT] {
        jobs.ignores(PlannerEvent::AwaitsInput(stage));
    }
    jobs.ignores(PlannerEvent::DatasetDropped(unknown));
    jobs.ignores(PlannerEvent::DatasetDropped(RESULT));
    for stage in [unknown, MAP] {
        jobs.ignores(ended(stage, 9, Ok(places(&[(0, E1)]))));
        jobs.ignores(ended(stage, 9, Err(StageFailure::Shutdown)));
        jobs.ignores(input_lost(stage, (MAP, 0), 0));
    }
    assert!(!jobs.machine.is_map_stage(unknown));
}

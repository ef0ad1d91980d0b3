use super::stage::Phase;
use super::*;
use crate::{
    CloseReason, FailureCause, LaunchTask, OnFailure, PartitionRanges, StageKind, StageSpec,
    TaskFailure, TaskInfo, TaskOrigin, TaskOutcome,
};

mod admission;
mod cancel;
mod committed;
mod dynamic_allocation;
mod executors;
mod fetch_failed;
mod gang;
mod gang_failure;
mod handed_in_again;
mod infrastructure;
mod kill;
mod late;
mod of_job;
mod plain_stage;
mod queue;
mod reservation;
mod reservation_ends;
mod resources;
mod retry_budget;
mod shutdown;
mod slot_check;
mod specs;
mod zombies;

use specs::{config, cpus, gang, plain};

const E1: ExecutorId = ExecutorId(1);
const E2: ExecutorId = ExecutorId(2);
const E3: ExecutorId = ExecutorId(3);
const E4: ExecutorId = ExecutorId(4);

const SLOT_CHECK: Duration = Duration::from_secs(15);
const RESERVE: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(60);
const SYNC: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(200);

type Effects = Vec<SchedulerEffect>;

/// The machine with its executors: feeds events, plays the tasks, watches the books.
#[derive(Clone)]
struct Cluster {
    machine: TaskScheduler,
    next_stage: u64,
}

impl Cluster {
    fn new(config: SchedulerConfig) -> Self {
        Cluster { machine: TaskScheduler::new(config), next_stage: 0 }
    }

    /// Executors from number 1 on, with so many cpus each.
    fn of(slots: &[u32]) -> Self {
        Cluster::configured(config(), slots)
    }

    fn configured(config: SchedulerConfig, slots: &[u32]) -> Self {
        let mut cluster = Cluster::new(config);
        for (executor, &count) in (1..).zip(slots) {
            cluster.join(ExecutorId(executor), cpus(count));
        }
        cluster
    }

    fn handle(&mut self, event: SchedulerEvent) -> Effects {
        let mut effects = Vec::new();
        self.machine.handle(event, &mut effects);
        self.check_books();
        effects
    }

    /// No gang holds part of its slots, and what is free and what is taken make up what there is.
    fn check_books(&self) {
        for stage in self.machine.stages.values().filter(|stage| stage.is_gang()) {
            let live = stage.live.len();
            match stage.phase {
                Phase::Deferred { .. }
                | Phase::Queued
                | Phase::AwaitingInput
                | Phase::BackingOff => {
                    assert_eq!(live, 0, "{} waits and has tasks", stage.attempt_id());
                }
                Phase::Running => {
                    let all = live + stage.succeeded as usize;
                    assert_eq!(all, stage.spec.num_tasks as usize, "{}", stage.attempt_id());
                }
                Phase::Stopping { .. } | Phase::Ended => {}
            }
        }
        let all: u32 = self.machine.executors().map(|it| it.resources.cpus).sum();
        let held: u32 = self.machine.tasks.values().map(|task| task.held.cpus).sum();
        assert_eq!(self.free_slots() + u64::from(held), u64::from(all), "free and taken cpus");
    }

    fn free_slots(&self) -> u64 {
        self.machine.ledger.slots_free(&TaskResources::default())
    }

    /// The event leaves no trace.
    #[track_caller]
    fn ignores(&mut self, event: SchedulerEvent) {
        let before = self.machine.clone();
        let effects = self.handle(event.clone());
        assert_eq!(effects, [], "effects of {event:?}");
        assert!(self.machine == before, "the state has changed by {event:?}");
    }

    fn join(&mut self, executor: ExecutorId, resources: ExecutorResources) -> Effects {
        self.handle(joined(executor, 0, resources))
    }

    fn lose(&mut self, executor: ExecutorId) -> Effects {
        let known = self.machine.executors().find(|it| it.executor == executor);
        let incarnation = known.expect("an executor that is there").incarnation;
        self.handle(lost(executor, incarnation))
    }

    /// Stages get their ids in order, from 0.
    fn submit(&mut self, spec: StageSpec) -> (StageId, Effects) {
        let stage = StageId(self.next_stage);
        self.next_stage += 1;
        let effects =
            self.handle(SchedulerEvent::SubmitStage(SubmitStage { stage, spec, of_job: None }));
        (stage, effects)
    }

    fn cancel(&mut self, stage: StageId) -> Effects {
        self.handle(cancelled(stage))
    }

    fn fire(&mut self, timer: SchedulerTimer) -> Effects {
        self.handle(SchedulerEvent::TimerFired(timer))
    }

    /// The waiting gang gets as old as it takes to reserve slots.
    fn age(&mut self, stage: StageId) -> Effects {
        let attempt = self.status(stage).attempt;
        self.fire(SchedulerTimer::Reserve(attempt))
    }

    fn status(&self, stage: StageId) -> StageStatus {
        self.machine.stage_status(stage).expect("a stage that is not over")
    }

    fn phase(&self, stage: StageId) -> StagePhase {
        self.status(stage).phase
    }

    #[track_caller]
    fn is_over(&self, stage: StageId) {
        assert_eq!(self.machine.stage_status(stage), None);
    }

    fn tasks(&self, stage: StageId) -> Vec<TaskAttemptId> {
        self.status(stage).tasks.iter().map(|task| task.task_attempt).collect()
    }

    fn task(&self, stage: StageId, partition: u32) -> TaskAttemptId {
        let tasks = self.status(stage).tasks;
        let task = tasks.iter().find(|task| task.partition == PartitionId(partition));
        task.expect("a partition that runs").task_attempt
    }

    /// What the executor of a running task would send.
    fn report(&self, task: TaskAttemptId, outcome: TaskOutcome) -> TaskReport {
        let (attempt, found) = self
            .machine
            .stages()
            .flat_map(|stage| stage.tasks.into_iter().map(move |task| (stage.attempt, task)))
            .find(|(_, found)| found.task_attempt == task)
            .expect("a task that runs");
        let executor = self.machine.executors().find(|it| it.executor == found.executor);
        TaskReport {
            executor: found.executor,
            incarnation: executor.expect("an executor that is there").incarnation,
            attempt,
            partition: found.partition,
            task_attempt: task,
            outcome,
        }
    }

    fn ok(&mut self, task: TaskAttemptId) -> Effects {
        self.end(task, TaskOutcome::Succeeded)
    }

    fn fail(&mut self, task: TaskAttemptId, error: &str) -> Effects {
        self.end(task, failed(error))
    }

    /// The task heeds its kill.
    fn killed(&mut self, task: TaskAttemptId) -> Effects {
        self.end(task, TaskOutcome::Failed(TaskFailure::Killed("as told".to_owned())))
    }

    fn end(&mut self, task: TaskAttemptId, outcome: TaskOutcome) -> Effects {
        let report = self.report(task, outcome);
        self.handle(SchedulerEvent::TaskReport(report))
    }

    /// All tasks of the stage that run now succeed; the effects of all steps.
    fn ok_all(&mut self, stage: StageId) -> Effects {
        let tasks = self.tasks(stage);
        tasks.into_iter().flat_map(|task| self.ok(task)).collect()
    }

    /// All tasks of the stage that run now heed their kill; the effects of all steps.
    fn killed_all(&mut self, stage: StageId) -> Effects {
        let tasks = self.tasks(stage);
        tasks.into_iter().flat_map(|task| self.killed(task)).collect()
    }
}

fn joined(executor: ExecutorId, incarnation: u32, resources: ExecutorResources) -> SchedulerEvent {
    SchedulerEvent::ExecutorJoined(ExecutorJoined {
        executor,
        incarnation: Incarnation(incarnation),
        address: address(executor),
        resources,
    })
}

fn address(executor: ExecutorId) -> Arc<str> {
    format!("host-{executor}:7077").into()
}

fn lost(executor: ExecutorId, incarnation: Incarnation) -> SchedulerEvent {
    SchedulerEvent::ExecutorLost { executor, incarnation, reason: "went away".to_owned() }
}

fn cancelled(stage: StageId) -> SchedulerEvent {
    SchedulerEvent::CancelStage { stage, reason: "not needed".to_owned() }
}

fn kill_partition(stage: StageId, partition: u32) -> SchedulerEvent {
    let (partition, reason) = (PartitionId(partition), "by hand".to_owned());
    SchedulerEvent::KillPartition { stage, partition, reason }
}

/// The timer of the first kill of an attempt.
fn overdue(attempt: StageAttemptId) -> SchedulerTimer {
    SchedulerTimer::KillOverdue(KillId { attempt, kill: 0 })
}

/// The other timer of the first kill of an attempt.
fn zombie_deadline(attempt: StageAttemptId) -> SchedulerTimer {
    SchedulerTimer::ZombieDeadline(KillId { attempt, kill: 0 })
}

fn attempt(stage: StageId, attempt: u32) -> StageAttemptId {
    StageAttemptId { stage, attempt }
}

fn failed(error: &str) -> TaskOutcome {
    TaskOutcome::Failed(TaskFailure::Error(error.to_owned()))
}

fn executor_lost(executor: ExecutorId) -> TaskFailure {
    TaskFailure::ExecutorLost(format!("executor {executor} went away"))
}

/// The cause that a report with a failure stands for.
fn cause_of(report: &TaskReport) -> FailureCause {
    let TaskReport { executor, attempt, partition, task_attempt, outcome, .. } = report.clone();
    let TaskOutcome::Failed(failure) = outcome else { panic!("it did not fail") };
    let origin = Some(TaskOrigin { partition, task_attempt, executor });
    FailureCause { attempt, origin, failure }
}

/// What is said when a stage has its result.
fn stage_over(
    stage: StageId,
    attempts: u32,
    failure: Option<StageFailure>,
) -> [SchedulerEffect; 2] {
    let result = failure.clone().map_or(Ok(()), Err);
    [
        SchedulerEffect::StageEnded { stage, next_attempt: attempts, result },
        SchedulerEffect::Emit(RuntimeEvent::StageCompleted { stage, attempts, failure }),
    ]
}

/// What is said of a report before what follows from it.
fn task_ended(report: &TaskReport) -> SchedulerEffect {
    SchedulerEffect::Emit(RuntimeEvent::TaskEnded {
        attempt: report.attempt,
        partition: report.partition,
        task_attempt: report.task_attempt,
        executor: report.executor,
        outcome: report.outcome.clone(),
    })
}

fn keep_payload(report: &TaskReport) -> SchedulerEffect {
    SchedulerEffect::KeepPayload {
        stage: report.attempt.stage,
        partition: report.partition,
        task_attempt: report.task_attempt,
    }
}

fn closed(attempt: StageAttemptId, reason: CloseReason) -> SchedulerEffect {
    SchedulerEffect::StageCompleted(StageCompleted { attempt, reason })
}

fn set_timer(key: SchedulerTimer, after: Duration) -> SchedulerEffect {
    SchedulerEffect::SetTimer { key, after }
}

fn kill(executor: ExecutorId, tasks: &[TaskAttemptId], reason: &str) -> SchedulerEffect {
    let kill = KillTask { tasks: tasks.to_vec(), reason: reason.to_owned() };
    SchedulerEffect::KillTask { executor, kill }
}

/// The tasks launched, by stage and partition.
fn launched(effects: &Effects) -> Vec<(StageAttemptId, PartitionId, ExecutorId)> {
    let mut all = Vec::new();
    for effect in effects {
        if let SchedulerEffect::LaunchTasks { executor, launch } = effect {
            all.extend(launch.tasks.iter().map(|it| (launch.attempt, it.partition, *executor)));
        }
    }
    all.sort_unstable();
    all
}

/// The stages of which tasks were launched, in order of launch.
fn launched_stages(effects: &Effects) -> Vec<StageId> {
    let stage = |effect: &SchedulerEffect| {
        let SchedulerEffect::LaunchTasks { launch, .. } = effect else { return None };
        Some(launch.attempt.stage)
    };
    let mut stages: Vec<_> = effects.iter().filter_map(stage).collect();
    stages.dedup();
    stages
}

/// Executor of every task launched, by stage and partition.
fn launched_on(effects: &Effects) -> Vec<ExecutorId> {
    launched(effects).iter().map(|(_, _, executor)| *executor).collect()
}

fn kills(effects: &Effects) -> Vec<(ExecutorId, Vec<TaskAttemptId>)> {
    let kill = |effect: &SchedulerEffect| {
        let SchedulerEffect::KillTask { executor, kill } = effect else { return None };
        Some((*executor, kill.tasks.clone()))
    };
    effects.iter().filter_map(kill).collect()
}

fn timers(effects: &Effects) -> Vec<(SchedulerTimer, Duration)> {
    let timer = |effect: &SchedulerEffect| {
        let SchedulerEffect::SetTimer { key, after } = effect else { return None };
        Some((*key, *after))
    };
    effects.iter().filter_map(timer).collect()
}

fn results(effects: &Effects) -> Vec<(StageId, Result<(), StageFailure>)> {
    let result = |effect: &SchedulerEffect| {
        let SchedulerEffect::StageEnded { stage, result, .. } = effect else { return None };
        Some((*stage, result.clone()))
    };
    effects.iter().filter_map(result).collect()
}

fn events(effects: &Effects) -> Vec<RuntimeEvent> {
    let event = |effect: &SchedulerEffect| {
        let SchedulerEffect::Emit(event) = effect else { return None };
        Some(event.clone())
    };
    effects.iter().filter_map(event).collect()
}

/// For tests that are not about events.
fn without_events(effects: Effects) -> Effects {
    effects.into_iter().filter(|it| !matches!(it, SchedulerEffect::Emit(_))).collect()
}

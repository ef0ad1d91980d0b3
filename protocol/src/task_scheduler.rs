//! Admission, slots, gangs, attempts and retries.

mod admission;
mod failure;
mod kill;
mod slot_ledger;
mod stage;
mod status;
mod wait_queue;

use crate::resources::Held;
use crate::{
    ExecutorId, ExecutorResources, FetchFailed, Incarnation, KillId, KillTask, LaunchTasks,
    OpenBarrier, PartitionId, RuntimeEvent, SchedulerTimer, StageAttemptId, StageCompleted,
    StageFailure, StageId, SubmitStage, TaskAttemptId, TaskReport, TaskResources,
};
use slot_ledger::SlotLedger;
use stage::Stage;
pub use status::{ExecutorStatus, StagePhase, StageStatus, TaskStatus};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wait_queue::WaitQueue;

/// Decides which tasks run where and what follows from their ends.
///
/// A gang is placed all or nothing inside one call of [`TaskScheduler::handle`], so two gangs never
/// hold part of what the other needs. A slot comes back only with its task's own report or with
/// the loss of its executor, so a task that does not heed its kill is waited for, visibly.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskScheduler {
    config: SchedulerConfig,
    ledger: SlotLedger,
    stages: BTreeMap<StageId, Stage>,
    queue: WaitQueue,
    tasks: BTreeMap<TaskAttemptId, RunningTask>,
    /// Put in line in this step; empty between steps.
    fresh: Vec<StageId>,
    next_task_attempt: u64,
    /// Deferrals of stages of jobs, which may come again under the same id.
    deferrals_of_jobs: u32,
    shutting_down: bool,
}

/// The limits of a scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SchedulerConfig {
    /// Pause between two checks whether a deferred stage fits.
    pub slot_check_interval: Duration,
    /// Checks after the first that may fail before the stage does.
    pub slot_check_max_failures: u32,
    /// A waiting gang older than this reserves slots as they come free.
    pub reserve_after: Duration,
    /// A killed task that still runs after this is named in log and status.
    pub kill_grace: Duration,
    /// The executor of a killed task that still runs after this is given up; `None`: never.
    pub zombie_deadline: Option<Duration>,
    /// Stages that may be in the scheduler at once, waiting or running.
    pub queue_max: usize,
    /// Executors come and go by policy, so that no gang can count on them: barrier stages are
    /// refused.
    pub dynamic_allocation: bool,
}

/// A task that holds a slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RunningTask {
    attempt: StageAttemptId,
    partition: PartitionId,
    executor: ExecutorId,
    held: Held,
    /// By which kill, if it was.
    killed: Option<KillId>,
    /// Killed, and named as one that does not heed it.
    overdue: bool,
}

/// Slots kept for the first gang in line that is older than `reserve_after`: those that are free
/// now, and where the rest will be taken.
struct Reservation {
    resources: TaskResources,
    /// Tasks of the gang by executor.
    plan: BTreeMap<ExecutorId, u32>,
}

/// An executor offers its slots. Sent by whoever starts executors; no reply. Ignored if this or a
/// later life of the executor is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExecutorJoined {
    /// Which.
    pub executor: ExecutorId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Where its tasks can be found, for their peers.
    pub address: Arc<str>,
    /// What it has.
    pub resources: ExecutorResources,
}

/// What can happen to the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SchedulerEvent {
    /// Slots arrive.
    ExecutorJoined(ExecutorJoined),
    /// Slots go, with the tasks on them.
    ExecutorLost {
        /// Which.
        executor: ExecutorId,
        /// Which life of it.
        incarnation: Incarnation,
        /// Why.
        reason: String,
    },
    /// A stage is handed in. Ignored if its id is known, unless it is one of a job that has ended
    /// and whose killed tasks are still ending.
    SubmitStage(SubmitStage),
    /// The input of a stage of a job is ready. Ignored if the stage does not wait for it.
    InputReady(StageId),
    /// A stage shall end. Ignored if it has.
    CancelStage {
        /// Which.
        stage: StageId,
        /// Why.
        reason: String,
    },
    /// One running task shall end, which fails its gang. Ignored if it does not run.
    KillPartition {
        /// Its stage.
        stage: StageId,
        /// Its partition.
        partition: PartitionId,
        /// Why.
        reason: String,
    },
    /// A task has ended.
    TaskReport(TaskReport),
    /// The barrier coordinator of a running attempt is gone.
    BarrierLost {
        /// Which attempt.
        attempt: StageAttemptId,
        /// What is known of it.
        reason: String,
    },
    /// A timer fired, perhaps late.
    TimerFired(SchedulerTimer),
    /// End everything, take nothing new.
    Shutdown,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SchedulerEffect {
    /// Tell the coordinator that the attempt's tasks are about to be launched.
    OpenBarrier(OpenBarrier),
    /// Have an executor run tasks.
    LaunchTasks {
        /// Which executor.
        executor: ExecutorId,
        /// The message.
        launch: LaunchTasks,
    },
    /// Have an executor end tasks.
    KillTask {
        /// Which executor.
        executor: ExecutorId,
        /// The message.
        kill: KillTask,
    },
    /// Tell the coordinator that an attempt has ended.
    StageCompleted(StageCompleted),
    /// Keep the value or error that came with the report just handled.
    KeepPayload {
        /// The stage it belongs to.
        stage: StageId,
        /// The partition it belongs to.
        partition: PartitionId,
        /// The task it came from.
        task_attempt: TaskAttemptId,
    },
    /// Drop the values kept for the stage: its attempt failed.
    DiscardPayloads(StageId),
    /// Tell the planner of the stage's job that it fits and waits for its input.
    AwaitsInput(StageId),
    /// Tell the planner of the stage's job that a task has not found its input. The stage waits
    /// until that is ready again.
    InputLost {
        /// Which stage.
        stage: StageId,
        /// What was not found.
        failed: FetchFailed,
    },
    /// Tell whoever submitted the stage.
    StageEnded {
        /// Which.
        stage: StageId,
        /// The number that its next attempt would have.
        next_attempt: u32,
        /// Whether it succeeded.
        result: Result<(), StageFailure>,
    },
    /// Give up an executor that does not end its killed tasks. It is already forgotten here.
    RetireExecutor {
        /// Which.
        executor: ExecutorId,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// Start a timer. None is ever stopped: a key names what it is for, and one that fires too late
    /// changes nothing.
    SetTimer {
        /// Its name.
        key: SchedulerTimer,
        /// When it fires.
        after: Duration,
    },
    /// Tell those who watch.
    Emit(RuntimeEvent),
    /// The shutdown is complete: no task runs any more. Said once for every `Shutdown`.
    Drained,
}

impl TaskScheduler {
    /// A scheduler without executors.
    pub fn new(config: SchedulerConfig) -> Self {
        TaskScheduler {
            config,
            ledger: SlotLedger::default(),
            stages: BTreeMap::new(),
            queue: WaitQueue::default(),
            tasks: BTreeMap::new(),
            fresh: Vec::new(),
            next_task_attempt: 0,
            deferrals_of_jobs: 0,
            shutting_down: false,
        }
    }

    /// Takes one event and appends what is to be done.
    pub fn handle(&mut self, event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>) {
        let was_drained = self.is_drained() && event != SchedulerEvent::Shutdown;
        match event {
            SchedulerEvent::ExecutorJoined(joined) => self.executor_joined(joined, effects),
            SchedulerEvent::ExecutorLost { executor, incarnation, reason } => {
                self.life_is_over(executor, incarnation, &reason, effects);
                self.defer_what_no_longer_fits(effects);
            }
            SchedulerEvent::SubmitStage(submit) => self.submit(submit, effects),
            SchedulerEvent::InputReady(stage) => self.input_ready(stage, effects),
            SchedulerEvent::CancelStage { stage, reason } => {
                self.end_stage(stage, StageFailure::Cancelled { reason }, effects);
            }
            SchedulerEvent::KillPartition { stage, partition, reason } => {
                self.kill_partition(stage, partition, &reason, effects);
            }
            SchedulerEvent::TaskReport(report) => self.task_report(report, effects),
            SchedulerEvent::BarrierLost { attempt, reason } => {
                self.barrier_lost(attempt, reason, effects);
            }
            SchedulerEvent::TimerFired(key) => self.timer_fired(key, effects),
            SchedulerEvent::Shutdown => self.shutdown(effects),
        }
        self.defer_what_does_not_fit(effects);
        self.hold_what_has_no_input(effects);
        self.schedule(effects);
        self.announce_those_that_wait(effects);
        if self.is_drained() && !was_drained {
            effects.push(SchedulerEffect::Drained);
        }
    }

    fn timer_fired(&mut self, key: SchedulerTimer, effects: &mut Vec<SchedulerEffect>) {
        match key {
            SchedulerTimer::SlotCheck { stage, deferral, check } => {
                self.slot_check(stage, deferral, check, effects);
            }
            SchedulerTimer::Reserve(attempt) => self.gang_aged(attempt),
            SchedulerTimer::Retry(attempt) => self.retry(attempt),
            SchedulerTimer::KillOverdue(kill) => self.kill_overdue(kill, effects),
            SchedulerTimer::ZombieDeadline(kill) => self.zombie_deadline(kill, effects),
        }
    }

    fn shutdown(&mut self, effects: &mut Vec<SchedulerEffect>) {
        if self.shutting_down {
            return;
        }
        self.shutting_down = true;
        let stages: Vec<StageId> = self.stages.keys().copied().collect();
        for stage in stages {
            self.end_stage(stage, StageFailure::Shutdown, effects);
        }
    }

    fn is_drained(&self) -> bool {
        self.shutting_down && self.tasks.is_empty()
    }
}

#[cfg(test)]
mod tests;

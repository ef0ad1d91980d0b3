//! Goes from one thing that is due to the next.

use super::agenda::{Agenda, Turn};
use super::network::{Life, ToDriver, ToExecutor, Traffic};
use super::plan::{Fault, Plan, PlanError, Planned};
use super::simulated_executor::SimulatedExecutor;
use super::simulated_task::SimulatedTask;
use super::{EventLog, FaultKind, Observation};
use crate::protocol::{
    BarrierCoordinator, CallId, ContextBarrierState, ReplyToken, TaskScheduler, TimerKey,
};
use crate::{
    EventRecord, ExecutorId, Incarnation, PartitionId, RuntimeEvent, StageAttemptId, StageId,
    StageStatus, TaskAttemptId,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A running simulation.
///
/// Every [`step`](Simulator::step) is one thing that happens: a message arrives, a timer fires, a
/// task goes on, a fault strikes. [`observed`](Simulator::observed) shows what came of it.
pub struct Simulator {
    pub(super) plan: Plan,
    pub(super) agenda: Agenda<Due>,
    pub(super) rng: ChaCha8Rng,
    pub(super) traffic: Traffic,
    /// The highest number of a message that has arrived, by executor.
    pub(super) arrived: BTreeMap<ExecutorId, u64>,
    pub(super) scheduler: TaskScheduler,
    pub(super) coordinator: BarrierCoordinator,
    pub(super) barriers: BTreeMap<StageAttemptId, ContextBarrierState>,
    /// Requests that have not been answered.
    pub(super) waiting: BTreeMap<ReplyToken, Waiting>,
    pub(super) next_token: u64,
    pub(super) armed: BTreeMap<TimerKey, Turn>,
    pub(super) driver_busy_until: Duration,
    /// The life of each executor that the scheduler speaks to.
    pub(super) known: BTreeMap<ExecutorId, Incarnation>,
    pub(super) executors: BTreeMap<Life, SimulatedExecutor>,
    pub(super) tasks: BTreeMap<TaskAttemptId, SimulatedTask>,
    /// How many tasks of an attempt run.
    pub(super) running: BTreeMap<StageAttemptId, u32>,
    /// Launches of the tasks of plain stages.
    pub(super) launches: BTreeMap<(StageId, PartitionId), u32>,
    pub(super) observed: Vec<Observation>,
    pub(super) log: Vec<EventRecord>,
}

/// For whom the answer to a request is.
pub(super) struct Waiting {
    pub(super) life: Life,
    pub(super) attempt: StageAttemptId,
    pub(super) epoch: crate::Epoch,
    pub(super) tasks: Arc<[TaskAttemptId]>,
}

/// What happens next somewhere. The numbers of messages are in the order of sending.
#[derive(Debug)]
pub(super) enum Due {
    Planned(usize),
    ToDriver {
        from: Life,
        message: ToDriver,
        number: u64,
    },
    ToExecutor {
        to: Life,
        message: ToExecutor,
        number: u64,
    },
    Timer {
        key: TimerKey,
        is_late: bool,
    },
    Noticed {
        life: Life,
        reason: String,
    },
    /// What has gathered is sent.
    Flush(Life, StageAttemptId),
    Wakes {
        task: TaskAttemptId,
        wake: u64,
    },
    GivesUp {
        task: TaskAttemptId,
        call: CallId,
    },
    EndsKilled(TaskAttemptId),
    /// An executor that was cut off notices it.
    Fenced {
        life: Life,
        back_after: Option<Duration>,
    },
    Returns(Life),
}

/// What had not ended when a simulation did.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// When the simulation ended.
    pub at: Duration,
    /// The stages, with what they do or wait for.
    pub stages: Vec<StageStatus>,
    /// All events until then.
    pub log: EventLog,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = humantime::format_duration(self.at);
        write!(f, "after {at}, {} stages have not ended:", self.stages.len())?;
        for StageStatus { attempt, name, phase, .. } in &self.stages {
            write!(f, " {attempt} '{name}' is {phase};")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unfinished {}

impl Simulator {
    /// A simulation at its beginning.
    ///
    /// # Errors
    /// If the plan cannot be run.
    pub fn new(plan: &Plan) -> Result<Self, PlanError> {
        plan.check()?;
        let mut simulator = Simulator {
            plan: plan.clone(),
            agenda: Agenda::new(),
            rng: ChaCha8Rng::seed_from_u64(plan.seed),
            traffic: Traffic::new(plan.network),
            arrived: BTreeMap::new(),
            scheduler: TaskScheduler::new(plan.config.scheduler()),
            coordinator: BarrierCoordinator::new(),
            barriers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_token: 0,
            armed: BTreeMap::new(),
            driver_busy_until: Duration::ZERO,
            known: BTreeMap::new(),
            executors: BTreeMap::new(),
            tasks: BTreeMap::new(),
            running: BTreeMap::new(),
            launches: BTreeMap::new(),
            observed: Vec::new(),
            log: Vec::new(),
        };
        for (index, (at, planned)) in plan.planned.iter().enumerate() {
            let at = match planned {
                Planned::Submit(stage) => plan.stages.get(stage).map_or(*at, |stage| stage.at),
                Planned::Joins { .. }
                | Planned::Cancel { .. }
                | Planned::KillTask { .. }
                | Planned::Shutdown
                | Planned::Fault(_) => *at,
            };
            simulator.agenda.add_at(at, Due::Planned(index));
        }
        Ok(simulator)
    }

    /// Does the next thing. `false` if there is none, or it is beyond the plan's limit.
    pub fn step(&mut self) -> bool {
        self.observed.clear();
        if self.agenda.due().is_none_or(|due| due > self.plan.limit) {
            return false;
        }
        if let Some((turn, due)) = self.agenda.next() {
            match self.held_up(&due) {
                Some(until) => self.put_off(turn, until, due),
                None => self.happens(due),
            }
        }
        true
    }

    /// Virtual time since the beginning.
    pub fn now(&self) -> Duration {
        self.agenda.now()
    }

    /// What happened in the last step.
    pub fn observed(&self) -> &[Observation] {
        &self.observed
    }

    /// The scheduler, to be asked.
    pub fn scheduler(&self) -> &TaskScheduler {
        &self.scheduler
    }

    /// The coordinator, to be asked.
    pub fn coordinator(&self) -> &BarrierCoordinator {
        &self.coordinator
    }

    /// The events so far.
    pub fn events(&self) -> &[EventRecord] {
        &self.log
    }

    /// All events, if everything has ended.
    ///
    /// # Errors
    /// Says what has not, and has the events, too.
    pub fn finish(self) -> Result<EventLog, Unfinished> {
        let at = self.now();
        let stages: Vec<StageStatus> = self.scheduler.stages().collect();
        let log = EventLog::from(self.log);
        if stages.is_empty() { Ok(log) } else { Err(Unfinished { at, stages, log }) }
    }

    /// Until when the one whom this concerns does nothing.
    fn held_up(&self, due: &Due) -> Option<Duration> {
        let until = match due {
            Due::ToDriver { .. } | Due::Timer { .. } | Due::Noticed { .. } => {
                self.driver_busy_until
            }
            Due::Planned(index) => match &self.plan.planned[*index].1 {
                Planned::Submit(_)
                | Planned::Cancel { .. }
                | Planned::KillTask { .. }
                | Planned::Shutdown => self.driver_busy_until,
                Planned::Joins { .. } | Planned::Fault(_) => Duration::ZERO,
            },
            Due::ToExecutor { to: life, .. } | Due::Flush(life, _) => self.paused_until(*life),
            Due::Wakes { task, .. } | Due::GivesUp { task, .. } | Due::EndsKilled(task) => {
                self.tasks.get(task).map_or(Duration::ZERO, |task| self.paused_until(task.life))
            }
            Due::Fenced { .. } | Due::Returns(_) => Duration::ZERO,
        };
        (until > self.now()).then_some(until)
    }

    fn put_off(&mut self, turn: Turn, until: Duration, due: Due) {
        match &due {
            Due::Timer { .. } | Due::ToDriver { .. } | Due::Planned(_) | Due::Noticed { .. } => {
                self.observe(Observation::Fault(FaultKind::DriverOverloaded));
            }
            Due::ToExecutor { .. }
            | Due::Flush(..)
            | Due::Wakes { .. }
            | Due::GivesUp { .. }
            | Due::EndsKilled(_)
            | Due::Fenced { .. }
            | Due::Returns(_) => {}
        }
        let timer = match &due {
            Due::Timer { key, is_late: false } => Some(*key),
            _ => None,
        };
        let turn = self.agenda.put_off(turn, until, due);
        if let Some(key) = timer {
            self.armed.insert(key, turn);
        }
    }

    fn happens(&mut self, due: Due) {
        match due {
            Due::Planned(index) => self.planned(index),
            Due::ToDriver { from, message, number } => {
                self.note_order(from, number);
                self.driver_receives(from, message);
            }
            Due::ToExecutor { to, message, number } => {
                self.note_order(to, number);
                self.executor_receives(to, message);
            }
            Due::Timer { key, is_late } => self.timer_fires(key, is_late),
            Due::Noticed { life, reason } => self.executor_is_lost(life, reason),
            Due::Flush(life, attempt) => self.flush(life, attempt),
            Due::Wakes { task, wake } => {
                if self.tasks.get(&task).is_some_and(|it| it.wake == wake) {
                    self.go_on(task);
                }
            }
            Due::GivesUp { task, call } => self.give_up_call(task, call),
            Due::EndsKilled(task) => self.end_killed(task),
            Due::Fenced { life, back_after } => self.fenced(life, back_after),
            Due::Returns(life) => self.returns(life),
        }
    }

    fn planned(&mut self, index: usize) {
        match self.plan.planned[index].1.clone() {
            Planned::Submit(stage) => self.submit(stage),
            Planned::Joins { executor, incarnation, resources } => {
                self.executor_begins((executor, incarnation), resources);
            }
            Planned::Cancel { stage, reason } => self.cancel(stage, reason),
            Planned::KillTask { stage, partition, reason } => {
                self.kill_partition(stage, partition, reason);
            }
            Planned::Shutdown => self.shut_down(),
            Planned::Fault(fault) => self.strike(fault),
        }
    }

    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::ExecutorCrashes { executor, reason, noticed_after, back_after } => {
                self.crash(executor, reason, noticed_after, back_after);
            }
            Fault::ExecutorCutOff { executor, noticed_after, back_after } => {
                self.cut_off(executor, noticed_after, back_after);
            }
            Fault::ExecutorPauses { executor, lasts } => self.pause(executor, lasts),
            Fault::DriverOverloaded { lasts } => {
                let until = self.now().saturating_add(lasts);
                self.driver_busy_until = self.driver_busy_until.max(until);
            }
            Fault::BarrierDies { stage } => self.barrier_dies(stage),
        }
    }

    /// A message that overtook another has been reordered.
    fn note_order(&mut self, (executor, _): (ExecutorId, Incarnation), number: u64) {
        let latest = self.arrived.entry(executor).or_insert(0);
        if number < *latest {
            self.observe(Observation::Fault(FaultKind::MessageReordered));
        } else {
            *latest = number;
        }
    }

    pub(super) fn observe(&mut self, observation: Observation) {
        self.observed.push(observation);
    }

    pub(super) fn emit(&mut self, event: RuntimeEvent) {
        let since_start = self.now();
        // Beyond what the system's clock can say, all is one time.
        let at = SystemTime::UNIX_EPOCH.checked_add(since_start).unwrap_or(SystemTime::UNIX_EPOCH);
        self.log.push(EventRecord { at, since_start, event });
    }
}

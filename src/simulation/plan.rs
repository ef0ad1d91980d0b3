//! What shall happen.

use super::simulator::{Simulator, Unfinished};
use super::{EventLog, TaskScript};
use crate::protocol::StageSpec;
use crate::{
    Config, ConfigError, ExecutorId, ExecutorResources, Incarnation, PartitionId, Stage, StageId,
    Tasks,
};
use std::collections::BTreeMap;
use std::time::Duration;
use thiserror::Error;

/// What a simulation starts from: executors, stages, faults, and the network between them.
///
/// Changed in place and run as often as one likes; a clone is another "what if".
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The limits of the scheduler, and the defaults of the stages handed in after a change.
    pub config: Config,
    /// How messages travel. Default: at once, each one exactly once.
    pub network: Network,
    /// Chooses among what the network may do; the same seed, the same run.
    pub seed: u64,
    /// How long it takes an executor that was given up (see `kill.zombie_deadline`) to come back;
    /// `None`: it does not. Default: no time.
    pub given_up_returns_after: Option<Duration>,
    /// The simulation ends here, whatever still runs. Default: ten years.
    pub limit: Duration,
    pub(super) stages: BTreeMap<StageId, PlannedStage>,
    /// In order; what has the same time keeps it.
    pub(super) planned: Vec<(Duration, Planned)>,
    executors: u64,
}

/// How messages between the driver and its executors travel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    /// The shortest and the longest delay of a message, at most a day. Messages of one kind between
    /// the driver and one executor keep their order; others overtake each other.
    pub delay: (Duration, Duration),
    /// The share of messages that come a second time, perhaps much later; from 0 to 1. Only those
    /// that may: launches of tasks, withdrawals and answers are sent once.
    pub duplicates: f64,
    /// The share of timers that fire although they were cancelled, or fire again; from 0 to 1.
    pub late_timers: f64,
}

impl Default for Network {
    fn default() -> Self {
        Network { delay: (Duration::ZERO, Duration::ZERO), duplicates: 0.0, late_timers: 0.0 }
    }
}

/// A stage of a plan; see [`Plan::stage_mut`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStage {
    /// When it is handed in.
    pub at: Duration,
    /// What it asks for.
    pub spec: StageSpec,
    /// What its tasks do.
    pub script: TaskScript,
    /// What tasks of single partitions do instead.
    pub partitions: BTreeMap<PartitionId, TaskScript>,
    /// What they do instead in single tries, counted from 0: a gang's attempts, a plain task's
    /// launches.
    pub tries: BTreeMap<(PartitionId, u32), TaskScript>,
}

impl PlannedStage {
    pub(super) fn script_of(&self, partition: PartitionId, tried: u32) -> TaskScript {
        let exception = self.tries.get(&(partition, tried));
        let script = exception.or_else(|| self.partitions.get(&partition));
        script.unwrap_or(&self.script).clone()
    }
}

/// Something that goes wrong at a planned time. Without effect if there is nobody to suffer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An executor ends with all that runs on it.
    ExecutorCrashes {
        /// Which.
        executor: ExecutorId,
        /// What is known of it then.
        reason: String,
        /// Until the driver knows.
        noticed_after: Duration,
        /// Until it comes back as a new incarnation; `None`: never.
        back_after: Option<Duration>,
    },
    /// The connection to an executor breaks. Its tasks run on until it notices that, too.
    ExecutorCutOff {
        /// Which.
        executor: ExecutorId,
        /// Until both sides know.
        noticed_after: Duration,
        /// From then until it comes back as a new incarnation; `None`: never.
        back_after: Option<Duration>,
    },
    /// An executor and its tasks stand still, and then go on.
    ExecutorPauses {
        /// Which.
        executor: ExecutorId,
        /// How long.
        lasts: Duration,
    },
    /// The driver takes no message, and then all that have come.
    DriverOverloaded {
        /// How long.
        lasts: Duration,
    },
    /// The barrier of a stage's running attempt dies.
    BarrierDies {
        /// Whose.
        stage: StageId,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Planned {
    Submit(StageId),
    Joins { executor: ExecutorId, incarnation: Incarnation, resources: ExecutorResources },
    Cancel { stage: StageId, reason: String },
    KillTask { stage: StageId, partition: PartitionId, reason: String },
    Shutdown,
    Fault(Fault),
}

/// A plan that cannot be run, or not to its end.
#[derive(Debug, Error)]
pub enum PlanError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A stage would not be taken.
    #[error("{0}")]
    Stage(String),
    /// A share is not a share, or the shortest delay is longer than the longest.
    #[error("network: {0}")]
    Network(String),
    /// Something is still running or waiting at the end.
    #[error(transparent)]
    Unfinished(Box<Unfinished>),
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Of a message; a copy may come ten times as late.
const LONGEST_DELAY: Duration = DAY;

impl Plan {
    /// A plan without executors and stages.
    pub fn new(config: Config) -> Self {
        Plan {
            config,
            network: Network::default(),
            seed: 0,
            given_up_returns_after: Some(Duration::ZERO),
            limit: 3650 * DAY,
            stages: BTreeMap::new(),
            planned: Vec::new(),
            executors: 0,
        }
    }

    /// Adds an executor that is there from the start. They are numbered from 0.
    pub fn executor(&mut self, resources: ExecutorResources) -> ExecutorId {
        self.executor_joins(Duration::ZERO, resources)
    }

    /// Adds an executor that comes later.
    pub fn executor_joins(&mut self, at: Duration, resources: ExecutorResources) -> ExecutorId {
        let executor = ExecutorId(self.executors);
        self.add_life(at, executor, Incarnation(0), resources);
        executor
    }

    pub(super) fn add_life(
        &mut self,
        at: Duration,
        executor: ExecutorId,
        incarnation: Incarnation,
        resources: ExecutorResources,
    ) {
        self.executors = self.executors.max(executor.0 + 1);
        self.add(at, Planned::Joins { executor, incarnation, resources });
    }

    /// Puts these executors in place of all others; what was to befall those is left out.
    pub fn replace_executors(&mut self, all: impl IntoIterator<Item = ExecutorResources>) {
        self.planned.retain(|(_, planned)| match planned {
            Planned::Joins { .. } => false,
            Planned::Fault(fault) => match fault {
                Fault::ExecutorCrashes { .. }
                | Fault::ExecutorCutOff { .. }
                | Fault::ExecutorPauses { .. } => false,
                Fault::DriverOverloaded { .. } | Fault::BarrierDies { .. } => true,
            },
            Planned::Submit(_)
            | Planned::Cancel { .. }
            | Planned::KillTask { .. }
            | Planned::Shutdown => true,
        });
        self.executors = 0;
        let planned = std::mem::take(&mut self.planned);
        for resources in all {
            self.executor(resources);
        }
        self.planned.extend(planned);
    }

    /// Has a stage handed in; all of its tasks follow the script. See [`Plan::stage_mut`] for
    /// others.
    ///
    /// # Errors
    /// If a runtime would refuse the stage.
    pub fn submit(
        &mut self,
        at: Duration,
        stage: Stage<Tasks>,
        script: TaskScript,
    ) -> Result<StageId, PlanError> {
        let spec = stage.spec(&self.config).map_err(PlanError::Stage)?;
        spec.validate().map_err(|invalid| PlanError::Stage(invalid.to_string()))?;
        let next = self.stages.last_key_value().map_or(0, |(last, _)| last.0 + 1);
        self.add_stage(StageId(next), at, spec, script);
        Ok(StageId(next))
    }

    pub(super) fn add_stage(
        &mut self,
        id: StageId,
        at: Duration,
        spec: StageSpec,
        script: TaskScript,
    ) {
        let (partitions, tries) = (BTreeMap::new(), BTreeMap::new());
        self.stages.insert(id, PlannedStage { at, spec, script, partitions, tries });
        self.add(at, Planned::Submit(id));
    }

    /// A stage of the plan, to be changed.
    pub fn stage_mut(&mut self, stage: StageId) -> Option<&mut PlannedStage> {
        self.stages.get_mut(&stage)
    }

    /// All stages of the plan, to be changed.
    pub fn stages_mut(&mut self) -> impl Iterator<Item = (StageId, &mut PlannedStage)> {
        self.stages.iter_mut().map(|(id, stage)| (*id, stage))
    }

    /// Has a stage cancelled.
    pub fn cancel(&mut self, at: Duration, stage: StageId, reason: impl Into<String>) {
        self.add(at, Planned::Cancel { stage, reason: reason.into() });
    }

    /// Has the running task of a partition killed, which fails its gang.
    pub fn kill_task(
        &mut self,
        at: Duration,
        stage: StageId,
        partition: PartitionId,
        reason: impl Into<String>,
    ) {
        self.add(at, Planned::KillTask { stage, partition, reason: reason.into() });
    }

    /// Has everything ended; stages that come later are refused.
    pub fn shutdown(&mut self, at: Duration) {
        self.add(at, Planned::Shutdown);
    }

    /// Has something go wrong.
    pub fn fault(&mut self, at: Duration, fault: Fault) {
        self.add(at, Planned::Fault(fault));
    }

    fn add(&mut self, at: Duration, planned: Planned) {
        self.planned.push((at, planned));
    }

    /// Plays the plan to its end.
    ///
    /// # Errors
    /// If it cannot be run, or something never ends: [`PlanError::Unfinished`] says what, and has
    /// the events.
    pub fn run(&self) -> Result<EventLog, PlanError> {
        let mut simulator = Simulator::new(self)?;
        while simulator.step() {}
        simulator.finish().map_err(|unfinished| PlanError::Unfinished(Box::new(unfinished)))
    }

    pub(super) fn check(&self) -> Result<(), PlanError> {
        self.config.validate()?;
        let Network { delay: (shortest, longest), duplicates, late_timers } = self.network;
        if shortest > longest {
            let wrong = format!("delay {shortest:?} to {longest:?}: the first must be the shorter");
            return Err(PlanError::Network(wrong));
        }
        if longest > LONGEST_DELAY {
            let wrong = format!("delay up to {longest:?}: allowed is at most {LONGEST_DELAY:?}");
            return Err(PlanError::Network(wrong));
        }
        for (name, share) in [("duplicates", duplicates), ("late_timers", late_timers)] {
            if !(0.0..=1.0).contains(&share) {
                let wrong = format!("{name} is {share}, allowed is from 0 to 1");
                return Err(PlanError::Network(wrong));
            }
        }
        for stage in self.stages.values() {
            if stage.at > self.limit {
                let (name, at, limit) = (&stage.spec.name, stage.at, self.limit);
                let wrong =
                    format!("stage '{name}': handed in at {at:?}, the plan's limit is {limit:?}");
                return Err(PlanError::Stage(wrong));
            }
            stage.spec.validate().map_err(|invalid| PlanError::Stage(invalid.to_string()))?;
        }
        Ok(())
    }
}

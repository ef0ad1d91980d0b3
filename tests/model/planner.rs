//! Jobs and the stages they need, as a model: the planner and the scheduler that ship, the two
//! ordered channels between them, which race, and a world that plays tasks, executors and users and
//! keeps what map stages have made. Each `next_state` is one event of one of the two machines.

mod broken;
mod checks;
mod dags;
mod effects;
mod properties;
mod refutations;
mod steps;
mod store;

use dags::SubmittedJob;
use phalanx::protocol::{
    ExecutorLife, FetchFailed, PartitionId, Planner, PlannerEffect, PlannerEvent, SchedulerConfig,
    SchedulerEvent, SchedulerTimer, StageAttemptId, StageId, TaskAttemptId, TaskScheduler,
};
use stateright::{Model, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;
use store::Store;

/// The shipped planner, or a broken one that the model shall refute.
pub trait Planning: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static {
    fn new() -> Self;
    fn handle(&mut self, event: PlannerEvent, effects: &mut Vec<PlannerEffect>);
    /// To look at, not to feed.
    fn shipped(&self) -> &Planner;
}

impl Planning for Planner {
    fn new() -> Self {
        Planner::new()
    }

    fn handle(&mut self, event: PlannerEvent, effects: &mut Vec<PlannerEffect>) {
        self.handle(event, effects);
    }

    fn shipped(&self) -> &Planner {
        self
    }
}

/// How often what may go wrong does so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Executors are lost, with the outputs they hold.
    pub losses: u8,
    /// Executors join, for the first time or again.
    pub joins: u8,
    /// Jobs are cancelled.
    pub cancels: u8,
    /// Tasks do not find input that the planner believes to be there.
    pub fetches: u8,
    /// Tasks fail on their own.
    pub errors: u8,
    pub shutdowns: u8,
}

#[derive(Clone, Debug)]
pub struct Config<P> {
    pub jobs: Vec<SubmittedJob>,
    /// Cpus of every executor.
    pub executors: Vec<u32>,
    /// How many of them are there at the start.
    pub present: usize,
    pub limits: SchedulerConfig,
    /// Whether datasets may be dropped while jobs on them run, or else when all have ended.
    pub drops_early: bool,
    /// Whether killed tasks may succeed all the same.
    pub late_successes: bool,
    pub budget: Budget,
    /// What comes about; nothing else ever does.
    pub reached: &'static [Reached],
    pub planner: PhantomData<P>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    Succeeded,
    Cancelled,
    Refused,
    Shutdown,
    /// A stage was given up after too many failures.
    Exhausted,
    /// Slots were too few for too long.
    NotEnoughSlots,
    /// Outputs that were lost were made again.
    MadeAgain,
    /// Tasks of a map stage run again while its outputs of partitions not lost are there.
    MadeInPart,
    /// A stage that was cancelled is wanted by another job while its tasks still end.
    Followed,
    /// A task of a running stage has not found its input, and what it means was made again since.
    Stale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    EndedAgain,
    StartedEarly,
    PartOfGang,
    MixedGang,
    NoCode,
    DroppedInVain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    Succeeded,
    Cancelled,
    Refused,
    Shutdown,
    Exhausted,
    NotEnoughSlots,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Executor {
    /// How many there were so far.
    pub lives: u32,
    /// The last of them.
    pub is_here: bool,
}

/// A task of whose end the scheduler has not been told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    pub attempt: StageAttemptId,
    pub partition: PartitionId,
    pub on: ExecutorLife,
    pub killed: bool,
    /// It has ended; the report is on its way.
    pub not_found: Option<FetchFailed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State<P> {
    pub planner: P,
    pub scheduler: TaskScheduler,
    pub to_planner: VecDeque<PlannerEvent>,
    pub to_scheduler: VecDeque<SchedulerEvent>,
    /// Of the jobs submitted, how they ended.
    pub jobs: Vec<Option<Ended>>,
    /// Map stages whose dataset is gone.
    pub dropped: BTreeSet<StageId>,
    pub executors: Vec<Executor>,
    pub tasks: BTreeMap<TaskAttemptId, Task>,
    /// Slot checks that may fire, at any time.
    pub timers: BTreeSet<SchedulerTimer>,
    /// Where the tasks ran whose values the scheduler's shell keeps.
    pub kept: BTreeMap<StageId, BTreeMap<PartitionId, ExecutorLife>>,
    /// Stages that the scheduler was told to start, and whose input has not been missing since.
    pub started: BTreeSet<StageId>,
    pub store: Store,
    /// Stages whose code the planner's shell has.
    pub code: BTreeSet<StageId>,
    pub budget: Budget,
    pub faults: BTreeSet<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Submit,
    Cancel {
        job: usize,
    },
    Drop(StageId),
    /// The first in line arrives.
    ToPlanner,
    ToScheduler,
    Join {
        executor: usize,
    },
    Lose {
        executor: usize,
    },
    Succeed(TaskAttemptId),
    /// The task heeds its kill.
    HeedKill(TaskAttemptId),
    Fail(TaskAttemptId),
    /// The task ends because this is not there; its report is on its way.
    NotFound {
        task: TaskAttemptId,
        failed: FetchFailed,
    },
    ReportNotFound(TaskAttemptId),
    Fire(SchedulerTimer),
    Shutdown,
}

impl Action {
    /// Whether it comes about if nothing goes wrong and nobody wants anything.
    fn is_bound_to_happen(self) -> bool {
        match self {
            Action::Cancel { .. }
            | Action::Join { .. }
            | Action::Lose { .. }
            | Action::Fail(_)
            | Action::Shutdown => false,
            Action::Submit
            | Action::Drop(_)
            | Action::ToPlanner
            | Action::ToScheduler
            | Action::Succeed(_)
            | Action::HeedKill(_)
            | Action::NotFound { .. }
            | Action::ReportNotFound(_)
            | Action::Fire(_) => true,
        }
    }
}

impl<P: Planning> Model for Config<P> {
    type State = State<P>;
    type Action = Action;

    fn init_states(&self) -> Vec<State<P>> {
        let mut state = State {
            planner: P::new(),
            scheduler: TaskScheduler::new(self.limits.clone()),
            to_planner: VecDeque::new(),
            to_scheduler: VecDeque::new(),
            jobs: Vec::new(),
            dropped: BTreeSet::new(),
            executors: vec![Executor { lives: 0, is_here: false }; self.executors.len()],
            tasks: BTreeMap::new(),
            timers: BTreeSet::new(),
            kept: BTreeMap::new(),
            started: BTreeSet::new(),
            store: Store::default(),
            code: BTreeSet::new(),
            budget: self.budget,
            faults: BTreeSet::new(),
        };
        (0..self.present).for_each(|executor| state.join(self, executor));
        vec![state]
    }

    fn actions(&self, state: &State<P>, actions: &mut Vec<Action>) {
        if !state.to_planner.is_empty() {
            actions.push(Action::ToPlanner);
        }
        if !state.to_scheduler.is_empty() {
            actions.push(Action::ToScheduler);
        }
        self.actions_of_users(state, actions);
        for (executor, it) in state.executors.iter().enumerate() {
            if it.is_here && state.budget.losses > 0 {
                actions.push(Action::Lose { executor });
            }
            if !it.is_here && state.budget.joins > 0 {
                actions.push(Action::Join { executor });
            }
        }
        for (&id, task) in &state.tasks {
            self.actions_of_task(state, id, task, actions);
        }
        actions.extend(state.timers.iter().copied().map(Action::Fire));
    }

    fn next_state(&self, last: &State<P>, action: Action) -> Option<State<P>> {
        let mut state = last.clone();
        state.act(self, action);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties(self)
    }
}

impl<P: Planning> Config<P> {
    fn actions_of_users(&self, state: &State<P>, actions: &mut Vec<Action>) {
        if state.jobs.len() < self.jobs.len() {
            actions.push(Action::Submit);
        }
        if state.budget.cancels > 0 {
            let open = state.jobs.iter().enumerate().filter(|(_, ended)| ended.is_none());
            actions.extend(open.map(|(job, _)| Action::Cancel { job }));
        }
        if state.budget.shutdowns > 0 {
            actions.push(Action::Shutdown);
        }
        // Who submits a job on a dataset has it.
        let all_submitted = state.jobs.len() == self.jobs.len();
        if all_submitted && (self.drops_early || state.jobs.iter().all(Option::is_some)) {
            let maps: BTreeSet<StageId> = self.jobs.iter().flat_map(SubmittedJob::maps).collect();
            actions.extend(maps.difference(&state.dropped).copied().map(Action::Drop));
        }
    }

    fn actions_of_task(
        &self,
        state: &State<P>,
        id: TaskAttemptId,
        task: &Task,
        actions: &mut Vec<Action>,
    ) {
        if task.not_found.is_some() {
            actions.push(Action::ReportNotFound(id));
            return;
        }
        if task.killed {
            actions.push(Action::HeedKill(id));
        }
        if !task.killed || self.late_successes {
            actions.push(Action::Succeed(id));
        }
        if !task.killed && state.budget.errors > 0 {
            actions.push(Action::Fail(id));
        }
        let parents = self.planned(task.attempt.stage).parents.iter();
        for &parent in parents.filter(|_| !task.killed) {
            let tasks = self.planned(parent).num_tasks;
            let missing = state.store.missing(parent, tasks, state.budget.fetches > 0);
            let not_found = |failed| Action::NotFound { task: id, failed };
            actions.extend(missing.into_iter().map(not_found));
        }
    }

    /// Whether nothing happens any more unless something goes wrong or someone wants more.
    pub fn is_over(&self, state: &State<P>) -> bool {
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        !actions.into_iter().any(Action::is_bound_to_happen)
    }
}

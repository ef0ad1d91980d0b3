//! Stages, slots and failures as a model: the scheduler that ships and, kept apart from it, a world
//! of executors and tasks that knows what really runs where. Each `next_state` is one event.

mod books;
mod broken;
mod checks;
mod effects;
mod properties;
mod refutations;
mod steps;

pub use books::{Ended, Executor, Here, Outcome, Run, Stage, Task, Wait};
use phalanx::protocol::{
    ExecutorId, PartitionId, SchedulerConfig, SchedulerEffect, SchedulerEvent, SchedulerTimer,
    StageAttemptId, StageId, StageKind, StageSpec, TaskAttemptId, TaskScheduler,
};
use stateright::{Model, Property};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

/// The shipped scheduler, or a broken one that the model shall refute.
pub trait Scheduler: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static {
    fn new(config: SchedulerConfig) -> Self;
    fn handle(&mut self, event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>);
    /// To look at, not to feed.
    fn shipped(&self) -> &TaskScheduler;
}

impl Scheduler for TaskScheduler {
    fn new(config: SchedulerConfig) -> Self {
        TaskScheduler::new(config)
    }

    fn handle(&mut self, event: SchedulerEvent, effects: &mut Vec<SchedulerEffect>) {
        self.handle(event, effects);
    }

    fn shipped(&self) -> &TaskScheduler {
        self
    }
}

/// How often what may go wrong does so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Executors die, which the scheduler hears of later.
    pub deaths: u8,
    /// Lives are lost before their joining arrives.
    pub unheard: u8,
    /// Executors join, for the first time or under a new incarnation.
    pub joins: u8,
    pub cancels: u8,
    /// Kills of one partition.
    pub kills: u8,
    /// Tasks fail on their own.
    pub errors: u8,
    /// Coordinators are lost, or said to be when their attempt is over.
    pub barriers: u8,
    /// Killed tasks never end.
    pub zombies: u8,
    /// Reports and joins come again, or from an executor that was given up.
    pub late: u8,
    pub shutdowns: u8,
}

#[derive(Clone, Debug)]
pub struct Config<S> {
    pub stages: Vec<StageSpec>,
    /// Cpus of every executor.
    pub executors: Vec<u32>,
    /// How many of them are there at the start.
    pub present: usize,
    pub limits: SchedulerConfig,
    /// Whether time passes between a task's end and its report's arrival.
    pub in_flight: bool,
    /// Whether a timer that was set fires any number of times, or else once.
    pub refires: bool,
    pub budget: Budget,
    /// What comes about; nothing else ever does.
    pub reached: &'static [Reached],
    pub scheduler: PhantomData<S>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    Succeeded,
    SucceededAfterFailure,
    NotEnoughSlots,
    QueueFull,
    Cancelled,
    Shutdown,
    AttemptsExhausted,
    InfrastructureExhausted,
    Aborted,
    TaskIgnoresKill,
    RetireExecutor,
    StageDeferred,
    StageQueued,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    PartOfGang,
    NoSuchExecutor,
    OldActed,
    LateActed,
    WrongCause,
    EndedAgain,
    StartedTooSoon,
    NotKilled,
    FalseSuccess,
    FalseRefusal,
    FalseDrain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stopped {
    No,
    Asked,
    Drained,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State<S> {
    pub scheduler: S,
    pub executors: Vec<Executor>,
    /// Dead lives of which the scheduler will hear.
    pub notices: BTreeSet<(usize, u32)>,
    /// Those submitted.
    pub stages: Vec<Stage>,
    /// All of whose end the scheduler has not been told.
    pub tasks: BTreeMap<TaskAttemptId, Task>,
    /// The others, as long as reports of them may come.
    pub past: BTreeMap<TaskAttemptId, Task>,
    /// Those that may fire, at any time.
    pub timers: BTreeSet<SchedulerTimer>,
    pub budget: Budget,
    pub stopped: Stopped,
    pub faults: BTreeSet<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Submit,
    Join {
        executor: usize,
    },
    /// The executor is gone with its tasks, and nobody has noticed.
    Die {
        executor: usize,
    },
    /// A new life has come and gone, and its joining is still on the way.
    DieUnheard {
        executor: usize,
    },
    NoticeDeath {
        executor: usize,
        incarnation: u32,
    },
    /// Its last life joins again.
    JoinLate {
        executor: usize,
    },
    Cancel {
        stage: usize,
    },
    KillPartition {
        stage: usize,
        partition: u32,
    },
    LoseBarrier {
        stage: usize,
        attempt: u32,
    },
    /// The task ends; its report is on its way, or is there at once.
    End {
        task: TaskAttemptId,
        outcome: Outcome,
    },
    Report {
        task: TaskAttemptId,
    },
    ReportLate {
        task: TaskAttemptId,
        outcome: Outcome,
    },
    /// A killed task will never end.
    Stick {
        task: TaskAttemptId,
    },
    Fire(SchedulerTimer),
    Shutdown,
}

pub fn stage_id(stage: usize) -> StageId {
    StageId(stage as u64)
}

pub fn attempt_id(stage: usize, attempt: u32) -> StageAttemptId {
    StageAttemptId { stage: stage_id(stage), attempt }
}

pub fn executor_id(executor: usize) -> ExecutorId {
    ExecutorId(executor as u64)
}

impl<S: Scheduler> Model for Config<S> {
    type State = State<S>;
    type Action = Action;

    fn init_states(&self) -> Vec<State<S>> {
        let has_deadline = self.limits.zombie_deadline.is_some();
        assert!(has_deadline || self.budget.zombies == 0, "nothing ends them");
        let mut state = State {
            scheduler: S::new(self.limits.clone()),
            executors: vec![Executor { lives: 0, here: Here::No }; self.executors.len()],
            notices: BTreeSet::new(),
            stages: Vec::new(),
            tasks: BTreeMap::new(),
            past: BTreeMap::new(),
            timers: BTreeSet::new(),
            budget: self.budget,
            stopped: Stopped::No,
            faults: BTreeSet::new(),
        };
        (0..self.present).for_each(|executor| state.join(self, executor, 0));
        vec![state]
    }

    fn actions(&self, state: &State<S>, actions: &mut Vec<Action>) {
        if state.stages.len() < self.stages.len() {
            actions.push(Action::Submit);
        }
        self.actions_of_executors(state, actions);
        self.actions_of_users(state, actions);
        for (&task, it) in &state.tasks {
            Self::actions_of_task(state.budget, task, it, actions);
        }
        if state.budget.late > 0 {
            for &task in state.past.keys() {
                let outcomes = [Outcome::Succeeded, Outcome::Error];
                actions.extend(outcomes.map(|outcome| Action::ReportLate { task, outcome }));
            }
        }
        actions.extend(state.timers.iter().copied().map(Action::Fire));
    }

    fn next_state(&self, last: &State<S>, action: Action) -> Option<State<S>> {
        let mut state = last.clone();
        state.act(self, action);
        if state.budget.late == 0 {
            // No longer needed; forgotten, so that states meet again.
            state.past.clear();
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties(self)
    }
}

impl<S: Scheduler> Config<S> {
    fn actions_of_executors(&self, state: &State<S>, actions: &mut Vec<Action>) {
        for (executor, it) in state.executors.iter().enumerate() {
            let lives = it.here == Here::Lives;
            if lives && state.budget.deaths > 0 {
                actions.push(Action::Die { executor });
            }
            if state.budget.unheard > 0 {
                actions.push(Action::DieUnheard { executor });
            }
            if !lives && state.budget.joins > 0 {
                actions.push(Action::Join { executor });
            }
            if it.lives > 0 && state.budget.late > 0 {
                actions.push(Action::JoinLate { executor });
            }
        }
        let notices = state.notices.iter();
        actions.extend(
            notices.map(|&(executor, incarnation)| Action::NoticeDeath { executor, incarnation }),
        );
    }

    fn actions_of_users(&self, state: &State<S>, actions: &mut Vec<Action>) {
        if state.stopped == Stopped::No && state.budget.shutdowns > 0 {
            actions.push(Action::Shutdown);
        }
        for (stage, it) in state.stages.iter().enumerate() {
            if let Some(last) = it.attempt.filter(|_| state.budget.barriers > 0)
                && self.is_gang(stage)
            {
                actions.extend((0..=last).map(|attempt| Action::LoseBarrier { stage, attempt }));
            }
            if state.budget.cancels > 0 {
                actions.push(Action::Cancel { stage });
            }
            if state.budget.kills > 0 {
                let tasks =
                    state.tasks.values().filter(|task| task.attempt.stage == stage_id(stage));
                let partitions: BTreeSet<PartitionId> = tasks.map(|task| task.partition).collect();
                let kill = |it: PartitionId| Action::KillPartition { stage, partition: it.0 };
                actions.extend(partitions.into_iter().map(kill));
            }
        }
    }

    fn actions_of_task(budget: Budget, task: TaskAttemptId, it: &Task, actions: &mut Vec<Action>) {
        match it.run {
            Run::Runs => {
                actions.push(Action::End { task, outcome: Outcome::Succeeded });
                if it.killed {
                    actions.push(Action::End { task, outcome: Outcome::Killed });
                }
                if budget.errors > 0 {
                    actions.push(Action::End { task, outcome: Outcome::Error });
                }
                if it.killed && budget.zombies > 0 {
                    actions.push(Action::Stick { task });
                }
            }
            Run::Ended(_) => actions.push(Action::Report { task }),
            Run::Sticks | Run::Vanished => {}
        }
    }

    pub fn is_gang(&self, stage: usize) -> bool {
        self.stages[stage].kind == StageKind::Barrier
    }

    /// Whether nothing happens any more unless something else goes wrong or someone wants more.
    pub fn is_over(&self, state: &State<S>) -> bool {
        let goes_on = |task: &Task| matches!(task.run, Run::Runs | Run::Ended(_));
        !state.tasks.values().any(goes_on)
            && state.notices.is_empty()
            && state.timers.iter().all(|key| {
                let next = self.next_state(state, Action::Fire(*key));
                next.is_none_or(|next| next == *state)
            })
    }
}

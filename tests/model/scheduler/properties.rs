//! What must hold in every state, and what must be reached in some.

use super::{Config, Ended, Fault, Here, Reached, Scheduler, State, Stopped, Task, Wait};
use super::{executor_id, stage_id};
use phalanx::protocol::{
    Incarnation, SchedulerEffect, SchedulerEvent, StageKind, StageSpec, SubmitStage, TaskResources,
};
use stateright::Property;

pub const PARTIAL: &str = "no two gangs hold partial claims";
pub const OVERCOMMITTED: &str = "slots are never overcommitted";
pub const LEAKED: &str = "slots are never leaked";
pub const OLD: &str = "nothing of attempt k changes attempt k+1";
pub const LATE: &str = "what comes too late changes nothing";
pub const CAUSE: &str = "first cause is the first failure";
pub const ONCE: &str = "every stage ends exactly once";
pub const FORMER: &str = "no attempt starts while tasks of the former one run";
pub const KILLED: &str = "whatever runs in vain is killed";
pub const SUCCESS: &str = "a stage succeeds only if all of its tasks do";
pub const REFUSED: &str = "a stage is refused for want of slots only if they are too few";
pub const DRAINED: &str = "a shutdown is over once, when nothing runs";
pub const WAY_OUT: &str = "no state without a way out while faults have stopped";

pub fn properties<S: Scheduler>(config: &Config<S>) -> Vec<Property<Config<S>>> {
    let mut all = vec![
        Property::always(PARTIAL, |_, state| without(state, Fault::PartOfGang)),
        Property::always(OVERCOMMITTED, |config: &Config<S>, state: &State<S>| {
            let mut executors = config.executors.iter().enumerate();
            without(state, Fault::NoSuchExecutor)
                && executors.all(|(index, cpus)| {
                    let runs = |task: &&Task| task.executor == index && task.runs();
                    state.tasks.values().filter(runs).map(|task| task.cpus).sum::<u32>() <= *cpus
                })
        }),
        Property::always(LEAKED, |config, state| {
            books_agree(config, state) && (!state.tasks.is_empty() || all_fits(config, state))
        }),
        Property::always(OLD, |_, state| without(state, Fault::OldActed)),
        Property::always(LATE, |_, state| without(state, Fault::LateActed)),
        Property::always(CAUSE, |_, state| without(state, Fault::WrongCause)),
        Property::always(ONCE, |_, state| without(state, Fault::EndedAgain)),
        Property::always(FORMER, |_, state| without(state, Fault::StartedTooSoon)),
        Property::always(KILLED, |_, state| without(state, Fault::NotKilled)),
        Property::always(SUCCESS, |_, state| without(state, Fault::FalseSuccess)),
        Property::always(REFUSED, |_, state| without(state, Fault::FalseRefusal)),
        Property::always(DRAINED, |_, state| without(state, Fault::FalseDrain)),
        Property::always(WAY_OUT, |config: &Config<S>, state: &State<S>| {
            is_done(state) || !config.is_over(state)
        }),
    ];
    all.extend(ALL_REACHED.iter().map(|it| {
        let (name, reached, not_reached) = property_of(*it);
        match config.reached.contains(it) {
            true => Property::sometimes(name, reached),
            false => Property::always(name, not_reached),
        }
    }));
    all
}

fn without<S>(state: &State<S>, fault: Fault) -> bool {
    !state.faults.contains(&fault)
}

/// Whether the scheduler holds a slot for just those of whose end it has not been told.
fn books_agree<S: Scheduler>(config: &Config<S>, state: &State<S>) -> bool {
    let known = state.executors.iter().enumerate().filter(|(_, it)| it.is_known());
    let books = known.map(|(index, it)| {
        let tasks = state.tasks.values().filter(|task| task.executor == index);
        let cpus = config.executors[index];
        (executor_id(index), Incarnation(it.lives - 1), cpus, tasks.count())
    });
    let said = state.scheduler.shipped().executors();
    said.map(|it| (it.executor, it.incarnation, it.resources.cpus, it.running)).eq(books)
}

/// Whether a gang that needs all slots there are can start, as it must if nothing runs.
fn all_fits<S: Scheduler>(config: &Config<S>, state: &State<S>) -> bool {
    let known = state.executors.iter().zip(&config.executors).filter(|(it, _)| it.is_known());
    let num_tasks = known.map(|(_, cpus)| cpus).sum();
    let is_full = state.scheduler.shipped().stages().count() >= config.limits.queue_max;
    if state.stopped != Stopped::No || num_tasks == 0 || is_full {
        return true;
    }
    let (kind, priority) = (StageKind::Barrier, i32::MAX);
    let resources = TaskResources::default();
    let spec = StageSpec { num_tasks, kind, priority, resources, ..config.stages[0].clone() };
    let submit = SubmitStage { stage: stage_id(config.stages.len()), spec, of_job: None };
    let mut effects = Vec::new();
    state.scheduler.clone().handle(SchedulerEvent::SubmitStage(submit), &mut effects);
    let launched = effects.iter().map(|effect| match effect {
        SchedulerEffect::LaunchTasks { launch, .. } => launch.tasks.len(),
        _ => 0,
    });
    launched.sum::<usize>() == num_tasks as usize
}

fn is_done<S: Scheduler>(state: &State<S>) -> bool {
    state.tasks.is_empty()
        && state.stages.iter().all(|stage| stage.ended.is_some())
        && state.scheduler.shipped().stages().next().is_none()
        && state.stopped != Stopped::Asked
}

const ALL_REACHED: [Reached; 13] = [
    Reached::Succeeded,
    Reached::SucceededAfterFailure,
    Reached::NotEnoughSlots,
    Reached::QueueFull,
    Reached::Cancelled,
    Reached::Shutdown,
    Reached::AttemptsExhausted,
    Reached::InfrastructureExhausted,
    Reached::Aborted,
    Reached::TaskIgnoresKill,
    Reached::RetireExecutor,
    Reached::StageDeferred,
    Reached::StageQueued,
];

type Condition<S> = fn(&Config<S>, &State<S>) -> bool;

/// The checker wants plain functions, which capture nothing.
fn property_of<S: Scheduler>(reached: Reached) -> (&'static str, Condition<S>, Condition<S>) {
    macro_rules! some {
        ($name:ident: $all:ident, $pattern:pat) => {
            (
                concat!("reached: ", stringify!($name)),
                |_, state| state.$all().any(|it| matches!(it, $pattern)),
                |_, state| !state.$all().any(|it| matches!(it, $pattern)),
            )
        };
    }
    macro_rules! ended {
        ($name:ident) => {
            some!($name: ends, Some(Ended::$name))
        };
    }
    match reached {
        Reached::Succeeded => ended!(Succeeded),
        Reached::SucceededAfterFailure => ended!(SucceededAfterFailure),
        Reached::NotEnoughSlots => ended!(NotEnoughSlots),
        Reached::QueueFull => ended!(QueueFull),
        Reached::Cancelled => ended!(Cancelled),
        Reached::Shutdown => ended!(Shutdown),
        Reached::AttemptsExhausted => ended!(AttemptsExhausted),
        Reached::InfrastructureExhausted => ended!(InfrastructureExhausted),
        Reached::Aborted => ended!(Aborted),
        Reached::TaskIgnoresKill => some!(TaskIgnoresKill: running, Task { overdue: true, .. }),
        Reached::RetireExecutor => some!(RetireExecutor: places, Here::Retired),
        Reached::StageDeferred => some!(StageDeferred: waits, Wait::Slots(_)),
        Reached::StageQueued => some!(StageQueued: waits, Wait::Queued),
    }
}

impl<S> State<S> {
    fn ends(&self) -> impl Iterator<Item = Option<Ended>> {
        self.stages.iter().map(|stage| stage.ended)
    }

    fn waits(&self) -> impl Iterator<Item = Wait> {
        self.stages.iter().map(|stage| stage.wait)
    }

    fn running(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    fn places(&self) -> impl Iterator<Item = Here> {
        self.executors.iter().map(|executor| executor.here)
    }
}

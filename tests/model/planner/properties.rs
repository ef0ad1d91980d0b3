//! What must hold in every state, and what must be reached in some.

use super::{Config, Ended, Fault, Planning, Reached, State};
use phalanx::protocol::{Planner, SchedulerEvent, StageId};
use stateright::Property;

pub const ONCE: &str = "every job ends exactly once";
pub const EARLY: &str = "no stage starts before all of its input is there";
pub const WHOLE: &str = "a barrier map stage is made as a whole";
pub const CODE: &str = "what is handed in has its code";
pub const IN_VAIN: &str = "what is there is kept until it is lost or of no use";
/// Every action but a fault's uses something up, so a run that does not end in such a state does
/// not end; and there is no other way to go on for ever.
pub const WAY_OUT: &str = "no state without a way to the end of all jobs while faults have stopped";
pub const LEFT: &str = "nothing is left when all jobs have ended and all datasets are gone";

pub fn properties<P: Planning>(config: &Config<P>) -> Vec<Property<Config<P>>> {
    let mut all = vec![
        Property::always(ONCE, |_, state| without(state, Fault::EndedAgain)),
        Property::always(EARLY, |_, state| without(state, Fault::StartedEarly)),
        Property::always(WHOLE, |_, state| {
            without(state, Fault::PartOfGang) && without(state, Fault::MixedGang)
        }),
        Property::always(CODE, |_, state| without(state, Fault::NoCode)),
        Property::always(IN_VAIN, |_, state| without(state, Fault::DroppedInVain)),
        Property::always(WAY_OUT, |config: &Config<P>, state: &State<P>| {
            state.jobs.iter().all(Option::is_some) || !config.is_over(state)
        }),
        Property::always(LEFT, |config: &Config<P>, state: &State<P>| {
            !config.is_over(state) || is_empty(state)
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

fn without<P>(state: &State<P>, fault: Fault) -> bool {
    !state.faults.contains(&fault)
}

fn is_empty<P: Planning>(state: &State<P>) -> bool {
    *state.planner.shipped() == Planner::new()
        && state.scheduler.stages().next().is_none()
        && state.tasks.is_empty()
        && state.kept.is_empty()
        && state.store.is_empty()
        && state.code.is_empty()
}

const ALL_REACHED: [Reached; 10] = [
    Reached::Succeeded,
    Reached::Cancelled,
    Reached::Refused,
    Reached::Shutdown,
    Reached::Exhausted,
    Reached::NotEnoughSlots,
    Reached::MadeAgain,
    Reached::MadeInPart,
    Reached::Followed,
    Reached::Stale,
];

type Condition<P> = fn(&Config<P>, &State<P>) -> bool;

/// The checker wants plain functions, which capture nothing.
fn property_of<P: Planning>(reached: Reached) -> (&'static str, Condition<P>, Condition<P>) {
    macro_rules! some {
        ($name:ident: $is:expr) => {
            (
                concat!("reached: ", stringify!($name)),
                |config, state| $is(config, state),
                |config, state| !$is(config, state),
            )
        };
    }
    macro_rules! ended {
        ($name:ident) => {
            some!($name: |_: &Config<P>, state: &State<P>| {
                state.jobs.contains(&Some(Ended::$name))
            })
        };
    }
    match reached {
        Reached::Succeeded => ended!(Succeeded),
        Reached::Cancelled => ended!(Cancelled),
        Reached::Refused => ended!(Refused),
        Reached::Shutdown => ended!(Shutdown),
        Reached::Exhausted => ended!(Exhausted),
        Reached::NotEnoughSlots => ended!(NotEnoughSlots),
        Reached::MadeAgain => {
            some!(MadeAgain: |_: &Config<P>, state: &State<P>| state.store.is_made_again())
        }
        Reached::MadeInPart => some!(MadeInPart: is_made_in_part),
        Reached::Followed => some!(Followed: is_followed),
        Reached::Stale => some!(Stale: is_stale),
    }
}

fn is_made_in_part<P: Planning>(_: &Config<P>, state: &State<P>) -> bool {
    state.tasks.values().any(|task| {
        let stage = task.attempt.stage;
        task.attempt.attempt > 0 && !task.killed && state.store.has_part_of(stage)
    })
}

fn is_followed<P: Planning>(_: &Config<P>, state: &State<P>) -> bool {
    let runs = |stage: StageId| state.runs(stage);
    state.to_scheduler.iter().any(|event| match event {
        SchedulerEvent::SubmitStage(submit) => runs(submit.stage),
        _ => false,
    })
}

fn is_stale<P: Planning>(_: &Config<P>, state: &State<P>) -> bool {
    let of_tasks = state.tasks.values().filter(|task| !task.killed);
    of_tasks.filter_map(|task| task.not_found).any(|failed| state.store.is_stale(&failed))
}

//! What must hold in every state, and what must be reached in some.

use super::{Barrier, Config, Fault, State, Told, User};
use phalanx::protocol::{Epoch, SyncError};
use stateright::Property;

pub const FULL: &str = "a release reaches only a full gang";
pub const ONCE: &str = "an epoch is released at most once";
pub const ONE_ANSWER: &str = "a request is answered at most once";
pub const AN_ANSWER: &str = "in the end every request has been answered";
pub const LATE: &str = "a late timer changes nothing";
pub const MESSAGES: &str = "everyone gets the messages of this epoch";
pub const NOBODY_WAITS: &str = "in the end nobody waits";
pub const SAME_EPOCH: &str = "a task is where its user is";
pub const SENSE: &str = "no correct program is told that it is wrong";

const ALL_TOLD: [Told; 7] = [
    Told::Released,
    Told::Timeout,
    Told::PeerLeft,
    Told::Killed,
    Told::Mixed,
    Told::Concurrent,
    Told::Abandoned,
];

pub fn properties<B: Barrier>(config: &Config<B>) -> Vec<Property<Config<B>>> {
    let mut all = vec![
        Property::always(FULL, |_, state| without(state, Fault::ReleasedBeforeFull)),
        Property::always(ONCE, |_, state| without(state, Fault::ReleasedAgain)),
        Property::always(ONE_ANSWER, |_, state| without(state, Fault::AnsweredAgain)),
        Property::always(LATE, |_, state| without(state, Fault::LateTimerActed)),
        Property::always(MESSAGES, |_, state| without(state, Fault::WrongMessages)),
        Property::always(SENSE, |_, state| !is_told(state, Told::Nonsense)),
        Property::always(SAME_EPOCH, |_, state: &State<B>| {
            let mut alive = state.tasks.iter().filter(|task| !task.killed);
            alive.all(|task| task.sync.epoch() == Epoch(task.passed))
        }),
        Property::always(AN_ANSWER, |config: &Config<B>, state: &State<B>| {
            state.unanswered.is_empty() || !config.is_over(state)
        }),
        Property::always(NOBODY_WAITS, |config: &Config<B>, state: &State<B>| {
            let waits = state.tasks.iter().any(|task| matches!(task.user, User::Waiting(_)));
            !waits || !config.is_over(state)
        }),
        Property::sometimes(
            "all epochs are released and all return",
            |config, state: &State<B>| {
                state.released.len() as u64 == config.epochs
                    && state.tasks.iter().all(|task| task.user == User::Gone)
            },
        ),
    ];
    for told in ALL_TOLD {
        let (name, reached, not_reached) = property_of(told);
        all.push(match config.told.contains(&told) {
            true => Property::sometimes(name, reached),
            false => Property::always(name, not_reached),
        });
    }
    if config.budget.drops > 0 {
        all.push(Property::sometimes("the answer to all having withdrawn", |_, state| {
            is_replied(state, |error| matches!(error, SyncError::Withdrawn { .. }))
        }));
    }
    if config.budget.retransmissions > 0 {
        all.push(Property::sometimes("the refusal of a belated copy", |_, state| {
            is_replied(state, |error| matches!(error, SyncError::WrongEpoch { .. }))
        }));
    }
    all
}

type Condition<B> = fn(&Config<B>, &State<B>) -> bool;

/// The checker wants plain functions, which capture nothing.
fn property_of<B: Barrier>(told: Told) -> (&'static str, Condition<B>, Condition<B>) {
    macro_rules! told {
        ($told:ident) => {
            (
                concat!("told: ", stringify!($told)),
                |_, state| is_told(state, Told::$told),
                |_, state| !is_told(state, Told::$told),
            )
        };
    }
    match told {
        Told::Released => told!(Released),
        Told::Timeout => told!(Timeout),
        Told::PeerLeft => told!(PeerLeft),
        Told::Killed => told!(Killed),
        Told::Mixed => told!(Mixed),
        Told::Concurrent => told!(Concurrent),
        Told::Abandoned => told!(Abandoned),
        Told::Nonsense => told!(Nonsense),
    }
}

fn without<B>(state: &State<B>, fault: Fault) -> bool {
    !state.faults.contains(&fault)
}

fn is_told<B>(state: &State<B>, told: Told) -> bool {
    state.tasks.iter().any(|task| matches!(task.user, User::Answered(_, t) if t == told))
}

fn is_replied<B>(state: &State<B>, is: fn(&SyncError) -> bool) -> bool {
    let mut replies = state.tasks.iter().flat_map(|task| &task.down);
    replies.any(|reply| reply.result.as_ref().is_err_and(is))
}

//! What must hold after every step, one file each.

mod answers_are_true;
mod attempts_do_not_mix;
mod budgets_are_kept;
mod events_are_in_order;
mod every_request_is_answered_once;
mod every_stage_ends_once;
mod first_cause_is_first_failure;
mod gangs_start_whole;
mod kills_have_a_cause;
mod nobody_waits_in_vain;
mod nothing_is_left;
mod one_release_per_epoch;
mod releases_reach_full_gangs;
mod slots_are_not_overcommitted;
mod success_is_everyones;

use crate::facts::Facts;
use phalanx::simulation::{Observation, Simulator};
use std::time::Duration;

/// A promise that can be broken.
pub trait Invariant {
    /// Looks at what has just happened; the facts include it.
    fn check(
        &mut self,
        facts: &Facts,
        now: Duration,
        observation: &Observation,
    ) -> Result<(), String>;

    /// Looks at what is left when nothing more happens.
    fn at_end(&mut self, _facts: &Facts, _simulator: &Simulator) -> Result<(), String> {
        Ok(())
    }
}

pub fn all() -> Vec<(&'static str, Box<dyn Invariant>)> {
    vec![
        ("attempts do not mix", Box::<attempts_do_not_mix::AttemptsDoNotMix>::default()),
        ("answers are true", Box::<answers_are_true::AnswersAreTrue>::default()),
        ("budgets are kept", Box::<budgets_are_kept::BudgetsAreKept>::default()),
        (
            "every request is answered once",
            Box::<every_request_is_answered_once::EveryRequestIsAnsweredOnce>::default(),
        ),
        ("every stage ends once", Box::<every_stage_ends_once::EveryStageEndsOnce>::default()),
        ("events are in order", Box::<events_are_in_order::EventsAreInOrder>::default()),
        (
            "first cause is the first failure",
            Box::new(first_cause_is_first_failure::FirstCauseIsFirstFailure),
        ),
        ("gangs start whole", Box::<gangs_start_whole::GangsStartWhole>::default()),
        ("kills have a cause", Box::new(kills_have_a_cause::KillsHaveACause)),
        ("nobody waits in vain", Box::<nobody_waits_in_vain::NobodyWaitsInVain>::default()),
        ("nothing is left", Box::new(nothing_is_left::NothingIsLeft)),
        ("one release per epoch", Box::<one_release_per_epoch::OneReleasePerEpoch>::default()),
        (
            "releases reach full gangs",
            Box::<releases_reach_full_gangs::ReleasesReachFullGangs>::default(),
        ),
        (
            "slots are not overcommitted",
            Box::<slots_are_not_overcommitted::SlotsAreNotOvercommitted>::default(),
        ),
        ("success is everyone's", Box::<success_is_everyones::SuccessIsEveryones>::default()),
    ]
}

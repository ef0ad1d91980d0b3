//! What the model finds if a rule of the planner is broken.

use super::Budget;
use super::broken::{
    Broken, EndsCancelledTwice, ForgetsEarlyLosses, ForgetsWhoCameLater, ForgetsWithTheDataset,
    IgnoresLostInput, IgnoresUnwanted, MixesLives, StartsAtOnce, TakesAllForGangs,
};
use super::checks::{NONE, all_here, dropping_early, world};
use super::dags::Link::{Gang, Plain};
use super::dags::chain;
use super::properties::{CODE, EARLY, IN_VAIN, LEFT, ONCE, WAY_OUT, WHOLE};
use crate::refute;

const ONE_FETCH: Budget = Budget { fetches: 1, ..NONE };
const ONE_CANCEL: Budget = Budget { cancels: 1, ..NONE };

#[test]
fn a_gang_of_which_only_the_lost_output_is_forgotten_is_refuted() {
    let jobs = [chain(&[Gang(2), Plain(1)], 9)];
    let config = world::<Broken<TakesAllForGangs<false>>>(&jobs, &[1, 1], ONE_FETCH);
    assert_eq!(refute("forgets one output of a gang", WHOLE, config), 13);
}

#[test]
fn a_planner_that_forgets_more_than_is_lost_is_refuted() {
    let jobs = [chain(&[Plain(2), Plain(1)], 9)];
    let config = world::<Broken<TakesAllForGangs<true>>>(&jobs, &[1, 1], ONE_FETCH);
    assert_eq!(refute("forgets all outputs of a plain stage", IN_VAIN, config), 13);
}

#[test]
fn a_planner_that_does_not_make_again_what_is_lost_is_refuted() {
    let jobs = [chain(&[Gang(2), Plain(1)], 9)];
    let config = world::<Broken<IgnoresLostInput>>(&jobs, &[1, 1], ONE_FETCH);
    assert_eq!(refute("ignores lost input", WAY_OUT, config), 14);
}

#[test]
fn a_planner_that_does_not_wait_for_input_is_refuted() {
    let jobs = [chain(&[Plain(1), Plain(1)], 9)];
    let config = world::<Broken<StartsAtOnce>>(&jobs, &[1], NONE);
    assert_eq!(refute("starts at once", EARLY, config), 5);
}

#[test]
fn a_planner_that_forgets_losses_before_a_stage_is_done_is_refuted() {
    let jobs = [chain(&[Plain(2), Plain(1)], 9)];
    let config = world::<Broken<ForgetsEarlyLosses>>(&jobs, &[1, 1], Budget { losses: 1, ..NONE });
    assert_eq!(refute("forgets early losses", EARLY, config), 11);
}

#[test]
fn a_planner_that_does_not_tell_lives_of_an_executor_apart_is_refuted() {
    let budget = Budget { losses: 1, joins: 1, ..NONE };
    let config = world::<Broken<MixesLives>>(&[chain(&[Plain(1), Plain(1)], 9)], &[1], budget);
    assert_eq!(refute("mixes lives of executors", IN_VAIN, all_here(config)), 11);
}

/// The first planner was so: the code of such a stage was kept for ever.
#[test]
fn a_result_that_comes_after_its_job_was_cancelled_must_be_heard() {
    let jobs = [chain(&[Plain(1)], 9)];
    let config = world::<Broken<IgnoresUnwanted>>(&jobs, &[1], ONE_CANCEL);
    assert_eq!(refute("ignores results of cancelled jobs", LEFT, config), 8);
}

#[test]
fn a_planner_that_forgets_who_came_after_a_cancel_is_refuted() {
    let jobs = [chain(&[Plain(1), Plain(1)], 9), chain(&[Plain(1), Plain(1)], 8)];
    let config = world::<Broken<ForgetsWhoCameLater>>(&jobs, &[1], ONE_CANCEL);
    assert_eq!(refute("forgets who came later", WAY_OUT, config), 13);
}

#[test]
fn a_planner_that_drops_code_of_jobs_that_run_is_refuted() {
    let jobs = [chain(&[Plain(1), Plain(1)], 9)];
    let config = world::<Broken<ForgetsWithTheDataset>>(&jobs, &[1], ONE_FETCH);
    assert_eq!(refute("drops code with the dataset", CODE, dropping_early(config)), 13);
}

#[test]
fn a_job_that_ends_at_its_cancel_and_with_its_stages_is_refuted() {
    let jobs = [chain(&[Plain(1)], 9)];
    let config = world::<EndsCancelledTwice>(&jobs, &[1], ONE_CANCEL);
    assert_eq!(refute("ends a cancelled job twice", ONCE, config), 6);
}

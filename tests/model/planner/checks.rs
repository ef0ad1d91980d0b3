//! Worlds in which the planner keeps its promises, with all that may go wrong in them.

use super::Reached::{self, *};
use super::dags::Link::{Gang, Plain};
use super::dags::{SubmittedJob, chain, diamond, unsupported};
use super::{Budget, Config, Planning};
use phalanx::protocol::{Planner, SchedulerConfig};
use std::marker::PhantomData;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(1);

pub const NONE: Budget =
    Budget { losses: 0, joins: 0, cancels: 0, fetches: 0, errors: 0, shutdowns: 0 };

fn limits() -> SchedulerConfig {
    SchedulerConfig {
        slot_check_interval: SOON,
        slot_check_max_failures: 1,
        reserve_after: SOON,
        kill_grace: SOON,
        zombie_deadline: None,
        queue_max: 9,
        dynamic_allocation: false,
    }
}

/// All but as many executors as may join are there.
pub fn world<P: Planning>(jobs: &[SubmittedJob], executors: &[u32], budget: Budget) -> Config<P> {
    Config {
        jobs: jobs.to_vec(),
        executors: executors.to_vec(),
        present: executors.len().saturating_sub(budget.joins.into()),
        limits: limits(),
        drops_early: false,
        late_successes: false,
        budget,
        reached: &[Reached::Succeeded],
        planner: PhantomData,
    }
}

pub fn dropping_early<P>(config: Config<P>) -> Config<P> {
    Config { drops_early: true, ..config }
}

/// Who joins is one that was lost.
pub fn all_here<P>(config: Config<P>) -> Config<P> {
    Config { present: config.executors.len(), ..config }
}

/// Killed tasks may succeed all the same.
fn with_late_successes<P>(config: Config<P>) -> Config<P> {
    Config { late_successes: true, ..config }
}

fn prove(name: &str, reached: &'static [Reached], config: Config<Planner>) -> usize {
    crate::prove(&format!("planner: {name}"), Config { reached, ..config })
}

#[test]
fn an_output_of_a_gang_is_lost_with_its_executor() {
    let budget = Budget { losses: 1, joins: 1, ..NONE };
    let reached = &[Succeeded, NotEnoughSlots, MadeAgain];
    let jobs = [chain(&[Gang(2), Plain(2)], 9)];
    let config = world(&jobs, &[1, 1, 1], budget);
    assert_eq!(prove("gang, result on 1 + 1, loss, join", reached, config), 3_290);
}

#[test]
fn an_output_that_a_gang_reads_is_lost_with_its_executor() {
    let budget = Budget { losses: 1, joins: 1, ..NONE };
    let reached = &[Succeeded, NotEnoughSlots, MadeAgain, MadeInPart];
    let jobs = [chain(&[Plain(2), Gang(2)], 9)];
    let config = world(&jobs, &[1, 1, 1], budget);
    assert_eq!(prove("plain, result gang on 1 + 1, loss, join", reached, config), 5_839);
}

#[test]
fn an_output_of_a_gang_is_not_found_while_its_job_is_cancelled() {
    let budget = Budget { losses: 1, fetches: 1, cancels: 1, ..NONE };
    let reached = &[Succeeded, Cancelled, Exhausted, NotEnoughSlots, MadeAgain];
    let jobs = [chain(&[Gang(2), Plain(1)], 9)];
    let config = world(&jobs, &[1, 1], budget);
    assert_eq!(prove("gang, result on 1 + 1, loss, fetch, cancel", reached, config), 3_307);
}

#[test]
fn a_gang_that_reads_a_gang_does_not_find_its_input() {
    let budget = Budget { fetches: 2, cancels: 1, ..NONE };
    let reached = &[Succeeded, Cancelled, MadeAgain];
    let jobs = [chain(&[Gang(2), Gang(2)], 9)];
    let config = world(&jobs, &[1, 1], budget);
    assert_eq!(prove("gang, result gang on 1 + 1, 2 fetches, cancel", reached, config), 3_169);
}

#[test]
fn a_loss_hits_two_stages_of_a_chain() {
    let budget = Budget { losses: 1, joins: 1, ..NONE };
    let reached = &[Succeeded, NotEnoughSlots, MadeAgain, MadeInPart];
    let jobs = [chain(&[Gang(2), Plain(2), Plain(1)], 9)];
    let config = world(&jobs, &[1, 1, 1], budget);
    assert_eq!(prove("gang, plain, result on 1 + 1, loss, join", reached, config), 7_037);
}

#[test]
fn an_executor_comes_back_without_what_it_held() {
    let budget = Budget { losses: 2, joins: 1, ..NONE };
    let reached = &[Succeeded, Exhausted, NotEnoughSlots, MadeAgain];
    let jobs = [chain(&[Gang(2), Plain(1)], 9)];
    let config = all_here(world(&jobs, &[1, 1], budget));
    assert_eq!(prove("gang, result on 1 + 1, 2 losses, one back", reached, config), 8_569);
}

#[test]
fn an_executor_comes_back_to_a_stage_that_runs() {
    let budget = Budget { losses: 2, joins: 2, ..NONE };
    let reached = &[Succeeded, Exhausted, NotEnoughSlots, MadeAgain, MadeInPart];
    let jobs = [chain(&[Plain(2), Plain(1)], 9)];
    let config = all_here(world(&jobs, &[1], budget));
    assert_eq!(prove("plain, result on 1, 2 losses, back", reached, config), 8_001);
}

#[test]
fn a_result_does_not_find_what_two_stages_made() {
    let budget = Budget { fetches: 2, ..NONE };
    let reached = &[Succeeded, MadeAgain];
    let jobs = [diamond(Gang(2), Plain(1), 9)];
    let config = dropping_early(world(&jobs, &[1, 1], budget));
    assert_eq!(prove("diamond on 1 + 1, 2 fetches", reached, config), 725);
}

#[test]
fn a_task_fails_while_input_is_lost() {
    let budget = Budget { losses: 1, fetches: 1, errors: 1, cancels: 1, ..NONE };
    let reached = &[Succeeded, Cancelled, Exhausted, MadeAgain, MadeInPart];
    let jobs = [chain(&[Plain(2), Plain(1)], 9)];
    let config = dropping_early(world(&jobs, &[1, 1], budget));
    assert_eq!(prove("plain, result on 1 + 1, all but joins", reached, config), 5_972);
}

#[test]
fn a_job_is_refused_beside_one_that_shares_its_input() {
    let budget = Budget { cancels: 1, shutdowns: 1, ..NONE };
    let reached = &[Succeeded, Cancelled, Refused, Shutdown];
    let jobs = [unsupported(9), chain(&[Plain(1), Plain(1)], 8)];
    let config = dropping_early(world(&jobs, &[2], budget));
    assert_eq!(prove("refused, job on 2, cancel, shutdown", reached, config), 1_942);
}

#[test]
fn two_jobs_that_share_a_stage_are_cancelled() {
    let budget = Budget { cancels: 2, ..NONE };
    let reached = &[Succeeded, Cancelled, MadeAgain, Followed];
    let jobs = [chain(&[Plain(2), Plain(1)], 9), chain(&[Plain(2), Plain(1)], 8)];
    let config = dropping_early(with_late_successes(world(&jobs, &[1, 1], budget)));
    assert_eq!(prove("2 jobs share plain on 1 + 1, 2 cancels", reached, config), 3_225);
}

#[test]
fn a_job_comes_while_the_gang_that_it_needs_is_cancelled() {
    let budget = Budget { cancels: 1, ..NONE };
    let reached = &[Succeeded, Cancelled, MadeAgain, Followed];
    let jobs = [chain(&[Gang(2), Plain(1)], 9), chain(&[Gang(2), Plain(1)], 8)];
    let config = dropping_early(with_late_successes(world(&jobs, &[2], budget)));
    assert_eq!(prove("2 jobs share gang on 2, cancel", reached, config), 996);
}

#[test]
fn two_jobs_do_not_find_the_same_output() {
    let budget = Budget { losses: 1, ..NONE };
    let reached = &[Succeeded, MadeAgain, Stale];
    let jobs = [chain(&[Plain(1), Plain(1)], 9), chain(&[Plain(1), Plain(1)], 8)];
    let config = world(&jobs, &[2, 2], budget);
    assert_eq!(prove("2 jobs share plain on 2 + 2, loss", reached, config), 1_810);
}

#[test]
fn two_jobs_do_not_find_an_output_of_a_gang() {
    let budget = Budget { fetches: 2, ..NONE };
    let reached = &[Succeeded, MadeAgain, Stale];
    let jobs = [chain(&[Gang(2), Plain(1)], 9), chain(&[Gang(2), Plain(1)], 8)];
    let config = world(&jobs, &[2, 2], budget);
    assert_eq!(prove("2 jobs share gang on 2 + 2, 2 fetches", reached, config), 1_811);
}

#[test]
fn what_a_cancelled_stage_did_not_find_is_made_again_for_others() {
    let budget = Budget { fetches: 1, cancels: 1, ..NONE };
    let reached = &[Succeeded, Cancelled, MadeAgain, Followed, Stale];
    let jobs = [chain(&[Plain(1), Plain(1), Plain(1)], 9), chain(&[Plain(1), Plain(1)], 8)];
    let config = with_late_successes(world(&jobs, &[2], budget));
    assert_eq!(prove("2 jobs share the first of 2 on 2, fetch, cancel", reached, config), 8_232);
}

#[test]
#[ignore = "half a minute in the debug profile"]
fn two_gangs_in_a_row_lose_an_executor_and_a_job() {
    let budget = Budget { losses: 1, joins: 1, cancels: 1, ..NONE };
    let reached = &[Succeeded, Cancelled, NotEnoughSlots, MadeAgain];
    let jobs = [chain(&[Gang(2), Gang(2)], 9)];
    let config = dropping_early(world(&jobs, &[1, 1, 1], budget));
    assert_eq!(prove("gang, result gang on 1 + 1, loss, join, cancel", reached, config), 66_233);
}

#[test]
#[ignore = "half a minute in the debug profile"]
fn two_jobs_on_a_gang_lose_an_executor() {
    let budget = Budget { losses: 1, cancels: 1, ..NONE };
    let reached = &[Succeeded, Cancelled, NotEnoughSlots, MadeAgain, Followed];
    let jobs = [chain(&[Gang(2), Plain(1)], 9), chain(&[Gang(2), Plain(1)], 8)];
    let config = dropping_early(with_late_successes(world(&jobs, &[1, 1], budget)));
    assert_eq!(prove("2 jobs share gang on 1 + 1, loss, cancel", reached, config), 27_996);
}

#[test]
#[ignore = "half a minute in the debug profile"]
fn a_gang_in_the_middle_of_a_chain() {
    let budget = Budget { losses: 1, joins: 1, fetches: 1, ..NONE };
    let reached = &[Succeeded, Exhausted, NotEnoughSlots, MadeAgain, MadeInPart];
    let jobs = [chain(&[Plain(2), Gang(2), Plain(1)], 9)];
    let config = world(&jobs, &[1, 1, 1], budget);
    assert_eq!(prove("plain, gang, result on 1 + 1, loss, join, fetch", reached, config), 62_969);
}

#[test]
#[ignore = "half a minute in the debug profile"]
fn a_diamond_loses_an_executor() {
    let budget = Budget { losses: 1, fetches: 1, ..NONE };
    let reached = &[Succeeded, Exhausted, NotEnoughSlots, MadeAgain];
    let jobs = [diamond(Gang(2), Plain(1), 9)];
    let config = dropping_early(world(&jobs, &[2, 1], budget));
    assert_eq!(prove("diamond on 2 + 1, loss, fetch", reached, config), 7_719);
}

#[test]
#[ignore = "half a minute in the debug profile"]
fn everything_happens_to_one_job() {
    let budget = Budget { losses: 1, fetches: 1, errors: 1, cancels: 1, shutdowns: 1, ..NONE };
    let reached = &[Succeeded, Cancelled, Shutdown, Exhausted, NotEnoughSlots, MadeAgain];
    let jobs = [chain(&[Gang(2), Plain(1)], 9)];
    let config = dropping_early(world(&jobs, &[1, 1], budget));
    assert_eq!(prove("gang, result on 1 + 1, all but joins", reached, config), 14_515);
}

#[test]
#[ignore = "half a minute in the debug profile"]
fn two_jobs_on_a_plain_stage_lose_an_executor() {
    let budget = Budget { losses: 1, fetches: 1, ..NONE };
    let reached = &[Succeeded, Exhausted, MadeAgain, MadeInPart, Stale];
    let jobs = [chain(&[Plain(2), Plain(1)], 9), chain(&[Plain(2), Plain(1)], 8)];
    let config = world(&jobs, &[2, 2], budget);
    assert_eq!(prove("2 jobs share plain on 2 + 2, loss, fetch", reached, config), 18_479);
}

#[test]
#[ignore = "half a minute in the debug profile"]
fn two_jobs_share_two_stages() {
    let budget = Budget { fetches: 1, cancels: 1, ..NONE };
    let reached = &[Succeeded, Cancelled, MadeAgain, Followed, Stale];
    let jobs = [chain(&[Gang(2), Plain(1), Plain(1)], 9), chain(&[Gang(2), Plain(1), Plain(1)], 8)];
    let config = dropping_early(with_late_successes(world(&jobs, &[2], budget)));
    assert_eq!(prove("2 jobs share gang, plain on 2, fetch, cancel", reached, config), 16_101);
}

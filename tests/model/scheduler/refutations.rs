//! What the model finds if a rule of the scheduler is broken.

use super::Budget;
use super::broken::{
    AnswersAtOnce, Deadlines, ForgetsUnheard, FreesOnKill, Kills, LaunchesInParts,
    NoIncarnationCheck, NoTimerCheck, Omits, TakesAnyReport, WaitsForTheReport,
};
use super::checks::{NONE, gang, with_deadline, world};
use super::properties::{
    CAUSE, DRAINED, FORMER, KILLED, LATE, LEAKED, OLD, ONCE, OVERCOMMITTED, PARTIAL, SUCCESS,
    WAY_OUT,
};
use crate::refute;

#[test]
fn a_slot_that_is_free_with_the_kill_is_taken_twice() {
    let config = world::<FreesOnKill>(&[gang(2)], &[2], Budget { kills: 1, ..NONE });
    assert_eq!(refute("frees slots on kill", OVERCOMMITTED, config), 3);
}

#[test]
fn a_slot_that_is_free_with_the_kill_starts_the_next_attempt_too_soon() {
    let config = world::<FreesOnKill>(&[gang(2)], &[2, 2], Budget { kills: 1, ..NONE });
    assert_eq!(refute("frees slots on kill", FORMER, config), 3);
}

#[test]
fn a_scheduler_that_does_not_compare_attempts_is_refuted() {
    let budget = Budget { errors: 1, late: 1, ..NONE };
    let config = world::<TakesAnyReport<true>>(&[gang(1)], &[1], budget);
    assert_eq!(refute("no attempt check", OLD, config), 4);
}

#[test]
fn a_scheduler_that_counts_reports_is_refuted() {
    let config = world::<TakesAnyReport<false>>(&[gang(2)], &[2], Budget { late: 1, ..NONE });
    assert_eq!(refute("counts reports", SUCCESS, config), 3);
}

#[test]
fn a_scheduler_that_does_not_compare_timers_is_refuted() {
    let mut config = world::<NoTimerCheck>(&[gang(2)], &[1], NONE);
    config.limits.slot_check_max_failures = 2;
    assert_eq!(refute("no timer check", LATE, config), 3);
}

#[test]
fn a_gang_that_is_launched_in_parts_is_refuted() {
    let config = world::<LaunchesInParts>(&[gang(2)], &[1, 1], NONE);
    assert_eq!(refute("launches in parts", PARTIAL, config), 1);
}

#[test]
fn a_scheduler_that_does_not_compare_incarnations_is_refuted() {
    let budget = Budget { deaths: 1, joins: 1, ..NONE };
    let config = world::<NoIncarnationCheck>(&[gang(1)], &[1], budget);
    assert_eq!(refute("no incarnation check", LEAKED, config), 3);
}

#[test]
fn a_scheduler_that_forgets_who_died_unheard_is_refuted() {
    let budget = Budget { unheard: 1, late: 1, ..NONE };
    let config = world::<ForgetsUnheard>(&[gang(1)], &[1], budget);
    assert_eq!(refute("forgets who died unheard", LATE, config), 2);
}

#[test]
fn a_kill_that_is_no_failure_before_its_report_is_refuted() {
    let config = world::<WaitsForTheReport>(&[gang(2)], &[2], Budget { kills: 1, ..NONE });
    assert_eq!(refute("waits for the report of a kill", CAUSE, config), 2);
}

#[test]
fn a_scheduler_that_does_not_kill_is_refuted() {
    let config = world::<Omits<Kills>>(&[gang(2)], &[2], Budget { errors: 1, ..NONE });
    assert_eq!(refute("does not kill", KILLED, config), 2);
}

#[test]
fn a_scheduler_that_waits_for_zombies_for_ever_is_refuted() {
    let budget = Budget { kills: 1, zombies: 1, ..NONE };
    let config = with_deadline(world::<Omits<Deadlines>>(&[gang(1)], &[1], budget));
    assert_eq!(refute("no zombie deadline", WAY_OUT, config), 5);
}

#[test]
fn a_scheduler_that_answers_every_cancel_is_refuted() {
    let config = world::<AnswersAtOnce>(&[gang(1)], &[1], Budget { cancels: 2, ..NONE });
    assert_eq!(refute("answers every cancel", ONCE, config), 3);
}

#[test]
fn a_shutdown_that_does_not_wait_is_refuted() {
    let config = world::<AnswersAtOnce>(&[gang(1)], &[1], Budget { shutdowns: 1, ..NONE });
    assert_eq!(refute("is over at once", DRAINED, config), 2);
}

//! Cancelling a stage in every phase.

use super::*;

fn because() -> StageFailure {
    StageFailure::Cancelled { reason: "not needed".to_owned() }
}

fn close_reason() -> CloseReason {
    CloseReason::Cancelled("not needed".to_owned())
}

const REASON: &str = "the stage was cancelled: not needed";

#[test]
fn a_deferred_stage_can_be_cancelled() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, effects) = cluster.submit(gang(2));
    let (check, _) = timers(&effects)[0];
    assert_eq!(cluster.cancel(stage), stage_over(stage, 0, Some(because())));
    cluster.is_over(stage);
    cluster.ignores(SchedulerEvent::TimerFired(check));
    assert_eq!(launched(&cluster.join(E2, cpus(4))), []);
}

#[test]
fn a_queued_stage_can_be_cancelled() {
    let mut cluster = Cluster::of(&[2]);
    let (load, _) = cluster.submit(gang(2));
    let (stage, effects) = cluster.submit(gang(2));
    let (reserve, _) = timers(&effects)[0];
    assert_eq!(cluster.cancel(stage), stage_over(stage, 0, Some(because())));
    cluster.is_over(stage);
    cluster.ignores(SchedulerEvent::TimerFired(reserve));
    assert_eq!(launched(&cluster.ok_all(load)), []);
}

#[test]
fn a_running_gang_can_be_cancelled() {
    let mut cluster = Cluster::of(&[2, 1]);
    let (stage, _) = cluster.submit(gang(3));
    let [zero, one, two] = [0, 1, 2].map(|partition| cluster.task(stage, partition));
    let effects = cluster.cancel(stage);
    let [ended, told] = stage_over(stage, 1, Some(because()));
    let expected = [
        closed(attempt(stage, 0), close_reason()),
        kill(E1, &[zero, two], REASON),
        kill(E2, &[one], REASON),
        set_timer(overdue(attempt(stage, 0)), GRACE),
        ended,
        told,
    ];
    assert_eq!(effects, expected);
    assert_eq!(cluster.phase(stage), StagePhase::Ended);
    assert_eq!(without_events(cluster.killed_all(stage)), [], "no result, no payload, no retry");
    cluster.is_over(stage);
    assert_eq!(cluster.free_slots(), 3);
}

#[test]
fn a_cancelled_gang_kills_only_those_that_still_run() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.ok(cluster.task(stage, 0));
    let one = cluster.task(stage, 1);
    assert_eq!(kills(&cluster.cancel(stage)), [(E1, vec![one])]);
}

#[test]
fn a_success_that_crosses_the_cancellation_changes_nothing() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, _) = cluster.submit(gang(1));
    cluster.cancel(stage);
    let report = cluster.report(cluster.task(stage, 0), TaskOutcome::Succeeded);
    let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
    assert_eq!(effects, [task_ended(&report)]);
    cluster.is_over(stage);
}

#[test]
fn a_stopping_gang_can_be_cancelled_and_starts_no_further_attempt() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.fail(cluster.task(stage, 0), "boom");
    let effects = cluster.cancel(stage);
    let [ended, told] = stage_over(stage, 1, Some(because()));
    let cancelled = closed(attempt(stage, 0), close_reason());
    assert_eq!(effects, [cancelled, ended, told], "its task is killed already");
    assert_eq!(without_events(cluster.killed_all(stage)), []);
    cluster.is_over(stage);
}

#[test]
fn a_gang_that_is_backing_off_can_be_cancelled() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(StageSpec { retry_delay: PAUSE, ..gang(2) });
    cluster.fail(cluster.task(stage, 0), "boom");
    cluster.killed_all(stage);
    assert_eq!(cluster.phase(stage), StagePhase::BackingOff);
    assert_eq!(cluster.cancel(stage), stage_over(stage, 1, Some(because())));
    cluster.is_over(stage);
    cluster.ignores(SchedulerEvent::TimerFired(SchedulerTimer::Retry(attempt(stage, 1))));
}

#[test]
fn a_gang_that_waits_for_its_second_attempt_can_be_cancelled() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.submit(plain(1));
    cluster.fail(cluster.task(stage, 0), "boom");
    cluster.killed_all(stage);
    assert!(matches!(cluster.phase(stage), StagePhase::Queued { .. }));
    assert_eq!(cluster.cancel(stage), stage_over(stage, 1, Some(because())));
    cluster.is_over(stage);
}

#[test]
fn a_stage_that_has_ended_cannot_be_cancelled_again() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.cancel(stage);
    assert_eq!(cluster.phase(stage), StagePhase::Ended);
    cluster.ignores(cancelled(stage));
    cluster.killed_all(stage);
    cluster.ignores(cancelled(stage));
    let (stage, _) = cluster.submit(gang(2));
    cluster.ok_all(stage);
    cluster.ignores(cancelled(stage));
    cluster.ignores(cancelled(StageId(77)));
}

#[test]
fn a_plain_stage_between_two_waves_can_be_cancelled() {
    let mut cluster = Cluster::of(&[1, 1]);
    let (stage, _) = cluster.submit(plain(5));
    let (next, _) = cluster.submit(gang(2));
    let [zero, one] = [0, 1].map(|partition| cluster.task(stage, partition));
    let effects = cluster.cancel(stage);
    let [ended, told] = stage_over(stage, 1, Some(because()));
    let expected = [
        kill(E1, &[zero], REASON),
        kill(E2, &[one], REASON),
        set_timer(overdue(attempt(stage, 0)), GRACE),
        ended,
        told,
    ];
    assert_eq!(effects, expected, "it has no barrier to close");
    assert_eq!(launched_stages(&cluster.killed_all(stage)), [next]);
    cluster.is_over(stage);
}

#[test]
fn cancelling_one_stage_leaves_the_others_alone() {
    let mut cluster = Cluster::of(&[4]);
    let (kept, _) = cluster.submit(gang(2));
    let (stage, _) = cluster.submit(gang(2));
    let before = cluster.status(kept);
    cluster.cancel(stage);
    cluster.killed_all(stage);
    assert_eq!(cluster.status(kept), before);
}

#[test]
fn an_executor_lost_after_the_cancellation_ends_the_books_of_the_stage() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.cancel(stage);
    let effects = cluster.lose(E1);
    assert_eq!(without_events(effects), []);
    cluster.is_over(stage);
}

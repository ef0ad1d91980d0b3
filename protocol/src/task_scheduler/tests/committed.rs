//! Gangs that may run again only as long as none of their tasks has had its effects.

use super::*;

fn running() -> (Cluster, StageId) {
    let mut cluster = Cluster::of(&[1, 1, 1]);
    let spec = StageSpec { on_failure: OnFailure::RestartUnlessCommitted, ..gang(3) };
    let (stage, _) = cluster.submit(spec);
    (cluster, stage)
}

fn committed(committed: u32, cause: FailureCause) -> StageFailure {
    StageFailure::Committed { committed, cause }
}

#[test]
fn a_gang_of_which_nobody_has_succeeded_runs_again() {
    let (mut cluster, stage) = running();
    cluster.fail(cluster.task(stage, 0), "boom");
    assert_eq!(launched(&cluster.killed_all(stage)).len(), 3);
    for attempts in 2..4 {
        cluster.fail(cluster.task(stage, 0), "boom");
        assert_eq!(launched(&cluster.killed_all(stage)).len(), 3, "after {attempts} failures");
    }
    let cause = cause_of(&cluster.report(cluster.task(stage, 0), failed("boom")));
    let effects = cluster.fail(cluster.task(stage, 0), "boom");
    let failure = StageFailure::AttemptsExhausted { attempts: 4, cause };
    assert_eq!(results(&effects), [(stage, Err(failure))]);
}

#[test]
fn a_gang_of_which_some_have_succeeded_does_not_run_again() {
    let (mut cluster, stage) = running();
    cluster.ok(cluster.task(stage, 2));
    let report = cluster.report(cluster.task(stage, 0), failed("boom"));
    let cause = cause_of(&report);
    let effects = cluster.handle(SchedulerEvent::TaskReport(report));
    let failed = RuntimeEvent::AttemptFailed { cause: cause.clone(), will_retry: false };
    assert!(events(&effects).contains(&failed));
    let failure = committed(1, cause);
    let text = "cannot be run again: 1 of its tasks had succeeded, and what they did cannot be \
                repeated; partition 0 (task 0 of Stage 0 (Attempt 0) on executor 1) failed: boom";
    assert_eq!(failure.to_string(), text);
    assert_eq!(results(&effects), [(stage, Err(failure))]);
    assert_eq!(kills(&effects).len(), 1);
    cluster.killed_all(stage);
    cluster.is_over(stage);
}

#[test]
fn what_succeeded_in_an_attempt_before_does_not_count() {
    let (mut cluster, stage) = running();
    cluster.fail(cluster.task(stage, 0), "boom");
    cluster.killed_all(stage);
    cluster.fail(cluster.task(stage, 1), "boom");
    assert_eq!(launched(&cluster.killed_all(stage)).len(), 3);
    assert_eq!(results(&cluster.ok_all(stage)), [(stage, Ok(()))]);
}

#[test]
fn a_gang_of_which_one_succeeds_after_its_kill_does_not_run_again() {
    let (mut cluster, stage) = running();
    let cause = cause_of(&cluster.report(cluster.task(stage, 0), failed("boom")));
    cluster.fail(cluster.task(stage, 0), "boom");
    let effects = cluster.ok(cluster.task(stage, 1));
    assert_eq!(results(&effects), [(stage, Err(committed(1, cause)))]);
    cluster.ok(cluster.task(stage, 2));
    cluster.is_over(stage);
}

#[test]
fn what_a_task_on_a_lost_executor_has_done_nobody_knows() {
    let (mut cluster, stage) = running();
    let lost = TaskOutcome::Failed(executor_lost(E1));
    let cause = cause_of(&cluster.report(cluster.task(stage, 0), lost));
    let failure = committed(0, cause);
    let start = "cannot be run again: tasks on a lost executor may have succeeded, and what they \
                 did cannot be repeated; partition 0 ";
    assert!(failure.to_string().starts_with(start), "{failure}");
    assert_eq!(results(&cluster.lose(E1)), [(stage, Err(failure))]);
}

/// It was killed, and its report may have been on its way.
#[test]
fn nor_what_a_killed_task_on_a_lost_executor_has_done() {
    let (mut cluster, stage) = running();
    let cause = cause_of(&cluster.report(cluster.task(stage, 0), failed("boom")));
    cluster.fail(cluster.task(stage, 0), "boom");
    cluster.killed(cluster.task(stage, 1));
    assert_eq!(results(&cluster.lose(E3)), [(stage, Err(committed(0, cause)))]);
    cluster.is_over(stage);
}

#[test]
fn others_start_again_though_a_killed_task_was_lost() {
    let mut cluster = Cluster::of(&[1, 1, 1]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.fail(cluster.task(stage, 0), "boom");
    assert_eq!(launched(&cluster.lose(E2)).len(), 2);
}

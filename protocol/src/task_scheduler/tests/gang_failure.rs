//! The first failure of a gang, the kills and the next attempt.

use super::*;

/// Two executors of two slots and a gang of four: tasks 0 and 2 on the first, 1 and 3 on the other.
fn running(spec: StageSpec) -> (Cluster, StageId) {
    let mut cluster = Cluster::of(&[2, 2]);
    let (stage, effects) = cluster.submit(spec);
    assert_eq!(launched_on(&effects), [E1, E2, E1, E2]);
    (cluster, stage)
}

fn tasks<const N: usize>(
    cluster: &Cluster,
    stage: StageId,
    partitions: [u32; N],
) -> [TaskAttemptId; N] {
    partitions.map(|partition| cluster.task(stage, partition))
}

#[test]
fn the_first_failure_closes_the_barrier_and_kills_the_others_in_the_same_step() {
    let (mut cluster, stage) = running(gang(4));
    let [zero, one, two, three] = tasks(&cluster, stage, [0, 1, 2, 3]);
    let report = cluster.report(one, failed("boom"));
    let cause = cause_of(&report);
    let text = cause.to_string();
    assert_eq!(text, "partition 1 (task 1 of Stage 0 (Attempt 0) on executor 2) failed: boom");
    let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
    let first = attempt(stage, 0);
    let expected = [
        task_ended(&report),
        keep_payload(&report),
        SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, will_retry: true }),
        SchedulerEffect::DiscardPayloads(stage),
        closed(first, CloseReason::Failed(text.clone())),
        kill(E1, &[zero, two], &text),
        kill(E2, &[three], &text),
        set_timer(overdue(first), GRACE),
    ];
    assert_eq!(effects, expected);
    let waiting_for = [0, 2, 3].map(PartitionId).into_iter().collect();
    assert_eq!(cluster.phase(stage), StagePhase::Stopping { waiting_for });
}

#[test]
fn the_next_attempt_starts_in_the_step_in_which_the_last_killed_task_ends() {
    let (mut cluster, stage) = running(gang(4));
    let [zero, one, two, three] = tasks(&cluster, stage, [0, 1, 2, 3]);
    cluster.fail(one, "boom");
    for task in [three, zero] {
        let report = cluster.report(task, TaskOutcome::Failed(TaskFailure::Killed("ok".into())));
        let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
        assert_eq!(effects, [task_ended(&report)]);
    }
    let waiting_for = [PartitionId(2)].into_iter().collect();
    assert_eq!(cluster.phase(stage), StagePhase::Stopping { waiting_for });

    let effects = cluster.killed(two);
    let second = attempt(stage, 1);
    let [SchedulerEffect::OpenBarrier(open), ..] = &without_events(effects.clone())[..] else {
        panic!("the barrier must be open before the tasks run: {effects:#?}")
    };
    let fresh: Vec<_> = (4..8).map(TaskAttemptId).collect();
    let task_attempts = fresh.clone();
    assert_eq!(*open, OpenBarrier { attempt: second, task_attempts, sync_timeout: SYNC });
    let attempts: Vec<_> = launched(&effects).iter().map(|(attempt, _, _)| *attempt).collect();
    assert_eq!(attempts, [second; 4]);
    assert_eq!(cluster.tasks(stage), fresh, "task attempts are never used again");
}

#[test]
fn the_next_attempt_waits_for_the_pause_after_the_failure() {
    let (mut cluster, stage) = running(StageSpec { retry_delay: PAUSE, ..gang(4) });
    let one = cluster.task(stage, 1);
    let retry = SchedulerTimer::Retry(attempt(stage, 1));
    assert_eq!(cluster.fail(one, "boom").last(), Some(&set_timer(retry, PAUSE)));
    for task in tasks(&cluster, stage, [0, 2, 3]) {
        assert_eq!(without_events(cluster.killed(task)), []);
    }
    assert_eq!(cluster.phase(stage), StagePhase::BackingOff);
    assert_eq!(cluster.free_slots(), 4);
    let effects = cluster.fire(retry);
    assert_eq!(launched(&effects).len(), 4);
    assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 0 });
}

/// Who ignores its kill for longer than the pause delays the next attempt, and the pause no more.
#[test]
fn the_pause_may_be_over_before_the_last_task_has_ended() {
    let (mut cluster, stage) = running(StageSpec { retry_delay: PAUSE, ..gang(4) });
    let [zero, one, two, three] = tasks(&cluster, stage, [0, 1, 2, 3]);
    cluster.fail(one, "boom");
    cluster.killed(zero);
    cluster.killed(two);
    assert_eq!(cluster.fire(SchedulerTimer::Retry(attempt(stage, 1))), []);
    let waiting_for = [PartitionId(3)].into_iter().collect();
    assert_eq!(cluster.phase(stage), StagePhase::Stopping { waiting_for });
    assert_eq!(launched(&cluster.killed(three)).len(), 4);
    assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 0 });
}

#[test]
fn the_slots_are_free_for_others_during_the_pause() {
    let (mut cluster, stage) = running(StageSpec { retry_delay: PAUSE, ..gang(4) });
    let one = cluster.task(stage, 1);
    cluster.fail(one, "boom");
    cluster.killed_all(stage);
    let (other, effects) = cluster.submit(plain(1));
    assert_eq!(launched_stages(&effects), [other]);
    let effects = cluster.fire(SchedulerTimer::Retry(attempt(stage, 1)));
    assert_eq!(launched(&effects), []);
    let phase = StagePhase::Queued { required: 4, free: 3, ahead: 0, reserves: false };
    assert_eq!(cluster.phase(stage), phase);
    assert_eq!(launched_stages(&cluster.ok_all(other)), [stage]);
}

#[test]
fn tasks_that_had_succeeded_before_the_failure_run_again() {
    let (mut cluster, stage) = running(gang(4));
    let [zero, one] = tasks(&cluster, stage, [0, 1]);
    cluster.ok(zero);
    let effects = cluster.fail(one, "boom");
    assert!(effects.contains(&SchedulerEffect::DiscardPayloads(stage)));
    let killed: Vec<_> = kills(&effects).into_iter().flat_map(|(_, tasks)| tasks).collect();
    assert_eq!(killed, tasks(&cluster, stage, [2, 3]), "who has ended is not killed");
    assert_eq!(launched(&cluster.killed_all(stage)).len(), 4);
    assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 0 });
}

#[test]
fn a_success_that_arrives_after_the_first_failure_does_not_count() {
    let (mut cluster, stage) = running(gang(4));
    let [zero, one] = tasks(&cluster, stage, [0, 1]);
    cluster.fail(one, "boom");
    let report = cluster.report(zero, TaskOutcome::Succeeded);
    let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
    assert_eq!(effects, [task_ended(&report)], "its payload is not kept");
    assert_eq!(launched(&cluster.killed_all(stage)).len(), 4);
    for partition in 0..3 {
        let effects = cluster.ok(cluster.task(stage, partition));
        assert_eq!(results(&effects), [], "all four must succeed in this attempt");
    }
    let effects = cluster.ok(cluster.task(stage, 3));
    let [ended, told] = stage_over(stage, 2, None);
    assert!(effects.ends_with(&[ended, told]), "{effects:#?}");
}

#[test]
fn all_that_follow_the_first_failure_do_not_count() {
    let (mut cluster, stage) = running(StageSpec { max_attempts: 2, ..gang(4) });
    let [zero, one, two, three] = tasks(&cluster, stage, [0, 1, 2, 3]);
    let cause = cause_of(&cluster.report(one, failed("the first")));
    cluster.fail(one, "the first");
    for effects in [cluster.fail(zero, "the second"), cluster.fail(two, "the third")] {
        assert_eq!(without_events(effects), []);
    }
    assert_eq!(launched(&cluster.killed(three)).len(), 4);
    let status = cluster.status(stage);
    assert_eq!((status.failures, status.infrastructure_failures), (1, 0));
    assert_eq!(status.last_cause, Some(cause));
    assert_eq!(status.attempt, attempt(stage, 1));
}

#[test]
fn other_stages_on_the_same_executors_are_left_alone() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (healthy, _) = cluster.submit(gang(2));
    let (failing, _) = cluster.submit(gang(2));
    let before = cluster.status(healthy);
    let effects = cluster.fail(cluster.task(failing, 0), "boom");
    assert_eq!(kills(&effects), [(E2, vec![cluster.task(failing, 1)])]);
    assert_eq!(cluster.status(healthy), before);
}

#[test]
fn the_slot_of_a_task_that_ended_serves_others_while_its_gang_is_stopping() {
    let (mut cluster, stage) = running(gang(4));
    let (small, _) = cluster.submit(plain(1));
    let effects = cluster.fail(cluster.task(stage, 1), "boom");
    assert_eq!(launched_stages(&effects), [small]);
    cluster.killed_all(stage);
    let phase = StagePhase::Queued { required: 4, free: 3, ahead: 0, reserves: false };
    assert_eq!(cluster.phase(stage), phase);
}

#[test]
fn after_a_failure_the_executor_is_avoided_if_the_others_suffice() {
    let mut cluster = Cluster::of(&[2, 2, 2]);
    let (stage, effects) = cluster.submit(gang(3));
    assert_eq!(launched_on(&effects), [E1, E2, E3]);
    cluster.fail(cluster.task(stage, 1), "bad node");
    let effects = cluster.killed_all(stage);
    assert_eq!(launched_on(&effects), [E1, E3, E1]);
}

#[test]
fn after_a_failure_the_executor_is_used_if_the_others_do_not_suffice() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (stage, _) = cluster.submit(gang(3));
    cluster.fail(cluster.task(stage, 1), "bad node");
    let effects = cluster.killed_all(stage);
    assert_eq!(launched(&effects).len(), 3);
    assert!(launched_on(&effects).contains(&E2));
}

#[test]
fn executors_with_more_failures_are_used_after_those_with_fewer() {
    let mut cluster = Cluster::of(&[1, 1, 1]);
    let (stage, effects) = cluster.submit(gang(2));
    assert_eq!(launched_on(&effects), [E1, E2]);
    for (failing, next) in [(0, [E2, E3]), (0, [E3, E1]), (1, [E3, E2])] {
        cluster.fail(cluster.task(stage, failing), "boom");
        assert_eq!(launched_on(&cluster.killed_all(stage)), next);
    }
}

#[test]
fn an_executor_on_which_one_stage_failed_is_as_good_as_any_for_another() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (stage, _) = cluster.submit(gang(1));
    let effects = cluster.fail(cluster.task(stage, 0), "boom");
    assert_eq!(launched_on(&effects), [E2]);
    let (_, effects) = cluster.submit(gang(2));
    assert_eq!(launched_on(&effects), [E1, E2]);
}

#[test]
fn an_executor_that_could_not_start_a_task_is_avoided_too() {
    let mut cluster = Cluster::of(&[1, 1]);
    let (stage, effects) = cluster.submit(gang(1));
    assert_eq!(launched_on(&effects), [E1]);
    let not_started = TaskFailure::NotStarted("no such program".to_owned());
    let effects = cluster.end(cluster.task(stage, 0), TaskOutcome::Failed(not_started));
    assert_eq!(launched_on(&effects), [E2]);
}

//! How often a gang is tried, and what it says when it gives up.

use super::*;

/// One executor with two slots and a gang of two on it.
fn running(spec: StageSpec) -> (Cluster, StageId) {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(spec);
    (cluster, stage)
}

/// Partition 0 fails first and partition 1 ends; the effects of both steps.
fn fail_attempt(cluster: &mut Cluster, stage: StageId, error: &str) -> Effects {
    let peer = cluster.task(stage, 1);
    let mut effects = cluster.fail(cluster.task(stage, 0), error);
    effects.extend(cluster.killed(peer));
    effects
}

#[test]
fn attempts_are_used_up_with_their_number_and_the_first_cause_of_the_last() {
    let (mut cluster, stage) = running(StageSpec { max_attempts: 3, ..gang(2) });
    for number in 1..3 {
        let effects = fail_attempt(&mut cluster, stage, "boom");
        assert_eq!(launched(&effects).len(), 2);
        assert_eq!(cluster.status(stage).failures, number);
        assert_eq!(cluster.status(stage).attempt, attempt(stage, number));
    }
    let last = cluster.task(stage, 0);
    let cause = cause_of(&cluster.report(last, failed("the last straw")));
    let effects = fail_attempt(&mut cluster, stage, "the last straw");
    let failure = StageFailure::AttemptsExhausted { attempts: 3, cause };
    assert_eq!(results(&effects), [(stage, Err(failure))]);
    assert_eq!(launched(&effects), []);
    cluster.is_over(stage);
}

#[test]
fn the_last_failure_ends_the_stage_in_the_same_step_and_keeps_its_error() {
    let (mut cluster, stage) = running(StageSpec { max_attempts: 1, ..gang(2) });
    let [zero, one] = [0, 1].map(|partition| cluster.task(stage, partition));
    let report = cluster.report(zero, failed("boom"));
    let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
    let first = attempt(stage, 0);
    let cause = cause_of(&report);
    let text = cause.to_string();
    let failure = StageFailure::AttemptsExhausted { attempts: 1, cause: cause.clone() };
    let [ended, told] = stage_over(stage, 1, Some(failure));
    let expected = [
        task_ended(&report),
        keep_payload(&report),
        SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, will_retry: false }),
        closed(first, CloseReason::Failed(text.clone())),
        kill(E1, &[one], &text),
        set_timer(overdue(first), GRACE),
        ended,
        told,
    ];
    assert_eq!(effects, expected);
}

#[test]
fn a_stage_with_a_result_is_remembered_until_its_last_task_has_ended() {
    let (mut cluster, stage) = running(StageSpec { max_attempts: 1, ..gang(2) });
    let one = cluster.task(stage, 1);
    cluster.fail(cluster.task(stage, 0), "boom");
    assert_eq!(cluster.phase(stage), StagePhase::Ended);
    assert_eq!(cluster.free_slots(), 1);
    let report = cluster.report(one, TaskOutcome::Succeeded);
    let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
    assert_eq!(effects, [task_ended(&report)], "no second result");
    cluster.is_over(stage);
    assert_eq!(cluster.free_slots(), 2);
}

#[test]
fn later_failures_do_not_replace_the_first_cause() {
    let (mut cluster, stage) = running(StageSpec { max_attempts: 1, ..gang(2) });
    let one = cluster.task(stage, 1);
    let effects = cluster.fail(cluster.task(stage, 0), "the first");
    let [(_, Err(failure))] = &results(&effects)[..] else { panic!("{effects:#?}") };
    let cause = failure.first_cause().expect("a task failed");
    assert_eq!(cause.failure, TaskFailure::Error("the first".to_owned()));
    assert_eq!(results(&cluster.fail(one, "the second")), []);
}

#[test]
fn panics_count_like_errors() {
    let (mut cluster, stage) = running(StageSpec { max_attempts: 1, ..gang(2) });
    let panicked = TaskFailure::Panicked("index out of bounds".to_owned());
    let effects = cluster.end(cluster.task(stage, 0), TaskOutcome::Failed(panicked.clone()));
    let [(_, Err(StageFailure::AttemptsExhausted { attempts: 1, cause }))] = &results(&effects)[..]
    else {
        panic!("{effects:#?}")
    };
    assert_eq!(cause.failure, panicked);
}

#[test]
fn losses_have_a_budget_of_their_own() {
    let spec = StageSpec { max_attempts: 1, max_infrastructure_failures: 2, ..gang(2) };
    let (mut cluster, stage) = running(spec);
    for life in 1..=2 {
        cluster.lose(E1);
        let effects = cluster.handle(joined(E1, life, cpus(2)));
        assert_eq!(launched(&effects).len(), 2, "loss {life} is allowed");
        let status = cluster.status(stage);
        assert_eq!((status.failures, status.infrastructure_failures), (0, life));
    }
    let cause = FailureCause {
        attempt: attempt(stage, 2),
        origin: Some(TaskOrigin {
            partition: PartitionId(0),
            task_attempt: cluster.task(stage, 0),
            executor: E1,
        }),
        failure: executor_lost(E1),
    };
    let effects = cluster.lose(E1);
    let failure = StageFailure::InfrastructureExhausted { losses: 3, allowed: 2, cause };
    assert_eq!(results(&effects), [(stage, Err(failure))]);
    cluster.is_over(stage);
}

#[test]
fn errors_do_not_use_up_the_budget_of_losses() {
    let spec = StageSpec { max_attempts: 3, max_infrastructure_failures: 1, ..gang(2) };
    let (mut cluster, stage) = running(spec);
    fail_attempt(&mut cluster, stage, "boom");
    fail_attempt(&mut cluster, stage, "boom");
    cluster.lose(E1);
    let effects = cluster.handle(joined(E1, 1, cpus(2)));
    assert_eq!(launched(&effects).len(), 2);
    let status = cluster.status(stage);
    assert_eq!((status.failures, status.infrastructure_failures), (2, 1));
    assert_eq!(status.attempt, attempt(stage, 3));
    let effects = fail_attempt(&mut cluster, stage, "boom");
    let [(_, Err(StageFailure::AttemptsExhausted { attempts: 3, .. }))] = &results(&effects)[..]
    else {
        panic!("the loss is not one of the attempts: {effects:#?}")
    };
}

#[test]
fn a_task_that_could_not_be_started_counts_as_a_loss() {
    let spec = StageSpec { max_attempts: 1, max_infrastructure_failures: 1, ..gang(2) };
    let (mut cluster, stage) = running(spec);
    let not_started = TaskOutcome::Failed(TaskFailure::NotStarted("no memory".to_owned()));
    cluster.end(cluster.task(stage, 0), not_started.clone());
    cluster.killed_all(stage);
    assert_eq!(cluster.status(stage).infrastructure_failures, 1);
    let effects = cluster.end(cluster.task(stage, 0), not_started);
    let [(_, Err(StageFailure::InfrastructureExhausted { losses: 2, allowed: 1, .. }))] =
        &results(&effects)[..]
    else {
        panic!("{effects:#?}")
    };
}

#[test]
fn an_aborting_stage_fails_at_its_first_error() {
    let (mut cluster, stage) = running(StageSpec { on_failure: OnFailure::Abort, ..gang(2) });
    let report = cluster.report(cluster.task(stage, 1), failed("boom"));
    let cause = cause_of(&report);
    let effects = cluster.handle(SchedulerEvent::TaskReport(report));
    assert_eq!(results(&effects), [(stage, Err(StageFailure::Aborted { cause }))]);
    assert_eq!(kills(&effects).len(), 1);
    assert_eq!(launched(&cluster.killed_all(stage)), []);
    cluster.is_over(stage);
}

#[test]
fn an_aborting_stage_fails_at_its_first_loss() {
    let (mut cluster, stage) = running(StageSpec { on_failure: OnFailure::Abort, ..gang(2) });
    let effects = cluster.lose(E1);
    let [(_, Err(StageFailure::Aborted { cause }))] = &results(&effects)[..] else {
        panic!("{effects:#?}")
    };
    assert_eq!(cause.failure, executor_lost(E1));
    cluster.is_over(stage);

    let (mut cluster, stage) = running(StageSpec { on_failure: OnFailure::Abort, ..gang(2) });
    let (attempt, reason) = (attempt(stage, 0), "gone".to_owned());
    let effects = cluster.handle(SchedulerEvent::BarrierLost { attempt, reason });
    let failure = TaskFailure::BarrierLost("gone".to_owned());
    let cause = FailureCause { attempt, origin: None, failure };
    assert_eq!(results(&effects), [(stage, Err(StageFailure::Aborted { cause }))]);
}

#[test]
fn an_aborting_stage_fails_when_one_of_its_tasks_is_killed() {
    for spec in [gang(2), plain(2)] {
        let (mut cluster, stage) = running(StageSpec { on_failure: OnFailure::Abort, ..spec });
        let other = cluster.task(stage, 1);
        let mut effects = cluster.handle(kill_partition(stage, 0));
        effects.extend(cluster.killed(cluster.task(stage, 0)));
        let [(_, Err(StageFailure::Aborted { .. }))] = &results(&effects)[..] else {
            panic!("{effects:#?}")
        };
        assert_eq!(kills(&effects).last(), Some(&(E1, vec![other])));
    }
}

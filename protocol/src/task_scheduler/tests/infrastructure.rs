//! Losses of executors and barrier coordinators under a running gang.

use super::*;

fn barrier_lost(attempt: StageAttemptId) -> SchedulerEvent {
    SchedulerEvent::BarrierLost { attempt, reason: "its actor died".to_owned() }
}

#[test]
fn a_lost_executor_fails_the_gang_on_it_and_kills_its_other_tasks() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (stage, _) = cluster.submit(gang(4));
    let outcome = TaskOutcome::Failed(executor_lost(E2));
    let [one, three] =
        [1, 3].map(|task| cluster.report(cluster.task(stage, task), outcome.clone()));
    let survivors = [0, 2].map(|partition| cluster.task(stage, partition));
    let effects = cluster.lose(E2);
    let (first, cause) = (attempt(stage, 0), cause_of(&one));
    let text = cause.to_string();
    let expected = [
        SchedulerEffect::Emit(RuntimeEvent::ExecutorLost {
            executor: E2,
            incarnation: Incarnation(0),
            reason: "went away".to_owned(),
        }),
        task_ended(&one),
        SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, will_retry: true }),
        SchedulerEffect::DiscardPayloads(stage),
        closed(first, CloseReason::Failed(text.clone())),
        kill(E1, &survivors, &text),
        set_timer(overdue(first), GRACE),
        task_ended(&three),
    ];
    assert_eq!(effects, expected);
    assert_eq!(cluster.status(stage).infrastructure_failures, 1, "one loss, not one per task");
}

#[test]
fn a_gang_without_tasks_on_the_lost_executor_goes_on() {
    let mut cluster = Cluster::of(&[2]);
    let (healthy, _) = cluster.submit(gang(2));
    cluster.join(E2, cpus(2));
    let (hit, _) = cluster.submit(gang(2));
    let before = cluster.status(healthy);
    let effects = cluster.lose(E2);
    assert_eq!(kills(&effects), []);
    assert_eq!(cluster.status(healthy), before);
    assert_eq!(cluster.status(hit).attempt, attempt(hit, 1));
}

#[test]
fn a_gang_that_lost_all_its_tasks_starts_elsewhere_in_the_same_step() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.join(E2, cpus(2));
    let effects = cluster.lose(E1);
    let second = attempt(stage, 1);
    let expected = [0, 1].map(|partition| (second, PartitionId(partition), E2));
    assert_eq!(launched(&effects), expected);
}

#[test]
fn a_gang_that_lost_its_slots_is_deferred_until_others_come() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (stage, _) = cluster.submit(gang(4));
    cluster.lose(E2);
    cluster.killed_all(stage);
    let phase = StagePhase::Deferred { required: 4, available: 2, checks_left: 3 };
    assert_eq!(cluster.phase(stage), phase);
    assert_eq!(launched(&cluster.join(E3, cpus(2))).len(), 4);
}

#[test]
fn tasks_that_had_succeeded_on_the_lost_executor_run_again_with_the_gang() {
    let mut cluster = Cluster::of(&[1, 1, 1]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.ok(cluster.task(stage, 0));
    let effects = cluster.lose(E1);
    assert_eq!(kills(&effects), [], "a value that was handed over is not lost");
    let effects = cluster.lose(E2);
    assert_eq!(launched(&effects), [], "one slot is left");
    let effects = cluster.join(E4, cpus(1));
    assert_eq!(launched(&effects).len(), 2);
}

#[test]
fn a_second_executor_lost_while_the_gang_is_stopping_is_not_a_second_failure() {
    let mut cluster = Cluster::of(&[1, 1, 1, 1]);
    let (stage, _) = cluster.submit(gang(3));
    cluster.lose(E1);
    cluster.lose(E2);
    assert_eq!(cluster.status(stage).infrastructure_failures, 1);
    let waiting_for = [PartitionId(2)].into_iter().collect();
    assert_eq!(cluster.phase(stage), StagePhase::Stopping { waiting_for });
}

#[test]
fn an_executor_lost_while_the_gang_is_stopping_ends_the_wait_for_its_tasks() {
    let mut cluster = Cluster::of(&[1, 1, 1, 1]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.fail(cluster.task(stage, 0), "boom");
    let effects = cluster.lose(E2);
    assert_eq!(launched_on(&effects), [E3, E4]);
    let status = cluster.status(stage);
    assert_eq!((status.failures, status.infrastructure_failures), (1, 0));
}

#[test]
fn a_lost_coordinator_fails_the_running_attempt_without_an_origin() {
    let mut cluster = Cluster::of(&[1, 1]);
    let (stage, _) = cluster.submit(gang(2));
    let [zero, one] = [0, 1].map(|partition| cluster.task(stage, partition));
    let first = attempt(stage, 0);
    let effects = cluster.handle(barrier_lost(first));
    let failure = TaskFailure::BarrierLost("its actor died".to_owned());
    let cause = FailureCause { attempt: first, origin: None, failure };
    let text = cause.to_string();
    let expected = [
        SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, will_retry: true }),
        SchedulerEffect::DiscardPayloads(stage),
        closed(first, CloseReason::Failed(text.clone())),
        kill(E1, &[zero], &text),
        kill(E2, &[one], &text),
        set_timer(overdue(first), GRACE),
    ];
    assert_eq!(effects, expected);
    assert_eq!(launched(&cluster.killed_all(stage)).len(), 2);
    let status = cluster.status(stage);
    assert_eq!((status.failures, status.infrastructure_failures), (0, 1));
}

#[test]
fn coordinators_and_executors_share_the_budget_of_losses() {
    let mut cluster = Cluster::of(&[1, 1]);
    let spec = StageSpec { max_infrastructure_failures: 1, ..gang(1) };
    let (stage, _) = cluster.submit(spec);
    assert_eq!(launched_on(&cluster.lose(E1)), [E2]);
    let effects = cluster.handle(barrier_lost(attempt(stage, 1)));
    let [(_, Err(StageFailure::InfrastructureExhausted { losses: 2, allowed: 1, cause }))] =
        &results(&effects)[..]
    else {
        panic!("{effects:#?}")
    };
    assert_eq!(cause.origin, None);
    assert_eq!(kills(&effects).len(), 1);
}

#[test]
fn the_loss_of_another_coordinator_than_that_of_the_running_attempt_is_ignored() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.fail(cluster.task(stage, 0), "boom");
    cluster.ignores(barrier_lost(attempt(stage, 0)));
    cluster.killed_all(stage);
    cluster.ignores(barrier_lost(attempt(stage, 0)));
    cluster.ignores(barrier_lost(attempt(stage, 2)));
    cluster.ignores(barrier_lost(attempt(StageId(77), 0)));
    let (waiting, _) = cluster.submit(gang(2));
    cluster.ignores(barrier_lost(attempt(waiting, 0)));
    cluster.cancel(stage);
    cluster.ignores(barrier_lost(attempt(stage, 1)));
}

#[test]
fn a_plain_stage_has_no_coordinator_to_lose() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(plain(2));
    cluster.ignores(barrier_lost(attempt(stage, 0)));
}

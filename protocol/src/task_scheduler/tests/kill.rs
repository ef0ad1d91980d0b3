//! Killing one partition.

use super::*;

fn killed_by_hand() -> TaskOutcome {
    TaskOutcome::Failed(TaskFailure::Killed("by hand".to_owned()))
}

#[test]
fn killing_a_partition_fails_its_gang_at_once_with_this_kill_as_the_cause() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    let [zero, one] = [0, 1].map(|partition| cluster.task(stage, partition));
    let effects = cluster.handle(kill_partition(stage, 1));
    let cause = effects.iter().find_map(|effect| match effect {
        SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, .. }) => Some(cause.clone()),
        _ => None,
    });
    let cause = cause.expect("the attempt failed");
    assert_eq!(cause.failure, TaskFailure::Killed("by hand".to_owned()));
    assert_eq!(cause.origin.map(|origin| origin.task_attempt), Some(one));
    let text = cause.to_string();
    let killed = [kill(E1, &[one], "by hand"), kill(E1, &[zero], &text)];
    let is_kill = |it: &&SchedulerEffect| matches!(it, SchedulerEffect::KillTask { .. });
    let kills = effects.iter().filter(is_kill);
    assert!(kills.eq(&killed), "{effects:#?}");
    assert!(effects.contains(&closed(attempt(stage, 0), CloseReason::Failed(text))));
    assert_eq!(launched(&cluster.killed_all(stage)).len(), 2);
    let status = cluster.status(stage);
    assert_eq!((status.failures, status.last_cause), (1, Some(cause)));
}

#[test]
fn who_fails_because_another_was_killed_is_not_the_cause() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, effects) = cluster.submit(StageSpec { max_attempts: 1, ..gang(2) });
    assert_eq!(launched(&effects).len(), 2);
    let zero = cluster.task(stage, 0);
    let effects = cluster.handle(kill_partition(stage, 1));
    let [(_, Err(failure))] = &results(&effects)[..] else { panic!("{effects:#?}") };
    let cause = failure.first_cause().unwrap();
    assert_eq!(cause.failure, TaskFailure::Killed("by hand".to_owned()));
    assert_eq!(results(&cluster.fail(zero, "the other is gone")), []);
}

#[test]
fn a_killed_plain_task_that_succeeds_all_the_same_is_a_success() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(plain(2));
    cluster.handle(kill_partition(stage, 1));
    assert_eq!(results(&cluster.ok_all(stage)), [(stage, Ok(()))]);
}

#[test]
fn killing_a_partition_of_a_plain_stage_makes_it_run_again() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(plain(2));
    let zero = cluster.task(stage, 0);
    let effects = cluster.handle(kill_partition(stage, 0));
    assert_eq!(kills(&effects), [(E1, vec![zero])]);
    let effects = cluster.end(zero, killed_by_hand());
    assert_eq!(launched(&effects), [(attempt(stage, 0), PartitionId(0), E1)]);
    assert_eq!(kills(&effects), [], "its sibling runs on");
}

#[test]
fn killing_what_does_not_run_is_ignored() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.ignores(kill_partition(stage, 2));
    cluster.ignores(kill_partition(StageId(77), 0));
    cluster.ok(cluster.task(stage, 0));
    cluster.ignores(kill_partition(stage, 0));
    let (waiting, _) = cluster.submit(gang(2));
    cluster.ignores(kill_partition(waiting, 0));
    let (deferred, _) = cluster.submit(gang(3));
    cluster.ignores(kill_partition(deferred, 0));
}

#[test]
fn killing_what_is_already_killed_is_ignored() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.handle(kill_partition(stage, 1));
    cluster.ignores(kill_partition(stage, 1));
    cluster.fail(cluster.task(stage, 0), "boom");
    cluster.ignores(kill_partition(stage, 1));
    cluster.cancel(stage);
    cluster.ignores(kill_partition(stage, 1));
}

#[test]
fn killing_a_partition_whose_retry_waits_is_ignored() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(StageSpec { retry_delay: PAUSE, ..gang(2) });
    cluster.fail(cluster.task(stage, 0), "boom");
    cluster.killed_all(stage);
    assert_eq!(cluster.phase(stage), StagePhase::BackingOff);
    cluster.ignores(kill_partition(stage, 0));
}

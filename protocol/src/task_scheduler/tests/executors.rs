//! Executors come and go.

use super::*;

fn joined_event(
    executor: ExecutorId,
    incarnation: u32,
    resources: ExecutorResources,
) -> SchedulerEffect {
    let incarnation = Incarnation(incarnation);
    SchedulerEffect::Emit(RuntimeEvent::ExecutorJoined { executor, incarnation, resources })
}

#[test]
fn an_executor_that_joins_is_told_and_visible() {
    let mut cluster = Cluster::of(&[]);
    assert_eq!(cluster.join(E2, cpus(3)), [joined_event(E2, 0, cpus(3))]);
    cluster.join(E1, cpus(1));
    cluster.submit(gang(3));
    let status = |executor, resources, running| ExecutorStatus {
        executor,
        incarnation: Incarnation(0),
        address: super::address(executor),
        resources,
        running,
    };
    let expected = [status(E1, cpus(1), 1), status(E2, cpus(3), 2)];
    assert_eq!(cluster.machine.executors().collect::<Vec<_>>(), expected);
}

#[test]
fn an_executor_that_joins_serves_the_stages_in_line() {
    let mut cluster = Cluster::of(&[2]);
    cluster.submit(gang(2));
    let (waiting, _) = cluster.submit(gang(2));
    assert_eq!(launched_stages(&cluster.join(E2, cpus(2))), [waiting]);
}

#[test]
fn an_executor_that_joins_serves_the_rest_of_a_plain_stage() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, _) = cluster.submit(plain(4));
    let effects = cluster.join(E2, cpus(2));
    let expected = [1, 2].map(|partition| (attempt(stage, 0), PartitionId(partition), E2));
    assert_eq!(launched(&effects), expected);
}

#[test]
fn an_executor_that_joins_again_under_the_same_or_an_earlier_life_is_ignored() {
    let mut cluster = Cluster::of(&[]);
    cluster.handle(joined(E1, 3, cpus(2)));
    cluster.submit(gang(2));
    for life in 0..=3 {
        cluster.ignores(joined(E1, life, cpus(9)));
    }
}

#[test]
fn a_lost_executor_cannot_join_again_under_the_life_that_was_lost() {
    let mut cluster = Cluster::of(&[]);
    cluster.handle(joined(E1, 3, cpus(2)));
    cluster.lose(E1);
    for life in [0, 3] {
        cluster.ignores(joined(E1, life, cpus(2)));
    }
    let effects = cluster.handle(joined(E1, 4, cpus(2)));
    assert_eq!(effects, [joined_event(E1, 4, cpus(2))]);
}

#[test]
fn a_newer_life_of_an_executor_loses_the_older_one_first() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    let effects = cluster.handle(joined(E1, 1, cpus(2)));
    let position =
        |wanted: &dyn Fn(&RuntimeEvent) -> bool| events(&effects).iter().position(wanted);
    let lost = position(&|event| {
        matches!(event, RuntimeEvent::ExecutorLost { executor: E1, incarnation, .. }
            if *incarnation == Incarnation(0))
    });
    let come = position(&|event| {
        matches!(event, RuntimeEvent::ExecutorJoined { executor: E1, incarnation, .. }
            if *incarnation == Incarnation(1))
    });
    assert!(lost.expect("it was lost") < come.expect("it has joined"));
    assert_eq!(launched(&effects).len(), 2, "the gang goes on in the new life");
    let status = cluster.status(stage);
    assert_eq!((status.attempt, status.infrastructure_failures), (attempt(stage, 1), 1));
}

#[test]
fn a_newer_life_brings_its_own_resources() {
    let mut cluster = Cluster::of(&[2]);
    cluster.handle(joined(E1, 1, cpus(5)));
    assert_eq!(cluster.free_slots(), 5);
    let known: Vec<_> = cluster.machine.executors().collect();
    let [ExecutorStatus { incarnation: Incarnation(1), running: 0, .. }] = known[..] else {
        panic!("{known:?}")
    };
}

#[test]
fn an_idle_executor_that_goes_is_told_and_forgotten() {
    let mut cluster = Cluster::of(&[2, 1]);
    let expected = RuntimeEvent::ExecutorLost {
        executor: E1,
        incarnation: Incarnation(0),
        reason: "went away".to_owned(),
    };
    assert_eq!(cluster.lose(E1), [SchedulerEffect::Emit(expected)]);
    assert_eq!(cluster.free_slots(), 1);
    assert_eq!(cluster.machine.executors().count(), 1);
}

#[test]
fn the_loss_of_an_earlier_life_and_a_second_loss_are_ignored() {
    let mut cluster = Cluster::of(&[]);
    cluster.handle(joined(E1, 2, cpus(2)));
    cluster.submit(gang(2));
    cluster.ignores(lost(E1, Incarnation(1)));
    cluster.lose(E1);
    cluster.ignores(lost(E1, Incarnation(2)));
}

/// Its joining is still on the way. Believed then, it would be a place from which no task ever
/// reports.
#[test]
fn a_life_that_is_lost_before_it_joins_does_not_join() {
    let mut cluster = Cluster::of(&[]);
    assert_eq!(cluster.handle(lost(E1, Incarnation(1))), []);
    for life in [0, 1] {
        cluster.ignores(joined(E1, life, cpus(2)));
    }
    cluster.handle(joined(E1, 2, cpus(2)));
    assert_eq!(cluster.free_slots(), 2);
}

#[test]
fn the_loss_of_a_life_that_has_not_joined_is_the_loss_of_the_one_before() {
    let mut cluster = Cluster::of(&[]);
    cluster.handle(joined(E1, 2, cpus(2)));
    let expected = RuntimeEvent::ExecutorLost {
        executor: E1,
        incarnation: Incarnation(2),
        reason: "went away".to_owned(),
    };
    assert_eq!(cluster.handle(lost(E1, Incarnation(3))), [SchedulerEffect::Emit(expected)]);
    cluster.ignores(joined(E1, 3, cpus(2)));
    assert_eq!(cluster.machine.executors().count(), 0);
}

#[test]
fn a_report_from_a_lost_executor_is_ignored() {
    let mut cluster = Cluster::of(&[1, 1]);
    let (stage, _) = cluster.submit(gang(2));
    let report = cluster.report(cluster.task(stage, 0), TaskOutcome::Succeeded);
    cluster.lose(E1);
    cluster.ignores(SchedulerEvent::TaskReport(report.clone()));
    cluster.handle(joined(E1, 1, cpus(1)));
    cluster.ignores(SchedulerEvent::TaskReport(report));
}

#[test]
fn slots_of_a_lost_executor_are_gone_for_those_in_line() {
    let mut cluster = Cluster::of(&[1, 1]);
    let (load, _) = cluster.submit(plain(2));
    let (waiting, _) = cluster.submit(gang(1));
    let effects = cluster.lose(E2);
    assert_eq!(launched(&effects), []);
    let phase = StagePhase::Queued { required: 1, free: 0, ahead: 1, reserves: false };
    assert_eq!(cluster.phase(waiting), phase);
    assert_eq!(launched(&cluster.ok_all(load)), [(attempt(load, 0), PartitionId(1), E1)]);
}

#[test]
fn all_executors_can_go_and_the_work_waits_for_new_ones() {
    let mut cluster = Cluster::of(&[1, 1]);
    let (running, _) = cluster.submit(gang(2));
    let (waiting, _) = cluster.submit(plain(1));
    cluster.lose(E1);
    cluster.lose(E2);
    let deferred = |required| StagePhase::Deferred { required, available: 0, checks_left: 3 };
    assert_eq!(cluster.phase(running), deferred(2));
    assert_eq!(cluster.phase(waiting), deferred(1));
    assert_eq!(launched_stages(&cluster.join(E3, cpus(3))), [running, waiting]);
}

//! The end of everything.

use super::*;

fn drained(effects: &Effects) -> usize {
    effects.iter().filter(|effect| **effect == SchedulerEffect::Drained).count()
}

#[test]
fn an_idle_scheduler_is_drained_at_once() {
    let mut cluster = Cluster::of(&[2]);
    assert_eq!(cluster.handle(SchedulerEvent::Shutdown), [SchedulerEffect::Drained]);
}

#[test]
fn every_stage_ends_with_shutdown_in_every_phase() {
    let mut cluster = Cluster::of(&[4]);
    let (running, _) = cluster.submit(gang(2));
    let (backing_off, _) = cluster.submit(StageSpec { retry_delay: PAUSE, ..gang(1) });
    cluster.fail(cluster.task(backing_off, 0), "boom");
    let (stopping, _) = cluster.submit(gang(2));
    cluster.fail(cluster.task(stopping, 0), "boom");
    let (waves, _) = cluster.submit(plain(3));
    let (queued, _) = cluster.submit(gang(4));
    let (deferred, _) = cluster.submit(gang(5));
    let effects = cluster.handle(SchedulerEvent::Shutdown);
    let ended = [running, backing_off, stopping, waves, queued, deferred]
        .map(|stage| (stage, Err(StageFailure::Shutdown)));
    assert_eq!(results(&effects), ended);
    assert_eq!(drained(&effects), 0, "tasks still run");
    for stage in [backing_off, queued, deferred] {
        cluster.is_over(stage);
    }
    for stage in [running, stopping, waves] {
        assert_eq!(cluster.phase(stage), StagePhase::Ended);
    }
}

#[test]
fn running_tasks_are_killed_and_the_barrier_is_closed() {
    let mut cluster = Cluster::of(&[1, 1]);
    let (stage, _) = cluster.submit(gang(2));
    let [zero, one] = [0, 1].map(|partition| cluster.task(stage, partition));
    let effects = cluster.handle(SchedulerEvent::Shutdown);
    let [ended, told] = stage_over(stage, 1, Some(StageFailure::Shutdown));
    let expected = [
        closed(attempt(stage, 0), CloseReason::Shutdown),
        kill(E1, &[zero], "the runtime shuts down"),
        kill(E2, &[one], "the runtime shuts down"),
        set_timer(overdue(attempt(stage, 0)), GRACE),
        ended,
        told,
    ];
    assert_eq!(effects, expected);
}

#[test]
fn drained_is_said_when_the_last_task_has_reported() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    let [zero, one] = [0, 1].map(|partition| cluster.task(stage, partition));
    assert_eq!(drained(&cluster.handle(SchedulerEvent::Shutdown)), 0);
    assert_eq!(drained(&cluster.killed(one)), 0);
    let effects = cluster.ok(zero);
    assert_eq!(without_events(effects), [SchedulerEffect::Drained]);
}

#[test]
fn drained_is_said_when_the_executor_of_the_last_task_is_lost() {
    let mut cluster = Cluster::of(&[1, 1]);
    cluster.submit(gang(2));
    cluster.handle(SchedulerEvent::Shutdown);
    assert_eq!(drained(&cluster.lose(E1)), 0);
    assert_eq!(drained(&cluster.lose(E2)), 1);
}

#[test]
fn drained_waits_for_killed_tasks_of_stages_that_had_ended_before() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, _) = cluster.submit(gang(1));
    cluster.cancel(stage);
    assert_eq!(cluster.handle(SchedulerEvent::Shutdown), []);
    assert_eq!(drained(&cluster.killed_all(stage)), 1);
}

#[test]
fn drained_is_said_once() {
    let mut cluster = Cluster::of(&[1, 1]);
    assert_eq!(drained(&cluster.handle(SchedulerEvent::Shutdown)), 1);
    for executor in [E1, E2] {
        assert_eq!(drained(&cluster.lose(executor)), 0, "after the loss of {executor}");
    }
}

#[test]
fn a_zombie_deadline_ends_the_wait_for_tasks_that_do_not_end() {
    let config = SchedulerConfig { zombie_deadline: Some(DEADLINE), ..config() };
    let mut cluster = Cluster::configured(config, &[1, 1]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.handle(SchedulerEvent::Shutdown);
    let effects = cluster.fire(zombie_deadline(attempt(stage, 0)));
    let retired = effects.iter().filter(|it| matches!(it, SchedulerEffect::RetireExecutor { .. }));
    assert_eq!((retired.count(), drained(&effects)), (2, 1));
    assert_eq!(effects.last(), Some(&SchedulerEffect::Drained));
}

#[test]
fn stages_that_come_later_are_refused() {
    let mut cluster = Cluster::of(&[2]);
    cluster.handle(SchedulerEvent::Shutdown);
    for spec in [gang(2), plain(1), gang(0)] {
        let (stage, effects) = cluster.submit(spec.clone());
        let submitted = RuntimeEvent::StageSubmitted { stage, spec };
        let [ended, told] = stage_over(stage, 0, Some(StageFailure::Shutdown));
        assert_eq!(effects, [SchedulerEffect::Emit(submitted), ended, told]);
        cluster.is_over(stage);
    }
}

#[test]
fn a_second_shutdown_is_ignored() {
    let mut cluster = Cluster::of(&[2]);
    cluster.submit(gang(2));
    cluster.handle(SchedulerEvent::Shutdown);
    cluster.ignores(SchedulerEvent::Shutdown);
}

#[test]
fn a_second_shutdown_after_the_drain_is_answered_too() {
    let mut cluster = Cluster::of(&[2]);
    for _ in 0..2 {
        assert_eq!(cluster.handle(SchedulerEvent::Shutdown), [SchedulerEffect::Drained]);
    }
}

#[test]
fn executors_that_join_after_the_shutdown_are_ignored() {
    let mut cluster = Cluster::of(&[2]);
    cluster.submit(gang(2));
    cluster.handle(SchedulerEvent::Shutdown);
    cluster.ignores(joined(E2, 0, cpus(2)));
    cluster.ignores(joined(E1, 0, cpus(2)));
}

#[test]
fn an_executor_that_comes_back_during_the_shutdown_has_lost_its_tasks() {
    let mut cluster = Cluster::of(&[2]);
    cluster.submit(gang(2));
    cluster.handle(SchedulerEvent::Shutdown);
    let effects = cluster.handle(joined(E1, 1, cpus(2)));
    assert_eq!(drained(&effects), 1, "no report can come from its former life");
}

#[test]
fn nothing_is_launched_after_the_shutdown() {
    let mut cluster = Cluster::of(&[2]);
    let (first, _) = cluster.submit(gang(2));
    cluster.submit(gang(2));
    cluster.submit(plain(4));
    let mut effects = cluster.handle(SchedulerEvent::Shutdown);
    effects.extend(cluster.killed_all(first));
    assert_eq!(launched(&effects), []);
    assert_eq!(cluster.machine.stages().count(), 0);
}

//! Killed tasks that do not end.

use super::*;

/// A gang of two on executors 1 and 2 whose partition 0 has failed; partition 1 should end.
struct Stopping {
    cluster: Cluster,
    stage: StageId,
    zombie: TaskAttemptId,
    kill_effects: Effects,
}

fn stopping(config: SchedulerConfig, slots: &[u32]) -> Stopping {
    let mut cluster = Cluster::configured(config, slots);
    let (stage, effects) = cluster.submit(gang(2));
    assert_eq!(launched_on(&effects), [E1, E2]);
    let zombie = cluster.task(stage, 1);
    let kill_effects = cluster.fail(cluster.task(stage, 0), "boom");
    Stopping { cluster, stage, zombie, kill_effects }
}

fn with_deadline() -> SchedulerConfig {
    SchedulerConfig { zombie_deadline: Some(DEADLINE), ..config() }
}

fn ignores_kill(
    stage: StageId,
    partition: u32,
    task: TaskAttemptId,
    on: ExecutorId,
) -> SchedulerEffect {
    SchedulerEffect::Emit(RuntimeEvent::TaskIgnoresKill {
        attempt: attempt(stage, 0),
        partition: PartitionId(partition),
        task_attempt: task,
        executor: on,
    })
}

#[test]
fn a_task_that_does_not_heed_its_kill_keeps_its_slot_and_the_gang_waiting() {
    let Stopping { mut cluster, stage, zombie, .. } = stopping(config(), &[1, 1]);
    assert_eq!(cluster.free_slots(), 1);
    let effects = cluster.fire(overdue(attempt(stage, 0)));
    assert_eq!(effects, [ignores_kill(stage, 1, zombie, E2)]);
    let waiting_for: PartitionRanges = [PartitionId(1)].into_iter().collect();
    assert_eq!(cluster.phase(stage), StagePhase::Stopping { waiting_for });
    let task = TaskStatus {
        partition: PartitionId(1),
        task_attempt: zombie,
        executor: E2,
        killed: true,
        ignores_kill: true,
    };
    assert_eq!(cluster.status(stage).tasks, [task]);
    assert_eq!(cluster.free_slots(), 1);
    assert_eq!(cluster.status(stage).attempt, attempt(stage, 0));
}

#[test]
fn a_zombie_blocks_the_next_attempt_even_where_other_slots_are_free() {
    let Stopping { mut cluster, stage, zombie, .. } = stopping(config(), &[1, 1, 4]);
    assert!(matches!(cluster.phase(stage), StagePhase::Stopping { .. }));
    assert_eq!(launched(&cluster.killed(zombie)).len(), 2);
}

#[test]
fn before_the_grace_is_over_nobody_is_said_to_ignore_its_kill() {
    let Stopping { cluster, stage, .. } = stopping(config(), &[1, 1]);
    let told: Vec<_> =
        cluster.status(stage).tasks.iter().map(|task| (task.killed, task.ignores_kill)).collect();
    assert_eq!(told, [(true, false)]);
}

#[test]
fn a_zombie_is_told_once() {
    let Stopping { mut cluster, stage, .. } = stopping(config(), &[1, 1]);
    let overdue = overdue(attempt(stage, 0));
    cluster.fire(overdue);
    cluster.ignores(SchedulerEvent::TimerFired(overdue));
}

#[test]
fn all_zombies_of_the_attempt_are_told() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (stage, _) = cluster.submit(gang(4));
    let [zero, two] = [0, 2].map(|partition| cluster.task(stage, partition));
    let three = cluster.task(stage, 3);
    cluster.fail(cluster.task(stage, 1), "boom");
    cluster.killed(two);
    let effects = cluster.fire(overdue(attempt(stage, 0)));
    assert_eq!(effects, [ignores_kill(stage, 0, zero, E1), ignores_kill(stage, 3, three, E2)]);
}

#[test]
fn zombies_of_a_stage_that_has_its_result_are_told_too() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, _) = cluster.submit(gang(1));
    let zombie = cluster.task(stage, 0);
    cluster.cancel(stage);
    let effects = cluster.fire(overdue(attempt(stage, 0)));
    assert_eq!(effects, [ignores_kill(stage, 0, zombie, E1)]);
    assert!(cluster.status(stage).tasks[0].ignores_kill);
}

#[test]
fn only_killed_tasks_of_the_attempt_are_said_to_ignore_their_kill() {
    let mut cluster = Cluster::of(&[3]);
    let (stage, _) = cluster.submit(gang(2));
    let (other, _) = cluster.submit(plain(1));
    cluster.cancel(other);
    cluster.handle(kill_partition(stage, 1));
    let one = cluster.task(stage, 1);
    let effects = cluster.fire(overdue(attempt(stage, 0)));
    assert_eq!(effects, [ignores_kill(stage, 1, one, E1)]);
}

#[test]
fn only_executors_of_killed_tasks_of_the_attempt_are_retired() {
    let mut cluster = Cluster::configured(with_deadline(), &[1, 1, 1]);
    let (stage, _) = cluster.submit(gang(2));
    let (other, _) = cluster.submit(plain(1));
    cluster.cancel(other);
    cluster.handle(kill_partition(stage, 1));
    cluster.fire(zombie_deadline(attempt(stage, 0)));
    let known: Vec<_> = cluster.machine.executors().map(|it| it.executor).collect();
    assert_eq!(known, [E1, E3], "partition 0 runs on the first, the other stage on the third");
}

#[test]
fn zombies_are_waited_for_without_end_by_default() {
    let Stopping { kill_effects, stage, .. } = stopping(config(), &[1, 1]);
    let overdue = overdue(attempt(stage, 0));
    assert_eq!(timers(&kill_effects), [(overdue, GRACE)], "no deadline");
}

#[test]
fn a_deadline_is_set_with_the_kill_if_there_is_one() {
    let Stopping { kill_effects, stage, .. } = stopping(with_deadline(), &[1, 1]);
    let first = attempt(stage, 0);
    let expected = [(overdue(first), GRACE), (zombie_deadline(first), DEADLINE)];
    assert_eq!(timers(&kill_effects), expected);
}

#[test]
fn at_the_deadline_the_executor_is_retired_and_the_gang_goes_on_elsewhere() {
    let Stopping { mut cluster, stage, zombie, .. } = stopping(with_deadline(), &[1, 1, 1]);
    let effects = cluster.fire(zombie_deadline(attempt(stage, 0)));
    let retire = SchedulerEffect::RetireExecutor { executor: E2, incarnation: Incarnation(0) };
    assert_eq!(effects[0], retire);
    assert_eq!(launched_on(&effects), [E3, E1], "executor 1 has failed before");
    let known: Vec<_> = cluster.machine.executors().map(|it| it.executor).collect();
    assert_eq!(known, [E1, E3]);
    assert!(!cluster.tasks(stage).contains(&zombie));
    let status = cluster.status(stage);
    assert_eq!((status.failures, status.infrastructure_failures), (1, 0));
}

#[test]
fn a_retired_executor_can_only_come_back_under_a_new_life() {
    let Stopping { mut cluster, stage, zombie, .. } = stopping(with_deadline(), &[1, 1]);
    let report = cluster.report(zombie, TaskOutcome::Succeeded);
    cluster.fire(zombie_deadline(attempt(stage, 0)));
    cluster.ignores(SchedulerEvent::TaskReport(report));
    cluster.ignores(joined(E2, 0, cpus(1)));
    cluster.ignores(lost(E2, Incarnation(0)));
    let effects = cluster.handle(joined(E2, 1, cpus(1)));
    assert_eq!(launched(&effects).len(), 2);
}

#[test]
fn other_tasks_on_a_retired_executor_are_lost_with_it() {
    let Stopping { mut cluster, stage, .. } = stopping(with_deadline(), &[1, 2]);
    let (other, effects) = cluster.submit(gang(2));
    assert_eq!(launched_on(&effects), [E1, E2]);
    cluster.fire(zombie_deadline(attempt(stage, 0)));
    let status = cluster.status(other);
    assert_eq!(status.infrastructure_failures, 1);
    assert!(matches!(status.phase, StagePhase::Stopping { .. }));
}

#[test]
fn a_deadline_after_all_have_ended_retires_nobody() {
    let Stopping { mut cluster, stage, zombie, .. } = stopping(with_deadline(), &[1, 1]);
    cluster.killed(zombie);
    cluster.ignores(SchedulerEvent::TimerFired(overdue(attempt(stage, 0))));
    cluster.ignores(SchedulerEvent::TimerFired(zombie_deadline(attempt(stage, 0))));
}

#[test]
fn nothing_is_launched_on_an_executor_that_is_retired_in_the_same_step() {
    let mut cluster = Cluster::configured(with_deadline(), &[2, 2]);
    let (stage, _) = cluster.submit(gang(2));
    let (other, effects) = cluster.submit(plain(1));
    assert_eq!(launched_on(&effects), [E1]);
    cluster.cancel(stage);
    let effects = cluster.fire(zombie_deadline(attempt(stage, 0)));
    let retired = effects.iter().filter(|it| matches!(it, SchedulerEffect::RetireExecutor { .. }));
    assert_eq!(retired.count(), 2);
    assert_eq!(launched(&effects), [], "both executors go");
    assert_eq!(cluster.status(other).infrastructure_failures, 1);
}

/// The timers of one kill must not judge tasks that were killed later.
#[test]
fn a_task_killed_later_than_another_of_its_attempt_has_a_grace_of_its_own() {
    let mut cluster = Cluster::of(&[1, 1, 1]);
    let (stage, _) = cluster.submit(plain(3));
    let first = timers(&cluster.handle(kill_partition(stage, 0)));
    assert!(!first.is_empty());
    let zero = cluster.task(stage, 0);
    cluster.handle(kill_partition(stage, 1));
    cluster.ok(zero);
    for (key, _) in first {
        cluster.ignores(SchedulerEvent::TimerFired(key));
    }
}

#[test]
fn an_executor_is_not_retired_at_the_deadline_of_an_earlier_kill() {
    let mut cluster = Cluster::configured(with_deadline(), &[1, 1, 1]);
    let (stage, _) = cluster.submit(plain(3));
    let first = timers(&cluster.handle(kill_partition(stage, 0)));
    assert_eq!(first.len(), 2);
    // Much later: partition 0 heeds its kill, and only now the others are killed.
    cluster.killed(cluster.task(stage, 0));
    cluster.cancel(stage);
    for (key, _) in first {
        cluster.ignores(SchedulerEvent::TimerFired(key));
    }
}

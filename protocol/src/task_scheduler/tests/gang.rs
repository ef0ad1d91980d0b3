//! A gang that goes well, of every size.

use super::*;

fn launch(
    stage: StageId,
    executor: ExecutorId,
    tasks: &[(u32, u64)],
    infos: &[ExecutorId],
) -> SchedulerEffect {
    let task = |&(partition, task_attempt): &(u32, u64)| LaunchTask {
        partition: PartitionId(partition),
        task_attempt: TaskAttemptId(task_attempt),
        cpus: 1,
        addresses: Default::default(),
    };
    let info = |&executor: &ExecutorId| TaskInfo { executor, address: address(executor) };
    let launch = LaunchTasks {
        attempt: attempt(stage, 0),
        num_tasks: infos.len() as u32,
        tasks: tasks.iter().map(task).collect(),
        task_infos: infos.iter().map(info).collect(),
    };
    SchedulerEffect::LaunchTasks { executor, launch }
}

fn submitted(stage: StageId, num_tasks: u32) -> SchedulerEffect {
    SchedulerEffect::Emit(RuntimeEvent::StageSubmitted { stage, spec: gang(num_tasks) })
}

fn started(stage: StageId, num_tasks: u32) -> SchedulerEffect {
    let attempt = attempt(stage, 0);
    SchedulerEffect::Emit(RuntimeEvent::AttemptStarted { attempt, num_tasks })
}

fn task_started(stage: StageId, partition: u32, task: u64, on: ExecutorId) -> SchedulerEffect {
    SchedulerEffect::Emit(RuntimeEvent::TaskStarted {
        attempt: attempt(stage, 0),
        partition: PartitionId(partition),
        task_attempt: TaskAttemptId(task),
        executor: on,
    })
}

fn open(stage: StageId, num_tasks: u64) -> SchedulerEffect {
    SchedulerEffect::OpenBarrier(OpenBarrier {
        attempt: attempt(stage, 0),
        task_attempts: (0..num_tasks).map(TaskAttemptId).collect(),
        sync_timeout: SYNC,
    })
}

#[test]
fn a_gang_of_two_runs_from_its_submission_to_its_success() {
    let mut cluster = Cluster::of(&[1, 1]);
    let (stage, effects) = cluster.submit(gang(2));
    let launching = [
        submitted(stage, 2),
        open(stage, 2),
        started(stage, 2),
        task_started(stage, 0, 0, E1),
        task_started(stage, 1, 1, E2),
        launch(stage, E1, &[(0, 0)], &[E1, E2]),
        launch(stage, E2, &[(1, 1)], &[E1, E2]),
    ];
    assert_eq!(effects, launching);
    assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 0 });

    let first = cluster.report(cluster.task(stage, 0), TaskOutcome::Succeeded);
    let effects = cluster.handle(SchedulerEvent::TaskReport(first.clone()));
    assert_eq!(effects, [task_ended(&first), keep_payload(&first)]);
    assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 1 });

    let second = cluster.report(cluster.task(stage, 1), TaskOutcome::Succeeded);
    let effects = cluster.handle(SchedulerEvent::TaskReport(second.clone()));
    let [ended, told] = stage_over(stage, 1, None);
    let success = closed(attempt(stage, 0), CloseReason::Succeeded);
    assert_eq!(effects, [task_ended(&second), keep_payload(&second), success, ended, told]);
    cluster.is_over(stage);
}

#[test]
fn each_executor_gets_one_message_with_all_its_tasks_and_the_whole_gang() {
    let mut cluster = Cluster::of(&[2, 1]);
    let (stage, effects) = cluster.submit(gang(3));
    let expected = [
        open(stage, 3),
        launch(stage, E1, &[(0, 0), (2, 2)], &[E1, E2, E1]),
        launch(stage, E2, &[(1, 1)], &[E1, E2, E1]),
    ];
    assert_eq!(without_events(effects), expected);
}

#[test]
fn the_tasks_of_a_gang_are_spread_evenly() {
    let mut cluster = Cluster::of(&[4, 4, 4]);
    let (_, effects) = cluster.submit(gang(6));
    assert_eq!(launched_on(&effects), [E1, E2, E3, E1, E2, E3]);
}

#[test]
fn a_gang_of_one_runs_like_any_other() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, effects) = cluster.submit(gang(1));
    let expected = [
        submitted(stage, 1),
        open(stage, 1),
        started(stage, 1),
        task_started(stage, 0, 0, E1),
        launch(stage, E1, &[(0, 0)], &[E1]),
    ];
    assert_eq!(effects, expected);
    let effects = cluster.ok(cluster.task(stage, 0));
    assert_eq!(results(&effects), [(stage, Ok(()))]);
    cluster.is_over(stage);
}

#[test]
fn a_gang_of_one_that_fails_is_tried_again_in_the_same_step() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, _) = cluster.submit(gang(1));
    let effects = cluster.fail(cluster.task(stage, 0), "boom");
    assert_eq!(kills(&effects), [], "nobody is left to be killed");
    assert_eq!(timers(&effects), [], "nobody is waited for");
    assert_eq!(launched(&effects), [(attempt(stage, 1), PartitionId(0), E1)]);
}

#[test]
fn a_stage_of_no_tasks_succeeds_at_once_even_without_executors() {
    for spec in [gang(0), plain(0)] {
        let mut cluster = Cluster::of(&[]);
        let (stage, effects) = cluster.submit(spec.clone());
        let [ended, told] = stage_over(stage, 0, None);
        let submitted = RuntimeEvent::StageSubmitted { stage, spec };
        assert_eq!(effects, [SchedulerEffect::Emit(submitted), ended, told]);
        cluster.is_over(stage);
    }
}

#[test]
fn a_gang_can_have_more_tasks_than_a_signed_16_bit_number_can_count() {
    const TASKS: u32 = 40_000;
    let mut cluster = Cluster::of(&[TASKS / 2, TASKS / 2]);
    let (stage, effects) = cluster.submit(gang(TASKS));
    let mut reports = Vec::new();
    for effect in effects {
        if let SchedulerEffect::LaunchTasks { executor, launch } = effect {
            assert_eq!((launch.num_tasks, launch.task_infos.len()), (TASKS, TASKS as usize));
            reports.extend(launch.tasks.into_iter().map(|task| TaskReport {
                executor,
                incarnation: Incarnation(0),
                attempt: launch.attempt,
                partition: task.partition,
                task_attempt: task.task_attempt,
                outcome: TaskOutcome::Succeeded,
            }));
        }
    }
    assert_eq!(reports.len(), TASKS as usize);
    let mut effects = Vec::new();
    for report in reports {
        // Not by way of the cluster, which looks through all its books at every step.
        cluster.machine.handle(SchedulerEvent::TaskReport(report), &mut effects);
    }
    assert_eq!(results(&effects), [(stage, Ok(()))]);
    assert_eq!(cluster.free_slots(), u64::from(TASKS));
}

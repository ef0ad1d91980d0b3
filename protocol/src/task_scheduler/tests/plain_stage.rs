//! Stages of independent tasks.

use super::*;

fn partitions(effects: &Effects) -> Vec<u32> {
    launched(effects).iter().map(|(_, PartitionId(partition), _)| *partition).collect()
}

#[test]
fn a_plain_stage_runs_without_barrier_from_its_submission_to_its_success() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, effects) = cluster.submit(plain(1));
    let (only, partition, task_attempt) = (attempt(stage, 0), PartitionId(0), TaskAttemptId(0));
    let task = LaunchTask { partition, task_attempt, cpus: 1, addresses: Default::default() };
    let launch =
        LaunchTasks { attempt: only, num_tasks: 1, tasks: vec![task], task_infos: [].into() };
    let expected = [
        RuntimeEvent::StageSubmitted { stage, spec: plain(1) },
        RuntimeEvent::AttemptStarted { attempt: only, num_tasks: 1 },
        RuntimeEvent::TaskStarted { attempt: only, partition, task_attempt, executor: E1 },
    ];
    let mut expected: Effects = expected.map(SchedulerEffect::Emit).into();
    expected.push(SchedulerEffect::LaunchTasks { executor: E1, launch });
    assert_eq!(effects, expected);

    let report = cluster.report(task_attempt, TaskOutcome::Succeeded);
    let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
    let [ended, told] = stage_over(stage, 1, None);
    assert_eq!(effects, [task_ended(&report), keep_payload(&report), ended, told]);
    cluster.is_over(stage);
}

#[test]
fn more_tasks_than_slots_run_in_waves() {
    let mut cluster = Cluster::of(&[1, 1]);
    let (stage, effects) = cluster.submit(plain(5));
    assert_eq!(partitions(&effects), [0, 1]);
    let phase = StagePhase::Queued { required: 1, free: 0, ahead: 0, reserves: false };
    assert_eq!(cluster.phase(stage), phase);
    assert!(cluster.machine.has_tasks_in_line(stage));
    for (done, next) in [(1, 2), (0, 3), (2, 4)] {
        let effects = cluster.ok(cluster.task(stage, done));
        assert_eq!(partitions(&effects), [next]);
        assert!(!events(&effects).iter().any(|event| {
            matches!(event, RuntimeEvent::AttemptStarted { .. } | RuntimeEvent::StageQueued { .. })
        }));
    }
    assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 3 });
    assert!(!cluster.machine.has_tasks_in_line(stage), "the end of one may be that of the stage");
    assert_eq!(results(&cluster.ok_all(stage)), [(stage, Ok(()))]);
    cluster.is_over(stage);
}

#[test]
fn the_wave_of_an_earlier_stage_goes_before_a_later_stage() {
    let mut cluster = Cluster::of(&[1]);
    let (first, _) = cluster.submit(plain(2));
    let (second, _) = cluster.submit(plain(1));
    let effects = cluster.ok(cluster.task(first, 0));
    assert_eq!(launched_stages(&effects), [first]);
    assert_eq!(launched_stages(&cluster.ok_all(first)), [second]);
}

#[test]
fn a_failed_task_is_tried_again_alone() {
    let mut cluster = Cluster::of(&[3]);
    let (stage, _) = cluster.submit(plain(3));
    let report = cluster.report(cluster.task(stage, 1), failed("boom"));
    let siblings = [0, 2].map(|partition| cluster.task(stage, partition));
    let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
    let cause = cause_of(&report);
    let failed = SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, will_retry: true });
    assert_eq!(effects[..3], [task_ended(&report), keep_payload(&report), failed]);
    assert_eq!(launched(&effects), [(attempt(stage, 0), PartitionId(1), E1)]);
    assert_eq!(kills(&effects), []);
    assert!(!effects.contains(&SchedulerEffect::DiscardPayloads(stage)), "the others keep theirs");
    assert_eq!(cluster.task(stage, 1), TaskAttemptId(3));
    assert_eq!([0, 2].map(|partition| cluster.task(stage, partition)), siblings);
}

#[test]
fn every_task_has_attempts_of_its_own() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(StageSpec { max_attempts: 3, ..plain(2) });
    for partition in [0, 1, 0, 1] {
        let effects = cluster.fail(cluster.task(stage, partition), "boom");
        assert_eq!(partitions(&effects), [partition]);
    }
    assert_eq!(cluster.status(stage).failures, 4);
    let effects = cluster.ok_all(stage);
    let [ended, told] = stage_over(stage, 1, None);
    assert!(effects.ends_with(&[ended, told]), "{effects:#?}");
}

#[test]
fn a_task_that_used_up_its_attempts_fails_the_stage_and_kills_the_others() {
    let mut cluster = Cluster::of(&[2, 1]);
    let (stage, _) = cluster.submit(StageSpec { max_attempts: 2, ..plain(3) });
    cluster.fail(cluster.task(stage, 0), "once");
    let report = cluster.report(cluster.task(stage, 0), failed("twice"));
    let others = [1, 2].map(|partition| cluster.task(stage, partition));
    let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
    let cause = cause_of(&report);
    let text = cause.to_string();
    let failure = StageFailure::AttemptsExhausted { attempts: 2, cause };
    let [ended, _] = stage_over(stage, 1, Some(failure));
    let expected = [
        keep_payload(&report),
        kill(E1, &others[1..], &text),
        kill(E2, &others[..1], &text),
        set_timer(overdue(attempt(stage, 0)), GRACE),
        ended,
    ];
    assert_eq!(without_events(effects), expected);
    assert_eq!(without_events(cluster.killed_all(stage)), []);
    cluster.is_over(stage);
}

#[test]
fn a_stage_that_failed_launches_no_further_wave() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, _) = cluster.submit(StageSpec { max_attempts: 1, ..plain(3) });
    let effects = cluster.fail(cluster.task(stage, 0), "boom");
    assert_eq!(launched(&effects), []);
    assert_eq!(kills(&effects), []);
    cluster.is_over(stage);
}

#[test]
fn a_retry_waits_in_line_behind_earlier_stages_of_higher_priority() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, _) = cluster.submit(plain(1));
    let (urgent, _) = cluster.submit(StageSpec { priority: 1, ..gang(1) });
    let effects = cluster.fail(cluster.task(stage, 0), "boom");
    assert_eq!(launched_stages(&effects), [urgent]);
    let phase = StagePhase::Queued { required: 1, free: 0, ahead: 0, reserves: false };
    assert_eq!(cluster.phase(stage), phase);
    assert_eq!(launched_stages(&cluster.ok_all(urgent)), [stage]);
}

#[test]
fn a_task_is_not_tried_again_where_it_failed_if_there_is_room_elsewhere() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (stage, _) = cluster.submit(plain(2));
    let effects = cluster.fail(cluster.task(stage, 0), "bad node");
    assert_eq!(launched_on(&effects), [E2]);
}

#[test]
fn a_lost_executor_reruns_only_what_was_running_there() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (stage, _) = cluster.submit(plain(4));
    cluster.ok(cluster.task(stage, 0));
    let effects = cluster.lose(E1);
    assert_eq!(kills(&effects), []);
    assert_eq!(partitions(&effects), [], "no slot is left");
    let effects = cluster.join(E3, cpus(4));
    assert_eq!(launched(&effects), [(attempt(stage, 0), PartitionId(2), E3)]);
    let status = cluster.status(stage);
    assert_eq!((status.failures, status.infrastructure_failures), (0, 1));
    assert_eq!(results(&cluster.ok_all(stage)), [(stage, Ok(()))]);
}

#[test]
fn losses_beyond_the_allowed_number_fail_a_plain_stage() {
    let mut cluster = Cluster::of(&[1]);
    let spec = StageSpec { max_attempts: 1, max_infrastructure_failures: 2, ..plain(1) };
    let (stage, _) = cluster.submit(spec);
    for life in 1..=2 {
        cluster.lose(E1);
        assert_eq!(launched(&cluster.handle(joined(E1, life, cpus(1)))).len(), 1);
    }
    let outcome = TaskOutcome::Failed(executor_lost(E1));
    let cause = cause_of(&cluster.report(cluster.task(stage, 0), outcome));
    let effects = cluster.lose(E1);
    let failure = StageFailure::InfrastructureExhausted { losses: 3, allowed: 2, cause };
    assert_eq!(results(&effects), [(stage, Err(failure))]);
    cluster.is_over(stage);
}

#[test]
fn one_lost_executor_is_one_loss_however_many_tasks_of_the_stage_it_ran() {
    let mut cluster = Cluster::of(&[8]);
    let spec = StageSpec { max_infrastructure_failures: 1, ..plain(8) };
    let (stage, _) = cluster.submit(spec);
    let effects = cluster.lose(E1);
    assert_eq!(results(&effects), [], "losses of executors are counted, and one was lost");
    assert_eq!(cluster.status(stage).infrastructure_failures, 1);
    assert_eq!(partitions(&cluster.join(E2, cpus(8))), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn an_aborting_plain_stage_fails_at_its_first_error() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(StageSpec { on_failure: OnFailure::Abort, ..plain(2) });
    let effects = cluster.fail(cluster.task(stage, 0), "boom");
    let [(_, Err(StageFailure::Aborted { .. }))] = &results(&effects)[..] else {
        panic!("{effects:#?}")
    };
    assert_eq!(kills(&effects), [(E1, vec![cluster.task(stage, 1)])]);
}

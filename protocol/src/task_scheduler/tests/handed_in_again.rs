//! A stage of a job that comes again under the same id, perhaps beside its own zombies.

use super::of_job::{ended, of_job};
use super::*;

/// A gang of two of a job that was cancelled while it ran; its tasks have not heeded that.
fn zombies(spec: StageSpec) -> (Cluster, StageId) {
    let mut cluster = Cluster::of(&[1, 1]);
    let stage = cluster.started(spec);
    let effects = cluster.cancel(stage);
    assert_eq!(kills(&effects).len(), 2);
    assert!(effects.contains(&ended(stage, 1, Some(not_needed()))), "{effects:#?}");
    (cluster, stage)
}

fn not_needed() -> StageFailure {
    StageFailure::Cancelled { reason: "not needed".to_owned() }
}

#[test]
fn a_stage_that_comes_again_waits_for_the_zombies_of_the_last_time() {
    for spec in [gang(2), plain(2)] {
        let (mut cluster, stage) = zombies(spec.clone());
        let effects = cluster.hand_in_again(stage, spec, 1, &[]);
        assert_eq!(without_events(effects), []);
        let waiting_for = [0, 1].map(PartitionId).into_iter().collect();
        assert_eq!(cluster.phase(stage), StagePhase::Stopping { waiting_for });
        assert_eq!(without_events(cluster.killed(cluster.task(stage, 1))), []);
        let effects = without_events(cluster.killed(cluster.task(stage, 0)));
        assert_eq!(effects, [SchedulerEffect::AwaitsInput(stage)]);
        let attempts = launched(&cluster.ready(stage)).into_iter().map(|(attempt, _, _)| attempt);
        assert_eq!(attempts.collect::<Vec<_>>(), [attempt(stage, 1); 2]);
        let effects = without_events(cluster.ok_all(stage));
        assert_eq!(effects.last(), Some(&ended(stage, 2, None)));
        cluster.is_over(stage);
    }
}

#[test]
fn input_may_be_ready_before_the_zombies_have_ended() {
    let (mut cluster, stage) = zombies(gang(2));
    cluster.hand_in_again(stage, gang(2), 1, &[]);
    assert_eq!(cluster.ready(stage), []);
    assert_eq!(launched(&cluster.killed_all(stage)).len(), 2);
}

#[test]
fn zombies_may_be_lost_with_their_executors() {
    let (mut cluster, stage) = zombies(gang(2));
    cluster.hand_in_again(stage, gang(2), 1, &[]);
    cluster.lose(E1);
    cluster.join(E3, cpus(1));
    assert!(cluster.lose(E2).iter().any(|it| matches!(it, SchedulerEffect::SetTimer { .. })));
    let status = cluster.status(stage);
    assert_eq!((status.failures, status.infrastructure_failures), (0, 0), "not its tasks");
    let effects = without_events(cluster.join(E4, cpus(1)));
    assert_eq!(effects, [SchedulerEffect::AwaitsInput(stage)]);
}

#[test]
fn what_zombies_have_to_say_is_not_for_the_stage_that_follows() {
    for outcome in [TaskOutcome::Succeeded, failed("late")] {
        let (mut cluster, stage) = zombies(plain(2));
        cluster.hand_in_again(stage, plain(2), 1, &[]);
        let report = cluster.report(cluster.task(stage, 0), outcome);
        let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
        assert_eq!(effects, [task_ended(&report)]);
        cluster.killed_all(stage);
        cluster.ignores(SchedulerEvent::TaskReport(report.clone()));
        assert_eq!(launched(&cluster.ready(stage)).len(), 2);
        cluster.ignores(SchedulerEvent::TaskReport(report));
        assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 0 });
        let status = cluster.status(stage);
        assert_eq!((status.failures, status.last_cause), (0, None));
    }
}

#[test]
fn no_number_of_an_attempt_is_used_again() {
    // Whatever the planner thinks is the next one.
    for (first, expected) in [(0, 1), (1, 1), (5, 5)] {
        let (mut cluster, stage) = zombies(gang(2));
        let zombies = cluster.tasks(stage).into_iter();
        let reports: Vec<_> = zombies.map(|task| cluster.report(task, failed("late"))).collect();
        cluster.hand_in_again(stage, gang(2), first, &[]);
        cluster.ready(stage);
        let reports = reports.into_iter().map(SchedulerEvent::TaskReport);
        let effects: Effects = reports.flat_map(|report| cluster.handle(report)).collect();
        assert_eq!(launched(&effects)[0].0, attempt(stage, expected));
        cluster.fail(cluster.task(stage, 0), "boom");
        let effects = cluster.killed_all(stage);
        assert_eq!(launched(&effects)[0].0, attempt(stage, expected + 1));
        let effects = without_events(cluster.ok_all(stage));
        assert_eq!(effects.last(), Some(&ended(stage, expected + 2, None)));
    }
}

#[test]
fn a_stage_may_be_cancelled_and_come_again_before_the_zombies_have_ended() {
    let (mut cluster, stage) = zombies(gang(2));
    for _ in 0..2 {
        cluster.hand_in_again(stage, gang(2), 1, &[]);
        let effects = cluster.cancel(stage);
        assert_eq!(kills(&effects), [], "they were killed");
        assert_eq!(results(&effects), [(stage, Err(not_needed()))]);
        assert!(effects.contains(&ended(stage, 1, Some(not_needed()))), "none was started");
        assert_eq!(cluster.phase(stage), StagePhase::Ended);
    }
    cluster.killed_all(stage);
    cluster.is_over(stage);
}

#[test]
fn late_timers_of_the_last_time_change_nothing() {
    let spec = StageSpec { retry_delay: PAUSE, ..gang(2) };
    let mut cluster = Cluster::of(&[1, 1]);
    let (load, _) = cluster.submit(plain(1));
    let (stage, _) = cluster.submit_of_job(spec.clone(), 0, &[]);
    let mut former = timers(&cluster.ready(stage));
    cluster.ok_all(load);
    former.extend(timers(&cluster.fail(cluster.task(stage, 0), "boom")));
    former.extend(timers(&cluster.cancel(stage)));
    let (first, second) = (attempt(stage, 0), attempt(stage, 1));
    let expected = [
        (SchedulerTimer::Reserve(first), RESERVE),
        (overdue(first), GRACE),
        (SchedulerTimer::Retry(second), PAUSE),
    ];
    assert_eq!(former, expected);
    let all_late = |cluster: &mut Cluster| {
        for (key, _) in &former {
            cluster.ignores(SchedulerEvent::TimerFired(*key));
        }
    };
    cluster.hand_in_again(stage, spec, 1, &[]);
    cluster.ignores(SchedulerEvent::TimerFired(SchedulerTimer::Reserve(first)));
    cluster.ignores(SchedulerEvent::TimerFired(SchedulerTimer::Retry(second)));
    cluster.killed_all(stage);
    assert_eq!(cluster.phase(stage), StagePhase::AwaitingInput);
    all_late(&mut cluster);
    cluster.ready(stage);
    all_late(&mut cluster);
    // The second kill of the stage has a name of its own, and so has the pause after it.
    let effects = cluster.fail(cluster.task(stage, 1), "boom");
    let kill = SchedulerTimer::KillOverdue(KillId { attempt: second, kill: 1 });
    let pause = SchedulerTimer::Retry(attempt(stage, 2));
    assert_eq!(timers(&effects), [(kill, GRACE), (pause, PAUSE)]);
    all_late(&mut cluster);
}

/// A stage that was over had its deferrals counted from the start again, and heard their timers.
#[test]
fn a_late_slot_check_of_the_last_time_changes_nothing() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, effects) = cluster.submit_of_job(gang(2), 0, &[]);
    let first = timers(&effects);
    cluster.cancel(stage);
    cluster.is_over(stage);
    let second = timers(&cluster.hand_in_again(stage, gang(2), 0, &[]));
    assert_ne!(first, second);
    for (key, _) in first {
        cluster.ignores(SchedulerEvent::TimerFired(key));
    }
    let [(due, _)] = second[..] else { panic!("{second:?}") };
    assert_eq!(timers(&cluster.fire(due)).len(), 1, "the next check");
}

#[test]
fn only_a_stage_of_a_job_that_has_ended_comes_again() {
    let (mut cluster, stage) = zombies(gang(2));
    let submit = SubmitStage { stage, spec: gang(2), of_job: None };
    cluster.ignores(SchedulerEvent::SubmitStage(submit));
    cluster.hand_in_again(stage, gang(2), 1, &[]);
    cluster.ignores(of_job(stage, gang(2), 1, &[]));
    cluster.ready(stage);
    cluster.killed_all(stage);
    cluster.ignores(of_job(stage, gang(2), 1, &[]));
}

/// It takes the place that its zombies had.
#[test]
fn a_stage_that_comes_again_does_not_fill_the_queue() {
    let (mut cluster, stage) = zombies(gang(2));
    cluster.machine.config.queue_max = 1;
    let effects = cluster.hand_in_again(stage, gang(2), 1, &[]);
    assert_eq!(results(&effects), []);
    assert!(matches!(cluster.phase(stage), StagePhase::Stopping { .. }));
}

#[test]
fn a_stage_that_comes_again_may_be_refused() {
    let (mut cluster, stage) = zombies(gang(2));
    cluster.submit(gang(2));
    cluster.machine.config.queue_max = 1;
    let effects = cluster.hand_in_again(stage, gang(2), 1, &[]);
    assert_eq!(results(&effects), [(stage, Err(StageFailure::QueueFull { limit: 1 }))]);
    assert_eq!(kills(&effects), []);
    assert_eq!(cluster.phase(stage), StagePhase::Ended);
}

//! Reports and timers that come too late, twice, or from nowhere change nothing.

use super::*;

fn report_event(report: &TaskReport) -> SchedulerEvent {
    SchedulerEvent::TaskReport(report.clone())
}

fn fired(timer: SchedulerTimer) -> SchedulerEvent {
    SchedulerEvent::TimerFired(timer)
}

/// One timer of every kind that names this attempt.
fn every_timer(attempt: StageAttemptId) -> [SchedulerTimer; 5] {
    let check = SchedulerTimer::SlotCheck { stage: attempt.stage, deferral: 1, check: 1 };
    let one_of_each_kind = [
        check,
        SchedulerTimer::Reserve(attempt),
        SchedulerTimer::Retry(attempt),
        overdue(attempt),
        zombie_deadline(attempt),
    ];
    for timer in one_of_each_kind {
        // A new kind of timer must come into the list.
        match timer {
            SchedulerTimer::SlotCheck { .. }
            | SchedulerTimer::Reserve(_)
            | SchedulerTimer::Retry(_)
            | SchedulerTimer::KillOverdue(_)
            | SchedulerTimer::ZombieDeadline(_) => {}
        }
    }
    one_of_each_kind
}

#[test]
fn a_duplicate_report_is_ignored() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    let report = cluster.report(cluster.task(stage, 0), TaskOutcome::Succeeded);
    cluster.handle(report_event(&report));
    cluster.ignores(report_event(&report));
    let contradicting = TaskReport { outcome: failed("after all"), ..report };
    cluster.ignores(report_event(&contradicting));
}

#[test]
fn a_report_of_an_earlier_attempt_is_ignored() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    let [zero, one] = [0, 1].map(|partition| cluster.task(stage, partition));
    let reports = [zero, one].map(|task| cluster.report(task, failed("boom")));
    for report in &reports {
        cluster.handle(report_event(report));
    }
    assert_eq!(cluster.status(stage).attempt, attempt(stage, 1));
    for report in &reports {
        cluster.ignores(report_event(report));
    }
}

#[test]
fn a_report_that_does_not_name_its_task_rightly_is_ignored() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.submit(gang(2));
    let right = cluster.report(cluster.task(stage, 0), failed("boom"));
    let wrong = [
        TaskReport { executor: E2, ..right.clone() },
        TaskReport { executor: ExecutorId(9), ..right.clone() },
        TaskReport { incarnation: Incarnation(1), ..right.clone() },
        TaskReport { attempt: attempt(stage, 1), ..right.clone() },
        TaskReport { attempt: attempt(StageId(1), 0), ..right.clone() },
        TaskReport { partition: PartitionId(1), ..right.clone() },
        TaskReport { task_attempt: cluster.task(stage, 1), ..right.clone() },
        TaskReport { task_attempt: TaskAttemptId(99), ..right.clone() },
    ];
    for report in wrong {
        cluster.ignores(report_event(&report));
    }
    assert_eq!(kills(&cluster.handle(report_event(&right))).len(), 1, "this one counts");
}

#[test]
fn a_report_of_an_earlier_life_of_the_executor_is_ignored() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.handle(joined(E1, 1, cpus(2)));
    let report = cluster.report(cluster.task(stage, 0), TaskOutcome::Succeeded);
    let earlier = TaskReport { incarnation: Incarnation(0), ..report };
    cluster.ignores(report_event(&earlier));
}

#[test]
fn a_report_after_the_stage_is_forgotten_is_ignored() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, _) = cluster.submit(gang(1));
    let report = cluster.report(cluster.task(stage, 0), TaskOutcome::Succeeded);
    cluster.handle(report_event(&report));
    cluster.is_over(stage);
    cluster.ignores(report_event(&report));
}

#[test]
fn timers_of_unknown_stages_change_nothing() {
    let mut cluster = Cluster::of(&[4]);
    cluster.submit(gang(2));
    cluster.submit(plain(1));
    cluster.submit(gang(3));
    cluster.submit(gang(9));
    for timer in every_timer(attempt(StageId(77), 0)) {
        cluster.ignores(fired(timer));
    }
}

#[test]
fn timers_change_nothing_for_a_gang_that_runs() {
    for timer in every_timer(attempt(StageId(0), 0)) {
        let mut cluster = Cluster::of(&[2]);
        cluster.submit(gang(2));
        cluster.ignores(fired(timer));
    }
}

#[test]
fn timers_change_nothing_for_a_stage_that_has_succeeded() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.ok_all(stage);
    for timer in every_timer(attempt(stage, 0)) {
        cluster.ignores(fired(timer));
    }
}

#[test]
fn timers_of_the_first_attempt_change_nothing_for_the_second() {
    for slots in [2, 3] {
        let mut cluster = Cluster::of(&[slots]);
        let (stage, _) = cluster.submit(gang(2));
        cluster.submit(plain(2));
        cluster.fail(cluster.task(stage, 0), "boom");
        cluster.killed_all(stage);
        assert_eq!(cluster.status(stage).attempt, attempt(stage, 1));
        for timer in every_timer(attempt(stage, 0)) {
            cluster.ignores(fired(timer));
        }
    }
}

#[test]
fn timers_of_other_attempts_change_nothing_for_a_gang_in_line() {
    let mut cluster = Cluster::of(&[2]);
    cluster.submit(plain(1));
    let (stage, _) = cluster.submit(gang(2));
    for timer in every_timer(attempt(stage, 1)) {
        cluster.ignores(fired(timer));
    }
}

#[test]
fn a_retry_that_fires_twice_or_for_another_attempt_starts_nothing() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(StageSpec { retry_delay: PAUSE, ..gang(2) });
    cluster.fail(cluster.task(stage, 0), "boom");
    let retry = |attempt_number| SchedulerTimer::Retry(attempt(stage, attempt_number));
    for other in [0, 2] {
        cluster.ignores(fired(retry(other)));
    }
    cluster.killed_all(stage);
    for other in [0, 2] {
        cluster.ignores(fired(retry(other)));
    }
    assert_eq!(launched(&cluster.fire(retry(1))).len(), 2);
    cluster.ignores(fired(retry(1)));
    cluster.fail(cluster.task(stage, 0), "boom");
    assert_eq!(cluster.fire(retry(2)), []);
    for late in [1, 2, 3] {
        cluster.ignores(fired(retry(late)));
    }
}

#[test]
fn a_reserve_timer_that_fires_after_the_launch_does_not_make_the_next_attempt_old() {
    let mut cluster = Cluster::of(&[2]);
    let (load, _) = cluster.submit(plain(1));
    let (stage, effects) = cluster.submit(gang(2));
    let (reserve, _) = timers(&effects)[0];
    cluster.ok_all(load);
    assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 0 });
    cluster.ignores(fired(reserve));
}

#[test]
fn a_late_timer_for_killed_tasks_leaves_the_reservation_of_a_gang_alone() {
    let mut cluster = Cluster::of(&[3, 3]);
    let (load, _) = cluster.submit(plain(6));
    let (gang, _) = cluster.submit(gang(4));
    cluster.age(gang);
    // Kept from now on: one slot of the second executor and all of the first.
    cluster.ok(cluster.task(load, 1));
    cluster.ok(cluster.task(load, 3));
    for partition in [0, 2] {
        for timer in every_timer(attempt(StageId(77), 0)) {
            cluster.ignores(fired(timer));
        }
        let effects = cluster.ok(cluster.task(load, partition));
        if launched_stages(&effects) == [gang] {
            return;
        }
    }
    panic!("four slots are free");
}

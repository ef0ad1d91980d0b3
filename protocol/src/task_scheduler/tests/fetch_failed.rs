//! Tasks that do not find their input.

use super::of_job::ended;
use super::*;

const LOST: FetchFailed = FetchFailed {
    input: StageAttemptId { stage: StageId(100), attempt: 2 },
    partition: PartitionId(7),
};

fn not_found() -> TaskOutcome {
    TaskOutcome::Failed(TaskFailure::FetchFailed(LOST))
}

fn input_lost(stage: StageId) -> SchedulerEffect {
    SchedulerEffect::InputLost { stage, failed: LOST }
}

impl Cluster {
    fn not_found(&mut self, task: TaskAttemptId) -> Effects {
        self.end(task, not_found())
    }
}

/// Two executors of two slots and a gang of four: tasks 0 and 2 on the first, 1 and 3 on the other.
fn running(spec: StageSpec) -> (Cluster, StageId) {
    let mut cluster = Cluster::of(&[2, 2]);
    let stage = cluster.started(spec);
    (cluster, stage)
}

/// In Spark they go on, hold their slots, and the next attempt never starts.
#[test]
fn a_gang_that_misses_input_is_stopped_at_once() {
    let (mut cluster, stage) = running(gang(4));
    let [zero, one, two, three] = [0, 1, 2, 3].map(|partition| cluster.task(stage, partition));
    let report = cluster.report(one, not_found());
    let cause = cause_of(&report);
    let text = cause.to_string();
    let expected = "partition 1 (task 1 of Stage 0 (Attempt 0) on executor 2) could not fetch its \
                    input: the output of partition 7 of Stage 100 (Attempt 2) is not there any \
                    more";
    assert_eq!(text, expected);
    let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
    let expected = [
        task_ended(&report),
        keep_payload(&report),
        SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, will_retry: true }),
        input_lost(stage),
        SchedulerEffect::DiscardPayloads(stage),
        closed(attempt(stage, 0), CloseReason::Failed(text.clone())),
        kill(E1, &[zero, two], &text),
        kill(E2, &[three], &text),
        set_timer(overdue(attempt(stage, 0)), GRACE),
    ];
    assert_eq!(effects, expected);
}

#[test]
fn lost_input_is_told_and_booked_once_however_many_tasks_miss_it() {
    let (mut cluster, stage) = running(gang(4));
    let [zero, one, two, three] = [0, 1, 2, 3].map(|partition| cluster.task(stage, partition));
    assert!(cluster.not_found(one).contains(&input_lost(stage)));
    assert_eq!(without_events(cluster.not_found(zero)), []);
    assert_eq!(without_events(cluster.not_found(two)), []);
    let effects = without_events(cluster.killed(three));
    assert_eq!(effects, [SchedulerEffect::AwaitsInput(stage)]);
    let status = cluster.status(stage);
    assert_eq!((status.failures, status.infrastructure_failures), (0, 1));
    assert_eq!((status.attempt, status.phase), (attempt(stage, 1), StagePhase::AwaitingInput));
}

#[test]
fn the_next_attempt_waits_for_the_killed_tasks_the_pause_and_the_input_in_every_order() {
    let [ends, pause, input] = [0, 1, 2];
    let orders = [
        [ends, pause, input],
        [ends, input, pause],
        [pause, ends, input],
        [pause, input, ends],
        [input, ends, pause],
        [input, pause, ends],
    ];
    for order in orders {
        let (mut cluster, stage) = running(StageSpec { retry_delay: PAUSE, ..gang(4) });
        cluster.not_found(cluster.task(stage, 1));
        for (index, step) in order.into_iter().enumerate() {
            let effects = match step {
                0 => cluster.killed_all(stage),
                1 => cluster.fire(SchedulerTimer::Retry(attempt(stage, 1))),
                _ => cluster.ready(stage),
            };
            let expected = if index == 2 { 4 } else { 0 };
            assert_eq!(launched(&effects).len(), expected, "step {index} of {order:?}");
            let awaits = effects.contains(&SchedulerEffect::AwaitsInput(stage));
            assert_eq!(awaits, index == 1 && order[2] == input, "step {index} of {order:?}");
        }
        assert_eq!(cluster.status(stage).attempt, attempt(stage, 1));
    }
}

#[test]
fn a_gang_that_is_its_only_task_waits_again_in_the_same_step() {
    let (mut cluster, stage) = running(gang(1));
    let effects = cluster.not_found(cluster.task(stage, 0));
    assert_eq!(kills(&effects), []);
    assert_eq!(effects.last(), Some(&SchedulerEffect::AwaitsInput(stage)));
    assert_eq!(launched_on(&cluster.ready(stage)), [E1], "the executor is not at fault");
}

#[test]
fn killed_tasks_may_be_lost_with_their_executor() {
    let (mut cluster, stage) = running(gang(2));
    cluster.not_found(cluster.task(stage, 0));
    let effects = without_events(cluster.lose(E2));
    assert_eq!(effects, [SchedulerEffect::AwaitsInput(stage)]);
    assert_eq!(cluster.status(stage).infrastructure_failures, 1, "booked once");
    assert_eq!(launched(&cluster.ready(stage)).len(), 2);
}

#[test]
fn of_a_plain_stage_what_runs_is_stopped_and_what_has_succeeded_is_kept() {
    let (mut cluster, stage) = running(plain(4));
    let [zero, one, two, three] = [0, 1, 2, 3].map(|partition| cluster.task(stage, partition));
    cluster.ok(zero);
    let report = cluster.report(one, not_found());
    let cause = cause_of(&report);
    let text = cause.to_string();
    let effects = cluster.handle(SchedulerEvent::TaskReport(report.clone()));
    let expected = [
        task_ended(&report),
        keep_payload(&report),
        SchedulerEffect::Emit(RuntimeEvent::AttemptFailed { cause, will_retry: true }),
        input_lost(stage),
        kill(E1, &[two], &text),
        kill(E2, &[three], &text),
        set_timer(overdue(attempt(stage, 0)), GRACE),
    ];
    assert_eq!(effects, expected, "no DiscardPayloads");
    assert_eq!(without_events(cluster.ok(two)), [], "after its kill it does not count");
    assert_eq!(without_events(cluster.not_found(three)), [SchedulerEffect::AwaitsInput(stage)]);
    let effects = cluster.ready(stage);
    let second = attempt(stage, 1);
    let partitions = launched(&effects).into_iter().map(|(attempt, PartitionId(it), _)| {
        assert_eq!(attempt, second);
        it
    });
    assert_eq!(partitions.collect::<Vec<_>>(), [1, 2, 3]);
    let started = RuntimeEvent::AttemptStarted { attempt: second, num_tasks: 4 };
    assert!(events(&effects).contains(&started));
    let effects = without_events(cluster.ok_all(stage));
    assert_eq!(effects.last(), Some(&ended(stage, 2, None)));
}

#[test]
fn a_plain_stage_in_waves_leaves_the_line() {
    let mut cluster = Cluster::of(&[1]);
    let stage = cluster.started(plain(3));
    let (other, _) = cluster.submit(plain(1));
    let effects = cluster.not_found(cluster.task(stage, 0));
    assert!(effects.contains(&SchedulerEffect::AwaitsInput(stage)));
    assert_eq!(launched_stages(&effects), [other]);
    assert_eq!(launched(&cluster.ready(stage)), []);
    let effects = cluster.ok_all(other);
    assert_eq!(launched(&effects), [(attempt(stage, 1), PartitionId(0), E1)]);
    for partition in 0..3 {
        cluster.ok(cluster.task(stage, partition));
    }
    cluster.is_over(stage);
}

#[test]
fn input_of_a_plain_stage_may_be_ready_before_its_killed_tasks_have_ended() {
    let (mut cluster, stage) = running(plain(2));
    cluster.not_found(cluster.task(stage, 0));
    assert_eq!(cluster.ready(stage), []);
    let effects = cluster.killed_all(stage);
    assert_eq!(launched(&effects).len(), 2);
    assert!(!effects.contains(&SchedulerEffect::AwaitsInput(stage)));
}

#[test]
fn lost_input_counts_as_infrastructure() {
    for spec in [gang(1), plain(1)] {
        let spec = StageSpec { max_attempts: 1, max_infrastructure_failures: 1, ..spec };
        let (mut cluster, stage) = running(spec);
        cluster.not_found(cluster.task(stage, 0));
        cluster.ready(stage);
        let report = cluster.report(cluster.task(stage, 0), not_found());
        let cause = cause_of(&report);
        let effects = cluster.handle(SchedulerEvent::TaskReport(report));
        let failure = StageFailure::InfrastructureExhausted { losses: 2, allowed: 1, cause };
        assert_eq!(results(&effects), [(stage, Err(failure))]);
        assert!(!effects.contains(&input_lost(stage)), "nobody waits for it any more");
        cluster.is_over(stage);
    }
}

#[test]
fn a_stage_that_may_not_be_repeated_is_aborted() {
    let (mut cluster, stage) = running(StageSpec { on_failure: OnFailure::Abort, ..gang(4) });
    let report = cluster.report(cluster.task(stage, 1), not_found());
    let cause = cause_of(&report);
    let effects = cluster.handle(SchedulerEvent::TaskReport(report));
    assert_eq!(results(&effects), [(stage, Err(StageFailure::Aborted { cause }))]);
    assert!(!effects.contains(&input_lost(stage)));
}

/// Who has no planner fetches for himself.
#[test]
fn a_stage_without_a_job_is_tried_again_as_after_any_failure() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.not_found(cluster.task(stage, 0));
    assert_eq!(launched(&cluster.killed_all(stage)).len(), 2);
    cluster.ok_all(stage);
    let (stage, _) = cluster.submit(plain(2));
    let effects = cluster.not_found(cluster.task(stage, 0));
    assert_eq!(launched(&effects), [(attempt(stage, 0), PartitionId(0), E1)]);
    assert_eq!(kills(&effects), []);
}

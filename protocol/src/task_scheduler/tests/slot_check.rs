//! Too few slots in all executors together.

use super::*;

fn slot_check(stage: StageId, deferral: u32, check: u32) -> SchedulerTimer {
    SchedulerTimer::SlotCheck { stage, deferral, check }
}

fn deferred(stage: StageId, required: u64, available: u64, checks_left: u32) -> SchedulerEffect {
    SchedulerEffect::Emit(RuntimeEvent::StageDeferred {
        stage,
        required,
        available,
        checks_left,
        next_check: SLOT_CHECK,
    })
}

fn the_check(effects: &Effects) -> SchedulerTimer {
    let keys: Vec<_> = timers(effects).iter().map(|(key, _)| *key).collect();
    let [key @ SchedulerTimer::SlotCheck { .. }] = keys[..] else {
        panic!("not exactly one slot check in {keys:?}")
    };
    key
}

fn no_checks() -> SchedulerConfig {
    SchedulerConfig { slot_check_max_failures: 0, ..config() }
}

#[test]
fn a_gang_larger_than_all_executors_is_deferred() {
    let mut cluster = Cluster::of(&[2, 1]);
    let (stage, effects) = cluster.submit(gang(4));
    let expected = [
        SchedulerEffect::Emit(RuntimeEvent::StageSubmitted { stage, spec: gang(4) }),
        deferred(stage, 4, 3, 3),
        set_timer(slot_check(stage, 1, 1), SLOT_CHECK),
    ];
    assert_eq!(effects, expected);
    let phase = StagePhase::Deferred { required: 4, available: 3, checks_left: 3 };
    assert_eq!(cluster.phase(stage), phase);
}

#[test]
fn the_check_is_repeated_and_counts_down_until_the_stage_fails() {
    let mut cluster = Cluster::of(&[3]);
    let (stage, mut effects) = cluster.submit(gang(4));
    for left in [2, 1] {
        effects = cluster.fire(the_check(&effects));
        let timer = set_timer(the_check(&effects), SLOT_CHECK);
        assert_eq!(effects, [deferred(stage, 4, 3, left), timer]);
        let phase = StagePhase::Deferred { required: 4, available: 3, checks_left: left };
        assert_eq!(cluster.phase(stage), phase);
    }
    let failure = StageFailure::NotEnoughSlots {
        required: 4,
        available: 3,
        checks: 4,
        interval: SLOT_CHECK,
        last_cause: None,
    };
    assert_eq!(cluster.fire(the_check(&effects)), stage_over(stage, 0, Some(failure)));
    cluster.is_over(stage);
}

#[test]
fn without_further_checks_the_stage_fails_at_once() {
    let mut cluster = Cluster::configured(no_checks(), &[3]);
    let (stage, effects) = cluster.submit(gang(4));
    let failure = StageFailure::NotEnoughSlots {
        required: 4,
        available: 3,
        checks: 1,
        interval: SLOT_CHECK,
        last_cause: None,
    };
    assert_eq!(effects[1..], stage_over(stage, 0, Some(failure)));
    cluster.is_over(stage);
}

#[test]
fn slots_that_arrive_launch_the_stage_in_the_same_step() {
    let mut cluster = Cluster::of(&[3]);
    let (stage, _) = cluster.submit(gang(4));
    let effects = cluster.join(E2, cpus(1));
    assert_eq!(launched(&effects).len(), 4);
    assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 0 });
}

#[test]
fn a_check_that_fires_after_the_launch_does_nothing() {
    let mut cluster = Cluster::of(&[3]);
    let (_, effects) = cluster.submit(gang(4));
    let check = the_check(&effects);
    cluster.join(E2, cpus(1));
    cluster.ignores(SchedulerEvent::TimerFired(check));
}

#[test]
fn a_check_that_was_already_counted_does_nothing() {
    let mut cluster = Cluster::of(&[3]);
    let (stage, effects) = cluster.submit(gang(4));
    let check = the_check(&effects);
    cluster.fire(check);
    cluster.ignores(SchedulerEvent::TimerFired(check));
    cluster.ignores(SchedulerEvent::TimerFired(slot_check(stage, 1, 7)));
}

#[test]
fn a_check_of_an_earlier_deferral_does_nothing() {
    let mut cluster = Cluster::of(&[2]);
    cluster.submit(plain(2));
    let (stage, effects) = cluster.submit(gang(4));
    let first = the_check(&effects);
    cluster.join(E2, cpus(2));
    let effects = cluster.lose(E2);
    let second = the_check(&effects);
    assert_ne!(first, second);
    cluster.ignores(SchedulerEvent::TimerFired(first));
    let effects = cluster.fire(second);
    assert_eq!(events(&effects).len(), 1);
    let phase = StagePhase::Deferred { required: 4, available: 2, checks_left: 2 };
    assert_eq!(cluster.phase(stage), phase);
}

#[test]
fn slots_that_arrive_but_do_not_suffice_leave_the_stage_deferred() {
    let mut cluster = Cluster::of(&[1]);
    let (stage, effects) = cluster.submit(gang(4));
    let check = the_check(&effects);
    assert_eq!(launched(&cluster.join(E2, cpus(2))), []);
    let phase = StagePhase::Deferred { required: 4, available: 3, checks_left: 3 };
    assert_eq!(cluster.phase(stage), phase);
    assert_eq!(cluster.fire(check)[0], deferred(stage, 4, 3, 2));
}

#[test]
fn busy_slots_count_so_that_the_stage_is_queued_and_not_deferred() {
    let mut cluster = Cluster::of(&[2, 2]);
    cluster.submit(plain(4));
    let (stage, _) = cluster.submit(gang(4));
    let phase = StagePhase::Queued { required: 4, free: 0, ahead: 0, reserves: false };
    assert_eq!(cluster.phase(stage), phase);
}

#[test]
fn several_deferred_stages_are_launched_in_order_when_slots_arrive() {
    let mut cluster = Cluster::of(&[]);
    let (first, _) = cluster.submit(gang(2));
    let (larger, _) = cluster.submit(gang(9));
    let (third, _) = cluster.submit(plain(1));
    let effects = cluster.join(E1, cpus(3));
    assert_eq!(launched_stages(&effects), [first, third]);
    let phase = StagePhase::Deferred { required: 9, available: 3, checks_left: 3 };
    assert_eq!(cluster.phase(larger), phase);
}

#[test]
fn slots_that_arrive_while_others_are_busy_put_the_stage_in_line() {
    let mut cluster = Cluster::of(&[2]);
    cluster.submit(plain(2));
    let (stage, _) = cluster.submit(gang(4));
    let effects = cluster.join(E2, cpus(2));
    let attempt = attempt(stage, 0);
    let expected = [
        SchedulerEffect::Emit(RuntimeEvent::ExecutorJoined {
            executor: E2,
            incarnation: Incarnation(0),
            resources: cpus(2),
        }),
        SchedulerEffect::Emit(RuntimeEvent::StageQueued { attempt, required: 4, free: 2 }),
        set_timer(SchedulerTimer::Reserve(attempt), RESERVE),
    ];
    assert_eq!(effects, expected, "else it would never reserve");
    let phase = StagePhase::Queued { required: 4, free: 2, ahead: 0, reserves: false };
    assert_eq!(cluster.phase(stage), phase);
}

#[test]
fn slots_that_go_defer_a_stage_in_line_that_no_longer_fits() {
    let mut cluster = Cluster::of(&[2, 2]);
    cluster.submit(plain(4));
    let (large, _) = cluster.submit(gang(4));
    let (small, _) = cluster.submit(gang(2));
    let effects = cluster.lose(E2);
    let timer = set_timer(slot_check(large, 1, 1), SLOT_CHECK);
    let expected = [deferred(large, 4, 2, 3), timer];
    assert!(effects.windows(2).any(|pair| pair == expected), "{effects:#?}");
    let phase = StagePhase::Deferred { required: 4, available: 2, checks_left: 3 };
    assert_eq!(cluster.phase(large), phase);
    // Before it are the tasks that were lost.
    let phase = StagePhase::Queued { required: 2, free: 0, ahead: 1, reserves: false };
    assert_eq!(cluster.phase(small), phase);
}

#[test]
fn a_deferred_plain_stage_needs_one_slot_only() {
    let mut cluster = Cluster::of(&[]);
    let (stage, effects) = cluster.submit(plain(3));
    assert_eq!(effects[1], deferred(stage, 1, 0, 3));
    assert_eq!(launched(&cluster.join(E1, cpus(1))).len(), 1);
}

#[test]
fn an_executor_that_comes_back_in_the_same_step_does_not_fail_a_stage_in_line() {
    let mut cluster = Cluster::configured(no_checks(), &[2, 2]);
    cluster.submit(plain(3));
    let (stage, _) = cluster.submit(gang(4));
    let effects = cluster.handle(joined(E2, 1, cpus(2)));
    assert_eq!(results(&effects), [], "there are as many slots after the step as before");
    assert_eq!(cluster.status(stage).stage, stage);
}

#[test]
fn practically_endless_checks_can_be_configured() {
    let endless = SchedulerConfig { slot_check_max_failures: u32::MAX, ..config() };
    let mut cluster = Cluster::configured(endless, &[]);
    let (stage, _) = cluster.submit(gang(1));
    let phase = StagePhase::Deferred { required: 1, available: 0, checks_left: u32::MAX };
    assert_eq!(cluster.phase(stage), phase);
}

#[test]
fn a_stage_whose_slots_do_not_come_back_names_the_executor_it_lost() {
    let mut cluster = Cluster::configured(no_checks(), &[1, 1]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.lose(E2);
    let effects = cluster.killed_all(stage);
    let [(_, Err(failure))] = &results(&effects)[..] else { panic!("{effects:?}") };
    let cause = failure.first_cause().unwrap();
    assert_eq!(cause.failure, executor_lost(E2));
    let text = failure.to_string();
    assert!(text.contains("its last attempt failed: partition 1 (task 1 of Stage 0"), "{text}");
    assert!(text.ends_with("lost its executor: executor 2 went away"), "{text}");
}

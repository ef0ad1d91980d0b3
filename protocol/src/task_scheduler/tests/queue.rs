//! Enough slots, but busy ones: who goes first.

use super::*;

/// One slot, taken by a plain stage.
fn one_busy_slot() -> (Cluster, StageId) {
    let mut cluster = Cluster::of(&[1]);
    let (load, _) = cluster.submit(plain(1));
    (cluster, load)
}

/// Lets whatever runs succeed, again and again; the stages in the order in which they started.
fn order_of_launch(cluster: &mut Cluster, mut running: StageId) -> Vec<StageId> {
    let mut order = Vec::new();
    loop {
        let effects = cluster.ok_all(running);
        let [next] = launched_stages(&effects)[..] else { return order };
        order.push(next);
        running = next;
    }
}

#[test]
fn a_gang_that_fits_but_not_now_is_queued_and_visible() {
    let mut cluster = Cluster::of(&[2]);
    cluster.submit(plain(1));
    let (stage, effects) = cluster.submit(gang(2));
    let attempt = attempt(stage, 0);
    let expected = [
        SchedulerEffect::Emit(RuntimeEvent::StageSubmitted { stage, spec: gang(2) }),
        SchedulerEffect::Emit(RuntimeEvent::StageQueued { attempt, required: 2, free: 1 }),
        set_timer(SchedulerTimer::Reserve(attempt), RESERVE),
    ];
    assert_eq!(effects, expected);
    let expected = StageStatus {
        stage,
        name: "gang".to_owned(),
        num_tasks: 2,
        attempt,
        phase: StagePhase::Queued { required: 2, free: 1, ahead: 0, reserves: false },
        tasks: vec![],
        failures: 0,
        infrastructure_failures: 0,
        last_cause: None,
    };
    assert_eq!(cluster.status(stage), expected);
}

#[test]
fn a_plain_stage_that_waits_is_visible_and_never_asks_to_reserve() {
    let (mut cluster, _) = one_busy_slot();
    let (stage, effects) = cluster.submit(plain(3));
    let attempt = attempt(stage, 0);
    let queued = RuntimeEvent::StageQueued { attempt, required: 1, free: 0 };
    assert_eq!(effects[1..], [SchedulerEffect::Emit(queued)]);
}

#[test]
fn the_status_counts_the_stages_ahead() {
    let (mut cluster, _) = one_busy_slot();
    let specs = [gang(1), plain(1), StageSpec { priority: 1, ..gang(1) }, gang(1)];
    let waiting = specs.map(|spec| cluster.submit(spec).0);
    let ahead = waiting.map(|stage| match cluster.phase(stage) {
        StagePhase::Queued { required: 1, free: 0, ahead, reserves: false } => ahead,
        other => panic!("{other:?}"),
    });
    assert_eq!(ahead, [1, 2, 0, 3]);
}

#[test]
fn equal_priorities_go_in_order_of_submission() {
    let (mut cluster, load) = one_busy_slot();
    let waiting = [gang(1), plain(1), gang(1), plain(1)].map(|spec| cluster.submit(spec).0);
    assert_eq!(order_of_launch(&mut cluster, load), waiting);
}

#[test]
fn a_higher_priority_goes_first_and_a_negative_one_last() {
    let (mut cluster, load) = one_busy_slot();
    let priorities = [0, -5, i32::MAX, 7, i32::MIN, 0, 7];
    let stage = |priority| cluster.submit(StageSpec { priority, ..gang(1) }).0;
    let [zero, minus, max, seven, min, zero_again, seven_again] = priorities.map(stage);
    let expected = [max, seven, seven_again, zero, zero_again, minus, min];
    assert_eq!(order_of_launch(&mut cluster, load), expected);
}

#[test]
fn a_stage_of_higher_priority_does_not_disturb_what_runs() {
    let (mut cluster, load) = one_busy_slot();
    let (_, effects) = cluster.submit(StageSpec { priority: 9, ..gang(1) });
    assert_eq!(kills(&effects), []);
    assert_eq!(cluster.phase(load), StagePhase::Running { succeeded: 0 });
}

#[test]
fn a_small_stage_passes_a_young_gang_that_does_not_fit() {
    let mut cluster = Cluster::of(&[4]);
    cluster.submit(plain(1));
    let (large, _) = cluster.submit(gang(4));
    for small in [plain(1), gang(2)] {
        let (stage, effects) = cluster.submit(small);
        assert_eq!(launched_stages(&effects), [stage]);
    }
    let phase = StagePhase::Queued { required: 4, free: 0, ahead: 0, reserves: false };
    assert_eq!(cluster.phase(large), phase);
}

#[test]
fn a_gang_does_not_pass_an_earlier_one_of_the_same_size() {
    let mut cluster = Cluster::of(&[4]);
    let (load, _) = cluster.submit(plain(3));
    let (first, _) = cluster.submit(gang(3));
    let (second, _) = cluster.submit(gang(3));
    let effects = cluster.ok_all(load);
    assert_eq!(launched_stages(&effects), [first]);
    let phase = StagePhase::Queued { required: 3, free: 1, ahead: 0, reserves: false };
    assert_eq!(cluster.phase(second), phase);
}

#[test]
fn one_step_launches_everything_that_fits() {
    let mut cluster = Cluster::of(&[6]);
    let (load, _) = cluster.submit(gang(6));
    let waiting = [gang(3), gang(4), plain(1), gang(2)].map(|spec| cluster.submit(spec).0);
    let tasks = cluster.tasks(load);
    let effects: Vec<_> =
        tasks.into_iter().map(|task| launched_stages(&cluster.ok(task))).collect();
    let [three, four, one, two] = waiting;
    // The third slot would be the gang's of three, but small ones pass it while it is young.
    assert_eq!(effects, [vec![one], vec![], vec![two], vec![], vec![], vec![three]]);
    assert_eq!(cluster.status(four).tasks, []);
}

#[test]
fn the_slots_of_a_stage_that_ends_go_to_several_at_once() {
    let mut cluster = Cluster::of(&[1, 1]);
    cluster.submit(gang(2));
    let first = cluster.submit(gang(2)).0;
    cluster.submit(gang(2));
    let effects = cluster.cancel(StageId(0));
    assert_eq!(launched(&effects), [], "killed tasks hold their slots until they report");
    let effects = cluster.killed_all(StageId(0));
    assert_eq!(launched_stages(&effects), [first]);
}

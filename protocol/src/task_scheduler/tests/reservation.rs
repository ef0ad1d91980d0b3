//! A gang that has waited long keeps the slots that come free.

use super::*;
use std::collections::VecDeque;

/// Small stages without end: whenever one finishes, the next is already there.
struct Stream {
    cluster: Cluster,
    running: VecDeque<StageId>,
}

impl Stream {
    /// Four slots taken by four small stages, and a gang of four in line.
    fn with_gang() -> (Stream, StageId) {
        let mut cluster = Cluster::of(&[4]);
        let running = (0..4).map(|_| cluster.submit(plain(1)).0).collect();
        let (gang, _) = cluster.submit(gang(4));
        (Stream { cluster, running }, gang)
    }

    /// The next small stage comes, the oldest one ends.
    fn step(&mut self) -> Effects {
        let (next, effects) = self.cluster.submit(plain(1));
        assert_eq!(launched(&effects), [], "all slots are taken or kept");
        self.running.push_back(next);
        let oldest = self.running.pop_front().expect("there are always four");
        self.cluster.ok_all(oldest)
    }
}

fn reserves(cluster: &Cluster, gang: StageId) -> bool {
    match cluster.phase(gang) {
        StagePhase::Queued { reserves, .. } => reserves,
        other @ (StagePhase::Deferred { .. }
        | StagePhase::AwaitingInput
        | StagePhase::Running { .. }
        | StagePhase::Stopping { .. }
        | StagePhase::BackingOff
        | StagePhase::Ended) => panic!("{other:?}"),
    }
}

/// Puts a gang in line and lets it get old.
fn old_gang(cluster: &mut Cluster, spec: StageSpec) -> StageId {
    let (stage, _) = cluster.submit(spec);
    assert_eq!(without_events(cluster.age(stage)), []);
    stage
}

#[test]
fn a_stream_of_small_stages_can_pass_a_young_gang_for_long() {
    let (mut stream, gang) = Stream::with_gang();
    for _ in 0..50 {
        let next = *launched_stages(&stream.step()).first().expect("the slot goes to someone");
        assert_ne!(next, gang);
    }
}

#[test]
fn a_stream_of_small_stages_cannot_starve_an_old_gang() {
    let (mut stream, gang) = Stream::with_gang();
    assert_eq!(without_events(stream.cluster.age(gang)), []);
    for kept in 1..4 {
        assert_eq!(launched(&stream.step()), [], "slot {kept} is kept for the gang");
        let free = kept;
        let phase = StagePhase::Queued { required: 4, free, ahead: 0, reserves: true };
        assert_eq!(stream.cluster.phase(gang), phase);
    }
    let effects = stream.step();
    assert_eq!(launched_stages(&effects), [gang]);
    assert_eq!(launched(&effects).len(), 4);
}

#[test]
fn the_small_stages_go_on_after_the_gang() {
    let (mut stream, gang) = Stream::with_gang();
    stream.cluster.age(gang);
    for _ in 0..4 {
        stream.step();
    }
    let effects = stream.cluster.ok_all(gang);
    assert_eq!(launched_stages(&effects), Vec::from(stream.running));
}

#[test]
fn only_the_first_old_gang_in_line_reserves() {
    let mut cluster = Cluster::of(&[4]);
    let loads = [(); 4].map(|()| cluster.submit(plain(1)).0);
    let first = old_gang(&mut cluster, gang(4));
    let second = old_gang(&mut cluster, gang(2));
    for load in &loads[..3] {
        assert_eq!(launched(&cluster.ok_all(*load)), [], "the second would fit, but gets nothing");
    }
    assert!(reserves(&cluster, first) && !reserves(&cluster, second));
    assert_eq!(launched_stages(&cluster.ok_all(loads[3])), [first]);
    assert_eq!(launched_stages(&cluster.ok_all(first)), [second]);
}

#[test]
fn slots_are_kept_wherever_they_come_free() {
    let mut cluster = Cluster::of(&[2, 2, 2]);
    let load = cluster.submit(plain(6)).0;
    let gang = old_gang(&mut cluster, gang(4));
    let (small, _) = cluster.submit(plain(1));
    for partition in [0, 5, 2] {
        assert_eq!(launched(&cluster.ok(cluster.task(load, partition))), []);
    }
    assert_eq!(launched_stages(&cluster.ok(cluster.task(load, 3))), [gang]);
    assert_eq!(launched_stages(&cluster.ok(cluster.task(load, 1))), [small]);
}

#[test]
fn what_the_gang_does_not_need_of_an_executor_is_not_kept() {
    let mut cluster = Cluster::new(config());
    cluster.join(E1, cpus(4).with("gpu", ["0"]));
    let gpu = TaskResources::new(1).with("gpu", 1.0).unwrap();
    let spec = |spec| StageSpec { resources: gpu.clone(), ..spec };
    cluster.submit(spec(plain(1)));
    let waiting = old_gang(&mut cluster, spec(gang(1)));
    assert!(reserves(&cluster, waiting));
    let (on_gpu, _) = cluster.submit(spec(plain(1)));
    let (on_cpu, effects) = cluster.submit(plain(5));
    assert_eq!(launched_stages(&effects), [on_cpu]);
    assert_eq!(launched(&effects).len(), 2, "one cpu is kept beside the gpu");
    assert_eq!(cluster.status(on_gpu).tasks, []);
}

#[test]
fn slots_are_kept_by_the_measure_of_the_gang() {
    let mut cluster = Cluster::of(&[6]);
    let (load, _) = cluster.submit(plain(4));
    let resources = TaskResources::new(3);
    let gang = old_gang(&mut cluster, StageSpec { resources, ..gang(1) });
    let (_, effects) = cluster.submit(plain(2));
    assert_eq!(launched(&effects), [], "two of three cpus are free, and both are kept");
    assert_eq!(launched_stages(&cluster.ok(cluster.task(load, 0))), [gang]);
}

#[test]
fn a_stage_of_higher_priority_may_use_the_kept_slots() {
    let mut cluster = Cluster::of(&[4]);
    let load = cluster.submit(plain(4)).0;
    old_gang(&mut cluster, gang(4));
    cluster.ok(cluster.task(load, 0));
    let (urgent, effects) = cluster.submit(StageSpec { priority: 1, ..plain(1) });
    assert_eq!(launched_stages(&effects), [urgent]);
}

#[test]
fn an_old_gang_of_higher_priority_takes_the_reservation_over() {
    let mut cluster = Cluster::of(&[4]);
    let load = cluster.submit(plain(4)).0;
    let first = old_gang(&mut cluster, gang(4));
    cluster.ok(cluster.task(load, 0));
    assert!(reserves(&cluster, first));
    let urgent = old_gang(&mut cluster, StageSpec { priority: 1, ..gang(3) });
    assert!(reserves(&cluster, urgent) && !reserves(&cluster, first));
    let [second, third] = [1, 2].map(|partition| cluster.task(load, partition));
    assert_eq!(launched(&cluster.ok(second)), []);
    assert_eq!(launched_stages(&cluster.ok(third)), [urgent]);
}

#[test]
fn a_young_gang_of_the_same_size_before_an_old_one_does_not_undo_its_reservation() {
    for size in [3, 4] {
        let mut cluster = Cluster::of(&[4]);
        let load = cluster.submit(plain(4)).0;
        let old = old_gang(&mut cluster, gang(4));
        let (young, _) = cluster.submit(StageSpec { priority: 1, ..gang(size) });
        cluster.submit(plain(1));
        let effects = cluster.ok(cluster.task(load, 0));
        assert_eq!(launched(&effects), [], "kept for the old gang, the young one has {size} tasks");
        assert!(reserves(&cluster, old) && !reserves(&cluster, young));
    }
}

#[test]
fn a_gang_does_not_wait_for_long_tasks_while_enough_other_slots_come_free() {
    let mut cluster = Cluster::of(&[4]);
    let (long, _) = cluster.submit(gang(4));
    cluster.join(E2, cpus(4));
    let running = (0..4).map(|_| cluster.submit(plain(1)).0).collect();
    let waiting = old_gang(&mut cluster, gang(4));
    let mut stream = Stream { cluster, running };
    let steps: Vec<_> =
        (0..8).map(|_| launched_stages(&stream.step()).contains(&waiting)).collect();
    assert!(steps[3], "a stream of small stages starves it as long as the other gang runs");
    assert_eq!(stream.cluster.phase(long), StagePhase::Running { succeeded: 0 });
}

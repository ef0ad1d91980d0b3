//! What becomes of a reservation when the world changes.

use super::*;

/// Two executors of two slots with four plain tasks (two on each), a gang of three that is old and
/// one free slot kept for it.
struct Kept {
    cluster: Cluster,
    load: StageId,
    gang: StageId,
}

fn kept() -> Kept {
    let mut cluster = Cluster::of(&[2, 2]);
    let load = cluster.submit(plain(4)).0;
    let gang = cluster.submit(gang(3)).0;
    cluster.age(gang);
    assert_eq!(launched(&cluster.ok(cluster.task(load, 0))), []);
    assert!(reserves(&cluster, gang));
    Kept { cluster, load, gang }
}

fn reserves(cluster: &Cluster, gang: StageId) -> bool {
    matches!(cluster.phase(gang), StagePhase::Queued { reserves: true, .. })
}

#[test]
fn cancelling_the_gang_gives_the_kept_slots_to_the_others_in_the_same_step() {
    let Kept { mut cluster, gang, .. } = kept();
    let (small, effects) = cluster.submit(plain(1));
    assert_eq!(launched(&effects), []);
    let effects = cluster.cancel(gang);
    assert_eq!(launched_stages(&effects), [small]);
}

#[test]
fn a_gang_that_no_longer_fits_in_all_executors_keeps_nothing() {
    let Kept { mut cluster, gang, .. } = kept();
    let (small, _) = cluster.submit(plain(1));
    let effects = cluster.lose(E2);
    let phase = StagePhase::Deferred { required: 3, available: 2, checks_left: 3 };
    assert_eq!(cluster.phase(gang), phase);
    // The lost tasks of the load are older and go first.
    let (load, _) = (StageId(0), small);
    assert_eq!(launched_stages(&effects), [load]);
    assert_eq!(launched_stages(&cluster.ok(cluster.task(load, 2))), [load]);
    assert_eq!(launched_stages(&cluster.ok_all(load)), [small]);
}

#[test]
fn when_an_executor_of_the_plan_goes_the_slots_are_kept_elsewhere() {
    let mut cluster = Cluster::of(&[1, 1, 1]);
    let loads = [(); 3].map(|()| cluster.submit(plain(1)).0);
    let (gang, _) = cluster.submit(gang(2));
    cluster.age(gang);
    assert_eq!(launched(&cluster.ok_all(loads[0])), [], "planned on the first two executors");
    let (small, _) = cluster.submit(plain(1));
    // What ran on the lost executor is older than the gang and takes the free slot.
    assert_eq!(launched_stages(&cluster.lose(E2)), [loads[1]]);
    assert_eq!(launched(&cluster.ok_all(loads[2])), [], "kept on the third executor now");
    assert!(reserves(&cluster, gang));
    assert_eq!(launched_stages(&cluster.ok_all(loads[1])), [gang]);
    assert_eq!(launched(&cluster.ok_all(gang)), [(attempt(small, 0), PartitionId(0), E1)]);
}

#[test]
fn when_an_executor_outside_of_the_plan_goes_the_slots_stay_kept() {
    let mut cluster = Cluster::of(&[2, 2, 1]);
    let load = cluster.submit(StageSpec { priority: -1, ..plain(5) }).0;
    let (gang, _) = cluster.submit(gang(3));
    cluster.age(gang);
    assert_eq!(launched(&cluster.ok(cluster.task(load, 0))), []);
    assert_eq!(launched(&cluster.lose(E3)), [], "the lost task stands behind the gang");
    assert!(reserves(&cluster, gang));
    assert_eq!(launched(&cluster.ok(cluster.task(load, 1))), []);
    assert_eq!(launched_stages(&cluster.ok(cluster.task(load, 3))), [gang]);
}

#[test]
fn a_new_executor_launches_the_gang_at_once_if_it_suffices() {
    let Kept { mut cluster, gang, .. } = kept();
    let (small, _) = cluster.submit(plain(1));
    let effects = cluster.join(E3, cpus(2));
    assert_eq!(launched_stages(&effects), [gang]);
    assert_eq!(cluster.status(small).tasks, [], "one slot was kept, two came, three are taken");
}

#[test]
fn a_new_executor_that_does_not_suffice_is_part_of_the_plan() {
    let Kept { mut cluster, load, gang } = kept();
    let (small, _) = cluster.submit(plain(1));
    assert_eq!(launched(&cluster.join(E3, cpus(1))), []);
    assert!(reserves(&cluster, gang));
    assert_eq!(launched_stages(&cluster.ok(cluster.task(load, 1))), [gang]);
    assert_eq!(launched_stages(&cluster.ok(cluster.task(load, 2))), [small]);
}

#[test]
fn the_reservation_ends_with_the_launch() {
    let Kept { mut cluster, load, gang } = kept();
    cluster.ok(cluster.task(load, 1));
    assert_eq!(launched_stages(&cluster.ok(cluster.task(load, 2))), [gang]);
    cluster.ok(cluster.task(load, 3));
    let (small, effects) = cluster.submit(plain(1));
    assert_eq!(launched_stages(&effects), [small]);
}

#[test]
fn a_gang_that_was_old_reserves_at_once_in_its_next_attempt() {
    let Kept { mut cluster, load, gang } = kept();
    for partition in [1, 2] {
        cluster.ok(cluster.task(load, partition));
    }
    let (small, _) = cluster.submit(plain(1));
    let effects = cluster.fail(cluster.task(gang, 0), "boom");
    assert_eq!(launched_stages(&effects), [small], "a gang that is stopping keeps nothing");
    let (next, _) = cluster.submit(plain(1));
    let effects = cluster.killed(cluster.task(gang, 1));
    assert_eq!(launched_stages(&effects), [next]);
    let effects = cluster.killed(cluster.task(gang, 2));
    assert_eq!(timers(&effects), [], "it need not grow old again");
    assert!(reserves(&cluster, gang));
}

#[test]
fn nothing_is_kept_on_slots_of_tasks_that_ignore_their_kill() {
    let mut cluster = Cluster::of(&[1, 1, 1]);
    let (stuck, _) = cluster.submit(plain(1));
    let loads = [(); 2].map(|()| cluster.submit(plain(1)).0);
    let (gang, _) = cluster.submit(gang(2));
    cluster.age(gang);
    cluster.cancel(stuck);
    cluster.fire(overdue(attempt(stuck, 0)));
    let (small, _) = cluster.submit(plain(1));
    assert_eq!(launched(&cluster.ok_all(loads[0])), [], "kept: the other two executors suffice");
    assert_eq!(launched_stages(&cluster.ok_all(loads[1])), [gang]);
    assert_eq!(cluster.status(small).tasks, []);
}

#[test]
fn a_gang_that_cannot_start_before_a_stuck_task_ends_keeps_nothing_from_the_others() {
    let mut cluster = Cluster::of(&[1, 1]);
    let (stuck, _) = cluster.submit(plain(1));
    let (load, _) = cluster.submit(plain(1));
    let (gang, _) = cluster.submit(gang(2));
    cluster.age(gang);
    cluster.cancel(stuck);
    cluster.fire(overdue(attempt(stuck, 0)));
    let (small, _) = cluster.submit(plain(1));
    assert_eq!(launched_stages(&cluster.ok_all(load)), [small]);
    assert!(!reserves(&cluster, gang));
    cluster.killed_all(stuck);
    assert!(reserves(&cluster, gang), "the stuck task has ended after all");
    assert_eq!(launched_stages(&cluster.ok_all(small)), [gang]);
}

#[test]
fn a_plan_that_counted_on_a_task_that_ignores_its_kill_is_made_again() {
    let mut cluster = Cluster::of(&[1, 1, 1, 1]);
    let [stuck, second, third, fourth] = [(); 4].map(|()| cluster.submit(plain(1)).0);
    let (gang, _) = cluster.submit(gang(3));
    cluster.age(gang);
    assert_eq!(launched(&cluster.ok_all(second)), [], "planned on the first three executors");
    cluster.cancel(stuck);
    cluster.fire(overdue(attempt(stuck, 0)));
    cluster.submit(plain(1));
    assert_eq!(launched(&cluster.ok_all(fourth)), [], "planned on the last three now");
    assert_eq!(launched_stages(&cluster.ok_all(third)), [gang]);
}

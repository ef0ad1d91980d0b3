//! Cpus per task, named resources, fractions of them.

use super::*;

fn gpus(cpu: u32, count: usize) -> ExecutorResources {
    cpus(cpu).with("gpu", (0..count).map(|index| index.to_string()))
}

fn executors(count: u64, each: &ExecutorResources) -> Cluster {
    let mut cluster = Cluster::new(config());
    for executor in 1..=count {
        cluster.join(ExecutorId(executor), each.clone());
    }
    cluster
}

fn needing(resources: TaskResources, spec: StageSpec) -> StageSpec {
    StageSpec { resources, ..spec }
}

fn gpu(amount: f64) -> TaskResources {
    TaskResources::new(1).with("gpu", amount).unwrap()
}

/// Executor, partition and addresses of every task launched, by partition.
fn addresses(effects: &Effects) -> Vec<(PartitionId, ExecutorId, Vec<String>)> {
    let mut all = Vec::new();
    for effect in effects {
        if let SchedulerEffect::LaunchTasks { executor, launch } = effect {
            let of = |task: &LaunchTask| (task.partition, *executor, task.addresses["gpu"].clone());
            all.extend(launch.tasks.iter().map(of));
        }
    }
    all.sort_unstable();
    all
}

#[test]
fn cpus_per_task_bound_a_gang() {
    for (count, expected) in [(2, 0), (3, 3)] {
        let mut cluster = executors(count, &cpus(3));
        let (_, effects) = cluster.submit(needing(TaskResources::new(2), gang(3)));
        assert_eq!(launched(&effects).len(), expected, "{count} executors of 3 cpus");
    }
}

#[test]
fn a_task_holds_and_is_told_all_its_cpus() {
    let mut cluster = executors(1, &cpus(5));
    let (_, effects) = cluster.submit(needing(TaskResources::new(2), gang(2)));
    let cpus: Vec<_> = effects
        .iter()
        .filter_map(|effect| {
            let SchedulerEffect::LaunchTasks { launch, .. } = effect else { return None };
            Some(launch.tasks.iter().map(|task| task.cpus).sum::<u32>())
        })
        .collect();
    assert_eq!(cpus, [4]);
    assert_eq!(cluster.free_slots(), 1);
}

#[test]
fn gpus_bound_a_gang() {
    let cases = [
        (2, gpus(3, 1), 0, "two executors of one gpu"),
        (3, gpus(3, 1), 3, "three executors of one gpu"),
        (2, gpus(2, 2), 3, "two executors of two gpus"),
        (2, gpus(2, 1), 0, "two executors of two cpus and one gpu"),
    ];
    for (count, each, expected, name) in cases {
        let mut cluster = executors(count, &each);
        let (_, effects) = cluster.submit(needing(gpu(1.0), gang(3)));
        assert_eq!(launched(&effects).len(), expected, "{name}");
    }
}

#[test]
fn a_gang_of_one_gpu_per_task_gets_each_gpu_once() {
    let mut cluster = executors(2, &gpus(2, 2));
    let (_, effects) = cluster.submit(needing(gpu(1.0), gang(4)));
    let expected = [(0, E1, "0"), (1, E2, "0"), (2, E1, "1"), (3, E2, "1")]
        .map(|(task, executor, unit)| (PartitionId(task), executor, vec![unit.to_owned()]));
    assert_eq!(addresses(&effects), expected);
}

#[test]
fn several_gpus_per_task_are_given_whole() {
    let mut cluster = executors(1, &gpus(8, 5));
    let (_, effects) = cluster.submit(needing(gpu(2.0), gang(2)));
    let expected = [(0, ["0", "1"]), (1, ["2", "3"])]
        .map(|(task, units)| (PartitionId(task), E1, units.map(str::to_owned).to_vec()));
    assert_eq!(addresses(&effects), expected);
}

#[test]
fn tasks_of_a_kth_of_a_gpu_fill_the_gpus_of_one_executor_in_order() {
    for k in 1..=12_u32 {
        let mut cluster = executors(1, &gpus(50, 4));
        let (_, effects) = cluster.submit(needing(gpu(1.0 / f64::from(k)), gang(4 * k)));
        let expected: Vec<_> =
            (0..4 * k).map(|task| (PartitionId(task), E1, vec![(task / k).to_string()])).collect();
        assert_eq!(addresses(&effects), expected, "1/{k} gpu per task");
    }
}

#[test]
fn tasks_of_a_kth_of_a_gpu_fill_the_gpus_of_four_executors() {
    for k in 1..=12_u32 {
        let mut cluster = executors(4, &gpus(50, 1));
        let (_, effects) = cluster.submit(needing(gpu(1.0 / f64::from(k)), gang(4 * k)));
        let used = launched_on(&effects);
        for executor in [E1, E2, E3, E4] {
            let here = used.iter().filter(|it| **it == executor).count();
            assert_eq!(here, k as usize, "1/{k} gpu per task, executor {executor}");
        }
        assert!(addresses(&effects).iter().all(|(_, _, units)| *units == ["0"]));
    }
}

#[test]
fn one_task_more_than_the_fractions_allow_launches_nothing() {
    for k in 1..=12_u32 {
        let mut cluster = executors(1, &gpus(50, 4));
        let (stage, _) = cluster.submit(needing(gpu(1.0 / f64::from(k)), gang(4 * k + 1)));
        let (required, available) = (u64::from(4 * k + 1), u64::from(4 * k));
        let phase = StagePhase::Deferred { required, available, checks_left: 3 };
        assert_eq!(cluster.phase(stage), phase);
    }
}

#[test]
fn a_busy_gpu_is_not_given_twice_and_comes_back_with_its_task() {
    let mut cluster = executors(1, &gpus(8, 2));
    let (holder, effects) = cluster.submit(needing(gpu(1.0), plain(1)));
    let on_gpu = |unit: &str| vec![(PartitionId(0), E1, vec![unit.to_owned()])];
    assert_eq!(addresses(&effects), on_gpu("0"));
    let (_, effects) = cluster.submit(needing(gpu(1.0), plain(1)));
    assert_eq!(addresses(&effects), on_gpu("1"));
    let (gang, effects) = cluster.submit(needing(gpu(1.0), gang(1)));
    assert_eq!(launched(&effects), [], "six cpus are free, but no gpu");
    let phase = StagePhase::Queued { required: 1, free: 0, ahead: 0, reserves: false };
    assert_eq!(cluster.phase(gang), phase);
    assert_eq!(addresses(&cluster.ok_all(holder)), on_gpu("0"));
}

#[test]
fn a_stage_without_gpus_passes_one_that_waits_for_them() {
    let mut cluster = executors(1, &gpus(4, 1));
    cluster.submit(needing(gpu(1.0), plain(1)));
    cluster.submit(needing(gpu(1.0), gang(1)));
    let (stage, effects) = cluster.submit(gang(3));
    assert_eq!(launched_stages(&effects), [stage]);
}

#[test]
fn a_resource_that_nobody_has_defers_the_stage() {
    let mut cluster = executors(2, &gpus(4, 2));
    let resources = TaskResources::new(1).with("tpu", 1.0).unwrap();
    let (stage, _) = cluster.submit(needing(resources, gang(1)));
    let phase = StagePhase::Deferred { required: 1, available: 0, checks_left: 3 };
    assert_eq!(cluster.phase(stage), phase);
}

#[test]
fn only_executors_with_the_resource_are_used() {
    let mut cluster = executors(1, &cpus(8));
    cluster.join(E2, gpus(2, 2));
    let (_, effects) = cluster.submit(needing(gpu(1.0), gang(2)));
    assert_eq!(launched_on(&effects), [E2, E2]);
}

#[test]
fn max_concurrent_tasks_counts_all_slots_busy_ones_included() {
    let mut cluster = executors(4, &cpus(3));
    let one = TaskResources::default();
    assert_eq!(cluster.machine.max_concurrent_tasks(&one), 12);
    assert_eq!(cluster.machine.max_concurrent_tasks(&TaskResources::new(2)), 4);
    assert_eq!(cluster.machine.max_concurrent_tasks(&gpu(1.0)), 0);
    cluster.submit(gang(4));
    assert_eq!(cluster.machine.max_concurrent_tasks(&one), 12);
    assert_eq!(cluster.machine.max_concurrent_tasks(&TaskResources::new(2)), 4);
    cluster.lose(E4);
    assert_eq!(cluster.machine.max_concurrent_tasks(&one), 9);
}

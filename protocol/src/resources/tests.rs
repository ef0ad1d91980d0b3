use super::*;

fn gpus(count: usize) -> ExecutorResources {
    ExecutorResources::new(50).with("gpu", (0..count).map(|i| i.to_string()))
}

fn gpu_task(amount: f64) -> TaskResources {
    TaskResources::new(1).with("gpu", amount).unwrap()
}

#[test]
fn slots_of_four_gpus_by_amount() {
    let free = Free::all(&gpus(4));
    let expected = [
        (0.2, 20),
        (0.3, 12),
        (0.4, 8),
        (0.5, 8),
        (0.8, 4),
        (1.0, 4),
        (2.0, 2),
        (3.0, 1),
        (4.0, 1),
    ];
    for (amount, slots) in expected {
        assert_eq!(free.fits(&gpu_task(amount)), slots, "{amount} gpu per task");
    }
    assert_eq!(free.fits(&gpu_task(1.5)), 2, "more than one is rounded up to whole units");
    assert_eq!(free.fits(&gpu_task(5.0)), 0);
}

#[test]
fn k_tasks_of_a_kth_fill_the_addresses_in_ascending_order() {
    for k in 1..=12_u32 {
        let resources = gpus(4);
        let mut free = Free::all(&resources);
        let task = gpu_task(1.0 / f64::from(k));
        assert_eq!(free.fits(&task), 4 * k, "1/{k}");
        for i in 0..4 * k {
            let addresses = free.take(&task).addresses(&resources);
            assert_eq!(addresses["gpu"], [(i / k).to_string()], "task {i} of 1/{k}");
        }
        assert_eq!(free.fits(&task), 0, "1/{k}");
    }
}

#[test]
fn what_is_given_back_can_be_taken_again() {
    let resources = gpus(2);
    let mut free = Free::all(&resources);
    let untouched = free.clone();
    let held = [free.take(&gpu_task(0.5)), free.take(&gpu_task(1.0)), free.take(&gpu_task(0.5))];
    assert_eq!(free.fits(&gpu_task(0.1)), 0);
    for held in &held {
        free.give_back(held);
    }
    assert_eq!(free, untouched);
}

#[test]
fn cpus_limit_as_well_and_an_unknown_resource_fits_nothing() {
    let free = Free::all(&ExecutorResources::new(3).with("gpu", ["0"]));
    assert_eq!(free.fits(&TaskResources::new(2)), 1);
    assert_eq!(free.fits(&TaskResources::new(1).with("tpu", 1.0).unwrap()), 0);
}

#[test]
fn a_reservation_leaves_only_what_it_does_not_need() {
    let free = Free::all(&ExecutorResources::new(4).with("gpu", ["0", "1"]));
    let gang = gpu_task(1.0);
    assert_eq!(free.fits_beside(&TaskResources::new(1), 1, &gang), 3);
    assert_eq!(free.fits_beside(&gpu_task(0.5), 1, &gang), 2, "one gpu is kept whole");
    assert_eq!(free.fits_beside(&gpu_task(0.5), 2, &gang), 0);
    assert_eq!(free.fits_beside(&TaskResources::new(1), 9, &gang), 0, "more than there is");
}

#[test]
fn an_amount_that_means_nothing_is_refused_by_name() {
    for amount in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e12] {
        let refused = TaskResources::new(1).with("gpu", amount).unwrap_err();
        assert!(refused.to_string().contains("resource 'gpu'"), "{refused}");
    }
}

#[test]
fn what_a_task_takes_is_written_out() {
    assert_eq!(TaskResources::default().to_string(), "1 cpu");
    assert_eq!(gpu_task(0.5).with_cpus(2).to_string(), "2 cpus + 0.5 gpu");
    assert_eq!(gpu_task(0.5).with_cpus(2).cpus(), 2);
}

#[test]
fn what_another_task_holds_can_be_taken_away() {
    let mut free = Free::all(&gpus(2));
    let held = free.clone().take(&gpu_task(0.5));
    free.take_away(&held);
    assert_eq!((free.cpus(), free.fits(&gpu_task(1.0)), free.fits(&gpu_task(0.5))), (49, 1, 3));
    free.give_back(&held);
    assert_eq!(free, Free::all(&gpus(2)));
}

//! Datasets and their jobs, through the public API.

use phalanx::{
    Config, Dataset, JobFailure, OnFailure, Runtime, RuntimeEvent, StageFailure, TaskFailure,
    TaskResult,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

#[test]
fn rows_go_through_a_gang_and_back() -> TaskResult<()> {
    let runtime = Runtime::with_slots(3)?;
    let numbers = runtime.parallelize(0..9, 3).map(|number| number * 2);
    let gang = numbers.barrier().map_partitions(|ctx, rows| {
        let mine: Vec<i32> = rows.collect();
        assert_eq!(ctx.all_gather(&mine.len())?, [3, 3, 3]);
        Ok(mine)
    });
    assert!(gang.is_barrier() && !numbers.is_barrier());
    assert_eq!(gang.collect().wait()?, [0, 2, 4, 6, 8, 10, 12, 14, 16]);
    assert_eq!(gang.count().wait()?, 9);
    assert_eq!(gang.reduce(i32::max).wait()?, Some(16));
    assert_eq!(gang.take(4).wait()?, [0, 2, 4, 6]);
    assert_eq!(gang.take(100).wait()?.len(), 9);
    assert_eq!(gang.first().wait()?, Some(0));
    Ok(())
}

#[test]
fn every_operation_makes_the_rows_it_says() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let numbers = runtime.parallelize(0..7, 3);
    let parts =
        |dataset: &Dataset<i32>| dataset.collect_partitions(0..dataset.num_partitions()).wait();
    assert_eq!(parts(&numbers)?, [vec![0, 1], vec![2, 3], vec![4, 5, 6]]);
    assert_eq!(parts(&numbers.filter(|it| it % 2 == 1))?, [vec![1], vec![3], vec![5]]);
    assert_eq!(parts(&numbers.flat_map(|it| [it; 2]).coalesce(1))?.concat().len(), 14);
    assert_eq!(parts(&numbers.map_partitions(|rows| Ok([rows.sum()])))?, [[1], [5], [15]]);
    let indices = numbers.map_partitions_with_index(|index, rows| Ok([(index, rows.count())]));
    assert_eq!(indices.collect().wait()?, [(0, 2), (1, 2), (2, 3)]);
    let zipped = numbers.zip(&numbers.map(|it| it.to_string())).collect().wait()?;
    assert_eq!(zipped[6], (6, "6".to_owned()));
    let both = numbers.union(&runtime.from_partitions([vec![7], vec![]]));
    assert_eq!(parts(&both)?[3..], [vec![7], vec![]]);
    assert_eq!(parts(&both.coalesce(2))?, [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
    assert_eq!(parts(&both.coalesce(9))?, parts(&both)?);
    assert_eq!(parts(&both.prune_partitions(|index| index > 1))?[..2], [vec![4, 5, 6], vec![7]]);
    // Dealt out from each partition's own place.
    assert_eq!(parts(&numbers.repartition(2))?, [vec![0, 3, 4, 6], vec![1, 2, 5]]);
    let groups = numbers.group_by(|it| it % 2).collect().wait()?;
    let evens = groups.iter().find(|(key, _)| *key == 0);
    assert_eq!((groups.len(), evens), (2, Some(&(0, vec![0, 2, 4, 6]))));
    let sums = numbers.map(|it| (it % 3, it)).reduce_by_key(|a, b| a + b).collect().wait()?;
    let mut sums = sums;
    sums.sort_unstable();
    assert_eq!(sums, [(0, 9), (1, 5), (2, 7)]);
    let none = runtime.parallelize(0..0, 2);
    assert_eq!(none.reduce(i32::max).wait()?, None);
    assert_eq!((none.count().wait()?, none.first().wait()?), (0, None));
    let nothing = runtime.from_partitions(Vec::<Vec<i32>>::new());
    assert_eq!(nothing.repartition(2).count().wait()?, 0);
    assert_eq!(nothing.barrier().map_partitions(|_, rows| Ok(rows)).collect().wait()?, []);
    Ok(())
}

#[test]
fn what_cannot_be_run_names_the_value_and_the_remedy() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let numbers = runtime.parallelize(0..4, 2);
    let refusals = [
        (runtime.parallelize(0..4, 0).count(), "4 items cannot be in 0 partitions"),
        (
            runtime.parallelize(0..4, usize::MAX).coalesce(2).count(),
            "partitions are asked for, allowed are at most 1000000 (stage.max_tasks)",
        ),
        (numbers.coalesce(0).count(), "coalesce: rows cannot be in 0 partitions"),
        (numbers.repartition(0).count(), "repartition: rows cannot be in 0 partitions"),
        (numbers.zip(&numbers.coalesce(1)).count(), "2 partitions and one of 1 do not pair up"),
    ];
    for (job, text) in refusals {
        let error = job.wait().unwrap_err();
        assert!(matches!(error.failure(), JobFailure::Refused { .. }), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    let error = numbers.collect_partitions([0, 2]).wait().unwrap_err().to_string();
    assert!(error.ends_with("partition 2 is asked for, there are 2, from 0 on"), "{error}");
    let uneven = numbers.zip(&numbers.filter(|it| *it > 0)).collect().wait().unwrap_err();
    let text = "in partition 0 the first dataset has more rows than the 1 of the other";
    assert!(uneven.to_string().contains(text), "{uneven}");
    Ok(())
}

#[test]
fn a_program_that_builds_without_end_is_told_and_not_ended() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let mut numbers = runtime.parallelize(0..4, 2);
    for _ in 0..500 {
        numbers =
            numbers.map(|it| it + 1).filter(|_| true).coalesce(2).zip(&numbers).map(|it| it.0);
    }
    let error = numbers.count().wait().unwrap_err().to_string();
    assert!(error.contains("more than 512 datasets"), "{error}");
    let mut deep = runtime.parallelize(0..4, 2);
    for _ in 0..511 {
        deep = deep.flat_map(|it| [it + 1]);
    }
    assert_eq!(deep.collect().wait()?, [511, 512, 513, 514]);
    Ok(())
}

#[test]
fn a_task_that_fails_is_named_and_its_own_error_kept() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let numbers = runtime.parallelize(0..4, 2);
    let settings = |dataset: &Dataset<i32>| dataset.settings(|stage| stage.max_attempts(1));
    let panics = settings(&numbers.map(|it| if it == 3 { panic!("three") } else { it }));
    let error = panics.collect().wait().unwrap_err();
    let cause = error.first_cause().expect("a task failed");
    assert_eq!(cause.failure, TaskFailure::Panicked("three".to_owned()));
    assert_eq!(cause.origin.expect("it was a task's").partition.0, 1);
    let fails = numbers.map_partitions(|rows| match rows.sum::<i32>() {
        5 => Err("five".parse::<i32>().unwrap_err().into()),
        sum => Ok([sum]),
    });
    // The error ends the task through the operation that asks for the row.
    let error = settings(&fails.map(|it| it + 1)).reduce(i32::max).wait().unwrap_err();
    assert!(error.to_string().contains("invalid digit"), "{error}");
    let source = error.into_source().expect("it returned an error");
    assert!(source.is::<std::num::ParseIntError>());
    Ok(())
}

#[test]
fn a_killed_task_ends_though_it_never_looks() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let (begun, has_begun) = mpsc::channel();
    let forever = runtime.parallelize([0], 1).flat_map(|_| 0..u64::MAX);
    let never = forever.filter(move |it| *it == 0 && begun.send(()).is_err());
    let job = never.count();
    has_begun.recv()?;
    job.cancel("enough");
    let error = job.wait().unwrap_err();
    assert!(error.is_cancelled() && error.to_string().ends_with("cancelled: enough"), "{error}");
    runtime.shutdown_blocking(Duration::from_secs(20))?;
    Ok(())
}

#[test]
fn jobs_are_told_of_the_end_of_their_runtime() -> TaskResult<()> {
    let runtime = Runtime::with_slots(1)?;
    let numbers = runtime.parallelize(0..4, 2);
    let gang = numbers.barrier().map_partitions(|_, rows| Ok(rows));
    let waits = gang.count(); // for slots that do not come
    runtime.shutdown_blocking(Duration::from_secs(20))?;
    assert_eq!(waits.wait().unwrap_err().failure(), &JobFailure::Shutdown);
    assert_eq!(numbers.count().wait().unwrap_err().failure(), &JobFailure::Shutdown);
    Ok(())
}

#[test]
fn a_job_may_be_awaited_by_any_runtime() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let counted = actix_rt::System::new().block_on(runtime.parallelize(0..4, 2).count());
    assert_eq!(counted?, 4);
    let task = phalanx::Stage::tasks(1).run(&runtime, {
        let numbers = runtime.parallelize(0..4, 1);
        async move |_| {
            let refused = numbers.count().wait().unwrap_err().to_string();
            assert!(refused.contains("await the handle"), "{refused}");
            Ok(numbers.count().await?)
        }
    });
    assert_eq!(task.wait()?, [4]);
    Ok(())
}

#[test]
fn settings_hold_for_all_stages_of_the_job() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let mut events = runtime.subscribe();
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let numbers =
        runtime.parallelize(0..4, 2).repartition(2).barrier().map_partitions(move |_, rows| {
            match counted.fetch_add(1, Ordering::Relaxed) {
                0..2 => Err("not yet".into()),
                _ => Ok(rows),
            }
        });
    let named = numbers.settings(|stage| {
        stage.name("twice").on_failure(OnFailure::Restart).retry_delay(Duration::ZERO).priority(7)
    });
    let job = named.count();
    assert_eq!((job.name(), job.stages().len()), ("twice", 2));
    assert_eq!(job.wait()?, 4);
    let mut names = Vec::new();
    loop {
        match events.next_blocking()?.event {
            RuntimeEvent::StageSubmitted { spec, .. } => {
                assert_eq!(spec.priority, 7);
                names.push(spec.name);
            }
            RuntimeEvent::JobEnded { .. } => break,
            _ => {}
        }
    }
    assert_eq!(names, ["twice-map-0", "twice"]);
    let error = numbers.settings(|stage| stage.max_attempts(0)).count().wait().unwrap_err();
    assert!(error.to_string().contains("max_attempts is 0"), "{error}");
    Ok(())
}

#[test]
fn an_action_for_its_effects_is_repeated_while_none_of_its_partitions_is_done() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let numbers = runtime
        .parallelize(0..2, 2)
        .settings(|stage| stage.on_failure(OnFailure::Restart).retry_delay(Duration::ZERO));
    let gang = numbers.barrier().map_partitions(|ctx, rows| {
        ctx.barrier()?;
        Ok(rows.map(move |row| (ctx.stage_attempt_number(), row)))
    });
    let fails_once = gang.for_each_partition(|mut rows| match rows.next() {
        Some((0, _)) => Err("before anything is done".into()),
        _ => Ok(()),
    });
    fails_once.wait()?;
    // Fails when the other one is done, as its event says.
    let mut events = runtime.subscribe();
    let (done, is_done) = mpsc::channel();
    let is_done = std::sync::Mutex::new(is_done);
    let fails_late = gang.for_each_partition(move |mut rows| match rows.next() {
        Some((_, 0)) => Ok(()),
        _ => {
            is_done.lock().map_err(|_| "poisoned")?.recv()?;
            Err("too late".into())
        }
    });
    while !matches!(events.next_blocking()?.event, RuntimeEvent::TaskEnded { .. }) {}
    done.send(())?;
    let error = fails_late.wait().unwrap_err();
    let JobFailure::Stage { failure, .. } = error.failure() else { panic!("{error}") };
    assert!(matches!(failure, StageFailure::Committed { committed: 1, .. }), "{error}");
    Ok(())
}

#[test]
fn a_task_that_waits_for_a_job_without_slots_can_be_cancelled() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let inner = runtime.clone();
    let (begun, has_begun) = mpsc::channel();
    let holds_all = runtime.parallelize(0..2, 2).barrier().map_partitions(move |ctx, _| {
        ctx.barrier()?;
        // A gang: it cannot begin on the slot of the first of these two that ends.
        let two = inner.parallelize(0..2, 2).barrier();
        let no_slot_is_left = two.map_partitions(|_, rows| Ok(rows)).collect();
        begun.send(no_slot_is_left.control())?;
        Ok(no_slot_is_left.wait()?)
    });
    let job = holds_all.collect();
    let waits = [has_begun.recv()?, has_begun.recv()?];
    job.cancel("it goes on for ever");
    assert!(job.wait().unwrap_err().is_cancelled());
    for control in waits {
        let ended = actix_rt::System::new().block_on(control.ended());
        let reason = "the task that waited for it was killed".to_owned();
        assert_eq!(ended, Err(JobFailure::Cancelled { reason }));
    }
    assert_eq!(runtime.parallelize(0..2, 2).count().wait()?, 2);
    Ok(())
}

#[test]
fn what_tasks_report_is_seen_by_who_has_the_job() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let gang = runtime.parallelize(0..4, 2).repartition(2).barrier().map_partitions(|ctx, rows| {
        ctx.report_progress(ctx.rank() as u64, 2);
        Ok(rows)
    });
    let job = gang.count();
    let control = job.control();
    job.wait()?;
    let progress = |done| Some(phalanx::Progress { done, total: 2 });
    assert_eq!(control.progress(), [progress(0), progress(1)]);
    Ok(())
}

#[test]
fn a_job_that_was_refused_does_not_decide_for_the_next_on_the_same_shuffle() -> TaskResult<()> {
    let config = Config { slots: 2, slot_check_max_failures: 0, ..Config::default() };
    let runtime = Runtime::start(config)?;
    let gang = runtime.parallelize(0..4, 2).barrier().map_partitions(|_, rows| Ok(rows));
    let dealt = gang.repartition(2);
    let refused = dealt.settings(|stage| stage.cpus(2)).count().wait().unwrap_err();
    assert!(refused.to_string().contains("ask for fewer resources per task"), "{refused}");
    assert_eq!(dealt.settings(|stage| stage.cpus(1)).count().wait()?, 4, "as the text advises");
    Ok(())
}

#[test]
fn datasets_of_two_runtimes_are_not_put_together() -> TaskResult<()> {
    let (one, other) = (Runtime::with_slots(2)?, Runtime::with_slots(2)?);
    let [mine, theirs] = [&one, &other].map(|it| it.parallelize(0..4, 2).repartition(2));
    let refusals = [
        mine.union(&theirs).count().wait().unwrap_err(),
        mine.zip(&theirs).count().wait().unwrap_err(),
    ];
    for (refused, operation) in refusals.iter().zip(["union", "zip"]) {
        let text = format!("{operation}: the datasets are of two runtimes; collect() one of them");
        assert!(refused.to_string().contains(&text), "{refused}");
    }
    assert_eq!(mine.union(&mine.clone()).count().wait()?, 8);
    Ok(())
}

#[test]
fn a_dataset_of_no_partitions_starts_and_ends_like_any_other() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let mut events = runtime.subscribe();
    let made = Arc::new(AtomicU32::new(0));
    let counted = made.clone();
    let rows = runtime.parallelize(0..4, 2).map(move |row| {
        counted.fetch_add(1, Ordering::SeqCst);
        row
    });
    let none = rows.repartition(2).prune_partitions(|_| false);
    assert_eq!((none.collect().wait()?, none.first().wait()?), (vec![], None));
    assert_eq!(made.load(Ordering::SeqCst), 0, "nothing was made for nobody");
    let mut starts_and_ends = Vec::new();
    while starts_and_ends.len() < 4 {
        match events.next_blocking()?.event {
            RuntimeEvent::JobStarted { stages, .. } => starts_and_ends.push(Some(stages.len())),
            RuntimeEvent::JobEnded { failure: None, .. } => starts_and_ends.push(None),
            _ => {}
        }
    }
    assert_eq!(starts_and_ends, [Some(2), None, Some(2), None]);
    let gang = rows.barrier().map_partitions(|_, rows| Ok(rows)).prune_partitions(|_| false);
    let refused = gang.count().wait().unwrap_err();
    assert!(refused.to_string().contains("a barrier stage cannot hold"), "{refused}");
    Ok(())
}

#[test]
fn the_rows_of_a_gang_end_once_for_whoever_takes_some() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let gang = runtime.from_partitions([vec![1], vec![2, 3, 4]]).barrier();
    let meet_at_the_end = gang.map_partitions(|ctx, mut rows| {
        Ok(std::iter::from_fn(move || {
            rows.next().or_else(|| ctx.barrier().map(|_| None).unwrap_or_else(|it| panic!("{it}")))
        }))
    });
    assert_eq!(meet_at_the_end.take(2).wait()?, [1, 2]);
    assert_eq!(meet_at_the_end.collect().wait()?, [1, 2, 3, 4]);
    Ok(())
}

#[test]
fn what_several_datasets_are_made_into_is_explained_as_a_tree() -> TaskResult<()> {
    let runtime = Runtime::with_slots(2)?;
    let (one, other) =
        (runtime.parallelize(0..4, 2).map(|it| it + 1), runtime.parallelize(4..8, 2));
    let both = one.union(&other).map(|it| it).zip(&one.union(&one));
    assert_eq!(
        both.explain(),
        "stage 0: result, plain, 4 tasks: zip(union(parallelize -> map, parallelize) -> map, \
         union(the same map, the same map))\n"
    );
    Ok(())
}

#[test]
fn a_task_whose_rows_take_their_time_soon_sees_its_kill() -> TaskResult<()> {
    let runtime = Runtime::with_slots(1)?;
    let (begun, has_begun) = mpsc::channel();
    let after = Arc::new(AtomicU32::new(0));
    let counted = after.clone();
    let slow = runtime.parallelize(0..5_000, 1).map(move |row| {
        if row >= 300 {
            begun.send(row).unwrap_or_default();
            counted.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(2));
        row
    });
    let job = slow.count();
    has_begun.recv()?;
    job.cancel("too slow");
    assert!(job.wait().unwrap_err().is_cancelled());
    // It lets go of its code when it ends.
    drop(slow);
    has_begun.iter().for_each(drop);
    let after = after.load(Ordering::SeqCst);
    assert!(after < 256, "{after} rows were made after the kill");
    Ok(())
}

//! Map gangs of jobs that fail: rows R2, R4 and R5, and J16, J17 and J20.

use super::{End, both};
use crate::observe::{Gate, cluster, launched_in, local, no_pause, until};
use crate::observe_jobs::{
    attempts, causes, failed, is_forgotten, job_story, lose, no_job_is_left, starts, succeeds,
    until_nothing_is_kept,
};
use phalanx::actors::KillPartition;
use phalanx::{
    Config, Dataset, ExecutorResources, JobFailure, PartitionId, Runtime, RuntimeEvent,
    StageFailure, StageRole, TaskFailure,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn task_1_ends_by(end: End) {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let go = Gate::closed();
    let gate = go.clone();
    let made = runtime.parallelize(0..2, 2).barrier().map_partitions(move |ctx, _| {
        if ctx.rank() == 1 && ctx.stage_attempt_number() == 0 {
            gate.pass_blocking();
            match end {
                End::IsKilled => ctx.wait_killed(),
                End::Fails => return Err("no route".into()),
                End::Panics => std::panic::resume_unwind(Box::new("no route")),
            }
        }
        Ok([(ctx.rank(), ctx.stage_attempt_number())])
    });
    // A result gang, which is of its first attempt.
    let behind = made.repartition(2).barrier().map_partitions(|ctx, rows| {
        ctx.barrier()?;
        Ok(rows.map(move |row| (row, ctx.stage_attempt_number())))
    });
    let job = behind.collect();
    let (id, map, result) = (job.id(), job.stages()[0], job.stages()[1]);
    assert_eq!(until(&mut events, succeeds(map)), PartitionId(0), "{end:?}");
    go.open();
    if let End::IsKilled = end {
        let (partition, reason) = (PartitionId(1), "preempted".to_owned());
        runtime.scheduler().do_send(KillPartition { stage: map, partition, reason });
    }
    let rows = crate::observe_jobs::sorted(job.wait().unwrap());
    assert_eq!(rows, [((0, 1), 0), ((1, 1), 0)], "{end:?}: also the good one is made again");
    no_job_is_left(&runtime);
    let told = job_story(&mut events, id);
    let failed = causes(&told);
    assert!(matches!(failed[..], [(_, true)]), "{end:?}: {failed:?}");
    assert_eq!(failed[0].0.origin.unwrap().partition, PartitionId(1));
    assert_eq!(attempts(&told), [(map, 1), (result, 0)], "{end:?}");
    assert_eq!(launched_in(&told, map, 1), both());
    assert!(told.iter().all(|event| is_forgotten(event).is_none()), "nothing had been handed in");
    drop((made, behind));
    until_nothing_is_kept(&runtime);
}

#[test]
fn r2_a_killed_task_of_a_map_gang_has_all_run_again() {
    task_1_ends_by(End::IsKilled);
}

#[test]
fn r2_a_failed_task_of_a_map_gang_has_all_run_again() {
    task_1_ends_by(End::Fails);
}

#[test]
fn r2_a_panic_in_a_map_gang_has_all_run_again() {
    task_1_ends_by(End::Panics);
}

/// Neither the settings of the result, nor its abort at a failure, are those of a map gang.
#[test]
fn r2_an_executor_lost_under_a_map_gang_has_all_run_again() {
    let runtime = cluster(2, 1);
    let mut events = runtime.subscribe();
    let made = runtime.parallelize(0..2, 2).barrier().map_partitions(|ctx, _| {
        if ctx.rank() == 1 && ctx.stage_attempt_number() == 0 {
            ctx.wait_killed();
        }
        Ok([(ctx.rank(), ctx.stage_attempt_number())])
    });
    let job = made.settings(|stage| stage.max_attempts(1)).repartition(1).collect();
    let (id, map) = (job.id(), job.stages()[0]);
    until(&mut events, succeeds(map));
    lose(&runtime, 1);
    pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    assert_eq!(job.wait().unwrap(), [(0, 1), (1, 1)]);
    let told = job_story(&mut events, id);
    assert!(matches!(causes(&told)[0].0.failure, TaskFailure::ExecutorLost(_)));
    assert_eq!(launched_in(&told, map, 1), both());
}

#[test]
fn r4_several_failures_of_one_attempt_of_a_map_gang_are_one() {
    let runtime = local(4);
    let mut events = runtime.subscribe();
    let made = runtime.parallelize(0..4, 4).barrier().map_partitions(|ctx, rows| {
        if ctx.stage_attempt_number() < 2 {
            // All have begun.
            let _ = ctx.barrier();
            return Err(format!("the fault of {}", ctx.rank()).into());
        }
        Ok(rows)
    });
    // Two attempts may fail, so eight failures that counted would be too many.
    let job = made.settings(|stage| stage.max_attempts(3)).repartition(1).count();
    let (id, map, result) = (job.id(), job.stages()[0], job.stages()[1]);
    assert_eq!(job.wait().unwrap(), 4);
    let told = job_story(&mut events, id);
    assert_eq!(causes(&told).len(), 2);
    assert_eq!(attempts(&told), [(map, 0), (map, 1), (map, 2), (result, 0)]);
    for number in 0..3 {
        assert_eq!(launched_in(&told, map, number).len(), 4, "attempt {number}");
    }
}

/// A task that ignored its kill ends while the next attempt runs, on an executor that took the
/// place of its own: its rows are nobody's.
#[test]
fn r5_a_task_of_a_former_attempt_adds_no_rows() {
    let config =
        Config { slots: 2, kill_zombie_deadline: Some(Duration::from_millis(1)), ..no_pause() };
    let runtime = Runtime::start(config).unwrap();
    let mut events = runtime.subscribe();
    let (zombie, go, begun, ended) =
        (Gate::closed(), Gate::closed(), Gate::closed(), Arc::new(AtomicU32::new(0)));
    let (deaf, gate, ends) = (zombie.clone(), go.clone(), ended.clone());
    let made = runtime.parallelize(0..2, 2).barrier().map_partitions(move |ctx, rows| {
        if ctx.stage_attempt_number() > 0 {
            ctx.barrier()?;
            gate.pass_blocking();
            return Ok(vec![ctx.stage_attempt_number()]);
        }
        if ctx.rank() == 0 {
            begun.pass_blocking();
            return Err("the cause".into());
        }
        begun.open();
        deaf.pass_blocking();
        drop(rows);
        ends.fetch_add(1, Ordering::SeqCst);
        Ok(vec![0; 100])
    });
    let job = made.repartition(1).collect();
    let (id, map) = (job.id(), job.stages()[0]);
    until(&mut events, |event| matches!(event, RuntimeEvent::ExecutorLost { .. }).then_some(()));
    until(&mut events, starts(map, 1));
    zombie.open();
    while ended.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    go.open();
    let rows = job.wait().unwrap();
    let told = job_story(&mut events, id);
    assert_eq!(rows, [1, 1], "nothing that attempt 1 made is lost: {told:?}");
    assert_eq!(causes(&told), []);
    no_job_is_left(&runtime);
}

/// Rows whose making fails three times, then succeeds, and so again when they are made again.
fn shaky(runtime: &Runtime, runs: &Arc<AtomicU32>) -> Dataset<u32> {
    let runs = runs.clone();
    runtime.parallelize(0..2, 2).barrier().map_partitions(move |ctx, _| {
        if ctx.rank() == 1 && runs.fetch_add(1, Ordering::SeqCst) % 4 < 3 {
            return Err("not yet".into());
        }
        ctx.barrier()?;
        Ok([ctx.stage_attempt_number()])
    })
}

#[test]
fn j16_what_failed_before_a_success_does_not_count_when_outputs_are_made_again() {
    let runtime = cluster(1, 2);
    let mut events = runtime.subscribe();
    let runs = Arc::new(AtomicU32::new(0));
    let shuffled = shaky(&runtime, &runs).repartition(1);
    for round in 0..3 {
        let job = shuffled.collect();
        let (id, map, result) = (job.id(), job.stages()[0], job.stages()[1]);
        let last = 4 * round + 3;
        assert_eq!(job.wait().unwrap(), [last, last]);
        let told = job_story(&mut events, id);
        let map_attempts = (last - 3..=last).map(|number| (map, number));
        assert_eq!(attempts(&told), map_attempts.chain([(result, 0)]).collect::<Vec<_>>());
        assert_eq!(causes(&told).len(), 3, "the faults happened");
        lose(&runtime, u64::from(round));
        assert_eq!(until(&mut events, is_forgotten), (map, "0-1".to_owned()));
        pollster::block_on(runtime.add_executor(ExecutorResources::new(2))).unwrap();
    }
    assert_eq!(runs.load(Ordering::SeqCst), 12);
}

#[test]
fn j17_four_failures_in_a_row_of_a_map_gang_end_the_job_with_the_number_and_the_last_cause() {
    let runtime = local(4);
    let mut events = runtime.subscribe();
    let made = runtime.parallelize(0..4, 4).barrier().map_partitions(|ctx, rows| {
        if ctx.rank() == ctx.stage_attempt_number() as usize {
            return Err(format!("cause {}", ctx.rank()).into());
        }
        ctx.barrier()?;
        Ok(rows)
    });
    let job = made.repartition(2).settings(|stage| stage.name("mean")).count();
    let (id, map) = (job.id(), job.stages()[0]);
    let error = failed(job);
    let JobFailure::Stage { stage, role: StageRole::Map, is_barrier: true, failure, .. } =
        error.failure()
    else {
        panic!("{error}")
    };
    assert_eq!(*stage, map);
    assert!(matches!(failure, StageFailure::AttemptsExhausted { attempts: 4, .. }));
    let text = error.to_string();
    let begin =
        format!("job 0 'mean' aborted due to stage failure: stage {map} 'mean-map-0' failed");
    assert!(text.starts_with(&begin), "{text}");
    assert!(text.contains("failed 4 times in a row, the most allowed; the last time,"), "{text}");
    assert!(text.contains("partition 3 ") && text.ends_with("failed: cause 3"), "{text}");
    let told = job_story(&mut events, id);
    let retries = causes(&told).into_iter().map(|(cause, again)| (cause.attempt.attempt, again));
    let expected = (0..4).map(|number| (number, number < 3));
    assert_eq!(retries.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert!(attempts(&told).iter().all(|(stage, _)| *stage == map), "the result never began");
    assert_eq!(error.into_source().unwrap().to_string(), "cause 3");
    // The result does not wait for the others to heed their kill.
    drop(made);
    until_nothing_is_kept(&runtime);
}

/// The next job on the same rows begins anew.
#[test]
fn j16_a_job_that_failed_does_not_count_against_the_next() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let runs = Arc::new(AtomicU32::new(0));
    let shuffled = shaky(&runtime, &runs).settings(|stage| stage.max_attempts(2)).repartition(1);
    let error = failed(shuffled.count());
    assert!(error.to_string().contains("failed 2 times in a row"), "{error}");
    let job = shuffled.count();
    let (id, map) = (job.id(), job.stages()[0]);
    assert_eq!(job.wait().unwrap(), 2);
    let told = job_story(&mut events, id);
    let of_map: Vec<u32> =
        attempts(&told).iter().filter(|(stage, _)| *stage == map).map(|(_, n)| *n).collect();
    assert_eq!(of_map, [0, 1, 2, 3], "no attempt's number comes twice");
}

#[test]
fn j20_losses_of_executors_are_not_charged_to_a_map_gang() {
    let runtime = cluster(2, 1);
    let mut events = runtime.subscribe();
    let made = runtime.parallelize(0..2, 2).barrier().map_partitions(|ctx, _| {
        if ctx.stage_attempt_number() < 6 {
            ctx.wait_killed();
        }
        Ok([ctx.stage_attempt_number()])
    });
    let job = made.settings(|stage| stage.max_attempts(1)).repartition(1).collect();
    let map = job.stages()[0];
    for number in 0..6 {
        until(&mut events, starts(map, number));
        lose(&runtime, u64::from(number) + 1);
        pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    }
    assert_eq!(job.wait().unwrap(), [6, 6]);
}

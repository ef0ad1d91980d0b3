//! Result gangs of jobs that fail: rows R3 and L9.

use crate::observe::{Gate, cluster, launched_in, local, until};
use crate::observe_jobs::{
    attempts, causes, failed, is_forgotten, job_story, lose, met, no_job_is_left, starts, succeeds,
    until_nothing_is_kept,
};
use phalanx::actors::KillPartition;
use phalanx::{
    Dataset, ExecutorResources, JobError, JobFailure, JobHandle, JobId, OnFailure, PartitionId,
    Runtime, RuntimeEvent, StageFailure, StageId, StageRole, TaskFailure,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const COULD_NOT_RECOVER: &str =
    "aborted due to stage failure: could not recover from a failed barrier result stage";

fn again<T: 'static>(dataset: &Dataset<T>) -> Dataset<T> {
    dataset.settings(|stage| stage.on_failure(OnFailure::Restart))
}

/// A plain map stage, and a gang of two that fails in its first attempt, both tasks having met.
fn fails_once(runtime: &Runtime) -> Dataset<u32> {
    let made = runtime.parallelize(0..4, 2).repartition(2);
    made.barrier().map_partitions(|ctx, _| {
        ctx.barrier()?;
        if ctx.rank() == 0 && ctx.stage_attempt_number() == 0 {
            return Err("half of it is saved".into());
        }
        ctx.barrier()?;
        Ok([ctx.stage_attempt_number()])
    })
}

#[test]
fn r3_a_result_gang_of_a_dataset_that_is_killed_fails_the_job() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let made = runtime.parallelize(0..4, 2).repartition(2);
    let gang = made.barrier().map_partitions(|ctx, rows| {
        ctx.barrier()?;
        ctx.wait_killed();
        Ok(rows)
    });
    let job = gang.settings(|stage| stage.name("save")).count();
    let (id, result) = (job.id(), job.stages()[1]);
    until(&mut events, |event| matches!(event, RuntimeEvent::RoundReleased { .. }).then_some(()));
    let (partition, reason) = (PartitionId(0), "preempted".to_owned());
    runtime.scheduler().do_send(KillPartition { stage: result, partition, reason });
    let error = failed(job);
    assert_eq!(
        error.to_string(),
        format!(
            "job 0 'save' {COULD_NOT_RECOVER} (stage {result} 'save'), because results of some \
             partitions may have been handed out; the most recent failure: partition 0 (task 2 of \
             Stage {result} (Attempt 0) on executor 0) was killed: preempted. If a repeat does no \
             harm, ask for it: settings(|stage| stage.on_failure(OnFailure::Restart))"
        )
    );
    let JobFailure::Stage { stage, role: StageRole::Result, failure, .. } = error.failure() else {
        panic!("{error}")
    };
    assert_eq!(*stage, result);
    assert!(matches!(failure, StageFailure::Aborted { .. }), "{error}");
    let told = job_story(&mut events, id);
    assert!(matches!(causes(&told)[..], [(_, false)]), "{told:?}");
    drop((made, gang));
    until_nothing_is_kept(&runtime);
}

/// The job, its result stage, and why it failed.
fn end_of<R: 'static>(job: JobHandle<R>) -> (JobId, StageId, JobError) {
    (job.id(), job.stages()[1], failed(job))
}

/// Whatever the number of attempts allowed, and whatever the action.
#[test]
fn r3_a_result_gang_of_a_dataset_has_no_second_attempt() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let gang = fails_once(&runtime).settings(|stage| stage.max_attempts(4));
    let ends = [
        end_of(gang.collect()),
        end_of(gang.count()),
        end_of(gang.first()),
        end_of(gang.reduce(u32::max)),
        end_of(gang.for_each_partition(|_| Ok(()))),
    ];
    for (id, result, error) in ends {
        assert!(error.to_string().contains(COULD_NOT_RECOVER), "{error}");
        let cause = error.first_cause().unwrap();
        assert_eq!(cause.failure, TaskFailure::Error("half of it is saved".to_owned()));
        let told = job_story(&mut events, id);
        let of_result: Vec<_> =
            attempts(&told).into_iter().filter(|(stage, _)| *stage == result).collect();
        assert_eq!(of_result, [(result, 0)]);
        assert_eq!(error.into_source().unwrap().to_string(), "half of it is saved");
    }
}

/// The loss of an executor, and of an input, fail it just so.
#[test]
fn r3_a_result_gang_of_a_dataset_is_not_repeated_for_the_machinery_either() {
    let runtime = cluster(2, 1);
    let mut events = runtime.subscribe();
    let gang = runtime.parallelize(0..2, 2).barrier().map_partitions(|ctx, rows| {
        ctx.wait_killed();
        Ok(rows)
    });
    let job = gang.count();
    until(&mut events, starts(job.stages()[0], 0));
    lose(&runtime, 1);
    let error = failed(job);
    assert!(error.to_string().contains(COULD_NOT_RECOVER), "{error}");
    assert!(matches!(error.first_cause().unwrap().failure, TaskFailure::ExecutorLost(_)));
    // A gang that runs on one executor, its input was made on two.
    pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    let gate = Gate::closed();
    let go = gate.clone();
    let gang = met(&runtime, 2).repartition(1).barrier().map_partitions(move |_, rows| {
        go.pass_blocking();
        Ok(rows)
    });
    let job = gang.count();
    until(&mut events, starts(job.stages()[1], 0));
    lose(&runtime, 2);
    until(&mut events, is_forgotten);
    gate.open();
    let error = failed(job);
    assert!(error.to_string().contains(COULD_NOT_RECOVER), "{error}");
    assert!(matches!(error.first_cause().unwrap().failure, TaskFailure::FetchFailed(_)));
    no_job_is_left(&runtime);
}

/// A plain result stage is not a gang: its tasks are tried again one by one.
#[test]
fn r3_a_plain_result_stage_tries_its_tasks_again() {
    let runtime = local(2);
    let tries = Arc::new(AtomicU32::new(0));
    let count = tries.clone();
    let rows = runtime.parallelize(0..2, 2).map_partitions_with_index(move |index, rows| {
        if index == 1 && count.fetch_add(1, Ordering::SeqCst) < 3 {
            return Err("not yet".into());
        }
        Ok(rows)
    });
    assert_eq!(rows.collect().wait().unwrap(), [0, 1]);
    assert_eq!(tries.load(Ordering::SeqCst), 4);
}

#[test]
fn l9_a_result_gang_of_a_dataset_is_repeated_if_asked_and_its_input_is_not() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let gang = again(&fails_once(&runtime));
    let job = gang.collect();
    let (id, map, result) = (job.id(), job.stages()[0], job.stages()[1]);
    assert_eq!(job.wait().unwrap(), [1, 1]);
    let told = job_story(&mut events, id);
    assert_eq!(attempts(&told), [(map, 0), (result, 0), (result, 1)]);
    assert_eq!(launched_in(&told, result, 1).len(), 2);
    assert!(matches!(causes(&told)[..], [(_, true)]));
    no_job_is_left(&runtime);
}

/// A partition is done: what it did cannot be done again.
#[test]
fn l9_an_action_with_effects_is_aborted_when_a_partition_is_done() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let (done, is_done) = (Arc::new(AtomicU32::new(0)), Gate::closed());
    let (count, gate) = (done.clone(), is_done.clone());
    let gang = runtime.parallelize(0..2, 2).barrier().map_partitions(|ctx, _| {
        ctx.barrier()?;
        Ok([ctx.rank()])
    });
    let job = again(&gang).settings(|stage| stage.name("save")).for_each_partition(move |rows| {
        if rows.sum::<usize>() == 1 {
            gate.pass_blocking();
            return Err("too late".into());
        }
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let (id, result) = (job.id(), job.stages()[0]);
    assert_eq!(until(&mut events, succeeds(result)), PartitionId(0));
    is_done.open();
    let error = failed(job);
    let text = error.to_string();
    let begin = format!(
        "job 0 'save' aborted due to stage failure: stage {result} 'save' cannot be run again: 1 of \
         its tasks had succeeded, and what they did cannot be repeated; partition 1 "
    );
    assert!(text.starts_with(&begin) && text.ends_with("failed: too late"), "{text}");
    let JobFailure::Stage { failure, .. } = error.failure() else { panic!("{error}") };
    assert!(matches!(failure, StageFailure::Committed { committed: 1, .. }), "{error}");
    assert_eq!(done.load(Ordering::SeqCst), 1, "once, and not again");
    assert_eq!(attempts(&job_story(&mut events, id)), [], "no second attempt");
    no_job_is_left(&runtime);
}

/// A failure before anything is done: partition 0 has heeded its kill.
#[test]
fn l9_an_action_with_effects_is_repeated_while_no_partition_is_done() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let done = Arc::new(AtomicU32::new(0));
    let count = done.clone();
    let gang = runtime.parallelize(0..2, 2).barrier().map_partitions(|ctx, _| {
        ctx.barrier()?;
        let attempt = ctx.stage_attempt_number();
        if (ctx.rank(), attempt) == (0, 0) {
            ctx.wait_killed();
            return Err("was killed".into());
        }
        Ok([attempt])
    });
    let job = again(&gang).for_each_partition(move |rows| {
        if rows.sum::<u32>() == 0 {
            return Err("before anything is done".into());
        }
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let (id, result) = (job.id(), job.stages()[0]);
    job.wait().unwrap();
    assert_eq!(done.load(Ordering::SeqCst), 2, "each once");
    let told = job_story(&mut events, id);
    assert_eq!(attempts(&told), [(result, 0), (result, 1)]);
    assert_eq!(causes(&told).len(), 1);
}

/// Partition 0 does not heed its kill and is done after the failure of partition 1.
#[test]
fn l9_what_is_done_while_its_gang_is_stopped_is_not_done_again() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let (done, has_failed) = (Arc::new(AtomicU32::new(0)), Gate::closed());
    let (count, gate, has_begun) = (done.clone(), has_failed.clone(), Gate::closed());
    let gang = runtime.parallelize(0..2, 2).barrier().map_partitions(|ctx, _| {
        ctx.barrier()?;
        Ok([(ctx.rank(), ctx.stage_attempt_number())])
    });
    let job = again(&gang).for_each_partition(move |mut rows| {
        match rows.next() {
            Some((1, 0)) => {
                // A kill would keep the other one from having its row.
                has_begun.pass_blocking();
                return Err("the cause".into());
            }
            Some((0, _)) => {
                has_begun.open();
                gate.pass_blocking();
                count.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
        Ok(())
    });
    let stage = job.stages()[0];
    until(&mut events, |event| matches!(event, RuntimeEvent::AttemptFailed { .. }).then_some(()));
    has_failed.open();
    let error = failed(job);
    let JobFailure::Stage { failure, .. } = error.failure() else { panic!("{error}") };
    assert!(matches!(failure, StageFailure::Committed { committed: 1, .. }), "{error}");
    assert_eq!(done.load(Ordering::SeqCst), 1, "stage {stage} did it once");
}

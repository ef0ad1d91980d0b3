//! What the rows about jobs on datasets share.

use crate::observe::{is_idle, until};
use phalanx::{
    Dataset, EventStream, ExecutorId, FailureCause, JobError, JobFailure, JobHandle, JobId,
    PartitionId, Runtime, RuntimeEvent, StageId, TaskFailure,
};
use std::time::Duration;

/// A gang of all partitions, which meets.
pub fn gang<T: 'static>(rows: &Dataset<T>) -> Dataset<T> {
    rows.barrier().map_partitions(|ctx, rows| {
        ctx.barrier()?;
        Ok(rows)
    })
}

/// A gang that makes one row of each task: its attempt, and the ranks that it has met.
pub fn met(runtime: &Runtime, tasks: usize) -> Dataset<(u32, Vec<usize>)> {
    runtime.parallelize(0..tasks, tasks).barrier().map_partitions(|ctx, _| {
        let all = ctx.all_gather(&ctx.rank())?;
        Ok([(ctx.stage_attempt_number(), all)])
    })
}

pub fn sorted<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort_unstable();
    rows
}

/// All events up to the one that tells the job's end.
pub fn job_story(events: &mut EventStream, id: JobId) -> Vec<RuntimeEvent> {
    let mut told = Vec::new();
    until(events, |event| {
        told.push(event.clone());
        matches!(event, RuntimeEvent::JobEnded { job, .. } if *job == id).then_some(())
    });
    told
}

/// Why the job has no result.
#[track_caller]
pub fn failed<R: 'static>(job: JobHandle<R>) -> JobError {
    match job.wait() {
        Ok(_) => panic!("the job has a result"),
        Err(error) => error,
    }
}

/// Stage and attempt of all attempts that were started, in order.
pub fn attempts(story: &[RuntimeEvent]) -> Vec<(StageId, u32)> {
    let started = story.iter().filter_map(|event| match event {
        RuntimeEvent::AttemptStarted { attempt, .. } => Some((attempt.stage, attempt.attempt)),
        _ => None,
    });
    started.collect()
}

/// First causes of the attempts that failed, in order, and whether another one follows.
pub fn causes(story: &[RuntimeEvent]) -> Vec<(FailureCause, bool)> {
    let failed = story.iter().filter_map(|event| match event {
        RuntimeEvent::AttemptFailed { cause, will_retry } => Some((cause.clone(), *will_retry)),
        _ => None,
    });
    failed.collect()
}

/// Which outputs were forgotten, in order.
pub fn forgotten(story: &[RuntimeEvent]) -> Vec<(StageId, String)> {
    story.iter().filter_map(is_forgotten).collect()
}

pub fn is_forgotten(event: &RuntimeEvent) -> Option<(StageId, String)> {
    match event {
        RuntimeEvent::OutputsForgotten { stage, partitions } => {
            Some((*stage, partitions.to_string()))
        }
        _ => None,
    }
}

pub fn is_fetch_failed(cause: &FailureCause) -> bool {
    matches!(cause.failure, TaskFailure::FetchFailed(_))
}

/// The first task of this attempt was started.
pub fn starts(wanted: StageId, number: u32) -> impl FnMut(&RuntimeEvent) -> Option<()> {
    move |event| match event {
        RuntimeEvent::TaskStarted { attempt, .. } => {
            (attempt.stage == wanted && attempt.attempt == number).then_some(())
        }
        _ => None,
    }
}

/// A task of this stage has succeeded; which.
pub fn succeeds(wanted: StageId) -> impl FnMut(&RuntimeEvent) -> Option<PartitionId> {
    move |event| match event {
        RuntimeEvent::TaskEnded { attempt, partition, outcome, .. }
            if attempt.stage == wanted && *outcome == phalanx::TaskOutcome::Succeeded =>
        {
            Some(*partition)
        }
        _ => None,
    }
}

/// Takes an executor away, with all that it holds.
pub fn lose(runtime: &Runtime, executor: u64) {
    assert!(pollster::block_on(runtime.remove_executor(ExecutorId(executor), "was taken away")));
}

/// No job is known, and nothing runs or waits. The planner is asked first: what it tells the
/// scheduler at a job's end is there when the scheduler is asked.
#[track_caller]
pub fn no_job_is_left(runtime: &Runtime) {
    assert_eq!(pollster::block_on(runtime.jobs()).jobs, []);
    assert!(is_idle(runtime));
}

/// When no dataset is left either, no map stage is known. What is dropped is dropped elsewhere.
pub fn until_nothing_is_kept(runtime: &Runtime) {
    let kept = || {
        let jobs = pollster::block_on(runtime.jobs());
        (jobs.jobs.len(), jobs.map_stages, jobs.map_outputs)
    };
    while kept() != (0, 0, 0) || !is_idle(runtime) {
        std::thread::yield_now();
    }
}

/// The failure of a job that was refused: nothing has run, nothing is left of it, and nothing of it
/// runs later.
#[track_caller]
pub fn refused<R: 'static>(runtime: &Runtime, ask: impl FnOnce() -> JobHandle<R>) -> JobFailure {
    let mut events = runtime.subscribe();
    let job = ask();
    let id = job.id();
    let failure = failed(job).failure().clone();
    no_job_is_left(runtime);
    let told = job_story(&mut events, id);
    assert!(told.iter().all(|event| !is_a_run(event)), "{told:?}");
    assert!(matches!(told.last(), Some(RuntimeEvent::JobEnded { failure: Some(_), .. })));
    // All that comes after it.
    let probe = runtime.parallelize([1], 1).count();
    let (probed, only) = (probe.id(), probe.stages()[0]);
    assert_eq!(probe.wait().unwrap(), 1);
    let started = attempts(&job_story(&mut events, probed));
    assert_eq!(started, [(only, 0)], "only the probe has run");
    failure
}

/// A job, attempt or task begins.
pub fn is_a_run(event: &RuntimeEvent) -> bool {
    matches!(
        event,
        RuntimeEvent::JobStarted { .. }
            | RuntimeEvent::AttemptStarted { .. }
            | RuntimeEvent::TaskStarted { .. }
    )
}

/// Ends the runtime; all that was told until then.
pub fn rest_of(runtime: &Runtime, events: &mut EventStream) -> Vec<RuntimeEvent> {
    runtime.shutdown_blocking(Duration::from_secs(60)).unwrap();
    let mut told = Vec::new();
    while let Ok(record) = events.next_blocking() {
        told.push(record.event);
    }
    told
}

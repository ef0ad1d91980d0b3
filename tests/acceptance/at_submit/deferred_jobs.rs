//! What can happen to a job while one of its stages is deferred: rows I.

use super::{INTERVAL, one_of_four, without_time};
use crate::observe::{advance, deferred, is_idle, is_slot_check, until, until_armed};
use crate::observe_jobs::{
    attempts, failed, gang, is_a_run, job_story, no_job_is_left, rest_of, until_nothing_is_kept,
};
use phalanx::{
    Dataset, EventStreamError, ExecutorResources, JobFailure, JobHandle, Runtime, RuntimeEvent,
};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A gang of 5 behind a plain stage, and what its code holds as long as anyone holds the code.
fn wide(runtime: &Runtime, name: &str) -> (Dataset<i32>, Weak<()>) {
    let held = Arc::new(());
    let holds = Arc::downgrade(&held);
    let rows = gang(&runtime.parallelize(1..=10, 2).repartition(5)).map(move |row| {
        let _also_here = &held;
        row
    });
    let name = name.to_owned();
    (rows.settings(move |stage| stage.name(name)), holds)
}

fn until_dropped(holds: &Weak<()>) {
    while holds.strong_count() > 0 {
        std::thread::yield_now();
    }
}

fn add_a_slot(runtime: &Runtime) {
    pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
}

fn is_cancelled<R: 'static>(job: JobHandle<R>, reason: &str) {
    let error = failed(job);
    assert!(error.is_cancelled(), "{error}");
    assert!(error.to_string().ends_with(&format!("cancelled: {reason}")), "{error}");
}

#[test]
fn i1_a_job_is_cancelled_while_deferred() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let (dataset, holds) = wide(&runtime, "wide");
    let job = dataset.collect();
    assert_eq!(until(&mut events, deferred), (5, 4, 3));
    let status = pollster::block_on(runtime.jobs());
    assert_eq!((status.jobs.len(), status.jobs[0].name.as_str()), (1, "wide"));
    assert_eq!(status.jobs[0].stages, job.stages(), "neither of them is done");
    job.cancel("not needed");
    let (control, id) = (job.control(), job.id());
    let error = failed(job);
    assert_eq!(error.to_string(), "job 0 'wide' cancelled: not needed");
    let cancelled = JobFailure::Cancelled { reason: "not needed".to_owned() };
    assert_eq!(control.outcome(), Some(Err(cancelled.clone())));
    no_job_is_left(&runtime);
    let ended = RuntimeEvent::JobEnded { job: id, failure: Some(cancelled) };
    assert_eq!(job_story(&mut events, id), [ended], "and nothing else");
    drop(dataset);
    until_nothing_is_kept(&runtime);
    until_dropped(&holds);
    let rest = rest_of(&runtime, &mut events);
    assert!(rest.iter().all(|event| !is_a_run(event)), "{rest:?}");
}

/// A map gang is deferred: the stage that waits for it goes with it.
#[test]
fn i1_a_job_is_cancelled_while_its_map_stage_is_deferred() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let job = wide(&runtime, "wide").0.repartition(2).count();
    until(&mut events, deferred);
    assert_eq!(pollster::block_on(runtime.status()).stages.len(), 3);
    job.cancel("not needed");
    is_cancelled(job, "not needed");
    no_job_is_left(&runtime);
    until_nothing_is_kept(&runtime);
}

/// What two jobs need goes with the last of them.
#[test]
fn i1_a_job_that_needs_the_same_stage_goes_on() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let dataset = wide(&runtime, "wide").0.repartition(2);
    let (one, other) = (dataset.count(), dataset.collect());
    assert_eq!(one.stages()[..2], other.stages()[..2]);
    until(&mut events, deferred);
    one.cancel("one is enough");
    is_cancelled(one, "one is enough");
    assert_eq!(pollster::block_on(runtime.jobs()).jobs.len(), 1);
    add_a_slot(&runtime);
    assert_eq!(other.wait().unwrap().len(), 10);
    no_job_is_left(&runtime);
}

/// A group is what the caller keeps together: the controls of its jobs.
#[test]
fn i2_jobs_are_cancelled_by_group_while_deferred() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let jobs = ["a", "b", "c"].map(|name| wide(&runtime, name).0.count());
    for _ in &jobs {
        until(&mut events, deferred);
    }
    let group = [jobs[0].control(), jobs[2].control()];
    let canceller = std::thread::spawn(move || group.map(|job| job.cancel("the user left")));
    canceller.join().unwrap();
    let [a, b, c] = jobs;
    is_cancelled(a, "the user left");
    is_cancelled(c, "the user left");
    assert_eq!(b.outcome(), None);
    add_a_slot(&runtime);
    assert_eq!(b.wait().unwrap(), 10);
    until_nothing_is_kept(&runtime);
}

/// A tag is a part of the name, looked up in what the runtime tells; its control ends the job.
#[test]
fn i2_jobs_are_cancelled_by_tag_while_deferred() {
    let runtime = without_time(3, one_of_four());
    let jobs = ["nightly/a", "daily/b", "nightly/c"].map(|name| wide(&runtime, name).0.count());
    let told = pollster::block_on(runtime.jobs()).jobs;
    let tagged: Vec<_> =
        told.iter().filter(|it| it.name.starts_with("nightly/")).map(|it| it.job).collect();
    assert_eq!(tagged, [jobs[0].id(), jobs[2].id()]);
    for job in jobs.iter().filter(|job| tagged.contains(&job.id())) {
        job.cancel("no nightly run");
    }
    let [a, b, c] = jobs;
    is_cancelled(a, "no nightly run");
    is_cancelled(c, "no nightly run");
    assert_eq!(b.outcome(), None);
    b.cancel("the end");
    is_cancelled(b, "the end");
    no_job_is_left(&runtime);
}

/// The check that was due finds nothing to check, and new slots find nothing to start.
#[test]
fn i3_a_check_after_the_cancel_of_a_job_does_nothing() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let job = wide(&runtime, "wide").0.count();
    let control = job.control();
    until(&mut events, deferred);
    until_armed(&runtime, is_slot_check(1));
    control.cancel("the first");
    control.cancel("the second");
    is_cancelled(job, "the first");
    no_job_is_left(&runtime);
    let fired = advance(&runtime, INTERVAL);
    assert!(fired.iter().any(is_slot_check(1)), "it was due: {fired:?}");
    add_a_slot(&runtime);
    control.cancel("the third");
    let again = wide(&runtime, "again").0.count();
    let (id, stages) = (again.id(), again.stages().to_vec());
    assert_eq!(again.wait().unwrap(), 10);
    let told = job_story(&mut events, id);
    assert_eq!(told.iter().filter_map(deferred).count(), 0);
    assert_eq!(attempts(&told), [(stages[0], 0), (stages[1], 0)], "nothing of the first");
    let ends = told.iter().filter(|event| matches!(event, RuntimeEvent::JobEnded { .. }));
    assert_eq!(ends.count(), 2, "each job ended once");
}

#[test]
fn i4_a_job_is_ended_by_a_shutdown_while_deferred() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let (dataset, holds) = wide(&runtime, "wide");
    let job = dataset.collect();
    let control = job.control();
    until(&mut events, deferred);
    runtime.shutdown_blocking(Duration::from_secs(60)).unwrap();
    let error = failed(job);
    assert_eq!(*error.failure(), JobFailure::Shutdown);
    assert_eq!(error.to_string(), "job 0 'wide' ended by the shutdown of the runtime");
    assert_eq!(control.outcome(), Some(Err(JobFailure::Shutdown)));
    assert!(is_idle(&runtime) && pollster::block_on(runtime.jobs()).jobs.is_empty());
    drop(dataset);
    until_dropped(&holds);
    while let Ok(record) = events.next_blocking() {
        assert!(!is_a_run(&record.event), "{record:?}");
    }
    assert_eq!(events.next_blocking(), Err(EventStreamError::Ended));
}

/// A dataset keeps its runtime, a job's handle does not.
#[test]
fn i4_a_job_is_ended_by_the_drop_of_its_runtime_while_deferred() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let (dataset, holds) = wide(&runtime, "wide");
    let job = dataset.collect();
    until(&mut events, deferred);
    drop(runtime);
    assert_eq!(job.outcome(), None, "the dataset is there");
    drop(dataset);
    assert_eq!(*failed(job).failure(), JobFailure::Shutdown);
    until_dropped(&holds);
    while events.next_blocking().is_ok() {}
    assert_eq!(events.next_blocking(), Err(EventStreamError::Ended));
}

/// Spark finds it at the next check, ours at once; the next job's deferral counts from the start.
#[test]
fn i5_slots_that_arrive_between_the_checks_of_a_job() {
    let runtime = without_time(3, one_of_four());
    let mut events = runtime.subscribe();
    let (dataset, _) = wide(&runtime, "wide");
    let job = dataset.count();
    let id = job.id();
    for check in 1..3 {
        assert_eq!(until(&mut events, deferred), (5, 4, 4 - check));
        until_armed(&runtime, is_slot_check(check));
        advance(&runtime, INTERVAL);
    }
    assert_eq!(until(&mut events, deferred), (5, 4, 1));
    until_armed(&runtime, is_slot_check(3));
    let fifth = pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    assert_eq!(job.wait().unwrap(), 10);
    let told = job_story(&mut events, id);
    let started =
        told.iter().position(|event| matches!(event, RuntimeEvent::JobStarted { .. })).unwrap();
    assert!(told[..started].iter().all(|event| !is_a_run(event)), "nothing had run");
    assert_eq!(attempts(&told).len(), 2);
    no_job_is_left(&runtime);
    // The check that was due is of a deferral that is over.
    let fired = advance(&runtime, INTERVAL);
    assert!(fired.iter().any(is_slot_check(3)), "{fired:?}");
    assert!(pollster::block_on(runtime.remove_executor(fifth, "was taken away")));
    let again = dataset.count();
    assert_eq!(until(&mut events, deferred), (5, 4, 3), "it counts from the start");
    add_a_slot(&runtime);
    assert_eq!(again.wait().unwrap(), 10);
}

/// Slots that go after the checks were passed: the gang waits for new ones, and its input is kept.
#[test]
fn i5_slots_that_go_after_the_checks_of_a_job() {
    let runtime = without_time(3, vec![ExecutorResources::new(2), ExecutorResources::new(3)]);
    let mut events = runtime.subscribe();
    let gate = crate::observe::Gate::closed();
    let go = gate.clone();
    let made = runtime.parallelize(1..=10, 2).map(move |row| {
        go.pass_blocking();
        row
    });
    let job = gang(&made.repartition(5)).count();
    let (id, map) = (job.id(), job.stages()[0]);
    until(&mut events, crate::observe_jobs::starts(map, 0));
    crate::observe_jobs::lose(&runtime, 1);
    gate.open();
    assert_eq!(until(&mut events, deferred), (5, 2, 3));
    pollster::block_on(runtime.add_executor(ExecutorResources::new(3))).unwrap();
    assert_eq!(job.wait().unwrap(), 10);
    let again = job_story(&mut events, id);
    assert_eq!(attempts(&again).len(), 1, "the gang, and not its input again: {again:?}");
}

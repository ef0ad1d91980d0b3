//! Outputs of a map stage that are gone: rows R1, R4 and R5 of jobs on datasets.

use super::both;
use crate::observe::{Gate, cluster, launched, launched_in, local, until};
use crate::observe_jobs::{
    attempts, causes, failed, forgotten, is_fetch_failed, is_forgotten, job_story, lose, met,
    no_job_is_left, starts, until_nothing_is_kept,
};
use phalanx::{
    Dataset, ExecutorResources, FetchFailed, JobFailure, OnFailure, PartitionId, Runtime,
    RuntimeEvent, StageAttemptId, StageFailure, StageId, TaskResult,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Keeps the tasks that read these rows before they ask for the first of them.
fn held<T: 'static>(rows: &Dataset<T>, gate: &Gate) -> Dataset<T> {
    let gate = gate.clone();
    rows.map_partitions(move |rows| {
        gate.pass_blocking();
        Ok(rows)
    })
}

fn add(runtime: &Runtime, cpus: u32) {
    pollster::block_on(runtime.add_executor(ExecutorResources::new(cpus))).unwrap();
}

/// An error of a task that has not found this output of the first stage.
fn not_found(attempt: u32, partition: u32) -> phalanx::BoxError {
    let input = StageAttemptId { stage: StageId(0), attempt };
    FetchFailed { input, partition: PartitionId(partition) }.into()
}

/// One of the two executors that have made the outputs is lost before a row is read: the good
/// output is made again, too.
#[test]
fn r1_a_lost_output_has_the_whole_map_gang_run_again() {
    let runtime = cluster(3, 1);
    let mut events = runtime.subscribe();
    let gate = Gate::closed();
    let job = held(&met(&runtime, 2).repartition(1), &gate).collect();
    let (id, map, result) = (job.id(), job.stages()[0], job.stages()[1]);
    until(&mut events, starts(result, 0));
    lose(&runtime, 1);
    assert_eq!(until(&mut events, is_forgotten), (map, "0-1".to_owned()), "both are missing");
    assert_eq!(pollster::block_on(runtime.jobs()).map_outputs, 0);
    gate.open();
    assert_eq!(job.wait().unwrap(), vec![(1, vec![0, 1]); 2]);
    no_job_is_left(&runtime);
    let told = job_story(&mut events, id);
    let failed = causes(&told);
    assert_eq!(failed.len(), 1, "{failed:?}");
    let (cause, will_retry) = &failed[0];
    assert!(is_fetch_failed(cause) && *will_retry && cause.attempt.stage == result);
    assert!(
        cause.to_string().ends_with(&format!(
            "could not fetch its input: the output of partition 0 of Stage {map} (Attempt 0) is \
             not there any more"
        )),
        "{cause}"
    );
    assert_eq!(attempts(&told), [(map, 1), (result, 1)]);
    assert_eq!(launched_in(&told, map, 1), both());
    assert_eq!(launched_in(&told, result, 1), [PartitionId(0)]);
    until_nothing_is_kept(&runtime);
}

/// The row as Spark's: two partitions on either side, and the first task reports.
#[test]
fn r1_the_first_of_two_readers_reports_that_an_output_is_missing() {
    for partition in [0, 1] {
        let runtime = local(4);
        let mut events = runtime.subscribe();
        let reported = Arc::new(AtomicU32::new(0));
        let reports = reported.clone();
        let gate = Gate::closed();
        let others = gate.clone();
        let shuffled = met(&runtime, 2).repartition(2);
        let reads = shuffled.map_partitions_with_index(move |index, rows| {
            if index == 0 && reports.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(not_found(0, partition));
            }
            if index == 1 && reports.load(Ordering::SeqCst) < 2 {
                others.pass_blocking();
            }
            Ok(rows)
        });
        let job = reads.collect();
        let (id, map, result) = (job.id(), job.stages()[0], job.stages()[1]);
        assert_eq!((map, until(&mut events, is_forgotten)), (StageId(0), (map, "0-1".to_owned())));
        gate.open();
        assert_eq!(job.wait().unwrap(), vec![(1, vec![0, 1]); 2], "both are of attempt 1");
        let told = job_story(&mut events, id);
        assert_eq!(attempts(&told), [(map, 1), (result, 1)]);
        assert_eq!(launched_in(&told, map, 1), both());
        assert!(reported.load(Ordering::SeqCst) >= 2, "the fault happened, and then the retry");
        drop((shuffled, reads));
        until_nothing_is_kept(&runtime);
    }
}

/// No job runs: what is lost is forgotten at once, and made when the next job asks for it.
#[test]
fn r1_outputs_that_are_lost_between_two_jobs_are_made_again_by_the_second() {
    let runtime = cluster(4, 1);
    let mut events = runtime.subscribe();
    let shuffled = met(&runtime, 3).repartition(2);
    assert_eq!(shuffled.count().wait().unwrap(), 3);
    let again = shuffled.count();
    let (id, map, result) = (again.id(), again.stages()[0], again.stages()[1]);
    assert_eq!(again.wait().unwrap(), 3);
    let told = job_story(&mut events, id);
    assert_eq!(launched_in(&told, map, 0).len(), 3, "made once: {told:?}");
    assert_eq!(attempts(&told).last(), Some(&(result, 0)));
    lose(&runtime, 2);
    assert_eq!(until(&mut events, is_forgotten), (map, "0-2".to_owned()));
    assert_eq!(pollster::block_on(runtime.jobs()).map_stages, 1, "its dataset is there");
    no_job_is_left(&runtime);
    let job = shuffled.collect();
    let id = job.id();
    assert_eq!(job.wait().unwrap(), vec![(1, vec![0, 1, 2]); 3]);
    let told = job_story(&mut events, id);
    assert_eq!(launched_in(&told, map, 1).len(), 3);
    assert_eq!(causes(&told), [], "nobody had to find out");
}

/// Of a plain map stage only what is lost is made again.
#[test]
fn r1_of_a_plain_map_stage_only_what_is_lost_runs_again() {
    let runtime = cluster(3, 1);
    let mut events = runtime.subscribe();
    let shuffled = runtime.parallelize(0..3, 3).repartition(1);
    assert_eq!(shuffled.count().wait().unwrap(), 3);
    lose(&runtime, 1);
    let (map, lost) = until(&mut events, is_forgotten);
    assert_eq!(lost, "1");
    let job = shuffled.collect();
    let id = job.id();
    assert_eq!(crate::observe_jobs::sorted(job.wait().unwrap()), [0, 1, 2]);
    assert_eq!(launched_in(&job_story(&mut events, id), map, 1), [PartitionId(1)]);
}

/// The outputs of two gangs, one made of the other: what was made of a lost output is still good,
/// and what nobody needs is not made again.
#[test]
fn r1_a_gang_whose_outputs_are_not_needed_any_more_is_not_run_again() {
    let runtime = cluster(2, 2);
    let mut events = runtime.subscribe();
    let first = met(&runtime, 4).repartition(1);
    let second = first.barrier().map_partitions(|ctx, rows| {
        ctx.barrier()?;
        Ok(rows)
    });
    let gate = Gate::closed();
    let job = held(&second.repartition(1), &gate).collect();
    let (id, stages) = (job.id(), job.stages().to_vec());
    until(&mut events, starts(stages[2], 0));
    // The first gang was on both executors, the second on the first alone, as the result is.
    lose(&runtime, 1);
    assert_eq!(until(&mut events, is_forgotten), (stages[0], "0-3".to_owned()));
    gate.open();
    assert_eq!(job.wait().unwrap(), vec![(0, vec![0, 1, 2, 3]); 4]);
    let told = job_story(&mut events, id);
    assert_eq!(attempts(&told), []);
    assert_eq!(forgotten(&told), []);
}

/// Both gangs are on the executor that is lost: all that the result needs is made again, in order.
#[test]
fn r1_gangs_upon_each_other_are_run_again_in_order() {
    let runtime = cluster(1, 2);
    let mut events = runtime.subscribe();
    let first = met(&runtime, 2).repartition(2);
    let second = first.barrier().map_partitions(|ctx, rows| {
        ctx.barrier()?;
        Ok(rows)
    });
    let shuffled = second.repartition(1);
    assert_eq!(shuffled.count().wait().unwrap(), 2);
    lose(&runtime, 0);
    add(&runtime, 2);
    let job = shuffled.collect();
    let (id, stages) = (job.id(), job.stages().to_vec());
    assert_eq!(job.wait().unwrap(), vec![(1, vec![0, 1]); 2]);
    let told = job_story(&mut events, id);
    let lost: Vec<_> = stages[..2].iter().map(|it| (*it, "0-1".to_owned())).collect();
    assert_eq!(forgotten(&told)[..], lost);
    let again = &attempts(&told)[3..];
    assert_eq!(again, [(stages[0], 1), (stages[1], 1), (stages[2], 0)]);
}

/// Two jobs find out at once: the gang runs again once, for both.
#[test]
fn r4_two_jobs_that_miss_the_same_outputs_have_them_made_once() {
    let runtime = cluster(3, 2);
    let mut events = runtime.subscribe();
    let gate = Gate::closed();
    // The rows are made again when both have found out.
    let both_know = Gate::closed();
    let known = both_know.clone();
    let made = runtime.parallelize(0..6, 6).barrier().map_partitions(move |ctx, _| {
        if ctx.stage_attempt_number() > 0 {
            known.pass_blocking();
        }
        Ok([(ctx.stage_attempt_number(), ctx.all_gather(&ctx.rank())?)])
    });
    let shuffled = made.repartition(1);
    assert_eq!(shuffled.count().wait().unwrap(), 6);
    let jobs = [(); 2].map(|()| held(&shuffled, &gate).collect());
    let map = jobs[0].stages()[0];
    for job in &jobs {
        until(&mut events, starts(job.stages()[1], 0));
    }
    lose(&runtime, 2);
    add(&runtime, 4);
    assert_eq!(until(&mut events, is_forgotten), (map, "0-5".to_owned()));
    gate.open();
    for _ in &jobs {
        let cause = until(&mut events, |event| match event {
            RuntimeEvent::AttemptFailed { cause, .. } => Some(cause.clone()),
            _ => None,
        });
        assert!(is_fetch_failed(&cause), "{cause}");
    }
    both_know.open();
    for job in jobs {
        assert_eq!(job.wait().unwrap(), vec![(1, (0..6).collect::<Vec<_>>()); 6]);
    }
    no_job_is_left(&runtime);
    let told = crate::observe_jobs::rest_of(&runtime, &mut events);
    assert_eq!(causes(&told), []);
    assert_eq!(launched_in(&told, map, 2), []);
}

/// All readers of one attempt miss their input: one failure, one retry, one run of the gang.
#[test]
fn r4_several_readers_that_miss_their_input_are_one_failure_of_a_gang() {
    let runtime = local(4);
    let mut events = runtime.subscribe();
    let shuffled = met(&runtime, 4).repartition(4);
    let gang = shuffled.barrier().map_partitions(|ctx, rows| {
        if ctx.stage_attempt_number() == 0 {
            // All have begun.
            let _ = ctx.barrier();
            return Err(not_found(0, ctx.rank() as u32));
        }
        ctx.barrier()?;
        Ok(rows)
    });
    let job = gang.settings(|stage| stage.on_failure(OnFailure::Restart)).collect();
    let (id, map, result) = (job.id(), job.stages()[0], job.stages()[1]);
    assert_eq!(job.wait().unwrap(), vec![(1, vec![0, 1, 2, 3]); 4]);
    let told = job_story(&mut events, id);
    assert_eq!(attempts(&told), [(map, 0), (result, 0), (map, 1), (result, 1)]);
    assert_eq!(forgotten(&told), [(map, "0-3".to_owned())]);
    assert_eq!(causes(&told).len(), 1);
    assert_eq!(launched(&told).len(), 16);
}

/// Who reports late, of outputs that have been made again since, has the gang run no third time.
#[test]
fn r5_a_report_of_outputs_that_were_made_again_since_forgets_nothing() {
    let runtime = local(4);
    let mut events = runtime.subscribe();
    let shuffled = met(&runtime, 2).repartition(1);
    assert_eq!(shuffled.count().wait().unwrap(), 2);
    let reports = |gate: &Gate| {
        let (gate, runs) = (gate.clone(), AtomicU32::new(0));
        let rows = shuffled.map_partitions(move |rows| {
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                gate.pass_blocking();
                return Err(not_found(0, 1));
            }
            Ok(rows)
        });
        rows.collect()
    };
    let (soon, late) = (Gate::closed(), Gate::closed());
    let (one, other) = (reports(&soon), reports(&late));
    let (map, id) = (one.stages()[0], other.id());
    for job in [&one, &other] {
        until(&mut events, starts(job.stages()[1], 0));
    }
    soon.open();
    let made_again = vec![(1, vec![0, 1]); 2];
    assert_eq!(until(&mut events, is_forgotten), (map, "0-1".to_owned()));
    assert_eq!(one.wait().unwrap(), made_again);
    late.open();
    assert_eq!(other.wait().unwrap(), made_again);
    let told = job_story(&mut events, id);
    assert_eq!(causes(&told).len(), 1, "the late report came: {told:?}");
    assert_eq!(forgotten(&told), []);
    assert_eq!(launched_in(&told, map, 2), []);
}

/// A reader that never finds its input is not tried for ever, and is not blamed on the map stage.
#[test]
fn r1_an_input_that_is_lost_again_and_again_ends_the_job() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let shuffled = met(&runtime, 2).settings(|stage| stage.max_infrastructure_failures(2));
    let job = shuffled.repartition(1).map_partitions({
        let attempt = AtomicU32::new(0);
        move |_| TaskResult::<[u8; 0]>::Err(not_found(attempt.fetch_add(1, Ordering::SeqCst), 0))
    });
    let job = job.collect();
    let (id, map, result) = (job.id(), job.stages()[0], job.stages()[1]);
    let error = failed(job);
    let JobFailure::Stage { stage, failure, .. } = error.failure() else { panic!("{error}") };
    assert_eq!(*stage, result);
    assert!(
        matches!(failure, StageFailure::InfrastructureExhausted { losses: 3, allowed: 2, .. }),
        "{error}"
    );
    no_job_is_left(&runtime);
    let told = job_story(&mut events, id);
    let tries = |of: StageId| attempts(&told).iter().filter(|(stage, _)| *stage == of).count();
    assert_eq!((tries(map), tries(result)), (3, 3));
    let lost = told.iter().filter(|it| matches!(it, RuntimeEvent::OutputsForgotten { .. }));
    assert_eq!(lost.count(), 2);
}

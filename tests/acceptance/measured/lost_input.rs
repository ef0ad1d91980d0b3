//! Gangs of jobs whose input is lost: K4, K5, K6.

use crate::observe::{Gate, launched_in, local, no_pause, start_without_time, until};
use crate::observe_jobs::{
    attempts, causes, forgotten, is_fetch_failed, is_forgotten, job_story, lose, met,
    no_job_is_left, rest_of, until_nothing_is_kept,
};
use phalanx::{
    Dataset, ExecutorResources, JobId, OnFailure, PartitionId, Runtime, RuntimeEvent, StageId,
    TaskOutcome,
};

type Row = (u32, Vec<usize>);

/// Rows of a map gang of two. The executor that held their outputs is to be lost under the readers,
/// which run on gpus; this one has none.
fn made_on_an_executor_of_its_own(runtime: &Runtime) -> Dataset<Row> {
    let rows = met(runtime, 2).repartition(2);
    assert_eq!(rows.count().wait().unwrap(), 2);
    rows
}

fn add_gpus(runtime: &Runtime, count: usize) {
    let gpus: Vec<String> = (0..count).map(|it| it.to_string()).collect();
    let resources = ExecutorResources::new(count as u32).with("gpu", gpus);
    pollster::block_on(runtime.add_executor(resources)).unwrap();
}

/// Partition 1 waits in `barrier()` while partition 0 asks for rows that are lost meanwhile.
fn loses_its_input(
    runtime: &Runtime,
    rows: &Dataset<Row>,
    holder: u64,
    as_a_map_stage: bool,
) -> (JobId, Vec<StageId>) {
    let mut events = runtime.subscribe();
    let gate = Gate::closed();
    let go = gate.clone();
    let reads = rows.barrier().map_partitions(move |ctx, rows| {
        if ctx.rank() == 0 {
            go.pass_blocking();
            let rows: Vec<Row> = rows.collect();
            ctx.barrier()?;
            return Ok(rows);
        }
        ctx.barrier()?;
        Ok(rows.collect())
    });
    let on_gpus = |reads: Dataset<Row>| {
        reads.settings(|stage| stage.resource("gpu", 1.0).on_failure(OnFailure::Restart))
    };
    let job = if as_a_map_stage { reads.repartition(1) } else { reads };
    let job = on_gpus(job).collect();
    let stages = job.stages().to_vec();
    until(&mut events, |event| match event {
        RuntimeEvent::RoundOpened { attempt, .. } => (attempt.stage == stages[1]).then_some(()),
        _ => None,
    });
    lose(runtime, holder);
    assert_eq!(until(&mut events, is_forgotten), (stages[0], "0-1".to_owned()));
    gate.open();
    let id = job.id();
    let made = job.wait().unwrap();
    assert_eq!(made.len(), 2);
    assert!(made.iter().all(|(_, met)| *met == [0, 1]), "{made:?}");
    is_as_it_has_to_be(&job_story(&mut events, id), &stages);
    (id, stages)
}

/// One task has missed its input, its sibling was killed in `barrier()`, the whole map gang has run
/// again, and then the gang.
fn is_as_it_has_to_be(told: &[RuntimeEvent], stages: &[StageId]) {
    let failures = causes(told);
    let [(cause, true)] = &failures[..] else { panic!("{failures:?}") };
    assert!(is_fetch_failed(cause) && cause.attempt.stage == stages[1], "{cause}");
    let ended = told.iter().filter_map(|event| match event {
        RuntimeEvent::TaskEnded { attempt, partition, outcome, .. }
            if attempt.stage == stages[1] && attempt.attempt == cause.attempt.attempt =>
        {
            Some((*partition, *outcome == TaskOutcome::Succeeded))
        }
        _ => None,
    });
    let mut ended: Vec<_> = ended.collect();
    ended.sort_unstable();
    assert_eq!(ended, [(PartitionId(0), false), (PartitionId(1), false)]);
    let started = attempts(told);
    assert_eq!([started[0].0, started[1].0], stages[..2]);
    assert_eq!(launched_in(told, started[0].0, started[0].1).len(), 2, "the whole map gang");
    assert_eq!(launched_in(told, started[1].0, started[1].1).len(), 2);
}

/// Spark hangs. No time passes: neither a timeout nor a poll can be what ends the wait.
#[test]
fn k4_a_gang_of_a_dataset_on_all_slots_does_not_hang_when_its_input_is_lost() {
    for as_a_map_stage in [false, true] {
        let runtime = start_without_time(no_pause(), vec![ExecutorResources::new(2)]);
        let rows = made_on_an_executor_of_its_own(&runtime);
        add_gpus(&runtime, 2);
        loses_its_input(&runtime, &rows, 0, as_a_map_stage);
        no_job_is_left(&runtime);
        drop(rows);
        until_nothing_is_kept(&runtime);
    }
}

/// In Spark a zombie keeps its slot to the end of the job.
#[test]
fn k5_nor_does_a_gang_of_a_dataset_leave_a_slot_taken_if_there_are_more() {
    let runtime = start_without_time(no_pause(), vec![ExecutorResources::new(2)]);
    add_gpus(&runtime, 6);
    for round in 0..10 {
        // The first on one of its own, the others wherever the last try has left them.
        let held = Gate::closed();
        let gate = held.clone();
        let busy =
            phalanx::Stage::tasks(6).resource("gpu", 1.0).run_blocking(&runtime, move |_| {
                gate.pass_blocking();
                Ok(())
            });
        let rows = made_on_an_executor_of_its_own(&runtime);
        held.open();
        busy.wait().unwrap();
        let holder = if round == 0 { 0 } else { round + 1 };
        loses_its_input(&runtime, &rows, holder, round % 2 == 1);
        no_job_is_left(&runtime);
        pollster::block_on(runtime.add_executor(ExecutorResources::new(2))).unwrap();
    }
    let all = crate::observe_jobs::gang(&runtime.parallelize(0..8, 8)).count();
    assert_eq!(all.wait().unwrap(), 8, "every slot came back");
}

/// In Spark only the missing tasks start, and wait for the others.
#[test]
fn k6_a_gang_whose_outputs_are_lost_in_part_is_run_again_as_a_whole() {
    let runtime = start_without_time(no_pause(), vec![ExecutorResources::new(2); 2]);
    let mut events = runtime.subscribe();
    let shuffled = met(&runtime, 4).repartition(2);
    assert_eq!(shuffled.count().wait().unwrap(), 4);
    for round in 1..5 {
        assert_eq!(pollster::block_on(runtime.jobs()).map_outputs, 4);
        lose(&runtime, u64::from(round));
        let (map, lost) = until(&mut events, is_forgotten);
        assert_eq!(lost, "0-3", "two were lost");
        pollster::block_on(runtime.add_executor(ExecutorResources::new(2))).unwrap();
        let job = shuffled.collect();
        let id = job.id();
        assert_eq!(job.wait().unwrap(), vec![(round, vec![0, 1, 2, 3]); 4]);
        let told = job_story(&mut events, id);
        assert_eq!(launched_in(&told, map, round).len(), 4);
        assert_eq!(causes(&told), []);
    }
}

/// The executor is lost when its task has succeeded and another one has not: in Spark its output is
/// made again alone, or not at all.
#[test]
fn k6_an_output_that_is_lost_before_its_gang_is_done_has_the_whole_gang_run_again() {
    let runtime = start_without_time(no_pause(), vec![ExecutorResources::new(1); 3]);
    let mut events = runtime.subscribe();
    let gate = Gate::closed();
    let go = gate.clone();
    let made = runtime.parallelize(0..2, 2).barrier().map_partitions(move |ctx, _| {
        let met = ctx.all_gather(&ctx.rank())?;
        if ctx.rank() == 1 {
            go.pass_blocking();
        }
        Ok([(ctx.stage_attempt_number(), met)])
    });
    let job = made.repartition(1).collect();
    let (id, map) = (job.id(), job.stages()[0]);
    assert_eq!(until(&mut events, crate::observe_jobs::succeeds(map)), PartitionId(0));
    lose(&runtime, 0);
    gate.open();
    assert_eq!(job.wait().unwrap(), vec![(1, vec![0, 1]); 2]);
    let told = job_story(&mut events, id);
    assert_eq!(forgotten(&told), [(map, "0-1".to_owned())]);
    assert_eq!(launched_in(&told, map, 1).len(), 2);
}

/// A task of a map gang returns just as another throws, in any order.
#[test]
fn k6_a_success_beside_a_failure_does_not_make_the_next_map_gang_smaller() {
    for tasks in [2, 16] {
        let runtime = local(tasks as u32);
        let mut events = runtime.subscribe();
        let mut maps = Vec::new();
        for round in 0..40 {
            let numbers = runtime.parallelize(0..tasks, tasks);
            let made = numbers.barrier().map_partitions(move |ctx, _| {
                if ctx.stage_attempt_number() > 0 {
                    return Ok([ctx.all_gather(&ctx.rank())?.len()]);
                }
                for _ in 0..(round + ctx.rank()) % 3 {
                    std::thread::yield_now();
                }
                if ctx.rank() == round % tasks { Err("boom".into()) } else { Ok([0]) }
            });
            let job = made.repartition(1).collect();
            maps.push(job.stages()[0]);
            assert_eq!(job.wait().unwrap(), vec![tasks; tasks]);
        }
        let told = rest_of(&runtime, &mut events);
        for map in maps {
            assert_eq!(launched_in(&told, map, 1).len(), tasks);
        }
    }
}

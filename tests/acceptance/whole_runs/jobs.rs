//! Jobs on datasets from the action to the last event: rows G3 to G5.

use crate::observe::{cluster, launched, local};
use crate::observe_jobs::{forgotten, gang, job_story, lose, no_job_is_left, sorted};
use phalanx::{
    DatasetInfo, ExecutorId, ExecutorResources, PlannedStage, RuntimeEvent, StageId, StageRole,
};
use std::collections::BTreeSet;

/// A gang of as many tasks as there are executors is on each of them: so it can reach what each
/// holds. Spark's row has it corrupt a shuffle file on each; ours takes one away with its outputs,
/// and the shuffle that was made before is read by a later job as if nothing had happened.
#[test]
fn g3_a_gang_reaches_every_executor_and_what_one_held_is_made_again() {
    let runtime = cluster(2, 1);
    let mut events = runtime.subscribe();
    let shuffled = runtime.parallelize(0..10, 2).repartition(2);
    assert_eq!(shuffled.count().wait().unwrap(), 10);
    let visit = runtime.parallelize(0..2, 2).barrier().map_partitions(|ctx, _| {
        ctx.barrier()?;
        Ok([ctx.task_infos()[ctx.rank()].executor])
    });
    let visited = visit.collect().wait().unwrap();
    assert_eq!(visited, [ExecutorId(0), ExecutorId(1)]);
    lose(&runtime, 1);
    pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    let job = shuffled.collect();
    let id = job.id();
    assert_eq!(sorted(job.wait().unwrap()), (0..10).collect::<Vec<_>>());
    assert_eq!(visit.collect().wait().unwrap(), [ExecutorId(0), ExecutorId(2)]);
    assert_eq!(forgotten(&job_story(&mut events, id)).len(), 1, "the fault happened");
    no_job_is_left(&runtime);
}

fn marks(stage: &PlannedStage) -> Vec<(&str, bool)> {
    stage.datasets.iter().map(|it| (it.name.as_str(), it.is_barrier)).collect()
}

/// Source, gang, filter, reduce: the events of the job, as a log would have them.
#[test]
fn g4_the_start_of_a_job_says_which_datasets_are_of_a_gang() {
    let runtime = local(4);
    let mut events = runtime.subscribe();
    let made = gang(&runtime.parallelize(1..=10, 4)).filter(|it| it % 2 == 0);
    let sums = made.map(|it| (it % 3, it)).reduce_by_key(|a, b| a + b);
    let job = sums.settings(|stage| stage.name("sums")).collect();
    let (id, stages) = (job.id(), job.stages().to_vec());
    assert_eq!(sorted(job.wait().unwrap()), [(0, 6), (1, 14), (2, 10)]);
    let told = job_story(&mut events, id);
    // As it was logged and read again.
    let log = serde_json::to_string(&told).unwrap();
    let told: Vec<RuntimeEvent> = serde_json::from_str(&log).unwrap();
    let started = told.iter().find_map(|event| match event {
        RuntimeEvent::JobStarted { job, name, stages } => Some((*job, name.as_str(), stages)),
        _ => None,
    });
    let (job, name, planned) = started.unwrap();
    assert_eq!((job, name), (id, "sums"));
    let [map, result] = &planned[..] else { panic!("{planned:?}") };
    assert_eq!([map.stage, result.stage], stages[..]);
    assert_eq!((map.role, map.num_tasks, map.is_barrier()), (StageRole::Map, 4, true));
    assert_eq!((result.role, result.num_tasks, result.is_barrier()), (StageRole::Result, 4, false));
    assert_eq!((&map.parents[..], &result.parents[..]), (&[][..], &stages[..1]));
    let datasets =
        [("parallelize", false), ("barrier map_partitions", true), ("filter", true), ("map", true)];
    assert_eq!(marks(map), datasets);
    assert_eq!(marks(result), [("reduce_by_key", false)]);
    let made_by_a_gang = r#"{"name":"filter","num_partitions":4,"is_barrier":true,"parents":[1]}"#;
    assert!(log.contains(made_by_a_gang), "{log}");
}

/// What a good job tells, in order: stages handed in, the job, each stage's attempt with all of its
/// tasks, the stage's end before what is made of it, the job's end.
#[test]
fn g4_the_events_of_a_job_are_in_order() {
    let runtime = local(4);
    let mut events = runtime.subscribe();
    let sums = gang(&runtime.parallelize(1..=10, 4)).repartition(2);
    let job = sums.count();
    let (id, stages) = (job.id(), job.stages().to_vec());
    job.wait().unwrap();
    let told = job_story(&mut events, id);
    let outline = told.iter().filter_map(|event| match event {
        RuntimeEvent::StageSubmitted { stage, .. } => Some(("submitted", *stage)),
        RuntimeEvent::JobStarted { .. } => Some(("job started", StageId(u64::MAX))),
        RuntimeEvent::AttemptStarted { attempt, .. } => Some(("started", attempt.stage)),
        RuntimeEvent::StageCompleted { stage, failure: None, .. } => Some(("completed", *stage)),
        RuntimeEvent::JobEnded { failure: None, .. } => Some(("job ended", StageId(u64::MAX))),
        _ => None,
    });
    let (map, result, job) = (stages[0], stages[1], StageId(u64::MAX));
    let expected = [
        ("submitted", map),
        ("submitted", result),
        ("job started", job),
        ("started", map),
        ("completed", map),
        ("started", result),
        ("completed", result),
        ("job ended", job),
    ];
    assert_eq!(outline.collect::<Vec<_>>(), expected);
    let of = |wanted: StageId| launched(&told).iter().filter(|it| it.0.stage == wanted).count();
    assert_eq!((of(map), of(result)), (4, 2));
    let ended = told.iter().filter_map(|event| match event {
        RuntimeEvent::TaskEnded { task_attempt, .. } => Some(*task_attempt),
        _ => None,
    });
    assert_eq!(ended.collect::<BTreeSet<_>>().len(), 6, "all ends are told");
}

/// A second job on the same rows tells of the stage that it skips, too, and does not hand it in.
#[test]
fn g4_a_job_whose_input_is_there_lists_the_stage_that_it_skips() {
    let runtime = local(4);
    let mut events = runtime.subscribe();
    let rows = gang(&runtime.parallelize(1..=10, 4)).repartition(2);
    assert_eq!(rows.count().wait().unwrap(), 10);
    let job = rows.count();
    let (id, stages) = (job.id(), job.stages().to_vec());
    job.wait().unwrap();
    let told = job_story(&mut events, id);
    let second = told.iter().skip_while(|event| !matches!(event, RuntimeEvent::JobEnded { .. }));
    let (mut listed, mut handed_in) = (Vec::new(), Vec::new());
    for event in second {
        match event {
            RuntimeEvent::JobStarted { stages, .. } => {
                listed.extend(stages.iter().map(|it| it.stage));
            }
            RuntimeEvent::StageSubmitted { stage, .. } => handed_in.push(*stage),
            _ => {}
        }
    }
    assert_eq!(listed, stages);
    assert_eq!(handed_in, stages[1..]);
}

#[test]
fn g5_a_dataset_read_without_the_mark_is_none_of_a_gang() {
    let read = |text: &str| serde_json::from_str::<DatasetInfo>(text);
    let (name, parents) = ("map".to_owned(), vec![]);
    let expected = DatasetInfo { name, num_partitions: 4, is_barrier: false, parents };
    assert_eq!(read(r#"{"name":"map","num_partitions":4}"#).unwrap(), expected);
    let marked = DatasetInfo { is_barrier: true, ..expected };
    assert_eq!(read(&serde_json::to_string(&marked).unwrap()).unwrap(), marked);
    // The other fields have always been there.
    for (text, field) in [(r#"{"num_partitions":4}"#, "name"), (r#"{"name":"map"}"#, "num_part")] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains("missing field") && error.contains(field), "{error}");
    }
    // One from a later version.
    let later = r#"{"name":"map","num_partitions":4,"is_barrier":true,"cached":true}"#;
    assert_eq!(read(later).unwrap(), marked);
}

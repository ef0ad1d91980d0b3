//! The planner's actor, spoken to without datasets.
#![allow(clippy::result_large_err, reason = "what is said here is said once")]

mod support;

use phalanx_actors::{
    ActorSystem, GetJobs, JobEnded, JobsStatus, MapOutput, Payload, RunJob, TaskBody, TaskOutput,
    Tell,
};
use phalanx_protocol::{
    DatasetInfo, ExecutorResources, JobFailure, JobId, JobStage, OnFailure, PartitionId,
    PlannedStage, PlannerEvent, StageFailure, StageId, StageKind, StageRole, StageSpec, SubmitJob,
    TaskResources,
};
use std::sync::Arc;
use std::time::Duration;
use support::{system, within};
use tokio::sync::{oneshot, watch};

const MAP: StageId = StageId(7);
const RESULT: StageId = StageId(9);

fn stage(stage: StageId, role: StageRole, parents: Vec<StageId>) -> JobStage {
    let spec = StageSpec {
        name: format!("stage {stage}"),
        kind: StageKind::Plain,
        num_tasks: 2,
        resources: TaskResources::default(),
        max_attempts: 1,
        max_infrastructure_failures: 3,
        retry_delay: Duration::ZERO,
        priority: 0,
        sync_timeout: Duration::from_secs(1),
        on_failure: OnFailure::Restart,
    };
    let name = "rows".to_owned();
    let datasets =
        vec![DatasetInfo { name, num_partitions: 2, is_barrier: false, parents: vec![] }];
    let planned = PlannedStage { stage, role, num_tasks: 2, parents, datasets, chain: Ok(()) };
    JobStage { planned, spec }
}

fn stages() -> Vec<JobStage> {
    vec![stage(MAP, StageRole::Map, vec![]), stage(RESULT, StageRole::Result, vec![MAP])]
}

fn code(code: impl Fn(PartitionId) -> TaskOutput + Send + Sync + 'static) -> TaskBody {
    TaskBody::Blocking(Arc::new(move |task| code(task.partition())))
}

/// Each task's rows are its number.
fn makes_rows() -> TaskBody {
    TaskBody::Blocking(Arc::new(|task| {
        let (partition, executor) = (task.partition(), task.executor_life());
        Ok(Box::new(MapOutput { partition, executor, rows: Arc::new(partition.0) }) as Payload)
    }))
}

/// The sum of all rows, in each task.
fn adds_rows(system: &ActorSystem) -> TaskBody {
    let outputs = system.map_outputs().clone();
    code(move |_| {
        let mut sum = 0;
        for rows in outputs.fetch(MAP, 2)? {
            sum += *rows.downcast::<u32>().map_err(|_| "these are no rows of the test")?;
        }
        Ok(Box::new(sum) as Payload)
    })
}

async fn with_slots() -> ActorSystem {
    let system = system();
    let executor = system.add_executor(ExecutorResources::new(2), 1);
    within("an executor", executor).await.expect("threads");
    system
}

async fn run(
    system: &ActorSystem,
    job: u64,
    stages: Vec<JobStage>,
    bodies: Vec<TaskBody>,
) -> Result<Vec<u32>, JobFailure> {
    let (ended, end) = oneshot::channel();
    let (outcome, watched) = watch::channel(None);
    let submit = SubmitJob { job: JobId(job), name: "adds".to_owned(), stages };
    system.planner().do_send(RunJob { submit, bodies, ended, outcome });
    let JobEnded { result } = within("a job", end).await.expect("an answer");
    let told = watched.borrow().clone();
    assert_eq!(told, Some(result.as_ref().map(drop).map_err(|(failure, _)| failure.clone())));
    let values = result.map_err(|(failure, _)| failure)?.into_iter();
    Ok(values.map(|value| *value.downcast().expect("the test's values")).collect())
}

async fn jobs(system: &ActorSystem) -> JobsStatus {
    within("the jobs", system.planner().send(GetJobs)).await.expect("a planner")
}

#[actix_rt::test]
async fn outputs_are_kept_for_later_jobs_until_their_dataset_is_dropped() {
    let system = with_slots().await;
    let bodies = vec![makes_rows(), adds_rows(&system)];
    assert_eq!(run(&system, 0, stages(), bodies).await, Ok(vec![1, 1]));
    let kept = JobsStatus { jobs: vec![], map_stages: 1, map_outputs: 2 };
    assert_eq!(jobs(&system).await, kept);
    // The map stage does not run again: its code would fail.
    let bodies = vec![code(|_| Err("run again".into())), adds_rows(&system)];
    assert_eq!(run(&system, 1, stages(), bodies).await, Ok(vec![1, 1]));
    system.planner().do_send(Tell(PlannerEvent::DatasetDropped(MAP)));
    let nothing = JobsStatus { jobs: vec![], map_stages: 0, map_outputs: 0 };
    assert_eq!(jobs(&system).await, nothing);
    let lost = system.map_outputs().fetch(MAP, 2).map(drop).unwrap_err();
    assert_eq!((lost.input.stage, lost.partition), (MAP, PartitionId(0)));
    system.shutdown(Duration::from_secs(20)).await;
}

#[actix_rt::test]
async fn what_makes_no_sense_is_refused_and_leaves_nothing() {
    let system = with_slots().await;
    let refused = |reason: &str| Err(JobFailure::Refused { reason: reason.to_owned() });
    let none = run(&system, 0, vec![], vec![]).await;
    assert_eq!(none, refused("it has 0 stages and code for 0; both must be 1 or more"));
    let too_few = run(&system, 1, stages(), vec![makes_rows()]).await;
    assert_eq!(too_few, refused("it has 2 stages and code for 1; both must be 1 or more"));
    let mut no_attempts = stages();
    no_attempts[1].spec.max_attempts = 0;
    let no_attempts = run(&system, 2, no_attempts, vec![makes_rows(), makes_rows()]).await;
    assert_eq!(no_attempts, refused("stage 'stage 9': max_attempts is 0, allowed is 1 or more"));
    assert_eq!(jobs(&system).await, JobsStatus { jobs: vec![], map_stages: 0, map_outputs: 0 });
    system.shutdown(Duration::from_secs(20)).await;
}

#[actix_rt::test]
async fn a_map_task_that_returns_something_else_fails_its_job() {
    let system = with_slots().await;
    let bodies = vec![code(|_| Ok(Box::new(1_u32) as Payload)), adds_rows(&system)];
    let failure = run(&system, 0, stages(), bodies).await.unwrap_err();
    let JobFailure::Stage { stage: MAP, failure, .. } = failure else { panic!("{failure}") };
    let reason = "a task of map stage 7 returned no MapOutput".to_owned();
    assert_eq!(failure, StageFailure::Refused { reason });
    // Its dataset may be asked for again.
    assert_eq!(jobs(&system).await, JobsStatus { jobs: vec![], map_stages: 1, map_outputs: 0 });
    let bodies = vec![makes_rows(), adds_rows(&system)];
    assert_eq!(run(&system, 1, stages(), bodies).await, Ok(vec![1, 1]), "with the code it brings");
    system.shutdown(Duration::from_secs(20)).await;
}

#[actix_rt::test]
async fn a_job_that_comes_as_a_bare_event_fails_and_harms_nobody() {
    let system = with_slots().await;
    let submit = SubmitJob { job: JobId(0), name: "bare".to_owned(), stages: stages() };
    system.planner().do_send(Tell(PlannerEvent::SubmitJob(submit)));
    let left = jobs(&system).await;
    assert_eq!((left.jobs, left.map_outputs), (vec![], 0));
    let bodies = vec![makes_rows(), adds_rows(&system)];
    assert_eq!(run(&system, 1, stages(), bodies).await, Ok(vec![1, 1]), "it goes on");
    system.shutdown(Duration::from_secs(20)).await;
}

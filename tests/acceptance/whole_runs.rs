//! From submission to the last event: rows G.

mod jobs;

use crate::observe::{cluster, is_idle, launched, local, story};
use phalanx::{ExecutorId, Runtime, RuntimeEvent, Stage, TaskInfo, TaskOutcome};
use std::collections::BTreeSet;

/// Two tasks look at the addresses of both, and meet.
fn two_tasks(runtime: &Runtime) -> Vec<Vec<TaskInfo>> {
    let handle = Stage::tasks(2).max_attempts(1).run(runtime, async |ctx| {
        let infos = ctx.task_infos().to_vec();
        assert_eq!(infos.len(), 2);
        ctx.barrier().await?;
        Ok(infos)
    });
    let infos = handle.wait().unwrap();
    assert!(is_idle(runtime), "nothing runs any more");
    infos
}

fn two_blocking_tasks(runtime: &Runtime) -> Vec<Vec<TaskInfo>> {
    let handle = Stage::tasks(2).max_attempts(1).run_blocking(runtime, |ctx| {
        let infos = ctx.task_infos().to_vec();
        assert_eq!(infos.len(), 2);
        ctx.barrier()?;
        Ok(infos)
    });
    let infos = handle.wait().unwrap();
    assert!(is_idle(runtime), "nothing runs any more");
    infos
}

fn info(executor: u64) -> TaskInfo {
    let address = format!("local/{executor}").into();
    TaskInfo { executor: ExecutorId(executor), address }
}

#[test]
fn g1_two_tasks_on_one_executor() {
    let runtime = local(2);
    let expected = vec![vec![info(0), info(0)]; 2];
    assert_eq!(two_tasks(&runtime), expected);
    assert_eq!(two_blocking_tasks(&runtime), expected);
}

#[test]
fn g2_two_tasks_on_three_executors() {
    let runtime = cluster(3, 1);
    let mut events = runtime.subscribe();
    for infos in [two_tasks(&runtime), two_blocking_tasks(&runtime)] {
        let expected = vec![vec![info(0), info(1)]; 2];
        assert_eq!(infos, expected);
    }
    let mut told = story(&mut events, phalanx::StageId(0));
    told.extend(story(&mut events, phalanx::StageId(1)));
    let used: BTreeSet<u64> = launched(&told).iter().map(|(.., executor)| executor.0).collect();
    assert_eq!(used, BTreeSet::from([0, 1]), "the third is spare");
}

/// The addresses are where the tasks really are, in partition order, whatever is busy.
#[test]
fn g2_the_addresses_are_those_of_the_tasks() {
    let runtime = cluster(3, 2);
    let mut events = runtime.subscribe();
    let handle = Stage::tasks(5).run(&runtime, async |ctx| Ok(ctx.task_infos().to_vec()));
    let id = handle.id();
    let infos = handle.wait().unwrap();
    let placed: Vec<TaskInfo> =
        launched(&story(&mut events, id)).iter().map(|(.., executor)| info(executor.0)).collect();
    assert_eq!(infos, vec![placed; 5]);
}

/// Every task that started is told to have ended, before the stage is.
#[test]
fn g1_the_events_are_complete_when_the_stage_is() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    two_tasks(&runtime);
    let mut open = BTreeSet::new();
    let (mut submitted, mut started) = (false, false);
    for event in story(&mut events, phalanx::StageId(0)) {
        match event {
            RuntimeEvent::StageSubmitted { .. } => submitted = true,
            RuntimeEvent::AttemptStarted { .. } => {
                assert!(submitted);
                started = true;
            }
            RuntimeEvent::TaskStarted { task_attempt, .. } => {
                assert!(started);
                assert!(open.insert(task_attempt));
            }
            RuntimeEvent::TaskEnded { task_attempt, outcome, .. } => {
                assert_eq!(outcome, TaskOutcome::Succeeded);
                assert!(open.remove(&task_attempt));
            }
            RuntimeEvent::StageCompleted { attempts, failure, .. } => {
                assert!(open.is_empty(), "{open:?}");
                assert_eq!((attempts, failure), (1, None));
            }
            _ => {}
        }
    }
    assert!(submitted && started);
}

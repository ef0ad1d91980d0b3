//! Stages on executors that are processes of their own, through the public API.
#![cfg(target_os = "linux")]

#[path = "support_cluster/programs.rs"]
mod programs;
mod support_cluster;

use bytes::Bytes;
use phalanx::{
    Cluster, Config, ExecutorId, ExecutorResources, OnFailure, Progress, Runtime, RuntimeEvent,
    Stage, StageFailure, StageHandle, TaskFailure,
};
use std::collections::BTreeSet;
use std::time::Duration;
use support_cluster::executor::Process;
use support_cluster::processes::{executors_here, gone, is_alive, pid_of};
use support_cluster::tasks::{Fault, Hold, Met, Stepped, Steps, VERSION};
use support_cluster::{
    alone, eventually, joined, listening, lost, met, processes, quick, registry, until, watchful,
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn other_processes_of_the_tests_begin_here() {
    support_cluster::begin(&[]);
}

fn meet(runtime: &Runtime, count: usize) -> StageHandle<Met> {
    let names = (0..count).map(|rank| format!("task {rank}"));
    Stage::named("meet", names).run(runtime)
}

/// `executors`: how many there are; 2 tasks each.
fn have_met(values: &[Met], executors: usize) {
    let count = values.len();
    let names: Vec<String> = (0..count).map(|rank| format!("task {rank}")).collect();
    for value in values {
        assert_eq!(value.names, names);
        assert_eq!(value.sum, (1..=count as i64).sum::<i64>());
        assert_eq!(value.largest, [count as f64 - 1.0, 0.0]);
        assert_eq!(value.from_last, names[count - 1]);
        assert_eq!(value.executors, values[0].executors);
    }
    let places: BTreeSet<_> =
        (0..count).map(|rank| (values[rank].executors[rank], values[rank].pid)).collect();
    assert_eq!(places.len(), executors, "each executor is a process: {places:?}");
    assert!(places.iter().all(|(_, pid)| *pid != std::process::id()));
}

#[test]
fn a_gang_of_processes_meets_gathers_reduces_and_broadcasts() {
    alone(|| {
        for executors in [2, 4] {
            let (runtime, mut events) = processes(quick(), executors, 2);
            let stage = meet(&runtime, 2 * executors);
            let id = stage.id();
            have_met(&stage.wait().unwrap(), executors);
            assert_eq!(met(&mut events, id), 0, "at the first attempt");
            assert_eq!(pollster::block_on(runtime.status()).executors.len(), executors);
        }
    });
}

#[test]
fn three_mebibytes_of_each_task_reach_all() {
    alone(|| {
        let (runtime, _) = processes(quick(), 2, 2);
        let size = 3 << 20;
        let stage = Stage::named("gather_large", [size; 4]).run::<Vec<(u8, u8, usize)>>(&runtime);
        let expected: Vec<_> = (0..4).map(|rank| (rank, 100 + rank, size)).collect();
        assert_eq!(stage.wait().unwrap(), vec![expected; 4]);
    });
}

#[test]
fn a_result_of_100_mebibytes_comes_while_heartbeats_go_on() {
    alone(|| {
        let (runtime, mut events) = processes(watchful(), 2, 1);
        let size = 100 << 20;
        let values = Stage::named("value_of", [size; 2]).run::<Bytes>(&runtime).wait().unwrap();
        for (rank, value) in (0..).zip(&values) {
            assert_eq!((value.len(), value[0], value[size - 1]), (size, rank, rank));
        }
        // The links are as good as before.
        let stage = meet(&runtime, 2);
        let id = stage.id();
        have_met(&stage.wait().unwrap(), 2);
        until(&mut events, |event| match event {
            RuntimeEvent::ExecutorLost { .. } | RuntimeEvent::AttemptFailed { .. } => {
                panic!("{event:?}")
            }
            RuntimeEvent::StageCompleted { stage, .. } => (*stage == id).then_some(()),
            _ => None,
        });
    });
}

#[test]
fn a_value_larger_than_the_limit_fails_its_task_with_both_sizes() {
    alone(|| {
        let config = Config { link_max_payload: 1000, ..quick() };
        let (runtime, _) = processes(config, 1, 2);
        let stage = Stage::named("value_of", [10_usize, 2000]).on_failure(OnFailure::Abort);
        let text = stage.run::<Bytes>(&runtime).wait().unwrap_err().to_string();
        assert!(text.contains("partition 1 "), "{text}");
        assert!(text.contains("allowed are 1000 (link.max_payload)"), "{text}");
        // The bytes and their length before them.
        assert!(text.contains("its value has 2003 bytes"), "{text}");
    });
}

fn work(fault: Option<(usize, u64, Fault)>) -> Steps {
    Steps { count: 5, pause: Duration::ZERO, fault }
}

#[test]
fn the_next_attempt_goes_on_from_the_checkpoint_that_the_driver_keeps() {
    alone(|| {
        let directory = tempfile::tempdir().unwrap();
        let (runtime, mut events) = processes(quick(), 2, 1);
        for place in [None, Some(directory.path())] {
            for fault in [Fault::Error, Fault::Panic] {
                let work = work(Some((1, 4, fault)));
                let mut stage = Stage::named("steps", [work; 2]);
                if let Some(directory) = place {
                    stage = stage.checkpoint_directory(directory);
                }
                let stage = stage.run::<Stepped>(&runtime);
                let cause = until(&mut events, |event| match event {
                    RuntimeEvent::AttemptFailed { cause, will_retry: true } => Some(cause.clone()),
                    _ => None,
                });
                assert_eq!(cause.origin.unwrap().partition.0, 1);
                let failure = match fault {
                    Fault::Error => TaskFailure::Error("out of luck".to_owned()),
                    _ => TaskFailure::Panicked("out of its mind".to_owned()),
                };
                assert_eq!(cause.failure, failure);
                let value = |_| Stepped { total: work.total(2), attempt: 1, resumed_from: Some(3) };
                assert_eq!(stage.wait().unwrap(), [0, 1].map(value));
            }
        }
        assert!(directory.path().join("steps").read_dir().unwrap().next().is_some());
    });
}

#[test]
fn a_second_saver_of_a_step_gets_the_error_of_its_own_type() {
    alone(|| {
        let (runtime, _) = processes(quick(), 2, 1);
        let stage = Stage::named("save_twice", [3_u64; 2]).run::<Option<(u64, u32)>>(&runtime);
        assert_eq!(stage.wait().unwrap(), [None, Some((3, 0))]);
    });
}

/// A gang that waits for a gate, all of whose tasks have met; and the gate.
fn held(runtime: &Runtime, count: usize) -> (StageHandle<(u32, u32)>, tempfile::TempDir) {
    let mut events = runtime.subscribe();
    let directory = tempfile::tempdir().unwrap();
    let hold = Hold { gates: vec![directory.path().join("gate")], deaf: None };
    let stage = Stage::named("hold", vec![hold; count]).run(runtime);
    met(&mut events, stage.id());
    (stage, directory)
}

fn open(gate: &tempfile::TempDir) {
    std::fs::write(gate.path().join("gate"), "").unwrap();
}

#[test]
fn progress_of_tasks_in_processes_is_seen_while_they_run() {
    alone(|| {
        let (runtime, _) = processes(quick(), 2, 1);
        let (stage, gate) = held(&runtime, 2);
        let mut pids = eventually(SOON, "the progress of both", || {
            let seen: Option<Vec<Progress>> = stage.progress().into_iter().collect();
            seen.map(|seen| seen.iter().map(|it| it.done as u32).collect::<Vec<_>>())
        });
        open(&gate);
        let values = stage.wait().unwrap();
        assert_eq!(pids, values.iter().map(|(_, pid)| *pid).collect::<Vec<_>>());
        pids.sort_unstable();
        let mut here: Vec<u32> = executors_here().into_iter().map(|(_, pid)| pid).collect();
        here.sort_unstable();
        assert_eq!(pids, here);
    });
}

#[test]
fn a_cancel_and_a_kill_reach_the_tasks() {
    alone(|| {
        let (runtime, mut events) = processes(quick(), 2, 1);
        let (stage, _gate) = held(&runtime, 2);
        let id = stage.id();
        stage.cancel("enough");
        let error = stage.wait().unwrap_err();
        assert_eq!(*error.failure(), StageFailure::Cancelled { reason: "enough".to_owned() });
        let mut ends = 0;
        until(&mut events, |event| match event {
            RuntimeEvent::TaskEnded { attempt, .. } if attempt.stage == id => {
                ends += 1;
                (ends == 2).then_some(())
            }
            _ => None,
        });

        let (stage, gate) = held(&runtime, 2);
        stage.kill_task(1, "it is time");
        let cause = until(&mut events, |event| match event {
            RuntimeEvent::AttemptFailed { cause, .. } => Some(cause.clone()),
            _ => None,
        });
        assert_eq!(cause.origin.unwrap().partition.0, 1);
        assert_eq!(cause.failure, TaskFailure::Killed("it is time".to_owned()));
        open(&gate);
        assert!(stage.wait().unwrap().iter().all(|(attempt, _)| *attempt == 1));
    });
}

#[test]
fn a_sync_timeout_names_who_is_missing() {
    alone(|| {
        let (runtime, _) = processes(quick(), 2, 1);
        let stage = Stage::named("come_late", [(); 2])
            .sync_timeout(Duration::from_millis(200))
            .max_attempts(1);
        let text = stage.run::<()>(&runtime).wait().unwrap_err().to_string();
        assert!(text.contains("missing: partition 1"), "{text}");
        assert!(text.contains("within 0.2 second(s)"), "{text}");
    });
}

#[test]
fn plain_stages_run_task_by_task() {
    alone(|| {
        let (runtime, _) = processes(quick(), 2, 2);
        let stage = Stage::named("process_of", [false; 20]).plain();
        let values = stage.run::<(usize, u32)>(&runtime).wait().unwrap();
        assert!(values.iter().enumerate().all(|(rank, value)| value.0 == rank));
        let stage = Stage::named("process_of", [false, true]).plain().max_attempts(2);
        let text = stage.run::<(usize, u32)>(&runtime).wait().unwrap_err().to_string();
        assert!(text.contains("failed 2 times in a row") && text.contains("as asked"), "{text}");
    });
}

#[test]
fn two_gangs_share_the_executors() {
    alone(|| {
        let (runtime, _) = processes(quick(), 2, 2);
        let (held, gate) = held(&runtime, 2);
        let works: Vec<_> = (0..3)
            .map(|_| Stage::named("steps", [work(None); 2]).run::<Stepped>(&runtime))
            .collect();
        for values in works.into_iter().map(|stage| stage.wait().unwrap()) {
            assert!(values.iter().all(|value| value.total == work(None).total(2)));
        }
        assert_eq!(held.outcome(), None, "it runs all the while");
        open(&gate);
        held.wait().unwrap();
    });
}

#[test]
fn several_runtimes_have_their_own_executors() {
    alone(|| {
        let runtimes: Vec<_> = (0..3).map(|_| processes(quick(), 2, 2).0).collect();
        assert_eq!(executors_here().len(), 6);
        let stages: Vec<_> = runtimes.iter().map(|runtime| meet(runtime, 4)).collect();
        let mut pids = BTreeSet::new();
        for stage in stages {
            let values = stage.wait().unwrap();
            have_met(&values, 2);
            pids.extend(values.iter().map(|value| value.pid));
        }
        assert_eq!(pids.len(), 6);
    });
}

#[test]
fn a_shutdown_leaves_no_process_and_so_does_the_drop_of_a_runtime() {
    alone(|| {
        let pids = || executors_here().into_iter().map(|(_, pid)| pid).collect::<Vec<_>>();
        let (runtime, _) = processes(quick(), 3, 1);
        let (stage, _gate) = held(&runtime, 3);
        let first = pids();
        assert_eq!(first.len(), 3);
        runtime.shutdown_blocking(SOON).unwrap();
        assert!(!first.iter().any(|pid| is_alive(*pid)), "they are gone when it returns");
        assert_eq!(*stage.wait().unwrap_err().failure(), StageFailure::Shutdown);

        let (runtime, _) = processes(quick(), 3, 1);
        let (stage, _gate) = held(&runtime, 3);
        let second = pids();
        assert_eq!(second.len(), 3);
        drop(runtime);
        assert_eq!(*stage.wait().unwrap_err().failure(), StageFailure::Shutdown);
        gone(&second, SOON);
        assert_eq!(executors_here(), [], "none was started in their place");
    });
}

#[test]
fn an_executor_that_ends_is_started_again_under_its_name() {
    alone(|| {
        let (runtime, mut events) = processes(quick(), 2, 1);
        let former = pid_of("process-1");
        support_cluster::processes::send(former, rustix::process::Signal::KILL);
        joined(&mut events, 1);
        assert_ne!(pid_of("process-1"), former);
        let executors = pollster::block_on(runtime.status()).executors;
        let lives: u32 = executors.iter().map(|executor| executor.incarnation.0).sum();
        assert_eq!((executors.len(), lives), (2, 1));
        have_met(&meet(&runtime, 2).wait().unwrap(), 2);
    });
}

#[test]
fn an_executors_process_starts_no_runtime_with_executors_of_its_own() {
    alone(|| {
        let (runtime, _) = processes(quick(), 1, 1);
        let texts = Stage::named("nested", [()]).run::<String>(&runtime).wait().unwrap();
        assert!(texts[0].contains("was started as an executor"), "{texts:?}");
        assert!(texts[0].contains("begin `main` with phalanx::main"), "{texts:?}");
    });
}

#[test]
fn executors_of_this_process_and_of_others_make_one_gang() {
    alone(|| {
        let runtime = Runtime::builder()
            .config(quick())
            .registry(registry())
            .executor(ExecutorResources::new(2))
            .cluster(Cluster::processes(1, ExecutorResources::new(2)));
        let (runtime, mut events) = runtime.start_recorded().unwrap();
        joined(&mut events, 2);
        let values = meet(&runtime, 4).wait().unwrap();
        let pids: BTreeSet<u32> = values.iter().map(|value| value.pid).collect();
        assert_eq!(pids, BTreeSet::from([std::process::id(), pid_of("process-0")]));
        assert!(values.iter().all(|value| value.sum == 10 && value.from_last == "task 3"));
    });
}

#[test]
fn a_listening_driver_waits_for_executors_and_takes_in_those_that_dial() {
    alone(|| {
        let (runtime, mut events, address) = listening(quick());
        let stage = meet(&runtime, 2);
        until(&mut events, |event| match event {
            RuntimeEvent::StageDeferred { required: 2, available: 0, .. } => Some(()),
            _ => None,
        });
        let executors = ["first", "second"].map(|name| Process::executor(name, &address, &[]));
        have_met(&stage.wait().unwrap(), 2);
        runtime.shutdown_blocking(SOON).unwrap();
        for executor in executors {
            let (status, said) = executor.ended();
            assert!(status.success(), "{status}: {said}");
        }
    });
}

#[test]
fn an_executor_of_another_version_is_refused_with_both() {
    alone(|| {
        let (_runtime, _events, address) = listening(quick());
        let executor = Process::executor("other", &address, &[(VERSION, "2")]);
        let (status, said) = executor.ended();
        assert_eq!(status.code(), Some(1), "{said}");
        let reason = "phalanx executor: the driver refuses: it is 'cluster_tests 2', the driver \
                      is 'cluster_tests 1': both must be the same program";
        assert!(said.contains(reason), "{said}");
    });
}

#[test]
fn an_executor_that_is_removed_ends_and_none_takes_its_place() {
    alone(|| {
        let (runtime, mut events) = processes(quick(), 2, 1);
        let removed = executors_of(&runtime)[0];
        assert!(pollster::block_on(runtime.remove_executor(removed, "it is too old")));
        assert!(!pollster::block_on(runtime.remove_executor(ExecutorId(9), "not there")));
        let (lost, _, reason) = lost(&mut events);
        assert_eq!((lost, &*reason), (removed, "it is too old"));
        eventually(SOON, "its process has ended", || (executors_here().len() == 1).then_some(()));
        have_met(&meet(&runtime, 1).wait().unwrap(), 1);
        assert_eq!(executors_of(&runtime).len(), 1, "none was started in its place");
    });
}

fn executors_of(runtime: &Runtime) -> Vec<ExecutorId> {
    let status = pollster::block_on(runtime.status());
    status.executors.iter().map(|executor| executor.executor).collect()
}

//! Executors and drivers that are killed, stopped or stubborn, as real processes.
#![cfg(target_os = "linux")]

#[path = "support_cluster/at_any_moment.rs"]
mod at_any_moment;
mod support_cluster;

use phalanx::{
    Cluster, Config, EventStream, ExecutorResources, PartitionId, Runtime, RuntimeEvent, Stage,
    StageControl, StageHandle, TaskFailure, Token,
};
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};
use support_cluster::executor::Process;
use support_cluster::processes::{executors_here, gone, pid_of, send, stop};
use support_cluster::tasks::{Fault, Hold, Stepped, Steps, say};
use support_cluster::{
    alone, attempts, eventually, failure, joined, listening, lost, met, processes, quick, registry,
    until, watchful,
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn other_processes_of_the_tests_begin_here() {
    support_cluster::begin(&[
        ("processes", drive_processes),
        ("await_end", || drive_listening("await_end")),
        ("await_end_blocking", || drive_listening("await_end_blocking")),
    ]);
}

/// A driver that tells its executors' processes once a gang runs on them.
fn drive_processes() {
    let (runtime, mut events) = processes(watchful(), 3, 1);
    let stage = Stage::named("await_end_blocking", [(); 3]).max_attempts(1).run::<u32>(&runtime);
    met(&mut events, stage.id());
    let pids: Vec<String> = executors_here().into_iter().map(|(_, pid)| pid.to_string()).collect();
    say(format!("\ngang on {}", pids.join(" ")));
    say(format!("\nresult {:?}", stage.wait().unwrap()));
    runtime.shutdown_blocking(SOON).unwrap();
}

/// A driver that only listens, and tells where. A gang of this code runs on its executors.
fn drive_listening(code: &str) {
    let (runtime, mut events, address) = listening(watchful());
    say(format!("\nlistens {address}"));
    let stage = Stage::named(code, [(); 2]).max_attempts(1).run::<u32>(&runtime);
    met(&mut events, stage.id());
    say("\ngang on 2".to_owned());
    say(format!("\nresult {:?}", stage.wait().unwrap()));
    runtime.shutdown_blocking(SOON).unwrap();
}

/// A gang that waits for gates, one per attempt, all of whose tasks have met.
fn held(
    runtime: &Runtime,
    count: usize,
    directory: &Path,
    deaf: Option<usize>,
) -> StageHandle<(u32, u32)> {
    let mut events = runtime.subscribe();
    let gates = vec![directory.join("first"), directory.join("second")];
    let stage = Stage::named("hold", vec![Hold { gates, deaf }; count]).run(runtime);
    met(&mut events, stage.id());
    stage
}

fn open(directory: &Path, gate: &str) {
    std::fs::write(directory.join(gate), "").unwrap();
}

#[test]
fn the_executors_of_a_killed_driver_are_gone_within_a_second_even_stopped_ones() {
    alone(|| {
        for stopped in [false, true] {
            let mut driver = Process::driver("processes");
            let pids = driver.line("gang on");
            let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
            assert_eq!(pids.len(), 3);
            if stopped {
                stop(pids[1]);
            }
            driver.send(Signal::KILL);
            gone(&pids, Duration::from_secs(1));
            assert!(!driver.ended().0.success());
        }
    });
}

/// The driver of this code's gang is killed, and each task tells of its own kill.
fn its_driver_is_gone(code: &str) {
    let mut driver = Process::driver(code);
    let address = driver.line("listens");
    let limits = [("PHALANX_LINK_RECONNECT_TIMEOUT", "300ms"), ("PHALANX_KILL_GRACE", "500ms")];
    let mut executors = ["a", "b"].map(|name| Process::executor(name, &address, &limits));
    driver.line("gang on");
    driver.send(Signal::KILL);
    let killed = Instant::now();
    for executor in &mut executors {
        let reason = executor.line("killed: ");
        assert!(reason.starts_with("its executor has lost the driver"), "{reason}");
    }
    for executor in executors {
        let (status, said) = executor.ended();
        assert_eq!(status.code(), Some(1), "{said}");
        let reason = format!("phalanx executor: the driver at {address} could not be reached");
        assert!(said.contains(&reason) && said.contains("(link.reconnect_timeout)"), "{said}");
    }
    // 300 ms and what a try more takes.
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
}

#[test]
fn an_executor_whose_driver_is_gone_stops_its_tasks_and_ends_in_the_bound() {
    alone(|| its_driver_is_gone("await_end_blocking"));
}

#[test]
fn async_tasks_have_their_grace_when_the_driver_is_gone() {
    alone(|| its_driver_is_gone("await_end"));
}

#[test]
fn a_driver_that_stood_still_gets_its_executors_back_and_goes_on() {
    alone(|| {
        let mut driver = Process::driver("await_end_blocking");
        let address = driver.line("listens");
        let mut executors = ["a", "b"].map(|name| Process::executor(name, &address, &[]));
        driver.line("gang on");
        stop(driver.pid());
        for executor in &mut executors {
            let reason = executor.line("killed: ");
            assert!(reason.ends_with("it was silent for 500ms"), "{reason}");
        }
        driver.send(Signal::CONT);
        assert_eq!(driver.line("result"), "[1, 1]");
        let (status, said) = driver.ended();
        assert!(status.success(), "{said}");
        for executor in executors {
            let (status, said) = executor.ended();
            assert!(status.success(), "{said}");
        }
    });
}

#[test]
fn a_driver_that_stood_still_starts_its_own_executors_again() {
    alone(|| {
        let mut driver = Process::driver("processes");
        let pids = driver.line("gang on");
        stop(driver.pid());
        // It is they who write it.
        for _ in 0..3 {
            let reason = driver.line("killed: ");
            assert!(reason.ends_with("it was silent for 500ms"), "{reason}");
        }
        driver.send(Signal::CONT);
        assert_eq!(driver.line("result"), "[1, 1, 1]");
        let (status, said) = driver.ended();
        assert!(status.success(), "{said}");
        let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
        gone(&pids, SOON);
    });
}

#[test]
fn a_child_process_that_hangs_is_ended_and_replaced() {
    alone(|| {
        let directory = tempfile::tempdir().unwrap();
        let (runtime, mut events) = processes(watchful(), 2, 1);
        let stage = held(&runtime, 2, directory.path(), None);
        assert_eq!(met(&mut events, stage.id()), 0);
        let hung = process_of_first(&stage);
        stop(hung);
        let (_, _, reason) = lost(&mut events);
        assert!(reason.contains("was silent for 500ms (link.heartbeat_timeout)"), "{reason}");
        gone(&[hung], SOON);
        assert_eq!(met(&mut events, stage.id()), 1);
        open(directory.path(), "second");
        let values = stage.wait().unwrap();
        assert!(values.iter().all(|(attempt, pid)| *attempt == 1 && *pid != hung));
    });
}

#[test]
fn an_executor_that_is_stopped_is_lost_and_comes_back_as_its_next_incarnation() {
    alone(|| {
        let directory = tempfile::tempdir().unwrap();
        let (runtime, mut events, address) = listening(watchful());
        let start = |name| Process::executor(name, &address, &[]);
        let executors = ["a", "b", "c"].map(start);
        joined(&mut events, 3);
        // Task 0 tries to hand over its value whatever happens to it.
        let stage = held(&runtime, 2, directory.path(), Some(0));
        let frozen = process_of_first(&stage);
        assert!(executors.iter().any(|executor| executor.pid() == frozen));
        stop(frozen);
        let stopped = Instant::now();
        let (executor, incarnation, reason) = lost(&mut events);
        println!("-- a stopped executor was lost after {:?}", stopped.elapsed());
        assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
        assert!(reason.contains("was silent for 500ms (link.heartbeat_timeout)"), "{reason}");
        assert_eq!(incarnation, 0);
        let cause = failure(&mut events, stage.id());
        assert!(matches!(cause.failure, TaskFailure::ExecutorLost(_)), "{cause:?}");
        assert_eq!(cause.origin.map(|origin| origin.partition), Some(PartitionId(0)));
        assert_eq!(met(&mut events, stage.id()), 1, "it goes on elsewhere");

        // The value of the former life is there when the process goes on.
        open(directory.path(), "first");
        send(frozen, Signal::CONT);
        let back = until(&mut events, |event| match event {
            RuntimeEvent::ExecutorJoined { executor, incarnation, .. } => {
                Some((*executor, incarnation.0))
            }
            _ => None,
        });
        assert_eq!(back, (executor, 1));
        open(directory.path(), "second");
        let values = stage.wait().unwrap();
        assert!(values.iter().all(|(attempt, pid)| *attempt == 1 && *pid != frozen), "{values:?}");
        // It is as good as any other.
        let work = Steps { count: 3, pause: Duration::ZERO, fault: None };
        let values = Stage::named("steps", [work; 3]).run::<Stepped>(&runtime).wait().unwrap();
        assert!(values.iter().all(|value| value.total == work.total(3)));
    });
}

#[test]
fn an_executor_that_gets_sigterm_lets_its_tasks_save_and_ends_with_143() {
    alone(|| {
        let config = Config { stage_retry_delay: Duration::from_millis(500), ..quick() };
        let (runtime, mut events, address) = listening(config);
        let start = |name| Process::executor(name, &address, &[]);
        let mut executors = Vec::from(["a", "b", "c"].map(start));
        joined(&mut events, 3);
        let stage = Stage::named("last_words", [(); 2]).max_attempts(1);
        let stage = stage.run::<(u32, u64, String)>(&runtime);
        assert_eq!(met(&mut events, stage.id()), 0);
        let pid = process_of_first(&stage);
        let victim = executors.iter().position(|executor| executor.pid() == pid).unwrap();
        let victim = executors.remove(victim);
        victim.send(Signal::TERM);
        let (ended, _, reason) = lost(&mut events);
        assert_eq!(reason, "leaves: got SIGTERM");
        let (status, said) = victim.ended();
        assert_eq!(status.code(), Some(143), "{said}");
        assert!(said.contains("phalanx executor: got SIGTERM"), "{said}");
        assert!(said.contains("last words: Ok(())"), "{said}");
        let cause = failure(&mut events, stage.id());
        assert!(cause.failure.is_infrastructure(), "{cause:?}");
        assert_eq!(cause.origin.unwrap().executor, ended);
        let saved = (1, 7, "its executor got SIGTERM".to_owned());
        assert_eq!(stage.wait().unwrap(), [saved.clone(), saved]);
    });
}

#[test]
fn an_executor_that_gets_sigterm_costs_no_attempt_of_tasks_that_end_at_once() {
    alone(|| {
        let (runtime, mut events) = processes(quick(), 2, 8);
        for code in ["await_end", "await_end_blocking"] {
            let stage = Stage::named(code, [(); 16]).max_attempts(1).run::<u32>(&runtime);
            assert_eq!(met(&mut events, stage.id()), 0);
            send(pid_of("process-0"), Signal::TERM);
            let cause = failure(&mut events, stage.id());
            assert!(cause.failure.is_infrastructure(), "{cause}");
            assert_eq!(stage.wait().unwrap(), [1; 16]);
        }
    });
}

#[test]
fn an_executor_that_says_it_leaves_and_hangs_is_ended_and_replaced() {
    alone(|| {
        let config = Config { kill_grace: Duration::from_millis(100), ..quick() };
        let (runtime, mut events) = processes(config, 1, 1);
        let former = pid_of("process-0");
        let stage = Stage::named("stubborn", [(); 1]).run::<(u32, u32)>(&runtime);
        assert_eq!(met(&mut events, stage.id()), 0);
        send(former, Signal::TERM);
        assert_eq!(lost(&mut events).2, "leaves: got SIGTERM");
        send(former, Signal::STOP);
        gone(&[former], SOON);
        joined(&mut events, 1);
        stage.cancel("seen");
    });
}

/// The process of task 0, which it has told as its progress.
fn process_of_first(stage: &StageControl) -> u32 {
    eventually(SOON, "progress", || stage.progress()[0]).done as u32
}

#[test]
fn the_process_of_a_task_that_ignores_its_kill_is_ended_and_replaced() {
    alone(|| {
        let deadline = Some(Duration::from_millis(300));
        let config = Config { kill_zombie_deadline: deadline, ..quick() };
        let (runtime, mut events) = processes(config, 2, 1);
        let former = executors_here();
        let stage = Stage::named("stubborn", [(); 2]).run::<(u32, u32)>(&runtime);
        assert_eq!(met(&mut events, stage.id()), 0);
        stage.kill_task(0, "it is in the way");
        let cause = failure(&mut events, stage.id());
        assert_eq!(cause.failure, TaskFailure::Killed("it is in the way".to_owned()));
        let (_, _, reason) = lost(&mut events);
        let values = stage.wait().unwrap();
        assert!(values.iter().all(|(attempt, _)| *attempt == 1), "{values:?}");
        let now = executors_here();
        let ended: Vec<u32> =
            former.iter().filter(|it| !now.contains(it)).map(|(_, pid)| *pid).collect();
        assert_eq!(ended.len(), 1, "{reason}: {former:?}, then {now:?}");
        assert_eq!(now.len(), 2);
        gone(&ended, SOON);
    });
}

#[test]
fn a_task_that_ends_its_process_costs_an_executor_and_no_attempt_of_its_own() {
    alone(|| {
        let (runtime, mut events) = processes(quick(), 3, 1);
        for fault in [Fault::Exit, Fault::Abort] {
            let work = Steps { count: 5, pause: Duration::ZERO, fault: Some((1, 4, fault)) };
            let stage = Stage::named("steps", [work; 2]).max_attempts(1);
            let stage = stage.run::<Stepped>(&runtime);
            let id = stage.id();
            let value = |_| Stepped { total: work.total(2), attempt: 1, resumed_from: Some(3) };
            assert_eq!(stage.wait().unwrap(), [0, 1].map(value), "{fault:?}");
            let (attempts, causes) = attempts(&mut events, id);
            assert_eq!((attempts, causes.len()), (2, 1));
            let TaskFailure::ExecutorLost(reason) = &causes[0].failure else {
                panic!("{causes:?}")
            };
            // Closed or reset: it depends on what was on its way.
            assert!(reason.contains("onnection"), "{reason}");
            assert_eq!(causes[0].origin.unwrap().partition, PartitionId(1));
        }
    });
}

#[test]
fn a_killed_executor_is_replaced_and_the_gang_meets_again_soon() {
    alone(|| {
        let directory = tempfile::tempdir().unwrap();
        let (runtime, mut events) = processes(quick(), 2, 1);
        let stage = held(&runtime, 2, directory.path(), None);
        assert_eq!(met(&mut events, stage.id()), 0);
        let victim = pid_of("process-0");
        send(victim, Signal::KILL);
        let killed = Instant::now();
        assert!(failure(&mut events, stage.id()).failure.is_infrastructure());
        assert_eq!(met(&mut events, stage.id()), 1);
        println!("-- from kill -9 to the next attempt's first barrier: {:?}", killed.elapsed());
        assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
        open(directory.path(), "second");
        let values = stage.wait().unwrap();
        assert!(values.iter().all(|(attempt, pid)| *attempt == 1 && *pid != victim));
    });
}

#[test]
fn who_takes_an_executors_name_is_replaced_in_turn_and_nobody_else_is_ended() {
    alone(|| {
        let secret = "0123456789abcdef0123456789abcdef";
        let cluster = Cluster::processes(2, ExecutorResources::new(1));
        let cluster = cluster.token(Token::new(secret).unwrap());
        let builder = Runtime::builder().config(quick()).registry(registry()).cluster(cluster);
        let (runtime, mut events) = builder.start_recorded().unwrap();
        joined(&mut events, 2);
        let former = pid_of("process-0");
        let address = runtime.listen_address().unwrap().to_string();
        let impostor = Process::executor("process-0", &address, &[("PHALANX_TOKEN", secret)]);
        let lives = (0..2).map(|_| next_life(&mut events)).collect::<Vec<_>>();
        assert_eq!(lives, [1, 2], "the impostor, and who was started for the one that it ended");
        let (status, said) = impostor.ended();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("another connection under the same executor name"), "{said}");
        gone(&[former], SOON);
        let now = pid_of("process-0");
        // The driver hears of the end of the impostor's link now, if it had not before.
        let work = Steps { count: 20, pause: Duration::from_millis(10), fault: None };
        let stage = Stage::named("steps", [work; 2]).max_infrastructure_failures(0);
        stage.run::<Stepped>(&runtime).wait().unwrap();
        assert_eq!(pid_of("process-0"), now);
    });
}

/// Which life of its executor joins next.
fn next_life(events: &mut EventStream) -> u32 {
    until(events, |event| match event {
        RuntimeEvent::ExecutorJoined { incarnation, .. } => Some(incarnation.0),
        _ => None,
    })
}

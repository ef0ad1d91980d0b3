//! Drivers and executors of the cluster tests, as processes.
//!
//! A file of tests is a cluster program of its own. Each test runs once more, alone in a process
//! that is a driver, and so leaves nothing behind. Executors are the same binary again: there
//! [`begin`] takes over from its own test, and all other tests end at once.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

pub mod executor;
pub mod processes;
pub mod tasks;

use phalanx::{
    Cluster, Config, EventStream, ExecutorId, ExecutorResources, FailureCause, Registry, Runtime,
    RuntimeEvent, StageId,
};
use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Far longer than any test takes.
pub const HANGS: Duration = Duration::from_secs(60);

/// Set in the process in which a test runs alone.
const ALONE: &str = "CLUSTER_TEST_ALONE";

/// Which driver of [`begin`] a process is.
pub const DRIVER: &str = "CLUSTER_TEST_DRIVER";

/// The test that calls [`begin`].
pub const BEGIN: &str = "other_processes_of_the_tests_begin_here";

/// Runs a test in a process of its own, which ends with all that the test has started.
pub fn alone<F: FnOnce()>(test: F) {
    if is_other_process() {
        return;
    }
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    // The closure is `file::module::name_of_the_test::{{closure}}`.
    let path = std::any::type_name::<F>().strip_suffix("::{{closure}}");
    let (_, name) = path.and_then(|path| path.split_once("::")).expect("the closure of a test");
    let mut log = tempfile::tempfile().unwrap();
    let mut child = this_program(&[name])
        .env(ALONE, "yes")
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log.try_clone().unwrap()))
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            None if started.elapsed() < HANGS => sleep(LOOK_PAUSE),
            None => {
                child.kill().unwrap();
                break format!("it hangs: {}", child.wait().unwrap());
            }
            Some(status) if status.success() => break String::new(),
            Some(status) => break status.to_string(),
        }
    };
    let mut text = String::new();
    log.rewind().unwrap();
    log.read_to_string(&mut text).unwrap();
    assert!(status.is_empty(), "{status}\n{text}");
    assert!(text.contains("1 passed"), "{name} is no test:\n{text}");
    // What tests tell is shown with --nocapture.
    text.lines().filter(|line| line.starts_with("--")).for_each(|line| println!("{line}"));
}

/// What [`BEGIN`] does: an executor, or one of these drivers.
pub fn begin(drivers: &[(&str, fn())]) {
    if is_executor() {
        let code = phalanx::main(tasks::registry(), |_| Err("it is an executor"));
        let known = [0_u8, 143].into_iter().find(|known| code == (*known).into());
        std::process::exit(known.unwrap_or(1).into());
    }
    if let Ok(name) = std::env::var(DRIVER) {
        let (_, driver) = drivers.iter().find(|(known, _)| *known == name).unwrap();
        driver();
    }
}

fn is_executor() -> bool {
    std::env::var_os("PHALANX_ROLE").is_some()
}

fn is_other_process() -> bool {
    is_executor() || std::env::var_os(DRIVER).is_some()
}

/// This very binary, for one of its tests.
pub fn this_program(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--exact").args(arguments).arg("--nocapture").stdin(Stdio::null());
    without_settings(&mut command);
    command
}

/// Settings of whoever runs the tests are not meant.
pub fn without_settings(command: &mut Command) {
    let settings = std::env::vars_os().map(|(variable, _)| variable);
    for variable in settings.filter(|it| it.to_string_lossy().starts_with("PHALANX_")) {
        command.env_remove(variable);
    }
}

/// Next attempts come at once.
pub fn quick() -> Config {
    Config { stage_retry_delay: Duration::ZERO, ..Config::default() }
}

/// Who is silent is noticed soon as well.
pub fn watchful() -> Config {
    Config {
        link_heartbeat_interval: Duration::from_millis(50),
        link_heartbeat_timeout: Duration::from_millis(500),
        ..quick()
    }
}

/// A runtime with this many executors, child processes of as many slots, all of which have joined.
pub fn processes(config: Config, count: usize, slots: u32) -> (Runtime, EventStream) {
    let cluster = Cluster::processes(count, ExecutorResources::new(slots));
    let (runtime, mut events) = start(config, cluster);
    joined(&mut events, count);
    (runtime, events)
}

/// A runtime that only listens, and where.
pub fn listening(config: Config) -> (Runtime, EventStream, String) {
    let (runtime, events) = start(config, Cluster::listen("127.0.0.1:0"));
    let address = runtime.listen_address().unwrap().to_string();
    (runtime, events, address)
}

fn start(config: Config, cluster: Cluster) -> (Runtime, EventStream) {
    let builder = Runtime::builder().config(config).registry(tasks::registry());
    builder.cluster(cluster).start_recorded().unwrap()
}

pub fn registry() -> Registry {
    tasks::registry()
}

/// Reads events until one of them is the awaited one.
#[track_caller]
pub fn until<T>(events: &mut EventStream, mut wanted: impl FnMut(&RuntimeEvent) -> Option<T>) -> T {
    let mut read = Vec::new();
    let waits = async {
        loop {
            let event = events.next().await.expect("the runtime runs, the reader is fast").event;
            if let Some(found) = wanted(&event) {
                return found;
            }
            read.push(event);
        }
    };
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let waited = clock.block_on(async { tokio::time::timeout(HANGS / 4, waits).await });
    waited.unwrap_or_else(|_| panic!("the awaited event is not among {read:#?}"))
}

/// Waits until so many executors have joined.
pub fn joined(events: &mut EventStream, count: usize) {
    let mut missing = count;
    until(events, |event| {
        missing -= usize::from(matches!(event, RuntimeEvent::ExecutorJoined { .. }));
        (missing == 0).then_some(())
    });
}

/// Waits until all tasks of an attempt have met for the first time; returns the attempt's number.
pub fn met(events: &mut EventStream, stage: StageId) -> u32 {
    until(events, |event| match event {
        RuntimeEvent::RoundReleased { attempt, epoch, .. }
            if attempt.stage == stage && epoch.0 == 0 =>
        {
            Some(attempt.attempt)
        }
        _ => None,
    })
}

/// The next failure of an attempt of this stage.
pub fn failure(events: &mut EventStream, stage: StageId) -> FailureCause {
    until(events, |event| match event {
        RuntimeEvent::AttemptFailed { cause, .. } if cause.attempt.stage == stage => {
            Some(cause.clone())
        }
        _ => None,
    })
}

/// The next loss of an executor, with its reason.
pub fn lost(events: &mut EventStream) -> (ExecutorId, u32, String) {
    until(events, |event| match event {
        RuntimeEvent::ExecutorLost { executor, incarnation, reason } => {
            Some((*executor, incarnation.0, reason.clone()))
        }
        _ => None,
    })
}

/// How many attempts the stage took, once it has ended, and why any of them failed.
pub fn attempts(events: &mut EventStream, stage: StageId) -> (u32, Vec<FailureCause>) {
    let mut causes = Vec::new();
    until(events, |event| match event {
        RuntimeEvent::AttemptFailed { cause, .. } if cause.attempt.stage == stage => {
            causes.push(cause.clone());
            None
        }
        RuntimeEvent::StageCompleted { stage: ended, attempts, .. } if *ended == stage => {
            Some((*attempts, causes.clone()))
        }
        _ => None,
    })
}

/// Looks until something is there.
pub fn eventually<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        sleep(LOOK_PAUSE);
    }
}

const LOOK_PAUSE: Duration = Duration::from_millis(2);

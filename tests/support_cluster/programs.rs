//! The example programs as driver and executors, told by flags what they are.

use crate::support_cluster::executor::Process;
use crate::support_cluster::{alone, without_settings};
use phalanx::{
    BarrierTaskContext, Cluster, ExecutorResources, Registry, Runtime, Stage, TaskResult, blocking,
};
use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Cargo puts tests into `target/<profile>/deps` and examples beside that.
fn example(name: &str, arguments: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let example = profile.join("examples").join(name);
    assert!(example.exists(), "{name} is not built: run `cargo build --examples` first");
    let mut command = Command::new(example);
    command.args(arguments.split_whitespace());
    without_settings(&mut command);
    command
}

fn run(name: &str, arguments: &str) -> (Option<i32>, String) {
    let (status, said) = Process::start(&mut example(name, arguments)).ended();
    (status.code(), said)
}

/// What the tour prints at its end.
const TOUR: [&str; 5] = [
    "Ada meets Alan",
    "Alan meets Ada",
    "attempt 1 counted down from 5",
    "attempt 1 counted down from 5",
    "[1, 4, 9, 16, 25]",
];

fn is_tour(said: &str) {
    let lines: Vec<&str> =
        said.lines().filter(|line| !line.starts_with("executors dial")).collect();
    assert_eq!(lines, TOUR, "{said}");
}

/// A file with a token, and the folder that it is in.
fn token_file(token: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    (directory, file)
}

/// A driver of the tour that listens, and where.
fn listening_tour(token_file: &Path) -> (Process, String) {
    let mut command = example("cluster_tasks", "--cluster listen:127.0.0.1:0");
    let mut driver = Process::start(command.env("PHALANX_TOKEN_FILE", token_file));
    let address = driver.line("executors dial");
    (driver, address)
}

#[test]
fn the_tour_runs_on_child_processes() {
    alone(|| {
        let (code, said) = run("cluster_tasks", "--cluster processes:3");
        assert_eq!(code, Some(0), "{said}");
        is_tour(&said);
    });
}

#[test]
fn executors_started_with_flags_join_a_listening_driver() {
    alone(|| {
        let (_directory, file) = token_file(SECRET);
        let (driver, address) = listening_tour(&file);
        let flags = format!(
            "phalanx-executor --driver={address} --token-file {} --slots 2 --executor-name by-hand",
            file.display()
        );
        let executor = Process::start(&mut example("cluster_tasks", &flags));
        let (status, said) = driver.ended();
        assert!(status.success(), "{said}");
        is_tour(&said);
        let (status, said) = executor.ended();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    });
}

#[test]
fn an_executor_with_the_wrong_token_or_none_ends_with_the_reason() {
    alone(|| {
        let (_directory, file) = token_file(SECRET);
        let (_other_directory, other) = token_file("another secret that is long enough");
        let (_driver, address) = listening_tour(&file);
        let flags = format!("phalanx-executor --driver {address}");
        for (more, reason) in
            [(format!("--token-file {}", other.display()), "token"), (String::new(), "token")]
        {
            let (code, said) = run("cluster_tasks", &format!("{flags} {more}"));
            assert_eq!(code, Some(1), "{said}");
            assert!(said.starts_with("phalanx executor: the driver refuses: "), "{said}");
            assert!(said.contains(reason), "{said}");
        }
    });
}

#[test]
fn an_executor_without_a_driver_ends_in_the_bound_with_the_reason() {
    alone(|| {
        // Bound but not listening would be taken; bound before and free now is refused.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let begun = Instant::now();
        let flags =
            format!("phalanx-executor --driver {address} --link-reconnect-timeout 300ms --slots 1");
        let (code, said) = run("cluster_tasks", &flags);
        let tried = begun.elapsed();
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.starts_with(&format!(
                "phalanx executor: the driver at {address} could not be reached for"
            )),
            "{said}"
        );
        assert!(said.contains("(link.reconnect_timeout)"), "{said}");
        let bounds = Duration::from_millis(300)..Duration::from_secs(5);
        assert!(bounds.contains(&tried), "{tried:?}");
    });
}

#[test]
fn flags_that_mean_nothing_are_refused_with_the_reason() {
    alone(|| {
        for (flags, reason) in [
            ("", "PHALANX_DRIVER is missing: give the driver's host:port"),
            ("--driver", "--driver needs a value"),
            ("--driver here", "PHALANX_DRIVER = \"here\" is not allowed; allowed is host:port"),
            ("--driver :7077", "PHALANX_DRIVER = \":7077\" is not allowed; allowed is host:port"),
            ("driver here:1", "'driver' is no flag; flags are like --driver host:port"),
            ("--driver here:1 --slots 0", "PHALANX_SLOTS: slots = \"0\" is not allowed"),
            ("--driver here:1 --colour red", "PHALANX_COLOUR"),
            ("--driver here:1 --token short", "the token has 5 bytes, at least 16 are needed"),
            ("--driver here:1 --token-file /none", "token file /none: "),
            ("--driver here:1 --tls-ca /none", "TLS needs all of PHALANX_TLS_CA, "),
            ("--driver here:1 --executor-resources gpu", "'gpu' is no resource; write gpu=0,1"),
        ] {
            let (code, said) = run("cluster_tasks", &format!("phalanx-executor {flags}"));
            assert_eq!(code, Some(1), "{flags}: {said}");
            assert!(said.starts_with("phalanx executor: "), "{flags}: {said}");
            assert!(said.contains(reason), "{flags}: {said}");
        }
    });
}

#[test]
fn a_model_trained_by_processes_is_the_same_to_the_last_bit() {
    alone(|| {
        let train = |arguments: &str| {
            let command = &mut example("distributed_training", &format!("--json {arguments}"));
            let output = command.output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{arguments}: {stderr}");
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        let here = train("--tasks 4");
        let in_processes = train("--tasks 4 --cluster processes:4");
        assert_eq!(here["sha256"], in_processes["sha256"]);
        assert_eq!(in_processes["infrastructure_failures"], 0);
        let failed = train("--tasks 4 --cluster processes:4 --fail-at-epoch 20");
        assert_eq!(here["sha256"], failed["sha256"]);
        assert_eq!((&failed["attempts"], &failed["resumed_from"]), (&2.into(), &19.into()));
    });
}

async fn introduce(_: BarrierTaskContext, _: String) -> TaskResult<String> {
    Err("executors run the tour's own".into())
}

fn count_down(_: blocking::BarrierTaskContext, _: u64) -> TaskResult<String> {
    Err("executors run the tour's own".into())
}

async fn square(_: BarrierTaskContext, _: u64) -> TaskResult<u64> {
    Err("executors run the tour's own".into())
}

#[test]
fn executors_may_be_another_program_with_the_same_registry() {
    alone(|| {
        let registry = Registry::new("cluster_tasks", env!("CARGO_PKG_VERSION"))
            .register("introduce", introduce)
            .register_blocking("count_down", count_down)
            .register("square", square);
        let program = example("cluster_tasks", "").get_program().to_owned();
        let cluster = Cluster::processes(2, ExecutorResources::new(1)).program(program);
        let runtime = Runtime::builder().registry(registry).cluster(cluster).start().unwrap();
        let squares = Stage::named("square", [2_u64, 3]).plain().run::<u64>(&runtime).wait();
        assert_eq!(squares.unwrap(), [4, 9]);
        runtime.shutdown_blocking(Duration::from_secs(5)).unwrap();
    });
}

#[test]
fn what_is_wrong_with_a_driver_is_said_in_words() {
    alone(|| {
        let (code, said) = run("cluster_tasks", "--cluster listen:0.0.0.0:0");
        assert_eq!(code, Some(1), "{said}");
        let reason = "error: 0.0.0.0:0 can be reached from other machines, and neither a token nor \
                      TLS is set";
        assert!(said.contains(reason), "{said}");
    });
}

#[test]
fn a_program_that_never_joins_ends_the_stages_that_wait_for_it() {
    alone(|| {
        let cluster = Cluster::processes(1, ExecutorResources::new(1)).program("/bin/false");
        let registry = Registry::new("a", "1").register("square", square);
        let builder = Runtime::builder().registry(registry);
        let runtime = builder.cluster(cluster).start().unwrap();
        let failure =
            Stage::named("square", [2_u64]).run::<u64>(&runtime).wait().unwrap_err().to_string();
        let reason = "executor 'process-0' was started 5 times in vain: it ended before it had \
                      joined (exit status: 1)";
        assert!(failure.contains(reason), "{failure}");
    });
}

//! The examples do what they say.

use linfa::prelude::*;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2, Axis};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// Far longer than any example takes.
const HANGS: Duration = Duration::from_secs(60);

/// Cargo puts tests into `target/<profile>/deps` and examples beside that.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let example = profile.join("examples").join(file);
    assert!(example.exists(), "{name} is not built: run `cargo build --examples` first");
    example
}

/// Without the settings of whoever runs the tests.
fn command(name: &str) -> Command {
    let mut command = Command::new(example(name));
    let settings = std::env::vars_os().map(|(variable, _)| variable);
    for variable in settings.filter(|it| it.to_string_lossy().starts_with("PHALANX_")) {
        command.env_remove(variable);
    }
    command
}

async fn run(name: &str, arguments: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = command(name);
    command.envs(variables.iter().copied());
    command.args(arguments.split_whitespace()).kill_on_drop(true);
    timeout(HANGS, command.output()).await.expect("the example hangs").unwrap()
}

async fn stdout_of(name: &str, arguments: &str) -> String {
    stdout_with(name, arguments, &[]).await
}

async fn stdout_with(name: &str, arguments: &str, variables: &[(&str, &str)]) -> String {
    let output = run(name, arguments, variables).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

async fn train(arguments: &str) -> Value {
    let stdout = stdout_of("distributed_training", &format!("--json {arguments}")).await;
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

fn weights(trained: &Value) -> Vec<f64> {
    trained["weights"].as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect()
}

/// The wines with standardised features; whether each is good.
fn wines() -> Dataset<f64, bool, ndarray::Ix1> {
    let dataset = linfa_datasets::winequality();
    let raw = dataset.records();
    let features: Array2<f64> =
        (raw - &raw.mean_axis(Axis(0)).unwrap()) / raw.std_axis(Axis(0), 0.0);
    Dataset::new(features, dataset.targets().mapv(|quality| quality >= 6))
}

/// linfa's objective with its default L2 weight of 1, per row. The intercept is the last weight.
fn loss(wines: &Dataset<f64, bool, ndarray::Ix1>, weights: &[f64]) -> f64 {
    let (intercept, weights) = weights.split_last().unwrap();
    let weights = Array1::from(weights.to_vec());
    let scores = wines.records().dot(&weights) + *intercept;
    let rows = scores.iter().zip(wines.targets());
    let losses = rows.map(|(score, good)| if *good { -score } else { *score }.exp().ln_1p());
    (losses.sum::<f64>() + 0.5 * weights.dot(&weights)) / wines.nsamples() as f64
}

#[tokio::test]
async fn a_failure_costs_no_bit_of_the_model() {
    let smooth = train("").await;
    let failed = train("--fail-at-epoch 20").await;
    assert_eq!(smooth["sha256"], failed["sha256"]);
    assert_eq!(smooth["weights"], failed["weights"]);
    assert_eq!((&smooth["attempts"], &smooth["resumed_from"]), (&1.into(), &Value::Null));
    assert_eq!((&failed["attempts"], &failed["resumed_from"]), (&2.into(), &19.into()));
    assert_eq!((&smooth["epochs_run"], &failed["epochs_run"]), (&100.into(), &81.into()));
}

#[tokio::test]
async fn rows_of_a_dataset_make_the_same_model() {
    let of_parts = train("").await;
    for (fail, attempts, resumed_from) in
        [("", 1, Value::Null), ("--fail-at-epoch 20", 2, 19.into())]
    {
        let of_rows = train(&format!("--dataset {fail}")).await;
        assert_eq!(of_rows["sha256"], of_parts["sha256"], "{fail}");
        assert_eq!(of_rows["weights"], of_parts["weights"], "{fail}");
        assert_eq!(
            (&of_rows["attempts"], &of_rows["resumed_from"]),
            (&attempts.into(), &resumed_from)
        );
    }
}

/// Executors are the driver's children.
#[cfg(target_os = "linux")]
fn children_of(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let lists =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_executor_that_is_killed_costs_no_bit_of_the_model() {
    let smooth = train("").await;
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let at = 2 + u64::from(seed.subsec_nanos()) % 60;
    let arguments = "--json --cluster processes:4 --epoch-pause 5ms";
    let mut driver = command("distributed_training")
        .args(arguments.split(' '))
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(driver.stderr.take().unwrap()).lines();
    let epoch = |line: &str| {
        let (_, rest) = line.split_once("epoch ")?;
        rest.split_once(" of 100")?.0.parse::<u64>().ok()
    };
    let mut killed = None;
    let follow = async {
        while let Some(line) = log.next_line().await.unwrap() {
            if killed.is_none() && epoch(&line).is_some_and(|epoch| epoch >= at) {
                let victim = children_of(driver.id().unwrap())[at as usize % 4];
                let status = Command::new("kill").args(["-9", &victim.to_string()]).status().await;
                killed = Some(status.unwrap().success());
            }
        }
    };
    timeout(HANGS, follow).await.expect("the driver hangs");
    assert_eq!(killed, Some(true), "at epoch {at}");
    let output = timeout(HANGS, driver.wait_with_output()).await.unwrap().unwrap();
    let trained: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(trained["sha256"], smooth["sha256"], "killed at epoch {at}");
    assert_eq!((&trained["attempts"], &trained["infrastructure_failures"]), (&2.into(), &1.into()));
    assert!(trained["resumed_from"].as_u64() >= Some(at - 1), "killed at epoch {at}: {trained}");
}

#[tokio::test]
async fn a_task_alone_fails_and_resumes_as_well() {
    let arguments = "--tasks 1 --epochs 5";
    let smooth = train(arguments).await;
    // Nothing is saved yet when the first epoch fails.
    for (fail_at, resumed_from) in [(1, Value::Null), (5, 4.into())] {
        let failed = train(&format!("{arguments} --fail-at-epoch {fail_at}")).await;
        assert_eq!(failed["sha256"], smooth["sha256"]);
        assert_eq!((&failed["attempts"], &failed["resumed_from"]), (&2.into(), &resumed_from));
    }
}

#[tokio::test]
async fn the_number_of_tasks_does_not_change_the_model() {
    let one = train("--tasks 1").await;
    for tasks in [2, 4] {
        let more = train(&format!("--tasks {tasks}")).await;
        assert_eq!(more["tasks"], tasks);
        let (one, more) = (weights(&one), weights(&more));
        assert_eq!(one.len(), more.len());
        for (one, more) in one.iter().zip(&more) {
            assert!((one - more).abs() < 1e-9, "{one} with one task, {more} with {tasks}");
        }
    }
}

#[tokio::test]
async fn the_model_is_as_good_as_the_reference_implementation() {
    let wines = wines();
    let reference = LogisticRegression::default().alpha(1.0).fit(&wines).unwrap();
    let sign = if reference.labels().pos.class { 1.0 } else { -1.0 };
    let mut reference_weights = (reference.params() * sign).to_vec();
    reference_weights.push(reference.intercept() * sign);
    let best = loss(&wines, &reference_weights);

    let trained = train("").await;
    let reported = trained["loss"].as_f64().unwrap();
    assert!((reported - loss(&wines, &weights(&trained))).abs() < 1e-12, "{reported}");
    assert!((reported - best).abs() < 0.01 * best, "loss {reported}, linfa-logistic {best}");
}

#[tokio::test]
async fn without_json_the_result_is_for_people() {
    let stdout = stdout_of("distributed_training", "--fail-at-epoch 20").await;
    assert!(stdout.contains("attempt 2 resumed after epoch 19 and ran 81 epochs"), "{stdout}");
    assert!(stdout.contains("accuracy 74."), "{stdout}");
}

#[tokio::test]
async fn bad_options_are_refused_with_the_reason() {
    for (arguments, reason) in [
        ("--tasks 0", "0 is not in 1..=256"),
        ("--epochs 0", "'--epochs <N>'"),
        ("--fail-at-epoch 101", "--fail-at-epoch 101 is beyond --epochs 100"),
        ("--fail-at-epoch x", "invalid digit"),
        (
            "--dataset --cluster processes:2",
            "closures, and those cannot be sent to other processes",
        ),
    ] {
        let output = run("distributed_training", arguments, &[]).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments}");
        assert!(stderr.contains(reason), "{arguments}: {stderr}");
    }
}

/// The parts of each row of a table, without its frame.
fn cells(table: &str) -> Vec<Vec<&str>> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(str::trim).collect()).collect()
}

/// Of a table of sizes, three addresses, and a count.
async fn meets_starts_and_finishes(example: &str, header: [&str; 2]) {
    let stdout = stdout_of(example, "").await;
    assert_eq!(cells(&stdout), [header, ["0", "3"], ["1", "3"], ["2", "3"]]);
    let after_table: Vec<&str> = stdout.lines().skip_while(|it| !it.starts_with(">>>")).collect();
    let expected = [
        ">>> Got host:port's from the other tasks",
        "A message from task 0, e.g. localhost:10000 it listens at",
        "A message from task 1, e.g. localhost:10001 it listens at",
        "A message from task 2, e.g. localhost:10002 it listens at",
        ">>> Starting a distributed training at the nodes...",
        ">>> All tasks have finished",
        "count: 9",
    ];
    assert_eq!(after_table, expected);
}

#[tokio::test]
async fn discover_meets_starts_and_finishes() {
    meets_starts_and_finishes("discover", ["partition", "size"]).await;
}

#[tokio::test]
async fn seed_discover_peers_meets_starts_and_finishes() {
    meets_starts_and_finishes("seed_discover_peers", ["partitionId", "size"]).await;
}

#[tokio::test]
async fn seed_insufficient_slots_is_refused_and_then_has_enough() {
    let stdout = stdout_of("seed_insufficient_slots", "").await;
    let lines: Vec<&str> = stdout.lines().collect();
    let [error, rest @ ..] = &lines[..] else { panic!("nothing is printed") };
    assert!(error.contains("needs 3 slots at once and all executors together have 1 "), "{error}");
    assert!(error.contains("add slots, ask for fewer resources per task, or use fewer"), "{error}");
    let expected = [
        "1 slot: 0 tasks of the gang were started",
        "3 slots: 3 tasks of the gang were started",
        "3 slots: 100 elements, all of 1 to 100: true",
    ];
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn seed_synchronise_has_three_finishing_times_or_one() {
    let stdout = stdout_of("seed_synchronise", "").await;
    assert!(stdout.contains("without ctx.barrier(), distinct finishing times: 3\n"), "{stdout}");
    let (_, with) = stdout.split_once("with ctx.barrier(), distinct finishing times: 1\n").unwrap();
    assert_eq!(with.matches("finished when 3 of 3 were awake").count(), 3, "{stdout}");
}

#[tokio::test]
async fn seed_restart_map_stage_starts_the_whole_gang_again() {
    let stdout = stdout_of("seed_restart_map_stage", "").await;
    assert!(stdout.contains("\nhas failed: true\n5 groups\n"), "{stdout}");
    let mut map_tasks: Vec<&str> =
        stdout.lines().filter_map(|line| line.strip_prefix("map stage: ")).collect();
    // All of an attempt are there before one of them goes on.
    map_tasks[..3].sort_unstable();
    map_tasks[3..].sort_unstable();
    let expected =
        [0, 1].map(|attempt| [0, 1, 2].map(|it| format!("task {it}, attempt {attempt}")));
    assert_eq!(map_tasks, expected.concat());
    assert_eq!(stdout.matches("result stage: context=").count(), 3, "{stdout}");
    let groups = stdout.lines().skip_while(|line| *line != "5 groups").skip(1);
    let made = [(2, 0), (4, 1), (6, 1), (8, 2), (10, 2)];
    let made = made.map(|(number, task)| format!("  {number}: by task {task} in attempt 1"));
    assert_eq!(groups.collect::<Vec<_>>(), made);
}

#[tokio::test]
async fn seed_abort_result_stage_is_repeated_only_if_asked() {
    let stdout = stdout_of("seed_abort_result_stage", "").await;
    let lines: Vec<&str> = stdout.lines().collect();
    let [abort, error, restart, elements] = lines[..] else { panic!("{stdout}") };
    assert_eq!(abort, "by default, has failed: true");
    assert!(error.contains("could not recover from a failed barrier result stage"), "{error}");
    assert!(error.contains("panicked: expected failure"), "{error}");
    assert_eq!(restart, "with OnFailure::Restart, has failed: true");
    assert_eq!(elements, "  5 elements: [2, 4, 6, 8, 10]");
}

#[tokio::test]
async fn insufficient_slots_says_how_many() {
    let stdout = stdout_of("insufficient_slots", "").await;
    assert!(stdout.contains("needs 3 slots at once"), "{stdout}");
    assert!(stdout.contains("all executors together have 1 "), "{stdout}");
    assert!(stdout.contains("checked 2 times"), "{stdout}");
}

#[tokio::test]
async fn ousterhout_shows_a_gang_side_by_side() {
    let stdout = stdout_of("ousterhout", "").await;
    let rows = cells(&stdout);
    assert_eq!(rows[0], ["time", "executor 0", "executor 1", "executor 2"], "{stdout}");
    for gang in ["A", "D"] {
        let is_whole = |row: &&Vec<&str>| {
            let mut tasks = row[1..].to_vec();
            tasks.sort_unstable();
            tasks == [format!("{gang}/0"), format!("{gang}/1"), format!("{gang}/2")]
        };
        assert_eq!(rows.iter().filter(is_whole).count(), 1, "{stdout}");
    }
}

#[tokio::test]
async fn ousterhout_says_what_it_missed() {
    let stdout = stdout_with("ousterhout", "", &[("PHALANX_EVENTS_CAPACITY", "1")]).await;
    assert!(stdout.contains("events missed: "), "{stdout}");
}

#[tokio::test]
async fn what_if_says_what_more_slots_and_a_priority_change() {
    let stdout = stdout_of("what_if", "--slots 4 --slots 6").await;
    let titles: Vec<&str> = stdout.lines().filter(|line| line.contains("all done")).collect();
    let expected = [
        "4 slots: all done after 4h 15m, 81 % of the slots used",
        "4 slots, 'report' first: all done after 4h 15m, 81 % of the slots used",
        "6 slots: all done after 3h 30m, 65 % of the slots used",
        "6 slots, 'report' first: all done after 3h 30m, 65 % of the slots used",
    ];
    assert_eq!(titles, expected, "{stdout}");
    let reports: Vec<Vec<&str>> =
        cells(&stdout).into_iter().filter(|row| row[0] == "report").collect();
    let waited: Vec<&str> = reports.iter().map(|row| row[2]).collect();
    assert_eq!(waited, ["3h", "1h", "1h", "0s"], "{stdout}");
}

#[tokio::test]
async fn what_if_replays_what_ousterhout_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("run.json");
    let file = file.to_str().unwrap();
    stdout_of("ousterhout", &format!("--log {file}")).await;
    let stdout = stdout_of("what_if", &format!("--log {file} --slots 6 --urgent F")).await;
    let rows = cells(&stdout);
    let stage = |name: &str| rows.iter().filter(|row| row[0] == name).count();
    assert_eq!(["A", "B", "C", "D", "E", "F"].map(stage), [2; 6], "{stdout}");
    assert!(rows.iter().filter(|row| row[0] == "C").all(|row| row[2] == "0s"), "{stdout}");
}

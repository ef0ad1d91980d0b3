//! Code that is registered by name, in this process.

use bytes::Bytes;
use phalanx::{
    BarrierTaskContext, BoxError, Cluster, ClusterError, Config, ReduceOp, Registry, Runtime,
    Stage, StageFailure, StartError, TaskFailure, TaskResult, Token, blocking,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Part {
    name: String,
    rows: Vec<f64>,
    weight: Option<i64>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Summed {
    of: Vec<String>,
    total: f64,
}

async fn sum(ctx: BarrierTaskContext, part: Part) -> TaskResult<Summed> {
    let of = ctx.all_gather(&part.name).await?;
    let mine = part.rows.iter().sum::<f64>() * part.weight.unwrap_or(1) as f64;
    Ok(Summed { of, total: ctx.all_reduce(ReduceOp::Sum, &mine).await? })
}

fn sum_blocking(ctx: blocking::BarrierTaskContext, part: Part) -> TaskResult<Summed> {
    let of = ctx.all_gather(&part.name)?;
    let mine = part.rows.iter().sum::<f64>() * part.weight.unwrap_or(1) as f64;
    Ok(Summed { of, total: ctx.all_reduce(ReduceOp::Sum, &mine)? })
}

async fn fail(_: BarrierTaskContext, how: String) -> TaskResult<()> {
    match how.as_str() {
        "panic" => panic!("out of its mind"),
        text => Err(text.into()),
    }
}

async fn echo(_: BarrierTaskContext, bytes: Bytes) -> TaskResult<Bytes> {
    Ok(bytes)
}

fn registry() -> Registry {
    Registry::new("registry_tests", "1")
        .register("sum", sum)
        .register_blocking("sum_blocking", sum_blocking)
        .register("fail", fail)
        .register("echo", echo)
}

fn runtime(config: Config) -> Runtime {
    Runtime::builder().config(config).slots(4).registry(registry()).start().unwrap()
}

fn parts() -> [Part; 3] {
    let part = |name: &str, rows: &[f64], weight| Part {
        name: name.to_owned(),
        rows: rows.to_vec(),
        weight,
    };
    [part("a", &[1.0, 2.0], None), part("b", &[], Some(7)), part("c", &[0.5], Some(2))]
}

/// Why the runtime does not take this stage.
fn refusal<I: Serialize + 'static, T: DeserializeOwned + Debug + 'static>(
    runtime: &Runtime,
    code: &str,
    inputs: Vec<I>,
) -> String {
    let error = Stage::named(code, inputs).run::<T>(runtime).wait().unwrap_err();
    match error.failure() {
        StageFailure::Refused { reason } => reason.clone(),
        other => panic!("it was not refused: {other}"),
    }
}

#[test]
fn named_stages_take_and_return_values_async_and_blocking() {
    let runtime = runtime(Config::default());
    for code in ["sum", "sum_blocking"] {
        let stage = Stage::named(code, parts()).run::<Summed>(&runtime);
        assert_eq!(stage.name(), code);
        let of = || ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(stage.wait().unwrap(), [0, 1, 2].map(|_| Summed { of: of(), total: 4.0 }));
    }
    let stage = Stage::named("sum", parts()).name("of another name").run::<Summed>(&runtime);
    assert_eq!(stage.name(), "of another name");
    stage.wait().unwrap();
    let none = Stage::named("sum", Vec::<Part>::new()).run::<Summed>(&runtime).wait().unwrap();
    assert_eq!(none, []);
}

#[test]
fn code_may_be_a_closure_that_has_captured_something() {
    let factor = 3_i64;
    let registry = Registry::new("closures", "1")
        .register("times", async move |_, number: i64| Ok(factor * number))
        .register_blocking("plus", move |_, number: i64| Ok(factor + number));
    let runtime = Runtime::builder().slots(2).registry(registry).start().unwrap();
    let run = |code| Stage::named(code, [1_i64, 2]).run::<i64>(&runtime).wait().unwrap();
    assert_eq!((run("times"), run("plus")), (vec![3, 6], vec![4, 5]));
}

#[test]
fn code_that_is_not_there_or_of_other_types_is_refused() {
    let runtime = runtime(Config::default());
    let reason = refusal::<Part, Summed>(&runtime, "summ", parts().to_vec());
    assert!(reason.starts_with("there is no code named 'summ' in the registry"), "{reason}");
    assert!(reason.contains(r#"["echo", "fail", "sum", "sum_blocking"]"#), "{reason}");
    let reason = refusal::<String, Summed>(&runtime, "sum", vec!["a".to_owned()]);
    let expected = "'sum' takes registry::Part, the stage's inputs are alloc::string::String";
    assert_eq!(reason, expected);
    let reason = refusal::<Part, f64>(&runtime, "sum", parts().to_vec());
    assert_eq!(reason, "'sum' returns registry::Summed, the stage wants f64");
}

#[test]
fn a_runtime_without_a_registry_refuses_named_stages() {
    let runtime = Runtime::with_slots(1).unwrap();
    let reason = refusal::<Part, Summed>(&runtime, "sum", parts().to_vec());
    assert_eq!(reason, "the runtime has no registry: start it with builder().registry()");
}

#[test]
fn a_name_that_is_registered_twice_is_said_when_the_runtime_is_started() {
    let twice = registry().register("echo", sum);
    let error = Runtime::builder().slots(1).registry(twice).start().unwrap_err();
    assert!(matches!(&error, StartError::RegisteredTwice(name) if name == "echo"), "{error}");
    assert_eq!(error.to_string(), "the registry has two codes named 'echo'");
}

#[test]
fn an_input_larger_than_the_limit_is_refused_with_partition_size_and_limit() {
    let runtime = runtime(Config { link_max_payload: 1000, ..Config::default() });
    // Bytes and their length, which takes three.
    let inputs = [997, 998].map(|size| Bytes::from(vec![1; size])).to_vec();
    let fits = Stage::named("echo", inputs[..1].to_vec()).run::<Bytes>(&runtime);
    assert_eq!(fits.wait().unwrap(), inputs[..1]);
    let reason = refusal::<Bytes, Bytes>(&runtime, "echo", inputs);
    let expected = "the input of partition 1 has 1001 bytes, allowed are 1000 (link.max_payload)";
    assert!(reason.starts_with(expected), "{reason}");
}

#[test]
fn errors_and_panics_of_the_code_come_through() {
    let runtime = runtime(Config::default());
    let fail = |how: &str| {
        let stage = Stage::named("fail", [how.to_owned()]).max_attempts(1);
        stage.run::<()>(&runtime).wait().unwrap_err()
    };
    let error = fail("out of luck");
    let failure = &error.first_cause().unwrap().failure;
    assert_eq!(*failure, TaskFailure::Error("out of luck".to_owned()));
    assert_eq!(error.source().unwrap().to_string(), "out of luck");
    let error = fail("panic");
    let failure = &error.first_cause().unwrap().failure;
    assert_eq!(*failure, TaskFailure::Panicked("out of its mind".to_owned()));
}

/// A driver with nobody to run anything.
fn listening(config: Config) -> Runtime {
    let builder = Runtime::builder().config(config).registry(registry());
    builder.cluster(Cluster::listen("127.0.0.1:0")).start().unwrap()
}

#[test]
fn closures_are_refused_by_a_runtime_with_a_cluster() {
    let runtime = listening(Config::default());
    let errors = [
        Stage::tasks(1).run(&runtime, async |_| Ok(())).wait().unwrap_err(),
        Stage::partitions([1]).run_blocking(&runtime, |_, _| Ok(())).wait().unwrap_err(),
    ];
    for text in errors.map(|error| error.to_string()) {
        let reason = "its code is a closure, and the runtime's executors are other processes";
        assert!(text.contains(reason), "{text}");
        assert!(text.ends_with("register the code by name and use Stage::named"), "{text}");
    }
}

#[test]
fn a_cluster_without_executors_has_too_few_slots() {
    let config = Config {
        slot_check_interval: Duration::from_millis(1),
        slot_check_max_failures: 1,
        ..Config::default()
    };
    let runtime = listening(config);
    assert!(pollster::block_on(runtime.status()).executors.is_empty(), "none in this process");
    let error = Stage::named("sum", parts()).run::<Summed>(&runtime).wait().unwrap_err();
    let is_short = matches!(error.failure(), StageFailure::NotEnoughSlots { available: 0, .. });
    assert!(is_short, "{error}");
}

fn start(cluster: Cluster) -> ClusterError {
    match Runtime::builder().registry(registry()).cluster(cluster).start() {
        Err(StartError::Cluster(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn clusters_that_cannot_be_started_are_refused_with_the_remedy() {
    let error = Runtime::builder().cluster(Cluster::listen("127.0.0.1:0")).start().unwrap_err();
    assert!(matches!(error, StartError::Cluster(ClusterError::NoRegistry)), "{error}");
    let text = error.to_string();
    assert!(text.ends_with("give it builder().registry(..)"), "{text}");

    let text = start(Cluster::listen("0.0.0.0:0")).to_string();
    assert!(text.contains("can be reached from other machines"), "{text}");
    assert!(text.contains("PHALANX_TOKEN_FILE"), "{text}");
    let token = Token::random().unwrap();
    let protected = Cluster::listen("0.0.0.0:0").token(token);
    let runtime = Runtime::builder().registry(registry()).cluster(protected).start().unwrap();
    let taken = runtime.listen_address().unwrap();

    let error = start(Cluster::listen(format!("127.0.0.1:{}", taken.port())));
    assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:"), "{error}");
    let error = start(Cluster::listen("nowhere"));
    assert!(matches!(error, ClusterError::Address { .. }), "{error}");
    assert!(error.to_string().starts_with("'nowhere' is no address to listen on"), "{error}");
}

#[test]
fn a_cluster_is_read_from_text() -> Result<(), BoxError> {
    for (text, read) in [
        ("processes:4", "processes:4x1"),
        ("processes:2x8", "processes:2x8"),
        ("slurm", "slurm"),
        ("slurm:3", "slurm"),
        ("listen:0.0.0.0:7077", "listen:0.0.0.0:7077"),
        ("listen:[::1]:0", "listen:[::1]:0"),
        ("listen:localhost:7077", "listen:localhost:7077"),
    ] {
        assert_eq!(text.parse::<Cluster>()?.to_string(), read);
    }
    for text in [
        "",
        "processes",
        "processes:",
        "processes:0",
        "processes:-1",
        "processes:two",
        "processes:4:1",
        "processes:2x",
        "processes:x8",
        "processes:2x0",
        "processes:2x4294967296",
        "processes:2x8x1",
        "slurm:",
        "slurm:0",
        "slurm:x",
        "slurm:4294967296",
        "listen",
        "listen:",
        "kubernetes",
        " processes:4",
        "PROCESSES:4",
    ] {
        let error = text.parse::<Cluster>().unwrap_err().to_string();
        let remedy = "write processes:4, processes:2x8, slurm, slurm:3 or listen:0.0.0.0:7077";
        assert_eq!(error, format!("'{text}' is no cluster; {remedy}"));
    }
    Ok(())
}

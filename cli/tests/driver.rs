//! The tool against a real driver.

use phalanx::actors::remote::wire::ExecutorHello;
use phalanx::actors::testing::Peer;
use phalanx::{
    BarrierTaskContext, Cluster, ExecutorResources, Registry, Runtime, RuntimeEvent, Stage,
    StageFailure, TaskResult, Token,
};
use std::process::{Command, Output};

async fn wait_for_kill(ctx: BarrierTaskContext, (): ()) -> TaskResult<()> {
    if ctx.rank() == 0 {
        ctx.barrier().await?;
    }
    ctx.killed().await;
    Ok(())
}

fn registry() -> Registry {
    Registry::new("cli-test", "1").register("wait", wait_for_kill)
}

const TOKEN: &str = "a token that is long enough";

/// A driver with two slots of its own, which others may dial.
fn driver() -> Runtime {
    let cluster = Cluster::listen("127.0.0.1:0").token(Token::new(TOKEN).unwrap());
    let builder = Runtime::builder().registry(registry()).cluster(cluster);
    builder.executor(ExecutorResources::new(2)).start().unwrap()
}

fn phalanx(runtime: &Runtime, token: &str, words: &[&str]) -> Output {
    let address = runtime.listen_address().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PHALANX_")) {
        command.env_remove(name);
    }
    command.env("PHALANX_TOKEN", token).env("PHALANX_DRIVER", address);
    command.args(words).output().unwrap()
}

fn stdout(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stderr}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn status_shows_who_is_there_and_who_waits_for_whom_and_cancel_ends_it() {
    let runtime = driver();
    let mut events = runtime.subscribe();
    let handle = Stage::named("wait", [(), ()]).name("stuck").run::<()>(&runtime);
    while !matches!(events.next_blocking().unwrap().event, RuntimeEvent::RoundOpened { .. }) {}
    let shown = stdout(&phalanx(&runtime, TOKEN, &["status"]));
    assert!(shown.contains("Stage 0 (Attempt 0) 'stuck' of 2 tasks: running"), "{shown}");
    assert!(shown.contains("waits at epoch 0 for partitions 1"), "{shown}");
    assert!(shown.contains("local/0"), "{shown}");
    let json = stdout(&phalanx(&runtime, TOKEN, &["status", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["runtime"]["stages"][0]["name"], "stuck");
    assert_eq!(json["runtime"]["executors"][0]["running"], 2);
    let cancel = ["cancel", "0", "--reason", "too late"];
    let said = stdout(&phalanx(&runtime, TOKEN, &cancel));
    assert_eq!(said, "stage 0 is being cancelled\n");
    let failure = handle.wait().unwrap_err();
    let cancelled = StageFailure::Cancelled { reason: "too late".to_owned() };
    assert_eq!(*failure.failure(), cancelled);
    let said = stderr(&phalanx(&runtime, TOKEN, &["cancel", "7"]));
    assert!(said.contains("there is no stage 7 that has not ended"), "{said}");
}

#[tokio::test]
async fn executors_of_other_processes_are_shown_by_name() {
    let runtime = driver();
    let mut events = runtime.subscribe();
    let hello = ExecutorHello {
        program: registry().program(),
        name: "rack-7".to_owned(),
        lives: 0,
        resources: ExecutorResources::new(3).with("gpu", ["0", "1"]),
        address: Some("rack-7.example".to_owned()),
    };
    let address = runtime.listen_address().unwrap().to_string();
    let token = Token::new(TOKEN).unwrap();
    let (_peer, _) = Peer::dial(&address, hello, Some(&token), None).await.unwrap();
    while !matches!(events.next().await.unwrap().event, RuntimeEvent::ExecutorJoined { .. }) {}
    let shown = stdout(&phalanx(&runtime, TOKEN, &["status"]));
    let row = shown.lines().find(|line| line.contains("rack-7")).unwrap();
    assert!(row.contains("rack-7.example") && row.contains("3 cpus, gpu 0 1"), "{row}");
    assert!(shown.contains("no stages"), "{shown}");
}

#[test]
fn what_is_wrong_is_said() {
    let runtime = driver();
    let said = stderr(&phalanx(&runtime, "another token that is long", &["status"]));
    assert!(said.contains("the driver refuses: the token is not the driver's"), "{said}");
    let said = stderr(&phalanx(&runtime, "", &["status"]));
    assert!(said.contains("no token was given: set PHALANX_TOKEN"), "{said}");
    let said = stderr(&phalanx(&runtime, "short", &["status"]));
    assert!(said.contains("the token has 5 bytes, at least 16 are needed"), "{said}");
    let said = stderr(&phalanx(&runtime, TOKEN, &["status", "--driver", "127.0.0.1:1"]));
    assert!(said.contains("the driver at 127.0.0.1:1: Connection refused"), "{said}");
}

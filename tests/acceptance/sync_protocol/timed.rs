//! How long a round may last: J13 to J15.

use super::*;
use phalanx::{Config, Runtime, Stage};

const MINUTE: Duration = Duration::from_secs(60);

#[actix::test]
async fn j13_the_time_of_a_round_runs_from_its_first_request() {
    let coordinator = Coordinator::start();
    let gang = coordinator.open(1, 0, 4).await;
    assert_eq!(coordinator.advance(10 * HOUR).await, 0, "nobody waits yet");
    let mut waiting = vec![gang.ask(gang.barrier(1, 0)).await];
    assert_eq!(coordinator.advance(40 * MINUTE).await, 0);
    // Neither a later request nor a repeat of the first starts it anew.
    waiting.push(gang.ask(gang.barrier(2, 0)).await);
    waiting.push(gang.ask(gang.barrier(1, 0)).await);
    assert_eq!(coordinator.advance(20 * MINUTE - Duration::from_nanos(1)).await, 0);
    assert_eq!(gang.missing().await.unwrap(), "0, 3");
    assert_eq!(coordinator.advance(Duration::from_nanos(1)).await, 1);
    let error = the_error(waiting).await;
    let text = error.to_string();
    assert!(text.contains("all sync requests for epoch 0 within 3600 second(s)"), "{text}");
    assert!(text.ends_with("missing: partition 0, 3"), "{text}");
    assert_eq!(gang.refused(gang.barrier(0, 0)).await, error, "it opens no round of its own");
    assert_eq!((gang.missing().await, coordinator.armed().await), (None, 0));
}

#[actix::test]
async fn j13_a_refused_request_starts_no_time() {
    let coordinator = Coordinator::start();
    let gang = coordinator.open(1, 0, 2).await;
    gang.refused(gang.barrier(0, 1)).await;
    assert_eq!(coordinator.advance(30 * MINUTE).await, 0);
    let waiting = gang.ask(gang.barrier(0, 0)).await;
    assert_eq!(coordinator.advance(59 * MINUTE).await, 0);
    assert_eq!(gang.missing().await.unwrap(), "1");
    assert_eq!(coordinator.advance(MINUTE).await, 1);
    let error = the_error(vec![waiting]).await;
    assert!(matches!(error, SyncError::Timeout { after: HOUR, .. }), "{error}");
}

#[actix::test]
async fn j14_every_round_has_its_full_time() {
    let coordinator = Coordinator::start();
    let gang = coordinator.open(1, 0, 2).await;
    for epoch in 0..3 {
        let first = gang.ask(gang.gather(0, epoch)).await;
        assert_eq!(coordinator.advance(HOUR - Duration::from_nanos(1)).await, 0);
        let second = gang.ask(gang.gather(1, epoch)).await;
        gang.is_released(vec![first, second], epoch).await;
        assert_eq!(coordinator.armed().await, 0);
    }
    let last = gang.ask(gang.gather(1, 3)).await;
    assert_eq!(coordinator.advance(HOUR - Duration::from_nanos(1)).await, 0);
    assert_eq!(gang.missing().await.unwrap(), "0");
    assert_eq!(coordinator.advance(Duration::from_nanos(1)).await, 1);
    let error = the_error(vec![last]).await;
    assert!(error.to_string().contains("for epoch 3 within 3600 second(s)"), "{error}");
}

#[actix::test]
async fn j14_another_stage_that_syncs_or_ends_does_not_stop_the_time() {
    let coordinator = Coordinator::start();
    let (slow, busy) = (coordinator.open(1, 0, 2).await, coordinator.open(2, 0, 2).await);
    let waiting = slow.ask(slow.barrier(0, 0)).await;
    for epoch in 0..3 {
        coordinator.advance(10 * MINUTE).await;
        busy.round(epoch, [0, 1]).await;
    }
    coordinator.complete(busy.attempt, CloseReason::Succeeded);
    coordinator.advance(30 * MINUTE - Duration::from_nanos(1)).await;
    assert_eq!(slow.missing().await.unwrap(), "1");
    assert_eq!(coordinator.advance(Duration::from_nanos(1)).await, 1);
    let error = the_error(vec![waiting]).await;
    assert!(matches!(error, SyncError::Timeout { .. }), "{error}");
}

#[test]
fn j15_a_timeout_of_nothing_is_refused_where_it_is_read() {
    let key = "barrier.sync.timeout";
    for value in ["0", "0s", "0ms", "-1s", "-1", "", "soon"] {
        let mut config = Config::default();
        let text = config.set(key, value).unwrap_err().to_string();
        assert!(text.contains(key) && text.contains("more than 0"), "{value}: {text}");
        assert_eq!(config, Config::default(), "{value}: nothing was set");
        let variable = ("PHALANX_BARRIER_SYNC_TIMEOUT".to_owned(), value.to_owned());
        let text = config.apply_variables([variable]).unwrap_err().to_string();
        assert!(text.starts_with("PHALANX_BARRIER_SYNC_TIMEOUT"), "{value}: {text}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("phalanx.toml");
    std::fs::write(&file, "[barrier.sync]\ntimeout = '0s'\n").unwrap();
    let text = Config::load(Some(&file)).unwrap_err().to_string();
    assert!(text.contains("phalanx.toml") && text.contains(key), "{text}");
    let mut config = Config::default();
    config.set(key, "1ns").unwrap();
    assert_eq!(config.barrier_sync_timeout, Duration::from_nanos(1));
}

#[test]
fn j15_a_timeout_of_nothing_is_refused_where_it_is_set_in_code() {
    let config = Config { barrier_sync_timeout: Duration::ZERO, ..Config::default() };
    let text = Runtime::start(config).unwrap_err().to_string();
    assert!(text.contains("barrier.sync.timeout"), "{text}");
    let runtime = Runtime::with_slots(1).unwrap();
    let stage = Stage::tasks(1).sync_timeout(Duration::ZERO);
    let text = stage.run(&runtime, async |_| Ok(())).wait().unwrap_err().to_string();
    assert!(text.contains("sync_timeout is 0s, allowed is more than that"), "{text}");
}

//! Attempts and coordinators that end while tasks wait: J10 to J12.

use super::*;
use phalanx::actors::Shutdown;
use phalanx::{Runtime, Stage};
use std::sync::mpsc;

fn reasons() -> [CloseReason; 4] {
    [
        CloseReason::Succeeded,
        CloseReason::Failed("partition 3 failed: disk full".to_owned()),
        CloseReason::Cancelled("no longer needed".to_owned()),
        CloseReason::Shutdown,
    ]
}

#[actix::test]
async fn j10_those_who_wait_when_their_attempt_ends_are_told_so() {
    let coordinator = Coordinator::start();
    for (stage, reason) in (0..).zip(reasons()) {
        let gang = coordinator.open(stage, 0, 4).await;
        let mut waiting = Vec::new();
        for partition in 0..3 {
            waiting.push(gang.ask(gang.barrier(partition, 0)).await);
        }
        assert_eq!((gang.missing().await.unwrap(), coordinator.armed().await), ("3".into(), 2));
        coordinator.complete(gang.attempt, reason.clone());
        let error = the_error(waiting).await;
        assert_eq!(error, SyncError::AttemptClosed { attempt: gang.attempt, reason });
        let text = error.to_string();
        assert!(text.starts_with(&format!("Stage {stage} (Attempt 0) has ended: ")), "{text}");
        assert_eq!((gang.missing().await, coordinator.armed().await), (None, 0));
    }
}

#[actix::test]
async fn j11_a_request_after_the_end_is_answered_at_once_and_leaves_nothing_behind() {
    let mut coordinator = Coordinator::start();
    for (stage, reason) in (0..).zip(reasons()) {
        let gang = coordinator.open(stage, 0, 2).await;
        gang.round(0, [0, 1]).await;
        coordinator.complete(gang.attempt, reason.clone());
        let attempt = gang.attempt;
        let closed = SyncError::AttemptClosed { attempt, reason: reason.clone() };
        for (partition, epoch) in [(0, 0), (0, 1), (1, 1), (1, 7)] {
            let through = gang.refused(gang.gather(partition, epoch)).await;
            assert_eq!(through, SyncError::NotOpen { attempt });
            let straight = gang.child.send(Ask(gang.gather(partition, epoch))).await.unwrap();
            assert_eq!(straight.result.unwrap_err(), closed, "who has its address is told why");
        }
        // The first reason counts.
        coordinator.complete(attempt, CloseReason::Cancelled("later".to_owned()));
        let straight = gang.child.send(Ask(gang.gather(0, 1))).await.unwrap();
        assert_eq!(straight.result.unwrap_err(), closed);
        assert_eq!((gang.missing().await, coordinator.armed().await), (None, 0));
        assert_eq!(coordinator.releases(), [(attempt, 0)]);
    }
}

#[actix::test]
async fn j11_the_end_of_an_attempt_nobody_knows_changes_nothing() {
    let coordinator = Coordinator::start();
    let gang = coordinator.open(1, 1, 2).await;
    let waiting = gang.ask(gang.gather(0, 0)).await;
    for unknown in [attempt(1, 0), attempt(1, 2), attempt(2, 1)] {
        coordinator.complete(unknown, CloseReason::Succeeded);
        let request = RequestToSync { attempt: unknown, ..gang.gather(1, 0) };
        let error = gang.refused(request).await;
        assert_eq!(error, SyncError::NotOpen { attempt: unknown });
    }
    assert_eq!(gang.missing().await.unwrap(), "1");
    let last = gang.ask(gang.gather(1, 0)).await;
    gang.is_released(vec![waiting, last], 0).await;
    // An attempt whose end was told too early can be opened all the same.
    let early = coordinator.open(1, 2, 1).await;
    early.round(0, [0]).await;
}

#[actix::test]
async fn j12_a_coordinator_that_stops_answers_all_who_wait() {
    let coordinator = Coordinator::start();
    let mut waiting = Vec::new();
    let mut gangs = Vec::new();
    for stage in 0..3 {
        let gang = coordinator.open(stage, 0, 2).await;
        waiting.push(gang.ask(gang.barrier(0, 0)).await);
        gangs.push(gang);
    }
    coordinator.addr.do_send(Shutdown);
    for (gang, waiting) in gangs.iter().zip(waiting) {
        let error = the_error(vec![waiting]).await;
        let (attempt, reason) = (gang.attempt, CloseReason::Shutdown);
        assert_eq!(error, SyncError::AttemptClosed { attempt, reason });
        assert_eq!(gang.refused(gang.barrier(1, 0)).await, error, "who comes late is told as well");
    }
    assert_eq!(coordinator.armed().await, 0);
}

#[test]
fn j12_a_runtime_that_shuts_down_answers_all_who_wait() {
    for blocking in [false, true] {
        let runtime = Runtime::with_slots(4).unwrap();
        let (tell, told) = mpsc::channel();
        let stage = Stage::tasks(4);
        let handle = if blocking {
            stage.run_blocking(&runtime, move |ctx| {
                if ctx.rank() == 3 {
                    ctx.wait_killed();
                    return Ok(());
                }
                tell.send(ctx.barrier().unwrap_err().to_string()).unwrap();
                Ok(())
            })
        } else {
            stage.run(&runtime, async move |ctx| {
                if ctx.rank() == 3 {
                    ctx.killed().await;
                    return Ok(());
                }
                tell.send(ctx.barrier().await.unwrap_err().to_string()).unwrap();
                Ok(())
            })
        };
        let all_wait = |missing: Option<phalanx::SyncStatus>| {
            missing.is_some_and(|status| status.missing.to_string() == "3")
        };
        while !all_wait(pollster::block_on(handle.sync_status())) {
            std::thread::yield_now();
        }
        runtime.shutdown_blocking(Duration::from_secs(60)).unwrap();
        for text in told.iter().take(3) {
            assert!(text.ends_with("the runtime shuts down"), "{text}");
        }
        assert_eq!(*handle.wait().unwrap_err().failure(), phalanx::StageFailure::Shutdown);
    }
}

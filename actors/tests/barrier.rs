//! The barrier's actors, alone, as a user's unit test would drive them: real messages, a timer that
//! is cranked by hand.

use actix::prelude::*;
use phalanx_actors::testing::{Advance, GetArmed, InjectPanic, ManualTimer};
use phalanx_actors::{
    Ask, BarrierCoordinatorActor, BarrierLost, ContextBarrierStateActor, EventBus, GetMissing,
    SharedBarrier, Shutdown, Tell,
};
use phalanx_protocol::{
    Arrival, CloseReason, Epoch, LeaveReason, OpenBarrier, PartitionId, Release, RequestToSync,
    StageAttemptId, StageCompleted, StageId, SyncError, SyncMethod, SyncReply, TaskAttemptId,
    TaskLeft,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn attempt(stage: u64) -> StageAttemptId {
    StageAttemptId { stage: StageId(stage), attempt: 0 }
}

fn open(stage: u64, num_tasks: u32) -> OpenBarrier {
    let task_attempts = (0..u64::from(num_tasks)).map(TaskAttemptId).collect();
    OpenBarrier { attempt: attempt(stage), task_attempts, sync_timeout: HOUR }
}

fn request(stage: u64, num_tasks: u32, partition: u32, epoch: u64, text: &str) -> RequestToSync {
    let message = text.to_owned().into();
    let (task_attempt, partition) = (TaskAttemptId(partition.into()), PartitionId(partition));
    RequestToSync {
        attempt: attempt(stage),
        num_tasks,
        epoch: Epoch(epoch),
        method: SyncMethod::AllGather,
        arrivals: vec![Arrival { partition, task_attempt, message }],
    }
}

fn timer() -> Addr<ManualTimer> {
    ManualTimer::default().start()
}

fn barrier(num_tasks: u32, timer: &Addr<ManualTimer>) -> Addr<ContextBarrierStateActor> {
    let timer = timer.clone().recipient();
    ContextBarrierStateActor::new(open(7, num_tasks), SECOND, timer, EventBus::new(8)).start()
}

fn texts(reply: SyncReply) -> Vec<String> {
    let Release { messages, .. } = reply.result.expect("released");
    messages.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
}

#[actix::test]
async fn a_gang_of_three_is_released_together_in_partition_order() {
    let barrier = barrier(3, &timer());
    let ask =
        |partition: u32| barrier.send(Ask(request(7, 3, partition, 0, &partition.to_string())));
    let (two, zero) = (ask(2), ask(0));
    let waiting = tokio::spawn(async move { (two.await.unwrap(), zero.await.unwrap()) });
    while barrier.send(GetMissing).await.unwrap().map(|missing| missing.to_string())
        != Some("1".to_owned())
    {
        tokio::task::yield_now().await;
    }
    let one = ask(1).await.unwrap();
    let (two, zero) = waiting.await.unwrap();
    for reply in [zero, one, two] {
        assert_eq!(texts(reply), ["0", "1", "2"]);
    }
}

#[actix::test]
async fn the_timeout_is_cranked_by_hand_and_names_the_missing() {
    let timer = timer();
    let barrier = barrier(3, &timer);
    let waiting = tokio::spawn(barrier.send(Ask(request(7, 3, 1, 0, ""))));
    while timer.send(GetArmed).await.unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(timer.send(Advance(HOUR - SECOND)).await.unwrap().len(), 1, "the progress note");
    assert!(!waiting.is_finished());
    timer.send(Advance(SECOND)).await.unwrap();
    let error = waiting.await.unwrap().unwrap().result.unwrap_err();
    assert!(matches!(&error, SyncError::Timeout { after, .. } if *after == HOUR), "{error}");
    assert!(error.to_string().ends_with("missing: partition 0, 2"), "{error}");
    let late = barrier.send(Ask(request(7, 3, 0, 0, ""))).await.unwrap();
    assert_eq!(late.result.unwrap_err(), error, "who comes late is told the same");
}

#[actix::test]
async fn a_full_mailbox_loses_nothing_and_reorders_nothing() {
    let num_tasks = 1000;
    let timer = timer().recipient();
    let barrier = ContextBarrierStateActor::create(|ctx| {
        ctx.set_mailbox_capacity(1);
        ContextBarrierStateActor::new(open(7, num_tasks), SECOND, timer, EventBus::new(8))
    });
    let mut waiting = Vec::new();
    let mut refused_by_mailbox = 0;
    for partition in 1..num_tasks {
        let request = request(7, num_tasks, partition, 0, &partition.to_string());
        if barrier.try_send(Ask(request.clone())).is_err() {
            refused_by_mailbox += 1;
        }
        // Whether or not it got in: a repeat is harmless.
        waiting.push(barrier.send(Ask(request)));
    }
    assert!(refused_by_mailbox > 900, "the mailbox was full: {refused_by_mailbox}");
    // Our actors speak by do_send: it passes what waits outside of the full mailbox, not what is
    // in it. The leave of a task that never arrived must fail all who wait, now and later.
    let task_attempt = TaskAttemptId(0);
    let (partition, reason) = (PartitionId(0), LeaveReason::Returned);
    barrier.do_send(Tell(TaskLeft { attempt: attempt(7), partition, task_attempt, reason }));
    for reply in waiting {
        let error = reply.await.unwrap().result.unwrap_err();
        assert!(matches!(error, SyncError::PeerLeft { partition: PartitionId(0), .. }), "{error}");
    }
}

#[actix::test]
async fn requests_and_the_close_behind_them_keep_their_order_in_a_full_mailbox() {
    let (num_tasks, timer) = (64, timer().recipient());
    let barrier = ContextBarrierStateActor::create(|ctx| {
        ctx.set_mailbox_capacity(1);
        ContextBarrierStateActor::new(open(7, num_tasks), SECOND, timer, EventBus::new(64))
    });
    for partition in 0..num_tasks {
        barrier.do_send(Ask(request(7, num_tasks, partition, 0, "")));
    }
    barrier.do_send(Tell(CloseReason::Succeeded));
    let next = barrier.send(Ask(request(7, num_tasks, 0, 1, ""))).await.unwrap();
    let error = next.result.unwrap_err();
    assert!(
        matches!(error, SyncError::AttemptClosed { .. }),
        "epoch 0 was released first: {error}"
    );
    let again = barrier.send(Ask(request(7, num_tasks, 0, 0, ""))).await.unwrap();
    assert!(again.result.is_err());
    assert_eq!(barrier.send(GetMissing).await.unwrap(), None);
}

/// Stands in for the scheduler.
struct Losses(mpsc::UnboundedSender<BarrierLost>);

impl Actor for Losses {
    type Context = Context<Self>;
}

impl Handler<BarrierLost> for Losses {
    type Result = ();

    fn handle(&mut self, lost: BarrierLost, _ctx: &mut Self::Context) {
        self.0.send(lost).unwrap();
    }
}

fn coordinator() -> (Addr<BarrierCoordinatorActor>, mpsc::UnboundedReceiver<BarrierLost>) {
    let (sender, losses) = mpsc::unbounded_channel();
    let scheduler = Losses(sender).start().recipient();
    let timer = timer().recipient();
    let coordinator = BarrierCoordinatorActor::new(SECOND, timer, EventBus::new(8));
    (coordinator.with_scheduler(scheduler).start(), losses)
}

#[actix::test]
async fn a_panic_in_a_child_answers_its_waiters_and_fails_its_attempt_alone() {
    let (coordinator, mut losses) = coordinator();
    let first = coordinator.send(Ask(open(1, 2))).await.unwrap().unwrap();
    coordinator.send(Ask(open(2, 1))).await.unwrap().unwrap();
    let waiting = tokio::spawn(first.send(Ask(request(1, 2, 0, 0, ""))));
    let forwarded = tokio::spawn(coordinator.send(Ask(request(1, 2, 0, 0, ""))));
    while first.send(GetMissing).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(first.send(InjectPanic).await.is_err(), "it did panic");
    for waiting in [waiting, forwarded] {
        let error = waiting.await.unwrap().unwrap().result.unwrap_err();
        assert_eq!(error, SyncError::CoordinatorLost { attempt: attempt(1) });
    }
    assert_eq!(losses.recv().await.unwrap().attempt, attempt(1));
    let late = coordinator.send(Ask(request(1, 2, 1, 0, ""))).await.unwrap();
    assert_eq!(late.result.unwrap_err(), SyncError::NotOpen { attempt: attempt(1) });
    let other = coordinator.send(Ask(request(2, 1, 0, 0, "alone"))).await.unwrap();
    assert_eq!(texts(other), ["alone"], "the other attempt goes on");
    assert!(losses.try_recv().is_err());
}

#[actix::test]
async fn a_panic_in_the_coordinator_answers_all_waiters_and_fails_all_attempts() {
    let (coordinator, mut losses) = coordinator();
    let mut waiting = Vec::new();
    for stage in [1, 2] {
        let child = coordinator.send(Ask(open(stage, 2))).await.unwrap().unwrap();
        waiting.push(tokio::spawn(child.send(Ask(request(stage, 2, 0, 0, "")))));
        while child.send(GetMissing).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    }
    assert!(coordinator.send(InjectPanic).await.is_err(), "it did panic");
    for waiting in waiting {
        let error = waiting.await.unwrap().unwrap().result.unwrap_err();
        assert!(error.to_string().ends_with("the barrier coordinator is gone"), "{error}");
    }
    assert_eq!(losses.recv().await.unwrap().attempt, attempt(1));
    assert_eq!(losses.recv().await.unwrap().attempt, attempt(2));
}

#[actix::test]
async fn shutdown_answers_all_and_opens_nothing_any_more() {
    let (coordinator, mut losses) = coordinator();
    let child = coordinator.send(Ask(open(1, 2))).await.unwrap().unwrap();
    let waiting = tokio::spawn(child.send(Ask(request(1, 2, 0, 0, ""))));
    while child.send(GetMissing).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    coordinator.do_send(Shutdown);
    let error = waiting.await.unwrap().unwrap().result.unwrap_err();
    let closed = SyncError::AttemptClosed { attempt: attempt(1), reason: CloseReason::Shutdown };
    assert_eq!(error, closed);
    let late = coordinator.send(Ask(request(1, 2, 1, 0, ""))).await.unwrap();
    assert_eq!(late.result.unwrap_err(), closed);
    assert!(coordinator.send(Ask(open(3, 2))).await.unwrap().is_none());
    assert!(losses.try_recv().is_err(), "nothing was lost");
}

#[actix::test]
async fn a_completed_attempt_answers_late_callers_as_long_as_they_have_its_address() {
    let (coordinator, _losses) = coordinator();
    let child = coordinator.send(Ask(open(1, 1))).await.unwrap().unwrap();
    assert!(coordinator.send(Ask(open(1, 1))).await.unwrap().is_none(), "it is open already");
    let reason = CloseReason::Cancelled("no longer needed".to_owned());
    coordinator.do_send(Tell(StageCompleted { attempt: attempt(1), reason }));
    let through = coordinator.send(Ask(request(1, 1, 0, 0, ""))).await.unwrap();
    assert_eq!(through.result.unwrap_err(), SyncError::NotOpen { attempt: attempt(1) });
    let straight = child.send(Ask(request(1, 1, 0, 0, ""))).await.unwrap().result.unwrap_err();
    assert!(straight.to_string().ends_with("was cancelled: no longer needed"), "{straight}");
}

#[actix::test]
async fn a_barrier_and_its_actor_are_gone_once_nobody_has_them() {
    let timer = timer();
    let (recipient, events) = (timer.clone().recipient(), EventBus::new(8));
    let shared = Arc::new(SharedBarrier::new(open(7, 2), SECOND, recipient, events));
    let actor = ContextBarrierStateActor::around(shared.clone()).start();
    // A round with its timers, then the end.
    let waiting = tokio::spawn(actor.send(Ask(request(7, 2, 0, 0, ""))));
    while timer.send(GetArmed).await.unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    actor.do_send(Tell(CloseReason::Cancelled("no longer needed".to_owned())));
    let closed = waiting.await.unwrap().unwrap().result.unwrap_err();
    drop(actor);
    let others = || Arc::strong_count(&shared) - 1;
    for _ in 0..10_000 {
        if others() == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(others(), 0, "the actor has ended and let go of its barrier");
    // Who has the barrier itself is still told why: by an actor of another's making, say.
    let again = ContextBarrierStateActor::around(shared.clone()).start();
    let late = again.send(Ask(request(7, 2, 1, 0, ""))).await.unwrap().result.unwrap_err();
    assert_eq!(late, closed);
}

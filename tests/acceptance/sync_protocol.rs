//! The protocol of the syncs, message by message: rows J1 to J15.

mod ended;
mod refused;
mod released;
mod timed;

use actix::prelude::*;
use phalanx::actors::testing::{Advance, GetArmed, ManualTimer};
use phalanx::actors::{
    Ask, BarrierCoordinatorActor, ContextBarrierStateActor, EventBus, EventRecord, GetMissing,
    GetSyncStatus, Tell,
};
use phalanx::protocol::{
    Arrival, CloseReason, OpenBarrier, Release, RequestToSync, StageCompleted, SyncReply, TaskLeft,
};
use phalanx::{Epoch, LeaveReason, PartitionId, StageAttemptId, StageId, SyncError, SyncMethod};
use phalanx::{RuntimeEvent, TaskAttemptId};
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinHandle;

const HOUR: Duration = Duration::from_secs(3600);
/// Real time, after which an answer that never comes is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A coordinator alone, with a timer that is cranked by hand.
struct Coordinator {
    addr: Addr<BarrierCoordinatorActor>,
    timer: Addr<ManualTimer>,
    events: Receiver<EventRecord>,
}

/// One stage attempt at that coordinator; the test plays its tasks.
struct Gang {
    attempt: StageAttemptId,
    num_tasks: u32,
    coordinator: Addr<BarrierCoordinatorActor>,
    child: Addr<ContextBarrierStateActor>,
}

/// A request that was sent and its answer, once there is one.
type Waiting = JoinHandle<SyncReply>;

fn attempt(stage: u64, attempt: u32) -> StageAttemptId {
    StageAttemptId { stage: StageId(stage), attempt }
}

impl Coordinator {
    fn start() -> Self {
        let timer = ManualTimer::default().start();
        let bus = EventBus::new(1024);
        let events = bus.subscribe();
        let actor = BarrierCoordinatorActor::new(1000 * HOUR, timer.clone().recipient(), bus);
        Coordinator { addr: actor.start(), timer, events }
    }

    /// Opens an attempt whose rounds may last an hour.
    async fn open(&self, stage: u64, number: u32, num_tasks: u32) -> Gang {
        let attempt = attempt(stage, number);
        let task_attempts = (0..num_tasks).map(|index| task_attempt(attempt, index)).collect();
        let open = OpenBarrier { attempt, task_attempts, sync_timeout: HOUR };
        let child = self.addr.send(Ask(open)).await.unwrap().expect("it was not open");
        Gang { attempt, num_tasks, coordinator: self.addr.clone(), child }
    }

    /// Lets time pass; returns how many timers fired.
    async fn advance(&self, by: Duration) -> usize {
        self.timer.send(Advance(by)).await.unwrap().len()
    }

    async fn armed(&self) -> usize {
        self.timer.send(GetArmed).await.unwrap().len()
    }

    fn complete(&self, attempt: StageAttemptId, reason: CloseReason) {
        self.addr.do_send(Tell(StageCompleted { attempt, reason }));
    }

    /// The rounds released since the last look.
    fn releases(&mut self) -> Vec<(StageAttemptId, u64)> {
        let mut releases = Vec::new();
        while let Ok(record) = self.events.try_recv() {
            if let RuntimeEvent::RoundReleased { attempt, epoch, .. } = record.event {
                releases.push((attempt, epoch.0));
            }
        }
        releases
    }
}

fn task_attempt(attempt: StageAttemptId, partition: u32) -> TaskAttemptId {
    let base = attempt.stage.0 * 10_000_000 + u64::from(attempt.attempt) * 100_000;
    TaskAttemptId(base + u64::from(partition))
}

impl Gang {
    /// The request of one task, with a message that says whose it is.
    fn request(&self, partition: u32, epoch: u64, method: SyncMethod) -> RequestToSync {
        let message = match method {
            SyncMethod::Barrier => String::new(),
            _ => self.message(partition, epoch),
        };
        RequestToSync {
            attempt: self.attempt,
            num_tasks: self.num_tasks,
            epoch: Epoch(epoch),
            method,
            arrivals: vec![Arrival {
                partition: PartitionId(partition),
                task_attempt: task_attempt(self.attempt, partition),
                message: message.into(),
            }],
        }
    }

    fn gather(&self, partition: u32, epoch: u64) -> RequestToSync {
        self.request(partition, epoch, SyncMethod::AllGather)
    }

    fn barrier(&self, partition: u32, epoch: u64) -> RequestToSync {
        self.request(partition, epoch, SyncMethod::Barrier)
    }

    fn message(&self, partition: u32, epoch: u64) -> String {
        format!("{}: {epoch}: {partition}", self.attempt)
    }

    /// Sends a request through the coordinator. When this returns it has been dealt with.
    async fn ask(&self, request: RequestToSync) -> Waiting {
        let waiting = tokio::spawn({
            let sent = self.coordinator.send(Ask(request));
            async move { sent.await.expect("the coordinator runs") }
        });
        self.missing().await;
        waiting
    }

    async fn refused(&self, request: RequestToSync) -> SyncError {
        let refused = tokio::time::timeout(PATIENCE, self.ask(request).await).await;
        let answer = refused.expect("it waits instead of being refused").unwrap();
        answer.result.expect_err("it was to be refused")
    }

    /// Who the open round waits for; looked at behind everything that was sent before.
    async fn missing(&self) -> Option<String> {
        self.coordinator.send(GetSyncStatus(self.attempt.stage)).await.unwrap();
        self.child.send(GetMissing).await.unwrap().map(|missing| missing.to_string())
    }

    /// One round, with everybody's request in this order.
    async fn round(&self, epoch: u64, order: impl IntoIterator<Item = u32>) {
        let mut waiting = Vec::new();
        for partition in order {
            waiting.push(self.ask(self.gather(partition, epoch)).await);
        }
        assert_eq!(waiting.len(), self.num_tasks as usize);
        self.is_released(waiting, epoch).await;
    }

    /// All of these have the release of this epoch: this gang's messages, in partition order.
    async fn is_released(&self, waiting: Vec<Waiting>, epoch: u64) {
        let expected: Vec<String> =
            (0..self.num_tasks).map(|partition| self.message(partition, epoch)).collect();
        for reply in waiting {
            let SyncReply { attempt, epoch: of, result } = reply.await.unwrap();
            assert_eq!((attempt, of), (self.attempt, Epoch(epoch)));
            assert_eq!(texts(&result.expect("released")), expected);
        }
    }

    /// A task fails: told as its executor would.
    async fn fails(&self, partition: u32, text: &str) {
        let reason = LeaveReason::Failed(phalanx::TaskFailure::Error(text.to_owned()));
        let task_attempt = task_attempt(self.attempt, partition);
        let (attempt, partition) = (self.attempt, PartitionId(partition));
        self.child.do_send(Tell(TaskLeft { attempt, partition, task_attempt, reason }));
        self.missing().await;
    }
}

fn texts(release: &Release) -> Vec<String> {
    release.messages.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
}

/// All of these have the same error.
async fn the_error(waiting: Vec<Waiting>) -> SyncError {
    let mut errors = Vec::new();
    for reply in waiting {
        let reply = tokio::time::timeout(PATIENCE, reply).await.expect("it still waits");
        errors.push(reply.unwrap().result.expect_err("it was to fail"));
    }
    errors.dedup();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

//! An executor's side of its link to the driver.

use super::outbox::Outbox;
use super::remote_barrier::RemoteBarrier;
use super::remote_executor::name_of;
use super::wire::{Message, Payloads};
use crate::run_task::Payload;
use crate::shared_barrier::{ReplyTo, Told, notify};
use crate::task::lock;
use crate::{Report, TaskOutput};
use bytes::Bytes;
use phalanx_protocol::{
    ExecutorId, Incarnation, Messages, PartitionId, StageAttemptId, StillWaiting, SyncReply,
    TaskFailure, TaskOutcome, TaskReport,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::sleep;

/// So long an arrival waits for those of the executor's other tasks. Whom the driver waits for
/// does not depend on it: when the last of them has come, all go at once.
const HOLD: Duration = Duration::from_millis(1);

/// One life of this process's executor, and its link to the driver.
pub struct DriverLink {
    pub(crate) executor: ExecutorId,
    pub(crate) incarnation: Incarnation,
    pub(crate) outbox: Outbox,
    /// Bytes that a result may have.
    max_payload: usize,
    waiting: Mutex<Waiting>,
    /// What tasks have told the driver last, if it has not been sent.
    tells: Mutex<BTreeMap<(StageAttemptId, PartitionId), Bytes>>,
    held: Mutex<Vec<Weak<RemoteBarrier>>>,
    is_held: Notify,
    /// Why this process is about to end, once it is.
    leaving: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    requests: HashMap<u64, Vec<ReplyTo>>,
    calls: HashMap<u64, oneshot::Sender<Payloads>>,
    is_over: bool,
}

/// The link to the driver is gone, and with it the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the link to the driver is lost")]
pub struct LinkLost;

/// The way of a stage's code in an executor to its side in the driver.
#[derive(Clone)]
pub struct StageCalls {
    pub(crate) link: Arc<DriverLink>,
    pub(crate) attempt: StageAttemptId,
}

impl StageCalls {
    /// Asks the stage's side in the driver; what, only the two know. An empty answer says that the
    /// attempt is over, or that the other side panicked.
    ///
    /// # Errors
    /// If the link is or gets lost.
    pub async fn ask(&self, partition: PartitionId, what: &[Bytes]) -> Result<Payloads, LinkLost> {
        let (call, answer) = self.link.expect_answer().ok_or(LinkLost)?;
        let message = Message::Call { call: Some(call), attempt: self.attempt, partition };
        self.link.outbox.send(&message, what);
        answer.await.map_err(|_| LinkLost)
    }

    /// Tells the stage's side in the driver something, soon. Of what a task tells in quick
    /// succession only the last may arrive.
    pub fn tell(&self, partition: PartitionId, what: Bytes) {
        lock(&self.link.tells).insert((self.attempt, partition), what);
        self.link.outbox.flush_soon();
    }
}

impl Waiting {
    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Report for DriverLink {
    /// Straight into the line, so that the leave that follows does not overtake it.
    fn report(&self, mut report: TaskReport, output: Option<TaskOutput>) {
        let value = output.and_then(Result::ok).map(|value: Payload| value.downcast::<Bytes>());
        let value = match value {
            None => Bytes::new(),
            Some(Ok(value)) => *value,
            // Only code registered by name runs here, which returns bytes.
            Some(Err(_)) => {
                let text = "its code returned a value that is no bytes".to_owned();
                report.outcome = TaskOutcome::Failed(TaskFailure::Error(text));
                Bytes::new()
            }
        };
        let (size, limit) = (value.len(), self.max_payload);
        let value = if size > limit {
            let text = format!(
                "its value has {size} bytes, allowed are {limit} (link.max_payload): return less, \
                 or raise the limit"
            );
            report.outcome = TaskOutcome::Failed(TaskFailure::Error(text));
            Bytes::new()
        } else {
            value
        };
        let payloads = match report.outcome {
            TaskOutcome::Succeeded => vec![value],
            TaskOutcome::Failed(_) => Vec::new(),
        };
        // What it told before it ended is heard before.
        self.put_tells();
        self.outbox.put(&Message::Ended { report }, &payloads);
        self.outbox.flush_soon();
    }
}

impl DriverLink {
    pub(crate) fn new(
        (executor, incarnation): (ExecutorId, Incarnation),
        outbox: Outbox,
        max_payload: usize,
    ) -> Arc<Self> {
        Arc::new(DriverLink {
            executor,
            incarnation,
            outbox,
            max_payload,
            waiting: Mutex::default(),
            tells: Mutex::default(),
            held: Mutex::default(),
            is_held: Notify::new(),
            leaving: watch::Sender::new(None),
        })
    }

    /// Puts a message in line.
    pub(crate) fn put(&self, message: &Message, payloads: &[Bytes]) {
        self.outbox.put(message, payloads);
    }

    /// These wait for an answer to the request of the number that is returned. `None`: the link is
    /// over, and they have been told.
    pub(crate) fn expect_reply(&self, reply_to: Vec<ReplyTo>) -> Option<u64> {
        let mut waiting = lock(&self.waiting);
        if waiting.is_over {
            drop(waiting);
            drop(reply_to);
            return None;
        }
        let id = waiting.next_id();
        waiting.requests.insert(id, reply_to);
        Some(id)
    }

    /// A call of a task, and its answer. `None`: the link is over.
    fn expect_answer(&self) -> Option<(u64, oneshot::Receiver<Payloads>)> {
        let (tell, answer) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        if waiting.is_over {
            return None;
        }
        let call = waiting.next_id();
        waiting.calls.insert(call, tell);
        Some((call, answer))
    }

    /// Puts in line what tasks have told the driver.
    pub(crate) fn put_tells(&self) {
        let tells = std::mem::take(&mut *lock(&self.tells));
        for ((attempt, partition), what) in tells {
            self.outbox.put(&Message::Call { call: None, attempt, partition }, &[what]);
        }
    }

    /// Has the barrier send what it has gathered in a moment.
    pub(crate) fn hold(&self, barrier: &Arc<RemoteBarrier>) {
        lock(&self.held).push(Arc::downgrade(barrier));
        self.is_held.notify_one();
    }

    /// Runs beside the connection's task.
    pub(crate) async fn release_held(&self) {
        loop {
            self.is_held.notified().await;
            sleep(HOLD).await;
            let held = std::mem::take(&mut *lock(&self.held));
            for barrier in held.iter().filter_map(Weak::upgrade) {
                barrier.release_held();
            }
            self.outbox.flush();
        }
    }

    /// Takes what is an answer.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn answered(&self, message: Message, payloads: Payloads) -> Result<(), String> {
        match message {
            Message::Reply { requests, mut reply } => {
                if let Ok(release) = &mut reply.result {
                    release.messages = Messages::from(payloads);
                }
                self.reply(&requests, &reply);
            }
            Message::Note { request, note } => self.note(request, &note),
            Message::Answer { call } => {
                let caller = lock(&self.waiting).calls.remove(&call);
                if let Some(caller) = caller {
                    // A caller that went away needs no answer.
                    let _ = caller.send(payloads);
                }
            }
            other => return Err(format!("the driver said {}", name_of(&other))),
        }
        Ok(())
    }

    fn reply(&self, requests: &[u64], reply: &SyncReply) {
        let mut told = Told::new();
        for request in requests {
            let waited = lock(&self.waiting).requests.remove(request);
            for reply_to in waited.into_iter().flatten() {
                told.extend(reply_to.send(reply.clone()));
            }
        }
        notify(told);
    }

    fn note(&self, request: u64, note: &StillWaiting) {
        let waiting = lock(&self.waiting);
        let mut told = Told::new();
        for reply_to in waiting.requests.get(&request).into_iter().flatten() {
            told.extend(reply_to.note(note.clone()));
        }
        drop(waiting);
        notify(told);
    }

    /// This process is about to end: the driver is told, and so is the connection's task.
    pub(crate) fn leave(&self, reason: &str) {
        self.outbox.send_urgent(&Message::Leaving { reason: reason.to_owned() });
        self.leaving.send_replace(Some(reason.to_owned()));
    }

    /// Why this process is about to end, if it is.
    pub(crate) fn is_leaving(&self) -> Option<String> {
        self.leaving.borrow().clone()
    }

    /// Ready once this process is about to end, with why.
    pub(crate) async fn leaving(&self) -> String {
        let mut leaving = self.leaving.subscribe();
        let leaves = leaving.wait_for(Option::is_some).await;
        // The sender is in this very link.
        leaves.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    /// The link is over: whoever waits for an answer learns that there will be none.
    pub(crate) fn end(&self, reason: &str) {
        self.outbox.close(reason);
        let mut waiting = lock(&self.waiting);
        waiting.is_over = true;
        let (requests, calls) =
            (std::mem::take(&mut waiting.requests), std::mem::take(&mut waiting.calls));
        drop(waiting);
        drop((requests, calls));
    }
}

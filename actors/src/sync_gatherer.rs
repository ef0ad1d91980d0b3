//! Gathers the arrivals of one gang on one thread, so that a round costs its barrier one message
//! per thread, not one per task.

use crate::shared_barrier::{ReplyTo, SharedBarrier};
use crate::task::{Task, lock};
use bytes::Bytes;
use phalanx_protocol::{
    BarrierEvent, Epoch, RequestToSync, StageAttemptId, StillWaiting, SyncArrival, SyncError,
    SyncReply, TaskLeft, WithdrawSync,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// The outgoing side, shared by the gang's tasks on one thread. The first arrival wakes the pump,
/// which runs after the tasks that are ready now and sends all that have arrived by then.
pub(crate) struct SyncGatherer {
    outbox: Arc<Mutex<Outbox>>,
    inbox: mpsc::UnboundedSender<Inbox>,
}

#[derive(Default)]
struct Outbox {
    /// In order, so that a leave never overtakes a request.
    items: Vec<Outgoing>,
    flush_requested: bool,
}

enum Outgoing {
    Request { request: RequestToSync, tasks: Vec<Arc<Task>> },
    Withdraw(WithdrawSync),
    Left(TaskLeft),
}

impl Outgoing {
    fn is_worth_sending(&self) -> bool {
        match self {
            Outgoing::Request { request, .. } => !request.arrivals.is_empty(),
            Outgoing::Withdraw(_) | Outgoing::Left(_) => true,
        }
    }
}

enum Inbox {
    Flush,
    Reply { batch: u64, reply: SyncReply },
    Note { batch: u64, note: StillWaiting },
}

/// The way back to the gatherer for one request. Dropped without an answer it says that the
/// coordinator is gone.
pub(crate) struct GathererReply {
    batch: u64,
    attempt: StageAttemptId,
    epoch: Epoch,
    inbox: Option<mpsc::UnboundedSender<Inbox>>,
}

impl GathererReply {
    pub(crate) fn send(mut self, reply: SyncReply) {
        self.answer(reply);
    }

    pub(crate) fn note(&self, note: StillWaiting) {
        if let Some(inbox) = &self.inbox {
            // Closed only if the thread of the tasks is gone, and they with it.
            let _ = inbox.send(Inbox::Note { batch: self.batch, note });
        }
    }

    fn answer(&mut self, reply: SyncReply) {
        if let Some(inbox) = self.inbox.take() {
            // As in `note`.
            let _ = inbox.send(Inbox::Reply { batch: self.batch, reply });
        }
    }
}

impl Drop for GathererReply {
    fn drop(&mut self) {
        let (attempt, epoch) = (self.attempt, self.epoch);
        let result = Err(SyncError::CoordinatorLost { attempt });
        self.answer(SyncReply { attempt, epoch, result });
    }
}

impl SyncGatherer {
    /// A gatherer whose pump runs on this thread until the last task has let go of it.
    pub(crate) fn start(barrier: Arc<SharedBarrier>) -> Arc<Self> {
        let (gatherer, pump) = SyncGatherer::new(barrier);
        actix_rt::spawn(pump);
        gatherer
    }

    /// A gatherer and its pump, which has to run on the tasks' thread.
    pub(crate) fn new(
        barrier: Arc<SharedBarrier>,
    ) -> (Arc<Self>, impl Future<Output = ()> + 'static) {
        let outbox = Arc::new(Mutex::new(Outbox::default()));
        let (inbox, received) = mpsc::unbounded_channel();
        let replies = inbox.downgrade();
        let pump = Pump {
            barrier,
            outbox: outbox.clone(),
            replies,
            batches: HashMap::new(),
            next: 0,
            nothing: Arc::new([]),
        };
        (Arc::new(SyncGatherer { outbox, inbox }), pump.run(received))
    }

    /// A task has arrived.
    pub(crate) fn arrive(&self, arrived: SyncArrival, task: Arc<Task>) {
        let mut outbox = lock(&self.outbox);
        match outbox.items.last_mut() {
            Some(Outgoing::Request { request: last, tasks })
                if (last.epoch, last.method) == (arrived.epoch, arrived.method) =>
            {
                last.arrivals.push(arrived.arrival);
                tasks.push(task);
            }
            Some(_) | None => {
                let request = arrived.into();
                outbox.items.push(Outgoing::Request { request, tasks: vec![task] });
            }
        }
        self.request_flush(&mut outbox);
    }

    /// An arrival that has not been sent yet is taken back here.
    pub(crate) fn withdraw(&self, withdraw: WithdrawSync) {
        let mut outbox = lock(&self.outbox);
        for item in &mut outbox.items {
            if let Outgoing::Request { request, tasks } = item
                && let Some(index) =
                    request.arrivals.iter().position(|it| it.partition == withdraw.partition)
            {
                request.arrivals.remove(index);
                tasks.remove(index);
                outbox.items.retain(Outgoing::is_worth_sending);
                return;
            }
        }
        outbox.items.push(Outgoing::Withdraw(withdraw));
        self.request_flush(&mut outbox);
    }

    pub(crate) fn leave(&self, left: TaskLeft) {
        self.push(Outgoing::Left(left));
    }

    fn push(&self, item: Outgoing) {
        let mut outbox = lock(&self.outbox);
        outbox.items.push(item);
        self.request_flush(&mut outbox);
    }

    fn request_flush(&self, outbox: &mut Outbox) {
        if !outbox.flush_requested {
            outbox.flush_requested = true;
            // Closed only if the pump's thread is gone: whatever is said then, nobody listens.
            let _ = self.inbox.send(Inbox::Flush);
        }
    }
}

struct Pump {
    barrier: Arc<SharedBarrier>,
    outbox: Arc<Mutex<Outbox>>,
    /// Weak, or the pump would keep itself alive.
    replies: mpsc::WeakUnboundedSender<Inbox>,
    /// Who waits, by request sent.
    batches: HashMap<u64, Vec<Arc<Task>>>,
    next: u64,
    /// The messages of a barrier.
    nothing: Arc<[Bytes]>,
}

impl Drop for Pump {
    /// Its thread ends. The tasks that ran there are gone, but a call may have been moved
    /// elsewhere.
    fn drop(&mut self) {
        let batches = std::mem::take(&mut self.batches).into_values().flatten();
        let items = std::mem::take(&mut lock(&self.outbox).items).into_iter();
        let unsent = items.filter_map(|item| match item {
            Outgoing::Request { tasks, .. } => Some(tasks),
            Outgoing::Withdraw(_) | Outgoing::Left(_) => None,
        });
        for task in batches.chain(unsent.flatten()) {
            let (attempt, epoch) = (task.attempt(), task.epoch());
            let result = Err(SyncError::CoordinatorLost { attempt });
            task.reply(SyncReply { attempt, epoch, result });
        }
    }
}

impl Pump {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Inbox>) {
        while let Some(item) = inbox.recv().await {
            match item {
                Inbox::Flush => self.flush(),
                Inbox::Reply { batch, mut reply } => {
                    self.unshare(&mut reply);
                    for task in self.batches.remove(&batch).into_iter().flatten() {
                        task.reply(reply.clone());
                    }
                }
                Inbox::Note { batch, note } => {
                    for task in self.batches.get(&batch).into_iter().flatten() {
                        task.log_waiting(&note);
                    }
                }
            }
        }
    }

    /// Threads that count references to the same nothing would wait for each other.
    fn unshare(&self, reply: &mut SyncReply) {
        if let Ok(release) = &mut reply.result
            && release.messages.is_empty()
        {
            release.messages = self.nothing.clone();
        }
    }

    fn flush(&mut self) {
        let items = {
            let mut outbox = lock(&self.outbox);
            outbox.flush_requested = false;
            std::mem::take(&mut outbox.items)
        };
        for item in items {
            match item {
                Outgoing::Request { request, tasks } => {
                    let (batch, attempt, epoch) = (self.next, request.attempt, request.epoch);
                    self.next += 1;
                    self.batches.insert(batch, tasks);
                    // The tasks in `batches` hold the strong sender.
                    let inbox = self.replies.upgrade();
                    let reply = GathererReply { batch, attempt, epoch, inbox };
                    self.barrier.request(request, ReplyTo::Gatherer(reply));
                }
                Outgoing::Withdraw(withdraw) => {
                    self.barrier.handle(BarrierEvent::WithdrawSync(withdraw));
                }
                Outgoing::Left(left) => self.barrier.handle(BarrierEvent::TaskLeft(left)),
            }
        }
    }
}

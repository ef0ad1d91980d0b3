//! Gathers the arrivals of one gang on one thread, so that a round costs its barrier one message
//! per thread, not one per task.

use crate::gang_barrier::GangBarrier;
use crate::sealed::lock_sealed;
use crate::shared_barrier::{ReplyTo, Told, notify};
use crate::sync_cell::{Answer, PendingCalls, Since, SyncCell, Wakes};
use crate::task::{CallWaker, lock};
use crate::task_group::TaskGroup;
use bytes::Bytes;
use phalanx_protocol::{
    BarrierEvent, CallId, Epoch, RequestToSync, StageAttemptId, StillWaiting, SyncArrival,
    SyncError, SyncMethod, SyncReply, TaskAttemptId, TaskLeft, TaskSync, TaskSyncEffect,
    TaskSyncEffects, TaskSyncEvent, WithdrawSync,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

/// The syncs of the tasks of one group, and their way to the gang's barrier and back.
pub(crate) struct SyncGatherer {
    barrier: GangBarrier,
    state: Mutex<Gathered>,
    /// What the barrier has said, in its order, and nobody has delivered yet.
    inbox: Mutex<Vec<Said>>,
    /// What is being sent: what one thread has taken out is not overtaken by what another takes.
    sending: Mutex<Vec<Outgoing>>,
}

struct Gathered {
    /// By the task's index in the group.
    cells: Vec<SyncCell>,
    outbox: Outbox,
    /// Whom to wake when the lock is gone; empty between uses.
    wakes: Wakes,
    /// Who waits, by request sent, in order.
    batches: VecDeque<(u64, Vec<u32>)>,
    next_batch: u64,
    /// Empty between uses; kept for its room.
    said: Vec<Said>,
}

#[derive(Default)]
struct Outbox {
    /// In order, so that a leave never overtakes a request.
    items: Vec<Outgoing>,
    /// How many arrived together last time: so many may come again.
    last_together: usize,
}

/// Carries out the effects of one task's machine.
struct Shell<'a> {
    task: u32,
    calls: &'a mut PendingCalls,
    outbox: &'a mut Outbox,
    wakes: &'a mut Wakes,
}

/// A call of a task's code, as it is polled.
pub(crate) enum CallStep {
    New { method: SyncMethod, message: Bytes },
    Waiting(CallId),
}

/// What came of it.
pub(crate) enum Polled {
    /// `former`: to be dropped; it is the caller's code.
    Waits { call: CallId, is_something_to_send: bool, former: CallWaker },
    /// `epoch`: the task's next.
    Answered { answer: Answer, epoch: Epoch },
}

enum Outgoing {
    /// `tasks`: whose arrivals these are, by index.
    Request {
        request: RequestToSync,
        tasks: Vec<u32>,
    },
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

enum Said {
    Reply { batch: u64, reply: SyncReply },
    Note { batch: u64, note: StillWaiting },
}

/// The way back to the gatherer for one request. Dropped without an answer it says that the
/// coordinator is gone.
pub(crate) struct GathererReply {
    batch: u64,
    attempt: StageAttemptId,
    epoch: Epoch,
    /// Weak, or a round that never ends would keep the group. `None` once answered.
    group: Option<Weak<TaskGroup>>,
}

impl GathererReply {
    /// Leaves the answer with the group; who is returned has to be notified, best without a lock.
    pub(crate) fn send(mut self, reply: SyncReply) -> Option<Arc<TaskGroup>> {
        self.answer(reply)
    }

    pub(crate) fn note(&self, note: StillWaiting) -> Option<Arc<TaskGroup>> {
        let group = self.group.as_ref().and_then(Weak::upgrade)?;
        group.put(Said::Note { batch: self.batch, note });
        Some(group)
    }

    fn answer(&mut self, reply: SyncReply) -> Option<Arc<TaskGroup>> {
        // Gone only if all of its tasks are.
        let group = self.group.take()?.upgrade()?;
        group.put(Said::Reply { batch: self.batch, reply });
        Some(group)
    }
}

impl Drop for GathererReply {
    fn drop(&mut self) {
        let (attempt, epoch) = (self.attempt, self.epoch);
        let result = Err(SyncError::CoordinatorLost { attempt });
        if let Some(group) = self.answer(SyncReply { attempt, epoch, result }) {
            group.notify();
        }
    }
}

impl TaskGroup {
    fn put(&self, said: Said) {
        if let Some(sync) = &self.sync {
            lock(&sync.inbox).push(said);
        }
    }
}

/// To be logged: one who waits, since when, for whom.
pub(crate) type WaitingNote = (TaskAttemptId, Since, StillWaiting);

impl SyncGatherer {
    pub(crate) fn new(barrier: GangBarrier, machines: impl Iterator<Item = TaskSync>) -> Self {
        let state = Mutex::new(Gathered {
            cells: machines.map(SyncCell::new).collect(),
            outbox: Outbox::default(),
            wakes: Wakes::default(),
            batches: VecDeque::new(),
            next_batch: 0,
            said: Vec::new(),
        });
        SyncGatherer { barrier, state, inbox: Mutex::default(), sending: Mutex::default() }
    }

    pub(crate) fn epoch(&self, task: u32) -> Epoch {
        lock_sealed(&self.state).cells[task as usize].machine.epoch()
    }

    /// Something happens to a task. Whom to wake, and whether there is something to be sent.
    pub(crate) fn handle(&self, task: u32, event: TaskSyncEvent) -> (Wakes, bool) {
        let mut state = lock_sealed(&self.state);
        let (machine, mut shell) = state.task(task);
        machine.handle(event, &mut shell);
        (std::mem::take(&mut state.wakes), !state.outbox.items.is_empty())
    }

    /// A task's code makes a call, or looks whether it has been answered. If not, `waker` is kept
    /// until it is.
    #[inline(always)]
    pub(crate) fn poll(
        &self,
        task: u32,
        step: CallStep,
        mut waker: CallWaker,
        since: Option<&Since>,
    ) -> Polled {
        let mut state = lock_sealed(&self.state);
        let (machine, mut shell) = state.task(task);
        let call = match step {
            CallStep::Waiting(call) => call,
            CallStep::New { method, message } => {
                let call = shell.calls.begin(since);
                machine.call(call, method, message, &mut shell);
                call
            }
        };
        let Some(answer) = shell.calls.take_or_wait(call, &mut waker) else {
            let is_something_to_send = !shell.outbox.items.is_empty();
            return Polled::Waits { call, is_something_to_send, former: waker };
        };
        machine.taken(call);
        let epoch = machine.epoch();
        drop(state);
        // It is the caller's code.
        drop(waker);
        Polled::Answered { answer, epoch }
    }

    /// Whether a request waits for its answer.
    pub(crate) fn waits(&self) -> bool {
        !lock_sealed(&self.state).batches.is_empty()
    }

    /// A call that has not been answered is dropped. True if there is something to be sent.
    pub(crate) fn drop_call(&self, task: u32, call: CallId) -> bool {
        let mut state = lock_sealed(&self.state);
        let (machine, mut shell) = state.task(task);
        let waker = shell.calls.remove(call);
        machine.handle(TaskSyncEvent::Dropped(call), &mut shell);
        let is_something = !state.outbox.items.is_empty();
        drop(state);
        // It is the caller's code.
        drop(waker);
        is_something
    }

    /// Sends what the tasks have to say. The answers come to `group`, whose gatherer this is.
    pub(crate) fn flush(&self, group: &Arc<TaskGroup>) {
        let mut told = Told::new();
        let mut sending = lock_sealed(&self.sending);
        let mut batch = lock_sealed(&self.state).take_outgoing(&mut sending);
        for item in sending.drain(..) {
            match item {
                Outgoing::Request { request, .. } => {
                    let (attempt, epoch) = (request.attempt, request.epoch);
                    let group = Some(Arc::downgrade(group));
                    let reply = GathererReply { batch, attempt, epoch, group };
                    self.barrier.request(request, ReplyTo::Gatherer(reply), &mut told);
                    batch += 1;
                }
                Outgoing::Withdraw(withdraw) => {
                    self.barrier.take(BarrierEvent::WithdrawSync(withdraw), &mut told);
                }
                Outgoing::Left(left) => {
                    self.barrier.take(BarrierEvent::TaskLeft(left), &mut told);
                }
            }
        }
        drop(sending);
        notify(told);
    }

    /// Gives the barrier's answers to the tasks.
    pub(crate) fn deliver(&self, wakes: &mut Wakes) -> Vec<WaitingNote> {
        let mut notes = Vec::new();
        let mut state = lock_sealed(&self.state);
        std::mem::swap(&mut state.wakes, wakes);
        let mut said = std::mem::take(&mut state.said);
        std::mem::swap(&mut said, &mut *lock(&self.inbox));
        for item in said.drain(..) {
            match item {
                Said::Reply { batch, reply } => {
                    let batch = state.batch(batch).and_then(|index| state.batches.remove(index));
                    for task in batch.into_iter().flat_map(|(_, tasks)| tasks) {
                        let (machine, mut shell) = state.task(task);
                        machine.reply(&reply, &mut shell);
                    }
                }
                Said::Note { batch, note } => {
                    let batch = state.batch(batch).map(|index| &state.batches[index].1);
                    for &task in batch.into_iter().flatten() {
                        let cell = &state.cells[task as usize];
                        let since = cell.calls.since();
                        notes.extend(
                            since.map(|since| (cell.machine.task_attempt(), since, note.clone())),
                        );
                    }
                }
            }
        }
        state.said = said;
        std::mem::swap(&mut state.wakes, wakes);
        // One who called again and again waits in several requests.
        notes.sort_by_key(|(task_attempt, ..): &WaitingNote| *task_attempt);
        notes.dedup_by_key(|(task_attempt, ..)| *task_attempt);
        notes
    }
}

impl Gathered {
    /// A task's machine, and who does what it says.
    #[inline(always)]
    fn task(&mut self, task: u32) -> (&mut TaskSync, Shell<'_>) {
        let Gathered { cells, outbox, wakes, .. } = self;
        let SyncCell { machine, calls } = &mut cells[task as usize];
        (machine, Shell { task, calls, outbox, wakes })
    }

    fn batch(&self, batch: u64) -> Option<usize> {
        self.batches.binary_search_by_key(&batch, |(batch, _)| *batch).ok()
    }

    /// Gives what is to be sent into the empty `sending`, whose requests are batches from the
    /// number on that is returned.
    fn take_outgoing(&mut self, sending: &mut Vec<Outgoing>) -> u64 {
        let first_batch = self.next_batch;
        std::mem::swap(sending, &mut self.outbox.items);
        for item in sending {
            if let Outgoing::Request { tasks, .. } = item {
                self.outbox.last_together = tasks.len();
                self.batches.push_back((self.next_batch, std::mem::take(tasks)));
                self.next_batch += 1;
            }
        }
        first_batch
    }
}

impl TaskSyncEffects for Shell<'_> {
    #[inline(always)]
    fn push(&mut self, effect: TaskSyncEffect) {
        match effect {
            TaskSyncEffect::Arrive(arrival) => self.outbox.arrive(arrival, self.task),
            TaskSyncEffect::Withdraw(withdraw) => self.outbox.withdraw(withdraw),
            TaskSyncEffect::Leave(left) => self.outbox.items.push(Outgoing::Left(left)),
            TaskSyncEffect::Complete { calls, result } => {
                self.calls.complete(self.task, &calls, result, self.wakes);
            }
        }
    }
}

impl Outbox {
    #[inline]
    fn arrive(&mut self, arrived: SyncArrival, task: u32) {
        match self.items.last_mut() {
            Some(Outgoing::Request { request: last, tasks })
                if (last.epoch, last.method) == (arrived.epoch, arrived.method) =>
            {
                last.arrivals.push(arrived.arrival);
                tasks.push(task);
            }
            Some(_) | None => {
                let SyncArrival { attempt, num_tasks, epoch, method, arrival } = arrived;
                let together = self.last_together.max(1);
                let (mut arrivals, mut tasks) =
                    (Vec::with_capacity(together), Vec::with_capacity(together));
                arrivals.push(arrival);
                tasks.push(task);
                let request = RequestToSync { attempt, num_tasks, epoch, method, arrivals };
                self.items.push(Outgoing::Request { request, tasks });
            }
        }
    }

    /// An arrival that has not been sent yet is taken back here.
    fn withdraw(&mut self, withdraw: WithdrawSync) {
        for item in &mut self.items {
            if let Outgoing::Request { request, tasks } = item
                && request.epoch == withdraw.epoch
                && let Some(index) =
                    request.arrivals.iter().position(|it| it.partition == withdraw.partition)
            {
                request.arrivals.remove(index);
                tasks.remove(index);
                self.items.retain(Outgoing::is_worth_sending);
                return;
            }
        }
        self.items.push(Outgoing::Withdraw(withdraw));
    }
}

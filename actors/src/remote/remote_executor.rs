//! The driver's side of one executor in another process.

use super::outbox::Outbox;
use super::wire::{Message, Payloads};
use crate::gang_barrier::GangBarrier;
use crate::sealed::lock_sealed;
use crate::shared_barrier::{Answered, ReplyTo, SharedBarrier, Told, notify};
use crate::task::lock;
use crate::{
    ExecutorLost, LaunchOnExecutor, NamedBody, RetireExecutor, SchedulerLink, TaskBody, Tell,
};
use actix::prelude::*;
use bytes::Bytes;
use phalanx_protocol::{
    BarrierEvent, Epoch, ExecutorId, Incarnation, KillTask, LaunchTasks, Messages, PartitionId,
    RequestToSync, StageAttemptId, StillWaiting, SyncError, SyncReply, TaskAttemptId, TaskFailure,
    TaskOutcome, TaskReport,
};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use tokio::task;
use tracing::error;

/// One life of an executor in another process, as the driver has it. Its connection's task gives
/// it what arrives; nothing is taken from it once that has ended.
pub(crate) struct RemoteExecutor {
    pub(crate) executor: ExecutorId,
    pub(crate) incarnation: Incarnation,
    pub(crate) outbox: Outbox,
    scheduler: SchedulerLink,
    attempts: Mutex<HashMap<StageAttemptId, RemoteAttempt>>,
    /// Answers that have not been put in line. All of this executor's requests of a round are
    /// answered in one message, so that its payloads go once.
    answers: Mutex<Vec<(Vec<u64>, SyncReply)>>,
    is_removed: AtomicBool,
}

/// What runs of an attempt on this executor.
struct RemoteAttempt {
    body: Arc<NamedBody>,
    /// `None` in a plain stage.
    barrier: Option<Arc<SharedBarrier>>,
    /// Tasks whose end has not been reported.
    running: HashSet<TaskAttemptId>,
    /// Tasks that may still sync.
    syncing: HashSet<TaskAttemptId>,
}

/// The way back to an executor for one request. Dropped without an answer it says that the
/// coordinator is gone.
pub(crate) struct RemoteReply {
    request: u64,
    attempt: StageAttemptId,
    epoch: Epoch,
    /// Weak: a round may outlast the connection. `None` once answered.
    executor: Option<Weak<RemoteExecutor>>,
}

impl RemoteReply {
    /// Leaves the answer with the connection; who is returned has to be notified, best without a
    /// lock.
    pub(crate) fn send(mut self, reply: SyncReply) -> Option<Answered> {
        self.answer(reply).map(Answered::Executor)
    }

    pub(crate) fn note(&self, note: StillWaiting) {
        if let Some(executor) = self.executor.as_ref().and_then(Weak::upgrade) {
            executor.outbox.put(&Message::Note { request: self.request, note }, &[]);
            executor.outbox.flush_soon();
        }
    }

    fn answer(&mut self, reply: SyncReply) -> Option<Arc<RemoteExecutor>> {
        let executor = self.executor.take()?.upgrade()?;
        let mut answers = lock_sealed(&executor.answers);
        let is_same = |last: &SyncReply| {
            (last.attempt, last.epoch) == (reply.attempt, reply.epoch)
                && last.result.is_ok()
                && reply.result.is_ok()
        };
        match answers.last_mut() {
            Some((requests, last)) if is_same(last) => requests.push(self.request),
            Some(_) | None => answers.push((vec![self.request], reply)),
        }
        drop(answers);
        Some(executor)
    }
}

impl Drop for RemoteReply {
    fn drop(&mut self) {
        let (attempt, epoch) = (self.attempt, self.epoch);
        let result = Err(SyncError::CoordinatorLost { attempt });
        if let Some(executor) = self.answer(SyncReply { attempt, epoch, result }) {
            executor.answer_all();
        }
    }
}

impl RemoteExecutor {
    pub(crate) fn new(
        executor: ExecutorId,
        incarnation: Incarnation,
        outbox: Outbox,
        scheduler: SchedulerLink,
    ) -> Arc<Self> {
        Arc::new(RemoteExecutor {
            executor,
            incarnation,
            outbox,
            scheduler,
            attempts: Mutex::default(),
            answers: Mutex::default(),
            is_removed: AtomicBool::new(false),
        })
    }

    /// Whether the user took it away for good.
    pub(crate) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::SeqCst)
    }

    /// Sends the answers that its barriers have left.
    pub(crate) fn answer_all(&self) {
        // Held until they are in line: one round's answer does not overtake another's.
        let mut answers = lock_sealed(&self.answers);
        for (requests, mut reply) in answers.drain(..) {
            let messages = match &mut reply.result {
                Ok(release) => std::mem::take(&mut release.messages),
                Err(_) => Messages::default(),
            };
            self.outbox.put(&Message::Reply { requests, reply }, &messages);
        }
        drop(answers);
        self.outbox.flush();
    }

    fn launch(&self, message: LaunchOnExecutor) {
        let LaunchOnExecutor { launch, name, body, barrier } = message;
        let barrier = barrier.and_then(|barrier| match barrier {
            GangBarrier::Here(barrier) => Some(barrier),
            // An executor has no executors of its own.
            GangBarrier::AtDriver(_) => None,
        });
        let body = match body {
            TaskBody::Named(body) => body,
            TaskBody::Async(_) | TaskBody::Blocking(_) => return self.refuse(&launch),
        };
        let tasks: HashSet<_> = launch.tasks.iter().map(|task| task.task_attempt).collect();
        let input = |partition: PartitionId| body.inputs.get(partition.0 as usize).cloned();
        let inputs = launch.tasks.iter().filter_map(|task| input(task.partition));
        let payloads: Payloads = std::iter::once(body.settings.clone()).chain(inputs).collect();
        let is_gang = barrier.is_some();
        let syncing = if is_gang { tasks.clone() } else { HashSet::new() };
        let attempt = launch.attempt;
        let code = body.code.clone();
        let mut attempts = lock(&self.attempts);
        // A plain stage's tasks come in several launches.
        let known = attempts.entry(attempt).or_insert_with(|| RemoteAttempt {
            body,
            barrier,
            running: HashSet::new(),
            syncing: HashSet::new(),
        });
        known.running.extend(tasks);
        known.syncing.extend(syncing);
        drop(attempts);
        let launch = Message::Launch { launch, stage_name: name.to_string(), code, is_gang };
        self.outbox.send(&launch, &payloads);
    }

    /// A closure cannot be sent to another process.
    fn refuse(&self, launch: &LaunchTasks) {
        let text = "its code is a closure, which cannot run in another process: register it by \
                    name and use Stage::named";
        for task in &launch.tasks {
            let report = TaskReport {
                executor: self.executor,
                incarnation: self.incarnation,
                attempt: launch.attempt,
                partition: task.partition,
                task_attempt: task.task_attempt,
                outcome: TaskOutcome::Failed(TaskFailure::Error(text.to_owned())),
            };
            self.scheduler.ended.report(report, None);
        }
    }

    /// Takes what has arrived.
    ///
    /// # Errors
    /// If an executor does not say such things.
    pub(crate) fn receive(
        self: &Arc<Self>,
        message: Message,
        mut payloads: Payloads,
    ) -> Result<(), String> {
        let mut told = Told::new();
        match message {
            Message::Request { id, mut request } => {
                if payloads.len() != request.arrivals.len() {
                    return Err("sent a request without its messages".to_owned());
                }
                for (arrival, message) in request.arrivals.iter_mut().zip(payloads) {
                    arrival.message = message;
                }
                self.request(id, request, &mut told);
            }
            Message::Withdraw(withdraw) => {
                if let Some(barrier) = self.barrier(withdraw.attempt) {
                    barrier.take(BarrierEvent::WithdrawSync(withdraw), &mut told);
                }
            }
            Message::Left(left) => {
                let (attempt, task) = (left.attempt, left.task_attempt);
                if let Some(barrier) = self.barrier(attempt) {
                    barrier.take(BarrierEvent::TaskLeft(left), &mut told);
                }
                self.over(attempt, |known| known.syncing.remove(&task));
            }
            Message::Ended { report } => self.ended(report, payloads.pop()),
            Message::Call { call, attempt, partition } => {
                self.call(call, attempt, partition, payloads);
            }
            Message::Heartbeat => {}
            other => return Err(format!("said what no executor says: {}", name_of(&other))),
        }
        notify(told);
        Ok(())
    }

    fn request(self: &Arc<Self>, id: u64, request: RequestToSync, told: &mut Told) {
        let (attempt, epoch) = (request.attempt, request.epoch);
        let reply =
            RemoteReply { request: id, attempt, epoch, executor: Some(Arc::downgrade(self)) };
        match self.barrier(attempt) {
            Some(barrier) => barrier.request(request, ReplyTo::Remote(reply), told),
            None => {
                let result = Err(SyncError::NotOpen { attempt });
                told.extend(reply.send(SyncReply { attempt, epoch, result }));
            }
        }
    }

    fn barrier(&self, attempt: StageAttemptId) -> Option<Arc<SharedBarrier>> {
        lock(&self.attempts).get(&attempt)?.barrier.clone()
    }

    fn ended(&self, mut report: TaskReport, value: Option<Bytes>) {
        (report.executor, report.incarnation) = (self.executor, self.incarnation);
        let output = match &report.outcome {
            TaskOutcome::Succeeded => Some(Ok(Box::new(value.unwrap_or_default()) as _)),
            TaskOutcome::Failed(TaskFailure::Error(text)) => Some(Err(text.as_str().into())),
            TaskOutcome::Failed(_) => None,
        };
        let (attempt, task) = (report.attempt, report.task_attempt);
        self.scheduler.ended.report(report, output);
        self.over(attempt, |known| known.running.remove(&task));
    }

    /// Something of the attempt is over here, perhaps all of it.
    fn over(&self, attempt: StageAttemptId, end: impl FnOnce(&mut RemoteAttempt) -> bool) {
        let mut attempts = lock(&self.attempts);
        let Some(known) = attempts.get_mut(&attempt) else { return };
        end(known);
        if known.running.is_empty() && known.syncing.is_empty() {
            let over = attempts.remove(&attempt);
            drop(attempts);
            // Its inputs may be large, and its code is the user's.
            drop(over);
        }
    }

    /// A task's call to its stage's side in this process, which may write files.
    fn call(
        self: &Arc<Self>,
        call: Option<u64>,
        attempt: StageAttemptId,
        partition: PartitionId,
        asked: Payloads,
    ) {
        let body = lock(&self.attempts).get(&attempt).map(|known| known.body.clone());
        // Nothing is an answer, too: who asked is not left waiting.
        let serve = move || body.and_then(|body| answer_of(&body, attempt, partition, asked));
        let Some(call) = call else {
            // In order, and short: nobody waits for it, so it writes no file.
            drop(serve());
            return;
        };
        let executor = self.clone();
        task::spawn_blocking(move || {
            let answer = serve().unwrap_or_default();
            executor.outbox.send(&Message::Answer { call }, &answer);
        });
    }
}

/// What a stage's side says to a call; `None` if it panics, as a user's checkpoint store may.
fn answer_of(
    body: &NamedBody,
    attempt: StageAttemptId,
    partition: PartitionId,
    asked: Payloads,
) -> Option<Payloads> {
    match catch_unwind(AssertUnwindSafe(|| (body.serve)(attempt, partition, &asked))) {
        Ok(answer) => Some(answer),
        Err(panic) => {
            error!(%attempt, %partition, "a call of partition {partition} of {attempt} panicked");
            // Dropping it might panic again.
            std::mem::forget(panic);
            None
        }
    }
}

/// The first word of its `Debug`.
pub(crate) fn name_of(message: &Message) -> String {
    let text = format!("{message:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// The mailbox of a [`RemoteExecutor`], for the scheduler: the same messages as an
/// [`ExecutorActor`](crate::ExecutorActor)'s.
pub(crate) struct RemoteExecutorActor(pub(crate) Arc<RemoteExecutor>);

/// The connection has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Disconnected {
    pub(crate) reason: String,
}

impl Actor for RemoteExecutorActor {
    type Context = Context<Self>;
}

impl Handler<LaunchOnExecutor> for RemoteExecutorActor {
    type Result = ();

    fn handle(&mut self, message: LaunchOnExecutor, _ctx: &mut Self::Context) {
        self.0.launch(message);
    }
}

impl Handler<Tell<KillTask>> for RemoteExecutorActor {
    type Result = ();

    fn handle(&mut self, Tell(kill): Tell<KillTask>, _ctx: &mut Self::Context) {
        let KillTask { tasks, reason } = kill;
        for tasks in tasks.chunks(KILLED_TOGETHER_MAX) {
            let kill = KillTask { tasks: tasks.to_vec(), reason: reason.clone() };
            self.0.outbox.send_urgent(&Message::Kill(kill));
        }
    }
}

impl Handler<RetireExecutor> for RemoteExecutorActor {
    type Result = ();

    fn handle(&mut self, retire: RetireExecutor, _ctx: &mut Self::Context) {
        self.0.is_removed.store(!retire.comes_back, Ordering::SeqCst);
        let goodbye = Message::Goodbye { reason: RETIRED.to_owned(), is_done: !retire.comes_back };
        self.0.outbox.send_urgent(&goodbye);
        self.0.outbox.flush();
        // After the goodbye has been written, as far as it could be.
        self.0.outbox.close(RETIRED);
    }
}

/// An urgent message has a size that is not much.
const KILLED_TOGETHER_MAX: usize = 10_000;

const RETIRED: &str = "the driver has given this executor up";

impl Handler<Disconnected> for RemoteExecutorActor {
    type Result = ();

    fn handle(&mut self, Disconnected { reason }: Disconnected, ctx: &mut Self::Context) {
        let RemoteExecutor { executor, incarnation, ref scheduler, .. } = *self.0;
        scheduler.lost.do_send(ExecutorLost { executor, incarnation, reason });
        ctx.stop();
    }
}

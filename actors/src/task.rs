//! One running task attempt, as its own code sees it.

mod sync_call;

use crate::sync_gatherer::SyncGatherer;
use bytes::Bytes;
use phalanx_protocol::{
    Addresses, CallId, Epoch, ExecutorId, LaunchTask, LaunchTasks, LeaveReason, PartitionId,
    Release, StageAttemptId, StillWaiting, SyncError, SyncMethod, SyncReply, TaskAttemptId,
    TaskInfo, TaskOutcome, TaskSync, TaskSyncEffect, TaskSyncEvent,
};
use std::borrow::Cow;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::SystemTime;
pub use sync_call::SyncCall;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, trace};

/// A running task: who it is, how it syncs, whether it was killed.
pub struct Task {
    attempt: StageAttemptId,
    num_tasks: u32,
    name: Arc<str>,
    executor: ExecutorId,
    launch: LaunchTask,
    task_infos: Arc<[TaskInfo]>,
    killed: CancellationToken,
    kill_reason: OnceLock<Cow<'static, str>>,
    /// Whether its code has begun, or never will.
    begun: AtomicBool,
    completion: Mutex<Completion>,
    /// `None` in a plain stage.
    sync: Option<SyncPart>,
}

/// How the task ended, or who is to be told then.
enum Completion {
    Open(Vec<CompletionListener>),
    Ended(TaskOutcome),
}

type CompletionListener = Box<dyn FnOnce(&TaskOutcome) + Send>;

struct SyncPart {
    gatherer: Arc<SyncGatherer>,
    cell: Mutex<SyncCell>,
}

struct SyncCell {
    machine: TaskSync,
    calls: Vec<PendingCall>,
    next_call: u64,
}

struct PendingCall {
    id: CallId,
    /// Only if somebody reads the log.
    since: Option<(SystemTime, Instant)>,
    waker: Option<Waker>,
    result: Option<Result<Release, SyncError>>,
}

thread_local! {
    // Empty between uses; kept for their room, so that a sync allocates none. A call that is
    // dropped while its thread ends may come too late for them.
    static EFFECTS: Cell<Vec<TaskSyncEffect>> = const { Cell::new(Vec::new()) };
    static WOKEN: Cell<Vec<Waker>> = const { Cell::new(Vec::new()) };
}

/// Locks a mutex whose holders do not panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Task {
    pub(crate) fn new(
        launch: &LaunchTasks,
        name: &Arc<str>,
        task: LaunchTask,
        executor: ExecutorId,
        gatherer: Option<Arc<SyncGatherer>>,
    ) -> Arc<Self> {
        let LaunchTasks { attempt, num_tasks, ref task_infos, .. } = *launch;
        let machine = TaskSync::new(attempt, num_tasks, task.partition, task.task_attempt);
        let cell = Mutex::new(SyncCell { machine, calls: Vec::new(), next_call: 0 });
        Arc::new(Task {
            attempt,
            num_tasks,
            name: name.clone(),
            executor,
            launch: task,
            task_infos: task_infos.clone(),
            killed: CancellationToken::new(),
            kill_reason: OnceLock::new(),
            begun: AtomicBool::new(false),
            completion: Mutex::new(Completion::Open(Vec::new())),
            sync: gatherer.map(|gatherer| SyncPart { gatherer, cell }),
        })
    }

    /// The stage attempt it belongs to.
    pub fn attempt(&self) -> StageAttemptId {
        self.attempt
    }

    /// The stage's name.
    pub fn stage_name(&self) -> &Arc<str> {
        &self.name
    }

    /// World size.
    pub fn num_tasks(&self) -> u32 {
        self.num_tasks
    }

    /// Its rank.
    pub fn partition(&self) -> PartitionId {
        self.launch.partition
    }

    /// Its attempt id.
    pub fn task_attempt(&self) -> TaskAttemptId {
        self.launch.task_attempt
    }

    /// Where it runs.
    pub fn executor(&self) -> ExecutorId {
        self.executor
    }

    /// Cpus it was given.
    pub fn cpus(&self) -> u32 {
        self.launch.cpus
    }

    /// Named resources it was given.
    pub fn addresses(&self) -> &Addresses {
        &self.launch.addresses
    }

    /// Where all tasks of the gang run, by partition; empty in a plain stage.
    pub fn task_infos(&self) -> &[TaskInfo] {
        &self.task_infos
    }

    /// The epoch of its current or next sync; 0 in a plain stage.
    pub fn epoch(&self) -> Epoch {
        self.sync.as_ref().map_or(Epoch(0), |sync| lock(&sync.cell).machine.epoch())
    }

    /// Cancelled when the task is killed, and when it has ended.
    pub fn killed(&self) -> &CancellationToken {
        &self.killed
    }

    /// Why it was killed, if it was.
    pub fn kill_reason(&self) -> Option<&str> {
        self.kill_reason.get().map(Cow::as_ref)
    }

    /// Has `listener` called with the outcome, once, when the task's code has ended; at once if it
    /// has. A listener's panic is logged and changes nothing.
    pub fn on_completion(&self, listener: impl FnOnce(&TaskOutcome) + Send + 'static) {
        let outcome = match &mut *lock(&self.completion) {
            Completion::Open(listeners) => {
                listeners.push(Box::new(listener));
                return;
            }
            Completion::Ended(outcome) => outcome.clone(),
        };
        self.call(Box::new(listener), &outcome);
    }

    /// Arrives at the gang's next sync with `message`; resolves with the release.
    pub fn sync(
        self: &Arc<Self>,
        method: SyncMethod,
        message: Bytes,
        caller: &'static Location<'static>,
    ) -> SyncCall {
        SyncCall::new(self.clone(), method, message, caller)
    }

    /// Asks the task to end: its waits end now, its code sees it when it looks. The first reason
    /// counts.
    pub(crate) fn kill(self: &Arc<Self>, reason: &str) {
        if self.kill_reason.set(reason.to_owned().into()).is_ok() {
            self.handle(TaskSyncEvent::Kill { reason: reason.to_owned() });
            self.killed.cancel();
        }
    }

    /// The task has ended: its calls fail, and what waits for a kill need not wait any more.
    pub(crate) fn ended(self: &Arc<Self>, reason: LeaveReason) {
        self.handle(TaskSyncEvent::Ended(reason));
        // Its syncs have ended; what else waits for a kill need not wait any more.
        if self.kill_reason.set("its task has ended".into()).is_ok() {
            self.killed.cancel();
        }
    }

    /// Whether the task's code may begin; true for the first who asks.
    pub(crate) fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::SeqCst)
    }

    /// Books the outcome and calls the listeners. False if that was done before.
    pub(crate) fn complete(&self, outcome: &TaskOutcome) -> bool {
        let listeners = {
            let mut completion = lock(&self.completion);
            match &mut *completion {
                Completion::Ended(_) => return false,
                Completion::Open(listeners) => {
                    let listeners = std::mem::take(listeners);
                    *completion = Completion::Ended(outcome.clone());
                    listeners
                }
            }
        };
        for listener in listeners {
            self.call(listener, outcome);
        }
        true
    }

    fn call(&self, listener: CompletionListener, outcome: &TaskOutcome) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| listener(outcome))) {
            // Dropping it might panic again.
            std::mem::forget(panic);
            error!(attempt = %self.attempt, partition = %self.partition(),
                "a completion listener panicked");
        }
    }

    pub(crate) fn reply(self: &Arc<Self>, reply: SyncReply) {
        self.handle(TaskSyncEvent::Reply(reply));
    }

    /// The line that tells, once in a while, that and for whom the task waits.
    pub(crate) fn log_waiting(&self, note: &StillWaiting) {
        let Some(sync) = &self.sync else { return };
        let since = lock(&sync.cell).calls.first().and_then(|call| call.since);
        let Some((since, start)) = since else { return };
        let (waited, missing) = (start.elapsed().as_secs(), &note.missing);
        let StageAttemptId { stage, attempt } = self.attempt;
        info!(
            task_attempt = %self.task_attempt(), %stage, attempt, epoch = %note.epoch,
            waited_s = waited, %missing,
            "Task {} from Stage {stage}(Attempt {attempt}) waiting under the global sync since {}, \
             has been waiting for {waited} seconds, current barrier epoch is {}, \
             missing partitions: {missing}.",
            self.task_attempt(), humantime::format_rfc3339_seconds(since), note.epoch,
        );
    }

    fn handle(self: &Arc<Self>, event: TaskSyncEvent) {
        let Some(sync) = &self.sync else { return };
        let mut woken = WOKEN.try_with(Cell::take).unwrap_or_default();
        let mut cell = lock(&sync.cell);
        self.run(event, sync, &mut cell, &mut woken);
        drop(cell);
        wake(woken);
    }

    /// Hands the event to the machine and carries out its effects; adds who is to be woken once
    /// the lock is gone.
    fn run(
        self: &Arc<Self>,
        event: TaskSyncEvent,
        sync: &SyncPart,
        cell: &mut SyncCell,
        woken: &mut Vec<Waker>,
    ) {
        let mut effects = EFFECTS.try_with(Cell::take).unwrap_or_default();
        cell.machine.handle(event, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                TaskSyncEffect::Arrive(arrival) => sync.gatherer.arrive(arrival, self.clone()),
                TaskSyncEffect::Withdraw(withdraw) => sync.gatherer.withdraw(withdraw),
                TaskSyncEffect::Leave(left) => sync.gatherer.leave(left),
                TaskSyncEffect::Complete { calls, result } => {
                    let mut left = calls.len();
                    let mut result = Some(result);
                    for call in cell.calls.iter_mut().filter(|call| calls.contains(&call.id)) {
                        left -= 1;
                        // The last has it, so that one call copies nothing.
                        call.result = if left == 0 { result.take() } else { result.clone() };
                        woken.extend(call.waker.take());
                    }
                }
            }
        }
        let _ = EFFECTS.try_with(|room| room.set(effects));
    }

    fn log_entered(&self, epoch: Epoch, caller: &Location<'_>) {
        let StageAttemptId { stage, attempt } = self.attempt;
        info!(
            task_attempt = %self.task_attempt(), %stage, attempt, %epoch,
            "Task {} from Stage {stage}(Attempt {attempt}) has entered the global sync, \
             current barrier epoch is {epoch}.",
            self.task_attempt(),
        );
        trace!("Current callSite: {caller}");
    }

    fn log_left(&self, epoch: Epoch, since: Option<Instant>, error: Option<&SyncError>) {
        let Some(since) = since else { return };
        let StageAttemptId { stage, attempt } = self.attempt;
        let seconds = since.elapsed().as_secs_f64();
        match error {
            None => info!(
                task_attempt = %self.task_attempt(), %stage, attempt, %epoch, waited_s = seconds,
                "Task {} from Stage {stage}(Attempt {attempt}) finished global sync successfully, \
                 waited for {seconds:.3} seconds, current barrier epoch is {epoch}.",
                self.task_attempt(),
            ),
            Some(error) => info!(
                task_attempt = %self.task_attempt(), %stage, attempt, %epoch, waited_s = seconds,
                "Task {} from Stage {stage}(Attempt {attempt}) failed to perform global sync, \
                 waited for {seconds:.3} seconds, current barrier epoch is {epoch}: {error}.",
                self.task_attempt(),
            ),
        }
    }
}

/// Wakes callers; one whose waker panics must not keep the others from it.
fn wake(mut wakers: Vec<Waker>) {
    for waker in wakers.drain(..) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            // Dropping it might panic again.
            std::mem::forget(panic);
            error!("a waker of a waiting call panicked");
        }
    }
    let _ = WOKEN.try_with(|room| room.set(wakers));
}

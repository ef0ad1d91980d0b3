//! One running task attempt, as its own code sees it.

mod sync_call;

use crate::task_group::TaskGroup;
use bytes::Bytes;
use phalanx_protocol::{
    Addresses, Epoch, ExecutorId, ExecutorLife, LaunchTask, LeaveReason, PartitionId,
    StageAttemptId, SyncMethod, TaskAttemptId, TaskInfo, TaskOutcome, TaskSyncEvent,
};
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Wake;
pub(crate) use sync_call::CallWaker;
pub use sync_call::SyncCall;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// A running task: who it is, how it syncs, whether it was killed.
pub struct Task {
    group: Arc<TaskGroup>,
    /// In the group.
    index: u32,
    launch: LaunchTask,
    kill_reason: OnceLock<Cow<'static, str>>,
    /// Whether its code has begun, or never will.
    begun: AtomicBool,
    /// Whether its group's run has been told to poll it, and has not seen that yet.
    is_woken: AtomicBool,
    end: Mutex<End>,
}

/// What is told when the task ends, or shall end.
struct End {
    completion: Completion,
    /// Made for the first who asks.
    killed: Option<CancellationToken>,
}

/// How the task ended, or who is to be told then.
enum Completion {
    Open(Vec<CompletionListener>),
    Ended(TaskOutcome),
}

type CompletionListener = Box<dyn FnOnce(&TaskOutcome) + Send>;

/// Locks a mutex whose holders do not panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Task {
    /// The task at `index` of its group.
    pub(crate) fn new(group: Arc<TaskGroup>, index: u32, launch: LaunchTask) -> Arc<Self> {
        let completion = Completion::Open(Vec::new());
        Arc::new(Task {
            group,
            index,
            launch,
            kill_reason: OnceLock::new(),
            begun: AtomicBool::new(false),
            is_woken: AtomicBool::new(false),
            end: Mutex::new(End { completion, killed: None }),
        })
    }

    /// The stage attempt it belongs to.
    pub fn attempt(&self) -> StageAttemptId {
        self.group.attempt
    }

    /// The stage's name.
    pub fn stage_name(&self) -> &Arc<str> {
        &self.group.name
    }

    /// World size.
    pub fn num_tasks(&self) -> u32 {
        self.group.num_tasks
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
        self.group.executor.executor
    }

    /// Where it runs, and in which life of it.
    pub fn executor_life(&self) -> ExecutorLife {
        self.group.executor
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
        &self.group.task_infos
    }

    /// The epoch of its current or next sync; 0 in a plain stage.
    pub fn epoch(&self) -> Epoch {
        self.group.sync.as_ref().map_or(Epoch(0), |sync| sync.epoch(self.index))
    }

    /// Whether it was killed, or has ended.
    pub fn is_killed(&self) -> bool {
        self.kill_reason.get().is_some()
    }

    /// Cancelled when the task is killed, and when it has ended.
    pub fn killed(&self) -> CancellationToken {
        let mut end = lock(&self.end);
        let token = end.killed.get_or_insert_default().clone();
        drop(end);
        // Either this is seen here, or the token there.
        if self.is_killed() {
            token.cancel();
        }
        token
    }

    /// Why it was killed, if it was.
    pub fn kill_reason(&self) -> Option<&str> {
        self.kill_reason.get().map(Cow::as_ref)
    }

    /// Has `listener` called with the outcome, once, when the task's code has ended; at once if it
    /// has. A listener's panic is logged and changes nothing.
    pub fn on_completion(&self, listener: impl FnOnce(&TaskOutcome) + Send + 'static) {
        let outcome = match &mut lock(&self.end).completion {
            Completion::Open(listeners) => {
                listeners.push(Box::new(listener));
                return;
            }
            Completion::Ended(outcome) => outcome.clone(),
        };
        self.call(Box::new(listener), &outcome);
    }

    /// Arrives at the gang's next sync with `message`; resolves with the release.
    #[inline]
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
    pub(crate) fn kill(&self, reason: &str) {
        if self.kill_reason.set(reason.to_owned().into()).is_ok() {
            self.sync_event(TaskSyncEvent::Kill { reason: reason.to_owned() });
            self.cancel();
        }
    }

    /// The task has ended: its calls fail, and what waits for a kill need not wait any more.
    pub(crate) fn ended(&self, reason: LeaveReason) {
        self.sync_event(TaskSyncEvent::Ended(reason));
        if self.kill_reason.set("its task has ended".into()).is_ok() {
            self.cancel();
        }
    }

    fn cancel(&self) {
        let killed = lock(&self.end).killed.clone();
        if let Some(killed) = killed
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| killed.cancel()))
        {
            // Dropping it might panic again.
            std::mem::forget(panic);
            error!(attempt = %self.attempt(), partition = %self.partition(),
                "a waker of one who waits for a kill panicked");
            // The others that wait in the task may not have been woken: so it is polled.
            self.group.wake_task(self.index);
        }
    }

    fn sync_event(&self, event: TaskSyncEvent) {
        self.group.sync_event(self.index, event);
    }

    /// Its group's run is about to poll it: who wakes it from now on has to say so again.
    pub(crate) fn take_wake(&self) {
        self.is_woken.swap(false, Ordering::AcqRel);
    }

    /// Whether the task's code may begin; true for the first who asks.
    pub(crate) fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::SeqCst)
    }

    /// Books the outcome and calls the listeners. False if that was done before.
    pub(crate) fn complete(&self, outcome: &TaskOutcome) -> bool {
        let listeners = {
            let mut end = lock(&self.end);
            match &mut end.completion {
                Completion::Ended(_) => return false,
                Completion::Open(listeners) => {
                    let listeners = std::mem::take(listeners);
                    end.completion = Completion::Ended(outcome.clone());
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
            error!(attempt = %self.attempt(), partition = %self.partition(),
                "a completion listener panicked");
        }
    }
}

/// Has its group's run poll it.
impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.group.wake_task(self.index);
        }
    }
}

//! Runs the code of one task and reports its end.

use crate::TaskEnded;
use crate::task::{Task, lock};
use actix::prelude::*;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use phalanx_protocol::{
    ExecutorId, FetchFailed, Incarnation, LeaveReason, PartitionId, StageAttemptId, TaskAttemptId,
    TaskFailure, TaskOutcome, TaskReport,
};
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

/// Any error of a task's code.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What a task returned.
pub type Payload = Box<dyn Any + Send>;

/// A task's value or error.
pub type TaskOutput = Result<Payload, BoxError>;

pub(crate) type AsyncCode =
    Arc<dyn Fn(Arc<Task>) -> LocalBoxFuture<'static, TaskOutput> + Send + Sync>;

pub(crate) type BlockingCode = Arc<dyn Fn(Arc<Task>) -> TaskOutput + Send + Sync>;

/// The code of a stage's tasks.
#[derive(Clone)]
pub enum TaskBody {
    /// Runs on a worker thread together with others; must not block.
    Async(AsyncCode),
    /// Runs on a thread of its own.
    Blocking(BlockingCode),
    /// Has a name by which another process finds it.
    Named(Arc<NamedBody>),
}

/// Answers what a task of a stage attempt asks; empty if it does not understand.
pub type Serve = dyn Fn(StageAttemptId, PartitionId, &[Bytes]) -> Vec<Bytes> + Send + Sync;

/// Code that another process finds by its name.
pub struct NamedBody {
    /// The name.
    pub code: String,
    /// What the code is told about its stage; only the two know what it means.
    pub settings: Bytes,
    /// By partition.
    pub inputs: Vec<Bytes>,
    /// Answers what the stage's tasks in other processes ask it. May block.
    pub serve: Arc<Serve>,
    /// The same code, for executors in this process; returns `Bytes`.
    pub here: NamedCode,
}

/// Code that runs in this process.
#[derive(Clone)]
pub enum NamedCode {
    /// As [`TaskBody::Async`].
    Async(AsyncCode),
    /// As [`TaskBody::Blocking`].
    Blocking(BlockingCode),
}

impl TaskBody {
    /// What runs in this process.
    pub(crate) fn into_code(self) -> NamedCode {
        match self {
            TaskBody::Async(code) => NamedCode::Async(code),
            TaskBody::Blocking(code) => NamedCode::Blocking(code),
            TaskBody::Named(body) => body.here.clone(),
        }
    }
}

/// Whom an executor tells how its tasks end.
pub trait Report: Send + Sync {
    /// A task has ended; `output`: what it returned, if it got that far.
    fn report(&self, report: TaskReport, output: Option<TaskOutput>);
}

impl Report for Recipient<TaskEnded> {
    fn report(&self, report: TaskReport, output: Option<TaskOutput>) {
        self.do_send(TaskEnded { report, output });
    }
}

/// The tasks that run on one executor. Shared with the threads that run them.
#[derive(Clone, Default)]
pub(crate) struct RunningTasks(Arc<Mutex<HashMap<TaskAttemptId, Arc<Task>>>>);

impl RunningTasks {
    pub(crate) fn get(&self, id: TaskAttemptId) -> Option<Arc<Task>> {
        lock(&self.0).get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Task>> {
        lock(&self.0).values().cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

/// A task on the list of those that run. However it ends, even if its code is dropped half-way, its
/// end is reported, once.
pub(crate) struct Listed {
    pub(crate) task: Arc<Task>,
    reporter: Arc<Reporter>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let lost = "its thread ended before its code did".to_owned();
        self.report(TaskOutcome::Failed(TaskFailure::ExecutorLost(lost)), None);
    }
}

/// Tells the scheduler how tasks end.
pub(crate) struct Reporter {
    pub(crate) executor: ExecutorId,
    pub(crate) incarnation: Incarnation,
    pub(crate) to: Arc<dyn Report>,
    pub(crate) running: RunningTasks,
}

impl Listed {
    /// The task is listed until its end has been reported, or this is dropped.
    pub(crate) fn new(task: Arc<Task>, reporter: Arc<Reporter>) -> Self {
        lock(&reporter.running.0).insert(task.task_attempt(), task.clone());
        Listed { task, reporter }
    }

    pub(crate) fn finish(self, end: Result<TaskOutput, Box<dyn Any + Send>>) {
        match end {
            Ok(Ok(value)) => self.report(TaskOutcome::Succeeded, Some(Ok(value))),
            Ok(Err(error)) => {
                let outcome = TaskOutcome::Failed(failure_of(&self.task, &*error));
                self.report(outcome, Some(Err(error)));
            }
            Err(panic) => {
                let failure = TaskFailure::Panicked(text_of_panic(&*panic));
                self.report(TaskOutcome::Failed(failure), None);
                // Dropped after the report: even that may panic.
                drop(panic);
            }
        }
    }

    /// Whether its code may begin. If not it was killed before: whoever did that reports it, and
    /// may not have come to that yet.
    pub(crate) fn begin(&self) -> bool {
        let may_begin = self.task.begin();
        if !may_begin {
            self.reporter.report_killed(&self.task);
        }
        may_begin
    }

    fn report(&self, outcome: TaskOutcome, output: Option<TaskOutput>) {
        self.reporter.report(&self.task, outcome, output);
    }
}

impl Reporter {
    /// Only the first report of a task counts. It goes out before the leave: who fails because this
    /// task left cannot be taken for the first cause.
    fn report(&self, task: &Task, outcome: TaskOutcome, output: Option<TaskOutput>) {
        if !task.complete(&outcome) {
            return;
        }
        lock(&self.running.0).remove(&task.task_attempt());
        let reason = match &outcome {
            TaskOutcome::Succeeded => LeaveReason::Returned,
            TaskOutcome::Failed(failure) => LeaveReason::Failed(failure.clone()),
        };
        let report = TaskReport {
            executor: self.executor,
            incarnation: self.incarnation,
            attempt: task.attempt(),
            partition: task.partition(),
            task_attempt: task.task_attempt(),
            outcome,
        };
        self.to.report(report, output);
        task.ended(reason);
    }

    /// A killed task whose code has not begun, perhaps because its thread is held up, ends now.
    pub(crate) fn end_if_not_begun(&self, task: &Task) {
        if task.begin() {
            self.report_killed(task);
        }
    }

    fn report_killed(&self, task: &Task) {
        let reason = task.kill_reason().unwrap_or_default().to_owned();
        self.report(task, TaskOutcome::Failed(TaskFailure::Killed(reason)), None);
    }
}

/// A killed task's error is the kill, whatever it made of it.
fn failure_of(task: &Task, error: &(dyn Error + 'static)) -> TaskFailure {
    if let Some(reason) = task.kill_reason() {
        return TaskFailure::Killed(reason.to_owned());
    }
    if let Some(failed) = error.downcast_ref::<FetchFailed>() {
        return TaskFailure::FetchFailed(*failed);
    }
    // The text is the user's code as well.
    match catch_unwind(AssertUnwindSafe(|| text_with_sources(error))) {
        Ok(text) => TaskFailure::Error(shortened(text)),
        Err(panic) => {
            let text = text_of_panic(&*panic);
            // Dropping it might panic again.
            std::mem::forget(panic);
            TaskFailure::Panicked(text)
        }
    }
}

/// Sources of an error that are named; one may be its own source.
const SOURCES_MAX: usize = 32;

fn text_with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    for _ in 0..SOURCES_MAX {
        let Some(cause) = source else { break };
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn text_of_panic(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .map_or_else(|| "with a value that is not a text".to_owned(), shortened)
}

/// Bytes of a failure's text that are told: it goes to all of the gang, to the log and to the user.
const TEXT_MAX: usize = 64 << 10;

fn shortened(mut text: String) -> String {
    let size = text.len();
    if size > TEXT_MAX {
        let fits = |at: &usize| text.is_char_boundary(*at);
        text.truncate((0..=TEXT_MAX).rev().find(fits).unwrap_or(0));
        text.push_str(&format!("... ({size} bytes in all)"));
    }
    text
}

thread_local! {
    static CURRENT_TASK: RefCell<Option<Arc<Task>>> = const { RefCell::new(None) };
}

/// The blocking task whose thread this is.
pub fn current_task() -> Option<Arc<Task>> {
    CURRENT_TASK.with_borrow(Option::clone)
}

/// A task that takes its thread.
pub(crate) struct BlockingTask {
    pub(crate) listed: Listed,
    pub(crate) code: BlockingCode,
}

impl BlockingTask {
    pub(crate) fn run(self) {
        let BlockingTask { listed, code } = self;
        if !listed.begin() {
            return;
        }
        let end = {
            let _entered = span_of(&listed.task).entered();
            CURRENT_TASK.set(Some(listed.task.clone()));
            catch_unwind(AssertUnwindSafe(|| code(listed.task.clone())))
        };
        CURRENT_TASK.set(None);
        listed.finish(end);
    }

    /// Runs on a new thread, and then `next` does.
    pub(crate) fn start(self, name: String, next: impl FnOnce() + Send + 'static) {
        // Not moved into the thread: if there is none, that is the failure to report.
        let slot = Arc::new(Mutex::new(Some(self)));
        let in_thread = slot.clone();
        let started = std::thread::Builder::new().name(name).spawn(move || {
            let task = lock(&in_thread).take();
            if let Some(task) = task {
                task.run();
            }
            next();
        });
        let task = lock(&slot).take_if(|_| started.is_err());
        if let (Err(error), Some(task)) = (started, task) {
            let failure = TaskFailure::NotStarted(no_thread(&error));
            task.listed.report(TaskOutcome::Failed(failure), None);
        }
    }

    /// Runs on a new thread that ends with it, so that no pool's limit can keep a gang from being
    /// complete.
    pub(crate) fn start_alone(self) {
        let (attempt, partition) = (self.listed.task.attempt(), self.listed.task.partition());
        self.start(format!("phalanx-{}-{partition}", attempt.stage), || {});
    }
}

fn no_thread(error: &io::Error) -> String {
    format!("the system gave no thread ({error}); blocking tasks take one each, see `ulimit -u`")
}

pub(crate) fn span_of(task: &Task) -> tracing::Span {
    let attempt = task.attempt();
    tracing::info_span!(
        "task",
        stage = attempt.stage.0,
        name = &**task.stage_name(),
        attempt = attempt.attempt,
        partition = task.partition().0,
        task_attempt = task.task_attempt().0,
    )
}

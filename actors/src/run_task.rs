//! The code of tasks, how one ends, and one that takes its thread.

use crate::reporter::Listed;
use crate::task::{Task, lock};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use phalanx_protocol::{FetchFailed, PartitionId, StageAttemptId, TaskFailure};
use smallvec::SmallVec;
use std::any::Any;
use std::cell::RefCell;
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
    pub(crate) fn code(&self) -> NamedCode {
        match self {
            TaskBody::Async(code) => NamedCode::Async(code.clone()),
            TaskBody::Blocking(code) => NamedCode::Blocking(code.clone()),
            TaskBody::Named(body) => body.here.clone(),
        }
    }
}

/// A killed task's error is the kill, whatever it made of it.
pub(crate) fn failure_of(task: &Task, error: &(dyn Error + 'static)) -> TaskFailure {
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

pub(crate) fn text_of_panic(panic: &(dyn Any + Send)) -> String {
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

/// What a thread is to run next: nearly always one task or none.
pub(crate) type Next = SmallVec<[BlockingTask; 1]>;

impl BlockingTask {
    fn run(self) {
        let BlockingTask { listed, code } = self;
        if let Some(end) = code_ended(&listed, code) {
            listed.finish(end);
        }
    }

    /// One of a plain stage: if it succeeds its thread may be given what comes next.
    pub(crate) fn run_and_take(self) -> Next {
        let BlockingTask { listed, code } = self;
        let mut next = Next::new();
        match code_ended(&listed, code) {
            Some(Ok(Ok(value))) => listed.succeed_and_take(value, &mut next),
            Some(end) => listed.finish(end),
            None => {}
        }
        next
    }

    /// `run` runs it, on a new thread.
    pub(crate) fn start(self, name: String, run: impl FnOnce(BlockingTask) + Send + 'static) {
        // Not moved into the thread: if there is none, that is the failure to report.
        let slot = Arc::new(Mutex::new(Some(self)));
        let in_thread = slot.clone();
        let started = std::thread::Builder::new().name(name).spawn(move || {
            let task = lock(&in_thread).take();
            if let Some(task) = task {
                run(task);
            }
        });
        let task = lock(&slot).take_if(|_| started.is_err());
        if let (Err(error), Some(task)) = (started, task) {
            let failure = TaskFailure::NotStarted(no_thread(&error));
            task.listed.fail(failure);
        }
    }

    /// Runs on a new thread that ends with it, so that no pool's limit can keep a gang from being
    /// complete.
    pub(crate) fn start_alone(self) {
        let (attempt, partition) = (self.listed.task.attempt(), self.listed.task.partition());
        self.start(format!("phalanx-{}-{partition}", attempt.stage), BlockingTask::run);
    }
}

/// `None`: it may not begin. The code is dropped here, before anything follows from its end.
fn code_ended(listed: &Listed, code: BlockingCode) -> Option<Result<TaskOutput, Panic>> {
    if !listed.begin() {
        return None;
    }
    let _entered = span_of(&listed.task).entered();
    CURRENT_TASK.set(Some(listed.task.clone()));
    let end = catch_unwind(AssertUnwindSafe(|| code(listed.task.clone())));
    CURRENT_TASK.set(None);
    Some(end)
}

type Panic = Box<dyn Any + Send>;

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

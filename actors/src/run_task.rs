//! Runs the code of one task and reports its end.

use crate::TaskEnded;
use crate::task::{Task, lock};
use actix::prelude::*;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use phalanx_protocol::{
    ExecutorId, Incarnation, LeaveReason, TaskAttemptId, TaskFailure, TaskOutcome, TaskReport,
};
use std::any::Any;
use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use tracing::Instrument;

/// Any error of a task's code.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What a task returned.
pub type Payload = Box<dyn Any + Send>;

/// A task's value or error.
pub type TaskOutput = Result<Payload, BoxError>;

/// The code of a stage's tasks.
#[derive(Clone)]
pub enum TaskBody {
    /// Runs on a worker thread together with others; must not block.
    Async(Arc<dyn Fn(Arc<Task>) -> LocalBoxFuture<'static, TaskOutput> + Send + Sync>),
    /// Runs on a thread of its own.
    Blocking(Arc<dyn Fn(Arc<Task>) -> TaskOutput + Send + Sync>),
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

    /// The task is listed until what is returned is dropped.
    pub(crate) fn list(&self, task: Arc<Task>) -> Listed {
        let id = task.task_attempt();
        lock(&self.0).insert(id, task.clone());
        Listed { task, running: self.clone() }
    }
}

/// A task and its place in the list, which it leaves even if its code is dropped half-way.
pub(crate) struct Listed {
    task: Arc<Task>,
    running: RunningTasks,
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.running.0).remove(&self.task.task_attempt());
    }
}

/// Tells the scheduler how tasks end.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) executor: ExecutorId,
    pub(crate) incarnation: Incarnation,
    pub(crate) scheduler: Recipient<TaskEnded>,
}

impl Reporter {
    fn finish(&self, task: Listed, end: Result<TaskOutput, Box<dyn Any + Send>>) {
        match end {
            Ok(Ok(value)) => self.report(task, TaskOutcome::Succeeded, Some(Ok(value))),
            Ok(Err(error)) => {
                let outcome = TaskOutcome::Failed(failure_of(&task.task, &*error));
                self.report(task, outcome, Some(Err(error)));
            }
            // Whatever was thrown is dropped after the report: even that may panic.
            Err(panic) => {
                let failure = TaskFailure::Panicked(text_of_panic(&*panic));
                self.report(task, TaskOutcome::Failed(failure), None);
            }
        }
    }

    /// The report goes out before the leave: who fails because this task left cannot be taken for
    /// the first cause.
    fn report(&self, listed: Listed, outcome: TaskOutcome, output: Option<TaskOutput>) {
        let task = listed.task.clone();
        task.call_listeners(&outcome);
        drop(listed);
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
        self.scheduler.do_send(TaskEnded { report, output });
        task.ended(reason);
    }
}

/// A killed task's error is the kill, whatever it made of it.
fn failure_of(task: &Task, error: &(dyn Error + 'static)) -> TaskFailure {
    match task.kill_reason() {
        Some(reason) => TaskFailure::Killed(reason.to_owned()),
        // The text is the user's code as well.
        None => match catch_unwind(AssertUnwindSafe(|| text_with_sources(error))) {
            Ok(text) => TaskFailure::Error(text),
            Err(panic) => TaskFailure::Panicked(text_of_panic(&*panic)),
        },
    }
}

fn text_with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn text_of_panic(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "with a value that is not a text".to_owned())
}

/// Runs on the thread that polls it.
pub(crate) async fn run_async(
    listed: Listed,
    code: Arc<dyn Fn(Arc<Task>) -> LocalBoxFuture<'static, TaskOutput> + Send + Sync>,
    reporter: Reporter,
) {
    let task = listed.task.clone();
    let span = span_of(&task);
    // The closure itself may panic before it gives a future.
    let run = async { code(task).await };
    let end = AssertUnwindSafe(run).catch_unwind().instrument(span).await;
    reporter.finish(listed, end);
}

/// Runs on a new thread, so that no pool's limit can keep a gang from being complete.
pub(crate) fn run_blocking(
    listed: Listed,
    code: Arc<dyn Fn(Arc<Task>) -> TaskOutput + Send + Sync>,
    reporter: Reporter,
) {
    let attempt = listed.task.attempt();
    let name = format!("phalanx-{}-{}", attempt.stage, listed.task.partition());
    // Not moved into the thread: if there is none, the failure is still to be reported.
    let slot = Arc::new(Mutex::new(Some(listed)));
    let (in_thread, at_end) = (slot.clone(), reporter.clone());
    let started = std::thread::Builder::new().name(name).spawn(move || {
        let Some(listed) = lock(&in_thread).take() else { return };
        let end = {
            let _entered = span_of(&listed.task).entered();
            catch_unwind(AssertUnwindSafe(|| code(listed.task.clone())))
        };
        at_end.finish(listed, end);
    });
    if let Err(error) = started
        && let Some(listed) = lock(&slot).take()
    {
        let failure = TaskFailure::NotStarted(no_thread(&error));
        reporter.report(listed, TaskOutcome::Failed(failure), None);
    }
}

fn no_thread(error: &io::Error) -> String {
    format!("the system gave no thread ({error}); blocking tasks take one each, see `ulimit -u`")
}

fn span_of(task: &Task) -> tracing::Span {
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

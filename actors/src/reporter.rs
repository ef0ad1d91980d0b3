//! Tells the scheduler how tasks end, once each, whatever ends them.

use crate::run_task::{
    BlockingCode, BlockingTask, NamedCode, Next, Payload, TaskOutput, failure_of, text_of_panic,
};
use crate::task::{Task, lock};
use crate::task_group::TaskGroup;
use crate::{LaunchOnExecutor, TaskEnded};
use actix::Recipient;
use phalanx_protocol::{
    ExecutorLife, LaunchTask, LeaveReason, TaskAttemptId, TaskFailure, TaskOutcome, TaskReport,
};
use std::any::Any;
use std::collections::HashMap;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Whom an executor tells how its tasks end.
pub trait Report: Send + Sync {
    /// A task has ended; `output`: what it returned, if it got that far.
    fn report(&self, report: TaskReport, output: Option<TaskOutput>);

    /// The same of a task of a plain stage that has succeeded and whose thread is free: what the
    /// executor is to run next may be given to that, on the spot.
    fn report_and_take(&self, report: TaskReport, output: TaskOutput, _take: Take<'_>) {
        self.report(report, Some(output));
    }
}

/// Takes a launch, or gives it back.
pub type Take<'a> = &'a mut dyn FnMut(LaunchOnExecutor) -> Option<LaunchOnExecutor>;

impl Report for Recipient<TaskEnded> {
    fn report(&self, report: TaskReport, output: Option<TaskOutput>) {
        self.do_send(TaskEnded { report, output });
    }
}

/// The tasks that run on one executor. Shared with the threads that run them.
#[derive(Clone, Default)]
pub(crate) struct RunningTasks(Arc<Mutex<HashMap<TaskAttemptId, Arc<Task>>>>);

impl RunningTasks {
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

/// Tells the scheduler how the tasks of an executor end.
pub(crate) struct Reporter {
    life: ExecutorLife,
    to: Arc<dyn Report>,
    running: RunningTasks,
    /// The executor has ended.
    is_over: AtomicBool,
}

const EXECUTOR_ENDED: &str = "its executor has ended";

impl Listed {
    /// The task is listed until its end has been reported, or this is dropped.
    pub(crate) fn new(task: Arc<Task>, reporter: Arc<Reporter>) -> Self {
        lock(&reporter.running.0).insert(task.task_attempt(), task.clone());
        // Either this is seen here, or the task on the list there.
        if reporter.is_over.load(Ordering::SeqCst) {
            reporter.kill(&task, EXECUTOR_ENDED);
        }
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

    /// `next`: what its thread is to run then.
    pub(crate) fn succeed_and_take(self, value: Payload, next: &mut Next) {
        let Listed { task, reporter } = &self;
        let mut take = |launch: LaunchOnExecutor| match launch.body.code() {
            NamedCode::Blocking(code) if launch.barrier.is_none() => {
                next.extend(reporter.blocking_tasks(launch, code));
                None
            }
            NamedCode::Blocking(_) | NamedCode::Async(_) => Some(launch),
        };
        reporter.report(task, TaskOutcome::Succeeded, |to, report| {
            to.report_and_take(report, Ok(value), &mut take);
        });
    }

    /// It could not begin.
    pub(crate) fn fail(self, failure: TaskFailure) {
        self.report(TaskOutcome::Failed(failure), None);
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
        self.reporter.report(&self.task, outcome, |to, report| to.report(report, output));
    }
}

impl Reporter {
    pub(crate) fn new(life: ExecutorLife, to: Arc<dyn Report>, running: RunningTasks) -> Self {
        Reporter { life, to, running, is_over: AtomicBool::new(false) }
    }

    /// A running task of this executor.
    pub(crate) fn get(&self, id: TaskAttemptId) -> Option<Arc<Task>> {
        lock(&self.running.0).get(&id).cloned()
    }

    /// The executor has ended: its tasks shall, too, and no other begins.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        for task in self.running.all() {
            self.kill(&task, EXECUTOR_ENDED);
        }
    }

    /// Tasks of a launch that are polled together.
    pub(crate) fn polled_tasks(
        self: &Arc<Self>,
        launch: &LaunchOnExecutor,
        tasks: Vec<LaunchTask>,
    ) -> (Arc<TaskGroup>, Vec<Listed>) {
        let group = TaskGroup::new(launch, self.life, &tasks, true);
        let listed = (0..)
            .zip(tasks)
            .map(|(index, task)| Listed::new(Task::new(group.clone(), index, task), self.clone()));
        let listed = listed.collect();
        (group, listed)
    }

    /// All tasks of a launch, each to be run on a thread.
    pub(crate) fn blocking_tasks(
        self: &Arc<Self>,
        mut launch: LaunchOnExecutor,
        code: BlockingCode,
    ) -> impl Iterator<Item = BlockingTask> {
        let tasks = std::mem::take(&mut launch.launch.tasks).into_iter();
        tasks.map(move |task| {
            let group = TaskGroup::new(&launch, self.life, slice::from_ref(&task), false);
            let listed = Listed::new(Task::new(group, 0, task), self.clone());
            BlockingTask { listed, code: code.clone() }
        })
    }

    /// Only the first report of a task counts. It goes out before the leave: who fails because this
    /// task left cannot be taken for the first cause.
    fn report(
        &self,
        task: &Task,
        outcome: TaskOutcome,
        send: impl FnOnce(&dyn Report, TaskReport),
    ) {
        if !task.complete(&outcome) {
            return;
        }
        lock(&self.running.0).remove(&task.task_attempt());
        let reason = match &outcome {
            TaskOutcome::Succeeded => LeaveReason::Returned,
            TaskOutcome::Failed(failure) => LeaveReason::Failed(failure.clone()),
        };
        let report = TaskReport {
            executor: self.life.executor,
            incarnation: self.life.incarnation,
            attempt: task.attempt(),
            partition: task.partition(),
            task_attempt: task.task_attempt(),
            outcome,
        };
        send(&*self.to, report);
        task.ended(reason);
    }

    /// One whose code has not begun, perhaps because its thread is held up, ends now.
    pub(crate) fn kill(&self, task: &Task, reason: &str) {
        task.kill(reason);
        if task.begin() {
            self.report_killed(task);
        }
    }

    fn report_killed(&self, task: &Task) {
        let reason = task.kill_reason().unwrap_or_default().to_owned();
        let outcome = TaskOutcome::Failed(TaskFailure::Killed(reason));
        self.report(task, outcome, |to, report| to.report(report, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TaskBody;
    use phalanx_protocol::{LaunchTasks, PartitionId, StageAttemptId};

    #[derive(Default)]
    struct Heard(Mutex<Vec<TaskReport>>);

    impl Report for Heard {
        fn report(&self, report: TaskReport, _: Option<TaskOutput>) {
            lock(&self.0).push(report);
        }
    }

    #[test]
    fn what_is_launched_on_an_executor_that_has_ended_does_not_begin() {
        let heard = Arc::new(Heard::default());
        let (life, running) = (ExecutorLife::default(), RunningTasks::default());
        let reporter = Arc::new(Reporter::new(life, heard.clone(), running));
        let has_run = Arc::new(AtomicBool::new(false));
        let runs = has_run.clone();
        let code: BlockingCode = Arc::new(move |_| {
            runs.store(true, Ordering::SeqCst);
            Ok(Box::new(()))
        });
        let (partition, task_attempt) = (PartitionId(3), TaskAttemptId(7));
        let task = LaunchTask { partition, task_attempt, cpus: 1, addresses: Default::default() };
        let (attempt, task_infos) = (StageAttemptId::default(), Arc::new([]));
        let launch = LaunchTasks { attempt, num_tasks: 4, tasks: vec![task], task_infos };
        let body = TaskBody::Blocking(code.clone());
        let launch = LaunchOnExecutor { launch, name: "late".into(), body, barrier: None };
        reporter.end();
        for task in reporter.blocking_tasks(launch, code) {
            assert!(task.run_and_take().is_empty());
        }
        assert!(!has_run.load(Ordering::SeqCst));
        let reports = std::mem::take(&mut *lock(&heard.0));
        let killed = TaskFailure::Killed(EXECUTOR_ENDED.to_owned());
        let [TaskReport { task_attempt: of, outcome, .. }] = &reports[..] else {
            panic!("{reports:?}")
        };
        assert_eq!((*of, outcome), (task_attempt, &TaskOutcome::Failed(killed)));
        assert!(reporter.running.is_empty());
    }
}

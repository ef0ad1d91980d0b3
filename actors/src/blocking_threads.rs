//! Threads for the tasks of plain stages that block.

use crate::run_task::BlockingTask;
use crate::task::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Threads that run one blocking task after another: one that has nothing to do, or a new one. So
/// there are as many as tasks at a time, without limit, and a stage of many small tasks does not
/// start and end a thread for each. A thread whose task has succeeded may get the next one at once.
///
/// A gang's task has a thread that nobody had before: what it does to it (its affinity, its
/// priority, its thread-local values) ends with it.
#[derive(Default)]
pub(crate) struct BlockingThreads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A task has come, or this is over.
    woken: Condvar,
}

#[derive(Default)]
struct State {
    /// Each of these has a thread that waits and will take it.
    queued: VecDeque<BlockingTask>,
    /// Threads that wait, but for those that `queued` will wake.
    idle: usize,
    is_over: bool,
}

/// A thread that has had nothing to do for so long ends.
const KEPT: Duration = Duration::from_secs(1);

impl BlockingThreads {
    pub(crate) fn run(&self, task: BlockingTask) {
        self.0.run(task);
    }
}

impl Shared {
    fn run(self: &Arc<Self>, task: BlockingTask) {
        let mut state = lock(&self.state);
        if let Some(idle) = state.idle.checked_sub(1) {
            state.idle = idle;
            state.queued.push_back(task);
            drop(state);
            self.woken.notify_one();
            return;
        }
        drop(state);
        let shared = self.clone();
        task.start("phalanx-tasks".to_owned(), move |first| {
            let mut task = Some(first);
            while let Some(next) = task {
                task = shared.run_here(next).or_else(|| shared.next());
            }
        });
    }

    /// Returns what comes next for this thread, if the scheduler has said so at the task's end.
    fn run_here(self: &Arc<Self>, task: BlockingTask) -> Option<BlockingTask> {
        let mut next = task.run_and_take().into_iter();
        let mine = next.next();
        next.for_each(|other| self.run(other));
        mine
    }

    /// The next task, if one comes in time.
    fn next(&self) -> Option<BlockingTask> {
        let mut state = lock(&self.state);
        state.idle += 1;
        let until = Instant::now() + KEPT;
        loop {
            if let Some(task) = state.queued.pop_front() {
                return Some(task);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.is_over || left.is_zero() {
                state.idle -= 1;
                return None;
            }
            state = self.wait(state, left);
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, left: Duration) -> MutexGuard<'a, State> {
        let waited = self.woken.wait_timeout(state, left);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for BlockingThreads {
    /// Threads that wait end; those that run a task do so after it.
    fn drop(&mut self) {
        lock(&self.0.state).is_over = true;
        self.0.woken.notify_all();
    }
}

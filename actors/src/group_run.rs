//! Polls the async tasks of one group.

use crate::patience::Patience;
use crate::reporter::Listed;
use crate::run_task::{AsyncCode, TaskOutput, span_of};
use crate::sync_cell::Wakes;
use crate::sync_gatherer::SyncGatherer;
use crate::task_group::TaskGroup;
use futures_util::future::LocalBoxFuture;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::task::coop;
use tracing::Span;

/// Polls at a time, after which the thread's timers, sockets and other work have their turn. As
/// many as tokio's own schedulers do.
const POLLS_MAX: u32 = 61;

/// The future that is a group's tasks. A release wakes a whole gang: as a task of its own each
/// would be woken and scheduled one by one, which costs more than the round itself.
///
/// It polls in sweeps: all tasks that are ready, each once; then what they have to say to their
/// barrier goes out in one message, and who is ready now is the next sweep.
pub(crate) struct GroupRun {
    group: Arc<TaskGroup>,
    code: AsyncCode,
    /// By index; `None` once it has ended.
    tasks: Vec<Option<Running>>,
    /// Those that have not ended.
    left: usize,
    /// By index.
    sweep: Vec<u32>,
    /// How many of the sweep have been polled.
    polled: usize,
    patience: Patience,
}

struct Running {
    listed: Listed,
    waker: Waker,
    /// `None` until it begins.
    future: Option<LocalBoxFuture<'static, TaskOutput>>,
    /// `None` if nobody records it.
    span: Option<Box<Span>>,
}

impl GroupRun {
    /// `tasks`: by index.
    pub(crate) fn new(group: Arc<TaskGroup>, code: AsyncCode, tasks: Vec<Listed>) -> Self {
        let running = |listed: Listed| {
            let waker = listed.task.clone().into();
            Some(Running { listed, waker, future: None, span: None })
        };
        let (left, sweep) = (tasks.len(), (0..).take(tasks.len()).collect());
        let tasks = tasks.into_iter().map(running).collect();
        GroupRun { group, code, tasks, left, sweep, polled: 0, patience: Patience::new() }
    }

    /// The next to be polled.
    fn next(&mut self) -> Option<u32> {
        if self.polled == self.sweep.len() {
            self.next_sweep();
        }
        let next = self.sweep.get(self.polled).copied()?;
        self.polled += 1;
        Some(next)
    }

    fn next_sweep(&mut self) {
        self.polled = 0;
        // Its room is used again.
        self.sweep.clear();
        let mut wakes = Wakes::of_tasks(std::mem::take(&mut self.sweep));
        self.group.unring();
        self.group.flush();
        self.group.deliver(&mut wakes);
        wakes.wake_others();
        let woken = self.group.take_woken();
        for &task in &woken {
            if let Some(task) = &self.tasks[task as usize] {
                task.listed.task.take_wake();
            }
        }
        wakes.tasks.extend(woken);
        self.sweep = wakes.tasks;
    }

    /// Waits a moment for the other threads' shares of the gang; true if they have come.
    fn look_out(&mut self) -> bool {
        let TaskGroup { num_tasks, ref sync, .. } = *self.group;
        let others_run_elsewhere = (self.tasks.len() as u64) < u64::from(num_tasks);
        others_run_elsewhere
            && sync.as_ref().is_some_and(SyncGatherer::waits)
            && self.patience.wait_until(|| self.group.is_rung())
    }

    fn poll_task(&mut self, index: u32) {
        let slot = &mut self.tasks[index as usize];
        // One that was woken twice may have ended in between.
        let Some(task) = slot else { return };
        let Poll::Ready(end) = task.poll(&self.code) else { return };
        let Some(Running { listed, future, span, .. }) = slot.take() else { return };
        self.left -= 1;
        let dropped = drop_future(future, span.as_deref());
        // Values are the user's as well: the other tasks of the group must not feel it.
        guarded(|| match end {
            Some(end) => listed.finish(dropped.and(end)),
            None => drop(listed),
        });
    }
}

impl Running {
    /// Ready with what it came to; with `None` if it was killed before it began, which has been
    /// reported.
    fn poll(&mut self, code: &AsyncCode) -> Poll<Option<Result<TaskOutput, Box<dyn Any + Send>>>> {
        let task = &self.listed.task;
        if self.future.is_none() {
            if !self.listed.begin() {
                return Poll::Ready(None);
            }
            let span = span_of(task);
            self.span = (!span.is_disabled()).then(|| Box::new(span));
        }
        let _entered = self.span.as_ref().map(|span| span.enter());
        // The code itself may panic before it gives a future.
        let poll = || {
            let future = self.future.get_or_insert_with(|| code(task.clone()));
            future.as_mut().poll(&mut Context::from_waker(&self.waker))
        };
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Some(Ok(output))),
            Err(panic) => Poll::Ready(Some(Err(panic))),
        }
    }
}

/// Drops a user's future, which may panic, before its end is told.
fn drop_future(
    future: Option<LocalBoxFuture<'static, TaskOutput>>,
    span: Option<&Span>,
) -> Result<(), Box<dyn Any + Send>> {
    let _entered = span.map(Span::enter);
    catch_unwind(AssertUnwindSafe(|| drop(future)))
}

/// Runs what may run users' code. A panic has been told where it came from, or cannot be.
fn guarded(run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        // Dropping it might panic again.
        std::mem::forget(panic);
    }
}

impl Future for GroupRun {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.group.awake(cx.waker());
        for _ in 0..POLLS_MAX {
            // They share what tokio allows in one poll: nobody is polled who could not do a thing.
            if !coop::has_budget_remaining() {
                break;
            }
            match this.next() {
                Some(task) => this.poll_task(task),
                None if this.left == 0 => return Poll::Ready(()),
                None if this.look_out() => {}
                None if this.group.may_rest() => return Poll::Pending,
                None => {}
            }
        }
        // Goes on after timers, sockets and launches had their turn: a wake-up at once would come
        // first.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }
}

impl Drop for GroupRun {
    /// Its thread ends, or all tasks have ended. Each one's end is reported by its place on the
    /// list.
    fn drop(&mut self) {
        for Running { listed, future, span, .. } in self.tasks.drain(..).flatten() {
            guarded(|| drop(drop_future(future, span.as_deref())));
            guarded(|| drop(listed));
        }
        self.group.flush();
    }
}

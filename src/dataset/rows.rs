//! Rows of one partition, and what stops a task while it makes them.

use super::TaskEnv;
use crate::{BoxError, TaskResult, blocking};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The rows of one partition, made one by one as they are asked for.
///
/// If a row cannot be made (a file cannot be read, the output of an earlier stage is gone, the task
/// was killed), the task ends there: as by a panic, the code that asked for the row is unwound, but
/// the failure is the error.
pub struct Rows<T>(Box<dyn Source<T>>);

/// An iterator that may also be asked for all at once, which spares its rows a call for each
/// operation that they go through.
trait Source<T> {
    fn next_row(&mut self) -> Option<T>;
    fn hint(&self) -> (usize, Option<usize>);
    fn drain(self: Box<Self>, each: &mut dyn FnMut(T));
}

impl<I: Iterator> Source<I::Item> for I {
    fn next_row(&mut self) -> Option<I::Item> {
        self.next()
    }

    fn hint(&self) -> (usize, Option<usize>) {
        self.size_hint()
    }

    fn drain(self: Box<Self>, each: &mut dyn FnMut(I::Item)) {
        (*self).for_each(each);
    }
}

impl<T> fmt::Debug for Rows<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("size_hint", &self.0.hint()).finish_non_exhaustive()
    }
}

impl<T> Iterator for Rows<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.0.next_row()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.hint()
    }

    fn fold<B, F: FnMut(B, T) -> B>(self, init: B, mut fold: F) -> B {
        let mut folded = Some(init);
        self.0.drain(&mut |row| folded = folded.take().map(|former| fold(former, row)));
        folded.unwrap_or_else(|| unreachable!("it is taken only while a row is folded in"))
    }
}

impl<T: 'static> Rows<T> {
    /// All of them, in memory.
    pub(super) fn into_vec(self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.room());
        self.for_each(|row| all.push(row));
        all
    }

    /// Room to make for them at first: what an iterator of a user's says may be anything.
    pub(super) fn room(&self) -> usize {
        self.size_hint().0.min(ROOM_MAX)
    }

    pub(super) fn new(rows: impl IntoIterator<Item = T, IntoIter: 'static>) -> Self {
        Rows(Box::new(rows.into_iter()))
    }
}

const ROOM_MAX: usize = 1 << 16;

/// What unwinds a task that cannot go on.
struct Stopped(BoxError);

/// Ends the task with this error, from inside of an iterator.
pub(super) fn stop(error: impl Into<BoxError>) -> ! {
    resume_unwind(Box::new(Stopped(error.into())))
}

/// What a value is, or the end of the task.
pub(super) fn or_stop<T>(result: Result<T, impl Into<BoxError>>) -> T {
    result.unwrap_or_else(|error| stop(error))
}

/// Runs the code of a task that makes rows.
pub(super) fn run<R>(
    ctx: blocking::BarrierTaskContext,
    code: impl FnOnce(&TaskEnv) -> TaskResult<R>,
) -> TaskResult<R> {
    let env = TaskEnv { ctx };
    match catch_unwind(AssertUnwindSafe(|| code(&env))) {
        Ok(result) => result,
        Err(panic) => match panic.downcast::<Stopped>() {
            Ok(stopped) => Err(stopped.0),
            Err(panic) => resume_unwind(panic),
        },
    }
}

/// Rows between two looks whether the task was killed.
const LOOK_EVERY: u32 = 256;

impl TaskEnv {
    /// The rows, until the task is killed. For rows of which one may become any number.
    pub(super) fn until_killed<I: Iterator + 'static>(
        &self,
        rows: I,
    ) -> impl Iterator<Item = I::Item> + use<I> {
        let (ctx, mut left) = (self.ctx.clone(), 0);
        rows.inspect(move |_| {
            if left == 0 {
                or_stop(ctx.check_killed());
                left = LOOK_EVERY;
            }
            left -= 1;
        })
    }
}

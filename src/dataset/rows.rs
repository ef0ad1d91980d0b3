//! Rows of one partition, and what stops a task while it makes them.

mod sources;

use super::TaskEnv;
use crate::{BoxError, TaskResult, blocking};
pub(super) use sources::Parts;
use sources::{Kept, KillWatch, Mapped, UntilKilled};
use std::any::Any;
use std::fmt;
use std::mem::needs_drop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// The rows of one partition, made one by one as they are asked for.
///
/// It is not `Send`: for other threads, collect the rows first. Rows of a shuffle are looked up
/// when the first one, or how many there are, is asked for.
///
/// If all that are left are asked for at once (`for_each`, `fold`, `sum` and so on, and what an
/// action does), rows that own nothing and are small, as numbers are, may be made a thousand ahead.
///
/// If a row cannot be made (a file cannot be read, the output of an earlier stage is gone, the task
/// was killed), the task ends there: as by a panic, the code that asked for the row is unwound, but
/// the failure is the error.
pub struct Rows<T>(Box<dyn Source<T>>);

/// An iterator that may also be asked for all that is left, some rows at a time: a call that is not
/// known when this is compiled costs more than most rows.
trait Source<T> {
    fn next_row(&mut self) -> Option<T>;
    fn hint(&self) -> (usize, Option<usize>);
    /// `take` empties what it is given.
    fn drain(self: Box<Self>, take: &mut dyn FnMut(&mut Vec<T>));
}

/// Rows that may be made before the first of them is handed on: 1,024 numbers, fewer of what is
/// larger, only one of what may be large.
const fn rows_at_a_time<T>() -> usize {
    match size_of::<T>() {
        _ if needs_drop::<T>() => 1,
        0..=8 => 1024,
        9..=64 => 8192 / size_of::<T>(),
        _ => 1,
    }
}

/// How many rows are made before the first of them is handed on: as many as there may be, or fewer
/// if it takes its time to make and to use them, so that a kill is soon seen.
struct Handful {
    size: usize,
    most: usize,
    since: Instant,
}

const FIRST_HANDFUL: usize = 256;
const SHORT: Duration = Duration::from_millis(1);

impl Handful {
    fn of<T>() -> Self {
        let most = rows_at_a_time::<T>();
        Handful { size: most.min(FIRST_HANDFUL), most, since: Instant::now() }
    }

    /// One has been made and used.
    fn is_over(&mut self) {
        if self.most > 1 {
            let now = Instant::now();
            let is_short = now - std::mem::replace(&mut self.since, now) < SHORT;
            self.size = if is_short { self.most.min(self.size * 2) } else { self.size.div_ceil(2) };
        }
    }
}

impl<I: Iterator> Source<I::Item> for I {
    fn next_row(&mut self) -> Option<I::Item> {
        self.next()
    }

    fn hint(&self) -> (usize, Option<usize>) {
        self.size_hint()
    }

    fn drain(self: Box<Self>, take: &mut dyn FnMut(&mut Vec<I::Item>)) {
        let mut handful = Handful::of::<I::Item>();
        let mut made = Vec::with_capacity(handful.size);
        (*self).for_each(|row| {
            made.push(row);
            if made.len() == handful.size {
                take(&mut made);
                handful.is_over();
            }
        });
        take(&mut made);
    }
}

impl<T> fmt::Debug for Rows<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").finish_non_exhaustive()
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
        self.0.drain(&mut |rows| {
            folded = folded.take().map(|former| rows.drain(..).fold(former, &mut fold));
        });
        folded.unwrap_or_else(|| unreachable!("it is taken only while rows are folded in"))
    }
}

impl<T: 'static> Rows<T> {
    /// All of them, in memory.
    pub(super) fn into_vec(self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.room());
        self.0.drain(&mut |rows| all.append(rows));
        all
    }

    /// Has `take` empty all of them, some at a time.
    pub(super) fn for_some(self, take: &mut dyn FnMut(&mut Vec<T>)) {
        self.0.drain(take);
    }

    /// Room to make for them at first: what an iterator of a user's says may be anything.
    pub(super) fn room(&self) -> usize {
        self.size_hint().0.min(ROOM_MAX)
    }

    pub(super) fn new<I: Iterator<Item = T> + 'static>(
        rows: impl IntoIterator<Item = T, IntoIter = I>,
    ) -> Self {
        // Code that hands on what it was given hands on `Rows`.
        let mut rows = Some(rows.into_iter());
        let known = (&mut rows as &mut dyn Any).downcast_mut::<Option<Rows<T>>>();
        match (known.and_then(Option::take), rows) {
            (Some(rows), _) => rows,
            (None, Some(rows)) => Rows(Box::new(rows)),
            (None, None) => unreachable!("it is taken only as what is known"),
        }
    }

    /// Copies of one part of each of those that `find` finds.
    pub(super) fn kept(part: usize, find: impl Fn() -> Vec<Parts<T>> + 'static) -> Self
    where
        T: Clone,
    {
        Rows(Box::new(Kept::new(part, find)))
    }

    pub(super) fn mapped<U: 'static>(self, code: impl Fn(T) -> U + 'static) -> Rows<U> {
        Rows(Box::new(Mapped { rows: self, code }))
    }

    /// For rows of which one may become any number.
    pub(super) fn until_killed(self, env: &TaskEnv) -> Self {
        Rows(Box::new(UntilKilled { rows: self, watch: KillWatch::new(env.ctx.clone()) }))
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

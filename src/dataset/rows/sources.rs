//! Where rows come from, if not from an iterator.

use super::{Handful, Rows, Source, or_stop, rows_at_a_time};
use crate::blocking;
use std::cell::OnceCell;
use std::sync::Arc;

/// Copies of rows that are kept in memory: of one part of each of these.
pub(super) struct Kept<T, F> {
    /// Finds them, when the first row is asked for, or how many there are.
    find: F,
    part: usize,
    found: OnceCell<Found<T>>,
}

/// Rows by part. Shared by all who read them.
pub(in crate::dataset) type Parts<T> = Arc<Vec<Vec<T>>>;

struct Found<T> {
    all: Vec<Parts<T>>,
    /// The first that is not used up, and how many of its rows are.
    at: (usize, usize),
    left: usize,
}

impl<T, F: Fn() -> Vec<Parts<T>>> Kept<T, F> {
    pub(super) fn new(part: usize, find: F) -> Self {
        Kept { find, part, found: OnceCell::new() }
    }

    fn found(&self) -> &Found<T> {
        self.found.get_or_init(|| {
            let all = (self.find)();
            let left = all.iter().map(|parts| parts[self.part].len()).sum();
            Found { all, at: (0, 0), left }
        })
    }
}

impl<T: Clone, F: Fn() -> Vec<Parts<T>>> Source<T> for Kept<T, F> {
    fn next_row(&mut self) -> Option<T> {
        self.found();
        let found = self.found.get_mut()?;
        loop {
            let (of, row) = found.at;
            if let Some(row) = found.all.get(of)?[self.part].get(row) {
                found.at.1 += 1;
                found.left -= 1;
                return Some(row.clone());
            }
            found.at = (of + 1, 0);
        }
    }

    fn hint(&self) -> (usize, Option<usize>) {
        let left = self.found().left;
        (left, Some(left))
    }

    fn drain(self: Box<Self>, take: &mut dyn FnMut(&mut Vec<T>)) {
        let Found { all, at, .. } = self.found();
        let (of, mut used) = *at;
        let mut handful = Handful::of::<T>();
        let mut copies = Vec::with_capacity(handful.size);
        for parts in &all[of..] {
            let mut left = &parts[self.part][used..];
            while !left.is_empty() {
                let (rows, others) = left.split_at(left.len().min(handful.size));
                copies.extend_from_slice(rows);
                take(&mut copies);
                handful.is_over();
                left = others;
            }
            used = 0;
        }
    }
}

/// Each row of others, changed.
pub(super) struct Mapped<T, F> {
    pub(super) rows: Rows<T>,
    pub(super) code: F,
}

impl<T, U, F: Fn(T) -> U> Source<U> for Mapped<T, F> {
    fn next_row(&mut self) -> Option<U> {
        self.rows.next().map(&self.code)
    }

    fn hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }

    fn drain(self: Box<Self>, take: &mut dyn FnMut(&mut Vec<U>)) {
        let Mapped { rows, code } = *self;
        let at_a_time = rows_at_a_time::<U>();
        let mut made = Vec::with_capacity(at_a_time);
        rows.0.drain(&mut |rows| {
            if at_a_time == 1 {
                rows.drain(..).for_each(|row| {
                    made.push(code(row));
                    take(&mut made);
                });
            } else {
                made.extend(rows.drain(..).map(&code));
                take(&mut made);
            }
        });
    }
}

/// Rows until the task is killed.
pub(super) struct UntilKilled<T> {
    pub(super) rows: Rows<T>,
    pub(super) watch: KillWatch,
}

/// Looks whether the task was killed, every few rows.
pub(super) struct KillWatch {
    ctx: blocking::BarrierTaskContext,
    unseen: usize,
}

/// Rows between two looks, if they come one by one.
const LOOK_EVERY: usize = 256;

impl KillWatch {
    pub(super) fn new(ctx: blocking::BarrierTaskContext) -> Self {
        KillWatch { ctx, unseen: LOOK_EVERY }
    }

    /// So many rows have been made at once.
    fn made(&mut self, rows: usize) {
        self.unseen += rows;
        if rows > 1 || self.unseen >= LOOK_EVERY {
            or_stop(self.ctx.check_killed());
            self.unseen = 0;
        }
    }
}

impl<T> Source<T> for UntilKilled<T> {
    fn next_row(&mut self) -> Option<T> {
        let row = self.rows.next();
        self.watch.made(1);
        row
    }

    fn hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }

    fn drain(self: Box<Self>, take: &mut dyn FnMut(&mut Vec<T>)) {
        let UntilKilled { rows, mut watch } = *self;
        rows.0.drain(&mut |rows| {
            watch.made(rows.len());
            take(rows);
        });
    }
}

//! What will happen when.

use std::collections::BTreeMap;
use std::time::Duration;

/// When an entry comes, and in which order among those of the same time.
pub(super) type Turn = (Duration, u64);

/// The clock and everything that is due, in order of time and then of insertion.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    now: Duration,
    next: u64,
    entries: BTreeMap<Turn, T>,
}

impl<T> Agenda<T> {
    pub(super) fn new() -> Self {
        Agenda { now: Duration::ZERO, next: 0, entries: BTreeMap::new() }
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// Times beyond the clock's range are its end.
    pub(super) fn add(&mut self, after: Duration, entry: T) -> Turn {
        self.add_at(self.now.saturating_add(after), entry)
    }

    pub(super) fn add_at(&mut self, at: Duration, entry: T) -> Turn {
        let turn = (at.max(self.now), self.next);
        self.next += 1;
        self.entries.insert(turn, entry);
        turn
    }

    /// Puts off what [`Agenda::next`] has just given; it stays before what was added after it.
    pub(super) fn put_off(&mut self, (_, order): Turn, until: Duration, entry: T) -> Turn {
        let turn = (until, order);
        self.entries.insert(turn, entry);
        turn
    }

    pub(super) fn remove(&mut self, turn: Turn) -> Option<T> {
        self.entries.remove(&turn)
    }

    /// When the next entry is due.
    pub(super) fn due(&self) -> Option<Duration> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    /// Moves the clock to the next entry.
    pub(super) fn next(&mut self) -> Option<(Turn, T)> {
        let (turn, entry) = self.entries.pop_first()?;
        self.now = turn.0;
        Some((turn, entry))
    }
}

//! The timers of a barrier's rounds.

use crate::{TimerFired, TimerRequest};
use actix::{Recipient, WeakRecipient};
use phalanx_protocol::{SyncTimer, TimerKey};
use std::time::{Duration, Instant};

/// Every round sets two timers and cancels them microseconds later. So they are kept here, and the
/// timer actor, which is on another thread, is asked for one wake-up at a time: the next one when
/// that has come. A round then costs no message to it, and an attempt two.
pub(crate) struct RoundTimers {
    timer: Recipient<TimerRequest>,
    /// Who is told when a timer fires, once it is there. Weak, for it has the barrier.
    notify: Option<WeakRecipient<TimerFired>>,
    /// Whether the timer actor is asked for each of them: for timers that are cranked by hand, and
    /// have another idea of time.
    all: bool,
    /// Those that have been set, and when they fire.
    set: Vec<(SyncTimer, Duration, Instant)>,
    /// The one that the timer actor has, of this round or a former one.
    asked: Option<(SyncTimer, Instant)>,
}

impl RoundTimers {
    pub(crate) fn new(timer: Recipient<TimerRequest>) -> Self {
        RoundTimers { timer, notify: None, all: true, set: Vec::new(), asked: None }
    }

    /// One wake-up at a time.
    pub(crate) fn gather(&mut self) {
        self.all = false;
    }

    /// Has this recipient told when timers fire.
    pub(crate) fn notify(&mut self, recipient: Recipient<TimerFired>) {
        self.notify = Some(recipient.downgrade());
        if self.all {
            for (key, after, _) in self.set.clone() {
                self.ask(key, after);
            }
        }
        self.settle();
    }

    pub(crate) fn set(&mut self, key: SyncTimer, now: Instant, after: Duration) {
        // Beyond what the clock can say it never fires.
        let Some(due) = now.checked_add(after) else { return };
        self.set.retain(|(known, ..)| *known != key);
        self.set.push((key, after, due));
        if self.all {
            self.ask(key, after);
        }
    }

    /// Whether it could be asked for.
    fn ask(&self, key: SyncTimer, after: Duration) -> bool {
        // If the actor that is to be told is gone, the barrier is about to be given up.
        let Some(notify) = self.notify.as_ref().and_then(WeakRecipient::upgrade) else {
            return false;
        };
        self.timer.do_send(TimerRequest::Set { key: TimerKey::Sync(key), after, notify });
        true
    }

    /// What was set and cancelled in this step is all: has the next one asked for, unless a wake-up
    /// comes before it anyway. One that would come after it is taken back: it would keep the actor
    /// that it is for until then, perhaps for a year.
    pub(crate) fn settle(&mut self) {
        let next = self.set.iter().min_by_key(|(_, _, due)| *due);
        let Some(&(key, _, due)) = next.filter(|_| !self.all) else { return };
        if self.asked.is_some_and(|(_, asked)| asked <= due) {
            return;
        }
        self.end();
        if self.ask(key, due.saturating_duration_since(Instant::now())) {
            self.asked = Some((key, due));
        }
    }

    pub(crate) fn cancel(&mut self, key: SyncTimer) {
        self.set.retain(|(known, ..)| *known != key);
        if self.all {
            self.timer.do_send(TimerRequest::Cancel { key: TimerKey::Sync(key) });
        }
    }

    /// Takes the wake-up back: no round follows.
    pub(crate) fn end(&mut self) {
        if let Some((key, _)) = self.asked.take() {
            self.timer.do_send(TimerRequest::Cancel { key: TimerKey::Sync(key) });
        }
    }

    /// Those that have really fired.
    pub(crate) fn fired(&mut self, key: SyncTimer) -> Vec<SyncTimer> {
        if self.all {
            return vec![key];
        }
        if self.asked.is_some_and(|(asked, _)| asked == key) {
            self.asked = None;
        }
        let now = Instant::now();
        let fired = self.set.extract_if(.., |(_, _, due)| *due <= now);
        let fired = fired.map(|(key, ..)| key).collect();
        self.settle();
        fired
    }
}

#[cfg(test)]
mod tests;

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
        for (key, after, due) in self.set.clone() {
            self.ask(key, after, due);
        }
    }

    pub(crate) fn set(&mut self, key: SyncTimer, after: Duration) {
        // Beyond what the clock can say it never fires.
        let Some(due) = Instant::now().checked_add(after) else { return };
        self.set.retain(|(known, ..)| *known != key);
        self.set.push((key, after, due));
        self.ask(key, after, due);
    }

    fn ask(&mut self, key: SyncTimer, after: Duration, due: Instant) {
        let comes_first = self.asked.is_none_or(|(_, asked)| due < asked);
        // If the actor that is to be told is gone, the barrier is about to be given up.
        let notify = self.notify.as_ref().and_then(WeakRecipient::upgrade);
        if let Some(notify) = notify.filter(|_| self.all || comes_first) {
            self.asked = Some((key, due));
            self.timer.do_send(TimerRequest::Set { key: TimerKey::Sync(key), after, notify });
        }
    }

    pub(crate) fn cancel(&mut self, key: SyncTimer) {
        self.set.retain(|(known, ..)| *known != key);
        if self.all {
            self.timer.do_send(TimerRequest::Cancel { key: TimerKey::Sync(key) });
        }
    }

    /// No round follows.
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
        if let Some(&(key, _, due)) = self.set.iter().min_by_key(|(_, _, due)| *due) {
            self.ask(key, due - now, due);
        }
        fired
    }
}

#[cfg(test)]
mod tests;

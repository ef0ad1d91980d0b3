//! The other side of a link says nothing any more.

use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Watches for the silence of the other side. It counts half heartbeats that did not come, not
/// time: a process that was stopped itself has heard nothing, and finds what was said once it goes
/// on.
pub(crate) struct Silence {
    /// Two to a heartbeat: a loss is noticed half a heartbeat after the limit at the latest.
    ticks: Interval,
    is_between: bool,
    silent: u32,
    allowed: u32,
}

impl Silence {
    pub(crate) fn new(interval: Duration, limit: Duration) -> Self {
        let half = interval.max(Duration::from_millis(1)) / 2;
        let mut ticks = interval_at(Instant::now() + half, half);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let allowed = limit.as_nanos().div_ceil(half.as_nanos());
        let allowed = u32::try_from(allowed).unwrap_or(u32::MAX).max(2);
        Silence { ticks, is_between: false, silent: 0, allowed }
    }

    /// Something was heard.
    pub(crate) fn is_over(&mut self) {
        self.silent = 0;
    }

    /// The next heartbeat is due; true, perhaps before it is, if the other side is lost.
    pub(crate) async fn next(&mut self) -> bool {
        loop {
            self.ticks.tick().await;
            self.silent += 1;
            self.is_between = !self.is_between;
            if self.silent > self.allowed || !self.is_between {
                return self.silent > self.allowed;
            }
        }
    }
}

#[cfg(test)]
mod tests;

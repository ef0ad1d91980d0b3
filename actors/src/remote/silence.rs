//! The other side of a link says nothing any more.

use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Watches for the silence of the other side. It counts heartbeats that did not come, not time: a
/// process that was stopped itself has heard nothing, and finds what was said once it goes on.
pub(crate) struct Silence {
    ticks: Interval,
    silent: u32,
    allowed: u32,
}

impl Silence {
    pub(crate) fn new(interval: Duration, limit: Duration) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let allowed = limit.as_nanos().div_ceil(interval.as_nanos());
        Silence { ticks, silent: 0, allowed: u32::try_from(allowed).unwrap_or(u32::MAX).max(1) }
    }

    /// Something was heard.
    pub(crate) fn is_over(&mut self) {
        self.silent = 0;
    }

    /// The next heartbeat is due; true if the other side is lost.
    pub(crate) async fn next(&mut self) -> bool {
        self.ticks.tick().await;
        self.silent += 1;
        self.silent > self.allowed
    }
}

#[cfg(test)]
mod tests;

//! Looks out for what comes next before its thread is put to rest.

use crate::task::lock;
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;

/// A thread that rests takes longer to be woken than a round takes: while syncs follow one another
/// closely, the thread of the links looks again and again whether something has come. All of its
/// connections share one look-out. It lets others have the processor between two looks, and ever
/// more rarely tries it again after it was in vain.
pub(crate) struct LookOut {
    state: Mutex<State>,
    begins: Notify,
}

struct State {
    /// Until then it looks.
    until: Instant,
    is_looking: bool,
    /// Syncs that pass without looking after the last time in vain, and how many of them are left.
    skipped: u32,
    to_skip: u32,
}

/// Longer than a round takes from one sync to the next if the tasks do nothing else and all threads
/// have to be woken.
const LIMIT: Duration = Duration::from_micros(150);

const SKIPPED_MAX: u32 = 1023;

static HAS_SEVERAL_PROCESSORS: LazyLock<bool> =
    LazyLock::new(|| thread::available_parallelism().is_ok_and(|count| count.get() > 1));

impl LookOut {
    pub(crate) fn new() -> Self {
        let state = State { until: Instant::now(), is_looking: false, skipped: 0, to_skip: 0 };
        LookOut { state: Mutex::new(state), begins: Notify::new() }
    }

    /// A sync has come: the next one may follow.
    pub(crate) fn sync_came(&self) {
        if !*HAS_SEVERAL_PROCESSORS {
            return;
        }
        let mut state = lock(&self.state);
        let now = Instant::now();
        if state.is_looking {
            (state.skipped, state.until) = (0, now + LIMIT);
        } else if state.to_skip > 0 {
            state.to_skip -= 1;
        } else {
            (state.is_looking, state.until) = (true, now + LIMIT);
            self.begins.notify_one();
        }
    }

    /// Runs on the thread beside its connections.
    pub(crate) async fn run(&self) {
        loop {
            self.begins.notified().await;
            while self.is_looking() {
                thread::yield_now();
                // The runtime looks at its sockets, and does not rest.
                yield_now().await;
            }
        }
    }

    fn is_looking(&self) -> bool {
        let mut state = lock(&self.state);
        if state.is_looking && Instant::now() >= state.until {
            state.is_looking = false;
            state.skipped = (2 * state.skipped + 1).min(SKIPPED_MAX);
            state.to_skip = state.skipped;
        }
        state.is_looking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn it_looks_ever_more_rarely_while_it_is_in_vain() {
        let look_out = LookOut::new();
        let mut looked = Vec::new();
        for sync in 1..100 {
            look_out.sync_came();
            if look_out.is_looking() {
                looked.push(sync);
            }
            advance(LIMIT).await;
            assert!(!look_out.is_looking());
        }
        let several = *HAS_SEVERAL_PROCESSORS;
        assert_eq!(looked, if several { vec![1, 3, 7, 15, 31, 63] } else { vec![] });
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_as_long_as_something_comes() {
        let look_out = LookOut::new();
        for _ in 0..100 {
            look_out.sync_came();
            advance(LIMIT - Duration::from_nanos(1)).await;
            assert_eq!(look_out.is_looking(), *HAS_SEVERAL_PROCESSORS);
        }
        advance(LIMIT).await;
        assert!(!look_out.is_looking());
        // What was in vain once is tried again soon.
        look_out.sync_came();
        look_out.sync_came();
        assert_eq!(look_out.is_looking(), *HAS_SEVERAL_PROCESSORS);
    }
}

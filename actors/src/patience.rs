//! How long a thread looks out for others before it rests.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::LazyLock;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// As long as it takes to be put to rest and woken again: who comes within it comes sooner than by
/// waking.
const LIMIT: Duration = Duration::from_micros(30);
/// Looks between two readings of the clock.
const LOOKS: u32 = 32;
/// The first waits are not tried: others are still being launched, and need the processor.
const FIRST_SKIPPED: u32 = 2;
/// Most waits in a row that are not even tried, because those before were in vain.
const SKIPPED_MAX: u32 = 1_023;

thread_local! {
    /// Groups whose runs are on this thread.
    static GROUPS: Cell<usize> = const { Cell::new(0) };
}

/// With one processor nobody can come while another looks out.
static HAS_SEVERAL_PROCESSORS: LazyLock<bool> =
    LazyLock::new(|| available_parallelism().is_ok_and(|count| count.get() > 1));

/// Looking out for the other threads' shares of a gang.
///
/// Waking a thread that rests takes longer than everything else in a round. So a group that is
/// alone on its thread looks out for a moment, and only as long as that pays: after each time in
/// vain it lets twice as many waits pass without it, up to [`SKIPPED_MAX`].
pub(crate) struct Patience {
    /// How many waits were let pass after the last time in vain; 0 if it was not in vain.
    skipped: u32,
    to_skip: u32,
}

impl Patience {
    /// That of a group on this thread.
    pub(crate) fn new() -> Self {
        let _ = GROUPS.try_with(|groups| groups.set(groups.get() + 1));
        Patience { skipped: 0, to_skip: FIRST_SKIPPED }
    }

    /// Whether it came within the time that pays.
    pub(crate) fn wait_until(&mut self, has_come: impl Fn() -> bool) -> bool {
        let is_alone = GROUPS.try_with(Cell::get) == Ok(1);
        if !is_alone || !*HAS_SEVERAL_PROCESSORS {
            return false;
        }
        if self.to_skip > 0 {
            self.to_skip -= 1;
            return false;
        }
        let start = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if has_come() {
                    self.skipped = 0;
                    return true;
                }
                spin_loop();
            }
            // Looked at last: one that was held up meanwhile has looked all the same.
            if start.elapsed() >= LIMIT {
                break;
            }
        }
        self.skipped = (2 * self.skipped + 1).min(SKIPPED_MAX);
        self.to_skip = self.skipped;
        false
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        let _ = GROUPS.try_with(|groups| groups.set(groups.get() - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it looked at all in so many waits.
    fn tries(patience: &mut Patience, waits: u32, comes: bool) -> u32 {
        let looked = Cell::new(false);
        let look = |_| {
            looked.set(false);
            let has_come = patience.wait_until(|| {
                looked.set(true);
                comes
            });
            assert_eq!(has_come, comes && looked.get());
            u32::from(looked.get())
        };
        (0..waits).map(look).sum()
    }

    #[test]
    fn it_looks_out_as_long_as_that_pays_and_ever_less_if_not() {
        if !*HAS_SEVERAL_PROCESSORS {
            return;
        }
        let mut patience = Patience::new();
        assert_eq!(tries(&mut patience, FIRST_SKIPPED, true), 0);
        assert_eq!(tries(&mut patience, 100, true), 100);
        // After each time in vain 1, 3, 7, ... waits pass.
        assert_eq!(tries(&mut patience, 1 + 2 + 4 + 8, false), 4);
        drop(patience);
        assert!(tries(&mut Patience::new(), 20_000, false) < 40);
    }

    #[test]
    fn two_groups_on_a_thread_do_not_hold_each_other_up() {
        let mut first = Patience::new();
        let second = Patience::new();
        assert_eq!(tries(&mut first, 10, true), 0);
        drop(second);
        let alone = if *HAS_SEVERAL_PROCESSORS { 10 } else { 0 };
        assert_eq!(tries(&mut first, FIRST_SKIPPED + 10, true), alone);
    }
}

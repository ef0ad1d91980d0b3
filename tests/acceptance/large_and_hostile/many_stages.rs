//! Many stages at once: L1.

use super::Dice;
use crate::observe::{is_idle, local};
use bytes::Bytes;
use phalanx::{Runtime, Stage};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A message that is known to be gone when its token is.
struct Message {
    bytes: [u8; 24],
    _token: Arc<()>,
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Whose message it is, of which sync.
fn label(gang: usize, epoch: usize, rank: usize) -> [u8; 24] {
    let mut label = [0; 24];
    for (part, number) in label.chunks_exact_mut(8).zip([gang, epoch, rank]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    label
}

/// Every sync of every stage gathers the messages of this stage, this epoch and these ranks.
fn all_are_exact(runtime: &Runtime, stages: usize, tasks: usize, syncs: usize) {
    let token = Arc::new(());
    let run = |gang: usize| {
        let token = token.clone();
        Stage::tasks(tasks).max_attempts(1).run(runtime, async move |ctx| {
            let mut dice = Dice::new(gang * tasks + ctx.rank());
            for epoch in 0..syncs {
                match dice.roll(32) {
                    0 => tokio::time::sleep(Duration::from_micros(dice.roll(2_000) as u64)).await,
                    1..16 => tokio::task::yield_now().await,
                    _ => {}
                }
                let bytes = label(gang, epoch, ctx.rank());
                let mine = Bytes::from_owner(Message { bytes, _token: token.clone() });
                let all = ctx.all_gather_bytes(mine).await?;
                let expected: Vec<_> = (0..tasks).map(|rank| label(gang, epoch, rank)).collect();
                assert!(all.iter().map(|it| &it[..]).eq(expected.iter().map(|it| &it[..])));
            }
            Ok(ctx.rank())
        })
    };
    let handles: Vec<_> = (0..stages).map(run).collect();
    for handle in handles {
        assert!(handle.wait().unwrap().into_iter().eq(0..tasks));
    }
    assert!(is_idle(runtime));
    // What nobody wants any more is dropped in the background.
    let start = Instant::now();
    while Arc::strong_count(&token) > 1 {
        assert!(start.elapsed() < Duration::from_secs(60), "messages or code are still there");
        std::thread::yield_now();
    }
}

#[test]
fn l1_a_hundred_stages_at_once_do_not_meet_and_leave_nothing_behind() {
    let runtime = local(100 * 16);
    all_are_exact(&runtime, 100, 16, 20);
}

#[test]
fn l1_more_stages_than_slots_take_turns_and_do_not_meet() {
    let runtime = local(5 * 16 + 3);
    all_are_exact(&runtime, 60, 16, 10);
}

/// Resident memory in MiB, where the system tells.
fn resident() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: usize = pages.split(' ').nth(1)?.parse().ok()?;
    Some((resident * 4096) >> 20)
}

#[test]
#[ignore = "16,000 tasks and 1.6 million arrivals, three times: alone, in a release build"]
fn l1_a_thousand_stages_at_once_return_to_the_memory_they_began_with() {
    let mut after = Vec::new();
    for _ in 0..3 {
        let runtime = local(1000 * 16);
        let start = Instant::now();
        all_are_exact(&runtime, 1000, 16, 100);
        let took = start.elapsed();
        runtime.shutdown_blocking(Duration::from_secs(5)).unwrap();
        println!("{took:?}, then {:?} MiB", resident());
        after.extend(resident());
    }
    // The first run is what the allocator keeps.
    assert!(after.windows(2).all(|pair| pair[1] <= pair[0] + 32), "{after:?} MiB");
}

use super::*;

const INTERVAL: Duration = Duration::from_secs(1);

/// Heartbeats that are missed until the other side is lost.
async fn missed(silence: &mut Silence) -> u32 {
    let mut missed = 1;
    while !silence.next().await {
        missed += 1;
    }
    missed
}

#[tokio::test(start_paused = true)]
async fn silence_ends_half_a_heartbeat_after_the_timeout() {
    for (limit, expected) in [(10, 11), (1, 2)] {
        let started = Instant::now();
        let mut silence = Silence::new(INTERVAL, limit * INTERVAL);
        assert_eq!(missed(&mut silence).await, expected);
        assert_eq!(started.elapsed(), limit * INTERVAL + INTERVAL / 2);
    }
    for limit in [Duration::ZERO, INTERVAL / 3] {
        let mut silence = Silence::new(INTERVAL, limit);
        assert_eq!(missed(&mut silence).await, 2, "one heartbeat may be missing");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_heard_ends_the_silence() {
    let mut silence = Silence::new(INTERVAL, 3 * INTERVAL);
    for _ in 0..10 {
        for _ in 0..3 {
            assert!(!silence.next().await);
        }
        silence.is_over();
    }
    assert_eq!(missed(&mut silence).await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_stopped_itself_has_missed_one_heartbeat_not_all() {
    let mut silence = Silence::new(INTERVAL, 3 * INTERVAL);
    tokio::time::advance(100 * INTERVAL).await;
    assert!(!silence.next().await);
    assert_eq!(missed(&mut silence).await, 3);
}

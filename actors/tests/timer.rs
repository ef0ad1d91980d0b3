//! The timer actor, on virtual time.

use actix::prelude::*;
use phalanx_actors::{DURATION_MAX, TimerActor, TimerFired, TimerRequest};
use phalanx_protocol::{SchedulerTimer, StageAttemptId, StageId, TimerKey};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

struct Listener(mpsc::UnboundedSender<TimerKey>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<TimerFired> for Listener {
    type Result = ();

    fn handle(&mut self, TimerFired { key }: TimerFired, _ctx: &mut Self::Context) {
        self.0.send(key).unwrap();
    }
}

fn key(stage: u64) -> TimerKey {
    TimerKey::Scheduler(SchedulerTimer::Retry(StageAttemptId { stage: StageId(stage), attempt: 0 }))
}

struct Fixture {
    timer: Addr<TimerActor>,
    notify: Recipient<TimerFired>,
    fired: mpsc::UnboundedReceiver<TimerKey>,
}

impl Fixture {
    /// Time of this thread stands still and jumps to the next timer when nothing else is to be
    /// done.
    fn start() -> Self {
        tokio::time::pause();
        let (sender, fired) = mpsc::unbounded_channel();
        let notify = Listener(sender).start().recipient();
        Fixture { timer: TimerActor::new().start(), notify, fired }
    }

    fn set(&self, stage: u64, after: Duration) {
        let (key, notify) = (key(stage), self.notify.clone());
        self.timer.do_send(TimerRequest::Set { key, after, notify });
    }

    fn cancel(&self, stage: u64) {
        self.timer.do_send(TimerRequest::Cancel { key: key(stage) });
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[actix::test]
async fn timers_fire_in_the_order_in_which_they_are_due() {
    let mut fixture = Fixture::start();
    let start = Instant::now();
    for (stage, seconds) in [(1, 3600), (2, 1), (3, 60)] {
        fixture.set(stage, SECOND * seconds);
    }
    for (stage, seconds) in [(2, 1), (3, 60), (1, 3600)] {
        assert_eq!(fixture.fired.recv().await, Some(key(stage)));
        let late = start.elapsed() - SECOND * seconds;
        assert!(late < Duration::from_millis(10), "{late:?}");
    }
}

#[actix::test]
async fn a_cancelled_timer_does_not_fire_and_a_key_set_again_starts_anew() {
    let mut fixture = Fixture::start();
    let start = Instant::now();
    fixture.set(1, SECOND);
    fixture.set(2, SECOND);
    fixture.set(3, 5 * SECOND);
    fixture.cancel(1);
    fixture.cancel(9);
    fixture.set(2, 10 * SECOND);
    assert_eq!(fixture.fired.recv().await, Some(key(3)));
    assert_eq!(fixture.fired.recv().await, Some(key(2)));
    assert!(start.elapsed() >= 10 * SECOND);
    fixture.set(4, Duration::ZERO);
    assert_eq!(fixture.fired.recv().await, Some(key(4)), "nothing else was left");
}

#[actix::test]
async fn a_time_beyond_all_measure_is_cut_and_not_a_panic() {
    let mut fixture = Fixture::start();
    fixture.set(1, Duration::MAX);
    fixture.set(2, DURATION_MAX);
    fixture.set(3, SECOND);
    assert_eq!(fixture.fired.recv().await, Some(key(3)));
    assert!(fixture.timer.connected());
}

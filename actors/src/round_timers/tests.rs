use super::*;
use actix::prelude::*;
use phalanx_protocol::{Epoch, StageAttemptId, SyncTimerKind};
use std::sync::mpsc;

/// Passes on what the timer actor is asked for.
struct Asked(mpsc::Sender<(bool, SyncTimer)>);

impl Actor for Asked {
    type Context = Context<Self>;
}

impl Handler<TimerRequest> for Asked {
    type Result = ();

    fn handle(&mut self, request: TimerRequest, _ctx: &mut Self::Context) {
        let asked = match request {
            TimerRequest::Set { key: TimerKey::Sync(key), .. } => (true, key),
            TimerRequest::Cancel { key: TimerKey::Sync(key) } => (false, key),
            _ => return,
        };
        self.0.send(asked).unwrap();
    }
}

impl Handler<TimerFired> for Asked {
    type Result = ();

    fn handle(&mut self, _: TimerFired, _ctx: &mut Self::Context) {}
}

fn key(epoch: u64) -> SyncTimer {
    let (attempt, kind) = (StageAttemptId::default(), SyncTimerKind::Timeout);
    SyncTimer { attempt, epoch: Epoch(epoch), opening: epoch, kind }
}

/// Runs with timers, and returns what the timer actor was asked for.
fn asked(gathered: bool, run: fn(&mut RoundTimers)) -> Vec<(bool, SyncTimer)> {
    let (tell, told) = mpsc::channel();
    System::new().block_on(async move {
        let actor = Asked(tell).start();
        let mut timers = RoundTimers::new(actor.clone().recipient());
        if gathered {
            timers.gather();
        }
        timers.notify(actor.clone().recipient());
        run(&mut timers);
        drop(timers);
        // Behind all that was asked.
        actor.send(TimerFired { key: TimerKey::Sync(key(0)) }).await.unwrap();
    });
    told.try_iter().collect()
}

const LONG: Duration = Duration::from_secs(1_000);

fn a_thousand_rounds(timers: &mut RoundTimers) {
    for epoch in 0..1_000 {
        timers.set(key(epoch), Instant::now(), LONG);
        timers.settle();
        timers.cancel(key(epoch));
        timers.settle();
    }
    timers.end();
    timers.end();
}

#[test]
fn a_thousand_rounds_cost_two_messages() {
    assert_eq!(asked(true, a_thousand_rounds), [(true, key(0)), (false, key(0))]);
}

#[test]
fn a_clock_cranked_by_hand_is_asked_for_all() {
    let all = asked(false, a_thousand_rounds);
    assert_eq!(all.len(), 2_000);
    assert_eq!(all[1_998..], [(true, key(999)), (false, key(999))]);
}

/// A round sets its timeout, which may be a year, and then its note. What is left with the timer
/// keeps the barrier's actor.
#[test]
fn nothing_is_left_with_the_timer_at_the_end() {
    let all = asked(true, |timers| {
        timers.set(key(0), Instant::now(), 1_000 * LONG);
        timers.set(key(1), Instant::now(), LONG);
        timers.settle();
        timers.cancel(key(0));
        timers.cancel(key(1));
        timers.end();
    });
    assert_eq!(all, [(true, key(1)), (false, key(1))]);
}

#[test]
fn what_comes_sooner_takes_the_place_of_what_was_asked_for() {
    let all = asked(true, |timers| {
        for (epoch, after) in [(0, LONG), (1, LONG / 2), (2, LONG)] {
            timers.set(key(epoch), Instant::now(), after);
            timers.settle();
        }
        timers.end();
    });
    assert_eq!(all, [(true, key(0)), (false, key(0)), (true, key(1)), (false, key(1))]);
}

#[test]
fn a_wake_up_for_a_former_round_asks_for_the_next_of_this_one() {
    let all = asked(true, |timers| {
        timers.set(key(0), Instant::now(), Duration::ZERO);
        timers.settle();
        timers.cancel(key(0));
        timers.set(key(1), Instant::now(), LONG);
        timers.settle();
        assert_eq!(timers.fired(key(0)), [], "it was cancelled");
    });
    assert_eq!(all, [(true, key(0)), (true, key(1))]);
}

#[test]
fn what_is_due_has_fired_whatever_the_wake_up_was_for() {
    let all = asked(true, |timers| {
        timers.set(key(0), Instant::now(), Duration::ZERO);
        timers.set(key(1), Instant::now(), Duration::ZERO);
        timers.set(key(2), Instant::now(), LONG);
        timers.settle();
        assert_eq!(timers.fired(key(0)), [key(0), key(1)]);
        assert_eq!(timers.fired(key(0)), []);
    });
    assert_eq!(all, [(true, key(0)), (true, key(2))]);
}

//! What unit tests of one actor need: a timer that is cranked by hand, and a way to make an actor
//! fail.

pub use crate::remote::peer::Peer;
use crate::{BarrierCoordinatorActor, ContextBarrierStateActor, TimerFired, TimerRequest};
use actix::prelude::*;
use phalanx_protocol::TimerKey;
use std::collections::BTreeMap;
use std::time::Duration;

/// Stands in for the `TimerActor`: time passes only when told to.
///
/// ```
/// # use phalanx_actors::testing::{Advance, ManualTimer};
/// # use actix::prelude::*;
/// # actix_rt::System::new().block_on(async {
/// let timer = ManualTimer::default().start();
/// // ... start an actor with `timer.clone().recipient()` ...
/// let fired = timer.send(Advance(std::time::Duration::from_secs(3600))).await.unwrap();
/// assert!(fired.is_empty(), "nobody set a timer");
/// # });
/// ```
#[derive(Default)]
pub struct ManualTimer {
    now: Duration,
    /// By time due and order of setting.
    armed: BTreeMap<(Duration, u64), (TimerKey, Recipient<TimerFired>)>,
    set_so_far: u64,
}

/// Let this much time pass: fires what is due in that time, in order, and tells what that was.
/// Timers that are set in reply fire with the next `Advance` at the earliest.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Vec<TimerKey>")]
pub struct Advance(pub Duration);

/// Which timers are set, and in how long each is due, soonest first.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Vec<(TimerKey, Duration)>")]
pub struct GetArmed;

impl Actor for ManualTimer {
    type Context = Context<Self>;
}

impl Handler<TimerRequest> for ManualTimer {
    type Result = ();

    fn handle(&mut self, request: TimerRequest, _ctx: &mut Self::Context) {
        match request {
            TimerRequest::Set { key, after, notify } => {
                self.armed.retain(|_, (armed, _)| *armed != key);
                self.set_so_far += 1;
                let due = self.now.saturating_add(after);
                self.armed.insert((due, self.set_so_far), (key, notify));
            }
            TimerRequest::Cancel { key } => self.armed.retain(|_, (armed, _)| *armed != key),
        }
    }
}

impl Handler<Advance> for ManualTimer {
    type Result = MessageResult<Advance>;

    fn handle(&mut self, Advance(by): Advance, _ctx: &mut Self::Context) -> Self::Result {
        self.now = self.now.saturating_add(by);
        let next = self.now.saturating_add(Duration::from_nanos(1));
        let later = self.armed.split_off(&(next, 0));
        let due = std::mem::replace(&mut self.armed, later);
        let fired = due.into_values().map(|(key, notify)| {
            notify.do_send(TimerFired { key });
            key
        });
        MessageResult(fired.collect())
    }
}

impl Handler<GetArmed> for ManualTimer {
    type Result = MessageResult<GetArmed>;

    fn handle(&mut self, _: GetArmed, _ctx: &mut Self::Context) -> Self::Result {
        let armed = self.armed.iter();
        MessageResult(armed.map(|((due, _), (key, _))| (*key, *due - self.now)).collect())
    }
}

/// Makes the actor panic while it handles this message.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct InjectPanic;

impl Handler<InjectPanic> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, _: InjectPanic, _ctx: &mut Self::Context) {
        panic!("a panic injected by a test");
    }
}

impl Handler<InjectPanic> for BarrierCoordinatorActor {
    type Result = ();

    fn handle(&mut self, _: InjectPanic, _ctx: &mut Self::Context) {
        panic!("a panic injected by a test");
    }
}

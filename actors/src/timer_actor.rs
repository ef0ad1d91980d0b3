//! One clock for all timeouts.

use actix::prelude::*;
use futures_util::StreamExt;
use phalanx_protocol::TimerKey;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::time::{DelayQueue, delay_queue};

/// The longest time a timer can be set for: two years.
pub const DURATION_MAX: Duration = Duration::from_secs(730 * 24 * 60 * 60);

/// Set or cancel a timer.
#[derive(Message)]
#[rtype(result = "()")]
pub enum TimerRequest {
    /// Fire once after this time. Setting a key again starts it anew.
    Set {
        /// Its name.
        key: TimerKey,
        /// When, from now; cut at [`DURATION_MAX`].
        after: Duration,
        /// Who is told.
        notify: Recipient<TimerFired>,
    },
    /// Do not fire; ignored if it has.
    Cancel {
        /// Its name.
        key: TimerKey,
    },
}

/// The time is over. May come after a cancel that crossed it: the key says what it belonged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct TimerFired {
    /// Its name.
    pub key: TimerKey,
}

/// Fires timers, on real time. Start it on an `Arbiter` of its own: timers on a thread with a busy
/// actor fire late. Its queue stands beside the actor, in a task, so that neither the number of
/// timers nor that of messages slows the other.
#[derive(Default)]
pub struct TimerActor {
    requests: Option<mpsc::UnboundedSender<TimerRequest>>,
}

impl TimerActor {
    /// An actor without timers.
    pub fn new() -> Self {
        TimerActor::default()
    }
}

impl Actor for TimerActor {
    type Context = Context<Self>;

    fn started(&mut self, _ctx: &mut Self::Context) {
        let (requests, received) = mpsc::unbounded_channel();
        self.requests = Some(requests);
        actix_rt::spawn(run_timers(received));
    }
}

impl Handler<TimerRequest> for TimerActor {
    type Result = ();

    fn handle(&mut self, request: TimerRequest, _ctx: &mut Self::Context) {
        if let Some(requests) = &self.requests {
            // Closed only while the thread ends, when no timer matters any more.
            let _ = requests.send(request);
        }
    }
}

/// Ends when the actor does.
async fn run_timers(mut requests: mpsc::UnboundedReceiver<TimerRequest>) {
    let mut queue: DelayQueue<TimerKey> = DelayQueue::new();
    let mut armed: HashMap<TimerKey, (delay_queue::Key, Recipient<TimerFired>)> = HashMap::new();
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                None => return,
                Some(TimerRequest::Set { key, after, notify }) => {
                    if let Some((slot, _)) = armed.remove(&key) {
                        queue.remove(&slot);
                    }
                    let slot = queue.insert(key, after.min(DURATION_MAX));
                    armed.insert(key, (slot, notify));
                }
                Some(TimerRequest::Cancel { key }) => {
                    if let Some((slot, _)) = armed.remove(&key) {
                        queue.remove(&slot);
                    }
                }
            },
            Some(expired) = queue.next(), if !queue.is_empty() => {
                let key = expired.into_inner();
                if let Some((_, notify)) = armed.remove(&key) {
                    notify.do_send(TimerFired { key });
                }
            }
        }
    }
}

//! A gang's barrier as an executor's process has it: the driver's, at the other end of the link.

use super::driver_link::DriverLink;
use super::wire::Message;
use crate::sealed::lock_sealed;
use crate::shared_barrier::{Answered, ReplyTo, Told};
use bytes::Bytes;
use phalanx_protocol::{Arrival, BarrierEvent, Epoch, RequestToSync};
use std::sync::{Arc, Mutex};

/// Gathers the arrivals of all of an attempt's tasks in this process, so that a round costs the
/// driver one message per executor. They go out when all tasks have come, or after a moment, so
/// that the driver knows for whom it waits.
pub struct RemoteBarrier {
    link: Arc<DriverLink>,
    /// Tasks of the attempt in this process.
    tasks: u32,
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    epoch: Epoch,
    /// Who has arrived at this epoch, sent or not.
    arrived: u32,
    /// Not sent yet.
    request: Option<RequestToSync>,
    reply_to: Vec<ReplyTo>,
}

impl RemoteBarrier {
    pub(crate) fn new(link: Arc<DriverLink>, tasks: u32) -> Arc<Self> {
        Arc::new(RemoteBarrier { link, tasks, gathered: Mutex::default() })
    }

    pub(crate) fn request(
        self: &Arc<Self>,
        request: RequestToSync,
        reply_to: ReplyTo,
        told: &mut Told,
    ) {
        let mut gathered = lock_sealed(&self.gathered);
        if gathered.epoch != request.epoch {
            gathered.epoch = request.epoch;
            gathered.arrived = 0;
        }
        gathered.arrived = gathered.arrived.saturating_add(request.arrivals.len() as u32);
        match &mut gathered.request {
            Some(last) if (last.epoch, last.method) == (request.epoch, request.method) => {
                last.arrivals.extend(request.arrivals);
            }
            Some(_) | None => {
                self.put(&mut gathered);
                gathered.request = Some(request);
            }
        }
        gathered.reply_to.push(reply_to);
        if gathered.arrived >= self.tasks {
            self.put(&mut gathered);
            drop(gathered);
            told.push(Answered::Driver(self.link.clone()));
        } else if gathered.reply_to.len() == 1 {
            drop(gathered);
            self.link.hold(self);
        }
    }

    /// Withdrawals and leaves.
    pub(crate) fn take(&self, event: BarrierEvent, told: &mut Told) {
        let mut gathered = lock_sealed(&self.gathered);
        // They never overtake a request.
        self.put(&mut gathered);
        match event {
            BarrierEvent::WithdrawSync(withdraw) => {
                if withdraw.epoch == gathered.epoch {
                    gathered.arrived = gathered.arrived.saturating_sub(1);
                }
                self.link.put(&Message::Withdraw(withdraw), &[]);
            }
            BarrierEvent::TaskLeft(left) => self.link.put(&Message::Left(left), &[]),
            // Of the driver's own.
            BarrierEvent::RequestToSync { .. }
            | BarrierEvent::Close(_)
            | BarrierEvent::TimerFired(_) => {}
        }
        drop(gathered);
        told.push(Answered::Driver(self.link.clone()));
    }

    /// The moment is over.
    pub(crate) fn release_held(&self) {
        self.put(&mut lock_sealed(&self.gathered));
    }

    /// Puts in line what has been gathered.
    fn put(&self, gathered: &mut Gathered) {
        let Some(mut request) = gathered.request.take() else { return };
        let take = |arrival: &mut Arrival| std::mem::take(&mut arrival.message);
        let messages: Vec<Bytes> = request.arrivals.iter_mut().map(take).collect();
        let reply_to = std::mem::take(&mut gathered.reply_to);
        if let Some(id) = self.link.expect_reply(reply_to) {
            self.link.put(&Message::Request { id, request }, &messages);
        }
    }
}

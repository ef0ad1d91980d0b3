//! The barrier of a gang, wherever it is.

use crate::remote::RemoteBarrier;
use crate::shared_barrier::{ReplyTo, SharedBarrier, Told};
use phalanx_protocol::{BarrierEvent, RequestToSync};
use std::sync::Arc;

/// The barrier of a gang: in this process, or in the driver's.
#[derive(Clone)]
pub enum GangBarrier {
    /// The scheduler is in this process.
    Here(Arc<SharedBarrier>),
    /// This is an executor's process.
    AtDriver(Arc<RemoteBarrier>),
}

impl GangBarrier {
    /// `told`: who has been answered then, or has something to be sent, and is to be notified.
    pub(crate) fn request(&self, request: RequestToSync, reply_to: ReplyTo, told: &mut Told) {
        match self {
            GangBarrier::Here(barrier) => barrier.request(request, reply_to, told),
            GangBarrier::AtDriver(barrier) => barrier.request(request, reply_to, told),
        }
    }

    /// `told`: as above.
    pub(crate) fn take(&self, event: BarrierEvent, told: &mut Told) {
        match self {
            GangBarrier::Here(barrier) => barrier.take(event, told),
            GangBarrier::AtDriver(barrier) => barrier.take(event, told),
        }
    }
}

//! The syncs of one stage attempt, as an actor.

use crate::shared_barrier::SharedBarrier;
use crate::{Ask, ChildStopped, EventBus, GetMissing, Tell, TimerFired, TimerRequest};
use actix::prelude::*;
use phalanx_protocol::{
    BarrierEvent, CloseReason, OpenBarrier, PartitionRanges, RequestToSync, SyncError, SyncReply,
    TaskLeft, TimerKey, WithdrawSync,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Wraps one `ContextBarrierState`: answers `RequestToSync`s when the gang is complete or cannot
/// become so.
///
/// Child of a `BarrierCoordinatorActor`; may also be started alone, with [`Actor::start`], and
/// spoken to with `Ask(RequestToSync)`. Once closed it stays as long as someone has its address, so
/// that late callers are answered, too.
///
/// It is the mailbox of a [`SharedBarrier`]. The gatherers of its process, which run beside the
/// tasks, give their `RequestToSync`s to that barrier themselves: so an answer does not cost a way
/// to another thread and back, and a task that holds up its thread holds up nobody else's.
pub struct ContextBarrierStateActor {
    barrier: Arc<SharedBarrier>,
    /// Told when this actor is gone.
    coordinator: Option<Recipient<ChildStopped>>,
}

/// A request that came through the coordinator.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ForwardedSync {
    pub(crate) request: RequestToSync,
    pub(crate) caller: oneshot::Sender<SyncReply>,
}

impl ContextBarrierStateActor {
    /// The actor of an attempt that has just been opened. `progress_interval`: pause between two
    /// notes to those who wait.
    pub fn new(
        open: OpenBarrier,
        progress_interval: Duration,
        timer: Recipient<TimerRequest>,
        events: EventBus,
    ) -> Self {
        let barrier = SharedBarrier::new(open, progress_interval, timer, events);
        ContextBarrierStateActor::around(Arc::new(barrier))
    }

    /// The mailbox of a barrier that others use as well.
    pub fn around(barrier: Arc<SharedBarrier>) -> Self {
        ContextBarrierStateActor { barrier, coordinator: None }
    }

    /// Has the coordinator told when this actor is gone.
    pub(crate) fn child_of(mut self, coordinator: Recipient<ChildStopped>) -> Self {
        self.coordinator = Some(coordinator);
        self
    }
}

impl Actor for ContextBarrierStateActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.barrier.notify(ctx.address().recipient());
    }

    /// Also runs when a handler panicked.
    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.barrier.give_up();
        if let Some(coordinator) = &self.coordinator {
            coordinator.do_send(ChildStopped(self.barrier.attempt()));
        }
    }
}

impl Handler<Ask<RequestToSync>> for ContextBarrierStateActor {
    type Result = ResponseFuture<SyncReply>;

    fn handle(
        &mut self,
        Ask(request): Ask<RequestToSync>,
        _ctx: &mut Self::Context,
    ) -> Self::Result {
        let (attempt, epoch) = (request.attempt, request.epoch);
        let (caller, reply) = oneshot::channel();
        self.barrier.ask(request, caller);
        Box::pin(async move {
            let lost = Err(SyncError::CoordinatorLost { attempt });
            reply.await.unwrap_or(SyncReply { attempt, epoch, result: lost })
        })
    }
}

impl Handler<ForwardedSync> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, forwarded: ForwardedSync, _ctx: &mut Self::Context) {
        self.barrier.ask(forwarded.request, forwarded.caller);
    }
}

impl Handler<Tell<WithdrawSync>> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, Tell(withdraw): Tell<WithdrawSync>, _ctx: &mut Self::Context) {
        self.barrier.handle(BarrierEvent::WithdrawSync(withdraw));
    }
}

impl Handler<Tell<TaskLeft>> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, Tell(left): Tell<TaskLeft>, _ctx: &mut Self::Context) {
        self.barrier.handle(BarrierEvent::TaskLeft(left));
    }
}

impl Handler<Tell<CloseReason>> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, Tell(reason): Tell<CloseReason>, _ctx: &mut Self::Context) {
        self.barrier.handle(BarrierEvent::Close(reason));
    }
}

impl Handler<TimerFired> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, TimerFired { key }: TimerFired, _ctx: &mut Self::Context) {
        match key {
            TimerKey::Sync(key) => self.barrier.timer_fired(key),
            // Only the scheduler sets these.
            TimerKey::Scheduler(_) => {}
        }
    }
}

impl Handler<GetMissing> for ContextBarrierStateActor {
    type Result = Option<PartitionRanges>;

    fn handle(&mut self, _: GetMissing, _ctx: &mut Self::Context) -> Self::Result {
        self.barrier.status().map(|status| status.missing)
    }
}

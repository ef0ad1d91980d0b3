//! The syncs of one stage attempt, as an actor.

use crate::sync_gatherer::{GatheredSync, GatheredSyncs, GathererReply};
use crate::{Ask, ChildStopped, EventBus, GetMissing, Tell, TimerFired, TimerRequest};
use actix::prelude::*;
use phalanx_protocol::{
    BarrierEffect, BarrierEvent, CloseReason, ContextBarrierState, OpenBarrier, PartitionRanges,
    ReplyToken, RequestToSync, SyncError, SyncReply, TaskLeft, TimerKey, WithdrawSync,
};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// Wraps one `ContextBarrierState`: answers `RequestToSync`s when the gang is complete or cannot
/// become so.
///
/// Child of a `BarrierCoordinatorActor`; may also be started alone, with [`Actor::start`], and
/// spoken to with `Ask(RequestToSync)`. Once closed it stays as long as someone has its address, so
/// that late callers are answered, too.
pub struct ContextBarrierStateActor {
    machine: ContextBarrierState,
    /// Requests that wait for their answer.
    waiting: HashMap<ReplyToken, ReplyTo>,
    next_token: u64,
    timer: Recipient<TimerRequest>,
    events: EventBus,
    /// Told when this actor is gone.
    coordinator: Option<Recipient<ChildStopped>>,
}

/// Whom to answer. Dropped without an answer, both tell that there will be none.
enum ReplyTo {
    Caller(oneshot::Sender<SyncReply>),
    Gatherer(GathererReply),
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
        ContextBarrierStateActor {
            machine: ContextBarrierState::new(open, progress_interval),
            waiting: HashMap::new(),
            next_token: 0,
            timer,
            events,
            coordinator: None,
        }
    }

    /// Has the coordinator told when this actor is gone.
    pub(crate) fn child_of(mut self, coordinator: Recipient<ChildStopped>) -> Self {
        self.coordinator = Some(coordinator);
        self
    }

    fn request(&mut self, request: RequestToSync, reply_to: ReplyTo, ctx: &mut Context<Self>) {
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        self.waiting.insert(token, reply_to);
        self.handle_event(BarrierEvent::RequestToSync { request, reply_to: token }, ctx);
    }

    fn handle_event(&mut self, event: BarrierEvent, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.machine.handle(event, &mut effects);
        for effect in effects {
            match effect {
                BarrierEffect::Reply { to, reply } => match self.waiting.remove(&to) {
                    // A caller that went away needs no answer.
                    Some(ReplyTo::Caller(caller)) => drop(caller.send(reply)),
                    Some(ReplyTo::Gatherer(gatherer)) => gatherer.send(reply),
                    None => {}
                },
                BarrierEffect::NotifyWaiting { to, note } => match self.waiting.get(&to) {
                    Some(ReplyTo::Gatherer(gatherer)) => gatherer.note(note),
                    Some(ReplyTo::Caller(_)) | None => {}
                },
                BarrierEffect::SetTimer { key, after } => {
                    let (key, notify) = (TimerKey::Sync(key), ctx.address().recipient());
                    self.timer.do_send(TimerRequest::Set { key, after, notify });
                }
                BarrierEffect::CancelTimer { key } => {
                    self.timer.do_send(TimerRequest::Cancel { key: TimerKey::Sync(key) });
                }
                BarrierEffect::Emit(event) => self.events.emit(event),
            }
        }
    }
}

impl Actor for ContextBarrierStateActor {
    type Context = Context<Self>;

    /// Also runs when a handler panicked.
    fn stopped(&mut self, _ctx: &mut Self::Context) {
        if let Some(coordinator) = &self.coordinator {
            coordinator.do_send(ChildStopped(self.machine.attempt()));
        }
    }
}

impl Handler<Ask<RequestToSync>> for ContextBarrierStateActor {
    type Result = ResponseFuture<SyncReply>;

    fn handle(
        &mut self,
        Ask(request): Ask<RequestToSync>,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        let (attempt, epoch) = (request.attempt, request.epoch);
        let (reply_to, reply) = oneshot::channel();
        self.request(request, ReplyTo::Caller(reply_to), ctx);
        Box::pin(async move {
            let lost = Err(SyncError::CoordinatorLost { attempt });
            reply.await.unwrap_or(SyncReply { attempt, epoch, result: lost })
        })
    }
}

impl Handler<ForwardedSync> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, forwarded: ForwardedSync, ctx: &mut Self::Context) {
        self.request(forwarded.request, ReplyTo::Caller(forwarded.caller), ctx);
    }
}

impl Handler<GatheredSyncs> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, GatheredSyncs(items): GatheredSyncs, ctx: &mut Self::Context) {
        for item in items {
            match item {
                GatheredSync::Request(request, reply) => {
                    self.request(request, ReplyTo::Gatherer(reply), ctx);
                }
                GatheredSync::Withdraw(withdraw) => {
                    self.handle_event(BarrierEvent::WithdrawSync(withdraw), ctx);
                }
                GatheredSync::Left(left) => self.handle_event(BarrierEvent::TaskLeft(left), ctx),
            }
        }
    }
}

impl Handler<Tell<WithdrawSync>> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, Tell(withdraw): Tell<WithdrawSync>, ctx: &mut Self::Context) {
        self.handle_event(BarrierEvent::WithdrawSync(withdraw), ctx);
    }
}

impl Handler<Tell<TaskLeft>> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, Tell(left): Tell<TaskLeft>, ctx: &mut Self::Context) {
        self.handle_event(BarrierEvent::TaskLeft(left), ctx);
    }
}

impl Handler<Tell<CloseReason>> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, Tell(reason): Tell<CloseReason>, ctx: &mut Self::Context) {
        self.handle_event(BarrierEvent::Close(reason), ctx);
    }
}

impl Handler<TimerFired> for ContextBarrierStateActor {
    type Result = ();

    fn handle(&mut self, TimerFired { key }: TimerFired, ctx: &mut Self::Context) {
        match key {
            TimerKey::Sync(key) => self.handle_event(BarrierEvent::TimerFired(key), ctx),
            // Only the scheduler sets these.
            TimerKey::Scheduler(_) => {}
        }
    }
}

impl Handler<GetMissing> for ContextBarrierStateActor {
    type Result = Option<PartitionRanges>;

    fn handle(&mut self, _: GetMissing, _ctx: &mut Self::Context) -> Self::Result {
        self.machine.missing()
    }
}

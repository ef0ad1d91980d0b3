//! Which stage attempts may synchronise, as an actor.

use crate::context_barrier_state_actor::ForwardedSync;
use crate::shared_barrier::SharedBarrier;
use crate::{
    Ask, BarrierLost, ChildStopped, ContextBarrierStateActor, EventBus, GetSyncStatus, Shutdown,
    SyncStatus, Tell, TimerRequest,
};
use actix::prelude::*;
use phalanx_protocol::{
    BarrierCoordinator, BarrierEvent, CloseReason, CoordinatorEffect, CoordinatorEvent,
    OpenBarrier, ReplyToken, RequestToSync, StageAttemptId, StageCompleted, SyncError, SyncReply,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Wraps one `BarrierCoordinator`: starts a [`ContextBarrierStateActor`] per stage attempt and
/// closes it when the attempt ends.
///
/// May be started alone: open an attempt with `Ask(OpenBarrier)`, then send `Ask(RequestToSync)` to
/// the address that is returned, or to the coordinator.
pub struct BarrierCoordinatorActor {
    machine: BarrierCoordinator,
    children: HashMap<StageAttemptId, Child>,
    progress_interval: Duration,
    timer: Recipient<TimerRequest>,
    events: EventBus,
    /// Told when a child dies.
    scheduler: Option<Recipient<BarrierLost>>,
}

struct Child {
    addr: Addr<ContextBarrierStateActor>,
    barrier: Arc<SharedBarrier>,
}

/// [`OpenBarrier`] from a scheduler that has made the barrier already, so that tasks can be
/// launched with it at once.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenBarrierIn(pub(crate) OpenBarrier, pub(crate) Arc<SharedBarrier>);

impl BarrierCoordinatorActor {
    /// A coordinator without attempts. `progress_interval`: pause between two notes to tasks that
    /// wait.
    pub fn new(
        progress_interval: Duration,
        timer: Recipient<TimerRequest>,
        events: EventBus,
    ) -> Self {
        BarrierCoordinatorActor {
            machine: BarrierCoordinator::new(),
            children: HashMap::new(),
            progress_interval,
            timer,
            events,
            scheduler: None,
        }
    }

    /// Has the scheduler told when a child dies.
    pub fn with_scheduler(mut self, scheduler: Recipient<BarrierLost>) -> Self {
        self.scheduler = Some(scheduler);
        self
    }

    /// `made`, `caller`: what came with the event and its effect may need.
    fn handle_event(
        &mut self,
        event: CoordinatorEvent,
        made: Option<Arc<SharedBarrier>>,
        mut caller: Option<oneshot::Sender<SyncReply>>,
        ctx: &mut Context<Self>,
    ) {
        let mut effects = Vec::new();
        self.machine.handle(event, &mut effects);
        for effect in effects {
            match effect {
                CoordinatorEffect::StartChild(open) => self.start_child(open, made.clone(), ctx),
                CoordinatorEffect::Forward { request, reply_to: _ } => {
                    let child = self.children.get(&request.attempt);
                    if let (Some(child), Some(caller)) = (child, caller.take()) {
                        child.addr.do_send(ForwardedSync { request, caller });
                    }
                }
                CoordinatorEffect::Refuse { to: _, reply } => {
                    if let Some(caller) = caller.take() {
                        // A caller that went away needs no answer.
                        let _ = caller.send(reply);
                    }
                }
                CoordinatorEffect::CloseChild { attempt, reason } => {
                    if let Some(child) = self.children.remove(&attempt) {
                        child.barrier.handle(BarrierEvent::Close(reason));
                    }
                }
                CoordinatorEffect::ReportBarrierLost(attempt) => {
                    self.children.remove(&attempt);
                    self.report_lost(attempt, "its actor ended unexpectedly");
                }
            }
        }
    }

    fn start_child(
        &mut self,
        open: OpenBarrier,
        made: Option<Arc<SharedBarrier>>,
        ctx: &mut Context<Self>,
    ) {
        let attempt = open.attempt;
        let barrier = made.unwrap_or_else(|| {
            let (timer, events) = (self.timer.clone(), self.events.clone());
            Arc::new(SharedBarrier::new(open, self.progress_interval, timer, events))
        });
        let addr = ContextBarrierStateActor::around(barrier.clone())
            .child_of(ctx.address().recipient())
            .start();
        self.children.insert(attempt, Child { addr, barrier });
    }

    fn report_lost(&self, attempt: StageAttemptId, reason: &str) {
        if let Some(scheduler) = &self.scheduler {
            scheduler.do_send(BarrierLost { attempt, reason: reason.to_owned() });
        }
    }
}

impl Actor for BarrierCoordinatorActor {
    type Context = Context<Self>;

    /// Also runs when a handler panicked: nobody waits on a barrier that nobody would close.
    fn stopped(&mut self, _ctx: &mut Self::Context) {
        let reason = "the barrier coordinator is gone";
        for attempt in self.machine.open_attempts() {
            if let Some(child) = self.children.get(&attempt) {
                let reason = CloseReason::Failed(reason.to_owned());
                child.barrier.handle(BarrierEvent::Close(reason));
            }
            self.report_lost(attempt, reason);
        }
    }
}

impl Handler<OpenBarrierIn> for BarrierCoordinatorActor {
    type Result = ();

    fn handle(&mut self, OpenBarrierIn(open, made): OpenBarrierIn, ctx: &mut Self::Context) {
        self.handle_event(CoordinatorEvent::Open(open), Some(made), None, ctx);
    }
}

impl Handler<Ask<OpenBarrier>> for BarrierCoordinatorActor {
    type Result = Option<Addr<ContextBarrierStateActor>>;

    fn handle(&mut self, Ask(open): Ask<OpenBarrier>, ctx: &mut Self::Context) -> Self::Result {
        let attempt = open.attempt;
        let was_open = self.children.contains_key(&attempt);
        self.handle_event(CoordinatorEvent::Open(open), None, None, ctx);
        self.children.get(&attempt).filter(|_| !was_open).map(|child| child.addr.clone())
    }
}

impl Handler<Ask<RequestToSync>> for BarrierCoordinatorActor {
    type Result = ResponseFuture<SyncReply>;

    fn handle(
        &mut self,
        Ask(request): Ask<RequestToSync>,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        let (attempt, epoch) = (request.attempt, request.epoch);
        let (caller, reply) = oneshot::channel();
        // The token is not needed: the effect is carried out while the caller is at hand.
        let event = CoordinatorEvent::RequestToSync { request, reply_to: ReplyToken(0) };
        self.handle_event(event, None, Some(caller), ctx);
        Box::pin(async move {
            let lost = Err(SyncError::CoordinatorLost { attempt });
            reply.await.unwrap_or(SyncReply { attempt, epoch, result: lost })
        })
    }
}

impl Handler<Tell<StageCompleted>> for BarrierCoordinatorActor {
    type Result = ();

    fn handle(&mut self, Tell(completed): Tell<StageCompleted>, ctx: &mut Self::Context) {
        self.handle_event(CoordinatorEvent::StageCompleted(completed), None, None, ctx);
    }
}

impl Handler<ChildStopped> for BarrierCoordinatorActor {
    type Result = ();

    fn handle(&mut self, ChildStopped(attempt): ChildStopped, ctx: &mut Self::Context) {
        self.handle_event(CoordinatorEvent::ChildStopped(attempt), None, None, ctx);
    }
}

impl Handler<GetSyncStatus> for BarrierCoordinatorActor {
    type Result = Option<SyncStatus>;

    fn handle(
        &mut self,
        GetSyncStatus(stage): GetSyncStatus,
        _ctx: &mut Self::Context,
    ) -> Self::Result {
        let child = self.children.iter().find(|(attempt, _)| attempt.stage == stage);
        child.and_then(|(_, child)| child.barrier.status())
    }
}

impl Handler<Shutdown> for BarrierCoordinatorActor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        self.handle_event(CoordinatorEvent::Shutdown, None, None, ctx);
    }
}

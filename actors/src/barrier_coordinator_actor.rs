//! Which stage attempts may synchronise, as an actor.

use crate::context_barrier_state_actor::ForwardedSync;
use crate::{
    Ask, BarrierLost, ChildStopped, ContextBarrierStateActor, EventBus, Shutdown, Tell,
    TimerRequest,
};
use actix::dev::channel::{AddressReceiver, channel};
use actix::prelude::*;
use phalanx_protocol::{
    BarrierCoordinator, CloseReason, CoordinatorEffect, CoordinatorEvent, OpenBarrier, ReplyToken,
    RequestToSync, StageAttemptId, StageCompleted, SyncError, SyncReply,
};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// Wraps one `BarrierCoordinator`: starts a [`ContextBarrierStateActor`] per stage attempt and
/// closes it when the attempt ends.
///
/// May be started alone: open an attempt with `Ask(OpenBarrier)`, then send `Ask(RequestToSync)` to
/// the address that is returned, or to the coordinator.
pub struct BarrierCoordinatorActor {
    machine: BarrierCoordinator,
    children: HashMap<StageAttemptId, Addr<ContextBarrierStateActor>>,
    progress_interval: Duration,
    timer: Recipient<TimerRequest>,
    events: EventBus,
    /// Told when a child dies.
    scheduler: Option<Recipient<BarrierLost>>,
}

/// A child that is about to be started: its address is known already, so that tasks can be launched
/// with it at once.
pub(crate) struct Cradle {
    pub(crate) child: Addr<ContextBarrierStateActor>,
    mailbox: AddressReceiver<ContextBarrierStateActor>,
    /// The thread to live on: one of those that run the tasks.
    home: ArbiterHandle,
}

impl Cradle {
    /// A mailbox for a gang of this size.
    pub(crate) fn new(num_tasks: usize, home: ArbiterHandle) -> Self {
        // Every task may have a request and its leave under way.
        let (sender, mailbox) = channel(2 * num_tasks + 16);
        Cradle { child: Addr::new(sender), mailbox, home }
    }
}

/// [`OpenBarrier`] from a scheduler that has made the child's mailbox already.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenBarrierIn(pub(crate) OpenBarrier, pub(crate) Cradle);

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

    /// `cradle`, `caller`: what came with the event and its effect may need.
    fn handle_event(
        &mut self,
        event: CoordinatorEvent,
        mut cradle: Option<Cradle>,
        mut caller: Option<oneshot::Sender<SyncReply>>,
        ctx: &mut Context<Self>,
    ) {
        let mut effects = Vec::new();
        self.machine.handle(event, &mut effects);
        for effect in effects {
            match effect {
                CoordinatorEffect::StartChild(open) => {
                    let cradle = cradle.take().unwrap_or_else(|| {
                        Cradle::new(open.task_attempts.len(), Arbiter::current())
                    });
                    self.start_child(open, cradle, ctx);
                }
                CoordinatorEffect::Forward { request, reply_to: _ } => {
                    let child = self.children.get(&request.attempt);
                    if let (Some(child), Some(caller)) = (child, caller.take()) {
                        child.do_send(ForwardedSync { request, caller });
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
                        child.do_send(Tell(reason));
                    }
                }
                CoordinatorEffect::ReportBarrierLost(attempt) => {
                    self.children.remove(&attempt);
                    self.report_lost(attempt, "its actor ended unexpectedly");
                }
            }
        }
    }

    fn start_child(&mut self, open: OpenBarrier, cradle: Cradle, ctx: &mut Context<Self>) {
        let attempt = open.attempt;
        let Cradle { child, mailbox, home } = cradle;
        let (timer, events) = (self.timer.clone(), self.events.clone());
        let actor = ContextBarrierStateActor::new(open, self.progress_interval, timer, events)
            .child_of(ctx.address().recipient());
        let started = home.spawn_fn(move || {
            actix_rt::spawn(Context::with_receiver(mailbox).into_future(actor));
        });
        self.children.insert(attempt, child);
        if !started {
            // The thread is gone, and the mailbox with it: as if the child had died at once.
            self.handle_event(CoordinatorEvent::ChildStopped(attempt), None, None, ctx);
        }
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
                child.do_send(Tell(CloseReason::Failed(reason.to_owned())));
            }
            self.report_lost(attempt, reason);
        }
    }
}

impl Handler<OpenBarrierIn> for BarrierCoordinatorActor {
    type Result = ();

    fn handle(&mut self, OpenBarrierIn(open, cradle): OpenBarrierIn, ctx: &mut Self::Context) {
        self.handle_event(CoordinatorEvent::Open(open), Some(cradle), None, ctx);
    }
}

impl Handler<Ask<OpenBarrier>> for BarrierCoordinatorActor {
    type Result = Option<Addr<ContextBarrierStateActor>>;

    fn handle(&mut self, Ask(open): Ask<OpenBarrier>, ctx: &mut Self::Context) -> Self::Result {
        let attempt = open.attempt;
        let was_open = self.children.contains_key(&attempt);
        self.handle_event(CoordinatorEvent::Open(open), None, None, ctx);
        self.children.get(&attempt).filter(|_| !was_open).cloned()
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

impl Handler<Shutdown> for BarrierCoordinatorActor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        self.handle_event(CoordinatorEvent::Shutdown, None, None, ctx);
    }
}

//! The machine of one stage attempt's syncs and those who wait for its answers.

use crate::remote::{DriverLink, RemoteExecutor, RemoteReply};
use crate::round_timers::RoundTimers;
use crate::sealed::lock_sealed;
use crate::sync_gatherer::GathererReply;
use crate::task_group::TaskGroup;
use crate::{EventBus, SyncStatus, TimerFired, TimerRequest};
use actix::Recipient;
use phalanx_protocol::{
    BarrierEffect, BarrierEvent, ContextBarrierState, OpenBarrier, ReplyToken, RequestToSync,
    StageAttemptId, StillWaiting, SyncReply, SyncTimer,
};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::error;

/// One `ContextBarrierState`, driven from the threads of its gang, and by timers and the attempt's
/// end from the coordinator's, which runs no users' code.
pub struct SharedBarrier {
    attempt: StageAttemptId,
    state: Mutex<State>,
    events: EventBus,
}

struct State {
    machine: ContextBarrierState,
    /// Requests that wait for their answer, in order.
    waiting: VecDeque<(ReplyToken, ReplyTo)>,
    next_token: u64,
    /// Empty between uses; kept for its room.
    effects: Vec<BarrierEffect>,
    /// Its actor is gone: nobody would close it.
    is_given_up: bool,
    timers: RoundTimers,
}

/// Who has been answered or has something to say: usually one per thread.
pub(crate) type Told = SmallVec<[Answered; 2]>;

/// Where something has been left that is to be passed on.
pub(crate) enum Answered {
    /// Tasks of this process.
    Group(Arc<TaskGroup>),
    /// An executor in another process.
    Executor(Arc<RemoteExecutor>),
    /// The driver of this process's executor.
    Driver(Arc<DriverLink>),
}

/// Without a lock: a blocking task's group wakes its task, and sockets are written to.
pub(crate) fn notify(told: Told) {
    for answered in told {
        match answered {
            Answered::Group(group) => group.notify(),
            Answered::Executor(executor) => executor.answer_all(),
            Answered::Driver(link) => link.outbox.flush(),
        }
    }
}

/// Whom to answer. Dropped without an answer, all tell that there will be none.
pub(crate) enum ReplyTo {
    Caller(oneshot::Sender<SyncReply>),
    Gatherer(GathererReply),
    Remote(RemoteReply),
}

impl ReplyTo {
    /// Who is returned has to be notified, best without a lock.
    pub(crate) fn send(self, reply: SyncReply) -> Option<Answered> {
        match self {
            ReplyTo::Caller(caller) => {
                // A caller that went away needs no answer.
                let _ = caller.send(reply);
                None
            }
            ReplyTo::Gatherer(gatherer) => gatherer.send(reply).map(Answered::Group),
            ReplyTo::Remote(remote) => remote.send(reply),
        }
    }

    /// Tells one who waits for whom; as above.
    pub(crate) fn note(&self, note: StillWaiting) -> Option<Answered> {
        match self {
            ReplyTo::Caller(_) => None,
            ReplyTo::Gatherer(gatherer) => gatherer.note(note).map(Answered::Group),
            ReplyTo::Remote(remote) => {
                remote.note(note);
                None
            }
        }
    }
}

impl State {
    fn waiting(&self, token: ReplyToken) -> Option<usize> {
        self.waiting.binary_search_by_key(&token, |(token, _)| *token).ok()
    }

    /// Those who waited; dropped, best without a lock, they learn that nobody will answer.
    fn give_up(&mut self) -> VecDeque<(ReplyToken, ReplyTo)> {
        self.is_given_up = !self.machine.is_closed();
        self.timers.end();
        std::mem::take(&mut self.waiting)
    }
}

impl SharedBarrier {
    /// The syncs of an attempt that has just been opened. `progress_interval`: pause between two
    /// notes to those who wait. It needs an actor to hear its timers, see
    /// [`ContextBarrierStateActor::around`](crate::ContextBarrierStateActor::around).
    pub fn new(
        open: OpenBarrier,
        progress_interval: Duration,
        timer: Recipient<TimerRequest>,
        events: EventBus,
    ) -> Self {
        let machine = ContextBarrierState::new(open, progress_interval);
        let attempt = machine.attempt();
        let state = Mutex::new(State {
            machine,
            waiting: VecDeque::new(),
            next_token: 0,
            effects: Vec::new(),
            is_given_up: false,
            timers: RoundTimers::new(timer),
        });
        SharedBarrier { attempt, state, events }
    }

    /// Has it ask the timer actor for as little as it can. Only for one on real time.
    pub(crate) fn with_gathered_timers(mut self) -> Self {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.timers.gather();
        self
    }

    pub(crate) fn attempt(&self) -> StageAttemptId {
        self.attempt
    }

    /// Has this recipient told when timers fire.
    pub(crate) fn notify(&self, recipient: Recipient<TimerFired>) {
        lock_sealed(&self.state).timers.notify(recipient);
    }

    pub(crate) fn timer_fired(&self, key: SyncTimer) {
        let mut told = Told::new();
        let mut state = lock_sealed(&self.state);
        for key in state.timers.fired(key) {
            self.run(&mut state, BarrierEvent::TimerFired(key), &mut told);
        }
        drop(state);
        notify(told);
    }

    /// Who the open round waits for; `None` if none is open.
    pub fn status(&self) -> Option<SyncStatus> {
        let state = lock_sealed(&self.state);
        let (missing, epoch) = (state.machine.missing()?, state.machine.epoch());
        Some(SyncStatus { attempt: self.attempt, epoch, missing })
    }

    /// `told`: who has been answered then, and is to be notified.
    pub(crate) fn request(&self, request: RequestToSync, reply_to: ReplyTo, told: &mut Told) {
        let mut state = lock_sealed(&self.state);
        if state.is_given_up {
            return;
        }
        let token = ReplyToken(state.next_token);
        state.next_token += 1;
        state.waiting.push_back((token, reply_to));
        self.run(&mut state, BarrierEvent::RequestToSync { request, reply_to: token }, told);
    }

    /// A request of somebody who is no gatherer.
    pub(crate) fn ask(&self, request: RequestToSync, caller: oneshot::Sender<SyncReply>) {
        let mut told = Told::new();
        self.request(request, ReplyTo::Caller(caller), &mut told);
        notify(told);
    }

    pub(crate) fn handle(&self, event: BarrierEvent) {
        let mut told = Told::new();
        self.take(event, &mut told);
        notify(told);
    }

    /// `told`: who has been answered then, and is to be notified.
    pub(crate) fn take(&self, event: BarrierEvent, told: &mut Told) {
        self.run(&mut lock_sealed(&self.state), event, told);
    }

    /// Its actor is gone. Those who wait, and those who come, learn that nobody will answer; if the
    /// attempt had ended they are told that, as before.
    pub(crate) fn give_up(&self) {
        let waited = lock_sealed(&self.state).give_up();
        drop(waited);
    }

    /// Answers are messages: `told` has them, and is to be notified when the lock is gone. What of
    /// users' code runs in here is a subscriber of the log.
    fn run(&self, state: &mut State, event: BarrierEvent, told: &mut Told) {
        let mut effects = std::mem::take(&mut state.effects);
        let handled = AssertUnwindSafe(|| state.machine.handle(event, &mut effects));
        if catch_unwind(handled).is_err() {
            // A bug of ours. On whatever thread this is, nobody may wait for what never comes.
            error!(attempt = %self.attempt, "the barrier of {} failed", self.attempt);
            drop(state.give_up());
            return;
        }
        let mut now = None;
        for effect in effects.drain(..) {
            match effect {
                BarrierEffect::Reply { to, reply } => {
                    let waiting = state.waiting(to).and_then(|index| state.waiting.remove(index));
                    told.extend(waiting.and_then(|(_, reply_to)| reply_to.send(reply)));
                }
                BarrierEffect::NotifyWaiting { to, note } => {
                    let waiting = state.waiting(to).map(|index| &state.waiting[index].1);
                    told.extend(waiting.and_then(|reply_to| reply_to.note(note)));
                }
                BarrierEffect::SetTimer { key, after } => {
                    state.timers.set(key, *now.get_or_insert_with(Instant::now), after);
                }
                BarrierEffect::CancelTimer { key } => state.timers.cancel(key),
                BarrierEffect::Emit(event) => self.events.emit(|| self.events.now(), event),
            }
        }
        state.effects = effects;
        if state.machine.is_closed() {
            state.timers.end();
        } else {
            state.timers.settle();
        }
    }
}

//! Which stage attempts may synchronise.

use crate::{
    CloseReason, OpenBarrier, ReplyToken, RequestToSync, StageAttemptId, StageCompleted, SyncError,
    SyncReply,
};
use std::collections::BTreeSet;

/// The stage attempts that are open for syncs.
///
/// An attempt is opened by the scheduler before any of its tasks is launched and closed once. Only
/// [`CoordinatorEvent::Open`] opens, so no request of a late task can bring an attempt back.
///
/// ```text
///   Open ──▶ StartChild ── StageCompleted ──▶ CloseChild
///                  └────── ChildStopped (it died) ──▶ ReportBarrierLost
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BarrierCoordinator {
    open: BTreeSet<StageAttemptId>,
    stopped: bool,
}

/// What can happen to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorEvent {
    /// The scheduler is about to launch an attempt.
    Open(OpenBarrier),
    /// Tasks arrive that do not know their attempt's child.
    RequestToSync {
        /// The message.
        request: RequestToSync,
        /// Whom to answer.
        reply_to: ReplyToken,
    },
    /// The scheduler ended an attempt.
    StageCompleted(StageCompleted),
    /// The child of this attempt is gone.
    ChildStopped(StageAttemptId),
    /// Close everything and open nothing any more.
    Shutdown,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorEffect {
    /// Start a `ContextBarrierState` for the attempt.
    StartChild(OpenBarrier),
    /// Hand the request to the attempt's child, which answers it.
    Forward {
        /// The message.
        request: RequestToSync,
        /// Whom to answer.
        reply_to: ReplyToken,
    },
    /// Answer a request for which there is no child.
    Refuse {
        /// Whom.
        to: ReplyToken,
        /// With what.
        reply: SyncReply,
    },
    /// Tell the child that its attempt has ended, and forget it.
    CloseChild {
        /// Which.
        attempt: StageAttemptId,
        /// How it ended.
        reason: CloseReason,
    },
    /// Tell the scheduler that the child of a running attempt died.
    ReportBarrierLost(StageAttemptId),
}

impl BarrierCoordinator {
    /// A coordinator without attempts.
    pub fn new() -> Self {
        BarrierCoordinator::default()
    }

    /// The attempts that are open now, in order.
    pub fn open_attempts(&self) -> impl Iterator<Item = StageAttemptId> + '_ {
        self.open.iter().copied()
    }

    /// Takes one event and appends what is to be done.
    pub fn handle(&mut self, event: CoordinatorEvent, effects: &mut Vec<CoordinatorEffect>) {
        match event {
            CoordinatorEvent::Open(open) => {
                if !self.stopped && self.open.insert(open.attempt) {
                    effects.push(CoordinatorEffect::StartChild(open));
                }
            }
            CoordinatorEvent::RequestToSync { request, reply_to } => {
                effects.push(self.route(request, reply_to));
            }
            CoordinatorEvent::StageCompleted(StageCompleted { attempt, reason }) => {
                if self.open.remove(&attempt) {
                    effects.push(CoordinatorEffect::CloseChild { attempt, reason });
                }
            }
            CoordinatorEvent::ChildStopped(attempt) => {
                if self.open.remove(&attempt) {
                    effects.push(CoordinatorEffect::ReportBarrierLost(attempt));
                }
            }
            CoordinatorEvent::Shutdown => {
                self.stopped = true;
                for attempt in std::mem::take(&mut self.open) {
                    let reason = CloseReason::Shutdown;
                    effects.push(CoordinatorEffect::CloseChild { attempt, reason });
                }
            }
        }
    }

    fn route(&self, request: RequestToSync, reply_to: ReplyToken) -> CoordinatorEffect {
        let attempt = request.attempt;
        if self.open.contains(&attempt) {
            return CoordinatorEffect::Forward { request, reply_to };
        }
        let error = if self.stopped {
            SyncError::AttemptClosed { attempt, reason: CloseReason::Shutdown }
        } else {
            SyncError::NotOpen { attempt }
        };
        let reply = SyncReply { attempt, epoch: request.epoch, result: Err(error) };
        CoordinatorEffect::Refuse { to: reply_to, reply }
    }
}

#[cfg(test)]
mod tests;

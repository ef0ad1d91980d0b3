//! What goes into a stage attempt's syncs and what comes out.

use crate::{
    CloseReason, ReplyToken, RequestToSync, RuntimeEvent, StillWaiting, SyncReply, SyncTimer,
    TaskLeft, WithdrawSync,
};
use std::time::Duration;

/// What can happen to a stage attempt's syncs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BarrierEvent {
    /// Tasks arrive.
    RequestToSync {
        /// The message.
        request: RequestToSync,
        /// Whom to answer; another for every request.
        reply_to: ReplyToken,
    },
    /// A task gave up waiting.
    WithdrawSync(WithdrawSync),
    /// A task will never arrive again.
    TaskLeft(TaskLeft),
    /// The attempt has ended.
    Close(CloseReason),
    /// A timer fired, perhaps late.
    TimerFired(SyncTimer),
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BarrierEffect {
    /// Answer a request; exactly once for each.
    Reply {
        /// Whom.
        to: ReplyToken,
        /// With what.
        reply: SyncReply,
    },
    /// Tell a request that still waits who is missing.
    NotifyWaiting {
        /// Whom.
        to: ReplyToken,
        /// What to say.
        note: StillWaiting,
    },
    /// Start a timer.
    SetTimer {
        /// Its name.
        key: SyncTimer,
        /// When it fires.
        after: Duration,
    },
    /// Stop a timer; harmless if it has fired.
    CancelTimer {
        /// Its name.
        key: SyncTimer,
    },
    /// Tell those who watch.
    Emit(RuntimeEvent),
}

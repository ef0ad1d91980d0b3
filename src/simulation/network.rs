//! The messages between the driver and its executors, and the ways they take.

use super::Network;
use crate::protocol::{
    ExecutorJoined, KillTask, LaunchTasks, RequestToSync, SyncReply, TaskLeft, TaskReport,
    WithdrawSync,
};
use crate::{ExecutorId, Incarnation, StageAttemptId, TaskAttemptId};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One life of an executor.
pub(super) type Life = (ExecutorId, Incarnation);

#[derive(Clone, Debug)]
pub(super) enum ToDriver {
    Joined(ExecutorJoined),
    Report(TaskReport),
    /// For whom the answer is.
    Request(RequestToSync, Arc<[TaskAttemptId]>),
    Withdraw(WithdrawSync),
    Left(TaskLeft),
}

#[derive(Clone, Debug)]
pub(super) enum ToExecutor {
    Launch(LaunchTasks),
    Kill(KillTask),
    /// It is given up.
    Retire,
    Reply(SyncReply, Arc<[TaskAttemptId]>),
}

/// Messages on one way keep their order; it is the same as between the actors that ship.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    ToScheduler(Life),
    ToExecutor(Life),
    ToBarrier(Life, StageAttemptId),
    FromBarrier(Life, StageAttemptId),
}

impl ToDriver {
    pub(super) fn way(&self, life: Life) -> Way {
        match self {
            ToDriver::Joined(_) | ToDriver::Report(_) => Way::ToScheduler(life),
            ToDriver::Request(request, _) => Way::ToBarrier(life, request.attempt),
            ToDriver::Withdraw(withdraw) => Way::ToBarrier(life, withdraw.attempt),
            ToDriver::Left(left) => Way::ToBarrier(life, left.attempt),
        }
    }

    /// Whether it may come twice, even late: all but a withdrawal, which must not come after the
    /// task's next request.
    pub(super) fn may_repeat(&self) -> bool {
        match self {
            ToDriver::Joined(_)
            | ToDriver::Report(_)
            | ToDriver::Request(..)
            | ToDriver::Left(_) => true,
            ToDriver::Withdraw(_) => false,
        }
    }
}

impl ToExecutor {
    pub(super) fn way(&self, life: Life) -> Way {
        match self {
            ToExecutor::Launch(_) | ToExecutor::Kill(_) | ToExecutor::Retire => {
                Way::ToExecutor(life)
            }
            ToExecutor::Reply(reply, _) => Way::FromBarrier(life, reply.attempt),
        }
    }

    /// Whether it may come twice: all but what is sent once.
    pub(super) fn may_repeat(&self) -> bool {
        match self {
            ToExecutor::Kill(_) => true,
            ToExecutor::Launch(_) | ToExecutor::Retire | ToExecutor::Reply(..) => false,
        }
    }
}

/// How much later than the longest delay a copy, or a timer, may come.
const COPIES_LATER: u32 = 10;

/// Chooses when messages arrive.
#[derive(Debug)]
pub(super) struct Traffic {
    network: Network,
    /// When the last message of a way arrives.
    last: BTreeMap<Way, Duration>,
    /// Messages sent so far.
    pub(super) sent: u64,
}

impl Traffic {
    pub(super) fn new(network: Network) -> Self {
        Traffic { network, last: BTreeMap::new(), sent: 0 }
    }

    /// When a message that is sent now arrives.
    pub(super) fn arrival(&mut self, now: Duration, way: Way, rng: &mut ChaCha8Rng) -> Duration {
        let (shortest, longest) = self.network.delay;
        if longest.is_zero() {
            return now;
        }
        let last = self.last.entry(way).or_insert(Duration::ZERO);
        *last = (*last).max(now + rng.random_range(shortest..=longest));
        *last
    }

    /// When its copy arrives, if there is one.
    pub(super) fn copy(&self, now: Duration, rng: &mut ChaCha8Rng) -> Option<Duration> {
        let (shortest, longest) = self.network.delay;
        let is_copied = self.network.duplicates > 0.0 && rng.random_bool(self.network.duplicates);
        is_copied.then(|| now + rng.random_range(shortest..=longest * COPIES_LATER))
    }

    /// When a timer fires that was cancelled or has fired, if it does.
    pub(super) fn late_timer(&self, rng: &mut ChaCha8Rng) -> Option<Duration> {
        let (shortest, longest) = self.network.delay;
        let is_late = self.network.late_timers > 0.0 && rng.random_bool(self.network.late_timers);
        is_late.then(|| rng.random_range(shortest..=longest * COPIES_LATER))
    }

    /// A life is over: its ways are not used any more.
    pub(super) fn forget(&mut self, life: Life) {
        self.last.retain(|way, _| match way {
            Way::ToScheduler(of)
            | Way::ToExecutor(of)
            | Way::ToBarrier(of, _)
            | Way::FromBarrier(of, _) => *of != life,
        });
    }
}

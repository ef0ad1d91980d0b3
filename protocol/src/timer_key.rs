//! Names of timers. A key carries everything that makes a late fire recognisable as late.

use crate::{Epoch, StageAttemptId, StageId};
use serde::{Deserialize, Serialize};

/// Which timer: set with `SetTimer{key, after}`, cancelled by key, and named when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TimerKey {
    /// A timer of one round of one stage attempt.
    Sync(SyncTimer),
    /// A timer of the task scheduler.
    Scheduler(SchedulerTimer),
}

/// A timer of one round. A round that was emptied by withdrawals and opened again has the same
/// epoch but another `opening`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SyncTimer {
    /// The stage attempt.
    pub attempt: StageAttemptId,
    /// The round's epoch.
    pub epoch: Epoch,
    /// How many rounds this attempt had opened before this one.
    pub opening: u64,
    /// What the timer is for.
    pub kind: SyncTimerKind,
}

/// What a round's timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SyncTimerKind {
    /// The round has lasted too long and fails.
    Timeout,
    /// Tell those who wait who is missing.
    ProgressLog,
}

/// A timer of the task scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SchedulerTimer {
    /// Look again whether a deferred stage fits; `check` counts the checks of this deferral.
    SlotCheck {
        /// The deferred stage.
        stage: StageId,
        /// Which deferral of the stage, so that a fire of an earlier one is late.
        deferral: u32,
        /// Which check of the deferral.
        check: u32,
    },
    /// A waiting gang is now old enough to reserve slots.
    Reserve(StageAttemptId),
    /// The pause before the next stage attempt is over; the attempt named is the next one.
    Retry(StageAttemptId),
    /// The tasks killed by this kill should have ended by now.
    KillOverdue(KillId),
    /// Executors on which tasks killed by this kill still run are given up now.
    ZombieDeadline(KillId),
}

/// One kill: some or all tasks of an attempt, at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KillId {
    /// The attempt that the tasks belong to.
    pub attempt: StageAttemptId,
    /// How many kills there were in the stage before this one.
    pub kill: u32,
}

//! Why a sync was refused or failed.

use crate::{
    CloseReason, Epoch, LeaveReason, PartitionId, PartitionRanges, StageAttemptId, SyncMethod,
    TaskAttemptId,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// Why a `barrier()`, `all_gather()`, `broadcast()` or `all_reduce()` did not end with a release.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
pub enum SyncError {
    /// The sender is at another sync than the gang. Only the sender is refused.
    #[error(
        "{attempt}: partition {partition} asked for the sync of epoch {sent}, but the gang is at epoch {current}; perhaps a former task was not properly killed"
    )]
    WrongEpoch {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The sender.
        partition: PartitionId,
        /// What it sent.
        sent: Epoch,
        /// Where the gang is.
        current: Epoch,
    },
    /// The sender disagrees about the size of the gang. Only the sender is refused.
    #[error(
        "{attempt}: the number of tasks is {sent} from partition {partition}, but it is {expected}"
    )]
    WrongNumTasks {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The sender.
        partition: PartitionId,
        /// What it sent.
        sent: u32,
        /// The gang's size.
        expected: u32,
    },
    /// There is no such partition. Only the sender is refused.
    #[error("{attempt}: partition {partition} is out of range, the stage has {num_tasks} tasks")]
    PartitionOutOfRange {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// What the sender sent.
        partition: PartitionId,
        /// The gang's size.
        num_tasks: u32,
    },
    /// The partition is another task attempt's. Only the sender is refused.
    #[error("{attempt}: partition {partition} is run by task {expected}, not by task {sent}")]
    WrongTaskAttempt {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The partition.
        partition: PartitionId,
        /// What the sender sent.
        sent: TaskAttemptId,
        /// Who runs the partition.
        expected: TaskAttemptId,
    },
    /// The request names no task. Only the sender is refused.
    #[error("{attempt}: the request to sync names no task")]
    NoArrivals {
        /// The stage attempt.
        attempt: StageAttemptId,
    },
    /// The task is in this round already, with another message. Only the second is refused.
    #[error(
        "{attempt}: partition {partition} is already in the sync of epoch {epoch} with another message"
    )]
    ConflictingMessage {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The sender.
        partition: PartitionId,
        /// The round.
        epoch: Epoch,
    },
    /// The task is in this round already, through another call. Only the second is refused.
    #[error(
        "{attempt}: partition {partition} called {called} while it waits in {waiting} of epoch {epoch}"
    )]
    ConcurrentCall {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The sender.
        partition: PartitionId,
        /// The round.
        epoch: Epoch,
        /// The call it waits in.
        waiting: SyncMethod,
        /// The call it made now.
        called: SyncMethod,
    },
    /// An earlier call of the task was dropped half-way, yet counted, and another came instead.
    #[error(
        "{attempt}: the sync of epoch {epoch} was released with a call that partition {partition} had dropped, not with the one it made since; its next call joins the next sync"
    )]
    AbandonedCall {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The caller.
        partition: PartitionId,
        /// The round.
        epoch: Epoch,
    },
    /// The tasks made different calls. The attempt is closed with this error.
    #[error(
        "{attempt}: different sync calls met in epoch {epoch}: partition {partition} called {called}, the others {waiting}"
    )]
    MixedMethods {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The round.
        epoch: Epoch,
        /// The call of those who were first.
        waiting: SyncMethod,
        /// The first who made another call.
        partition: PartitionId,
        /// That call.
        called: SyncMethod,
    },
    /// Not all tasks arrived in time. The attempt is closed with this error.
    #[error(
        "{attempt}: the coordinator did not get all sync requests for epoch {epoch} within {} second(s); missing: partition {missing}", after.as_secs_f64()
    )]
    Timeout {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The round.
        epoch: Epoch,
        /// How long the round lasted.
        after: Duration,
        /// Who did not arrive.
        missing: PartitionRanges,
    },
    /// A task that is needed will never arrive.
    #[error(
        "{attempt}: the sync of epoch {epoch} cannot be completed: partition {partition} {reason}"
    )]
    PeerLeft {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The round.
        epoch: Epoch,
        /// Who left first.
        partition: PartitionId,
        /// Why it left.
        reason: LeaveReason,
    },
    /// The caller itself was killed.
    #[error("{attempt}: partition {partition} was killed: {reason}")]
    Killed {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The caller.
        partition: PartitionId,
        /// The killer's words.
        reason: String,
    },
    /// The stage attempt has ended.
    #[error("{attempt} has ended: {reason}")]
    AttemptClosed {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// How it ended.
        reason: CloseReason,
    },
    /// No such stage attempt is open at the coordinator.
    #[error("{attempt} is not open for syncs: it has ended or was never started")]
    NotOpen {
        /// The stage attempt asked for.
        attempt: StageAttemptId,
    },
    /// Everyone in the round had withdrawn. Only seen by those who withdrew.
    #[error("{attempt}: the sync of epoch {epoch} was withdrawn by its callers")]
    Withdrawn {
        /// The stage attempt.
        attempt: StageAttemptId,
        /// The round.
        epoch: Epoch,
    },
    /// The coordinator of the attempt is gone without an answer.
    #[error("{attempt}: the barrier coordinator is gone")]
    CoordinatorLost {
        /// The stage attempt.
        attempt: StageAttemptId,
    },
    /// The stage is a plain one: its tasks run independently.
    #[error("{attempt} is not a barrier stage: its tasks cannot sync; submit it without plain()")]
    NotABarrierStage {
        /// The stage attempt.
        attempt: StageAttemptId,
    },
}

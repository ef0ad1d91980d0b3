//! What the tasks of a stage share beyond their process: checkpoints and progress are kept where
//! the stage was handed in.

use crate::checkpoint::Checkpoints;
use crate::task_context::StageProgress;
use crate::{CheckpointError, PartitionId, Progress, StageAttemptId, codec};
use bytes::Bytes;
use phalanx_actors::remote::StageCalls;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where a stage keeps what outlives its tasks.
pub(crate) enum StageSide {
    /// In this process.
    Here { progress: Arc<StageProgress>, checkpoints: Checkpoints },
    /// In the driver's; this is an executor.
    AtDriver(StageCalls),
}

/// What an executor is told about a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageSettings {
    pub(crate) max_message_size: usize,
}

/// What a task in another process asks.
#[derive(Serialize, Deserialize)]
enum StageCall {
    Progress(Progress),
    Save { step: u64, value: Bytes },
    Restore,
}

/// An error that can cross processes.
#[derive(Serialize, Deserialize)]
enum Refusal {
    AlreadySaved { step: u64, by: PartitionId },
    Outdated { step: u64, attempt: u32, current: u32 },
    Other(String),
}

type Saved = Result<(), Refusal>;
type RestoredBytes = Option<(u64, Bytes)>;

impl From<CheckpointError> for Refusal {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::AlreadySaved { step, by } => Refusal::AlreadySaved { step, by },
            CheckpointError::Outdated { step, attempt, current } => {
                Refusal::Outdated { step, attempt, current }
            }
            other => Refusal::Other(other.to_string()),
        }
    }
}

impl From<Refusal> for CheckpointError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::AlreadySaved { step, by } => CheckpointError::AlreadySaved { step, by },
            Refusal::Outdated { step, attempt, current } => {
                CheckpointError::Outdated { step, attempt, current }
            }
            Refusal::Other(reason) => CheckpointError::AtDriver { reason },
        }
    }
}

impl StageSide {
    /// A task of this attempt begins.
    pub(crate) fn begin(&self, attempt: StageAttemptId) {
        match self {
            StageSide::Here { progress, checkpoints } => {
                progress.begin(attempt.attempt);
                checkpoints.begin(attempt.attempt);
            }
            // The driver hears of it with the first thing that the attempt asks.
            StageSide::AtDriver(_) => {}
        }
    }

    pub(crate) fn report_progress(
        &self,
        attempt: StageAttemptId,
        partition: PartitionId,
        report: Progress,
    ) {
        match self {
            StageSide::Here { progress, .. } => {
                progress.report(attempt.attempt, partition.0 as usize, report);
            }
            StageSide::AtDriver(calls) => {
                // Two numbers: they can be turned into bytes.
                if let Ok(call) = codec::encode(&StageCall::Progress(report)) {
                    calls.tell(partition, call);
                }
            }
        }
    }

    pub(crate) fn save(
        &self,
        attempt: StageAttemptId,
        partition: PartitionId,
        step: u64,
        value: Bytes,
    ) -> Result<(), CheckpointError> {
        match self {
            StageSide::Here { checkpoints, .. } => {
                checkpoints.save(attempt.attempt, step, partition, value)
            }
            StageSide::AtDriver(calls) => {
                let saved: Saved = ask(calls, partition, &StageCall::Save { step, value })?;
                Ok(saved?)
            }
        }
    }

    pub(crate) fn restore(
        &self,
        attempt: StageAttemptId,
        partition: PartitionId,
    ) -> Result<RestoredBytes, CheckpointError> {
        match self {
            StageSide::Here { checkpoints, .. } => checkpoints.restore(attempt.attempt),
            StageSide::AtDriver(calls) => {
                let restored: Result<RestoredBytes, Refusal> =
                    ask(calls, partition, &StageCall::Restore)?;
                Ok(restored?)
            }
        }
    }

    /// In the driver: answers a task in another process.
    pub(crate) fn serve(
        &self,
        attempt: StageAttemptId,
        partition: PartitionId,
        asked: &[u8],
    ) -> Bytes {
        self.begin(attempt);
        let answer = match codec::decode(asked) {
            Ok(StageCall::Progress(report)) => {
                self.report_progress(attempt, partition, report);
                return Bytes::new();
            }
            Ok(StageCall::Save { step, value }) => {
                let saved: Saved =
                    self.save(attempt, partition, step, value).map_err(Refusal::from);
                codec::encode(&saved)
            }
            Ok(StageCall::Restore) => {
                codec::encode(&self.restore(attempt, partition).map_err(Refusal::from))
            }
            Err(error) => codec::encode(&Saved::Err(Refusal::Other(error.to_string()))),
        };
        // An empty answer is not understood, which the task is told as an error.
        answer.unwrap_or_default()
    }
}

/// Blocks the thread.
fn ask<T: DeserializeOwned>(
    calls: &StageCalls,
    partition: PartitionId,
    call: &StageCall,
) -> Result<T, CheckpointError> {
    let at_driver = |reason: String| CheckpointError::AtDriver { reason };
    let call = codec::encode(call).map_err(|error| at_driver(error.to_string()))?;
    let answer = pollster::block_on(calls.ask(partition, call));
    let answer =
        answer.map_err(|error| CheckpointError::Interrupted { reason: error.to_string() })?;
    codec::decode(&answer).map_err(|error| at_driver(error.to_string()))
}

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
    /// The value is beside it.
    Save {
        step: u64,
    },
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
/// The step; the value is beside it.
type RestoredStep = Result<Option<u64>, Refusal>;

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
                let (saved, _) = ask::<Saved>(calls, partition, &StageCall::Save { step }, value)?;
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
                let nothing = Bytes::new();
                let (restored, value) =
                    ask::<RestoredStep>(calls, partition, &StageCall::Restore, nothing)?;
                Ok(restored?.map(|step| (step, value)))
            }
        }
    }

    /// In the driver: answers a task in another process.
    pub(crate) fn serve(
        &self,
        attempt: StageAttemptId,
        partition: PartitionId,
        asked: &[Bytes],
    ) -> Vec<Bytes> {
        self.begin(attempt);
        let value = asked.get(1).cloned().unwrap_or_default();
        let call = asked.first().map_or(&[][..], |call| call);
        let (answer, value) = match codec::decode(call) {
            Ok(StageCall::Progress(report)) => {
                self.report_progress(attempt, partition, report);
                return Vec::new();
            }
            Ok(StageCall::Save { step }) => {
                let saved = self.save(attempt, partition, step, value);
                (codec::encode(&saved.map_err(Refusal::from)), Bytes::new())
            }
            Ok(StageCall::Restore) => match self.restore(attempt, partition) {
                Ok(Some((step, value))) => (codec::encode(&RestoredStep::Ok(Some(step))), value),
                Ok(None) => (codec::encode(&RestoredStep::Ok(None)), Bytes::new()),
                Err(error) => (codec::encode(&RestoredStep::Err(error.into())), Bytes::new()),
            },
            Err(error) => {
                let refusal = Refusal::Other(error.to_string());
                (codec::encode(&Saved::Err(refusal)), Bytes::new())
            }
        };
        // An empty answer is told as an error.
        answer.map_or_else(|_| Vec::new(), |answer| vec![answer, value])
    }
}

/// Blocks the thread. The answer, and what is beside it.
fn ask<T: DeserializeOwned>(
    calls: &StageCalls,
    partition: PartitionId,
    call: &StageCall,
    value: Bytes,
) -> Result<(T, Bytes), CheckpointError> {
    let at_driver = |reason: String| CheckpointError::AtDriver { reason };
    let call = codec::encode(call).map_err(|error| at_driver(error.to_string()))?;
    let answered = pollster::block_on(calls.ask(partition, &[call, value]));
    let interrupted = |reason| CheckpointError::Interrupted { reason };
    let mut answered = answered.map_err(|error| interrupted(error.to_string()))?.into_iter();
    let Some(answer) = answered.next() else {
        return Err(interrupted("the attempt is over, or the driver failed".to_owned()));
    };
    let answer = codec::decode(&answer).map_err(|error| at_driver(error.to_string()))?;
    Ok((answer, answered.next().unwrap_or_default()))
}

//! Why a job has no result.

use crate::{StageFailure, StageId, StageRole, UnsupportedChain};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a job on datasets has no result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
pub enum JobFailure {
    /// One of its stages failed.
    #[error("aborted due to stage failure: {}", of_stage(*stage, name, *role, *is_barrier, failure))]
    Stage {
        /// Which stage.
        stage: StageId,
        /// Its name.
        name: String,
        /// What it is for.
        role: StageRole,
        /// Whether its tasks are a gang.
        is_barrier: bool,
        /// Why it failed.
        failure: StageFailure,
    },
    /// A barrier stage that cannot be one. Nothing was run.
    #[error("refused: stage {stage}: {chain}")]
    UnsupportedChain {
        /// Which stage.
        stage: StageId,
        /// What is wrong with it.
        chain: UnsupportedChain,
    },
    /// It cannot be run as it stands. Nothing was run.
    #[error("refused: {reason}")]
    Refused {
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// It was cancelled.
    #[error("cancelled: {reason}")]
    Cancelled {
        /// The canceller's words.
        reason: String,
    },
    /// The runtime shut down before it ended.
    #[error("ended by the shutdown of the runtime")]
    Shutdown,
}

fn of_stage(
    stage: StageId,
    name: &str,
    role: StageRole,
    is_barrier: bool,
    failure: &StageFailure,
) -> String {
    if let (StageFailure::Aborted { cause }, StageRole::Result, true) = (failure, role, is_barrier)
    {
        return format!(
            "could not recover from a failed barrier result stage (stage {stage} '{name}'), \
             because results of some partitions may have been handed out; the most recent failure: \
             {cause}. If a repeat does no harm, ask for it: settings(|stage| \
             stage.on_failure(OnFailure::Restart))"
        );
    }
    format!("stage {stage} '{name}' {failure}")
}

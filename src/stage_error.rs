//! Why a stage has no result.

use crate::{BoxError, FailureCause, StageFailure, StageId};
use std::error::Error;
use std::fmt;

/// A stage that ended without a result: which task, which attempt, why, and the task's own error as
/// [`Error::source`].
#[derive(Debug)]
pub struct StageError {
    pub(crate) stage: StageId,
    pub(crate) name: String,
    /// Boxed to keep results small.
    pub(crate) failure: Box<StageFailure>,
    pub(crate) source: Option<BoxError>,
}

impl StageError {
    /// The stage.
    pub fn stage(&self) -> StageId {
        self.stage
    }

    /// What ended it.
    pub fn failure(&self) -> &StageFailure {
        &self.failure
    }

    /// The task that failed first in the last attempt, if one did.
    pub fn first_cause(&self) -> Option<&FailureCause> {
        self.failure.first_cause()
    }

    /// Whether someone cancelled it.
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.failure, StageFailure::Cancelled { .. })
    }

    /// The error that the first failing task of the last attempt returned, if it returned one.
    pub fn into_source(self) -> Option<BoxError> {
        self.source
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {} '{}' {}", self.stage, self.name, self.failure)
    }
}

impl Error for StageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

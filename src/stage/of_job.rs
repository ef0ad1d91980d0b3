//! A stage as the settings of a job's stages.

use super::{Stage, Tasks, shared, spec};
use crate::task_context::{StageProgress, StageShared};
use crate::{Config, OnFailure, Runtime};
use phalanx_protocol::{StageKind, StageSpec};
use std::sync::Arc;

impl Stage<Tasks> {
    pub(crate) fn name_of(&self) -> &str {
        &self.options.name
    }

    pub(crate) fn on_failure_of(&self) -> OnFailure {
        self.options.on_failure
    }

    pub(crate) fn of_kind(mut self, kind: StageKind) -> Self {
        self.options.kind = kind;
        self
    }

    pub(crate) fn spec_of(&self, num_tasks: usize, config: &Config) -> Result<StageSpec, String> {
        spec(self.options.clone(), num_tasks, config)
    }

    pub(crate) fn shared(
        &self,
        runtime: &Runtime,
        num_tasks: usize,
    ) -> (Arc<StageShared>, Arc<StageProgress>) {
        shared(runtime, &self.options, num_tasks)
    }
}

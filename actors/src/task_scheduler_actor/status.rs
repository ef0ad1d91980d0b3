//! What the scheduler is asked for.

use super::TaskSchedulerActor;
use crate::{GetStageStatus, GetStatus, GetSyncStatus, RuntimeStatus, SyncStatus};
use actix::prelude::*;
use phalanx_protocol::StageStatus;

impl Handler<GetStageStatus> for TaskSchedulerActor {
    type Result = Option<StageStatus>;

    fn handle(
        &mut self,
        GetStageStatus(stage): GetStageStatus,
        _: &mut Self::Context,
    ) -> Self::Result {
        self.shared.with(|state| state.machine.stage_status(stage))
    }
}

impl Handler<GetSyncStatus> for TaskSchedulerActor {
    type Result = ResponseFuture<Option<SyncStatus>>;

    fn handle(&mut self, message: GetSyncStatus, _ctx: &mut Self::Context) -> Self::Result {
        let coordinator = self.shared.with(|state| state.coordinator.clone());
        let asked = coordinator.map(|coordinator| coordinator.send(message));
        // A coordinator that is gone has no rounds.
        Box::pin(async { asked?.await.ok().flatten() })
    }
}

impl Handler<GetStatus> for TaskSchedulerActor {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, _: GetStatus, _ctx: &mut Self::Context) -> Self::Result {
        MessageResult(self.shared.with(|state| RuntimeStatus {
            executors: state.machine.executors().collect(),
            stages: state.machine.stages().collect(),
        }))
    }
}

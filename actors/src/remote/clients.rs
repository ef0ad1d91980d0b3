//! Those who ask the driver what it does.

use super::greeting::{Link, say_goodbye};
use super::guests::{DRIVER_ENDS, Guests};
use super::remote_executor::name_of;
use super::wire::{DriverStatus, Message};
use crate::task::lock;
use crate::{CancelStage, GetStageStatus, GetStatus, GetSyncStatus, RuntimeStatus};
use phalanx_protocol::{StageId, StagePhase};
use std::future::poll_fn;
use std::time::Duration;
use tokio::time::timeout;
use tracing::debug;

/// A client that says nothing for so long is cut off.
const CLIENT_IDLE_MAX: Duration = Duration::from_secs(60);

impl Guests {
    pub(super) async fn serve_client(&self, mut link: Link) {
        loop {
            let packet = tokio::select! {
                packet = timeout(CLIENT_IDLE_MAX, link.reader.next()) => packet,
                () = self.end.cancelled() => {
                    return say_goodbye(&link.outbox, DRIVER_ENDS, true).await;
                }
            };
            let Ok(Ok(Some((message, _)))) = packet else { return };
            let answer = match message {
                Message::GetStatus => Message::Status(self.status().await),
                Message::Cancel { stage, reason } => {
                    Message::Cancelled(self.cancel(stage, reason).await)
                }
                Message::Heartbeat => continue,
                other => {
                    debug!("a client said {}", name_of(&other));
                    return say_goodbye(&link.outbox, "clients only ask and cancel", false).await;
                }
            };
            link.outbox.send(&answer, &[]);
            let written = timeout(CLIENT_IDLE_MAX, poll_fn(|cx| link.outbox.poll_empty(cx)));
            tokio::select! {
                written = written => if written.is_err() { return },
                () = self.end.cancelled() => return,
            }
        }
    }

    async fn status(&self) -> DriverStatus {
        let scheduler = &self.host.scheduler;
        let empty = RuntimeStatus { executors: Vec::new(), stages: Vec::new() };
        let runtime = scheduler.send(GetStatus).await.unwrap_or(empty);
        let mut syncs = Vec::new();
        for stage in &runtime.stages {
            // No answer: the runtime ends.
            syncs.extend(scheduler.send(GetSyncStatus(stage.stage)).await.ok().flatten());
        }
        let known = lock(&self.known);
        let here = known.iter().filter(|(_, known)| known.current.is_some());
        let mut names: Vec<_> = here.map(|(name, it)| (it.executor, name.clone())).collect();
        names.sort();
        let application = self.config.program.application.clone();
        DriverStatus { application, runtime, syncs, names }
    }

    async fn cancel(&self, stage: StageId, reason: String) -> bool {
        let scheduler = &self.host.scheduler;
        let status = scheduler.send(GetStageStatus(stage)).await.ok().flatten();
        let runs = status.is_some_and(|status| status.phase != StagePhase::Ended);
        if runs {
            scheduler.do_send(CancelStage { stage, reason });
        }
        runs
    }
}

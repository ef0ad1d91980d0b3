//! Admission, slots, gangs, attempts and retries, as an actor.

mod status;

use crate::shared_scheduler::{SchedulerState, SharedScheduler};
use crate::stage_run::Owner;
use crate::{
    BarrierLost, CancelStage, EventBus, ExecutorLost, InputReady, JoinExecutor, KillPartition,
    RemoveExecutor, Shutdown, Submit, SubmitOfJob, TaskEnded, TimerFired, TimerRequest,
};
use actix::prelude::*;
use phalanx_protocol::{ExecutorLife, SchedulerConfig, SchedulerEvent, TimerKey};
use std::sync::Arc;
use std::time::Duration;

/// Wraps one `TaskScheduler`: takes stages, has executors run their tasks, hands over results.
pub struct TaskSchedulerActor {
    shared: Arc<SharedScheduler>,
}

impl TaskSchedulerActor {
    /// A scheduler without executors. `progress_interval`: pause between two notes to tasks that
    /// wait in a sync.
    pub fn new(
        config: SchedulerConfig,
        progress_interval: Duration,
        timer: Recipient<TimerRequest>,
        events: EventBus,
    ) -> Self {
        let shared = SharedScheduler::new(config, progress_interval, timer, events);
        TaskSchedulerActor { shared: Arc::new(shared) }
    }

    pub(crate) fn shared(&self) -> &Arc<SharedScheduler> {
        &self.shared
    }

    fn handle_event(&self, event: SchedulerEvent) {
        self.shared.with(|state| state.handle_event(event, None, None));
    }
}

impl Drop for TaskSchedulerActor {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Actor for TaskSchedulerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.shared.with(|state| state.actor_started(ctx.address().downgrade()));
    }
}

impl Handler<Submit> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, message: Submit, _ctx: &mut Self::Context) {
        let Submit { submit, body, ended, outcome } = message;
        let owner = Owner::Client { ended, outcome };
        self.shared.with(|state| state.submit(submit, body, owner));
    }
}

impl Handler<SubmitOfJob> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, message: SubmitOfJob, _ctx: &mut Self::Context) {
        let SubmitOfJob { submit, body, planner } = message;
        self.shared.with(|state| state.submit(submit, body, Owner::Planner(planner)));
    }
}

impl Handler<InputReady> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, InputReady(stage): InputReady, _ctx: &mut Self::Context) {
        self.handle_event(SchedulerEvent::InputReady(stage));
    }
}

impl Handler<TaskEnded> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, TaskEnded { report, output }: TaskEnded, _ctx: &mut Self::Context) {
        let event = SchedulerEvent::TaskReport(report);
        self.shared.with(|state| state.handle_event(event, output, None));
    }
}

impl Handler<JoinExecutor> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, JoinExecutor { joined, link }: JoinExecutor, _ctx: &mut Self::Context) {
        self.shared.with(|state| state.join(joined, link));
    }
}

impl Handler<ExecutorLost> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, message: ExecutorLost, _ctx: &mut Self::Context) {
        let ExecutorLost { executor, incarnation, reason } = message;
        let life = ExecutorLife { executor, incarnation };
        self.shared.with(|state| state.executor_lost(life, reason));
    }
}

impl Handler<RemoveExecutor> for TaskSchedulerActor {
    type Result = bool;

    fn handle(&mut self, message: RemoveExecutor, _ctx: &mut Self::Context) -> bool {
        let RemoveExecutor { executor, reason } = message;
        self.shared.with(|state| state.remove_executor(executor, reason))
    }
}

impl Handler<CancelStage> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, CancelStage { stage, reason }: CancelStage, _ctx: &mut Self::Context) {
        self.handle_event(SchedulerEvent::CancelStage { stage, reason });
    }
}

impl Handler<KillPartition> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, message: KillPartition, _ctx: &mut Self::Context) {
        let KillPartition { stage, partition, reason } = message;
        self.handle_event(SchedulerEvent::KillPartition { stage, partition, reason });
    }
}

impl Handler<BarrierLost> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, BarrierLost { attempt, reason }: BarrierLost, _ctx: &mut Self::Context) {
        self.handle_event(SchedulerEvent::BarrierLost { attempt, reason });
    }
}

impl Handler<TimerFired> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, TimerFired { key }: TimerFired, _ctx: &mut Self::Context) {
        match key {
            TimerKey::Scheduler(key) => self.handle_event(SchedulerEvent::TimerFired(key)),
            // Only barriers set these.
            TimerKey::Sync(_) => {}
        }
    }
}

impl Handler<Shutdown> for TaskSchedulerActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _ctx: &mut Self::Context) -> Self::Result {
        let drained = self.shared.with(SchedulerState::shut_down);
        // Dropped only if the scheduler itself ends, which is a shutdown, too.
        Box::pin(async { drop(drained.await) })
    }
}

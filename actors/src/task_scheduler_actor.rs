//! Admission, slots, gangs, attempts and retries, as an actor.

mod status;

use crate::barrier_coordinator_actor::OpenBarrierIn;
use crate::drop_thread::DropThread;
use crate::event_bus::Moment;
use crate::run_task::{TaskBody, TaskOutput};
use crate::shared_barrier::SharedBarrier;
use crate::stage_run::{Owner, StageRun};
use crate::{
    BarrierCoordinatorActor, BarrierLost, CancelStage, EventBus, ExecutorLink, ExecutorLost,
    GangBarrier, InputReady, JoinExecutor, KillPartition, LaunchOnExecutor, PlannerActor,
    RemoveExecutor, RetireExecutor, Shutdown, Submit, SubmitOfJob, TaskEnded, Tell, TimerFired,
    TimerRequest,
};
use actix::prelude::*;
use phalanx_protocol::{
    ExecutorId, ExecutorLife, Incarnation, LaunchTasks, OpenBarrier, PlannerEvent, RuntimeEvent,
    SchedulerConfig, SchedulerEffect, SchedulerEvent, StageFailure, StageId, SubmitStage,
    TaskScheduler, TimerKey,
};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Wraps one `TaskScheduler`: takes stages, has executors run their tasks, hands over results.
pub struct TaskSchedulerActor {
    machine: TaskScheduler,
    executors: HashMap<ExecutorId, (Incarnation, ExecutorLink)>,
    stages: HashMap<StageId, StageRun>,
    /// `None` until the first gang, and after the coordinator died.
    coordinator: Option<Addr<BarrierCoordinatorActor>>,
    /// Who keeps outputs that are lost with their executors; `None` until it hands in a stage.
    planner: Option<Addr<PlannerActor>>,
    progress_interval: Duration,
    timer: Recipient<TimerRequest>,
    /// Barriers ask the timer for as little as they can.
    gathers_timers: bool,
    events: EventBus,
    drops: DropThread,
    /// Empty between two events; kept for its room.
    effects: Vec<SchedulerEffect>,
    /// Who waits for the end of the shutdown.
    drained: Vec<oneshot::Sender<()>>,
}

const EFFECTS_KEPT: usize = 256;

impl TaskSchedulerActor {
    /// A scheduler without executors. `progress_interval`: pause between two notes to tasks that
    /// wait in a sync.
    pub fn new(
        config: SchedulerConfig,
        progress_interval: Duration,
        timer: Recipient<TimerRequest>,
        events: EventBus,
    ) -> Self {
        TaskSchedulerActor {
            machine: TaskScheduler::new(config),
            executors: HashMap::new(),
            stages: HashMap::new(),
            coordinator: None,
            planner: None,
            progress_interval,
            timer,
            gathers_timers: false,
            events,
            drops: DropThread::start(),
            effects: Vec::new(),
            drained: Vec::new(),
        }
    }

    /// Has barriers ask the timer for one wake-up at a time. Only for a timer on real time.
    pub(crate) fn with_gathered_timers(mut self, gathers: bool) -> Self {
        self.gathers_timers = gathers;
        self
    }

    /// `output`: the value or error that came with the event, if it is a report.
    fn handle_event(
        &mut self,
        event: SchedulerEvent,
        mut output: Option<TaskOutput>,
        ctx: &mut Context<Self>,
    ) {
        let mut events = VecDeque::from([event]);
        let mut effects = std::mem::take(&mut self.effects);
        while let Some(event) = events.pop_front() {
            let now = self.events.now();
            self.machine.handle(event, &mut effects);
            for effect in effects.drain(..) {
                self.run(effect, now, &mut output, &mut events, ctx);
            }
        }
        // A large gang's room is not kept.
        effects.shrink_to(EFFECTS_KEPT);
        self.effects = effects;
        if let Some(unwanted) = output {
            self.drops.take([unwanted.unwrap_or_else(|error| Box::new(error))]);
        }
    }

    fn run(
        &mut self,
        effect: SchedulerEffect,
        now: Moment,
        output: &mut Option<TaskOutput>,
        events: &mut VecDeque<SchedulerEvent>,
        ctx: &mut Context<Self>,
    ) {
        match effect {
            SchedulerEffect::OpenBarrier(open) => self.open_barrier(open, ctx),
            SchedulerEffect::LaunchTasks { executor, launch } => {
                events.extend(self.launch(executor, launch));
            }
            SchedulerEffect::KillTask { executor, kill } => {
                if let Some((_, link)) = self.executors.get(&executor) {
                    link.kill.do_send(Tell(kill));
                }
            }
            SchedulerEffect::StageCompleted(completed) => {
                if let Some(run) = self.stages.get_mut(&completed.attempt.stage) {
                    run.barrier = None;
                }
                if let Some(coordinator) = &self.coordinator {
                    coordinator.do_send(Tell(completed));
                }
            }
            SchedulerEffect::KeepPayload { stage, partition, task_attempt } => {
                if let (Some(run), Some(output)) = (self.stages.get_mut(&stage), output.take()) {
                    run.keep(partition, task_attempt, output, &self.drops);
                }
            }
            SchedulerEffect::DiscardPayloads(stage) => {
                if let Some(run) = self.stages.get_mut(&stage) {
                    run.discard_values(&self.drops);
                }
            }
            SchedulerEffect::AwaitsInput(stage) => {
                self.tell_planner(stage, PlannerEvent::AwaitsInput(stage));
            }
            SchedulerEffect::InputLost { stage, failed } => {
                self.tell_planner(stage, PlannerEvent::InputLost { stage, failed });
            }
            SchedulerEffect::StageEnded { stage, next_attempt, result } => {
                if let Some(run) = self.stages.remove(&stage) {
                    run.end(stage, next_attempt, result, &self.drops);
                }
            }
            SchedulerEffect::RetireExecutor { executor, incarnation } => {
                self.retire(executor, Some(incarnation), true);
            }
            SchedulerEffect::SetTimer { key, after } => {
                let (key, notify) = (TimerKey::Scheduler(key), ctx.address().recipient());
                self.timer.do_send(TimerRequest::Set { key, after, notify });
            }
            SchedulerEffect::Emit(event) => self.emit(event, now),
            SchedulerEffect::Drained => {
                for waiting in self.drained.drain(..) {
                    // Who asked may have given up.
                    let _ = waiting.send(());
                }
            }
        }
    }

    fn emit(&self, event: RuntimeEvent, now: Moment) {
        if let (RuntimeEvent::ExecutorLost { executor, incarnation, .. }, Some(planner)) =
            (&event, &self.planner)
        {
            let life = ExecutorLife { executor: *executor, incarnation: *incarnation };
            planner.do_send(Tell(PlannerEvent::ExecutorLost(life)));
        }
        self.events.emit(|| now, event);
    }

    fn tell_planner(&self, stage: StageId, event: PlannerEvent) {
        if let Some(StageRun { owner: Owner::Planner(planner), .. }) = self.stages.get(&stage) {
            planner.do_send(Tell(event));
        }
    }

    /// Killed tasks of a stage may outlive its result; only a job's stage comes again.
    fn is_in_use(&self, submit: &SubmitStage) -> bool {
        let is_new = submit.of_job.is_none();
        self.stages.contains_key(&submit.stage)
            || is_new && self.machine.stage_status(submit.stage).is_some()
    }

    fn submit(
        &mut self,
        submit: SubmitStage,
        body: TaskBody,
        owner: Owner,
        ctx: &mut Context<Self>,
    ) {
        let refusal = match submit.spec.validate() {
            Err(invalid) => Some(invalid.to_string()),
            Ok(()) if self.is_in_use(&submit) => {
                Some(format!("stage id {} is in use, choose another", submit.stage))
            }
            Ok(()) => None,
        };
        let (name, num_tasks) = (submit.spec.name.as_str().into(), submit.spec.num_tasks);
        let run = StageRun::new(name, num_tasks, body, owner);
        if let Some(reason) = refusal {
            run.end(submit.stage, 0, Err(StageFailure::Refused { reason }), &self.drops);
            return;
        }
        self.stages.insert(submit.stage, run);
        self.handle_event(SchedulerEvent::SubmitStage(submit), None, ctx);
    }

    /// Made here, so that this step can both tell the coordinator and launch tasks with it.
    fn open_barrier(&mut self, open: OpenBarrier, ctx: &mut Context<Self>) {
        let (timer, events) = (self.timer.clone(), self.events.clone());
        let barrier = SharedBarrier::new(open.clone(), self.progress_interval, timer, events);
        let barrier = if self.gathers_timers { barrier.with_gathered_timers() } else { barrier };
        let barrier = Arc::new(barrier);
        if let Some(run) = self.stages.get_mut(&open.attempt.stage) {
            run.barrier = Some(barrier.clone());
        }
        let alive = self.coordinator.take().filter(Addr::connected);
        let coordinator = alive.unwrap_or_else(|| {
            let (timer, events) = (self.timer.clone(), self.events.clone());
            BarrierCoordinatorActor::new(self.progress_interval, timer, events)
                .with_scheduler(ctx.address().recipient())
                .start()
        });
        coordinator.do_send(OpenBarrierIn(open, barrier));
        self.coordinator = Some(coordinator);
    }

    /// An executor that cannot be reached is lost.
    fn launch(&self, executor: ExecutorId, launch: LaunchTasks) -> Option<SchedulerEvent> {
        let (incarnation, link) = self.executors.get(&executor)?;
        if !link.launch.connected() {
            let (incarnation, reason) = (*incarnation, "cannot be reached".to_owned());
            return Some(SchedulerEvent::ExecutorLost { executor, incarnation, reason });
        }
        let run = self.stages.get(&launch.attempt.stage)?;
        let (name, body) = (run.name.clone(), run.body.clone());
        let barrier = run.barrier.clone().map(GangBarrier::Here);
        link.launch.do_send(LaunchOnExecutor { launch, name, body, barrier });
        None
    }

    fn retire(
        &mut self,
        executor: ExecutorId,
        incarnation: Option<Incarnation>,
        comes_back: bool,
    ) -> Option<Incarnation> {
        let (known, _) = self.executors.get(&executor)?;
        if incarnation.is_some_and(|incarnation| incarnation != *known) {
            return None;
        }
        let (known, link) = self.executors.remove(&executor)?;
        link.retire.do_send(RetireExecutor { comes_back });
        Some(known)
    }
}

impl Actor for TaskSchedulerActor {
    type Context = Context<Self>;
}

impl Handler<Submit> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, message: Submit, ctx: &mut Self::Context) {
        let Submit { submit, body, ended, outcome } = message;
        self.submit(submit, body, Owner::Client { ended, outcome }, ctx);
    }
}

impl Handler<SubmitOfJob> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, message: SubmitOfJob, ctx: &mut Self::Context) {
        let SubmitOfJob { submit, body, planner } = message;
        self.planner = Some(planner.clone());
        self.submit(submit, body, Owner::Planner(planner), ctx);
    }
}

impl Handler<InputReady> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, InputReady(stage): InputReady, ctx: &mut Self::Context) {
        self.handle_event(SchedulerEvent::InputReady(stage), None, ctx);
    }
}

impl Handler<TaskEnded> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, TaskEnded { report, output }: TaskEnded, ctx: &mut Self::Context) {
        self.handle_event(SchedulerEvent::TaskReport(report), output, ctx);
    }
}

impl Handler<JoinExecutor> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, JoinExecutor { joined, link }: JoinExecutor, ctx: &mut Self::Context) {
        let known = self.executors.get(&joined.executor);
        if known.is_none_or(|(incarnation, _)| *incarnation < joined.incarnation) {
            self.executors.insert(joined.executor, (joined.incarnation, link));
        }
        self.handle_event(SchedulerEvent::ExecutorJoined(joined), None, ctx);
    }
}

impl Handler<ExecutorLost> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, message: ExecutorLost, ctx: &mut Self::Context) {
        let ExecutorLost { executor, incarnation, reason } = message;
        // The loss of a later life is that of this one, too.
        if self.executors.get(&executor).is_some_and(|(known, _)| *known <= incarnation) {
            self.executors.remove(&executor);
        }
        let event = SchedulerEvent::ExecutorLost { executor, incarnation, reason };
        self.handle_event(event, None, ctx);
    }
}

impl Handler<RemoveExecutor> for TaskSchedulerActor {
    type Result = bool;

    fn handle(&mut self, message: RemoveExecutor, ctx: &mut Self::Context) -> bool {
        let RemoveExecutor { executor, reason } = message;
        let Some(incarnation) = self.retire(executor, None, false) else { return false };
        let event = SchedulerEvent::ExecutorLost { executor, incarnation, reason };
        self.handle_event(event, None, ctx);
        true
    }
}

impl Handler<CancelStage> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, CancelStage { stage, reason }: CancelStage, ctx: &mut Self::Context) {
        self.handle_event(SchedulerEvent::CancelStage { stage, reason }, None, ctx);
    }
}

impl Handler<KillPartition> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, message: KillPartition, ctx: &mut Self::Context) {
        let KillPartition { stage, partition, reason } = message;
        self.handle_event(SchedulerEvent::KillPartition { stage, partition, reason }, None, ctx);
    }
}

impl Handler<BarrierLost> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, BarrierLost { attempt, reason }: BarrierLost, ctx: &mut Self::Context) {
        self.handle_event(SchedulerEvent::BarrierLost { attempt, reason }, None, ctx);
    }
}

impl Handler<TimerFired> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, TimerFired { key }: TimerFired, ctx: &mut Self::Context) {
        match key {
            TimerKey::Scheduler(key) => {
                self.handle_event(SchedulerEvent::TimerFired(key), None, ctx);
            }
            // Only barriers set these.
            TimerKey::Sync(_) => {}
        }
    }
}

impl Handler<Shutdown> for TaskSchedulerActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) -> Self::Result {
        let (tell, drained) = oneshot::channel();
        self.drained.push(tell);
        self.handle_event(SchedulerEvent::Shutdown, None, ctx);
        // Dropped only if the scheduler itself ends, which is a shutdown, too.
        Box::pin(async { drop(drained.await) })
    }
}

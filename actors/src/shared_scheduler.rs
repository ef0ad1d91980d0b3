//! The scheduler's machine and what carries out its effects.

use crate::barrier_coordinator_actor::OpenBarrierIn;
use crate::drop_thread::DropThread;
use crate::event_bus::Moment;
use crate::reporter::Take;
use crate::run_task::{TaskBody, TaskOutput};
use crate::shared_barrier::SharedBarrier;
use crate::stage_run::{Owner, StageRun};
use crate::{
    BarrierCoordinatorActor, EventBus, ExecutorLink, GangBarrier, LaunchOnExecutor, PlannerActor,
    RetireExecutor, TaskSchedulerActor, Tell, TimerRequest,
};
use actix::WeakAddr;
use actix::prelude::*;
use phalanx_protocol::{
    ExecutorId, ExecutorJoined, ExecutorLife, Incarnation, LaunchTasks, OpenBarrier, PlannerEvent,
    RuntimeEvent, SchedulerConfig, SchedulerEffect, SchedulerEvent, StageFailure, StageId,
    SubmitStage, TaskScheduler, TimerKey,
};
use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// One `TaskScheduler`, driven by its actor, and by threads that have ended a task and could begin
/// with the next one of its stage. The lock is held for one event and never while a task's code
/// runs.
pub(crate) struct SharedScheduler {
    /// `None`: its actor has ended, and with it all that this kept.
    state: Mutex<Option<SchedulerState>>,
    /// The actor waits for the lock: others leave it to it.
    actor_waits: AtomicBool,
}

/// All that the scheduler has.
pub(crate) struct SchedulerState {
    pub(crate) machine: TaskScheduler,
    executors: HashMap<ExecutorId, (Incarnation, ExecutorLink)>,
    stages: HashMap<StageId, StageRun>,
    /// `None` until the first gang, and after the coordinator died.
    pub(crate) coordinator: Option<Addr<BarrierCoordinatorActor>>,
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
    /// `None` until the actor has started.
    home: Option<Home>,
}

/// The scheduler's actor.
struct Home {
    actor: WeakAddr<TaskSchedulerActor>,
    /// Where it lives, if that is an arbiter.
    arbiter: Option<ArbiterHandle>,
}

const EFFECTS_KEPT: usize = 256;

/// Looks at a lock that another thread has: ten microseconds or more.
const LOOKS: u32 = 500;

/// A thread of an executor that may take what is launched on that.
pub(crate) struct Taker<'a> {
    pub(crate) executor: ExecutorLife,
    pub(crate) take: Take<'a>,
}

/// One event, and what follows from it.
struct Step<'a> {
    /// The time that all of its events have.
    now: OnceCell<Moment>,
    output: Option<TaskOutput>,
    /// What failed goes back in.
    events: VecDeque<SchedulerEvent>,
    taker: Option<Taker<'a>>,
}

impl SharedScheduler {
    /// A scheduler without executors. `progress_interval`: pause between two notes to tasks that
    /// wait in a sync.
    pub(crate) fn new(
        config: SchedulerConfig,
        progress_interval: Duration,
        timer: Recipient<TimerRequest>,
        events: EventBus,
    ) -> Self {
        let state = SchedulerState {
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
            home: None,
        };
        SharedScheduler { state: Mutex::new(Some(state)), actor_waits: AtomicBool::new(false) }
    }

    /// For the actor, which is there as long as the state is.
    pub(crate) fn with<R>(&self, step: impl FnOnce(&mut SchedulerState) -> R) -> R {
        self.actor_waits.store(true, Ordering::SeqCst);
        let locked = self.state.lock();
        self.actor_waits.store(false, Ordering::SeqCst);
        let mut state = locked.expect("a scheduler of which a step has panicked does not go on");
        step(state.as_mut().expect("it is taken out when the actor ends"))
    }

    /// For threads that come often: who has the lock is done before they could be put to rest and
    /// woken. Not if the actor wants it, which it would not get from many of them, or not soon.
    pub(crate) fn lock_soon(&self) -> Option<MutexGuard<'_, Option<SchedulerState>>> {
        for _ in 0..LOOKS {
            if self.actor_waits.load(Ordering::SeqCst) {
                return None;
            }
            if let Ok(state) = self.state.try_lock() {
                return Some(state);
            }
            hint::spin_loop();
        }
        None
    }

    /// The actor has ended: who waits for a stage is told.
    pub(crate) fn end(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(state);
    }
}

impl SchedulerState {
    /// Has barriers ask the timer for one wake-up at a time. Only for a timer on real time.
    pub(crate) fn gather_timers(&mut self) {
        self.gathers_timers = true;
    }

    pub(crate) fn actor_started(&mut self, actor: WeakAddr<TaskSchedulerActor>) {
        self.home = Some(Home { actor, arbiter: Arbiter::try_current() });
    }

    /// `output`: the value or error that came with the event, if it is a report. `taker`: the
    /// thread it came from, if that can begin with something new.
    pub(crate) fn handle_event(
        &mut self,
        event: SchedulerEvent,
        output: Option<TaskOutput>,
        taker: Option<Taker<'_>>,
    ) {
        let mut effects = std::mem::take(&mut self.effects);
        let (now, events) = (OnceCell::new(), VecDeque::new());
        let mut step = Step { now, output, events, taker };
        let mut next = Some(event);
        while let Some(event) = next {
            self.machine.handle(event, &mut effects);
            for effect in effects.drain(..) {
                self.run(effect, &mut step);
            }
            next = step.events.pop_front();
        }
        // A large gang's room is not kept.
        effects.shrink_to(EFFECTS_KEPT);
        self.effects = effects;
        if let Some(unwanted) = step.output {
            self.drops.take([unwanted.unwrap_or_else(|error| Box::new(error))]);
        }
    }

    fn run(&mut self, effect: SchedulerEffect, step: &mut Step<'_>) {
        match effect {
            SchedulerEffect::OpenBarrier(open) => self.open_barrier(open),
            SchedulerEffect::LaunchTasks { executor, launch } => {
                let unreachable = self.launch(executor, launch, step.taker.as_mut());
                step.events.extend(unreachable);
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
                if let (Some(run), Some(output)) = (self.stages.get_mut(&stage), step.output.take())
                {
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
                if let Some(actor) = self.actor() {
                    let (key, notify) = (TimerKey::Scheduler(key), actor.recipient());
                    self.timer.do_send(TimerRequest::Set { key, after, notify });
                }
            }
            SchedulerEffect::Emit(event) => self.emit(event, &step.now),
            SchedulerEffect::Drained => {
                for waiting in self.drained.drain(..) {
                    // Who asked may have given up.
                    let _ = waiting.send(());
                }
            }
        }
    }

    fn emit(&self, event: RuntimeEvent, now: &OnceCell<Moment>) {
        if let (RuntimeEvent::ExecutorLost { executor, incarnation, .. }, Some(planner)) =
            (&event, &self.planner)
        {
            let life = ExecutorLife { executor: *executor, incarnation: *incarnation };
            planner.do_send(Tell(PlannerEvent::ExecutorLost(life)));
        }
        self.events.emit(|| *now.get_or_init(|| self.events.now()), event);
    }

    fn tell_planner(&self, stage: StageId, event: PlannerEvent) {
        if let Some(StageRun { owner: Owner::Planner(planner), .. }) = self.stages.get(&stage) {
            planner.do_send(Tell(event));
        }
    }

    /// `None` if it is gone, and nothing goes on.
    fn actor(&self) -> Option<Addr<TaskSchedulerActor>> {
        self.home.as_ref()?.actor.upgrade()
    }

    /// Killed tasks of a stage may outlive its result; only a job's stage comes again.
    fn is_in_use(&self, submit: &SubmitStage) -> bool {
        let is_new = submit.of_job.is_none();
        self.stages.contains_key(&submit.stage)
            || is_new && self.machine.stage_status(submit.stage).is_some()
    }

    pub(crate) fn submit(&mut self, submit: SubmitStage, body: TaskBody, owner: Owner) {
        if let Owner::Planner(planner) = &owner {
            self.planner = Some(planner.clone());
        }
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
        self.handle_event(SchedulerEvent::SubmitStage(submit), None, None);
    }

    /// Made here, so that this step can both tell the coordinator and launch tasks with it.
    fn open_barrier(&mut self, open: OpenBarrier) {
        let (timer, events) = (self.timer.clone(), self.events.clone());
        let barrier = SharedBarrier::new(open.clone(), self.progress_interval, timer, events);
        let barrier = if self.gathers_timers { barrier.with_gathered_timers() } else { barrier };
        let barrier = Arc::new(barrier);
        if let Some(run) = self.stages.get_mut(&open.attempt.stage) {
            run.barrier = Some(barrier.clone());
        }
        let alive = self.coordinator.take().filter(Addr::connected);
        self.coordinator = alive.or_else(|| self.start_coordinator());
        if let Some(coordinator) = &self.coordinator {
            coordinator.do_send(OpenBarrierIn(open, barrier));
        }
    }

    /// Beside the scheduler's actor, whatever thread this is.
    fn start_coordinator(&self) -> Option<Addr<BarrierCoordinatorActor>> {
        let scheduler = self.actor()?.recipient();
        let (timer, events) = (self.timer.clone(), self.events.clone());
        let coordinator = BarrierCoordinatorActor::new(self.progress_interval, timer, events)
            .with_scheduler(scheduler);
        Some(match &self.home.as_ref()?.arbiter {
            Some(arbiter) => BarrierCoordinatorActor::start_in_arbiter(arbiter, |_| coordinator),
            None => coordinator.start(),
        })
    }

    /// An executor that cannot be reached is lost.
    fn launch(
        &self,
        executor: ExecutorId,
        launch: LaunchTasks,
        taker: Option<&mut Taker<'_>>,
    ) -> Option<SchedulerEvent> {
        let (incarnation, link) = self.executors.get(&executor)?;
        if !link.launch.connected() {
            let (incarnation, reason) = (*incarnation, "cannot be reached".to_owned());
            return Some(SchedulerEvent::ExecutorLost { executor, incarnation, reason });
        }
        let run = self.stages.get(&launch.attempt.stage)?;
        let (name, body) = (run.name.clone(), run.body.clone());
        let barrier = run.barrier.clone().map(GangBarrier::Here);
        let launch = LaunchOnExecutor { launch, name, body, barrier };
        let executor = ExecutorLife { executor, incarnation: *incarnation };
        let left = match taker.filter(|taker| taker.executor == executor) {
            Some(taker) => (taker.take)(launch),
            None => Some(launch),
        };
        if let Some(launch) = left {
            link.launch.do_send(launch);
        }
        None
    }

    pub(crate) fn join(&mut self, joined: ExecutorJoined, link: ExecutorLink) {
        let known = self.executors.get(&joined.executor);
        if known.is_none_or(|(incarnation, _)| *incarnation < joined.incarnation) {
            self.executors.insert(joined.executor, (joined.incarnation, link));
        }
        self.handle_event(SchedulerEvent::ExecutorJoined(joined), None, None);
    }

    pub(crate) fn executor_lost(&mut self, life: ExecutorLife, reason: String) {
        let ExecutorLife { executor, incarnation } = life;
        // The loss of a later life is that of this one, too.
        if self.executors.get(&executor).is_some_and(|(known, _)| *known <= incarnation) {
            self.executors.remove(&executor);
        }
        let event = SchedulerEvent::ExecutorLost { executor, incarnation, reason };
        self.handle_event(event, None, None);
    }

    /// Whether it was there.
    pub(crate) fn remove_executor(&mut self, executor: ExecutorId, reason: String) -> bool {
        let Some(incarnation) = self.retire(executor, None, false) else { return false };
        let event = SchedulerEvent::ExecutorLost { executor, incarnation, reason };
        self.handle_event(event, None, None);
        true
    }

    /// Told when no task runs any more.
    pub(crate) fn shut_down(&mut self) -> oneshot::Receiver<()> {
        let (tell, drained) = oneshot::channel();
        self.drained.push(tell);
        self.handle_event(SchedulerEvent::Shutdown, None, None);
        drained
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

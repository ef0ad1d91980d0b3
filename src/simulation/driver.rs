//! The driver's side: the machines that ship, and what becomes of their effects.

use super::network::{Life, ToDriver, ToExecutor};
use super::simulator::{Due, Simulator, Waiting};
use super::{FaultKind, Observation};
use crate::protocol::{
    BarrierEffect, BarrierEvent, ContextBarrierState, CoordinatorEffect, CoordinatorEvent,
    ReplyToken, RequestToSync, SchedulerEffect, SchedulerEvent, SubmitStage, SyncReply, TimerKey,
};
use crate::{ExecutorId, PartitionId, StageAttemptId, StageId, SyncError, TaskAttemptId};
use std::sync::Arc;
use std::time::Duration;

/// As `BarrierCoordinatorActor` says it.
const BARRIER_DIED: &str = "its actor ended unexpectedly";

impl Simulator {
    pub(super) fn submit(&mut self, stage: StageId) {
        if let Some(planned) = self.plan.stages.get(&stage) {
            let spec = planned.spec.clone();
            self.tell_scheduler(SchedulerEvent::SubmitStage(SubmitStage {
                stage,
                spec,
                of_job: None,
            }));
        }
    }

    pub(super) fn cancel(&mut self, stage: StageId, reason: String) {
        self.tell_scheduler(SchedulerEvent::CancelStage { stage, reason });
    }

    pub(super) fn kill_partition(
        &mut self,
        stage: StageId,
        partition: PartitionId,
        reason: String,
    ) {
        self.tell_scheduler(SchedulerEvent::KillPartition { stage, partition, reason });
    }

    pub(super) fn shut_down(&mut self) {
        self.tell_scheduler(SchedulerEvent::Shutdown);
    }

    pub(super) fn executor_is_lost(&mut self, (executor, incarnation): Life, reason: String) {
        self.tell_scheduler(SchedulerEvent::ExecutorLost { executor, incarnation, reason });
    }

    pub(super) fn driver_receives(&mut self, from: Life, message: ToDriver) {
        if self.executors.get(&from).is_some_and(|it| !it.link.reaches_driver()) {
            self.observe(Observation::Fault(FaultKind::MessageLost));
            return;
        }
        match message {
            ToDriver::Joined(joined) => {
                self.tell_scheduler(SchedulerEvent::ExecutorJoined(joined));
            }
            ToDriver::Report(report) => self.tell_scheduler(SchedulerEvent::TaskReport(report)),
            ToDriver::Request(request, tasks) => self.request(from, request, tasks),
            ToDriver::Withdraw(withdraw) => {
                self.tell_barrier(withdraw.attempt, BarrierEvent::WithdrawSync(withdraw));
            }
            ToDriver::Left(left) => self.tell_barrier(left.attempt, BarrierEvent::TaskLeft(left)),
        }
    }

    /// A barrier that is known is asked itself, as a gatherer does; any other is the coordinator's
    /// to refuse.
    fn request(&mut self, life: Life, request: RequestToSync, tasks: Arc<[TaskAttemptId]>) {
        let (attempt, epoch) = (request.attempt, request.epoch);
        let reply_to = ReplyToken(self.next_token);
        self.next_token += 1;
        self.waiting.insert(reply_to, Waiting { life, attempt, epoch, tasks });
        if self.barriers.contains_key(&attempt) {
            self.tell_barrier(attempt, BarrierEvent::RequestToSync { request, reply_to });
        } else {
            self.tell_coordinator(CoordinatorEvent::RequestToSync { request, reply_to });
        }
    }

    pub(super) fn timer_fires(&mut self, key: TimerKey, is_late: bool) {
        if is_late {
            self.observe(Observation::Fault(FaultKind::TimerFiredLate));
        } else {
            self.armed.remove(&key);
            self.fire_again(key);
        }
        match key {
            TimerKey::Scheduler(key) => self.tell_scheduler(SchedulerEvent::TimerFired(key)),
            TimerKey::Sync(key) => self.tell_barrier(key.attempt, BarrierEvent::TimerFired(key)),
        }
    }

    fn set_timer(&mut self, key: TimerKey, after: Duration) {
        let turn = self.agenda.add(after, Due::Timer { key, is_late: false });
        if let Some(former) = self.armed.insert(key, turn) {
            self.agenda.remove(former);
        }
    }

    fn cancel_timer(&mut self, key: TimerKey) {
        let Some(turn) = self.armed.remove(&key) else { return };
        self.agenda.remove(turn);
        self.fire_again(key);
    }

    fn fire_again(&mut self, key: TimerKey) {
        if let Some(after) = self.traffic.late_timer(&mut self.rng) {
            self.agenda.add(after, Due::Timer { key, is_late: true });
        }
    }

    pub(super) fn tell_scheduler(&mut self, event: SchedulerEvent) {
        self.note_executors(&event);
        let mut effects = Vec::new();
        self.scheduler.handle(event.clone(), &mut effects);
        self.observe(Observation::Scheduler { event, effects: effects.clone() });
        for effect in effects {
            match effect {
                SchedulerEffect::OpenBarrier(open) => {
                    self.tell_coordinator(CoordinatorEvent::Open(open));
                }
                SchedulerEffect::LaunchTasks { executor, launch } => {
                    self.send_to_executor(executor, ToExecutor::Launch(launch));
                }
                SchedulerEffect::KillTask { executor, kill } => {
                    self.send_to_executor(executor, ToExecutor::Kill(kill));
                }
                SchedulerEffect::StageCompleted(completed) => {
                    self.tell_coordinator(CoordinatorEvent::StageCompleted(completed));
                }
                SchedulerEffect::RetireExecutor { executor, incarnation } => {
                    self.known.remove(&executor);
                    self.send(ToExecutor::Retire, (executor, incarnation));
                }
                SchedulerEffect::SetTimer { key, after } => {
                    self.set_timer(TimerKey::Scheduler(key), after);
                }
                SchedulerEffect::Emit(event) => self.emit(event),
                // There are no values here, and nobody who waits but those who observe.
                SchedulerEffect::KeepPayload { .. }
                | SchedulerEffect::DiscardPayloads(_)
                | SchedulerEffect::AwaitsInput(_)
                | SchedulerEffect::InputLost { .. }
                | SchedulerEffect::StageEnded { .. }
                | SchedulerEffect::Drained => {}
            }
        }
    }

    fn tell_coordinator(&mut self, event: CoordinatorEvent) {
        let mut effects = Vec::new();
        self.coordinator.handle(event.clone(), &mut effects);
        self.observe(Observation::Coordinator { event, effects: effects.clone() });
        for effect in effects {
            match effect {
                CoordinatorEffect::StartChild(open) => {
                    let interval = self.plan.config.progress_log_interval;
                    let attempt = open.attempt;
                    self.barriers.insert(attempt, ContextBarrierState::new(open, interval));
                }
                CoordinatorEffect::Forward { request, reply_to } => {
                    let attempt = request.attempt;
                    self.tell_barrier(attempt, BarrierEvent::RequestToSync { request, reply_to });
                }
                CoordinatorEffect::Refuse { to, reply } => self.answer(to, reply),
                CoordinatorEffect::CloseChild { attempt, reason } => {
                    self.tell_barrier(attempt, BarrierEvent::Close(reason));
                    self.forget_barrier_without_tasks(attempt);
                }
                CoordinatorEffect::ReportBarrierLost(attempt) => {
                    let reason = BARRIER_DIED.to_owned();
                    self.tell_scheduler(SchedulerEvent::BarrierLost { attempt, reason });
                }
            }
        }
    }

    fn tell_barrier(&mut self, attempt: StageAttemptId, event: BarrierEvent) {
        let Some(barrier) = self.barriers.get_mut(&attempt) else { return };
        let mut effects = Vec::new();
        barrier.handle(event.clone(), &mut effects);
        self.observe(Observation::Barrier { attempt, event, effects: effects.clone() });
        for effect in effects {
            match effect {
                BarrierEffect::Reply { to, reply } => self.answer(to, reply),
                // Nobody reads the simulated tasks' logs.
                BarrierEffect::NotifyWaiting { .. } => {}
                BarrierEffect::SetTimer { key, after } => {
                    self.set_timer(TimerKey::Sync(key), after);
                }
                BarrierEffect::CancelTimer { key } => self.cancel_timer(TimerKey::Sync(key)),
                BarrierEffect::Emit(event) => self.emit(event),
            }
        }
    }

    fn answer(&mut self, to: ReplyToken, reply: SyncReply) {
        if let Some(Waiting { life, tasks, .. }) = self.waiting.remove(&to) {
            self.send(ToExecutor::Reply(reply, tasks), life);
        }
    }

    /// Those who wait in it are told that nobody will answer.
    pub(super) fn barrier_dies(&mut self, stage: StageId) {
        let open = self.coordinator.open_attempts().find(|attempt| attempt.stage == stage);
        let Some(attempt) = open else { return };
        self.barriers.remove(&attempt);
        self.observe(Observation::Fault(FaultKind::BarrierDied));
        let waiting = self.waiting.iter().filter(|(_, waiting)| waiting.attempt == attempt);
        let waiting: Vec<_> = waiting.map(|(token, waiting)| (*token, waiting.epoch)).collect();
        for (token, epoch) in waiting {
            let result = Err(SyncError::CoordinatorLost { attempt });
            self.answer(token, SyncReply { attempt, epoch, result });
        }
        let is_its = |key: &TimerKey| matches!(key, TimerKey::Sync(it) if it.attempt == attempt);
        let timers: Vec<TimerKey> = self.armed.keys().copied().filter(is_its).collect();
        for key in timers {
            self.cancel_timer(key);
        }
        self.tell_coordinator(CoordinatorEvent::ChildStopped(attempt));
    }

    /// A closed barrier answers late tasks until the last of them is gone.
    pub(super) fn forget_barrier_without_tasks(&mut self, attempt: StageAttemptId) {
        let is_over = self.coordinator.open_attempts().all(|open| open != attempt);
        if is_over && !self.running.contains_key(&attempt) {
            self.barriers.remove(&attempt);
        }
    }

    fn send_to_executor(&mut self, executor: ExecutorId, message: ToExecutor) {
        if let Some(incarnation) = self.known.get(&executor) {
            self.send(message, (executor, *incarnation));
        }
    }

    /// Whom to reach under an executor's name; kept as `TaskSchedulerActor` does.
    fn note_executors(&mut self, event: &SchedulerEvent) {
        match event {
            SchedulerEvent::ExecutorJoined(joined) => {
                let known = self.known.entry(joined.executor).or_insert(joined.incarnation);
                *known = (*known).max(joined.incarnation);
            }
            SchedulerEvent::ExecutorLost { executor, incarnation, .. } => {
                if self.known.get(executor).is_some_and(|known| known <= incarnation) {
                    self.known.remove(executor);
                }
            }
            SchedulerEvent::SubmitStage(_)
            | SchedulerEvent::InputReady(_)
            | SchedulerEvent::CancelStage { .. }
            | SchedulerEvent::KillPartition { .. }
            | SchedulerEvent::TaskReport(_)
            | SchedulerEvent::BarrierLost { .. }
            | SchedulerEvent::TimerFired(_)
            | SchedulerEvent::Shutdown => {}
        }
    }
}

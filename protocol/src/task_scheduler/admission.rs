//! From submission to launch: slot checks, the queue, reservations, placement.

use super::stage::{Phase, Stage};
use super::{ExecutorJoined, Reservation, RunningTask, SchedulerEffect, TaskScheduler};
use crate::{
    ExecutorId, LaunchTask, LaunchTasks, OpenBarrier, PartitionId, RuntimeEvent, SchedulerTimer,
    StageAttemptId, StageFailure, StageId, SubmitStage, TaskAttemptId, TaskInfo,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl TaskScheduler {
    pub(super) fn executor_joined(
        &mut self,
        joined: ExecutorJoined,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let ExecutorJoined { executor, incarnation, address, resources } = joined;
        if self.shutting_down || !self.ledger.is_newer(executor, incarnation) {
            return;
        }
        if let Some(known) = self.ledger.get(executor) {
            let reason = format!("it came back as incarnation {incarnation}");
            self.executor_lost(executor, known.incarnation, &reason, effects);
        }
        effects.push(SchedulerEffect::Emit(RuntimeEvent::ExecutorJoined {
            executor,
            incarnation,
            resources: resources.clone(),
        }));
        self.ledger.join(executor, incarnation, address, resources);
        self.reservation = None;
        let deferred: Vec<StageId> = self
            .stages
            .values()
            .filter(|stage| matches!(stage.phase, Phase::Deferred { .. }))
            .filter(|stage| self.fits_in_total(stage))
            .map(|stage| stage.id)
            .collect();
        for stage in deferred {
            self.enqueue(stage);
        }
        self.schedule(effects);
    }

    pub(super) fn submit(&mut self, submit: SubmitStage, effects: &mut Vec<SchedulerEffect>) {
        let SubmitStage { stage: id, spec } = submit;
        if self.stages.contains_key(&id) {
            return;
        }
        effects.push(SchedulerEffect::Emit(RuntimeEvent::StageSubmitted {
            stage: id,
            name: spec.name.clone(),
            num_tasks: spec.num_tasks,
        }));
        let limit = self.config.queue_max;
        let refusal = if self.shutting_down {
            Some(StageFailure::Shutdown)
        } else if self.stages.len() >= limit {
            Some(StageFailure::QueueFull { limit })
        } else {
            None
        };
        let is_empty = spec.num_tasks == 0;
        self.stages.insert(id, Stage::new(id, spec));
        match refusal {
            Some(failure) => self.end_stage(id, failure, effects),
            None if is_empty => self.conclude(id, Ok(()), effects),
            None => self.admit(id, effects),
        }
    }

    /// Puts a stage in line if all executors together could run it, else has it looked at again.
    pub(super) fn admit(&mut self, id: StageId, effects: &mut Vec<SchedulerEffect>) {
        let Some(stage) = self.stages.get(&id) else { return };
        if !self.fits_in_total(stage) {
            self.defer(id, effects);
            return;
        }
        self.enqueue(id);
        self.schedule(effects);
        let Some(stage) = self.stages.get(&id) else { return };
        if stage.phase != Phase::Queued {
            return;
        }
        effects.push(SchedulerEffect::Emit(RuntimeEvent::StageQueued {
            attempt: stage.attempt_id(),
            required: stage.slots_needed(),
            free: self.ledger.slots_free(&stage.spec.resources),
        }));
        if stage.is_gang() && !stage.aged {
            effects.push(SchedulerEffect::SetTimer {
                key: SchedulerTimer::Reserve(stage.attempt_id()),
                after: self.config.reserve_after,
            });
        }
    }

    fn fits_in_total(&self, stage: &Stage) -> bool {
        self.ledger.slots_in_total(&stage.spec.resources) >= stage.slots_needed()
    }

    fn enqueue(&mut self, id: StageId) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        stage.phase = Phase::Queued;
        self.queue.insert(stage.demand(), stage.place());
    }

    /// Takes a stage out of line until there are more slots.
    fn defer(&mut self, id: StageId, effects: &mut Vec<SchedulerEffect>) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        self.queue.remove(&stage.demand(), &stage.place());
        stage.deferrals += 1;
        stage.phase = Phase::Deferred { failed_checks: 0 };
        self.check_failed(id, effects);
    }

    /// After the loss of an executor: stages in line that no longer fit are deferred.
    pub(super) fn defer_what_no_longer_fits(&mut self, effects: &mut Vec<SchedulerEffect>) {
        let queued: Vec<StageId> = self.queue.stages().collect();
        for id in queued {
            if self.stages.get(&id).is_some_and(|stage| !self.fits_in_total(stage)) {
                self.defer(id, effects);
            }
        }
    }

    pub(super) fn slot_check(
        &mut self,
        id: StageId,
        deferral: u32,
        check: u32,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let Some(stage) = self.stages.get(&id) else { return };
        // A stage that fits is put in line when the slots arrive, so this check cannot succeed.
        if stage.phase == (Phase::Deferred { failed_checks: check }) && stage.deferrals == deferral
        {
            self.check_failed(id, effects);
        }
    }

    fn check_failed(&mut self, id: StageId, effects: &mut Vec<SchedulerEffect>) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        let Phase::Deferred { failed_checks } = &mut stage.phase else { return };
        *failed_checks += 1;
        let checks = *failed_checks;
        let required = stage.slots_needed();
        let available = self.ledger.slots_in_total(&stage.spec.resources);
        let (max_failures, interval) =
            (self.config.slot_check_max_failures, self.config.slot_check_interval);
        if checks > max_failures {
            let failure = StageFailure::NotEnoughSlots { required, available, checks, interval };
            self.end_stage(id, failure, effects);
            return;
        }
        let deferral = stage.deferrals;
        effects.extend([
            SchedulerEffect::Emit(RuntimeEvent::StageDeferred {
                stage: id,
                required,
                available,
                checks_left: max_failures - checks + 1,
                next_check: interval,
            }),
            SchedulerEffect::SetTimer {
                key: SchedulerTimer::SlotCheck { stage: id, deferral, check: checks },
                after: interval,
            },
        ]);
    }

    /// Launches all that fits, in order. A gang that does not fit is passed over, unless it is old
    /// enough to keep slots from those behind it.
    pub(super) fn schedule(&mut self, effects: &mut Vec<SchedulerEffect>) {
        let mut refused = BTreeSet::new();
        // Whether the place of the gang that reserves has been passed.
        let mut keeping = false;
        while self.ledger.has_free_cpus() {
            let Some((place, demand)) = self.queue.first(&refused) else { break };
            let demand = demand.clone();
            let launched = match demand.gang {
                Some(num_tasks) => self.launch_gang(place.stage, num_tasks, keeping, effects),
                None => self.launch_plain(place.stage, keeping, effects),
            };
            if launched {
                continue;
            }
            if demand.gang.is_some() && !keeping {
                keeping = self.reserve(place.stage);
            }
            refused.insert(demand);
        }
    }

    /// Keeps slots for a gang that is old enough. The plan of an earlier call stays, so that slots
    /// add up.
    fn reserve(&mut self, id: StageId) -> bool {
        let Some(stage) = self.stages.get(&id).filter(|stage| stage.aged) else { return false };
        if self.reservation.as_ref().is_some_and(|kept| kept.stage == id) {
            return true;
        }
        let overdue = self.tasks.values().filter(|task| task.overdue);
        let busy_forever: Vec<_> = overdue.map(|task| (task.executor, &task.held)).collect();
        let (resources, wanted) = (&stage.spec.resources, stage.spec.num_tasks);
        let plan = self.ledger.plan(resources, wanted, &busy_forever);
        self.reservation =
            plan.map(|plan| Reservation { stage: id, resources: resources.clone(), plan });
        self.reservation.is_some()
    }

    pub(super) fn gang_aged(
        &mut self,
        attempt: StageAttemptId,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let Some(stage) = self.stages.get_mut(&attempt.stage) else { return };
        if stage.attempt_id() == attempt {
            stage.aged = true;
            self.schedule(effects);
        }
    }

    /// All or nothing: launches the whole gang, or changes nothing and says so.
    fn launch_gang(
        &mut self,
        id: StageId,
        num_tasks: u32,
        keeping: bool,
        effects: &mut Vec<SchedulerEffect>,
    ) -> bool {
        let Some(stage) = self.stages.get_mut(&id) else { return false };
        let reservation = self.reservation.as_ref().filter(|_| keeping);
        let executors =
            self.ledger.place(&stage.spec.resources, num_tasks, &stage.failed_on, reservation);
        if executors.len() < num_tasks as usize {
            return false;
        }
        self.queue.remove(&stage.demand(), &stage.place());
        if self.reservation.as_ref().is_some_and(|kept| kept.stage == id) {
            self.reservation = None;
        }
        let attempt = stage.attempt_id();
        stage.phase = Phase::Running;
        stage.started += 1;
        stage.succeeded = 0;
        let first = self.next_task_attempt;
        let task_attempts =
            (0..u64::from(num_tasks)).map(|index| TaskAttemptId(first + index)).collect();
        effects.extend([
            SchedulerEffect::OpenBarrier(OpenBarrier {
                attempt,
                task_attempts,
                sync_timeout: stage.spec.sync_timeout,
            }),
            SchedulerEffect::Emit(RuntimeEvent::AttemptStarted { attempt, num_tasks }),
        ]);
        let task_infos = executors.iter().map(|executor| {
            let address = self.ledger.get(*executor).map(|it| it.address.clone());
            TaskInfo { executor: *executor, address: address.unwrap_or_default() }
        });
        let task_infos = task_infos.collect();
        let placed = (0..num_tasks).map(PartitionId).zip(executors).collect();
        self.launch(id, placed, task_infos, effects);
        true
    }

    /// Launches as many tasks of a plain stage as fit; says whether that was all.
    fn launch_plain(
        &mut self,
        id: StageId,
        keeping: bool,
        effects: &mut Vec<SchedulerEffect>,
    ) -> bool {
        let Some(stage) = self.stages.get_mut(&id) else { return false };
        let reservation = self.reservation.as_ref().filter(|_| keeping);
        let wanted = stage.pending.len() as u32;
        let executors =
            self.ledger.place(&stage.spec.resources, wanted, &stage.failed_on, reservation);
        let mut placed = Vec::new();
        for executor in executors {
            if let Some(partition) = stage.pending.pop_first() {
                placed.push((partition, executor));
            }
        }
        if !placed.is_empty() && stage.started == 0 {
            stage.started = 1;
            let (attempt, num_tasks) = (stage.attempt_id(), stage.spec.num_tasks);
            effects
                .push(SchedulerEffect::Emit(RuntimeEvent::AttemptStarted { attempt, num_tasks }));
        }
        let all = stage.pending.is_empty();
        if all {
            stage.phase = Phase::Running;
            self.queue.remove(&stage.demand(), &stage.place());
        }
        self.launch(id, placed, Arc::new([]), effects);
        all
    }

    /// Takes the slots and sends one message to each executor.
    fn launch(
        &mut self,
        id: StageId,
        placed: Vec<(PartitionId, ExecutorId)>,
        task_infos: Arc<[TaskInfo]>,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        let attempt = stage.attempt_id();
        let mut by_executor: BTreeMap<ExecutorId, Vec<LaunchTask>> = BTreeMap::new();
        for (partition, executor) in placed {
            let task_attempt = TaskAttemptId(self.next_task_attempt);
            self.next_task_attempt += 1;
            let (held, addresses) = self.ledger.take(executor, &stage.spec.resources);
            let cpus = held.cpus;
            let task = LaunchTask { partition, task_attempt, cpus, addresses };
            by_executor.entry(executor).or_default().push(task);
            stage.live.insert(task_attempt);
            let (killed, overdue) = (false, false);
            let running = RunningTask { attempt, partition, executor, held, killed, overdue };
            self.tasks.insert(task_attempt, running);
            effects.push(SchedulerEffect::Emit(RuntimeEvent::TaskStarted {
                attempt,
                partition,
                task_attempt,
                executor,
            }));
        }
        let num_tasks = stage.spec.num_tasks;
        for (executor, tasks) in by_executor {
            let launch = LaunchTasks { attempt, num_tasks, tasks, task_infos: task_infos.clone() };
            effects.push(SchedulerEffect::LaunchTasks { executor, launch });
        }
    }
}

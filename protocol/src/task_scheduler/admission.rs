//! From submission to launch: slot checks, the queue, reservations, placement.

use super::stage::{Phase, Stage};
use super::{ExecutorJoined, Reservation, RunningTask, SchedulerEffect, TaskScheduler};
use crate::{
    ExecutorId, LaunchTask, LaunchTasks, OpenBarrier, PartitionId, RuntimeEvent, SchedulerTimer,
    StageAttemptId, StageFailure, StageId, SubmitStage, TaskAttemptId, TaskInfo,
};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

impl TaskScheduler {
    pub(super) fn executor_joined(
        &mut self,
        joined: ExecutorJoined,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let ExecutorJoined { executor, incarnation, address, resources } = joined;
        if !self.ledger.is_newer(executor, incarnation) {
            return;
        }
        if let Some(known) = self.ledger.get(executor) {
            let reason = format!("it came back as incarnation {incarnation}");
            self.executor_lost(executor, known.incarnation, &reason, effects);
        }
        if self.shutting_down {
            return;
        }
        effects.push(SchedulerEffect::Emit(RuntimeEvent::ExecutorJoined {
            executor,
            incarnation,
            resources: resources.clone(),
        }));
        self.ledger.join(executor, incarnation, address, resources);
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
        // The former life may have had more.
        self.defer_what_no_longer_fits(effects);
    }

    pub(super) fn submit(&mut self, submit: SubmitStage, effects: &mut Vec<SchedulerEffect>) {
        let id = submit.stage;
        let former = self.stages.get(&id);
        // A job may hand a stage in again before the killed tasks of the last time have ended.
        if former.is_some_and(|it| it.phase != Phase::Ended || submit.of_job.is_none()) {
            return;
        }
        effects.push(SchedulerEffect::Emit(RuntimeEvent::StageSubmitted {
            stage: id,
            spec: submit.spec.clone(),
        }));
        let mut stage = Stage::new(submit);
        if let Some(former) = former {
            stage.follow(former);
        }
        let limit = self.config.queue_max;
        let others = self.stages.len() - usize::from(former.is_some());
        let refusal = if self.shutting_down {
            Some(StageFailure::Shutdown)
        } else if self.config.dynamic_allocation && stage.is_gang() && !stage.is_done() {
            Some(StageFailure::DynamicAllocation { required: stage.slots_needed() })
        } else if others >= limit {
            Some(StageFailure::QueueFull { limit })
        } else {
            None
        };
        // One of a job is looked at by the planner first.
        let is_done = stage.is_done() && !stage.awaits_input;
        let is_first = stage.live.is_empty();
        self.stages.insert(id, stage);
        match refusal {
            Some(failure) => self.end_stage(id, failure, effects),
            None if is_done => self.conclude(id, Ok(()), effects),
            None if is_first => self.enqueue(id),
            None => {}
        }
    }

    /// Takes what is new in line and has no input yet out of it: it fits, which is all that its
    /// job had to know.
    pub(super) fn hold_what_has_no_input(&mut self, effects: &mut Vec<SchedulerEffect>) {
        for id in &self.fresh {
            let holds = |stage: &&mut Stage| stage.phase == Phase::Queued && stage.awaits_input;
            if let Some(stage) = self.stages.get_mut(id).filter(holds) {
                self.queue.remove(&stage.demand(), &stage.place());
                stage.phase = Phase::AwaitingInput;
                effects.push(SchedulerEffect::AwaitsInput(*id));
            }
        }
    }

    pub(super) fn input_ready(&mut self, id: StageId, effects: &mut Vec<SchedulerEffect>) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        stage.awaits_input = false;
        if stage.phase == Phase::AwaitingInput {
            match stage.is_done() {
                true => self.conclude(id, Ok(()), effects),
                false => self.enqueue(id),
            }
        }
    }

    /// What was put in line in this step and has not left it is told, and grows old.
    pub(super) fn announce_those_that_wait(&mut self, effects: &mut Vec<SchedulerEffect>) {
        for id in std::mem::take(&mut self.fresh) {
            let Some(stage) = self.stages.get(&id).filter(|it| it.phase == Phase::Queued) else {
                continue;
            };
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
    }

    fn fits_in_total(&self, stage: &Stage) -> bool {
        self.ledger.slots_in_total(&stage.spec.resources) >= stage.slots_needed()
    }

    /// Puts a stage in line. Whether it fits at all is looked at when the step is over.
    pub(super) fn enqueue(&mut self, id: StageId) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        stage.phase = Phase::Queued;
        self.queue.insert(stage.demand(), stage.place());
        if stage.aged {
            self.queue.grow_old(stage.place());
        }
        self.fresh.push(id);
    }

    /// Takes a stage out of line until there are more slots.
    fn defer(&mut self, id: StageId, effects: &mut Vec<SchedulerEffect>) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        self.queue.remove(&stage.demand(), &stage.place());
        stage.deferrals += 1;
        if stage.is_of_job {
            self.deferrals_of_jobs += 1;
            stage.deferrals = self.deferrals_of_jobs;
        }
        stage.phase = Phase::Deferred { failed_checks: 0 };
        self.check_failed(id, effects);
    }

    /// What is new in line and could not run on all executors together is deferred.
    pub(super) fn defer_what_does_not_fit(&mut self, effects: &mut Vec<SchedulerEffect>) {
        self.defer_all(self.fresh.clone(), effects);
    }

    /// After the loss of an executor: so is what no longer fits.
    pub(super) fn defer_what_no_longer_fits(&mut self, effects: &mut Vec<SchedulerEffect>) {
        self.defer_all(self.queue.stages().collect(), effects);
    }

    fn defer_all(&mut self, queued: Vec<StageId>, effects: &mut Vec<SchedulerEffect>) {
        for id in queued {
            let is_queued = |stage: &&Stage| stage.phase == Phase::Queued;
            let stage = self.stages.get(&id).filter(is_queued);
            if stage.is_some_and(|stage| !self.fits_in_total(stage)) {
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
            let last_cause = stage.last_cause.clone().map(Box::new);
            let failure =
                StageFailure::NotEnoughSlots { required, available, checks, interval, last_cause };
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
        if !self.ledger.has_free_cpus() {
            return;
        }
        let mut line = self.queue.firsts();
        let mut kept: Option<(StageId, Option<Reservation>)> = None;
        while let Some(Reverse((place, demand))) = line.pop() {
            if !self.ledger.has_free_cpus() {
                return;
            }
            // Made once, and again after every launch, which takes slots.
            match self.queue.first_old().filter(|old| *old < place) {
                None => kept = None,
                Some(keeper) if kept.as_ref().is_some_and(|(of, _)| *of == keeper.stage) => {}
                Some(keeper) => kept = Some((keeper.stage, self.reservation(keeper.stage))),
            }
            let reservation = kept.as_ref().and_then(|(_, reservation)| reservation.as_ref());
            let launched = match demand.gang {
                Some(num_tasks) => self.launch_gang(place.stage, num_tasks, reservation, effects),
                None => self.launch_plain(place.stage, reservation, effects),
            };
            if launched {
                kept = None;
                if let Some(next) = self.queue.first_of(&demand) {
                    line.push(Reverse((next, demand)));
                }
            }
        }
    }

    /// The slots that an old gang keeps. All that is free now and of use to it comes first, so that
    /// slots add up wherever they come free.
    pub(super) fn reservation(&self, id: StageId) -> Option<Reservation> {
        let stage = self.stages.get(&id)?;
        let overdue = self.tasks.values().filter(|task| task.overdue);
        let busy_forever: Vec<_> = overdue.map(|task| (task.executor, &task.held)).collect();
        let resources = stage.spec.resources.clone();
        let plan = self.ledger.plan(&resources, stage.spec.num_tasks, &busy_forever)?;
        Some(Reservation { resources, plan })
    }

    pub(super) fn gang_aged(&mut self, attempt: StageAttemptId) {
        let Some(stage) = self.stages.get_mut(&attempt.stage) else { return };
        if stage.attempt_id() == attempt && stage.phase == Phase::Queued {
            stage.aged = true;
            self.queue.grow_old(stage.place());
        }
    }

    /// All or nothing: launches the whole gang, or changes nothing and says so.
    fn launch_gang(
        &mut self,
        id: StageId,
        num_tasks: u32,
        kept: Option<&Reservation>,
        effects: &mut Vec<SchedulerEffect>,
    ) -> bool {
        let Some(stage) = self.stages.get_mut(&id) else { return false };
        let executors = self.ledger.place(&stage.spec.resources, num_tasks, &stage.failed_on, kept);
        if executors.len() < num_tasks as usize {
            return false;
        }
        self.queue.remove(&stage.demand(), &stage.place());
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
        kept: Option<&Reservation>,
        effects: &mut Vec<SchedulerEffect>,
    ) -> bool {
        let Some(stage) = self.stages.get_mut(&id) else { return false };
        let wanted = stage.pending.len() as u32;
        let executors = self.ledger.place(&stage.spec.resources, wanted, &stage.failed_on, kept);
        let mut placed = Vec::new();
        for executor in executors {
            if let Some(partition) = stage.pending.pop_first() {
                placed.push((partition, executor));
            }
        }
        if !placed.is_empty() && stage.is_attempt_new() {
            stage.started += 1;
            let (attempt, num_tasks) = (stage.attempt_id(), stage.spec.num_tasks);
            effects
                .push(SchedulerEffect::Emit(RuntimeEvent::AttemptStarted { attempt, num_tasks }));
        }
        let all = stage.pending.is_empty();
        if all {
            stage.phase = Phase::Running;
            self.queue.remove(&stage.demand(), &stage.place());
        }
        self.launch(id, placed, Arc::default(), effects);
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
            let (killed, overdue) = (None, false);
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

//! A task that follows a script.

use super::network::{Life, ToDriver};
use super::simulated_executor::Outgoing;
use super::simulator::{Due, Simulator};
use super::{FaultKind, Observation, Step, TaskEnd, TaskScript};
use crate::protocol::{
    CallId, LaunchTask, LaunchTasks, Release, SyncReply, TaskReport, TaskSync, TaskSyncEffect,
    TaskSyncEvent,
};
use crate::{
    LeaveReason, PartitionId, StageAttemptId, SyncError, SyncMethod, TaskAttemptId, TaskFailure,
    TaskOutcome,
};
use bytes::Bytes;
use std::time::Duration;

/// One running task attempt.
pub(super) struct SimulatedTask {
    pub(super) life: Life,
    began: Duration,
    pub(super) attempt: StageAttemptId,
    partition: PartitionId,
    script: TaskScript,
    next_step: usize,
    /// The machine that ships.
    sync: TaskSync,
    calls: u64,
    waiting: Option<CallId>,
    killed: Option<String>,
    /// Tells the wake-ups of steps that are over.
    pub(super) wake: u64,
}

impl SimulatedTask {
    pub(super) fn new(
        (life, began): (Life, Duration),
        launch: &LaunchTasks,
        task: &LaunchTask,
        script: TaskScript,
    ) -> Self {
        let (attempt, partition) = (launch.attempt, task.partition);
        SimulatedTask {
            life,
            began,
            attempt,
            partition,
            script,
            next_step: 0,
            sync: TaskSync::new(attempt, launch.num_tasks, partition, task.task_attempt),
            calls: 0,
            waiting: None,
            killed: None,
            wake: 0,
        }
    }

    /// Killed, and about to end because of it.
    fn is_ending(&self) -> bool {
        self.killed.is_some() && self.script.ends_after_kill.is_some()
    }
}

impl Simulator {
    /// Has the task go on after a while; [`Duration::MAX`]: never.
    pub(super) fn wake(&mut self, id: TaskAttemptId, after: Duration) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.wake += 1;
        let wake = task.wake;
        if after < Duration::MAX {
            self.agenda.add(after, Due::Wakes { task: id, wake });
        }
    }

    /// Does the task's next step.
    pub(super) fn go_on(&mut self, id: TaskAttemptId) {
        let now = self.now();
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if task.is_ending() {
            return;
        }
        let Some(step) = task.script.steps.get(task.next_step).cloned() else {
            let outcome = match task.script.end.clone() {
                TaskEnd::Returns => TaskOutcome::Succeeded,
                TaskEnd::Fails(failure) => TaskOutcome::Failed(failure),
            };
            return self.end_task(id, outcome);
        };
        task.next_step += 1;
        match step {
            Step::Work(duration) => self.wake(id, duration),
            Step::WorkUntil(offset) => {
                let elapsed = now.saturating_sub(task.began);
                self.wake(id, offset.saturating_sub(elapsed));
            }
            // An answer wakes the task, even one that comes at once.
            Step::Sync(method) => drop(self.call(id, method)),
            Step::TrySync(method, patience) => {
                if let Some(call) = self.call(id, method) {
                    self.agenda.add(patience, Due::GivesUp { task: id, call });
                }
            }
        }
    }

    /// The call, if it is not answered at once.
    fn call(&mut self, id: TaskAttemptId, method: SyncMethod) -> Option<CallId> {
        let task = self.tasks.get_mut(&id)?;
        let call = CallId(task.calls);
        task.calls += 1;
        task.waiting = Some(call);
        let (attempt, partition) = (task.attempt, task.partition);
        let message = match method {
            SyncMethod::Barrier => Bytes::new(),
            SyncMethod::AllGather | SyncMethod::Broadcast | SyncMethod::AllReduce => {
                format!("{attempt}, partition {partition}, epoch {}", task.sync.epoch()).into()
            }
        };
        self.observe(Observation::Called {
            attempt,
            partition,
            task_attempt: id,
            call,
            method,
            message: message.clone(),
        });
        self.tell_task(id, TaskSyncEvent::Call { call, method, message });
        self.tasks.get(&id)?.waiting.filter(|waiting| *waiting == call)
    }

    pub(super) fn give_up_call(&mut self, id: TaskAttemptId, call: CallId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if task.waiting != Some(call) || task.is_ending() {
            return;
        }
        task.waiting = None;
        self.observe(Observation::Fault(FaultKind::CallDropped));
        self.observe(Observation::Dropped { task_attempt: id, call });
        self.tell_task(id, TaskSyncEvent::Dropped(call));
        self.wake(id, Duration::ZERO);
    }

    pub(super) fn reply_to_task(&mut self, id: TaskAttemptId, reply: SyncReply) {
        self.tell_task(id, TaskSyncEvent::Reply(reply));
    }

    fn tell_task(&mut self, id: TaskAttemptId, event: TaskSyncEvent) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let (life, attempt) = (task.life, task.attempt);
        let mut effects = Vec::new();
        task.sync.handle(event, &mut effects);
        for effect in effects {
            match effect {
                TaskSyncEffect::Arrive(arrival) => {
                    let outgoing = Outgoing::Request(arrival.into(), vec![id]);
                    self.gather(life, attempt, outgoing);
                }
                TaskSyncEffect::Withdraw(withdraw) => {
                    let message = ToDriver::Withdraw(withdraw);
                    self.gather(life, attempt, Outgoing::Other(message));
                }
                TaskSyncEffect::Leave(left) => {
                    self.gather(life, attempt, Outgoing::Other(ToDriver::Left(left)));
                }
                TaskSyncEffect::Complete { calls, result } => {
                    for call in calls {
                        self.answered(id, call, result.clone());
                    }
                }
            }
        }
    }

    fn answered(&mut self, id: TaskAttemptId, call: CallId, result: Result<Release, SyncError>) {
        self.observe(Observation::Answered { task_attempt: id, call, result: result.clone() });
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if task.waiting == Some(call) {
            task.waiting = None;
        }
        if task.is_ending() {
            return;
        }
        match result {
            Ok(_) => {
                self.tell_task(id, TaskSyncEvent::Taken(call));
                self.wake(id, Duration::ZERO);
            }
            Err(_) if task.script.ignores_sync_errors => self.wake(id, Duration::ZERO),
            Err(error) => {
                task.script.steps.clear();
                // A killed task's error is the kill, whatever it made of it.
                let failure = match &task.killed {
                    Some(reason) => TaskFailure::Killed(reason.clone()),
                    None => TaskFailure::Error(error.to_string()),
                };
                task.script.end = TaskEnd::Fails(failure);
                self.wake(id, Duration::ZERO);
            }
        }
    }

    pub(super) fn kill_task(&mut self, id: TaskAttemptId, reason: &str) {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| task.killed.is_none()) else {
            return;
        };
        task.killed = Some(reason.to_owned());
        let ends = task.script.ends_after_kill;
        self.observe(Observation::TaskKilled(id));
        if ends != Some(Duration::ZERO) {
            self.observe(Observation::Fault(FaultKind::TaskIgnoredKill));
        }
        self.tell_task(id, TaskSyncEvent::Kill { reason: reason.to_owned() });
        match ends {
            Some(Duration::ZERO) => self.end_killed(id),
            Some(lag) => drop(self.agenda.add(lag, Due::EndsKilled(id))),
            None => {}
        }
    }

    pub(super) fn end_killed(&mut self, id: TaskAttemptId) {
        let reason = self.tasks.get(&id).and_then(|task| task.killed.clone());
        if let Some(reason) = reason {
            self.end_task(id, TaskOutcome::Failed(TaskFailure::Killed(reason)));
        }
    }

    /// First the report, then the leave, as the tasks that ship do.
    pub(super) fn end_task(&mut self, id: TaskAttemptId, outcome: TaskOutcome) {
        let Some(task) = self.tasks.get(&id) else { return };
        let (life, attempt, partition) = (task.life, task.attempt, task.partition);
        let (executor, incarnation) = life;
        match &outcome {
            TaskOutcome::Failed(TaskFailure::Error(_)) => {
                self.observe(Observation::Fault(FaultKind::TaskFailed));
            }
            TaskOutcome::Failed(TaskFailure::Panicked(_)) => {
                self.observe(Observation::Fault(FaultKind::TaskPanicked));
            }
            TaskOutcome::Failed(TaskFailure::NotStarted(_)) => {
                self.observe(Observation::Fault(FaultKind::TaskNotStarted));
            }
            TaskOutcome::Failed(_) | TaskOutcome::Succeeded => {}
        }
        let reason = match &outcome {
            TaskOutcome::Succeeded => LeaveReason::Returned,
            TaskOutcome::Failed(failure) => LeaveReason::Failed(failure.clone()),
        };
        self.observe(Observation::TaskEnded {
            attempt,
            partition,
            task_attempt: id,
            outcome: outcome.clone(),
        });
        let report =
            TaskReport { executor, incarnation, attempt, partition, task_attempt: id, outcome };
        self.send_to_driver(life, ToDriver::Report(report));
        self.tell_task(id, TaskSyncEvent::Ended(reason));
        self.forget_task(id);
    }
}

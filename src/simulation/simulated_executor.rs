//! The executors' side: what arrives there, what goes wrong there.

use super::network::{Life, ToDriver, ToExecutor, Way};
use super::simulated_task::SimulatedTask;
use super::simulator::{Due, Simulator};
use super::{FaultKind, Observation};
use crate::protocol::{ExecutorJoined, LaunchTask, LaunchTasks, SchedulerEvent, StageKind};
use crate::{ExecutorId, ExecutorResources, Incarnation, StageAttemptId, TaskAttemptId};
use rand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

/// One life of an executor.
pub(super) struct SimulatedExecutor {
    pub(super) resources: ExecutorResources,
    pub(super) link: Link,
    paused_until: Duration,
    /// What the tasks of an attempt have said since the last flush.
    pub(super) outboxes: BTreeMap<StageAttemptId, Vec<Outgoing>>,
}

/// Something that tasks tell their barrier, before it is sent.
pub(super) enum Outgoing {
    /// Arrivals of the same call, gathered into one request.
    Request(crate::protocol::RequestToSync, Vec<TaskAttemptId>),
    Other(ToDriver),
}

/// What gets through between the driver and one life of an executor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// It has ended; what it had sent still arrives.
    Ended,
    Cut,
}

impl Link {
    pub(super) fn reaches_driver(self) -> bool {
        match self {
            Link::Up | Link::Ended => true,
            Link::Cut => false,
        }
    }
}

impl Simulator {
    pub(super) fn paused_until(&self, life: Life) -> Duration {
        self.executors.get(&life).map_or(Duration::ZERO, |executor| executor.paused_until)
    }

    /// Those that are there from the start need no message to say so.
    pub(super) fn executor_begins(&mut self, life: Life, resources: ExecutorResources) {
        let (executor, incarnation) = life;
        self.observe(Observation::ExecutorBegan {
            executor,
            incarnation,
            resources: resources.clone(),
        });
        let joined = ExecutorJoined {
            executor,
            incarnation,
            address: format!("simulated-{executor}").into(),
            resources: resources.clone(),
        };
        let (link, paused_until, outboxes) = (Link::Up, Duration::ZERO, BTreeMap::new());
        let begun = SimulatedExecutor { resources, link, paused_until, outboxes };
        self.executors.insert(life, begun);
        if self.now().is_zero() {
            self.tell_scheduler(SchedulerEvent::ExecutorJoined(joined));
        } else {
            self.send_to_driver(life, ToDriver::Joined(joined));
        }
    }

    pub(super) fn executor_receives(&mut self, life: Life, message: ToExecutor) {
        if self.executors.get(&life).is_none_or(|it| it.link != Link::Up) {
            self.observe(Observation::Fault(FaultKind::MessageLost));
            return;
        }
        match message {
            ToExecutor::Launch(launch) => {
                for task in launch.tasks.clone() {
                    self.begin_task(life, &launch, task);
                }
            }
            ToExecutor::Kill(kill) => {
                for task in kill.tasks {
                    self.kill_task(task, &kill.reason);
                }
            }
            ToExecutor::Retire => {
                self.end_life(life, Link::Ended);
                self.returns_after(life, self.plan.given_up_returns_after);
            }
            ToExecutor::Reply(reply, tasks) => {
                for task in tasks.iter() {
                    self.reply_to_task(*task, reply.clone());
                }
            }
        }
    }

    fn begin_task(&mut self, life: Life, launch: &LaunchTasks, task: LaunchTask) {
        let (executor, incarnation) = life;
        let attempt = launch.attempt;
        let Some(stage) = self.plan.stages.get(&attempt.stage) else { return };
        let tried = match stage.spec.kind {
            StageKind::Barrier => attempt.attempt,
            StageKind::Plain => {
                let launches = self.launches.entry((attempt.stage, task.partition)).or_insert(0);
                *launches += 1;
                *launches - 1
            }
        };
        let script = stage.script_of(task.partition, tried);
        let (id, began) = (task.task_attempt, (life, self.now()));
        self.tasks.insert(id, SimulatedTask::new(began, launch, &task, script));
        *self.running.entry(attempt).or_insert(0) += 1;
        self.observe(Observation::TaskBegan { executor, incarnation, attempt, task });
        self.wake(id, Duration::ZERO);
    }

    /// All that runs on it ends with it, without a word.
    fn end_life(&mut self, life: Life, link: Link) {
        let (executor, incarnation) = life;
        let Some(ended) = self.executors.get_mut(&life) else { return };
        ended.link = link;
        ended.outboxes.clear();
        self.traffic.forget(life);
        self.observe(Observation::ExecutorEnded { executor, incarnation });
        let on_it = self.tasks.iter().filter(|(_, task)| task.life == life);
        for id in on_it.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget_task(id);
        }
    }

    pub(super) fn forget_task(&mut self, id: TaskAttemptId) {
        let Some(SimulatedTask { attempt, .. }) = self.tasks.remove(&id) else { return };
        if let Some(running) = self.running.get_mut(&attempt) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&attempt);
                self.forget_barrier_without_tasks(attempt);
            }
        }
    }

    /// The latest life of an executor, if it lives.
    fn living(&self, executor: ExecutorId) -> Option<Life> {
        let lives = (executor, Incarnation(0))..=(executor, Incarnation(u32::MAX));
        let (life, state) = self.executors.range(lives).next_back()?;
        (state.link == Link::Up).then_some(*life)
    }

    fn has_tasks(&self, life: Life) -> bool {
        self.tasks.values().any(|task| task.life == life)
    }

    pub(super) fn crash(
        &mut self,
        executor: ExecutorId,
        reason: String,
        noticed_after: Duration,
        back_after: Option<Duration>,
    ) {
        let Some(life) = self.living(executor) else { return };
        if self.has_tasks(life) {
            self.observe(Observation::Fault(FaultKind::ExecutorCrashed));
        }
        let link = if self.rng.random_bool(0.5) { Link::Ended } else { Link::Cut };
        self.end_life(life, link);
        if back_after.is_some_and(|back| back < noticed_after) {
            self.observe(Observation::Fault(FaultKind::ExecutorCameBackUnnoticed));
        }
        self.notice(life, reason, noticed_after);
        self.returns_after(life, back_after);
    }

    /// The driver learns of a loss, at once if it takes no time.
    fn notice(&mut self, life: Life, reason: String, after: Duration) {
        if after.is_zero() && self.driver_busy_until <= self.now() {
            self.executor_is_lost(life, reason);
        } else {
            self.agenda.add(after, Due::Noticed { life, reason });
        }
    }

    pub(super) fn cut_off(
        &mut self,
        executor: ExecutorId,
        noticed_after: Duration,
        back_after: Option<Duration>,
    ) {
        let Some(life) = self.living(executor) else { return };
        if self.has_tasks(life) {
            self.observe(Observation::Fault(FaultKind::ExecutorCutOff));
        }
        if let Some(executor) = self.executors.get_mut(&life) {
            executor.link = Link::Cut;
        }
        self.notice(life, "connection lost".to_owned(), noticed_after);
        self.agenda.add(noticed_after, Due::Fenced { life, back_after });
    }

    pub(super) fn fenced(&mut self, life: Life, back_after: Option<Duration>) {
        self.end_life(life, Link::Cut);
        self.returns_after(life, back_after);
    }

    pub(super) fn pause(&mut self, executor: ExecutorId, lasts: Duration) {
        let Some(life) = self.living(executor) else { return };
        if self.has_tasks(life) {
            self.observe(Observation::Fault(FaultKind::ExecutorPaused));
        }
        let until = self.now().saturating_add(lasts);
        if let Some(executor) = self.executors.get_mut(&life) {
            executor.paused_until = executor.paused_until.max(until);
        }
    }

    fn returns_after(&mut self, life: Life, after: Option<Duration>) {
        if let Some(after) = after {
            self.agenda.add(after, Due::Returns(life));
        }
    }

    pub(super) fn returns(&mut self, (executor, incarnation): Life) {
        let next = (executor, Incarnation(incarnation.0 + 1));
        if self.executors.contains_key(&next) {
            return;
        }
        let Some(former) = self.executors.get(&(executor, incarnation)) else { return };
        let resources = former.resources.clone();
        self.observe(Observation::Fault(FaultKind::ExecutorCameBack));
        self.executor_begins(next, resources);
    }

    pub(super) fn flush(&mut self, life: Life, attempt: StageAttemptId) {
        let Some(executor) = self.executors.get_mut(&life) else { return };
        for outgoing in executor.outboxes.remove(&attempt).unwrap_or_default() {
            let message = match outgoing {
                Outgoing::Request(request, tasks) => ToDriver::Request(request, tasks.into()),
                Outgoing::Other(message) => message,
            };
            self.send_to_driver(life, message);
        }
    }

    /// Gathers what the tasks of one attempt say at the same time, as `SyncGatherer` does.
    pub(super) fn gather(&mut self, life: Life, attempt: StageAttemptId, outgoing: Outgoing) {
        let Some(executor) = self.executors.get_mut(&life) else { return };
        let outbox = executor.outboxes.entry(attempt).or_default();
        if outbox.is_empty() {
            self.agenda.add(Duration::ZERO, Due::Flush(life, attempt));
        }
        match (outbox.last_mut(), outgoing) {
            (Some(Outgoing::Request(last, waiting)), Outgoing::Request(mut more, tasks))
                if (last.epoch, last.method) == (more.epoch, more.method) =>
            {
                last.arrivals.append(&mut more.arrivals);
                waiting.extend(tasks);
            }
            (_, outgoing) => outbox.push(outgoing),
        }
    }

    pub(super) fn send_to_driver(&mut self, from: Life, message: ToDriver) {
        let (way, may_repeat) = (message.way(from), message.may_repeat());
        self.post(way, may_repeat, |number| Due::ToDriver {
            from,
            message: message.clone(),
            number,
        });
    }

    pub(super) fn send(&mut self, message: ToExecutor, to: Life) {
        let (way, may_repeat) = (message.way(to), message.may_repeat());
        self.post(way, may_repeat, |number| Due::ToExecutor {
            to,
            message: message.clone(),
            number,
        });
    }

    fn post(&mut self, way: Way, may_repeat: bool, arrival: impl Fn(u64) -> Due) {
        let now = self.now();
        self.traffic.sent += 1;
        let number = self.traffic.sent;
        if may_repeat && let Some(at) = self.traffic.copy(now, &mut self.rng) {
            self.observe(Observation::Fault(FaultKind::MessageDuplicated));
            self.agenda.add_at(at, arrival(number));
        }
        let at = self.traffic.arrival(now, way, &mut self.rng);
        self.agenda.add_at(at, arrival(number));
    }
}

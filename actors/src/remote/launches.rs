//! What the driver has an executor do.

use super::driver_link::{DriverLink, StageCalls};
use super::executor_process::{RemoteLaunch, Resolve};
use super::remote_barrier::RemoteBarrier;
use super::wire::{Message, Payloads};
use crate::{ExecutorActor, GangBarrier, LaunchOnExecutor, Report, Tell};
use actix::Addr;
use bytes::Bytes;
use phalanx_protocol::{
    KillTask, LaunchTask, LaunchTasks, LeaveReason, PartitionId, TaskAttemptId, TaskFailure,
    TaskLeft, TaskOutcome, TaskReport,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Passes the driver's launches and kills on to this process's executor.
pub(crate) struct Launches {
    link: Arc<DriverLink>,
    resolve: Resolve,
    executor: Addr<ExecutorActor>,
    /// The newest task that was launched. Ids only grow.
    newest: Option<TaskAttemptId>,
    /// Kills that came before their launches, which may be large: a kill is not held up by that.
    early_kills: HashMap<TaskAttemptId, String>,
}

impl Launches {
    pub(crate) fn new(
        link: Arc<DriverLink>,
        resolve: Resolve,
        executor: Addr<ExecutorActor>,
    ) -> Self {
        Launches { link, resolve, executor, newest: None, early_kills: HashMap::new() }
    }

    /// Takes what the driver says to a running executor.
    ///
    /// # Errors
    /// If a driver does not say such things.
    pub(crate) fn receive(&mut self, message: Message, payloads: Payloads) -> Result<(), String> {
        match message {
            Message::Launch { launch, stage_name, code, is_gang } => {
                self.launch(launch, &stage_name, code, is_gang, payloads)
            }
            Message::Kill(kill) => {
                self.kill(kill);
                Ok(())
            }
            answer => self.link.answered(answer, payloads),
        }
    }

    fn launch(
        &mut self,
        launch: LaunchTasks,
        stage_name: &str,
        code: String,
        is_gang: bool,
        mut payloads: Payloads,
    ) -> Result<(), String> {
        if payloads.is_empty() || payloads.len() > 1 + launch.tasks.len() {
            return Err("sent a launch without its inputs".to_owned());
        }
        let settings = payloads.remove(0);
        let partitions = launch.tasks.iter().map(|task| task.partition);
        let inputs: HashMap<PartitionId, Bytes> = partitions.zip(payloads).collect();
        let tasks = launch.tasks.len() as u32;
        self.newest = self.newest.max(launch.tasks.iter().map(|task| task.task_attempt).max());
        let killed: Vec<_> = launch
            .tasks
            .iter()
            .filter_map(|task| {
                Some((task.task_attempt, self.early_kills.remove(&task.task_attempt)?))
            })
            .collect();
        let calls = StageCalls { link: self.link.clone(), attempt: launch.attempt };
        let body = match (self.resolve)(RemoteLaunch { code, settings, inputs, calls }) {
            Ok(body) => body,
            Err(reason) => {
                for task in &launch.tasks {
                    self.refuse(&launch, task, TaskFailure::Error(reason.clone()));
                }
                return Ok(());
            }
        };
        let barrier = is_gang.then(|| RemoteBarrier::new(self.link.clone(), tasks));
        self.executor.do_send(LaunchOnExecutor {
            launch,
            name: stage_name.into(),
            body,
            barrier: barrier.map(GangBarrier::AtDriver),
        });
        for (task, reason) in killed {
            self.executor.do_send(Tell(KillTask { tasks: vec![task], reason }));
        }
        Ok(())
    }

    fn kill(&mut self, kill: KillTask) {
        let early = kill.tasks.iter().filter(|task| Some(**task) > self.newest);
        for task in early {
            self.early_kills.insert(*task, kill.reason.clone());
        }
        self.executor.do_send(Tell(kill));
    }

    /// The task ends before it begins.
    fn refuse(&self, launch: &LaunchTasks, task: &LaunchTask, failure: TaskFailure) {
        let LaunchTask { partition, task_attempt, .. } = *task;
        let report = TaskReport {
            executor: self.link.executor,
            incarnation: self.link.incarnation,
            attempt: launch.attempt,
            partition,
            task_attempt,
            outcome: TaskOutcome::Failed(failure.clone()),
        };
        self.link.report(report, None);
        let (attempt, reason) = (launch.attempt, LeaveReason::Failed(failure));
        let left = TaskLeft { attempt, partition, task_attempt, reason };
        self.link.put(&Message::Left(left), &[]);
    }
}

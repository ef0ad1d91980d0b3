//! Ending tasks, and those that do not heed it.

use super::stage::Phase;
use super::{RunningTask, SchedulerEffect, TaskScheduler};
use crate::{
    ExecutorId, FailureCause, KillId, KillTask, PartitionId, RuntimeEvent, SchedulerTimer,
    StageAttemptId, StageId, TaskAttemptId, TaskFailure, TaskOrigin,
};
use std::collections::BTreeMap;

impl TaskScheduler {
    pub(super) fn kill(
        &mut self,
        attempt: StageAttemptId,
        tasks: Vec<TaskAttemptId>,
        reason: &str,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let Some(stage) = self.stages.get_mut(&attempt.stage) else { return };
        let kill_id = KillId { attempt, kill: stage.kills };
        let mut by_executor: BTreeMap<ExecutorId, Vec<TaskAttemptId>> = BTreeMap::new();
        for id in tasks {
            if let Some(task) = self.tasks.get_mut(&id).filter(|task| task.killed.is_none()) {
                task.killed = Some(kill_id);
                by_executor.entry(task.executor).or_default().push(id);
            }
        }
        if by_executor.is_empty() {
            return;
        }
        stage.kills += 1;
        for (executor, tasks) in by_executor {
            let kill = KillTask { tasks, reason: reason.to_owned() };
            effects.push(SchedulerEffect::KillTask { executor, kill });
        }
        let overdue = (SchedulerTimer::KillOverdue(kill_id), Some(self.config.kill_grace));
        let deadline = (SchedulerTimer::ZombieDeadline(kill_id), self.config.zombie_deadline);
        for (key, after) in [overdue, deadline] {
            if let Some(after) = after {
                effects.push(SchedulerEffect::SetTimer { key, after });
            }
        }
    }

    /// A gang fails at once, with this kill as its cause: its other tasks may notice that one is
    /// gone before that one has reported.
    pub(super) fn kill_partition(
        &mut self,
        id: StageId,
        partition: PartitionId,
        reason: &str,
        effects: &mut Vec<SchedulerEffect>,
    ) {
        let Some(stage) = self.stages.get(&id) else { return };
        let mut live = stage.live.iter().filter_map(|id| Some((*id, self.tasks.get(id)?)));
        let runs = |task: &RunningTask| task.partition == partition && task.killed.is_none();
        let Some((task_attempt, task)) = live.find(|(_, task)| runs(task)) else { return };
        let executor = task.executor;
        let (attempt, fails) =
            (stage.attempt_id(), stage.is_gang() && stage.phase == Phase::Running);
        self.kill(attempt, vec![task_attempt], reason, effects);
        if fails {
            let origin = Some(TaskOrigin { partition, task_attempt, executor });
            let failure = TaskFailure::Killed(reason.to_owned());
            self.attempt_failed(FailureCause { attempt, origin, failure }, effects);
        }
    }

    pub(super) fn kill_overdue(&mut self, kill: KillId, effects: &mut Vec<SchedulerEffect>) {
        for (&task_attempt, task) in &mut self.tasks {
            if task.killed == Some(kill) && !task.overdue {
                task.overdue = true;
                effects.push(SchedulerEffect::Emit(RuntimeEvent::TaskIgnoresKill {
                    attempt: task.attempt,
                    partition: task.partition,
                    task_attempt,
                    executor: task.executor,
                }));
            }
        }
    }

    pub(super) fn zombie_deadline(&mut self, kill: KillId, effects: &mut Vec<SchedulerEffect>) {
        let zombies = self.tasks.iter().filter(|(_, task)| task.killed == Some(kill));
        let mut retired: BTreeMap<ExecutorId, TaskAttemptId> = BTreeMap::new();
        for (task_attempt, task) in zombies {
            retired.entry(task.executor).or_insert(*task_attempt);
        }
        for (executor, task) in retired {
            let Some(known) = self.ledger.get(executor) else { continue };
            let incarnation = known.incarnation;
            effects.push(SchedulerEffect::RetireExecutor { executor, incarnation });
            let reason =
                format!("was retired: task {task} of {} does not heed its kill", kill.attempt);
            self.executor_lost(executor, incarnation, &reason, effects);
        }
        self.defer_what_no_longer_fits(effects);
    }
}

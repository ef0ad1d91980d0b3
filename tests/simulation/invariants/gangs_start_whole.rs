//! All tasks of a gang are launched in one step, after its barrier was opened, or none.

use super::Invariant;
use crate::facts::Facts;
use phalanx::StageAttemptId;
use phalanx::protocol::{LaunchTask, SchedulerEffect};
use phalanx::simulation::Observation;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Default)]
pub struct GangsStartWhole {
    launched: BTreeSet<StageAttemptId>,
}

impl Invariant for GangsStartWhole {
    fn check(
        &mut self,
        facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        let Observation::Scheduler { effects, .. } = observation else { return Ok(()) };
        let mut opened = BTreeMap::new();
        let mut gangs: BTreeMap<StageAttemptId, Vec<&LaunchTask>> = BTreeMap::new();
        for effect in effects {
            match effect {
                SchedulerEffect::OpenBarrier(open) => {
                    opened.insert(open.attempt, &open.task_attempts);
                }
                SchedulerEffect::LaunchTasks { launch, .. }
                    if facts.is_gang(launch.attempt.stage) =>
                {
                    let Some(members) = opened.get(&launch.attempt) else {
                        return Err(format!("{} is launched, but not open", launch.attempt));
                    };
                    let known = |task: &LaunchTask| {
                        members.get(task.partition.0 as usize) == Some(&task.task_attempt)
                    };
                    if !launch.tasks.iter().all(known) || launch.task_infos.len() != members.len() {
                        return Err(format!("{launch:?} is not what was opened"));
                    }
                    gangs.entry(launch.attempt).or_default().extend(&launch.tasks);
                }
                _ => {}
            }
        }
        for (attempt, tasks) in gangs {
            let partitions: BTreeSet<_> = tasks.iter().map(|task| task.partition.0).collect();
            let all = facts.specs[&attempt.stage].num_tasks;
            let is_whole = partitions.iter().copied().eq(0..all) && tasks.len() == all as usize;
            if !is_whole || !self.launched.insert(attempt) {
                return Err(format!("{attempt} of {all} tasks starts in part: {partitions:?}"));
            }
        }
        Ok(())
    }
}

//! A release reaches a task only when all tasks of its gang have made the same call at the same
//! epoch, and it brings what they gave, by partition. Who has withdrawn is not counted.

use super::Invariant;
use crate::facts::Facts;
use bytes::Bytes;
use phalanx::protocol::{BarrierEffect, BarrierEvent, CallId, Release};
use phalanx::simulation::Observation;
use phalanx::{
    Epoch, PartitionId, RuntimeEvent, StageAttemptId, SyncError, SyncMethod, TaskAttemptId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The calls of one partition at one epoch of an attempt; several if it dropped some.
type Calls = BTreeMap<(StageAttemptId, u64, PartitionId), Vec<(SyncMethod, Bytes)>>;

#[derive(Default)]
pub struct ReleasesReachFullGangs {
    calls: Calls,
    /// Syncs that each task has passed.
    passed: BTreeMap<TaskAttemptId, u64>,
    methods: BTreeMap<(TaskAttemptId, CallId), SyncMethod>,
    /// Who is in the round of an attempt as messages have come, and its epoch.
    arrived: BTreeMap<StageAttemptId, (Epoch, BTreeSet<PartitionId>)>,
}

impl ReleasesReachFullGangs {
    fn released(
        &mut self,
        facts: &Facts,
        id: TaskAttemptId,
        call: CallId,
        release: &Release,
    ) -> Result<(), String> {
        let attempt = facts.tasks[&id].attempt;
        let passed = self.passed.entry(id).or_insert(0);
        let epoch = *passed;
        *passed += 1;
        if self.methods.get(&(id, call)) != Some(&release.method) {
            return Err(format!("task {id} is released from another call: {release:?}"));
        }
        for partition in (0..facts.specs[&attempt.stage].num_tasks).map(PartitionId) {
            let calls = self.calls.get(&(attempt, epoch, partition)).map_or(&[][..], Vec::as_slice);
            let given = release.messages.get(partition.0 as usize).cloned().unwrap_or_default();
            if !calls.contains(&(release.method, given)) {
                return Err(format!(
                    "task {id} of {attempt} is released from epoch {epoch}, but partition \
                     {partition} did not call so: {release:?}"
                ));
            }
        }
        Ok(())
    }
}

impl ReleasesReachFullGangs {
    /// What the barrier was told, in the order in which it was.
    fn told(
        &mut self,
        facts: &Facts,
        attempt: StageAttemptId,
        event: &BarrierEvent,
        effects: &[BarrierEffect],
    ) -> Result<(), String> {
        let (epoch, arrived) = self.arrived.entry(attempt).or_default();
        match event {
            BarrierEvent::RequestToSync { request, .. } if request.epoch == *epoch => {
                arrived.extend(request.arrivals.iter().map(|arrival| arrival.partition));
            }
            BarrierEvent::WithdrawSync(withdraw) if withdraw.epoch == *epoch => {
                arrived.remove(&withdraw.partition);
            }
            _ => {}
        }
        for effect in effects {
            match effect {
                BarrierEffect::Emit(RuntimeEvent::RoundReleased { .. }) => {
                    let all = facts.specs[&attempt.stage].num_tasks as usize;
                    if arrived.len() != all {
                        return Err(format!("{attempt} is released with {arrived:?} of {all}"));
                    }
                    arrived.clear();
                    epoch.0 += 1;
                }
                BarrierEffect::Emit(RuntimeEvent::RoundFailed { .. }) => arrived.clear(),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Invariant for ReleasesReachFullGangs {
    fn check(
        &mut self,
        facts: &Facts,
        _now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        match observation {
            Observation::Barrier { attempt, event, effects } => {
                self.told(facts, *attempt, event, effects)
            }
            Observation::Called { attempt, partition, task_attempt, call, method, message } => {
                let epoch = self.passed.get(task_attempt).copied().unwrap_or(0);
                self.methods.insert((*task_attempt, *call), *method);
                let calls = self.calls.entry((*attempt, epoch, *partition)).or_default();
                calls.push((*method, message.clone()));
                Ok(())
            }
            Observation::Answered { task_attempt, call, result } => match result {
                Ok(release) => self.released(facts, *task_attempt, *call, release),
                // The gang has passed; this task's former call was counted.
                Err(SyncError::AbandonedCall { .. }) => {
                    *self.passed.entry(*task_attempt).or_insert(0) += 1;
                    Ok(())
                }
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

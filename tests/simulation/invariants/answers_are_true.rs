//! What a task is told of its peers is true, and a task that is not killed is not told that it is.

use super::Invariant;
use crate::facts::{Facts, TaskFact};
use phalanx::protocol::{BarrierEffect, CallId, CloseReason};
use phalanx::simulation::Observation;
use phalanx::{
    LeaveReason, PartitionId, RuntimeEvent, StageAttemptId, SyncError, SyncMethod, TaskAttemptId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Default)]
pub struct AnswersAreTrue {
    called: BTreeMap<(TaskAttemptId, CallId), Duration>,
    opened: BTreeMap<StageAttemptId, Duration>,
    methods: BTreeMap<StageAttemptId, BTreeSet<SyncMethod>>,
}

impl AnswersAreTrue {
    fn judge(&self, facts: &Facts, task: &TaskFact, now: Duration, error: &SyncError) -> bool {
        let peer = |partition: PartitionId| {
            facts.tasks_of(task.attempt).find(move |task| task.partition == partition)
        };
        let is_over = |task: &TaskFact| task.ended.is_some() || task.vanished || task.killed;
        match error {
            SyncError::PeerLeft { partition, reason, .. } => {
                peer(*partition).is_some_and(|peer| match reason {
                    LeaveReason::Killed { .. } => peer.killed,
                    LeaveReason::Returned | LeaveReason::Failed(_) => is_over(peer),
                })
            }
            SyncError::Killed { .. } => task.killed,
            SyncError::Timeout { after, missing, .. } => {
                let since = self.opened.get(&task.attempt).copied().unwrap_or_default();
                now >= since + *after && !missing.is_empty()
            }
            SyncError::AttemptClosed { reason, .. } => match reason {
                CloseReason::Succeeded => false,
                CloseReason::Failed(_) => {
                    facts.stages[&task.attempt.stage].causes.contains_key(&task.attempt)
                }
                CloseReason::Cancelled(_) => facts.stages[&task.attempt.stage].cancelled,
                CloseReason::Shutdown => facts.shutting_down,
            },
            SyncError::MixedMethods { waiting, called, .. }
            | SyncError::ConcurrentCall { waiting, called, .. } => {
                let methods = &self.methods[&task.attempt];
                waiting != called && methods.contains(waiting) && methods.contains(called)
            }
            // A copy that comes after its round, or after its attempt.
            SyncError::WrongEpoch { sent, current, .. } => sent != current,
            SyncError::NotOpen { .. } => {
                let stage = &facts.stages[&task.attempt.stage];
                stage.causes.contains_key(&task.attempt) || stage.ended.is_some()
            }
            SyncError::CoordinatorLost { .. } => {
                let cause = facts.stages[&task.attempt.stage].causes.get(&task.attempt);
                cause.is_some() || facts.stages[&task.attempt.stage].ended.is_some()
            }
            SyncError::AbandonedCall { .. } => true,
            // No simulated task does what these refuse.
            _ => false,
        }
    }
}

impl Invariant for AnswersAreTrue {
    fn check(
        &mut self,
        facts: &Facts,
        now: Duration,
        observation: &Observation,
    ) -> Result<(), String> {
        match observation {
            Observation::Called { attempt, task_attempt, call, method, .. } => {
                self.called.insert((*task_attempt, *call), now);
                self.methods.entry(*attempt).or_default().insert(*method);
                Ok(())
            }
            Observation::Answered { task_attempt, call, result } => {
                if self.called.remove(&(*task_attempt, *call)).is_none() {
                    return Err(format!("call {call:?} of task {task_attempt} is answered again"));
                }
                let task = &facts.tasks[task_attempt];
                match result {
                    Err(error) if !self.judge(facts, task, now, error) => {
                        Err(format!("task {task_attempt} is told what is not true: {error:?}"))
                    }
                    Err(_) | Ok(_) => Ok(()),
                }
            }
            Observation::Barrier { attempt, effects, .. } => {
                let is_opening = |effect: &BarrierEffect| {
                    matches!(effect, BarrierEffect::Emit(RuntimeEvent::RoundOpened { .. }))
                };
                if effects.iter().any(is_opening) {
                    self.opened.insert(*attempt, now);
                }
                Ok(())
            }
            Observation::Dropped { task_attempt, call } => {
                self.called.remove(&(*task_attempt, *call));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

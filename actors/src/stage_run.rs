//! What is kept of a stage that the scheduler's machine does not need to know: code,
//! values, errors, and whom to tell.

use crate::drop_thread::DropThread;
use crate::run_task::{BoxError, Payload, TaskBody, TaskOutput};
use crate::shared_barrier::SharedBarrier;
use crate::{PlannerActor, StageEnded, StageOfJobEnded};
use actix::Addr;
use phalanx_protocol::{PartitionId, StageFailure, StageId, TaskAttemptId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// A stage that has not ended.
pub(crate) struct StageRun {
    pub(crate) name: Arc<str>,
    pub(crate) body: TaskBody,
    /// The barrier of the current attempt.
    pub(crate) barrier: Option<Arc<SharedBarrier>>,
    pub(crate) owner: Owner,
    /// By partition, of the current attempt.
    values: Vec<Option<Payload>>,
    /// The error of the task that failed last.
    error: Option<(TaskAttemptId, BoxError)>,
}

/// Whom to tell how a stage goes.
pub(crate) enum Owner {
    Client {
        ended: oneshot::Sender<StageEnded>,
        outcome: watch::Sender<Option<Result<(), StageFailure>>>,
    },
    Planner(Addr<PlannerActor>),
}

impl StageRun {
    pub(crate) fn new(name: Arc<str>, num_tasks: u32, body: TaskBody, owner: Owner) -> Self {
        let values = no_values(num_tasks as usize);
        StageRun { name, body, barrier: None, owner, values, error: None }
    }

    /// Keeps what an accepted report brought.
    pub(crate) fn keep(
        &mut self,
        partition: PartitionId,
        task_attempt: TaskAttemptId,
        output: TaskOutput,
        drops: &DropThread,
    ) {
        match output {
            Ok(value) => self.values[partition.0 as usize] = Some(value),
            Err(error) => {
                let former = self.error.replace((task_attempt, error));
                drops.take(former.map(|(_, error)| Box::new(error) as Payload));
            }
        }
    }

    /// The attempt failed.
    pub(crate) fn discard_values(&mut self, drops: &DropThread) {
        let none = no_values(self.values.len());
        drops.take(std::mem::replace(&mut self.values, none).into_iter().flatten());
    }

    /// Tells all who wait. `next_attempt`: the number that another attempt would have.
    pub(crate) fn end(
        self,
        stage: StageId,
        next_attempt: u32,
        result: Result<(), StageFailure>,
        drops: &DropThread,
    ) {
        let StageRun { body, owner, values, error, .. } = self;
        if let Owner::Client { outcome, .. } = &owner {
            caught(|| outcome.send_replace(Some(result.clone())));
        }
        let result = match result {
            Ok(()) => Ok(values.into_iter().flatten().collect()),
            Err(failure) => {
                let first = failure.first_cause().and_then(|cause| cause.origin);
                let first = first.map(|origin| origin.task_attempt);
                let (own, other) = match error {
                    Some((of, error)) if Some(of) == first => (Some(error), None),
                    other => (None, other),
                };
                let other = other.map(|(_, error)| Box::new(error) as Payload);
                drops.take(values.into_iter().flatten().chain(other));
                Err((failure, own))
            }
        };
        let ended = StageEnded { result, body: Some(body) };
        let unwanted = match owner {
            Owner::Client { ended: to, .. } => caught(|| to.send(ended).err()).flatten(),
            Owner::Planner(planner) => {
                planner.do_send(StageOfJobEnded { stage, next_attempt, ended });
                None
            }
        };
        if let Some(StageEnded { result, body }) = unwanted {
            let values = result.unwrap_or_else(|(_, error)| {
                error.into_iter().map(|error| Box::new(error) as Payload).collect()
            });
            drops.take(values.into_iter().chain([Box::new(body) as Payload]));
        }
    }
}

/// Tells somebody something, whose waker may panic: that is told already then. `None` if it did.
pub(crate) fn caught<R>(tell: impl FnOnce() -> R) -> Option<R> {
    let told = catch_unwind(AssertUnwindSafe(tell));
    // Dropping it might panic again.
    told.map_err(std::mem::forget).ok()
}

fn no_values(count: usize) -> Vec<Option<Payload>> {
    std::iter::repeat_with(|| None).take(count).collect()
}

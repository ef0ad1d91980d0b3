//! What can be seen of a simulated step.

use crate::protocol::{
    BarrierEffect, BarrierEvent, CallId, CoordinatorEffect, CoordinatorEvent, LaunchTask, Release,
    SchedulerEffect, SchedulerEvent,
};
use crate::{
    ExecutorId, ExecutorResources, Incarnation, PartitionId, StageAttemptId, SyncError, SyncMethod,
    TaskAttemptId, TaskOutcome,
};
use bytes::Bytes;

/// One thing that happened in a step of the [`Simulator`](crate::simulation::Simulator): what the
/// machines were told and decided, and what is true of the world whether they know it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The scheduler took an event.
    Scheduler {
        /// What it was told.
        event: SchedulerEvent,
        /// What it decided.
        effects: Vec<SchedulerEffect>,
    },
    /// The coordinator took an event.
    Coordinator {
        /// What it was told.
        event: CoordinatorEvent,
        /// What it decided.
        effects: Vec<CoordinatorEffect>,
    },
    /// The barrier of a stage attempt took an event.
    Barrier {
        /// Whose.
        attempt: StageAttemptId,
        /// What it was told.
        event: BarrierEvent,
        /// What it decided.
        effects: Vec<BarrierEffect>,
    },
    /// An executor lives and has asked to join.
    ExecutorBegan {
        /// Which.
        executor: ExecutorId,
        /// Which life of it.
        incarnation: Incarnation,
        /// What it has.
        resources: ExecutorResources,
    },
    /// A life of an executor is over; its tasks ended with it.
    ExecutorEnded {
        /// Which.
        executor: ExecutorId,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// A task began to run.
    TaskBegan {
        /// Where.
        executor: ExecutorId,
        /// In which life of the executor.
        incarnation: Incarnation,
        /// Its stage attempt.
        attempt: StageAttemptId,
        /// The task, with what it was given.
        task: LaunchTask,
    },
    /// A task's code ended, and its report was sent.
    TaskEnded {
        /// Its stage attempt.
        attempt: StageAttemptId,
        /// Its partition.
        partition: PartitionId,
        /// Its attempt id.
        task_attempt: TaskAttemptId,
        /// How.
        outcome: TaskOutcome,
    },
    /// A task was told to end.
    TaskKilled(TaskAttemptId),
    /// A task called a sync.
    Called {
        /// Its stage attempt.
        attempt: StageAttemptId,
        /// Its partition.
        partition: PartitionId,
        /// Its attempt id.
        task_attempt: TaskAttemptId,
        /// Which call.
        call: CallId,
        /// Which function.
        method: SyncMethod,
        /// What it gives.
        message: Bytes,
    },
    /// A task dropped a call that was not answered.
    Dropped {
        /// Whose.
        task_attempt: TaskAttemptId,
        /// Which.
        call: CallId,
    },
    /// A task's call was answered.
    Answered {
        /// Whose.
        task_attempt: TaskAttemptId,
        /// Which.
        call: CallId,
        /// With what.
        result: Result<Release, SyncError>,
    },
    /// Something went wrong as planned.
    Fault(FaultKind),
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A message came later than one that was sent after it on another way.
    MessageReordered,
    /// A message came twice.
    MessageDuplicated,
    /// A message was lost with its connection.
    MessageLost,
    /// A timer fired although it had been cancelled, or fired again.
    TimerFiredLate,
    /// An executor ended with tasks on it.
    ExecutorCrashed,
    /// An executor with tasks stood still.
    ExecutorPaused,
    /// The connection to an executor with tasks broke, and they ran on.
    ExecutorCutOff,
    /// An executor came back as another incarnation.
    ExecutorCameBack,
    /// An executor came back before its loss was noticed.
    ExecutorCameBackUnnoticed,
    /// The driver took no message for a while, and some waited.
    DriverOverloaded,
    /// The barrier of a running attempt died.
    BarrierDied,
    /// A task returned an error.
    TaskFailed,
    /// A task panicked.
    TaskPanicked,
    /// A task could not be started.
    TaskNotStarted,
    /// A task did not heed its kill, or not at once.
    TaskIgnoredKill,
    /// A task dropped a call half-way.
    CallDropped,
}

impl FaultKind {
    /// All of them, in order.
    pub const ALL: [FaultKind; 16] = [
        FaultKind::MessageReordered,
        FaultKind::MessageDuplicated,
        FaultKind::MessageLost,
        FaultKind::TimerFiredLate,
        FaultKind::ExecutorCrashed,
        FaultKind::ExecutorPaused,
        FaultKind::ExecutorCutOff,
        FaultKind::ExecutorCameBack,
        FaultKind::ExecutorCameBackUnnoticed,
        FaultKind::DriverOverloaded,
        FaultKind::BarrierDied,
        FaultKind::TaskFailed,
        FaultKind::TaskPanicked,
        FaultKind::TaskNotStarted,
        FaultKind::TaskIgnoredKill,
        FaultKind::CallDropped,
    ];
}

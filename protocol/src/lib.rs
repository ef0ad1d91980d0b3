//! The pure half of phalanx: state machines and messages, without actors, clock, I/O or randomness.
//!
//! Every machine has one entry point, `fn handle(&mut self, event, effects: &mut Vec<Effect>)`:
//! synchronous and total. A machine never reads a clock: time comes in as a fired timer and goes
//! out as a request to set one. It never holds an address: whom to answer is an opaque
//! [`ReplyToken`]. State is `Clone + Eq + Hash`, so that a model checker or a simulator runs the
//! code that ships. A refused event leaves the state unchanged.
//!
//! ```text
//!    SubmitJob ──▶ Planner
//!                   │  ▲ outputs, lost inputs
//!                   ▼  │
//!  SubmitStage ──▶ TaskScheduler ──OpenBarrier, StageCompleted──▶ BarrierCoordinator
//!                   │       ▲                                          │ one child per
//!       LaunchTasks │       │ TaskReport                               ▼ stage attempt
//!          KillTask ▼       │                                 ContextBarrierState
//!                  executor tasks ◀───────── release or refusal ──┘    ▲
//!                      └── TaskSync ───────── RequestToSync ───────────┘
//! ```
//!
//! | machine | question it answers | file |
//! |---|---|---|
//! | [`Planner`] | which stages does a job need, and in what order? | `planner.rs` |
//! | [`TaskScheduler`] | which tasks run where, and what if one fails? | `task_scheduler/` |
//! | [`BarrierCoordinator`] | which stage attempts may synchronise? | `barrier_coordinator.rs` |
//! | [`ContextBarrierState`] | is the gang of one attempt complete? | `context_barrier_state.rs` |
//! | [`TaskSync`] | where is one task in its sequence of syncs? | `task_sync.rs` |

mod barrier_coordinator;
mod context_barrier_state;
mod ids;
mod job_failure;
mod lineage;
mod messages;
mod partition_ranges;
mod planner;
mod release;
mod resources;
mod runtime_event;
mod stage_failure;
mod stage_spec;
mod sync_error;
mod task_scheduler;
mod task_sync;
mod timer_key;

pub use barrier_coordinator::{BarrierCoordinator, CoordinatorEffect, CoordinatorEvent};
pub use context_barrier_state::{BarrierEffect, BarrierEvent, ContextBarrierState};
pub use ids::{
    Epoch, ExecutorId, ExecutorLife, Incarnation, JobId, PartitionId, ReplyToken, StageAttemptId,
    StageId, TaskAttemptId,
};
pub use job_failure::JobFailure;
pub use lineage::{
    DatasetInfo, DatasetNode, Dependency, Lineage, PlannedStage, StageRole, UnsupportedChain,
};
pub use messages::{
    Arrival, CloseReason, KillTask, LaunchTask, LaunchTasks, LeaveReason, OpenBarrier,
    RequestToSync, StageCompleted, StillWaiting, SyncArrival, SyncMethod, SyncReply, TaskInfo,
    TaskLeft, TaskOutcome, TaskReport, WithdrawSync,
};
pub use partition_ranges::PartitionRanges;
pub use planner::{JobStage, Planner, PlannerEffect, PlannerEvent, SubmitJob};
pub use release::{Messages, Release};
pub use resources::{Addresses, ExecutorResources, InvalidAmount, ResourceAmount, TaskResources};
pub use runtime_event::RuntimeEvent;
pub use stage_failure::{FailureCause, FetchFailed, StageFailure, TaskFailure, TaskOrigin};
pub use stage_spec::{InvalidStage, OfJob, OnFailure, StageKind, StageSpec, SubmitStage};
pub use sync_error::SyncError;
pub use task_scheduler::{
    ExecutorJoined, ExecutorStatus, SchedulerConfig, SchedulerEffect, SchedulerEvent, StagePhase,
    StageStatus, TaskScheduler, TaskStatus,
};
pub use task_sync::{CallId, Calls, TaskSync, TaskSyncEffect, TaskSyncEffects, TaskSyncEvent};
pub use timer_key::{KillId, SchedulerTimer, SyncTimer, SyncTimerKind, TimerKey};

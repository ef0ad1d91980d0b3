//! The actors of phalanx: each wraps one machine of `phalanx-protocol` and does what it says.
//!
//! | actor | wraps | lives on |
//! |---|---|---|
//! | [`PlannerActor`] | `Planner` | the control thread |
//! | [`TaskSchedulerActor`] | `TaskScheduler` | the control thread |
//! | [`BarrierCoordinatorActor`] | `BarrierCoordinator` | the control thread |
//! | [`ContextBarrierStateActor`] | `ContextBarrierState`, one an attempt | the control thread |
//! | [`ExecutorActor`] | the running tasks of one executor | the control thread |
//! | [`TimerActor`] | one `DelayQueue` | a thread of its own |
//!
//! An actor turns a message into an event, lets its machine handle it, and carries out every effect
//! in one `match`. What fails while doing so goes back in as an event.
//!
//! Between our actors there is no `send`: a full mailbox would hold it back while a later `do_send`
//! passes. `do_send` keeps the order, and what it queues is bounded by construction, because a task
//! has at most one request under way.
//!
//! [`ActorSystem`] starts all of them on threads of their own, so they can be embedded in any
//! runtime or none. [`testing`] has what unit tests of one actor need.

mod actor_system;
mod barrier_coordinator_actor;
mod blocking_threads;
mod context_barrier_state_actor;
mod drop_thread;
mod event_bus;
mod executor_actor;
mod gang_barrier;
mod group_run;
mod map_outputs;
mod messages;
mod orders;
mod patience;
mod planner_actor;
pub mod remote;
mod report_to_scheduler;
mod reporter;
mod round_timers;
mod run_task;
mod sealed;
mod shared_barrier;
mod shared_scheduler;
mod stage_run;
mod sync_cell;
mod sync_gatherer;
mod task;
mod task_group;
mod task_scheduler_actor;
pub mod testing;
mod threads;
mod timer_actor;

pub use actor_system::{ActorSystem, StartError, SystemConfig};
pub use barrier_coordinator_actor::BarrierCoordinatorActor;
pub use context_barrier_state_actor::ContextBarrierStateActor;
pub use event_bus::{EventBus, EventRecord};
pub use executor_actor::{ExecutorActor, ExecutorConfig, SchedulerLink};
pub use gang_barrier::GangBarrier;
pub use map_outputs::{MapOutput, MapOutputs, MapRows};
pub use messages::{
    Ask, BarrierLost, CancelStage, ChildStopped, ExecutorLink, ExecutorLost, GetJobs, GetMissing,
    GetStageStatus, GetStatus, GetSyncStatus, InputReady, JobEnded, JobStatus, JobsStatus,
    JoinExecutor, KillPartition, LaunchOnExecutor, RemoveExecutor, RetireExecutor, RunJob,
    RuntimeStatus, Shutdown, StageEnded, StageOfJobEnded, Submit, SubmitOfJob, SyncStatus,
    TaskEnded, Tell,
};
pub use orders::{Order, Orders};
pub use planner_actor::PlannerActor;
pub use reporter::{Report, Take};
pub use run_task::{
    BoxError, NamedBody, NamedCode, Payload, Serve, TaskBody, TaskOutput, current_task,
};
pub use shared_barrier::SharedBarrier;
pub use task::{SyncCall, Task};
pub use task_scheduler_actor::TaskSchedulerActor;
pub use threads::{Threads, runs_async_tasks};
pub use timer_actor::{DURATION_MAX, TimerActor, TimerFired, TimerRequest};

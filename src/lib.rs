//! **phalanx** runs *barrier stages*: N tasks that start all at once or not at all, meet at
//! `barrier()` and `all_gather()`, and if one fails are all stopped and started again as a whole,
//! from the last checkpoint.
//!
//! ```
//! use phalanx::{Runtime, Stage};
//!
//! let runtime = Runtime::with_slots(4)?;
//! let stage = Stage::tasks(4).name("discover");
//! let everyone = stage
//!     .run(&runtime, async |ctx| {
//!         let me = format!("localhost:{}", 10_000 + ctx.rank());
//!         let peers = ctx.all_gather(&me).await?; // all tasks are here now
//!         ctx.barrier().await?; // and here
//!         Ok(peers)
//!     })
//!     .wait()?;
//! assert_eq!(everyone[3][0], "localhost:10000");
//! # Ok::<(), phalanx::BoxError>(())
//! ```
//!
//! - [`Runtime`]: slots and threads, started inside any program, async or not.
//! - [`Stage`]: what to run; [`StageHandle`]: await, cancel, watch it.
//! - [`Dataset`]: rows in partitions, whose stages may be gangs; [`JobHandle`]: a job on one.
//! - [`BarrierTaskContext`] (and [`blocking::BarrierTaskContext`]): what a task can do.
//! - [`Config`]: every limit, with its default.
//! - [`simulation`]: what would happen, in virtual time.
//! - [`actors`] and [`protocol`]: the actors and messages below, to be used or tested on their own.

mod barrier_task_context;
pub mod blocking;
mod checkpoint;
pub mod cluster;
mod codec;
mod config;
pub mod dataset;
mod event_stream;
mod program;
mod reduce;
mod registry;
mod remote_stage;
mod runtime;
pub mod simulation;
mod stage;
mod stage_error;
mod stage_handle;
mod task_context;

pub use phalanx_actors as actors;
pub use phalanx_protocol as protocol;

pub use barrier_task_context::{BarrierTaskContext, CollectiveError};
pub use checkpoint::{CheckpointError, Restored};
pub use cluster::{Cluster, ClusterError};
pub use config::{Config, ConfigError};
pub use dataset::{
    BarrierDataset, CsvError, Dataset, FileError, JobControl, JobError, JobHandle, Rows,
};
#[cfg(feature = "parquet")]
pub use dataset::{ParquetError, ParquetRow};
pub use event_stream::{EventStream, EventStreamError};
pub use phalanx_actors::remote::{TlsFiles, Token};
pub use phalanx_actors::{BoxError, EventRecord, JobStatus, JobsStatus, RuntimeStatus, SyncStatus};
pub use phalanx_protocol::{
    DatasetInfo, Epoch, ExecutorId, ExecutorResources, ExecutorStatus, FailureCause, FetchFailed,
    Incarnation, JobFailure, JobId, LeaveReason, OnFailure, PartitionId, PartitionRanges,
    PlannedStage, RuntimeEvent, StageAttemptId, StageFailure, StageId, StagePhase, StageRole,
    StageStatus, SyncError, SyncMethod, TaskAttemptId, TaskFailure, TaskInfo, TaskOrigin,
    TaskOutcome, TaskStatus, UnsupportedChain,
};
pub use program::main;
pub use reduce::{Numbers, ReduceError, ReduceOp, Reducible};
pub use registry::Registry;
pub use runtime::{LeftBehind, Runtime, RuntimeBuilder, ShutdownError, StartError};
pub use stage::{Named, Partitions, Stage, Tasks};
pub use stage_error::StageError;
pub use stage_handle::{StageControl, StageHandle};
pub use task_context::{Progress, TaskContext};

/// What a task's code returns: a value, or any error.
pub type TaskResult<T> = Result<T, BoxError>;

/// The README's program runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

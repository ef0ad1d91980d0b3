//! Runs made-up or recorded work on the scheduler and barriers that ship, in virtual time: what
//! would happen with six slots, another priority, a lost executor?
//!
//! A [`Plan`] says which executors there are, which stages are handed in when, what their tasks do
//! and what goes wrong. [`Plan::run`] plays it: hours pass in milliseconds, nothing sleeps, and the
//! same plan gives the same [`EventLog`]. The machines of [`protocol`](crate::protocol) are the
//! ones that serve a [`Runtime`](crate::Runtime); only threads, clock and user code are simulated.
//!
//! ```
//! use phalanx::simulation::{Plan, TaskScript};
//! use phalanx::{Config, ExecutorResources, Stage};
//! use std::time::Duration;
//!
//! let minutes = |count: u64| Duration::from_secs(60 * count);
//! let mut plan = Plan::new(Config::default());
//! plan.executor(ExecutorResources::new(4));
//! plan.submit(Duration::ZERO, Stage::tasks(3).name("train"), TaskScript::work(minutes(50)))?;
//! plan.submit(minutes(1), Stage::tasks(2).name("report"), TaskScript::work(minutes(10)))?;
//! assert_eq!(plan.run()?.makespan(), minutes(60), "the report waits for the training");
//!
//! plan.executor(ExecutorResources::new(2)); // and with six slots?
//! assert_eq!(plan.run()?.makespan(), minutes(50));
//! # Ok::<(), phalanx::BoxError>(())
//! ```
//!
//! [`Plan::replay`] makes a plan of the events of a real run. [`Simulator`] goes step by step and
//! shows everything that happens in each, to check one's own invariants.

mod agenda;
mod driver;
mod event_log;
mod network;
mod observation;
mod ousterhout;
mod plan;
mod replay;
mod simulated_executor;
mod simulated_task;
mod simulator;
mod task_script;

pub use event_log::{EventLog, StageTimes};
pub use observation::{FaultKind, Observation};
pub use ousterhout::{OusterhoutMatrix, Row};
pub use plan::{Fault, Network, Plan, PlanError, PlannedStage};
pub use replay::ReplayError;
pub use simulator::{Simulator, Unfinished};
pub use task_script::{Step, TaskEnd, TaskScript};

//! Executors in other processes: they dial the driver, and a link carries what scheduler, barriers
//! and tasks say to one another.
//!
//! ```text
//!  driver                                              an executor's process
//!  TaskSchedulerActor ── LaunchOnExecutor, KillTask ─▶ RemoteExecutorActor ══▶ ExecutorActor
//!        ▲ TaskEnded ◀───────── RemoteExecutor ◀══════════════ DriverLink ◀── its tasks' ends
//!  SharedBarrier ◀── RequestToSync ── RemoteExecutor ◀════ RemoteBarrier ◀── gatherers
//!        └──── SyncReply ──▶ RemoteExecutor ═════════════▶ DriverLink ──▶ gatherers
//! ```
//!
//! One connection per executor. What is said is a [`Message`](wire::Message) with payloads, in
//! frames of at most 256 KiB, between which heartbeats and kills find their way. Connections are
//! read on one thread; whoever has something to say writes it on its own.

mod auth;
mod client;
mod clients;
mod driver_link;
mod executor_process;
mod frames;
mod greeting;
mod guests;
mod launches;
mod listener;
mod look_out;
mod outbox;
pub(crate) mod peer;
mod remote_barrier;
mod remote_executor;
mod signals;
mod silence;
mod tls;
pub mod wire;

pub use auth::{Nonce, Proof, Token};
pub use client::Client;
pub use driver_link::{DriverLink, LinkLost, StageCalls};
pub use executor_process::{ExecutorEnd, ExecutorProcess, RemoteLaunch};
pub use frames::PacketReader;
pub use greeting::GreetingError;
pub(crate) use listener::Host;
pub use listener::{LinkConfig, LinkEvent, ListenError, Listener, Loss};
pub use remote_barrier::RemoteBarrier;
pub(crate) use remote_executor::{RemoteExecutor, RemoteReply};
pub use tls::{ClientTls, ServerTls, TlsError, TlsFiles};

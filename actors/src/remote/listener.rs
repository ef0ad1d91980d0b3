//! Where a driver is dialled.

use super::auth::Token;
use super::greeting::Guest;
use super::guests::Guests;
use super::tls::ServerTls;
use super::wire::Program;
use crate::{SchedulerLink, TaskSchedulerActor};
use actix::{Addr, ArbiterHandle};
use phalanx_protocol::{ExecutorId, Incarnation};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What a driver's side of all links is set to.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Where to listen; port 0: any that is free.
    pub address: SocketAddr,
    /// What executors must be able to run.
    pub program: Program,
    /// What dialers must know.
    pub token: Option<Token>,
    /// Which certificates both sides show.
    pub tls: Option<ServerTls>,
    /// Pause between two heartbeats.
    pub heartbeat_interval: Duration,
    /// After so much silence an executor is lost.
    pub heartbeat_timeout: Duration,
    /// Bytes that a result may have.
    pub max_payload: usize,
    /// Bytes that may wait for one who reads slowly.
    pub max_queued: usize,
    /// Whether an executor that was lost may come back with what it is. If not it ends: somebody
    /// else has been started in its place.
    pub takes_back: bool,
    /// Told who comes and goes.
    pub events: Option<mpsc::UnboundedSender<LinkEvent>>,
}

/// Somebody came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// An executor was welcome.
    Joined {
        /// The name it gave.
        name: Arc<str>,
        /// Which it is.
        executor: ExecutorId,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// Its connection has ended.
    Lost {
        /// The name it gave.
        name: Arc<str>,
        /// Which life of it.
        incarnation: Incarnation,
        /// Why.
        reason: String,
        /// How.
        loss: Loss,
    },
}

/// How a driver lost an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its connection ended or broke, or the driver gave it up.
    Broken,
    /// Nothing was heard of it any more.
    Silent,
    /// It was told to end, by a signal, and said so.
    Told,
    /// The user took it away for good.
    Removed,
}

/// A driver that cannot be dialled.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Everybody on the network could run code.
    #[error(
        "{0} can be reached from other machines, and neither a token nor TLS is set: give a token (PHALANX_TOKEN_FILE) or certificates, or listen on 127.0.0.1"
    )]
    Unprotected(SocketAddr),
    /// The system does not allow it.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A runtime listens once.
    #[error("the runtime listens on {0} already")]
    Twice(SocketAddr),
    /// The runtime has been shut down.
    #[error("the runtime has ended")]
    Ended,
}

/// What the connections need of the runtime.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) scheduler: Addr<TaskSchedulerActor>,
    pub(crate) link: SchedulerLink,
    pub(crate) control: ArbiterHandle,
    /// The next executor's id.
    pub(crate) next_executor: Arc<AtomicU64>,
}

/// Takes in whoever dials, on a thread of its own.
pub struct Listener {
    address: SocketAddr,
    guests: Arc<Guests>,
    /// Says when the thread has ended.
    ended: Receiver<()>,
}

/// Connections that have not said who they are; the oldest gives way to a new one.
const GREETINGS_MAX: usize = 256;

/// Pause after the system could not give a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Listener {
    pub(crate) fn start(config: LinkConfig, host: Host) -> Result<Self, ListenError> {
        let asked = config.address;
        if !asked.ip().is_loopback() && config.token.is_none() && config.tls.is_none() {
            return Err(ListenError::Unprotected(asked));
        }
        let refused = |source| ListenError::Bind { address: asked, source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(refused)?;
        let socket = bind(asked, &runtime).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        let guests = Arc::new(Guests::new(config, host, CancellationToken::new()));
        let in_thread = guests.clone();
        let (tell, ended) = channel::<()>();
        let run = move || {
            runtime.block_on(run(socket, in_thread));
            // Calls of tasks may write files; nobody waits for them any more.
            runtime.shutdown_background();
            drop(tell);
        };
        let builder = thread::Builder::new().name("phalanx-link".to_owned());
        builder.spawn(run).map_err(refused)?;
        Ok(Listener { address, guests, ended })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells all executors that there will be nothing more, without waiting for anything: the
    /// process may be about to end.
    pub(crate) fn say_goodbye(&self) {
        self.guests.say_goodbye();
    }

    /// Says goodbye to all, which takes at most about a second, but for those that are about to end
    /// themselves.
    pub(crate) fn end(self) {
        self.guests.end.cancel();
        // The other end goes with the thread.
        if self.ended.recv_timeout(END_BOUND) == Err(RecvTimeoutError::Timeout) {
            warn!(
                "the thread of the links does not end: perhaps a subscriber of the log blocks it"
            );
        }
    }
}

/// Longer than those who leave may ask.
const END_BOUND: Duration = Duration::from_secs(12);

/// Connections that the system holds until they are taken: a large gang dials at once, and who
/// finds no room tries again after a second.
const BACKLOG: u32 = 4096;

fn bind(address: SocketAddr, runtime: &Runtime) -> io::Result<TcpListener> {
    let _entered = runtime.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As everywhere but on Windows, where it means something else.
    socket.set_reuseaddr(cfg!(not(windows)))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn run(socket: TcpListener, guests: Arc<Guests>) {
    let mut connections: JoinSet<()> = JoinSet::new();
    let mut greetings: JoinSet<Option<Guest>> = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    let look_out = guests.look_out.run();
    tokio::pin!(look_out);
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    oldest_first.retain(|greeting| !greeting.is_finished());
                    if oldest_first.len() >= GREETINGS_MAX
                        && let Some(oldest) = oldest_first.pop_front()
                    {
                        oldest.abort();
                    }
                    let guests = guests.clone();
                    let greeting = async move { guests.greet(stream, peer).await };
                    oldest_first.push_back(greetings.spawn(greeting));
                }
                Err(error) => {
                    warn!("a connection could not be taken: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(greeted) = greetings.join_next(), if !greetings.is_empty() => {
                if let Ok(Some(guest)) = greeted {
                    let guests = guests.clone();
                    connections.spawn(async move { guests.serve(guest).await });
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = &mut look_out => {}
            () = guests.end.cancelled() => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

//! Where executors come from that are processes of their own.

mod children;
mod slurm;

use crate::program::{self, Variables};
use crate::{Config, ExecutorResources, Registry, TlsFiles, Token};
use children::{Children, Spawn};
use phalanx_actors::ActorSystem;
use phalanx_actors::remote::{LinkConfig, LinkEvent, ListenError, TlsError};
pub use slurm::Slurm;
use slurm::SlurmRun;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Where a runtime's executors come from, if they are processes of their own: the runtime is the
/// driver, and they dial it. All are the same program, whose `main` is
/// [`phalanx::main`](crate::main).
///
/// Read from text it is `processes:4` (of one slot each), `processes:2x8` (of eight), `slurm`,
/// `slurm:3` (nodes to ask for) or `listen:0.0.0.0:7077`.
#[derive(Clone, Debug)]
pub struct Cluster {
    source: Source,
    program: Option<PathBuf>,
    token: Option<Token>,
    tls: Option<TlsFiles>,
}

#[derive(Clone, Debug)]
enum Source {
    Processes { count: usize, resources: ExecutorResources },
    Slurm(Slurm),
    Listen(String),
}

/// A cluster that could not be started.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The driver cannot be dialled.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Certificates or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token cannot be used.
    #[error("{0}")]
    Token(String),
    /// Not an address.
    #[error("'{text}' is no address to listen on: {reason}; write host:port")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Executors find no code.
    #[error("a runtime with a cluster needs a registry: give it builder().registry(..)")]
    NoRegistry,
    /// This very process is an executor, and would start others for ever.
    #[error(
        "this process was started as an executor ({role} = \"{executor}\") but runs the driver's code: begin `main` with phalanx::main",
        role = program::ROLE,
        executor = program::EXECUTOR
    )]
    IsExecutor,
    /// The system does not start a process or thread.
    #[error("the system could not start {what}: {source}")]
    System {
        /// What was to be started.
        what: &'static str,
        /// What it says.
        source: io::Error,
    },
}

/// A text that names no cluster.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is no cluster; write processes:4, processes:2x8, slurm, slurm:3 or listen:0.0.0.0:7077"
)]
pub struct ParseClusterError(String);

impl FromStr for Cluster {
    type Err = ParseClusterError;

    fn from_str(text: &str) -> Result<Self, ParseClusterError> {
        let wrong = || ParseClusterError(text.to_owned());
        let (kind, rest) = match text.split_once(':') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (text, None),
        };
        let count = |text: &str| text.parse().ok().filter(|count| *count > 0).ok_or_else(wrong);
        match (kind, rest) {
            ("processes", Some(rest)) => {
                let (processes, slots) = rest.split_once('x').unwrap_or((rest, "1"));
                let slots = u32::try_from(count(slots)?).map_err(|_| wrong())?;
                Ok(Cluster::processes(count(processes)?, ExecutorResources::new(slots)))
            }
            ("slurm", None) => Ok(Cluster::slurm(Slurm::new())),
            ("slurm", Some(rest)) => {
                let nodes = u32::try_from(count(rest)?).map_err(|_| wrong())?;
                Ok(Cluster::slurm(Slurm::new().nodes(nodes)))
            }
            ("listen", Some(address)) if !address.is_empty() => Ok(Cluster::listen(address)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Processes { count, resources } => {
                write!(f, "processes:{count}x{}", resources.cpus)
            }
            Source::Slurm(_) => f.write_str("slurm"),
            Source::Listen(address) => write!(f, "listen:{address}"),
        }
    }
}

impl Cluster {
    /// Child processes of this binary on this machine, each with these resources. One that ends is
    /// started again; none outlives the driver. The binary's `main` must be
    /// [`phalanx::main`](crate::main), or else see [`program`](Self::program).
    pub fn processes(count: usize, resources: ExecutorResources) -> Self {
        Cluster::from(Source::Processes { count, resources })
    }

    /// One executor per node of a Slurm allocation: the one this process is in, or else one that is
    /// asked for.
    pub fn slurm(slurm: Slurm) -> Self {
        Cluster::from(Source::Slurm(slurm))
    }

    /// Executors that others start (Kubernetes, systemd, by hand): the driver only listens at
    /// `host:port`; port 0 is any that is free, see
    /// [`Runtime::listen_address`](crate::Runtime::listen_address). An address that other machines
    /// can reach needs a token or TLS.
    pub fn listen(address: impl Into<String>) -> Self {
        Cluster::from(Source::Listen(address.into()))
    }

    fn from(source: Source) -> Self {
        Cluster { source, program: None, token: None, tls: None }
    }

    /// The program that executors are, if the runtime starts them and this process is another one:
    /// a test, whose `main` is not [`phalanx::main`](crate::main). It must make the same registry.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// The secret that executors must share. Default: `PHALANX_TOKEN` or `PHALANX_TOKEN_FILE`;
    /// without them executors that the runtime itself starts get a random one.
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// The certificates of the driver; executors show theirs of the same CA. Default:
    /// `PHALANX_TLS_CA`, `PHALANX_TLS_CERTIFICATE` and `PHALANX_TLS_KEY`.
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// Has the runtime listen, and executors started.
    pub(crate) fn start(
        self,
        system: &ActorSystem,
        registry: &Registry,
        config: &Config,
    ) -> Result<RunningCluster, ClusterError> {
        let variables = Variables::of_process();
        if variables.is_executor() {
            return Err(ClusterError::IsExecutor);
        }
        let token = self.token.map_or_else(|| variables.token(), |token| Ok(Some(token)));
        let mut token = token.map_err(ClusterError::Token)?;
        let files = self.tls.map_or_else(|| variables.tls(), |files| Ok(Some(files)));
        let files = files.map_err(ClusterError::Token)?;
        let starts_them = !matches!(self.source, Source::Listen(_));
        if starts_them && token.is_none() {
            let random = Token::random();
            token = Some(random.map_err(|error| ClusterError::Token(error.to_string()))?);
        }
        let any_port = |ip: IpAddr| SocketAddr::new(ip, 0);
        let address = match &self.source {
            Source::Processes { .. } => any_port(Ipv4Addr::LOCALHOST.into()),
            Source::Slurm(_) => any_port(Ipv4Addr::UNSPECIFIED.into()),
            Source::Listen(text) => resolve(text)?,
        };
        let (events, heard) = mpsc::unbounded_channel();
        let address = system.listen(LinkConfig {
            address,
            program: registry.program(),
            token: token.clone(),
            tls: files.as_ref().map(TlsFiles::server).transpose()?,
            heartbeat_interval: config.link_heartbeat_interval,
            heartbeat_timeout: config.link_heartbeat_timeout,
            max_payload: config.link_max_payload,
            max_queued: config.link_max_queued,
            takes_back: !starts_them,
            events: starts_them.then_some(events),
        })?;
        let environment = environment(token.as_ref(), files.as_ref(), config);
        let (scheduler, grace) = (system.scheduler(), config.kill_grace + GOODBYE_GRACE);
        let end = CancellationToken::new();
        let ended = match self.source {
            Source::Listen(_) => None,
            Source::Processes { count, resources } => {
                let program = self.program.map_or_else(this_program, Ok)?;
                let spawn = processes(program, count, &resources, address, environment);
                let (end, scheduler) = (end.clone(), scheduler.clone());
                let on_signal = None;
                let children = Children { spawn, heard, end, on_signal, scheduler, grace };
                Some(in_thread(children.run(system.ended()))?)
            }
            Source::Slurm(slurm) => {
                let program = self.program.map_or_else(this_program, Ok)?;
                let (port, end, scheduler) = (address.port(), end.clone(), scheduler.clone());
                let slurm =
                    SlurmRun { slurm, program, port, environment, heard, end, scheduler, grace };
                Some(in_thread(slurm.run(system.ended()))?)
            }
        };
        Ok(RunningCluster { address, end, ended })
    }
}

fn resolve(text: &str) -> Result<SocketAddr, ClusterError> {
    let wrong = |reason: String| ClusterError::Address { text: text.to_owned(), reason };
    let mut found = text.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("there is no such host".to_owned()))
}

/// What every executor that this process starts is told: also the settings that are not as they
/// would be without being told.
fn environment(
    token: Option<&Token>,
    tls: Option<&TlsFiles>,
    config: &Config,
) -> Vec<(String, String)> {
    let mut variables = config.changed_variables();
    let mut tell = |name: &str, value: String| variables.push((name.to_owned(), value));
    tell(program::ROLE, program::EXECUTOR.to_owned());
    if let Some(token) = token {
        tell(program::TOKEN, token.reveal().to_owned());
    }
    if let Some(TlsFiles { ca, certificate, key }) = tls {
        tell(program::TLS_CA, ca.display().to_string());
        tell(program::TLS_CERTIFICATE, certificate.display().to_string());
        tell(program::TLS_KEY, key.display().to_string());
    }
    variables
}

fn this_program() -> Result<PathBuf, ClusterError> {
    let path = std::env::current_exe();
    path.map_err(|source| ClusterError::System { what: "this program again", source })
}

fn processes(
    program: PathBuf,
    count: usize,
    resources: &ExecutorResources,
    address: SocketAddr,
    environment: Vec<(String, String)>,
) -> Spawn {
    let named = resources.named.iter();
    let named: Vec<String> =
        named.map(|(name, addresses)| format!("{name}={}", addresses.join(","))).collect();
    let (slots, named) = (resources.cpus.to_string(), named.join(";"));
    let command = move |index: usize, _moves: u32| {
        let mut command = Command::new(&program);
        command
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env(program::DRIVER, address.to_string())
            .env(program::EXECUTOR_NAME, process_name(index))
            .env(program::EXECUTOR_RESOURCES, &named)
            .env(program::DIES_WITH_PARENT, "yes")
            .env("PHALANX_SLOTS", &slots)
            .stdin(Stdio::null());
        command
    };
    let names = (0..count).map(|index| process_name(index).into()).collect();
    Spawn { names, command: Box::new(command), is_proxy: false }
}

fn process_name(index: usize) -> String {
    format!("process-{index}")
}

/// Runs it on a thread of its own. Children that die with their parent die with that thread.
fn in_thread(
    executors: impl Future<Output = ()> + Send + 'static,
) -> Result<watch::Receiver<bool>, ClusterError> {
    let failed = |source| ClusterError::System { what: "a thread for its executors", source };
    let (tell, ended) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let run = move || {
        runtime.block_on(executors);
        tell.send_replace(true);
    };
    thread::Builder::new().name("phalanx-cluster".to_owned()).spawn(run).map_err(failed)?;
    Ok(ended)
}

/// A cluster whose driver listens. Ends its executors when it is dropped, in the background.
pub(crate) struct RunningCluster {
    pub(crate) address: SocketAddr,
    end: CancellationToken,
    /// `None`: it has started nobody.
    ended: Option<watch::Receiver<bool>>,
}

impl RunningCluster {
    /// Waits until the executors that it has started are gone, which takes at most some seconds.
    pub(crate) async fn end(&self) {
        self.end.cancel();
        if let Some(ended) = &self.ended {
            // An error means that the thread is gone, and its children with it.
            let _ = ended.clone().wait_for(|ended| *ended).await;
        }
    }
}

impl Drop for RunningCluster {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Who came or went, of those that the driver has started.
type Heard = mpsc::UnboundedReceiver<LinkEvent>;

/// How long executors have to end once the driver has said goodbye.
const GOODBYE_GRACE: Duration = Duration::from_secs(2);

//! Executors on the nodes of a Slurm allocation.

use super::Heard;
use super::children::{Children, OnSignal, Spawn, ask_to_end, cancel_stages};
use crate::program;
use actix::Addr;
use phalanx_actors::TaskSchedulerActor;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Executors on Slurm: one per node of the allocation that this process is in (`sbatch`, `salloc`),
/// or of one that it asks for and gives back.
///
/// Each is a step of its own (`srun --overlap`), so a lost node costs one executor, which is
/// started again on a node that is left. For that the allocation must be made with `--no-kill`, or
/// one dead node ends it all. An executor has `PHALANX_SLOTS` slots, or as many as Slurm gives cpus
/// to it.
///
/// A stage waits for an allocation that is asked for as long as for any slots:
/// `slot_check.max_failures` times `slot_check.interval`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slurm {
    nodes: Option<u32>,
    salloc: Vec<String>,
    srun: Vec<String>,
}

/// An allocation that is there.
struct Allocation {
    job: String,
    nodes: Vec<String>,
    /// Holds it, if it was asked for: gives it back when its standard input ends, which it also
    /// does when this process is killed.
    holder: Option<Child>,
}

/// What the cluster's thread needs.
pub(super) struct SlurmRun {
    pub(super) slurm: Slurm,
    pub(super) program: PathBuf,
    pub(super) port: u16,
    pub(super) environment: Vec<(String, String)>,
    pub(super) heard: Heard,
    pub(super) end: CancellationToken,
    pub(super) scheduler: Addr<TaskSchedulerActor>,
    pub(super) grace: Duration,
}

/// Nodes that are asked for if nobody says how many.
const NODES_DEFAULT: u32 = 2;

/// How long one of Slurm's commands may take that only asks.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

impl Slurm {
    /// Inside an allocation: all of its nodes. Else 2 nodes are asked for.
    pub fn new() -> Self {
        Slurm::default()
    }

    /// How many nodes to ask for, if this process is not in an allocation.
    pub fn nodes(mut self, nodes: u32) -> Self {
        self.nodes = Some(nodes);
        self
    }

    /// Arguments for `salloc`, if this process is not in an allocation: `--partition=x`,
    /// `--time=1:00:00`.
    pub fn salloc_arguments<S: Into<String>>(
        mut self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        self.salloc.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Arguments for the `srun` of each executor: `--gres=gpu:1`.
    pub fn srun_arguments<S: Into<String>>(
        mut self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        self.srun.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// The allocation of this process, or a new one.
    async fn allocate(&self) -> Result<Allocation, String> {
        if let (Ok(job), Ok(list)) =
            (std::env::var("SLURM_JOB_ID"), std::env::var("SLURM_JOB_NODELIST"))
        {
            let nodes = ask("scontrol", &["show", "hostnames", &list]).await?;
            let nodes = nodes.split_whitespace().map(str::to_owned).collect();
            return Ok(Allocation { job, nodes, holder: None });
        }
        let nodes = self.nodes.unwrap_or(NODES_DEFAULT).to_string();
        info!("asks Slurm for {nodes} nodes");
        let mut holder = Command::new("salloc")
            .args(["--no-kill", "--quiet", "--nodes", &nodes])
            .args(&self.salloc)
            .args(["sh", "-c", HOLD])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| format!("salloc could not be started: {error}"))?;
        let stdout = holder.stdout.take().ok_or("salloc has no output")?;
        // If nobody waits any more it takes its request back.
        let mut holder = AskedToEnd(Some(holder));
        let mut lines = BufReader::new(stdout).lines();
        let mut next = async || lines.next_line().await.ok().flatten().filter(|it| !it.is_empty());
        let job = next().await;
        let mut nodes = Vec::new();
        while let (Some(_), Some(node)) = (&job, next().await) {
            nodes.push(node);
        }
        match job {
            Some(job) => Ok(Allocation { job, nodes, holder: holder.0.take() }),
            None => {
                let Some(mut holder) = holder.0.take() else {
                    return Err("salloc has ended".to_owned());
                };
                let status = holder.wait().await;
                let status = status.map_or_else(|it| it.to_string(), |it| it.to_string());
                Err(format!("salloc gave no allocation ({status})"))
            }
        }
    }
}

/// A process that is asked to end when nobody waits for it any more.
struct AskedToEnd(Option<Child>);

impl Drop for AskedToEnd {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            ask_to_end(child);
        }
    }
}

/// Says which allocation it is, and keeps it until the driver is gone.
const HOLD: &str = "echo \"$SLURM_JOB_ID\"; scontrol show hostnames \"$SLURM_JOB_NODELIST\"; \
                    echo; exec cat";

impl SlurmRun {
    /// Until the runtime has ended, and all executors have.
    pub(super) async fn run(self, system_ended: impl Future<Output = ()>) {
        let SlurmRun { slurm, program, port, environment, heard, end, scheduler, grace } = self;
        let allocation = tokio::select! {
            allocation = slurm.allocate() => allocation,
            () = end.cancelled() => return,
        };
        let Allocation { job, nodes, holder } = match allocation {
            Ok(allocation) => allocation,
            Err(reason) => {
                warn!("there are no executors: {reason}");
                return cancel_stages(&scheduler, &reason).await;
            }
        };
        info!("Slurm's job {job} has the nodes {}", nodes.join(", "));
        let names = nodes.iter().map(|node| node.as_str().into()).collect();
        let command = steps(job.clone(), nodes, slurm.srun, program, port, environment);
        let spawn = Spawn { names, command, is_proxy: true };
        let on_signal = Some(on_signal(job.clone()));
        let stop = end.clone();
        let children =
            Children { spawn, heard, end, on_signal, scheduler: scheduler.clone(), grace };
        let terminated = async {
            match terminate().await {
                Ok(()) => cancel_stages(&scheduler, &job_ends(&job, "SIGTERM")).await,
                Err(error) => warn!("SIGTERM is not watched for: {error}"),
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = children.run(system_ended) => {}
            () = terminated => {}
        }
        stop.cancel();
        end_on_terminate();
        if let Some(mut holder) = holder {
            drop(holder.stdin.take());
            // It has nothing to do but to give the allocation back.
            let _ = timeout(ASK_TIMEOUT, holder.wait()).await;
        }
    }
}

/// The steps of a job: which command starts which executor.
fn steps(
    job: String,
    nodes: Vec<String>,
    arguments: Vec<String>,
    program: PathBuf,
    port: u16,
    environment: Vec<(String, String)>,
) -> Box<dyn Fn(usize, u32) -> std::process::Command + Send + Sync> {
    Box::new(move |index, moves| {
        let node = &nodes[(index + moves as usize) % nodes.len()];
        let mut command = std::process::Command::new("srun");
        command
            .args(["--overlap", "--nodes=1", "--ntasks=1", "--export=ALL", "--quiet"])
            .arg(format!("--jobid={job}"))
            .arg(format!("--nodelist={node}"))
            .args(&arguments)
            .arg(&program)
            .stdin(Stdio::null())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env(program::DRIVER, format!(":{port}"))
            .env(program::EXECUTOR_NAME, &nodes[index])
            .env(program::EXECUTOR_ADDRESS, node);
        command
    })
}

/// Whether it is Slurm that ends an executor: then it ends all of them.
fn on_signal(job: String) -> OnSignal {
    let job = Arc::new(job);
    Box::new(move || {
        let job = job.clone();
        let ends = async move {
            let state = job_state(&job).await.filter(|state| state != "RUNNING")?;
            Some(job_ends(&job, &state))
        };
        let ends: Pin<Box<dyn Future<Output = Option<String>> + Send>> = Box::pin(ends);
        ends
    })
}

/// Once a signal has been watched for, the system does not act on it any more. There is nothing
/// left here that a SIGTERM could end, so it ends the process again.
fn end_on_terminate() {
    let wait = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime
            && runtime.block_on(terminate()).is_ok()
        {
            std::process::exit(TERMINATED);
        }
    };
    let started = thread::Builder::new().name("phalanx-sigterm".to_owned()).spawn(wait);
    if let Err(error) = started {
        warn!("SIGTERM has no effect any more: {error}");
    }
}

/// What a shell says of a process that SIGTERM has ended.
const TERMINATED: i32 = 143;

fn job_ends(job: &str, state: &str) -> String {
    format!("Slurm ends job {job} ({state}): it was cancelled, or its time limit is over")
}

async fn job_state(job: &str) -> Option<String> {
    let shown = ask("scontrol", &["show", "job", job, "--oneliner"]).await.ok()?;
    let state = shown.split_whitespace().find_map(|word| word.strip_prefix("JobState="));
    state.map(str::to_owned)
}

/// What one of Slurm's commands says.
async fn ask(command: &str, arguments: &[&str]) -> Result<String, String> {
    let mut asked = Command::new(command);
    asked.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let failed = |what: String| format!("{command} {}: {what}", arguments.join(" "));
    let output = timeout(ASK_TIMEOUT, asked.output()).await;
    let output = output.map_err(|_| failed(format!("no answer within {ASK_TIMEOUT:?}")))?;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(format!("{} {said}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(unix)]
async fn terminate() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    match terminate.recv().await {
        Some(()) => Ok(()),
        None => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminate() -> io::Result<()> {
    std::future::pending().await
}

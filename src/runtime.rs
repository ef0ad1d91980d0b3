//! Slots and threads, inside any program.

use crate::cluster::RunningCluster;
use crate::event_stream::EventStream;
use crate::{
    Cluster, ClusterError, Config, ConfigError, ExecutorId, ExecutorResources, JobId, JobsStatus,
    PartitionId, Registry, RuntimeStatus, StageAttemptId, StageId, TaskAttemptId,
};
use actix::Addr;
use phalanx_actors::testing::ManualTimer;
use phalanx_actors::{
    ActorSystem, GetJobs, GetStatus, MapOutputs, Orders, PlannerActor, RemoveExecutor,
    SystemConfig, TaskSchedulerActor,
};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use thiserror::Error;

/// A running scheduler with its executors. Clones are the same runtime.
///
/// It runs on threads of its own, so it can be started and used in `#[tokio::main]`,
/// `#[actix_web::main]` or a plain `fn main`; several in one process do not meet. When the last
/// clone is dropped everything is ended in the background; [`shutdown`](Runtime::shutdown) does so
/// and waits.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    system: ActorSystem,
    config: Config,
    registry: Option<Registry>,
    cluster: Option<RunningCluster>,
    next_stage: AtomicU64,
    next_job: AtomicU64,
}

/// What a runtime is started with; see [`Runtime::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is started until start()"]
pub struct RuntimeBuilder {
    config: Config,
    executors: Vec<ExecutorResources>,
    registry: Option<Registry>,
    cluster: Option<Cluster>,
    manual_time: bool,
}

/// A runtime that could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system gives no threads.
    #[error(transparent)]
    Threads(#[from] phalanx_actors::StartError),
    /// Two codes in the registry have the same name.
    #[error("the registry has two codes named '{0}'")]
    RegisteredTwice(String),
    /// Executors of other processes cannot join.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Tasks that had not ended when the shutdown's grace was over. Everything else is shut down; every
/// call that they make to the runtime fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownError {
    /// How long they were waited for.
    pub grace: Duration,
    /// The tasks, in order of launch.
    pub tasks: Vec<LeftBehind>,
}

/// A task that did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// Its stage's name.
    pub stage_name: Arc<str>,
    /// Its stage and attempt.
    pub attempt: StageAttemptId,
    /// Its partition.
    pub partition: PartitionId,
    /// Its attempt id.
    pub task_attempt: TaskAttemptId,
    /// Where it runs.
    pub executor: ExecutorId,
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grace = humantime::format_duration(self.grace);
        write!(f, "tasks ignored their kill for {grace} and were left behind")?;
        let mut separator = ':';
        for LeftBehind { stage_name, attempt, partition, task_attempt, executor } in &self.tasks {
            write!(
                f,
                "{separator} partition {partition} of {attempt} '{stage_name}' \
                 (task {task_attempt} on executor {executor})"
            )?;
            separator = ',';
        }
        Ok(())
    }
}

impl std::error::Error for ShutdownError {}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl RuntimeBuilder {
    /// Takes these settings.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets the number of slots of the default executor.
    pub fn slots(mut self, slots: u32) -> Self {
        self.config.slots = slots;
        self
    }

    /// Adds an executor with these resources. The first call replaces the default one of
    /// `config.slots` cpus.
    pub fn executor(mut self, resources: ExecutorResources) -> Self {
        self.executors.push(resources);
        self
    }

    /// Gives it code that stages name; see [`Stage::named`](crate::Stage::named).
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Has executors of other processes join. The runtime then has none in this process, unless
    /// [`executor`](Self::executor) adds some, and runs registered code only.
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Has time pass only when [`Runtime::manual_timer`] is told to: timeouts, retry delays and
    /// checks of hours run in a test at once.
    pub fn manual_time(mut self) -> Self {
        self.manual_time = true;
        self
    }

    /// Starts the runtime; takes about a millisecond.
    ///
    /// # Errors
    /// If a setting is not allowed or the system gives no threads.
    pub fn start(self) -> Result<Runtime, StartError> {
        Ok(self.start_recorded()?.0)
    }

    /// Starts the runtime and subscribes to its events before there are any: also to the joining
    /// of its executors, which whoever subscribes later does not see.
    ///
    /// # Errors
    /// As [`RuntimeBuilder::start`].
    pub fn start_recorded(self) -> Result<(Runtime, EventStream), StartError> {
        let RuntimeBuilder { config, mut executors, registry, cluster, manual_time } = self;
        config.validate()?;
        if let Some(name) = registry.as_ref().and_then(Registry::twice) {
            return Err(StartError::RegisteredTwice(name.to_owned()));
        }
        if executors.is_empty() && cluster.is_none() {
            executors.push(ExecutorResources::new(config.slots));
        }
        let system = ActorSystem::start(SystemConfig {
            scheduler: config.scheduler(),
            progress_interval: config.progress_log_interval,
            events_capacity: config.events_capacity,
            manual_time,
        })?;
        let events = EventStream::new(system.events().subscribe(), system.ended());
        for resources in executors {
            pollster::block_on(system.add_executor(resources, config.worker_threads))?;
        }
        // Their joining is over and told when this returns: no subscriber sees half of it.
        drop(pollster::block_on(system.scheduler().send(GetStatus)));
        let cluster = cluster.map(|cluster| {
            let registry = registry.as_ref().ok_or(ClusterError::NoRegistry)?;
            cluster.start(&system, registry, &config)
        });
        let cluster = cluster.transpose()?;
        let (next_stage, next_job) = Default::default();
        let inner = Inner { system, config, registry, cluster, next_stage, next_job };
        Ok((Runtime { inner: Arc::new(inner) }, events))
    }
}

impl Runtime {
    /// To start a runtime with other than the default settings or executors.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// Starts a runtime with these settings and one executor of `config.slots` cpus.
    ///
    /// # Errors
    /// If a setting is not allowed or the system gives no threads.
    pub fn start(config: Config) -> Result<Runtime, StartError> {
        Runtime::builder().config(config).start()
    }

    /// Starts a runtime with default settings and one executor of `slots` cpus.
    ///
    /// # Errors
    /// If `slots` is 0 or the system gives no threads.
    pub fn with_slots(slots: u32) -> Result<Runtime, StartError> {
        Runtime::builder().slots(slots).start()
    }

    /// The settings it was started with.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The executors, and the stages that are not over. Empty after a shutdown.
    pub async fn status(&self) -> RuntimeStatus {
        let empty = RuntimeStatus { executors: Vec::new(), stages: Vec::new() };
        self.inner.system.scheduler().send(GetStatus).await.unwrap_or(empty)
    }

    /// All events from now on.
    pub fn subscribe(&self) -> EventStream {
        let system = &self.inner.system;
        EventStream::new(system.events().subscribe(), system.ended())
    }

    /// Adds an executor in this process. Stages that wait for slots find it at once.
    ///
    /// # Errors
    /// If the system gives no threads, or the runtime was shut down.
    pub async fn add_executor(
        &self,
        resources: ExecutorResources,
    ) -> Result<ExecutorId, StartError> {
        let worker_threads = self.inner.config.worker_threads;
        Ok(self.inner.system.add_executor(resources, worker_threads).await?)
    }

    /// Takes an executor away for good, whatever runs on it: those gangs fail as by any loss of an
    /// executor. One in another process ends, is not started again, and may not join under its name
    /// any more. Returns whether it was there.
    pub async fn remove_executor(&self, executor: ExecutorId, reason: impl Into<String>) -> bool {
        let message = RemoveExecutor { executor, reason: reason.into() };
        // No answer: the runtime is gone, and with it the executor.
        self.inner.system.scheduler().send(message).await.unwrap_or(false)
    }

    /// Ends all stages (they fail with [`StageFailure::Shutdown`](crate::StageFailure::Shutdown)),
    /// kills all tasks, waits for them up to `grace`, and ends the threads. Takes at most `grace`
    /// and about a second, even if a task never returns; executors that are processes have some
    /// seconds more, and then are ended. May be called by several at once: the
    /// shortest grace counts, and all are told the same.
    ///
    /// # Errors
    /// Names the tasks that did not end in time.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), ShutdownError> {
        let left = self.inner.system.shutdown(grace).await;
        if let Some(cluster) = &self.inner.cluster {
            cluster.end().await;
        }
        let tasks = left.iter().map(|task| LeftBehind {
            stage_name: task.stage_name().clone(),
            attempt: task.attempt(),
            partition: task.partition(),
            task_attempt: task.task_attempt(),
            executor: task.executor(),
        });
        let tasks: Vec<LeftBehind> = tasks.collect();
        if tasks.is_empty() { Ok(()) } else { Err(ShutdownError { grace, tasks }) }
    }

    /// [`Runtime::shutdown`], blocking the thread.
    ///
    /// # Errors
    /// As [`Runtime::shutdown`].
    pub fn shutdown_blocking(&self, grace: Duration) -> Result<(), ShutdownError> {
        pollster::block_on(self.shutdown(grace))
    }

    /// The scheduler's address, to speak to it as an actor. What is said here may be overtaken by
    /// small tasks that begin meanwhile; what is said through a stage's handle is not.
    pub fn scheduler(&self) -> &Addr<TaskSchedulerActor> {
        self.inner.system.scheduler()
    }

    /// The timer, if the runtime was started with [`RuntimeBuilder::manual_time`].
    pub fn manual_timer(&self) -> Option<&Addr<ManualTimer>> {
        self.inner.system.manual_timer()
    }

    /// Where executors of other processes dial in, if the runtime was started with a [`Cluster`].
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.inner.cluster.as_ref().map(|cluster| cluster.address)
    }

    /// The jobs that have no result yet, and how many outputs of map stages are kept. Empty after a
    /// shutdown.
    pub async fn jobs(&self) -> JobsStatus {
        let empty = JobsStatus { jobs: Vec::new(), map_stages: 0, map_outputs: 0 };
        self.inner.system.planner().send(GetJobs).await.unwrap_or(empty)
    }

    pub(crate) fn planner(&self) -> &Addr<PlannerActor> {
        self.inner.system.planner()
    }

    pub(crate) fn map_outputs(&self) -> &MapOutputs {
        self.inner.system.map_outputs()
    }

    pub(crate) fn next_job_id(&self) -> JobId {
        JobId(self.inner.next_job.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn orders(&self) -> &Orders {
        self.inner.system.orders()
    }

    pub(crate) fn is(&self, other: &Runtime) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn has_cluster(&self) -> bool {
        self.inner.cluster.is_some()
    }

    pub(crate) fn registry(&self) -> Option<&Registry> {
        self.inner.registry.as_ref()
    }

    pub(crate) fn next_stage_id(&self) -> StageId {
        StageId(self.inner.next_stage.fetch_add(1, Ordering::Relaxed))
    }
}

//! All actors, on threads of their own, embedded in whatever the host runs on.

use crate::executor_actor::{ExecutorConfig, SchedulerLink};
use crate::orders::Orders;
use crate::remote::{Host, LinkConfig, ListenError, Listener};
use crate::report_to_scheduler::ReportToScheduler;
use crate::reporter::RunningTasks;
use crate::shared_scheduler::{SchedulerState, SharedScheduler};
use crate::task::lock;
use crate::testing::ManualTimer;
use crate::threads::Threads;
use crate::{
    EventBus, ExecutorActor, MapOutputs, PlannerActor, Shutdown, Task, TaskSchedulerActor,
    TimerActor, TimerRequest,
};
use actix::prelude::*;
use phalanx_protocol::{ExecutorId, ExecutorResources, Incarnation, SchedulerConfig};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use thiserror::Error;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tracing::{error, warn};

/// The running actors of one runtime.
///
/// They have threads of their own: one for control (scheduler, coordinator, executors' mailboxes),
/// one for timers, and each executor's workers. So they run beside any async runtime or none, and
/// several do not meet.
pub struct ActorSystem {
    system: System,
    orders: Orders,
    shared_scheduler: Arc<SharedScheduler>,
    planner: Addr<PlannerActor>,
    map_outputs: MapOutputs,
    manual_timer: Option<Addr<ManualTimer>>,
    events: EventBus,
    threads: Threads,
    next_executor: Arc<AtomicU64>,
    /// Where executors of other processes dial in, if they may.
    listener: Arc<Mutex<Option<Listener>>>,
    /// Set once the shutdown is over: the tasks that had not ended.
    ended: watch::Receiver<Option<Vec<Arc<Task>>>>,
}

/// What a system is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemConfig {
    /// The scheduler's limits.
    pub scheduler: SchedulerConfig,
    /// Pause between two log lines of a task that waits in a sync.
    pub progress_interval: Duration,
    /// Events kept for slow subscribers.
    pub events_capacity: usize,
    /// Time passes only when told to, see [`ActorSystem::manual_timer`]: for tests.
    pub manual_time: bool,
}

/// A runtime could not be started, or got no more threads.
#[derive(Debug, Error)]
#[error("the runtime got no thread for its {what}: {source}; see `ulimit -u`")]
pub struct StartError {
    what: &'static str,
    source: io::Error,
}

/// What the control thread hands back once it runs.
struct Started {
    system: System,
    orders: Orders,
    shared_scheduler: Arc<SharedScheduler>,
    planner: Addr<PlannerActor>,
    map_outputs: MapOutputs,
    manual_timer: Option<Addr<ManualTimer>>,
}

impl ActorSystem {
    /// Starts the threads and actors, without executors. Returns when they are ready, which takes
    /// about a millisecond.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(config: SystemConfig) -> Result<Self, StartError> {
        let (ready, started) = mpsc::channel();
        let (end, ended) = watch::channel(None);
        let threads = Threads::new();
        let events = EventBus::new(config.events_capacity);
        let listener: Arc<Mutex<Option<Listener>>> = Arc::default();
        let (in_thread, bus, dialled) = (threads.clone(), events.clone(), listener.clone());
        let control = move || {
            run_control_thread(&config, &bus, &in_thread, &ready);
            let listener = lock(&dialled).take();
            if let Some(listener) = listener {
                listener.end();
            }
            join_bounded(in_thread.clone());
            // Nobody may be left to be told.
            let _ = end.send(Some(in_thread.running_tasks()));
        };
        thread::Builder::new()
            .name("phalanx-control".to_owned())
            .spawn(control)
            .map_err(|source| StartError { what: "control", source })?;
        let gone = |_| io::Error::other("it ended while starting");
        let started = started
            .recv()
            .map_err(|error| StartError { what: "control", source: gone(error) })??;
        let Started { system, orders, shared_scheduler, planner, map_outputs, manual_timer } =
            started;
        let next_executor = Arc::default();
        Ok(ActorSystem {
            system,
            orders,
            shared_scheduler,
            planner,
            map_outputs,
            manual_timer,
            events,
            threads,
            next_executor,
            listener,
            ended,
        })
    }

    /// Takes in executors of other processes from now on, until the shutdown. Returns where they
    /// find it.
    ///
    /// # Errors
    /// If the address cannot be listened on, or is open to others without a token or TLS.
    pub fn listen(&self, config: LinkConfig) -> Result<SocketAddr, ListenError> {
        let mut listener = lock(&self.listener);
        if let Some(listener) = &*listener {
            return Err(ListenError::Twice(listener.address()));
        }
        let host = Host {
            scheduler: self.scheduler().clone(),
            link: self.scheduler_link(),
            control: self.system.arbiter().clone(),
            next_executor: self.next_executor.clone(),
        };
        let address = listener.insert(Listener::start(config, host)?).address();
        // The control thread takes it when it ends, or has ended already.
        let has_ended = self.ended.borrow().is_some();
        match listener.take_if(|_| has_ended) {
            Some(late) => {
                late.end();
                Err(ListenError::Ended)
            }
            None => Ok(address),
        }
    }

    fn scheduler_link(&self) -> SchedulerLink {
        SchedulerLink {
            join: self.scheduler().clone().recipient(),
            ended: Arc::new(ReportToScheduler {
                shared: self.shared_scheduler.clone(),
                orders: self.orders.clone(),
            }),
            lost: self.scheduler().clone().recipient(),
        }
    }

    /// The scheduler's address: `GetStatus` and so on.
    pub fn scheduler(&self) -> &Addr<TaskSchedulerActor> {
        self.orders.scheduler()
    }

    /// The way to the scheduler for what must not be overtaken: `Submit`, `CancelStage`,
    /// `KillPartition`.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// The planner's address: `RunJob`, `GetJobs` and so on.
    pub fn planner(&self) -> &Addr<PlannerActor> {
        &self.planner
    }

    /// What the map stages of its jobs have made.
    pub fn map_outputs(&self) -> &MapOutputs {
        &self.map_outputs
    }

    /// What happens, from now on.
    pub fn events(&self) -> &EventBus {
        &self.events
    }

    /// The hand-cranked timer, if the system was started with `manual_time`.
    pub fn manual_timer(&self) -> Option<&Addr<ManualTimer>> {
        self.manual_timer.as_ref()
    }

    /// Adds a local executor with these resources and threads for async tasks. When this has
    /// returned, a stage submitted later finds it.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub async fn add_executor(
        &self,
        resources: ExecutorResources,
        worker_threads: usize,
    ) -> Result<ExecutorId, StartError> {
        let executor = ExecutorId(self.next_executor.fetch_add(1, Ordering::Relaxed));
        let config = ExecutorConfig {
            executor,
            incarnation: Incarnation(0),
            address: format!("local/{executor}").into(),
            resources,
            worker_threads,
        };
        let scheduler = self.scheduler_link();
        let (tell, told) = oneshot::channel();
        let threads = self.threads.clone();
        self.system.arbiter().spawn_fn(move || {
            // Whoever asked may have gone.
            let _ = tell.send(ExecutorActor::start_local(config, threads, scheduler).map(drop));
        });
        let started = told.await.unwrap_or_else(|_| Err(io::Error::other("the runtime has ended")));
        let error = |source| StartError { what: "executor", source };
        started.map_err(error)?;
        Ok(executor)
    }

    /// Ends all stages and tasks, and then the threads. Returns the tasks that had not ended within
    /// `grace`. Their threads are left behind; every call that they make to the runtime fails.
    /// Takes at most `grace` and about a second; of several calls the shortest grace counts, and
    /// all return the same.
    pub async fn shutdown(&self, grace: Duration) -> Vec<Arc<Task>> {
        self.begin_shutdown(Some(grace));
        let mut ended = self.ended.clone();
        // An error means that the control thread panicked: nothing is known of the tasks.
        let end = ended.wait_for(Option::is_some).await.map(|end| end.clone());
        end.ok().flatten().unwrap_or_default()
    }

    /// Done once the shutdown is over.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        // An error means that the control thread panicked, which is an end, too.
        async move { drop(ended.wait_for(Option::is_some).await) }
    }

    /// On the control thread, so that no clock of the host is needed. Without effect after the end.
    fn begin_shutdown(&self, grace: Option<Duration>) {
        let scheduler = self.scheduler().clone();
        self.system.arbiter().spawn(async move {
            let drained = scheduler.send(Shutdown);
            // Whether it is drained or not, or dead: the threads end now.
            match grace {
                Some(grace) => drop(tokio::time::timeout(grace, drained).await),
                None => drop(drained.await),
            }
            System::current().stop();
        });
    }
}

impl Drop for ActorSystem {
    /// Ends everything in the background. Executors of other processes are told at once.
    fn drop(&mut self) {
        if let Some(listener) = &*lock(&self.listener) {
            listener.say_goodbye();
        }
        self.begin_shutdown(None);
    }
}

/// How long the threads may take to end once no task runs any more.
const JOIN_BOUND: Duration = Duration::from_secs(1);

/// Waits for the threads, but not for ever: a task that does not end keeps its own.
fn join_bounded(threads: Threads) {
    let (tell, joined) = mpsc::channel();
    let joiner = thread::Builder::new().name("phalanx-join".to_owned());
    let started = joiner.spawn(move || {
        threads.stop_and_join();
        // The waiter may have given up.
        let _ = tell.send(());
    });
    if started.is_ok() && joined.recv_timeout(JOIN_BOUND).is_err() {
        warn!("some worker threads have not ended: something that ignores its kill runs on them");
    }
}

fn run_control_thread(
    config: &SystemConfig,
    events: &EventBus,
    threads: &Threads,
    ready: &mpsc::Sender<Result<Started, StartError>>,
) {
    let failed = |what| move |source| StartError { what, source };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            // The starter waits for this; it cannot be gone.
            let _ = ready.send(Err(failed("control")(source)));
            return;
        }
    };
    let runner = System::with_tokio_rt(|| runtime);
    let started = runner.block_on(async { start_actors(config, events, threads) });
    let is_started = started.is_ok();
    // As above.
    let _ = ready.send(started.map_err(failed("timers")));
    if is_started && let Err(error) = runner.run() {
        error!("the control thread ended with an error: {error}");
    }
}

fn start_actors(
    config: &SystemConfig,
    events: &EventBus,
    threads: &Threads,
) -> io::Result<Started> {
    let (timer, manual_timer) = if config.manual_time {
        let timer = ManualTimer::default().start();
        (timer.clone().recipient(), Some(timer))
    } else {
        let (_, thread) = threads.spawn(1, RunningTasks::default())?;
        let timer = TimerActor::start_in_arbiter(&thread[0], |_| TimerActor::new());
        (timer.recipient::<TimerRequest>(), None)
    };
    let scheduler = TaskSchedulerActor::new(
        config.scheduler.clone(),
        config.progress_interval,
        timer,
        events.clone(),
    );
    let shared_scheduler = scheduler.shared().clone();
    if manual_timer.is_none() {
        shared_scheduler.with(SchedulerState::gather_timers);
    }
    let scheduler = scheduler.start();
    let map_outputs = MapOutputs::default();
    let orders = Orders::new(scheduler);
    let planner = PlannerActor::new(orders.clone(), map_outputs.clone(), events.clone());
    let (system, planner) = (System::current(), planner.start());
    Ok(Started { system, orders, shared_scheduler, planner, map_outputs, manual_timer })
}

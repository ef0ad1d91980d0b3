//! The running tasks of one executor.

use crate::run_task::{Reporter, RunningTasks, TaskBody, run_async, run_blocking};
use crate::sync_gatherer::SyncGatherer;
use crate::task::{Task, lock};
use crate::{
    ExecutorLink, ExecutorLost, JoinExecutor, LaunchOnExecutor, RetireExecutor, TaskEnded, Tell,
};
use actix::prelude::*;
use phalanx_protocol::{
    ExecutorId, ExecutorJoined, ExecutorResources, Incarnation, KillTask, StageAttemptId,
};
use std::io;
use std::sync::{Arc, Mutex};
use tracing::error;

/// Runs tasks in this process. Async tasks share its worker threads, blocking ones get a thread
/// each. Its own mailbox is on another thread than the tasks, so that a kill reaches a task that
/// does not yield.
pub struct ExecutorActor {
    config: ExecutorConfig,
    threads: Threads,
    workers: Vec<ArbiterHandle>,
    running: RunningTasks,
    scheduler: SchedulerLink,
    /// Whether the scheduler knows already that this executor goes.
    given_up: bool,
}

/// What an executor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorConfig {
    /// Which.
    pub executor: ExecutorId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Where its tasks can be found, for their peers.
    pub address: Arc<str>,
    /// What it has.
    pub resources: ExecutorResources,
    /// Threads for async tasks, at least 1.
    pub worker_threads: usize,
}

/// The scheduler, as an executor needs it.
#[derive(Clone)]
pub struct SchedulerLink {
    /// Told that the executor is there.
    pub join: Recipient<JoinExecutor>,
    /// Told how tasks end.
    pub ended: Recipient<TaskEnded>,
    /// Told that the executor is gone.
    pub lost: Recipient<ExecutorLost>,
}

/// The threads that were started for async tasks and timers, to be waited for at the end, and the
/// tasks that run on them or on threads of their own.
#[derive(Clone, Default)]
pub struct Threads(Arc<Mutex<ThreadsInner>>);

#[derive(Default)]
struct ThreadsInner {
    arbiters: Vec<Arbiter>,
    running: Vec<RunningTasks>,
}

impl Threads {
    /// No threads yet.
    pub fn new() -> Self {
        Threads::default()
    }

    pub(crate) fn spawn(&self) -> io::Result<ArbiterHandle> {
        let arbiter = Arbiter::try_new()?;
        let handle = arbiter.handle();
        lock(&self.0).arbiters.push(arbiter);
        Ok(handle)
    }

    /// The tasks that run now, also those of executors that were given up.
    pub(crate) fn running_tasks(&self) -> Vec<Arc<Task>> {
        let mut tasks: Vec<_> = lock(&self.0).running.iter().flat_map(RunningTasks::all).collect();
        tasks.sort_by_key(|task| task.task_attempt());
        tasks
    }

    /// Waits until all have ended, however long the tasks on them take.
    pub(crate) fn stop_and_join(&self) {
        let arbiters = std::mem::take(&mut lock(&self.0).arbiters);
        for arbiter in &arbiters {
            arbiter.stop();
        }
        for arbiter in arbiters {
            if arbiter.join().is_err() {
                error!("a worker thread panicked outside of its tasks");
            }
        }
    }
}

impl ExecutorActor {
    /// Starts the executor's threads and actor on the current arbiter, and has it join the
    /// scheduler.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start_local(
        config: ExecutorConfig,
        threads: Threads,
        scheduler: SchedulerLink,
    ) -> io::Result<Addr<Self>> {
        let workers: Vec<ArbiterHandle> = (0..config.worker_threads.max(1))
            .map(|_| threads.spawn())
            .collect::<io::Result<_>>()?;
        let running = RunningTasks::default();
        lock(&threads.0).running.push(running.clone());
        let actor = ExecutorActor {
            config: config.clone(),
            threads,
            workers: workers.clone(),
            running,
            scheduler: scheduler.clone(),
            given_up: false,
        };
        let addr = actor.start();
        let ExecutorConfig { executor, incarnation, address, resources, .. } = config;
        let joined = ExecutorJoined { executor, incarnation, address, resources };
        let link = ExecutorLink::local(addr.clone(), workers);
        scheduler.join.do_send(JoinExecutor { joined, link });
        Ok(addr)
    }

    fn reporter(&self) -> Reporter {
        Reporter {
            executor: self.config.executor,
            incarnation: self.config.incarnation,
            scheduler: self.scheduler.ended.clone(),
        }
    }

    fn kill_all(&self, reason: &str) {
        for task in self.running.all() {
            task.kill(reason);
        }
    }
}

/// Which of `workers` threads runs a gang's first task; the others follow in turn. Its barrier
/// lives there, too.
pub(crate) fn first_worker(attempt: StageAttemptId, workers: usize) -> usize {
    (attempt.stage.0 % workers as u64) as usize
}

impl Actor for ExecutorActor {
    type Context = Context<Self>;

    /// Also runs when a handler panicked.
    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.kill_all("its executor has ended");
        for worker in &self.workers {
            worker.stop();
        }
        if !self.given_up {
            let ExecutorConfig { executor, incarnation, .. } = self.config;
            let reason = "ended unexpectedly".to_owned();
            self.scheduler.lost.do_send(ExecutorLost { executor, incarnation, reason });
        }
    }
}

impl Handler<LaunchOnExecutor> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, message: LaunchOnExecutor, _ctx: &mut Self::Context) {
        let LaunchOnExecutor { mut launch, name, body, barrier } = message;
        let tasks = std::mem::take(&mut launch.tasks);
        let executor = self.config.executor;
        match body {
            TaskBody::Blocking(code) => {
                let gatherer = barrier.map(SyncGatherer::start);
                for task in tasks {
                    let task = Task::new(&launch, &name, task, executor, gatherer.clone());
                    run_blocking(self.running.list(task), code.clone(), self.reporter());
                }
            }
            TaskBody::Async(code) => {
                let count = self.workers.len();
                let first = first_worker(launch.attempt, count);
                let mut shares: Vec<Vec<_>> = vec![Vec::new(); count];
                for (index, task) in tasks.into_iter().enumerate() {
                    shares[(first + index) % count].push(task);
                }
                let shares = shares.into_iter().enumerate().filter(|(_, share)| !share.is_empty());
                for (worker, share) in shares {
                    let gatherer = barrier.clone().map(SyncGatherer::new);
                    let (gatherer, pump) = gatherer.unzip();
                    let tasks = share.into_iter().map(|task| {
                        let task = Task::new(&launch, &name, task, executor, gatherer.clone());
                        self.running.list(task)
                    });
                    let tasks: Vec<_> = tasks.collect();
                    let (code, reporter) = (code.clone(), self.reporter());
                    self.workers[worker].spawn_fn(move || {
                        for task in tasks {
                            actix_rt::spawn(run_async(task, code.clone(), reporter.clone()));
                        }
                        if let Some(pump) = pump {
                            actix_rt::spawn(pump);
                        }
                    });
                }
            }
        }
    }
}

impl Handler<Tell<KillTask>> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, Tell(kill): Tell<KillTask>, _ctx: &mut Self::Context) {
        for id in &kill.tasks {
            if let Some(task) = self.running.get(*id) {
                task.kill(&kill.reason);
            }
        }
    }
}

impl Handler<RetireExecutor> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, retire: RetireExecutor, ctx: &mut Self::Context) {
        self.given_up = true;
        if retire.comes_back {
            let mut next = self.config.clone();
            next.incarnation.0 += 1;
            let executor = next.executor;
            if let Err(error) =
                ExecutorActor::start_local(next, self.threads.clone(), self.scheduler.clone())
            {
                error!(%executor, "executor {executor} does not come back: {error}");
            }
        }
        ctx.stop();
    }
}

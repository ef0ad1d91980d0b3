//! The running tasks of one executor.

use crate::blocking_threads::BlockingThreads;
use crate::group_run::GroupRun;
use crate::remote::DriverLink;
use crate::reporter::{Report, Reporter, RunningTasks};
use crate::run_task::NamedCode;
use crate::threads::{GroupId, Threads};
use crate::{ExecutorLink, ExecutorLost, JoinExecutor, LaunchOnExecutor, RetireExecutor, Tell};
use actix::prelude::*;
use phalanx_protocol::{
    ExecutorId, ExecutorJoined, ExecutorLife, ExecutorResources, Incarnation, KillTask,
    StageAttemptId,
};
use std::io;
use std::sync::Arc;
use tracing::error;

/// Runs tasks in this process. Async tasks share its worker threads, blocking ones get a thread
/// each. Its own mailbox is on another thread than the tasks, so that a kill reaches a task that
/// does not yield.
pub struct ExecutorActor {
    config: ExecutorConfig,
    threads: Threads,
    group: GroupId,
    workers: Vec<ArbiterHandle>,
    /// For blocking tasks of plain stages.
    blocking: BlockingThreads,
    /// Has the running tasks; shared by all of them.
    reporter: Arc<Reporter>,
    superior: Superior,
    /// Whether the scheduler knows already that this executor goes.
    given_up: bool,
}

/// Who is told of the executor's own end.
pub(crate) enum Superior {
    /// The scheduler is in this process.
    Scheduler(SchedulerLink),
    /// It is the driver's; this process ends with its executor.
    Driver(Arc<DriverLink>),
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
    /// Told how tasks end. `Arc::new(recipient)` of [`TaskEnded`](crate::TaskEnded) will do.
    pub ended: Arc<dyn Report>,
    /// Told that the executor is gone.
    pub lost: Recipient<ExecutorLost>,
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
        let (to, running) = (scheduler.ended.clone(), RunningTasks::default());
        let superior = Superior::Scheduler(scheduler.clone());
        let addr = ExecutorActor::start_under(superior, to, running, config.clone(), threads)?;
        let ExecutorConfig { executor, incarnation, address, resources, .. } = config;
        let joined = ExecutorJoined { executor, incarnation, address, resources };
        let link = ExecutorLink::local(addr.clone());
        scheduler.join.do_send(JoinExecutor { joined, link });
        Ok(addr)
    }

    /// Starts the executor's threads and actor on the current arbiter. `running`: will have the
    /// tasks that run. `to`: is told how they end.
    pub(crate) fn start_under(
        superior: Superior,
        to: Arc<dyn Report>,
        running: RunningTasks,
        config: ExecutorConfig,
        threads: Threads,
    ) -> io::Result<Addr<Self>> {
        let (group, workers) = threads.spawn(config.worker_threads.max(1), running.clone())?;
        let ExecutorConfig { executor, incarnation, .. } = config;
        let life = ExecutorLife { executor, incarnation };
        let reporter = Arc::new(Reporter::new(life, to, running));
        let actor = ExecutorActor {
            config,
            threads,
            group,
            workers,
            blocking: BlockingThreads::default(),
            reporter,
            superior,
            given_up: false,
        };
        Ok(actor.start())
    }

    /// A worker thread does not take tasks any more: a task ended it, or the system.
    fn a_thread_is_gone(&mut self, ctx: &mut Context<Self>) {
        if !self.given_up {
            self.report_lost("lost a worker thread");
            ctx.notify(RetireExecutor { comes_back: true });
        }
    }

    fn report_lost(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.given_up, true) {
            let ExecutorConfig { executor, incarnation, .. } = self.config;
            let reason = reason.to_owned();
            match &self.superior {
                Superior::Scheduler(scheduler) => {
                    scheduler.lost.do_send(ExecutorLost { executor, incarnation, reason });
                }
                Superior::Driver(link) => link.leave(&reason),
            }
        }
    }
}

/// Which of `workers` threads runs a gang's first task; the others follow in turn.
fn first_worker(attempt: StageAttemptId, workers: usize) -> usize {
    (attempt.stage.0 % workers as u64) as usize
}

impl Actor for ExecutorActor {
    type Context = Context<Self>;

    /// Also runs when a handler panicked.
    fn stopped(&mut self, _ctx: &mut Self::Context) {
        // First: what the tasks then report is a consequence.
        self.report_lost("ended unexpectedly");
        self.reporter.end();
        self.threads.release(self.group);
    }
}

impl Handler<LaunchOnExecutor> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, mut message: LaunchOnExecutor, ctx: &mut Self::Context) {
        match message.body.code() {
            NamedCode::Blocking(code) => {
                let is_gang = message.barrier.is_some();
                for task in self.reporter.blocking_tasks(message, code) {
                    if is_gang { task.start_alone() } else { self.blocking.run(task) }
                }
            }
            NamedCode::Async(code) => {
                let count = self.workers.len();
                let first = first_worker(message.launch.attempt, count);
                let tasks = std::mem::take(&mut message.launch.tasks);
                let mut shares: Vec<Vec<_>> = vec![Vec::new(); count];
                for (index, task) in tasks.into_iter().enumerate() {
                    shares[(first + index) % count].push(task);
                }
                let shares = shares.into_iter().enumerate().filter(|(_, share)| !share.is_empty());
                let mut all_taken = true;
                for (worker, share) in shares {
                    let (group, listed) = self.reporter.polled_tasks(&message, share);
                    let (code, run) = (code.clone(), group.clone());
                    let is_taken = self.workers[worker].spawn_fn(move || {
                        actix_rt::spawn(GroupRun::new(run, code, listed));
                    });
                    if !is_taken {
                        // Its tasks have been dropped: their peers are told.
                        group.flush();
                        all_taken = false;
                    }
                }
                if !all_taken {
                    self.a_thread_is_gone(ctx);
                }
            }
        }
    }
}

impl Handler<Tell<KillTask>> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, Tell(kill): Tell<KillTask>, _ctx: &mut Self::Context) {
        for id in &kill.tasks {
            if let Some(task) = self.reporter.get(*id) {
                self.reporter.kill(&task, &kill.reason);
            }
        }
    }
}

impl Handler<RetireExecutor> for ExecutorActor {
    type Result = ();

    fn handle(&mut self, retire: RetireExecutor, ctx: &mut Self::Context) {
        self.given_up = true;
        if let (true, Superior::Scheduler(scheduler)) = (retire.comes_back, &self.superior) {
            let mut next = self.config.clone();
            next.incarnation.0 += 1;
            let executor = next.executor;
            let threads = self.threads.clone();
            if let Err(error) = ExecutorActor::start_local(next, threads, scheduler.clone()) {
                error!(%executor, "executor {executor} does not come back: {error}");
            }
        }
        ctx.stop();
    }
}

//! A process that runs tasks for a driver elsewhere.

use super::auth::Token;
use super::driver_link::{DriverLink, StageCalls};
use super::greeting::{GreetingError, Link, Reader, introduce};
use super::launches::Launches;
use super::look_out::LookOut;
use super::signals::Signals;
use super::silence::Silence;
use super::tls::ClientTls;
use super::wire::{ExecutorHello, Message, Payloads, Role, Welcome, WireError};
use crate::executor_actor::Superior;
use crate::reporter::RunningTasks;
use crate::threads::Threads;
use crate::{ExecutorActor, ExecutorConfig, RetireExecutor, TaskBody};
use actix::prelude::*;
use bytes::Bytes;
use phalanx_protocol::{ExecutorId, Incarnation, PartitionId};
use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// What an executor's process is started with.
#[derive(Clone, Debug)]
pub struct ExecutorProcess {
    /// Host and port of the driver.
    pub driver: String,
    /// What the driver wants to be proved.
    pub token: Option<Token>,
    /// Which certificates both sides show.
    pub tls: Option<ClientTls>,
    /// Who it is and what it has.
    pub hello: ExecutorHello,
    /// Threads for async tasks, at least 1.
    pub worker_threads: usize,
    /// Bytes that may wait to be sent.
    pub max_queued: usize,
    /// How long it tries to reach the driver, at first and after it lost it.
    pub reconnect_timeout: Duration,
    /// How long tasks may take to end once they must.
    pub grace: Duration,
}

/// Code to be run by an executor's process, as its driver says.
pub struct RemoteLaunch {
    /// The registered name.
    pub code: String,
    /// What the code is told about its stage.
    pub settings: Bytes,
    /// Inputs of the tasks that are launched here.
    pub inputs: HashMap<PartitionId, Bytes>,
    /// The way to the stage's side in the driver.
    pub calls: StageCalls,
}

/// Finds the code that is to be run, or says why there is none.
pub(crate) type Resolve = Arc<dyn Fn(RemoteLaunch) -> Result<TaskBody, String> + Send + Sync>;

/// Why an executor's process ends.
#[derive(Debug, Error)]
pub enum ExecutorEnd {
    /// The driver said so.
    #[error("the driver said goodbye: {0}")]
    Goodbye(String),
    /// The driver does not want this executor.
    #[error("{0}")]
    Refused(GreetingError),
    /// The driver cannot be reached.
    #[error(
        "the driver at {driver} could not be reached for {tried:?} (link.reconnect_timeout): {reason}"
    )]
    Unreachable {
        /// Its address.
        driver: String,
        /// How long it was tried.
        tried: Duration,
        /// What happened the last time.
        reason: String,
    },
    /// It was asked to end by a signal.
    #[error("{0}")]
    Signalled(String),
    /// It cannot go on.
    #[error("{0}")]
    Left(String),
    /// Tasks did not end: this process has to.
    #[error("tasks ignored their kill for {grace:?}: the process ends with them")]
    TasksLeft {
        /// How long they were waited for.
        grace: Duration,
    },
    /// The system gives no thread.
    #[error("the system gave no thread: {0}")]
    Threads(#[from] io::Error),
}

/// From 0.5 to 1.
fn rand_fraction() -> f64 {
    let hash = RandomState::new().hash_one(0_u8);
    0.5 + (hash % 1024) as f64 / 2048.0
}

/// Pauses between two tries to reach the driver.
const DIAL_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

impl ExecutorProcess {
    /// Runs tasks until it is told to end or the driver is gone. `resolve` finds the code that the
    /// driver names. Takes over the thread; when this returns the process should end, for tasks
    /// that ignore their kill may still run.
    ///
    /// # Errors
    /// Always says why it ends; [`ExecutorEnd::Goodbye`] is how it should.
    pub fn run(
        self,
        resolve: impl Fn(RemoteLaunch) -> Result<TaskBody, String> + Send + Sync + 'static,
    ) -> ExecutorEnd {
        match self.start(Arc::new(resolve)) {
            Ok(end) => end,
            Err(error) => ExecutorEnd::Threads(error),
        }
    }

    /// Its actor is on this thread, the connection on another one.
    fn start(self, resolve: Resolve) -> io::Result<ExecutorEnd> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let runner = System::with_tokio_rt(|| runtime);
        let control = System::current();
        let link_runtime = Builder::new_current_thread().enable_all().build()?;
        let connection =
            thread::Builder::new().name("phalanx-link".to_owned()).spawn(move || {
                let threads = Threads::new();
                let life = Life { process: self, resolve, control: control.clone(), threads };
                let end = link_runtime.block_on(life.run());
                link_runtime.shutdown_background();
                control.stop();
                end
            })?;
        runner.run()?;
        connection.join().map_err(|_| io::Error::other("the thread of the link panicked"))
    }
}

struct Life {
    process: ExecutorProcess,
    resolve: Resolve,
    control: System,
    threads: Threads,
}

/// How one connection ended.
enum LinkEnd {
    /// The executor may come back.
    Lost(String),
    /// It must not.
    Final(ExecutorEnd),
}

impl Life {
    async fn run(mut self) -> ExecutorEnd {
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => return ExecutorEnd::Threads(error),
        };
        loop {
            let (link, welcome) = tokio::select! {
                reached = self.reach() => match reached {
                    Ok(reached) => reached,
                    Err(end) => return end,
                },
                name = signals.next() => return ExecutorEnd::Signalled(format!("got {name}")),
            };
            self.process.hello.lives += 1;
            match self.live(link, welcome, &mut signals).await {
                LinkEnd::Lost(reason) => warn!("the driver was lost: {reason}"),
                LinkEnd::Final(end) => return end,
            }
        }
    }

    /// Dials until the driver answers.
    async fn reach(&self) -> Result<(Link, Welcome), ExecutorEnd> {
        let ExecutorProcess { driver, token, tls, hello, max_queued, reconnect_timeout, .. } =
            &self.process;
        let started = Instant::now();
        let (mut pause, longest) = DIAL_PAUSES;
        loop {
            let role = Role::Executor(hello.clone());
            let dialled = introduce(driver, role, token.as_ref(), tls.as_ref(), *max_queued).await;
            let reason = match dialled {
                Ok(reached) => return Ok(reached),
                // Another try would end in the same way.
                Err(end @ (GreetingError::Refused(_) | GreetingError::Unfit(_))) => {
                    return Err(ExecutorEnd::Refused(end));
                }
                Err(error) => error.to_string(),
            };
            let tried = started.elapsed();
            if tried >= *reconnect_timeout {
                let driver = driver.clone();
                return Err(ExecutorEnd::Unreachable { driver, tried, reason });
            }
            // Those of a large gang do not come back all at once.
            sleep(pause.mul_f64(rand_fraction())).await;
            pause = (2 * pause).min(longest);
        }
    }

    /// One connection, and the executor that it stands for.
    async fn live(&self, link: Link, welcome: Welcome, signals: &mut Signals) -> LinkEnd {
        let Link { mut reader, outbox } = link;
        let Some((executor, incarnation)) = welcome.executor else {
            let reason = "the driver did not say which executor this is".to_owned();
            return LinkEnd::Final(ExecutorEnd::Left(reason));
        };
        info!(%executor, %incarnation, "this is executor {executor} of {}", self.process.driver);
        let link = DriverLink::new((executor, incarnation), outbox, welcome.max_payload);
        let running = RunningTasks::default();
        let actor = match self.start_executor(&link, (executor, incarnation), &running).await {
            Ok(actor) => actor,
            Err(error) => return LinkEnd::Final(ExecutorEnd::Threads(error)),
        };
        let launches = Launches::new(link.clone(), self.resolve.clone(), actor.clone());
        let end = self.converse(&link, &mut reader, welcome, launches, &running, signals).await;
        // One that was asked to end does not come back.
        let end = match (end, link.is_leaving()) {
            (LinkEnd::Lost(_), Some(reason)) => LinkEnd::Final(ExecutorEnd::Signalled(reason)),
            (end, _) => end,
        };
        let reason = match &end {
            LinkEnd::Lost(reason) => format!("its executor has lost the driver: {reason}"),
            LinkEnd::Final(end) => format!("its executor ends: {end}"),
        };
        // First: the driver charges what the killed tasks report to them, not to the loss.
        link.outbox.close(&reason);
        kill_all(&running, &reason);
        link.end(&reason);
        // Not yet: with its threads ends what async tasks do about their kill.
        let all_ended = end_within(&running, &reason, self.process.grace).await;
        actor.do_send(RetireExecutor { comes_back: false });
        if !all_ended {
            let grace = self.process.grace;
            return LinkEnd::Final(ExecutorEnd::TasksLeft { grace });
        }
        end
    }

    async fn start_executor(
        &self,
        link: &Arc<DriverLink>,
        (executor, incarnation): (ExecutorId, Incarnation),
        running: &RunningTasks,
    ) -> io::Result<Addr<ExecutorActor>> {
        let config = ExecutorConfig {
            executor,
            incarnation,
            // Its peers learn it from the driver.
            address: self.process.hello.name.as_str().into(),
            resources: self.process.hello.resources.clone(),
            worker_threads: self.process.worker_threads,
        };
        let (tell, told) = oneshot::channel();
        let (link, running, threads) = (link.clone(), running.clone(), self.threads.clone());
        self.control.arbiter().spawn_fn(move || {
            let superior = Superior::Driver(link.clone());
            let started = ExecutorActor::start_under(superior, link, running, config, threads);
            // Whoever asked waits for it.
            let _ = tell.send(started);
        });
        let gone = |_| Err(io::Error::other("the control thread has ended"));
        told.await.unwrap_or_else(gone)
    }

    /// Takes what the driver says, until there is no more.
    async fn converse(
        &self,
        link: &Arc<DriverLink>,
        reader: &mut Reader,
        welcome: Welcome,
        mut launches: Launches,
        running: &RunningTasks,
        signals: &mut Signals,
    ) -> LinkEnd {
        let Welcome { heartbeat_interval, heartbeat_timeout, .. } = welcome;
        let mut silence = Silence::new(heartbeat_interval, heartbeat_timeout);
        let mut asked_to_end: Option<(Instant, String)> = None;
        let held = link.release_held();
        tokio::pin!(held);
        let look_out = LookOut::new();
        let looks = look_out.run();
        tokio::pin!(looks);
        loop {
            tokio::select! {
                packet = reader.next() => {
                    silence.is_over();
                    if let Ok(Some((Message::Reply { .. }, _))) = &packet {
                        look_out.sync_came();
                    }
                    if let Some(end) = heard(packet, &mut launches) {
                        return end;
                    }
                }
                reason = poll_fn(|cx| { link.put_tells(); link.outbox.poll_closed(cx) }) => {
                    return LinkEnd::Lost(format!("it {reason}"));
                }
                is_lost = silence.next() => {
                    if is_lost {
                        let limit = humantime::format_duration(heartbeat_timeout);
                        return LinkEnd::Lost(format!("it was silent for {limit}"));
                    }
                    if let Some(reason) = link.outbox.stuck(heartbeat_timeout) {
                        return LinkEnd::Lost(format!("it {reason}"));
                    }
                    link.outbox.send_urgent(&Message::Heartbeat);
                }
                () = &mut held => {}
                () = &mut looks => {}
                name = signals.next(), if asked_to_end.is_none() => {
                    let reason = format!("got {name}");
                    // First: as above.
                    link.leave(&reason);
                    kill_all(running, &format!("its executor {reason}"));
                    asked_to_end = Some((Instant::now() + self.process.grace, reason));
                }
                reason = link.leaving(), if asked_to_end.is_none() => {
                    return LinkEnd::Final(ExecutorEnd::Left(reason));
                }
                reason = may_end(asked_to_end.clone(), running), if asked_to_end.is_some() => {
                    return LinkEnd::Final(ExecutorEnd::Signalled(reason));
                }
            }
        }
    }
}

/// Whether what the driver says, or that it says nothing more, ends the link.
fn heard(
    packet: Result<Option<(Message, Payloads)>, WireError>,
    launches: &mut Launches,
) -> Option<LinkEnd> {
    match packet {
        Ok(Some((Message::Goodbye { reason, is_done: true }, _))) => {
            Some(LinkEnd::Final(ExecutorEnd::Goodbye(reason)))
        }
        Ok(Some((Message::Goodbye { reason, is_done: false }, _))) => {
            Some(LinkEnd::Final(ExecutorEnd::Left(reason)))
        }
        Ok(Some((Message::Heartbeat, _))) => None,
        Ok(Some((message, payloads))) => {
            launches.receive(message, payloads).err().map(LinkEnd::Lost)
        }
        Ok(None) => Some(LinkEnd::Lost("it closed the connection".to_owned())),
        Err(error) => Some(LinkEnd::Lost(error.to_string())),
    }
}

/// Ready when nothing runs any more, or it is too late, with the reason.
async fn may_end(asked: Option<(Instant, String)>, running: &RunningTasks) -> String {
    let (until, reason) = asked.unwrap_or_else(|| (Instant::now(), String::new()));
    let left = until.saturating_duration_since(Instant::now());
    end_within(running, &format!("its executor {reason}"), left).await;
    reason
}

fn kill_all(running: &RunningTasks, reason: &str) {
    for task in running.all() {
        task.kill(reason);
    }
}

/// Whether all have ended in this time; those that were launched late are killed, too.
async fn end_within(running: &RunningTasks, reason: &str, grace: Duration) -> bool {
    let empty = async {
        while !running.is_empty() {
            kill_all(running, reason);
            sleep(LOOK_PAUSE).await;
        }
    };
    timeout(grace, empty).await.is_ok()
}

/// Pause between two looks whether the last task has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

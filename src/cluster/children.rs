//! Executors that the driver starts itself, and starts again.

use super::{GOODBYE_GRACE, Heard};
use actix::Addr;
use phalanx_actors::remote::{LinkEvent, Loss};
use phalanx_actors::{CancelStage, GetStatus, TaskSchedulerActor};
use phalanx_protocol::{Incarnation, StagePhase, StageStatus};
use std::pin::Pin;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How executors are started.
pub(super) struct Spawn {
    /// The executors' names, which they keep.
    pub(super) names: Vec<Arc<str>>,
    /// The command for the executor of this index; the number says how often it has had to move to
    /// another node.
    pub(super) command: Box<dyn Fn(usize, u32) -> Command + Send + Sync>,
    /// Whether the process stands for the executor, which is elsewhere, and ends it if it is asked.
    pub(super) is_proxy: bool,
}

/// Asked when an executor was ended by a signal: if it is the engine that ends all of them, why.
pub(super) type OnSignal =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + Send + Sync>;

pub(super) struct Children {
    pub(super) spawn: Spawn,
    pub(super) heard: Heard,
    /// Cancelled when the runtime is shut down or dropped, or the engine ends everything.
    pub(super) end: CancellationToken,
    pub(super) on_signal: Option<OnSignal>,
    pub(super) scheduler: Addr<TaskSchedulerActor>,
    /// How long an executor that was told to end may take.
    pub(super) grace: Duration,
}

/// An executor that ends sooner than this after it was started is not started again at once.
const QUICK_END: Duration = Duration::from_secs(5);

/// One that has not joined in this time is started again, if it can be elsewhere.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Pauses before one that ended quickly is started again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// After so many starts in a row that came to nothing, stages do not wait for it any more.
const STARTS_IN_VAIN_MAX: u32 = 5;

/// Pause between two looks for stages that were handed in after the end.
const CANCEL_PAUSE: Duration = Duration::from_millis(100);

/// What is heard of one executor, and of which life of it.
enum News {
    Joined(Incarnation),
    Lost(Incarnation, Loss),
}

/// What the keepers share.
struct Shared {
    spawn: Spawn,
    end: CancellationToken,
    on_signal: Option<OnSignal>,
    /// Why the engine ends everything, once it does.
    engine_ends: watch::Sender<Option<String>>,
    scheduler: Addr<TaskSchedulerActor>,
    grace: Duration,
}

impl Children {
    /// Until the runtime has ended, and all of them have.
    pub(super) async fn run(self, system_ended: impl Future<Output = ()>) {
        let Children { spawn, mut heard, end, on_signal, scheduler, grace } = self;
        let engine_ends = watch::Sender::new(None);
        let shared = Shared { spawn, end, on_signal, engine_ends, scheduler, grace };
        let shared = Arc::new(shared);
        let mut keepers = JoinSet::new();
        let mut tell = Vec::new();
        for index in 0..shared.spawn.names.len() {
            let (sender, news) = mpsc::unbounded_channel();
            tell.push(sender);
            keepers.spawn(Keeper { shared: shared.clone(), index, news }.run());
        }
        let pass_on = async {
            while let Some(event) = heard.recv().await {
                let (name, news) = match event {
                    LinkEvent::Joined { name, incarnation, .. } => {
                        (name, News::Joined(incarnation))
                    }
                    LinkEvent::Lost { name, incarnation, loss, .. } => {
                        (name, News::Lost(incarnation, loss))
                    }
                };
                if let Some(index) = shared.spawn.names.iter().position(|known| *known == name) {
                    // Its keeper may have ended: then nobody needs to know.
                    let _ = tell[index].send(news);
                }
            }
            // The links have ended; the children are still to be waited for.
            std::future::pending::<()>().await;
        };
        let over = CancellationToken::new();
        let all_ended = async {
            while keepers.join_next().await.is_some() {}
            // Stages that come now would wait for nothing; so they would if the user took all away,
            // but then that is what the user wants.
            if shared.engine_ends.borrow().is_some() {
                over.cancelled().await;
            }
        };
        let cancels = async {
            let mut ends = shared.engine_ends.subscribe();
            let reason = ends.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
            cancel_stages(&shared.scheduler, &reason.unwrap_or_default()).await;
            std::future::pending::<()>().await;
        };
        let ends_with_system = async {
            system_ended.await;
            shared.end.cancel();
            over.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = all_ended => {}
            () = pass_on => {}
            () = cancels => {}
            () = ends_with_system => {}
        }
    }
}

/// Ends all stages, and those that come later, until the runtime has ended.
pub(super) async fn cancel_stages(scheduler: &Addr<TaskSchedulerActor>, reason: &str) {
    while cancel(scheduler, reason, |stage| stage.phase != StagePhase::Ended).await {
        sleep(CANCEL_PAUSE).await;
    }
}

/// Ends the stages that are meant. False if the runtime has ended.
async fn cancel(
    scheduler: &Addr<TaskSchedulerActor>,
    reason: &str,
    is_meant: impl Fn(&StageStatus) -> bool,
) -> bool {
    let Ok(status) = scheduler.send(GetStatus).await else { return false };
    for stage in status.stages.iter().filter(|stage| is_meant(stage)) {
        let (stage, reason) = (stage.stage, reason.to_owned());
        scheduler.do_send(CancelStage { stage, reason });
    }
    true
}

/// Keeps one executor running.
struct Keeper {
    shared: Arc<Shared>,
    index: usize,
    news: mpsc::UnboundedReceiver<News>,
}

/// How a start of an executor came to its end.
enum Ended {
    /// It is to be started again.
    Here,
    /// It fell silent: so it is, but not on the same node.
    Elsewhere,
    /// It did not even join, and why: as above.
    InVain(String),
    /// The runtime ends, or the user took it away.
    ForEver,
}

impl Keeper {
    async fn run(mut self) {
        let (mut pause, longest) = PAUSES;
        let (mut moves, mut in_vain) = (0, 0);
        loop {
            // What is heard from now on is of this one.
            while self.news.try_recv().is_ok() {}
            let started = Instant::now();
            let command = (self.shared.spawn.command)(self.index, moves);
            let mut command = tokio::process::Command::from(command);
            let ended = match command.kill_on_drop(true).spawn() {
                Ok(child) => self.keep(child).await,
                Err(error) => Ended::InVain(format!("it could not be started: {error}")),
            };
            match ended {
                Ended::Here => in_vain = 0,
                Ended::Elsewhere => (moves, in_vain) = (moves + 1, 0),
                Ended::InVain(reason) => {
                    (moves, in_vain) = (moves + 1, in_vain + 1);
                    warn!("executor '{}': {reason}", self.name());
                    self.tell_those_who_wait(in_vain, &reason).await;
                }
                Ended::ForEver => return,
            }
            if started.elapsed() > QUICK_END {
                pause = PAUSES.0;
            }
            tokio::select! {
                () = sleep(pause) => pause = (2 * pause).min(longest),
                () = self.shared.end.cancelled() => return,
            }
        }
    }

    fn name(&self) -> &Arc<str> {
        &self.shared.spawn.names[self.index]
    }

    /// Stages that lack slots end if it goes on like this.
    async fn tell_those_who_wait(&self, in_vain: u32, reason: &str) {
        if in_vain >= STARTS_IN_VAIN_MAX {
            let name = self.name();
            let reason = format!("executor '{name}' was started {in_vain} times in vain: {reason}");
            let is_short = |stage: &StageStatus| matches!(stage.phase, StagePhase::Deferred { .. });
            cancel(&self.shared.scheduler, &reason, is_short).await;
        }
    }

    /// It was told to end: perhaps all are.
    async fn ask_about_signal(&self) {
        if let Some(on_signal) = &self.shared.on_signal
            && let Some(reason) = on_signal().await
        {
            warn!("{reason}");
            self.shared.engine_ends.send_replace(Some(reason));
            self.shared.end.cancel();
        }
    }

    /// Until it has ended.
    async fn keep(&mut self, mut child: Child) -> Ended {
        // The child's own: of a former one it may be heard only now that it is lost.
        let mut life: Option<Incarnation> = None;
        let mut deadline = Some(Instant::now() + JOIN_TIMEOUT);
        loop {
            tokio::select! {
                status = child.wait() => return self.ended(life, text_of(status)).await,
                Some(news) = self.news.recv() => match news {
                    News::Joined(joined) => {
                        life = life.or(Some(joined));
                        deadline = None;
                    }
                    News::Lost(_, Loss::Told) => {
                        deadline = Some(Instant::now() + self.shared.grace);
                        self.ask_about_signal().await;
                    }
                    News::Lost(lost, _) if life != Some(lost) => {}
                    // The driver has given it up: it must not go on.
                    News::Lost(_, Loss::Broken) => {
                        self.kill(&mut child).await;
                        return Ended::Here;
                    }
                    News::Lost(_, Loss::Silent) => {
                        self.kill(&mut child).await;
                        return Ended::Elsewhere;
                    }
                    News::Lost(_, Loss::Removed) => {
                        self.let_end(&mut child).await;
                        return Ended::ForEver;
                    }
                },
                () = self.shared.end.cancelled() => {
                    self.let_end(&mut child).await;
                    return Ended::ForEver;
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.kill(&mut child).await;
                    return if life.is_some() {
                        Ended::Here
                    } else {
                        Ended::InVain(format!("it has not joined for {JOIN_TIMEOUT:?}"))
                    };
                }
            }
        }
    }

    /// By itself.
    async fn ended(&mut self, mut life: Option<Incarnation>, status: String) -> Ended {
        // What was heard of it before may say why.
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Joined(joined) => life = life.or(Some(joined)),
                News::Lost(_, Loss::Told) => self.ask_about_signal().await,
                News::Lost(lost, Loss::Removed) if life == Some(lost) => return Ended::ForEver,
                News::Lost(_, Loss::Broken | Loss::Silent | Loss::Removed) => {}
            }
        }
        if life.is_none() {
            return Ended::InVain(format!("it ended before it had joined ({status})"));
        }
        warn!("executor '{}' ended ({status})", self.name());
        Ended::Here
    }

    /// It knows that it is to end.
    async fn let_end(&self, child: &mut Child) {
        if timeout(GOODBYE_GRACE, child.wait()).await.is_err() {
            self.kill(child).await;
        }
    }

    async fn kill(&self, child: &mut Child) {
        if self.shared.spawn.is_proxy {
            ask_to_end(child);
            if timeout(GOODBYE_GRACE, child.wait()).await.is_ok() {
                return;
            }
        }
        // It may have ended in between.
        let _ = child.start_kill();
        let _ = timeout(GOODBYE_GRACE, child.wait()).await;
    }
}

/// As a user would, with SIGTERM.
pub(super) fn ask_to_end(child: &Child) {
    #[cfg(unix)]
    if let Some(process) = child.id().and_then(|id| i32::try_from(id).ok())
        && let Some(process) = rustix::process::Pid::from_raw(process)
    {
        // It may have ended in between.
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
    }
}

fn text_of(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

//! Executors that the driver starts itself, and starts again.

use super::{GOODBYE_GRACE, Heard};
use phalanx_actors::remote::{LinkEvent, Loss};
use phalanx_protocol::Incarnation;
use std::pin::Pin;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How executors are started.
pub(super) struct Spawn {
    /// The executors' names, which they keep.
    pub(super) names: Vec<Arc<str>>,
    /// The command for the executor of this index; the number says how often it has had to move to
    /// another node.
    pub(super) command: Box<dyn Fn(usize, u32) -> Command + Send + Sync>,
}

/// Asked when an executor was ended by a signal: whether it was the engine that ends all of them.
/// If so it has told the stages, and none is started again.
pub(super) type OnSignal =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

pub(super) struct Children {
    pub(super) spawn: Spawn,
    pub(super) heard: Heard,
    /// Cancelled when the runtime is shut down or dropped, or the engine ends everything.
    pub(super) end: CancellationToken,
    pub(super) on_signal: Option<OnSignal>,
}

/// An executor that ends sooner than this after it was started is not started again at once.
const QUICK_END: Duration = Duration::from_secs(5);

/// One that has not joined in this time is started again, if it can be elsewhere.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Pauses before one that ended quickly is started again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What is heard of one executor, and of which life of it.
enum News {
    Joined(Incarnation),
    Lost(Incarnation, Loss),
}

impl Children {
    /// Until the runtime has ended, and all of them have.
    pub(super) async fn run(self, system_ended: impl Future<Output = ()>) {
        let Children { spawn, mut heard, end, on_signal } = self;
        let (spawn, on_signal) = (Arc::new(spawn), on_signal.map(Arc::new));
        let mut keepers = JoinSet::new();
        let mut tell = Vec::new();
        for index in 0..spawn.names.len() {
            let (sender, news) = mpsc::unbounded_channel();
            tell.push(sender);
            let keeper = Keeper {
                spawn: spawn.clone(),
                index,
                news,
                end: end.clone(),
                on_signal: on_signal.clone(),
            };
            keepers.spawn(keeper.run());
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
                if let Some(index) = spawn.names.iter().position(|known| *known == name) {
                    // Its keeper ends only at the end.
                    let _ = tell[index].send(news);
                }
            }
            // The links have ended; the children are still to be waited for.
            std::future::pending::<()>().await;
        };
        let all_ended = async { while keepers.join_next().await.is_some() {} };
        let ends_with_system = async {
            system_ended.await;
            end.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = all_ended => {}
            () = pass_on => {}
            () = ends_with_system => {}
        }
    }
}

/// Keeps one executor running.
struct Keeper {
    spawn: Arc<Spawn>,
    index: usize,
    news: mpsc::UnboundedReceiver<News>,
    end: CancellationToken,
    on_signal: Option<Arc<OnSignal>>,
}

/// How a start of an executor came to its end.
enum Ended {
    /// It is to be started again.
    Here,
    /// So it is, but not on the same node.
    Elsewhere,
    /// The runtime ends.
    ForEver,
}

impl Keeper {
    async fn run(mut self) {
        let (mut pause, longest) = PAUSES;
        let mut moves = 0;
        loop {
            // What is heard from now on is of this one.
            while self.news.try_recv().is_ok() {}
            let started = Instant::now();
            let command = (self.spawn.command)(self.index, moves);
            let mut command = tokio::process::Command::from(command);
            match command.kill_on_drop(true).spawn() {
                Ok(child) => match self.keep(child).await {
                    Ended::Here => {}
                    Ended::Elsewhere => moves += 1,
                    Ended::ForEver => return,
                },
                Err(error) => warn!("executor '{}' could not be started: {error}", self.name()),
            }
            if started.elapsed() > QUICK_END {
                pause = PAUSES.0;
            }
            tokio::select! {
                () = sleep(pause) => pause = (2 * pause).min(longest),
                () = self.end.cancelled() => return,
            }
        }
    }

    fn name(&self) -> &Arc<str> {
        &self.spawn.names[self.index]
    }

    /// It was told to end: perhaps all are.
    async fn ask_about_signal(&self) {
        if let Some(on_signal) = &self.on_signal
            && on_signal().await
        {
            self.end.cancel();
        }
    }

    /// Until it has ended.
    async fn keep(&mut self, mut child: Child) -> Ended {
        // The child's own: of a former one it may be heard only now that it is lost.
        let mut life: Option<Incarnation> = None;
        loop {
            tokio::select! {
                status = child.wait() => {
                    // What was heard of it before may say why.
                    while let Ok(news) = self.news.try_recv() {
                        match news {
                            News::Joined(joined) => life = life.or(Some(joined)),
                            News::Lost(_, Loss::Told) => self.ask_about_signal().await,
                            News::Lost(_, Loss::Broken | Loss::Silent) => {}
                        }
                    }
                    warn!("executor '{}' ended ({})", self.name(), text_of(status));
                    return if life.is_some() { Ended::Here } else { Ended::Elsewhere };
                }
                Some(news) = self.news.recv() => match news {
                    News::Joined(joined) => life = life.or(Some(joined)),
                    News::Lost(_, Loss::Told) => self.ask_about_signal().await,
                    News::Lost(lost, Loss::Broken | Loss::Silent) if life != Some(lost) => {}
                    // The driver has given it up: it must not go on.
                    News::Lost(_, loss @ (Loss::Broken | Loss::Silent)) => {
                        kill(&mut child).await;
                        return if loss == Loss::Silent { Ended::Elsewhere } else { Ended::Here };
                    }
                },
                () = self.end.cancelled() => {
                    if timeout(GOODBYE_GRACE, child.wait()).await.is_err() {
                        kill(&mut child).await;
                    }
                    return Ended::ForEver;
                }
                () = sleep(JOIN_TIMEOUT), if life.is_none() => {
                    warn!("executor '{}' has not joined for {JOIN_TIMEOUT:?}", self.name());
                    kill(&mut child).await;
                    return Ended::Elsewhere;
                }
            }
        }
    }
}

async fn kill(child: &mut Child) {
    // It may have ended in between.
    let _ = child.start_kill();
    let _ = timeout(GOODBYE_GRACE, child.wait()).await;
}

fn text_of(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

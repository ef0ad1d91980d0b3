//! Those who dialled the driver and are welcome.

use super::greeting::{Guest, Link, Reader, greet, say_goodbye};
use super::listener::{Host, LinkConfig, LinkEvent, Loss};
use super::look_out::LookOut;
use super::remote_executor::{Disconnected, RemoteExecutor, RemoteExecutorActor};
use super::silence::Silence;
use super::wire::{ExecutorHello, Message, Role, Welcome, WireError};
use crate::task::lock;
use crate::{ExecutorLink, JoinExecutor};
use actix::prelude::*;
use phalanx_protocol::{ExecutorId, ExecutorJoined, Incarnation};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The connections of a driver.
pub(crate) struct Guests {
    pub(super) config: LinkConfig,
    pub(super) host: Host,
    /// By the name that an executor gives.
    pub(super) known: Mutex<HashMap<Arc<str>, Known>>,
    pub(crate) end: CancellationToken,
    pub(crate) look_out: LookOut,
}

/// An executor that was here before, or is.
pub(super) struct Known {
    pub(super) executor: ExecutorId,
    /// Of its last life.
    incarnation: Incarnation,
    /// While it is here.
    pub(super) current: Option<Arc<RemoteExecutor>>,
    /// By the user: it must not come back.
    is_removed: bool,
}

/// Tells the scheduler that a life is over, whatever ended it.
struct LifeGuard {
    mailbox: Addr<RemoteExecutorActor>,
    reason: String,
}

impl LifeGuard {
    fn end(mut self, reason: &str) {
        reason.clone_into(&mut self.reason);
    }
}

impl Drop for LifeGuard {
    fn drop(&mut self) {
        self.mailbox.do_send(Disconnected { reason: std::mem::take(&mut self.reason) });
    }
}

/// How the connection of an executor ended.
struct End {
    reason: String,
    loss: Loss,
}

/// How long one who leaves may still ask once the driver ends.
const LEAVING_MAX: Duration = Duration::from_secs(10);

impl Guests {
    pub(crate) fn new(config: LinkConfig, host: Host, end: CancellationToken) -> Self {
        let (known, look_out) = (Mutex::default(), LookOut::new());
        Guests { config, host, known, end, look_out }
    }

    /// To all executors, at once and from any thread, as far as the system takes it.
    pub(crate) fn say_goodbye(&self) {
        let here: Vec<_> =
            lock(&self.known).values().filter_map(|known| known.current.clone()).collect();
        for executor in here {
            let reason = DRIVER_ENDS.to_owned();
            executor.outbox.send_urgent(&Message::Goodbye { reason, is_done: true });
        }
    }

    /// Somebody dials.
    pub(crate) async fn greet(&self, stream: TcpStream, peer: SocketAddr) -> Option<Guest> {
        let LinkConfig { token, tls, max_queued, .. } = &self.config;
        match greet((stream, peer), token.as_ref(), tls.as_ref(), *max_queued).await {
            Ok(guest) => Some(guest),
            Err(error) => {
                warn!(%peer, "{peer} was turned away: {error}");
                None
            }
        }
    }

    /// One who is known now, until its connection ends.
    pub(crate) async fn serve(&self, guest: Guest) {
        let welcome = Welcome {
            proof: None,
            heartbeat_interval: self.config.heartbeat_interval,
            heartbeat_timeout: self.config.heartbeat_timeout,
            max_payload: self.config.max_payload,
            executor: None,
        };
        let (peer, token) = (guest.peer, self.config.token.as_ref());
        match guest.hello.role.clone() {
            Role::Client => match guest.welcome(welcome, token) {
                Ok(link) => self.serve_client(link).await,
                Err(error) => warn!(%peer, "a client was not welcomed: {error}"),
            },
            Role::Executor(hello) => match self.admit(&hello) {
                Ok((executor, incarnation)) => {
                    let welcome = Welcome { executor: Some((executor, incarnation)), ..welcome };
                    match guest.welcome(welcome, token) {
                        Ok(link) => {
                            self.serve_executor(link, hello, (executor, incarnation), peer).await;
                        }
                        Err(error) => warn!(%peer, "an executor was not welcomed: {error}"),
                    }
                }
                Err(reason) => {
                    warn!(%peer, "executor '{}' at {peer} was refused: {reason}", hello.name);
                    say_goodbye(&guest.link.outbox, &reason, false).await;
                }
            },
        }
    }

    /// Whether this executor may join, and as whom.
    fn admit(&self, hello: &ExecutorHello) -> Result<(ExecutorId, Incarnation), String> {
        let (own, theirs) = (&self.config.program, &hello.program);
        if own.application != theirs.application || own.version != theirs.version {
            return Err(format!(
                "it is '{} {}', the driver is '{} {}': both must be the same program",
                theirs.application, theirs.version, own.application, own.version
            ));
        }
        if own.code != theirs.code {
            return Err(format!(
                "it can run [{}], the driver wants [{}]: both must be the same program",
                theirs.code.join(", "),
                own.code.join(", ")
            ));
        }
        if hello.lives > 0 && !self.config.takes_back {
            return Err("the driver gave it up and has started another one".to_owned());
        }
        if hello.resources.cpus == 0 {
            return Err("it has 0 slots, allowed is 1 or more (PHALANX_SLOTS)".to_owned());
        }
        let mut known = lock(&self.known);
        let removed = known.get(hello.name.as_str()).is_some_and(|known| known.is_removed);
        if removed {
            return Err("it was removed from the driver (Runtime::remove_executor)".to_owned());
        }
        let known = known.entry(hello.name.as_str().into()).and_modify(|known| {
            known.incarnation.0 += 1;
        });
        let known = known.or_insert_with(|| Known {
            executor: ExecutorId(self.host.next_executor.fetch_add(1, Ordering::Relaxed)),
            incarnation: Incarnation(0),
            current: None,
            is_removed: false,
        });
        if let Some(former) = known.current.take() {
            // Perhaps it has not been noticed yet that the former connection is dead.
            supersede(&former);
        }
        Ok((known.executor, known.incarnation))
    }

    async fn serve_executor(
        &self,
        link: Link,
        hello: ExecutorHello,
        (executor, incarnation): (ExecutorId, Incarnation),
        peer: SocketAddr,
    ) {
        let Link { mut reader, outbox } = link;
        let name: Arc<str> = hello.name.as_str().into();
        let remote = RemoteExecutor::new(executor, incarnation, outbox, self.host.link.clone());
        let address = hello.address.unwrap_or_else(|| peer.ip().to_string());
        let joined = ExecutorJoined {
            executor,
            incarnation,
            address: address.into(),
            resources: hello.resources,
        };
        let Some(mailbox) = self.join(remote.clone(), joined).await else { return };
        match lock(&self.known).get_mut(&name) {
            Some(known) if known.incarnation == incarnation => known.current = Some(remote.clone()),
            // The next one came while this one joined.
            Some(_) | None => supersede(&remote),
        }
        info!(%executor, %incarnation, "executor {executor} is '{name}' at {peer}");
        self.tell(LinkEvent::Joined { name: name.clone(), executor, incarnation });
        let life = LifeGuard { mailbox, reason: "ended unexpectedly".to_owned() };
        let End { reason, mut loss } = self.converse(&remote, &mut reader).await;
        if remote.is_removed() {
            loss = Loss::Removed;
            if let Some(known) = lock(&self.known).get_mut(&name) {
                known.is_removed = true;
            }
        }
        life.end(&reason);
        // At once: whoever started it may have to know why it ends.
        let reported = reason.clone();
        self.tell(LinkEvent::Lost { name: name.clone(), incarnation, reason: reported, loss });
        if loss == Loss::Told {
            self.see_off(&remote, &mut reader).await;
        }
        remote.outbox.close(&reason);
        if let Some(known) = lock(&self.known).get_mut(&name)
            && known.incarnation == incarnation
        {
            known.current = None;
        }
    }

    /// Tasks of one who leaves may save their work until it is gone.
    async fn see_off(&self, remote: &Arc<RemoteExecutor>, reader: &mut Reader) {
        let LinkConfig { heartbeat_interval, heartbeat_timeout, .. } = self.config;
        let mut silence = Silence::new(heartbeat_interval, heartbeat_timeout);
        let too_late = async {
            self.end.cancelled().await;
            sleep(LEAVING_MAX).await;
        };
        tokio::pin!(too_late);
        loop {
            tokio::select! {
                packet = reader.next() => {
                    silence.is_over();
                    let Ok(Some((message, payloads))) = packet else { return };
                    if let Message::Call { .. } = message
                        && remote.receive(message, payloads).is_err()
                    {
                        return;
                    }
                }
                _ = poll_fn(|cx| remote.outbox.poll_closed(cx)) => return,
                is_lost = silence.next() => {
                    if is_lost || remote.outbox.stuck(heartbeat_timeout).is_some() {
                        return;
                    }
                    remote.outbox.send_urgent(&Message::Heartbeat);
                }
                () = &mut too_late => return,
            }
        }
    }

    /// Has the executor join the scheduler. `None`: the runtime has ended.
    async fn join(
        &self,
        remote: Arc<RemoteExecutor>,
        joined: ExecutorJoined,
    ) -> Option<Addr<RemoteExecutorActor>> {
        let (tell, told) = oneshot::channel();
        let scheduler = self.host.link.join.clone();
        self.host.control.spawn_fn(move || {
            let addr = RemoteExecutorActor(remote).start();
            let link = ExecutorLink {
                launch: addr.clone().recipient(),
                kill: addr.clone().recipient(),
                retire: addr.clone().recipient(),
            };
            scheduler.do_send(JoinExecutor { joined, link });
            // Whoever asked may have gone.
            let _ = tell.send(addr);
        });
        told.await.ok()
    }

    /// Takes what the executor says, until its connection ends.
    async fn converse(&self, remote: &Arc<RemoteExecutor>, reader: &mut Reader) -> End {
        let LinkConfig { heartbeat_interval, heartbeat_timeout, .. } = self.config;
        let mut silence = Silence::new(heartbeat_interval, heartbeat_timeout);
        let lost = |reason: String| End { reason, loss: Loss::Broken };
        loop {
            tokio::select! {
                packet = reader.next() => {
                    silence.is_over();
                    match packet {
                        Ok(Some((Message::Leaving { reason }, _))) => {
                            let reason = format!("leaves: {reason}");
                            return End { reason, loss: Loss::Told };
                        }
                        Ok(Some((message, payloads))) => {
                            if let Message::Request { .. } = message {
                                self.look_out.sync_came();
                            }
                            if let Err(reason) = remote.receive(message, payloads) {
                                return lost(reason);
                            }
                        }
                        Ok(None) => return lost("closed its connection".to_owned()),
                        Err(WireError::Io(error)) => {
                            return lost(format!("broke its connection: {error}"));
                        }
                        Err(error) => return lost(format!("is not understood: {error}")),
                    }
                }
                reason = poll_fn(|cx| remote.outbox.poll_closed(cx)) => return lost(reason),
                is_lost = silence.next() => {
                    if is_lost {
                        let limit = humantime::format_duration(heartbeat_timeout);
                        let reason = format!("was silent for {limit} (link.heartbeat_timeout)");
                        return End { reason, loss: Loss::Silent };
                    }
                    if let Some(reason) = remote.outbox.stuck(heartbeat_timeout) {
                        return lost(reason);
                    }
                    remote.outbox.send_urgent(&Message::Heartbeat);
                }
                () = self.end.cancelled() => {
                    say_goodbye(&remote.outbox, DRIVER_ENDS, true).await;
                    return lost("the driver ends".to_owned());
                }
            }
        }
    }

    fn tell(&self, event: LinkEvent) {
        if let Some(events) = &self.config.events {
            // Who listened may have ended.
            let _ = events.send(event);
        }
    }
}

/// Another life of the same executor is here.
fn supersede(former: &RemoteExecutor) {
    let reason = "another connection under the same executor name took its place";
    let goodbye = Message::Goodbye { reason: reason.to_owned(), is_done: false };
    former.outbox.send_urgent(&goodbye);
    former.outbox.close(reason);
}

pub(super) const DRIVER_ENDS: &str = "the driver has ended";

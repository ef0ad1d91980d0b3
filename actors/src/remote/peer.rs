//! An executor of a driver that is played by hand.

use super::auth::Token;
use super::greeting::{GreetingError, Link, introduce};
use super::tls::ClientTls;
use super::wire::{ExecutorHello, Message, Payloads, Role, Welcome, WireError};
use bytes::Bytes;
use std::future::poll_fn;

/// Stands in for an executor's process, in tests and benchmarks: it dials a driver, hears what it
/// says and answers what it likes. It sends no heartbeats of its own.
///
/// ```no_run
/// # use phalanx_actors::remote::wire::{ExecutorHello, Message};
/// # use phalanx_actors::testing::Peer;
/// # async fn play(hello: ExecutorHello) -> Result<(), Box<dyn std::error::Error>> {
/// let (mut peer, welcome) = Peer::dial("127.0.0.1:7077", hello, None, None).await?;
/// while let Some((message, _payloads)) = peer.hear().await? {
///     if let Message::Heartbeat = message {
///         peer.say(&Message::Heartbeat, &[]).await;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Peer {
    link: Link,
}

/// What a peer may have waiting to be sent.
const QUEUED_MAX: usize = 1 << 30;

impl Peer {
    /// Dials a driver at `host:port`.
    ///
    /// # Errors
    /// If it cannot be reached, or refuses.
    pub async fn dial(
        address: &str,
        hello: ExecutorHello,
        token: Option<&Token>,
        tls: Option<&ClientTls>,
    ) -> Result<(Self, Welcome), GreetingError> {
        let role = Role::Executor(hello);
        let (link, welcome) = introduce(address, role, token, tls, QUEUED_MAX).await?;
        Ok((Peer { link }, welcome))
    }

    /// What the driver says next, with its payloads; `None` once it has closed the connection.
    ///
    /// # Errors
    /// If the connection broke, or it is no message.
    pub async fn hear(&mut self) -> Result<Option<(Message, Payloads)>, WireError> {
        self.link.reader.next().await
    }

    /// Says something, and waits until it has been written.
    pub async fn say(&mut self, message: &Message, payloads: &[Bytes]) {
        self.link.outbox.send(message, payloads);
        poll_fn(|cx| self.link.outbox.poll_empty(cx)).await;
    }
}

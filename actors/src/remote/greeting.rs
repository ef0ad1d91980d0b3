//! How a link begins: who is there, and may they?

use super::auth::{Nonce, Prover, Token};
use super::frames::PacketReader;
use super::outbox::{Outbox, Writer};
use super::remote_executor::name_of;
use super::tls::{ClientTls, ServerTls};
use super::wire::{
    Challenge, GREETING_MAX, Hello, MAGIC, Message, PROTOCOL_VERSION, Role, Welcome, WireError,
};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How long a greeting may take in all.
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a last word may take to be written.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) type Reader = PacketReader<Box<dyn AsyncRead + Send + Unpin>>;

/// Why a link did not come about.
#[derive(Debug, Error)]
pub enum GreetingError {
    /// The connection broke, or what came is not of our protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It did not end in time.
    #[error("the other side did not say who it is within {GREETING_TIMEOUT:?}")]
    Timeout,
    /// The other side closed the connection.
    #[error("the other side closed the connection")]
    Closed,
    /// The other side does not want this one.
    #[error("the driver refuses: {0}")]
    Refused(String),
    /// This side does not want the other.
    #[error("{0}")]
    Unfit(String),
}

impl From<io::Error> for GreetingError {
    fn from(error: io::Error) -> Self {
        GreetingError::Wire(error.into())
    }
}

/// A link under way.
pub(crate) struct Link {
    pub(crate) reader: Reader,
    pub(crate) outbox: Outbox,
}

/// A dialer that has said who it is, and proved it.
pub(crate) struct Guest {
    pub(crate) link: Link,
    pub(crate) hello: Hello,
    /// Where it dials from.
    pub(crate) peer: SocketAddr,
}

impl Link {
    fn new<S>(stream: S, max_queued: usize) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = split(stream);
        let reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(reader);
        let writer: Writer = Box::new(writer);
        let reader = PacketReader::new(reader, GREETING_MAX);
        Link { reader, outbox: Outbox::new(writer, max_queued) }
    }

    /// What the other side says next.
    pub(crate) async fn hear(&mut self) -> Result<Message, GreetingError> {
        let Link { reader, outbox } = self;
        tokio::select! {
            packet = reader.next() => match packet? {
                Some((message, _)) => Ok(message),
                None => Err(GreetingError::Closed),
            },
            // It broke while something was written: another try may be welcome.
            reason = poll_fn(|cx| outbox.poll_closed(cx)) => Err(io::Error::other(reason).into()),
        }
    }
}

/// The last word of a driver, as far as it can be said in a moment.
pub(crate) async fn say_goodbye(outbox: &Outbox, reason: &str, is_done: bool) {
    outbox.send_urgent(&Message::Goodbye { reason: reason.to_owned(), is_done });
    // Whether it is heard or not: this is the end.
    let _ = timeout(LAST_WORD_TIMEOUT, poll_fn(|cx| outbox.poll_empty(cx))).await;
}

/// The driver's side, up to the point where the dialer is known. Says why it refuses.
pub(crate) async fn greet(
    (stream, peer): (TcpStream, SocketAddr),
    token: Option<&Token>,
    tls: Option<&ServerTls>,
    max_queued: usize,
) -> Result<Guest, GreetingError> {
    let greeting = async {
        // Small messages are not held back.
        stream.set_nodelay(true)?;
        let mut link = match tls {
            None => Link::new(stream, max_queued),
            Some(tls) => {
                let stream = TlsAcceptor::from(tls.0.clone()).accept(stream).await?;
                Link::new(stream, max_queued)
            }
        };
        let nonce = Nonce::random()?;
        let challenge = Challenge { magic: MAGIC, version: PROTOCOL_VERSION, nonce };
        link.outbox.send(&Message::Challenge(challenge), &[]);
        let Message::Hello(hello) = link.hear().await? else {
            return Err(GreetingError::Unfit("it did not say who it is".to_owned()));
        };
        match check_hello(&hello, token, nonce) {
            Ok(()) => Ok(Guest { link, hello, peer }),
            Err(reason) => {
                say_goodbye(&link.outbox, &reason, false).await;
                Err(GreetingError::Unfit(reason))
            }
        }
    };
    timeout(GREETING_TIMEOUT, greeting).await.unwrap_or(Err(GreetingError::Timeout))
}

fn check_hello(hello: &Hello, token: Option<&Token>, nonce: Nonce) -> Result<(), String> {
    check_version(hello.magic, hello.version)?;
    match (token, hello.proof) {
        (None, _) => Ok(()),
        (Some(_), None) => {
            Err("no token was given: set PHALANX_TOKEN or PHALANX_TOKEN_FILE".to_owned())
        }
        (Some(token), Some(proof)) => {
            let said = Message::Hello(Hello { proof: None, ..hello.clone() }).statement();
            let said = said.map_err(|error| error.to_string())?;
            let is_proved = token.is_proved(proof, Prover::Dialer, nonce, &said);
            is_proved.then_some(()).ok_or_else(|| "the token is not the driver's".to_owned())
        }
    }
}

fn check_version(magic: [u8; 8], version: u32) -> Result<(), String> {
    if magic != MAGIC {
        return Err("it does not speak phalanx's protocol".to_owned());
    }
    if version != PROTOCOL_VERSION {
        return Err(format!(
            "its protocol has version {version}, this one's has {PROTOCOL_VERSION}: driver, \
             executors and clients must be of the same build"
        ));
    }
    Ok(())
}

impl Guest {
    /// Takes it in. `welcome`: without the proof.
    pub(crate) fn welcome(
        mut self,
        mut welcome: Welcome,
        token: Option<&Token>,
    ) -> Result<Link, WireError> {
        if let Some(token) = token {
            // It holds for this dialer's own words, whose nonce is new.
            let said = Message::Welcome(welcome.clone()).statement()?;
            welcome.proof = Some(token.prove(Prover::Driver, self.hello.nonce, &said));
        }
        self.link.outbox.send(&Message::Welcome(welcome), &[]);
        self.link.reader.trust();
        Ok(self.link)
    }
}

/// The dialer's side.
pub(crate) async fn introduce(
    address: &str,
    role: Role,
    token: Option<&Token>,
    tls: Option<&ClientTls>,
    max_queued: usize,
) -> Result<(Link, Welcome), GreetingError> {
    let greeting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut link = match tls {
            None => Link::new(stream, max_queued),
            Some(tls) => {
                let name = server_name(address, tls)?;
                let stream = TlsConnector::from(tls.config.clone()).connect(name, stream).await?;
                Link::new(stream, max_queued)
            }
        };
        let theirs = match link.hear().await? {
            Message::Challenge(Challenge { magic, version, nonce }) => {
                check_version(magic, version).map_err(GreetingError::Unfit)?;
                nonce
            }
            Message::Goodbye { reason, .. } => return Err(GreetingError::Refused(reason)),
            other => return Err(unexpected(&other)),
        };
        let nonce = Nonce::random()?;
        let (magic, version, proof) = (MAGIC, PROTOCOL_VERSION, None);
        let mut hello = Hello { magic, version, nonce, proof, role };
        if let Some(token) = token {
            let said = Message::Hello(hello.clone()).statement()?;
            hello.proof = Some(token.prove(Prover::Dialer, theirs, &said));
        }
        link.outbox.send(&Message::Hello(hello), &[]);
        let welcome = match link.hear().await? {
            Message::Welcome(welcome) => welcome,
            Message::Goodbye { reason, .. } => return Err(GreetingError::Refused(reason)),
            other => return Err(unexpected(&other)),
        };
        if let Some(token) = token {
            let said = Message::Welcome(Welcome { proof: None, ..welcome.clone() }).statement()?;
            let is_proved = welcome
                .proof
                .is_some_and(|proof| token.is_proved(proof, Prover::Driver, nonce, &said));
            if !is_proved {
                let reason = "whoever answers at the driver's address does not have the token";
                return Err(GreetingError::Unfit(reason.to_owned()));
            }
        }
        link.reader.trust();
        Ok((link, welcome))
    };
    timeout(GREETING_TIMEOUT, greeting).await.unwrap_or(Err(GreetingError::Timeout))
}

fn server_name(address: &str, tls: &ClientTls) -> Result<ServerName<'static>, GreetingError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned())
        .map_err(|error| GreetingError::Unfit(format!("'{name}' is no name of a server: {error}")))
}

fn unexpected(message: &Message) -> GreetingError {
    GreetingError::Unfit(format!("it said {} before it was its turn", name_of(message)))
}

#[cfg(test)]
mod tests;

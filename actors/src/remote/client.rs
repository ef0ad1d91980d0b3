//! Someone who asks a driver what it does.

use super::auth::Token;
use super::greeting::{GreetingError, Link, introduce};
use super::tls::ClientTls;
use super::wire::{DriverStatus, Message, Role};
use phalanx_protocol::StageId;
use std::time::Duration;
use tokio::time::timeout;

/// A link to a driver, to ask and to cancel.
pub struct Client {
    link: Link,
}

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client has to say is small.
const CLIENT_QUEUED_MAX: usize = 1 << 20;

impl Client {
    /// Dials a driver at `host:port`.
    ///
    /// # Errors
    /// If it cannot be reached, or refuses.
    pub async fn connect(
        address: &str,
        token: Option<&Token>,
        tls: Option<&ClientTls>,
    ) -> Result<Self, GreetingError> {
        let (link, _) = introduce(address, Role::Client, token, tls, CLIENT_QUEUED_MAX).await?;
        Ok(Client { link })
    }

    /// Executors, stages, and who waits for whom.
    ///
    /// # Errors
    /// If the driver does not answer.
    pub async fn status(&mut self) -> Result<DriverStatus, GreetingError> {
        match self.ask(&Message::GetStatus).await? {
            Message::Status(status) => Ok(status),
            other => Err(unfit(&other)),
        }
    }

    /// Ends a stage. False if there is none of this id that has not ended.
    ///
    /// # Errors
    /// If the driver does not answer.
    pub async fn cancel(
        &mut self,
        stage: StageId,
        reason: impl Into<String>,
    ) -> Result<bool, GreetingError> {
        match self.ask(&Message::Cancel { stage, reason: reason.into() }).await? {
            Message::Cancelled(did_run) => Ok(did_run),
            other => Err(unfit(&other)),
        }
    }

    async fn ask(&mut self, question: &Message) -> Result<Message, GreetingError> {
        self.link.outbox.send(question, &[]);
        match timeout(ANSWER_TIMEOUT, self.link.hear()).await {
            Ok(Ok(Message::Goodbye { reason, .. })) => Err(GreetingError::Refused(reason)),
            Ok(answer) => answer,
            Err(_) => Err(GreetingError::Timeout),
        }
    }
}

fn unfit(answer: &Message) -> GreetingError {
    GreetingError::Unfit(format!("the driver answered with {answer:?}"))
}

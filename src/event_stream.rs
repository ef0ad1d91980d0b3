//! What happens in a runtime, as a stream.

use crate::EventRecord;
use std::pin::Pin;
use thiserror::Error;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// The events of a runtime from the moment of subscription.
///
/// The runtime never waits for a subscriber. It keeps the last `events.capacity` events; who falls
/// behind further is told how many were missed and goes on with the oldest that is kept.
pub struct EventStream {
    receiver: Receiver<EventRecord>,
    /// Done once the runtime has ended.
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Why the next event is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EventStreamError {
    /// The subscriber was too slow; the next call goes on after the gap.
    #[error("{0} events were missed: read faster or raise events.capacity")]
    Missed(u64),
    /// The runtime has ended and everything has been read.
    #[error("the runtime has ended")]
    Ended,
}

impl EventStream {
    pub(crate) fn new(
        receiver: Receiver<EventRecord>,
        ended: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        EventStream { receiver, ended: Box::pin(ended) }
    }

    /// The next event, when it comes. Works on any async runtime; cancel safe.
    ///
    /// # Errors
    /// [`EventStreamError::Missed`] after a gap, [`EventStreamError::Ended`] after the last event.
    pub async fn next(&mut self) -> Result<EventRecord, EventStreamError> {
        tokio::select! {
            biased;
            received = self.receiver.recv() => received.map_err(|error| match error {
                RecvError::Lagged(missed) => EventStreamError::Missed(missed),
                RecvError::Closed => EventStreamError::Ended,
            }),
            () = &mut self.ended => {
                self.ended = Box::pin(std::future::ready(()));
                self.receiver.try_recv().map_err(|error| match error {
                    TryRecvError::Lagged(missed) => EventStreamError::Missed(missed),
                    TryRecvError::Empty | TryRecvError::Closed => EventStreamError::Ended,
                })
            }
        }
    }

    /// [`EventStream::next`], blocking the thread.
    ///
    /// # Errors
    /// As [`EventStream::next`].
    pub fn next_blocking(&mut self) -> Result<EventRecord, EventStreamError> {
        pollster::block_on(self.next())
    }
}

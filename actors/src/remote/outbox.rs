//! What is to be sent to the other side of a link.

use super::frames::{self, FRAME_MAX, Frame};
use super::wire::{Message, WireError};
use crate::sealed::lock_sealed;
use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

/// Where a link is written to.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A bounded queue before a socket: what waits for one who reads is there anyway, but for one who
/// does not it would grow. Whoever has something to say writes it on the spot, from any
/// thread, as far as the socket takes it; the connection's task writes the rest.
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Bytes that may wait.
    limit: usize,
}

struct State {
    writer: Writer,
    /// Frames of which a part may have been written.
    current: VecDeque<Bytes>,
    urgent: VecDeque<Frame>,
    normal: VecDeque<Frame>,
    /// Bytes in all three.
    queued: usize,
    /// Whether the writer may hold something back.
    is_unflushed: bool,
    /// When the socket last took something, or, later than that, something began to wait.
    progress: Instant,
    /// Why nothing is sent any more.
    closed: Option<String>,
    /// Of the connection's task.
    task: Waker,
}

/// Buffers given to the system at once.
const SLICES_MAX: usize = 16;

impl Outbox {
    /// `limit`: bytes that may wait; a message larger than that may wait alone.
    pub(crate) fn new(writer: Writer, limit: usize) -> Self {
        let state = State {
            writer,
            current: VecDeque::new(),
            urgent: VecDeque::new(),
            normal: VecDeque::new(),
            queued: 0,
            is_unflushed: false,
            progress: Instant::now(),
            closed: None,
            task: Waker::noop().clone(),
        };
        Outbox { state: Mutex::new(state), limit }
    }

    /// Puts a message in line. Without effect once it is closed.
    pub(crate) fn put(&self, message: &Message, payloads: &[Bytes]) {
        match frames::frames(message, payloads) {
            Ok(frames) => lock_sealed(&self.state).put(frames, self.limit),
            Err(error) => self.refuse(error),
        }
    }

    /// Puts a message in line before all others, and writes. One that is more than a frame, as a
    /// kill with a long reason, goes behind them.
    pub(crate) fn send_urgent(&self, message: &Message) {
        match frames::urgent(message) {
            Ok(frame) => {
                let mut state = lock_sealed(&self.state);
                if state.closed.is_none() {
                    state.begin_to_wait();
                    state.queued += size_of_frame(&frame);
                    state.urgent.push_back(frame);
                    state.write();
                }
            }
            Err(WireError::TooLarge { .. }) => self.send(message, &[]),
            Err(error) => self.refuse(error),
        }
    }

    /// Puts a message in line, and writes.
    pub(crate) fn send(&self, message: &Message, payloads: &[Bytes]) {
        self.put(message, payloads);
        self.flush();
    }

    /// Writes as much as the socket takes.
    pub(crate) fn flush(&self) {
        lock_sealed(&self.state).write();
    }

    /// Has the connection's task write, which does so once for all that comes until then.
    pub(crate) fn flush_soon(&self) {
        let task = lock_sealed(&self.state).task.clone();
        task.wake();
    }

    /// Nothing is sent any more.
    pub(crate) fn close(&self, reason: &str) {
        let mut state = lock_sealed(&self.state);
        state.close(reason.to_owned());
        let task = state.task.clone();
        drop(state);
        task.wake();
    }

    /// Something of ours cannot be said: without it the other side would wait for ever.
    fn refuse(&self, error: WireError) {
        self.close(&format!("cannot be told something: {error}"));
    }

    /// Of the connection's task: writes when it can, and is ready when nothing is sent any more.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<String> {
        let mut state = lock_sealed(&self.state);
        if !state.task.will_wake(cx.waker()) {
            state.task = cx.waker().clone();
        }
        state.write();
        state.closed.clone().map_or(Poll::Pending, Poll::Ready)
    }

    /// Of the connection's task: ready when everything has been written, or never will be.
    pub(crate) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_closed(cx).is_ready() {
            return Poll::Ready(());
        }
        let state = lock_sealed(&self.state);
        // TLS may have taken it and hold it back.
        if state.queued > 0 || state.is_unflushed { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Why the other side is to be cut off, if something has waited so long and nothing of it was
    /// taken.
    pub(crate) fn stuck(&self, after: Duration) -> Option<String> {
        let mut state = lock_sealed(&self.state);
        // This process may have been stopped itself.
        state.write();
        let limit = humantime::format_duration(after);
        let too_late = || format!("has not read for {limit} (link.heartbeat_timeout)");
        state.too_slow(self.limit).or_else(|| state.has_waited(after).then(too_late))
    }
}

fn size_of_frame(frame: &Frame) -> usize {
    frame.iter().map(Bytes::len).sum()
}

/// More than the limit may wait as long as the other side reads: so long it may not read then.
const PATIENCE: Duration = Duration::from_secs(1);

impl State {
    /// Something is about to be put in line. While nothing was there, nothing had to be taken.
    fn begin_to_wait(&mut self) {
        if self.queued == 0 {
            self.progress = Instant::now();
        }
    }

    fn has_waited(&self, after: Duration) -> bool {
        self.queued > 0 && self.progress.elapsed() >= after
    }

    fn too_slow(&self, limit: usize) -> Option<String> {
        let queued = self.queued;
        (queued > limit && self.has_waited(PATIENCE)).then(|| {
            format!(
                "reads too slowly: {queued} bytes wait for it, allowed are {limit} \
                 (link.max_queued)"
            )
        })
    }

    fn put(&mut self, frames: impl IntoIterator<Item = Frame>, limit: usize) {
        if self.closed.is_some() {
            return;
        }
        self.begin_to_wait();
        for frame in frames {
            self.queued += size_of_frame(&frame);
            self.normal.push_back(frame);
        }
        if let Some(reason) = self.too_slow(limit) {
            self.close(reason);
            self.task.wake_by_ref();
        }
    }

    fn close(&mut self, reason: String) {
        self.closed.get_or_insert(reason);
        self.current = VecDeque::new();
        self.urgent = VecDeque::new();
        self.normal = VecDeque::new();
        self.queued = 0;
    }

    fn write(&mut self) {
        if self.queued == 0 && !self.is_unflushed {
            return;
        }
        // Somebody else's waker would be lost with its task.
        let task = self.task.clone();
        let mut cx = Context::from_waker(&task);
        loop {
            if self.current.is_empty() {
                self.next_frames();
            }
            let done = if self.current.is_empty() {
                match Pin::new(&mut self.writer).poll_flush(&mut cx) {
                    Poll::Ready(Ok(())) => {
                        (self.is_unflushed, self.progress) = (false, Instant::now());
                        return;
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                }
            } else {
                let current = self.current.iter().take(SLICES_MAX);
                let slices: SmallVec<[IoSlice<'_>; SLICES_MAX]> =
                    current.map(|bytes| IoSlice::new(bytes)).collect();
                Pin::new(&mut self.writer).poll_write_vectored(&mut cx, &slices)
            };
            match done {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => return self.close("its connection was closed".to_owned()),
                Poll::Ready(Ok(written)) => self.written(written),
                Poll::Ready(Err(error)) => {
                    return self.close(format!("its connection broke: {error}"));
                }
            }
        }
    }

    /// Urgent ones first; several small ones are written together.
    fn next_frames(&mut self) {
        let mut size = 0;
        while size < FRAME_MAX {
            let Some(frame) = self.urgent.pop_front().or_else(|| self.normal.pop_front()) else {
                return;
            };
            size += size_of_frame(&frame);
            self.current.extend(frame);
        }
    }

    fn written(&mut self, mut written: usize) {
        self.queued -= written;
        (self.is_unflushed, self.progress) = (true, Instant::now());
        while let Some(first) = self.current.front_mut() {
            let taken = first.len().min(written);
            first.advance(taken);
            written -= taken;
            if !first.is_empty() {
                return;
            }
            self.current.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;

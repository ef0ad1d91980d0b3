//! Packets cut into frames, so that a large one holds up no heartbeat.

use super::wire::{self, Message, Payloads, WireError};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use smallvec::SmallVec;
use std::io;
use tokio::io::AsyncRead;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec, LengthDelimitedCodecError};

/// The most that is sent without a break for what is more urgent.
pub(crate) const FRAME_MAX: usize = 256 << 10;

/// Smaller packets are one piece of memory.
const JOINED_MAX: usize = 16 << 10;

/// Read at a time.
const READ_ROOM: usize = 64 << 10;

/// Length and kind.
const FRAME_HEAD: usize = size_of::<u32>() + 1;

/// What a frame's first byte says.
const URGENT: u8 = 0;
const MORE: u8 = 1;
const LAST: u8 = 2;

/// One frame as it is sent.
pub(crate) type Frame = SmallVec<[Bytes; 2]>;

/// A packet of one frame that may go between the frames of another.
pub(crate) fn urgent(message: &Message) -> Result<Frame, WireError> {
    let parts = wire::encode(message, &[])?;
    let size = parts.iter().map(Bytes::len).sum();
    match size {
        size if size > FRAME_MAX => Err(WireError::TooLarge { size, limit: FRAME_MAX }),
        size => Ok(frame(URGENT, parts.into_iter(), size)),
    }
}

/// The frames of a packet, in order.
pub(crate) fn frames(
    message: &Message,
    payloads: &[Bytes],
) -> Result<SmallVec<[Frame; 1]>, WireError> {
    let parts = wire::encode(message, payloads)?;
    let mut left: usize = parts.iter().map(Bytes::len).sum();
    let mut frames = SmallVec::new();
    let (mut pieces, mut size): (Vec<Bytes>, usize) = (Vec::new(), 0);
    for mut part in parts {
        while !part.is_empty() {
            let piece = part.split_to(part.len().min(FRAME_MAX - size));
            (size, left) = (size + piece.len(), left - piece.len());
            pieces.push(piece);
            if size == FRAME_MAX || left == 0 {
                let kind = if left == 0 { LAST } else { MORE };
                frames.push(frame(kind, pieces.drain(..), size));
                size = 0;
            }
        }
    }
    Ok(frames)
}

fn frame(kind: u8, pieces: impl Iterator<Item = Bytes>, size: usize) -> Frame {
    let is_joined = size <= JOINED_MAX;
    let mut head = BytesMut::with_capacity(FRAME_HEAD + if is_joined { size } else { 0 });
    head.put_u32(size as u32 + 1);
    head.put_u8(kind);
    if is_joined {
        pieces.for_each(|piece| head.extend_from_slice(&piece));
        Frame::from_iter([head.freeze()])
    } else {
        std::iter::once(head.freeze()).chain(pieces).collect()
    }
}

/// Puts frames together to packets again.
pub struct PacketReader<R> {
    frames: FramedRead<R, LengthDelimitedCodec>,
    /// Of a packet whose last frame has not come.
    begun: BytesMut,
    limit: usize,
}

impl<R: AsyncRead + Unpin> PacketReader<R> {
    /// Reads packets of at most `limit` bytes.
    pub fn new(reader: R, limit: usize) -> Self {
        let codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX + 1).new_codec();
        let frames = FramedRead::with_capacity(reader, codec, READ_ROOM);
        PacketReader { frames, begun: BytesMut::new(), limit }
    }

    /// The other side has proved who it is: from now on a packet may be as large as any.
    pub(crate) fn trust(&mut self) {
        self.limit = wire::PACKET_MAX;
    }

    /// The next packet; `None` at the end of the connection. Cancel safe.
    ///
    /// # Errors
    /// If the connection broke or what came is no packet.
    pub async fn next(&mut self) -> Result<Option<(Message, Payloads)>, WireError> {
        while let Some(frame) = self.frames.next().await {
            let unread = |error: io::Error| {
                // A length that no frame has.
                let is_malformed =
                    error.get_ref().is_some_and(|it| it.is::<LengthDelimitedCodecError>());
                let malformed = || WireError::Malformed(error.to_string());
                if is_malformed { malformed() } else { WireError::Io(error) }
            };
            if let Some(packet) = self.add(frame.map_err(unread)?)? {
                return wire::decode(&packet).map(Some);
            }
        }
        Ok(None)
    }

    fn add(&mut self, mut frame: BytesMut) -> Result<Option<Bytes>, WireError> {
        let kind = frame.first().copied();
        let Some(kind) = kind else {
            return Err(WireError::Malformed("an empty frame".to_owned()));
        };
        let data = frame.split_off(1);
        let size = self.begun.len() + data.len();
        if size > self.limit {
            return Err(WireError::TooLarge { size, limit: self.limit });
        }
        match kind {
            URGENT => Ok(Some(data.freeze())),
            LAST if self.begun.is_empty() => Ok(Some(data.freeze())),
            LAST => {
                self.begun.extend_from_slice(&data);
                Ok(Some(std::mem::take(&mut self.begun).freeze()))
            }
            MORE => {
                self.begun.extend_from_slice(&data);
                Ok(None)
            }
            kind => Err(WireError::Malformed(format!("a frame of kind {kind}"))),
        }
    }
}

#[cfg(test)]
mod tests;

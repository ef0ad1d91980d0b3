//! What driver and executors say to one another, as bytes.
#![expect(clippy::disallowed_methods, reason = "elsewhere they are forbidden, see clippy.toml")]

use super::auth::{Nonce, Proof};
use crate::{RuntimeStatus, SyncStatus};
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::{BufMut, Bytes, BytesMut};
use phalanx_protocol::{
    ExecutorId, ExecutorResources, Incarnation, KillTask, LaunchTasks, PartitionId, RequestToSync,
    StageAttemptId, StageId, StillWaiting, SyncReply, TaskLeft, TaskReport, WithdrawSync,
};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// First bytes of what either side says first.
pub const MAGIC: [u8; 8] = *b"phalanx\0";

/// Counted up with every change of [`Message`]. Both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 2;

/// A packet before the other side has proved who it is.
pub(crate) const GREETING_MAX: usize = 64 << 10;

/// A packet of one who has proved who it is: as large as memory allows. What was announced takes
/// none; what has come does.
pub(crate) const PACKET_MAX: usize = isize::MAX as usize;

/// Payloads beside a message. bincode copies what it reads; these are slices of what was received.
pub type Payloads = Vec<Bytes>;

/// What is said over a link. New ones go to the end: they are told apart by their position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Driver to whoever dials it: prove who you are.
    Challenge(Challenge),
    /// The answer: who I am, and the proof.
    Hello(Hello),
    /// Driver: you are in.
    Welcome(Welcome),
    /// Driver: there will be nothing more, for this reason. An executor ends then.
    Goodbye {
        /// Why.
        reason: String,
        /// Whether that is how it should end: the driver has nothing more to do.
        is_done: bool,
    },
    /// Either: I am there.
    Heartbeat,
    /// Driver to executor: run tasks. Payloads: what the stage's code is told, then the inputs of
    /// the tasks, in their order.
    Launch {
        /// What to run.
        launch: LaunchTasks,
        /// The stage's name.
        stage_name: String,
        /// The registered name of the code.
        code: String,
        /// Whether the tasks can sync.
        is_gang: bool,
    },
    /// Driver to executor: these tasks shall end.
    Kill(KillTask),
    /// Driver to executor: the answer to these requests. Payloads: the release's messages.
    Reply {
        /// Whose answer it is.
        requests: Vec<u64>,
        /// The answer, its messages apart.
        reply: SyncReply,
    },
    /// Driver to executor: whom a request waits for.
    Note {
        /// The request.
        request: u64,
        /// Whom it waits for.
        note: StillWaiting,
    },
    /// Driver to executor: the answer to a call. Payloads: what the stage's side says; none if it
    /// is gone.
    Answer {
        /// Which call.
        call: u64,
    },
    /// Executor to driver: tasks have reached a sync. Payloads: their messages.
    Request {
        /// Named in the answer.
        id: u64,
        /// The request, its messages apart.
        request: RequestToSync,
    },
    /// Executor to driver: a task no longer waits.
    Withdraw(WithdrawSync),
    /// Executor to driver: a task will never sync again.
    Left(TaskLeft),
    /// Executor to driver: a task has ended. Payload: its value, if it has one.
    Ended {
        /// The report; executor and incarnation are the connection's, whatever it says.
        report: TaskReport,
    },
    /// Executor to driver: a task asks its stage's side in the driver. Payloads: what.
    Call {
        /// Named in the answer; `None`: it needs none.
        call: Option<u64>,
        /// The task's stage attempt.
        attempt: StageAttemptId,
        /// The task's partition.
        partition: PartitionId,
    },
    /// Executor to driver: it is about to end.
    Leaving {
        /// Why.
        reason: String,
    },
    /// Client to driver: what is there, and what does it do?
    GetStatus,
    /// The answer.
    Status(DriverStatus),
    /// Client to driver: end this stage.
    Cancel {
        /// Which.
        stage: StageId,
        /// Why.
        reason: String,
    },
    /// The answer: whether there was such a stage that had not ended.
    Cancelled(bool),
}

/// Driver to whoever dials it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// To be proved with.
    pub nonce: Nonce,
}

/// The answer to a [`Challenge`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// For the driver to prove itself with.
    pub nonce: Nonce,
    /// That the dialer has the token; `None` if it was given none.
    pub proof: Option<Proof>,
    /// What it wants to be.
    pub role: Role,
}

/// What a dialer wants to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// To run tasks.
    Executor(ExecutorHello),
    /// To ask, and to cancel.
    Client,
}

impl Message {
    /// What is proved of it: all that it says.
    pub(crate) fn statement(&self) -> Result<Bytes, WireError> {
        Ok(encode(self, &[])?.into_iter().next().unwrap_or_default())
    }
}

/// An executor that wants to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorHello {
    /// The program and the code it can run; must be the driver's own.
    pub program: Program,
    /// Who it is: one that comes back under the same name is a next life of the same executor.
    pub name: String,
    /// How often this process was welcome before.
    pub lives: u32,
    /// What it has.
    pub resources: ExecutorResources,
    /// Where its tasks can be found; `None`: at the address it dials from.
    pub address: Option<String>,
}

/// A program and the code it can run by name. Driver and executors must have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Application id.
    pub application: String,
    /// The application's version.
    pub version: String,
    /// Registered names with their types, in order.
    pub code: Vec<String>,
}

/// Driver to an executor or client that it has taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// That the driver has the token.
    pub proof: Option<Proof>,
    /// Pause between two heartbeats.
    pub heartbeat_interval: Duration,
    /// After so much silence the other side counts as lost.
    pub heartbeat_timeout: Duration,
    /// Bytes that a result may have.
    pub max_payload: usize,
    /// Of an executor: which it is, and which life of it.
    pub executor: Option<(ExecutorId, Incarnation)>,
}

/// What a driver tells a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverStatus {
    /// The application id.
    pub application: String,
    /// Executors and stages.
    pub runtime: RuntimeStatus,
    /// Open syncs and whom they wait for.
    pub syncs: Vec<SyncStatus>,
    /// The names of the executors that dialled in, with their ids.
    pub names: Vec<(ExecutorId, Arc<str>)>,
}

/// What arrived is not what this side can read.
#[derive(Debug, Error)]
pub enum WireError {
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// More than is allowed, now or at all.
    #[error("a message of {size} bytes, allowed are {limit}")]
    TooLarge {
        /// What it would have.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// No message of ours.
    #[error("bytes that are no message: {0}")]
    Malformed(String),
}

const CONFIG: Configuration<LittleEndian, Varint, Limit<{ 1 << 30 }>> =
    bincode::config::standard().with_limit::<{ 1 << 30 }>();

/// Of a head of at most [`GREETING_MAX`] bytes, of which each makes at most a number of 8: a text
/// that claims to be longer than this is given no room.
const SMALL: Configuration<LittleEndian, Varint, Limit<{ 16 * GREETING_MAX }>> =
    bincode::config::standard().with_limit::<{ 16 * GREETING_MAX }>();

/// The head of a packet has its length before it.
const HEAD_LENGTH: usize = size_of::<u32>();

/// Most heads are smaller.
const HEAD_ROOM: usize = 256;

/// The bytes of a packet: the head, then the payloads as they are.
pub(crate) fn encode(
    message: &Message,
    payloads: &[Bytes],
) -> Result<SmallVec<[Bytes; 2]>, WireError> {
    let sizes: Vec<u64> = payloads.iter().map(|payload| payload.len() as u64).collect();
    let mut head = BytesMut::with_capacity(HEAD_ROOM);
    head.put_u32_le(0);
    let mut writer = head.writer();
    bincode::serde::encode_into_std_write((message, &sizes), &mut writer, CONFIG)
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    let mut head = writer.into_inner();
    let size = head.len() - HEAD_LENGTH;
    let limit = u32::MAX;
    let length = u32::try_from(size);
    let length = length.map_err(|_| WireError::TooLarge { size, limit: limit as usize })?;
    head[..HEAD_LENGTH].copy_from_slice(&length.to_le_bytes());
    let mut parts = SmallVec::from_iter([head.freeze()]);
    parts.extend(payloads.iter().filter(|payload| !payload.is_empty()).cloned());
    Ok(parts)
}

/// Reads a packet. Never panics, and takes no more memory than the packet's own size suggests.
///
/// # Errors
/// If it is none.
pub fn decode(packet: &Bytes) -> Result<(Message, Payloads), WireError> {
    let malformed = |what: &str| WireError::Malformed(what.to_owned());
    let head = packet.first_chunk::<HEAD_LENGTH>().ok_or_else(|| malformed("it is too short"))?;
    let head_length = u32::from_le_bytes(*head) as usize;
    let rest = packet.slice(HEAD_LENGTH..);
    if head_length > rest.len() {
        return Err(malformed("its head is cut off"));
    }
    let head = &rest[..head_length];
    let decoded = if head_length <= GREETING_MAX {
        bincode::serde::decode_from_slice(head, SMALL)
    } else {
        bincode::serde::decode_from_slice(head, CONFIG)
    };
    let ((message, sizes), used): ((Message, Vec<u64>), usize) =
        decoded.map_err(|error| WireError::Malformed(error.to_string()))?;
    if used != head_length {
        return Err(malformed("bytes are left over in its head"));
    }
    let mut left = rest.slice(head_length..);
    let mut payloads = Vec::with_capacity(sizes.len());
    for size in sizes {
        let size = usize::try_from(size).ok().filter(|size| *size <= left.len());
        payloads.push(left.split_to(size.ok_or_else(|| malformed("a payload is cut off"))?));
    }
    if left.is_empty() { Ok((message, payloads)) } else { Err(malformed("bytes are left over")) }
}

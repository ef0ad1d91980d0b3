//! The link's protocol by hand, as somebody else would write it.
#![expect(clippy::disallowed_methods, reason = "what is encoded here is the tests' own")]

use super::within;
use bytes::Bytes;
use phalanx_actors::remote::wire::{
    self, Challenge, ExecutorHello, Hello, MAGIC, Message, PROTOCOL_VERSION, Payloads, Role,
    Welcome,
};
use phalanx_protocol::{ExecutorId, Incarnation};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const URGENT: u8 = 0;
pub const MORE: u8 = 1;
pub const LAST: u8 = 2;

/// The bytes of a packet.
pub fn packet(message: &Message, payloads: &[Bytes]) -> Vec<u8> {
    let sizes: Vec<u64> = payloads.iter().map(|payload| payload.len() as u64).collect();
    packet_of(&(message, &sizes), &payloads.concat())
}

/// As [`packet`], of whatever is in the place of message and sizes.
pub fn packet_of(head: &impl serde::Serialize, payloads: &[u8]) -> Vec<u8> {
    let head = bincode::serde::encode_to_vec(head, bincode::config::standard()).unwrap();
    [&(head.len() as u32).to_le_bytes()[..], &head, payloads].concat()
}

pub fn frame(kind: u8, data: &[u8]) -> Vec<u8> {
    [&(data.len() as u32 + 1).to_be_bytes()[..], &[kind], data].concat()
}

/// A challenge with this magic and version.
pub fn challenge(magic: [u8; 8], version: u32) -> Vec<u8> {
    frame(LAST, &packet_of(&(0_u32, magic, version, [7_u8; 32], Vec::<u64>::new()), &[]))
}

/// One end of a link.
pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    pub async fn dial(address: &str) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        Raw { stream }
    }

    pub async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = within("a dialer", listener.accept()).await.unwrap();
        Raw { stream }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        within("a write", self.stream.write_all(bytes)).await.unwrap();
    }

    pub async fn say(&mut self, message: &Message) {
        self.write(&frame(LAST, &packet(message, &[]))).await;
    }

    /// The next message; `None` once the other side has closed or broken the connection.
    pub async fn hear(&mut self) -> Option<(Message, Payloads)> {
        let read = async {
            let mut begun = Vec::new();
            loop {
                let size = self.stream.read_u32().await.ok()?;
                let mut frame = vec![0; size as usize];
                self.stream.read_exact(&mut frame).await.ok()?;
                match frame[0] {
                    URGENT => return Some(frame[1..].to_vec()),
                    MORE => begun.extend_from_slice(&frame[1..]),
                    LAST => return Some([&begun[..], &frame[1..]].concat()),
                    kind => panic!("a frame of kind {kind}"),
                }
            }
        };
        let packet = within("the next message", read).await?;
        Some(wire::decode(&Bytes::from(packet)).unwrap())
    }

    /// What is said next but heartbeats.
    pub async fn heard(&mut self) -> Option<Message> {
        loop {
            match self.hear().await {
                Some((Message::Heartbeat, _)) => {}
                other => return other.map(|(message, _)| message),
            }
        }
    }

    /// Reads until the other side has closed the connection.
    pub async fn closed(&mut self) {
        while self.hear().await.is_some() {}
    }

    /// What is said to a driver without a token; hears the challenge first.
    pub async fn hello(&mut self, hello: ExecutorHello) -> Hello {
        let Some((Message::Challenge(Challenge { magic, version, nonce }), _)) = self.hear().await
        else {
            panic!("a driver speaks first");
        };
        assert_eq!((magic, version), (MAGIC, PROTOCOL_VERSION));
        Hello { magic, version, nonce, proof: None, role: Role::Executor(hello) }
    }

    /// Joins a driver without a token.
    pub async fn join(address: &str, hello: ExecutorHello) -> Self {
        let mut raw = Raw::dial(address).await;
        let hello = raw.hello(hello).await;
        raw.say(&Message::Hello(hello)).await;
        assert!(matches!(raw.hear().await, Some((Message::Welcome(_), _))));
        raw
    }

    /// As a driver: challenges, and returns the answer.
    pub async fn challenged(listener: &TcpListener) -> (Self, Hello) {
        let mut raw = Raw::accept(listener).await;
        raw.write(&challenge(MAGIC, PROTOCOL_VERSION)).await;
        match raw.hear().await {
            Some((Message::Hello(hello), _)) => (raw, hello),
            other => panic!("{other:?}"),
        }
    }

    /// As a driver: takes in an executor with these heartbeats.
    pub async fn welcomed(
        listener: &TcpListener,
        (heartbeat_interval, heartbeat_timeout): (Duration, Duration),
    ) -> (Self, ExecutorHello) {
        let (mut raw, hello) = Raw::challenged(listener).await;
        let welcome = Welcome {
            proof: None,
            heartbeat_interval,
            heartbeat_timeout,
            max_payload: 1 << 20,
            executor: Some((ExecutorId(5), Incarnation(2))),
        };
        raw.say(&Message::Welcome(welcome)).await;
        match hello.role {
            Role::Executor(hello) => (raw, hello),
            Role::Client => panic!("an executor dials"),
        }
    }
}

/// Where a driver that is played by hand is dialled.
pub async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

//! What is not of our protocol, whoever sends it: it ends its own connection and nothing else.

mod support;

use bytes::Bytes;
use futures_util::FutureExt;
use phalanx_actors::remote::wire::{self, Message};
use phalanx_actors::remote::{Loss, PacketReader};
use phalanx_protocol::StageKind;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use support::raw::{LAST, MORE, Raw, URGENT, frame, packet, packet_of};
use support::samples::samples;
use support::{Driver, hello, launched, named, spec, succeeded};
use tokio::io::AsyncWriteExt;

/// Good enough, and the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }
}

fn bytes_that_are_no_greeting() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Random(7);
    let heartbeat = packet(&Message::Heartbeat, &[]);
    let mut all: Vec<_> = (0..20).map(|_| ("noise", random.bytes(300))).collect();
    all.extend([
        ("nothing", Vec::new()),
        ("http", b"GET / HTTP/1.1\r\nHost: driver\r\n\r\n".to_vec()),
        ("a huge length", vec![0xFF; 4]),
        ("a length one over what is allowed", (256_u32 * 1024 + 2).to_be_bytes().to_vec()),
        ("an empty frame", vec![0; 4]),
        ("a frame of unknown kind", frame(3, &heartbeat)),
        ("a frame without a packet", frame(LAST, &[])),
        ("an answer out of turn", frame(LAST, &heartbeat)),
        ("a packet that is too large too soon", frame(MORE, &vec![0; (64 << 10) + 1])),
    ]);
    all
}

#[tokio::test]
async fn garbage_instead_of_a_greeting_ends_its_own_connection_only() {
    let mut driver = Driver::start();
    let mut bystander = driver.peer("bystander").await;
    for (what, bytes) in bytes_that_are_no_greeting() {
        let mut raw = Raw::dial(&driver.address).await;
        assert!(matches!(raw.hear().await, Some((Message::Challenge(_), _))), "{what}");
        raw.write(&bytes).await;
        if ["noise", "nothing"].contains(&what) {
            // What looks like the beginning of a frame would be waited for.
            let _ = raw.stream.shutdown().await;
        }
        let started = Instant::now();
        raw.closed().await;
        assert!(started.elapsed() < Duration::from_secs(4), "{what}: not for its silence");
    }
    assert_eq!(driver.event_now(), None);
    let _next = driver.peer("next").await;
    bystander.say(&Message::Leaving { reason: "seen it".to_owned() }, &[]).await;
    drop(bystander);
    assert_eq!(driver.lost().await.1, "leaves: seen it", "it was there all the time");
    driver.shutdown().await;
}

#[tokio::test]
async fn garbage_of_an_executor_loses_that_executor_and_is_named() {
    let mut driver = Driver::start();
    let _bystander = driver.peer("bystander").await;
    let heartbeat = packet(&Message::Heartbeat, &[]);
    let left_over = [&heartbeat[..], b"x"].concat();
    let in_head = packet_of(&(4_u32, Vec::<u64>::new(), 9_u8), &[]);
    let cut_off = packet_of(&(4_u32, vec![u64::MAX]), b"short");
    let goodbye = packet(&Message::Goodbye { reason: "no".to_owned(), is_done: true }, &[]);
    let launch = frame(LAST, &packet(&samples()[5].0, &[]));
    let request = samples().into_iter().find(|(it, _)| matches!(it, Message::Request { .. }));
    let without_messages = frame(LAST, &packet(&request.unwrap().0, &[]));
    let no_message = "is not understood: bytes that are no message: ";
    let no_executor = "said what no executor says: ";
    let cases = [
        (vec![0xFF; 4], format!("{no_message}frame size too big")),
        (vec![0; 4], format!("{no_message}an empty frame")),
        (frame(9, &heartbeat), format!("{no_message}a frame of kind 9")),
        (frame(LAST, b"abc"), format!("{no_message}it is too short")),
        (frame(LAST, b"\xFF\xFF\xFF\xFF"), format!("{no_message}its head is cut off")),
        (frame(LAST, &left_over), format!("{no_message}bytes are left over")),
        (frame(LAST, &in_head), format!("{no_message}bytes are left over in its head")),
        (frame(URGENT, &cut_off), format!("{no_message}a payload is cut off")),
        (frame(LAST, &goodbye), format!("{no_executor}Goodbye")),
        (launch, format!("{no_executor}Launch")),
        (without_messages, "sent a request without its messages".to_owned()),
    ];
    for (bytes, expected) in cases {
        let mut raw = Raw::join(&driver.address, hello("garbage")).await;
        driver.joined().await;
        raw.write(&bytes).await;
        assert_eq!(driver.lost().await, ("garbage".to_owned(), expected, Loss::Broken));
        raw.closed().await;
    }
    driver.peer("next").await;
    driver.shutdown().await;
}

#[tokio::test]
async fn an_executor_cannot_end_the_task_of_another() {
    let mut driver = Driver::start();
    let mut honest = driver.peer("honest").await;
    let stage = driver.submit(1, spec(StageKind::Plain, 1), named(vec![Bytes::new()]));
    let launch = launched(&mut honest).await;
    let mut forger = driver.peer("forger").await;
    forger.say(&succeeded(&launch, 0), &[Bytes::from_static(b"forged")]).await;
    forger.say(&Message::Leaving { reason: "said it".to_owned() }, &[]).await;
    assert_eq!(driver.lost().await.1, "leaves: said it", "and the forged report before that");
    drop(forger);
    honest.say(&succeeded(&launch, 0), &[Bytes::from_static(b"honest")]).await;
    assert_eq!(stage.values().await, [Bytes::from_static(b"honest")]);
    driver.shutdown().await;
}

/// Open files that this process may have.
fn files_max() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX)
}

/// Sockets that the driver at this port has open, the one that listens among them.
fn sockets_of(address: &str) -> usize {
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let local = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let is_its_own = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // One without an inode is the kernel's alone.
        fields[1].ends_with(&local) && fields[9] != "0"
    };
    table.lines().skip(1).filter(is_its_own).count()
}

fn memory(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out_and_cost_little() {
    const WANTED: usize = 10_000;
    let mut driver = Driver::start();
    let (before, rss) = (sockets_of(&driver.address), memory("VmRSS"));
    assert_eq!(before, 1, "it listens");
    let count = WANTED.min(files_max().saturating_sub(1000));
    assert!(count >= 20, "`ulimit -n` allows {}: {count} of {WANTED} connections", files_max());
    let mut silent = Vec::new();
    while silent.len() < count {
        let from = silent.len();
        for _ in 0..64.min(count - from) {
            silent.push(Raw::dial(&driver.address).await);
        }
        // They have been taken: what the system lets wait is not the subject.
        for raw in &mut silent[from..] {
            raw.hear().await;
        }
    }
    let started = Instant::now();
    let mut peer = driver.peer("real").await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?} beside {count} connections");
    let open = sockets_of(&driver.address);
    // 256 may be greeted; some that gave way to others may not be closed yet.
    assert!(open < 400, "{open} sockets are open for {count} connections");
    if count > 300 {
        silent[0].closed().await;
    }
    for raw in &mut silent {
        // Those that gave way are closed already.
        let _ = raw.stream.shutdown().await;
        raw.closed().await;
    }
    assert_eq!(sockets_of(&driver.address), before + 1, "the peer's is left");
    let grown = memory("VmRSS").saturating_sub(rss);
    assert!(grown < 64 << 20, "{grown} bytes for {count} connections");
    assert_eq!(driver.event_now(), None);
    peer.say(&Message::Heartbeat, &[]).await;
    driver.shutdown().await;
}

/// Numbers as bincode writes them, most of which no packet can have.
fn large_number(random: &mut Random) -> Vec<u8> {
    let bits = random.below(33);
    let number = (1_u64 << (63 - bits)).wrapping_sub(random.below(3) as u64);
    match random.below(3) {
        0 => [&[251][..], &(number as u16).to_le_bytes()].concat(),
        1 => [&[252][..], &(number as u32).to_le_bytes()].concat(),
        _ => [&[253][..], &number.to_le_bytes()].concat(),
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, new) in bytes.iter_mut().skip(at).zip(with) {
        *byte = *new;
    }
}

/// A valid packet with one or a few things that are not as they were.
fn mutated(random: &mut Random, valid: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = valid[random.below(valid.len())].clone();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.extend(random.bytes(1 + at % 8)),
            2 => overwrite(&mut bytes, at, &large_number(random)),
            3 => {
                let number = large_number(random);
                bytes.splice(at..at, number);
            }
            4 => {
                let other = &valid[random.below(valid.len())];
                bytes.extend_from_slice(&other[random.below(other.len())..]);
            }
            5 => overwrite(&mut bytes, at, &random.bytes(4)),
            _ => overwrite(&mut bytes, at, &[1 << random.below(8)]),
        }
        if random.below(2) == 0 && bytes.len() >= 4 {
            // The head's length fits, so that what is in it is looked at.
            let head = random.below(bytes.len() - 3) as u32;
            overwrite(&mut bytes, 0, &head.to_le_bytes());
        }
    }
    bytes
}

/// True if it was a packet.
fn decode(bytes: Vec<u8>) -> bool {
    let packet = Bytes::from(bytes);
    let Ok((message, payloads)) = wire::decode(&packet) else { return false };
    assert!(payloads.iter().map(Bytes::len).sum::<usize>() <= packet.len());
    let again = support::raw::packet(&message, &payloads);
    assert_eq!(wire::decode(&Bytes::from(again)).unwrap(), (message, payloads));
    true
}

/// Packets in a stream of frames, some of them good; how many are understood.
fn read_frames(random: &mut Random, valid: &[Vec<u8>]) -> usize {
    let mut stream = Vec::new();
    for _ in 0..random.below(6) {
        let packet = &valid[random.below(valid.len())];
        let at = random.below(packet.len());
        match random.below(8) {
            0 => stream.extend(random.bytes(at)),
            1 => stream.extend(frame(random.below(5) as u8, &mutated(random, valid))),
            2 => stream.extend([frame(MORE, &packet[..at]), frame(LAST, &packet[at..])].concat()),
            3 => stream.extend([frame(MORE, &packet[..at]), frame(URGENT, packet)].concat()),
            _ => stream.extend(frame(LAST, packet)),
        }
    }
    let mut reader = PacketReader::new(&stream[..], random.below(4000));
    let mut understood = 0;
    loop {
        match reader.next().now_or_never().expect("the stream is there") {
            Ok(Some(_)) => understood += 1,
            Ok(None) | Err(_) => return understood,
        }
    }
}

/// Claims of a few bytes to be followed by much: a text, a list, payloads.
fn claims() -> Vec<Vec<u8>> {
    let much = |bits: u32| [&[253][..], &(1_u64 << bits).to_le_bytes()].concat();
    let head = |bytes: Vec<u8>| [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat();
    let heads = (20..64).flat_map(move |bits| {
        let (goodbye, kill, heartbeat) = ([3], [6], [4]);
        [&goodbye[..], &kill, &heartbeat].map(|it| head([it, &much(bits)].concat()))
    });
    heads.collect()
}

/// More would be what somebody claims to send, not what has come.
const GROWTH_MAX: usize = 32 << 20;

/// Alone in its process: `cargo test --release --test link_fuzz -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes; the next one runs a small part of it"]
fn forty_million_packets_and_frames_make_no_panic_and_take_no_memory() {
    let count = std::env::var("PHALANX_PACKETS").map_or(40_000_000, |it| it.parse().unwrap());
    let valid: Vec<Vec<u8>> = samples().iter().map(|(it, bytes)| packet(it, bytes)).collect();
    assert!(valid.iter().all(|packet| decode(packet.clone())), "they are valid");
    let mut random = Random(0x0000_5EED);
    let (started, peak) = (Instant::now(), memory("VmPeak"));
    let refused = claims().into_iter().filter(|packet| !decode(packet.clone())).count();
    assert_eq!(refused, claims().len());
    let (mut packets, mut understood, mut framed) = (0_u64, 0, 0);
    while packets < count {
        packets += 1;
        let is_packet = match packets % 8 {
            0 => {
                framed += read_frames(&mut random, &valid);
                false
            }
            1 => {
                let size = random.below(200);
                decode(random.bytes(size))
            }
            _ => decode(mutated(&mut random, &valid)),
        };
        understood += u64::from(is_packet);
    }
    let grown = memory("VmPeak") - peak;
    println!(
        "{packets} in {:?}: {understood} packets and {framed} in frames were understood; peak \
         {} KiB resident, {} KiB more address space than before",
        started.elapsed(),
        memory("VmHWM") >> 10,
        grown >> 10
    );
    assert!(understood > packets / 100 && understood < packets / 2, "{understood} of {packets}");
    assert!(framed as u64 > packets / 100, "{framed} of {packets}");
    assert!(grown < GROWTH_MAX, "{grown} bytes for packets of a few hundred");
}

#[test]
fn three_hundred_thousand_packets_and_frames_make_no_panic_and_take_no_memory() {
    let name = "forty_million_packets_and_frames_make_no_panic_and_take_no_memory";
    let mut alone = Command::new(std::env::current_exe().unwrap());
    alone.args(["--exact", name, "--ignored", "--nocapture"]);
    let output = alone.env("PHALANX_PACKETS", "300000").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("300000 in "), "it has run: {text}");
}

use super::*;
use crate::remote::wire::{GREETING_MAX, PACKET_MAX};
use futures_util::FutureExt;
use phalanx_protocol::{PartitionId, StageAttemptId};

const MIB: usize = 1 << 20;

fn call(number: u64) -> Message {
    let (attempt, partition) = (StageAttemptId::default(), PartitionId(3));
    Message::Call { call: Some(number), attempt, partition }
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    frame.concat()
}

fn stream_of(message: &Message, payloads: &[Bytes]) -> Vec<u8> {
    frames(message, payloads).unwrap().iter().flat_map(bytes_of).collect()
}

/// All that can be read, and how it ended.
fn read(stream: &[u8], limit: usize) -> (Vec<(Message, Payloads)>, Result<(), WireError>) {
    let mut reader = PacketReader::new(stream, limit);
    let mut packets = Vec::new();
    loop {
        match reader.next().now_or_never().expect("all of it is there") {
            Ok(Some(packet)) => packets.push(packet),
            Ok(None) => return (packets, Ok(())),
            Err(error) => return (packets, Err(error)),
        }
    }
}

fn patterned(size: usize) -> Bytes {
    (0..size).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

#[test]
fn forty_mebibytes_go_in_frames_and_urgent_ones_pass_between() {
    let payloads = vec![patterned(40 * MIB), Bytes::new(), patterned(5)];
    let cut = frames(&call(1), &payloads).unwrap();
    assert_eq!(cut.len(), 161, "40 MiB are 160 frames, and there is a head");
    let heartbeat = urgent(&Message::Heartbeat).unwrap();
    let mut stream = Vec::new();
    for (number, frame) in cut.iter().enumerate() {
        let bytes = bytes_of(frame);
        assert!(bytes.len() <= FRAME_MAX + FRAME_HEAD);
        assert_eq!(bytes[4], if number == 160 { LAST } else { MORE });
        stream.extend(bytes);
        if number % 40 == 0 {
            stream.extend(bytes_of(&heartbeat));
        }
    }
    let (mut packets, end) = read(&stream, PACKET_MAX);
    end.unwrap();
    // The last of them came after the last frame.
    assert_eq!(packets.pop(), Some((Message::Heartbeat, Vec::new())));
    assert!(packets.pop() == Some((call(1), payloads)), "as it was");
    assert_eq!(packets, vec![(Message::Heartbeat, Vec::new()); 4]);
}

#[test]
fn payloads_are_slices_of_what_was_received() {
    let payloads = vec![patterned(MIB), patterned(100), Bytes::new(), patterned(7)];
    let (packets, end) = read(&stream_of(&call(2), &payloads), PACKET_MAX);
    end.unwrap();
    let [(message, received)] = &packets[..] else { panic!("one packet") };
    assert_eq!((message, received), (&call(2), &payloads));
    let end_of = |bytes: &Bytes| bytes.as_ptr_range().end;
    assert_eq!(end_of(&received[0]), received[1].as_ptr(), "one piece of memory");
    assert_eq!(end_of(&received[1]), received[3].as_ptr(), "one piece of memory");
}

#[test]
fn many_payloads_and_empty_ones_arrive_as_they_were() {
    let many: Vec<Bytes> = (0..10_000).map(|number| patterned(number % 50)).collect();
    for payloads in [many, vec![Bytes::new(); 60_000], Vec::new()] {
        let (packets, end) = read(&stream_of(&call(3), &payloads), PACKET_MAX);
        end.unwrap();
        assert_eq!(packets, [(call(3), payloads)]);
    }
}

#[test]
fn a_packet_as_large_as_a_frame_is_one_and_one_byte_more_is_two() {
    let head = stream_of(&call(4), &[patterned(FRAME_MAX)]).len() - FRAME_MAX - 2 * FRAME_HEAD;
    for (size, expected) in [(FRAME_MAX - head, 1), (FRAME_MAX - head + 1, 2)] {
        let payloads = vec![patterned(size)];
        assert_eq!(frames(&call(4), &payloads).unwrap().len(), expected);
        let (packets, _) = read(&stream_of(&call(4), &payloads), PACKET_MAX);
        assert!(packets == [(call(4), payloads)]);
    }
}

#[test]
fn before_the_other_side_is_trusted_a_packet_is_small_in_one_frame_or_in_many() {
    let size = |stream: &[u8]| {
        let (packets, end) = read(stream, GREETING_MAX);
        assert!(packets.is_empty());
        match end {
            Err(WireError::TooLarge { size, limit: GREETING_MAX }) => size,
            other => panic!("{other:?}"),
        }
    };
    let one = stream_of(&call(5), &[patterned(GREETING_MAX)]);
    assert_eq!(size(&one), one.len() - FRAME_HEAD);
    // It is refused when it is too large, not when it is complete.
    let piece = bytes_of(&frame(MORE, std::iter::once(patterned(GREETING_MAX / 2)), 32 << 10));
    assert_eq!(size(&[&piece[..], &piece, &piece].concat()), GREETING_MAX * 3 / 2);
    let mut reader = PacketReader::new(&one[..], GREETING_MAX);
    reader.trust();
    let trusted = reader.next().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(trusted.0, call(5));
}

#[test]
fn an_urgent_message_is_one_frame_or_none() {
    let large = Message::Goodbye { reason: "x".repeat(FRAME_MAX), is_done: true };
    let error = urgent(&large).unwrap_err().to_string();
    assert!(error.ends_with("allowed are 262144"), "{error}");
    let last = Message::Goodbye { reason: "x".repeat(FRAME_MAX - 20), is_done: true };
    let (packets, _) = read(&bytes_of(&urgent(&last).unwrap()), PACKET_MAX);
    assert_eq!(packets, [(last, Vec::new())]);
}

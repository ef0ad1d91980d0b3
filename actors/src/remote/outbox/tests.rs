use super::*;
use crate::remote::frames::PacketReader;
use crate::remote::wire::PACKET_MAX;
use phalanx_protocol::{PartitionId, StageAttemptId};
use std::future::poll_fn;
use std::io;
use tokio::io::{DuplexStream, duplex};
use tokio::time::{advance, timeout};

const MIB: usize = 1 << 20;

fn call(number: u64) -> Message {
    let (attempt, partition) = (StageAttemptId::default(), PartitionId(3));
    Message::Call { call: Some(number), attempt, partition }
}

fn mebibytes(count: usize) -> [Bytes; 1] {
    [vec![7; count * MIB].into()]
}

/// An outbox with this limit, and where it ends.
fn linked(limit: usize) -> (Outbox, PacketReader<DuplexStream>) {
    let (near, far) = duplex(64 << 10);
    (Outbox::new(Box::new(near), limit), PacketReader::new(far, PACKET_MAX))
}

fn why_closed(outbox: &Outbox) -> Option<String> {
    match outbox.poll_closed(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(reason) => Some(reason),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_heartbeat_and_a_kill_pass_a_packet_of_forty_mebibytes() {
    let (outbox, mut reader) = linked(100 * MIB);
    outbox.send(&call(1), &mebibytes(40));
    outbox.send(&call(2), &[]);
    outbox.send_urgent(&Message::Heartbeat);
    outbox.send_urgent(&call(3));
    let mut order = Vec::new();
    while order.len() < 4 {
        tokio::select! {
            packet = reader.next() => order.push(packet.unwrap().unwrap()),
            reason = poll_fn(|cx| outbox.poll_closed(cx)) => panic!("{reason}"),
        }
    }
    let [heartbeat, urgent, large, small] = &order[..] else { panic!("four") };
    assert_eq!(heartbeat.0, Message::Heartbeat);
    assert_eq!((&urgent.0, &small.0), (&call(3), &call(2)));
    assert!(*large == (call(1), mebibytes(40).to_vec()), "as it was");
    let is_empty = poll_fn(|cx| outbox.poll_empty(cx));
    timeout(Duration::ZERO, is_empty).await.expect("all has been written");
}

#[tokio::test(start_paused = true)]
async fn more_than_the_limit_waits_for_one_who_reads_and_for_nobody_else() {
    let (outbox, mut reader) = linked(MIB);
    outbox.send(&call(1), &mebibytes(3));
    outbox.send(&call(2), &[]);
    advance(PATIENCE - Duration::from_millis(1)).await;
    assert!(lock_sealed(&outbox.state).queued > 2 * MIB, "the other side takes 64 KiB");
    assert_eq!(why_closed(&outbox), None);
    // Something is taken, not all.
    let read = poll_fn(|cx| Pin::new(&mut std::pin::pin!(reader.next())).poll(cx).map(drop));
    assert!(timeout(Duration::ZERO, read).await.is_err(), "it is not all there");
    outbox.flush();
    advance(Duration::from_millis(1)).await;
    assert_eq!(outbox.stuck(10 * PATIENCE), None);
    advance(PATIENCE).await;
    outbox.send(&call(3), &[]);
    let reason = why_closed(&outbox).unwrap();
    assert!(reason.starts_with("reads too slowly: "), "{reason}");
    let end = "bytes wait for it, allowed are 1048576 (link.max_queued)";
    assert!(reason.ends_with(end), "{reason}");
    let state = lock_sealed(&outbox.state);
    assert!(state.queued == 0 && state.current.is_empty() && state.normal.is_empty());
    drop(state);
    outbox.send(&call(4), &mebibytes(1));
    outbox.send_urgent(&Message::Heartbeat);
    assert_eq!(lock_sealed(&outbox.state).queued, 0, "nothing is taken any more");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_had_nothing_to_say_for_long_takes_more_than_the_limit() {
    let (outbox, mut reader) = linked(MIB);
    advance(100 * PATIENCE).await;
    outbox.send(&call(1), &mebibytes(3));
    assert_eq!(why_closed(&outbox), None);
    let large = tokio::select! {
        packet = reader.next() => packet.unwrap().unwrap(),
        reason = poll_fn(|cx| outbox.poll_closed(cx)) => panic!("{reason}"),
    };
    assert!(large == (call(1), mebibytes(3).to_vec()));
}

#[tokio::test(start_paused = true)]
async fn small_messages_wait_up_to_the_limit_and_not_beyond() {
    let (outbox, _reader) = linked(MIB);
    let mut taken = 0;
    let reason = loop {
        advance(Duration::from_millis(10)).await;
        outbox.send(&call(1), &[vec![7; 1 << 10].into()]);
        match why_closed(&outbox) {
            Some(reason) => break reason,
            None => taken += 1,
        }
        assert!(lock_sealed(&outbox.state).queued <= MIB);
    };
    assert!(reason.starts_with("reads too slowly: "), "{reason}");
    assert!((1000..1200).contains(&taken), "{taken} of a KiB");
}

#[tokio::test]
async fn the_end_of_the_other_side_closes_it_and_the_first_reason_counts() {
    let (outbox, reader) = linked(MIB);
    drop(reader);
    outbox.send(&Message::Heartbeat, &[]);
    let reason = why_closed(&outbox).unwrap();
    assert!(reason.starts_with("its connection broke: "), "{reason}");
    outbox.close("something else");
    assert_eq!(why_closed(&outbox), Some(reason));
}

#[tokio::test]
async fn an_urgent_message_of_more_than_a_frame_goes_in_line() {
    let (outbox, mut reader) = linked(10 * MIB);
    let long = Message::Goodbye { reason: "x".repeat(MIB), is_done: true };
    outbox.send(&call(1), &mebibytes(1));
    outbox.send_urgent(&long);
    outbox.send_urgent(&Message::Heartbeat);
    let mut order = Vec::new();
    while order.len() < 3 {
        tokio::select! {
            packet = reader.next() => order.push(packet.unwrap().unwrap().0),
            reason = poll_fn(|cx| outbox.poll_closed(cx)) => panic!("{reason}"),
        }
    }
    assert!(order == [Message::Heartbeat, call(1), long]);
}

#[tokio::test(start_paused = true)]
async fn it_is_stuck_when_something_waits_and_nothing_was_taken_for_so_long() {
    let limit = Duration::from_secs(10);
    let (outbox, mut reader) = linked(10 * MIB);
    advance(2 * limit).await;
    assert_eq!(outbox.stuck(limit), None, "nothing waits");
    outbox.send(&call(1), &mebibytes(1));
    advance(limit - Duration::from_millis(1)).await;
    assert_eq!(outbox.stuck(limit), None);
    advance(Duration::from_millis(1)).await;
    let reason = outbox.stuck(limit);
    assert_eq!(reason.as_deref(), Some("has not read for 10s (link.heartbeat_timeout)"));
    // Something is taken, not all.
    let read = poll_fn(|cx| Pin::new(&mut std::pin::pin!(reader.next())).poll(cx).map(drop));
    assert!(timeout(Duration::ZERO, read).await.is_err(), "it is not all there");
    outbox.flush();
    assert_eq!(outbox.stuck(limit), None);
    advance(limit).await;
    let reason = outbox.stuck(limit);
    assert_eq!(reason.as_deref(), Some("has not read for 10s (link.heartbeat_timeout)"));
}

/// Takes everything and keeps it, as TLS does, until it may be passed on.
struct Keeps(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl AsyncWrite for Keeps {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.load(std::sync::atomic::Ordering::Relaxed) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_last_word_has_been_written_when_nothing_of_it_is_kept_back() {
    let may_pass = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let outbox = Outbox::new(Box::new(Keeps(may_pass.clone())), MIB);
    outbox.send(&Message::Heartbeat, &[]);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(outbox.poll_empty(&mut cx).is_pending(), "it has not gone out");
    may_pass.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(outbox.poll_empty(&mut cx).is_ready());
}

//! An executor that leaves takes its time.

mod support;

use bytes::Bytes;
use phalanx_actors::remote::Loss;
use phalanx_actors::remote::wire::Message;
use phalanx_protocol::{PartitionId, StageKind};
use std::time::Instant;
use support::{Driver, SHORT, launched, served, spec, within};

#[tokio::test]
async fn one_who_leaves_is_heard_and_answered_as_long_as_it_is_there() {
    let mut driver = Driver::with_short(|_| {});
    let mut peer = driver.peer("a").await;
    let body = served(vec![Bytes::new()], |asked| asked);
    let stage = driver.submit(1, spec(StageKind::Plain, 1), body);
    let launch = launched(&mut peer).await;
    peer.say(&Message::Leaving { reason: "got SIGTERM".to_owned() }, &[]).await;
    let (_, reason, loss) = driver.lost().await;
    assert_eq!((&*reason, loss), ("leaves: got SIGTERM", Loss::Told));
    // Each side goes on to say that it is there, for longer than one may be silent.
    let since = Instant::now();
    while since.elapsed() < 2 * SHORT.1 {
        let (message, _) = within("a heartbeat", peer.hear()).await.unwrap().unwrap();
        assert_eq!(message, Message::Heartbeat);
        peer.say(&Message::Heartbeat, &[]).await;
    }
    let (attempt, partition) = (launch.attempt, PartitionId(0));
    let call = Message::Call { call: Some(1), attempt, partition };
    peer.say(&call, &[Bytes::from_static(b"saved")]).await;
    loop {
        match within("an answer", peer.hear()).await.unwrap().unwrap() {
            (Message::Heartbeat, _) => {}
            answer => {
                let saved = vec![Bytes::from_static(b"saved")];
                assert_eq!(answer, (Message::Answer { call: 1 }, saved));
                break;
            }
        }
    }
    drop((peer, stage));
    driver.shutdown().await;
}

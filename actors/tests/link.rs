//! What driver and executors say to one another, and what happens when one of them does not.

mod support;

use bytes::Bytes;
use phalanx_actors::remote::wire::{Message, Payloads, Role};
use phalanx_actors::remote::{Client, ExecutorEnd, GreetingError, LinkEvent, Loss};
use phalanx_actors::testing::Peer;
use phalanx_actors::{RemoveExecutor, TaskBody};
use phalanx_protocol::{
    Arrival, Epoch, ExecutorId, Incarnation, KillTask, LaunchTask, LaunchTasks, PartitionId,
    RequestToSync, StageAttemptId, StageId, StageKind, SyncMethod, TaskAttemptId, TaskFailure,
    TaskOutcome,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::raw::{LAST, MORE, Raw, URGENT, frame, listen, packet};
use support::{
    Driver, SHORT, WAIT, heard, hello, launched, named, served, spec, start_process, succeeded,
    within,
};
use tokio::io::AsyncReadExt;
use tokio::time::interval;

const MIB: usize = 1 << 20;

/// Bytes that wait, as the reason of a cut-off tells.
fn bytes_waiting(reason: &str, limit: usize) -> usize {
    let text = reason.strip_prefix("reads too slowly: ").unwrap_or_else(|| panic!("{reason}"));
    let (bytes, rest) = text.split_once(' ').unwrap();
    assert_eq!(rest, format!("bytes wait for it, allowed are {limit} (link.max_queued)"));
    bytes.parse().unwrap()
}

#[tokio::test]
async fn who_does_not_read_is_cut_off_before_much_waits_for_it() {
    const LIMIT: usize = 4 * MIB;
    const INPUT: usize = 16 * MIB;
    let mut driver = Driver::with(|config| config.max_queued = LIMIT);
    let _deaf = driver.peer("deaf").await;
    let submit = |stage| {
        let inputs = vec![Bytes::from(vec![7; INPUT])];
        driver.submit(stage, spec(StageKind::Plain, 1), named(inputs))
    };
    // One that is larger than the limit may wait alone, another one may not wait behind it.
    let stages = [submit(1), submit(2)];
    let (name, reason, loss) = driver.lost().await;
    assert_eq!((&*name, loss), ("deaf", Loss::Broken));
    let waiting = bytes_waiting(&reason, LIMIT);
    assert!(waiting > LIMIT && waiting <= 2 * INPUT + 1000, "{waiting} bytes");
    for (stage, submitted) in [1, 2].into_iter().zip(stages) {
        let mut client = Client::connect(&driver.address, None, None).await.unwrap();
        assert!(client.cancel(StageId(stage), "seen").await.unwrap());
        assert_eq!(submitted.failure().await, "was cancelled: seen");
    }
    let mut next = driver.peer("next").await;
    let stage = driver.submit(3, spec(StageKind::Plain, 1), named(vec![vec![7; INPUT].into()]));
    let launch = launched(&mut next).await;
    next.say(&succeeded(&launch, 0), &[Bytes::from_static(b"read")]).await;
    assert_eq!(stage.values().await, [Bytes::from_static(b"read")]);
    driver.shutdown().await;
}

#[tokio::test]
async fn who_speaks_and_does_not_read_is_lost_after_the_timeout() {
    let mut driver = Driver::with_short(|_| {});
    let mut peer = driver.peer("deaf").await;
    let stage = driver.submit(1, spec(StageKind::Plain, 1), named(vec![vec![7; 32 * MIB].into()]));
    let started = Instant::now();
    let mut ticks = interval(SHORT.0);
    let speaks = async {
        loop {
            tokio::select! {
                lost = driver.lost() => break lost,
                _ = ticks.tick() => peer.say(&Message::Heartbeat, &[]).await,
            }
        }
    };
    let lost = within("its loss", speaks).await;
    assert!(started.elapsed() >= SHORT.1, "{:?}", started.elapsed());
    let reason = "has not read for 500ms (link.heartbeat_timeout)";
    assert_eq!(lost, ("deaf".to_owned(), reason.to_owned(), Loss::Broken));
    drop(stage);
    driver.shutdown().await;
}

#[tokio::test]
async fn who_is_silent_is_lost_after_the_timeout_and_who_says_heartbeat_is_not() {
    let mut driver = Driver::with_short(|_| {});
    let started = Instant::now();
    let _silent = driver.peer("silent").await;
    let mut peer = driver.peer("alive").await;
    let mut answers_after = 0;
    let mut lost = None;
    // More than two timeouts long.
    for _ in 0..60 {
        let word = within("a heartbeat", peer.hear()).await.unwrap();
        assert!(matches!(word, Some((Message::Heartbeat, _))), "{word:?}");
        peer.say(&Message::Heartbeat, &[]).await;
        answers_after += u32::from(lost.is_some());
        if let Some(event) = driver.event_now() {
            assert!(lost.is_none(), "{event:?}");
            assert!(started.elapsed() >= SHORT.1, "{:?}", started.elapsed());
            lost = Some(event);
        }
    }
    assert!(answers_after > 0, "it was there after the other was lost");
    let Some(LinkEvent::Lost { name, incarnation, reason, loss }) = lost else {
        panic!("{lost:?}");
    };
    assert_eq!((&*name, incarnation, loss), ("silent", Incarnation(0), Loss::Silent));
    assert_eq!(reason, "was silent for 500ms (link.heartbeat_timeout)");
    driver.shutdown().await;
}

#[tokio::test]
async fn an_executor_whose_driver_is_silent_dials_it_again() {
    let (listener, address) = listen().await;
    let process = start_process(&address, |_| {});
    let started = Instant::now();
    let (mut first, hello) = Raw::welcomed(&listener, SHORT).await;
    assert_eq!((&*hello.name, hello.lives), ("process", 0));
    let mut heartbeats = 0;
    while let Some((message, _)) = first.hear().await {
        assert_eq!(message, Message::Heartbeat);
        heartbeats += 1;
        assert!(heartbeats <= 100, "it goes on");
    }
    assert!(started.elapsed() >= SHORT.1, "{:?}", started.elapsed());
    assert!((10..=25).contains(&heartbeats), "{heartbeats} of 25 that fit in the timeout");
    let (mut second, hello) = Raw::welcomed(&listener, SHORT).await;
    assert_eq!((&*hello.name, hello.lives), ("process", 1));
    // One that speaks is not lost.
    for _ in 0..60 {
        assert!(matches!(second.hear().await, Some((Message::Heartbeat, _))));
        second.say(&Message::Heartbeat).await;
    }
    second.say(&Message::Goodbye { reason: "enough".to_owned(), is_done: true }).await;
    let end = process.end().await;
    assert!(matches!(&end, ExecutorEnd::Goodbye(reason) if reason == "enough"), "{end}");
}

#[tokio::test]
async fn an_executor_gives_up_a_driver_that_cannot_be_reached() {
    let (listener, address) = listen().await;
    drop(listener);
    let process = start_process(&address, |it| it.reconnect_timeout = SHORT.1);
    let end = process.end().await;
    let ExecutorEnd::Unreachable { driver, tried, reason } = &end else { panic!("{end}") };
    assert!(*driver == address && *tried >= SHORT.1 && reason.contains("refused"), "{end}");
}

#[tokio::test]
async fn who_comes_back_is_the_next_life_and_the_former_one_is_told_and_not_heard() {
    let mut driver = Driver::start();
    let mut former = driver.peer("a").await;
    let stage = driver.submit(1, spec(StageKind::Plain, 1), named(vec![Bytes::new()]));
    let first = launched(&mut former).await;
    let (mut next, welcome) = Peer::dial(&driver.address, hello("a"), None, None).await.unwrap();
    assert_eq!(welcome.executor, Some((ExecutorId(0), Incarnation(1))));
    let second = launched(&mut next).await;
    assert_ne!(first.tasks[0].task_attempt, second.tasks[0].task_attempt);
    former.say(&succeeded(&first, 0), &[Bytes::from_static(b"old")]).await;
    former.say(&succeeded(&second, 0), &[Bytes::from_static(b"forged")]).await;
    let reason = "another connection under the same executor name took its place".to_owned();
    let goodbye = Message::Goodbye { reason: reason.clone(), is_done: false };
    assert_eq!(heard(&mut former).await, Some((goodbye, Vec::new())));
    // Reset if what it said was not read.
    assert!(!matches!(within("its end", former.hear()).await, Ok(Some(_))));
    let mut told = [driver.event().await, driver.event().await];
    told.sort_by_key(|event| matches!(event, LinkEvent::Lost { .. }));
    let name: Arc<str> = "a".into();
    let joined = LinkEvent::Joined {
        name: name.clone(),
        executor: ExecutorId(0),
        incarnation: Incarnation(1),
    };
    let loss = Loss::Broken;
    assert_eq!(told, [joined, LinkEvent::Lost { name, incarnation: Incarnation(0), reason, loss }]);
    next.say(&succeeded(&second, 0), &[Bytes::from_static(b"new")]).await;
    assert_eq!(stage.values().await, [Bytes::from_static(b"new")]);
    driver.shutdown().await;
}

#[tokio::test]
async fn of_two_that_dial_at_once_under_one_name_one_stays_and_the_other_is_told() {
    let mut driver = Driver::start();
    for round in 0..30 {
        let name = format!("twin-{round}");
        let dial = || within("a greeting", Peer::dial(&driver.address, hello(&name), None, None));
        let (first, second) = tokio::join!(dial(), dial());
        let mut twins = [first.unwrap(), second.unwrap()];
        twins.sort_by_key(|(_, welcome)| welcome.executor);
        let [(mut former, _), (mut last, _)] = twins;
        let goodbye = within("a goodbye", heard(&mut former)).await;
        assert!(matches!(&goodbye, Some((Message::Goodbye { .. }, _))), "{goodbye:?}");
        last.say(&Message::Leaving { reason: "still here".to_owned() }, &[]).await;
        loop {
            let event = driver.event().await;
            if matches!(&event, LinkEvent::Lost { reason, .. } if reason == "leaves: still here") {
                break;
            }
        }
    }
    driver.shutdown().await;
}

#[tokio::test]
async fn a_driver_that_has_started_another_one_takes_none_back() {
    let mut driver = Driver::with(|config| config.takes_back = false);
    let mut again = hello("a");
    again.lives = 1;
    let refused = Peer::dial(&driver.address, again, None, None).await.err().unwrap();
    let text = "the driver gave it up and has started another one";
    assert!(matches!(&refused, GreetingError::Refused(reason) if reason == text), "{refused}");
    let mut peer = driver.peer("a").await;
    let removed = RemoveExecutor { executor: ExecutorId(0), reason: "by hand".to_owned() };
    assert!(driver.system.scheduler().send(removed).await.unwrap());
    let reason = "the driver has given this executor up".to_owned();
    let goodbye = Message::Goodbye { reason, is_done: true };
    assert_eq!(heard(&mut peer).await, Some((goodbye, Vec::new())));
    driver.shutdown().await;
}

fn request(id: u64, launch: &LaunchTasks, task: usize, num_tasks: u32) -> (Message, Payloads) {
    let LaunchTask { partition, task_attempt, .. } = launch.tasks[task];
    let arrivals = vec![Arrival { partition, task_attempt, message: Bytes::new() }];
    let (attempt, epoch, method) = (launch.attempt, Epoch(0), SyncMethod::AllGather);
    let request = RequestToSync { attempt, num_tasks, epoch, method, arrivals };
    let message = Bytes::from(vec![b'0' + partition.0 as u8; 1000]);
    (Message::Request { id, request }, vec![message])
}

#[tokio::test]
async fn an_executors_requests_of_a_round_are_answered_in_one_message() {
    let mut driver = Driver::start();
    let (mut two, mut one) = (driver.peer("two").await, driver.peer("one").await);
    let body = named(vec![Bytes::new(); 4]);
    let stage = driver.submit(1, spec(StageKind::Barrier, 4), body);
    let (of_two, of_one) = (launched(&mut two).await, launched(&mut one).await);
    for (peer, launch, ids) in [(&mut two, &of_two, [10, 11]), (&mut one, &of_one, [10, 12])] {
        for (task, id) in ids.into_iter().enumerate() {
            let (message, payloads) = request(id, launch, task, 4);
            peer.say(&message, &payloads).await;
        }
    }
    let all: Vec<Bytes> = (b'0'..b'4').map(|partition| vec![partition; 1000].into()).collect();
    for (peer, launch, ids) in [(&mut two, &of_two, [10, 11]), (&mut one, &of_one, [10, 12])] {
        let Some((Message::Reply { mut requests, reply }, payloads)) = heard(peer).await else {
            panic!("a reply");
        };
        requests.sort_unstable();
        assert_eq!(requests, ids);
        assert!(reply.result.unwrap().messages.is_empty(), "they go beside the message");
        assert_eq!(payloads, all);
        for task in 0..2 {
            peer.say(&succeeded(launch, task), &[Bytes::new()]).await;
        }
    }
    stage.values().await;
    driver.shutdown().await;
    for peer in [&mut two, &mut one] {
        let last = heard(peer).await;
        assert!(matches!(last, Some((Message::Goodbye { .. }, _))), "no second reply: {last:?}");
    }
}

/// A launch of tasks 7 and 8, which is more than a frame.
fn large_launch() -> Vec<u8> {
    let task = |partition| LaunchTask {
        partition: PartitionId(partition),
        task_attempt: TaskAttemptId(7 + u64::from(partition)),
        cpus: 1,
        addresses: Default::default(),
    };
    let attempt = StageAttemptId { stage: StageId(1), attempt: 0 };
    let (tasks, task_infos) = (vec![task(0), task(1)], Arc::new([]));
    let launch = LaunchTasks { attempt, num_tasks: 2, tasks, task_infos };
    let (stage_name, code) = ("unit".to_owned(), "f".to_owned());
    let launch = Message::Launch { launch, stage_name, code, is_gang: false };
    packet(&launch, &[Bytes::new(), vec![1; MIB].into(), vec![2; MIB].into()])
}

#[tokio::test]
async fn a_kill_that_overtakes_its_large_launch_kills() {
    let (listener, address) = listen().await;
    let process = start_process(&address, |_| {});
    let (mut driver, _) = Raw::welcomed(&listener, (WAIT, 2 * WAIT)).await;
    let launch = large_launch();
    let mut pieces = launch.chunks(256 << 10).peekable();
    let kill = |task: u64| {
        let kill = KillTask { tasks: vec![TaskAttemptId(task)], reason: format!("kill {task}") };
        frame(URGENT, &packet(&Message::Kill(kill), &[]))
    };
    driver.write(&frame(MORE, pieces.next().unwrap())).await;
    driver.write(&kill(7)).await;
    while let Some(piece) = pieces.next() {
        let kind = if pieces.peek().is_some() { MORE } else { LAST };
        driver.write(&frame(kind, piece)).await;
    }
    for task in [7, 8] {
        if task == 8 {
            // The other one goes on until it is killed itself.
            driver.write(&kill(8)).await;
        }
        let Some(Message::Ended { report }) = driver.heard().await else { panic!("a report") };
        assert_eq!(report.task_attempt, TaskAttemptId(task));
        let killed = TaskFailure::Killed(format!("kill {task}"));
        assert_eq!(report.outcome, TaskOutcome::Failed(killed));
    }
    driver.say(&Message::Goodbye { reason: "enough".to_owned(), is_done: true }).await;
    process.end().await;
}

#[tokio::test]
async fn the_longest_error_of_a_task_kills_its_gang_and_loses_no_executor() {
    let mut driver = Driver::start();
    let (mut fails, mut killed) = (driver.peer("fails").await, driver.peer("killed").await);
    let stage = driver.submit(1, spec(StageKind::Barrier, 4), named(vec![Bytes::new(); 4]));
    let (launch, other) = (launched(&mut fails).await, launched(&mut killed).await);
    let Message::Ended { mut report } = succeeded(&launch, 0) else { unreachable!() };
    report.outcome = TaskOutcome::Failed(TaskFailure::Error("x".repeat(MIB)));
    fails.say(&Message::Ended { report }, &[]).await;
    let word = heard(&mut killed).await;
    let Some((Message::Kill(kill), _)) = word else { panic!("{word:?}") };
    assert_eq!(kill.tasks.len(), other.tasks.len());
    assert!(kill.reason.len() > MIB, "{}", kill.reason.len());
    assert!(stage.failure().await.len() > MIB);
    assert_eq!(driver.event_now(), None, "both are there");
    driver.shutdown().await;
}

#[tokio::test]
async fn a_closure_is_refused_by_executors_elsewhere_with_what_to_do() {
    let mut driver = Driver::start();
    let _peer = driver.peer("a").await;
    let closure = TaskBody::Async(Arc::new(|_| Box::pin(async { Err("runs".into()) })));
    let failure = driver.submit(1, spec(StageKind::Barrier, 2), closure).failure().await;
    let text = "its code is a closure, which cannot run in another process: register it by name \
                and use Stage::named";
    assert!(failure.contains(text), "{failure}");
    driver.shutdown().await;
}

#[tokio::test]
async fn every_call_is_answered_even_if_what_serves_it_panics_or_is_over() {
    let mut driver = Driver::start();
    let mut peer = driver.peer("a").await;
    let serve = |asked: Bytes| match &asked[..] {
        b"panic" => panic!("a panic of a checkpoint store"),
        _ => asked,
    };
    let stage = driver.submit(1, spec(StageKind::Plain, 1), served(vec![Bytes::new()], serve));
    let launch = launched(&mut peer).await;
    let (attempt, partition) = (launch.attempt, PartitionId(0));
    let call = |call| Message::Call { call, attempt, partition };
    peer.say(&call(None), &[Bytes::from_static(b"panic")]).await;
    for (id, asked, answer) in [(1, "panic", vec![]), (2, "what", vec!["what".into()])] {
        peer.say(&call(Some(id)), &[asked.into()]).await;
        let expected = (Message::Answer { call: id }, answer);
        assert_eq!(heard(&mut peer).await, Some(expected));
    }
    peer.say(&succeeded(&launch, 0), &[Bytes::new()]).await;
    peer.say(&call(Some(3)), &["late".into()]).await;
    let expected = (Message::Answer { call: 3 }, vec![]);
    assert_eq!(within("an answer", heard(&mut peer)).await, Some(expected));
    stage.values().await;
    driver.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_client_that_does_not_read() {
    let mut driver = Driver::start();
    // An answer that is more than sockets hold, 200 times 60 KB.
    let mut peers = Vec::new();
    for number in 0..200 {
        peers.push(driver.peer(&format!("{number:060000}")).await);
    }
    let mut client = Raw::dial(&driver.address).await;
    let mut answer = client.hello(hello("")).await;
    answer.role = Role::Client;
    client.say(&Message::Hello(answer)).await;
    assert!(matches!(client.heard().await, Some(Message::Welcome(_))));
    client.say(&Message::GetStatus).await;
    within("the beginning of the answer", client.stream.peek(&mut [0])).await.unwrap();
    let started = Instant::now();
    driver.shutdown().await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let rest = async {
        let mut bytes = Vec::new();
        client.stream.read_to_end(&mut bytes).await.unwrap_or_default();
        bytes.len()
    };
    let read = within("the rest of the answer", rest).await;
    assert!((1000..200 * 60_000).contains(&read), "a part was written: {read} bytes");
}

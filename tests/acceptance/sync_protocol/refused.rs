//! Requests that are refused, and what they leave alone: J2 to J7.

use super::*;

/// A gang of four at epoch 1, whose first three wait.
async fn three_of_four(coordinator: &Coordinator) -> (Gang, Vec<Waiting>) {
    let gang = coordinator.open(1, 0, 4).await;
    gang.round(0, [2, 0, 3, 1]).await;
    let mut waiting = Vec::new();
    for partition in 0..3 {
        waiting.push(gang.ask(gang.gather(partition, 1)).await);
    }
    (gang, waiting)
}

/// Nothing has happened to the round: it waits for partition 3 alone, and then is released.
async fn goes_on(gang: Gang, mut waiting: Vec<Waiting>) {
    assert_eq!(gang.missing().await.unwrap(), "3");
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    waiting.push(gang.ask(gang.gather(3, 1)).await);
    gang.is_released(waiting, 1).await;
}

#[actix::test]
async fn j2_a_request_of_a_finished_epoch_is_refused_alone_and_both_epochs_are_named() {
    let coordinator = Coordinator::start();
    let (gang, waiting) = three_of_four(&coordinator).await;
    for partition in 0..4 {
        let error = gang.refused(gang.gather(partition, 0)).await;
        let (attempt, partition) = (gang.attempt, PartitionId(partition));
        let (sent, current) = (Epoch(0), Epoch(1));
        assert_eq!(error, SyncError::WrongEpoch { attempt, partition, sent, current });
        let text = error.to_string();
        assert!(text.contains("sync of epoch 0") && text.contains("is at epoch 1"), "{text}");
    }
    goes_on(gang, waiting).await;
}

#[actix::test]
async fn j2_a_stale_request_with_another_method_does_not_poison_the_sync() {
    let coordinator = Coordinator::start();
    let (gang, waiting) = three_of_four(&coordinator).await;
    let error = gang.refused(gang.barrier(3, 0)).await;
    assert!(matches!(error, SyncError::WrongEpoch { .. }), "{error}");
    goes_on(gang, waiting).await;
}

#[actix::test]
async fn j3_a_request_of_an_epoch_to_come_is_refused_alone_and_both_epochs_are_named() {
    let coordinator = Coordinator::start();
    let fresh = coordinator.open(2, 0, 4).await;
    let error = fresh.refused(fresh.gather(3, 5)).await;
    let text = error.to_string();
    assert!(text.contains("sync of epoch 5") && text.contains("is at epoch 0"), "{text}");
    assert_eq!((fresh.missing().await, coordinator.armed().await), (None, 0), "no round is open");
    fresh.round(0, 0..4).await;
    let (gang, waiting) = three_of_four(&coordinator).await;
    for epoch in [2, 5, u64::MAX] {
        let error = gang.refused(gang.barrier(3, epoch)).await;
        let (attempt, partition) = (gang.attempt, PartitionId(3));
        let (sent, current) = (Epoch(epoch), Epoch(1));
        assert_eq!(error, SyncError::WrongEpoch { attempt, partition, sent, current });
    }
    goes_on(gang, waiting).await;
}

#[actix::test]
async fn j4_another_number_of_tasks_is_refused_alone() {
    let coordinator = Coordinator::start();
    let (gang, waiting) = three_of_four(&coordinator).await;
    for sent in [0, 3, 5, u32::MAX] {
        for method in [SyncMethod::AllGather, SyncMethod::Barrier] {
            let request = RequestToSync { num_tasks: sent, ..gang.request(3, 1, method) };
            let error = gang.refused(request).await;
            let (attempt, partition) = (gang.attempt, PartitionId(3));
            assert_eq!(error, SyncError::WrongNumTasks { attempt, partition, sent, expected: 4 });
            let text = error.to_string();
            let both = format!("number of tasks is {sent} from partition 3, but it is 4");
            assert!(text.contains(&both), "{text}");
        }
    }
    goes_on(gang, waiting).await;
}

#[actix::test]
async fn j4_the_first_request_does_not_decide_how_many_tasks_there_are() {
    let coordinator = Coordinator::start();
    let gang = coordinator.open(1, 0, 2).await;
    let error = gang.refused(RequestToSync { num_tasks: 1, ..gang.gather(0, 0) }).await;
    assert!(matches!(error, SyncError::WrongNumTasks { sent: 1, expected: 2, .. }), "{error}");
    assert_eq!((gang.missing().await, coordinator.armed().await), (None, 0), "no round is open");
    gang.round(0, [0, 1]).await;
}

#[actix::test]
async fn j4_those_who_wait_are_told_when_the_refused_task_fails_of_it() {
    let coordinator = Coordinator::start();
    let (gang, waiting) = three_of_four(&coordinator).await;
    let refusal = gang.refused(RequestToSync { num_tasks: 5, ..gang.gather(3, 1) }).await;
    gang.fails(3, &refusal.to_string()).await;
    let text = the_error(waiting).await.to_string();
    assert!(text.contains("partition 3 failed") && text.contains("tasks is 5 from"), "{text}");
}

#[actix::test]
async fn j5_a_request_that_is_repeated_counts_once() {
    let mut coordinator = Coordinator::start();
    for (stage, num_tasks) in [(1, 2), (2, 4)] {
        let gang = coordinator.open(stage, 0, num_tasks).await;
        let mut waiting = Vec::new();
        for _ in 0..3 * num_tasks {
            waiting.push(gang.ask(gang.gather(0, 0)).await);
        }
        assert_eq!(coordinator.releases(), []);
        assert!(gang.missing().await.unwrap().starts_with('1'));
        for partition in 1..num_tasks {
            waiting.push(gang.ask(gang.gather(partition, 0)).await);
        }
        gang.is_released(waiting, 0).await;
        // A copy that comes later still is none of the next round's.
        let late = gang.refused(gang.gather(0, 0)).await;
        assert!(matches!(late, SyncError::WrongEpoch { .. }), "{late}");
        assert_eq!(gang.missing().await, None);
        gang.round(1, 0..num_tasks).await;
        assert_eq!(coordinator.releases(), [(gang.attempt, 0), (gang.attempt, 1)]);
    }
}

#[actix::test]
async fn j5_a_task_twice_in_one_request_counts_once() {
    let coordinator = Coordinator::start();
    let gang = coordinator.open(1, 0, 2).await;
    let mut twice = gang.gather(0, 0);
    twice.arrivals.extend(twice.arrivals.clone());
    let first = gang.ask(twice).await;
    assert_eq!(gang.missing().await.unwrap(), "1");
    let second = gang.ask(gang.gather(1, 0)).await;
    gang.is_released(vec![first, second], 0).await;
}

#[actix::test]
async fn j5_the_same_task_with_another_message_or_attempt_is_refused() {
    let coordinator = Coordinator::start();
    let (gang, waiting) = three_of_four(&coordinator).await;
    let mut other = gang.gather(0, 1);
    other.arrivals[0].message = "something else".into();
    let error = gang.refused(other).await;
    let (attempt, partition, epoch) = (gang.attempt, PartitionId(0), Epoch(1));
    assert_eq!(error, SyncError::ConflictingMessage { attempt, partition, epoch });
    for partition in [0, 3] {
        let mut other = gang.gather(partition, 1);
        other.arrivals[0].task_attempt = TaskAttemptId(7);
        let error = gang.refused(other).await;
        let (partition, sent) = (PartitionId(partition), TaskAttemptId(7));
        let expected = task_attempt(gang.attempt, partition.0);
        assert_eq!(error, SyncError::WrongTaskAttempt { attempt, partition, sent, expected });
    }
    goes_on(gang, waiting).await;
}

#[actix::test]
async fn j6_mixed_methods_fail_all_and_every_later_request_with_one_error() {
    use SyncMethod::{AllGather, AllReduce, Barrier, Broadcast};
    let coordinator = Coordinator::start();
    let methods = [Barrier, AllGather, Broadcast, AllReduce];
    let pairs = methods.iter().flat_map(|one| methods.iter().map(move |other| (*one, *other)));
    for (stage, (waits, called)) in (0..).zip(pairs.filter(|(one, other)| one != other)) {
        let gang = coordinator.open(stage, 0, 4).await;
        let mut waiting = Vec::new();
        for partition in [0, 3] {
            waiting.push(gang.ask(gang.request(partition, 0, waits)).await);
        }
        waiting.push(gang.ask(gang.request(2, 0, called)).await);
        let error = the_error(waiting).await;
        let (attempt, epoch, partition) = (gang.attempt, Epoch(0), PartitionId(2));
        let expected =
            SyncError::MixedMethods { attempt, epoch, waiting: waits, partition, called };
        assert_eq!(error, expected);
        let text = error.to_string();
        assert!(text.contains(&waits.to_string()) && text.contains(&called.to_string()), "{text}");
        for (partition, epoch, method) in [(1, 0, waits), (2, 0, waits), (0, 1, called)] {
            assert_eq!(gang.refused(gang.request(partition, epoch, method)).await, error);
        }
        assert_eq!((gang.missing().await, coordinator.armed().await), (None, 0));
    }
}

#[actix::test]
async fn j6_the_next_attempt_and_other_stages_are_not_poisoned() {
    let coordinator = Coordinator::start();
    let (gang, other) = (coordinator.open(1, 0, 2).await, coordinator.open(2, 0, 2).await);
    let of_other = other.ask(other.gather(0, 0)).await;
    let mixed = vec![gang.ask(gang.barrier(0, 0)).await, gang.ask(gang.gather(1, 0)).await];
    let error = the_error(mixed).await;
    assert!(matches!(error, SyncError::MixedMethods { .. }), "{error}");
    let next = coordinator.open(1, 1, 2).await;
    next.round(0, [0, 1]).await;
    let last = other.ask(other.gather(1, 0)).await;
    other.is_released(vec![of_other, last], 0).await;
}

#[actix::test]
async fn j6_one_task_that_mixes_alone_is_refused_alone() {
    let coordinator = Coordinator::start();
    let (gang, waiting) = three_of_four(&coordinator).await;
    let error = gang.refused(gang.barrier(1, 1)).await;
    assert!(matches!(error, SyncError::ConcurrentCall { .. }), "{error}");
    goes_on(gang, waiting).await;
}

#[actix::test]
async fn j7_a_partition_out_of_range_is_refused_before_anything_changes() {
    let coordinator = Coordinator::start();
    let fresh = coordinator.open(2, 0, 4).await;
    let out_of_range = |gang: &Gang, partition: u32, epoch: u64| {
        let mut request = gang.gather(3, epoch);
        request.arrivals[0].partition = PartitionId(partition);
        request
    };
    let error = fresh.refused(out_of_range(&fresh, 4, 0)).await;
    assert!(error.to_string().contains("partition 4 is out of range"), "{error}");
    assert_eq!((fresh.missing().await, coordinator.armed().await), (None, 0), "no round is open");
    fresh.round(0, 0..4).await;
    let (gang, waiting) = three_of_four(&coordinator).await;
    for partition in [4, 5, u32::MAX] {
        let error = gang.refused(out_of_range(&gang, partition, 1)).await;
        let (attempt, partition) = (gang.attempt, PartitionId(partition));
        assert_eq!(error, SyncError::PartitionOutOfRange { attempt, partition, num_tasks: 4 });
    }
    goes_on(gang, waiting).await;
}

#[actix::test]
async fn j7_one_bad_arrival_of_several_refuses_the_whole_request() {
    let coordinator = Coordinator::start();
    let (gang, waiting) = three_of_four(&coordinator).await;
    let mut request = gang.gather(3, 1);
    request.arrivals.extend(gang.gather(3, 1).arrivals);
    request.arrivals[1].partition = PartitionId(4);
    let error = gang.refused(request).await;
    assert!(matches!(error, SyncError::PartitionOutOfRange { .. }), "{error}");
    goes_on(gang, waiting).await;
}

#[actix::test]
async fn j7_a_request_that_names_no_task_is_refused() {
    let coordinator = Coordinator::start();
    let (gang, waiting) = three_of_four(&coordinator).await;
    let error = gang.refused(RequestToSync { arrivals: vec![], ..gang.gather(3, 1) }).await;
    assert_eq!(error, SyncError::NoArrivals { attempt: gang.attempt });
    goes_on(gang, waiting).await;
}

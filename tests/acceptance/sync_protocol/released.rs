//! Rounds that are complete: J1, J8, J9.

use super::*;

#[actix::test]
async fn j1_n_requests_get_n_replies_and_the_next_epoch_begins() {
    let mut coordinator = Coordinator::start();
    for (stage, num_tasks) in [(1, 1), (2, 2), (3, 4), (4, 63)] {
        let gang = coordinator.open(stage, 0, num_tasks).await;
        for epoch in 0..3 {
            let mut waiting = Vec::new();
            for partition in (1..num_tasks).rev() {
                waiting.push(gang.ask(gang.gather(partition, epoch)).await);
                assert!(gang.missing().await.unwrap().starts_with('0'));
            }
            assert_eq!(coordinator.releases(), [], "not before the last");
            waiting.push(gang.ask(gang.gather(0, epoch)).await);
            gang.is_released(waiting, epoch).await;
            assert_eq!(coordinator.releases(), [(gang.attempt, epoch)]);
            assert_eq!(gang.missing().await, None);
        }
        assert_eq!(coordinator.armed().await, 0, "no timer outlives its round");
    }
}

#[actix::test]
async fn j1_the_tasks_of_one_executor_may_come_in_one_request() {
    let mut coordinator = Coordinator::start();
    let gang = coordinator.open(1, 0, 5).await;
    let mut first = gang.gather(4, 0);
    first.arrivals.extend(gang.gather(1, 0).arrivals);
    let mut second = gang.gather(0, 0);
    second.arrivals.extend([gang.gather(3, 0).arrivals, gang.gather(2, 0).arrivals].concat());
    let first = gang.ask(first).await;
    assert_eq!(gang.missing().await.unwrap(), "0, 2-3");
    let second = gang.ask(second).await;
    gang.is_released(vec![first, second], 0).await;
    assert_eq!(coordinator.releases(), [(gang.attempt, 0)]);
}

#[actix::test]
async fn j1_a_barrier_hands_out_no_messages() {
    let coordinator = Coordinator::start();
    let gang = coordinator.open(1, 0, 2).await;
    let first = gang.ask(gang.barrier(1, 0)).await;
    let second = gang.ask(gang.barrier(0, 0)).await;
    for reply in [first, second] {
        let release = reply.await.unwrap().result.unwrap();
        assert_eq!((release.method, release.messages.len()), (SyncMethod::Barrier, 0));
    }
}

#[actix::test]
async fn j8_two_attempts_of_a_stage_have_epochs_of_their_own() {
    let mut coordinator = Coordinator::start();
    let old = coordinator.open(1, 0, 2).await;
    for epoch in 0..3 {
        old.round(epoch, [1, 0]).await;
    }
    let new = coordinator.open(1, 1, 2).await;
    let of_old = old.ask(old.gather(0, 3)).await;
    let of_new = new.ask(new.gather(0, 0)).await;
    // A zombie's request never completes the round of the attempt that came after it.
    let zombie = RequestToSync { attempt: new.attempt, ..old.gather(1, 0) };
    let refusal = new.refused(zombie).await;
    assert!(matches!(refusal, SyncError::WrongTaskAttempt { .. }), "{refusal}");
    coordinator.releases();
    let last_of_old = old.ask(old.gather(1, 3)).await;
    old.is_released(vec![of_old, last_of_old], 3).await;
    assert_eq!(coordinator.releases(), [(old.attempt, 3)]);
    assert_eq!(new.missing().await.unwrap(), "1");
    let last_of_new = new.ask(new.gather(1, 0)).await;
    new.is_released(vec![of_new, last_of_new], 0).await;
    assert_eq!(coordinator.releases(), [(new.attempt, 0)]);
}

#[actix::test]
async fn j8_the_end_of_one_attempt_leaves_the_next_alone() {
    let coordinator = Coordinator::start();
    let old = coordinator.open(1, 0, 2).await;
    let new = coordinator.open(1, 1, 2).await;
    let of_old = old.ask(old.barrier(0, 0)).await;
    let of_new = new.ask(new.gather(0, 0)).await;
    coordinator.complete(old.attempt, CloseReason::Failed("partition 1 failed".to_owned()));
    let error = the_error(vec![of_old]).await;
    assert!(matches!(error, SyncError::AttemptClosed { .. }), "{error}");
    let last = new.ask(new.gather(1, 0)).await;
    new.is_released(vec![of_new, last], 0).await;
}

#[actix::test]
async fn j9_stages_with_equal_attempt_numbers_do_not_meet() {
    let mut coordinator = Coordinator::start();
    let mut gangs = Vec::new();
    for stage in 0..5_u64 {
        gangs.push(coordinator.open(stage, 3, 2 + stage as u32).await);
    }
    let mut waiting: Vec<Vec<Waiting>> = gangs.iter().map(|_| Vec::new()).collect();
    for partition in 0..6 {
        for (gang, waiting) in gangs.iter().zip(&mut waiting) {
            if partition < gang.num_tasks {
                waiting.push(gang.ask(gang.gather(partition, 0)).await);
            }
        }
        let full = gangs.iter().filter(|gang| gang.num_tasks == partition + 1);
        let full: Vec<_> = full.map(|gang| (gang.attempt, 0)).collect();
        assert_eq!(coordinator.releases(), full, "each when its own last has come");
    }
    for (gang, waiting) in gangs.iter().zip(waiting) {
        gang.is_released(waiting, 0).await;
    }
}

#[actix::test]
async fn j9_the_failure_of_one_stage_leaves_the_others_alone() {
    let coordinator = Coordinator::start();
    let (failing, good) = (coordinator.open(1, 0, 2).await, coordinator.open(2, 0, 2).await);
    let of_failing = failing.ask(failing.barrier(0, 0)).await;
    let of_good = good.ask(good.gather(0, 0)).await;
    failing.fails(1, "disk full").await;
    let error = the_error(vec![of_failing]).await;
    assert!(error.to_string().contains("partition 1 failed: disk full"), "{error}");
    let last = good.ask(good.gather(1, 0)).await;
    good.is_released(vec![of_good, last], 0).await;
}

use super::*;

fn ended(epoch: u64, error: SyncError) -> TaskSync {
    TaskSync { ended: Some(Box::new(error)), ..idle(epoch) }
}

#[test]
fn kill_completes_the_waiting_calls_and_leaves() {
    let mut state = waiting(2, AllGather, "b", &[1, 2]);
    let effects = feed(&mut state, kill("peer failed"));
    let reason = LeaveReason::Killed { reason: "peer failed".into() };
    assert_eq!(effects, [complete(&[1, 2], Err(killed("peer failed"))), leave(reason)]);
    assert_eq!(state, ended(2, killed("peer failed")));
}

#[test]
fn kill_with_no_call_waiting_only_leaves() {
    for mut state in [idle(2), withdrawn(2), unclaimed(2, gathered())] {
        let effects = feed(&mut state, kill("no reason"));
        assert_eq!(effects, [leave(LeaveReason::Killed { reason: "no reason".into() })]);
        assert_eq!(state, ended(2, killed("no reason")));
    }
}

#[test]
fn after_a_kill_every_call_fails_at_once() {
    let mut state = ended(2, killed("peer failed"));
    for (id, method) in (5..).zip([Barrier, AllGather, Broadcast, AllReduce]) {
        let effects = feed(&mut state, call(id, method, "b"));
        assert_eq!(effects, [complete(&[id], Err(killed("peer failed")))]);
        assert_eq!(state, ended(2, killed("peer failed")));
    }
}

#[test]
fn after_a_kill_replies_drops_and_further_ends_are_ignored() {
    let mut state = waiting(0, AllGather, "b", &[1]);
    feed(&mut state, kill("first"));
    let late = [
        reply(0, Ok(gathered())),
        reply(0, Err(failure())),
        dropped(1),
        kill("second"),
        TaskSyncEvent::Ended(LeaveReason::Returned),
    ];
    for event in late {
        assert_ignored(&mut state, event);
    }
}

fn left(epoch: u64, reason: LeaveReason) -> SyncError {
    SyncError::PeerLeft { attempt: ATTEMPT, epoch: Epoch(epoch), partition: PARTITION, reason }
}

#[test]
fn the_end_of_the_task_leaves_once_with_its_reason() {
    for reason in [LeaveReason::Returned, LeaveReason::Failed(TaskFailure::Error("no".into()))] {
        let mut state = idle(1);
        let effects = feed(&mut state, TaskSyncEvent::Ended(reason.clone()));
        assert_eq!(effects, [leave(reason.clone())]);
        assert_eq!(state, ended(1, left(1, reason.clone())));
        assert_ignored(&mut state, TaskSyncEvent::Ended(reason));
        assert_ignored(&mut state, kill("too late"));
    }
}

#[test]
fn calls_that_outlive_the_task_fail_at_its_end_and_later_ones_at_once() {
    let mut state = waiting(1, Barrier, "", &[1]);
    let error = left(1, LeaveReason::Returned);
    let effects = feed(&mut state, TaskSyncEvent::Ended(LeaveReason::Returned));
    assert_eq!(effects, [complete(&[1], Err(error.clone())), leave(LeaveReason::Returned)]);
    assert_eq!(feed(&mut state, call(2, Barrier, "")), [complete(&[2], Err(error.clone()))]);
    assert_eq!(state, ended(1, error));
}

use super::*;

fn reasons() -> [LeaveReason; 3] {
    [
        LeaveReason::Returned,
        LeaveReason::Failed(TaskFailure::Error("no data".into())),
        LeaveReason::Killed { reason: "stage cancelled".into() },
    ]
}

fn peer_left(epoch: u64, partition: u32, reason: LeaveReason) -> SyncError {
    let (attempt, epoch, partition) = (ATTEMPT, Epoch(epoch), PartitionId(partition));
    SyncError::PeerLeft { attempt, epoch, partition, reason }
}

/// `state` without its round, after `first` has left.
fn without(state: ContextBarrierState, first: (u32, LeaveReason)) -> ContextBarrierState {
    let first_left = Some((PartitionId(first.0), first.1));
    ContextBarrierState { first_left, round: None, ..state }
}

#[test]
fn when_a_task_leaves_all_who_wait_fail_at_once_with_its_partition_and_reason() {
    for reason in reasons() {
        let mut state = gang(4);
        arrive(&mut state, 1, AllGather, &[(0, "a")]);
        arrive(&mut state, 2, AllGather, &[(1, "b"), (3, "d")]);
        let error = peer_left(0, 2, reason.clone());
        let effects = feed(&mut state, leaves(2, reason.clone()));
        assert_eq!(effects, failed(&[1, 2], FIRST, error));
        assert_eq!(state, without(between_rounds(4, 0, 1), (2, reason)));
        assert!(!state.is_closed());
    }
}

#[test]
fn later_callers_are_told_of_the_leave_at_once_and_open_no_round() {
    for reason in reasons() {
        let mut state = gang(3);
        arrive(&mut state, 1, AllGather, &[(0, "a")]);
        feed(&mut state, leaves(2, reason.clone()));
        for (token, method) in (2..).zip(METHODS) {
            for partition in [0, 1] {
                let late = request(&state, method, &[(partition, "late")]);
                assert_refused(&mut state, token, late, peer_left(0, 2, reason.clone()));
            }
        }
        assert_eq!(state.missing(), None);
    }
}

#[test]
fn a_leave_before_anyone_came_has_no_effects_and_fails_the_first_caller() {
    for reason in reasons() {
        let mut state = gang(2);
        assert_eq!(feed(&mut state, leaves(1, reason.clone())), []);
        assert_eq!(state, without(gang(2), (1, reason.clone())));
        let first = request(&state, Barrier, &[(0, "")]);
        assert_refused(&mut state, 1, first, peer_left(0, 1, reason));
    }
}

#[test]
fn a_leave_after_a_release_fails_the_next_round_under_its_epoch() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, "")]);
    arrive(&mut state, 2, Barrier, &[(0, "")]);
    let effects = feed(&mut state, leaves(1, LeaveReason::Returned));
    let error = peer_left(1, 1, LeaveReason::Returned);
    assert_eq!(effects, failed(&[2], SECOND, error.clone()));
    assert_eq!(state, without(between_rounds(2, 1, 2), (1, LeaveReason::Returned)));
    let late = request(&state, Barrier, &[(0, "")]);
    assert_refused(&mut state, 3, late, error);
}

#[test]
fn the_first_who_left_is_the_one_named() {
    let killed = LeaveReason::Killed { reason: "peer failed".into() };
    let mut state = gang(3);
    arrive(&mut state, 1, Barrier, &[(0, "")]);
    feed(&mut state, leaves(2, LeaveReason::Returned));
    assert_eq!(feed(&mut state, leaves(1, killed)), []);
    assert_eq!(state, without(between_rounds(3, 0, 1), (2, LeaveReason::Returned)));
    let late = request(&state, Barrier, &[(0, "")]);
    assert_refused(&mut state, 2, late, peer_left(0, 2, LeaveReason::Returned));
}

#[test]
fn a_repeated_leave_is_ignored_and_the_first_reason_counts() {
    for first in reasons() {
        for second in reasons() {
            let mut state = gang(2);
            feed(&mut state, leaves(1, first.clone()));
            assert_ignored(&mut state, leaves(1, second));
            let late = request(&state, Barrier, &[(0, "")]);
            assert_refused(&mut state, 1, late, peer_left(0, 1, first.clone()));
        }
    }
}

#[test]
fn a_leave_of_another_task_attempt_or_partition_or_stage_attempt_is_ignored() {
    let mut open = gang(2);
    arrive(&mut open, 1, Barrier, &[(0, "")]);
    let good = TaskLeft {
        attempt: ATTEMPT,
        partition: PartitionId(1),
        task_attempt: task(1),
        reason: LeaveReason::Returned,
    };
    let wrong = [
        TaskLeft { task_attempt: TaskAttemptId(5), ..good.clone() },
        TaskLeft { task_attempt: task(0), ..good.clone() },
        TaskLeft { partition: PartitionId(2), ..good.clone() },
        TaskLeft { partition: PartitionId(u32::MAX), ..good.clone() },
        TaskLeft { attempt: StageAttemptId { attempt: 0, ..ATTEMPT }, ..good.clone() },
        TaskLeft { attempt: StageAttemptId { stage: StageId(8), ..ATTEMPT }, ..good },
    ];
    for mut state in [gang(2), open] {
        for left in &wrong {
            assert_ignored(&mut state, BarrierEvent::TaskLeft(left.clone()));
        }
    }
}

#[test]
fn a_member_that_had_arrived_and_leaves_fails_the_round_too() {
    for reason in reasons() {
        let mut state = gang(3);
        arrive(&mut state, 1, AllGather, &[(0, "a")]);
        arrive(&mut state, 2, AllGather, &[(1, "b")]);
        let error = peer_left(0, 1, reason.clone());
        let effects = feed(&mut state, leaves(1, reason.clone()));
        assert_eq!(effects, failed(&[1, 2], FIRST, error));
        assert_eq!(state, without(between_rounds(3, 0, 1), (1, reason)));
    }
}

#[test]
fn who_has_left_is_not_let_in_again() {
    let mut state = gang(2);
    feed(&mut state, leaves(1, LeaveReason::Returned));
    let own = request(&state, Barrier, &[(1, "")]);
    assert_refused(&mut state, 1, own, peer_left(0, 1, LeaveReason::Returned));
}

#[test]
fn all_leaving_with_nobody_waiting_has_no_effects() {
    let mut state = gang(3);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, ""), (2, "")]);
    for partition in [1, 0, 2] {
        assert_eq!(feed(&mut state, leaves(partition, LeaveReason::Returned)), []);
    }
    assert_eq!(state, without(between_rounds(3, 1, 1), (1, LeaveReason::Returned)));
}

#[test]
fn a_leave_after_the_only_arrival_was_withdrawn_has_no_effects() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, "")]);
    withdraw(&mut state, 0, 0);
    assert_eq!(feed(&mut state, leaves(0, LeaveReason::Returned)), []);
    assert_eq!(state, without(between_rounds(2, 0, 1), (0, LeaveReason::Returned)));
}

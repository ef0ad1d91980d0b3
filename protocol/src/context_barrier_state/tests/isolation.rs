use super::*;

/// Other attempts whose tasks differ from ours in nothing but the attempt: a further try of the
/// same stage, and another stage.
const OTHERS: [StageAttemptId; 2] = [
    StageAttemptId { stage: StageId(7), attempt: 2 },
    StageAttemptId { stage: StageId(8), attempt: 1 },
];

/// Ours in every situation: idle, in a round with the method of the others, in one with another.
fn ours() -> [ContextBarrierState; 3] {
    let mut same_call = gang(2);
    arrive(&mut same_call, 1, AllGather, &[(0, "a")]);
    let mut other_call = gang(2);
    arrive(&mut other_call, 1, Barrier, &[(0, "")]);
    [gang(2), same_call, other_call]
}

#[test]
fn requests_of_another_attempt_are_refused_and_change_nothing() {
    let messages: [Arriving; 3] = [&[(0, "a")], &[(1, "b")], &[(0, "a"), (1, "b")]];
    for attempt in OTHERS {
        for mut state in ours() {
            let theirs = gang_of(attempt, 2);
            for arriving in messages {
                let request = request(&theirs, AllGather, arriving);
                assert_refused(&mut state, 9, request, SyncError::NotOpen { attempt });
            }
        }
    }
}

#[test]
fn leaves_withdraws_and_timers_of_another_attempt_are_ignored() {
    for attempt in OTHERS {
        for mut state in ours() {
            for reason in [LeaveReason::Returned, LeaveReason::Killed { reason: "x".into() }] {
                let (partition, task_attempt) = (PartitionId(1), task(1));
                let left = TaskLeft { attempt, partition, task_attempt, reason };
                assert_ignored(&mut state, BarrierEvent::TaskLeft(left));
            }
            for partition in [0, 1] {
                let withdraw = WithdrawSync { attempt, ..withdrawal(0, partition) };
                assert_ignored(&mut state, BarrierEvent::WithdrawSync(withdraw));
            }
            for kind in [Timeout, ProgressLog] {
                let key = SyncTimer { attempt, ..timer(FIRST, kind) };
                assert_ignored(&mut state, BarrierEvent::TimerFired(key));
            }
        }
    }
}

#[test]
fn two_attempts_go_through_their_rounds_side_by_side() {
    for attempt in OTHERS {
        let mut ours = gang(2);
        let mut theirs = gang_of(attempt, 2);
        assert_eq!(arrive(&mut ours, 1, AllGather, &[(0, "a")]), opened(FIRST, AllGather));
        arrive(&mut theirs, 1, Barrier, &[(1, "")]);
        assert_eq!(ours.missing(), Some(ranges([1])));
        assert_eq!(theirs.missing(), Some(ranges([0])));
        feed(&mut theirs, BarrierEvent::Close(CloseReason::Cancelled("not needed".into())));
        assert_eq!((theirs.attempt(), theirs.is_closed()), (attempt, true));
        let effects = arrive(&mut ours, 2, AllGather, &[(1, "b")]);
        assert_eq!(effects, released(&[1, 2], FIRST, AllGather, &["a", "b"]));
        assert_eq!(ours, between_rounds(2, 1, 1));
        assert_eq!((theirs.attempt(), theirs.epoch()), (attempt, Epoch(0)));
    }
}

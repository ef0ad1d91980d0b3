use super::*;

fn closed(state: ContextBarrierState, error: SyncError) -> ContextBarrierState {
    ContextBarrierState { round: None, closed: Some(error), ..state }
}

/// Whoever comes, at whatever epoch and with whatever call, has the same error at once.
#[track_caller]
fn assert_closed_for_all(state: &mut ContextBarrierState, error: &SyncError) {
    assert!(state.is_closed());
    for method in METHODS {
        for epoch in 0..3 {
            let mut late = request(state, method, &[(1, "late")]);
            late.epoch = Epoch(epoch);
            assert_refused(state, 90, late, error.clone());
        }
    }
}

fn mixed(waiting: SyncMethod, partition: u32, called: SyncMethod) -> SyncError {
    let partition = PartitionId(partition);
    SyncError::MixedMethods { attempt: ATTEMPT, epoch: Epoch(0), waiting, partition, called }
}

#[test]
fn another_call_in_a_round_fails_all_who_are_present_and_the_newcomer_alike() {
    for waiting in METHODS {
        for called in METHODS.into_iter().filter(|called| *called != waiting) {
            let mut state = gang(4);
            arrive(&mut state, 1, waiting, &[(0, "a")]);
            arrive(&mut state, 2, waiting, &[(2, "c")]);
            let error = mixed(waiting, 1, called);
            let mut expected = failed(&[1, 2], FIRST, error.clone());
            expected.push(replied(3, 0, Err(error.clone())));
            assert_eq!(arrive(&mut state, 3, called, &[(1, "b")]), expected);
            assert_eq!(state, closed(between_rounds(4, 0, 1), error));
        }
    }
}

#[test]
fn after_mixed_calls_every_later_caller_has_that_error_at_once() {
    let mut state = gang(3);
    arrive(&mut state, 1, AllGather, &[(0, "a")]);
    arrive(&mut state, 2, Barrier, &[(2, "")]);
    assert_closed_for_all(&mut state, &mixed(AllGather, 2, Barrier));
}

#[test]
fn the_last_to_come_with_another_call_does_not_release_the_round() {
    let mut state = gang(3);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, "")]);
    let error = mixed(Barrier, 2, AllReduce);
    let mut expected = failed(&[1], FIRST, error.clone());
    expected.push(replied(2, 0, Err(error.clone())));
    assert_eq!(arrive(&mut state, 2, AllReduce, &[(2, "c")]), expected);
    assert_eq!(state, closed(between_rounds(3, 0, 1), error));
}

#[test]
fn another_call_in_the_next_round_is_no_mix() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, "")]);
    assert_eq!(arrive(&mut state, 2, AllGather, &[(0, "a")]), opened(SECOND, AllGather));
    assert_eq!(state, in_round(2, SECOND, AllGather, &[(0, "a")], &[2]));
}

fn reasons() -> [CloseReason; 4] {
    [
        CloseReason::Succeeded,
        CloseReason::Failed("partition 3 panicked: no".into()),
        CloseReason::Cancelled("not needed".into()),
        CloseReason::Shutdown,
    ]
}

fn attempt_closed(reason: CloseReason) -> SyncError {
    SyncError::AttemptClosed { attempt: ATTEMPT, reason }
}

#[test]
fn close_answers_all_who_wait_and_all_who_come_later_at_once() {
    for reason in reasons() {
        let mut state = gang(3);
        arrive(&mut state, 1, AllGather, &[(0, "a")]);
        arrive(&mut state, 2, AllGather, &[(2, "c")]);
        let error = attempt_closed(reason.clone());
        let effects = feed(&mut state, BarrierEvent::Close(reason));
        assert_eq!(effects, failed(&[1, 2], FIRST, error.clone()));
        assert_eq!(state, closed(between_rounds(3, 0, 1), error.clone()));
        assert_closed_for_all(&mut state, &error);
    }
}

#[test]
fn close_with_nobody_waiting_has_no_effects_and_refuses_all_who_come_later() {
    for reason in reasons() {
        let mut state = between_rounds(3, 2, 2);
        let error = attempt_closed(reason.clone());
        assert_eq!(feed(&mut state, BarrierEvent::Close(reason)), []);
        assert_eq!(state, closed(between_rounds(3, 2, 2), error.clone()));
        assert_closed_for_all(&mut state, &error);
    }
}

#[test]
fn a_second_close_changes_nothing() {
    for first in reasons() {
        for second in reasons() {
            let mut state = gang(2);
            arrive(&mut state, 1, Barrier, &[(0, "")]);
            feed(&mut state, BarrierEvent::Close(first.clone()));
            assert_ignored(&mut state, BarrierEvent::Close(second));
            assert_closed_for_all(&mut state, &attempt_closed(first.clone()));
        }
    }
}

#[test]
fn close_after_mixed_calls_or_a_timeout_keeps_the_first_error() {
    let mut with_mixed_calls = gang(2);
    arrive(&mut with_mixed_calls, 1, Barrier, &[(0, "")]);
    arrive(&mut with_mixed_calls, 2, AllGather, &[(1, "b")]);
    let mut timed_out = gang(2);
    arrive(&mut timed_out, 1, Barrier, &[(0, "")]);
    fire(&mut timed_out, FIRST, Timeout);
    for mut state in [with_mixed_calls, timed_out] {
        assert_ignored(&mut state, BarrierEvent::Close(CloseReason::Succeeded));
    }
}

#[test]
fn after_a_close_a_withdraw_does_nothing() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, "")]);
    feed(&mut state, BarrierEvent::Close(CloseReason::Succeeded));
    assert_ignored(&mut state, BarrierEvent::WithdrawSync(withdrawal(0, 0)));
}

#[test]
fn after_a_close_a_leave_does_not_change_what_later_callers_are_told() {
    let mut state = gang(2);
    feed(&mut state, BarrierEvent::Close(CloseReason::Succeeded));
    assert_eq!(feed(&mut state, leaves(0, LeaveReason::Returned)), []);
    assert_closed_for_all(&mut state, &attempt_closed(CloseReason::Succeeded));
}

use super::*;

#[test]
fn two_timers_are_set_by_the_first_arrival_and_none_by_later_ones() {
    let mut state = gang(4);
    assert_eq!(arrive(&mut state, 1, Barrier, &[(3, "")]), opened(FIRST, Barrier));
    for (token, partition) in [(2, 3), (3, 0), (4, 1)] {
        assert_eq!(arrive(&mut state, token, Barrier, &[(partition, "")]), []);
    }
    let arriving = [(3, ""), (0, ""), (1, "")];
    assert_eq!(state, in_round(4, FIRST, Barrier, &arriving, &[1, 2, 3, 4]));
}

#[test]
fn each_round_has_fresh_timer_keys() {
    let mut state = gang(2);
    for round in 0..4 {
        let at = At { epoch: round, opening: round };
        assert_eq!(arrive(&mut state, 1, Barrier, &[(0, "")]), opened(at, Barrier));
        assert_eq!(arrive(&mut state, 2, Barrier, &[(1, "")]), released(&[1, 2], at, Barrier, &[]));
    }
    assert_eq!(state, between_rounds(2, 4, 4));
}

fn timed_out(epoch: u64, missing: impl IntoIterator<Item = u32>) -> SyncError {
    SyncError::Timeout {
        attempt: ATTEMPT,
        epoch: Epoch(epoch),
        after: SYNC_TIMEOUT,
        missing: ranges(missing),
    }
}

#[test]
fn a_timeout_fails_all_who_wait_and_lists_the_missing_partitions() {
    let mut state = gang(6);
    arrive(&mut state, 1, AllGather, &[(1, "b")]);
    arrive(&mut state, 2, AllGather, &[(4, "e")]);
    let error = timed_out(0, [0, 2, 3, 5]);
    assert_eq!(fire(&mut state, FIRST, Timeout), failed(&[1, 2], FIRST, error.clone()));
    assert_eq!(state, ContextBarrierState { closed: Some(error), ..between_rounds(6, 0, 1) });
}

#[test]
fn after_a_timeout_every_later_caller_has_the_same_error() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, "")]);
    arrive(&mut state, 2, Barrier, &[(0, "")]);
    fire(&mut state, SECOND, Timeout);
    assert!(state.is_closed());
    for (method, arriving) in [(Barrier, (1, "")), (AllGather, (0, "a"))] {
        let late = request(&state, method, &[arriving]);
        assert_refused(&mut state, 3, late, timed_out(1, [1]));
    }
}

#[test]
fn the_progress_timer_tells_each_waiting_token_who_is_missing_and_is_set_again() {
    let mut state = gang(5);
    arrive(&mut state, 1, Barrier, &[(1, "")]);
    arrive(&mut state, 2, Barrier, &[(2, ""), (4, "")]);
    let before = state.clone();
    let (attempt, epoch) = (ATTEMPT, Epoch(0));
    let note = StillWaiting { attempt, epoch, missing: ranges([0, 3]) };
    let expected = [
        BarrierEffect::NotifyWaiting { to: ReplyToken(1), note: note.clone() },
        BarrierEffect::NotifyWaiting { to: ReplyToken(2), note },
        BarrierEffect::SetTimer { key: timer(FIRST, ProgressLog), after: PROGRESS_INTERVAL },
    ];
    for _ in 0..3 {
        assert_eq!(fire(&mut state, FIRST, ProgressLog), expected);
        assert_eq!(state, before, "a note fails nothing");
    }
}

#[test]
fn a_round_is_released_after_progress_notes_as_without_them() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, "")]);
    fire(&mut state, FIRST, ProgressLog);
    let effects = arrive(&mut state, 2, Barrier, &[(1, "")]);
    assert_eq!(effects, released(&[1, 2], FIRST, Barrier, &[]));
    assert_eq!(state, between_rounds(2, 1, 1));
}

#[track_caller]
fn assert_late(state: &mut ContextBarrierState, at: At) {
    for kind in [Timeout, ProgressLog] {
        assert_ignored(state, BarrierEvent::TimerFired(timer(at, kind)));
    }
}

#[test]
fn a_timer_of_a_released_round_does_nothing_whether_or_not_the_next_has_begun() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, "")]);
    assert_late(&mut state, FIRST);
    arrive(&mut state, 2, Barrier, &[(0, "")]);
    assert_late(&mut state, FIRST);
}

#[test]
fn a_timer_of_an_earlier_opening_of_the_same_epoch_does_nothing() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, "")]);
    withdraw(&mut state, 0, 0);
    assert_late(&mut state, FIRST);
    arrive(&mut state, 2, Barrier, &[(0, "")]);
    assert_late(&mut state, FIRST);
    let error = timed_out(0, [1]);
    let effects = fire(&mut state, FIRST_REOPENED, Timeout);
    assert_eq!(effects, failed(&[2], FIRST_REOPENED, error), "its own timer still works");
}

#[test]
fn a_timer_that_mixes_epoch_and_opening_of_two_rounds_does_nothing() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, "")]);
    arrive(&mut state, 2, Barrier, &[(0, "")]);
    assert_late(&mut state, At { epoch: 1, opening: 0 });
    assert_late(&mut state, At { epoch: 0, opening: 1 });
}

#[test]
fn a_timer_before_any_round_does_nothing() {
    assert_late(&mut gang(2), FIRST);
}

#[test]
fn a_timer_after_the_attempt_was_closed_does_nothing() {
    let mut by_the_scheduler = gang(2);
    arrive(&mut by_the_scheduler, 1, Barrier, &[(0, "")]);
    feed(&mut by_the_scheduler, BarrierEvent::Close(CloseReason::Shutdown));
    let mut by_timeout = gang(2);
    arrive(&mut by_timeout, 1, Barrier, &[(0, "")]);
    fire(&mut by_timeout, FIRST, Timeout);
    for mut state in [by_the_scheduler, by_timeout] {
        assert_late(&mut state, FIRST);
    }
}

#[test]
fn a_timer_after_a_leave_failed_the_round_does_nothing() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, "")]);
    feed(&mut state, leaves(1, LeaveReason::Returned));
    assert_late(&mut state, FIRST);
}

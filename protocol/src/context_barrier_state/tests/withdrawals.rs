use super::*;

fn withdrawn(epoch: u64) -> SyncError {
    SyncError::Withdrawn { attempt: ATTEMPT, epoch: Epoch(epoch) }
}

#[test]
fn a_withdraw_removes_the_arrival_and_its_message() {
    let mut state = gang(3);
    arrive(&mut state, 1, AllGather, &[(0, "a")]);
    arrive(&mut state, 2, AllGather, &[(1, "b")]);
    assert_eq!(withdraw(&mut state, 0, 0), []);
    assert_eq!(state, in_round(3, FIRST, AllGather, &[(1, "b")], &[1, 2]));
    assert_eq!(state.missing(), Some(ranges([0, 2])));
}

#[test]
fn after_a_withdraw_the_others_alone_do_not_release_the_round_but_a_return_does() {
    let mut state = gang(3);
    arrive(&mut state, 1, AllGather, &[(0, "a")]);
    arrive(&mut state, 2, AllGather, &[(1, "b")]);
    withdraw(&mut state, 0, 0);
    assert_eq!(arrive(&mut state, 3, AllGather, &[(2, "c")]), []);
    assert_eq!(state, in_round(3, FIRST, AllGather, &[(1, "b"), (2, "c")], &[1, 2, 3]));
    let effects = arrive(&mut state, 4, AllGather, &[(0, "a")]);
    assert_eq!(effects, released(&[1, 2, 3, 4], FIRST, AllGather, &["a", "b", "c"]));
    assert_eq!(state, between_rounds(3, 1, 1));
}

#[test]
fn who_has_withdrawn_may_come_back_with_another_message() {
    let mut state = gang(3);
    arrive(&mut state, 1, AllGather, &[(0, "old"), (1, "b")]);
    withdraw(&mut state, 0, 0);
    assert_eq!(arrive(&mut state, 2, AllGather, &[(0, "new")]), []);
    assert_eq!(state, in_round(3, FIRST, AllGather, &[(0, "new"), (1, "b")], &[1, 2]));
    let effects = arrive(&mut state, 3, AllGather, &[(2, "c")]);
    assert_eq!(effects, released(&[1, 2, 3], FIRST, AllGather, &["new", "b", "c"]));
}

#[test]
fn who_has_withdrawn_and_comes_back_with_another_call_meets_the_others_in_mixed_calls() {
    let mut state = gang(3);
    arrive(&mut state, 1, AllGather, &[(0, "a"), (1, "b")]);
    withdraw(&mut state, 0, 0);
    let error = SyncError::MixedMethods {
        attempt: ATTEMPT,
        epoch: Epoch(0),
        waiting: AllGather,
        partition: PartitionId(0),
        called: Barrier,
    };
    let mut expected = failed(&[1], FIRST, error.clone());
    expected.push(replied(2, 0, Err(error.clone())));
    assert_eq!(arrive(&mut state, 2, Barrier, &[(0, "")]), expected);
    assert_eq!(state, ContextBarrierState { closed: Some(error), ..between_rounds(3, 0, 1) });
}

#[test]
fn a_withdraw_undoes_all_repeats_of_the_arrival() {
    let mut state = gang(3);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, "")]);
    arrive(&mut state, 2, Barrier, &[(0, "")]);
    assert_eq!(withdraw(&mut state, 0, 0), []);
    assert_eq!(state, in_round(3, FIRST, Barrier, &[(1, "")], &[1, 2]));
}

#[test]
fn the_last_withdraw_ends_the_round_and_keeps_the_epoch() {
    let mut state = gang(3);
    arrive(&mut state, 1, AllGather, &[(0, "a")]);
    arrive(&mut state, 2, AllGather, &[(1, "b")]);
    assert_eq!(withdraw(&mut state, 0, 0), []);
    assert_eq!(withdraw(&mut state, 0, 1), failed(&[1, 2], FIRST, withdrawn(0)));
    assert_eq!(state, between_rounds(3, 0, 1));
    assert!(!state.is_closed());
}

#[test]
fn a_reopened_round_has_other_timer_keys_and_any_method_and_is_released() {
    let mut state = gang(2);
    arrive(&mut state, 1, AllGather, &[(0, "a")]);
    withdraw(&mut state, 0, 0);
    assert_eq!(arrive(&mut state, 2, Barrier, &[(0, "")]), opened(FIRST_REOPENED, Barrier));
    assert_eq!(state, in_round(2, FIRST_REOPENED, Barrier, &[(0, "")], &[2]));
    let effects = arrive(&mut state, 3, Barrier, &[(1, "")]);
    assert_eq!(effects, released(&[2, 3], FIRST_REOPENED, Barrier, &[]));
    assert_eq!(state, between_rounds(2, 1, 2));
}

#[test]
fn a_withdraw_after_the_release_is_ignored() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, "")]);
    assert_ignored(&mut state, BarrierEvent::WithdrawSync(withdrawal(0, 0)));
}

#[test]
fn a_withdraw_of_another_epoch_is_ignored() {
    let mut state = gang(2);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, "")]);
    arrive(&mut state, 2, Barrier, &[(0, "")]);
    for epoch in [0, 2] {
        assert_ignored(&mut state, BarrierEvent::WithdrawSync(withdrawal(epoch, 0)));
    }
}

#[test]
fn a_withdraw_of_another_task_attempt_or_partition_or_stage_attempt_is_ignored() {
    let mut state = gang(3);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, "")]);
    let good = withdrawal(0, 0);
    let wrong = [
        WithdrawSync { task_attempt: TaskAttemptId(5), ..good.clone() },
        WithdrawSync { task_attempt: task(1), ..good.clone() },
        WithdrawSync { partition: PartitionId(3), ..good.clone() },
        WithdrawSync { partition: PartitionId(u32::MAX), ..good.clone() },
        WithdrawSync { attempt: StageAttemptId { attempt: 0, ..ATTEMPT }, ..good.clone() },
        WithdrawSync { attempt: StageAttemptId { stage: StageId(8), ..ATTEMPT }, ..good },
    ];
    for withdraw in wrong {
        assert_ignored(&mut state, BarrierEvent::WithdrawSync(withdraw));
    }
}

#[test]
fn a_withdraw_of_one_who_has_not_arrived_is_ignored() {
    let mut idle = gang(3);
    assert_ignored(&mut idle, BarrierEvent::WithdrawSync(withdrawal(0, 2)));
    let mut open = gang(3);
    arrive(&mut open, 1, Barrier, &[(0, ""), (1, "")]);
    assert_ignored(&mut open, BarrierEvent::WithdrawSync(withdrawal(0, 2)));
}

#[test]
fn a_second_withdraw_is_ignored() {
    let mut state = gang(3);
    arrive(&mut state, 1, Barrier, &[(0, ""), (1, "")]);
    withdraw(&mut state, 0, 0);
    assert_ignored(&mut state, BarrierEvent::WithdrawSync(withdrawal(0, 0)));
    withdraw(&mut state, 0, 1);
    assert_ignored(&mut state, BarrierEvent::WithdrawSync(withdrawal(0, 1)));
}

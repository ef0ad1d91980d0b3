use super::*;

/// A gang of three at epoch 1: idle, with one in the round, and with one missing.
fn healthy_gangs() -> [ContextBarrierState; 3] {
    let idle = between_rounds(3, 1, 1);
    let mut one_in = idle.clone();
    arrive(&mut one_in, 1, AllGather, &[(0, "a")]);
    let mut one_missing = one_in.clone();
    arrive(&mut one_missing, 2, AllGather, &[(1, "b")]);
    [idle, one_in, one_missing]
}

/// Partition 2 sends a request spoiled so: only it is refused, whatever the gang does and whatever
/// call it made, and the round goes on to its release.
#[track_caller]
fn assert_only_the_sender_is_refused(spoil: impl Fn(&mut RequestToSync), error: SyncError) {
    for gang in healthy_gangs() {
        for method in METHODS {
            let mut state = gang.clone();
            let mut bad = request(&state, method, &[(2, "c")]);
            spoil(&mut bad);
            assert_refused(&mut state, 9, bad, error.clone());
        }
    }
    let [_, _, mut one_missing] = healthy_gangs();
    let mut bad = request(&one_missing, Barrier, &[(2, "c")]);
    spoil(&mut bad);
    send(&mut one_missing, 9, bad);
    let effects = arrive(&mut one_missing, 3, AllGather, &[(2, "c")]);
    assert_eq!(effects, released(&[1, 2, 3], SECOND, AllGather, &["a", "b", "c"]));
}

fn wrong_epoch(sent: u64) -> SyncError {
    let (partition, sent, current) = (PartitionId(2), Epoch(sent), Epoch(1));
    SyncError::WrongEpoch { attempt: ATTEMPT, partition, sent, current }
}

#[test]
fn a_request_of_an_epoch_that_has_passed_is_refused_alone() {
    assert_only_the_sender_is_refused(|bad| bad.epoch = Epoch(0), wrong_epoch(0));
}

#[test]
fn a_request_of_an_epoch_to_come_is_refused_alone() {
    assert_only_the_sender_is_refused(|bad| bad.epoch = Epoch(2), wrong_epoch(2));
    assert_only_the_sender_is_refused(|bad| bad.epoch = Epoch(u64::MAX), wrong_epoch(u64::MAX));
}

#[test]
fn a_request_with_another_number_of_tasks_is_refused_alone() {
    for sent in [0, 2, 4, u32::MAX] {
        let (partition, expected) = (PartitionId(2), 3);
        let error = SyncError::WrongNumTasks { attempt: ATTEMPT, partition, sent, expected };
        assert_only_the_sender_is_refused(|bad| bad.num_tasks = sent, error);
    }
}

#[test]
fn a_request_of_a_partition_out_of_range_is_refused_alone() {
    for partition in [3, u32::MAX].map(PartitionId) {
        let error = SyncError::PartitionOutOfRange { attempt: ATTEMPT, partition, num_tasks: 3 };
        assert_only_the_sender_is_refused(|bad| bad.arrivals[0].partition = partition, error);
    }
}

fn wrong_task_attempt(sent: TaskAttemptId) -> SyncError {
    let (partition, expected) = (PartitionId(2), task(2));
    SyncError::WrongTaskAttempt { attempt: ATTEMPT, partition, sent, expected }
}

#[test]
fn a_request_of_a_former_task_attempt_is_refused_alone() {
    let former = TaskAttemptId(5);
    let spoil = |bad: &mut RequestToSync| bad.arrivals[0].task_attempt = former;
    assert_only_the_sender_is_refused(spoil, wrong_task_attempt(former));
}

#[test]
fn a_request_under_the_task_attempt_of_another_partition_is_refused_alone() {
    let spoil = |bad: &mut RequestToSync| bad.arrivals[0].task_attempt = task(1);
    assert_only_the_sender_is_refused(spoil, wrong_task_attempt(task(1)));
}

#[test]
fn a_request_that_names_no_task_is_refused_alone() {
    let error = SyncError::NoArrivals { attempt: ATTEMPT };
    assert_only_the_sender_is_refused(|bad| bad.arrivals.clear(), error);
}

#[test]
fn a_request_of_another_attempt_is_refused_alone_and_under_the_attempt_it_asked_for() {
    let other_try = StageAttemptId { attempt: 0, ..ATTEMPT };
    let other_stage = StageAttemptId { stage: StageId(8), ..ATTEMPT };
    for attempt in [other_try, other_stage] {
        let error = SyncError::NotOpen { attempt };
        assert_only_the_sender_is_refused(|bad| bad.attempt = attempt, error);
    }
}

#[test]
fn one_bad_arrival_refuses_the_whole_message() {
    let [_, _, mut state] = healthy_gangs();
    let former = TaskAttemptId(5);
    let mut bad = request(&state, AllGather, &[(0, "a"), (1, "b"), (2, "c")]);
    bad.arrivals[2].task_attempt = former;
    assert_refused(&mut state, 9, bad, wrong_task_attempt(former));
    let mut bad = request(&state, AllGather, &[(2, "c"), (1, "b")]);
    bad.arrivals[1].partition = PartitionId(3);
    let (partition, num_tasks) = (PartitionId(3), 3);
    let error = SyncError::PartitionOutOfRange { attempt: ATTEMPT, partition, num_tasks };
    assert_refused(&mut state, 9, bad, error);
}

#[test]
fn a_request_of_an_epoch_just_released_is_refused_even_by_a_member_of_that_round() {
    let mut state = gang(2);
    let late = request(&state, AllGather, &[(1, "b")]);
    arrive(&mut state, 1, AllGather, &[(0, "a"), (1, "b")]);
    let (partition, sent, current) = (PartitionId(1), Epoch(0), Epoch(1));
    let error = SyncError::WrongEpoch { attempt: ATTEMPT, partition, sent, current };
    assert_refused(&mut state, 2, late, error);
}

#[test]
fn a_gang_of_no_tasks_refuses_whatever_comes() {
    let mut state = gang(0);
    let (attempt, partition) = (ATTEMPT, PartitionId(0));
    let empty = request(&state, Barrier, &[]);
    assert_refused(&mut state, 1, empty, SyncError::NoArrivals { attempt });
    let one = request(&state, Barrier, &[(0, "")]);
    let error = SyncError::PartitionOutOfRange { attempt, partition, num_tasks: 0 };
    assert_refused(&mut state, 2, one.clone(), error);
    let error = SyncError::WrongNumTasks { attempt, partition, sent: 1, expected: 0 };
    assert_refused(&mut state, 3, RequestToSync { num_tasks: 1, ..one }, error);
    assert_ignored(&mut state, leaves(0, LeaveReason::Returned));
    assert_ignored(&mut state, BarrierEvent::WithdrawSync(withdrawal(0, 0)));
    assert_ignored(&mut state, BarrierEvent::TimerFired(timer(FIRST, Timeout)));
}

/// Threads of one task cannot get this far, `TaskSync` refuses them; whoever speaks to the barrier
/// itself can.
#[test]
fn a_task_that_has_arrived_cannot_make_another_call() {
    let [_, one_in, _] = healthy_gangs();
    for called in [Barrier, Broadcast, AllReduce] {
        let mut state = one_in.clone();
        let second = request(&state, called, &[(0, "a")]);
        let (partition, epoch, waiting) = (PartitionId(0), Epoch(1), AllGather);
        let error =
            SyncError::ConcurrentCall { attempt: ATTEMPT, partition, epoch, waiting, called };
        assert_refused(&mut state, 9, second, error);
    }
}

use super::*;
use crate::{CloseReason, StageId, TaskFailure};
use SyncMethod::{AllGather, AllReduce, Barrier, Broadcast};

mod answered;
mod ending;

const ATTEMPT: StageAttemptId = StageAttemptId { stage: StageId(2), attempt: 1 };
const PARTITION: PartitionId = PartitionId(1);
const TASK_ATTEMPT: TaskAttemptId = TaskAttemptId(42);

fn task() -> TaskSync {
    TaskSync::new(ATTEMPT, 3, PARTITION, TASK_ATTEMPT)
}

fn idle(epoch: u64) -> TaskSync {
    TaskSync { epoch: Epoch(epoch), ..task() }
}

fn waiting(epoch: u64, method: SyncMethod, message: &'static str, calls: &[u64]) -> TaskSync {
    let call = Call { method, message: Bytes::from_static(message.as_bytes()) };
    let callers = calls.iter().copied().map(CallId).collect();
    TaskSync { state: State::Waiting { call, callers }, ..idle(epoch) }
}

fn withdrawn(epoch: u64) -> TaskSync {
    TaskSync { state: State::Withdrawn, ..idle(epoch) }
}

fn unclaimed(epoch: u64, release: Release) -> TaskSync {
    TaskSync { state: State::Unclaimed { release }, ..idle(epoch) }
}

fn feed(state: &mut TaskSync, event: TaskSyncEvent) -> Vec<TaskSyncEffect> {
    let mut effects = Vec::new();
    state.handle(event, &mut effects);
    effects
}

fn call(id: u64, method: SyncMethod, message: &'static str) -> TaskSyncEvent {
    let message = Bytes::from_static(message.as_bytes());
    TaskSyncEvent::Call { call: CallId(id), method, message }
}

fn taken(id: u64) -> TaskSyncEvent {
    TaskSyncEvent::Taken(CallId(id))
}

fn dropped(id: u64) -> TaskSyncEvent {
    TaskSyncEvent::Dropped(CallId(id))
}

fn reply(epoch: u64, result: Result<Release, SyncError>) -> TaskSyncEvent {
    TaskSyncEvent::Reply(SyncReply { attempt: ATTEMPT, epoch: Epoch(epoch), result })
}

fn release(method: SyncMethod, messages: &[&'static str]) -> Release {
    let bytes = |message: &&'static str| Bytes::from_static(message.as_bytes());
    let messages = messages.iter().map(bytes).collect::<Vec<_>>().into();
    Release { method, messages }
}

/// What the gang gathers if this task brings "b".
fn gathered() -> Release {
    release(AllGather, &["a", "b", "c"])
}

fn arrive(epoch: u64, method: SyncMethod, message: &'static str) -> TaskSyncEffect {
    TaskSyncEffect::Arrive(SyncArrival {
        attempt: ATTEMPT,
        num_tasks: 3,
        epoch: Epoch(epoch),
        method,
        arrival: Arrival {
            partition: PARTITION,
            task_attempt: TASK_ATTEMPT,
            message: Bytes::from_static(message.as_bytes()),
        },
    })
}

fn withdraw(epoch: u64) -> TaskSyncEffect {
    let (attempt, epoch, partition, task_attempt) =
        (ATTEMPT, Epoch(epoch), PARTITION, TASK_ATTEMPT);
    TaskSyncEffect::Withdraw(WithdrawSync { attempt, epoch, partition, task_attempt })
}

fn leave(reason: LeaveReason) -> TaskSyncEffect {
    let (attempt, partition, task_attempt) = (ATTEMPT, PARTITION, TASK_ATTEMPT);
    TaskSyncEffect::Leave(TaskLeft { attempt, partition, task_attempt, reason })
}

fn complete(calls: &[u64], result: Result<Release, SyncError>) -> TaskSyncEffect {
    TaskSyncEffect::Complete { calls: calls.iter().copied().map(CallId).collect(), result }
}

fn failure() -> SyncError {
    SyncError::AttemptClosed { attempt: ATTEMPT, reason: CloseReason::Cancelled("enough".into()) }
}

fn withdrawn_by_all() -> SyncError {
    SyncError::Withdrawn { attempt: ATTEMPT, epoch: Epoch(0) }
}

fn abandoned() -> SyncError {
    SyncError::AbandonedCall { attempt: ATTEMPT, partition: PARTITION, epoch: Epoch(0) }
}

fn kill(reason: &str) -> TaskSyncEvent {
    TaskSyncEvent::Kill { reason: reason.into() }
}

fn killed(reason: &str) -> SyncError {
    SyncError::Killed { attempt: ATTEMPT, partition: PARTITION, reason: reason.into() }
}

#[track_caller]
fn assert_ignored(state: &mut TaskSync, event: TaskSyncEvent) {
    let before = state.clone();
    assert_eq!(feed(state, event), []);
    assert_eq!(*state, before, "an ignored event changes nothing");
}

#[test]
fn a_call_asks_the_coordinator_for_the_current_epoch() {
    for method in [Barrier, AllGather, Broadcast, AllReduce] {
        let mut state = idle(5);
        assert_eq!(feed(&mut state, call(1, method, "b")), [arrive(5, method, "b")]);
        assert_eq!(state, waiting(5, method, "b", &[1]));
        assert!(state.is_waiting());
        assert_eq!(state.task_attempt(), TASK_ATTEMPT);
    }
}

#[test]
fn a_release_completes_the_call_with_its_result_and_advances_the_epoch() {
    let mut state = task();
    feed(&mut state, call(1, AllGather, "b"));
    let effects = feed(&mut state, reply(0, Ok(gathered())));
    assert_eq!(effects, [complete(&[1], Ok(gathered()))]);
    assert_eq!(feed(&mut state, taken(1)), []);
    assert_eq!(state, idle(1));
    assert_eq!(feed(&mut state, call(2, Barrier, "")), [arrive(1, Barrier, "")]);
    assert_eq!(state, waiting(1, Barrier, "", &[2]));
}

#[test]
fn a_failure_completes_the_call_and_the_next_call_asks_for_the_same_epoch() {
    let mut state = waiting(3, AllGather, "b", &[1]);
    let effects = feed(&mut state, reply(3, Err(failure())));
    assert_eq!(effects, [complete(&[1], Err(failure()))]);
    assert_eq!(state, idle(3));
    assert_eq!(feed(&mut state, call(2, Barrier, "")), [arrive(3, Barrier, "")]);
}

#[test]
fn two_concurrent_identical_calls_are_one_arrival_and_both_are_completed() {
    for result in [Ok(gathered()), Err(failure())] {
        let mut state = task();
        assert_eq!(feed(&mut state, call(1, AllGather, "b")), [arrive(0, AllGather, "b")]);
        assert_eq!(feed(&mut state, call(2, AllGather, "b")), []);
        assert_eq!(state, waiting(0, AllGather, "b", &[1, 2]));
        let effects = feed(&mut state, reply(0, result.clone()));
        assert_eq!(effects, [complete(&[1, 2], result.clone())]);
        assert_eq!(feed(&mut state, taken(1)), []);
        assert_eq!(state, idle(u64::from(result.is_ok())));
    }
}

/// The second call has the error alone, and the first is released as if there were no second.
#[track_caller]
fn assert_second_call_is_refused(method: SyncMethod, message: &'static str, error: SyncError) {
    let mut state = waiting(0, AllGather, "b", &[1]);
    let effects = feed(&mut state, call(2, method, message));
    assert_eq!(effects, [complete(&[2], Err(error))]);
    assert_eq!(state, waiting(0, AllGather, "b", &[1]));
    let effects = feed(&mut state, reply(0, Ok(gathered())));
    assert_eq!(effects, [complete(&[1], Ok(gathered()))]);
}

#[test]
fn a_concurrent_call_of_another_method_is_refused_alone() {
    let (attempt, partition, epoch) = (ATTEMPT, PARTITION, Epoch(0));
    let (waiting, called) = (AllGather, AllReduce);
    let error = SyncError::ConcurrentCall { attempt, partition, epoch, waiting, called };
    assert_second_call_is_refused(AllReduce, "b", error);
}

#[test]
fn a_concurrent_call_with_another_message_is_refused_alone() {
    let (attempt, partition, epoch) = (ATTEMPT, PARTITION, Epoch(0));
    let error = SyncError::ConflictingMessage { attempt, partition, epoch };
    assert_second_call_is_refused(AllGather, "z", error);
}

#[test]
fn dropping_the_only_call_withdraws() {
    let mut state = waiting(4, AllGather, "b", &[1]);
    assert_eq!(feed(&mut state, dropped(1)), [withdraw(4)]);
    assert_eq!(state, withdrawn(4));
    assert!(!state.is_waiting());
}

#[test]
fn dropping_one_of_two_calls_does_not_withdraw_but_dropping_both_does() {
    let mut state = waiting(0, AllGather, "b", &[1, 2]);
    assert_eq!(feed(&mut state, dropped(1)), []);
    assert_eq!(state, waiting(0, AllGather, "b", &[2]));
    assert_eq!(feed(&mut state.clone(), dropped(2)), [withdraw(0)]);
    let effects = feed(&mut state, reply(0, Ok(gathered())));
    assert_eq!(effects, [complete(&[2], Ok(gathered()))]);
    assert_eq!(feed(&mut state, taken(2)), []);
    assert_eq!(state, idle(1));
}

#[test]
fn dropping_a_call_that_does_not_wait_is_ignored() {
    let mut refused_before = waiting(0, AllGather, "b", &[1]);
    feed(&mut refused_before, call(2, AllGather, "z"));
    for mut state in [idle(0), refused_before, withdrawn(0), unclaimed(0, gathered())] {
        assert_ignored(&mut state, dropped(2));
    }
}

#[test]
fn after_a_dropped_call_the_same_or_another_call_arrives_at_the_same_epoch() {
    for (method, message, released) in
        [(AllGather, "b", gathered()), (Barrier, "", release(Barrier, &[]))]
    {
        let mut state = waiting(4, AllGather, "b", &[1]);
        feed(&mut state, dropped(1));
        assert_eq!(feed(&mut state, call(2, method, message)), [arrive(4, method, message)]);
        assert_eq!(state, waiting(4, method, message, &[2]));
        let effects = feed(&mut state, reply(4, Ok(released.clone())));
        assert_eq!(effects, [complete(&[2], Ok(released))]);
        assert_eq!(feed(&mut state, taken(2)), []);
        assert_eq!(state, idle(5));
    }
}

#[test]
fn a_release_after_the_withdraw_is_kept_and_completes_the_same_call_at_once() {
    for (method, message, released) in
        [(AllGather, "b", gathered()), (Barrier, "", release(Barrier, &[]))]
    {
        let mut state = waiting(0, method, message, &[1]);
        feed(&mut state, dropped(1));
        assert_eq!(feed(&mut state, reply(0, Ok(released.clone()))), []);
        assert_eq!(state, unclaimed(0, released.clone()));
        assert_eq!(state.epoch(), Epoch(0));
        let effects = feed(&mut state, call(2, method, message));
        assert_eq!(effects, [complete(&[2], Ok(released))]);
        assert_eq!(feed(&mut state, taken(2)), []);
        assert_eq!(state, idle(1));
    }
}

#[test]
fn another_call_than_the_one_released_after_the_withdraw_is_told_and_the_epoch_advances() {
    for (method, message) in [(AllGather, "z"), (AllReduce, "b"), (Barrier, "")] {
        let mut state = unclaimed(0, gathered());
        let effects = feed(&mut state, call(2, method, message));
        assert_eq!(effects, [complete(&[2], Err(abandoned()))]);
        assert_eq!(state, idle(1));
        assert_eq!(feed(&mut state, call(3, Barrier, "")), [arrive(1, Barrier, "")]);
    }
}

#[test]
fn a_release_of_the_dropped_call_completes_the_same_call_that_waits_since() {
    let mut state = waiting(0, AllGather, "b", &[1]);
    feed(&mut state, dropped(1));
    feed(&mut state, call(2, AllGather, "b"));
    let effects = feed(&mut state, reply(0, Ok(gathered())));
    assert_eq!(effects, [complete(&[2], Ok(gathered()))]);
    assert_eq!(feed(&mut state, taken(2)), []);
    assert_eq!(state, idle(1));
    // Whatever the second request was told, it is settled.
    assert_ignored(&mut state, reply(0, Err(failure())));
}

#[test]
fn a_release_of_the_dropped_call_fails_another_call_that_waits_since() {
    for (method, message) in [(AllGather, "z"), (Barrier, "")] {
        let mut state = waiting(0, AllGather, "b", &[1]);
        feed(&mut state, dropped(1));
        feed(&mut state, call(2, method, message));
        let effects = feed(&mut state, reply(0, Ok(gathered())));
        assert_eq!(effects, [complete(&[2], Err(abandoned()))]);
        assert_eq!(state, idle(1));
    }
}

#[test]
fn a_withdrawn_reply_to_the_dropped_call_does_not_end_the_one_that_waits_since() {
    let mut state = waiting(0, AllGather, "b", &[1]);
    feed(&mut state, dropped(1));
    feed(&mut state, call(2, AllGather, "b"));
    assert_ignored(&mut state, reply(0, Err(withdrawn_by_all())));
    let effects = feed(&mut state, reply(0, Ok(gathered())));
    assert_eq!(effects, [complete(&[2], Ok(gathered()))]);
    assert_eq!(feed(&mut state, taken(2)), []);
    assert_eq!(state, idle(1));
}

#[test]
fn a_failure_after_the_withdraw_answers_nobody_and_the_next_call_arrives_again() {
    for error in [failure(), withdrawn_by_all()] {
        let mut state = withdrawn(0);
        assert_eq!(feed(&mut state, reply(0, Err(error))), []);
        assert!(!state.is_waiting());
        assert_eq!(feed(&mut state, call(2, Barrier, "")), [arrive(0, Barrier, "")]);
        assert_eq!(state, waiting(0, Barrier, "", &[2]));
    }
}

#[test]
fn replies_of_other_epochs_and_attempts_are_ignored() {
    let waits = waiting(1, AllGather, "b", &[1]);
    for state in [idle(1), waits, withdrawn(1), unclaimed(1, gathered())] {
        for result in [Ok(gathered()), Err(failure()), Err(withdrawn_by_all())] {
            let former_try = StageAttemptId { attempt: 0, ..ATTEMPT };
            let other_stage = StageAttemptId { stage: StageId(3), ..ATTEMPT };
            for (attempt, epoch) in [(ATTEMPT, 0), (ATTEMPT, 2), (former_try, 1), (other_stage, 1)]
            {
                let (epoch, result) = (Epoch(epoch), result.clone());
                let other = TaskSyncEvent::Reply(SyncReply { attempt, epoch, result });
                assert_ignored(&mut state.clone(), other);
            }
        }
    }
}

#[test]
fn replies_that_nobody_waits_for_are_ignored() {
    for result in [Err(failure()), Err(withdrawn_by_all())] {
        for mut state in [idle(0), unclaimed(0, gathered())] {
            assert_ignored(&mut state, reply(0, result.clone()));
        }
    }
    assert_ignored(&mut unclaimed(0, gathered()), reply(0, Ok(gathered())));
}

/// Found by the model checker: without this the task would stay behind its gang for ever.
#[test]
fn a_release_by_a_belated_copy_of_a_request_is_kept_although_the_call_since_was_refused() {
    let mut state = waiting(0, AllGather, "b", &[1]);
    feed(&mut state, dropped(1));
    feed(&mut state, call(2, Barrier, ""));
    feed(&mut state, reply(0, Err(failure())));
    assert_eq!(state, idle(0));
    assert_eq!(feed(&mut state, reply(0, Ok(gathered()))), []);
    assert_eq!(state, unclaimed(0, gathered()));
    assert_eq!(feed(&mut state, call(3, Barrier, "")), [complete(&[3], Err(abandoned()))]);
    assert_eq!(feed(&mut state, call(4, Barrier, "")), [arrive(1, Barrier, "")]);
}

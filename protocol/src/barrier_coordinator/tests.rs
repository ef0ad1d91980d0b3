use super::*;
use crate::{Epoch, StageId, SyncMethod, TaskAttemptId};
use std::time::Duration;

const FIRST: StageAttemptId = StageAttemptId { stage: StageId(4), attempt: 0 };
const RETRY: StageAttemptId = StageAttemptId { stage: StageId(4), attempt: 1 };
const OTHER_STAGE: StageAttemptId = StageAttemptId { stage: StageId(5), attempt: 0 };

fn open_message(attempt: StageAttemptId) -> OpenBarrier {
    let task_attempts = vec![TaskAttemptId(10), TaskAttemptId(11)];
    OpenBarrier { attempt, task_attempts, sync_timeout: Duration::from_secs(60) }
}

fn open(attempt: StageAttemptId) -> CoordinatorEvent {
    CoordinatorEvent::Open(open_message(attempt))
}

fn completed(attempt: StageAttemptId, reason: CloseReason) -> CoordinatorEvent {
    CoordinatorEvent::StageCompleted(StageCompleted { attempt, reason })
}

fn request_message(attempt: StageAttemptId) -> RequestToSync {
    let (epoch, method, arrivals) = (Epoch(3), SyncMethod::Barrier, Vec::new());
    RequestToSync { attempt, num_tasks: 2, epoch, method, arrivals }
}

fn request(attempt: StageAttemptId) -> CoordinatorEvent {
    let request = request_message(attempt);
    CoordinatorEvent::RequestToSync { request, reply_to: ReplyToken(7) }
}

fn feed(state: &mut BarrierCoordinator, event: CoordinatorEvent) -> Vec<CoordinatorEffect> {
    let mut effects = Vec::new();
    state.handle(event, &mut effects);
    effects
}

fn with_open(attempts: &[StageAttemptId]) -> BarrierCoordinator {
    BarrierCoordinator { open: attempts.iter().copied().collect(), stopped: false }
}

fn stopped() -> BarrierCoordinator {
    BarrierCoordinator { open: BTreeSet::new(), stopped: true }
}

fn close_child(attempt: StageAttemptId, reason: CloseReason) -> CoordinatorEffect {
    CoordinatorEffect::CloseChild { attempt, reason }
}

fn forwarded(attempt: StageAttemptId) -> CoordinatorEffect {
    let request = request_message(attempt);
    CoordinatorEffect::Forward { request, reply_to: ReplyToken(7) }
}

fn refused(attempt: StageAttemptId, error: SyncError) -> CoordinatorEffect {
    let reply = SyncReply { attempt, epoch: Epoch(3), result: Err(error) };
    CoordinatorEffect::Refuse { to: ReplyToken(7), reply }
}

fn not_open(attempt: StageAttemptId) -> CoordinatorEffect {
    refused(attempt, SyncError::NotOpen { attempt })
}

#[test]
fn open_starts_a_child() {
    let mut state = BarrierCoordinator::new();
    let effects = feed(&mut state, open(FIRST));
    assert_eq!(effects, [CoordinatorEffect::StartChild(open_message(FIRST))]);
    assert_eq!(state, with_open(&[FIRST]));
}

#[test]
fn a_repeated_open_of_an_open_attempt_is_ignored() {
    let mut state = with_open(&[FIRST]);
    let mut differing = open_message(FIRST);
    differing.task_attempts.clear();
    for repeat in [open(FIRST), CoordinatorEvent::Open(differing)] {
        assert_eq!(feed(&mut state, repeat), []);
        assert_eq!(state, with_open(&[FIRST]));
    }
}

#[test]
fn a_request_for_an_open_attempt_is_forwarded() {
    let mut state = with_open(&[FIRST]);
    assert_eq!(feed(&mut state, request(FIRST)), [forwarded(FIRST)]);
    assert_eq!(state, with_open(&[FIRST]));
}

#[test]
fn a_request_for_an_unknown_attempt_is_refused_under_the_attempt_and_epoch_it_asked_for() {
    let mut state = with_open(&[FIRST]);
    for attempt in [RETRY, OTHER_STAGE] {
        assert_eq!(feed(&mut state, request(attempt)), [not_open(attempt)]);
        assert_eq!(state, with_open(&[FIRST]));
    }
}

#[test]
fn a_request_for_a_completed_attempt_is_refused_and_does_not_open_it_again() {
    let mut state = with_open(&[FIRST]);
    feed(&mut state, completed(FIRST, CloseReason::Succeeded));
    for _ in 0..3 {
        assert_eq!(feed(&mut state, request(FIRST)), [not_open(FIRST)]);
        assert_eq!(state, with_open(&[]));
    }
}

#[test]
fn a_request_for_an_attempt_whose_child_died_is_refused_and_does_not_open_it_again() {
    let mut state = with_open(&[FIRST]);
    feed(&mut state, CoordinatorEvent::ChildStopped(FIRST));
    for _ in 0..3 {
        assert_eq!(feed(&mut state, request(FIRST)), [not_open(FIRST)]);
        assert_eq!(state, with_open(&[]));
    }
}

#[test]
fn stage_completed_closes_the_child_with_its_reason() {
    let reasons = [
        CloseReason::Succeeded,
        CloseReason::Failed("no data".into()),
        CloseReason::Cancelled("not needed".into()),
        CloseReason::Shutdown,
    ];
    for reason in reasons {
        let mut state = with_open(&[FIRST]);
        let effects = feed(&mut state, completed(FIRST, reason.clone()));
        assert_eq!(effects, [close_child(FIRST, reason)]);
        assert_eq!(state, with_open(&[]));
    }
}

#[test]
fn a_second_stage_completed_is_ignored() {
    let mut state = with_open(&[FIRST]);
    feed(&mut state, completed(FIRST, CloseReason::Succeeded));
    for reason in [CloseReason::Succeeded, CloseReason::Failed("late".into())] {
        assert_eq!(feed(&mut state, completed(FIRST, reason)), []);
        assert_eq!(state, with_open(&[]));
    }
}

#[test]
fn stage_completed_of_an_unknown_attempt_is_ignored() {
    let mut state = with_open(&[FIRST]);
    assert_eq!(feed(&mut state, completed(RETRY, CloseReason::Succeeded)), []);
    assert_eq!(state, with_open(&[FIRST]));
}

#[test]
fn a_child_that_stops_while_its_attempt_is_open_is_reported_lost_once() {
    let mut state = with_open(&[FIRST]);
    let effects = feed(&mut state, CoordinatorEvent::ChildStopped(FIRST));
    assert_eq!(effects, [CoordinatorEffect::ReportBarrierLost(FIRST)]);
    assert_eq!(state, with_open(&[]));
    assert_eq!(feed(&mut state, CoordinatorEvent::ChildStopped(FIRST)), []);
    assert_eq!(state, with_open(&[]));
}

#[test]
fn a_child_that_stops_after_stage_completed_is_no_loss() {
    let mut state = with_open(&[FIRST, RETRY]);
    feed(&mut state, completed(FIRST, CloseReason::Succeeded));
    assert_eq!(feed(&mut state, CoordinatorEvent::ChildStopped(FIRST)), []);
    assert_eq!(state, with_open(&[RETRY]));
}

#[test]
fn stage_completed_after_the_child_was_reported_lost_is_ignored() {
    let mut state = with_open(&[FIRST]);
    feed(&mut state, CoordinatorEvent::ChildStopped(FIRST));
    let late = completed(FIRST, CloseReason::Failed("lost its barrier coordinator".into()));
    assert_eq!(feed(&mut state, late), []);
    assert_eq!(state, with_open(&[]));
}

#[test]
fn shutdown_closes_all_attempts_in_order() {
    let mut state = with_open(&[OTHER_STAGE, FIRST, RETRY]);
    let effects = feed(&mut state, CoordinatorEvent::Shutdown);
    let closed = [FIRST, RETRY, OTHER_STAGE].map(|open| close_child(open, CloseReason::Shutdown));
    assert_eq!(effects, closed);
    assert_eq!(state, stopped());
}

#[test]
fn after_a_shutdown_nothing_opens_and_requests_are_refused_with_that_reason() {
    let mut state = with_open(&[FIRST]);
    feed(&mut state, CoordinatorEvent::Shutdown);
    for attempt in [FIRST, RETRY] {
        assert_eq!(feed(&mut state, open(attempt)), []);
        let reason = CloseReason::Shutdown;
        let refusal = refused(attempt, SyncError::AttemptClosed { attempt, reason });
        assert_eq!(feed(&mut state, request(attempt)), [refusal]);
        assert_eq!(state, stopped());
    }
}

#[test]
fn after_a_shutdown_late_news_of_its_children_is_ignored() {
    let mut state = with_open(&[FIRST]);
    feed(&mut state, CoordinatorEvent::Shutdown);
    let late = [
        CoordinatorEvent::ChildStopped(FIRST),
        completed(FIRST, CloseReason::Succeeded),
        CoordinatorEvent::Shutdown,
    ];
    for event in late {
        assert_eq!(feed(&mut state, event), []);
        assert_eq!(state, stopped());
    }
}

#[test]
fn two_attempts_are_independent() {
    for other in [RETRY, OTHER_STAGE] {
        let mut state = with_open(&[FIRST]);
        let started = feed(&mut state, open(other));
        assert_eq!(started, [CoordinatorEffect::StartChild(open_message(other))]);
        assert_eq!(state.open_attempts().collect::<Vec<_>>(), [FIRST, other]);
        assert_eq!(feed(&mut state, request(FIRST)), [forwarded(FIRST)]);
        assert_eq!(feed(&mut state, request(other)), [forwarded(other)]);
        let effects = feed(&mut state, completed(FIRST, CloseReason::Succeeded));
        assert_eq!(effects, [close_child(FIRST, CloseReason::Succeeded)]);
        assert_eq!(state, with_open(&[other]));
        assert_eq!(feed(&mut state, request(FIRST)), [not_open(FIRST)]);
        assert_eq!(feed(&mut state, request(other)), [forwarded(other)]);
        let effects = feed(&mut state, CoordinatorEvent::ChildStopped(other));
        assert_eq!(effects, [CoordinatorEffect::ReportBarrierLost(other)]);
        assert_eq!(state, with_open(&[]));
    }
}

use super::*;
use crate::CloseReason;
use crate::{StageId, TaskFailure};
use SyncMethod::{AllGather, AllReduce, Barrier, Broadcast};
use SyncTimerKind::{ProgressLog, Timeout};

mod arrivals;
mod closing;
mod isolation;
mod leaving;
mod refusals;
mod timers;
mod withdrawals;

const ATTEMPT: StageAttemptId = StageAttemptId { stage: StageId(7), attempt: 1 };
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
const METHODS: [SyncMethod; 4] = [Barrier, AllGather, Broadcast, AllReduce];

/// Tasks with what they bring.
type Arriving<'a> = &'a [(u32, &'static str)];

/// Which round: its epoch, and how many rounds were opened before it.
#[derive(Clone, Copy)]
struct At {
    epoch: u64,
    opening: u64,
}

const FIRST: At = At { epoch: 0, opening: 0 };
const SECOND: At = At { epoch: 1, opening: 1 };
const FIRST_REOPENED: At = At { epoch: 0, opening: 1 };

fn gang(num_tasks: u32) -> ContextBarrierState {
    gang_of(ATTEMPT, num_tasks)
}

fn gang_of(attempt: StageAttemptId, num_tasks: u32) -> ContextBarrierState {
    let task_attempts = (0..num_tasks).map(task).collect();
    let open = OpenBarrier { attempt, task_attempts, sync_timeout: SYNC_TIMEOUT };
    ContextBarrierState::new(open, PROGRESS_INTERVAL)
}

fn task(partition: u32) -> TaskAttemptId {
    TaskAttemptId(100 + u64::from(partition))
}

fn between_rounds(num_tasks: u32, epoch: u64, openings: u64) -> ContextBarrierState {
    ContextBarrierState { epoch: Epoch(epoch), openings, ..gang(num_tasks) }
}

fn in_round(
    num_tasks: u32,
    at: At,
    method: SyncMethod,
    arriving: Arriving,
    waiting: &[u64],
) -> ContextBarrierState {
    let mut arrived = vec![false; num_tasks as usize];
    let has_messages = method != Barrier;
    let mut messages = vec![Bytes::new(); if has_messages { arrived.len() } else { 0 }];
    for &(partition, message) in arriving {
        arrived[partition as usize] = true;
        if has_messages {
            messages[partition as usize] = Bytes::from_static(message.as_bytes());
        }
    }
    let round = Round {
        method,
        opening: at.opening,
        arrived,
        missing: num_tasks - arriving.len() as u32,
        messages,
        waiting: waiting.iter().copied().map(ReplyToken).collect(),
    };
    ContextBarrierState {
        round: Some(round),
        ..between_rounds(num_tasks, at.epoch, at.opening + 1)
    }
}

/// What healthy tasks would send now.
fn request(state: &ContextBarrierState, method: SyncMethod, arriving: Arriving) -> RequestToSync {
    let arrivals = arriving.iter().map(|&(partition, message)| Arrival {
        partition: PartitionId(partition),
        task_attempt: task(partition),
        message: Bytes::from_static(message.as_bytes()),
    });
    RequestToSync {
        attempt: state.attempt,
        num_tasks: state.task_attempts.len() as u32,
        epoch: state.epoch,
        method,
        arrivals: arrivals.collect(),
    }
}

fn feed(state: &mut ContextBarrierState, event: BarrierEvent) -> Vec<BarrierEffect> {
    let mut effects = Vec::new();
    state.handle(event, &mut effects);
    effects
}

fn send(state: &mut ContextBarrierState, token: u64, request: RequestToSync) -> Vec<BarrierEffect> {
    feed(state, BarrierEvent::RequestToSync { request, reply_to: ReplyToken(token) })
}

fn arrive(
    state: &mut ContextBarrierState,
    token: u64,
    method: SyncMethod,
    arriving: Arriving,
) -> Vec<BarrierEffect> {
    let request = request(state, method, arriving);
    send(state, token, request)
}

fn leaves(partition: u32, reason: LeaveReason) -> BarrierEvent {
    BarrierEvent::TaskLeft(TaskLeft {
        attempt: ATTEMPT,
        partition: PartitionId(partition),
        task_attempt: task(partition),
        reason,
    })
}

fn withdrawal(epoch: u64, partition: u32) -> WithdrawSync {
    WithdrawSync {
        attempt: ATTEMPT,
        epoch: Epoch(epoch),
        partition: PartitionId(partition),
        task_attempt: task(partition),
    }
}

fn withdraw(state: &mut ContextBarrierState, epoch: u64, partition: u32) -> Vec<BarrierEffect> {
    feed(state, BarrierEvent::WithdrawSync(withdrawal(epoch, partition)))
}

fn timer(at: At, kind: SyncTimerKind) -> SyncTimer {
    SyncTimer { attempt: ATTEMPT, epoch: Epoch(at.epoch), opening: at.opening, kind }
}

fn fire(state: &mut ContextBarrierState, at: At, kind: SyncTimerKind) -> Vec<BarrierEffect> {
    feed(state, BarrierEvent::TimerFired(timer(at, kind)))
}

fn ranges(partitions: impl IntoIterator<Item = u32>) -> PartitionRanges {
    partitions.into_iter().map(PartitionId).collect()
}

fn opened(at: At, method: SyncMethod) -> Vec<BarrierEffect> {
    let (attempt, epoch) = (ATTEMPT, Epoch(at.epoch));
    vec![
        BarrierEffect::Emit(RuntimeEvent::RoundOpened { attempt, epoch, method }),
        BarrierEffect::SetTimer { key: timer(at, Timeout), after: SYNC_TIMEOUT },
        BarrierEffect::SetTimer { key: timer(at, ProgressLog), after: PROGRESS_INTERVAL },
    ]
}

fn replied(token: u64, epoch: u64, result: Result<Release, SyncError>) -> BarrierEffect {
    let reply = SyncReply { attempt: ATTEMPT, epoch: Epoch(epoch), result };
    BarrierEffect::Reply { to: ReplyToken(token), reply }
}

/// The end of a round: its timers are cancelled and each token has one answer.
fn ended(tokens: &[u64], at: At, result: Result<Release, SyncError>) -> Vec<BarrierEffect> {
    let mut effects = vec![
        BarrierEffect::CancelTimer { key: timer(at, Timeout) },
        BarrierEffect::CancelTimer { key: timer(at, ProgressLog) },
    ];
    effects.extend(tokens.iter().map(|&token| replied(token, at.epoch, result.clone())));
    effects
}

fn released(
    tokens: &[u64],
    at: At,
    method: SyncMethod,
    messages: &[&'static str],
) -> Vec<BarrierEffect> {
    let bytes = |message: &&'static str| Bytes::from_static(message.as_bytes());
    let messages = messages.iter().map(bytes).collect::<Vec<_>>().into();
    let mut effects = ended(tokens, at, Ok(Release { method, messages }));
    let (attempt, epoch) = (ATTEMPT, Epoch(at.epoch));
    let event = RuntimeEvent::RoundReleased { attempt, epoch, method };
    // After the two timers are cancelled, before anyone is answered.
    effects.insert(2, BarrierEffect::Emit(event));
    effects
}

fn failed(tokens: &[u64], at: At, error: SyncError) -> Vec<BarrierEffect> {
    let mut effects = ended(tokens, at, Err(error.clone()));
    let (attempt, epoch) = (ATTEMPT, Epoch(at.epoch));
    effects.insert(2, BarrierEffect::Emit(RuntimeEvent::RoundFailed { attempt, epoch, error }));
    effects
}

#[track_caller]
fn assert_refused(
    state: &mut ContextBarrierState,
    token: u64,
    request: RequestToSync,
    error: SyncError,
) {
    let before = state.clone();
    let (attempt, epoch) = (request.attempt, request.epoch);
    let reply = SyncReply { attempt, epoch, result: Err(error) };
    let refusal = BarrierEffect::Reply { to: ReplyToken(token), reply };
    assert_eq!(send(state, token, request), [refusal]);
    assert_eq!(*state, before, "a refused request changes nothing");
}

#[track_caller]
fn assert_ignored(state: &mut ContextBarrierState, event: BarrierEvent) {
    let before = state.clone();
    assert_eq!(feed(state, event), []);
    assert_eq!(*state, before, "an ignored event changes nothing");
}

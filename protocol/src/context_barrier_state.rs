//! The rounds of one stage attempt: who has arrived, who is missing, who waits.

mod barrier_event;

use crate::task_sync::is_same;
use crate::{
    Arrival, Epoch, LeaveReason, OpenBarrier, PartitionId, PartitionRanges, Release, ReplyToken,
    RequestToSync, RuntimeEvent, StageAttemptId, StillWaiting, SyncError, SyncMethod, SyncReply,
    SyncTimer, SyncTimerKind, TaskAttemptId, TaskLeft, WithdrawSync,
};
pub use barrier_event::{BarrierEffect, BarrierEvent};
use bytes::Bytes;
use std::time::Duration;

/// The global syncs of one stage attempt.
///
/// ```text
///            first arrival             all have arrived: reply to all, epoch + 1
///   ┌──────┐ ─────────────▶ ┌───────┐ ─────────────────────────────────────────┐
///   │ idle │                │ round │ a member left: fail all, same epoch ─────┤
///   └──────┘ ◀───────────── └───────┘ all have withdrawn ──────────────────────┤
///      ▲                        │                                              │
///      └────────────────────────┼──────────────────────────────────────────────┘
///                               │ mixed calls, timeout, StageCompleted: fail all
///                               ▼
///                           ┌────────┐
///                           │ closed │ every request is answered with the same error, for ever
///                           └────────┘
/// ```
///
/// A round is a set of (partition, task attempt), so a repeated request changes nothing. It is
/// released when the set is the whole gang, never before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContextBarrierState {
    attempt: StageAttemptId,
    sync_timeout: Duration,
    /// Pause between two progress notes to those who wait.
    progress_interval: Duration,
    /// By partition.
    task_attempts: Vec<TaskAttemptId>,
    /// Who left first. From then on no round can be completed, and this is what all are told.
    first_left: Option<(PartitionId, LeaveReason)>,
    epoch: Epoch,
    /// Rounds opened so far; tells timers of a reopened round apart.
    openings: u64,
    round: Option<Round>,
    /// Empty; the room of the last round's lists, so that the next one allocates none.
    room: (Vec<bool>, Vec<ReplyToken>),
    closed: Option<SyncError>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    method: SyncMethod,
    opening: u64,
    /// By partition.
    arrived: Vec<bool>,
    missing: u32,
    /// By partition; empty for a barrier, which has none.
    messages: Vec<Bytes>,
    /// Requests to answer, in order of arrival.
    waiting: Vec<ReplyToken>,
}

impl ContextBarrierState {
    /// The syncs of an attempt that has just been opened. `progress_interval` is the pause between
    /// two notes to those who wait.
    pub fn new(open: OpenBarrier, progress_interval: Duration) -> Self {
        ContextBarrierState {
            attempt: open.attempt,
            sync_timeout: open.sync_timeout,
            progress_interval,
            task_attempts: open.task_attempts,
            first_left: None,
            epoch: Epoch(0),
            openings: 0,
            round: None,
            room: Default::default(),
            closed: None,
        }
    }

    /// The stage attempt.
    pub fn attempt(&self) -> StageAttemptId {
        self.attempt
    }

    /// The epoch of the round that is open or comes next.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the attempt has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Who the open round waits for; `None` if no round is open.
    pub fn missing(&self) -> Option<PartitionRanges> {
        let round = self.round.as_ref()?;
        let absent = (0..).zip(&round.arrived).filter(|(_, arrived)| !**arrived);
        Some(absent.map(|(partition, _)| PartitionId(partition)).collect())
    }

    /// Takes one event and appends what is to be done.
    pub fn handle(&mut self, event: BarrierEvent, effects: &mut Vec<BarrierEffect>) {
        match event {
            BarrierEvent::RequestToSync { request, reply_to } => {
                self.request_to_sync(request, reply_to, effects);
            }
            BarrierEvent::WithdrawSync(withdraw) => self.withdraw(&withdraw, effects),
            BarrierEvent::TaskLeft(left) => self.task_left(left, effects),
            BarrierEvent::Close(reason) => {
                let error = SyncError::AttemptClosed { attempt: self.attempt, reason };
                self.close(error, effects);
            }
            BarrierEvent::TimerFired(key) => self.timer_fired(key, effects),
        }
    }

    fn request_to_sync(
        &mut self,
        request: RequestToSync,
        reply_to: ReplyToken,
        effects: &mut Vec<BarrierEffect>,
    ) {
        let (attempt, epoch) = (request.attempt, request.epoch);
        let refusal = |error| {
            let reply = SyncReply { attempt, epoch, result: Err(error) };
            BarrierEffect::Reply { to: reply_to, reply }
        };
        if let Err(error) = self.check(&request) {
            effects.push(refusal(error));
            return;
        }
        if let Some(round) = &self.round
            && round.method != request.method
        {
            let error = SyncError::MixedMethods {
                attempt: self.attempt,
                epoch: self.epoch,
                waiting: round.method,
                partition: request.arrivals[0].partition,
                called: request.method,
            };
            self.close(error.clone(), effects);
            effects.push(refusal(error));
            return;
        }
        if self.round.is_none() {
            self.open_round(request.method, effects);
        }
        let round = self.round.as_mut().expect("open since a line ago");
        for arrival in request.arrivals {
            let index = arrival.partition.0 as usize;
            if !round.arrived[index] {
                round.arrived[index] = true;
                round.missing -= 1;
                if let Some(message) = round.messages.get_mut(index) {
                    *message = arrival.message;
                }
            }
        }
        round.waiting.push(reply_to);
        if round.missing == 0 {
            self.release(effects);
        }
    }

    /// Whether the request may join the round; changes nothing.
    fn check(&self, request: &RequestToSync) -> Result<(), SyncError> {
        let attempt = self.attempt;
        if request.attempt != attempt {
            return Err(SyncError::NotOpen { attempt: request.attempt });
        }
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        let Some(first) = request.arrivals.first() else {
            return Err(SyncError::NoArrivals { attempt });
        };
        let expected = self.task_attempts.len() as u32;
        if request.num_tasks != expected {
            let (partition, sent) = (first.partition, request.num_tasks);
            return Err(SyncError::WrongNumTasks { attempt, partition, sent, expected });
        }
        for arrival in &request.arrivals {
            let partition = arrival.partition;
            let Some(&expected) = self.task_attempts.get(partition.0 as usize) else {
                let num_tasks = request.num_tasks;
                return Err(SyncError::PartitionOutOfRange { attempt, partition, num_tasks });
            };
            let sent = arrival.task_attempt;
            if sent != expected {
                return Err(SyncError::WrongTaskAttempt { attempt, partition, sent, expected });
            }
        }
        if request.epoch != self.epoch {
            let (partition, sent, current) = (first.partition, request.epoch, self.epoch);
            return Err(SyncError::WrongEpoch { attempt, partition, sent, current });
        }
        if let Some((partition, reason)) = &self.first_left {
            return Err(self.peer_left(*partition, reason));
        }
        self.check_repeats(request)
    }

    /// A task that has arrived may say so again, but not something else.
    fn check_repeats(&self, request: &RequestToSync) -> Result<(), SyncError> {
        let (attempt, epoch, called) = (self.attempt, self.epoch, request.method);
        let round = self.round.as_ref();
        let known = match round.filter(|round| round.method == called) {
            Some(round) => {
                let all = round.messages.iter().zip(&round.arrived);
                all.map(|(message, arrived)| arrived.then_some(message)).collect()
            }
            // Within one request a task may come twice as well. A barrier has no messages.
            None if called != SyncMethod::Barrier => vec![None; self.task_attempts.len()],
            None => Vec::new(),
        };
        let mut messages: Vec<Option<&Bytes>> = known;
        for Arrival { partition, message, .. } in &request.arrivals {
            let (partition, index) = (*partition, partition.0 as usize);
            if let Some(Round { method: waiting, .. }) =
                round.filter(|round| round.method != called && round.arrived[index])
            {
                let waiting = *waiting;
                return Err(SyncError::ConcurrentCall {
                    attempt,
                    partition,
                    epoch,
                    waiting,
                    called,
                });
            }
            match messages.get_mut(index) {
                Some(Some(known)) if !is_same(known, message) => {
                    return Err(SyncError::ConflictingMessage { attempt, partition, epoch });
                }
                Some(unknown @ None) => *unknown = Some(message),
                Some(Some(_)) | None => {}
            }
        }
        Ok(())
    }

    fn open_round(&mut self, method: SyncMethod, effects: &mut Vec<BarrierEffect>) {
        let num_tasks = self.task_attempts.len();
        let messages = match method {
            SyncMethod::Barrier => Vec::new(),
            SyncMethod::AllGather | SyncMethod::Broadcast | SyncMethod::AllReduce => {
                vec![Bytes::new(); num_tasks]
            }
        };
        let opening = self.openings;
        self.openings += 1;
        let (mut arrived, waiting) = std::mem::take(&mut self.room);
        arrived.resize(num_tasks, false);
        let missing = num_tasks as u32;
        self.round = Some(Round { method, opening, arrived, missing, messages, waiting });
        let key = |kind| self.timer(opening, kind);
        effects.extend([
            BarrierEffect::Emit(RuntimeEvent::RoundOpened {
                attempt: self.attempt,
                epoch: self.epoch,
                method,
            }),
            BarrierEffect::SetTimer { key: key(SyncTimerKind::Timeout), after: self.sync_timeout },
            BarrierEffect::SetTimer {
                key: key(SyncTimerKind::ProgressLog),
                after: self.progress_interval,
            },
        ]);
    }

    fn release(&mut self, effects: &mut Vec<BarrierEffect>) {
        let Some(mut round) = self.end_round(effects) else { return };
        assert_eq!(round.missing, 0, "a release reaches only a full gang");
        let messages = std::mem::take(&mut round.messages).into();
        let release = Release { method: round.method, messages };
        let (attempt, epoch, method) = (self.attempt, self.epoch, round.method);
        // Told before it has consequences.
        let released = RuntimeEvent::RoundReleased { attempt, epoch, method };
        effects.push(BarrierEffect::Emit(released));
        self.reply_to_all(round, &Ok(release), effects);
        self.epoch = Epoch(self.epoch.0 + 1);
    }

    fn withdraw(&mut self, withdraw: &WithdrawSync, effects: &mut Vec<BarrierEffect>) {
        let index = withdraw.partition.0 as usize;
        let known = withdraw.attempt == self.attempt
            && self.task_attempts.get(index) == Some(&withdraw.task_attempt);
        let Some(round) = &mut self.round else { return };
        if !known || withdraw.epoch != self.epoch || !round.arrived[index] {
            return;
        }
        round.arrived[index] = false;
        round.missing += 1;
        if let Some(message) = round.messages.get_mut(index) {
            *message = Bytes::new();
        }
        if round.missing as usize == self.task_attempts.len() {
            let error = SyncError::Withdrawn { attempt: self.attempt, epoch: self.epoch };
            self.fail_round(error, effects);
        }
    }

    fn task_left(&mut self, left: TaskLeft, effects: &mut Vec<BarrierEffect>) {
        let index = left.partition.0 as usize;
        let known = left.attempt == self.attempt
            && self.task_attempts.get(index) == Some(&left.task_attempt);
        if !known || self.first_left.is_some() || self.closed.is_some() {
            return;
        }
        let error = self.peer_left(left.partition, &left.reason);
        self.first_left = Some((left.partition, left.reason));
        self.fail_round(error, effects);
    }

    fn timer_fired(&mut self, key: SyncTimer, effects: &mut Vec<BarrierEffect>) {
        let Some(round) = &self.round else { return };
        if key != self.timer(round.opening, key.kind) {
            return;
        }
        let missing = self.missing().unwrap_or_default();
        let (attempt, epoch) = (self.attempt, self.epoch);
        match key.kind {
            SyncTimerKind::Timeout => {
                let after = self.sync_timeout;
                self.close(SyncError::Timeout { attempt, epoch, after, missing }, effects);
            }
            SyncTimerKind::ProgressLog => {
                for &to in &round.waiting {
                    let note = StillWaiting { attempt, epoch, missing: missing.clone() };
                    effects.push(BarrierEffect::NotifyWaiting { to, note });
                }
                effects.push(BarrierEffect::SetTimer { key, after: self.progress_interval });
            }
        }
    }

    /// Ends the attempt: those who wait have the error now, those who come later get it then.
    fn close(&mut self, error: SyncError, effects: &mut Vec<BarrierEffect>) {
        if self.closed.is_none() {
            self.closed = Some(error.clone());
            self.fail_round(error, effects);
        }
    }

    fn fail_round(&mut self, error: SyncError, effects: &mut Vec<BarrierEffect>) {
        let Some(round) = self.end_round(effects) else { return };
        let (attempt, epoch) = (self.attempt, self.epoch);
        // Told before it has consequences.
        let failed = RuntimeEvent::RoundFailed { attempt, epoch, error: error.clone() };
        effects.push(BarrierEffect::Emit(failed));
        self.reply_to_all(round, &Err(error), effects);
    }

    fn reply_to_all(
        &mut self,
        round: Round,
        result: &Result<Release, SyncError>,
        effects: &mut Vec<BarrierEffect>,
    ) {
        let Round { mut arrived, mut waiting, .. } = round;
        for to in waiting.drain(..) {
            let (attempt, epoch, result) = (self.attempt, self.epoch, result.clone());
            effects.push(BarrierEffect::Reply { to, reply: SyncReply { attempt, epoch, result } });
        }
        arrived.clear();
        self.room = (arrived, waiting);
    }

    fn end_round(&mut self, effects: &mut Vec<BarrierEffect>) -> Option<Round> {
        let round = self.round.take()?;
        for kind in [SyncTimerKind::Timeout, SyncTimerKind::ProgressLog] {
            effects.push(BarrierEffect::CancelTimer { key: self.timer(round.opening, kind) });
        }
        Some(round)
    }

    fn timer(&self, opening: u64, kind: SyncTimerKind) -> SyncTimer {
        SyncTimer { attempt: self.attempt, epoch: self.epoch, opening, kind }
    }

    fn peer_left(&self, partition: PartitionId, reason: &LeaveReason) -> SyncError {
        let (attempt, epoch, reason) = (self.attempt, self.epoch, reason.clone());
        SyncError::PeerLeft { attempt, epoch, partition, reason }
    }
}

#[cfg(test)]
mod tests;

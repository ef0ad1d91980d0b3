//! Barriers with one rule broken each: the model must refute them, or it proves nothing.

use super::{Barrier, partition, task_attempt};
use phalanx::protocol::{
    BarrierEffect, BarrierEvent, ContextBarrierState, Epoch, OpenBarrier, SyncError, SyncTimer,
    TaskLeft,
};
use std::time::Duration;

fn shipped(open: OpenBarrier) -> ContextBarrierState {
    ContextBarrierState::new(open, Duration::from_secs(1))
}

/// Counts requests: each is taken for the next arrival, whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Counts(ContextBarrierState);

impl Barrier for Counts {
    fn open(open: OpenBarrier) -> Self {
        Counts(shipped(open))
    }

    fn handle(&mut self, mut event: BarrierEvent, effects: &mut Vec<BarrierEffect>) {
        if let BarrierEvent::RequestToSync { request, .. } = &mut event
            && let Some(missing) = self.0.missing()
        {
            let first = missing.iter().next().map_or(0, |it| it.0 as usize);
            request.arrivals[0].partition = partition(first);
            request.arrivals[0].task_attempt = task_attempt(first);
        }
        self.0.handle(event, effects);
    }
}

/// Takes every request for one of the current epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NoEpochCheck(ContextBarrierState);

impl Barrier for NoEpochCheck {
    fn open(open: OpenBarrier) -> Self {
        NoEpochCheck(shipped(open))
    }

    fn handle(&mut self, mut event: BarrierEvent, effects: &mut Vec<BarrierEffect>) {
        if let BarrierEvent::RequestToSync { request, .. } = &mut event {
            request.epoch = self.0.epoch();
        }
        self.0.handle(event, effects);
    }
}

/// Takes every timer for one of the current round, or at least every timer of the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NoTimerCheck<const COMPARES_EPOCHS: bool> {
    barrier: ContextBarrierState,
    current: Option<(Epoch, u64)>,
}

impl<const COMPARES_EPOCHS: bool> Barrier for NoTimerCheck<COMPARES_EPOCHS> {
    fn open(open: OpenBarrier) -> Self {
        NoTimerCheck { barrier: shipped(open), current: None }
    }

    fn handle(&mut self, mut event: BarrierEvent, effects: &mut Vec<BarrierEffect>) {
        if let BarrierEvent::TimerFired(key) = &mut event
            && let Some((epoch, opening)) = self.current
            && (key.epoch == epoch || !COMPARES_EPOCHS)
        {
            *key = SyncTimer { epoch, opening, ..*key };
        }
        let before = effects.len();
        self.barrier.handle(event, effects);
        for effect in &effects[before..] {
            if let BarrierEffect::SetTimer { key, .. } = effect {
                self.current = Some((key.epoch, key.opening));
            }
        }
    }
}

/// Does not hear that a task left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NobodyLeaves(ContextBarrierState);

impl Barrier for NobodyLeaves {
    fn open(open: OpenBarrier) -> Self {
        NobodyLeaves(shipped(open))
    }

    fn handle(&mut self, event: BarrierEvent, effects: &mut Vec<BarrierEffect>) {
        if !matches!(event, BarrierEvent::TaskLeft(TaskLeft { .. })) {
            self.0.handle(event, effects);
        }
    }
}

/// Does not answer a request of another epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefusesInSilence(ContextBarrierState);

impl Barrier for RefusesInSilence {
    fn open(open: OpenBarrier) -> Self {
        RefusesInSilence(shipped(open))
    }

    fn handle(&mut self, event: BarrierEvent, effects: &mut Vec<BarrierEffect>) {
        self.0.handle(event, effects);
        effects.retain(|effect| match effect {
            BarrierEffect::Reply { reply, .. } => {
                !matches!(reply.result, Err(SyncError::WrongEpoch { .. }))
            }
            _ => true,
        });
    }
}

/// Answers the requests of a released round a second time when the next request comes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AnswersTwice {
    barrier: ContextBarrierState,
    answers: Vec<BarrierEffect>,
}

impl Barrier for AnswersTwice {
    fn open(open: OpenBarrier) -> Self {
        AnswersTwice { barrier: shipped(open), answers: Vec::new() }
    }

    fn handle(&mut self, event: BarrierEvent, effects: &mut Vec<BarrierEffect>) {
        effects.append(&mut self.answers);
        let before = effects.len();
        self.barrier.handle(event, effects);
        let new = effects[before..].iter();
        self.answers =
            new.filter(|it| matches!(it, BarrierEffect::Reply { .. })).cloned().collect();
    }
}

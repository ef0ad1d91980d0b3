//! Requests that are repeated, belated, forged and out of order: L4.

use super::Dice;
use phalanx::protocol::{
    Arrival, BarrierEffect, BarrierEvent, ContextBarrierState, OpenBarrier, ReplyToken,
    RequestToSync, SyncReply, WithdrawSync,
};
use phalanx::{Epoch, PartitionId, StageAttemptId, StageId, SyncMethod, TaskAttemptId};
use std::collections::BTreeSet;
use std::time::Duration;

const ATTEMPT: StageAttemptId = StageAttemptId { stage: StageId(4), attempt: 2 };

/// One gang's barrier, and what may be expected of it.
struct Untidy {
    dice: Dice,
    barrier: ContextBarrierState,
    tasks: usize,
    epoch: u64,
    /// Whose arrival counts in this epoch.
    arrived: BTreeSet<usize>,
    /// Whose answer is outstanding: those of genuine requests for this epoch.
    waiting: BTreeSet<ReplyToken>,
    next_token: u64,
    released: usize,
    refused: usize,
}

fn request(tasks: usize, partition: usize, epoch: u64) -> RequestToSync {
    RequestToSync {
        attempt: ATTEMPT,
        num_tasks: tasks as u32,
        epoch: Epoch(epoch),
        method: SyncMethod::AllGather,
        arrivals: vec![Arrival {
            partition: PartitionId(partition as u32),
            task_attempt: TaskAttemptId(partition as u64),
            message: format!("{epoch}/{partition}").into(),
        }],
    }
}

impl Untidy {
    fn new(seed: usize) -> Self {
        let mut dice = Dice::new(seed);
        let tasks = 2 + dice.roll(7);
        let task_attempts = (0..tasks as u64).map(TaskAttemptId).collect();
        let open =
            OpenBarrier { attempt: ATTEMPT, task_attempts, sync_timeout: Duration::from_secs(1) };
        Untidy {
            dice,
            barrier: ContextBarrierState::new(open, Duration::from_secs(1)),
            tasks,
            epoch: 0,
            arrived: BTreeSet::new(),
            waiting: BTreeSet::new(),
            next_token: 0,
            released: 0,
            refused: 0,
        }
    }

    /// Hands one event over; returns the answers that it brought.
    fn answers(&mut self, event: BarrierEvent) -> Vec<(ReplyToken, SyncReply)> {
        let mut effects = Vec::new();
        self.barrier.handle(event, &mut effects);
        let replies = effects.into_iter().filter_map(|effect| match effect {
            BarrierEffect::Reply { to, reply } => Some((to, reply)),
            _ => None,
        });
        replies.collect()
    }

    fn ask(&mut self, request: RequestToSync) -> (ReplyToken, Vec<(ReplyToken, SyncReply)>) {
        let reply_to = ReplyToken(self.next_token);
        self.next_token += 1;
        (reply_to, self.answers(BarrierEvent::RequestToSync { request, reply_to }))
    }

    /// A request as it should be, perhaps once more.
    fn genuine(&mut self, partition: usize) {
        let (token, answers) = self.ask(request(self.tasks, partition, self.epoch));
        self.arrived.insert(partition);
        self.waiting.insert(token);
        if self.arrived.len() < self.tasks {
            assert_eq!(answers, [], "nobody is released before all {} are there", self.tasks);
            return;
        }
        let expected: Vec<String> =
            (0..self.tasks).map(|partition| format!("{}/{partition}", self.epoch)).collect();
        let told: BTreeSet<ReplyToken> = answers.iter().map(|(to, _)| *to).collect();
        assert_eq!((told.len(), &told), (answers.len(), &self.waiting), "each once, all of them");
        for (_, reply) in answers {
            let release = reply.result.expect("all are there");
            assert_eq!(reply.epoch, Epoch(self.epoch));
            assert!(release.messages.iter().eq(&expected), "{:?}", release.messages);
        }
        self.released += 1;
        self.epoch += 1;
        self.arrived.clear();
        self.waiting.clear();
    }

    /// A request that must be refused, alone.
    fn forged(&mut self) {
        let (partition, kind) = (self.dice.roll(self.tasks), self.dice.roll(6));
        let mut forged = request(self.tasks, partition, self.epoch);
        match kind {
            0 if self.epoch > 0 => forged = request(self.tasks, partition, self.epoch - 1),
            0 | 1 => forged = request(self.tasks, partition, self.epoch + 1),
            2 => forged.num_tasks += 1,
            3 => forged.arrivals[0].partition = PartitionId(self.tasks as u32),
            4 => forged.arrivals[0].task_attempt = TaskAttemptId(1_000),
            _ => {
                forged.method = SyncMethod::Barrier;
                forged.epoch = Epoch(self.epoch + 7);
            }
        }
        let (token, answers) = self.ask(forged);
        let [(to, SyncReply { result: Err(_), .. })] = &answers[..] else {
            panic!("{answers:?}");
        };
        assert_eq!(*to, token, "only the sender is told");
        self.refused += 1;
    }

    fn withdrawn(&mut self, partition: usize) {
        let (attempt, epoch) = (ATTEMPT, Epoch(self.epoch));
        let task_attempt = TaskAttemptId(partition as u64);
        let partition_id = PartitionId(partition as u32);
        let withdraw = WithdrawSync { attempt, epoch, partition: partition_id, task_attempt };
        let answers = self.answers(BarrierEvent::WithdrawSync(withdraw));
        if self.arrived.remove(&partition) && self.arrived.is_empty() {
            // The round is gone, and all who asked for it are told.
            assert_eq!(answers.len(), self.waiting.len());
            self.waiting.clear();
        } else {
            assert_eq!(answers, []);
        }
    }

    fn missing(&self) -> Option<Vec<usize>> {
        let missing = self.barrier.missing()?;
        Some(missing.iter().map(|partition| partition.0 as usize).collect())
    }
}

#[test]
fn l4_whatever_is_repeated_late_or_forged_every_release_is_exact() {
    let (mut released, mut refused) = (0, 0);
    for seed in 0..300 {
        let mut gang = Untidy::new(seed);
        for _ in 0..200 {
            let partition = gang.dice.roll(gang.tasks);
            match gang.dice.roll(10) {
                0..2 => gang.forged(),
                2 => gang.withdrawn(partition),
                _ => gang.genuine(partition),
            }
            let absent = (0..gang.tasks).filter(|it| !gang.arrived.contains(it)).collect();
            let expected = (!gang.arrived.is_empty()).then_some(absent);
            assert_eq!(gang.missing(), expected, "seed {seed}");
        }
        released += gang.released;
        refused += gang.refused;
    }
    assert!(released > 1_000 && refused > 5_000, "{released} releases, {refused} refusals");
}

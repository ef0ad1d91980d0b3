//! What a step does to the state of the model.

use super::{Barrier, Fault, State, Told, Up, User};
use bytes::Bytes;
use phalanx::protocol::{
    BarrierEffect, BarrierEvent, CallId, LeaveReason, Release, ReplyToken, RequestToSync,
    RuntimeEvent, SyncError, SyncMethod, SyncReply, TaskSyncEffect, TaskSyncEvent,
};

impl<B: Barrier> State<B> {
    pub fn call(&mut self, task: usize, switched: bool) {
        let it = &mut self.tasks[task];
        if let User::Answered(call, told) = it.user {
            self.budget.retries -= u8::from(!matches!(told, Told::Released | Told::Abandoned));
            self.sync(task, TaskSyncEvent::Taken(call));
        }
        self.budget.switches -= u8::from(switched);
        let it = &mut self.tasks[task];
        let call = CallId(it.calls);
        it.calls += 1;
        it.called = it.called.max(it.passed + 1);
        it.user = User::Waiting(call);
        let (method, message) = match switched {
            true => (SyncMethod::Barrier, Bytes::new()),
            false => (SyncMethod::AllGather, message(task, it.passed)),
        };
        self.sync(task, TaskSyncEvent::Call { call, method, message });
    }

    pub fn drop_call(&mut self, task: usize) {
        self.budget.drops -= 1;
        let it = &mut self.tasks[task];
        let (User::Waiting(call) | User::Answered(call, _)) = it.user else { return };
        it.passed -= u64::from(matches!(it.user, User::Answered(..)));
        it.user = User::Idle;
        self.sync(task, TaskSyncEvent::Dropped(call));
    }

    pub fn leave(&mut self, task: usize, epochs: u64) {
        let it = &mut self.tasks[task];
        let mut early = it.passed < epochs && !it.killed;
        if let User::Answered(call, told) = it.user {
            early &= matches!(told, Told::Released | Told::Abandoned);
            self.sync(task, TaskSyncEvent::Taken(call));
        }
        self.budget.early_returns -= u8::from(early);
        self.sync(task, TaskSyncEvent::Ended(LeaveReason::Returned));
        let it = &mut self.tasks[task];
        it.user = User::Gone;
        it.down.clear();
    }

    pub fn sync(&mut self, task: usize, event: TaskSyncEvent) {
        let mut effects = Vec::new();
        self.tasks[task].sync.handle(event, &mut effects);
        for effect in effects {
            let it = &mut self.tasks[task];
            match effect {
                TaskSyncEffect::Arrive(arrival) => {
                    let request = RequestToSync::from(arrival);
                    if !it.sent.contains(&request) {
                        it.sent.push(request.clone());
                    }
                    it.up.push_back(Up::Request(request));
                }
                TaskSyncEffect::Withdraw(withdraw) => it.up.push_back(Up::Withdraw(withdraw)),
                TaskSyncEffect::Leave(left) => it.up.push_back(Up::Left(left)),
                TaskSyncEffect::Complete { calls, result } => self.completed(task, &calls, result),
            }
        }
    }

    fn completed(&mut self, task: usize, calls: &[CallId], result: Result<Release, SyncError>) {
        let it = &mut self.tasks[task];
        let User::Waiting(call) = it.user else { return };
        assert_eq!(calls, [call], "the user makes one call at a time");
        let epoch = it.passed;
        let told = told(&result);
        it.user = User::Answered(call, told);
        it.passed += u64::from(matches!(told, Told::Released | Told::Abandoned));
        if let Ok(release) = result {
            self.check_release(epoch, &release);
        }
    }

    fn check_release(&mut self, epoch: u64, release: &Release) {
        if self.tasks.iter().any(|task| task.called <= epoch) {
            self.faults.insert(Fault::ReleasedBeforeFull);
        }
        let expected = (0..self.tasks.len()).map(|task| message(task, epoch));
        let gathers = release.method == SyncMethod::AllGather;
        if gathers && !expected.eq(release.messages.iter().cloned()) {
            self.faults.insert(Fault::WrongMessages);
        }
    }

    pub fn deliver_to_barrier(&mut self, task: usize) {
        let it = &mut self.tasks[task];
        let Some(message) = it.up.pop_front() else { return };
        let event = match message {
            Up::Request(request) => {
                // Numbered by task, so that the order between tasks does not make another state.
                let reply_to = ReplyToken(it.requests * 100 + task as u64);
                it.requests += 1;
                self.unanswered.insert(reply_to, task);
                BarrierEvent::RequestToSync { request, reply_to }
            }
            Up::Withdraw(withdraw) => BarrierEvent::WithdrawSync(withdraw),
            Up::Left(left) => BarrierEvent::TaskLeft(left),
        };
        self.barrier(event);
    }

    /// Feeds the barrier; returns how many effects there were.
    pub fn barrier(&mut self, event: BarrierEvent) -> usize {
        let mut effects = Vec::new();
        self.barrier.handle(event, &mut effects);
        let count = effects.len();
        for effect in effects {
            match effect {
                BarrierEffect::Reply { to, reply } => self.replied(to, reply),
                BarrierEffect::NotifyWaiting { to, .. } => {
                    assert!(self.unanswered.contains_key(&to), "a note to one who has an answer");
                }
                BarrierEffect::SetTimer { key, .. } => drop(self.timers.insert(key)),
                BarrierEffect::CancelTimer { key } if self.timers.remove(&key) => {
                    self.late.insert(key);
                }
                BarrierEffect::CancelTimer { .. } => {}
                BarrierEffect::Emit(RuntimeEvent::RoundReleased { epoch, .. }) => {
                    if !self.released.insert(epoch) {
                        self.faults.insert(Fault::ReleasedAgain);
                    }
                }
                BarrierEffect::Emit(_) => {}
            }
        }
        count
    }

    fn replied(&mut self, to: ReplyToken, reply: SyncReply) {
        let Some(task) = self.unanswered.remove(&to) else {
            self.faults.insert(Fault::AnsweredAgain);
            return;
        };
        if let Ok(release) = &reply.result {
            self.check_release(reply.epoch.0, release);
        }
        if self.tasks[task].user != User::Gone {
            self.tasks[task].down.push_back(reply);
        }
    }
}

/// What a task gives to the others: who it is and where.
fn message(task: usize, epoch: u64) -> Bytes {
    Bytes::from(vec![task as u8, epoch as u8])
}

fn told(result: &Result<Release, SyncError>) -> Told {
    match result {
        Ok(_) => Told::Released,
        Err(SyncError::Timeout { .. }) => Told::Timeout,
        Err(SyncError::PeerLeft { .. }) => Told::PeerLeft,
        Err(SyncError::Killed { .. }) => Told::Killed,
        Err(SyncError::MixedMethods { .. }) => Told::Mixed,
        Err(SyncError::ConcurrentCall { .. }) => Told::Concurrent,
        Err(SyncError::AbandonedCall { .. }) => Told::Abandoned,
        Err(_) => Told::Nonsense,
    }
}

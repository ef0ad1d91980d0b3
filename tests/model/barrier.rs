//! One stage attempt as a model: the machines that ship, the channels and timers between them, and
//! users who call, drop, return and are killed. Each `next_state` is one step of one of them.

mod broken;
mod checks;
mod properties;
mod steps;

use phalanx::protocol::{
    BarrierEffect, BarrierEvent, CallId, ContextBarrierState, Epoch, OpenBarrier, PartitionId,
    ReplyToken, RequestToSync, StageAttemptId, StageId, SyncReply, SyncTimer, SyncTimerKind,
    TaskAttemptId, TaskLeft, TaskSync, TaskSyncEvent, WithdrawSync,
};
use stateright::{Model, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

/// The shipped barrier, or a broken one that the model shall refute.
pub trait Barrier: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static {
    fn open(open: OpenBarrier) -> Self;
    fn handle(&mut self, event: BarrierEvent, effects: &mut Vec<BarrierEffect>);
}

impl Barrier for ContextBarrierState {
    fn open(open: OpenBarrier) -> Self {
        ContextBarrierState::new(open, Duration::from_secs(1))
    }

    fn handle(&mut self, event: BarrierEvent, effects: &mut Vec<BarrierEffect>) {
        self.handle(event, effects);
    }
}

/// How often what may go wrong does so, in all tasks together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub retransmissions: u8,
    pub drops: u8,
    pub kills: u8,
    pub early_returns: u8,
    /// Calls after a failed one.
    pub retries: u8,
    /// Calls of `barrier()` where the others gather.
    pub switches: u8,
}

#[derive(Clone, Debug)]
pub struct Config<B> {
    pub tasks: usize,
    pub epochs: u64,
    pub timers: bool,
    pub budget: Budget,
    /// What some user is told somewhere; nobody is ever told anything else.
    pub told: &'static [Told],
    pub barrier: PhantomData<B>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Told {
    Released,
    Timeout,
    PeerLeft,
    Killed,
    Mixed,
    Concurrent,
    Abandoned,
    /// What a correct program must never hear.
    Nonsense,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum User {
    Idle,
    Waiting(CallId),
    /// Answered, and not yet looked.
    Answered(CallId, Told),
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Up {
    Request(RequestToSync),
    Withdraw(WithdrawSync),
    Left(TaskLeft),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    pub sync: TaskSync,
    pub user: User,
    pub calls: u64,
    /// Syncs that are over for the user; its own count, not the machine's.
    pub passed: u64,
    /// One more than the highest epoch it has called for.
    pub called: u64,
    pub killed: bool,
    pub requests: u64,
    pub sent: Vec<RequestToSync>,
    pub up: VecDeque<Up>,
    pub down: VecDeque<SyncReply>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    ReleasedBeforeFull,
    ReleasedAgain,
    AnsweredAgain,
    LateTimerActed,
    WrongMessages,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State<B> {
    pub barrier: B,
    pub tasks: Vec<Task>,
    pub budget: Budget,
    pub timers: BTreeSet<SyncTimer>,
    /// Cancelled, but perhaps on their way.
    pub late: BTreeSet<SyncTimer>,
    /// Requests that the barrier has and has not answered, with their senders.
    pub unanswered: BTreeMap<ReplyToken, usize>,
    pub released: BTreeSet<Epoch>,
    pub faults: BTreeSet<Fault>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Call {
        task: usize,
        switched: bool,
    },
    Drop {
        task: usize,
    },
    /// A copy of an earlier request arrives, however late, perhaps after the task has left.
    Retransmit {
        task: usize,
        request: usize,
    },
    Kill {
        task: usize,
    },
    Return {
        task: usize,
    },
    ToBarrier {
        task: usize,
    },
    ToTask {
        task: usize,
    },
    Fire(SyncTimer),
    FireLate(SyncTimer),
}

const ATTEMPT: StageAttemptId = StageAttemptId { stage: StageId(7), attempt: 0 };

pub fn task_attempt(partition: usize) -> TaskAttemptId {
    TaskAttemptId(10 + partition as u64)
}

pub fn partition(task: usize) -> PartitionId {
    PartitionId(task as u32)
}

impl<B: Barrier> Model for Config<B> {
    type State = State<B>;
    type Action = Action;

    fn init_states(&self) -> Vec<State<B>> {
        let open = OpenBarrier {
            attempt: ATTEMPT,
            task_attempts: (0..self.tasks).map(task_attempt).collect(),
            sync_timeout: Duration::from_secs(9),
        };
        let task = |task| Task {
            sync: TaskSync::new(ATTEMPT, self.tasks as u32, partition(task), task_attempt(task)),
            user: User::Idle,
            calls: 0,
            passed: 0,
            called: 0,
            killed: false,
            requests: 0,
            sent: Vec::new(),
            up: VecDeque::new(),
            down: VecDeque::new(),
        };
        vec![State {
            barrier: B::open(open),
            tasks: (0..self.tasks).map(task).collect(),
            budget: self.budget,
            timers: BTreeSet::new(),
            late: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            released: BTreeSet::new(),
            faults: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State<B>, actions: &mut Vec<Action>) {
        for (task, it) in state.tasks.iter().enumerate() {
            self.actions_of_user(state.budget, task, it, actions);
            if !it.up.is_empty() {
                actions.push(Action::ToBarrier { task });
            }
            if !it.down.is_empty() {
                actions.push(Action::ToTask { task });
            }
        }
        if self.timers {
            actions.extend(state.timers.iter().copied().map(Action::Fire));
            actions.extend(state.late.iter().copied().map(Action::FireLate));
        }
    }

    fn next_state(&self, last: &State<B>, action: Action) -> Option<State<B>> {
        let mut state = last.clone();
        match action {
            Action::Call { task, switched } => state.call(task, switched),
            Action::Drop { task } => state.drop_call(task),
            Action::Retransmit { task, request } => {
                state.budget.retransmissions -= 1;
                let again = state.tasks[task].sent[request].clone();
                state.tasks[task].up.push_back(Up::Request(again));
            }
            Action::Kill { task } => {
                state.budget.kills -= 1;
                state.tasks[task].killed = true;
                state.sync(task, TaskSyncEvent::Kill { reason: "stop".into() });
            }
            Action::Return { task } => state.leave(task, self.epochs),
            Action::ToBarrier { task } => state.deliver_to_barrier(task),
            Action::ToTask { task } => {
                let reply = state.tasks[task].down.pop_front()?;
                state.sync(task, TaskSyncEvent::Reply(reply));
            }
            Action::Fire(key) => {
                state.timers.remove(&key);
                state.barrier(BarrierEvent::TimerFired(key));
            }
            Action::FireLate(key) => {
                let answered = state.barrier(BarrierEvent::TimerFired(key));
                if answered > 0 || state.barrier != last.barrier {
                    state.faults.insert(Fault::LateTimerActed);
                }
            }
        }
        if state.budget.retransmissions == 0 {
            // No longer needed; forgotten, so that states meet again.
            state.tasks.iter_mut().for_each(|task| task.sent.clear());
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties(self)
    }
}

impl<B: Barrier> Config<B> {
    fn actions_of_user(&self, budget: Budget, task: usize, it: &Task, actions: &mut Vec<Action>) {
        if budget.retransmissions > 0 {
            let copies = 0..it.sent.len();
            actions.extend(copies.map(|request| Action::Retransmit { task, request }));
        }
        let done = it.passed >= self.epochs;
        let (goes_on, failed) = match it.user {
            User::Idle | User::Answered(_, Told::Released | Told::Abandoned) => (true, false),
            User::Answered(..) => (false, true),
            User::Waiting(_) => (false, false),
            User::Gone => return,
        };
        if !done && (goes_on || failed && budget.retries > 0) {
            actions.push(Action::Call { task, switched: false });
            if budget.switches > 0 {
                actions.push(Action::Call { task, switched: true });
            }
        }
        if failed || goes_on && (done || it.killed || budget.early_returns > 0) {
            actions.push(Action::Return { task });
        }
        let may_drop = matches!(it.user, User::Waiting(_) | User::Answered(_, Told::Released));
        if may_drop && budget.drops > 0 {
            actions.push(Action::Drop { task });
        }
        if !it.killed && budget.kills > 0 {
            actions.push(Action::Kill { task });
        }
    }

    /// Whether nothing will happen any more; notes about progress are not something.
    pub fn is_over(&self, state: &State<B>) -> bool {
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        let is_note = |key: &SyncTimer| key.kind == SyncTimerKind::ProgressLog;
        actions.iter().all(|action| match action {
            Action::Fire(key) => is_note(key),
            Action::FireLate(_) => true,
            _ => false,
        })
    }
}

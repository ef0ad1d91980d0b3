//! What the rows share: clusters, delays, gates, time by hand, what the events tell.

use phalanx::actors::testing::{Advance, GetArmed};
use phalanx::protocol::{SchedulerTimer, SyncTimerKind, TimerKey};
use phalanx::{
    Config, EventStream, ExecutorId, ExecutorResources, PartitionId, Runtime, RuntimeEvent,
    StageAttemptId, StageId,
};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The defaults, but for the pause before a retry: there is none.
pub fn no_pause() -> Config {
    Config { stage_retry_delay: Duration::ZERO, ..Config::default() }
}

/// One executor with so many slots.
pub fn local(slots: u32) -> Runtime {
    Runtime::start(Config { slots, ..no_pause() }).unwrap()
}

/// So many executors with so many cpus each.
pub fn cluster(executors: usize, cpus: u32) -> Runtime {
    start(no_pause(), vec![ExecutorResources::new(cpus); executors])
}

pub fn start(config: Config, executors: Vec<ExecutorResources>) -> Runtime {
    let builder = Runtime::builder().config(config);
    executors.into_iter().fold(builder, |builder, it| builder.executor(it)).start().unwrap()
}

/// As [`start`], but time passes by [`advance`] only.
pub fn start_without_time(config: Config, executors: Vec<ExecutorResources>) -> Runtime {
    let builder = Runtime::builder().config(config).manual_time();
    executors.into_iter().fold(builder, |builder, it| builder.executor(it)).start().unwrap()
}

/// Lets time pass; says which timers fired.
pub fn advance(runtime: &Runtime, by: Duration) -> Vec<TimerKey> {
    pollster::block_on(runtime.manual_timer().unwrap().send(Advance(by))).unwrap()
}

/// A timer is set after what makes it necessary was told.
pub fn until_armed(runtime: &Runtime, wanted: impl Fn(&TimerKey) -> bool) {
    let armed = || pollster::block_on(runtime.manual_timer().unwrap().send(GetArmed)).unwrap();
    while !armed().iter().any(|(key, _)| wanted(key)) {
        std::thread::yield_now();
    }
}

pub fn is_sync_timeout(key: &TimerKey) -> bool {
    matches!(key, TimerKey::Sync(timer) if timer.kind == SyncTimerKind::Timeout)
}

/// The slot check that follows this many that failed.
pub fn is_slot_check(number: u32) -> impl Fn(&TimerKey) -> bool {
    move |key| match key {
        TimerKey::Scheduler(SchedulerTimer::SlotCheck { check, .. }) => *check == number,
        _ => false,
    }
}

/// A delay of the task's own, up to 30 ms.
pub fn some_time() -> Duration {
    Duration::from_micros(RandomState::new().hash_one(0) % 30_000)
}

/// Keeps tasks until it is opened, whether they are killed or not.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn closed() -> Self {
        Gate(Arc::new(Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.close();
    }

    pub async fn pass(&self) {
        assert!(self.0.acquire().await.is_err(), "there are no permits");
    }

    pub fn pass_blocking(&self) {
        pollster::block_on(self.pass());
    }
}

/// Reads events until one of them is the awaited one.
pub fn until<T>(events: &mut EventStream, mut wanted: impl FnMut(&RuntimeEvent) -> Option<T>) -> T {
    loop {
        let event = events.next_blocking().expect("the runtime runs and the reader is fast").event;
        if let Some(found) = wanted(&event) {
            return found;
        }
    }
}

/// All events up to the one that tells the stage's end.
pub fn story(events: &mut EventStream, id: StageId) -> Vec<RuntimeEvent> {
    let mut told = Vec::new();
    until(events, |event| {
        told.push(event.clone());
        matches!(event, RuntimeEvent::StageCompleted { stage, .. } if *stage == id).then_some(())
    });
    told
}

/// Required and available slots, and how many more checks may fail.
pub fn deferred(event: &RuntimeEvent) -> Option<(u64, u64, u32)> {
    match event {
        RuntimeEvent::StageDeferred { required, available, checks_left, .. } => {
            Some((*required, *available, *checks_left))
        }
        _ => None,
    }
}

/// Required and free slots.
pub fn queued(event: &RuntimeEvent) -> Option<(u64, u64)> {
    match event {
        RuntimeEvent::StageQueued { required, free, .. } => Some((*required, *free)),
        _ => None,
    }
}

pub fn round_opened(event: &RuntimeEvent) -> Option<()> {
    matches!(event, RuntimeEvent::RoundOpened { .. }).then_some(())
}

/// All tasks that were started, in order.
pub fn launched(story: &[RuntimeEvent]) -> Vec<(StageAttemptId, PartitionId, ExecutorId)> {
    let launch = |event: &RuntimeEvent| match event {
        RuntimeEvent::TaskStarted { attempt, partition, executor, .. } => {
            Some((*attempt, *partition, *executor))
        }
        _ => None,
    };
    story.iter().filter_map(launch).collect()
}

/// The tasks of one attempt of a stage that were started, in order.
pub fn launched_in(story: &[RuntimeEvent], stage: StageId, number: u32) -> Vec<PartitionId> {
    let attempt = StageAttemptId { stage, attempt: number };
    let all = launched(story).into_iter();
    all.filter(|(of, ..)| *of == attempt).map(|(_, partition, _)| partition).collect()
}

/// Tasks that hold slots.
pub fn running(runtime: &Runtime) -> usize {
    pollster::block_on(runtime.status()).executors.iter().map(|it| it.running).sum()
}

/// No task holds a slot and no stage is in the books.
pub fn is_idle(runtime: &Runtime) -> bool {
    running(runtime) == 0 && pollster::block_on(runtime.status()).stages.is_empty()
}

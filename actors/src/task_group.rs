//! The tasks of one stage attempt that belong together on one thread.

use crate::LaunchOnExecutor;
use crate::sync_cell::Wakes;
use crate::sync_gatherer::SyncGatherer;
use crate::task::lock;
use futures_util::task::AtomicWaker;
use phalanx_protocol::{
    ExecutorLife, LaunchTask, LaunchTasks, StageAttemptId, StillWaiting, TaskInfo, TaskSync,
    TaskSyncEvent,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use tracing::info;

/// What the tasks of a stage attempt on one thread share: async tasks are polled together by a
/// [`GroupRun`](crate::group_run::GroupRun), a blocking task is alone on its thread.
pub(crate) struct TaskGroup {
    pub(crate) attempt: StageAttemptId,
    pub(crate) num_tasks: u32,
    pub(crate) task_infos: Arc<[TaskInfo]>,
    pub(crate) name: Arc<str>,
    pub(crate) executor: ExecutorLife,
    /// `None` for a blocking task.
    alarm: Option<Alarm>,
    /// `None` in a plain stage.
    pub(crate) sync: Option<SyncGatherer>,
}

/// How the group's run learns that there is something to do.
#[derive(Default)]
struct Alarm {
    /// Tasks to be polled, by index.
    woken: Mutex<Vec<u32>>,
    /// Whether there is something since the run last looked.
    is_rung: AtomicBool,
    /// Whether the run is polled now, and will look before it rests: it need not be woken.
    is_awake: AtomicBool,
    run: AtomicWaker,
}

impl TaskGroup {
    /// `tasks`: those of the launch that are in it. `polled`: by a `GroupRun`; else there is one,
    /// which blocks its thread.
    pub(crate) fn new(
        launch: &LaunchOnExecutor,
        executor: ExecutorLife,
        tasks: &[LaunchTask],
        polled: bool,
    ) -> Arc<Self> {
        let LaunchOnExecutor { launch, name, barrier, .. } = launch;
        let LaunchTasks { attempt, num_tasks, ref task_infos, .. } = *launch;
        let machine = |task: &LaunchTask| {
            TaskSync::new(attempt, num_tasks, task.partition, task.task_attempt)
        };
        let sync =
            barrier.clone().map(|barrier| SyncGatherer::new(barrier, tasks.iter().map(machine)));
        Arc::new(TaskGroup {
            attempt,
            num_tasks,
            task_infos: task_infos.clone(),
            name: name.clone(),
            executor,
            alarm: polled.then(Alarm::default),
            sync,
        })
    }

    /// Whether a `GroupRun` polls its tasks.
    pub(crate) fn is_polled(&self) -> bool {
        self.alarm.is_some()
    }

    /// Its run is polled: until it rests nobody has to wake it.
    pub(crate) fn awake(&self, run: &Waker) {
        if let Some(alarm) = &self.alarm {
            alarm.run.register(run);
            alarm.is_awake.store(true, Ordering::SeqCst);
        }
    }

    /// Its run is about to rest. False if it must not: there is something to do.
    pub(crate) fn may_rest(&self) -> bool {
        let Some(alarm) = &self.alarm else { return true };
        // Either this sees what has been rung, or who rings sees that it has to wake.
        alarm.is_awake.store(false, Ordering::SeqCst);
        let may_rest = !alarm.is_rung.load(Ordering::SeqCst);
        alarm.is_awake.store(!may_rest, Ordering::SeqCst);
        may_rest
    }

    /// Whether there is something to do for its run.
    pub(crate) fn is_rung(&self) -> bool {
        self.alarm.as_ref().is_some_and(|alarm| alarm.is_rung.load(Ordering::SeqCst))
    }

    /// Its run looks what there is to do, after this.
    pub(crate) fn unring(&self) {
        if let Some(alarm) = &self.alarm {
            alarm.is_rung.swap(false, Ordering::SeqCst);
        }
    }

    /// What there is to do has been put where the run finds it, behind a lock.
    fn ring(&self) {
        let Some(alarm) = &self.alarm else { return };
        // If it has been rung already the run has not looked behind that lock since.
        if !alarm.is_rung.load(Ordering::SeqCst) {
            alarm.is_rung.store(true, Ordering::SeqCst);
            if !alarm.is_awake.load(Ordering::SeqCst) {
                alarm.run.wake();
            }
        }
    }

    /// Has a task polled.
    pub(crate) fn wake_task(&self, task: u32) {
        if let Some(alarm) = &self.alarm {
            lock(&alarm.woken).push(task);
            self.ring();
        }
    }

    /// The tasks that have been woken.
    pub(crate) fn take_woken(&self) -> Vec<u32> {
        self.alarm
            .as_ref()
            .map(|alarm| std::mem::take(&mut *lock(&alarm.woken)))
            .unwrap_or_default()
    }

    /// The barrier has answered: the group's run looks; a blocking task is told on the spot.
    pub(crate) fn notify(self: &Arc<Self>) {
        if self.is_polled() {
            self.ring();
        } else {
            self.deliver_now();
        }
    }

    fn deliver_now(self: &Arc<Self>) {
        let mut wakes = Wakes::default();
        self.deliver(&mut wakes);
        self.settle(wakes, false);
    }

    /// Something happens to one of its tasks.
    pub(crate) fn sync_event(self: &Arc<Self>, task: u32, event: TaskSyncEvent) {
        let Some(sync) = &self.sync else { return };
        // A kill does not overtake the release that it follows from.
        self.deliver_now();
        let (wakes, is_something_to_send) = sync.handle(task, event);
        self.settle(wakes, is_something_to_send);
    }

    /// What has to happen after an event, once no lock is held.
    fn settle(self: &Arc<Self>, mut wakes: Wakes, is_something_to_send: bool) {
        if !wakes.is_empty() {
            wakes.wake_others();
            for task in wakes.tasks {
                self.wake_task(task);
            }
        }
        if is_something_to_send {
            self.send();
        }
    }

    /// Has what its tasks have to say sent: by the group's run, or on the spot.
    pub(crate) fn send(self: &Arc<Self>) {
        if self.is_polled() {
            self.ring();
        } else {
            self.flush();
        }
    }

    /// Sends what its tasks have to say to their barrier.
    pub(crate) fn flush(self: &Arc<Self>) {
        if let Some(sync) = &self.sync {
            sync.flush(self);
        }
    }

    /// Gives the barrier's answers to the tasks; who is to be woken then is added.
    pub(crate) fn deliver(&self, wakes: &mut Wakes) {
        let Some(sync) = &self.sync else { return };
        let StageAttemptId { stage, attempt } = self.attempt;
        for (task_attempt, (since, start), note) in sync.deliver(wakes) {
            let StillWaiting { epoch, missing, .. } = note;
            let waited = start.elapsed().as_secs();
            info!(
                %task_attempt, %stage, attempt, %epoch, waited_s = waited, %missing,
                "Task {task_attempt} from Stage {stage}(Attempt {attempt}) waiting under the \
                 global sync since {}, has been waiting for {waited} seconds, current barrier \
                 epoch is {epoch}, missing partitions: {missing}.",
                humantime::format_rfc3339_seconds(since),
            );
        }
    }
}

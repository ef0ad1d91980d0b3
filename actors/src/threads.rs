//! Threads for async tasks and timers, and their bounded end.

use crate::reporter::RunningTasks;
use crate::task::{Task, lock};
use actix::{Arbiter, ArbiterHandle};
use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use tokio::runtime::{Builder, Runtime};
use tracing::error;

/// The threads that were started for executors and timers, to be waited for at the end, and the
/// tasks that run on them or on threads of their own.
#[derive(Clone, Default)]
pub struct Threads(Arc<Mutex<Groups>>);

#[derive(Default)]
struct Groups {
    next: u64,
    by_id: HashMap<GroupId, Group>,
    /// Wait for the threads of groups that were released.
    joiners: Vec<JoinHandle<()>>,
}

/// The threads of one executor, or the timers'.
#[derive(Default)]
struct Group {
    threads: Vec<OwnedThread>,
    running: RunningTasks,
}

/// An arbiter and its runtime. Whoever drops the last reference to a runtime waits for what users'
/// code does on its blocking threads; this one is kept until the end, and then nobody waits.
struct OwnedThread {
    arbiter: Arbiter,
    runtime: Arc<Runtime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupId(u64);

thread_local! {
    static RUNS_TASKS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is a thread that runs async tasks, so that blocking it would hold up others,
/// perhaps the one that is waited for.
pub fn runs_async_tasks() -> bool {
    RUNS_TASKS.get()
}

impl Threads {
    /// No threads yet.
    pub fn new() -> Self {
        Threads::default()
    }

    /// Starts `count` threads, for these tasks.
    pub(crate) fn spawn(
        &self,
        count: usize,
        running: RunningTasks,
    ) -> io::Result<(GroupId, Vec<ArbiterHandle>)> {
        let mut threads = Vec::new();
        for _ in 0..count {
            match OwnedThread::start() {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    threads.into_iter().for_each(OwnedThread::end);
                    return Err(error);
                }
            }
        }
        let handles = threads.iter().map(|thread| thread.arbiter.handle()).collect();
        let mut groups = lock(&self.0);
        let id = GroupId(groups.next);
        groups.next += 1;
        groups.by_id.insert(id, Group { threads, running });
        Ok((id, handles))
    }

    /// Ends the threads of a group in the background, as soon as their tasks let them.
    pub(crate) fn release(&self, id: GroupId) {
        let threads = {
            let mut groups = lock(&self.0);
            groups.by_id.get_mut(&id).map(|group| std::mem::take(&mut group.threads))
        };
        let Some(threads) = threads else { return };
        for thread in &threads {
            thread.arbiter.stop();
        }
        let groups = self.clone();
        let started = thread::Builder::new().name("phalanx-join".to_owned()).spawn(move || {
            threads.into_iter().for_each(OwnedThread::end);
            // Those that run on threads of their own may still be to be named.
            lock(&groups.0).by_id.retain(|other, group| *other != id || !group.running.is_empty());
        });
        match started {
            Ok(joiner) => {
                let mut groups = lock(&self.0);
                groups.joiners.retain(|joiner| !joiner.is_finished());
                groups.joiners.push(joiner);
            }
            Err(error) => error!("the threads of a former executor are not waited for: {error}"),
        }
    }

    /// The tasks that run now, also those of executors that were given up.
    pub(crate) fn running_tasks(&self) -> Vec<Arc<Task>> {
        let groups = lock(&self.0);
        let mut tasks: Vec<_> =
            groups.by_id.values().flat_map(|group| group.running.all()).collect();
        tasks.sort_by_key(|task| task.task_attempt());
        tasks
    }

    /// Waits until all have ended, however long the tasks on them take.
    pub(crate) fn stop_and_join(&self) {
        let (groups, joiners) = {
            let mut groups = lock(&self.0);
            let threads = groups.by_id.values_mut().map(|it| std::mem::take(&mut it.threads));
            (threads.collect::<Vec<_>>(), std::mem::take(&mut groups.joiners))
        };
        for thread in groups.iter().flatten() {
            thread.arbiter.stop();
        }
        groups.into_iter().flatten().for_each(OwnedThread::end);
        for joiner in joiners {
            // It runs nobody's code but ours.
            let _ = joiner.join();
        }
    }
}

impl OwnedThread {
    fn start() -> io::Result<Self> {
        let runtime = Arc::new(Builder::new_current_thread().enable_all().build()?);
        let for_arbiter = runtime.clone();
        let arbiter = Arbiter::try_with_tokio_rt(move || Ok(for_arbiter))?;
        arbiter.spawn_fn(|| RUNS_TASKS.set(true));
        Ok(OwnedThread { arbiter, runtime })
    }

    fn end(self) {
        self.arbiter.stop();
        if self.arbiter.join().is_err() {
            error!("a worker thread panicked outside of its tasks");
        }
        if let Some(runtime) = Arc::into_inner(self.runtime) {
            runtime.shutdown_background();
        }
    }
}

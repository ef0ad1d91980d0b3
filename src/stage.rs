//! What to run.

mod named;
mod of_job;

use crate::checkpoint::Checkpoints;
use crate::reduce::SharedFold;
use crate::remote_stage::StageSide;
use crate::stage_handle::{StageControl, StageHandle};
use crate::task_context::{StageProgress, StageShared};
use crate::{
    BarrierTaskContext, Config, OnFailure, Runtime, StageFailure, TaskContext, TaskResult, blocking,
};
pub use named::Named;
use phalanx_actors::{Payload, StageEnded, Submit, Task, TaskBody};
use phalanx_protocol::{
    InvalidAmount, InvalidStage, StageKind, StageSpec, SubmitStage, TaskResources,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// A stage to be run: so many tasks, or one task per input. What is not said here is as the
/// runtime's [`Config`] says.
///
/// ```
/// # use phalanx::{Runtime, Stage, OnFailure};
/// # let runtime = Runtime::with_slots(3)?;
/// let rows = vec![vec![1, 2], vec![3], vec![4, 5, 6]];
/// let handle = Stage::partitions(rows)
///     .name("sum")
///     .max_attempts(2)
///     .run(&runtime, async |ctx, rows| {
///         let mine: i32 = rows.iter().sum();
///         Ok(ctx.all_gather(&mine).await?)
///     });
/// assert_eq!(handle.wait()?, vec![vec![3, 3, 15]; 3]);
/// # Ok::<(), phalanx::BoxError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a stage does nothing until it is run"]
pub struct Stage<P> {
    partitions: P,
    options: Options,
}

/// A stage of this many tasks, which are told their rank only.
#[derive(Clone, Copy, Debug)]
pub struct Tasks(usize);

/// A stage of one task per input. A retry gets the same inputs.
#[derive(Clone, Debug)]
pub struct Partitions<I>(Vec<Arc<I>>);

#[derive(Clone, Debug)]
struct Options {
    name: String,
    kind: StageKind,
    resources: TaskResources,
    /// The first resource whose amount has no meaning; said when the stage is run.
    invalid_amount: Option<InvalidAmount>,
    max_attempts: Option<u32>,
    max_infrastructure_failures: Option<u32>,
    retry_delay: Option<Duration>,
    priority: i32,
    sync_timeout: Option<Duration>,
    on_failure: OnFailure,
    checkpoint_directory: Option<PathBuf>,
    resume: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: "stage".to_owned(),
            kind: StageKind::Barrier,
            resources: TaskResources::default(),
            invalid_amount: None,
            max_attempts: None,
            max_infrastructure_failures: None,
            retry_delay: None,
            priority: 0,
            sync_timeout: None,
            on_failure: OnFailure::Restart,
            checkpoint_directory: None,
            resume: false,
        }
    }
}

impl Stage<Tasks> {
    /// A barrier stage of `count` tasks; 0 succeeds at once.
    pub fn tasks(count: usize) -> Self {
        Stage { partitions: Tasks(count), options: Options::default() }
    }

    /// Hands the stage in. Each task runs `code` on a thread that it shares with others, so the
    /// code must not block: while it does, what its neighbours have to say waits, their arrivals
    /// among it. (A kill does not wait.) Its future need not be `Send`, and tokio's timers and I/O
    /// work in it. A kill ends the waits of the context at once; other awaits go on unless they
    /// are wrapped in [`until_killed`](TaskContext::until_killed).
    pub fn run<T, F>(self, runtime: &Runtime, code: F) -> StageHandle<T>
    where
        F: AsyncFn(BarrierTaskContext) -> TaskResult<T> + Send + Sync + 'static,
        T: Send + 'static,
    {
        let code = Arc::new(code);
        submit_closure(runtime, self.partitions.0, self.options, |shared| {
            TaskBody::Async(Arc::new(move |task| {
                let (code, ctx) = (code.clone(), context(task, &shared));
                Box::pin(async move { code(ctx).await.map(payload) })
            }))
        })
    }

    /// Hands the stage in. Each task runs `code` on a thread of its own, so that it may block and a
    /// gang of any size is complete. (A task of a plain stage may get one that another task has
    /// left.)
    pub fn run_blocking<T, F>(self, runtime: &Runtime, code: F) -> StageHandle<T>
    where
        F: Fn(blocking::BarrierTaskContext) -> TaskResult<T> + Send + Sync + 'static,
        T: Send + 'static,
    {
        submit_closure(runtime, self.partitions.0, self.options, |shared| {
            TaskBody::Blocking(Arc::new(move |task| {
                let ctx = blocking::BarrierTaskContext::new(context(task, &shared));
                code(ctx).map(payload)
            }))
        })
    }
}

impl<I: Send + Sync + 'static> Stage<Partitions<I>> {
    /// A barrier stage with one task per input.
    pub fn partitions(inputs: impl IntoIterator<Item = I>) -> Self {
        let inputs = inputs.into_iter().map(Arc::new).collect();
        Stage { partitions: Partitions(inputs), options: Options::default() }
    }

    /// As [`Stage::<Tasks>::run`]; each task is given its input.
    pub fn run<T, F>(self, runtime: &Runtime, code: F) -> StageHandle<T>
    where
        F: AsyncFn(BarrierTaskContext, Arc<I>) -> TaskResult<T> + Send + Sync + 'static,
        T: Send + 'static,
    {
        let (code, inputs) = (Arc::new(code), self.partitions.0);
        submit_closure(runtime, inputs.len(), self.options, |shared| {
            TaskBody::Async(Arc::new(move |task| {
                let input = inputs[task.partition().0 as usize].clone();
                let (code, ctx) = (code.clone(), context(task, &shared));
                Box::pin(async move { code(ctx, input).await.map(payload) })
            }))
        })
    }

    /// As [`Stage::<Tasks>::run_blocking`]; each task is given its input.
    pub fn run_blocking<T, F>(self, runtime: &Runtime, code: F) -> StageHandle<T>
    where
        F: Fn(blocking::BarrierTaskContext, Arc<I>) -> TaskResult<T> + Send + Sync + 'static,
        T: Send + 'static,
    {
        let inputs = self.partitions.0;
        submit_closure(runtime, inputs.len(), self.options, |shared| {
            TaskBody::Blocking(Arc::new(move |task| {
                let input = inputs[task.partition().0 as usize].clone();
                let ctx = blocking::BarrierTaskContext::new(context(task, &shared));
                code(ctx, input).map(payload)
            }))
        })
    }
}

impl Stage<Tasks> {
    /// What the scheduler is asked for, under these settings.
    ///
    /// # Errors
    /// Says why a runtime would refuse the stage.
    pub fn spec(self, config: &Config) -> Result<StageSpec, String> {
        spec(self.options, self.partitions.0, config)
    }
}

impl<P> Stage<P> {
    /// A name for logs, status and checkpoints. Default: `stage`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// Makes it a plain stage: tasks start as slots come free, in any number, are retried one by
    /// one, and cannot sync.
    pub fn plain(mut self) -> Self {
        self.options.kind = StageKind::Plain;
        self
    }

    /// Cpus each task occupies; at least 1, the default.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.options.resources = self.options.resources.with_cpus(cpus);
        self
    }

    /// How much each task occupies of a named resource of the executors: below 1 tasks share an
    /// address (`floor(1 / amount)` of them), from 1 on each has `ceil(amount)` to itself.
    pub fn resource(mut self, name: impl Into<String>, amount: f64) -> Self {
        match self.options.resources.clone().with(name, amount) {
            Ok(resources) => self.options.resources = resources,
            Err(invalid) => drop(self.options.invalid_amount.get_or_insert(invalid)),
        }
        self
    }

    /// Attempts that may fail in a row through the tasks' own errors (of a plain stage: tries of
    /// each task); at least 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.max_attempts = Some(attempts);
        self
    }

    /// Losses of executors that do not count as attempts.
    pub fn max_infrastructure_failures(mut self, losses: u32) -> Self {
        self.options.max_infrastructure_failures = Some(losses);
        self
    }

    /// Pause between an attempt's failure and the next attempt, which also waits for the killed
    /// tasks to end.
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.options.retry_delay = Some(delay);
        self
    }

    /// Higher goes first; default 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.options.priority = priority;
        self
    }

    /// How long one sync may last from its first arrival; more than 0.
    pub fn sync_timeout(mut self, timeout: Duration) -> Self {
        self.options.sync_timeout = Some(timeout);
        self
    }

    /// What happens when a task fails. Default: [`OnFailure::Restart`].
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.options.on_failure = on_failure;
        self
    }

    /// Keeps this stage's checkpoints in a directory, in a folder of its name. They stay when the
    /// stage has ended; those of earlier runs are not touched.
    pub fn checkpoint_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.options.checkpoint_directory = Some(directory.into());
        self
    }

    /// Has the first attempt's `restore()` give the newest checkpoint that an earlier run of a
    /// stage of this name left in the directory, for example before the process was ended. Without
    /// it a stage sees only its own.
    pub fn resume(mut self) -> Self {
        self.options.resume = true;
        self
    }
}

pub(crate) fn payload<T: Send + 'static>(value: T) -> Payload {
    Box::new(value)
}

pub(crate) fn context(task: Arc<Task>, shared: &Arc<StageShared>) -> BarrierTaskContext {
    BarrierTaskContext::new(TaskContext::begin(task, shared.clone()))
}

fn spec(options: Options, num_tasks: usize, config: &Config) -> Result<StageSpec, String> {
    let limit = config.stage_max_tasks;
    let name = options.name;
    let tasks = u32::try_from(num_tasks).ok().filter(|count| *count <= limit);
    let Some(num_tasks) = tasks else {
        return Err(InvalidStage::TooManyTasks { name, num_tasks, limit }.to_string());
    };
    if let Some(invalid) = options.invalid_amount {
        return Err(format!("stage '{name}': {invalid}"));
    }
    Ok(StageSpec {
        name,
        kind: options.kind,
        num_tasks,
        resources: options.resources,
        max_attempts: options.max_attempts.unwrap_or(config.stage_max_attempts),
        max_infrastructure_failures: options
            .max_infrastructure_failures
            .unwrap_or(config.stage_max_infrastructure_failures),
        retry_delay: options.retry_delay.unwrap_or(config.stage_retry_delay),
        priority: options.priority,
        sync_timeout: options.sync_timeout.unwrap_or(config.barrier_sync_timeout),
        on_failure: options.on_failure,
    })
}

/// A closure cannot go to another process.
fn submit_closure<T: 'static>(
    runtime: &Runtime,
    num_tasks: usize,
    options: Options,
    body: impl FnOnce(Arc<StageShared>) -> TaskBody,
) -> StageHandle<T> {
    let is_remote = runtime.has_cluster();
    submit(
        runtime,
        num_tasks,
        options,
        |value| Ok(value_of(value)),
        |shared| match is_remote {
            false => Ok(body(shared)),
            true => Err("its code is a closure, and the runtime's executors are other processes: \
                     register the code by name and use Stage::named"
                .to_owned()),
        },
    )
}

/// `read`: makes the values of what the tasks hand over.
fn submit<T: 'static>(
    runtime: &Runtime,
    num_tasks: usize,
    options: Options,
    read: fn(Payload) -> Result<T, String>,
    body: impl FnOnce(Arc<StageShared>) -> Result<TaskBody, String>,
) -> StageHandle<T> {
    let config = runtime.config();
    let (shared, progress) = shared(runtime, &options, num_tasks);
    let (id, orders) = (runtime.next_stage_id(), runtime.orders().clone());
    let (ended, end) = oneshot::channel();
    let (outcome, watched) = watch::channel(None);
    let name = options.name.as_str().into();
    let control = StageControl { id, name, progress, orders: orders.clone(), outcome: watched };
    let body = body(shared);
    match spec(options, num_tasks, config).and_then(|spec| Ok((spec, body?))) {
        Ok((spec, body)) => {
            let submit = SubmitStage { stage: id, spec, of_job: None };
            orders.send(Submit { submit, body, ended, outcome });
        }
        Err(reason) => {
            let failure = StageFailure::Refused { reason };
            outcome.send_replace(Some(Err(failure.clone())));
            // The receiver is in this function.
            drop(ended.send(StageEnded { result: Err((failure, None)), body: None }));
        }
    }
    StageHandle::new(control, end, read)
}

/// What the tasks of a stage share, and what they report.
fn shared(
    runtime: &Runtime,
    options: &Options,
    num_tasks: usize,
) -> (Arc<StageShared>, Arc<StageProgress>) {
    let config = runtime.config();
    let directory =
        options.checkpoint_directory.clone().or_else(|| config.checkpoint_directory.clone());
    let checkpoints =
        Checkpoints::new(directory, &options.name, config.checkpoint_keep, options.resume);
    let progress = StageProgress::new(num_tasks.min(config.stage_max_tasks as usize));
    let side = StageSide::Here { progress: progress.clone(), checkpoints };
    let max_message_size = config.sync_max_message_size;
    let shared = StageShared { max_message_size, side, fold: SharedFold::default() };
    (Arc::new(shared), progress)
}

pub(crate) fn value_of<T: 'static>(payload: Payload) -> T {
    *payload.downcast().expect("the stage's own code made the value")
}

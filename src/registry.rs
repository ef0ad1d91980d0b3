//! Task code that has a name, so that another process of the same program finds it.

use crate::remote_stage::{StageSettings, StageSide};
use crate::task_context::{StageShared, TaskContext};
use crate::{BarrierTaskContext, BoxError, PartitionId, TaskResult, blocking, codec};
use bytes::Bytes;
use phalanx_actors::remote::RemoteLaunch;
use phalanx_actors::remote::wire::Program;
use phalanx_actors::{NamedCode, Payload, Task, TaskBody};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::{TypeId, type_name};
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// The code that a program's executors can run, by name. Driver and executors are the same program
/// and make the same registry; this is compared when an executor joins.
///
/// ```
/// use phalanx::{BarrierTaskContext, Registry, Runtime, Stage, TaskResult};
///
/// async fn sum(ctx: BarrierTaskContext, part: Vec<i64>) -> TaskResult<i64> {
///     let sums = ctx.all_gather(&part.iter().sum()).await?;
///     Ok(sums.iter().sum())
/// }
///
/// let registry = Registry::new("example", env!("CARGO_PKG_VERSION")).register("sum", sum);
/// let runtime = Runtime::builder().slots(2).registry(registry).start()?;
/// let handle = Stage::named("sum", [vec![1_i64, 2], vec![3]]).run::<i64>(&runtime);
/// assert_eq!(handle.wait()?, [6, 6]);
/// # Ok::<(), phalanx::BoxError>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    application: String,
    version: String,
    code: BTreeMap<String, Entry>,
    /// The first name that was registered twice; said when a runtime is started.
    twice: Option<String>,
}

#[derive(Clone)]
struct Entry {
    input: TypeId,
    output: TypeId,
    /// Names of both, for errors and to compare programs by.
    types: (&'static str, &'static str),
    code: Code,
}

type BytesFuture = Pin<Box<dyn Future<Output = TaskResult<Bytes>>>>;

#[derive(Clone)]
enum Code {
    Async(Arc<dyn Fn(BarrierTaskContext, Bytes) -> BytesFuture + Send + Sync>),
    Blocking(Arc<dyn Fn(blocking::BarrierTaskContext, Bytes) -> TaskResult<Bytes> + Send + Sync>),
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("application", &self.application)
            .field("version", &self.version)
            .field("code", &self.code.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Registry {
    /// An empty registry of the program with this id and version, usually
    /// `env!("CARGO_PKG_VERSION")`. Executors of another id or version are refused.
    pub fn new(application: impl Into<String>, version: impl Into<String>) -> Self {
        Registry {
            application: application.into(),
            version: version.into(),
            code: BTreeMap::new(),
            twice: None,
        }
    }

    /// Gives async code a name. It must not block; see [`Stage::run`](crate::Stage::run). A name
    /// that is used twice is said when a runtime is started.
    pub fn register<I, T, F>(self, name: impl Into<String>, code: F) -> Self
    where
        I: DeserializeOwned + 'static,
        T: Serialize + 'static,
        F: AsyncFn(BarrierTaskContext, I) -> TaskResult<T> + Send + Sync + 'static,
    {
        let code = Arc::new(code);
        let run = move |ctx: BarrierTaskContext, input: Bytes| {
            let code = code.clone();
            let future: BytesFuture = Box::pin(async move {
                let input = read_input(&ctx, &input)?;
                value_to_bytes(&code(ctx, input).await?)
            });
            future
        };
        self.insert::<I, T>(name.into(), Code::Async(Arc::new(run)))
    }

    /// Gives blocking code a name; each task has a thread of its own.
    pub fn register_blocking<I, T, F>(self, name: impl Into<String>, code: F) -> Self
    where
        I: DeserializeOwned + 'static,
        T: Serialize + 'static,
        F: Fn(blocking::BarrierTaskContext, I) -> TaskResult<T> + Send + Sync + 'static,
    {
        let run = move |ctx: blocking::BarrierTaskContext, input: Bytes| {
            let input = read_input(&ctx, &input)?;
            value_to_bytes(&code(ctx, input)?)
        };
        self.insert::<I, T>(name.into(), Code::Blocking(Arc::new(run)))
    }

    fn insert<I: 'static, T: 'static>(mut self, name: String, code: Code) -> Self {
        let entry = Entry {
            input: TypeId::of::<I>(),
            output: TypeId::of::<T>(),
            types: (type_name::<I>(), type_name::<T>()),
            code,
        };
        if self.code.insert(name.clone(), entry).is_some() {
            self.twice.get_or_insert(name);
        }
        self
    }

    /// A name that was registered twice.
    pub(crate) fn twice(&self) -> Option<&str> {
        self.twice.as_deref()
    }

    /// What driver and executors compare.
    pub fn program(&self) -> Program {
        let code = self.code.iter();
        let code = code.map(|(name, entry)| {
            let (input, output) = entry.types;
            format!("{name}({input}) -> {output}")
        });
        Program {
            application: self.application.clone(),
            version: self.version.clone(),
            code: code.collect(),
        }
    }

    /// The code of this name, for tasks of one stage, if it takes `I` and gives `T`.
    pub(crate) fn typed<I: 'static, T: 'static>(&self, name: &str) -> Result<(), String> {
        let entry = self.entry(name)?;
        let (input, output) = entry.types;
        if entry.input != TypeId::of::<I>() {
            let given = type_name::<I>();
            return Err(format!("'{name}' takes {input}, the stage's inputs are {given}"));
        }
        if entry.output != TypeId::of::<T>() {
            let wanted = type_name::<T>();
            return Err(format!("'{name}' returns {output}, the stage wants {wanted}"));
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<&Entry, String> {
        self.code.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.code.keys().map(String::as_str).collect();
            format!("there is no code named '{name}' in the registry; there is {known:?}")
        })
    }

    /// The code of this name, for tasks in this process. `input`: by partition.
    pub(crate) fn code(
        &self,
        name: &str,
        shared: Arc<StageShared>,
        input: impl Fn(PartitionId) -> Bytes + Send + Sync + 'static,
    ) -> Result<NamedCode, String> {
        let context = move |task: Arc<Task>| {
            let input = input(task.partition());
            (BarrierTaskContext::new(TaskContext::begin(task, shared.clone())), input)
        };
        let payload = |bytes: Bytes| -> Payload { Box::new(bytes) };
        Ok(match self.entry(name)?.code.clone() {
            Code::Async(code) => NamedCode::Async(Arc::new(move |task| {
                let (ctx, input) = context(task);
                let run = code(ctx, input);
                Box::pin(async move { run.await.map(payload) })
            })),
            Code::Blocking(code) => NamedCode::Blocking(Arc::new(move |task| {
                let (ctx, input) = context(task);
                code(blocking::BarrierTaskContext::new(ctx), input).map(payload)
            })),
        })
    }

    /// The code that a driver names, for an executor's process.
    pub(crate) fn resolve(&self, launch: RemoteLaunch) -> Result<TaskBody, String> {
        let RemoteLaunch { code, settings, inputs, calls } = launch;
        let settings: StageSettings = codec::decode(&settings)
            .map_err(|error| format!("the settings of '{code}' are not understood: {error}"))?;
        let shared = StageShared {
            max_message_size: settings.max_message_size,
            side: StageSide::AtDriver(calls),
            fold: Default::default(),
        };
        let input = move |partition| inputs.get(&partition).cloned().unwrap_or_default();
        Ok(match self.code(&code, Arc::new(shared), input)? {
            NamedCode::Async(code) => TaskBody::Async(code),
            NamedCode::Blocking(code) => TaskBody::Blocking(code),
        })
    }
}

fn read_input<I: DeserializeOwned>(ctx: &TaskContext, input: &Bytes) -> TaskResult<I> {
    let partition = ctx.partition_id();
    codec::decode(input).map_err(|error| {
        format!("the input of partition {partition} is no such value: {error}").into()
    })
}

fn value_to_bytes<T: Serialize>(value: &T) -> TaskResult<Bytes> {
    let unfit = |error| BoxError::from(format!("the value cannot be turned into bytes: {error}"));
    codec::encode(value).map_err(unfit)
}

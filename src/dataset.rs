//! Partitioned datasets: the door to barrier stages for data.

mod actions;
mod barrier_dataset;
mod csv;
mod explain;
mod input_file;
mod job;
mod job_handle;
mod operators;
#[cfg(feature = "parquet")]
mod parquet;
mod rows;
mod shuffle;
mod source;

use crate::{OnFailure, Runtime, Stage, Tasks, blocking};
pub use barrier_dataset::BarrierDataset;
pub use csv::CsvError;
pub use input_file::FileError;
pub use job_handle::{JobControl, JobError, JobHandle};
#[cfg(feature = "parquet")]
pub use parquet::{ParquetError, ParquetRow};
use phalanx_protocol::{DatasetNode, Dependency, Lineage};
pub use rows::Rows;
use shuffle::Shuffle;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Rows in partitions, described and not yet made.
///
/// A dataset says how its rows come from others. Nothing runs until an action
/// ([`collect`](Dataset::collect), [`count`](Dataset::count), ...) asks for them: that is a job,
/// whose stages are cut where rows change their partition ([`repartition`](Dataset::repartition),
/// [`group_by`](Dataset::group_by), [`reduce_by_key`](Dataset::reduce_by_key)). Inside a stage one
/// task makes one partition, row by row, so its memory is that of what the operations keep.
///
/// [`barrier`](Dataset::barrier) makes a gang of the stage it is in, with all that this stage does
/// before and after it.
///
/// ```
/// # use phalanx::Runtime;
/// let runtime = Runtime::with_slots(3)?;
/// let sums = runtime
///     .parallelize(0..9, 3)
///     .barrier()
///     .map_partitions(|ctx, rows| {
///         let mine: i32 = rows.sum();
///         Ok([ctx.all_gather(&mine)?]) // all three tasks are here now
///     })
///     .collect()
///     .wait()?;
/// assert_eq!(sums, [[3, 12, 21]; 3]);
/// # Ok::<(), phalanx::BoxError>(())
/// ```
///
/// Rows of a source and of a shuffle are cloned for whoever reads them, because a retry reads them
/// again; everywhere else they are moved, or copied if they are small and own nothing. What a
/// shuffle has made is kept in memory until the last dataset that is made of it is dropped, so
/// several actions make it once.
///
/// Operations take closures, so datasets run on executors of this process. A dataset keeps its
/// runtime running.
#[must_use = "nothing runs until an action asks for its rows"]
pub struct Dataset<T> {
    runtime: Runtime,
    meta: Arc<Meta>,
    compute: Compute<T>,
    settings: Stage<Tasks>,
}

/// How a partition's rows are made, by the task that is given.
type Compute<T> = Arc<dyn Fn(usize, &TaskEnv) -> Rows<T> + Send + Sync>;

/// A task that makes a partition.
#[derive(Clone)]
struct TaskEnv {
    ctx: blocking::BarrierTaskContext,
}

/// A dataset without its type of rows.
struct Meta {
    name: &'static str,
    num_partitions: usize,
    from_barrier: bool,
    parents: Vec<Parent>,
    /// How many datasets are upon each other, this one included.
    depth: usize,
    /// Why no job can run on it.
    refusal: Option<String>,
}

enum Parent {
    Narrow(Arc<Meta>),
    Shuffle(Arc<Shuffle>),
}

impl Parent {
    fn meta(&self) -> &Arc<Meta> {
        match self {
            Parent::Narrow(meta) => meta,
            Parent::Shuffle(shuffle) => &shuffle.parent,
        }
    }
}

/// More datasets than this upon each other are refused: making a row goes through all of one stage,
/// and each takes some room on the stack of its task.
const DEPTH_MAX: usize = 512;

impl Meta {
    fn new(name: &'static str, num_partitions: usize, parents: Vec<Parent>) -> Meta {
        let depth = parents.iter().map(|parent| parent.meta().depth).max().unwrap_or(0) + 1;
        Meta { name, num_partitions, from_barrier: false, parents, depth, refusal: None }
    }

    fn narrow(name: &'static str, num_partitions: usize, parents: &[&Arc<Meta>]) -> Meta {
        let parents = parents.iter().map(|parent| Parent::Narrow((*parent).clone()));
        Meta::new(name, num_partitions, parents.collect())
    }

    fn refused(mut self, refusal: Option<String>) -> Meta {
        self.refusal = refusal;
        self
    }
}

/// The lineage of a dataset, its shuffles, and the first reason why no job can run on it.
struct Described {
    lineage: Lineage,
    shuffles: Vec<Arc<Shuffle>>,
    refusal: Option<String>,
}

impl Described {
    fn of(last: &Arc<Meta>) -> Described {
        let (lineage, shuffles) = (Lineage::default(), Vec::new());
        let mut described = Described { lineage, shuffles, refusal: None };
        described.add(last, &mut HashMap::new());
        described
    }

    /// Parents first; each dataset once, whatever is made of it.
    fn add(&mut self, meta: &Arc<Meta>, places: &mut HashMap<*const Meta, usize>) -> usize {
        if let Some(place) = places.get(&Arc::as_ptr(meta)) {
            return *place;
        }
        let mut parents = Vec::new();
        for parent in &meta.parents {
            let place = self.add(parent.meta(), places);
            parents.push(match parent {
                Parent::Narrow(_) => Dependency::Narrow { parent: place },
                Parent::Shuffle(shuffle) => {
                    self.shuffles.push(shuffle.clone());
                    Dependency::Shuffle { parent: place, stage: shuffle.stage }
                }
            });
        }
        if self.refusal.is_none() {
            self.refusal.clone_from(&meta.refusal);
        }
        let place = self.lineage.push(DatasetNode {
            name: meta.name.to_owned(),
            // More than this are refused when a job is run.
            num_partitions: u32::try_from(meta.num_partitions).unwrap_or(u32::MAX),
            from_barrier: meta.from_barrier,
            parents,
        });
        places.insert(Arc::as_ptr(meta), place);
        place
    }
}

impl<T> Clone for Dataset<T> {
    fn clone(&self) -> Self {
        Dataset {
            runtime: self.runtime.clone(),
            meta: self.meta.clone(),
            compute: self.compute.clone(),
            settings: self.settings.clone(),
        }
    }
}

impl<T> fmt::Debug for Dataset<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset")
            .field("made_by", &self.meta.name)
            .field("num_partitions", &self.meta.num_partitions)
            .finish_non_exhaustive()
    }
}

impl<T: 'static> Dataset<T> {
    /// A dataset of no parents.
    fn source(runtime: &Runtime, meta: Meta, compute: Compute<T>) -> Dataset<T> {
        // A result stage may have handed out results, so it is not repeated unless it is asked for.
        let settings = Stage::tasks(0).name("job").on_failure(OnFailure::Abort);
        Dataset { runtime: runtime.clone(), meta: Arc::new(meta), compute, settings }
    }

    /// One that is made of this one.
    fn derived<U>(&self, meta: Meta, compute: Compute<U>) -> Dataset<U> {
        let (runtime, settings) = (self.runtime.clone(), self.settings.clone());
        if meta.depth <= DEPTH_MAX {
            return Dataset { runtime, meta: Arc::new(meta), compute, settings };
        }
        // Nothing that goes deeper is kept, however long the program goes on so.
        let refusal = format!(
            "it is made of more than {DEPTH_MAX} datasets, each of the one before: do more in one \
             operation, or collect() on the way and go on from parallelize()"
        );
        let mut top = Meta::new(meta.name, meta.num_partitions, Vec::new()).refused(Some(refusal));
        top.depth = DEPTH_MAX + 1;
        let compute = Arc::new(|_: usize, _: &TaskEnv| unreachable!("no job runs on it"));
        Dataset { runtime, meta: Arc::new(top), compute, settings }
    }

    /// How many partitions it has: the number of tasks that make it.
    pub fn num_partitions(&self) -> usize {
        self.meta.num_partitions
    }

    /// Whether it is made by a gang: an operation of [`barrier`](Dataset::barrier) made it, or what
    /// it is made of in the same stage. A shuffle ends that.
    pub fn is_barrier(&self) -> bool {
        Described::of(&self.meta).lineage.barrier_datasets().last().copied().unwrap_or(false)
    }

    /// Changes what holds for the stages of jobs on this dataset, and on those made of it later:
    /// name, resources, attempts, delays, priority, timeouts, checkpoints, and what happens when
    /// the result gang fails. Those of the dataset whose action is called hold for all stages of
    /// the job, but for a map stage that runs already for another job. What a job decides itself
    /// (kind and number of tasks) is not taken.
    ///
    /// ```
    /// # use phalanx::{OnFailure, Runtime};
    /// # let runtime = Runtime::with_slots(2)?;
    /// let dataset = runtime
    ///     .parallelize(0..4, 2)
    ///     .settings(|stage| stage.name("sum").on_failure(OnFailure::Restart).max_attempts(2));
    /// assert_eq!(dataset.count().wait()?, 4);
    /// # Ok::<(), phalanx::BoxError>(())
    /// ```
    ///
    /// **When a result gang may be repeated.** The default is [`OnFailure::Abort`]: a task's
    /// effects outside of its rows may be out when another one of its gang fails. The rows
    /// themselves are handed over only when the whole gang has succeeded, so `collect`, `count`,
    /// `reduce`, `take` and `first` may safely ask for [`OnFailure::Restart`] if the closures have
    /// no such effects, or effects that may be repeated.
    /// [`for_each_partition`](Dataset::for_each_partition) is there for its effects: with `Restart`
    /// it is repeated only as long as none of its partitions is done. Map gangs have handed nothing
    /// out, and are always repeated.
    #[must_use = "the dataset itself is not changed"]
    pub fn settings(&self, change: impl FnOnce(Stage<Tasks>) -> Stage<Tasks>) -> Dataset<T> {
        Dataset { settings: change(self.settings.clone()), ..self.clone() }
    }

    /// Makes a gang of the stage that the next operation is in: all of its tasks start together or
    /// none, may meet at [`barrier()`](blocking::BarrierTaskContext::barrier), and fail together.
    ///
    /// A gang whose output was lost makes it again as a whole. A plain stage that reads it keeps
    /// what its tasks have done, so rows that are not the same in every attempt (random numbers,
    /// the time) may come from two attempts then, as in Spark.
    pub fn barrier(&self) -> BarrierDataset<T> {
        BarrierDataset::new(self.clone())
    }
}

//! What a gang can do with a dataset.

use super::rows::{Rows, or_stop};
use super::{Dataset, Meta};
use crate::{TaskResult, blocking};
use std::fmt;
use std::sync::Arc;

/// A dataset whose next operation is one of a gang. Made by [`Dataset::barrier`].
#[must_use = "a gang is made by its map_partitions"]
pub struct BarrierDataset<T> {
    dataset: Dataset<T>,
}

impl<T> fmt::Debug for BarrierDataset<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BarrierDataset").field(&self.dataset).finish()
    }
}

impl<T: 'static> BarrierDataset<T> {
    pub(super) fn new(dataset: Dataset<T>) -> Self {
        BarrierDataset { dataset }
    }

    /// Has each task of the gang make a partition's rows of those it is given. All must make the
    /// same calls to the context's `barrier()` and collectives, which block: it is a
    /// [`blocking::BarrierTaskContext`].
    pub fn map_partitions<U, I, F>(&self, code: F) -> Dataset<U>
    where
        U: 'static,
        I: IntoIterator<Item = U, IntoIter: 'static>,
        F: Fn(blocking::BarrierTaskContext, Rows<T>) -> TaskResult<I> + Send + Sync + 'static,
    {
        self.gang("barrier map_partitions", move |ctx, _, rows| code(ctx, rows))
    }

    /// [`map_partitions`](Self::map_partitions) that is also given the partition's index.
    pub fn map_partitions_with_index<U, I, F>(&self, code: F) -> Dataset<U>
    where
        U: 'static,
        I: IntoIterator<Item = U, IntoIter: 'static>,
        F: Fn(blocking::BarrierTaskContext, usize, Rows<T>) -> TaskResult<I>
            + Send
            + Sync
            + 'static,
    {
        self.gang("barrier map_partitions_with_index", code)
    }

    fn gang<U, I, F>(&self, name: &'static str, code: F) -> Dataset<U>
    where
        U: 'static,
        I: IntoIterator<Item = U, IntoIter: 'static>,
        F: Fn(blocking::BarrierTaskContext, usize, Rows<T>) -> TaskResult<I>
            + Send
            + Sync
            + 'static,
    {
        let dataset = &self.dataset;
        let mut meta = Meta::narrow(name, dataset.num_partitions(), &[&dataset.meta]);
        meta.from_barrier = true;
        let parent = dataset.compute.clone();
        let compute = Arc::new(move |partition: usize, env: &super::TaskEnv| {
            let rows = parent(partition, env);
            let rows = or_stop(code(env.ctx.clone(), partition, rows));
            Rows::new(rows).until_killed(env)
        });
        dataset.derived(meta, compute)
    }
}

//! Operations inside of a stage.

use super::rows::{Rows, or_stop, stop};
use super::{Dataset, Meta, TaskEnv};
use crate::TaskResult;
use std::sync::Arc;

impl<T: 'static> Dataset<T> {
    /// Each row, changed. A closure that may fail belongs into
    /// [`map_partitions`](Self::map_partitions), which returns a `Result`.
    pub fn map<U: 'static>(&self, code: impl Fn(T) -> U + Send + Sync + 'static) -> Dataset<U> {
        let code = Arc::new(code);
        self.each_partition("map", move |_, rows, _| {
            let code = code.clone();
            rows.mapped(move |row| code(row))
        })
    }

    /// The rows for which `keep` is true.
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Dataset<T> {
        let keep = Arc::new(keep);
        self.each_partition("filter", move |_, rows, _| {
            let keep = keep.clone();
            Rows::new(rows.filter(move |row| keep(row)))
        })
    }

    /// All that is made of each row, one after the other.
    pub fn flat_map<U, I>(&self, code: impl Fn(T) -> I + Send + Sync + 'static) -> Dataset<U>
    where
        U: 'static,
        I: IntoIterator<Item = U> + 'static,
    {
        let code = Arc::new(code);
        self.each_partition("flat_map", move |_, rows, env| {
            let code = code.clone();
            Rows::new(rows.flat_map(move |row| code(row))).until_killed(env)
        })
    }

    /// The rows that are made of all rows of a partition.
    pub fn map_partitions<U, I, F>(&self, code: F) -> Dataset<U>
    where
        U: 'static,
        I: IntoIterator<Item = U, IntoIter: 'static>,
        F: Fn(Rows<T>) -> TaskResult<I> + Send + Sync + 'static,
    {
        self.each_partition("map_partitions", move |_, rows, env| {
            Rows::new(or_stop(code(rows))).until_killed(env)
        })
    }

    /// [`map_partitions`](Self::map_partitions) that is also given the partition's index.
    pub fn map_partitions_with_index<U, I, F>(&self, code: F) -> Dataset<U>
    where
        U: 'static,
        I: IntoIterator<Item = U, IntoIter: 'static>,
        F: Fn(usize, Rows<T>) -> TaskResult<I> + Send + Sync + 'static,
    {
        self.each_partition("map_partitions_with_index", move |partition, rows, env| {
            Rows::new(or_stop(code(partition, rows))).until_killed(env)
        })
    }

    /// Pairs of the first rows, the second rows and so on. Both must have as many partitions, and
    /// as many rows in each: a task that finds a difference fails. The
    /// [`settings`](Self::settings) are this dataset's.
    pub fn zip<U: 'static>(&self, other: &Dataset<U>) -> Dataset<(T, U)> {
        let (mine, theirs) = (self.num_partitions(), other.num_partitions());
        let refusal = (mine != theirs).then(|| {
            format!(
                "zip: a dataset of {mine} partitions and one of {theirs} do not pair up; \
                 repartition one of them"
            )
        });
        let refusal = refusal.or_else(|| self.of_two_runtimes("zip", other));
        let meta = Meta::narrow("zip", mine, &[&self.meta, &other.meta]).refused(refusal);
        let (left, right) = (self.compute.clone(), other.compute.clone());
        let compute = Arc::new(move |partition: usize, env: &TaskEnv| {
            let (mut left, mut right) = (left(partition, env), right(partition, env));
            let mut pairs = 0_u64;
            Rows::new(std::iter::from_fn(move || match (left.next(), right.next()) {
                (Some(one), Some(other)) => {
                    pairs += 1;
                    Some((one, other))
                }
                (None, None) => None,
                (one, _) => {
                    let longer = if one.is_some() { "first" } else { "second" };
                    stop(format!(
                        "zip: in partition {partition} the {longer} dataset has more rows than the \
                         {pairs} of the other; zip what has as many rows in each partition"
                    ))
                }
            }))
        });
        self.derived(meta, compute)
    }

    /// The partitions of both. Cannot be in a barrier stage. The [`settings`](Self::settings) are
    /// this dataset's.
    pub fn union(&self, other: &Dataset<T>) -> Dataset<T> {
        let mine = self.num_partitions();
        let all = mine + other.num_partitions();
        let refusal = self.of_two_runtimes("union", other);
        let meta = Meta::narrow("union", all, &[&self.meta, &other.meta]).refused(refusal);
        let (left, right) = (self.compute.clone(), other.compute.clone());
        let compute =
            Arc::new(move |partition: usize, env: &TaskEnv| match partition.checked_sub(mine) {
                None => left(partition, env),
                Some(partition) => right(partition, env),
            });
        self.derived(meta, compute)
    }

    /// Fewer partitions, each of some neighbours, without moving rows between tasks; as many as
    /// there are if more are asked for. Cannot be in a barrier stage.
    ///
    /// Each task takes some microseconds to be started and heard of. Where the rows of a partition
    /// take no longer than that, a few partitions per slot are faster than many.
    pub fn coalesce(&self, partitions: usize) -> Dataset<T> {
        let all = self.num_partitions();
        let count = partitions.min(all);
        let refusal = (partitions == 0)
            .then(|| "coalesce: rows cannot be in 0 partitions, ask for 1 or more".to_owned());
        let meta = Meta::narrow("coalesce", count, &[&self.meta]).refused(refusal);
        let parent = self.compute.clone();
        let compute = Arc::new(move |partition: usize, env: &TaskEnv| {
            let (parent, env) = (parent.clone(), env.clone());
            let begin = |partition: usize| partition * all / count;
            let neighbours = begin(partition)..begin(partition + 1);
            Rows::new(neighbours.flat_map(move |neighbour| parent(neighbour, &env)))
        });
        self.derived(meta, compute)
    }

    /// The partitions for whose index `keep` is true. Cannot be in a barrier stage, unless it keeps
    /// all.
    pub fn prune_partitions(&self, keep: impl Fn(usize) -> bool) -> Dataset<T> {
        let kept: Vec<usize> = (0..self.num_partitions()).filter(|it| keep(*it)).collect();
        let meta = Meta::narrow("prune_partitions", kept.len(), &[&self.meta]);
        let parent = self.compute.clone();
        let compute = Arc::new(move |partition: usize, env: &TaskEnv| parent(kept[partition], env));
        self.derived(meta, compute)
    }

    /// What a shuffle has made is known by a name that another runtime has, too.
    fn of_two_runtimes<U>(&self, operation: &str, other: &Dataset<U>) -> Option<String> {
        (!self.runtime.is(&other.runtime)).then(|| {
            format!(
                "{operation}: the datasets are of two runtimes; collect() one of them and hand its \
                 rows to the other's runtime with parallelize()"
            )
        })
    }

    /// One partition of each of this one's.
    fn each_partition<U: 'static>(
        &self,
        name: &'static str,
        code: impl Fn(usize, Rows<T>, &TaskEnv) -> Rows<U> + Send + Sync + 'static,
    ) -> Dataset<U> {
        let meta = Meta::narrow(name, self.num_partitions(), &[&self.meta]);
        let parent = self.compute.clone();
        let compute = Arc::new(move |partition: usize, env: &TaskEnv| {
            code(partition, parent(partition, env), env)
        });
        self.derived(meta, compute)
    }
}

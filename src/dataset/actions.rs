//! What makes a dataset's rows.

use super::job::Job;
use super::rows::Rows;
use super::{Dataset, JobHandle};
use crate::TaskResult;
use std::sync::Arc;

impl<T: Send + 'static> Dataset<T> {
    /// All rows, in order of their partitions.
    pub fn collect(&self) -> JobHandle<Vec<T>> {
        let job = Job::new(self, |rows| Ok(rows.into_vec()));
        job.run(|parts| {
            let count = parts.iter().map(Vec::len).sum::<usize>();
            let mut parts = parts.into_iter();
            let mut all = parts.next().unwrap_or_default();
            all.reserve_exact(count - all.len());
            parts.for_each(|part| all.extend(part));
            all
        })
    }

    /// The rows of each of these partitions, in this order. Of a barrier dataset each must be asked
    /// for once; of another one there is a task for each that is asked for, numbered from 0.
    pub fn collect_partitions(
        &self,
        partitions: impl IntoIterator<Item = usize>,
    ) -> JobHandle<Vec<Vec<T>>> {
        let job = Job::new(self, |rows| Ok(rows.into_vec()));
        job.only(partitions.into_iter().collect()).run(|parts| parts)
    }

    /// The number of rows.
    pub fn count(&self) -> JobHandle<u64> {
        let job = Job::new(self, |rows| Ok(rows.fold(0_u64, |count, _| count + 1)));
        job.run(|counts| counts.into_iter().sum())
    }

    /// All rows made one, each partition's in order and then those of the partitions in order;
    /// `None` if there are none. The last step runs where the result is awaited.
    pub fn reduce(
        &self,
        reduce: impl Fn(T, T) -> T + Send + Sync + 'static,
    ) -> JobHandle<Option<T>> {
        let reduce = Arc::new(reduce);
        let here = reduce.clone();
        let job = Job::new(self, move |rows| Ok(rows.reduce(|one, other| here(one, other))));
        job.run(move |parts| parts.into_iter().flatten().reduce(|one, other| reduce(one, other)))
    }

    /// Has `code` take the rows of each partition, for what it does with them. A gang is not
    /// repeated when it fails, or with [`OnFailure::Restart`](crate::OnFailure::Restart) only while
    /// none of its partitions is done; see [`settings`](Dataset::settings).
    pub fn for_each_partition(
        &self,
        code: impl Fn(Rows<T>) -> TaskResult<()> + Send + Sync + 'static,
    ) -> JobHandle<()> {
        Job::new(self, code).for_its_effects().run(|_| ())
    }

    /// The first `count` rows, or all if there are fewer. Each task makes at most so many; but a
    /// gang makes all of its rows, of which the first are taken. (Spark refuses that.)
    pub fn take(&self, count: usize) -> JobHandle<Vec<T>> {
        let makes_all = self.is_barrier();
        let job = Job::new(self, move |rows| {
            // To ask for a row that is not there may do something, and is done once.
            let mut rows = rows.fuse();
            let first: Vec<T> = rows.by_ref().take(count).collect();
            if makes_all {
                rows.for_each(drop);
            }
            Ok(first)
        });
        job.run(move |parts| parts.into_iter().flatten().take(count).collect())
    }

    /// The first row, if there is one; see [`take`](Dataset::take).
    pub fn first(&self) -> JobHandle<Option<T>> {
        self.take(1).then(|rows| rows.into_iter().next())
    }
}

//! Datasets of what is in memory.

use super::rows::Rows;
use super::{Dataset, Meta};
use crate::Runtime;
use std::sync::Arc;

impl Runtime {
    /// A dataset of these items, in so many partitions of as equal sizes as possible, in order.
    ///
    /// ```
    /// # use phalanx::Runtime;
    /// # let runtime = Runtime::with_slots(2)?;
    /// let numbers = runtime.parallelize(0..5, 2).collect_partitions([0, 1]).wait()?;
    /// assert_eq!(numbers, [vec![0, 1], vec![2, 3, 4]]);
    /// # Ok::<(), phalanx::BoxError>(())
    /// ```
    pub fn parallelize<T: Clone + Send + Sync + 'static>(
        &self,
        items: impl IntoIterator<Item = T>,
        partitions: usize,
    ) -> Dataset<T> {
        let limit = self.config().stage_max_tasks;
        if partitions > limit as usize {
            let refusal = format!(
                "parallelize: {partitions} partitions are asked for, allowed are at most {limit} \
                 (stage.max_tasks)"
            );
            return in_memory(self, "parallelize", Vec::new(), Some(refusal));
        }
        let mut rest: Vec<T> = items.into_iter().collect();
        let all = rest.len();
        // From the end, so that nothing is moved twice. No product overflows: all items are there.
        let begin =
            |partition: usize| (all as u128 * partition as u128 / partitions as u128) as usize;
        let mut parts: Vec<Vec<T>> =
            (0..partitions).rev().map(|partition| rest.split_off(begin(partition))).collect();
        parts.reverse();
        let refusal = (partitions == 0).then(|| {
            format!("parallelize: {all} items cannot be in 0 partitions, ask for 1 or more")
        });
        in_memory(self, "parallelize", parts, refusal)
    }

    /// A dataset of these partitions.
    pub fn from_partitions<T: Clone + Send + Sync + 'static>(
        &self,
        partitions: impl IntoIterator<Item = Vec<T>>,
    ) -> Dataset<T> {
        in_memory(self, "from_partitions", partitions.into_iter().collect(), None)
    }
}

fn in_memory<T: Clone + Send + Sync + 'static>(
    runtime: &Runtime,
    name: &'static str,
    mut parts: Vec<Vec<T>>,
    refusal: Option<String>,
) -> Dataset<T> {
    let meta = Meta::narrow(name, parts.len(), &[]).refused(refusal);
    parts.iter_mut().for_each(Vec::shrink_to_fit);
    let parts = Arc::new(parts);
    let compute = Arc::new(move |partition: usize, env: &super::TaskEnv| {
        let parts = parts.clone();
        Rows::kept(partition, move || vec![parts.clone()]).until_killed(env)
    });
    Dataset::source(runtime, meta, compute)
}

//! Operations that move rows between partitions.

use super::rows::{Rows, or_stop};
use super::{Dataset, Meta, Parent, TaskEnv};
use crate::StageId;
use actix::Addr;
use indexmap::IndexMap;
use phalanx_actors::{MapOutputs, MapRows, PlannerActor, Tell};
use phalanx_protocol::PlannerEvent;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;

/// A map stage, and what it has made: kept until this is dropped.
pub(super) struct Shuffle {
    pub(super) stage: StageId,
    pub(super) parent: Arc<Meta>,
    pub(super) write: Write,
    outputs: MapOutputs,
    planner: Addr<PlannerActor>,
}

/// What a task of the map stage does: the rows of a partition, by the partition they go to.
pub(super) type Write = Arc<dyn Fn(usize, &TaskEnv) -> MapRows + Send + Sync>;

impl Drop for Shuffle {
    fn drop(&mut self) {
        self.planner.do_send(Tell(PlannerEvent::DatasetDropped(self.stage)));
    }
}

impl Shuffle {
    /// The rows for a partition, map task by map task.
    fn read<T: Clone + Send + Sync + 'static>(self: &Arc<Self>, partition: usize) -> Rows<T> {
        let shuffle = self.clone();
        Rows::kept(partition, move || {
            let outputs =
                or_stop(shuffle.outputs.fetch(shuffle.stage, shuffle.parent.num_partitions));
            let parts = outputs.into_iter().map(|rows| rows.downcast());
            parts
                .map(|parts| {
                    parts.unwrap_or_else(|_| unreachable!("this shuffle wrote these rows"))
                })
                .collect()
        })
    }
}

/// The same in every run, so that a retry finds its rows where they were.
fn place_of(key: &impl Hash, partitions: usize) -> usize {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    (hasher.hash_one(key) % partitions as u64) as usize
}

impl<T: Send + 'static> Dataset<T> {
    /// The same rows, dealt out evenly to so many partitions: a shuffle, so that what follows is
    /// another stage.
    pub fn repartition(&self, partitions: usize) -> Dataset<T>
    where
        T: Clone + Sync,
    {
        let parent = self.compute.clone();
        let write = move |partition: usize, env: &TaskEnv| {
            let rows = parent(partition, env);
            let mut parts = parts_for(partitions, rows.room());
            let mut next = partition % partitions;
            rows.for_some(&mut |rows| {
                next = deal(rows, &mut parts, next);
            });
            parts
        };
        self.shuffled("repartition", partitions, write, |rows| rows)
    }

    /// The rows by key, in as many partitions as there are now: every key once, with its rows in
    /// order. The groups of a partition are in memory together.
    pub fn group_by<K>(&self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Dataset<(K, Vec<T>)>
    where
        T: Clone + Sync,
        K: Hash + Eq + Clone + Send + Sync + 'static,
    {
        let (parent, partitions) = (self.compute.clone(), self.num_partitions());
        let write = move |partition: usize, env: &TaskEnv| {
            let rows = parent(partition, env);
            let mut parts = parts_for(partitions, rows.room());
            rows.for_each(|row| {
                let key = key(&row);
                parts[place_of(&key, partitions)].push((key, row));
            });
            parts
        };
        self.shuffled("group_by", partitions, write, |rows: Rows<(K, T)>| {
            later(move || {
                let mut groups: IndexMap<K, Vec<T>> = IndexMap::new();
                rows.for_each(|(key, row)| groups.entry(key).or_default().push(row));
                groups
            })
        })
    }

    /// `write`: the rows of a partition by the partition they go to. `gather`: what is made of
    /// those that come to one.
    fn shuffled<W, U>(
        &self,
        name: &'static str,
        partitions: usize,
        write: impl Fn(usize, &TaskEnv) -> Vec<Vec<W>> + Send + Sync + 'static,
        gather: impl Fn(Rows<W>) -> Rows<U> + Send + Sync + 'static,
    ) -> Dataset<U>
    where
        W: Clone + Send + Sync + 'static,
        U: 'static,
    {
        let shuffle = Arc::new(Shuffle {
            stage: self.runtime.next_stage_id(),
            parent: self.meta.clone(),
            write: Arc::new(move |partition, env| Arc::new(write(partition, env))),
            outputs: self.runtime.map_outputs().clone(),
            planner: self.runtime.planner().clone(),
        });
        let refusal = (partitions == 0 && self.num_partitions() > 0)
            .then(|| format!("{name}: rows cannot be in 0 partitions, ask for 1 or more"));
        let parents = vec![Parent::Shuffle(shuffle.clone())];
        let meta = Meta::new(name, partitions, parents).refused(refusal);
        let compute = Arc::new(move |partition: usize, env: &TaskEnv| {
            gather(shuffle.read(partition).until_killed(env))
        });
        self.derived(meta, compute)
    }
}

impl<K, V> Dataset<(K, V)>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Every key once, with its values made one by `reduce`, in as many partitions as there are
    /// now. Values are first reduced where they are.
    pub fn reduce_by_key(
        &self,
        reduce: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> Dataset<(K, V)> {
        let (parent, partitions) = (self.compute.clone(), self.num_partitions());
        let reduce = Arc::new(reduce);
        let here = reduce.clone();
        let write = move |partition: usize, env: &TaskEnv| {
            let mut parts = parts_for(partitions, 0);
            for (key, value) in reduced(parent(partition, env), &*here) {
                parts[place_of(&key, partitions)].push((key, value));
            }
            parts
        };
        self.shuffled("reduce_by_key", partitions, write, move |rows| {
            let reduce = reduce.clone();
            later(move || reduced(rows, &*reduce))
        })
    }
}

/// One row to each part in turn, from `next` on. Returns whose turn it is then.
fn deal<T: Clone>(rows: &mut Vec<T>, parts: &mut [Vec<T>], next: usize) -> usize {
    let (count, turns) = (rows.len(), parts.len());
    if count == 1 {
        // It may own something: it is moved, not cloned.
        parts[next].append(rows);
    } else {
        let (later, first) = parts.split_at_mut(next);
        for (row, part) in (0..count).zip(first.iter_mut().chain(later)) {
            part.extend(rows[row..].iter().step_by(turns).cloned());
        }
        rows.clear();
    }
    (next + count) % turns
}

/// In the order in which the keys first come.
fn reduced<K: Hash + Eq, V>(
    rows: Rows<(K, V)>,
    reduce: &dyn Fn(V, V) -> V,
) -> impl Iterator<Item = (K, V)> + use<K, V> {
    let mut values: IndexMap<K, Option<V>> = IndexMap::new();
    rows.for_each(|(key, value)| {
        let known = values.entry(key).or_default();
        *known = Some(match known.take() {
            Some(former) => reduce(former, value),
            None => value,
        });
    });
    values.into_iter().filter_map(|(key, value)| Some((key, value?)))
}

/// Made when the first row is asked for.
fn later<U, I>(make: impl FnOnce() -> I + 'static) -> Rows<U>
where
    U: 'static,
    I: IntoIterator<Item = U> + 'static,
{
    Rows::new(std::iter::once_with(make).flatten())
}

fn parts_for<T>(partitions: usize, rows: usize) -> Vec<Vec<T>> {
    let room = rows.div_ceil(partitions.max(1));
    (0..partitions).map(|_| Vec::with_capacity(room)).collect()
}

//! Who has which slots, and where a gang would fit.

use super::Reservation;
use crate::resources::{Free, Held};
use crate::{Addresses, ExecutorId, ExecutorResources, Incarnation, TaskResources};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The executors that are there, what they have and what is free of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct SlotLedger {
    executors: BTreeMap<ExecutorId, Executor>,
    /// The highest life seen of every executor, so that nothing of an earlier one is taken.
    incarnations: BTreeMap<ExecutorId, Incarnation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Executor {
    pub(super) incarnation: Incarnation,
    pub(super) address: Arc<str>,
    pub(super) resources: ExecutorResources,
    free: Free,
}

impl SlotLedger {
    pub(super) fn executors(&self) -> impl Iterator<Item = (ExecutorId, &Executor)> {
        self.executors.iter().map(|(id, executor)| (*id, executor))
    }

    pub(super) fn get(&self, executor: ExecutorId) -> Option<&Executor> {
        self.executors.get(&executor)
    }

    /// Whether an executor that joins under this incarnation is news.
    pub(super) fn is_newer(&self, executor: ExecutorId, incarnation: Incarnation) -> bool {
        self.incarnations.get(&executor).is_none_or(|known| *known < incarnation)
    }

    pub(super) fn join(
        &mut self,
        id: ExecutorId,
        incarnation: Incarnation,
        address: Arc<str>,
        resources: ExecutorResources,
    ) {
        self.note_life(id, incarnation);
        let free = Free::all(&resources);
        self.executors.insert(id, Executor { incarnation, address, resources, free });
    }

    /// From now on earlier lives, and this one, are no news.
    pub(super) fn note_life(&mut self, executor: ExecutorId, incarnation: Incarnation) {
        self.incarnations.insert(executor, incarnation);
    }

    pub(super) fn remove(&mut self, executor: ExecutorId) {
        self.executors.remove(&executor);
    }

    pub(super) fn has_free_cpus(&self) -> bool {
        self.executors.values().any(|executor| executor.free.cpus() > 0)
    }

    /// Slots of all executors, busy or not.
    pub(super) fn slots_in_total(&self, task: &TaskResources) -> u64 {
        let all = self.executors.values().map(|executor| Free::all(&executor.resources));
        all.map(|free| u64::from(free.fits(task))).sum()
    }

    /// Slots that are free now.
    pub(super) fn slots_free(&self, task: &TaskResources) -> u64 {
        self.executors.values().map(|executor| u64::from(executor.free.fits(task))).sum()
    }

    /// Executors for up to `wanted` tasks, one entry per task, spread evenly. Those on which the
    /// stage has failed are used only if the others do not suffice. Slots that `reservation` keeps
    /// are left alone.
    pub(super) fn place(
        &self,
        task: &TaskResources,
        wanted: u32,
        failed_on: &BTreeMap<ExecutorId, u32>,
        reservation: Option<&Reservation>,
    ) -> Vec<ExecutorId> {
        let mut fits: Vec<(u32, ExecutorId, u32)> = self
            .executors
            .iter()
            .map(|(id, executor)| {
                let fits = match reservation.and_then(|it| Some((it, it.plan.get(id)?))) {
                    None => executor.free.fits(task),
                    Some((it, &count)) => executor.free.fits_beside(task, count, &it.resources),
                };
                (failed_on.get(id).copied().unwrap_or(0), *id, fits)
            })
            .filter(|(_, _, fits)| *fits > 0)
            .collect();
        fits.sort_unstable();
        fits.truncate(enough(&fits, wanted));
        spread(fits, wanted)
    }

    /// On which executors `wanted` tasks shall start once enough is free: what is free now first,
    /// then what `busy_forever` tasks do not hold. `None` if that is not enough.
    pub(super) fn plan(
        &self,
        task: &TaskResources,
        wanted: u32,
        busy_forever: &[(ExecutorId, &Held)],
    ) -> Option<BTreeMap<ExecutorId, u32>> {
        let mut plan = BTreeMap::new();
        let mut left = wanted;
        for (id, executor) in &self.executors {
            let here = executor.free.fits(task).min(left);
            left -= here;
            plan.insert(*id, here);
        }
        for (id, executor) in &self.executors {
            let mut later = Free::all(&executor.resources);
            for (_, held) in busy_forever.iter().filter(|(on, _)| on == id) {
                later.take_away(held);
            }
            let planned = plan.entry(*id).or_insert(0);
            let more = later.fits(task).saturating_sub(*planned).min(left);
            left -= more;
            *planned += more;
        }
        plan.retain(|_, count| *count > 0);
        (left == 0).then_some(plan)
    }

    /// Takes the slot of one task; it must fit.
    pub(super) fn take(&mut self, id: ExecutorId, task: &TaskResources) -> (Held, Addresses) {
        let executor = self.executors.get_mut(&id).expect("placed on an executor that is there");
        let held = executor.free.take(task);
        let addresses = held.addresses(&executor.resources);
        (held, addresses)
    }

    /// Gives back the slot of a task that has ended.
    pub(super) fn give_back(&mut self, id: ExecutorId, held: &Held) {
        let executor = self.executors.get_mut(&id).expect("a task ends before its executor goes");
        executor.free.give_back(held);
    }
}

/// How many executors, in order of preference, are needed; executors with equally many failures
/// are taken together.
fn enough(fits: &[(u32, ExecutorId, u32)], wanted: u32) -> usize {
    let mut sum = 0_u64;
    for (index, (failures, _, slots)) in fits.iter().enumerate() {
        sum += u64::from(*slots);
        let is_last_of_kind = fits.get(index + 1).is_none_or(|(next, _, _)| next != failures);
        if is_last_of_kind && sum >= u64::from(wanted) {
            return index + 1;
        }
    }
    fits.len()
}

/// One task to each executor in turn, as long as they have slots.
fn spread(mut turns: Vec<(u32, ExecutorId, u32)>, wanted: u32) -> Vec<ExecutorId> {
    let mut placed = Vec::new();
    while !turns.is_empty() && placed.len() < wanted as usize {
        for (_, id, slots) in &mut turns {
            if placed.len() < wanted as usize {
                placed.push(*id);
                *slots -= 1;
            }
        }
        turns.retain(|(_, _, slots)| *slots > 0);
    }
    placed
}

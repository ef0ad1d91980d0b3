//! Stages that wait for slots, in order.

use crate::{StageId, TaskResources};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// The waiting stages. Those that ask for the same are kept together: if the first of them does
/// not fit, none does, so a decision looks at one stage per kind of demand, however many wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct WaitQueue {
    by_demand: BTreeMap<Demand, BTreeSet<Place>>,
    /// The gangs among them that are old enough to keep slots.
    old: BTreeSet<Place>,
}

/// What a stage waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Demand {
    /// Slots needed at once; `None` for a plain stage, which takes what it gets.
    pub(super) gang: Option<u32>,
    pub(super) resources: TaskResources,
}

/// A place in the line: higher priority first, then earlier submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) priority: Reverse<i32>,
    pub(super) stage: StageId,
}

impl WaitQueue {
    pub(super) fn insert(&mut self, demand: Demand, place: Place) {
        self.by_demand.entry(demand).or_default().insert(place);
    }

    /// A gang that waits is old enough to keep slots.
    pub(super) fn grow_old(&mut self, place: Place) {
        self.old.insert(place);
    }

    pub(super) fn remove(&mut self, demand: &Demand, place: &Place) {
        self.old.remove(place);
        if let Some(places) = self.by_demand.get_mut(demand)
            && places.remove(place)
            && places.is_empty()
        {
            self.by_demand.remove(demand);
        }
    }

    /// The first gang in line that is old enough to keep slots.
    pub(super) fn first_old(&self) -> Option<Place> {
        self.old.first().copied()
    }

    /// The first in line of every kind of demand; the first of all is on top.
    pub(super) fn firsts(&self) -> BinaryHeap<Reverse<(Place, Demand)>> {
        let firsts = self.by_demand.iter();
        firsts.filter_map(|(demand, all)| Some(Reverse((*all.first()?, demand.clone())))).collect()
    }

    /// The first in line with this demand.
    pub(super) fn first_of(&self, demand: &Demand) -> Option<Place> {
        self.by_demand.get(demand)?.first().copied()
    }

    /// All that wait, in no particular order.
    pub(super) fn stages(&self) -> impl Iterator<Item = StageId> + '_ {
        self.by_demand.values().flatten().map(|place| place.stage)
    }

    /// How many stand before this place.
    pub(super) fn ahead(&self, place: &Place) -> usize {
        self.by_demand.values().map(|places| places.range(..place).count()).sum()
    }

    /// Everyone's place, in order.
    pub(super) fn places(&self) -> BTreeSet<Place> {
        self.by_demand.values().flatten().copied().collect()
    }
}

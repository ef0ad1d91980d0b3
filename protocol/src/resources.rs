//! What executors have and what tasks take: cpus, and named resources with addresses.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

/// Named resources given to a task: resource name to addresses, e.g. `gpu` to `["0", "3"]`.
pub type Addresses = BTreeMap<String, Vec<String>>;

/// How much of a named resource a task takes, in billionths of one address.
///
/// Below 1, tasks share an address: `floor(1 / amount)` of them fit on it. From 1 on, a task takes
/// `ceil(amount)` whole addresses.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ResourceAmount(u64);

/// An amount that is not a positive number, or too large to be one of addresses.
#[derive(Clone, Debug, PartialEq, Error)]
#[error(
    "resource '{resource}': amount {amount} is not allowed, it must be more than 0 and at most {max}"
)]
pub struct InvalidAmount {
    /// The resource.
    pub resource: String,
    /// What was asked for.
    pub amount: f64,
    /// The largest amount.
    pub max: f64,
}

const WHOLE: u64 = 1_000_000_000;
const AMOUNT_MAX: f64 = 1_000_000.0;

impl ResourceAmount {
    /// One whole address.
    pub const ONE: ResourceAmount = ResourceAmount(WHOLE);

    /// `None` if the amount is not in (0, 1,000,000]. Rounded down to billionths, so that k times
    /// 1/k never is more than one.
    fn new(amount: f64) -> Option<Self> {
        if amount.is_finite() && amount > 0.0 && amount <= AMOUNT_MAX {
            Some(ResourceAmount(((amount * WHOLE as f64) as u64).max(1)))
        } else {
            None
        }
    }

    /// Whether several tasks can share one address.
    fn is_shared(self) -> bool {
        self.0 < WHOLE
    }

    /// Whole addresses taken; at least 1.
    fn addresses(self) -> usize {
        self.0.div_ceil(WHOLE) as usize
    }
}

impl fmt::Display for ResourceAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0 as f64 / WHOLE as f64).fmt(f)
    }
}

/// What one task occupies while it runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskResources {
    cpus: u32,
    named: BTreeMap<String, ResourceAmount>,
}

impl Default for TaskResources {
    /// One cpu.
    fn default() -> Self {
        TaskResources { cpus: 1, named: BTreeMap::new() }
    }
}

impl TaskResources {
    /// `cpus` cpus and no named resource.
    pub fn new(cpus: u32) -> Self {
        TaskResources { cpus, named: BTreeMap::new() }
    }

    /// Adds `amount` of the resource `name`.
    ///
    /// # Errors
    /// If the amount is not in (0, 1,000,000].
    pub fn with(mut self, name: impl Into<String>, amount: f64) -> Result<Self, InvalidAmount> {
        let name = name.into();
        let Some(value) = ResourceAmount::new(amount) else {
            return Err(InvalidAmount { resource: name, amount, max: AMOUNT_MAX });
        };
        self.named.insert(name, value);
        Ok(self)
    }

    /// Changes the number of cpus.
    pub fn with_cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Cpus per task.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }
}

impl fmt::Display for TaskResources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cpu{}", self.cpus, if self.cpus == 1 { "" } else { "s" })?;
        for (name, amount) in &self.named {
            write!(f, " + {amount} {name}")?;
        }
        Ok(())
    }
}

/// What one executor has in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExecutorResources {
    /// Cpus, i.e. slots for tasks of one cpu.
    pub cpus: u32,
    /// Named resources and the addresses of their units, in order of preference.
    pub named: Addresses,
}

impl ExecutorResources {
    /// `cpus` cpus and no named resource.
    pub fn new(cpus: u32) -> Self {
        ExecutorResources { cpus, named: Addresses::new() }
    }

    /// Adds the resource `name` with one unit per address.
    pub fn with<S: Into<String>>(
        mut self,
        name: impl Into<String>,
        addresses: impl IntoIterator<Item = S>,
    ) -> Self {
        self.named.insert(name.into(), addresses.into_iter().map(Into::into).collect());
        self
    }
}

/// What is free of an executor's resources: cpus, and of every address how much.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Free {
    cpus: u32,
    /// By resource, parallel to the executor's addresses.
    units: BTreeMap<String, Vec<u64>>,
}

/// What one running task holds, to be given back as it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) cpus: u32,
    /// By resource: index of the address and how much of it.
    units: BTreeMap<String, Vec<(usize, u64)>>,
}

impl Free {
    /// Everything is free.
    pub(crate) fn all(resources: &ExecutorResources) -> Self {
        let units =
            resources.named.iter().map(|(name, all)| (name.clone(), vec![WHOLE; all.len()]));
        Free { cpus: resources.cpus, units: units.collect() }
    }

    pub(crate) fn cpus(&self) -> u32 {
        self.cpus
    }

    /// How many tasks fit at once. At most `u32::MAX`.
    pub(crate) fn fits(&self, task: &TaskResources) -> u32 {
        let by_cpu = self.cpus.checked_div(task.cpus).unwrap_or(u32::MAX);
        task.named
            .iter()
            .map(|(name, &amount)| match self.units.get(name) {
                None => 0,
                Some(units) if amount.is_shared() => {
                    clamp(units.iter().map(|free| free / amount.0).sum())
                }
                Some(units) => {
                    let whole = units.iter().filter(|&&free| free == WHOLE).count();
                    clamp((whole / amount.addresses()) as u64)
                }
            })
            .fold(by_cpu, u32::min)
    }

    /// How many tasks fit beside `reserved` tasks of another kind, which may have to wait for
    /// units that are still taken: counted in sums, not addresses.
    pub(crate) fn fits_beside(
        &self,
        task: &TaskResources,
        reserved: u32,
        other: &TaskResources,
    ) -> u32 {
        let reserved = u64::from(reserved);
        let cpus = u64::from(self.cpus).saturating_sub(reserved * u64::from(other.cpus));
        let by_cpu = clamp(cpus.checked_div(u64::from(task.cpus)).unwrap_or(u64::MAX));
        let headroom = task.named.iter().map(|(name, amount)| {
            let free: u64 = self.units.get(name).map_or(0, |units| units.iter().sum());
            let kept =
                other.named.get(name).map_or(0, |kept| kept.taken().saturating_mul(reserved));
            clamp(free.saturating_sub(kept) / amount.taken())
        });
        headroom.fold(by_cpu, u32::min).min(self.fits(task))
    }

    /// Takes what one task needs: addresses in order, shared ones filled before the next is begun.
    ///
    /// # Panics
    /// If the task does not fit; callers ask [`Free::fits`] first.
    pub(crate) fn take(&mut self, task: &TaskResources) -> Held {
        self.cpus = self.cpus.checked_sub(task.cpus).expect("asked fits() before take()");
        let mut held = Held { cpus: task.cpus, units: BTreeMap::new() };
        for (name, &amount) in &task.named {
            let units = self.units.get_mut(name).expect("asked fits() before take()");
            let taken: Vec<(usize, u64)> = if amount.is_shared() {
                // The fullest address that has room, so that whole ones stay whole.
                let each = amount.0;
                let room = (0..units.len()).filter(|&index| units[index] >= each);
                room.min_by_key(|&index| (units[index], index))
                    .map(|index| (index, each))
                    .into_iter()
                    .collect()
            } else {
                let whole = (0..units.len()).filter(|&index| units[index] == WHOLE);
                whole.take(amount.addresses()).map(|index| (index, WHOLE)).collect()
            };
            let wanted = if amount.is_shared() { 1 } else { amount.addresses() };
            assert_eq!(taken.len(), wanted, "asked fits() before take()");
            for &(index, each) in &taken {
                units[index] -= each;
            }
            held.units.insert(name.clone(), taken);
        }
        held
    }

    /// Takes exactly what another task holds.
    pub(crate) fn take_away(&mut self, held: &Held) {
        self.cpus -= held.cpus;
        for (name, taken) in &held.units {
            let units = self.units.get_mut(name).expect("was taken from here");
            for &(index, each) in taken {
                units[index] -= each;
            }
        }
    }

    /// Gives back what [`Free::take`] took.
    pub(crate) fn give_back(&mut self, held: &Held) {
        self.cpus += held.cpus;
        for (name, taken) in &held.units {
            let units = self.units.get_mut(name).expect("was taken from here");
            for &(index, each) in taken {
                units[index] += each;
                assert!(units[index] <= WHOLE, "given back more than was taken");
            }
        }
    }
}

impl ResourceAmount {
    /// What one task really takes, in billionths of an address.
    fn taken(self) -> u64 {
        if self.is_shared() { self.0 } else { self.addresses() as u64 * WHOLE }
    }
}

impl Held {
    /// The addresses held, looked up in the executor's resources.
    pub(crate) fn addresses(&self, resources: &ExecutorResources) -> Addresses {
        let named = self.units.iter().map(|(name, taken)| {
            let all = &resources.named[name];
            (name.clone(), taken.iter().map(|&(index, _)| all[index].clone()).collect())
        });
        named.collect()
    }
}

fn clamp(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

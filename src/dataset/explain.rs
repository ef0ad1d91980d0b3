//! What a job would do.

use super::{Dataset, Described};
use phalanx_protocol::{DatasetInfo, PlannedStage, StageId, StageRole};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

impl<T: 'static> Dataset<T> {
    /// The stages of a job on this dataset, one line each, parents before children: what each is
    /// for, whether its tasks are a gang, how many there are, what its tasks do (`*`: made by a
    /// gang), and which chains cannot be a gang. Slots are not looked at.
    ///
    /// ```
    /// # use phalanx::Runtime;
    /// # let runtime = Runtime::with_slots(2)?;
    /// let words = runtime.parallelize(["a", "b", "a"], 2);
    /// let counts = words.map(|word| (word, 1)).reduce_by_key(|one, other| one + other);
    /// let counts = counts.barrier().map_partitions(|_, rows| Ok(rows)).map(|(word, _)| word);
    /// assert_eq!(
    ///     counts.explain(),
    ///     "stage 0: map, plain, 2 tasks: parallelize -> map\n\
    ///      stage 1: result, barrier, 2 tasks: reduce_by_key -> barrier map_partitions* -> map*; \
    ///      after stage 0\n"
    /// );
    /// # Ok::<(), phalanx::BoxError>(())
    /// ```
    pub fn explain(&self) -> String {
        let described = Described::of(&self.meta);
        // A job's stages have ids of the runtime; here they are numbered from 0.
        let planned = described.lineage.stages(StageId(u64::MAX), None);
        let numbers: HashMap<StageId, usize> =
            planned.iter().enumerate().map(|(number, stage)| (stage.stage, number)).collect();
        let mut text = String::new();
        for (number, stage) in planned.iter().enumerate() {
            // Writing to a text does not fail.
            let _ = writeln!(text, "{}", line(number, stage, &numbers));
        }
        if let Some(refusal) = described.refusal {
            let _ = writeln!(text, "would be refused: {refusal}");
        }
        text
    }
}

fn line(number: usize, stage: &PlannedStage, numbers: &HashMap<StageId, usize>) -> String {
    let role = match stage.role {
        StageRole::Map => "map",
        StageRole::Result => "result",
    };
    let kind = if stage.is_barrier() { "barrier" } else { "plain" };
    let last = stage.datasets.len().saturating_sub(1);
    let made = made(&stage.datasets, last, &mut BTreeSet::new());
    let num_tasks = stage.num_tasks;
    let mut line = format!("stage {number}: {role}, {kind}, {num_tasks} tasks: {made}");
    let parents = stage.parents.iter().filter_map(|parent| numbers.get(parent));
    let parents: Vec<String> = parents.map(usize::to_string).collect();
    if !parents.is_empty() {
        line += &format!("; after stage {}", parents.join(", "));
    }
    if let Err(chain) = &stage.chain {
        line += &format!("; would be refused: {chain}");
    }
    line
}

/// What a dataset is made of, in words; what has been told is not told again.
fn made(datasets: &[DatasetInfo], place: usize, told: &mut BTreeSet<usize>) -> String {
    let Some(DatasetInfo { name, is_barrier, parents, .. }) = datasets.get(place) else {
        return String::new();
    };
    let star = if *is_barrier { "*" } else { "" };
    if !told.insert(place) {
        return format!("the same {name}{star}");
    }
    let parents = parents.iter().map(|parent| made(datasets, *parent, told));
    let parents: Vec<String> = parents.collect();
    match &parents[..] {
        [] => format!("{name}{star}"),
        [only] => format!("{only} -> {name}{star}"),
        several => format!("{name}{star}({})", several.join(", ")),
    }
}

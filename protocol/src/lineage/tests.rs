use super::*;

mod chains;

const RESULT: StageId = StageId(9);

/// Datasets of a test, by place.
#[derive(Default)]
struct Datasets(Lineage);

impl Datasets {
    fn source(&mut self, num_partitions: u32) -> usize {
        self.add("source", num_partitions, false, vec![])
    }

    /// Made by the same tasks as its parents are.
    fn narrow(&mut self, name: &str, num_partitions: u32, parents: &[usize]) -> usize {
        self.add(name, num_partitions, false, narrow_on(parents))
    }

    /// Made by an operation of `barrier()`.
    fn barrier(&mut self, num_partitions: u32, parents: &[usize]) -> usize {
        self.add("barrier", num_partitions, true, narrow_on(parents))
    }

    /// Made of these by way of map stages.
    fn shuffled(&mut self, num_partitions: u32, parents: &[(usize, u64)]) -> usize {
        let shuffle = |&(parent, stage)| Dependency::Shuffle { parent, stage: StageId(stage) };
        let parents = parents.iter().map(shuffle).collect();
        self.add("shuffled", num_partitions, false, parents)
    }

    fn add(&mut self, name: &str, parts: u32, barrier: bool, parents: Vec<Dependency>) -> usize {
        let (name, num_partitions, from_barrier) = (name.to_owned(), parts, barrier);
        self.0.push(DatasetNode { name, num_partitions, from_barrier, parents })
    }

    fn stages(&self) -> Vec<PlannedStage> {
        self.0.stages(RESULT, None)
    }

    /// The chain of the result stage, if all partitions or these are asked for.
    fn chain(&self, partitions: Option<&[u32]>) -> Result<(), UnsupportedChain> {
        let mut stages = self.0.stages(RESULT, partitions);
        stages.pop().expect("a result stage").chain
    }
}

fn narrow_on(parents: &[usize]) -> Vec<Dependency> {
    parents.iter().map(|&parent| Dependency::Narrow { parent }).collect()
}

/// What is essential of a stage: id, tasks, parents, names of its datasets.
fn sketch(stage: &PlannedStage) -> (u64, u32, Vec<u64>, String) {
    let parents = stage.parents.iter().map(|it| it.0).collect();
    let names: Vec<&str> = stage.datasets.iter().map(|it| it.name.as_str()).collect();
    (stage.stage.0, stage.num_tasks, parents, names.join(" "))
}

fn sketches(stages: &[PlannedStage]) -> Vec<(u64, u32, Vec<u64>, String)> {
    stages.iter().map(sketch).collect()
}

fn sketched(stage: u64, tasks: u32, parents: &[u64], names: &str) -> (u64, u32, Vec<u64>, String) {
    (stage, tasks, parents.to_vec(), names.to_owned())
}

#[test]
fn what_a_gang_makes_is_of_a_gang_until_a_shuffle() {
    let mut datasets = Datasets::default();
    let source = datasets.source(2);
    let barrier = datasets.barrier(2, &[source]);
    let mapped = datasets.narrow("map", 2, &[barrier]);
    let zipped = datasets.narrow("zip", 2, &[source, mapped]);
    let shuffled = datasets.shuffled(4, &[(zipped, 0)]);
    datasets.narrow("map", 4, &[shuffled]);
    assert_eq!(datasets.0.barrier_datasets(), [false, true, true, true, false, false]);
    let [map, result] = &datasets.stages()[..] else { panic!("two stages") };
    assert!(map.is_barrier() && !result.is_barrier());
    let of_gang: Vec<bool> = map.datasets.iter().map(|it| it.is_barrier).collect();
    assert_eq!(of_gang, [false, true, true, true]);
}

#[test]
fn a_barrier_on_what_was_shuffled_is_a_gang_again() {
    let mut datasets = Datasets::default();
    let source = datasets.source(3);
    let shuffled = datasets.shuffled(2, &[(source, 0)]);
    datasets.barrier(2, &[shuffled]);
    let [map, result] = &datasets.stages()[..] else { panic!("two stages") };
    assert!(!map.is_barrier() && result.is_barrier());
    assert_eq!((&map.chain, &result.chain), (&Ok(()), &Ok(())));
}

#[test]
fn without_a_shuffle_there_is_one_stage() {
    let mut datasets = Datasets::default();
    let source = datasets.source(3);
    datasets.narrow("map", 3, &[source]);
    assert_eq!(sketches(&datasets.stages()), [sketched(9, 3, &[], "source map")]);
    let result = &datasets.stages()[0];
    assert_eq!(result.role, StageRole::Result);
    let (name, num_partitions, is_barrier, parents) = ("map".to_owned(), 3, false, vec![0]);
    let info = DatasetInfo { name, num_partitions, is_barrier, parents };
    assert_eq!(result.datasets[1], info);
    assert_eq!(datasets.0.num_partitions(), 3);
}

#[test]
fn nothing_is_made_of_nothing() {
    let lineage = Lineage::default();
    assert_eq!(lineage.stages(RESULT, None), []);
    assert_eq!((lineage.num_partitions(), lineage.barrier_datasets()), (0, vec![]));
}

#[test]
fn stages_are_cut_at_shuffles_parents_before_children() {
    let mut datasets = Datasets::default();
    let source = datasets.source(4);
    let mapped = datasets.narrow("map", 4, &[source]);
    // Ids say nothing of the order.
    let first = datasets.shuffled(3, &[(mapped, 7)]);
    let second = datasets.shuffled(2, &[(first, 3)]);
    datasets.narrow("filter", 2, &[second]);
    let stages = datasets.stages();
    let expected = [
        sketched(7, 4, &[], "source map"),
        sketched(3, 3, &[7], "shuffled"),
        sketched(9, 2, &[3], "shuffled filter"),
    ];
    assert_eq!(sketches(&stages), expected);
    let roles: Vec<StageRole> = stages.iter().map(|stage| stage.role).collect();
    assert_eq!(roles, [StageRole::Map, StageRole::Map, StageRole::Result]);
}

#[test]
fn a_dataset_that_is_used_twice_is_made_once() {
    let mut datasets = Datasets::default();
    let source = datasets.source(2);
    let left = datasets.narrow("left", 2, &[source]);
    let right = datasets.narrow("right", 2, &[source]);
    datasets.narrow("zip", 2, &[left, right]);
    assert_eq!(sketches(&datasets.stages()), [sketched(9, 2, &[], "source left right zip")]);
}

#[test]
fn a_shuffle_that_is_used_twice_is_one_stage() {
    let mut datasets = Datasets::default();
    let source = datasets.source(2);
    let shuffled = datasets.shuffled(3, &[(source, 0)]);
    let again = datasets.shuffled(3, &[(source, 0)]);
    let other = datasets.shuffled(3, &[(again, 1)]);
    datasets.narrow("join", 3, &[shuffled, other]);
    let expected = [
        sketched(0, 2, &[], "source"),
        sketched(1, 3, &[0], "shuffled"),
        sketched(9, 3, &[0, 1], "shuffled shuffled join"),
    ];
    assert_eq!(sketches(&datasets.stages()), expected);
}

#[test]
fn one_dataset_may_have_two_shuffles() {
    let mut datasets = Datasets::default();
    let left = datasets.source(2);
    let right = datasets.source(3);
    datasets.shuffled(4, &[(left, 0), (right, 1)]);
    let expected = [
        sketched(0, 2, &[], "source"),
        sketched(1, 3, &[], "source"),
        sketched(9, 4, &[0, 1], "shuffled"),
    ];
    assert_eq!(sketches(&datasets.stages()), expected);
}

#[test]
fn what_the_last_dataset_is_not_made_of_is_left_out() {
    let mut datasets = Datasets::default();
    let other = datasets.source(2);
    datasets.shuffled(2, &[(other, 5)]);
    let source = datasets.source(3);
    datasets.narrow("map", 3, &[source]);
    assert_eq!(sketches(&datasets.stages()), [sketched(9, 3, &[], "source map")]);
}

#[test]
fn a_plain_result_stage_makes_the_partitions_that_are_asked_for() {
    let mut datasets = Datasets::default();
    let source = datasets.source(4);
    let shuffled = datasets.shuffled(5, &[(source, 0)]);
    datasets.narrow("map", 5, &[shuffled]);
    for (asked, tasks) in [(&[3][..], 1), (&[2, 0, 2], 3), (&[], 0)] {
        let stages = datasets.0.stages(RESULT, Some(asked));
        let sizes: Vec<u32> = stages.iter().map(|stage| stage.num_tasks).collect();
        assert_eq!(sizes, [4, tasks], "the map stage makes all");
        assert_eq!(stages[1].chain, Ok(()));
    }
}

#[test]
#[should_panic(expected = "dataset 0 'map' comes before one of its parents")]
fn parents_come_first() {
    Datasets::default().narrow("map", 1, &[0]);
}

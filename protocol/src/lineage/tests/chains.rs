//! Which datasets can be made by one gang.

use super::*;

/// A gang of four, and what it is made of.
fn gang() -> (Datasets, usize) {
    let mut datasets = Datasets::default();
    let source = datasets.source(4);
    let barrier = datasets.barrier(4, &[source]);
    (datasets, barrier)
}

fn differ(dataset: &str, num_partitions: u32, last: &str, num_tasks: u32) -> UnsupportedChain {
    let (dataset, last) = (dataset.to_owned(), last.to_owned());
    UnsupportedChain::PartitionsDiffer { dataset, num_partitions, last, num_tasks }
}

fn refused(datasets: &Datasets, expected: UnsupportedChain, text: &str) {
    assert_eq!(expected.to_string(), text);
    assert_eq!(datasets.chain(None), Err(expected));
}

#[test]
fn a_gang_that_is_one_partition_of_everything_is_supported() {
    let (mut datasets, barrier) = gang();
    assert_eq!(datasets.chain(None), Ok(()));
    let mapped = datasets.narrow("map", 4, &[barrier]);
    datasets.barrier(4, &[mapped]);
    assert_eq!(datasets.chain(None), Ok(()), "a barrier of a barrier");
}

#[test]
fn a_union_with_a_gang_is_refused() {
    let (mut datasets, barrier) = gang();
    let other = datasets.source(2);
    datasets.narrow("union", 6, &[barrier, other]);
    let text = "a barrier stage cannot hold datasets of different numbers of partitions: it has 6 \
                tasks, for 'union', and 'source' has 4 partitions; put a repartition(6) between \
                the two, so that they are made by different stages";
    refused(&datasets, differ("source", 4, "union", 6), text);
}

#[test]
fn a_gang_whose_partitions_are_coalesced_or_pruned_is_refused() {
    let (mut datasets, barrier) = gang();
    datasets.narrow("coalesce", 1, &[barrier]);
    assert_eq!(datasets.chain(None), Err(differ("source", 4, "coalesce", 1)));
}

#[test]
fn a_gang_made_of_what_was_coalesced_before_is_refused() {
    let mut datasets = Datasets::default();
    let source = datasets.source(4);
    let coalesced = datasets.narrow("coalesce", 2, &[source]);
    datasets.barrier(2, &[coalesced]);
    assert_eq!(datasets.chain(None), Err(differ("source", 4, "barrier", 2)));
}

#[test]
fn behind_a_shuffle_everything_is_allowed() {
    let (mut datasets, barrier) = gang();
    let shuffled = datasets.shuffled(6, &[(barrier, 0)]);
    let coalesced = datasets.narrow("coalesce", 1, &[shuffled]);
    let other = datasets.source(2);
    datasets.narrow("union", 3, &[coalesced, other]);
    let stages = datasets.0.stages(RESULT, Some(&[0]));
    assert!(stages.iter().all(|stage| stage.chain.is_ok()));
    assert_eq!(stages[1].num_tasks, 1, "so are some of the partitions");
}

#[test]
fn a_chain_that_is_not_supported_is_found_in_a_map_stage_too() {
    let (mut datasets, barrier) = gang();
    let coalesced = datasets.narrow("coalesce", 2, &[barrier]);
    datasets.shuffled(4, &[(coalesced, 0)]);
    let [map, result] = &datasets.stages()[..] else { panic!("two stages") };
    assert_eq!(map.chain, Err(differ("source", 4, "coalesce", 2)));
    assert_eq!(result.chain, Ok(()));
}

#[test]
fn a_zip_of_a_gang_and_a_plain_dataset_is_supported() {
    let (mut datasets, barrier) = gang();
    let plain = datasets.source(4);
    datasets.narrow("zip", 4, &[plain, barrier]);
    assert_eq!(datasets.chain(None), Ok(()));
}

#[test]
fn a_zip_of_two_gangs_is_refused() {
    let (mut datasets, first) = gang();
    let second = datasets.barrier(4, &[]);
    datasets.narrow("zip", 4, &[first, second]);
    let expected = UnsupportedChain::SeveralBarrierParents {
        dataset: "zip".to_owned(),
        barrier_parents: 2,
        num_partitions: 4,
    };
    let text = "a dataset of a barrier stage can have one barrier parent: 'zip' has 2; zip what \
                they are made of before one barrier(), or, if it does not matter which rows meet, \
                put a repartition(4) behind all but one of them";
    refused(&datasets, expected, text);
}

#[test]
fn a_zip_of_a_gang_and_a_gang_behind_a_shuffle_is_supported() {
    let (mut datasets, first) = gang();
    let second = datasets.barrier(3, &[]);
    let shuffled = datasets.shuffled(4, &[(second, 0)]);
    datasets.narrow("zip", 4, &[first, shuffled]);
    assert!(datasets.stages().iter().all(|stage| stage.chain.is_ok()));
}

#[test]
fn some_partitions_of_a_gang_are_refused() {
    let (datasets, _) = gang();
    for asked in [&[0][..], &[3, 1], &[]] {
        let expected = UnsupportedChain::PartialPartitions {
            dataset: "barrier".to_owned(),
            requested: asked.len() as u32,
            num_partitions: 4,
        };
        assert_eq!(datasets.chain(Some(asked)), Err(expected));
    }
    let Err(partial) = datasets.chain(Some(&[0])) else { panic!("it is refused") };
    let text = "a barrier stage makes all of its partitions or none: 1 of the 4 partitions of \
                'barrier' are asked for; collect() all and take what is needed";
    assert_eq!(partial.to_string(), text);
    let [stage] = &datasets.0.stages(RESULT, Some(&[0]))[..] else { panic!("one stage") };
    assert_eq!(stage.num_tasks, 4);
}

/// In Spark this is a gang of three that counts two arrivals.
#[test]
fn a_partition_of_a_gang_that_is_asked_for_twice_is_refused() {
    let (datasets, _) = gang();
    for asked in [&[0, 1, 1][..], &[0, 1, 2, 3, 1]] {
        let expected = UnsupportedChain::RepeatedPartitions {
            dataset: "barrier".to_owned(),
            partition: 1,
            num_partitions: 4,
        };
        let text = "a barrier stage makes every partition once: partition 1 of 'barrier' is asked \
                    for more than once; name each of its 4 partitions once, or collect() all";
        assert_eq!(expected.to_string(), text);
        assert_eq!(datasets.chain(Some(asked)), Err(expected));
    }
}

#[test]
fn all_partitions_of_a_gang_may_be_named_in_any_order() {
    let (datasets, _) = gang();
    assert_eq!(datasets.chain(Some(&[3, 1, 0, 2])), Ok(()));
}

#[test]
fn of_several_mistakes_the_first_is_named() {
    let (mut datasets, first) = gang();
    let second = datasets.barrier(4, &[]);
    datasets.narrow("zip", 5, &[first, second]);
    assert_eq!(datasets.chain(None), Err(differ("source", 4, "zip", 5)));
    let expected = UnsupportedChain::PartialPartitions {
        dataset: "zip".to_owned(),
        requested: 1,
        num_partitions: 5,
    };
    assert_eq!(datasets.chain(Some(&[0])), Err(expected), "what is asked for comes first");
}

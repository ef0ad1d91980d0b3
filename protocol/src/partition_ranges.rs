//! A set of partitions, kept and printed as ranges.

use crate::PartitionId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A set of partitions as ascending inclusive ranges: `0-2, 7`. Small even if 99,999 of 100,000
/// tasks are missing, as long as they are neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartitionRanges(Vec<(u32, u32)>);

/// More ranges than this are cut when printed: a log line should stay a line.
const RANGES_PRINTED_MAX: usize = 16;

impl PartitionRanges {
    /// How many partitions are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(first, last)| (last - first) as usize + 1).sum()
    }

    /// Whether the set has no partition.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The partitions in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.0.iter().flat_map(|&(first, last)| (first..=last).map(PartitionId))
    }
}

impl FromIterator<PartitionId> for PartitionRanges {
    /// Collects partitions that come in ascending order.
    fn from_iter<I: IntoIterator<Item = PartitionId>>(partitions: I) -> Self {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for PartitionId(partition) in partitions {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == partition => *last = partition,
                Some((_, last)) => {
                    assert!(*last < partition, "partitions must ascend: {last}, {partition}");
                    ranges.push((partition, partition));
                }
                None => ranges.push((partition, partition)),
            }
        }
        PartitionRanges(ranges)
    }
}

impl fmt::Display for PartitionRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().take(RANGES_PRINTED_MAX).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        let cut: u32 = self.0.iter().skip(RANGES_PRINTED_MAX).map(|(a, b)| b - a + 1).sum();
        if cut > 0 {
            write!(f, " and {cut} more")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(partitions: impl IntoIterator<Item = u32>) -> PartitionRanges {
        partitions.into_iter().map(PartitionId).collect()
    }

    #[test]
    fn neighbours_are_printed_as_a_range() {
        let set = ranges([0, 1, 2, 7, 9, 10]);
        assert_eq!(set.to_string(), "0-2, 7, 9-10");
        assert_eq!((set.len(), set.is_empty()), (6, false));
        assert!(ranges([]).is_empty());
        assert_eq!(set.iter().map(|p| p.0).collect::<Vec<_>>(), [0, 1, 2, 7, 9, 10]);
    }

    #[test]
    fn a_long_list_is_cut_and_says_by_how_much() {
        let text = ranges((0..100).map(|i| i * 2)).to_string();
        assert!(text.ends_with("28, 30 and 84 more"), "{text}");
    }
}

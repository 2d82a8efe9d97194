//! A histogram of durations: how many lay between each two edges, in the form in which Prometheus reads it.
//!
//! Unlike percentiles, histograms of several processes can be added up, and so can those of several days.

use std::sync::Arc;
use std::time::Duration;

/// The upper edges of the buckets of a histogram, in ascending order. All histograms that may be added up share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edges(Arc<[Duration]>);

impl Edges {
    /// These edges, in whatever order they come.
    pub fn new(edges: impl IntoIterator<Item = Duration>) -> Self {
        let mut edges: Vec<Duration> = edges.into_iter().collect();
        edges.sort_unstable();
        edges.dedup();
        Self(edges.into())
    }

    /// Edges at these numbers of milliseconds.
    pub fn of_millis(millis: &[u64]) -> Self {
        Self::new(millis.iter().copied().map(Duration::from_millis))
    }

    /// These edges and at most `most` others, the shortest of those that are given.
    pub fn with(&self, others: impl IntoIterator<Item = Duration>, most: usize) -> Self {
        let others = Self::new(others.into_iter().filter(|other| !self.0.contains(other)));
        Self::new(self.0.iter().chain(others.0.iter().take(most)).copied())
    }
}

/// The durations that were recorded, by bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurationHistogram {
    edges: Edges,
    /// One for each edge, and one for what is longer than all of them.
    counts: Box<[u64]>,
    sum: Duration,
}

impl DurationHistogram {
    /// A histogram without any durations.
    pub fn new(edges: Edges) -> Self {
        let counts = vec![0; edges.0.len() + 1].into();
        Self { edges, counts, sum: Duration::ZERO }
    }

    /// Records a duration. One that is exactly at an edge is in the bucket below it.
    pub fn record(&mut self, duration: Duration) {
        let bucket = self.edges.0.partition_point(|edge| *edge < duration);
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.sum = self.sum.saturating_add(duration);
    }

    /// Adds the durations of another histogram. One with other edges is left out, because nobody knows where its durations
    /// belong.
    pub fn add(&mut self, other: &Self) {
        if self.edges != other.edges {
            return;
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Returns the sum of all durations that were recorded.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The buckets in ascending order: the upper edge, and how many durations lie between it and the edge before. The last
    /// bucket has no edge.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let edges = self.edges.0.iter().copied().map(Some).chain([None]);
        edges.zip(self.counts.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_is_at_an_edge_is_below_it() {
        let mut histogram = DurationHistogram::new(Edges::of_millis(&[10, 5]));
        for duration in [0, 5, 6, 10, 11, 1_000] {
            histogram.record(millis(duration));
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets, [(Some(millis(5)), 2), (Some(millis(10)), 2), (None, 2)]);
        assert_eq!((histogram.count(), histogram.sum()), (6, millis(1_032)));
    }

    #[test]
    fn more_edges_come_in_between_up_to_a_bound() {
        let edges =
            Edges::of_millis(&[10, 1_000]).with([millis(300), millis(10), millis(20), millis(5_000)], 2);
        assert_eq!(edges, Edges::of_millis(&[10, 20, 300, 1_000]));
    }

    #[test]
    fn a_histogram_with_other_edges_is_not_added() {
        let mut one = DurationHistogram::new(Edges::of_millis(&[5]));
        let mut other = DurationHistogram::new(Edges::of_millis(&[6]));
        other.record(millis(1));
        one.add(&other);
        assert_eq!(one.count(), 0);
    }

    #[test]
    fn absurd_durations_saturate_the_sum() {
        let mut histogram = DurationHistogram::new(Edges::of_millis(&[]));
        histogram.record(Duration::MAX);
        histogram.record(Duration::MAX);
        assert_eq!((histogram.count(), histogram.sum()), (2, Duration::MAX));
    }

    proptest! {
        /// The reference counts each bucket by looking at all durations; two histograms add up to that of both.
        #[test]
        fn any_histogram_is_that_of_its_durations(
            edges in prop::collection::vec(0u64..2_000, 0..12),
            first in prop::collection::vec(0u64..2_500, 0..50),
            second in prop::collection::vec(0u64..2_500, 0..50),
        ) {
            let edges = Edges::of_millis(&edges);
            let of = |durations: &[u64]| {
                let mut histogram = DurationHistogram::new(edges.clone());
                durations.iter().for_each(|duration| histogram.record(millis(*duration)));
                histogram
            };
            let all: Vec<u64> = first.iter().chain(&second).copied().collect();
            let mut added = of(&first);
            added.add(&of(&second));
            prop_assert_eq!(&added, &of(&all));
            let mut below = Duration::ZERO;
            let mut is_first = true;
            for (edge, count) in added.buckets() {
                let expected = all.iter().map(|duration| millis(*duration)).filter(|duration| {
                    (is_first || *duration > below) && edge.is_none_or(|edge| *duration <= edge)
                });
                prop_assert_eq!(count, expected.count() as u64);
                below = edge.unwrap_or(below);
                is_first = false;
            }
            prop_assert_eq!(added.count(), all.len() as u64);
            prop_assert_eq!(added.sum(), millis(all.iter().sum()));
        }
    }
}

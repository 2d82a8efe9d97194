//! What is kept of the run times of one key.

use std::time::Duration;

use super::RunTimeFigures;
use super::sketch::DurationSketch;
use crate::core::Timestamp;

/// The number of runs of which mean and p95 are told. When there are more, all that were before count half.
const MOST_WEIGHT: u64 = 1_024;

/// The run times of one key. Durations are numbers of microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunTimeEntry {
    at: Timestamp,
    last: u64,
    count: u64,
    /// The sum of the runs that are in the sketch.
    sum: u64,
    sketch: DurationSketch,
}

/// A bucket of the sketch: its number, and how much it weighs.
pub(super) type Bucket = (u8, u16);

impl RunTimeEntry {
    /// The entry of one run.
    pub(super) fn new(took: u64, at: Timestamp) -> Self {
        let mut sketch = DurationSketch::default();
        sketch.record(took);
        Self { at, last: took, count: 1, sum: took, sketch }
    }

    /// An entry as it was kept, which may come from anywhere. Without a sketch it is that of one run.
    pub(super) fn kept(at: Timestamp, last: u64, count: u64, sum: u64, sketch: DurationSketch) -> Self {
        if sketch.weight() == 0 {
            return Self { count: count.max(1), ..Self::new(last, at) };
        }
        let mut entry = Self { at, last, count, sum, sketch };
        entry.fade();
        entry
    }

    /// When the last run ended.
    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The count, the sum and the buckets, unless there was one run only, so that they follow from how long it took.
    pub(super) fn more(&self) -> Option<(u64, u64, &[Bucket])> {
        (self.count > 1).then(|| (self.count, self.sum, self.sketch.buckets()))
    }

    /// Records a run that ended at `at`, which is not before those that are recorded.
    pub(super) fn record(&mut self, took: u64, at: Timestamp) {
        (self.at, self.last) = (at, took);
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(took);
        self.sketch.record(took);
        self.fade();
    }

    /// Adds what was recorded elsewhere of the same key. Of two runs that ended at one time the longer is the last one.
    pub(super) fn merge(&mut self, other: &Self) {
        (self.at, self.last) = (self.at, self.last).max((other.at, other.last));
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.sketch.merge(&other.sketch);
        self.fade();
    }

    pub(super) fn figures(&self) -> RunTimeFigures {
        RunTimeFigures {
            count: self.count,
            last: Duration::from_micros(self.last),
            last_at: self.at,
            mean: Duration::from_micros(self.sum.checked_div(self.sketch.weight()).unwrap_or_default()),
            p95: Duration::from_micros(self.sketch.quantile(95)),
        }
    }

    /// Has old runs count less when there are many.
    fn fade(&mut self) {
        let all = self.sketch.weight();
        let mut left = all;
        while left > MOST_WEIGHT {
            self.sketch.halve();
            left = self.sketch.weight();
        }
        if left < all {
            let sum = u128::from(self.sum) * u128::from(left) / u128::from(all);
            self.sum = u64::try_from(sum).unwrap_or(u64::MAX);
        }
    }
}

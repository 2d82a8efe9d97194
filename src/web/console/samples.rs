//! What the queues were like in the last minutes, for the charts.
//!
//! A sample is taken when somebody looks at the queues, at most one in [`APART`]. While nobody looks there are none, so that
//! an idle program does nothing for charts that nobody sees. A chart begins behind the last gap, and says since when it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use crate::QueueStatus;
use crate::core::Timestamp;

/// The least time between two samples.
const APART: Duration = Duration::from_millis(1_500);
/// A longer pause between two samples is a gap.
const GAP: Duration = Duration::from_secs(20);
/// How many samples are kept: with one in three seconds those of six minutes.
const MOST: usize = 120;
/// How many queues a sample tells apart.
const MOST_QUEUES: usize = 500;

/// The counts of one queue.
#[derive(Clone, Copy, Debug, Default)]
struct SampledCounts {
    starts: u64,
    ready: u64,
    failed: u64,
}

impl SampledCounts {
    /// The starts and failures since these counts, and what is ready now. A queue that has just come has no counts before, and
    /// no count is believed that falls.
    fn since(self, before: Option<&Self>) -> Self {
        let before = before.copied().unwrap_or(self);
        Self {
            starts: self.starts.saturating_sub(before.starts),
            ready: self.ready,
            failed: self.failed.saturating_sub(before.failed),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            starts: self.starts + other.starts,
            ready: self.ready + other.ready,
            failed: self.failed + other.failed,
        }
    }
}

struct Sample {
    at: Timestamp,
    queues: BTreeMap<String, SampledCounts>,
}

/// The last samples.
#[derive(Default)]
pub(super) struct Samples(Mutex<VecDeque<Sample>>);

/// The numbers of one queue, or of several together, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Series {
    /// The times of the numbers.
    pub(super) at: Vec<Timestamp>,
    /// First starts a second, between this sample and the one before.
    pub(super) starts_per_second: Vec<f64>,
    /// Tasks that failed for good a second.
    pub(super) failures_per_second: Vec<f64>,
    /// Tasks that could start.
    pub(super) ready: Vec<u64>,
}

impl Samples {
    /// Takes a sample, unless the last one is too near.
    pub(super) fn take(&self, at: Timestamp, queues: &[QueueStatus]) {
        let mut samples = self.0.lock();
        if samples.back().is_some_and(|last| at.since(last.at) < APART) {
            return;
        }
        let counts = |queue: &QueueStatus| {
            let counts =
                SampledCounts { starts: queue.time_to_start.count, ready: queue.ready, failed: queue.failed };
            (queue.name.clone(), counts)
        };
        if samples.len() >= MOST {
            samples.pop_front();
        }
        samples.push_back(Sample { at, queues: queues.iter().take(MOST_QUEUES).map(counts).collect() });
    }

    /// The numbers of the queues that are meant, added up, since the last gap.
    pub(super) fn series(&self, is_meant: impl Fn(&str) -> bool) -> Series {
        self.collect(|sample, before| {
            let meant = sample.queues.iter().filter(|(name, _)| is_meant(name));
            meant.fold(SampledCounts::default(), |sum, (name, counts)| {
                sum.plus(counts.since(before.get(name)))
            })
        })
    }

    /// The numbers of one queue, since the last gap. It looks at no other queue, because a page has many such series.
    pub(super) fn series_of(&self, queue: &str) -> Series {
        self.collect(|sample, before| {
            sample
                .queues
                .get(queue)
                .map_or_else(SampledCounts::default, |counts| counts.since(before.get(queue)))
        })
    }

    fn collect(
        &self,
        changes: impl Fn(&Sample, &BTreeMap<String, SampledCounts>) -> SampledCounts,
    ) -> Series {
        let samples = self.0.lock();
        let mut series = Series::default();
        let pairs = samples.iter().zip(samples.iter().skip(1));
        for (before, sample) in pairs {
            let pause = sample.at.since(before.at);
            if pause > GAP || pause.is_zero() {
                series = Series::default();
                continue;
            }
            let SampledCounts { starts, ready, failed } = changes(sample, &before.queues);
            series.at.push(sample.at);
            series.starts_per_second.push(per_second(starts, pause));
            series.failures_per_second.push(per_second(failed, pause));
            series.ready.push(ready);
        }
        series
    }
}

#[allow(clippy::cast_precision_loss)] // of a rate that is drawn
fn per_second(count: u64, pause: Duration) -> f64 {
    count as f64 / pause.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(samples: &Samples, millis: u64, counts: &[(&str, u64, u64)]) {
        let queues = counts.iter().map(|(name, starts, ready)| {
            ((*name).to_owned(), SampledCounts { starts: *starts, ready: *ready, failed: 0 })
        });
        let sample = Sample { at: Timestamp::from_millis(millis), queues: queues.collect() };
        samples.0.lock().push_back(sample);
    }

    #[test]
    fn a_chart_begins_behind_the_last_gap() {
        let samples = Samples::default();
        add(&samples, 1_000, &[("a", 0, 9)]);
        add(&samples, 3_000, &[("a", 9, 0)]);
        add(&samples, 90_000, &[("a", 10, 4), ("b", 5, 1)]);
        add(&samples, 92_000, &[("a", 14, 2), ("b", 5, 1)]);
        add(&samples, 94_000, &[("a", 2, 0), ("b", 15, 0)]);
        let all = samples.series(|_| true);
        assert_eq!(all.at, [92_000, 94_000].map(Timestamp::from_millis));
        assert_eq!(all.starts_per_second, [2.0, 5.0], "a count that falls is no start");
        assert_eq!(all.ready, [3, 0]);
        assert_eq!(samples.series(|name| name == "b").starts_per_second, [0.0, 5.0]);
        for name in ["a", "b", "none"] {
            assert_eq!(samples.series_of(name), samples.series(|other| other == name), "{name}");
        }
        assert_eq!(Samples::default().series(|_| true), Series::default());
    }
}

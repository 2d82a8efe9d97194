//! Time-to-start: how long the tasks of a queue wait before they run, and how well the queue keeps its promise about
//! that.
//!
//! A wait counts from the enqueue, or from the ETA if there is one, to the first start. It counts once for each task:
//! the waits of its retries come from its own failures and say nothing about the queue, so the caller leaves them
//! out.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Timestamp;

/// The longest wait that the percentiles tell. They count a longer wait as this; the longest and the mean stay exact.
const LONGEST_MICROS: u64 = 7 * 24 * 60 * 60 * 1_000_000;

/// The significant digits of a wait in the histogram. With three, a percentile is off by a thousandth at most.
const DIGITS: u8 = 3;

/// The waits of one queue since its accounting began. It takes about 250 KB, however many waits there are.
#[derive(Clone, Debug)]
pub struct TimeToStart {
    target: Option<Duration>,
    within_target: u64,
    count: u64,
    /// The waits in whole microseconds. Smaller counters would save memory, but once one is full the percentiles read
    /// 0.
    waits: Histogram<u64>,
    longest: Duration,
    sum_micros: u128,
}

/// The accounts of a queue at one moment. Without any waits all durations are zero. In JSON the durations are numbers of
/// milliseconds, `p50_ms` and so on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimeToStartSnapshot {
    /// How many tasks have started.
    pub count: u64,
    /// The wait that half of the tasks did not exceed.
    #[serde(rename = "p50_ms", serialize_with = "crate::core::json_time::millis")]
    pub p50: Duration,
    /// The wait that 95 % of the tasks did not exceed.
    #[serde(rename = "p95_ms", serialize_with = "crate::core::json_time::millis")]
    pub p95: Duration,
    /// The wait that 99 % of the tasks did not exceed.
    #[serde(rename = "p99_ms", serialize_with = "crate::core::json_time::millis")]
    pub p99: Duration,
    /// The longest wait of all tasks.
    #[serde(rename = "max_ms", serialize_with = "crate::core::json_time::millis")]
    pub max: Duration,
    /// The average wait of all tasks.
    #[serde(rename = "mean_ms", serialize_with = "crate::core::json_time::millis")]
    pub mean: Duration,
    /// The promised longest wait, if there is a promise.
    #[serde(rename = "target_ms", serialize_with = "crate::core::json_time::optional_millis")]
    pub target: Option<Duration>,
    /// How many tasks waited no longer than the target; 0 without a target.
    pub within_target: u64,
}

impl TimeToStart {
    /// Empty accounts. `target` is the promised longest wait, if one is promised.
    pub fn new(target: Option<Duration>) -> Self {
        Self {
            target,
            within_target: 0,
            count: 0,
            // The bounds are constants that hdrhistogram takes (1 <= low, 2 * low <= high, at most 5 digits).
            waits: Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS).expect("constant bounds are valid"),
            longest: Duration::ZERO,
            sum_micros: 0,
        }
    }

    /// Records that a task started for the first time, after `wait`.
    pub fn record(&mut self, wait: Duration) {
        let micros = wait.as_micros();
        let in_range = u64::try_from(micros).unwrap_or(LONGEST_MICROS).min(LONGEST_MICROS);
        self.waits.saturating_record(in_range);
        self.count = self.count.saturating_add(1);
        self.sum_micros = self.sum_micros.saturating_add(micros);
        self.longest = self.longest.max(wait);
        self.within_target += u64::from(self.target.is_some_and(|target| wait <= target));
    }

    /// The accounts as they are now.
    pub fn snapshot(&self) -> TimeToStartSnapshot {
        // The histogram reports the upper end of a bucket, which can lie above the longest wait there was.
        let percentile = |share| Duration::from_micros(self.waits.value_at_quantile(share)).min(self.longest);
        let mean = self.sum_micros.checked_div(u128::from(self.count)).unwrap_or(0);
        TimeToStartSnapshot {
            count: self.count,
            p50: percentile(0.50),
            p95: percentile(0.95),
            p99: percentile(0.99),
            max: self.longest,
            mean: Duration::from_micros(u64::try_from(mean).unwrap_or(u64::MAX)),
            target: self.target,
            within_target: self.within_target,
        }
    }
}

/// How long a queue has been blocked: how long its oldest ready task has waited while nothing started.
///
/// The time counts from the later of two: when that task became ready, and the last start of any task, be it a first
/// start or a retry. It is zero if no task is ready. The oldest task may also wait in the broker. A queue knows this
/// by itself; a heartbeat task, which has to be started to report, would be blocked too.
pub fn blockage(
    oldest_ready_since: Option<Timestamp>,
    last_start: Option<Timestamp>,
    now: Timestamp,
) -> Duration {
    oldest_ready_since
        .map_or(Duration::ZERO, |ready| now.since(last_start.map_or(ready, |start| start.max(ready))))
}

/// Since when a broker has had ready tasks, if the broker only says how many it has. That is the first look that
/// found any, if every look after it did so too. The truth is earlier by no more than the time between two looks, and
/// never later.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadySeen(Option<Timestamp>);

impl ReadySeen {
    /// Records that somebody looked at `now` and found `ready` tasks.
    pub fn look(&mut self, ready: u64, now: Timestamp) {
        self.0 = (ready > 0).then(|| self.0.map_or(now, |since| since.min(now)));
    }

    /// Since when there have been ready tasks, as far as the looks tell; `None` if the last look found none.
    pub fn since(&self) -> Option<Timestamp> {
        self.0
    }
}

/// What somebody outside sees of a queue whose broker only says how many tasks are ready: since when there have been
/// any, and when their number last fell. A fall shows that the queue has started something, although nobody says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutsideView {
    ready: ReadySeen,
    count: u64,
    last_fall: Option<Timestamp>,
}

impl OutsideView {
    /// Records that somebody looked at `now` and found `ready` tasks.
    pub fn look(&mut self, ready: u64, now: Timestamp) {
        if ready < self.count {
            self.last_fall = Some(now);
        }
        self.count = ready;
        self.ready.look(ready, now);
    }

    /// For how long the queue has been blocked at `now`, as far as the looks tell.
    pub fn blockage(&self, now: Timestamp) -> Duration {
        blockage(self.ready.since(), self.last_fall, now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_promise_of_five_seconds_kept_for_nine_of_ten() {
        let mut accounts = TimeToStart::new(Some(Duration::from_secs(5)));
        for second in [0, 0, 1, 1, 2, 2, 3, 4, 5, 6] {
            accounts.record(Duration::from_secs(second));
        }
        let snapshot = accounts.snapshot();
        assert_eq!((snapshot.count, snapshot.within_target), (10, 9));
        assert_eq!((snapshot.max, snapshot.target), (Duration::from_secs(6), Some(Duration::from_secs(5))));
        assert_eq!(snapshot.mean, Duration::from_millis(2_400));
    }

    #[test]
    fn no_waits_are_all_zero_and_no_promise_is_never_kept() {
        let mut accounts = TimeToStart::new(None);
        let zero = Duration::ZERO;
        let nothing = TimeToStartSnapshot {
            count: 0,
            p50: zero,
            p95: zero,
            p99: zero,
            max: zero,
            mean: zero,
            target: None,
            within_target: 0,
        };
        assert_eq!(accounts.snapshot(), nothing);
        accounts.record(zero);
        assert_eq!(accounts.snapshot(), TimeToStartSnapshot { count: 1, ..nothing });
    }

    #[test]
    fn absurd_waits_saturate_the_percentiles_and_nothing_else() {
        let mut accounts = TimeToStart::new(None);
        accounts.record(Duration::MAX);
        accounts.record(Duration::MAX);
        let snapshot = accounts.snapshot();
        let week = Duration::from_micros(LONGEST_MICROS);
        assert!(snapshot.p99 >= week && snapshot.p99 <= week + week / 1_000);
        assert_eq!(snapshot.max, Duration::MAX);
    }

    #[test]
    fn a_queue_is_blocked_from_the_later_of_ready_and_last_start() {
        let seconds = Duration::from_secs;
        assert_eq!(blockage(None, Some(at(1_000)), at(9_000)), seconds(0), "nothing is ready");
        assert_eq!(blockage(Some(at(2_000)), None, at(9_000)), seconds(7), "nothing ever started");
        assert_eq!(blockage(Some(at(2_000)), Some(at(1_000)), at(9_000)), seconds(7));
        assert_eq!(blockage(Some(at(2_000)), Some(at(8_000)), at(9_000)), seconds(1), "it moves");
        assert_eq!(blockage(Some(at(9_500)), None, at(9_000)), seconds(0), "a clock that stepped back");
    }

    /// A queue whose broker only counts, in virtual time. The runtime looks every five seconds, and its answer is
    /// late by no more than that, and never early.
    #[test]
    fn what_is_seen_is_late_by_one_look_at_most() {
        let mut seen = ReadySeen::default();
        let looks: Vec<u64> = (0..60).map(|n| n * 5_000).collect();
        // Tasks are ready from 12 s to 100 s, and again from 151 s on.
        let ready_since = |now: u64| match now {
            12_000..100_000 => Some(12_000),
            151_000.. => Some(151_000),
            _ => None,
        };
        for now in looks {
            seen.look(u64::from(ready_since(now).is_some()) * 7, at(now));
            match ready_since(now) {
                None => assert_eq!(blockage(seen.since(), None, at(now)), Duration::ZERO),
                Some(since) => {
                    let (truth, said) = (now - since, blockage(seen.since(), None, at(now)));
                    assert!(said <= Duration::from_millis(truth), "{now}: {said:?}");
                    assert!(said + Duration::from_secs(5) >= Duration::from_millis(truth), "{now}: {said:?}");
                }
            }
        }
        seen.look(3, at(1_000));
        assert_eq!(seen.since(), Some(at(1_000)), "a clock that stepped back");
    }

    #[test]
    fn from_outside_a_fall_of_the_count_is_a_start() {
        let seconds = Duration::from_secs;
        let mut view = OutsideView::default();
        assert_eq!(view.blockage(at(1_000)), seconds(0), "nobody has looked");
        view.look(5, at(2_000));
        view.look(5, at(4_000));
        assert_eq!(view.blockage(at(9_000)), seconds(7), "it starts nothing");
        view.look(7, at(9_000));
        assert_eq!(view.blockage(at(9_000)), seconds(7), "more have come, and none has gone");
        view.look(6, at(10_000));
        assert_eq!(view.blockage(at(13_000)), seconds(3), "one has gone");
        view.look(0, at(14_000));
        assert_eq!(view.blockage(at(20_000)), seconds(0), "nothing is ready");
        view.look(1, at(21_000));
        assert_eq!(view.blockage(at(25_000)), seconds(4), "it counts from the first look that found one");
    }

    proptest! {
        /// The reference is the sorted list of all waits. Percentiles may be off by a thousandth, upwards only.
        #[test]
        fn any_accounts_are_those_of_the_sorted_list(
            target in prop::option::of(0u64..3_000_000),
            waits in prop::collection::vec(
                prop_oneof![0u64..50, 0u64..3_000_000, 0u64..LONGEST_MICROS], 1..300),
        ) {
            let mut accounts = TimeToStart::new(target.map(Duration::from_micros));
            for wait in &waits {
                accounts.record(Duration::from_micros(*wait));
            }
            let mut sorted = waits.clone();
            sorted.sort_unstable();
            let snapshot = accounts.snapshot();
            let n = sorted.len();
            for (percent, got) in [(50, snapshot.p50), (95, snapshot.p95), (99, snapshot.p99)] {
                let exact = sorted[(n * percent).div_ceil(100) - 1];
                prop_assert!(got <= snapshot.max);
                let got = got.as_micros() as u64;
                prop_assert!(got >= exact && got - exact <= exact / 1_000, "p{percent}: {got}, not {exact}");
            }
            prop_assert_eq!(snapshot.count, n as u64);
            prop_assert_eq!(snapshot.max.as_micros() as u64, sorted[n - 1]);
            prop_assert_eq!(snapshot.mean.as_micros() as u64, sorted.iter().sum::<u64>() / n as u64);
            let within = sorted.iter().filter(|wait| target.is_some_and(|target| **wait <= target)).count();
            prop_assert_eq!(snapshot.within_target, within as u64);
        }
    }
}

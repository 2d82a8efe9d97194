//! How waits were spread over some time, so that their percentiles can be told: counts by bucket, of which there are four to each
//! doubling.
//!
//! Invariants:
//! - Spreads of several minutes and of several processes add up, because all have the same buckets.
//! - A spread takes a bounded amount of memory: at most [`BUCKETS`] counts, and mostly some few, because empty ones are left out.
//! - A percentile is at most a fifth longer than the wait that it tells of, and never shorter.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The buckets: up to a millisecond, and then four to each doubling, up to beyond a month.
const BUCKETS: u8 = 130;
/// The buckets to a doubling.
const TO_A_DOUBLING: f64 = 4.0;

/// Waits, counted by how long they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitSpread(BTreeMap<u8, u64>);

impl WaitSpread {
    /// Adds a wait to the spread.
    pub fn record(&mut self, wait: Duration) {
        let count = self.0.entry(bucket_of(wait)).or_default();
        *count = count.saturating_add(1);
    }

    /// Adds waits that were recorded elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (bucket, more) in &other.0 {
            // What a damaged note says is counted as the longest that there is.
            let count = self.0.entry((*bucket).min(BUCKETS - 1)).or_default();
            *count = count.saturating_add(*more);
        }
    }

    /// Says whether no wait was recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of the waits.
    pub fn count(&self) -> u64 {
        self.0.values().fold(0_u64, |sum, count| sum.saturating_add(*count))
    }

    /// Returns how many of the waits were no longer than `limit`: at least so many, and at most so many. The two differ by the waits
    /// of the bucket that the limit is in.
    pub fn within(&self, limit: Duration) -> (u64, u64) {
        let bucket = bucket_of(limit);
        let sum = |sum: u64, (_, count): (&u8, &u64)| sum.saturating_add(*count);
        let below = self.0.range(..bucket).fold(0, sum);
        let in_it = self.0.get(&bucket).copied().unwrap_or_default();
        // The last bucket has no end.
        let is_whole = bucket < BUCKETS - 1 && edge_of(bucket) <= limit;
        let most = below.saturating_add(in_it);
        (if is_whole { most } else { below }, most)
    }

    /// Returns how long this share of the waits was at most, from 0 to 1: with 0.95 the 95th percentile. `None`: nothing was
    /// recorded.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let all = self.count();
        // The first wait at least, and at most all of them.
        let wanted = (all as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0);
        let mut below = 0_u64;
        self.0.iter().find_map(|(bucket, count)| {
            below = below.saturating_add(*count);
            (below as f64 >= wanted).then(|| edge_of(*bucket))
        })
    }
}

/// The bucket of a wait: one that is at an edge is below it.
fn bucket_of(wait: Duration) -> u8 {
    let millis = wait.as_secs_f64() * 1e3;
    if millis <= 1.0 {
        return 0;
    }
    let bucket = (millis.log2() * TO_A_DOUBLING).ceil().clamp(0.0, f64::from(BUCKETS - 1));
    bucket as u8 // it is a whole number in the range
}

/// The upper edge of a bucket.
fn edge_of(bucket: u8) -> Duration {
    Duration::from_secs_f64((f64::from(bucket) / TO_A_DOUBLING).exp2() / 1e3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_those_of_the_waits() {
        let mut spread = WaitSpread::default();
        assert_eq!((spread.percentile(0.5), spread.is_empty()), (None, true));
        for _ in 0..95 {
            spread.record(Duration::from_micros(20));
        }
        for _ in 0..5 {
            spread.record(Duration::from_secs(30));
        }
        let millis = |share| spread.percentile(share).map(|wait| wait.as_millis());
        assert_eq!((millis(0.0), millis(0.5), millis(0.95)), (Some(1), Some(1), Some(1)));
        let highest = spread.percentile(0.951).unwrap();
        assert!((30.0..36.0).contains(&highest.as_secs_f64()), "{highest:?}");
        spread.record(Duration::MAX);
        assert!(spread.percentile(1.0).unwrap() > Duration::from_secs(30 * 24 * 3600));
    }

    #[test]
    fn what_is_within_a_limit_is_exact_but_for_the_bucket_of_the_limit() {
        let mut spread = WaitSpread::default();
        for seconds in [1, 1, 2, 29, 31, 40, 400] {
            spread.record(Duration::from_secs(seconds));
        }
        assert_eq!(spread.count(), 7);
        // 29 and 31 seconds are in the bucket from 27.6 to 32.8.
        assert_eq!(spread.within(Duration::from_secs(30)), (3, 5));
        assert_eq!(spread.within(Duration::from_secs(60)), (6, 6));
        assert_eq!(spread.within(Duration::from_millis(1)), (0, 0));
        assert_eq!(spread.within(Duration::MAX), (7, 7));
        spread.record(Duration::MAX);
        assert_eq!(spread.within(Duration::from_secs(100 * 24 * 3600)), (7, 8), "the last bucket has no end");
        let mut fast = WaitSpread::default();
        fast.record(Duration::from_micros(300));
        assert_eq!(fast.within(Duration::from_millis(1)), (1, 1), "a limit at an edge is exact");
    }

    proptest! {
        /// However waits are spread over parts, the percentile of all is at the right one, and at most a fifth longer.
        #[test]
        fn any_percentile_is_near_the_wait_that_it_tells_of(
            waits in prop::collection::vec(2_u64..2_000_000_000, 1..200),
            share in 0.01_f64..1.0,
        ) {
            let (mut one, mut other) = (WaitSpread::default(), WaitSpread::default());
            for (nth, millis) in waits.iter().enumerate() {
                let part = if nth % 2 == 0 { &mut one } else { &mut other };
                part.record(Duration::from_millis(*millis));
            }
            one.add(&other);
            let mut sorted = waits.clone();
            sorted.sort_unstable();
            let place = ((sorted.len() as f64 * share).ceil() as usize).max(1) - 1;
            let (wait, told) = (sorted[place] as f64 / 1e3, one.percentile(share).unwrap().as_secs_f64());
            prop_assert!(told >= wait * 0.999_999 && told <= wait * 1.2, "{told} of {wait}");
            let limit = Duration::from_millis(waits[0]);
            let within = waits.iter().filter(|millis| Duration::from_millis(**millis) <= limit).count() as u64;
            let (least, most) = one.within(limit);
            prop_assert!(least <= within && within <= most, "{least} to {most} is not {within}");
            prop_assert_eq!(one.count(), waits.len() as u64);
            let bytes = postcard::to_stdvec(&one).unwrap();
            prop_assert_eq!(postcard::from_bytes::<WaitSpread>(&bytes).unwrap(), one);
        }
    }
}

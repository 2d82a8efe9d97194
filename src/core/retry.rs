//! When a failed task runs again, and when it has failed for good.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff;

/// How often and after which delay a failed task is retried. The options are Celery's. Each field names the attribute
/// of a task that sets it.
///
/// The random part is *equal jitter*: the lower half of the delay is always waited, and the upper half is random.
/// Celery's delay is random from end to end (*full jitter*), which spreads retries a little better but may come out
/// as 0: a retry at once, which meets the same outage and uses up an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// How many retries follow the first run (`max_retries`). 0 never retries. `u32::MAX` is as good as for ever,
    /// which Celery writes as `None`.
    pub max_retries: u32,
    /// The delay before the first retry, and before every retry if there is no backoff (`default_retry_delay`).
    pub delay: Duration,
    /// Whether the delay doubles with each retry (`retry_backoff`).
    pub backoff: bool,
    /// The longest delay, at which the doubling stops (`retry_backoff_max`). As in Celery it does not limit a delay
    /// without backoff, which is always `delay`.
    pub max_delay: Duration,
    /// Whether the upper half of the delay is random, so that tasks that failed together do not come back together
    /// (`retry_jitter`).
    pub jitter: bool,
}

impl Default for RetryPolicy {
    /// Twenty retries, after about 10, 20, 40, 80, 160 and 320 seconds, and then every ten minutes. Whatever the jitter,
    /// the last one comes more than an hour and a quarter after the first failure, so that a task outlasts an outage of an
    /// hour.
    fn default() -> Self {
        Self {
            max_retries: 20,
            delay: Duration::from_secs(10),
            backoff: true,
            max_delay: Duration::from_secs(600),
            jitter: true,
        }
    }
}

/// What the runtime does with a task that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryVerdict {
    /// The task runs again after a delay.
    Retry {
        /// How long the task waits, counted from the failure.
        after: Duration,
    },
    /// The retries of the task are used up.
    GiveUp,
}

impl RetryPolicy {
    /// Decides about a task that has failed after `retries_so_far` retries (0 when its first run failed).
    ///
    /// `entropy` is any number for the jitter. The same number gives the same delay. Numbers that differ a little, as
    /// those of a counter, are as good as random ones.
    pub fn next(&self, retries_so_far: u32, entropy: u64) -> RetryVerdict {
        if retries_so_far >= self.max_retries {
            return RetryVerdict::GiveUp;
        }
        let full = if self.backoff {
            backoff::doubled(self.delay, retries_so_far, self.max_delay)
        } else {
            self.delay
        };
        RetryVerdict::Retry { after: if self.jitter { equal_jitter(full, entropy) } else { full } }
    }
}

/// A delay that is uniform within `[full / 2, full]`.
fn equal_jitter(full: Duration, entropy: u64) -> Duration {
    let drawn = full.as_nanos() / 2;
    let kept = full.as_nanos() - drawn;
    // The sum fits a Duration, because it is at most `full`: `share` is at most `drawn`.
    Duration::from_nanos_u128(kept + share(drawn, mix(entropy)))
}

/// The whole part of `(span + 1) * part / 2^64`, which maps `part` evenly onto `0..=span`. The product is computed in
/// two halves, because the nanoseconds of a Duration take up to 94 bits and the product would not fit.
fn share(span: u128, part: u64) -> u128 {
    let slots = span + 1;
    let (high, low) = (slots >> 64, slots & u128::from(u64::MAX));
    high * u128::from(part) + ((low * u128::from(part)) >> 64)
}

/// The finaliser of SplitMix64. It is one to one, so evenly spread numbers stay so, and it spreads neighbours over
/// the whole range.
fn mix(entropy: u64) -> u64 {
    let mut z = entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(policy: &RetryPolicy, retries: u32, entropy: u64) -> Option<Duration> {
        match policy.next(retries, entropy) {
            RetryVerdict::Retry { after } => Some(after),
            RetryVerdict::GiveUp => None,
        }
    }

    #[test]
    fn twenty_retries_that_double_up_to_ten_minutes_are_the_default() {
        let policy = RetryPolicy { jitter: false, ..RetryPolicy::default() };
        let seconds: Vec<_> = (0..22).map(|n| after(&policy, n, 0).map(|wait| wait.as_secs())).collect();
        assert_eq!(seconds[..8], [10, 20, 40, 80, 160, 320, 600, 600].map(Some));
        assert!(seconds[8..20].iter().all(|wait| *wait == Some(600)) && seconds[20..] == [None, None]);
        assert_eq!(RetryPolicy { max_retries: 0, ..policy }.next(0, 0), RetryVerdict::GiveUp);
    }

    /// The retries of a task that first fails when an outage begins, whatever the jitter: with every delay at its shortest,
    /// and with every delay at its longest. The last one must come after the outage, and the one that succeeds soon after
    /// its end.
    #[test]
    fn the_default_outlasts_an_outage_of_an_hour_whatever_the_jitter() {
        let policy = RetryPolicy::default();
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        // The entropies at which the random part is smallest and largest, among many.
        let drawn = |retries: u32, shortest: bool| {
            let delays = (0..1_000).filter_map(|entropy| after(&policy, retries, entropy));
            if shortest { delays.min() } else { delays.max() }
        };
        for shortest in [true, false] {
            let mut at = Duration::ZERO;
            let mut tries = Vec::new();
            for retries in 0..policy.max_retries {
                at += drawn(retries, shortest).expect("a retry is left");
                tries.push(at);
            }
            for outage in [minutes(2), minutes(60)] {
                let first = tries.iter().find(|at| **at >= outage).expect("a retry after the outage");
                // A delay is at most as long as all delays before it together, and ten minutes.
                assert!(*first < outage * 2 + minutes(1) && *first <= outage + minutes(10), "{first:?}");
            }
            assert!(at > minutes(75) && at < minutes(160), "{at:?}");
        }
    }

    #[test]
    fn without_backoff_the_delay_is_the_one_asked_for() {
        let hour = Duration::from_secs(3_600);
        let policy = RetryPolicy { delay: hour, backoff: false, jitter: false, ..RetryPolicy::default() };
        assert_eq!([after(&policy, 0, 0), after(&policy, 2, 0)], [Some(hour), Some(hour)]);
    }

    #[test]
    fn a_policy_reads_back_and_what_it_leaves_out_is_the_default() {
        let policy = RetryPolicy { max_retries: 7, ..RetryPolicy::default() };
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<RetryPolicy>(&json).unwrap(), policy);
        assert_eq!(serde_json::from_str::<RetryPolicy>(r#"{"max_retries":7}"#).unwrap(), policy);
    }

    /// There are four sources of entropy: a counter from 0, one that ends at the largest number, one in the top bits
    /// only, and one that strides. Each must fill ten equal slices of [d/2, d] evenly.
    #[test]
    fn jitter_is_uniform_whatever_the_entropy() {
        const DRAWS: u64 = 20_000;
        let policy = RetryPolicy { delay: Duration::from_secs(100), ..RetryPolicy::default() };
        let sources: [fn(u64) -> u64; 4] =
            [|n| n, |n| u64::MAX - n, |n| n << 48, |n| n.wrapping_mul(0x1234_5678_9abc_def1)];
        for source in sources {
            let mut slices = [0u64; 10];
            for n in 0..DRAWS {
                let wait = after(&policy, 0, source(n)).unwrap().as_micros();
                slices[(((wait - 50_000_000) / 5_000_000) as usize).min(9)] += 1;
            }
            for count in slices {
                // 10 % is more than four standard deviations of a fair draw.
                assert!(count.abs_diff(DRAWS / 10) < DRAWS / 100, "{slices:?}");
            }
        }
    }

    #[test]
    fn jitter_reaches_both_ends_and_no_further() {
        for span in [0, 1, 7, u128::from(u64::MAX), Duration::MAX.as_nanos()] {
            assert_eq!(share(span, 0), 0);
            assert!(share(span, u64::MAX) <= span);
            assert!(share(span, u64::MAX) >= span - (span >> 63), "{span}");
        }
        assert_eq!([0, 1 << 62, 1 << 63, 3 << 62].map(|part| share(3, part)), [0, 1, 2, 3]);
    }

    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            4 => (0u64..100_000).prop_map(Duration::from_millis),
            1 => (0u64..10).prop_map(Duration::from_nanos),
            1 => (any::<u64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
            1 => Just(Duration::MAX),
        ]
    }

    fn any_policy() -> impl Strategy<Value = RetryPolicy> {
        (prop_oneof![0u32..300, Just(u32::MAX)], any_duration(), any::<bool>(), any_duration(), any::<bool>())
            .prop_map(|(max_retries, delay, backoff, max_delay, jitter)| RetryPolicy {
                max_retries,
                delay,
                backoff,
                max_delay,
                jitter,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn a_delay_is_between_half_and_full_and_full_is_capped(
            policy in any_policy(),
            retries in prop_oneof![0u32..300, any::<u32>()],
            entropy in prop_oneof![any::<u64>(), 0u64..4, (u64::MAX - 4)..=u64::MAX],
        ) {
            let exact = RetryPolicy { jitter: false, ..policy.clone() };
            let (drawn, full) = (after(&policy, retries, entropy), after(&exact, retries, entropy));
            prop_assert_eq!(full.is_none(), retries >= policy.max_retries);
            prop_assert_eq!(drawn.is_none(), full.is_none());
            if let (Some(drawn), Some(full)) = (drawn, full) {
                let cap = if policy.backoff { policy.max_delay } else { policy.delay };
                prop_assert!(full <= cap);
                prop_assert!(drawn <= full);
                prop_assert!(drawn.as_nanos() * 2 >= full.as_nanos());
                prop_assert!(policy.jitter || drawn == full);
                if let Some(next) = after(&exact, retries.saturating_add(1), entropy) {
                    prop_assert!(next >= full);
                    prop_assert!(!policy.backoff || next == full.saturating_mul(2).min(policy.max_delay));
                }
            }
        }
    }
}

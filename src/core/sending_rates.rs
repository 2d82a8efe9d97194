//! Which calls of a tenant are above what the queue takes of one tenant, so that they go to another queue.
//!
//! Each tenant may send as many calls at once as its rate states for one unit of time, and they come back at an even rate:
//! with `30/m` thirty at once, and one more every two seconds. So nothing has to be remembered of a tenant but the time at
//! which all of it will have come back.
//!
//! Invariants:
//! - A tenant that keeps to its rate is never above it, whatever others send.
//! - A call that is above takes nothing, so a tenant that floods for ever still has its rate in the queue.
//! - Memory is bounded: a tenant to which all has come back is as one that never called. Beyond [`MOST_TENANTS`] a tenant
//!   that is new counts as one that is not above.

use std::collections::HashMap;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::Timestamp;
use super::token_bucket::RateLimit;

/// The most tenants of one queue that are remembered. Each takes about 32 bytes.
pub const MOST_TENANTS: usize = 10_000;

/// How often the tenants that need not be remembered are looked for, while there are too many.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What the tenants of one queue have sent lately. The caller reads a clock that never steps back and passes its time.
#[derive(Debug)]
pub struct SendingRates {
    /// The time in which one call comes back.
    interval: Duration,
    /// How far ahead the time of a tenant may be when it sends.
    ahead: Duration,
    /// When all will have come back, by the hashes of the tenants.
    back_at: HashMap<u64, Timestamp>,
    swept_at: Option<Timestamp>,
}

impl SendingRates {
    /// Tenants that have sent nothing.
    pub fn new(rate: &RateLimit) -> Self {
        let interval = rate.interval();
        // A rate below one in its unit of time lets a single call through.
        let ahead = rate.unit().saturating_sub(interval);
        Self { interval, ahead, back_at: HashMap::new(), swept_at: None }
    }

    /// Whether a call of this tenant is above its rate. If it is not, it counts.
    pub fn is_above(&mut self, tenant: &str, now: Timestamp) -> bool {
        let tenant = xxh3_64(tenant.as_bytes());
        let known = self.back_at.get(&tenant).copied();
        let back_at = known.unwrap_or(now).max(now);
        if back_at.since(now) > self.ahead {
            return true;
        }
        if known.is_some() || self.has_room(now) {
            self.back_at.insert(tenant, back_at + self.interval);
        }
        false
    }

    /// Whether one more tenant can be remembered.
    fn has_room(&mut self, now: Timestamp) -> bool {
        if self.back_at.len() >= MOST_TENANTS && self.swept_at.is_none_or(|at| now.since(at) >= SWEEP_EVERY) {
            self.swept_at = Some(now);
            self.back_at.retain(|_, back_at| *back_at > now);
        }
        self.back_at.len() < MOST_TENANTS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates(text: &str) -> SendingRates {
        SendingRates::new(&RateLimit::parse(text).unwrap().unwrap())
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_tenant_may_send_its_rate_at_once_and_the_rest_is_above() {
        let mut rates = rates("30/m");
        let above = (0..40).filter(|_| rates.is_above("acme", at(0))).count();
        assert_eq!(above, 10);
        assert!(!rates.is_above("other", at(0)), "another tenant has its own");
        assert!(rates.is_above("acme", at(1_999)));
        assert!(!rates.is_above("acme", at(2_000)), "one has come back");
        assert!(rates.is_above("acme", at(2_000)));
        let above = (0..30).filter(|_| rates.is_above("acme", at(120_000))).count();
        assert_eq!(above, 0, "all have come back");
    }

    #[test]
    fn less_than_one_in_its_unit_is_one_at_a_time() {
        let mut rates = rates("0.5/m");
        assert!(!rates.is_above("acme", at(0)) && rates.is_above("acme", at(119_000)));
        assert!(!rates.is_above("acme", at(120_000)));
    }

    #[test]
    fn memory_is_bounded_and_those_who_came_back_make_room() {
        let mut rates = rates("1/s");
        for n in 0..MOST_TENANTS + 5 {
            assert!(!rates.is_above(&n.to_string(), at(0)));
        }
        assert_eq!(rates.back_at.len(), MOST_TENANTS);
        assert!(!rates.is_above("late", at(0)) && !rates.is_above("late", at(0)), "it is not remembered");
        assert!(rates.is_above("0", at(0)));
        assert!(!rates.is_above("late", at(1_000)) && rates.is_above("late", at(1_000)));
        assert_eq!(rates.back_at.len(), 1, "the others have come back");
    }

    proptest! {
        /// In any span of time a tenant has no more in the queue than what it may send at once and what came back, and one
        /// that is slower than its rate is never above.
        #[test]
        fn the_queue_gets_the_rate_and_no_more(gaps in proptest::collection::vec(0_u64..400, 1..300)) {
            let mut rates = rates("10/s");
            let (mut now, mut taken) = (0, Vec::new());
            for (n, gap) in gaps.iter().enumerate() {
                now += gap;
                if !rates.is_above("flood", at(now)) {
                    taken.push(now);
                }
                let quiet = format!("quiet-{n}");
                prop_assert!(!rates.is_above(&quiet, at(now)));
            }
            for (n, from) in taken.iter().enumerate() {
                for (m, to) in taken.iter().enumerate().skip(n) {
                    prop_assert!((m - n + 1) as u64 <= 10 + (to - from) / 100);
                }
            }
            if gaps.iter().all(|gap| *gap >= 100) {
                prop_assert_eq!(taken.len(), gaps.len());
            }
        }
    }
}

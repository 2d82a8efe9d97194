//! The counts of one limit, for each key.
//!
//! Invariants:
//! - What [`check`](StartLimiter::check) allows, [`start`](StartLimiter::start) counts. A check alone counts nothing.
//! - Whatever a run comes to, its [`end`](StartLimiter::end) gives back its place. A start that came to nothing gives back its
//!   part of the day's cap, too.
//! - At most [`MOST_KEYS`] keys have counts of their own, and a bounded number of counts is shared by all further keys. Keys
//!   that share a count start less often than the limit allows, and never more often. A key whose counts equal those of a new
//!   one is forgotten when its room is needed.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::breaker::BreakerState;
use super::day_counts::DayCounts;
use super::token_lease::TokenLease;
use super::{LimitedBy, RunEnd, StartLimit};
use crate::core::Timestamp;
use crate::core::calendar::LocalDay;
use crate::core::token_bucket::{RateLimit, TokenBucket};

/// The most keys of a limit that have counts of their own.
pub const MOST_KEYS: usize = 10_000;
/// The number of counts that the keys share which have none of their own.
const TOGETHER: u64 = 1_024;
/// Keys are forgotten no more often than this.
const SWEEP: Duration = Duration::from_secs(1);

/// The time by two clocks: days and hours are those of the wall clock; rates and pauses go by one that never steps.
#[derive(Clone, Copy, Debug)]
pub struct LimitClock {
    /// The time by the wall clock.
    pub wall: Timestamp,
    /// The time by a clock that goes on evenly.
    pub steady: Duration,
}

/// Whose counts a start belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// The key has counts of its own.
    Own(Arc<str>),
    /// The key shares the counts of this number with others.
    Together(u16),
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(key) => f.write_str(key),
            Self::Together(number) => write!(f, "#{number}"),
        }
    }
}

/// Which parts of a limit a store keeps for all processes. What no store keeps, this process counts by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitKeeping {
    /// A store keeps the rate.
    pub rate: bool,
    /// A store keeps the counts of days.
    pub days: bool,
}

/// A question to the store that keeps a part of a limit. The answer goes to [`StartLimiter::answer_rate`] or
/// [`StartLimiter::answer_day`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitQuestion {
    /// For starts of a rate.
    Rate {
        /// The time between two starts.
        interval: Duration,
        /// How many starts are wanted at most.
        starts: u32,
        /// How far ahead they may lie.
        ahead: Duration,
    },
    /// For a share of a day's cap.
    Day {
        /// The day.
        day: LocalDay,
        /// How many may start on it in all.
        cap: u32,
        /// How many of these are wanted at most.
        share: u32,
    },
}

/// Why a run may not start.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// What of the limit does not allow it.
    pub by: LimitedBy,
    /// How long until it is worth checking again; `None`: when a run of the key has ended.
    pub wait: Option<Duration>,
    /// The store is to be asked this; it counts as asked.
    pub question: Option<LimitQuestion>,
}

impl Refused {
    pub(super) fn by(by: LimitedBy, wait: Option<Duration>) -> Self {
        Self { by, wait, question: None }
    }
}

/// A start that was counted, until it has [ended](StartLimiter::end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitedStart {
    key: LimitKey,
    /// The day that it counts for.
    pub(super) day: Option<LocalDay>,
    /// It finds out for the breaker whether the trouble is over.
    is_probe: bool,
}

impl LimitedStart {
    /// Whose counts it belongs to.
    pub fn key(&self) -> &LimitKey {
        &self.key
    }
}

/// Counts the starts of one limit.
#[derive(Debug)]
pub struct StartLimiter {
    limit: StartLimit,
    keeping: LimitKeeping,
    keys: HashMap<LimitKey, KeyCounts>,
    swept_at: Option<Duration>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct KeyCounts {
    pub(super) running: u32,
    /// The rate, as far as this process counts it by itself.
    bucket: Option<TokenBucket>,
    /// The rate, as far as a store keeps it.
    lease: TokenLease,
    pub(super) days: DayCounts,
    pub(super) breaker: BreakerState,
}

impl StartLimiter {
    /// A limiter that has counted nothing yet.
    pub fn new(limit: StartLimit, keeping: LimitKeeping) -> Self {
        Self { limit, keeping, keys: HashMap::new(), swept_at: None }
    }

    /// Returns the limit that this limiter keeps.
    pub fn limit(&self) -> &StartLimit {
        &self.limit
    }

    /// Has another rate hold from now on, or none. Every key may start at once, as in Celery.
    pub fn set_rate(&mut self, rate: Option<RateLimit>) {
        self.limit.rate = rate;
        for counts in self.keys.values_mut() {
            (counts.bucket, counts.lease) = (None, TokenLease::default());
        }
    }

    /// Whose counts this key has now.
    pub fn key(&mut self, key: &str, now: LimitClock) -> LimitKey {
        let own = LimitKey::Own(key.into());
        if self.keys.contains_key(&own) {
            return own;
        }
        let together = together(key);
        // What this key has started with others still counts for it.
        let counts_together = self.keys.get(&together).is_some_and(|counts| !self.is_idle(counts, now));
        if counts_together {
            return together;
        }
        if self.keys.len() >= MOST_KEYS {
            self.sweep(now);
        }
        if self.keys.len() < MOST_KEYS { own } else { together }
    }

    /// Whether a run of this key may start now. It is counted by [`start`](Self::start), which is to follow before anything
    /// else is asked.
    ///
    /// # Errors
    /// It may not, with the reason and the time when it may.
    pub fn check(&mut self, key: &LimitKey, now: LimitClock) -> Result<(), Refused> {
        if let Some(hours) = &self.limit.hours
            && let Some(wait) = hours.opens_in(self.limit.zone, now.wall)
        {
            return Err(Refused::by(LimitedBy::Hours(hours.to_string()), Some(wait)));
        }
        let StartLimit { rate, max_running, daily, zone, breaker, .. } = &self.limit;
        let counts = self.keys.entry(key.clone()).or_default();
        if let Some(breaker) = breaker
            && let Err(wait) = counts.breaker.check(now.steady)
        {
            let by = LimitedBy::Breaker { errors: breaker.errors, of: breaker.of };
            return Err(Refused::by(by, wait));
        }
        if let Some(most) = *max_running
            && counts.running >= most
        {
            return Err(Refused::by(LimitedBy::Running(most), None));
        }
        if let Some(cap) = *daily {
            counts.days.check(cap, *zone, self.keeping.days, now)?;
        }
        match rate {
            Some(rate) if self.keeping.rate => counts.lease.check(rate, now)?,
            Some(rate) => {
                let mut bucket = counts.bucket(rate, now);
                if let Err(wait) = bucket.take(now.steady) {
                    return Err(Refused::by(LimitedBy::Rate(rate.text().to_owned()), Some(wait)));
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Whether a run of this key could start now. To look counts nothing and asks the store nothing: what only the store knows
    /// counts as allowed.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn look(&self, key: &str, now: LimitClock) -> Result<(), Refused> {
        let keys = [LimitKey::Own(key.into()), together(key)];
        let known = keys.into_iter().find(|key| self.keys.contains_key(key));
        self.look_at(&known.unwrap_or_else(|| together(key)), now)
    }

    /// As [`look`](Self::look), by the counts of this key.
    pub(super) fn look_at(&self, key: &LimitKey, now: LimitClock) -> Result<(), Refused> {
        let mut copy = Self::new(self.limit.clone(), self.keeping);
        copy.keys.extend(self.counts(key).map(|counts| (key.clone(), counts.clone())));
        copy.check(key, now).or_else(|refused| match refused.question {
            Some(_) => Ok(()),
            None => Err(refused),
        })
    }

    /// What is counted for a key.
    pub(super) fn counts(&self, key: &LimitKey) -> Option<&KeyCounts> {
        self.keys.get(key)
    }

    /// The keys that have counts, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &LimitKey> {
        self.keys.keys()
    }

    /// Counts a start that [`check`](Self::check) has just allowed. A question follows if it is time to ask the store.
    pub fn start(&mut self, key: LimitKey, now: LimitClock) -> (LimitedStart, Option<LimitQuestion>) {
        let StartLimit { rate, daily, zone, breaker, .. } = &self.limit;
        let counts = self.keys.entry(key.clone()).or_default();
        counts.running = counts.running.saturating_add(1);
        let day = daily.map(|_| counts.days.start(*zone, now));
        let is_probe = breaker.is_some() && counts.breaker.begin();
        let question = match rate {
            Some(rate) if self.keeping.rate => counts.lease.start(rate, now),
            Some(rate) => {
                let mut bucket = counts.bucket(rate, now);
                let _ = bucket.take(now.steady); // the check has seen that there is a token
                counts.bucket = Some(bucket);
                None
            }
            None => None,
        };
        (LimitedStart { key, day, is_probe }, question)
    }

    /// Gives back what a start took. Says whether those that wait for a run of its key to end are to check again.
    pub fn end(&mut self, start: &LimitedStart, end: RunEnd, now: LimitClock) -> bool {
        let Some(counts) = self.keys.get_mut(&start.key) else { return false };
        counts.running = counts.running.saturating_sub(1);
        let mut is_freed = self.limit.max_running.is_some();
        if let Some(day) = start.day.filter(|_| end == RunEnd::NotRun) {
            counts.days.take_back(day);
            is_freed = true;
        }
        if let Some(breaker) = &self.limit.breaker {
            is_freed |= counts.breaker.end(breaker, start.is_probe, end, now.steady);
        }
        is_freed
    }

    /// The store's answer about a rate: so many starts, the first of them after this time; with none, how long until it is
    /// worth asking again. `None`: it has not answered.
    pub fn answer_rate(&mut self, key: &LimitKey, granted: Option<(u32, Duration)>, now: LimitClock) {
        if let Some(counts) = self.keys.get_mut(key) {
            counts.lease.grant(granted, now.steady);
        }
    }

    /// The store's answer about a day: a share of its cap, 0 if nothing is left. `None`: it has not answered.
    pub fn answer_day(&mut self, key: &LimitKey, day: LocalDay, share: Option<u32>, now: LimitClock) {
        if let Some(counts) = self.keys.get_mut(key) {
            counts.days.grant(day, share, now.steady);
        }
    }

    /// Takes out what is left of the shares of days, so that the store can have it back: the key, the day, and how much.
    pub fn take_unused_days(&mut self) -> Vec<(LimitKey, LocalDay, u32)> {
        if !self.keeping.days {
            return Vec::new();
        }
        let unused = self.keys.iter_mut().flat_map(|(key, counts)| {
            counts.days.unused().map(|(day, unused)| (key.clone(), day, unused)).collect::<Vec<_>>()
        });
        unused.collect()
    }

    /// How many counts there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no counts.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Forgets the keys whose counts equal those of a new one.
    fn sweep(&mut self, now: LimitClock) {
        if self.swept_at.is_some_and(|swept_at| now.steady.saturating_sub(swept_at) < SWEEP) {
            return;
        }
        self.swept_at = Some(now.steady);
        let mut keys = std::mem::take(&mut self.keys);
        keys.retain(|_, counts| !self.is_idle(counts, now));
        self.keys = keys;
    }

    fn is_idle(&self, counts: &KeyCounts, now: LimitClock) -> bool {
        let StartLimit { rate, zone, .. } = &self.limit;
        let bucket_is_full = counts.bucket.is_none_or(|bucket| bucket.is_full(now.steady));
        let lease_is_idle = rate.as_ref().is_none_or(|rate| counts.lease.is_idle(rate, now.steady));
        counts.running == 0
            && bucket_is_full
            && lease_is_idle
            && counts.days.is_idle(*zone, now)
            && counts.breaker.is_idle()
    }
}

/// The counts that this key shares with others, if it has none of its own.
fn together(key: &str) -> LimitKey {
    LimitKey::Together(u16::try_from(xxh3_64(key.as_bytes()) % TOGETHER).unwrap_or_default())
}

impl KeyCounts {
    fn bucket(&self, rate: &RateLimit, now: LimitClock) -> TokenBucket {
        self.bucket.unwrap_or_else(|| TokenBucket::new(rate.per_second(), now.steady))
    }
}

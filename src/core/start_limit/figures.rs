//! What an operator sees of a limit: how much of it each key has used, and when it lets the next run start.

use std::time::Duration;

use serde::Serialize;

use super::limiter::{LimitClock, LimitKey, Refused};
use super::{StartLimit, StartLimiter};

/// A limit and its keys, as this process counts them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LimitFigures {
    /// The name of the limit.
    pub name: String,
    /// By what it counts: the name of a parameter, `tenant`, or the words for what the program has stated. `None`: there is one
    /// count for all.
    pub key: Option<String>,
    /// What it allows, for each key.
    pub limit: StartLimit,
    /// The keys that have counts, in no order.
    pub keys: Vec<KeyFigures>,
}

/// What one key of a limit has used.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KeyFigures {
    /// The key to which the counts belong.
    pub key: LimitKey,
    /// How many runs are under way.
    pub running: u32,
    /// How many runs have started here today, if the limit has a cap for the day.
    pub started_today: Option<u32>,
    /// How the breaker stands, if the limit has one.
    pub breaker: Option<BreakerPhase>,
    /// What does not allow the next run, and for how long. `None`: it may start, as far as is known here.
    pub refused: Option<Refused>,
}

/// How the breaker of a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum BreakerPhase {
    /// Runs start.
    Closed {
        /// How many of the runs that it looks back at have failed.
        errors: u32,
    },
    /// Nothing starts.
    Open {
        /// How long it stays so.
        #[serde(rename = "for_ms", serialize_with = "crate::core::json_time::millis")]
        wait: Duration,
    },
    /// One run finds out whether the trouble is over, or may start to find out.
    HalfOpen,
}

impl StartLimiter {
    /// What a key has used. To look counts nothing, and asks no store. `None`: the key has no counts.
    pub fn figures(&self, key: &LimitKey, now: LimitClock) -> Option<KeyFigures> {
        let counts = self.counts(key)?;
        Some(KeyFigures {
            key: key.clone(),
            running: counts.running,
            started_today: self.limit().daily.map(|_| counts.days.started(self.limit().zone, now)),
            breaker: self.limit().breaker.map(|breaker| counts.breaker.phase(&breaker, now.steady)),
            refused: self.look_at(key, now).err(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;
    use crate::core::start_limit::{Breaker, LimitKeeping, LimitedBy, RunEnd};

    fn at(seconds: u64) -> LimitClock {
        let noon = Timestamp::from_millis(1_795_348_800_000);
        LimitClock { wall: noon + Duration::from_secs(seconds), steady: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_figures_of_a_key_say_what_it_has_used_and_count_nothing() {
        let breaker = Breaker::new(2, 4, Duration::from_secs(10), Duration::from_secs(60));
        let limit = StartLimit {
            max_running: Some(2),
            daily: Some(3),
            breaker: Some(breaker),
            ..StartLimit::default()
        };
        let mut limiter = StartLimiter::new(limit, LimitKeeping::default());
        assert_eq!(limiter.figures(&LimitKey::Own("a".into()), at(0)), None);
        let key = limiter.key("a", at(0));
        let mut runs = Vec::new();
        for _ in 0..2 {
            assert_eq!(limiter.check(&key, at(0)), Ok(()));
            runs.push(limiter.start(key.clone(), at(0)).0);
        }
        let figures = limiter.figures(&key, at(1)).expect("it has counts");
        assert_eq!((figures.running, figures.started_today), (2, Some(2)));
        assert_eq!(figures.breaker, Some(BreakerPhase::Closed { errors: 0 }));
        assert_eq!(figures.refused.map(|refused| refused.by), Some(LimitedBy::Running(2)));
        assert_eq!(limiter.keys().collect::<Vec<_>>(), [&key]);
        for run in &runs {
            limiter.end(run, RunEnd::Failure, at(2));
        }
        let figures = limiter.figures(&key, at(5)).expect("it has counts");
        assert_eq!(figures.breaker, Some(BreakerPhase::Open { wait: Duration::from_secs(7) }));
        assert_eq!(figures.refused.and_then(|refused| refused.wait), Some(Duration::from_secs(7)));
        let figures = limiter.figures(&key, at(12)).expect("it has counts");
        assert_eq!((figures.breaker, figures.refused), (Some(BreakerPhase::HalfOpen), None));
        assert_eq!(
            limiter.check(&key, at(12)),
            Ok(()),
            "to look has not taken the turn of the one that finds out"
        );
    }
}

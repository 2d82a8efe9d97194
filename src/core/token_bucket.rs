//! How often something may happen: Celery's rate limits.
//!
//! A bucket holds one token at most. Each start takes it, and it comes back at an even rate, so starts are spread out
//! and never come in bursts. The caller reads a clock that never steps back and passes its time.

use std::time::Duration;

use super::rate::{RateError, rate};

/// A bucket of one token, which comes back so many times a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenBucket {
    /// Tokens for each second; more than zero.
    rate: f64,
    tokens: f64,
    /// When the tokens were counted last.
    counted_at: Duration,
}

impl TokenBucket {
    /// A full bucket. A rate that is not a number above zero lets everything through at once.
    pub fn new(per_second: f64, now: Duration) -> Self {
        let rate = if per_second > 0.0 { per_second } else { f64::INFINITY };
        Self { rate, tokens: 1.0, counted_at: now }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// There is none; the error says after how long there will be one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.counted_at).as_secs_f64();
        self.counted_at = self.counted_at.max(now);
        // Infinity times nothing is not a number.
        let came = if self.rate.is_infinite() { 1.0 } else { passed * self.rate };
        self.tokens = (self.tokens + came).min(1.0);
        if self.tokens >= 1.0 {
            self.tokens = 0.0;
            return Ok(());
        }
        let wait = (1.0 - self.tokens) / self.rate;
        // Rounded up, so that there is a token when the wait is over.
        let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
        Err(wait.saturating_add(Duration::from_micros(1)))
    }

    /// Whether there is a token. It is not taken.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn peek(&self, now: Duration) -> Result<(), Duration> {
        let mut copy = *self;
        copy.take(now)
    }

    /// Whether there is a token at `now`. A bucket that has one equals a new one, so nobody needs to keep it.
    pub fn is_full(&self, now: Duration) -> bool {
        self.peek(now).is_ok()
    }
}

/// A rate limit of a task, as it was stated: at most so many starts a second in each process, evenly spread.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    text: String,
    per_second: f64,
}

impl RateLimit {
    /// Reads a rate limit as Celery does: `"10/s"`, `"10/m"` or `"10/h"`, or a number, which is for each second. The
    /// empty text and zero mean that there is no limit: `None`.
    ///
    /// # Errors
    /// The text is no rate limit, or the number is negative.
    ///
    /// ```
    /// use celeriac::core::token_bucket::RateLimit;
    /// let limit = RateLimit::parse("30/m")?.expect("there is a limit");
    /// assert_eq!((limit.text(), limit.per_second()), ("30/m", 0.5));
    /// assert_eq!(RateLimit::parse("0/m")?, None);
    /// assert!(RateLimit::parse("2/week").is_err());
    /// # Ok::<(), celeriac::core::rate::RateError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Option<Self>, RateError> {
        Ok(rate(text)?.map(|per_second| Self { text: text.to_owned(), per_second }))
    }

    /// The limit as it was stated.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The number of starts in a second.
    pub const fn per_second(&self) -> f64 {
        self.per_second
    }

    /// The unit of time that the limit was stated for: a second, a minute or an hour.
    pub fn unit(&self) -> Duration {
        Duration::from_secs(match self.text.split_once('/') {
            Some((_, "m")) => 60,
            Some((_, "h")) => 3600,
            _ => 1,
        })
    }

    /// The time between two starts.
    pub fn interval(&self) -> Duration {
        Duration::try_from_secs_f64(1.0 / self.per_second).unwrap_or(Duration::MAX)
    }
}

impl std::fmt::Display for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_spread_out_and_never_come_in_bursts() {
        let at = Duration::from_millis;
        let mut bucket = TokenBucket::new(2.0, at(0));
        assert_eq!((bucket.peek(at(0)), bucket.peek(at(0))), (Ok(()), Ok(())), "to look takes nothing");
        assert_eq!(bucket.take(at(0)), Ok(()));
        let wait = bucket.take(at(100)).unwrap_err();
        assert_eq!(bucket.peek(at(100)), Err(wait));
        assert!((at(400)..at(401)).contains(&wait), "{wait:?}");
        assert_eq!(bucket.take(at(100) + wait), Ok(()), "when the wait is over there is one");
        // However long nothing started, there is one token.
        assert_eq!(bucket.take(at(60_000)), Ok(()));
        assert!(bucket.take(at(60_000)).is_err());
        // A clock that steps back gives nothing and takes nothing.
        assert!(bucket.take(at(0)).is_err());
        assert_eq!(bucket.take(at(60_501)), Ok(()));
        assert!(!bucket.is_full(at(60_502)) && bucket.is_full(at(61_002)));
        let mut open = TokenBucket::new(0.0, at(0));
        assert_eq!((open.take(at(0)), open.take(at(0))), (Ok(()), Ok(())));
        let mut slow = TokenBucket::new(1e-300, at(0));
        assert_eq!(slow.take(at(0)), Ok(()));
        assert_eq!(slow.take(at(1)), Err(Duration::MAX));
    }
}

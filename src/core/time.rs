//! Instants in the pure core: numbers that the caller read off a clock.
//!
//! The core never reads a clock. Its caller passes a [`Timestamp`], which makes every decision repeatable in a test.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The longest wait that Celeriac asks a clock for: thirty years, as tokio's own "never". A longer wait is as good as
/// for ever, and every clock can represent now plus this wait.
pub const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// When a wait of this length, begun at `from`, is over. `from` may be an `Instant` of `std` or of tokio, or another
/// point in time.
///
/// Their `+` panics where the sum is out of range, and `Duration::MAX`, which users write for "for ever", always is.
/// So all code that adds a length given by a user to an instant calls this function, which cuts lengths above
/// [`FOR_EVER`] to it.
///
/// ```
/// use celeriac::core::time::{FOR_EVER, deadline};
/// use std::time::{Duration, Instant};
/// let start = Instant::now();
/// assert_eq!(deadline(start, Duration::from_secs(5)), start + Duration::from_secs(5));
/// assert_eq!(deadline(start, Duration::MAX), start + FOR_EVER);
/// ```
pub fn deadline<I: Add<Duration, Output = I>>(from: I, wait: Duration) -> I {
    from + wait.min(FOR_EVER)
}

/// The duration of a number of seconds that another program or a file states. A negative number is zero, a number too
/// large for a [`Duration`] is [`Duration::MAX`], and NaN is `None`. The result is rounded to the microsecond, as
/// finer digits are noise of the float.
///
/// ```
/// use celeriac::core::time::seconds;
/// use std::time::Duration;
/// assert_eq!(seconds(1.5), Some(Duration::from_millis(1500)));
/// assert_eq!(seconds(-3.0), Some(Duration::ZERO));
/// assert_eq!(seconds(1e300), Some(Duration::MAX));
/// assert_eq!(seconds(f64::NAN), None);
/// ```
pub fn seconds(number: f64) -> Option<Duration> {
    if number.is_nan() {
        return None;
    }
    let Ok(exact) = Duration::try_from_secs_f64(number.max(0.0)) else { return Some(Duration::MAX) };
    let micros = u64::from((exact.subsec_nanos() + 500) / 1_000);
    let whole = Duration::from_secs(exact.as_secs()).checked_add(Duration::from_micros(micros));
    Some(whole.unwrap_or(Duration::MAX))
}

/// A clock that is set once and then runs evenly, however the system's clock is changed. It measures promised lengths
/// of time, such as a unique window, which a jump of the wall clock must not cut short.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    wall: Timestamp,
    began: std::time::Instant,
}

impl Steady {
    /// A clock that shows `wall` at the instant `began`.
    pub const fn set(wall: Timestamp, began: std::time::Instant) -> Self {
        Self { wall, began }
    }

    /// The time that the clock shows at an instant; never before the time to which it was set.
    pub fn at(&self, instant: std::time::Instant) -> Timestamp {
        self.wall + instant.saturating_duration_since(self.began)
    }
}

/// A point in time in whole microseconds since the Unix epoch (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch: midnight of January 1, 1970, UTC.
    pub const ZERO: Self = Self(0);

    /// The instant a number of whole microseconds after the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The instant a number of whole milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// The whole microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The whole milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// The time from `earlier` to this instant; zero if this instant is not after `earlier`.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The same instant as a time of the standard library.
    ///
    /// A system whose clock ends before that gets the Unix epoch plus at most [`FOR_EVER`].
    pub fn to_system_time(self) -> SystemTime {
        let since = Duration::from_micros(self.0);
        UNIX_EPOCH.checked_add(since).unwrap_or_else(|| deadline(UNIX_EPOCH, since))
    }
}

impl From<SystemTime> for Timestamp {
    /// Times before 1970 become the epoch, and times past the year 586,912 become the last instant.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl<Z: chrono::TimeZone> From<chrono::DateTime<Z>> for Timestamp {
    /// The zone does not matter, as an instant is the same in all of them. Times before 1970 become the epoch.
    fn from(time: chrono::DateTime<Z>) -> Self {
        Self(u64::try_from(time.timestamp_micros()).unwrap_or(0))
    }
}

#[cfg(feature = "jiff")]
impl From<jiff::Timestamp> for Timestamp {
    /// Times before 1970 become the epoch.
    fn from(time: jiff::Timestamp) -> Self {
        Self(u64::try_from(time.as_microsecond()).unwrap_or(0))
    }
}

#[cfg(feature = "jiff")]
impl From<jiff::Zoned> for Timestamp {
    /// The zone does not matter, as an instant is the same in all of them. Times before 1970 become the epoch.
    fn from(time: jiff::Zoned) -> Self {
        time.timestamp().into()
    }
}

#[cfg(feature = "jiff")]
impl From<&jiff::Zoned> for Timestamp {
    /// As that of a [`jiff::Zoned`], which is not `Copy`.
    fn from(time: &jiff::Zoned) -> Self {
        time.timestamp().into()
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// The sum, or the last instant that a [`Timestamp`] can represent.
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    /// The difference, or the Unix epoch if that would be later.
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_micros(i64::try_from(self.0).unwrap_or(i64::MAX)) {
            Some(time) => write!(f, "{}", time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)),
            None => write!(f, "{} µs after 1970", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_and_display_is_rfc3339() {
        let t = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!((t + Duration::from_millis(7)).since(t), Duration::from_millis(7));
        assert_eq!(t.since(t + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(Timestamp::ZERO - Duration::from_secs(1), Timestamp::ZERO);
        assert_eq!(Timestamp::from_micros(u64::MAX) + Duration::MAX, Timestamp::from_micros(u64::MAX));
        assert_eq!(t.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(Timestamp::from(t.to_system_time()), t);
        let last = Timestamp::from_micros(u64::MAX);
        assert_eq!(Timestamp::from(last.to_system_time()), last);
        assert_eq!(last.to_string(), "18446744073709551615 µs after 1970");
    }

    #[test]
    fn a_time_of_chrono_is_the_same_instant_in_every_zone() {
        use chrono::{DateTime, FixedOffset, Utc};

        let noon = DateTime::parse_from_rfc3339("2026-11-22T12:00:00.000001+09:00").unwrap();
        let instant = Timestamp::from_micros(1_795_316_400_000_001);
        assert_eq!(Timestamp::from(noon), instant);
        assert_eq!(Timestamp::from(noon.with_timezone(&Utc)), instant);
        assert_eq!(Timestamp::from(noon.with_timezone(&chrono_tz::Africa::Nairobi)), instant);
        let before: DateTime<FixedOffset> = DateTime::parse_from_rfc3339("1969-12-31T23:59:59Z").unwrap();
        assert_eq!(Timestamp::from(before), Timestamp::ZERO);
        assert_eq!(Timestamp::from(DateTime::<Utc>::MIN_UTC), Timestamp::ZERO);
        let last = DateTime::<Utc>::MAX_UTC;
        assert_eq!(Timestamp::from(last).as_millis(), u64::try_from(last.timestamp_millis()).unwrap());
    }

    #[cfg(feature = "jiff")]
    #[test]
    fn a_time_of_jiff_is_the_same_instant() {
        let noon: jiff::Timestamp = "2026-11-22T12:00:00.000001+09:00".parse().unwrap();
        let instant = Timestamp::from_micros(1_795_316_400_000_001);
        assert_eq!(Timestamp::from(noon), instant);
        let zoned = noon.to_zoned(jiff::tz::TimeZone::UTC);
        assert_eq!((Timestamp::from(&zoned), Timestamp::from(zoned)), (instant, instant));
        assert_eq!(Timestamp::from(jiff::Timestamp::MIN), Timestamp::ZERO);
        let last = Timestamp::from(jiff::Timestamp::MAX);
        assert_eq!(last.to_string(), "9999-12-30T22:00:00.999Z", "jiff's own last instant");
    }

    #[test]
    fn for_ever_is_in_the_range_of_every_clock() {
        let now = std::time::Instant::now();
        for wait in
            [FOR_EVER, FOR_EVER + Duration::from_nanos(1), Duration::from_millis(u64::MAX), Duration::MAX]
        {
            assert_eq!(deadline(now, wait), now + FOR_EVER);
            assert_eq!(deadline(tokio::time::Instant::from_std(now), wait).into_std(), now + FOR_EVER);
        }
        assert_eq!(deadline(now, Duration::ZERO), now);
    }

    #[test]
    fn a_jump_of_the_wall_clock_does_not_move_a_steady_one() {
        let (wall, began) = (Timestamp::from_millis(1_700_000_000_000), std::time::Instant::now());
        let clock = Steady::set(wall, began);
        let until = clock.at(began) + Duration::from_secs(3_600);
        // The system's clock is put forward by a year meanwhile, and the hour is still over in an hour.
        assert!(until > clock.at(began + Duration::from_secs(3_599)));
        assert_eq!(until, clock.at(began + Duration::from_secs(3_600)));
        assert_eq!(clock.at(began - Duration::from_secs(1)), wall, "it does not go back");
        assert!(clock.at(began) < clock.at(began) + Duration::MAX);
    }

    #[test]
    fn seconds_of_any_number() {
        assert_eq!(seconds(0.1), Some(Duration::from_micros(100_000)));
        for (number, expected) in [
            (-0.0, Duration::ZERO),
            (f64::MIN, Duration::ZERO),
            (f64::NEG_INFINITY, Duration::ZERO),
            (f64::INFINITY, Duration::MAX),
            (Duration::MAX.as_secs_f64(), Duration::MAX),
            (f64::MIN_POSITIVE, Duration::ZERO),
        ] {
            assert_eq!(seconds(number), Some(expected), "{number}");
        }
    }
}

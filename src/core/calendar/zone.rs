//! Time zones by their IANA names, and the local clock times in them.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};

use crate::core::Timestamp;

/// A time zone of the IANA database.
///
/// ```
/// use celeriac::core::calendar::Zone;
/// let zone: Zone = "Africa/Nairobi".parse().unwrap();
/// assert_eq!(zone.name(), "Africa/Nairobi");
/// assert_eq!(
///     "Asia/Calcuta".parse::<Zone>().unwrap_err().to_string(),
///     "there is no time zone `Asia/Calcuta`; did you mean `Asia/Calcutta`?"
/// );
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone(Tz);

/// The error of a name that is not in the IANA database.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone `{name}`; {advice}")]
pub struct UnknownZone {
    /// The name that was given.
    pub name: String,
    /// What the user should write instead.
    pub advice: String,
}

crate::core::debug_as_display!(UnknownZone);

/// When a clock shows a given local time. Instants are in seconds since 1970.
pub(super) enum Moment {
    /// The clock shows the time once, at this instant.
    Once(i64),
    /// The clock is put back and shows the time twice, first at this instant.
    Twice(i64),
    /// The clock is put forward over the time. The instant is the first second behind the gap.
    Skipped(i64),
}

impl Zone {
    /// Coordinated universal time, the default everywhere.
    pub const UTC: Self = Self(Tz::UTC);

    /// The IANA name of the zone.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// All zones of the IANA database, aliases included.
    pub fn all() -> impl Iterator<Item = Self> {
        TZ_VARIANTS.into_iter().map(Self)
    }

    /// An instant as a local clock shows it, with the offset: `2026-11-01 01:30:00 -05:00 (EST)`.
    pub fn display(self, time: Timestamp) -> String {
        match DateTime::from_timestamp(seconds(time), 0) {
            Some(utc) => utc.with_timezone(&self.0).format("%Y-%m-%d %H:%M:%S %:z (%Z)").to_string(),
            None => time.to_string(),
        }
    }

    /// The time in seconds by which local clocks are ahead of UTC at an instant.
    pub(super) fn offset(self, instant: i64) -> i64 {
        let utc = naive(instant);
        i64::from(self.0.offset_from_utc_datetime(&utc).fix().local_minus_utc())
    }

    /// The local time at an instant.
    pub(super) fn clock(self, instant: i64) -> NaiveDateTime {
        naive(instant + self.offset(instant))
    }

    /// The instant at which a clock shows a local time.
    pub(super) fn moment(self, clock: NaiveDateTime) -> Moment {
        match self.0.from_local_datetime(&clock) {
            LocalResult::Single(time) => Moment::Once(time.timestamp()),
            LocalResult::Ambiguous(first, _) => Moment::Twice(first.timestamp()),
            LocalResult::None => Moment::Skipped(self.after_gap(clock)),
        }
    }

    /// The first second at which the clock is past a local time that it skips.
    fn after_gap(self, clock: NaiveDateTime) -> i64 {
        const WIDEST: TimeDelta = TimeDelta::hours(36);
        let (mut before, mut past) =
            ((clock - WIDEST).and_utc().timestamp(), (clock + WIDEST).and_utc().timestamp());
        while past - before > 1 {
            let middle = before + (past - before) / 2;
            if self.clock(middle) < clock { before = middle } else { past = middle }
        }
        past
    }

    /// The first second in `(from, to]` whose offset differs from that of `from`. Two changes within an hour may
    /// count as none or as one.
    pub(super) fn change(self, from: i64, to: i64) -> Option<i64> {
        const STEP: i64 = 3600;
        let offset = self.offset(from);
        let mut before = from;
        while before < to {
            let mut past = (before + STEP).min(to);
            if self.offset(past) != offset {
                while past - before > 1 {
                    let middle = before + (past - before) / 2;
                    if self.offset(middle) == offset { before = middle } else { past = middle }
                }
                return Some(past);
            }
            before = past;
        }
        None
    }
}

/// Whole seconds since 1970, rounded down; at most the end of the year 9999.
pub(super) fn seconds(time: Timestamp) -> i64 {
    const LAST: i64 = 253_402_300_800; // 10000-01-01
    i64::try_from(time.as_micros() / 1_000_000).unwrap_or(LAST).min(LAST)
}

/// The instant a given number of seconds after 1970. Negative numbers give 1970.
pub(super) fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

fn naive(seconds: i64) -> NaiveDateTime {
    DateTime::from_timestamp(seconds, 0).unwrap_or_default().naive_utc()
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl FromStr for Zone {
    type Err = UnknownZone;

    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        if let Ok(zone) = name.parse() {
            return Ok(Self(zone));
        }
        let city = |name: &str| name.rsplit('/').next().unwrap_or(name).to_lowercase();
        let (wanted, wanted_city) = (name.to_lowercase().replace(' ', "_"), city(name).replace(' ', "_"));
        let nearest = TZ_VARIANTS
            .iter()
            .map(|zone| {
                let whole = strsim::jaro_winkler(&zone.name().to_lowercase(), &wanted);
                // A user who writes only the city means that city.
                let part = strsim::jaro_winkler(&city(zone.name()), &wanted_city);
                (whole.max(part), whole, zone.name())
            })
            .filter(|(score, ..)| *score > 0.85)
            .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let advice = nearest.map_or_else(
            || "write a name of the IANA database, such as \"UTC\" or \"Asia/Kolkata\"".to_owned(),
            |(_, _, name)| format!("did you mean `{name}`?"),
        );
        Err(UnknownZone { name: name.to_owned(), advice })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_zones_are_answered_with_the_nearest() {
        for (name, meant) in [
            ("Asia/Calcuta", "did you mean `Asia/Calcutta`?"),
            ("asia/kolkata", "did you mean `Asia/Kolkata`?"),
            ("Kolkata", "did you mean `Asia/Kolkata`?"),
            ("America/New York", "did you mean `America/New_York`?"),
            ("Europe/Berlim", "did you mean `Europe/Berlin`?"),
            ("Utc", "did you mean `UTC`?"),
            ("qqq", "write a name of the IANA database"),
            ("", "write a name of the IANA database"),
        ] {
            let error = name.parse::<Zone>().unwrap_err().to_string();
            assert!(error.contains(meant), "{name}: {error}");
        }
    }
}

//! Allowed hours: at which local times of which days of the week something may start.
//!
//! The hours are those that the clocks of a [`Zone`] show. So "09:00-21:00" begins at nine by the clock also on the days on
//! which the clocks are changed. Hours that the clocks skip do not come that day, and hours that they show twice are allowed
//! both times.

use std::fmt;
use std::time::Duration;

use chrono::{Datelike, Days, NaiveDateTime, Timelike};

use super::field::{CrontabField, FieldKind};
use super::zone::{Moment, Zone, seconds, timestamp};
use crate::core::Timestamp;

const MINUTES_OF_DAY: u16 = 24 * 60;
/// An allowed day comes within a week. Where its hours are skipped, which a zone does once in a year or in its life, it comes
/// a week later.
const SEARCHED_DAYS: u64 = 16;

/// The hours of the days of a week at which something may start.
///
/// ```
/// use celeriac::core::calendar::AllowedHours;
/// let hours = AllowedHours::new("09:00-21:00", Some("mon-fri")).unwrap();
/// assert_eq!(hours.to_string(), "09:00-21:00 mon-fri");
/// assert!(AllowedHours::new("21:00-09:00", None).is_ok(), "over midnight");
/// assert!(AllowedHours::new("9-21", None).is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AllowedHours {
    /// The first minute of the day that is allowed.
    from: u16,
    /// The first minute of the day that is not allowed any more, up to 24:00. It is before `from` if the hours go over
    /// midnight.
    to: u16,
    /// The days on which the hours begin.
    days: CrontabField,
}

/// Why a text does not name hours. Each message says what to write instead.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HoursError {
    /// The text is not two times of day.
    #[error("write two times of a day, such as \"09:00-21:00\", or \"22:00-06:00\" over midnight")]
    NoHours,
    /// The hours end when they begin.
    #[error("these hours are empty, so nothing would ever start; write \"00:00-24:00\" for the whole day")]
    Empty,
    /// The days of the week cannot be read.
    #[error("{fault}; write days such as \"mon-fri\" or \"sat,sun\"")]
    Days {
        /// What is wrong with them.
        fault: String,
    },
}

crate::core::debug_as_display!(HoursError);

impl AllowedHours {
    /// Reads hours such as `09:00-21:00`, and the days of the week on which they begin, in the grammar of a crontab's
    /// `day_of_week`: `mon-fri`, `sat,sun`, `1-5`. Without days they hold on all of them.
    ///
    /// # Errors
    /// A text cannot be read, or the hours are empty.
    pub fn new(hours: &str, days: Option<&str>) -> Result<Self, HoursError> {
        let (from, to) = hours.split_once('-').ok_or(HoursError::NoHours)?;
        let (from, to) = (minute_of_day(from)?, minute_of_day(to)?);
        if from == to {
            return Err(HoursError::Empty);
        }
        if from == MINUTES_OF_DAY {
            return Err(HoursError::NoHours);
        }
        let days = CrontabField::parse(FieldKind::DayOfWeek, days.unwrap_or("*"))
            .map_err(|error| HoursError::Days { fault: error.to_string() })?;
        Ok(Self { from, to, days })
    }

    /// Whether these are allowed hours by the clocks of a zone.
    pub fn is_open(&self, zone: Zone, now: Timestamp) -> bool {
        self.has(zone.clock(seconds(now)))
    }

    /// How long until the hours begin by the clocks of a zone. `None`: it is one of them now. After clocks were put back
    /// the hours may begin earlier than that, because the clocks show them once more.
    pub fn opens_in(&self, zone: Zone, now: Timestamp) -> Option<Duration> {
        let second = seconds(now);
        let clock = zone.clock(second);
        if self.has(clock) {
            return None;
        }
        let openings = (0..SEARCHED_DAYS).filter_map(|ahead| {
            let day = clock.date().checked_add_days(Days::new(ahead))?;
            let opening = day.and_hms_opt(u32::from(self.from) / 60, u32::from(self.from) % 60, 0)?;
            let (Moment::Once(at) | Moment::Twice(at) | Moment::Skipped(at)) = zone.moment(opening);
            // Behind a gap it may be too late for hours that are short.
            (at > second && self.has(zone.clock(at))).then_some(at)
        });
        let first = openings.min();
        Some(first.map_or(Duration::from_secs(24 * 60 * 60), |at| timestamp(at).since(now)))
    }

    fn has(&self, clock: NaiveDateTime) -> bool {
        let minute = clock.hour() * 60 + clock.minute();
        let (from, to) = (u32::from(self.from), u32::from(self.to));
        let today = clock.weekday().num_days_from_sunday();
        let begins_on = |day: u32| self.days.numbers().any(|number| u32::from(number) == day);
        if from < to {
            (from..to).contains(&minute) && begins_on(today)
        } else {
            (minute >= from && begins_on(today)) || (minute < to && begins_on((today + 6) % 7))
        }
    }
}

/// Reads `09:30` as the minute of the day; `24:00` is its end.
fn minute_of_day(text: &str) -> Result<u16, HoursError> {
    let (hour, minute) = text.trim().split_once(':').ok_or(HoursError::NoHours)?;
    let number = |text: &str| match text.len() {
        1 | 2 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u16>().ok(),
        _ => None,
    };
    let minutes = match (number(hour), number(minute)) {
        (Some(hour), Some(minute)) if minute < 60 => hour * 60 + minute,
        _ => return Err(HoursError::NoHours),
    };
    if minutes <= MINUTES_OF_DAY { Ok(minutes) } else { Err(HoursError::NoHours) }
}

impl fmt::Display for AllowedHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from, self.to);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)?;
        if self.days.is_all() { Ok(()) } else { write!(f, " {}", self.days) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        crate::core::instant::read(text).expect("a time").time
    }

    fn zone(name: &str) -> Zone {
        name.parse().expect("a zone")
    }

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    #[test]
    fn hours_hold_on_their_days_and_over_midnight() {
        let office = AllowedHours::new("09:00-17:30", Some("mon-fri")).unwrap();
        // 2026-11-30 is a Monday.
        for (time, opens) in [
            ("2026-11-30T08:59:00Z", Some(minutes(1))),
            ("2026-11-30T09:00:00Z", None),
            ("2026-11-30T17:29:59Z", None),
            ("2026-11-30T17:30:00Z", Some(minutes(15 * 60 + 30))),
            ("2026-12-04T18:00:00Z", Some(minutes(63 * 60))),
        ] {
            assert_eq!(office.opens_in(Zone::UTC, at(time)), opens, "{time}");
        }
        let night = AllowedHours::new("22:00-06:00", Some("fri")).unwrap();
        for (time, opens) in [
            ("2026-12-04T21:00:00Z", Some(minutes(60))),
            ("2026-12-04T23:00:00Z", None),
            ("2026-12-05T05:59:00Z", None),
            ("2026-12-05T06:00:00Z", Some(minutes((6 * 24 + 16) * 60))),
            ("2026-12-04T05:00:00Z", Some(minutes(17 * 60))),
        ] {
            assert_eq!(night.opens_in(Zone::UTC, at(time)), opens, "{time}");
        }
    }

    #[test]
    fn hours_are_those_of_the_clock_when_it_is_changed() {
        let berlin = zone("Europe/Berlin");
        let morning = AllowedHours::new("09:00-21:00", None).unwrap();
        // The night has 23 hours in spring and 25 in autumn.
        assert_eq!(morning.opens_in(berlin, at("2026-03-28T21:00:00+01:00")), Some(minutes(11 * 60)));
        assert_eq!(morning.opens_in(berlin, at("2026-10-24T21:00:00+02:00")), Some(minutes(13 * 60)));
        // Hours that begin in the gap begin behind it; hours that are all within it do not come that day.
        let early = AllowedHours::new("02:30-04:00", None).unwrap();
        assert_eq!(early.opens_in(berlin, at("2026-03-29T01:00:00+01:00")), Some(minutes(60)));
        let skipped = AllowedHours::new("02:10-02:50", None).unwrap();
        assert_eq!(skipped.opens_in(berlin, at("2026-03-29T01:00:00+01:00")), Some(minutes(24 * 60 + 10)));
        // Hours that the clock shows twice are allowed twice.
        for offset in ["+02:00", "+01:00"] {
            assert!(skipped.is_open(berlin, at(&format!("2026-10-25T02:30:00{offset}"))));
        }
    }

    #[test]
    fn what_is_no_hours_is_refused() {
        for text in
            ["", "9", "9-17", "09:00", "09:60-10:00", "25:00-26:00", "24:00-06:00", "009:00-10:00", "a:b-c:d"]
        {
            assert_eq!(AllowedHours::new(text, None), Err(HoursError::NoHours), "{text}");
        }
        assert_eq!(AllowedHours::new("09:00-09:00", None), Err(HoursError::Empty));
        let error = AllowedHours::new("9:00-17:00", Some("mon-fry,")).unwrap_err().to_string();
        assert!(error.contains("write days such as \"mon-fri\""), "{error}");
        assert_eq!(AllowedHours::new("0:00-24:00", Some("*")).unwrap().to_string(), "00:00-24:00");
    }

    proptest! {
        /// Whatever the hours, the zone and the time: when the wait is over they have begun.
        #[test]
        fn hours_have_begun_when_the_wait_is_over(
            from in 0u16..1_440,
            length in 1u16..1_440,
            days in 1u8..128,
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "America/Havana",
                "Australia/Lord_Howe", "America/St_Johns",
            ]),
            // From 2006 to 2030, with the changes of all these zones.
            second in 1_136_073_600u64..1_893_456_000,
        ) {
            let to = (from + length) % 1_440;
            let text = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
            let days: Vec<String> = (0..7).filter(|day| days & (1 << day) != 0).map(|day| day.to_string()).collect();
            let hours = AllowedHours::new(&format!("{}-{}", text(from), text(to)), Some(&days.join(","))).unwrap();
            let (zone, now) = (zone.parse::<Zone>().unwrap(), Timestamp::from_millis(second * 1_000));
            match hours.opens_in(zone, now) {
                None => prop_assert!(hours.is_open(zone, now)),
                Some(wait) => {
                    prop_assert!(!hours.is_open(zone, now) && !wait.is_zero());
                    prop_assert!(wait <= Duration::from_secs(16 * 86_400));
                    prop_assert!(hours.is_open(zone, now + wait), "{} after {:?}", hours, wait);
                }
            }
        }
    }
}

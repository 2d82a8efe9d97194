//! Celery's crontab: five fields, all of which must match, and the clock times that they let through.
//!
//! The `cron` crate finds the times. Its grammar is another one (seconds first, Sunday is 1, no ranges over the end),
//! so this file reads the crontab and gives `cron` plain lists. Its rule for changes of the clock is fixed (a skipped
//! time gives nothing, a repeated time gives two), so `cron` only sees a calendar without zones, and
//! [`super::schedule`] decides what a skipped or repeated clock time means. Its calendar ends with the year 2100.
//! Ours ends with the year 9999, as Python's does: a later year has the same days as some year that `cron` knows, and
//! is looked up there.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, Utc};

use super::field::{CrontabField, FieldKind};

/// Why a text is not a valid crontab. Each message says what to write instead.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrontabError {
    /// The text does not have five fields.
    #[error(
        "`{text}` has {found} fields; a crontab has five: minute, hour, day of month, month of year, day of week (0 is Sunday)"
    )]
    Fields {
        /// The crontab as it was written.
        text: String,
        /// How many fields the text has.
        found: usize,
    },
    /// One of the five fields cannot be read.
    #[error("{field} = \"{text}\": {fault}")]
    Field {
        /// The name of the field, as Celery has it.
        field: &'static str,
        /// The field as it was written.
        text: String,
        /// What is wrong with the field, and what to write instead.
        fault: String,
    },
    /// None of the months has any of the days, such as February 30.
    #[error(
        "day_of_month = \"{day_of_month}\" with month_of_year = \"{month_of_year}\" is no date of any year; change one of them"
    )]
    Impossible {
        /// The field for days of the month, as it was written.
        day_of_month: String,
        /// The field for months, as it was written.
        month_of_year: String,
    },
    /// A coarse field is named and a finer one is left out, so that the entry would run every minute of that hour or
    /// day.
    #[error(
        "{coarse} is named and {fine} is not, so it would run {often}; write {fine} = 0, or {fine} = \"*\" if that is meant"
    )]
    Unnamed {
        /// The coarse field that is named.
        coarse: &'static str,
        /// The finer field that is left out.
        fine: &'static str,
        /// How often the entry would run.
        often: &'static str,
    },
}

crate::core::debug_as_display!(CrontabError);

/// The five fields as a program or a file names them. A field that is not named is `*`, as in Celery.
///
/// ```
/// use celeriac::core::calendar::Fields;
/// let mut fields = Fields::default();
/// fields.hour = Some("8-17".into());
/// assert_eq!(
///     fields.crontab().unwrap_err().to_string(),
///     "hour is named and minute is not, so it would run every minute of that hour; write minute = 0, or minute = \"*\" if that is meant"
/// );
/// fields.minute = Some("0".into());
/// assert_eq!(fields.crontab().unwrap().to_string(), "0 8-17 * * *");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// The minutes of the hour, 0 to 59.
    pub minute: Option<String>,
    /// The hours of the day, 0 to 23.
    pub hour: Option<String>,
    /// The days of the week, 0 (Sunday) to 6, or their names.
    pub day_of_week: Option<String>,
    /// The days of the month, 1 to 31.
    pub day_of_month: Option<String>,
    /// The months of the year, 1 to 12, or their names.
    pub month_of_year: Option<String>,
}

impl Fields {
    /// Checks the fields and makes a crontab of them.
    ///
    /// # Errors
    /// A field cannot be read, a coarse field is named without the finer ones (see [`CrontabError::Unnamed`]), or no
    /// date matches.
    pub fn crontab(&self) -> Result<Crontab, CrontabError> {
        let day = [
            ("day_of_month", &self.day_of_month),
            ("month_of_year", &self.month_of_year),
            ("day_of_week", &self.day_of_week),
        ];
        let day = day.into_iter().find(|(_, field)| field.is_some()).map(|(name, _)| name);
        match (&self.minute, &self.hour, day) {
            (None, Some(_), _) => {
                let often = "every minute of that hour";
                return Err(CrontabError::Unnamed { coarse: "hour", fine: "minute", often });
            }
            (None, None, Some(coarse)) => {
                let often = "every minute of that day";
                return Err(CrontabError::Unnamed { coarse, fine: "minute", often });
            }
            (Some(_), None, Some(coarse)) => {
                let often = "every hour of that day";
                return Err(CrontabError::Unnamed { coarse, fine: "hour", often });
            }
            _ => {}
        }
        let text = |field: &Option<String>| field.clone().unwrap_or_else(|| "*".to_owned());
        Crontab::new([
            &text(&self.minute),
            &text(&self.hour),
            &text(&self.day_of_month),
            &text(&self.month_of_year),
            &text(&self.day_of_week),
        ])
    }
}

/// A valid crontab: the clock times at which an entry fires, in no particular zone.
///
/// ```
/// use celeriac::core::calendar::Crontab;
/// let weekdays: Crontab = "30 8 * * mon-fri".parse().unwrap();
/// assert_eq!(weekdays.to_string(), "30 8 * * mon-fri");
/// assert!("0 0 30 feb *".parse::<Crontab>().is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Crontab {
    minute: CrontabField,
    hour: CrontabField,
    day_of_month: CrontabField,
    month_of_year: CrontabField,
    day_of_week: CrontabField,
    times: cron::Schedule,
}

/// A warning about a crontab that is valid and probably does not mean what it says.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lint {
    /// A coarse field is named, and a finer field is `*`.
    #[error(
        "runs {often}, because {fine} is \"*\"; write {fine} = 0 if {coarse} = \"{value}\" was to run once"
    )]
    FineIsStar {
        /// The coarse field that is named.
        coarse: &'static str,
        /// The value of the coarse field, as it was written.
        value: String,
        /// The finer field that is `*`.
        fine: &'static str,
        /// How often the entry runs.
        often: &'static str,
    },
    /// The crontab restricts day of month and day of week. Both must match, unlike in cron.
    #[error(
        "day_of_month = \"{day_of_month}\" and day_of_week = \"{day_of_week}\" must both match, as in Celery and unlike in cron, where one of them is enough"
    )]
    BothDays {
        /// The field for days of the month, as it was written.
        day_of_month: String,
        /// The field for days of the week, as it was written.
        day_of_week: String,
    },
    /// The crontab names a day that some of its months do not have.
    #[error("day_of_month = \"{day_of_month}\" leaves out the months that are shorter")]
    ShortMonths {
        /// The field for days of the month, as it was written.
        day_of_month: String,
    },
}

crate::core::debug_as_display!(Lint);

/// The number of days of each month in a leap year.
const DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

impl Crontab {
    /// Makes a crontab of the five fields, in the order in which a crontab writes them.
    fn new(
        [minute, hour, day_of_month, month_of_year, day_of_week]: [&str; 5],
    ) -> Result<Self, CrontabError> {
        let minute = CrontabField::parse(FieldKind::Minute, minute)?;
        let hour = CrontabField::parse(FieldKind::Hour, hour)?;
        let day_of_month = CrontabField::parse(FieldKind::DayOfMonth, day_of_month)?;
        let month_of_year = CrontabField::parse(FieldKind::MonthOfYear, month_of_year)?;
        let day_of_week = CrontabField::parse(FieldKind::DayOfWeek, day_of_week)?;
        let first = day_of_month.numbers().next().unwrap_or(u8::MAX);
        if !month_of_year.numbers().any(|month| first <= DAYS[usize::from(month) - 1]) {
            return Err(CrontabError::Impossible {
                day_of_month: day_of_month.to_string(),
                month_of_year: month_of_year.to_string(),
            });
        }
        let [m, h, dom, moy, dow] =
            [&minute, &hour, &day_of_month, &month_of_year, &day_of_week].map(CrontabField::for_cron);
        let text = format!("0 {m} {h} {dom} {moy} {dow}");
        let times = cron::Schedule::from_str(&text).map_err(|error| CrontabError::Field {
            field: "crontab",
            text,
            fault: format!("{error}; this is a fault of Celeriac, please report it"),
        })?;
        Ok(Self { minute, hour, day_of_month, month_of_year, day_of_week, times })
    }

    /// The first clock time after `time`; `None` when no time matches before the year 10000.
    pub(super) fn time_after(&self, time: NaiveDateTime) -> Option<NaiveDateTime> {
        const LAST_YEAR: i32 = 9999;
        // Before the last year of `cron`'s calendar, `cron` finds the answer by itself.
        if time.year() < LATE
            && let Some(found) = self.cron_after(time)
        {
            return Some(found);
        }
        // From here on the search goes year by year, each in the place of a year with the same days. Any day, month
        // and weekday that a date can have come together within forty years, so the loop ends soon.
        let mut from = if time.year() < LATE { last_second_before(LATE)? } else { time };
        let mut year = if time.year() < LATE { LATE } else { time.year() };
        while year <= LAST_YEAR {
            let twin = twin_of(year);
            let beginning =
                if from.year() == year { from.with_year(twin)? } else { last_second_before(twin)? };
            if let Some(found) = self.cron_after(beginning).filter(|found| found.year() == twin) {
                return found.with_year(year);
            }
            year += 1;
            from = last_second_before(year)?;
        }
        None
    }

    /// The first clock time after `time` that the `cron` crate finds.
    fn cron_after(&self, time: NaiveDateTime) -> Option<NaiveDateTime> {
        let time = DateTime::<Utc>::from_naive_utc_and_offset(time, Utc);
        self.times.after(&time).next().map(|time| time.naive_utc())
    }

    /// Whether the crontab matches in every hour, which makes it a matter of minutes and not of times of day.
    pub(super) fn is_every_hour(&self) -> bool {
        self.hour.is_all()
    }

    /// The fields, in the order in which a crontab writes them.
    pub(super) fn fields(&self) -> [&CrontabField; 5] {
        let Self { minute, hour, day_of_month, month_of_year, day_of_week, .. } = self;
        [minute, hour, day_of_month, month_of_year, day_of_week]
    }

    /// The hour and the minute, if the crontab has only one time of day.
    pub fn time_of_day(&self) -> Option<(u8, u8)> {
        Some((self.hour.only()?, self.minute.only()?))
    }

    /// The warnings about this crontab, in no particular order.
    pub fn lints(&self) -> Vec<Lint> {
        let coarse = [
            ("hour", &self.hour, "every minute of that hour"),
            ("day_of_month", &self.day_of_month, "every minute of that day"),
            ("month_of_year", &self.month_of_year, "every minute of that month"),
            ("day_of_week", &self.day_of_week, "every minute of that day"),
        ];
        let named = coarse.into_iter().find(|(_, field, _)| !field.is_all());
        let star = match named {
            Some((coarse, field, often)) if self.minute.is_star() => {
                // If an hour is given too, the entry still runs only in the minutes of that hour.
                Some(Lint::FineIsStar { coarse, value: field.to_string(), fine: "minute", often })
            }
            Some((coarse, field, _)) if self.hour.is_star() => Some(Lint::FineIsStar {
                coarse,
                value: field.to_string(),
                fine: "hour",
                often: "every hour of that day",
            }),
            _ => None,
        };
        let both = (!self.day_of_month.is_all() && !self.day_of_week.is_all()).then(|| Lint::BothDays {
            day_of_month: self.day_of_month.to_string(),
            day_of_week: self.day_of_week.to_string(),
        });
        let first = self.day_of_month.numbers().next().unwrap_or(1);
        let is_short = |month: u8| first > DAYS[usize::from(month) - 1] || (first > 28 && month == 2);
        let short = self
            .month_of_year
            .numbers()
            .any(is_short)
            .then(|| Lint::ShortMonths { day_of_month: self.day_of_month.to_string() });
        [star, both, short].into_iter().flatten().collect()
    }
}

impl FromStr for Crontab {
    type Err = CrontabError;

    /// Reads `minute hour day_of_month month_of_year day_of_week`, as Celery's `crontab.from_string`.
    fn from_str(text: &str) -> Result<Self, CrontabError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        match <[&str; 5]>::try_from(fields) {
            Ok(fields) => Self::new(fields),
            Err(fields) => Err(CrontabError::Fields { text: text.to_owned(), found: fields.len() }),
        }
    }
}

impl fmt::Display for Crontab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { minute, hour, day_of_month, month_of_year, day_of_week, .. } = self;
        write!(f, "{minute} {hour} {day_of_month} {month_of_year} {day_of_week}")
    }
}

/// Two crontabs are equal if they match the same times, however they are written.
impl PartialEq for Crontab {
    fn eq(&self, other: &Self) -> bool {
        self.fields() == other.fields()
    }
}

impl Eq for Crontab {}

/// The first year that is looked up under its twin. The calendar of `cron` ends with the year 2100.
const LATE: i32 = 2100;

/// A year of `cron`'s calendar that has the same days as `year`: it begins on the same day of the week, and is a leap
/// year if `year` is one. The years 2000 to 2027 include all fourteen kinds of years.
fn twin_of(year: i32) -> i32 {
    let kind = |year: i32| {
        let first = NaiveDate::from_ymd_opt(year, 1, 1).map(|date| date.weekday());
        (first, NaiveDate::from_ymd_opt(year, 2, 29).is_some())
    };
    (2000..2028).find(|twin| kind(*twin) == kind(year)).unwrap_or(2000)
}

/// The last second of the year before `year`.
fn last_second_before(year: i32) -> Option<NaiveDateTime> {
    NaiveDate::from_ymd_opt(year, 1, 1)?.and_hms_opt(0, 0, 0)?.checked_sub_signed(TimeDelta::seconds(1))
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    fn lints(text: &str) -> Vec<String> {
        text.parse::<Crontab>().unwrap().lints().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_fields_must_match() {
        let crontab: Crontab = "0 0 13 * fri".parse().unwrap();
        let mut time = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap().and_hms_opt(0, 0, 0).unwrap();
        let mut found = Vec::new();
        for _ in 0..3 {
            time = crontab.time_after(time).unwrap();
            found.push(time.date().to_string());
        }
        assert_eq!(found, ["2026-02-13", "2026-03-13", "2026-11-13"]);
    }

    #[test]
    fn the_calendar_goes_on_to_the_year_9999() {
        let after = |text: &str, year: i32| {
            let time = NaiveDate::from_ymd_opt(year, 12, 31).unwrap().and_hms_opt(23, 59, 59).unwrap();
            text.parse::<Crontab>().unwrap().time_after(time).map(|time| time.to_string())
        };
        assert_eq!(after("0 0 * * *", 2099).as_deref(), Some("2100-01-01 00:00:00"));
        assert_eq!(after("0 0 * * *", 2100).as_deref(), Some("2101-01-01 00:00:00"));
        // 2100 is no leap year, so eight years pass until the next February 29; a February 29 that is a Monday is
        // forty years away.
        assert_eq!(after("0 0 29 2 *", 2096).as_deref(), Some("2104-02-29 00:00:00"));
        assert_eq!(after("0 0 29 2 mon", 2072).as_deref(), Some("2112-02-29 00:00:00"));
        assert_eq!(after("59 23 31 12 *", 9998).as_deref(), Some("9999-12-31 23:59:00"));
        assert_eq!(after("* * * * *", 9999), None);
    }

    #[test]
    fn fields_may_have_blanks_and_what_is_written_reads_back() {
        let fields = Fields { minute: Some("0, 30".into()), hour: Some(" 4, 5".into()), ..Fields::default() };
        let crontab = fields.crontab().unwrap();
        assert_eq!(crontab.to_string(), "0,30 4,5 * * *");
        assert_eq!(crontab.to_string().parse::<Crontab>().unwrap(), crontab);
    }

    #[test]
    fn what_is_no_crontab() {
        for (text, what) in [
            ("0 0 30 2 *", "day_of_month = \"30\" with month_of_year = \"2\" is no date of any year"),
            ("0 0 31 feb,apr,jun,sep,nov *", "is no date of any year"),
            ("0 0 * *", "`0 0 * *` has 4 fields; a crontab has five"),
            ("", "`` has 0 fields"),
            ("@daily", "`@daily` has 1 fields"),
            ("0 24 * * *", "hour = \"24\": 24 is out of range"),
            ("0 0 * * 7", "day_of_week = \"7\": 7 is no day of the week; Sunday is 0"),
        ] {
            let error = text.parse::<Crontab>().unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
        assert!("0 0 29 2 *".parse::<Crontab>().is_ok());
    }

    #[test]
    fn hqs_saturday_is_not_to_happen_again() {
        // HQ's `crontab(day_of_week=6)` ran every minute of every Saturday.
        let fields = Fields { day_of_week: Some("6".into()), ..Fields::default() };
        let error = fields.crontab().unwrap_err().to_string();
        assert!(
            error.starts_with("day_of_week is named and minute is not, so it would run every minute"),
            "{error}"
        );
        assert_eq!(
            lints("* * * * 6"),
            [
                "runs every minute of that day, because minute is \"*\"; write minute = 0 if day_of_week = \"6\" was to run once"
            ]
        );
        assert!(lints("* 8 * * *")[0].starts_with("runs every minute of that hour"));
        assert!(lints("0 * 1 * *")[0].starts_with("runs every hour of that day, because hour is \"*\""));
        assert!(lints("0 0 13 * 5")[0].contains("must both match"));
        assert!(lints("0 0 31 * *")[0].contains("leaves out the months that are shorter"));
        assert!(lints("0 0 29 2 *")[0].contains("leaves out the months"), "three years of four");
        for fine in
            ["* * * * *", "*/15 * * * *", "0 0 * * *", "0 0 1 * *", "0-59 8 * * *", "30 8 * * mon-fri"]
        {
            assert_eq!(lints(fine), Vec::<String>::new(), "{fine}");
        }
    }
}

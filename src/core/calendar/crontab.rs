//! Celery's crontab: five fields, all of which must match, and the clock times that they let through.
//!
//! The `cron` crate finds the times. It has another grammar (seconds first, Sunday is 1, no ranges over the end), so a
//! crontab is read here and handed to it as plain lists; and it knows two of a kind at each change of the clock (a time
//! that is skipped gives nothing, a repeated one gives two), so it only ever sees a calendar without zones, and what
//! becomes of a clock time is for [`super::schedule`] to say. Its calendar ends with the year 2100, and so does ours.

use std::fmt;
use std::str::FromStr;

use chrono::{NaiveDateTime, TimeZone, Utc};

use super::field::{Field, Kind};

/// Why a crontab is none. The text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrontabError {
    /// Not five fields.
    #[error(
        "`{text}` has {found} fields; a crontab has five: minute, hour, day of month, month of year, day of week (0 is Sunday)"
    )]
    Fields {
        /// The crontab.
        text: String,
        /// How many there are.
        found: usize,
    },
    /// A field that cannot be read.
    #[error("{field} = \"{text}\": {fault}")]
    Field {
        /// Celery's name of the field.
        field: &'static str,
        /// The field.
        text: String,
        /// What is wrong and what to do.
        fault: String,
    },
    /// A day that no month of it has, such as February 30.
    #[error(
        "day_of_month = \"{day_of_month}\" with month_of_year = \"{month_of_year}\" is no date of any year; change one of them"
    )]
    Impossible {
        /// The days.
        day_of_month: String,
        /// The months.
        month_of_year: String,
    },
    /// A coarse field is named and a finer one is not, so that it would run each minute of that hour or day.
    #[error(
        "{coarse} is named and {fine} is not, so it would run {often}; write {fine} = 0, or {fine} = \"*\" if that is meant"
    )]
    Unnamed {
        /// The field that is named.
        coarse: &'static str,
        /// The one that is not.
        fine: &'static str,
        /// How often it would run.
        often: &'static str,
    },
}

/// The five fields as a program or a file names them; what is not named is `*`, as in Celery.
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
    /// 0 to 59.
    pub minute: Option<String>,
    /// 0 to 23.
    pub hour: Option<String>,
    /// 0 (Sunday) to 6, or names.
    pub day_of_week: Option<String>,
    /// 1 to 31.
    pub day_of_month: Option<String>,
    /// 1 to 12, or names.
    pub month_of_year: Option<String>,
}

impl Fields {
    /// The crontab of these fields.
    ///
    /// # Errors
    /// A field cannot be read, or a coarse one is named without the finer ones (see [`CrontabError::Unnamed`]), or no
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

/// A crontab: when a clock on the wall shows one of its times.
///
/// ```
/// use celeriac::core::calendar::Crontab;
/// let weekdays: Crontab = "30 8 * * mon-fri".parse().unwrap();
/// assert_eq!(weekdays.to_string(), "30 8 * * mon-fri");
/// assert!("0 0 30 feb *".parse::<Crontab>().is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Crontab {
    minute: Field,
    hour: Field,
    day_of_month: Field,
    month_of_year: Field,
    day_of_week: Field,
    times: cron::Schedule,
}

/// What a crontab may say and probably does not mean.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lint {
    /// A coarse field is named, and a finer one is `*`.
    #[error(
        "runs {often}, because {fine} is \"*\"; write {fine} = 0 if {coarse} = \"{value}\" was to run once"
    )]
    FineIsStar {
        /// The field that is named.
        coarse: &'static str,
        /// What it says.
        value: String,
        /// The one that is `*`.
        fine: &'static str,
        /// How often it runs.
        often: &'static str,
    },
    /// Day of month and day of week must both match, unlike in cron.
    #[error(
        "day_of_month = \"{day_of_month}\" and day_of_week = \"{day_of_week}\" must both match, as in Celery and unlike in cron, where one of them is enough"
    )]
    BothDays {
        /// The days of the month.
        day_of_month: String,
        /// The days of the week.
        day_of_week: String,
    },
    /// Days that only some months have.
    #[error("day_of_month = \"{day_of_month}\" leaves out the months that are shorter")]
    ShortMonths {
        /// The days.
        day_of_month: String,
    },
}

/// The most days that a month has.
const DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

impl Crontab {
    /// Of the five fields in a crontab's order.
    fn new(
        [minute, hour, day_of_month, month_of_year, day_of_week]: [&str; 5],
    ) -> Result<Self, CrontabError> {
        let minute = Field::parse(Kind::Minute, minute)?;
        let hour = Field::parse(Kind::Hour, hour)?;
        let day_of_month = Field::parse(Kind::DayOfMonth, day_of_month)?;
        let month_of_year = Field::parse(Kind::MonthOfYear, month_of_year)?;
        let day_of_week = Field::parse(Kind::DayOfWeek, day_of_week)?;
        let first = day_of_month.numbers().next().unwrap_or(u8::MAX);
        if !month_of_year.numbers().any(|month| first <= DAYS[usize::from(month) - 1]) {
            return Err(CrontabError::Impossible {
                day_of_month: day_of_month.to_string(),
                month_of_year: month_of_year.to_string(),
            });
        }
        let [m, h, dom, moy, dow] =
            [&minute, &hour, &day_of_month, &month_of_year, &day_of_week].map(Field::for_cron);
        let text = format!("0 {m} {h} {dom} {moy} {dow}");
        let times = cron::Schedule::from_str(&text).map_err(|error| CrontabError::Field {
            field: "crontab",
            text,
            fault: format!("{error}; this is a fault of Celeriac, please report it"),
        })?;
        Ok(Self { minute, hour, day_of_month, month_of_year, day_of_week, times })
    }

    /// The first clock time after this one.
    pub(super) fn time_after(&self, time: NaiveDateTime) -> Option<NaiveDateTime> {
        self.times.after(&Utc.from_utc_datetime(&time)).next().map(|time| time.naive_utc())
    }

    /// Whether it lets every hour through, so that it is about minutes and not about times of day.
    pub(super) fn is_every_hour(&self) -> bool {
        self.hour.is_all()
    }

    /// Hour and minute, if there is but one time of day.
    pub fn time_of_day(&self) -> Option<(u8, u8)> {
        Some((self.hour.only()?, self.minute.only()?))
    }

    /// What is probably not meant.
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
                // With an hour given, it is every minute of that hour and of no other.
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

impl PartialEq for Crontab {
    fn eq(&self, other: &Self) -> bool {
        let fields = |c: &Self| {
            [&c.minute, &c.hour, &c.day_of_month, &c.month_of_year, &c.day_of_week].map(Field::for_cron)
        };
        fields(self) == fields(other)
    }
}

impl Eq for Crontab {}

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

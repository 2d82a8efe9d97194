//! Schedules in words, for people who do not read crontabs.
//!
//! Invariant: the words say exactly what the fields let through; where no short phrase does, the numbers are listed.

use std::time::Duration;

use super::field::CrontabField;
use super::{Crontab, Schedule};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const UNITS: [(u64, &str); 4] = [(24 * 3600, "day"), (3600, "hour"), (60, "minute"), (1, "second")];

/// The most times of day that are written one by one.
const MOST_TIMES: usize = 4;

impl Schedule {
    /// The schedule in words.
    ///
    /// ```
    /// use celeriac::core::calendar::{Schedule, Zone};
    /// let weekdays = Schedule::crontab("30 8 * * mon-fri".parse().unwrap(), "Africa/Nairobi".parse().unwrap());
    /// assert_eq!(weekdays.in_words(), "at 08:30 on Monday to Friday (Africa/Nairobi)");
    /// let often = Schedule::crontab("*/15 * * * *".parse().unwrap(), Zone::UTC);
    /// assert_eq!(often.in_words(), "every 15 minutes (UTC)");
    /// ```
    pub fn in_words(&self) -> String {
        match self {
            Self::Crontab { crontab, zone } => format!("{} ({zone})", of_crontab(crontab)),
            Self::Every(interval) => of_interval(*interval),
        }
    }
}

fn of_interval(interval: Duration) -> String {
    let interval = interval.max(Duration::from_millis(1));
    let seconds = interval.as_secs();
    if interval.subsec_nanos() > 0 {
        return format!("every {} ms", interval.as_millis());
    }
    let unit = UNITS.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "second"));
    match seconds / unit {
        1 => format!("every {name}"),
        count => format!("every {count} {name}s"),
    }
}

fn of_crontab(crontab: &Crontab) -> String {
    let [minute, hour, day_of_month, month_of_year, day_of_week] = crontab.fields();
    let (mut words, is_of_a_day) = times(minute, hour);
    let weekdays = || list(day_of_week, &|day| DAYS[usize::from(day) % 7].to_owned());
    match (day_of_month.is_all(), day_of_week.is_all()) {
        (true, true) if is_of_a_day => words += " every day",
        (true, true) => {}
        (true, false) => words += &format!(" on {}", weekdays()),
        (false, named) => {
            let day = if day_of_month.only().is_some() { "day" } else { "the days" };
            words += &format!(" on {day} {}", list(day_of_month, &|day| day.to_string()));
            if !named {
                words += &format!(", if that is a {}", weekdays());
            }
        }
    }
    if !month_of_year.is_all() {
        let months =
            list(month_of_year, &|month| MONTHS[usize::from(month).saturating_sub(1) % 12].to_owned());
        words += &format!(" in {months}");
    }
    words
}

/// The times of a day, and whether they are so few that each is a time of day.
fn times(minute: &CrontabField, hour: &CrontabField) -> (String, bool) {
    let (minutes, hours): (Vec<u8>, Vec<u8>) = (minute.numbers().collect(), hour.numbers().collect());
    let plain = |field: &CrontabField| list(field, &|number| number.to_string());
    let of_hours = || match hour.only() {
        Some(hour) => format!("the hour {hour}"),
        None => format!("the hours {}", plain(hour)),
    };
    let words = match (minute.only(), step(&minutes, 60), step(&hours, 24)) {
        _ if minute.is_all() && hour.is_all() => "every minute".to_owned(),
        _ if minute.is_all() => format!("every minute of {}", of_hours()),
        (Some(0), ..) if hour.is_all() => "every hour, on the hour".to_owned(),
        (Some(minute), ..) if hour.is_all() => format!("every hour, at minute {minute}"),
        (None, Some(step), _) if hour.is_all() => format!("every {step} minutes"),
        _ if hour.is_all() => format!("every hour, at the minutes {}", plain(minute)),
        _ if minutes.len() * hours.len() <= MOST_TIMES => {
            let clock = |hour: &u8| -> Vec<String> {
                minutes.iter().map(|minute| format!("{hour:02}:{minute:02}")).collect()
            };
            let all: Vec<Vec<String>> = hours.iter().map(clock).collect();
            return (format!("at {}", joined(&all.concat())), true);
        }
        (Some(minute), _, Some(step)) => format!("every {step} hours, from 00:{minute:02} on"),
        (Some(minute), ..) => format!("at minute {minute} of {}", of_hours()),
        (None, Some(step), _) => format!("every {step} minutes in {}", of_hours()),
        _ => format!("at the minutes {} of {}", plain(minute), of_hours()),
    };
    (words, false)
}

/// The distance between numbers that fill the whole range from 0 on, and are more than one and not all.
fn step(numbers: &[u8], range: u8) -> Option<u8> {
    let (first, second) = (*numbers.first()?, *numbers.get(1)?);
    let step = second.checked_sub(first)?;
    let fills = first == 0 && step > 1 && range.is_multiple_of(step);
    let is_even =
        numbers.iter().zip((0..range).step_by(usize::from(step).max(1))).all(|(is, wanted)| *is == wanted);
    (fills && is_even && numbers.len() == usize::from(range / step)).then_some(step)
}

/// The numbers of a field by their names: three and more that follow each other as a range.
fn list(field: &CrontabField, name: &dyn Fn(u8) -> String) -> String {
    let mut runs: Vec<(u8, u8)> = Vec::new();
    for number in field.numbers() {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let mut parts = Vec::new();
    for (first, last) in runs {
        match last - first {
            0 => parts.push(name(first)),
            1 => parts.extend([name(first), name(last)]),
            _ => parts.push(format!("{} to {}", name(first), name(last))),
        }
    }
    joined(&parts)
}

/// `a`, `a and b`, `a, b and c`.
fn joined(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::calendar::Zone;

    fn words(text: &str) -> String {
        let words = Schedule::crontab(text.parse().unwrap(), Zone::UTC).in_words();
        words.strip_suffix(" (UTC)").unwrap().to_owned()
    }

    #[test]
    fn a_crontab_in_words() {
        for (text, expected) in [
            ("* * * * *", "every minute"),
            ("*/15 * * * *", "every 15 minutes"),
            ("0 * * * *", "every hour, on the hour"),
            ("5 * * * *", "every hour, at minute 5"),
            ("1,13,30-33 * * * *", "every hour, at the minutes 1, 13 and 30 to 33"),
            ("30 3 * * *", "at 03:30 every day"),
            ("0 9,17 * * *", "at 09:00 and 17:00 every day"),
            ("0 */6 * * *", "at 00:00, 06:00, 12:00 and 18:00 every day"),
            ("15 */3 * * *", "every 3 hours, from 00:15 on"),
            ("0 8-17 * * mon-fri", "at minute 0 of the hours 8 to 17 on Monday to Friday"),
            ("*/20 8-17 * * *", "every 20 minutes in the hours 8 to 17"),
            ("* 3 * * *", "every minute of the hour 3"),
            ("1,2,5 1-4 * * *", "at the minutes 1, 2 and 5 of the hours 1 to 4"),
            ("0 5 1 * *", "at 05:00 on day 1"),
            ("0 5 1,15 * *", "at 05:00 on the days 1 and 15"),
            ("0 0 13 * fri", "at 00:00 on day 13, if that is a Friday"),
            ("0 0 * feb *", "at 00:00 every day in February"),
            ("0 0 29 2 *", "at 00:00 on day 29 in February"),
            ("0 0 * * sun,wed", "at 00:00 on Sunday and Wednesday"),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn an_interval_in_words() {
        for (millis, expected) in [
            (0, "every 1 ms"),
            (250, "every 250 ms"),
            (1_000, "every second"),
            (90_000, "every 90 seconds"),
            (300_000, "every 5 minutes"),
            (3_600_000, "every hour"),
            (86_400_000, "every day"),
            (172_800_000, "every 2 days"),
        ] {
            assert_eq!(Schedule::Every(Duration::from_millis(millis)).in_words(), expected);
        }
    }
}

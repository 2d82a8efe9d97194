//! One field of a crontab: the numbers that it lets through.
//!
//! The grammar is Celery's: a list, by commas, of `*`, `*/n`, `a`, `a-b` and `a-b/n`. A range may run over the end
//! (`22-2`, `fri-mon`), and a step counts from where the range begins. Three things of it are left out, because nobody
//! means them: names in fields that have none (Celery reads `minute="jan"` as 1), words that only begin like a name
//! (`monkey` is Monday to Celery), and whatever follows a range that is complete (`1-5!`).

use std::fmt;

use super::CrontabError;

/// Which of the five.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Minute,
    Hour,
    DayOfMonth,
    MonthOfYear,
    DayOfWeek,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

impl Kind {
    /// Celery's name of it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day_of_month",
            Self::MonthOfYear => "month_of_year",
            Self::DayOfWeek => "day_of_week",
        }
    }

    /// The least number and the greatest.
    fn bounds(self) -> (u8, u8) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::MonthOfYear => (1, 12),
            Self::DayOfWeek => (0, 6),
        }
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Self::MonthOfYear => &MONTHS,
            Self::DayOfWeek => &WEEKDAYS,
            _ => &[],
        }
    }
}

/// A set of numbers, and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    written: String,
    /// Bit n is number n.
    numbers: u64,
    kind: Kind,
}

impl Field {
    /// Reads a field.
    pub(super) fn parse(kind: Kind, text: &str) -> Result<Self, CrontabError> {
        let mut numbers = 0;
        for part in text.split(',') {
            numbers |= of_part(kind, part).map_err(|fault| CrontabError::Field {
                field: kind.name(),
                text: text.to_owned(),
                fault,
            })?;
        }
        Ok(Self { written: text.to_owned(), numbers, kind })
    }

    pub(super) fn contains(&self, number: u8) -> bool {
        number < 64 && self.numbers & (1 << number) != 0
    }

    /// The numbers from the least to the greatest; never none.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u8> + '_ {
        (0..64).filter(|n| self.contains(*n))
    }

    /// Whether every number is in.
    pub(super) fn is_all(&self) -> bool {
        let (least, most) = self.kind.bounds();
        (least..=most).all(|n| self.contains(n))
    }

    /// The one number, if there is but one.
    pub(super) fn only(&self) -> Option<u8> {
        (self.numbers.count_ones() == 1).then(|| self.numbers().next()).flatten()
    }

    /// Whether it says `*` and nothing else.
    pub(super) fn is_star(&self) -> bool {
        self.written == "*"
    }

    /// As the `cron` crate writes it, which counts days of the week from Sunday = 1.
    pub(super) fn for_cron(&self) -> String {
        if self.is_all() {
            return "*".to_owned();
        }
        let shift = u8::from(self.kind == Kind::DayOfWeek);
        self.numbers().map(|n| (n + shift).to_string()).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// The numbers of `*`, `*/n`, `a`, `a-b` or `a-b/n`; the error says what is wrong and what to do.
fn of_part(kind: Kind, part: &str) -> Result<u64, String> {
    let (least, most) = kind.bounds();
    if part.is_empty() {
        return Err("a part of the list is empty; remove the comma too many".to_owned());
    }
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(of_step(step)?)),
        None => (part, None),
    };
    let line: Vec<u8> = if range == "*" {
        (least..=most).collect()
    } else if let Some((from, to)) = range.split_once('-').filter(|(from, _)| !from.is_empty()) {
        let (from, to) = (of_number(kind, from)?, of_number(kind, to)?);
        if to < from { (from..=most).chain(least..=to).collect() } else { (from..=to).collect() }
    } else {
        let number = of_number(kind, range)?;
        if step.is_some() {
            return Err(format!(
                "`{part}` steps from one number; write `{range}-{most}{}`",
                &part[range.len()..]
            ));
        }
        vec![number]
    };
    Ok(line.into_iter().step_by(step.unwrap_or(1)).fold(0, |numbers, n| numbers | 1 << n))
}

fn of_step(step: &str) -> Result<usize, String> {
    let is_number = !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit());
    match step.parse::<usize>() {
        Ok(0) => Err("a step of 0 never gets on; write at least 1".to_owned()),
        Ok(n) if is_number => Ok(n),
        // Beyond any range, so that only the first number is in.
        Err(_) if is_number => Ok(usize::MAX),
        _ => Err(format!("the step `{step}` is no number; write as in `*/15`")),
    }
}

fn of_number(kind: Kind, text: &str) -> Result<u8, String> {
    let (least, most) = kind.bounds();
    let of_range = || match kind {
        Kind::DayOfWeek => "write 0 (Sunday) to 6 (Saturday), or sun to sat".to_owned(),
        Kind::MonthOfYear => "write 1 to 12, or jan to dec".to_owned(),
        _ => format!("write {least} to {most}"),
    };
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        return match text.parse::<u8>() {
            Ok(n) if (least..=most).contains(&n) => Ok(n),
            Ok(7) if kind == Kind::DayOfWeek => Err("7 is no day of the week; Sunday is 0".to_owned()),
            _ => Err(format!("{text} is out of range; {}", of_range())),
        };
    }
    let word = text.to_ascii_lowercase();
    let names = kind.names();
    let index = names.iter().position(|name| word.len() >= 3 && name.starts_with(&word));
    match index.and_then(|index| u8::try_from(index).ok()) {
        Some(index) => Ok(index + least),
        None => {
            let nearest = names
                .iter()
                .map(|name| (strsim::jaro_winkler(name, &word), name))
                .filter(|(score, _)| *score > 0.8)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = nearest.map_or_else(of_range, |(_, name)| format!("did you mean `{}`?", &name[..3]));
            Err(format!("`{text}` is no {}; {hint}", kind.name().replace('_', " ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(kind: Kind, text: &str) -> Result<Vec<u8>, String> {
        Field::parse(kind, text).map(|field| field.numbers().collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_grammar() {
        use Kind::*;
        for (kind, text, expected) in [
            (Minute, "*/15", &[0, 15, 30, 45][..]),
            (Minute, "1,13,30-33,50-59/2", &[1, 13, 30, 31, 32, 33, 50, 52, 54, 56, 58]),
            (Minute, "*/100", &[0]),
            (Minute, "*/99999999999999999999999", &[0]),
            (Minute, "08", &[8]),
            (Hour, "22-2", &[0, 1, 2, 22, 23]),
            (Hour, "22-4/3", &[1, 4, 22]),
            (Hour, "0,8-17/2", &[0, 8, 10, 12, 14, 16]),
            (DayOfMonth, "*/10", &[1, 11, 21, 31]),
            (MonthOfYear, "2-12/5", &[2, 7, 12]),
            (MonthOfYear, "nov-Feb", &[1, 2, 11, 12]),
            (DayOfWeek, "fri-mon", &[0, 1, 5, 6]),
            (DayOfWeek, "mon-fri/2", &[1, 3, 5]),
            (DayOfWeek, "Thursday,sun", &[0, 4]),
        ] {
            assert_eq!(numbers(kind, text), Ok(expected.to_vec()), "{text}");
        }
    }

    #[test]
    fn mistakes_say_what_to_do() {
        use Kind::*;
        for (kind, text, what) in [
            (Minute, "60", "60 is out of range; write 0 to 59"),
            (Minute, "", "a part of the list is empty"),
            (Minute, "1,,2", "a part of the list is empty"),
            (Minute, "*/0", "a step of 0"),
            (Minute, "*/", "the step `` is no number"),
            (Minute, "*/x", "the step `x` is no number"),
            (Minute, "5/15", "`5/15` steps from one number; write `5-59/15`"),
            (Minute, "-5", "`-5` is no minute; write 0 to 59"),
            (Minute, "1-5!", "`5!` is no minute"),
            (Minute, "jan", "`jan` is no minute"),
            (Minute, "1 ", "`1 ` is no minute"),
            (Hour, "24", "24 is out of range; write 0 to 23"),
            (DayOfMonth, "0", "0 is out of range; write 1 to 31"),
            (MonthOfYear, "13", "13 is out of range; write 1 to 12, or jan to dec"),
            (DayOfWeek, "7", "7 is no day of the week; Sunday is 0"),
            (DayOfWeek, "monkey", "`monkey` is no day of week; did you mean `mon`?"),
            (DayOfWeek, "mar", "`mar` is no day of week"),
            (DayOfWeek, "tu", "`tu` is no day of week"),
            (DayOfWeek, "٣", "is no day of week"),
        ] {
            let error = numbers(kind, text).unwrap_err();
            assert!(error.contains(what), "{text:?}: {error}");
        }
    }
}

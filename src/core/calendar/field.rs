//! One field of a crontab: the numbers that it lets through, and how it is written.

use std::fmt;

use super::CrontabError;
use super::grammar::{self, Bounds, FIELDS};

/// Names one of the five fields of a crontab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldKind {
    Minute,
    Hour,
    DayOfMonth,
    MonthOfYear,
    DayOfWeek,
}

impl FieldKind {
    fn bounds(self) -> Bounds {
        FIELDS[self as usize]
    }
}

/// The set of numbers that a field matches, and the text that says so.
#[derive(Clone, Debug)]
pub(super) struct CrontabField {
    /// The text without blanks, so that five fields joined by blanks can be read back.
    written: String,
    /// A bit set: bit n is set if the field matches number n.
    numbers: u64,
    kind: FieldKind,
}

impl CrontabField {
    /// Reads the text of a field.
    pub(super) fn parse(kind: FieldKind, text: &str) -> Result<Self, CrontabError> {
        let bounds = kind.bounds();
        let numbers = grammar::numbers(bounds, text).map_err(|fault| CrontabError::Field {
            field: bounds.name,
            text: text.to_owned(),
            fault,
        })?;
        Ok(Self { written: without_blanks(bounds, text, numbers), numbers, kind })
    }

    fn contains(&self, number: u8) -> bool {
        number < 64 && self.numbers & (1 << number) != 0
    }

    /// The numbers that the field matches, in ascending order; there is at least one.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u8> + '_ {
        (0..64).filter(|n| self.contains(*n))
    }

    /// The field as the `cron` crate reads it: a plain list, in which Sunday is 1.
    pub(super) fn for_cron(&self) -> String {
        if self.is_all() {
            return "*".to_owned();
        }
        let shift = u8::from(self.kind == FieldKind::DayOfWeek);
        self.numbers().map(|n| (n + shift).to_string()).collect::<Vec<_>>().join(",")
    }

    /// Whether the field matches every number of its range.
    pub(super) fn is_all(&self) -> bool {
        let Bounds { least, most, .. } = self.kind.bounds();
        (least..=most).all(|n| self.contains(n))
    }

    /// The number that the field matches, if it matches only one.
    pub(super) fn only(&self) -> Option<u8> {
        (self.numbers.count_ones() == 1).then(|| self.numbers().next()).flatten()
    }

    /// Whether the text of the field is `*`.
    pub(super) fn is_star(&self) -> bool {
        self.written == "*"
    }
}

impl PartialEq for CrontabField {
    /// Two fields are equal if they match the same numbers, however they are written.
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.numbers) == (other.kind, other.numbers)
    }
}

/// The text without blanks, if that means the same; else the list of its numbers.
fn without_blanks(bounds: Bounds, text: &str, numbers: u64) -> String {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let trimmed = parts.join(",");
    if !trimmed.contains(char::is_whitespace) && grammar::numbers(bounds, &trimmed) == Ok(numbers) {
        return trimmed;
    }
    let numbers = (0..64).filter(|n| numbers & (1_u64 << n) != 0).map(|n| n.to_string());
    numbers.collect::<Vec<_>>().join(",")
}

impl fmt::Display for CrontabField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(kind: FieldKind, text: &str) -> Result<Vec<u8>, String> {
        CrontabField::parse(kind, text).map(|field| field.numbers().collect()).map_err(|e| e.to_string())
    }

    /// About five thousand texts, and what Celery 5.7.0 makes of each (`tests/beat/conformance/make_fields.py`).
    #[test]
    fn every_field_is_as_celery_has_it() {
        let table = include_str!("../../../tests/beat/conformance/fields.jsonl");
        let mut wrong = Vec::new();
        let (mut taken, mut refused) = (0, 0);
        for row in table.lines() {
            let (kind, text, celery): (usize, String, Option<u64>) = serde_json::from_str(row).unwrap();
            let kinds = [
                FieldKind::Minute,
                FieldKind::Hour,
                FieldKind::DayOfMonth,
                FieldKind::MonthOfYear,
                FieldKind::DayOfWeek,
            ];
            let set = |text: &str| CrontabField::parse(kinds[kind], text).map(|field| field.numbers).ok();
            let ours = set(&text);
            *(if celery.is_some() { &mut taken } else { &mut refused }) += 1;
            if ours != celery {
                wrong.push(format!("{:?} {text:?}: {ours:?}, not {celery:?}", kinds[kind]));
            } else if ours.is_some() {
                let written = CrontabField::parse(kinds[kind], &text).unwrap().to_string();
                assert!(!written.contains(char::is_whitespace), "{text:?} is written {written:?}");
                assert_eq!(set(&written), celery, "{text:?} is written {written:?}");
            }
        }
        assert!(wrong.is_empty(), "{} of {}: {}", wrong.len(), taken + refused, wrong.join("\n"));
        assert!(taken > 1_900 && refused > 3_000, "{taken} {refused}");
    }

    #[test]
    fn what_is_written_has_no_blanks() {
        for (text, written) in
            [("4, 5", "4,5"), ("1-5 /2", "1,2,3,4,5"), ("*\n", "*"), (" 7 ", "7"), ("mon/2", "mon/2")]
        {
            assert_eq!(CrontabField::parse(FieldKind::Hour, text).unwrap().to_string(), written, "{text:?}");
        }
    }

    #[test]
    fn the_grammar() {
        use FieldKind::*;
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
            (Hour, "4, 5", &[4, 5]),
            (Hour, "0, 12", &[0, 12]),
            (Hour, "+5", &[5]),
            (Hour, "1_0", &[10]),
            (Minute, "1-5!", &[1, 2, 3, 4, 5]),
            (Minute, "jan", &[1]),
            (Minute, "1 ", &[1]),
            (DayOfWeek, "mon/2", &[1]),
            (DayOfWeek, "monkey", &[1]),
            (DayOfWeek, "mar", &[3]),
        ] {
            assert_eq!(numbers(kind, text), Ok(expected.to_vec()), "{text}");
        }
    }

    #[test]
    fn mistakes_say_what_to_do() {
        use FieldKind::*;
        for (kind, text, what) in [
            (Minute, "60", "60 is out of range; write 0 to 59"),
            (Minute, "", "a part of the list is empty"),
            (Minute, "1,,2", "a part of the list is empty"),
            (Minute, "*/0", "a step of 0"),
            (Minute, "*/", "the step `` is no number"),
            (Minute, "*/x", "the step `x` is no number"),
            (Minute, "5/15", "`5/15` is no minute; a step needs a range: write `5-59/15`"),
            (Minute, "-5", "`-5` is negative; write 0 to 59"),
            (Hour, "7.5", "`7.5` is no hour; write 0 to 23"),
            (Hour, "* ", "`* ` is no hour; write 0 to 23"),
            (Hour, "24", "24 is out of range; write 0 to 23"),
            (DayOfMonth, "0", "0 is out of range; write 1 to 31"),
            (MonthOfYear, "13", "13 is out of range; write 1 to 12, or jan to dec"),
            (DayOfWeek, "7", "7 is no day of the week; Sunday is 0"),
            (DayOfWeek, "tu", "`tu` is no day of week"),
            (DayOfWeek, "٣", "is no day of week"),
        ] {
            let error = numbers(kind, text).unwrap_err();
            assert!(error.contains(what), "{text:?}: {error}");
        }
    }
}

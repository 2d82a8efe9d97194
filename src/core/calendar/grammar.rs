//! Celery's grammar of one crontab field: the numbers that a text matches.
//!
//! The grammar follows the code of Celery 5.7 (`celery.schedules.crontab_parser`), and not only its manual. A field
//! is a list, by commas, of `*`, `*/n`, `a`, `a-b` and `a-b/n`. A range may run over the end (`22-2`, `fri-mon`), and
//! a step counts from the beginning of its range. Numbers are read as by Python's `int` (blanks around them, a sign,
//! `1_0`). Names are read by their first three letters, in every field, months before days of the week. The letters
//! behind the first three do not matter, so `mon/2` is Monday, and neither does any text behind a complete range or
//! step. Unlike Python, this grammar reads no digits of other scripts.
//!
//! The macros have a copy of this file, and a test that compares the two.

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The name and the range of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The name of the field, as Celery has it.
    pub name: &'static str,
    /// The least number of the field.
    pub least: u8,
    /// The greatest number of the field; at most 63.
    pub most: u8,
}

/// The five fields in the order in which a crontab writes them.
pub const FIELDS: [Bounds; 5] = [
    Bounds { name: "minute", least: 0, most: 59 },
    Bounds { name: "hour", least: 0, most: 23 },
    Bounds { name: "day_of_month", least: 1, most: 31 },
    Bounds { name: "month_of_year", least: 1, most: 12 },
    Bounds { name: "day_of_week", least: 0, most: 6 },
];

/// Reads a field. Bit n of the result is set if the field matches number n. The error says what is wrong and what to
/// write.
pub fn numbers(field: Bounds, text: &str) -> Result<u64, String> {
    text.split(',').try_fold(0, |numbers, part| Ok(numbers | of_part(field, part)?))
}

/// The numbers that one part of the list matches.
fn of_part(field: Bounds, part: &str) -> Result<u64, String> {
    let Bounds { least, most, .. } = field;
    if part.is_empty() {
        return Err("a part of the list is empty; remove the comma too many".to_owned());
    }
    if part == "*" || part == "*\n" {
        return Ok(set((least..=most).collect(), 1));
    }
    if let Some(step) = part.strip_prefix("*/") {
        return Ok(set((least..=most).collect(), of_step(step)?));
    }
    let Some((from, rest)) = range_begin(part) else {
        return Ok(set(vec![of_number(field, part)?], 1));
    };
    let (to, rest) = rest.split_at(word_length(rest));
    let step = rest.strip_prefix('/').map(of_step).transpose()?;
    let (from, to) = (of_number(field, from)?, of_number(field, to)?);
    let line: Vec<u8> =
        if to < from { (from..=most).chain(least..=to).collect() } else { (from..=to).collect() };
    Ok(set(line, step.unwrap_or(1)))
}

fn set(line: Vec<u8>, step: usize) -> u64 {
    line.into_iter().step_by(step).fold(0, |numbers, number| numbers | 1 << number)
}

/// Splits a range into its first word and the text behind the dash. `None`: the part does not have a word on both
/// sides of a dash.
fn range_begin(part: &str) -> Option<(&str, &str)> {
    let (from, rest) = part.split_at(word_length(part));
    let rest = rest.strip_prefix('-')?;
    (!from.is_empty() && word_length(rest) > 0).then_some((from, rest))
}

/// How many bytes of letters, digits and underscores a text begins with; Python's `\w`.
fn word_length(text: &str) -> usize {
    text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len())
}

/// Reads a step: the word behind the slash.
fn of_step(text: &str) -> Result<usize, String> {
    let step = &text[..word_length(text)];
    match integer(step) {
        Some(0) => Err("a step of 0 never gets on; write at least 1".to_owned()),
        // The step is wider than any range, so that only the first number matches.
        Some(step) => Ok(usize::try_from(step).unwrap_or(usize::MAX)),
        None => Err(format!("the step `{step}` is no number; write as in `*/15`")),
    }
}

fn of_number(field: Bounds, text: &str) -> Result<u8, String> {
    let Bounds { name, least, most } = field;
    let of_range = || match name {
        "day_of_week" => "write 0 (Sunday) to 6 (Saturday), or sun to sat".to_owned(),
        "month_of_year" => "write 1 to 12, or jan to dec".to_owned(),
        _ => format!("write {least} to {most}"),
    };
    if text.starts_with('-') {
        return Err(format!("`{text}` is negative; {}", of_range()));
    }
    let Some(number) = integer(text).or_else(|| named(text)) else {
        let what = name.replace('_', " ");
        let steps = text.split_once('/').filter(|(from, _)| integer(from).is_some());
        let advice = match steps {
            Some((from, step)) => format!("a step needs a range: write `{}-{most}/{step}`", from.trim()),
            None => of_range(),
        };
        return Err(format!("`{text}` is no {what}; {advice}"));
    };
    match u8::try_from(number) {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(7) if name == "day_of_week" => Err("7 is no day of the week; Sunday is 0".to_owned()),
        _ => Err(format!("{} is out of range; {}", text.trim(), of_range())),
    }
}

/// Reads a text as Python's `int` does.
fn integer(text: &str) -> Option<i64> {
    /// Python refuses to read numbers with more digits.
    const DIGITS: usize = 4300;
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut number = 0_i64;
    let mut count = 0;
    // One underscore may stand between two digits.
    for group in digits.split('_') {
        if group.is_empty() || !group.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        count += group.len();
        for digit in group.bytes() {
            number = number.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
        }
    }
    (count <= DIGITS).then_some(sign * number)
}

/// The number of a month or a day of the week, by the first three letters of its name.
fn named(text: &str) -> Option<i64> {
    let word: String = text.chars().take(3).flat_map(char::to_lowercase).collect();
    let place = |names: &[&str]| names.iter().position(|name| *name == word);
    let found = place(&MONTHS).map(|index| index + 1).or_else(|| place(&WEEKDAYS));
    found.and_then(|number| i64::try_from(number).ok())
}

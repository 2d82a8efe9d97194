//! A look at a crontab while the program is compiled, so that a slip is found before it starts.
//!
//! What the crate accepts is for the crate to say (`core::calendar`), which reads the crontab again at the start; this
//! is the same grammar, as far as it can be checked in a few lines.

/// Celery's name of a field, its least and greatest number, and its names.
type Field = (&'static str, u32, u32, &'static [&'static str]);

const MONTHS: &[&str] = &[
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
const WEEKDAYS: &[&str] = &["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

/// The fields in the order of a crontab.
pub const FIELDS: [Field; 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day_of_month", 1, 31, &[]),
    ("month_of_year", 1, 12, MONTHS),
    ("day_of_week", 0, 6, WEEKDAYS),
];

/// Checks one field; the error says what is wrong.
pub fn check_field(field: Field, text: &str) -> Result<(), String> {
    let (name, least, most, names) = field;
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let word = part.to_ascii_lowercase();
        let is_number = digits && part.parse::<u32>().is_ok_and(|n| (least..=most).contains(&n));
        let is_name = word.len() >= 3 && names.iter().any(|name| name.starts_with(&word));
        let range = match names.first() {
            Some(first) => format!("{least} to {most}, or names such as {}", &first[..3]),
            None => format!("{least} to {most}"),
        };
        if is_number || is_name {
            Ok(())
        } else {
            Err(format!("{name} = \"{text}\": `{part}` is none of {range}"))
        }
    };
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        if let Some(step) = step
            && !(step.bytes().all(|b| b.is_ascii_digit()) && step.bytes().any(|b| b != b'0'))
        {
            return Err(format!("{name} = \"{text}\": the step `{step}` is no number above 0"));
        }
        match range.split_once('-').filter(|(from, _)| !from.is_empty()) {
            _ if range == "*" => {}
            Some((from, to)) => {
                number(from)?;
                number(to)?;
            }
            None if step.is_some() => {
                return Err(format!(
                    "{name} = \"{text}\": `{part}` steps from one number; write a range, as in `{range}-{most}`"
                ));
            }
            None => number(range)?,
        }
    }
    Ok(())
}

/// Checks a crontab of five fields.
pub fn check_text(text: &str) -> Result<(), String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "a crontab has five fields, this one {}: minute, hour, day of month, month of year, day of week (0 is Sunday)",
            fields.len()
        ));
    }
    FIELDS.into_iter().zip(fields).try_for_each(|(field, text)| check_field(field, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is checked here is what the crate checks.
    #[test]
    fn as_the_crate_has_it() {
        for text in [
            "* * * * *",
            "*/15 * * * *",
            "1,13,30-45,50-59/2 * * * *",
            "0 22-2 * * *",
            "0 0 29-1 * *",
            "0 0 1 nov-FEB *",
            "0 0 * * fri-mon",
            "0 6 * * tuesday/2",
            "08 09 * * *",
            "0 0 * * 6/2",
            "5/15 * * * *",
            "60 * * * *",
            "0 24 * * *",
            "0 0 0 * *",
            "0 0 32 * *",
            "0 0 1 13 *",
            "0 0 * * 7",
            "0 0 * * mar",
            "jan 0 * * *",
            "*/0 * * * *",
            "*/x * * * *",
            "1,,2 * * * *",
            "-5 * * * *",
            "0 0 * * monkey",
            "0 0 * *",
            "@daily",
            "",
        ] {
            let ours = check_text(text).is_ok();
            assert_eq!(ours, text.parse::<celeriac::core::calendar::Crontab>().is_ok(), "{text}");
        }
    }
}

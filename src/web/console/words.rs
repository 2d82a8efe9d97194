//! Numbers, sizes and spans of time as the pages write them.

use std::time::Duration;

use crate::core::Timestamp;
use crate::core::text::shortened;

/// The units in which a span is written, in seconds, the largest first.
const UNITS: [(u64, &str); 4] = [(86_400, "days"), (3_600, "h"), (60, "min"), (1, "s")];

/// A number with a comma before each three digits: `18,240`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun: `1 task`, `18,240 tasks`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A span of time: `40 ms`, `0.3 s`, `31 s`, `1 min 5 s`, `3 h`, `9 days`.
pub(super) fn span(span: Duration) -> String {
    if span < Duration::from_millis(100) {
        return format!("{} ms", span.as_millis());
    }
    if span < Duration::from_secs(10) {
        return format!("{:.1} s", span.as_secs_f64());
    }
    let seconds = span.as_secs();
    let at = UNITS.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let (unit, name) = UNITS[at];
    let whole = format!(
        "{} {}",
        count(seconds / unit),
        if seconds / unit == 1 && name == "days" { "day" } else { name }
    );
    match UNITS.get(at + 1) {
        // The smaller unit says something while the larger one is small.
        Some((smaller, name)) if seconds / unit < 10 && seconds % unit / smaller > 0 => {
            format!("{whole} {} {name}", seconds % unit / smaller)
        }
        _ => whole,
    }
}

/// How long ago something was.
pub(super) fn ago(time: Timestamp, now: Timestamp) -> String {
    if time > now {
        format!("in {}", span(time.since(now)))
    } else {
        format!("{} ago", span(now.since(time)))
    }
}

/// A size in bytes: `812 bytes`, `18.6 KB`, `10.0 MB`.
#[allow(clippy::cast_precision_loss)] // of a size that is shown with one digit
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} KB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// A time in UTC, to the second: `2026-11-30 14:31:57`.
pub(super) fn clock(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('T') {
        Some((day, rest)) if rest.len() >= 8 && rest.is_char_boundary(8) => format!("{day} {}", &rest[..8]),
        _ => text,
    }
}

/// The beginning of a text on one line.
pub(super) fn line(text: &str, most: usize) -> String {
    shortened(text, most).replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_are_written_for_people() {
        assert_eq!(
            [0, 999, 1_000, 18_240, 1_234_567].map(count),
            ["0", "999", "1,000", "18,240", "1,234,567"]
        );
        assert_eq!(counted(1, "task", "tasks"), "1 task");
        for (millis, text) in [
            (0, "0 ms"),
            (40, "40 ms"),
            (300, "0.3 s"),
            (9_960, "10.0 s"),
            (31_000, "31 s"),
            (65_000, "1 min 5 s"),
            (180_000, "3 min"),
            (754_000, "12 min"),
            (3_600_000, "1 h"),
            (7_500_000, "2 h 5 min"),
            (86_400_000, "1 day"),
            (93_600_000, "1 day 2 h"),
            (31 * 86_400_000, "31 days"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        assert_eq!([812, 18_600, 10_000_000].map(size), ["812 bytes", "18.6 KB", "10.0 MB"]);
    }

    #[test]
    fn times_are_to_the_second_and_ages_go_both_ways() {
        let noon = Timestamp::from_micros(1_795_348_800_000_000);
        assert_eq!(clock(noon), "2026-11-22 12:00:00");
        assert_eq!(clock(Timestamp::from_micros(u64::MAX)), "18446744073709551615 µs after 1970");
        let later = noon + Duration::from_secs(65);
        assert_eq!(
            (ago(noon, later), ago(later, noon)),
            ("1 min 5 s ago".to_owned(), "in 1 min 5 s".to_owned())
        );
        assert_eq!(line("a\nb\u{0}c", 100), "a b c");
    }
}

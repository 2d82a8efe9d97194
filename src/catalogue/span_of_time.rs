//! Spans of time as people write them: `500ms`, `30s`, `15m`, `6h`, `1h30m`, `2d`.
//!
//! A span consists of whole numbers with units, the large units first. Reading a printed span gives the same span
//! again, if it is a whole number of milliseconds.

use std::fmt::Write;
use std::time::Duration;

/// The units and their milliseconds, from large to small.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a span of time; `None` if the text is not one, or if its milliseconds do not fit 64 bits.
///
/// ```
/// use std::time::Duration;
/// use celeriac::catalogue::parse_span;
/// assert_eq!(parse_span("1h30m"), Some(Duration::from_secs(5400)));
/// assert_eq!(parse_span("30"), None);
/// ```
pub fn parse_span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = UNITS.as_slice();
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters)?;
        let index = units.iter().position(|(name, _)| *name == unit)?;
        let part = number.parse::<u64>().ok()?.checked_mul(units[index].1)?;
        millis = millis.checked_add(part)?;
        // Each unit may occur once, and smaller units must follow larger ones.
        units = &units[index + 1..];
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// Prints a span of time in the form that [`parse_span`] reads. Parts below a millisecond are dropped.
///
/// ```
/// use std::time::Duration;
/// use celeriac::catalogue::format_span;
/// assert_eq!(format_span(Duration::from_secs(900)), "15m");
/// ```
pub fn format_span(span: Duration) -> String {
    let mut rest = span.as_millis();
    let mut text = String::new();
    for (unit, millis) in UNITS {
        let count = rest / u128::from(millis);
        rest %= u128::from(millis);
        if count > 0 {
            let _ = write!(text, "{count}{unit}");
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in
            [("500ms", 500), ("30s", 30_000), ("15m", 900_000), ("6h", 21_600_000), ("1d12h", 129_600_000)]
        {
            assert_eq!(parse_span(text), Some(Duration::from_millis(millis)), "{text}");
            assert_eq!(format_span(Duration::from_millis(millis)), text);
        }
        assert_eq!(parse_span("0s"), Some(Duration::ZERO));
        assert_eq!(format_span(Duration::ZERO), "0s");
        assert_eq!(format_span(Duration::from_secs(90)), "1m30s");
    }

    #[test]
    fn refuses_what_is_no_span() {
        for text in [
            "",
            "30",
            "s",
            "-5s",
            "1.5h",
            "30 s",
            "30S",
            "30m1h",
            "5s5s",
            "1h ",
            "٣s",
            "5sé",
            "99999999999999999999s",
            "18446744073709551615d",
            "18446744073709551615ms1ms",
        ] {
            assert_eq!(parse_span(text), None, "{text:?}");
        }
    }
}

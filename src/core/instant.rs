//! Instants as Celery writes and reads them: ISO 8601 text.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};

use super::Timestamp;

/// The text that Python's `isoformat` writes: `2026-11-22T09:25:01.430339+00:00`, without a fraction that is zero.
///
/// Python has no years beyond 9999. A later instant is written as the last one of that year.
pub(crate) fn write(time: Timestamp) -> String {
    let micros = i64::try_from(time.min(LAST).as_micros()).unwrap_or(i64::MAX);
    let time = DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let form = if time.timestamp_subsec_micros() == 0 {
        "%Y-%m-%dT%H:%M:%S+00:00"
    } else {
        "%Y-%m-%dT%H:%M:%S%.6f+00:00"
    };
    time.format(form).to_string()
}

/// The last instant of Python's calendar, 9999-12-31T23:59:59.999999Z.
const LAST: Timestamp = Timestamp::from_micros(253_402_300_799_999_999);

/// The instant that a text names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instant {
    /// The time in UTC. A time before 1970 becomes 1970, as both are past. An offset does not lead out of the year
    /// 9999.
    pub(crate) time: Timestamp,
    /// Whether the text has no offset. Celeriac reads such a text as UTC, as Celery does with its default
    /// `enable_utc`.
    pub(crate) naive: bool,
}

/// Reads what Python's `fromisoformat` and `dateutil` read: a date, `T` or a space, a time to the minute, the second
/// or any fraction of it, and an offset, `Z`, or nothing. It also reads the basic format (without dashes and colons),
/// and the years of six digits behind a sign that JavaScript writes beyond 9999 and before 0. `None`: the text is no
/// instant.
pub(crate) fn read(text: &str) -> Option<Instant> {
    let mut rest = Cursor(text.trim().as_bytes());
    let year = rest.year()?;
    let dashes = rest.take(b"-");
    let month = rest.digits(2)?;
    if dashes && !rest.take(b"-") {
        return None;
    }
    let day = rest.digits(2)?;
    // A year that Python does not know is looked up as a year of the same length that Python knows.
    let known = if (0..=9999).contains(&year) { year } else { 2000 + year.rem_euclid(400) };
    let date = NaiveDate::from_ymd_opt(known, month, day)?;
    let (mut hour, mut minute, mut second, mut micros) = (0, 0, 0, 0);
    let mut offset = None;
    if !rest.0.is_empty() {
        if !rest.take(b"Tt ") {
            return None;
        }
        hour = rest.digits(2)?;
        let colons = rest.take(b":");
        if colons || rest.at_digit() {
            minute = rest.digits(2)?;
            if if colons { rest.take(b":") } else { rest.at_digit() } {
                second = rest.digits(2)?;
                if rest.take(b".,") {
                    micros = rest.fraction();
                }
            }
        }
        rest.take(b" ");
        offset = rest.offset()?;
    }
    if !rest.0.is_empty() {
        return None;
    }
    let local = date.and_hms_micro_opt(hour, minute, second, micros)?.and_utc().timestamp_micros();
    let utc = local.checked_sub(offset.unwrap_or(0).checked_mul(1_000_000)?)?;
    let time = Timestamp::ZERO + Duration::from_micros(u64::try_from(utc).unwrap_or(0));
    let time = match year {
        ..0 => Timestamp::ZERO,
        10_000.. => LAST,
        _ => time.min(LAST),
    };
    Some(Instant { time, naive: offset.is_none() })
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn at_digit(&self) -> bool {
        self.0.first().is_some_and(u8::is_ascii_digit)
    }

    /// Reads a year: four digits, or a sign and six digits.
    fn year(&mut self) -> Option<i32> {
        let (digits, sign) = match self.0.first() {
            Some(b'+') => (6, 1),
            Some(b'-') => (6, -1),
            _ => (4, 1),
        };
        if digits == 6 {
            self.0 = &self.0[1..];
        }
        Some(sign * i32::try_from(self.digits(digits)?).ok()?)
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let number =
            digits.iter().try_fold(0, |n, d| d.is_ascii_digit().then(|| n * 10 + u32::from(d - b'0')))?;
        self.0 = rest;
        Some(number)
    }

    fn take(&mut self, any_of: &[u8]) -> bool {
        match self.0 {
            [first, rest @ ..] if any_of.contains(first) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// Reads a fraction in microseconds and drops finer digits.
    fn fraction(&mut self) -> u32 {
        let (mut micros, mut unit) = (0, 100_000);
        while let [digit @ b'0'..=b'9', rest @ ..] = self.0 {
            micros += u32::from(digit - b'0') * unit;
            unit /= 10;
            self.0 = rest;
        }
        micros
    }

    /// Reads an offset in seconds east of UTC. The outer `None` means that the text is wrong, the inner `None` that
    /// it has no offset.
    fn offset(&mut self) -> Option<Option<i64>> {
        if self.0.is_empty() {
            return Some(None);
        }
        if self.take(b"Zz") {
            return Some(Some(0));
        }
        let sign = if self.take(b"+") {
            1
        } else if self.take(b"-") {
            -1
        } else {
            return None;
        };
        let (hours, mut minutes, mut seconds) = (self.digits(2)?, 0, 0);
        if self.take(b":") || self.at_digit() {
            minutes = self.digits(2)?;
            if self.take(b":") || self.at_digit() {
                seconds = self.digits(2)?;
            }
        }
        let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
        (hours < 24 && minutes < 60).then_some(Some(sign * seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_that_were_seen() {
        let noon = 1_795_305_600_000_000; // 2026-11-22T00:00:00Z
        for (text, after, naive) in [
            ("2026-11-22T09:25:01.430339+00:00", 33_901_430_339_u64, false),
            ("2026-11-22T12:00:00+09:00", 3 * 3_600_000_000, false),
            ("2026-11-22T12:00:00Z", 12 * 3_600_000_000, false),
            ("2026-11-22T12:00:00", 12 * 3_600_000_000, true),
            ("2026-11-22 12:00:00", 12 * 3_600_000_000, true),
            ("2026-11-22T12:00", 12 * 3_600_000_000, true),
            ("2026-11-22T12", 12 * 3_600_000_000, true),
            ("2026-11-22", 0, true),
            ("20261122T120000Z", 12 * 3_600_000_000, false),
            ("2026-11-22T12:00:00.5Z", 12 * 3_600_000_000 + 500_000, false),
            ("2026-11-22T12:00:00.123456789Z", 12 * 3_600_000_000 + 123_456, false),
            ("2026-11-22T12:00:00.Z", 12 * 3_600_000_000, false),
            ("2026-11-21T20:00:00.000001-04:30", 30 * 60_000_000 + 1, false),
            ("2026-11-22T05:45:00+0545", 0, false),
            ("2026-11-22T12:00:00 +00:00", 12 * 3_600_000_000, false),
        ] {
            let expected = Instant { time: Timestamp::from_micros(noon + after), naive };
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for past in
            ["1901-01-01T00:00:00Z", "0000-01-01T00:00:00", "0001-01-01", "-271821-04-20T00:00:00.000Z"]
        {
            assert_eq!(read(past).unwrap().time, Timestamp::ZERO, "{past}");
        }
        for far in ["9999-12-31T23:59:59.999999-12:00", "+010000-01-01", "+275760-09-13T00:00:00.000Z"] {
            assert_eq!(read(far).unwrap().time, LAST, "{far}");
        }
        assert_eq!(read("+002026-11-22").unwrap().time, Timestamp::from_micros(noon));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "tomorrow",
            "1795305600",
            "2026",
            "2026-11",
            "2026-13-01",
            "2026-02-30",
            "2026-11-22T25:00:00",
            "2026-11-22T12:60",
            "2026-11-22T12:00:00+25:00",
            "2026-11-22T12:00:00Zz",
            "2026-11-22X12:00",
            "２０２６-11-22",
            "2026-11-22T12:00:00+",
            "-2026-11-22",
            "+2026-11-22",
            "+99999-01-01",
            "+275761-02-29",
            "2026-11-22T12:00:61",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for micros in [0, 1, 1_795_305_600_000_000, 1_795_305_600_430_339, 253_402_300_799_999_999] {
            let time = Timestamp::from_micros(micros);
            assert_eq!(read(&write(time)), Some(Instant { time, naive: false }));
        }
        assert_eq!(write(Timestamp::from_micros(1_795_305_600_000_000)), "2026-11-22T00:00:00+00:00");
        assert_eq!(write(Timestamp::from_micros(u64::MAX)), "9999-12-31T23:59:59.999999+00:00");
    }
}

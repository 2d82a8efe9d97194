//! Celery's grammar of a rate limit: `10/s`, `6/m`, `1/h`.
//!
//! The macros have a copy of this file, and a test that compares the two.

/// Why a rate limit cannot be read. The text is that of Celery's exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateError {
    /// The part before the `/` is no number.
    NotANumber(String),
    /// The part behind the `/` is none of `s`, `m` and `h`.
    Unit(String),
}

/// Reads a rate limit as Celery does: `"10/s"`, `"10/m"` or `"10/h"`, or a number, which is for each second. The empty
/// text and zero mean that there is no limit: `None`.
///
/// # Errors
/// The text is no rate limit, or the number is negative.
pub fn rate(text: &str) -> Result<Option<f64>, RateError> {
    if text.is_empty() {
        return Ok(None);
    }
    let (number, unit) = text.split_once('/').unwrap_or((text, ""));
    let seconds = match unit {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(RateError::Unit(other.to_owned())),
    };
    let wrong = || RateError::NotANumber(number.to_owned());
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    if !number.is_finite() || number < 0.0 {
        return Err(wrong());
    }
    Ok(Some(number / seconds).filter(|rate| *rate > 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_celery_does() {
        for (text, expected) in [
            ("10/s", Some(10.0)),
            ("6/m", Some(0.1)),
            ("36/h", Some(0.01)),
            ("3", Some(3.0)),
            ("0.5", Some(0.5)),
            ("5/", Some(5.0)),
            (" 5 /s", Some(5.0)),
            ("0", None),
            ("0/m", None),
            ("", None),
        ] {
            assert_eq!(rate(text), Ok(expected), "{text}");
        }
        for (text, error) in [
            ("x", RateError::NotANumber("x".into())),
            ("-1/s", RateError::NotANumber("-1".into())),
            ("nan", RateError::NotANumber("nan".into())),
            ("inf/s", RateError::NotANumber("inf".into())),
            ("1/q", RateError::Unit("q".into())),
            ("x/q", RateError::Unit("q".into())),
            ("1/s/m", RateError::Unit("s/m".into())),
        ] {
            assert_eq!(rate(text), Err(error), "{text}");
        }
    }
}

//! Reads the values of headers and of a step's options, which other programs write in more than one type.
//!
//! A message and a signature say the same things, so both are read here: what a message means as a header, a step
//! means as an option.

use std::time::Duration;

use serde_json::Value;

use crate::core::time;

/// Whether a value is false in Python.
pub(crate) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// A count. It may also be a float, which is the only number type of some clients, or a text.
pub(crate) fn count(value: &Value) -> Option<u32> {
    let whole = match value {
        Value::Bool(yes) => Some(u64::from(*yes)),
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_u64().or_else(|| match value.as_f64() {
            // Floats below 2^32 are exact, and the float is compared before it is cast.
            Some(float) if float.fract() == 0.0 && (0.0..4_294_967_296.0).contains(&float) => {
                Some(float as u64)
            }
            _ => None,
        }),
    };
    whole.and_then(|whole| u32::try_from(whole).ok())
}

/// The same as [`count`] for a number that only grows. A larger number than `u32` can hold counts as the largest, a
/// negative one as zero, and a fraction is cut.
pub(crate) fn tally(value: &Value) -> Option<u32> {
    match value.as_f64() {
        Some(number) => Some(number as u32), // the cast does all of that
        None => count(value),
    }
}

/// A number of seconds: whole numbers exactly, others to the microsecond, also as text, as some clients' templates make
/// it. A negative number is refused. Rounded to zero, it would mean that there is no limit.
pub(crate) fn seconds(value: &Value) -> Option<Duration> {
    if let Some(whole) = value.as_u64() {
        return Some(Duration::from_secs(whole));
    }
    if let Value::String(text) = value {
        return seconds(&Value::Number(text.trim().parse().ok()?));
    }
    time::seconds(value.as_f64().filter(|seconds| *seconds >= 0.0)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_in_any_type() {
        let second = Duration::from_secs;
        for (value, counted, told, limit) in [
            (json!(3), Some(3), Some(3), Some(second(3))),
            (json!("3"), Some(3), Some(3), Some(second(3))),
            (json!(" 60 "), Some(60), Some(60), Some(second(60))),
            (json!(3.0), Some(3), Some(3), Some(second(3))),
            (json!(1.5), None, Some(1), Some(Duration::from_millis(1500))),
            (json!("1.5"), None, None, Some(Duration::from_millis(1500))),
            (json!(-1), None, Some(0), None),
            (json!("-1"), None, None, None),
            (json!(true), Some(1), Some(1), None),
            (json!(1_u64 << 40), None, Some(u32::MAX), Some(second(1 << 40))),
            (json!("x"), None, None, None),
            (json!(""), None, None, None),
            (json!([3]), None, None, None),
            (json!(null), None, None, None),
        ] {
            assert_eq!((count(&value), tally(&value), seconds(&value)), (counted, told, limit), "{value}");
        }
    }

    #[test]
    fn what_is_false_in_python_is_nothing() {
        for nothing in [json!(null), json!(false), json!(0), json!(0.0), json!(""), json!([]), json!({})] {
            assert!(is_nothing(&nothing), "{nothing}");
        }
        for something in [json!(true), json!(1), json!(-0.5), json!("0"), json!([null]), json!({"a": 0})] {
            assert!(!is_nothing(&something), "{something}");
        }
    }
}

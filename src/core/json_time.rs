//! How a status spells times and durations in JSON: an instant as ISO 8601 text in UTC, a duration as a number of
//! milliseconds, with a fraction down to the microsecond.
//!
//! serde's own forms are a map of seconds and nanoseconds, and a bare number of microseconds; no page and no dashboard
//! reads these without help. What is kept in a store or travels in a message has its own forms, and not these.

use std::time::Duration;

use serde::Serializer;

use super::{Timestamp, instant};

/// For `#[serde(serialize_with)]`: a duration in milliseconds. The name of the field should end in `_ms`.
pub(crate) fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(in_millis(*duration))
}

/// As [`millis`], for a duration that may be missing.
pub(crate) fn optional_millis<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_some(&in_millis(*duration)),
        None => serializer.serialize_none(),
    }
}

/// For `#[serde(serialize_with)]`: an instant as ISO 8601 text.
pub(crate) fn iso<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&instant::write(*time))
}

/// As [`iso`], for an instant that may be missing.
pub(crate) fn optional_iso<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_some(&instant::write(*time)),
        None => serializer.serialize_none(),
    }
}

fn in_millis(duration: Duration) -> f64 {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    // What is lost above 2⁵³ µs, 285 years, is less than a millisecond.
    #[allow(clippy::cast_precision_loss)]
    let micros = micros as f64;
    micros / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize)]
    struct Status {
        #[serde(rename = "wait_ms", serialize_with = "millis")]
        wait: Duration,
        #[serde(rename = "limit_ms", serialize_with = "optional_millis")]
        limit: Option<Duration>,
        #[serde(serialize_with = "iso")]
        since: Timestamp,
        #[serde(serialize_with = "optional_iso")]
        next: Option<Timestamp>,
    }

    #[test]
    fn durations_are_milliseconds_and_times_are_text() {
        let noon = Timestamp::from_micros(1_795_348_800_000_000);
        let wait = Duration::from_nanos(1_500_250_999);
        let status = Status { wait, limit: Some(Duration::from_secs(2)), since: noon, next: Some(noon) };
        assert_eq!(
            serde_json::to_value(status).unwrap(),
            serde_json::json!({
                "wait_ms": 1500.25,
                "limit_ms": 2000.0,
                "since": "2026-11-22T12:00:00+00:00",
                "next": "2026-11-22T12:00:00+00:00",
            })
        );
        let status = Status { wait: Duration::MAX, limit: None, since: Timestamp::ZERO, next: None };
        let json = serde_json::to_value(status).unwrap();
        assert!(json["wait_ms"].as_f64().unwrap() > 1e16, "{json}");
        assert!(json["limit_ms"].is_null() && json["next"].is_null(), "{json}");
    }
}

//! How a status spells times and durations in JSON: an instant as ISO 8601 text in UTC, a duration as a number of
//! milliseconds, with a fraction down to the microsecond.
//!
//! serde's own forms are a map of seconds and nanoseconds, and a bare number of microseconds; no page and no dashboard
//! reads these without help. What is kept in a store or travels in a message has its own forms, and not these.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

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

/// For `#[serde(deserialize_with)]`: what [`millis`] has written.
pub(crate) fn from_millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let millis = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(millis / 1000.0)
        .map_err(|error| D::Error::custom(format!("{millis} ms: {error}")))
}

/// For `#[serde(deserialize_with)]`: what [`optional_millis`] has written.
pub(crate) fn from_optional_millis<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let Some(millis) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
    let duration = Duration::try_from_secs_f64(millis / 1000.0);
    duration.map(Some).map_err(|error| D::Error::custom(format!("{millis} ms: {error}")))
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

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Both {
        #[serde(serialize_with = "millis", deserialize_with = "from_millis")]
        wait: Duration,
        #[serde(serialize_with = "optional_millis", deserialize_with = "from_optional_millis")]
        limit: Option<Duration>,
    }

    #[test]
    fn durations_are_read_as_they_were_written_and_nonsense_is_an_error() {
        for limit in [None, Some(Duration::from_millis(1_500))] {
            let both = Both { wait: Duration::from_secs(90), limit };
            let text = serde_json::to_string(&both).unwrap();
            assert_eq!(serde_json::from_str::<Both>(&text).unwrap(), both);
        }
        for odd in [
            r#"{"wait": -1, "limit": null}"#,
            r#"{"wait": 1, "limit": 1e300}"#,
            r#"{"wait": "x", "limit": 1}"#,
        ] {
            assert!(serde_json::from_str::<Both>(odd).is_err(), "{odd}");
        }
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

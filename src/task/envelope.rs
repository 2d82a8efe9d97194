//! Kombu's type envelopes: how Python's dates, times, decimals, UUIDs and bytes cross the wire inside JSON.
//!
//! Python sends `datetime(2026, 11, 22)` as `{"__type__": "datetime", "__value__": "2026-11-22T00:00:00"}`. A task here takes
//! plain types, so envelopes are unwrapped when arguments and results are decoded, and not before: what is only passed on, to a
//! retry or to the next step of a chain, passes as it came.
//!
//! | Python | unwrapped to | and so a task takes |
//! |---|---|---|
//! | `datetime`, `date`, `time` | ISO 8601 text | `chrono::DateTime<Utc>` (with an offset), `NaiveDateTime`, `NaiveDate`, `NaiveTime`, `String` |
//! | `Decimal` | text | any decimal type that reads text, `String` |
//! | `UUID` | text with hyphens | `uuid::Uuid`, `String` |
//! | `bytes` | an array of numbers | `Vec<u8>` |
//!
//! The other way, a plain `Uuid` reaches Python as text. [`Typed`] sends it as what it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

const TYPE: &str = "__type__";
const VALUE: &str = "__value__";

/// A value that Python is to receive as its own type, not as text: `Typed(uuid)` becomes a `uuid.UUID` there.
///
/// It reads both forms. A `datetime` without an offset is UTC, as in Celery.
///
/// ```
/// use celeriac::task::Typed;
/// let day = chrono::NaiveDate::from_ymd_opt(2026, 11, 22).unwrap();
/// let json = serde_json::to_string(&Typed(day)).unwrap();
/// assert_eq!(json, r#"{"__type__":"date","__value__":"2026-11-22"}"#);
/// assert_eq!(serde_json::from_str::<Typed<chrono::NaiveDate>>(&json).unwrap().0, day);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Typed<T>(pub T);

/// A type that Python has too, and kombu an envelope for.
pub trait Enveloped: Sized {
    /// Kombu's name of the type, and the value inside of the envelope.
    fn wrap(&self) -> (&'static str, Value);
    /// From what an envelope is unwrapped to.
    ///
    /// # Errors
    /// It is no value of this type.
    fn unwrapped(plain: Value) -> Result<Self, String>;
}

impl<T: Enveloped> Serialize for Typed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, value) = self.0.wrap();
        json!({ TYPE: name, VALUE: value }).serialize(serializer)
    }
}

impl<'de, T: Enveloped> Deserialize<'de> for Typed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        unwrap(&mut value);
        T::unwrapped(value).map(Self).map_err(D::Error::custom)
    }
}

/// Reads a value, and every envelope in it as what it holds.
///
/// # Errors
/// It is no JSON, or not of this type.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    match serde_json::from_str(text) {
        // A type that reads envelopes itself (`Typed`, `Value`) gets them; the usual case has none.
        Ok(value) => Ok(value),
        Err(_) if text.contains(TYPE) => {
            let mut value = serde_json::from_str(text)?;
            unwrap(&mut value);
            serde_json::from_value(value)
        }
        Err(error) => Err(error),
    }
}

/// Replaces every envelope in `value` by what it holds. An object with other keys beside, of a type that kombu does not
/// know, or with a value that is not of its type, stays what it is.
pub fn unwrap(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(unwrap),
        Value::Object(fields) => {
            let plain = match (fields.len(), fields.get(TYPE), fields.get(VALUE)) {
                (2, Some(Value::String(name)), Some(value)) => plain(name, value),
                _ => None,
            };
            match plain {
                Some(plain) => *value = plain,
                None => fields.values_mut().for_each(unwrap),
            }
        }
        _ => {}
    }
}

fn plain(name: &str, value: &Value) -> Option<Value> {
    match name {
        "datetime" | "date" | "time" | "decimal" => value.as_str().map(Value::from),
        "uuid" => {
            let hex = value.get("hex").unwrap_or(value).as_str()?;
            Some(uuid::Uuid::try_parse(hex).ok()?.hyphenated().to_string().into())
        }
        "bytes" => Some(value.as_str()?.as_bytes().into()),
        "base64" => Some(BASE64.decode(value.as_str()?).ok()?.into()),
        _ => None,
    }
}

/// Types that serde reads from the text inside of the envelope.
macro_rules! textual {
    ($($type:ty => $name:literal, $write:expr;)*) => {$(
        impl Enveloped for $type {
            fn wrap(&self) -> (&'static str, Value) {
                let write: fn(&$type) -> Value = $write;
                ($name, write(self))
            }

            fn unwrapped(plain: Value) -> Result<Self, String> {
                serde_json::from_value(plain).map_err(|error| error.to_string())
            }
        }
    )*};
}

textual! {
    DateTime<FixedOffset> => "datetime", |time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, false).into();
    NaiveDateTime => "datetime", |time| time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string().into();
    NaiveDate => "date", |date| date.format("%Y-%m-%d").to_string().into();
    NaiveTime => "time", |time| time.format("%H:%M:%S%.6f").to_string().into();
    uuid::Uuid => "uuid", |uuid| json!({ "hex": uuid.simple().to_string() });
}

impl Enveloped for DateTime<Utc> {
    fn wrap(&self) -> (&'static str, Value) {
        ("datetime", self.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string().into())
    }

    fn unwrapped(plain: Value) -> Result<Self, String> {
        let aware = serde_json::from_value::<Self>(plain.clone());
        aware.or_else(|error| {
            serde_json::from_value::<NaiveDateTime>(plain)
                .map(|naive| naive.and_utc())
                .map_err(|_| error.to_string())
        })
    }
}

impl Enveloped for Vec<u8> {
    fn wrap(&self) -> (&'static str, Value) {
        match std::str::from_utf8(self) {
            Ok(text) => ("bytes", text.into()),
            Err(_) => ("base64", BASE64.encode(self).into()),
        }
    }

    fn unwrapped(plain: Value) -> Result<Self, String> {
        serde_json::from_value(plain).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    #[test]
    fn plain_types_take_what_python_sends() {
        fn takes<T: DeserializeOwned + PartialEq + Debug>(json: &str, expected: T) {
            assert_eq!(from_str::<(T,)>(&format!("[{json}]")).unwrap().0, expected, "{json}");
        }
        let noon: DateTime<Utc> = "2026-11-22T12:00:00Z".parse().unwrap();
        takes(r#"{"__type__":"datetime","__value__":"2026-11-22T21:00:00+09:00"}"#, noon);
        takes(r#"{"__type__":"datetime","__value__":"2026-11-22T12:00:00"}"#, noon.naive_utc());
        takes(r#"{"__type__":"date","__value__":"2026-11-22"}"#, noon.date_naive());
        takes(r#"{"__type__":"time","__value__":"12:00:00"}"#, noon.time());
        takes(r#"{"__type__":"decimal","__value__":"1.10"}"#, "1.10".to_owned());
        let uuid = uuid::Uuid::from_u128(7);
        takes(r#"{"__type__":"uuid","__value__":{"hex":"00000000000000000000000000000007"}}"#, uuid);
        takes(r#"{"__type__":"bytes","__value__":"ab"}"#, b"ab".to_vec());
        takes(r#"{"__type__":"base64","__value__":"//4="}"#, vec![0xff, 0xfe]);
        takes(r#"[{"__type__":"bytes","__value__":""}]"#, vec![Vec::<u8>::new()]);
    }

    #[test]
    fn typed_values_come_back_and_bear_kombus_names() {
        fn there_and_back<T: Enveloped + PartialEq + Debug + Clone>(value: T, json: &str) {
            assert_eq!(serde_json::to_string(&Typed(value.clone())).unwrap(), json);
            assert_eq!(serde_json::from_str::<Typed<T>>(json).unwrap().0, value);
        }
        let noon: DateTime<Utc> = "2026-11-22T12:00:00.5Z".parse().unwrap();
        there_and_back(noon, r#"{"__type__":"datetime","__value__":"2026-11-22T12:00:00.500000+00:00"}"#);
        there_and_back(
            noon.naive_utc(),
            r#"{"__type__":"datetime","__value__":"2026-11-22T12:00:00.500000"}"#,
        );
        there_and_back(noon.date_naive(), r#"{"__type__":"date","__value__":"2026-11-22"}"#);
        there_and_back(noon.time(), r#"{"__type__":"time","__value__":"12:00:00.500000"}"#);
        there_and_back(
            uuid::Uuid::from_u128(7),
            r#"{"__type__":"uuid","__value__":{"hex":"00000000000000000000000000000007"}}"#,
        );
        there_and_back(b"ab".to_vec(), r#"{"__type__":"bytes","__value__":"ab"}"#);
        there_and_back(vec![0xff_u8, 0xfe], r#"{"__type__":"base64","__value__":"//4="}"#);
        let naive = serde_json::from_str::<Typed<DateTime<Utc>>>(r#""2026-11-22T12:00:00.5""#).unwrap();
        assert_eq!(naive.0, noon);
    }

    #[test]
    fn what_is_no_envelope_stays() {
        for json in [
            r#"{"__type__":"money","__value__":"5"}"#,
            r#"{"__type__":"uuid","__value__":"nonsense"}"#,
            r#"{"__type__":"date","__value__":5}"#,
            r#"{"__type__":"date"}"#,
            r#"{"__type__":"date","__value__":"2026-11-22","more":1}"#,
        ] {
            let mut value: Value = serde_json::from_str(json).unwrap();
            unwrap(&mut value);
            assert_eq!(value, serde_json::from_str::<Value>(json).unwrap());
        }
    }
}

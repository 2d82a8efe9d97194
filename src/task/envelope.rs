//! Kombu's type envelopes: the form in which Python's dates, times, decimals, UUIDs and bytes cross the wire inside
//! JSON.
//!
//! Python sends `datetime(2026, 11, 22)` as `{"__type__": "datetime", "__value__": "2026-11-22T00:00:00"}`. A task here
//! takes plain types, so arguments and results are unwrapped when they are decoded, and not before. That holds for a
//! `Value` and a [`Json`](super::Json) too. A value that is only passed on, to a retry or to the next step of a chain,
//! passes as it came.
//!
//! | Python | unwrapped to | and so a task takes |
//! |---|---|---|
//! | `datetime`, `date`, `time` | ISO 8601 text | `chrono::DateTime<Utc>` (with an offset), `NaiveDateTime`, `NaiveDate`, `NaiveTime`, `String` |
//! | `Decimal` | text | any decimal type that reads text, `String` |
//! | `UUID` | text with hyphens | `uuid::Uuid`, `String` |
//! | `bytes` | an array of numbers | `Vec<u8>` |
//!
//! In the other direction, a plain `Uuid` reaches Python as text. [`Typed`] sends the value as its own type.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::token::{Token, Tokens};

const TYPE: &str = "__type__";
const VALUE: &str = "__value__";
/// The only key of a UUID's value.
const HEX: &str = "hex";

/// A value that Python receives as its own type and not as text: `Typed(uuid)` becomes a `uuid.UUID` there.
///
/// A `Typed` value is read from an envelope and from the plain form. A `datetime` without an offset is in UTC, as in
/// Celery.
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

/// A type that Python has too, and for which kombu has an envelope.
pub trait Enveloped: Sized {
    /// Kombu's name of the type, and the value inside the envelope.
    fn wrap(&self) -> (&'static str, Value);
    /// Makes a value from the plain form that an envelope is unwrapped to.
    ///
    /// # Errors
    /// The plain form is no value of this type.
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

/// Decodes JSON text and unwraps every envelope in it, also inside a [`Value`].
///
/// # Errors
/// The text is not JSON, or is not of this type.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    match unwrapped(text) {
        Cow::Borrowed(text) => serde_json::from_str(text),
        // A type may want a value that looks like an envelope of kombu's as it is.
        Cow::Owned(plain) => {
            serde_json::from_str(&plain).or_else(|error| serde_json::from_str(text).map_err(|_| error))
        }
    }
}

/// Replaces every envelope in a JSON text by the value that it holds; everything else stays as it was written.
pub(crate) fn unwrapped(text: &str) -> Cow<'_, str> {
    // Most texts have no envelope.
    if !has_envelopes(text) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut copied) = (String::new(), 0);
    let mut tokens = Tokens::of(text);
    while let Some(token) = tokens.next() {
        if token != Token::Open(b'{') {
            continue;
        }
        let (start, mut inside) = (tokens.at() - 1, tokens.clone());
        if let Some(plain) = envelope(&mut inside) {
            out.push_str(&text[copied..start]);
            out.push_str(&plain.to_string());
            copied = inside.at();
            tokens = inside;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Whether the text may have an envelope in it.
pub(crate) fn has_envelopes(text: &str) -> bool {
    // One byte is found faster than a word, and most texts have no object in them.
    text.contains('{') && text.contains(TYPE)
}

/// Reads the envelope whose brace has just been opened, and answers with the value that it holds. It stops at the first
/// token that rules an envelope out, so that a text is read once, however it is nested.
fn envelope(tokens: &mut Tokens<'_>) -> Option<Value> {
    let text = |tokens: &mut Tokens<'_>| match tokens.next()? {
        Token::Text(text) => serde_json::from_str::<String>(text).ok(),
        _ => None,
    };
    let (mut name, mut value) = (None, None);
    for end in [Token::Comma, Token::Close] {
        let key = text(tokens)?;
        tokens.next().filter(|token| *token == Token::Colon)?;
        match key.as_str() {
            TYPE => name = Some(text(tokens)?),
            VALUE => {
                let mut object = tokens.clone();
                if object.next() == Some(Token::Open(b'{')) {
                    *tokens = object;
                    let key = text(tokens).filter(|key| key == HEX)?;
                    tokens.next().filter(|token| *token == Token::Colon)?;
                    value = Some(json!({ key: text(tokens)? }));
                    tokens.next().filter(|token| *token == Token::Close)?;
                } else {
                    value = Some(text(tokens)?.into());
                }
            }
            _ => return None,
        }
        tokens.next().filter(|token| *token == end)?;
    }
    plain(&name?, &value?)
}

/// Replaces every envelope in `value` by what it holds. An object stays as it is if it has other keys, is of a type
/// that kombu does not know, or holds a value that is not of its type.
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
            let hex = value.get(HEX).unwrap_or(value).as_str()?;
            Some(uuid::Uuid::try_parse(hex).ok()?.hyphenated().to_string().into())
        }
        "bytes" => Some(value.as_str()?.as_bytes().into()),
        "base64" => Some(BASE64.decode(value.as_str()?).ok()?.into()),
        _ => None,
    }
}

/// The types that serde reads from the text inside the envelope.
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
    fn all_else_stays_as_it_was_written() {
        let date = r#"{"__value__" : "2026-11-22", "__type__":"date"}"#;
        let text = format!(r#"{{ "z": [1e400, {date}, "\ud83d"], "a": {{"b": {date}, "__type__": 1}}}}"#);
        let plain = r#"{ "z": [1e400, "2026-11-22", "\ud83d"], "a": {"b": "2026-11-22", "__type__": 1}}"#;
        assert_eq!(unwrapped(&text), plain);
        let deep = format!("{}{date}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(unwrapped(&deep).len(), 200_000 + "\"2026-11-22\"".len());
        let open = r#"{"__value__":"#.repeat(200_000);
        assert_eq!(unwrapped(&format!("{open}\"__type__\"")).len(), open.len() + 10, "in a moment");
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

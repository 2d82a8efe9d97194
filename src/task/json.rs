//! JSON that is passed on as its sender wrote it.
//!
//! The value of a task goes to the next step of a chain, an argument of a later step waits in a message, the parts of a
//! chord wait in a store: Celeriac has no need to read any of these. If it read them into a [`Value`] and wrote them
//! again, 10³⁰ would become a float, and the keys of an object would change their order. So JSON that is only passed on
//! stays text, and clones share it.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Index};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Number, Value};

use super::finite::Finite;
use super::token::readable;

/// A JSON value as the text that its sender wrote: numbers with all of their digits, keys in their order. A clone
/// shares the text.
///
/// It dereferences to a [`Value`], so `meta["done"]` and `meta.as_u64()` work. [`text`](Self::text) and
/// [`decode`](Self::decode) have what a `Value` [cannot hold](Self::value), such as 10³⁰ to the last digit. A task may
/// take a `Json` as a parameter, and may return one.
///
/// ```
/// use celeriac::task::Json;
/// let json: Json = r#"{"z": 1000000000000000000000000000000, "a": 0.1}"#.parse().unwrap();
/// assert_eq!(json["a"], 0.1);
/// assert_eq!(json.text(), r#"{"z": 1000000000000000000000000000000, "a": 0.1}"#);
/// ```
///
/// Whatever always has a form in JSON converts to it with `into()`. A float goes through [`encode`](Self::encode),
/// because NaN has no such form, and null in its place would be another value:
///
/// ```
/// # use celeriac::task::Json;
/// assert_eq!(Json::encode(&0.5).unwrap().text(), "0.5");
/// assert!(Json::encode(&f64::NAN).is_err());
/// ```
/// ```compile_fail,E0277
/// # use celeriac::task::Json;
/// let json: Json = f64::NAN.into();
/// ```
#[derive(Clone)]
pub struct Json(Arc<JsonInner>);

struct JsonInner {
    text: Box<RawValue>,
    /// The parsed value, once somebody has asked for it.
    value: OnceLock<Box<Value>>,
}

impl Json {
    /// Encodes `value` as JSON.
    ///
    /// # Errors
    /// The value has no form in JSON: it is a map whose keys are not text, or a number that is NaN or infinite.
    pub fn encode(value: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        to_raw_value(&Finite(value)).map(Self::of)
    }

    fn of(text: Box<RawValue>) -> Self {
        Self(Arc::new(JsonInner { text, value: OnceLock::new() }))
    }

    /// Makes a JSON list of these items.
    pub(crate) fn list(items: &[Self]) -> Self {
        // The items are JSON already, so this cannot fail.
        to_raw_value(items).map(Self::of).unwrap_or_default()
    }

    /// The text as its sender wrote it.
    pub fn text(&self) -> &str {
        self.0.text.get()
    }

    /// Decodes the text as it is, envelopes included.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.text())
    }

    /// Decodes the text. An [envelope](super::envelope) in it is decoded as the value that it holds.
    ///
    /// # Errors
    /// The text is no `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        super::envelope::from_str(self.text())
    }

    /// The parsed value, for a look at it. What no `Value` can hold is shown as what comes near: half of a surrogate
    /// pair as U+FFFD, a number beyond all floats as the largest float, an integer beyond 64 bits as a float, and what is
    /// nested more than 120 levels deep as null. [`decode`](Self::decode) refuses what a type cannot hold.
    pub fn value(&self) -> &Value {
        self.0.value.get_or_init(|| Box::new(look(self.text()).unwrap_or_default()))
    }
}

/// Parses a text for somebody who only looks at it: whatever a `Value` cannot hold becomes [what comes
/// near](super::token::readable), and the rest stays. `None`: the text is not JSON.
pub(crate) fn look(text: &str) -> Option<Value> {
    serde_json::from_str(text).or_else(|_| serde_json::from_str(&readable(text))).ok()
}

impl FromStr for Json {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        RawValue::from_string(text.to_owned()).map(Self::of)
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::of(RawValue::NULL.to_owned())
    }
}

impl Deref for Json {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.value()
    }
}

/// Conversions from what always has a form in JSON. A float has none if it is NaN or infinite, so there is none from a
/// float: [`Json::encode`] takes it, and says so.
macro_rules! from_certain {
    ($($type:ty),* $(,)?) => {$(
        impl From<$type> for Json {
            fn from(value: $type) -> Self {
                Self::of(to_raw_value(&value).unwrap_or_else(|_| RawValue::NULL.to_owned()))
            }
        }
    )*};
}

from_certain! {
    (), bool, i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize,
    &str, String, Cow<'_, str>, Value, Number, Map<String, Value>,
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Self {
        let items: Vec<Self> = items.into_iter().map(Into::into).collect();
        Self::list(&items)
    }
}

impl<T: Into<Json>, const N: usize> From<[T; N]> for Json {
    fn from(items: [T; N]) -> Self {
        let items: [Self; N] = items.map(Into::into);
        Self::list(&items)
    }
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or_else(Self::default, Into::into)
    }
}

/// Two JSON values are equal if their texts are.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.text() == other.text()
    }
}

impl<T> PartialEq<T> for Json
where
    Value: PartialEq<T>,
{
    fn eq(&self, other: &T) -> bool {
        *self.value() == *other
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

// A storage format that does not describe itself gets the value as a string.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.0.text.serialize(serializer)
        } else {
            serializer.serialize_str(self.text())
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Box::<RawValue>::deserialize(deserializer).map(Self::of);
        }
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A JSON object whose values are passed on as they are, in the order in which they came. Of two of one name the last counts,
/// as in Python. A copy costs nothing until one of the two is changed.
#[derive(Clone, Default)]
pub struct JsonMap(Option<Arc<IndexMap<String, Json>>>);

impl JsonMap {
    /// Makes a map without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is to be changed, of which others may have copies.
    fn own(&mut self) -> &mut IndexMap<String, Json> {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.0.as_deref()?.get(name)
    }

    /// Whether the map has a value of this name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Sets a value, in the place of an earlier one of that name or at the end. Answers with the earlier value.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Json>) -> Option<Json> {
        self.own().insert(name.into(), value.into())
    }

    /// Removes a value. The others keep their order.
    pub fn remove(&mut self, name: &str) -> Option<Json> {
        if self.contains_key(name) { self.own().shift_remove(name) } else { None }
    }

    /// Returns the number of values in the map.
    pub fn len(&self) -> usize {
        self.0.as_deref().map_or(0, IndexMap::len)
    }

    /// Whether the map is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().flat_map(|map| map.iter()).map(|(name, value)| (name.as_str(), value))
    }

    /// The map as the text of a JSON object.
    pub(crate) fn to_text(&self) -> String {
        // Names and JSON values always have a form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Two maps are equal when they have the same values by the same names, in whichever order.
impl PartialEq for JsonMap {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(another)) => Arc::ptr_eq(one, another) || one == another,
            _ => self.is_empty() && other.is_empty(),
        }
    }
}

impl Index<&str> for JsonMap {
    type Output = Json;

    /// The value of this name.
    ///
    /// # Panics
    /// The map has no value of this name.
    fn index(&self, name: &str) -> &Json {
        match self.get(name) {
            Some(value) => value,
            None => panic!("there is no `{name}` in this map"),
        }
    }
}

impl IntoIterator for JsonMap {
    type Item = (String, Json);
    type IntoIter = indexmap::map::IntoIter<String, Json>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map(Arc::unwrap_or_clone).unwrap_or_default().into_iter()
    }
}

impl Extend<(String, Json)> for JsonMap {
    fn extend<I: IntoIterator<Item = (String, Json)>>(&mut self, entries: I) {
        let mut entries = entries.into_iter().peekable();
        if entries.peek().is_some() {
            self.own().extend(entries);
        }
    }
}

impl FromIterator<(String, Json)> for JsonMap {
    fn from_iter<I: IntoIterator<Item = (String, Json)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl From<Map<String, Value>> for JsonMap {
    fn from(map: Map<String, Value>) -> Self {
        map.into_iter().map(|(name, value)| (name, value.into())).collect()
    }
}

impl fmt::Debug for JsonMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for JsonMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for JsonMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JsonMapVisitor;

        impl<'de> Visitor<'de> for JsonMapVisitor {
            type Value = JsonMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<JsonMap, A::Error> {
                let mut map = JsonMap::new();
                while let Some((name, value)) = entries.next_entry::<String, Json>()? {
                    map.insert(name, value);
                }
                Ok(map)
            }
        }

        deserializer.deserialize_map(JsonMapVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers that a `Value` changes or cannot hold, and other odd ones.
    const NUMBERS: [&str; 14] = [
        "1e400",
        "-0.0",
        "-0",
        "1E+2",
        "1.0",
        "1000000000000000000000000000000",
        "0.30000000000000004",
        "117.63331139400017",
        "18446744073709551615",
        "-9223372036854775808",
        "340282366920938463463374607431768211455",
        "5e-324",
        "1.7976931348623157e308",
        "0.1000000000000000055511151231257827021181583404541015625",
    ];

    #[test]
    fn text_stays_what_it_is() {
        let text = format!(r#"{{"z": [{}],  "a":"\ud83d", "b" : {{"y":1,"x":2}}}}"#, NUMBERS.join(", "));
        let json: Json = text.parse().unwrap();
        assert_eq!(json.text(), text);
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap().text(), text);
        let bytes = postcard::to_stdvec(&json).unwrap();
        assert_eq!(postcard::from_bytes::<Json>(&bytes).unwrap().text(), text);
        let map: JsonMap = serde_json::from_str(&text).unwrap();
        assert_eq!(map.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["z", "a", "b"]);
        assert_eq!(map["b"].text(), r#"{"y":1,"x":2}"#);
        assert_eq!(map.to_text(), format!(r#"{{"z":{},"a":"\ud83d","b":{}}}"#, map["z"], map["b"]));
        let mut copy = map.clone();
        copy.insert("c", 1);
        assert_eq!((map.len(), copy.len(), copy.remove("none")), (3, 4, None), "copies are changed alone");
        assert_eq!((JsonMap::new(), copy == map), (JsonMap::from_iter([]), false));
        for wrong in ["", "NaN", "[1", "{\"a\":Infinity}", "1 2"] {
            assert!(wrong.parse::<Json>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_reads_as_a_value() {
        let json = Json::from(serde_json::json!({"a": [1, "x"], "n": null}));
        assert_eq!(json["a"][1], "x");
        assert_eq!(json, serde_json::json!({"n": null, "a": [1, "x"]}));
        assert!(json["n"].is_null() && json["none"].is_null());
        assert_eq!((Json::from(5), Json::from("s"), Json::default()), (5.into(), "s".into(), ().into()));
        assert_eq!(Json::list(&[5.into(), "s".into()]).text(), r#"[5,"s"]"#);
        assert_eq!(Json::from(vec![Some("a"), None]).text(), r#"["a",null]"#);
        assert_eq!(Json::from([10_u128.pow(30)]).text(), "[1000000000000000000000000000000]");
        let twice: JsonMap = serde_json::from_str(r#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!((twice.len(), &twice["a"]), (2, &3.into()));
    }

    #[test]
    fn an_odd_part_takes_nothing_else_along() {
        let text = r#"{"errors": ["cut \ud83d"], "n": 1e400, "big": 1000000000000000000000000000000}"#;
        let json: Json = text.parse().unwrap();
        assert_eq!(json["errors"][0], "cut \u{fffd}");
        assert_eq!((json["n"].as_f64(), json["big"].as_f64()), (Some(f64::MAX), Some(1e30)));
        assert!(json.text() == text && json.decode::<Value>().is_err(), "it is read no less strictly");
        let deep: Json = format!("[1,{}{}]", "[".repeat(1000), "]".repeat(1000)).parse().unwrap();
        assert_eq!(deep[0], 1);
    }

    proptest! {
        #[test]
        fn every_float_comes_back_bit_for_bit(bits: u64) {
            let float = f64::from_bits(bits);
            prop_assume!(float.is_finite());
            let json = Json::encode(&float).unwrap();
            prop_assert_eq!(json.decode::<f64>().unwrap().to_bits(), bits);
            prop_assert_eq!(json.as_f64().unwrap().to_bits(), bits, "through a value");
            let again = Json::from(json.value().clone());
            prop_assert_eq!(again.text(), json.text());
        }

        #[test]
        fn every_small_float_too(bits: u32) {
            let float = f32::from_bits(bits);
            prop_assume!(float.is_finite());
            let json = Json::encode(&float).unwrap();
            prop_assert_eq!(json.decode::<f32>().unwrap().to_bits(), bits);
        }

        #[test]
        fn every_integer_too(number: i128) {
            prop_assert_eq!(Json::encode(&number).unwrap().decode::<i128>().unwrap(), number);
        }
    }
}

//! Between AMQP's field tables and basic properties, and the plain JSON of [`WireMessage`].

use std::borrow::Cow;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use serde_json::{Map, Number, Value};

use crate::protocol::{Field, Properties, Table, WireMessage};

/// Headers where they came.
pub(super) struct Came<'a>(pub(super) Option<&'a FieldTable>);

impl Came<'_> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.is_some_and(|table| table.inner().contains_key(name))
    }
}

impl Table for Came<'_> {
    fn get(&self, name: &str) -> Option<Field<'_>> {
        self.0?.inner().get(name).map(to_header)
    }

    fn each(&self, show: &mut dyn FnMut(&str, Field<'_>)) {
        let headers = self.0.into_iter().flat_map(|table| table.inner());
        headers.for_each(|(name, value)| show(name.as_str(), to_header(value)));
    }
}

fn to_header(value: &AMQPValue) -> Field<'_> {
    match value {
        AMQPValue::LongString(text) => Field::Text(String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::ShortString(text) => Field::Text(text.as_str().into()),
        AMQPValue::ByteArray(bytes) => Field::Text(String::from_utf8_lossy(bytes.as_slice())),
        other => Field::Json(Cow::Owned(to_json(other))),
    }
}

/// A field table of a JSON object. Keys that do not fit are left out: no broker could take them.
pub(super) fn to_table(map: Map<String, Value>) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in map {
        if let Ok(key) = ShortString::try_new(key) {
            table.insert(key, to_field(value));
        }
    }
    table
}

fn to_field(value: Value) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(b) => AMQPValue::Boolean(b),
        Value::Number(n) => match n.as_i64() {
            Some(n) => i32::try_from(n).map_or(AMQPValue::LongLongInt(n), AMQPValue::LongInt),
            None => AMQPValue::Double(n.as_f64().unwrap_or(f64::MAX)),
        },
        Value::String(s) => AMQPValue::LongString(s.into()),
        Value::Array(items) => {
            let mut array = FieldArray::default();
            items.into_iter().for_each(|item| array.push(to_field(item)));
            AMQPValue::FieldArray(array)
        }
        Value::Object(map) => AMQPValue::FieldTable(to_table(map)),
    }
}

/// A JSON object of a field table.
pub(super) fn to_map(table: &FieldTable) -> Map<String, Value> {
    table.inner().iter().map(|(key, value)| (key.as_str().to_owned(), to_json(value))).collect()
}

fn to_json(value: &AMQPValue) -> Value {
    let float = |f: f64| Number::from_f64(f).map_or(Value::Null, Value::Number);
    let text = |bytes: &[u8]| Value::String(String::from_utf8_lossy(bytes).into_owned());
    match value {
        AMQPValue::Boolean(b) => (*b).into(),
        AMQPValue::ShortShortInt(n) => (*n).into(),
        AMQPValue::ShortShortUInt(n) => (*n).into(),
        AMQPValue::ShortInt(n) => (*n).into(),
        AMQPValue::ShortUInt(n) => (*n).into(),
        AMQPValue::LongInt(n) => (*n).into(),
        AMQPValue::LongUInt(n) => (*n).into(),
        AMQPValue::LongLongInt(n) => (*n).into(),
        AMQPValue::Float(f) => float(f64::from(*f)),
        AMQPValue::Double(f) => float(*f),
        AMQPValue::DecimalValue(d) => float(f64::from(d.value) / 10_f64.powi(i32::from(d.scale))),
        AMQPValue::ShortString(s) => s.as_str().into(),
        AMQPValue::LongString(s) => text(s.as_bytes()),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(to_json).collect(),
        AMQPValue::Timestamp(t) => (*t).into(),
        AMQPValue::FieldTable(table) => Value::Object(to_map(table)),
        AMQPValue::ByteArray(bytes) => text(bytes.as_slice()),
        AMQPValue::Void => Value::Null,
    }
}

/// The properties that came off the wire.
pub(super) fn properties(properties: &BasicProperties) -> Properties {
    let text = |s: &Option<ShortString>| s.as_ref().map(|s| s.as_str().to_owned());
    Properties {
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        delivery_mode: *properties.delivery_mode(),
        priority: *properties.priority(),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        expiration: text(properties.expiration()),
    }
}

/// What came off the wire.
pub(super) fn to_wire(properties: &BasicProperties, body: Vec<u8>) -> WireMessage {
    WireMessage {
        properties: self::properties(properties),
        headers: properties.headers().as_ref().map(to_map).unwrap_or_default(),
        body,
    }
}

/// What goes on the wire.
pub(super) fn to_properties(properties: Properties, headers: Map<String, Value>) -> BasicProperties {
    let short = |s: Option<String>| ShortString::try_new(s?).ok();
    let mut basic = BasicProperties::default();
    if let Some(s) = short(properties.content_type) {
        basic = basic.with_content_type(s);
    }
    if let Some(s) = short(properties.content_encoding) {
        basic = basic.with_content_encoding(s);
    }
    if let Some(n) = properties.delivery_mode {
        basic = basic.with_delivery_mode(n);
    }
    if let Some(n) = properties.priority {
        basic = basic.with_priority(n);
    }
    if let Some(s) = short(properties.correlation_id) {
        basic = basic.with_correlation_id(s);
    }
    if let Some(s) = short(properties.reply_to) {
        basic = basic.with_reply_to(s);
    }
    if let Some(s) = short(properties.expiration) {
        basic = basic.with_expiration(s);
    }
    basic.with_headers(to_table(headers))
}

/// Headers of a message that is published again, without what RabbitMQ wrote there on its way so far.
pub(super) fn without_traces(mut headers: Map<String, Value>) -> Map<String, Value> {
    headers.retain(|key, _| {
        key != "x-death"
            && key != "x-delivery-count"
            && !key.starts_with("x-first-death-")
            && !key.starts_with("x-last-death-")
    });
    headers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn headers_are_the_same_after_a_round_trip() {
        let headers = json!({
            "task": "t.add", "eta": null, "retries": 3, "big": 1_u64 << 40, "ratio": 0.5, "ok": true,
            "timelimit": [null, 20], "stamps": {"a": ["b", 1]}, "text": "ä",
        });
        let Value::Object(map) = headers else { panic!("an object") };
        assert_eq!(to_map(&to_table(map.clone())), map);
    }

    #[test]
    fn headers_read_where_they_are_are_the_same_as_in_a_map() {
        let mut table =
            to_table(Map::from_iter([("n".to_owned(), json!(3)), ("text".to_owned(), json!("ä"))]));
        table.insert("void".into(), AMQPValue::Void);
        table.insert("bytes".into(), AMQPValue::ByteArray(vec![0xff, b'a'].into()));
        table.insert("short".into(), AMQPValue::ShortString("s".into()));
        let map = to_map(&table);
        let came = Came(Some(&table));
        let mut seen = Map::new();
        came.each(&mut |name, field| drop(seen.insert(name.to_owned(), field.into_value())));
        assert_eq!(seen, map);
        for name in ["n", "text", "void", "bytes", "short", "none"] {
            let (here, there) = (came.get(name), Table::get(&map, name));
            assert_eq!(here.map(Field::into_value), there.map(Field::into_value), "{name}");
        }
        assert!(came.has("void") && !came.has("none") && !Came(None).has("n"));
    }

    #[test]
    fn what_is_no_json_becomes_something_that_is() {
        assert_eq!(to_json(&AMQPValue::Double(f64::NAN)), Value::Null);
        assert_eq!(to_json(&AMQPValue::LongString(vec![0xff, b'a'].into())), json!("\u{fffd}a"));
        assert_eq!(to_json(&AMQPValue::ShortShortInt(-1)), json!(-1));
        let long = Map::from_iter([("k".repeat(300), Value::Null)]);
        assert!(to_map(&to_table(long)).is_empty());
    }
}

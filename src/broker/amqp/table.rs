//! Converts between AMQP's field tables and basic properties, and the plain JSON of [`WireMessage`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use serde_json::{Map, Number, Value};

use crate::protocol::{BorrowedProperties, Field, Properties, Table, WireMessage};
use crate::task::wire_names::{check_length, check_property};

/// The headers of a message, read where they came.
pub(super) struct IncomingHeaders<'a>(pub(super) Option<&'a FieldTable>);

impl IncomingHeaders<'_> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.is_some_and(|table| table.inner().contains_key(name))
    }
}

impl Table for IncomingHeaders<'_> {
    fn get(&self, name: &str) -> Option<Field<'_>> {
        self.0?.inner().get(name).map(to_header)
    }

    fn each(&self, show: &mut dyn FnMut(&str, Field<'_>)) {
        let headers = self.0.into_iter().flat_map(|table| table.inner());
        headers.for_each(|(name, value)| show(name.as_str(), to_header(value)));
    }

    fn each_of(&self, wanted: &dyn Fn(&str) -> bool, show: &mut dyn FnMut(&str, Field<'_>)) {
        let headers = self.0.into_iter().flat_map(|table| table.inner());
        let headers = headers.filter(|(name, _)| wanted(name.as_str()));
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

/// Checks that AMQP can carry all names in these headers, and these properties: it has 255 bytes for each.
///
/// # Errors
/// One is too long; the text says which one.
pub(super) fn check_names(properties: &Properties, headers: &Map<String, Value>) -> Result<(), String> {
    headers.iter().try_for_each(|(name, value)| check_length("header", name, value))?;
    for (name, text) in [
        ("content_type", &properties.content_type),
        ("content_encoding", &properties.content_encoding),
        ("correlation_id", &properties.correlation_id),
        ("reply_to", &properties.reply_to),
        ("expiration", &properties.expiration),
        ("message_id", &properties.message_id),
        ("app_id", &properties.app_id),
        ("type", &properties.kind),
    ] {
        check_property(name, text.as_deref().unwrap_or_default())?;
    }
    Ok(())
}

/// A field table from a JSON object. Keys that are too long for AMQP are left out. A task that has one is refused before it
/// comes here ([`check_names`]); it is left out of what must be written whatever is in it: a dead letter, whose reason then
/// names it, and a copy of a message that RabbitMQ has delivered, which cannot have one.
pub(super) fn to_table(map: Map<String, Value>) -> FieldTable {
    let fields =
        map.into_iter().filter_map(|(key, value)| Some((ShortString::try_new(key).ok()?, to_field(value))));
    // Made in one go, because the keys are in their order already.
    fields.collect::<BTreeMap<_, _>>().into()
}

/// The field of a JSON value.
pub(super) fn to_field(value: Value) -> AMQPValue {
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

/// A JSON object from a field table.
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

/// The properties of a message that came from RabbitMQ.
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
        message_id: text(properties.message_id()),
        app_id: text(properties.app_id()),
        kind: text(properties.kind()),
    }
}

/// The properties of a message that came from RabbitMQ, where they lie.
pub(super) fn borrowed(properties: &BasicProperties) -> BorrowedProperties<'_> {
    fn text(text: &Option<ShortString>) -> Option<&str> {
        text.as_ref().map(ShortString::as_str)
    }
    BorrowedProperties {
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        delivery_mode: *properties.delivery_mode(),
        priority: *properties.priority(),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        message_id: text(properties.message_id()),
        app_id: text(properties.app_id()),
        kind: text(properties.kind()),
    }
}

/// A message that came from RabbitMQ, with its headers as JSON.
pub(super) fn to_wire(properties: &BasicProperties, body: Vec<u8>) -> WireMessage {
    WireMessage {
        properties: self::properties(properties),
        headers: properties.headers().as_ref().map(to_map).unwrap_or_default(),
        body,
    }
}

/// The properties of a message that goes to RabbitMQ. Texts that are too long for AMQP are left out, as by [`to_table`].
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
    if let Some(s) = short(properties.message_id) {
        basic = basic.with_message_id(s);
    }
    if let Some(s) = short(properties.app_id) {
        basic = basic.with_app_id(s);
    }
    if let Some(s) = short(properties.kind) {
        basic = basic.with_type(s);
    }
    basic.with_headers(to_table(headers))
}

/// The headers of a message that is published again, without those that RabbitMQ wrote on it so far.
pub(super) fn without_traces(mut headers: Map<String, Value>) -> Map<String, Value> {
    headers.retain(|key, _| !is_trace(key));
    headers
}

/// Whether RabbitMQ wrote this header, or copies messages by it: it would send the copies once more if it came
/// again.
pub(super) fn is_trace(name: &str) -> bool {
    matches!(name, "x-death" | "x-delivery-count" | "CC" | "BCC")
        || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-")
}

/// The first header whose value would change when it is sent on: text here is UTF-8, and numbers are finite.
pub(super) fn unlike(headers: &FieldTable) -> Option<&str> {
    headers.inner().iter().find(|(_, value)| !can_be_sent_on(value)).map(|(name, _)| name.as_str())
}

fn can_be_sent_on(value: &AMQPValue) -> bool {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).is_ok(),
        AMQPValue::ByteArray(bytes) => std::str::from_utf8(bytes.as_slice()).is_ok(),
        AMQPValue::Float(number) => number.is_finite(),
        AMQPValue::Double(number) => number.is_finite(),
        AMQPValue::FieldArray(items) => items.as_slice().iter().all(can_be_sent_on),
        AMQPValue::FieldTable(table) => unlike(table).is_none(),
        _ => true,
    }
}

/// The properties of a message that is sent on whole, with these headers: all that a client may send. It leaves
/// out `user_id`, which RabbitMQ refuses unless it is the sender's own, and the time to live, which would end a
/// message that is to be kept.
pub(super) fn sent_on(properties: &BasicProperties, headers: FieldTable) -> BasicProperties {
    let mut on = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
    macro_rules! copy {
        ($($of:ident => $with:ident)*) => {$(
            if let Some(value) = properties.$of().clone() {
                on = on.$with(value);
            }
        )*};
    }
    copy! {
        content_type => with_content_type
        content_encoding => with_content_encoding
        priority => with_priority
        correlation_id => with_correlation_id
        reply_to => with_reply_to
        message_id => with_message_id
        timestamp => with_timestamp
        kind => with_type
        app_id => with_app_id
        cluster_id => with_cluster_id
    }
    on
}

/// The bytes that the frame of these properties takes. RabbitMQ closes a connection on which a frame comes that is
/// larger than was agreed, and no client divides it.
pub(super) fn frame_size(properties: &BasicProperties) -> usize {
    // Type, channel, size, end; class, weight, size of the body, flags.
    const AROUND: usize = 8 + 14;
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.expiration(),
        properties.message_id(),
        properties.kind(),
        properties.user_id(),
        properties.app_id(),
        properties.cluster_id(),
    ];
    let texts: usize = texts.into_iter().flatten().map(|text| 1 + text.as_str().len()).sum();
    // Delivery mode, priority and timestamp.
    AROUND + 10 + texts + properties.headers().as_ref().map_or(0, table_size)
}

fn table_size(table: &FieldTable) -> usize {
    4 + table.inner().iter().map(|(name, value)| 1 + name.as_str().len() + field_size(value)).sum::<usize>()
}

/// The bytes of a value, with the byte that states its type.
fn field_size(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(items) => 4 + items.as_slice().iter().map(field_size).sum::<usize>(),
        AMQPValue::FieldTable(table) => table_size(table),
    }
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
        let came = IncomingHeaders(Some(&table));
        let mut seen = Map::new();
        came.each(&mut |name, field| drop(seen.insert(name.to_owned(), field.into_value())));
        assert_eq!(seen, map);
        let (mut some, mut none) = (Map::new(), 0);
        let wanted = |name: &str| ["n", "bytes"].contains(&name);
        came.each_of(&wanted, &mut |name, field| drop(some.insert(name.to_owned(), field.into_value())));
        assert_eq!(some.keys().collect::<Vec<_>>(), ["bytes", "n"]);
        assert!(some.iter().all(|(name, value)| map[name] == *value));
        came.each_of(&|_| false, &mut |_, _| none += 1);
        assert_eq!(none, 0);
        for name in ["n", "text", "void", "bytes", "short", "none"] {
            let (here, there) = (came.get(name), Table::get(&map, name));
            assert_eq!(here.map(Field::into_value), there.map(Field::into_value), "{name}");
        }
        assert!(came.has("void") && !came.has("none") && !IncomingHeaders(None).has("n"));
    }

    #[test]
    fn properties_are_read_where_they_lie_as_from_a_copy() {
        let all = BasicProperties::default()
            .with_content_type("a/b".into())
            .with_content_encoding("utf-8".into())
            .with_delivery_mode(1)
            .with_priority(3)
            .with_correlation_id("id".into())
            .with_reply_to("r".into())
            .with_message_id("m".into())
            .with_app_id("p".into())
            .with_type("t".into());
        for came in [BasicProperties::default(), all] {
            assert_eq!(borrowed(&came), BorrowedProperties::from(&properties(&came)));
        }
    }

    #[test]
    fn the_size_of_a_frame_is_counted_as_it_is_written() {
        let none = BasicProperties::default();
        assert_eq!(frame_size(&none), 32);
        let text =
            Map::from_iter([("ab".to_owned(), json!("ä")), ("n".to_owned(), json!([1, null, {"k": true}]))]);
        let properties = none.with_headers(to_table(text)).with_content_type("x/y".into());
        // 4: the content type; 4: the table; 3 + 1 + 4 + 2; 2 + 1 + 4 + (1 + 4) + 1 + (1 + 4 + 2 + 1 + 1).
        assert_eq!(frame_size(&properties), 32 + 4 + 4 + 10 + 7 + 5 + 1 + 9);
    }

    #[test]
    fn a_header_that_would_not_be_the_same_is_named() {
        let of = |value| FieldTable::from(std::collections::BTreeMap::from([("h".into(), value)]));
        let text = |bytes: &[u8]| AMQPValue::LongString(bytes.to_vec().into());
        for value in [text("\u{e4}".as_bytes()), AMQPValue::Void, AMQPValue::Double(0.5)] {
            assert_eq!(unlike(&of(value)), None);
        }
        for value in [
            text(b"\xff"),
            AMQPValue::ByteArray(vec![0xc3].into()),
            AMQPValue::Double(f64::NAN),
            AMQPValue::Float(f32::INFINITY),
            AMQPValue::FieldArray(vec![text(b"\xff")].into()),
            AMQPValue::FieldTable(of(text(b"\xff"))),
        ] {
            assert_eq!(unlike(&of(value)), Some("h"));
        }
    }

    #[test]
    fn a_message_is_sent_on_with_all_that_a_client_may_send() {
        let came = BasicProperties::default()
            .with_content_type("a/b".into())
            .with_expiration("5".into())
            .with_user_id("guest".into())
            .with_type("t".into())
            .with_message_id("m".into())
            .with_timestamp(7);
        let on = sent_on(&came, FieldTable::default());
        let expected = BasicProperties::default()
            .with_content_type("a/b".into())
            .with_headers(FieldTable::default())
            .with_delivery_mode(2)
            .with_type("t".into())
            .with_message_id("m".into())
            .with_timestamp(7);
        assert_eq!(on, expected);
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

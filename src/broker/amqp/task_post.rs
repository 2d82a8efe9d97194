//! Writes a task for its way to RabbitMQ.
//!
//! Each call comes through here, and its twenty headers are most of its cost. So the field table is made of the
//! [encoded](crate::protocol::encode_parts) task itself, without a map of JSON in between. The outcome is the same as that of
//! [`wire`](outgoing::wire), which takes messages that are in such a map already.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::Value;

use super::outgoing::{self, Way};
use super::post::{Aim, OutgoingMessage};
use super::table;
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::protocol::{self, ENCODING, EncodedTask, HeaderValue, JSON};
use crate::task::wire_names::{check_length, check_property};
use crate::task::{Message, RUN_ONCE_HEADER};

/// Writes a task, and addresses it to its queue: at once or, if `eta` is ahead, through the delay queues.
///
/// # Errors
/// The task has no form in Celery's protocol, or RabbitMQ cannot carry it.
pub(super) fn write(
    message: &Message,
    eta: Option<Timestamp>,
    now: Timestamp,
) -> Result<OutgoingMessage, BrokerError> {
    let task = protocol::encode_parts(message, now);
    let mut task = task.map_err(|error| BrokerError::Refused(error.to_string()))?;
    if task.headers.iter().any(|(_, value)| is_too_deep(value)) {
        return Err(outgoing::too_deep());
    }
    check_names(&task).map_err(outgoing::cannot_carry)?;
    let Way { exchange, key, aim } = Way::to(&message.queue, eta, now)?;
    // The queues of the delay levels would take the expiration for their own time to live.
    let may_expire = !matches!(aim, Aim::Delayed(_));
    let expiration = task.properties.expiration.take();
    let expiration = expiration.filter(|life| may_expire && outgoing::is_life(life));

    let mut once = false;
    let fields = task.headers.into_iter().filter_map(|(name, value)| {
        let asks_for_mark = name == RUN_ONCE_HEADER
            && matches!(&value, HeaderValue::Json(value) if **value == Value::Bool(true));
        once |= asks_for_mark;
        let field =
            if asks_for_mark { AMQPValue::LongString(outgoing::mark().into()) } else { to_field(value) };
        Some((ShortString::try_new(name).ok()?, field))
    });
    // Made in one go, because the names are in their order already.
    let headers: BTreeMap<ShortString, AMQPValue> = fields.collect();

    let given = task.properties;
    let mut properties = BasicProperties::default()
        .with_content_type(JSON.into())
        .with_content_encoding(ENCODING.into())
        .with_delivery_mode(2)
        .with_priority(given.priority)
        .with_headers(FieldTable::from(headers));
    let short = |text: Option<&str>| ShortString::try_new(text?).ok();
    if let Some(id) = short(Some(given.correlation_id)) {
        properties = properties.with_correlation_id(id);
    }
    if let Some(queue) = short(given.reply_to) {
        properties = properties.with_reply_to(queue);
    }
    if let Some(life) = short(expiration.as_deref()) {
        properties = properties.with_expiration(life);
    }
    if let Some(id) = short(given.message_id) {
        properties = properties.with_message_id(id);
    }
    if let Some(app) = short(given.app_id) {
        properties = properties.with_app_id(app);
    }
    if let Some(kind) = short(given.kind) {
        properties = properties.with_type(kind);
    }
    let body = task.body;
    outgoing::fitting(OutgoingMessage {
        exchange,
        key,
        properties,
        body,
        aim,
        confirm: true,
        once,
        task: None,
    })
}

fn is_too_deep(value: &HeaderValue<'_>) -> bool {
    match value {
        HeaderValue::Json(value) => outgoing::is_too_deep(value),
        // The table is a level of its own.
        HeaderValue::Table(Some(table)) => table.values().any(outgoing::is_too_deep_in_table),
        _ => false,
    }
}

/// The same check as [`table::check_names`], of a task that has no map of headers.
///
/// # Errors
/// A name or a property is too long; the text says which one.
fn check_names(task: &EncodedTask<'_>) -> Result<(), String> {
    for (name, value) in &task.headers {
        match value {
            HeaderValue::Json(value) => check_length("header", name, value)?,
            HeaderValue::Table(Some(table)) if !table.is_empty() => {
                let entries = table.iter().map(|(name, value)| (name.clone(), value.clone()));
                check_length("header", name, &Value::Object(entries.collect()))?;
            }
            _ => check_length("header", name, &Value::Null)?,
        }
    }
    let given = &task.properties;
    for (name, text) in [
        ("correlation_id", Some(given.correlation_id)),
        ("reply_to", given.reply_to),
        ("expiration", given.expiration.as_deref()),
        ("message_id", given.message_id),
        ("app_id", given.app_id),
        ("type", given.kind),
    ] {
        check_property(name, text.unwrap_or_default())?;
    }
    Ok(())
}

fn to_field(value: HeaderValue<'_>) -> AMQPValue {
    match value {
        HeaderValue::Null => AMQPValue::Void,
        HeaderValue::Bool(yes) => AMQPValue::Boolean(yes),
        HeaderValue::Number(number) => {
            i32::try_from(number).map_or(AMQPValue::LongLongInt(number.into()), AMQPValue::LongInt)
        }
        HeaderValue::Text(text) => AMQPValue::LongString(text.into_owned().into()),
        HeaderValue::Pair(pair) => AMQPValue::FieldArray(Vec::from(pair.map(table::to_field)).into()),
        HeaderValue::Table(entries) => {
            let fields = entries.into_iter().flatten().filter_map(|(name, value)| {
                Some((ShortString::try_new(name.as_str()).ok()?, table::to_field(value.clone())))
            });
            AMQPValue::FieldTable(fields.collect::<BTreeMap<_, _>>().into())
        }
        HeaderValue::Json(value) => table::to_field(value.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::task::{Arguments, Durability, Headers, TaskOptions, Workflow};

    const NOW: Timestamp = Timestamp::from_millis(1_796_040_000_000);

    fn message() -> Message {
        let arguments = Arguments { args: r#"[1,"x"]"#.to_owned(), kwargs: r#"{"k":null}"#.to_owned() };
        Message::new("me".into(), "t.add", arguments, "q", TaskOptions::default(), NOW)
    }

    /// The same task by way of a map of JSON.
    fn by_map(message: &Message, eta: Option<Timestamp>) -> Result<OutgoingMessage, BrokerError> {
        outgoing::wire(outgoing::encode(message, NOW)?, &message.queue, eta, NOW)
    }

    fn assert_same(message: &Message, eta: Option<Timestamp>) {
        match (write(message, eta, NOW), by_map(message, eta)) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!((&ours.exchange, &ours.key), (&theirs.exchange, &theirs.key));
                assert_eq!((&ours.aim, ours.once), (&theirs.aim, theirs.once));
                assert_eq!((ours.confirm, ours.task.is_none()), (theirs.confirm, theirs.task.is_none()));
                assert_eq!(String::from_utf8_lossy(&ours.body), String::from_utf8_lossy(&theirs.body));
                let [ours, theirs] = [ours.properties, theirs.properties].map(without_mark);
                assert_eq!(ours, theirs);
            }
            (Err(ours), Err(theirs)) => assert_eq!(ours, theirs),
            (ours, theirs) => {
                panic!("one is refused: {:?} and {:?}", ours.err(), theirs.err());
            }
        }
    }

    /// The properties, with the mark of this copy replaced, which differs each time.
    fn without_mark(properties: BasicProperties) -> BasicProperties {
        let mut headers = properties.headers().clone().unwrap_or_default();
        if let Some(AMQPValue::LongString(mark)) = headers.inner().get(RUN_ONCE_HEADER)
            && mark.len() == 36
        {
            headers.insert(RUN_ONCE_HEADER.into(), AMQPValue::Void);
        }
        properties.with_headers(headers)
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{0,4}", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Names of an application, of Celery, and of what RabbitMQ or this program writes on the way.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zA-Z_]{1,12}",
            prop::sample::select(vec![
                "id",
                "argsrepr",
                "kwargsrepr",
                "stamps",
                "compression",
                "celeriac",
                "x-death",
                "x-first-death-queue",
                "CC",
                "celeriac-copy",
                RUN_ONCE_HEADER,
            ])
            .prop_map(str::to_owned),
        ]
    }

    proptest! {
        #[test]
        fn it_is_the_same_as_by_way_of_a_map(
            headers in prop::collection::btree_map(name(), value(), 0..6),
            stamps in prop::option::of(prop::collection::btree_map("[a-z]{1,5}", value(), 0..3)),
            (priority, retries, expires, eta) in (
                any::<u8>(),
                prop_oneof![0..5_u32, any::<u32>()],
                prop::option::of(0..10_000_u64),
                prop::option::of(0..10_000_u64),
            ),
            (limit, in_memory, compressed) in (prop::option::of(0..90_000_u64), any::<bool>(), any::<bool>()),
            (reply_to, property) in (prop::option::of(".{0,20}"), prop::option::of(".{0,20}")),
        ) {
            let later = |millis: u64| NOW + Duration::from_millis(millis);
            let mut message = message();
            (message.priority, message.retries) = (priority, retries);
            (message.expires, message.eta) = (expires.map(later), eta.map(later));
            message.time_limit = limit.map(Duration::from_millis);
            message.ignore_result = in_memory != compressed;
            message.durability = if in_memory { Durability::Memory } else { Durability::Disk };
            message.headers = Headers(headers);
            if compressed {
                message.headers.set_property("compression", "gzip".into());
            }
            if let Some(property) = property {
                for name in ["message_id", "app_id", "type"] {
                    message.headers.set_property(name, property.as_str().into());
                }
            }
            if let Some(stamps) = stamps {
                let stamped_headers = stamps.keys().cloned().collect();
                let stamps = Headers(stamps);
                let workflow = Workflow { stamps, stamped_headers, reply_to, ..Workflow::default() };
                message.workflow = Some(Box::new(workflow));
            }
            assert_same(&message, message.eta);
            assert_same(&message, None);
        }
    }

    #[test]
    fn what_is_refused_is_refused_with_the_same_words() {
        let (long, mut deep) = ("n".repeat(300), json!(1));
        for _ in 0..70 {
            deep = json!({ "d": deep });
        }
        let header = |name: &str, value: Value| {
            let mut message = message();
            message.headers.0.insert(name.to_owned(), value);
            message
        };
        let stamp = |name: &str, value: Value| {
            let stamps = Headers([(name.to_owned(), value)].into());
            let workflow = Workflow { stamps, ..Workflow::default() };
            Message { workflow: Some(Box::new(workflow)), ..message() }
        };
        let mut property = message();
        property.headers.set_property("app_id", long.as_str().into());
        let rpc = Workflow { reply_to: Some(long.clone()), ..Workflow::default() };
        let arguments = Arguments { args: "{}".to_owned(), ..Arguments::default() };
        for refused in [
            header(&long, Value::Null),
            header("h", json!([{ long.as_str(): 1 }])),
            header("h", deep.clone()),
            header("h", json!("x".repeat(100_000))),
            stamp(&long, Value::Null),
            stamp("s", json!({ long.as_str(): 1 })),
            stamp("s", deep.clone()),
            property,
            Message { workflow: Some(Box::new(rpc)), ..message() },
            Message { queue: long.clone(), ..message() },
            Message { id: long.as_str().into(), ..message() },
            Message { arguments, ..message() },
        ] {
            assert!(write(&refused, None, NOW).is_err(), "{refused:?}");
            assert_same(&refused, None);
            assert_same(&refused, Some(NOW + Duration::from_secs(60)));
        }
        // As deep as a worker reads, and one level more.
        for depth in 60..66 {
            let nested = (0..depth).fold(json!(1), |inner, _| json!({ "d": inner }));
            assert_same(&header("h", nested.clone()), None);
            assert_same(&stamp("s", nested), None);
        }
    }

    #[test]
    fn a_mark_is_asked_for_by_a_bare_true() {
        let mut message = message();
        for (value, once) in [(json!(true), true), (json!("kept"), false), (json!(false), false)] {
            message.headers.0.insert(RUN_ONCE_HEADER.to_owned(), value);
            let post = write(&message, None, NOW).unwrap();
            assert_eq!(post.once, once);
            assert_same(&message, None);
        }
    }
}

//! What Celery's worker does with messages that no client of Celery's own sends, ours does too, and where it does not there is
//! a reason.

mod table;

use std::collections::HashMap;

use celeriac::task;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Value, json};

use crate::fleet::{Backend, Mixed, on_runtime};
use crate::gates::until;
use table::{DEADLY, Odd, SENT_TO_BOTH};

/// Where the two sides differ: what Celery's does, what ours does, and why.
#[rustfmt::skip]
const DIFFERENCES: &[(&str, &str, &str, &str)] = &[
    ("args: an object", r#"ran ["x",null,null]"#, "refused", "it takes the keys alone, and what they stand for is lost"),
    ("protocol 1: args an object", r#"ran ["a",null,null]"#, "refused", "the same"),
    ("args: null", "FAILURE TypeError", "ran [null,null,null]", "nothing is no argument, and nothing is lost"),
    ("kwargs: null", "refused", "ran [null,null,null]", "the same"),
    ("protocol 1: arguments null", "refused", "ran [null,null,null]", "the same"),
    ("args: a number", "FAILURE TypeError", "refused", "it never gets to a task; its record says InvalidMessage"),
    ("args: true", "FAILURE TypeError", "refused", "the same"),
    ("task: empty", "FAILURE NotRegistered", "refused", "the same"),
    ("task: a number", "FAILURE NotRegistered", "refused", "the same"),
    ("body: embed with chain text", "FAILURE ValueError", "refused", "it runs first, and then finds that nothing can follow"),
    ("content_encoding: latin-1, and not ASCII", r#"ran ["Ã©",null,null]"#, "refused", "we read UTF-8 only; letters that another encoding makes others of are refused, not guessed"),
    ("content_type: application/json; charset=utf-8", "refused", "ran [1,null,null]", "it is JSON, and says so"),
    ("content_type: APPLICATION/JSON", "refused", "ran [1,null,null]", "the same: media types have no case"),
    ("parent_id: [1]", "ran [1,null,null]", "refused", "whose child it is would be lost"),
    ("group_index: -1", "ran [1,null,null]", "refused", "the place of its result would be lost"),
    ("group_index: \"x\"", "ran [1,null,null]", "refused", "the same"),
    ("replaced_task_nesting: \"x\"", "ran [1,null,null]", "refused", "nobody can count on from it"),
    ("stamps: text", "ran [1,null,null]", "refused", "the stamps would be lost"),
];

/// What ours does with the messages that take Celery's worker down or stop it; those that are not here are refused.
const OF_THE_DEADLY: &[(&str, &str)] = &[
    // As good as not said.
    ("eta: \"\"", "ran [1,null,null]"),
    ("eta: false", "ran [1,null,null]"),
    ("eta: 0", "ran [1,null,null]"),
    ("expires: \"\"", "ran [1,null,null]"),
    ("expires: 0", "ran [1,null,null]"),
    ("shadow: [1]", "ran [1,null,null]"),
];

/// What it was given.
#[task(name = "rust.odd", queue = "rust")]
async fn odd(a: Option<Value>, b: Option<Value>, c: Option<Value>) -> Vec<Value> {
    [a, b, c].map(Option::unwrap_or_default).to_vec()
}

fn field(value: &Value) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(yes) => AMQPValue::Boolean(*yes),
        Value::Number(n) => {
            n.as_i64().map_or_else(|| AMQPValue::Double(n.as_f64().unwrap()), AMQPValue::LongLongInt)
        }
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(items) => AMQPValue::FieldArray(items.iter().map(field).collect::<Vec<_>>().into()),
        Value::Object(map) => AMQPValue::FieldTable(table(map)),
    }
}

fn table(map: &Map<String, Value>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in map {
        table.insert(name.as_str().into(), field(value));
    }
    table
}

fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The message for this side, under this id.
fn message(odd: &Odd, side: &str, id: &str) -> (BasicProperties, String) {
    let name = format!("{side}.odd");
    let mut headers = object("{}");
    headers.extend([("lang".into(), json!("py")), ("task".into(), json!(name)), ("id".into(), json!(id))]);
    let of_a_new_message = ["lang", "task", "id"];
    for (name, value) in object(odd.headers) {
        match value {
            Value::Null if of_a_new_message.contains(&name.as_str()) => drop(headers.remove(&name)),
            value => drop(headers.insert(name, value)),
        }
    }
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_headers(table(&headers));
    for (name, value) in object(odd.properties) {
        let text = value.as_str().map(|text| text.into());
        properties = match (name.as_str(), text) {
            ("content_type", Some(text)) => properties.with_content_type(text),
            ("content_encoding", Some(text)) => properties.with_content_encoding(text),
            ("correlation_id", Some(text)) => properties.with_correlation_id(text),
            ("content_type", None) => without(&properties, |p| p.with_content_encoding("utf-8".into())),
            ("content_encoding", None) => {
                without(&properties, |p| p.with_content_type("application/json".into()))
            }
            ("priority", _) => properties.with_priority(u8::try_from(value.as_u64().unwrap()).unwrap()),
            (name, _) => panic!("{name} is not set here"),
        };
    }
    let embed = r#"{"callbacks":null,"errbacks":null,"chain":null,"chord":null}"#;
    (properties, odd.body.replace("EMBED", embed).replace("TASK", &name).replace("ID", id))
}

fn without(
    properties: &BasicProperties,
    with: impl Fn(BasicProperties) -> BasicProperties,
) -> BasicProperties {
    let headers = properties.headers().clone().unwrap_or_default();
    with(BasicProperties::default().with_delivery_mode(2).with_headers(headers))
}

/// What came of it: it ran with these arguments, failed with this class, or was refused.
fn outcome(fleet: &Mixed, id: &str) -> String {
    let document = fleet.redis.cli(&["GET", &format!("celery-task-meta-{id}")]);
    let document: Value = serde_json::from_str(&document).unwrap_or_default();
    let class = document["result"]["exc_type"].as_str().unwrap_or_default();
    match document["status"].as_str() {
        None => "refused".to_owned(),
        Some("SUCCESS") => format!("ran {}", document["result"]),
        // Celery's workers write no record of those.
        Some("FAILURE") if class == "InvalidMessage" => "refused".to_owned(),
        Some(state) => format!("{state} {class}"),
    }
}

/// Sends these to a worker that does one task at a time, and waits until it has come to what was sent after them.
fn outcomes(fleet: &Mixed, side: &str, all: &[Odd]) -> HashMap<&'static str, String> {
    let queue = format!("{side}-one");
    let id = |n: usize| format!("odd-{side}-{}-{n}", all.len());
    let send = async |odd: &Odd, id: &str| {
        let (properties, body) = message(odd, side, id);
        fleet.publish(&queue, properties, body.as_bytes()).await;
    };
    on_runtime(async {
        for (n, odd) in all.iter().enumerate() {
            send(odd, &id(n)).await;
        }
        let headers = r#"{"eta":"2020-01-02T00:00:00+00:00"}"#;
        // What is due goes by way of a timer; the second one goes the same way, after all others.
        for (last, headers) in ["{}", headers].into_iter().enumerate() {
            let (last, plain) = (
                format!("last-{last}"),
                Odd { name: "last", headers, properties: "{}", body: "[[1],{},EMBED]" },
            );
            let last = format!("{}-{last}", id(all.len()));
            send(&plain, &last).await;
            until("the last one has run", async || outcome(fleet, &last).starts_with("ran")).await;
        }
    });
    all.iter().enumerate().map(|(n, odd)| (odd.name, outcome(fleet, &id(n)))).collect()
}

#[test]
fn odd_messages_fare_as_with_celery() {
    let fleet = Mixed::start("odd", Backend::Redis);
    let (theirs, ours) = (outcomes(&fleet, "python", SENT_TO_BOTH), outcomes(&fleet, "rust", SENT_TO_BOTH));
    let deadly = outcomes(&fleet, "rust", DEADLY);
    let mut wrong = Vec::new();
    for Odd { name, .. } in SENT_TO_BOTH {
        let expected = DIFFERENCES.iter().find(|(differs, ..)| differs == name);
        let (their, our) =
            expected.map_or((&*theirs[name], &*theirs[name]), |(_, their, our, _)| (*their, *our));
        if (&*theirs[name], &*ours[name]) != (their, our) {
            wrong.push(format!("{name}: Celery's: {}; ours: {}", theirs[name], ours[name]));
        }
    }
    for Odd { name, .. } in DEADLY {
        let expected =
            OF_THE_DEADLY.iter().find(|(deadly, _)| deadly == name).map_or("refused", |(_, our)| our);
        if deadly[name] != expected {
            wrong.push(format!("{name}: ours: {}", deadly[name]));
        }
    }
    let known = |name: &str| SENT_TO_BOTH.iter().chain(DEADLY).any(|odd| odd.name == name);
    for name in DIFFERENCES.iter().map(|row| row.0).chain(OF_THE_DEADLY.iter().map(|row| row.0)) {
        assert!(known(name), "no message `{name}` is sent");
    }
    println!(
        "{} odd messages: {} fare alike, {} not; {} that take Celery's worker down",
        SENT_TO_BOTH.len(),
        SENT_TO_BOTH.len() - DIFFERENCES.len(),
        DIFFERENCES.len(),
        DEADLY.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Nothing is lost: what was refused, and what failed because no task takes it, is with the dead letters.
    let is_kept = |outcome: &&String| *outcome == "refused" || outcome.starts_with("FAILURE");
    let kept = ours.values().chain(deadly.values()).filter(is_kept).count();
    on_runtime(until("all of them are there", async || {
        fleet.celeriac.dead_letters(1000).await.is_ok_and(|letters| letters.len() == kept)
    }));
}

//! A message off the wire becomes a task, or is refused with a reason.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::headers::{Fields, is_custom, shortened, wrong};
use super::private::{self, Private};
use super::{
    DecodeError, JSON, Properties, Reason, Recognised, Table, WireMessage, compression, embed, repr,
};
use crate::core::Timestamp;
use crate::task::{Arguments, Durability, Headers, Message, TaskId, TaskOptions, Workflow};

/// What is known of a message that has arrived, beside what it says itself.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Arrival<'a> {
    /// The queue that it came through.
    pub queue: &'a str,
    /// When.
    pub now: Timestamp,
    /// The options of a registered task: what a message does not say is taken from there.
    pub options: &'a dyn Fn(&str) -> Option<TaskOptions>,
    /// How many bytes a body may have, also when it is unpacked. Default 4 MiB.
    pub max_size: usize,
}

impl<'a> Arrival<'a> {
    /// The default of [`max_size`](Self::max_size): far above what a task should carry, and what a process can bear in each
    /// of its slots.
    pub const MAX_SIZE: usize = 4 << 20;

    /// With the default limit.
    pub fn new(queue: &'a str, now: Timestamp, options: &'a dyn Fn(&str) -> Option<TaskOptions>) -> Self {
        Self { queue, now, options, max_size: Self::MAX_SIZE }
    }

    /// With another limit, in bytes.
    #[must_use]
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.max_size = bytes;
        self
    }
}

/// Reads a task: protocol 2, protocol 1, and hybrids of both.
///
/// What a message does not say is taken from the options of the registered task, or from the defaults if there is none of that
/// name: whether it can be run here is not decided here. Arguments stay the JSON text that they are, with kombu's envelopes
/// ([`envelope`](crate::task::envelope)) where there are any, so that what is sent on is what was sent.
///
/// # Errors
/// It is no task that can be run; see [`Reason`].
pub fn decode(wire: &WireMessage, arrival: &Arrival<'_>) -> Result<Message, DecodeError> {
    decode_parts(&wire.properties, &wire.headers, &wire.body, arrival)
}

/// [`decode`], with the headers where some client has them.
///
/// # Errors
/// As there.
pub fn decode_parts(
    properties: &Properties,
    headers: &dyn Table,
    body: &[u8],
    arrival: &Arrival<'_>,
) -> Result<Message, DecodeError> {
    let mut merged = None;
    let wire = Wire { properties, headers, body };
    read(&wire, arrival, &mut merged).map_err(|reason| {
        let headers = merged.as_ref().map_or(headers, |merged| merged as &dyn Table);
        DecodeError { reason, recognised: Box::new(recognise(headers, properties)) }
    })
}

/// What has come.
struct Wire<'a> {
    properties: &'a Properties,
    headers: &'a dyn Table,
    body: &'a [u8],
}

/// For a message that is refused; therefore nothing here can fail.
fn recognise(headers: &dyn Table, properties: &Properties) -> Recognised {
    let fields = Fields(headers);
    let id = |name| fields.id(name).ok().flatten();
    // Celery sends the id as `correlation_id` too, and the result is awaited under it.
    let correlated = || properties.correlation_id.as_deref().filter(|id| (1..=255).contains(&id.len()));
    Recognised {
        id: id("id").or_else(|| correlated().map(TaskId::from)),
        task: fields.shown("task").map(Cow::into_owned),
        reply_to: properties.reply_to.clone(),
        root_id: id("root_id"),
    }
}

/// The parts of a body, as JSON.
struct Parts<'a> {
    args: &'a str,
    kwargs: &'a str,
    /// Of protocol 1, the whole body: it has the same fields.
    embed: &'a RawValue,
}

/// `known`: what a protocol 1 body has said, should it not be the headers that say who it is.
fn read(
    wire: &Wire<'_>,
    arrival: &Arrival<'_>,
    known: &mut Option<Map<String, Value>>,
) -> Result<Message, Reason> {
    let body = unpacked(wire, arrival.max_size)?;
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        let fields: BTreeMap<String, &RawValue> = parse(&body)?;
        let merged = &*known.insert(merge(&fields, wire.headers)?);
        let part = |name| fields.get(name).map_or("null", |part: &&RawValue| part.get());
        let parts = Parts { args: part("args"), kwargs: part("kwargs"), embed: parse(&body)? };
        return message(wire, arrival, &Fields(merged), &parts);
    }
    let parts: Vec<&RawValue> = parse(&body)?;
    let fields = Fields(wire.headers);
    match parts.as_slice() {
        _ if fields.get("task").is_none() => Err(Reason::NoTask),
        [args, kwargs, embed] => {
            message(wire, arrival, &fields, &Parts { args: args.get(), kwargs: kwargs.get(), embed })
        }
        other => Err(Reason::Body(format!(
            "it has {} elements, but should have three: [args, kwargs, embed]",
            other.len()
        ))),
    }
}

/// The fields of a protocol 1 body as if they were headers. Of a hybrid, the headers have the last word.
fn merge(body: &BTreeMap<String, &RawValue>, headers: &dyn Table) -> Result<Map<String, Value>, Reason> {
    let mut merged = Map::new();
    for (name, field) in [
        ("task", "task"),
        ("id", "id"),
        ("retries", "retries"),
        ("eta", "eta"),
        ("expires", "expires"),
        ("utc", "utc"),
        ("timelimit", "timelimit"),
        ("group", "taskset"),
        ("group", "group"),
        ("group_index", "group_index"),
        ("root_id", "root_id"),
        ("parent_id", "parent_id"),
    ] {
        if let Some(value) = body.get(field) {
            let value: Value = parse(value.get().as_bytes())?;
            if !value.is_null() {
                merged.insert(name.to_owned(), value);
            }
        }
    }
    headers.each(&mut |name, field| drop(merged.insert(name.to_owned(), field.into_value())));
    Ok(merged)
}

fn message(
    wire: &Wire<'_>,
    arrival: &Arrival<'_>,
    fields: &Fields<'_>,
    parts: &Parts<'_>,
) -> Result<Message, Reason> {
    let task = fields.text("task")?.filter(|task| !task.is_empty()).ok_or(Reason::NoTask)?;
    let id = fields.id("id")?.ok_or_else(|| wrong("id", &Value::Null, "text of 1 to 255 bytes"))?;
    let args = part(parts.args, '[', "[]", "its arguments are no array")?;
    let kwargs = part(parts.kwargs, '{', "{}", "its keyword arguments are no object")?;

    let own: Option<Private> = match fields.text(private::HEADER)? {
        None => None,
        Some(text) => Some(serde_json::from_str(&text).map_err(|error| {
            let found = format!("{} ({error})", shortened(&text));
            Reason::Header {
                name: private::HEADER.to_owned(),
                found,
                expected: "what this version of Celeriac writes",
            }
        })?),
    };
    let mut options = (arrival.options)(&task).unwrap_or_default();
    if own.is_some() {
        // Our own sender has said all: where it is silent, there is no limit.
        (options.time_limit, options.soft_time_limit) = (None, None);
    }
    let [hard, soft] = fields.limits()?;
    let workflow = workflow(fields, parts.embed, &id, wire.properties)?;
    let headers = custom_headers(wire.headers, own.as_ref(), fields, args, kwargs);
    let mut message = Message {
        id,
        task: task.into_owned(),
        arguments: Arguments {
            args: args.to_owned(),
            kwargs: if kwargs == "{}" { String::new() } else { kwargs.to_owned() },
        },
        queue: arrival.queue.to_owned(),
        priority: wire.properties.priority.unwrap_or(0),
        eta: fields.instant("eta")?,
        expires: fields.instant("expires")?,
        enqueued_at: arrival.now,
        first_started_at: None,
        retries: fields.count("retries")?.unwrap_or(0),
        crashes: 0,
        continuations: 0,
        retry: options.retry.clone(),
        autoretry: options.autoretry,
        soft_time_limit: soft.or(options.soft_time_limit),
        time_limit: hard.or(options.time_limit),
        acks_late: options.acks_late,
        ignore_result: fields.flag("ignore_result")?.unwrap_or(options.ignore_result),
        result_expires: options.result_expires,
        durability: if wire.properties.delivery_mode == Some(1) {
            Durability::Memory
        } else {
            Durability::Disk
        },
        headers,
        last_errors: Vec::new(),
        workflow: Some(Box::new(workflow)),
        unique: None,
        serial: None, // made of the arguments by whoever runs it
    };
    if let Some(own) = own {
        own.apply(&mut message);
    }
    Ok(message)
}

fn workflow(
    fields: &Fields<'_>,
    embedded: &RawValue,
    id: &TaskId,
    properties: &Properties,
) -> Result<Workflow, Reason> {
    let mut workflow = Workflow {
        root_id: Some(fields.id("root_id")?.unwrap_or_else(|| id.clone())),
        parent_id: fields.id("parent_id")?,
        group: fields.text("group")?.map(Cow::into_owned),
        group_index: fields.count("group_index")?,
        replaced_task_nesting: fields.count("replaced_task_nesting")?.unwrap_or(0),
        reply_to: properties.reply_to.clone(),
        shadow: fields.shown("shadow").map(Cow::into_owned),
        stamped_headers: fields.names("stamped_headers")?,
        origin: fields.shown("origin").map(Cow::into_owned),
        stamps: Headers(fields.table("stamps")?.into_iter().collect()),
        ..Workflow::default()
    };
    embed::read(embedded, &mut workflow)?;
    Ok(workflow)
}

/// The application's headers, and with them what it wants to be shown instead of the arguments: if a task is sent on, what
/// was hidden stays hidden. Of a foreign message that is what differs from what we would show.
fn custom_headers(
    headers: &dyn Table,
    own: Option<&Private>,
    fields: &Fields<'_>,
    args: &str,
    kwargs: &str,
) -> Headers {
    let mut custom = BTreeMap::new();
    headers.each(&mut |name, field| {
        if is_custom(name) {
            custom.insert(name.to_owned(), field.into_value());
        }
    });
    let differs =
        |shown: &str, made: Result<String, serde_json::Error>| made.map_or(true, |made| made != shown);
    if let Some(shown) = fields.shown("argsrepr")
        && own.map_or_else(|| differs(&shown, repr::positional(args)), |own| own.argsrepr)
    {
        custom.insert("argsrepr".to_owned(), shown.into());
    }
    if let Some(shown) = fields.shown("kwargsrepr")
        && own.map_or_else(|| differs(&shown, repr::keyword(kwargs)), |own| own.kwargsrepr)
    {
        custom.insert("kwargsrepr".to_owned(), shown.into());
    }
    Headers(custom)
}

/// Arguments of the right kind; null is as good as none (Python loses such a task without a word).
fn part<'a>(text: &'a str, open: char, empty: &'a str, wrong: &str) -> Result<&'a str, Reason> {
    if text == "null" {
        return Ok(empty);
    }
    match text.strip_prefix(open) {
        None => Err(Reason::Body(format!("{wrong}: {}", shortened(text)))),
        // However many blanks there are in between: nothing is nothing.
        Some(rest) if rest.len() > 1 && rest[..rest.len() - 1].trim().is_empty() => Ok(empty),
        Some(_) => Ok(text),
    }
}

/// The body as JSON text, if it is that, and not too much.
fn unpacked<'a>(wire: &Wire<'a>, limit: usize) -> Result<Cow<'a, [u8]>, Reason> {
    let content_type = wire.properties.content_type.as_deref().unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if media_type.is_empty() {
        return Err(Reason::NoContentType);
    }
    if media_type != JSON {
        return Err(Reason::ContentType {
            content_type: shortened(content_type),
            what: what_is(&media_type),
        });
    }
    let encoding = wire.properties.content_encoding.as_deref().unwrap_or("").to_ascii_lowercase();
    if !matches!(encoding.as_str(), "" | "utf-8" | "utf8" | "us-ascii" | "ascii" | "binary") {
        return Err(Reason::ContentEncoding(shortened(&encoding)));
    }
    if wire.body.len() > limit {
        return Err(Reason::TooLarge { limit, unpacked: false });
    }
    match Fields(wire.headers).text("compression")?.as_deref() {
        None | Some("") => Ok(Cow::Borrowed(wire.body)),
        Some(packed) => compression::unpack(wire.body, packed, limit).map(Cow::Owned),
    }
}

/// A media type in words.
fn what_is(media_type: &str) -> &'static str {
    match media_type {
        "application/x-python-serialize" => "a Python pickle, which may run any code where it is read",
        "application/x-yaml" | "application/yaml" | "text/yaml" => "YAML",
        "application/x-msgpack" | "application/msgpack" => "MessagePack",
        "application/data" => "raw bytes or a signed message",
        "text/plain" => "plain text",
        _ => "of another type",
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Reason> {
    serde_json::from_slice(body).map_err(|error| Reason::Body(explain(body, &error)))
}

/// What is wrong with a body, in words for whoever sent it.
fn explain(body: &[u8], error: &serde_json::Error) -> String {
    if body.iter().all(u8::is_ascii_whitespace) {
        return "it is empty".to_owned();
    }
    // Python writes these without being asked, and they are no JSON.
    let line = body.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let around = line.get(error.column().saturating_sub(2)..).unwrap_or_default();
    for at in 0..around.len().min(3) {
        if around[at..].starts_with(b"NaN") || around[at..].starts_with(b"Infinity") {
            return format!(
                "it has NaN or Infinity, which JSON does not know; the sender is to send null or text ({error})"
            );
        }
    }
    match error.classify() {
        serde_json::error::Category::Data => error.to_string(),
        _ => format!("it is not JSON: {error}"),
    }
}

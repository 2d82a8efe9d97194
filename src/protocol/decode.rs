//! Makes a task of a message off the wire, or refuses the message with a reason.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::encoded::ENCODING;
use super::headers::{HeaderFields, is_custom, shortened, wrong};
use super::private::{self, Private};
use super::wire::BorrowedProperties;
use super::{
    DecodeError, JSON, Properties, Reason, Recognised, Table, WireMessage, compression, embed, repr,
};
use crate::core::Timestamp;
use crate::task::token::not_finite;
use crate::task::{Arguments, Durability, Headers, Message, SHOWN_AS_LIST, TaskId, TaskOptions, Workflow};

/// The facts about a message that the message itself does not state.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Arrival<'a> {
    /// The queue that the message came through.
    pub queue: &'a str,
    /// When the message arrived, in UTC.
    pub now: Timestamp,
    /// Returns the options of a registered task. Options that the message does not state come from there.
    pub options: &'a dyn Fn(&str) -> Option<TaskOptions>,
    /// The most bytes of a body, packed and unpacked. The default is 4 MiB.
    pub max_size: usize,
}

impl<'a> Arrival<'a> {
    /// The default of [`max_size`](Self::max_size): far above what a task should carry, and small enough for a
    /// process to hold one in each of its slots.
    pub const MAX_SIZE: usize = 4 << 20;

    /// The facts about a message, with the default limit of its size.
    pub fn new(queue: &'a str, now: Timestamp, options: &'a dyn Fn(&str) -> Option<TaskOptions>) -> Self {
        Self { queue, now, options, max_size: Self::MAX_SIZE }
    }

    /// Sets the most bytes that a body may have, packed and unpacked.
    #[must_use]
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.max_size = bytes;
        self
    }
}

/// Reads a task of protocol 2, of protocol 1, or of a hybrid of both.
///
/// Options that the message does not state come from the registered task, or from the defaults if no task of that
/// name is registered: this function does not decide whether the task can run here. Arguments stay the JSON text that
/// they are, with kombu's envelopes ([`envelope`](crate::task::envelope)) if there are any, so that a task that is
/// sent on is the same as before.
///
/// # Errors
/// The message is no valid task; see [`Reason`].
pub fn decode(wire: &WireMessage, arrival: &Arrival<'_>) -> Result<Message, DecodeError> {
    decode_parts(&wire.properties, &wire.headers, &wire.body, arrival)
}

/// The same as [`decode`], with the headers in the table of some client library.
///
/// # Errors
/// The message is no valid task; see [`Reason`].
pub fn decode_parts(
    properties: &Properties,
    headers: &dyn Table,
    body: &[u8],
    arrival: &Arrival<'_>,
) -> Result<Message, DecodeError> {
    decode_borrowed(properties.into(), headers, body, arrival)
}

/// The same as [`decode_parts`], with properties that lie anywhere.
///
/// # Errors
/// The message is no valid task; see [`Reason`].
pub(crate) fn decode_borrowed(
    properties: BorrowedProperties<'_>,
    headers: &dyn Table,
    body: &[u8],
    arrival: &Arrival<'_>,
) -> Result<Message, DecodeError> {
    let mut merged = None;
    let wire = IncomingBody { properties, headers, body };
    read(&wire, arrival, &mut merged).map_err(|reason| {
        let headers = merged.as_ref().map_or(headers, |merged| merged as &dyn Table);
        refused(reason, properties, headers)
    })
}

/// The refusal of a message, with the parts that can be recognised all the same.
pub(crate) fn refused(
    reason: Reason,
    properties: BorrowedProperties<'_>,
    headers: &dyn Table,
) -> DecodeError {
    DecodeError { reason, recognised: Box::new(recognise(headers, properties)) }
}

/// The parts of a message that has arrived.
struct IncomingBody<'a> {
    properties: BorrowedProperties<'a>,
    headers: &'a dyn Table,
    body: &'a [u8],
}

/// The parts that can be recognised of a refused message. Nothing here can fail.
fn recognise(headers: &dyn Table, properties: BorrowedProperties<'_>) -> Recognised {
    let fields = HeaderFields(headers);
    let id = |name| fields.id(name).ok().flatten();
    // Celery sends the id also as `correlation_id`, and the caller waits for the result under that id.
    let correlated = || properties.correlation_id.filter(|id| (1..=255).contains(&id.len()));
    Recognised {
        id: id("id").or_else(|| correlated().map(TaskId::from)),
        task: fields.shown("task").map(Cow::into_owned),
        reply_to: properties.reply_to.map(str::to_owned),
        root_id: id("root_id"),
    }
}

/// The parts of a body as JSON text.
struct BodyParts<'a> {
    args: &'a str,
    kwargs: &'a str,
    /// The embed of protocol 2. Of protocol 1 it is the whole body, which has the same fields.
    embed: &'a RawValue,
}

/// Reads a task. `known` gets the fields of a protocol 1 body, so that a refusal can recognise the task by them.
fn read(
    wire: &IncomingBody<'_>,
    arrival: &Arrival<'_>,
    known: &mut Option<Map<String, Value>>,
) -> Result<Message, Reason> {
    let body = unpacked(wire, arrival.max_size)?;
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        let fields: BTreeMap<String, &RawValue> = parse(&body)?;
        let merged = &*known.insert(merge(&fields, wire.headers)?);
        let part = |name| fields.get(name).map_or("null", |part: &&RawValue| part.get());
        let parts = BodyParts { args: part("args"), kwargs: part("kwargs"), embed: parse(&body)? };
        return message(wire, arrival, &HeaderFields(merged), &parts);
    }
    let parts: Vec<&RawValue> = parse(&body)?;
    let fields = HeaderFields(wire.headers);
    match parts.as_slice() {
        _ if fields.get("task").is_none() => Err(Reason::NoTask),
        [args, kwargs, embed] => {
            message(wire, arrival, &fields, &BodyParts { args: args.get(), kwargs: kwargs.get(), embed })
        }
        other => Err(Reason::Body(format!(
            "it has {} elements, but should have three: [args, kwargs, embed]",
            other.len()
        ))),
    }
}

/// The fields of a protocol 1 body as headers. If a message has both (a hybrid), its headers win.
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
    wire: &IncomingBody<'_>,
    arrival: &Arrival<'_>,
    fields: &HeaderFields<'_>,
    parts: &BodyParts<'_>,
) -> Result<Message, Reason> {
    let task = fields.text("task")?.filter(|task| !task.is_empty()).ok_or(Reason::NoTask)?;
    let id = fields.id("id")?.ok_or_else(|| wrong("id", &Value::Null, "text of 1 to 255 bytes"))?;
    let args = &*positional(parts.args)?;
    let kwargs = part(parts.kwargs, '{', "{}", "its keyword arguments are no object")?;

    // The private header tells whether the sender was Celeriac, which decides what a missing field means.
    let own: Option<Private> = match fields.text(private::HEADER)? {
        None => None,
        Some(text) => Some(private::read(&text).map_err(|error| {
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
        // Celeriac's own sender has stated everything: a limit that it did not state does not exist.
        (options.time_limit, options.soft_time_limit) = (None, None);
    }
    let [hard, soft] = fields.limits()?;
    let workflow = workflow(fields, parts.embed, &id, wire.properties)?;
    let mut headers = custom_headers(wire.headers, own.as_ref(), fields, args, kwargs);
    for (name, property) in [
        ("message_id", wire.properties.message_id),
        ("app_id", wire.properties.app_id),
        ("type", wire.properties.kind),
    ] {
        if let Some(property) = property {
            headers.set_property(name, property.into());
        }
    }
    let arguments = Arguments {
        args: args.to_owned(),
        kwargs: if kwargs == "{}" { String::new() } else { kwargs.to_owned() },
    };
    options.priority = wire.properties.priority.unwrap_or(0);
    options.soft_time_limit = soft.or(options.soft_time_limit);
    options.time_limit = hard.or(options.time_limit);
    options.ignore_result = fields.flag("ignore_result")?.unwrap_or(options.ignore_result);
    options.durability =
        if wire.properties.delivery_mode == Some(1) { Durability::Memory } else { Durability::Disk };
    // A serial task's lane stays empty here: the runtime makes it of the arguments when it runs the task.
    let mut message = Message {
        eta: fields.instant("eta")?,
        expires: fields.instant("expires")?,
        retries: fields.tally("retries")?.unwrap_or(0),
        headers,
        workflow: Some(Box::new(workflow)),
        ..Message::new(id, task, arguments, arrival.queue, options, arrival.now)
    };
    // The private header replaces the defaults above by what the sender stated.
    if let Some(own) = own {
        own.apply(&mut message);
    }
    Ok(message)
}

fn workflow(
    fields: &HeaderFields<'_>,
    embedded: &RawValue,
    id: &TaskId,
    properties: BorrowedProperties<'_>,
) -> Result<Workflow, Reason> {
    let mut workflow = Workflow {
        root_id: Some(fields.relative("root_id", id)?.unwrap_or_else(|| id.clone())),
        parent_id: fields.relative("parent_id", id)?,
        group: fields.name("group")?.map(Cow::into_owned),
        group_index: fields.count("group_index")?,
        replaced_task_nesting: fields.tally("replaced_task_nesting")?.unwrap_or(0),
        reply_to: properties.reply_to.map(str::to_owned),
        shadow: fields.shown("shadow").map(Cow::into_owned),
        stamped_headers: fields.names("stamped_headers")?,
        origin: fields.shown("origin").map(Cow::into_owned),
        stamps: Headers(fields.table("stamps")?.into_iter().collect()),
        ..Workflow::default()
    };
    embed::read(embedded, &mut workflow)?;
    Ok(workflow)
}

/// The application's headers, and the texts that it wants shown instead of the arguments, so that a task that is sent
/// on still hides what was hidden. In a foreign message those are texts that differ from the ones that Celeriac would
/// make. The text of a list, which Python makes of `apply_async([1, 2])`, hides nothing; only the brackets are kept.
fn custom_headers(
    headers: &dyn Table,
    own: Option<&Private>,
    fields: &HeaderFields<'_>,
    args: &str,
    kwargs: &str,
) -> Headers {
    let mut custom = BTreeMap::new();
    headers.each_of(&is_custom, &mut |name, field| drop(custom.insert(name.to_owned(), field.into_value())));
    let differs =
        |shown: &str, made: Result<String, serde_json::Error>| made.map_or(true, |made| made != shown);
    if let Some(shown) = fields.shown("argsrepr") {
        let is_stated = own.is_some_and(|own| own.argsrepr);
        if !is_stated && shown.starts_with('[') && *shown == *repr::value(args) {
            custom.insert(SHOWN_AS_LIST.to_owned(), true.into());
        } else if is_stated || (own.is_none() && differs(&shown, repr::positional(args))) {
            custom.insert("argsrepr".to_owned(), shown.into());
        }
    }
    if let Some(shown) = fields.shown("kwargsrepr")
        && own.map_or_else(|| differs(&shown, repr::keyword(kwargs)), |own| own.kwargsrepr)
    {
        custom.insert("kwargsrepr".to_owned(), shown.into());
    }
    Headers(custom)
}

/// The positional arguments, as Python's `fun(*args)` takes them: a text counts as a list of its characters, and null
/// as an empty list. Of an object Python would take the keys alone, so an object with members is refused.
fn positional(text: &str) -> Result<Cow<'_, str>, Reason> {
    const WRONG: &str = "its arguments are no array";
    if text.starts_with('"') {
        let wrong = |_| Reason::Body(format!("{WRONG}, but {}", kind_of(text)));
        let characters: Vec<char> = serde_json::from_str::<String>(text).map_err(wrong)?.chars().collect();
        // A list of characters can always be written as JSON.
        return Ok(serde_json::to_string(&characters).unwrap_or_default().into());
    }
    if text.strip_prefix('{').is_some_and(|rest| rest.trim_start() == "}") {
        return Ok("[]".into());
    }
    part(text, '[', "[]", WRONG).map(Cow::Borrowed)
}

/// The arguments if they are of the right kind. Null counts as empty (Python loses such a task without a word).
fn part<'a>(text: &'a str, open: char, empty: &'a str, wrong: &str) -> Result<&'a str, Reason> {
    if text == "null" {
        return Ok(empty);
    }
    match text.strip_prefix(open) {
        // The reason names the kind of value and does not quote it: not everybody who reads a reason may see the
        // arguments.
        None => Err(Reason::Body(format!("{wrong}, but {}", kind_of(text)))),
        // An array or object is empty, however many blanks are between its brackets.
        Some(rest) if rest.len() > 1 && rest[..rest.len() - 1].trim().is_empty() => Ok(empty),
        Some(_) => Ok(text),
    }
}

/// The unpacked body as JSON text, if its content type, encoding and size are allowed.
fn unpacked<'a>(wire: &IncomingBody<'a>, limit: usize) -> Result<Cow<'a, [u8]>, Reason> {
    let content_type = wire.properties.content_type.unwrap_or("");
    // Almost every message states it in this very form.
    if content_type != JSON {
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
    }
    let encoding = wire.properties.content_encoding.unwrap_or("");
    if wire.body.len() > limit {
        return Err(Reason::TooLarge { limit, unpacked: false });
    }
    let body = match HeaderFields(wire.headers).text("compression")?.as_deref() {
        None | Some("") => Cow::Borrowed(wire.body),
        Some(packed) => compression::unpack(wire.body, packed, limit).map(Cow::Owned)?,
    };
    // Of ASCII every encoding that makes JSON of it makes the same.
    if !is_utf8(encoding) && !body.is_ascii() {
        return Err(Reason::ContentEncoding(shortened(&encoding.to_ascii_lowercase())));
    }
    Ok(body)
}

/// Whether text of this encoding is UTF-8.
fn is_utf8(encoding: &str) -> bool {
    const NAMES: [&str; 7] = [ENCODING, "", "utf8", "utf-8-sig", "us-ascii", "ascii", "binary"];
    NAMES.iter().any(|name| name.eq_ignore_ascii_case(encoding))
}

/// A name for a media type that an error can show.
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

/// The kind of a JSON value, in words.
pub(super) fn kind_of(json: &str) -> &'static str {
    match json.trim_start().as_bytes().first() {
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(b'"') => "text",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// The error of serde without the text that it quotes.
pub(super) fn discreet(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.find(" \""), text.rfind("\", expected")) {
        (Some(start), Some(end)) if start < end => format!("{}{}", &text[..start], &text[end + 1..]),
        _ => text,
    }
}

/// The mistake in a body, in words for its sender.
fn explain(body: &[u8], error: &serde_json::Error) -> String {
    if body.iter().all(u8::is_ascii_whitespace) {
        return "it is empty".to_owned();
    }
    let text = String::from_utf8_lossy(body);
    match error.classify() {
        // The error of serde would quote the value.
        serde_json::error::Category::Data => format!("it is {}", kind_of(&text)),
        // Python writes NaN and Infinity without being asked, and neither is JSON.
        _ if not_finite(&text).is_some() => format!(
            "it has NaN or Infinity, which JSON does not know; the sender is to send null or text ({error})"
        ),
        _ => format!("it is not JSON: {error}"),
    }
}

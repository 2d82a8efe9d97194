//! Makes a message of Celery's protocol 2 out of a task.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Map, Value};

use super::embed::Embed;
use super::private::{self, Private};
use super::{EncodeError, JSON, Properties, WireMessage, compression, headers, repr};
use crate::core::{Timestamp, instant};
use crate::task::{Durability, Message, Workflow};

/// The value of the header `lang`. Python ignores it, but it helps people who debug a mixed fleet.
const LANG: &str = "rs";

/// The value of the header `origin`, in Celery's form: `gen<pid>@<host>`.
static ORIGIN: LazyLock<String> = LazyLock::new(|| format!("gen{}@{}", std::process::id(), host()));

/// Writes a task as Python would, with all headers. `now` is the time of sending, from which `expiration` counts.
///
/// An application's header keeps its name beside Celery's headers. One that has the name of a header of Celery's is
/// left out, except `argsrepr` and `kwargsrepr`, which hold the text that tools show instead of the arguments. Facts
/// that Celery has no word for go into one more header, `celeriac`, so that [`decode`](super::decode()) returns the
/// same message.
///
/// # Errors
/// The arguments are no JSON array and object, or another part cannot be written as JSON.
pub fn encode(message: &Message, now: Timestamp) -> Result<WireMessage, EncodeError> {
    let args = if message.arguments.args.is_empty() { "[]" } else { &message.arguments.args };
    let kwargs = if message.arguments.kwargs.is_empty() { "{}" } else { &message.arguments.kwargs };
    let wrong = |part, expected, error: serde_json::Error| EncodeError::Arguments {
        task: message.task.clone(),
        part,
        expected,
        error: error.to_string(),
    };
    // Making the texts for tools also checks that the arguments are JSON of the right kind.
    let argsrepr =
        repr::positional_of(&message.headers, args).map_err(|error| wrong("positional", "array", error))?;
    let kwargsrepr = repr::keyword(kwargs).map_err(|error| wrong("keyword", "object", error))?;

    let workflow = message.workflow.as_deref();
    let json = |what, error: serde_json::Error| EncodeError::Json {
        task: message.task.clone(),
        what,
        error: error.to_string(),
    };
    let embed = serde_json::to_string(&Embed::of(workflow)).map_err(|error| json("signatures", error))?;
    // The arguments are JSON text already. The body takes that text as it is, so that no number changes.
    let mut body = String::with_capacity(args.len() + kwargs.len() + embed.len() + 4);
    for part in ["[", args, ",", kwargs, ",", &embed, "]"] {
        body.push_str(part);
    }

    let mut private = Private::of(message);
    let mut headers = celery_headers(message, workflow);
    for (name, made, given) in
        [("argsrepr", argsrepr, &mut private.argsrepr), ("kwargsrepr", kwargsrepr, &mut private.kwargsrepr)]
    {
        // The application's own text wins. The private header records that, so that a retry keeps the text.
        let instead = message.headers.0.get(name).and_then(Value::as_str);
        *given = instead.is_some();
        headers.insert(name.to_owned(), instead.map_or(Value::String(made), Value::from));
    }
    let private = serde_json::to_string(&private).map_err(|error| json("state", error))?;
    headers.insert(private::HEADER.to_owned(), private.into());

    let mut body = body.into_bytes();
    // A step of another program may name a compression that is not known here. Its body goes as it is.
    let packed = message.headers.property("compression").and_then(|name| compression::pack(&body, name));
    if let Some((packed, name)) = packed {
        body = packed;
        headers.insert("compression".to_owned(), name.into());
    }
    Ok(WireMessage { properties: properties(message, workflow, now), headers, body })
}

fn properties(message: &Message, workflow: Option<&Workflow>, now: Timestamp) -> Properties {
    Properties {
        content_type: Some(JSON.to_owned()),
        content_encoding: Some("utf-8".to_owned()),
        delivery_mode: Some(if message.durability == Durability::Memory { 1 } else { 2 }),
        priority: Some(message.priority),
        correlation_id: Some(message.id.to_string()),
        reply_to: workflow.and_then(|workflow| workflow.reply_to.clone()),
        // RabbitMQ drops an expired message and tells nobody, so only a message that may vanish gets an expiration.
        expiration: message
            .expires
            .filter(|_| message.may_vanish())
            .map(|at| at.since(now).as_millis().to_string()),
        message_id: message.headers.property("message_id").map(str::to_owned),
        app_id: message.headers.property("app_id").map(str::to_owned),
        kind: message.headers.property("type").map(str::to_owned),
    }
}

fn celery_headers(message: &Message, workflow: Option<&Workflow>) -> Map<String, Value> {
    let none = Workflow::default();
    let workflow = workflow.unwrap_or(&none);
    let custom = message.headers.0.iter().filter(|(name, _)| headers::is_custom(name));
    let id = |id: &crate::task::TaskId| Value::from(id.as_str());
    let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
    let time = |time: Option<Timestamp>| time.map_or(Value::Null, |time| instant::write(time).into());
    let stamped = match workflow.stamped_headers.as_slice() {
        [] => Value::Null,
        names => names.into(),
    };
    let stamps = workflow.stamps.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let celerys = [
        ("lang", LANG.into()),
        ("task", message.task.as_str().into()),
        ("id", id(&message.id)),
        ("shadow", text(&workflow.shadow)),
        ("eta", time(message.eta)),
        ("expires", time(message.expires)),
        ("group", text(&workflow.group)),
        ("group_index", workflow.group_index.into()),
        ("retries", message.retries.into()),
        ("timelimit", Value::Array(vec![seconds(message.time_limit), seconds(message.soft_time_limit)])),
        ("root_id", id(workflow.root_id.as_ref().unwrap_or(&message.id))),
        ("parent_id", workflow.parent_id.as_ref().map_or(Value::Null, id)),
        ("origin", workflow.origin.as_deref().unwrap_or(&ORIGIN).into()),
        ("ignore_result", message.ignore_result.into()),
        ("replaced_task_nesting", workflow.replaced_task_nesting.into()),
        ("stamped_headers", stamped),
        ("stamps", Value::Object(stamps)),
    ];
    // Made in one go, which is quicker than one by one.
    let custom = custom.map(|(name, value)| (name.clone(), value.clone()));
    custom.chain(celerys.map(|(name, value)| (name.to_owned(), value))).collect()
}

/// A number of seconds: whole seconds as an integer, as Python's users write them.
fn seconds(limit: Option<Duration>) -> Value {
    match limit {
        None => Value::Null,
        Some(limit) if limit.subsec_nanos() == 0 => limit.as_secs().into(),
        Some(limit) => limit.as_secs_f64().into(),
    }
}

/// The name of this machine, for display only.
pub(crate) fn host() -> String {
    let told = std::env::var("HOSTNAME").ok();
    let asked = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = told.or_else(asked).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "localhost".to_owned())
}

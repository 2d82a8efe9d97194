//! Makes a message of Celery's protocol 2 out of a task.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use super::encoded::{EncodedProperties, EncodedTask, HeaderValue};
use super::{EncodeError, WireMessage, compression, embed, headers, private, repr};
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
    encode_parts(message, now).map(WireMessage::from)
}

/// The same as [`encode`], in the parts of which a client library makes its own form.
///
/// # Errors
/// Those of [`encode`].
pub(crate) fn encode_parts(message: &Message, now: Timestamp) -> Result<EncodedTask<'_>, EncodeError> {
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
    let embed = embed::write(workflow).map_err(|error| json("signatures", error))?;
    // The arguments are JSON text already. The body takes that text as it is, so that no number changes.
    let mut body = Vec::with_capacity(args.len() + kwargs.len() + embed.len() + 4);
    for part in ["[", args, ",", kwargs, ",", &embed, "]"] {
        body.extend_from_slice(part.as_bytes());
    }
    // A step of another program may name a compression that is not known here. Its body goes as it is.
    let packed = message.headers.property("compression").and_then(|name| compression::pack(&body, name));
    let compression = packed.map(|(packed, name)| {
        body = packed;
        name
    });

    // The application's own text wins. The private header records that, so that a retry keeps the text.
    let given = |name: &str| message.headers.0.get(name).and_then(Value::as_str);
    let (given_args, given_kwargs) = (given("argsrepr"), given("kwargsrepr"));
    let private = private::write(message, given_args.is_some(), given_kwargs.is_some());
    let texts = ToolTexts {
        argsrepr: given_args.map_or(Cow::Owned(argsrepr), Cow::Borrowed),
        kwargsrepr: given_kwargs.map_or(Cow::Owned(kwargsrepr), Cow::Borrowed),
        private: private.map_err(|error| json("state", error))?,
    };
    let headers = sorted_headers(message, workflow, texts, compression);
    Ok(EncodedTask { properties: properties(message, workflow, now), headers, body })
}

/// The headers that are texts made of the task.
struct ToolTexts<'a> {
    argsrepr: Cow<'a, str>,
    kwargsrepr: Cow<'a, str>,
    private: String,
}

fn properties<'a>(
    message: &'a Message,
    workflow: Option<&'a Workflow>,
    now: Timestamp,
) -> EncodedProperties<'a> {
    EncodedProperties {
        delivery_mode: if message.durability == Durability::Memory { 1 } else { 2 },
        priority: message.priority,
        correlation_id: message.id.as_str(),
        reply_to: workflow.and_then(|workflow| workflow.reply_to.as_deref()),
        // RabbitMQ drops an expired message and tells nobody, so only a message that may vanish gets an expiration.
        expiration: message
            .expires
            .filter(|_| message.may_vanish())
            .map(|at| at.since(now).as_millis().to_string()),
        message_id: message.headers.property("message_id"),
        app_id: message.headers.property("app_id"),
        kind: message.headers.property("type"),
    }
}

/// All headers, sorted by name.
fn sorted_headers<'a>(
    message: &'a Message,
    workflow: Option<&'a Workflow>,
    texts: ToolTexts<'a>,
    compression: Option<&'static str>,
) -> Vec<(&'a str, HeaderValue<'a>)> {
    let text = |text: &'a str| HeaderValue::Text(text.into());
    let time = |time: Option<Timestamp>| {
        time.map_or(HeaderValue::Null, |time| HeaderValue::Text(instant::write(time).into()))
    };
    let stamped = match workflow.map(|workflow| workflow.stamped_headers.as_slice()) {
        None | Some([]) => HeaderValue::Null,
        Some(names) => HeaderValue::Json(Cow::Owned(names.into())),
    };
    let origin = workflow.and_then(|workflow| workflow.origin.as_deref()).unwrap_or(ORIGIN.as_str());
    let root = workflow.and_then(|workflow| workflow.root_id.as_ref()).unwrap_or(&message.id);
    let nesting = workflow.map_or(0, |workflow| workflow.replaced_task_nesting);
    // They are written in the order of their names, so that the sort below mostly finds nothing to do.
    let celerys = [
        ("argsrepr", HeaderValue::Text(texts.argsrepr)),
        (private::HEADER, HeaderValue::Text(texts.private.into())),
        ("eta", time(message.eta)),
        ("expires", time(message.expires)),
        ("group", HeaderValue::text(workflow.and_then(|workflow| workflow.group.as_deref()))),
        ("group_index", HeaderValue::number(workflow.and_then(|workflow| workflow.group_index))),
        ("id", text(message.id.as_str())),
        ("ignore_result", HeaderValue::Bool(message.ignore_result)),
        ("kwargsrepr", HeaderValue::Text(texts.kwargsrepr)),
        ("lang", text(LANG)),
        ("origin", text(origin)),
        (
            "parent_id",
            HeaderValue::text(workflow.and_then(|workflow| Some(workflow.parent_id.as_ref()?.as_str()))),
        ),
        ("replaced_task_nesting", HeaderValue::Number(nesting)),
        ("retries", HeaderValue::Number(message.retries)),
        ("root_id", text(root.as_str())),
        ("shadow", HeaderValue::text(workflow.and_then(|workflow| workflow.shadow.as_deref()))),
        ("stamped_headers", stamped),
        ("stamps", HeaderValue::Table(workflow.map(|workflow| &workflow.stamps.0))),
        ("task", text(&message.task)),
        ("timelimit", HeaderValue::Pair([seconds(message.time_limit), seconds(message.soft_time_limit)])),
    ];
    let custom = message.headers.0.iter().filter(|(name, _)| headers::is_custom(name));
    let custom = custom.map(|(name, value)| (name.as_str(), HeaderValue::Json(Cow::Borrowed(value))));
    let mut all = Vec::with_capacity(celerys.len() + message.headers.0.len() + 1);
    all.extend(celerys);
    all.extend(compression.map(|name| ("compression", text(name))));
    all.extend(custom);
    all.sort_unstable_by_key(|(name, _)| *name);
    all
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

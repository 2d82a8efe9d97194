//! Headers read one by one, each with an error that names it.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Field, Reason, Table, instant, private};
use crate::core::Timestamp;
use crate::task::TaskId;

/// Whether a header is Celery's own, or ours: an application's header of such a name would not reach the other side as one.
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "lang"
            | "task"
            | "id"
            | "shadow"
            | "eta"
            | "expires"
            | "group"
            | "group_index"
            | "retries"
            | "timelimit"
            | "root_id"
            | "parent_id"
            | "argsrepr"
            | "kwargsrepr"
            | "origin"
            | "ignore_result"
            | "replaced_task_nesting"
            | "stamped_headers"
            | "stamps"
            | "compression"
            | "meth"
            | private::HEADER
    )
}

/// What a broker, or we ourselves, wrote onto a message on its way; not to be sent on.
const ON_THE_WAY: [&str; 6] =
    ["x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "celeriac-"];

/// Whether a header is the application's.
pub(super) fn is_custom(name: &str) -> bool {
    !is_ours(name) && !ON_THE_WAY.iter().any(|prefix| name.starts_with(prefix))
}

/// Headers, or the fields of a protocol 1 body.
pub(super) struct Fields<'a>(pub(super) &'a dyn Table);

impl<'a> Fields<'a> {
    /// Null is as good as nothing.
    pub(super) fn get(&self, name: &str) -> Option<Field<'a>> {
        self.0.get(name).filter(|field| !field.is_null())
    }

    fn value(&self, name: &str) -> Option<Cow<'a, Value>> {
        self.get(name).map(|field| match field {
            Field::Text(text) => Cow::Owned(text.into_owned().into()),
            Field::Json(value) => value,
        })
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Reason> {
        match self.get(name) {
            None => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text)),
            Some(Field::Json(other)) => Err(wrong(name, &other, "text")),
        }
    }

    /// For those that are only shown: what is no text is not there.
    pub(super) fn shown(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name)?.into_text()
    }

    /// A task's id: 1 to 255 bytes.
    pub(super) fn id(&self, name: &'static str) -> Result<Option<TaskId>, Reason> {
        match self.text(name)? {
            Some(id) if id.is_empty() || id.len() > 255 => {
                Err(wrong(name, &Value::from(id), "text of 1 to 255 bytes"))
            }
            id => Ok(id.map(|id| TaskId::from(&*id))),
        }
    }

    /// A count; also one that came as a float, as some clients' number type is.
    pub(super) fn count(&self, name: &'static str) -> Result<Option<u32>, Reason> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let whole = value.as_u64().or_else(|| match value.as_f64() {
            // Exact below 2^32, and compared before it is cut.
            Some(float) if float.fract() == 0.0 && (0.0..4_294_967_296.0).contains(&float) => {
                Some(float as u64)
            }
            _ => None,
        });
        match whole.and_then(|whole| u32::try_from(whole).ok()) {
            Some(count) => Ok(Some(count)),
            None => Err(wrong(name, &value, "a whole number from 0 to 4294967295")),
        }
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<Option<bool>, Reason> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match &*value {
            Value::Bool(yes) => Ok(Some(*yes)),
            Value::Number(number) => Ok(Some(number.as_f64() != Some(0.0))),
            other => Err(wrong(name, other, "true or false")),
        }
    }

    /// Text in ISO 8601. A number is refused, as by Celery: whether it counts seconds, milliseconds, from now or from 1970 is
    /// anybody's guess. Text without an offset is UTC, unless a protocol 1 body says that it is some sender's local time.
    pub(super) fn instant(&self, name: &'static str) -> Result<Option<Timestamp>, Reason> {
        const EXPECTED: &str = "an ISO 8601 time such as \"2026-11-22T09:00:00+00:00\"";
        let Some(value) = self.value(name) else { return Ok(None) };
        let read = value.as_str().and_then(instant::read).ok_or_else(|| wrong(name, &value, EXPECTED))?;
        if read.naive && self.value("utc").as_deref() == Some(&Value::Bool(false)) {
            return Err(wrong(
                name,
                &value,
                "a time with an offset: `utc` is false, and our local time need not be the sender's",
            ));
        }
        Ok(Some(read.time))
    }

    /// Hard limit first. Nothing and zero: none is given.
    pub(super) fn limits(&self) -> Result<[Option<Duration>; 2], Reason> {
        const NAME: &str = "timelimit";
        const EXPECTED: &str = "[hard, soft], each null or a number of seconds";
        let Some(value) = self.value(NAME) else { return Ok([None, None]) };
        let Some([hard, soft]) = value.as_array().map(Vec::as_slice) else {
            return Err(wrong(NAME, &value, EXPECTED));
        };
        let limit = |limit: &Value| match limit {
            Value::Null => Some(None),
            limit => Some(Some(seconds(limit)?).filter(|limit| !limit.is_zero())),
        };
        match (limit(hard), limit(soft)) {
            (Some(hard), Some(soft)) => Ok([hard, soft]),
            _ => Err(wrong(NAME, &value, EXPECTED)),
        }
    }

    pub(super) fn names(&self, name: &'static str) -> Result<Vec<String>, Reason> {
        let Some(value) = self.value(name) else { return Ok(Vec::new()) };
        let names = value.as_array().and_then(|names| {
            names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        names.ok_or_else(|| wrong(name, &value, "a list of names"))
    }

    pub(super) fn table(&self, name: &'static str) -> Result<Map<String, Value>, Reason> {
        match self.value(name).map(Cow::into_owned) {
            None => Ok(Map::new()),
            Some(Value::Object(table)) => Ok(table),
            Some(other) => Err(wrong(name, &other, "a table")),
        }
    }
}

/// Whole seconds as they are, others to the microsecond: finer is what a float adds.
fn seconds(value: &Value) -> Option<Duration> {
    if let Some(whole) = value.as_u64() {
        return Some(Duration::from_secs(whole));
    }
    let exact = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
    let micros = u64::from((exact.subsec_nanos() + 500) / 1_000);
    Duration::from_secs(exact.as_secs()).checked_add(Duration::from_micros(micros))
}

/// The error about a header.
pub(super) fn wrong(name: &str, found: &Value, expected: &'static str) -> Reason {
    Reason::Header { name: name.to_owned(), found: shortened(&found.to_string()), expected }
}

/// So much of a text as fits into an error.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

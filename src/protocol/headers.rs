//! Reads headers one by one, each with an error that names it.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Field, Reason, Table, private};
use crate::core::{Timestamp, instant};
use crate::task::TaskId;
use crate::task::option_value::{self, is_nothing, seconds};

/// Whether a header is Celery's own, or Celeriac's. An application's header of such a name would not reach the other
/// side.
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

/// The prefixes of headers that a broker or Celeriac itself added on the way, and that must not be sent on.
const ON_THE_WAY: [&str; 6] =
    ["x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "celeriac-"];

/// Whether a header is the application's. `CC` and `BCC` are RabbitMQ's: it has sent copies to the queues that they
/// name, and would send them again with each retry.
pub(super) fn is_custom(name: &str) -> bool {
    !is_ours(name)
        && !matches!(name, "CC" | "BCC")
        && !ON_THE_WAY.iter().any(|prefix| name.starts_with(prefix))
}

/// The headers of a message, or the fields of a protocol 1 body.
pub(super) struct HeaderFields<'a>(pub(super) &'a dyn Table);

impl<'a> HeaderFields<'a> {
    /// The value of a header; `None` also if it is null.
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

    /// The text of a header that is only shown to people; `None` if it is not a text.
    pub(super) fn shown(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name)?.into_text()
    }

    /// A text, or a whole number as text, because some clients number their ids.
    pub(super) fn name(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Reason> {
        match self.get(name) {
            Some(Field::Json(number)) if number.is_i64() || number.is_u64() => {
                Ok(Some(number.to_string().into()))
            }
            _ => self.text(name),
        }
    }

    /// The value of a header; `None` also if it is false in Python: zero, false, an empty text, list or table.
    fn said(&self, name: &str) -> Option<Cow<'a, Value>> {
        self.value(name).filter(|value| !is_nothing(value))
    }

    /// The id of a task, which has 1 to 255 bytes.
    pub(super) fn id(&self, name: &'static str) -> Result<Option<TaskId>, Reason> {
        self.name(name)?.map(|id| usable_id(name, id).map(|id| TaskId::from(&*id))).transpose()
    }

    /// The id of another task, or of this task itself, whose id is `own`. An empty text stands for none.
    pub(super) fn relative(&self, name: &'static str, own: &TaskId) -> Result<Option<TaskId>, Reason> {
        match self.name(name)? {
            None => Ok(None),
            Some(id) if id.is_empty() => Ok(None),
            // The first task of a workflow is its own root, as most tasks are.
            Some(id) if id == own.as_str() => Ok(Some(own.clone())),
            Some(id) => usable_id(name, id).map(|id| Some(TaskId::from(&*id))),
        }
    }

    /// A [count](option_value::count).
    pub(super) fn count(&self, name: &'static str) -> Result<Option<u32>, Reason> {
        self.number(name, option_value::count)
    }

    /// A [count of something that only grows](option_value::tally).
    pub(super) fn tally(&self, name: &'static str) -> Result<Option<u32>, Reason> {
        self.number(name, option_value::tally)
    }

    fn number(&self, name: &str, read: impl Fn(&Value) -> Option<u32>) -> Result<Option<u32>, Reason> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match read(&value) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(name, &value, "a whole number from 0 to 4294967295")),
        }
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<Option<bool>, Reason> {
        // Python asks whether the value is true.
        Ok(self.value(name).map(|value| !is_nothing(&value)))
    }

    /// A time in ISO 8601. A number is refused, as Celery does: it could be seconds or milliseconds, from now or from
    /// 1970. A text without an offset is UTC, unless a protocol 1 body says that it is the sender's local time.
    pub(super) fn instant(&self, name: &'static str) -> Result<Option<Timestamp>, Reason> {
        const EXPECTED: &str = "an ISO 8601 time such as \"2026-11-22T09:00:00+00:00\"";
        let Some(value) = self.said(name) else { return Ok(None) };
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

    /// The hard time limit, then the soft one. A missing limit and a zero both mean that there is none.
    pub(super) fn limits(&self) -> Result<[Option<Duration>; 2], Reason> {
        const NAME: &str = "timelimit";
        const EXPECTED: &str = "[hard, soft], each null or a number of seconds";
        let Some(value) = self.said(NAME) else { return Ok([None, None]) };
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
        let Some(value) = self.said(name) else { return Ok(Vec::new()) };
        if let Value::String(one) = &*value {
            return Ok(vec![one.clone()]);
        }
        let names = value.as_array().and_then(|names| {
            names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        names.ok_or_else(|| wrong(name, &value, "a list of names"))
    }

    pub(super) fn table(&self, name: &'static str) -> Result<Map<String, Value>, Reason> {
        match self.said(name).map(Cow::into_owned) {
            None => Ok(Map::new()),
            Some(Value::Object(table)) => Ok(table),
            Some(other) => Err(wrong(name, &other, "a table")),
        }
    }
}

/// The text of a header if a task can have it for an id.
fn usable_id<'a>(name: &'static str, id: Cow<'a, str>) -> Result<Cow<'a, str>, Reason> {
    if id.is_empty() || id.len() > 255 {
        return Err(wrong(name, &Value::from(id), "text of 1 to 255 bytes"));
    }
    Ok(id)
}

/// The error of a header with a wrong value.
pub(super) fn wrong(name: &str, found: &Value, expected: &'static str) -> Reason {
    Reason::Header { name: name.to_owned(), found: shortened(&found.to_string()), expected }
}

/// The first 60 characters of a text, for an error.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

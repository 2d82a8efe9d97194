//! What happens to tasks, as events in Celery's words.
//!
//! An event holds the task's message by reference, and of its end only what can be shown in a line or two, so that a
//! burst of events costs little memory. The whole result is in the result store, under the event's id.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::clock::now;
use super::event_funnel::EventGroup;
use super::{Context, Message, TaskId, finite};
use crate::core::Timestamp;
use crate::core::text::shortened;

/// The most bytes that the name of a custom event may have. The name is a part of an AMQP routing key, which holds 255.
const LONGEST_NAME: usize = 100;
/// The most bytes that the fields of a custom event may take as JSON.
const MOST_FIELDS: usize = 64 << 10;

/// Something that has happened to a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskEvent {
    /// The time at which it happened.
    pub at: Timestamp,
    /// The kind of the event: what happened to the task.
    pub kind: EventKind,
    task: EventTask,
}

/// The task that an event is about.
#[derive(Clone, Debug)]
enum EventTask {
    Known(Arc<Message>),
    /// The message could not be read, and this is what could be recognised.
    Unread {
        id: TaskId,
        name: Arc<str>,
    },
}

/// What has happened to a task. The names are those of Celery's task events, without the `task-`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A program has published the task. A worker may be faster than that is told, and have started the task before.
    Sent,
    /// A queue has taken the message from the broker. A task whose ETA is ahead is received once, when it comes.
    Received,
    /// A run begins.
    Started {
        /// The worker that runs the task, as `queue#slot`.
        worker: Arc<str>,
    },
    /// The task has returned a value.
    Succeeded {
        /// The value as Python's `repr` shows it, cut at about 1024 characters: `5`, `'abc'`, `None`.
        result: Arc<str>,
        /// How long the last run took.
        runtime: Duration,
    },
    /// The task has failed for good.
    Failed {
        /// The error as Python's `repr` shows it: `ValueError('bad', 42)`.
        exception: Arc<str>,
        /// The error with its causes in the form of a Python traceback. A task that nobody here knows has none.
        traceback: Option<Arc<str>>,
    },
    /// An attempt has failed, and the task waits for the next one.
    Retried {
        /// The error of the attempt, as in [`Failed`](Self::Failed).
        exception: Arc<str>,
        /// The error with its causes.
        traceback: Option<Arc<str>>,
    },
    /// The task was revoked, or expired.
    Revoked {
        /// Whether its run was told to end.
        terminated: bool,
        /// Whether it did not start before it expired.
        expired: bool,
    },
    /// The task has rejected itself: it has failed, or waits in its queue again.
    Rejected {
        /// Whether the message goes back into its queue.
        requeue: bool,
    },
    /// The run was given up because the worker shuts down, and the message goes back.
    Cancelled,
    /// A body has sent the event itself: [`Context::send_event`].
    Custom {
        /// The type of the event, as in `task-progress`.
        name: Arc<str>,
        /// The fields that the body gave it.
        fields: Arc<Map<String, Value>>,
    },
}

/// Why a custom event was not accepted.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendEventError {
    /// The name is not usable.
    #[error(
        "`{0}` is no name of a custom event: it is 1 to {LONGEST_NAME} bytes of letters, digits, `-` and `_`, such as task-progress"
    )]
    Name(String),
    /// The name is one of Celery's own, and the runtime sends such events itself.
    #[error("`{0}` is an event that workers send themselves: choose another name, such as task-progress")]
    Reserved(String),
    /// The fields have no form as a JSON object.
    #[error("the fields of event `{name}` are no JSON object: {error}")]
    Fields {
        /// The name of the event.
        name: String,
        /// What was found instead.
        error: String,
    },
    /// The fields take too many bytes; an event carries facts to show, and no data.
    #[error(
        "the fields of event `{name}` take {size} bytes, the limit is {MOST_FIELDS}: send an id, and keep the data elsewhere"
    )]
    TooLarge {
        /// The name of the event.
        name: String,
        /// The bytes that the fields take.
        size: usize,
    },
}

crate::core::debug_as_display!(SendEventError);

impl TaskEvent {
    /// An event about a message that happens now.
    pub fn now(message: Arc<Message>, kind: EventKind) -> Self {
        Self { at: now(), kind, task: EventTask::Known(message) }
    }

    /// An event about a message that could not be read, and of which this much was recognised.
    pub(crate) fn of_unread(id: TaskId, name: &str, kind: EventKind) -> Self {
        Self { at: now(), kind, task: EventTask::Unread { id, name: name.into() } }
    }

    /// The id of the task.
    pub fn id(&self) -> &TaskId {
        match &self.task {
            EventTask::Known(message) => &message.id,
            EventTask::Unread { id, .. } => id,
        }
    }

    /// The name of the task. It is empty if the message could not be read that far.
    pub fn task(&self) -> &str {
        match &self.task {
            EventTask::Known(message) => &message.task,
            EventTask::Unread { name, .. } => name,
        }
    }

    /// The whole message of the task; `None` if it could not be read.
    pub fn message(&self) -> Option<&Message> {
        match &self.task {
            EventTask::Known(message) => Some(message),
            EventTask::Unread { .. } => None,
        }
    }
}

impl EventKind {
    /// The type of the event as Celery's tools know it, such as `task-succeeded`.
    pub fn name(&self) -> &str {
        match self {
            Self::Sent => "task-sent",
            Self::Received => "task-received",
            Self::Started { .. } => "task-started",
            Self::Succeeded { .. } => "task-succeeded",
            Self::Failed { .. } => "task-failed",
            Self::Retried { .. } => "task-retried",
            Self::Revoked { .. } => "task-revoked",
            Self::Rejected { .. } => "task-rejected",
            Self::Cancelled => "task-cancelled",
            Self::Custom { name, .. } => name,
        }
    }

    /// The group that listeners subscribe to.
    pub fn group(&self) -> EventGroup {
        match self {
            Self::Sent => EventGroup::Sent,
            Self::Custom { .. } => EventGroup::Custom,
            _ => EventGroup::Run,
        }
    }
}

/// Whether a custom event may have this name.
fn check_name(name: &str) -> Result<(), SendEventError> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !(1..=LONGEST_NAME).contains(&name.len()) || !name.bytes().all(is_word) {
        return Err(SendEventError::Name(name.escape_debug().take(LONGEST_NAME).collect()));
    }
    let own = name.strip_prefix("task-").is_some_and(|end| {
        matches!(
            end,
            "sent" | "received" | "started" | "succeeded" | "failed" | "retried" | "revoked" | "rejected"
        ) || matches!(end, "cancelled" | "multi")
    });
    if own || name.starts_with("worker-") {
        return Err(SendEventError::Reserved(name.to_owned()));
    }
    Ok(())
}

impl Context {
    /// Sends an event of the application's about this task, such as `task-progress`. Celery's `self.send_event`.
    ///
    /// Programs that listen to events see it with these fields: [`Celeriac::events`](crate::Celeriac::events) here,
    /// and over RabbitMQ Flower and every receiver of Celery's. In Celery's `State` the task then has the state that
    /// the name ends in, `PROGRESS`. As in Celery, such an event is sent also while a worker's own task events are
    /// switched off. The call does not wait, and an event is lost if nobody listens.
    ///
    /// ```
    /// # use celeriac::Context;
    /// # fn demo(ctx: &Context) -> Result<(), celeriac::TaskError> {
    /// ctx.send_event("task-progress", serde_json::json!({"done": 5, "total": 10}))?;
    /// # Ok(()) }
    /// # demo(&Context::detached()).unwrap();
    /// ```
    ///
    /// # Errors
    /// The name is not usable or is one that workers send themselves, or the fields are no JSON object, have a number
    /// that is NaN or infinite, or are too large.
    pub fn send_event(&self, name: &str, fields: impl Serialize) -> Result<(), SendEventError> {
        check_name(name)?;
        let wrong = |error: String| SendEventError::Fields { name: name.to_owned(), error };
        let fields = match finite::to_value(&fields).map_err(|error| wrong(error.to_string()))? {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            other => return Err(wrong(format!("found `{}`", shortened(&other.to_string(), LONGEST_NAME)))),
        };
        let size = serde_json::to_string(&fields).map_or(0, |text| text.len());
        if size > MOST_FIELDS {
            return Err(SendEventError::TooLarge { name: name.to_owned(), size });
        }
        if let Some(events) = &self.sinks().events {
            events.emit(EventGroup::Custom, || {
                let kind = EventKind::Custom { name: name.into(), fields: Arc::new(fields) };
                Some(TaskEvent::now(Arc::clone(self.message_arc()), kind))
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_custom_event_has_a_name_of_its_own_and_an_object() {
        let context = Context::detached();
        let sent = |name: &str, fields: Value| context.send_event(name, fields).map_err(|e| e.to_string());
        assert_eq!(sent("task-progress", json!({"done": 1})), Ok(()));
        assert_eq!(sent("import_row", Value::Null), Ok(()));
        for name in ["", "task.progress", "task progress", "täsk", &"x".repeat(101)] {
            assert!(sent(name, json!({})).unwrap_err().contains("no name of a custom event"), "{name}");
        }
        for name in ["task-failed", "task-sent", "worker-online", "worker-x"] {
            assert!(sent(name, json!({})).unwrap_err().contains("send themselves"), "{name}");
        }
        assert!(sent("task-x", json!([1])).unwrap_err().contains("no JSON object"));
        let nan = context.send_event("task-x", BTreeMap::from([("loss", f64::NAN)])).unwrap_err();
        assert!(matches!(nan, SendEventError::Fields { .. }), "{nan}");
        assert!(nan.to_string().contains("a number in it is NaN"), "{nan}");
        let large = sent("task-x", json!({"a": "x".repeat(MOST_FIELDS)})).unwrap_err();
        assert!(large.contains("the limit is 65536"), "{large}");
    }

    #[test]
    fn an_event_knows_its_task() {
        let message = Arc::clone(Context::detached().message_arc());
        let event = TaskEvent::now(Arc::clone(&message), EventKind::Received);
        assert_eq!((event.id(), event.kind.name()), (&message.id, "task-received"));
        assert_eq!(event.message(), Some(&*message));
        let kind = EventKind::Failed { exception: "E('x')".into(), traceback: None };
        let unread = TaskEvent::of_unread("a".into(), "t", kind);
        assert_eq!((unread.id().as_str(), unread.task(), unread.message()), ("a", "t", None));
    }
}

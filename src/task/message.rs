//! A task as it waits in a broker.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{Arguments, Durability, Serial, TaskId, Unique, Workflow};
use crate::core::{RetryPolicy, Timestamp};

/// The header of a task that is to run once although it may be published more than once, because whoever publishes it decides so
/// in a place that has no transaction with the broker; ticks of periodic tasks have it. Set to `true`, it is replaced by a mark
/// of each copy that goes to RabbitMQ, and [`Store::claim`](crate::store::Store::claim) lets the first copy through and drops
/// the others. For that whoever runs it is a worker of Celeriac's, and has the same Redis as its result store as all others.
pub const ONCE: &str = "celeriac_once";

/// Headers of the application: small JSON values that travel with the task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(pub BTreeMap<String, Value>);

// Storage formats that do not describe themselves cannot hold a `Value`, so there it is JSON text.
impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.0.serialize(serializer)
        } else if self.0.is_empty() {
            serializer.serialize_str("")
        } else {
            let text = serde_json::to_string(&self.0).map_err(serde::ser::Error::custom)?;
            serializer.serialize_str(&text)
        }
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return BTreeMap::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// One task on its way: who it is, its arguments, and what its attempts so far came to.
///
/// Everything that decides how it runs is in the message, so that what was promised at the enqueue holds even if
/// the program that runs it has other defaults by then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id, the same through retries and continuations.
    pub id: TaskId,
    /// The task's name, for example `commcare.email.send_email`.
    pub task: String,
    /// Encoded arguments.
    pub arguments: Arguments,
    /// The queue it waits in.
    pub queue: String,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// Not before this time.
    pub eta: Option<Timestamp>,
    /// Not after this time.
    pub expires: Option<Timestamp>,
    /// When it was accepted first.
    pub enqueued_at: Timestamp,
    /// When a body of it started first; time-to-start is counted once.
    pub first_started_at: Option<Timestamp>,
    /// Attempts that failed and were tried again. Celery's `retries`.
    pub retries: u32,
    /// Runs that ended with their worker or their process, not by an outcome.
    pub crashes: u32,
    /// How often it was continued with a new cursor.
    pub continuations: u32,
    /// Retry policy in force.
    pub retry: RetryPolicy,
    /// Whether an error is retried without being asked.
    pub autoretry: bool,
    /// Soft limit on one run.
    pub soft_time_limit: Option<Duration>,
    /// Hard limit on one run.
    pub time_limit: Option<Duration>,
    /// Settle after (`true`) or before (`false`) the run.
    pub acks_late: bool,
    /// Keep no result.
    pub ignore_result: bool,
    /// How long the result is kept.
    pub result_expires: Duration,
    /// Where it waits.
    pub durability: Durability,
    /// The application's headers.
    pub headers: Headers,
    /// What the last failed attempt said.
    pub last_errors: Vec<String>,
    /// The workflow that it is part of, if any.
    pub workflow: Option<Box<Workflow>>,
    /// The lane that it stands in, if its task is serial.
    #[serde(default)]
    pub serial: Option<Box<Serial>>,
    /// Its dedupe window, if it has one.
    #[serde(default)]
    pub unique: Option<Box<Unique>>,
}

impl Message {
    /// The time from which time-to-start counts: the ETA where there is one, else the enqueue; of a serial task that had
    /// to wait for its lane, the end of that, for no queue could have started it before.
    pub fn due(&self) -> Timestamp {
        let due = self.eta.map_or(self.enqueued_at, |eta| eta.max(self.enqueued_at));
        let let_in_at = self.serial.as_ref().and_then(|serial| serial.let_in_at);
        let_in_at.map_or(due, |let_in_at| let_in_at.max(due))
    }

    /// Whether it is part of a canvas, so that something may follow from its end. One that was merely sent by another task is
    /// not.
    pub(crate) fn is_in_canvas(&self) -> bool {
        self.workflow.as_deref().is_some_and(Workflow::is_of_canvas)
    }

    /// Whether it is settled when its run is over. A serial one always is: its lane is held until then.
    pub fn settles_late(&self) -> bool {
        self.acks_late || self.serial.is_some()
    }
}

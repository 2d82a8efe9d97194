//! The message of a task, as it waits in a broker.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::clock::now;
use super::permit::HandedOver;
use super::tenant::LONGEST_TENANT;
use super::{Arguments, Durability, LaneName, SerialHeader, TaskId, TaskOptions, Unique, Workflow};
use crate::core::counted_wait::WaitTimes;
use crate::core::{RetryPolicy, Timestamp};

/// The header of a task that is to run once although its message may be published more than once. The publisher of such
/// a task decides in a place that has no transaction with the broker; ticks of periodic tasks and the messages that
/// follow from a run have the header. The publisher sets it to `true`. Each copy that goes to RabbitMQ gets a mark in
/// its place, and [`DuplicateStore::claim`](crate::store::DuplicateStore::claim) lets the first copy through and drops the others. All
/// workers of such a task must be Celeriac's and share one Redis as their result store.
pub const RUN_ONCE_HEADER: &str = "celeriac_once";

/// The header that says with which sending of a canvas a task has come. All that follows from the canvas inherits it. The same
/// canvas may be sent again under the same ids, and then all of it runs again: [`RUN_ONCE_HEADER`] holds within one sending.
pub const SENDING: &str = "celeriac_sending";

/// The header that counts how often in a row a body has rejected its task and put it back into the queue. It says that
/// the task was delivered before, and how long it waits this time.
pub(crate) const REQUEUES: &str = "celeriac_requeues";

/// The application's headers: small JSON values that travel with the task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(pub BTreeMap<String, Value>);

/// The header that holds what a call says of its message and no header says on the wire: the AMQP properties
/// `message_id`, `app_id` and `type`, the `exchange` and the `routing_key` that it is published by, the `compression` of
/// its body, and whether RabbitMQ has to `confirm` it.
pub(crate) const PROPERTIES: &str = "celeriac-properties";

/// The name among the [`PROPERTIES`] under which a call says that RabbitMQ need not confirm its message.
pub(crate) const CONFIRM: &str = "confirm";

/// The header that says that the positional arguments are shown as a list, `[1, 2]`. Python shows a call by
/// `apply_async([1, 2])` so, and most calls as a tuple, `(1, 2)`. No header says it on the wire, where it is seen from the
/// text.
pub(crate) const SHOWN_AS_LIST: &str = "celeriac-args-list";

/// The header of a task that a brake has diverted: the queue that it comes from. Nothing diverts it once more, so that two
/// brakes cannot send it to and fro.
pub(crate) const DIVERTED: &str = "celeriac_diverted";

/// The header of a call that went to another queue because its tenant sends more than its queue takes from one: the queue that it
/// was for.
pub(crate) const DEMOTED: &str = "celeriac_demoted";

/// The header that names the tenant of a task: the one on whose behalf it runs, such as CommCare HQ's `domain`. Queues share
/// their slots fairly among tenants.
pub const TENANT: &str = "celeriac_tenant";

/// The header of a task that a limit keeps from starting and that was put back into its queue for a while. It says since when
/// it is held, in microseconds since 1970, and how often it was put back: `1796040000000000/3`.
pub(crate) const HELD: &str = "celeriac_held";

/// For how long a limit has kept a task from starting that was put back into its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldMark {
    /// Since when it is held.
    pub(crate) since: Timestamp,
    /// How often it was put back.
    pub(crate) times: u32,
}

impl Headers {
    /// The tenant that they state: see [`Message::tenant`].
    pub(crate) fn tenant(&self) -> Option<&str> {
        let tenant = self.0.get(TENANT).and_then(Value::as_str);
        tenant.filter(|tenant| (1..=LONGEST_TENANT).contains(&tenant.len()))
    }

    /// Whether the caller has stated a text to show instead of the arguments.
    pub(crate) fn hide_arguments(&self) -> bool {
        ["argsrepr", "kwargsrepr"].iter().any(|name| self.0.contains_key(*name))
    }

    /// An AMQP property that the message has when it is published.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.0.get(PROPERTIES)?.get(name)?.as_str()
    }

    /// All properties.
    pub(crate) fn properties(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.get(PROPERTIES).and_then(Value::as_object).into_iter().flatten()
    }

    /// Takes a property out.
    pub(crate) fn take_property(&mut self, name: &str) -> Option<String> {
        let Value::Object(properties) = self.0.get_mut(PROPERTIES)? else { return None };
        let taken = properties.remove(name);
        if properties.is_empty() {
            self.0.remove(PROPERTIES);
        }
        taken?.as_str().map(str::to_owned)
    }

    /// The exchange to which the message goes, and its routing key, if it does not go to its queue. As for Celery, one
    /// without the other says nothing.
    #[cfg(feature = "amqp")]
    pub(crate) fn exchange(&self) -> Option<(&str, &str)> {
        let said = |name: &str| self.property(name).filter(|text| !text.is_empty());
        Some((said("exchange")?, said("routing_key")?))
    }

    /// Whether RabbitMQ has to confirm the message, as far as its sender says.
    #[cfg(feature = "amqp")]
    pub(crate) fn confirm(&self) -> bool {
        self.0.get(PROPERTIES).and_then(|properties| properties.get(CONFIRM)) != Some(&Value::Bool(false))
    }

    /// Keeps an AMQP property that the sender of a canvas step asked for.
    pub(crate) fn set_property(&mut self, name: &str, value: Value) {
        let properties = self.0.entry(PROPERTIES.to_owned()).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(properties) = properties {
            properties.insert(name.to_owned(), value);
        }
    }
}

// A storage format that does not describe itself cannot hold a `Value`, so it gets the headers as JSON text.
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

/// The message of one task: its id, its arguments, its options, and the count of its attempts so far.
///
/// The message holds everything that decides how the task runs. So the promise of the enqueue holds even if the program
/// that runs the task has other defaults by then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The task's id, which stays the same through retries and continuations.
    pub id: TaskId,
    /// The task's name, for example `commcare.email.send_email`.
    pub task: String,
    /// The encoded arguments of the call.
    pub arguments: Arguments,
    /// The queue that the message waits in.
    pub queue: String,
    /// The priority, from 0 to 255. The highest goes first.
    pub priority: u8,
    /// The time before which the task must not start.
    pub eta: Option<Timestamp>,
    /// The time after which the task must not start any more.
    pub expires: Option<Timestamp>,
    /// The time at which the task was first accepted.
    pub enqueued_at: Timestamp,
    /// The time at which a body of the task first started. Time-to-start is counted once.
    pub first_started_at: Option<Timestamp>,
    /// The number of attempts that failed and were tried again: Celery's `retries`.
    pub retries: u32,
    /// The number of runs that ended with their worker or their process, without an outcome.
    pub crashes: u32,
    /// The number of times that the task was continued with a new cursor.
    pub continuations: u32,
    /// The retry policy of this call.
    pub retry: RetryPolicy,
    /// Whether an error that does not say so itself is retried.
    pub autoretry: bool,
    /// The soft time limit of one run.
    pub soft_time_limit: Option<Duration>,
    /// The hard time limit of one run.
    pub time_limit: Option<Duration>,
    /// Whether the message is settled after the run (`true`) or before it (`false`).
    pub acks_late: bool,
    /// Whether no result is kept.
    pub ignore_result: bool,
    /// The time for which the result is kept.
    pub result_expires: Duration,
    /// Whether the message waits on disk or in memory.
    pub durability: Durability,
    /// The headers that the application gave to the call.
    pub headers: Headers,
    /// The messages of the last failed attempt.
    pub last_errors: Vec<String>,
    /// The workflow that the task is part of, if any.
    pub workflow: Option<Box<Workflow>>,
    /// The lane that the task stands in, if it is serial.
    #[serde(default)]
    pub serial: Option<Box<SerialHeader>>,
    /// The unique window of the call, if it has one.
    #[serde(default)]
    pub unique: Option<Box<Unique>>,
}

impl Message {
    /// The first message of a task: it has what the options say, and no run has begun. An expiry that the options state counts
    /// from `now`.
    ///
    /// # Arguments
    /// `queue` is the queue that the message waits in, whatever queue the options name; `now` is the time of the enqueue.
    pub fn new(
        id: TaskId,
        task: impl Into<String>,
        arguments: Arguments,
        queue: impl Into<String>,
        options: TaskOptions,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            task: task.into(),
            arguments,
            queue: queue.into(),
            priority: options.priority,
            eta: None,
            expires: options.expires.map(|after| now + after),
            enqueued_at: now,
            first_started_at: None,
            retries: 0,
            crashes: 0,
            continuations: 0,
            retry: options.retry,
            autoretry: options.autoretry,
            soft_time_limit: options.soft_time_limit,
            time_limit: options.time_limit,
            acks_late: options.acks_late,
            ignore_result: options.ignore_result,
            result_expires: options.result_expires,
            durability: options.durability,
            headers: Headers::default(),
            last_errors: Vec::new(),
            workflow: None,
            serial: None,
            unique: None,
        }
    }

    /// The time from which time-to-start counts: the ETA if there is one, else the enqueue. A serial task that had to
    /// wait for its lane counts from the time at which the lane let it in, because no queue could have started it
    /// before.
    pub fn due(&self) -> Timestamp {
        self.wait_times().counts_from()
    }

    /// From when the waiting of this task counts that has come to its queue at `now`: from its [due](Self::due) time, or anew if
    /// it has run before and came back without a time.
    pub(crate) fn counts_from(&self, now: Timestamp) -> Timestamp {
        let comes_back = self.has_begun() && self.eta.is_none();
        WaitTimes { came_back_at: comes_back.then_some(now), ..self.wait_times() }.counts_from().min(now)
    }

    fn wait_times(&self) -> WaitTimes {
        let let_in_at = self.serial.as_ref().and_then(|serial| serial.let_in_at);
        WaitTimes { since: self.enqueued_at, eta: self.eta, let_in_at, ..WaitTimes::default() }
    }

    /// The tenant on whose behalf the task runs, if one is stated. A header that is empty, longer than
    /// [`LONGEST_TENANT`](super::LONGEST_TENANT) or no text states none.
    pub fn tenant(&self) -> Option<&str> {
        self.headers.tenant()
    }

    /// For how long a limit keeps the task from starting, if it was put back into its queue for that.
    pub(crate) fn held(&self) -> Option<HeldMark> {
        let (since, times) = self.headers.0.get(HELD)?.as_str()?.split_once('/')?;
        Some(HeldMark { since: Timestamp::from_micros(since.parse().ok()?), times: times.parse().ok()? })
    }

    /// The message of a task that a limit keeps from starting, as it goes back into its queue until `due`. Nothing is counted
    /// as an attempt. Its time-to-start counts from `due`, because no queue could have started it before.
    pub(crate) fn held_until(&self, due: Timestamp, mark: HeldMark) -> Self {
        let HeldMark { since, times } = mark;
        let mut message = self.clone();
        let mark = format!("{}/{}", since.as_micros(), times.saturating_add(1));
        message.headers.0.insert(HELD.to_owned(), mark.into());
        message.eta = Some(due);
        message
    }

    /// The message as it waits when it may start from `now` on, although it was put back until a later time, because something
    /// held it. `None`: it was not put back for that, or its time has come. Its time-to-start counts from `now`.
    pub fn hastened(&self, now: Timestamp) -> Option<Self> {
        let is_early = self.held().is_some() && self.eta.is_some_and(|eta| eta > now);
        is_early.then(|| Self { eta: Some(now), ..self.clone() })
    }

    /// The number of earlier runs that count as attempts: attempts that failed, and runs that ended with their worker.
    pub fn tries(&self) -> u32 {
        self.retries.saturating_add(self.crashes)
    }

    /// The lane that the message has to pass; a message that its lane has refused passes none.
    pub(crate) fn lane(&self) -> Option<&LaneName> {
        self.serial.as_deref().filter(|serial| serial.refusal.is_none()).map(|serial| &serial.lane)
    }

    /// Whether the message has to pass its lane before it is ready. A message that is not due yet has not come to its
    /// lane.
    pub(crate) fn has_to_pass_lane(&self, due: Option<Timestamp>) -> bool {
        self.lane().is_some() && due.is_none_or(|due| due <= now())
    }

    /// How often in a row a body has put the task back into its queue: [`REQUEUES`].
    pub(crate) fn requeues(&self) -> u32 {
        let times = self.headers.0.get(REQUEUES).and_then(Value::as_u64).unwrap_or_default();
        u32::try_from(times).unwrap_or(u32::MAX)
    }

    /// Whether a run of the task has begun before, however it ended.
    pub(crate) fn has_begun(&self) -> bool {
        self.first_started_at.is_some() || self.retries > 0 || self.crashes > 0 || self.continuations > 0
    }

    /// Whether the task is part of a canvas, so that something may follow from its end. A task that another task merely
    /// sent is not part of one.
    pub(crate) fn is_in_canvas(&self) -> bool {
        self.workflow.as_deref().is_some_and(Workflow::is_of_canvas)
    }

    /// Whether the caller has stated a text to show instead of the arguments. Then no error, log line or page quotes
    /// them.
    pub fn hides_arguments(&self) -> bool {
        self.headers.hide_arguments()
    }

    /// Whether a broker may drop the message by itself once it has expired, because nobody could notice that it is
    /// gone. This is the one rule for everything that is published: a first call, a retry, a step of a canvas, a
    /// message from an outbox or a lane, a tick.
    ///
    /// A message may vanish if all of this holds: no result is kept; nothing follows from its end, and no task has sent
    /// it; no unique window, lane or permit waits for its end; and it has not begun, so that no user has seen progress.
    /// Every other message is delivered to a worker even after its time. The worker revokes the task: the record says
    /// REVOKED, the tasks that were to follow fail, errbacks are called, and permits and lanes are freed.
    pub(crate) fn may_vanish(&self) -> bool {
        let Self { workflow, serial, unique, .. } = self;
        let is_alone = workflow.as_deref().is_none_or(|workflow| {
            let Workflow { reply_to, shadow, origin, .. } = workflow.clone();
            *workflow == Workflow { reply_to, shadow, origin, ..Workflow::default() }
        });
        let is_waited_for = serial.is_some() || unique.is_some() || HandedOver::of(self).is_some();
        self.ignore_result && is_alone && !is_waited_for && !self.has_begun()
    }

    /// Whether the message is settled after its run. The message of a serial task always is, because its lane is held
    /// until then.
    pub fn settles_late(&self) -> bool {
        self.acks_late || self.serial.is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::{Context, RawSignature, UniqueKey};

    #[test]
    fn a_message_that_is_held_says_since_when_and_counts_from_its_return() {
        let message = Context::detached().message().clone();
        assert_eq!(message.held(), None);
        let (since, due) = (Timestamp::from_millis(5), Timestamp::from_millis(9_000));
        let held = message.held_until(due, HeldMark { since, times: 2 });
        assert_eq!(held.held(), Some(HeldMark { since, times: 3 }));
        assert_eq!((held.due(), held.first_started_at, held.tries()), (due, None, 0));
        assert_eq!(held.counts_from(Timestamp::from_millis(20_000)), due);
        let back = Message { continuations: 1, ..message.clone() };
        let now = message.enqueued_at + Duration::from_secs(60);
        assert_eq!((message.counts_from(now), back.counts_from(now)), (message.enqueued_at, now));
        let early = held.hastened(Timestamp::from_millis(7_000)).unwrap();
        assert_eq!((early.eta, early.held()), (Some(Timestamp::from_millis(7_000)), held.held()));
        assert_eq!((held.hastened(due), message.hastened(since)), (None, None), "it is due; nothing held it");
        let mut odd = message;
        for text in ["", "5", "x/1", "5/-1"] {
            odd.headers.0.insert(HELD.to_owned(), text.into());
            assert_eq!(odd.held(), None, "{text}");
        }
    }

    #[test]
    fn only_what_nobody_waits_for_may_vanish() {
        let plain = Context::detached().message().clone();
        assert!(plain.ignore_result && plain.may_vanish());
        let rpc = Workflow { reply_to: Some("q".into()), shadow: Some("s".into()), ..Workflow::default() };
        assert!(Message { workflow: Some(Box::new(rpc)), ..plain.clone() }.may_vanish());
        let with = |change: &dyn Fn(&mut Message)| {
            let mut message = plain.clone();
            change(&mut message);
            message.may_vanish()
        };
        let in_workflow = |change: &dyn Fn(&mut Workflow)| {
            let mut workflow = Workflow::default();
            change(&mut workflow);
            with(&|message| message.workflow = Some(Box::new(workflow.clone())))
        };
        assert!(!with(&|m| m.ignore_result = false), "whoever asks for its result waits");
        assert!(!with(&|m| m.serial = Some(Box::new(SerialHeader::new(LaneName::new("t", "k"))))));
        let window = Unique::new(UniqueKey::new("t", "k"), Duration::from_secs(1));
        assert!(!with(&|m| m.unique = Some(Box::new(window.clone()))));
        let permit = json!({ "wants": [], "holder": "h", "within": { "secs": 1, "nanos": 0 } }).to_string();
        assert!(!with(&|m| drop(m.headers.0.insert("celeriac_permit".into(), permit.clone().into()))));
        assert!(!with(&|m| m.retries = 1) && !with(&|m| m.crashes = 1) && !with(&|m| m.continuations = 1));
        assert!(!with(&|m| m.first_started_at = Some(Timestamp::ZERO)));
        let next = || RawSignature { task: "next".into(), ..RawSignature::default() };
        assert!(!in_workflow(&|w| w.chain = vec![next()]));
        assert!(!in_workflow(&|w| w.callbacks = vec![next()]));
        assert!(!in_workflow(&|w| w.errbacks = vec![next()]));
        assert!(!in_workflow(&|w| w.chord = Some(next())));
        assert!(!in_workflow(&|w| w.group = Some("g".into())));
        assert!(!in_workflow(&|w| w.replaced_task_nesting = 1));
        assert!(!in_workflow(&|w| w.parent_id = Some("p".into())));
        assert!(!in_workflow(&|w| w.root_id = Some("r".into())));
    }
}

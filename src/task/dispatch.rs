//! From a call to the message that waits for it: the options of its task, those of the call, and the queue.
//!
//! Callers need it, and so do workers, for what follows from the end of a task. Options that are relative, such as a
//! countdown, are counted from now: from the sending, not from the making of the signature.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use serde_json::{Map, Value};

use super::canvas::{Addition, Call, Freezer, Ids, Launch, Node, Place, Promise, SignatureError, addition};
use super::current::current_message;
use super::registry::Registry;
use super::{
    Arguments, Durability, EnqueueError, Headers, Message, NewTask, RawSignature, Serial, TaskId,
    TaskOptions, Unique, Workflow,
};
use crate::core::Timestamp;
use crate::task::clock::now;

/// Knows the queue of a call: of its task, if the call asks for none.
pub(crate) trait Route: Send + Sync {
    /// The physical queue.
    fn queue(&self, task: &str, wanted: Option<&str>, arguments: &Arguments) -> Result<String, EnqueueError>;

    /// The queue of a call that must not fail, because what it follows from has happened: the next best one.
    fn queue_of_last_resort(&self, task: &str, wanted: Option<&str>) -> String;
}

/// Makes messages of calls.
pub(crate) struct Dispatcher {
    pub(crate) registry: Registry,
    pub(crate) route: Box<dyn Route>,
    /// Of the arguments of a caller's call, in bytes.
    pub(crate) max_message_size: usize,
    /// Where results by rpc go, for brokers that have it.
    pub(crate) reply_to: Option<String>,
    /// The broker, if it keeps no lanes.
    pub(crate) without_lanes: Option<&'static str>,
    /// The broker, if neither it nor the store keeps dedupe windows.
    pub(crate) without_windows: Option<&'static str>,
}

/// A canvas that is ready to be sent.
pub(crate) struct Departure {
    pub(crate) messages: Vec<Message>,
    /// Its chords, and how many parts each has.
    pub(crate) sizes: Vec<(String, u64)>,
    pub(crate) promise: Promise,
    /// The caller gave ids, which must not be taken.
    pub(crate) unique: bool,
}

/// The task that others follow from, and what they inherit of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) root_id: Option<TaskId>,
    pub(crate) parent_id: Option<TaskId>,
    pub(crate) stamped_headers: Vec<String>,
    pub(crate) stamps: Headers,
}

impl Origin {
    /// Of what is sent from here: by the body of a task, if this thread is in one.
    fn current() -> Self {
        let sender = current_message();
        let stamps =
            |origin: Self| Self { stamped_headers: Vec::new(), stamps: Headers::default(), ..origin };
        sender.map(|message| stamps(Self::of(&message))).unwrap_or_default()
    }

    /// Of what follows from this message.
    pub(crate) fn of(message: &Message) -> Self {
        let workflow = message.workflow.as_deref();
        Self {
            root_id: workflow.and_then(|w| w.root_id.clone()).or_else(|| Some(message.id.clone())),
            parent_id: Some(message.id.clone()),
            stamped_headers: workflow.map(|w| w.stamped_headers.clone()).unwrap_or_default(),
            stamps: workflow.map(|w| w.stamps.clone()).unwrap_or_default(),
        }
    }
}

impl Dispatcher {
    /// The message of a caller's call.
    ///
    /// # Errors
    /// Its arguments are too large, its id is not usable, its queue is not known.
    pub(crate) fn message(&self, call: NewTask) -> Result<Message, EnqueueError> {
        let unique = self.unique(&call)?;
        Ok(Message { unique, ..self.message_of(call)? })
    }

    fn message_of(&self, call: NewTask) -> Result<Message, EnqueueError> {
        let size = call.arguments.len();
        if size > self.max_message_size {
            return Err(EnqueueError::TooLarge { task: call.task, size, limit: self.max_message_size });
        }
        let len = call.id.as_ref().map_or(1, |id| id.as_str().len());
        if !(1..=255).contains(&len) {
            return Err(EnqueueError::BadId { len });
        }
        let queue = self.route.queue(&call.task, call.options.queue.as_deref(), &call.arguments)?;
        let serial = self.serial(&call)?;
        let Origin { root_id, parent_id, .. } = Origin::current();
        let workflow =
            Workflow { root_id, parent_id, reply_to: self.reply_to.clone(), ..Workflow::default() };
        let workflow = Some(workflow).filter(|workflow| *workflow != Workflow::default());
        Ok(fill_in(NewTask { serial, ..call }, queue, workflow.map(Box::new)))
    }

    /// What is to be sent of a canvas now.
    ///
    /// # Errors
    /// As for [`message`](Self::message), for any task in it, or it is not sound.
    pub(crate) fn depart(&self, canvas: RawSignature) -> Result<Departure, EnqueueError> {
        let node = Node::from_raw(canvas).map_err(|error| EnqueueError::Canvas(error.to_string()))?;
        node.check(&|task, queue| self.route.queue(task, queue, &Arguments::default()).map(drop))?;
        let unique = node.has_ids();
        let mut freezer = Freezer { ids: Ids::Fresh, reply_to: self.reply_to.clone() };
        let mut launch = Launch::default();
        let mut node = node;
        // What is frozen once stays as it is.
        let _ = freezer.freeze(&mut node, Place::default());
        let mut ignored = HashSet::new();
        node.ignored(
            &|task| self.registry.get(task).is_some_and(|task| (task.options)().ignore_result),
            &mut ignored,
        );
        let mut promise = launch.add(node, Vec::new(), None, &mut freezer);
        promise.ignore(&ignored);
        let messages = self.firsts(launch.calls, &Origin::current())?;
        Ok(Departure { messages, sizes: launch.chords, promise, unique })
    }

    /// What is to be sent so that a canvas is the `nth` member that this run adds to its chord, and which chord that is.
    ///
    /// # Errors
    /// As for [`depart`](Self::depart), or the task is no member of a chord.
    pub(crate) fn depart_beside(
        &self,
        member: &Message,
        canvas: RawSignature,
        nth: u32,
    ) -> Result<(String, Departure), EnqueueError> {
        let refused = |error: SignatureError| EnqueueError::Canvas(error.to_string());
        let node = Node::from_raw(canvas).map_err(refused)?;
        node.check(&|task, queue| self.route.queue(task, queue, &Arguments::default()).map(drop))?;
        let Addition { group, launch, promise } = addition(member, node, nth).map_err(refused)?;
        let origin = Origin { stamped_headers: Vec::new(), stamps: Headers::default(), ..Origin::of(member) };
        let messages = self.firsts(launch.calls, &origin)?;
        Ok((group, Departure { messages, sizes: launch.chords, promise, unique: true }))
    }

    fn firsts(&self, calls: Vec<Call>, origin: &Origin) -> Result<Vec<Message>, EnqueueError> {
        calls.into_iter().map(|call| self.first(call, origin)).collect()
    }

    /// The message of a call in a canvas that a caller sends.
    fn first(&self, call: Call, origin: &Origin) -> Result<Message, EnqueueError> {
        let (call, workflow) = self.read(call, origin);
        // It has no dedupe window: whoever waits for a part that was left out would wait in vain.
        Ok(Message { workflow, ..self.message_of(call)? })
    }

    /// The message of a call that follows from the end of a task. It cannot be refused any more.
    pub(crate) fn next(&self, call: Call, origin: &Origin) -> Message {
        let named = inner_task(&call).to_owned();
        let (call, workflow) = self.read(call, origin);
        let wanted = call.options.queue.as_deref();
        let queue = match self.route.queue(&named, wanted, &call.arguments) {
            Ok(queue) => queue,
            Err(error) => {
                let queue = self.route.queue_of_last_resort(&named, wanted);
                if wanted != Some(&queue) {
                    tracing::error!(%error, queue, "the next step of a workflow goes to another queue");
                }
                queue
            }
        };
        // Where that fails, the worker says so: the message goes to the dead letters.
        let serial = self.serial(&call).unwrap_or_default();
        fill_in(NewTask { serial, ..call }, queue, workflow)
    }

    /// The lane of a call: as it says, or else as its task says.
    fn serial(&self, call: &NewTask) -> Result<Option<Box<Serial>>, EnqueueError> {
        let of_task = self.registry.get(&call.task).and_then(|known| known.serial);
        let serial = match (&call.serial, of_task) {
            (Some(serial), _) => serial.clone(),
            (None, None) => return Ok(None),
            (None, Some(serial)) => Box::new(serial(&call.arguments).map_err(|error| {
                EnqueueError::NoKey { task: call.task.clone(), error: error.to_string() }
            })?),
        };
        match self.without_lanes {
            Some(broker) => Err(EnqueueError::NoLanes { task: call.task.clone(), broker }),
            None => Ok(Some(serial)),
        }
    }

    /// The dedupe window of a call: as it says, or else as its task says.
    fn unique(&self, call: &NewTask) -> Result<Option<Box<Unique>>, EnqueueError> {
        let of_task = self.registry.get(&call.task).and_then(|known| known.unique);
        let unique = match (&call.unique, of_task) {
            (Some(unique), _) => unique.clone(),
            (None, None) => return Ok(None),
            (None, Some(unique)) => Box::new(unique(&call.arguments).map_err(|error| {
                EnqueueError::NoKey { task: call.task.clone(), error: error.to_string() }
            })?),
        };
        match self.without_windows {
            _ if unique.window.is_zero() => Ok(None),
            Some(broker) => Err(EnqueueError::NoWindows { task: call.task.clone(), broker }),
            None => Ok(Some(unique)),
        }
    }

    /// Reads a call's options.
    fn read(&self, call: Call, origin: &Origin) -> (NewTask, Option<Box<Workflow>>) {
        let task_options = |name: &str| self.registry.get(name).map(|task| (task.options)());
        let mut new = NewTask::new(call.task.clone(), task_options(&call.task).unwrap_or_default());
        let inner = inner_task(&call);
        if inner != call.task {
            // `celery.map` and the like wait where the task does that they call.
            new.options.queue = self.route.queue(inner, None, &Arguments::default()).ok();
        }
        let kwargs =
            if call.kwargs.is_empty() { String::new() } else { Value::Object(call.kwargs).to_string() };
        new.arguments = Arguments { args: Value::Array(call.args).to_string(), kwargs };
        let mut workflow = Workflow {
            root_id: origin.root_id.clone(),
            parent_id: origin.parent_id.clone(),
            callbacks: call.callbacks,
            errbacks: call.errbacks,
            chain: call.chain,
            chord: call.chord,
            stamped_headers: origin.stamped_headers.clone(),
            stamps: origin.stamps.clone(),
            ..Workflow::default()
        };
        read_options(call.options, &mut new, &mut workflow);
        (new, Some(workflow).filter(|workflow| *workflow != Workflow::default()).map(Box::new))
    }
}

/// The task that a call is about.
fn inner_task(call: &Call) -> &str {
    let inner = if matches!(call.task.as_str(), "celery.map" | "celery.starmap") {
        call.kwargs.get("task").and_then(|task| task.get("task")?.as_str())
    } else {
        None
    };
    inner.unwrap_or(&call.task)
}

/// Fills in the rest.
fn fill_in(call: NewTask, queue: String, workflow: Option<Box<Workflow>>) -> Message {
    let NewTask { task, arguments, options, id, countdown, eta, expires_at, headers, serial, .. } = call;
    let now = now();
    Message {
        id: id.unwrap_or_else(TaskId::new),
        task,
        arguments,
        queue,
        priority: options.priority,
        eta: eta.or_else(|| countdown.map(|delay| now + delay)),
        expires: expires_at.or_else(|| options.expires.map(|after| now + after)),
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
        headers,
        last_errors: Vec::new(),
        workflow,
        serial,
        unique: None,
    }
}

/// Celery's options of a call. What is not of the right type is as if not said: a foreign signature must not stop here.
fn read_options(options: Map<String, Value>, new: &mut NewTask, workflow: &mut Workflow) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id = |value: &Value| value.as_str().map(TaskId::from);
    let small = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let mut stamped = Vec::new();
    for (key, value) in &options {
        if value.is_null() {
            continue;
        }
        match key.as_str() {
            "task_id" => new.id = id(value),
            "queue" => new.options.queue = text(value).or(new.options.queue.take()),
            "priority" => {
                let priority = value.as_u64().map(|n| u8::try_from(n).unwrap_or(u8::MAX));
                new.options.priority = priority.unwrap_or(new.options.priority);
            }
            "countdown" => new.countdown = seconds(value),
            "eta" => new.eta = moment(value),
            "expires" => match seconds(value) {
                Some(after) => (new.options.expires, new.expires_at) = (Some(after), None),
                None => new.expires_at = moment(value),
            },
            "time_limit" => new.options.time_limit = seconds(value),
            "soft_time_limit" => new.options.soft_time_limit = seconds(value),
            "max_retries" => {
                new.options.retry.max_retries = small(value).unwrap_or(new.options.retry.max_retries);
            }
            "ignore_result" => {
                new.options.ignore_result = value.as_bool().unwrap_or(new.options.ignore_result);
            }
            "durability" if value == "memory" => new.options.durability = Durability::Memory,
            "durability" if value == "disk" => new.options.durability = Durability::Disk,
            "headers" => {
                let headers = value.as_object().into_iter().flatten();
                new.headers.0.extend(headers.map(|(name, value)| (name.clone(), value.clone())));
            }
            "group_id" => workflow.group = text(value),
            "group_index" => workflow.group_index = small(value),
            "root_id" => workflow.root_id = id(value).or(workflow.root_id.take()),
            "replaced_task_nesting" => workflow.replaced_task_nesting = small(value).unwrap_or(0),
            "reply_to" => workflow.reply_to = text(value),
            "shadow" => workflow.shadow = text(value),
            "stamped_headers" => stamped = value.as_array().into_iter().flatten().filter_map(text).collect(),
            _ => {}
        }
    }
    for name in stamped {
        let value = options.get(&name).cloned().unwrap_or_default();
        workflow.stamps.0.insert(name.clone(), value);
        if !workflow.stamped_headers.contains(&name) {
            workflow.stamped_headers.push(name);
        }
    }
}

/// A length of time in seconds; one that is over already is none.
fn seconds(value: &Value) -> Option<Duration> {
    Duration::try_from_secs_f64(value.as_f64()?.max(0.0)).ok()
}

/// A point in time as Python writes it; without an offset it is of UTC.
fn moment(value: &Value) -> Option<Timestamp> {
    let text = value.as_str()?;
    let time = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.to_utc(),
        Err(_) => NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?.and_utc(),
    };
    Some(Timestamp::from_micros(u64::try_from(time.timestamp_micros()).unwrap_or(0)))
}

/// A point in time as Python reads it, which knows no year past 9999.
pub(crate) fn written(at: Timestamp) -> String {
    const LAST: i64 = 253_402_300_799_000_000;
    let micros = i64::try_from(at.as_micros()).unwrap_or(LAST).min(LAST);
    DateTime::from_timestamp_micros(micros).unwrap_or_default().to_rfc3339()
}

/// The options of a call that differ from those of its task, as a signature has them.
pub(crate) fn write_options(call: &NewTask, of_task: &TaskOptions) -> Map<String, Value> {
    let mut options = Map::new();
    let mut set =
        |key: &str, value: Option<Value>| options.extend(value.map(|value| (key.to_owned(), value)));
    let span = |span: Duration| Value::from(span.as_secs_f64());
    let time = |at: Timestamp| Value::from(written(at));
    let TaskOptions { queue, priority, retry, soft_time_limit, time_limit, expires, .. } = &call.options;
    set("task_id", call.id.as_ref().map(|id| Value::from(id.as_str())));
    set("queue", queue.clone().filter(|_| *queue != of_task.queue).map(Value::from));
    set("priority", (*priority != of_task.priority).then(|| Value::from(*priority)));
    let retries = retry.max_retries;
    set("max_retries", (retries != of_task.retry.max_retries).then(|| Value::from(retries)));
    set("time_limit", time_limit.filter(|_| *time_limit != of_task.time_limit).map(span));
    set("soft_time_limit", soft_time_limit.filter(|_| *soft_time_limit != of_task.soft_time_limit).map(span));
    set("expires", expires.filter(|_| *expires != of_task.expires).map(span));
    set("expires", call.expires_at.map(time));
    set("countdown", call.countdown.map(span));
    set("eta", call.eta.map(time));
    let ignore = call.options.ignore_result;
    set("ignore_result", (ignore != of_task.ignore_result).then(|| Value::from(ignore)));
    let durability = call.options.durability;
    let durability = (durability != of_task.durability).then(|| serde_json::to_value(durability).ok());
    set("durability", durability.flatten());
    let headers = &call.headers.0;
    let headers = (!headers.is_empty()).then(|| Value::Object(headers.clone().into_iter().collect()));
    set("headers", headers);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Context, Signature, Task};

    struct Mail;

    impl Task for Mail {
        type Args = (u8,);
        type Output = ();
        const NAME: &'static str = "mail";
        const PARAMS: &'static [&'static str] = &["user"];

        fn options() -> TaskOptions {
            TaskOptions { queue: Some("email".into()), priority: 3, ..TaskOptions::default() }
        }
    }

    /// Each task in the queue that it wants, or in `own`.
    struct Anywhere;

    impl Route for Anywhere {
        fn queue(&self, task: &str, wanted: Option<&str>, _: &Arguments) -> Result<String, EnqueueError> {
            match wanted {
                Some("nowhere") => {
                    let (task, queue) = (task.to_owned(), "nowhere".to_owned());
                    Err(EnqueueError::UnknownQueue { task, queue, hint: String::new() })
                }
                wanted => Ok(wanted.unwrap_or("own").to_owned()),
            }
        }

        fn queue_of_last_resort(&self, _: &str, _: Option<&str>) -> String {
            "last".to_owned()
        }
    }

    fn dispatcher() -> Dispatcher {
        let registry = Registry::from_definitions(std::iter::empty()).unwrap();
        Dispatcher {
            registry,
            route: Box::new(Anywhere),
            max_message_size: 1 << 10,
            reply_to: None,
            without_lanes: None,
            without_windows: None,
        }
    }

    fn call(options: Value) -> Call {
        Call {
            task: "mail".into(),
            args: vec![1.into()],
            kwargs: Map::new(),
            options: options.as_object().unwrap().clone(),
            callbacks: Vec::new(),
            errbacks: Vec::new(),
            chain: Vec::new(),
            chord: None,
        }
    }

    #[test]
    fn what_differs_from_the_task_is_written_and_read() {
        let eta = Timestamp::from_millis(1_800_000_000_500);
        let second = Duration::from_secs;
        let signature = Signature::<Mail>::new(&(1,))
            .queue("slow")
            .priority(9)
            .eta(eta)
            .expires(second(60))
            .time_limit(second(20))
            .soft_time_limit(Duration::from_millis(1500))
            .max_retries(7)
            .header("tenant", "a")
            .ignore_result(true)
            .durability(Durability::Memory)
            .id("mine");
        let plain = write_options(&Signature::<Mail>::new(&(1,)).into_parts().0, &Mail::options());
        assert!(plain.is_empty(), "{plain:?}");
        let options = write_options(&signature.into_parts().0, &Mail::options());
        assert_eq!(options["eta"], "2027-01-15T08:00:00.500+00:00");
        let message = dispatcher().next(call(Value::Object(options)), &Origin::default());
        assert_eq!((message.id.as_str(), message.queue.as_str(), message.priority), ("mine", "slow", 9));
        assert_eq!((message.eta, message.time_limit), (Some(eta), Some(second(20))));
        assert_eq!(message.soft_time_limit, Some(Duration::from_millis(1500)));
        assert_eq!((message.retry.max_retries, message.ignore_result), (7, true));
        assert_eq!(message.durability, Durability::Memory);
        assert_eq!(message.expires, Some(message.enqueued_at + second(60)));
        assert_eq!(message.headers.0["tenant"], "a");
        assert_eq!(message.workflow, None);
    }

    #[test]
    fn what_python_writes_is_read_and_what_is_odd_is_left_out() {
        let options = serde_json::json!({
            "task_id": "t", "countdown": 5, "expires": "2027-01-15T08:00:00", "time_limit": null, "priority": "high",
            "soft_time_limit": [], "headers": 3, "serializer": "json", "group_id": "g", "group_index": 2,
            "stamped_headers": ["tenant"], "tenant": "acme", "queue": null,
        });
        let message = dispatcher().next(call(options), &Origin::default());
        assert_eq!(message.eta, Some(message.enqueued_at + Duration::from_secs(5)));
        assert_eq!(message.expires, Some(Timestamp::from_millis(1_800_000_000_000)));
        assert_eq!((message.priority, message.soft_time_limit, message.queue.as_str()), (0, None, "own"));
        let workflow = message.workflow.unwrap();
        assert_eq!((workflow.group.as_deref(), workflow.group_index), (Some("g"), Some(2)));
        assert_eq!(
            (workflow.stamped_headers, &workflow.stamps.0["tenant"]),
            (vec!["tenant".into()], &"acme".into())
        );
    }

    #[test]
    fn what_follows_inherits_and_cannot_be_refused() {
        let mut parent = Context::detached().message().clone();
        parent.id = "parent".into();
        let workflow = Workflow {
            stamped_headers: vec!["tenant".into()],
            stamps: Headers([("tenant".into(), "acme".into())].into()),
            ..Workflow::default()
        };
        parent.workflow = Some(Box::new(workflow));
        let message = dispatcher().next(call(serde_json::json!({"queue": "nowhere"})), &Origin::of(&parent));
        assert_eq!(message.queue, "last");
        let workflow = message.workflow.unwrap();
        assert_eq!((workflow.root_id, workflow.parent_id), (Some("parent".into()), Some("parent".into())));
        assert_eq!(workflow.stamps.0["tenant"], "acme");
    }
}

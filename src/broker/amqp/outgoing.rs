//! Messages as they are posted: to their queue, through the delay queues, or to the dead letters.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::Value;

use super::post::{Aim, OutgoingMessage};
use super::topology::{DEAD, FAILED, short};
use super::{delay, table, task_post};
use crate::broker::error::shown;
use crate::broker::{BrokerError, FailedTask};
use crate::core::Timestamp;
use crate::core::text::{self, shortened};
use crate::protocol::{self, WireMessage};
use crate::rabbitmq::frame_guard::{self, FRAME, MAX_DEPTH};
use crate::task::clock::now;
use crate::task::{Arguments, HandedOver, Message, RUN_ONCE_HEADER, TaskId};

/// A message that is due sooner than this is not delayed by RabbitMQ; it waits with the consumer.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// The longest time to live of a message that every version of RabbitMQ takes, in milliseconds: 49 days. RabbitMQ
/// closes the channel of a sender of a longer one. A message without one stays in its queue, and its consumer
/// looks at its header `expires`.
const LONGEST_LIFE: u64 = u32::MAX as u64;

/// A header of dead letters: the reason.
pub(super) const REASON: &str = "celeriac-reason";
/// A header of dead letters: the queue that the message was in.
pub(super) const QUEUE: &str = "celeriac-queue";
/// A header of dead letters: the time of death, in milliseconds since 1970.
pub(super) const DIED_AT: &str = "celeriac-died-at";
/// A header of dead letters: the letter's id here.
pub(super) const LETTER: &str = "celeriac-letter";
/// A header of failed tasks beside those of dead letters: the time until which the task is kept, in milliseconds since 1970.
pub(super) const EXPIRES_AT: &str = "celeriac-expires-at";
/// A header of a dead letter whose properties could not be read: the properties as they came, from the property
/// flags on.
pub(super) const PROPERTIES: &str = "celeriac-properties";
/// A header in place of that one, if a frame has no room for the properties: the number of bytes at the end of the
/// body that are those properties, or headers.
pub(super) const APPENDED: &str = "celeriac-appended";
/// A header of a message that was sent before and may have arrived.
pub(super) const COPY: &str = "celeriac-copy";
/// A header of a message that was sent away until its ETA and that listeners to events were told of: the retries that
/// it had, and the node that told.
pub(super) const RECEIVED: &str = "celeriac-received";
/// A header of a copy in the guard queue of a process: the tag of the delivery that it stands for.
pub(super) const KEPT: &str = "celeriac-kept";

/// The bytes that the properties of a task may take. On its way RabbitMQ adds up to seven kilobytes of headers in
/// the delay queues, and properties that then no longer fit a frame, with room to spare, could not be sent on.
pub(super) const MOST: usize = FRAME / 4 * 3;

/// Addresses a task to its queue, at once or, if its ETA is ahead, delayed; or to the exchange that its call names.
pub(super) fn task(message: &Message, now: Timestamp) -> Result<OutgoingMessage, BrokerError> {
    match message.headers.exchange() {
        None => task_post::write(message, message.eta, now),
        // The exchange gets it at once. Whoever takes it delays it by its header.
        Some((exchange, key)) => task_post::write(message, None, now)?.addressed_to(exchange, key),
    }
}

/// As [`task`], of a call, whose sender may have said that RabbitMQ need not confirm it. A message that something else waits for
/// is confirmed whatever its sender says: a step of a canvas, a serial task, a call with a unique window or with a permit that
/// was handed over to it, and one that its publisher sends again until it is confirmed.
pub(super) fn call(message: &Message, now: Timestamp) -> Result<OutgoingMessage, BrokerError> {
    let is_waited_for = || {
        message.is_in_canvas()
            || message.serial.is_some()
            || message.unique.is_some()
            || message.headers.0.contains_key(RUN_ONCE_HEADER)
            || HandedOver::of(message).is_some()
    };
    let confirm = message.headers.confirm() || is_waited_for();
    Ok(OutgoingMessage { confirm, ..task(message, now)? })
}

/// Encodes a message in Celery's protocol.
pub(super) fn encode(message: &Message, now: Timestamp) -> Result<WireMessage, BrokerError> {
    protocol::encode(message, now).map_err(|error| BrokerError::Refused(error.to_string()))
}

/// A message with its arguments as they are, and nothing else but what makes it a task.
pub(super) fn bare(message: &Message) -> WireMessage {
    let mut wire = WireMessage::default();
    wire.properties.content_type = Some(protocol::JSON.to_owned());
    wire.properties.content_encoding = Some("utf-8".to_owned());
    wire.properties.correlation_id = Some(message.id.to_string());
    wire.headers.insert("task".to_owned(), message.task.as_str().into());
    wire.headers.insert("id".to_owned(), message.id.as_str().into());
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let Arguments { args, kwargs } = &message.arguments;
    wire.body = format!("[{},{},null]", or(args, "[]"), or(kwargs, "{}")).into_bytes();
    wire
}

/// Addresses a message to a queue.
pub(super) fn wire(
    mut wire: WireMessage,
    queue: &str,
    eta: Option<Timestamp>,
    now: Timestamp,
) -> Result<OutgoingMessage, BrokerError> {
    wire.headers = table::without_traces(wire.headers);
    if wire.headers.values().any(is_too_deep) {
        return Err(too_deep());
    }
    // A call with such a name is refused, so the message is an earlier version's (of an outbox, say), or follows from one. It
    // is not sent without a part of it: the caller, or the dead letter that it becomes, says which name it is.
    table::check_names(&wire.properties, &wire.headers).map_err(cannot_carry)?;
    let Way { exchange, key, aim } = Way::to(queue, eta, now)?;
    if matches!(aim, Aim::Delayed(_)) {
        // The queues of the delay levels would take the expiration for their own time to live.
        wire.properties.expiration = None;
    }
    fitting(post(exchange, key, wire, aim))
}

/// Where a message goes first, and where it comes out in the end.
pub(super) struct Way {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) aim: Aim,
}

impl Way {
    /// The way to a queue, at once or, if `eta` is ahead, through the delay queues.
    ///
    /// # Errors
    /// RabbitMQ has no queue of such a name.
    pub(super) fn to(queue: &str, eta: Option<Timestamp>, now: Timestamp) -> Result<Self, BrokerError> {
        let ahead = eta.map_or(Duration::ZERO, |eta| eta.since(now));
        if ahead < SOON {
            let aim = Aim::Queue(queue.to_owned());
            return Ok(Self { exchange: ShortString::default(), key: short(queue)?, aim });
        }
        let key = short(&delay::routing_key(delay::seconds(ahead), queue))?;
        Ok(Self { exchange: short(&delay::entry())?, key, aim: Aim::Delayed(queue.to_owned()) })
    }
}

/// The refusal of a message with a name or a property that is too long for AMQP.
pub(super) fn cannot_carry(what: String) -> BrokerError {
    BrokerError::Refused(format!("RabbitMQ cannot carry it: {what}"))
}

/// The refusal of a message with a header that [is too deep](is_too_deep).
pub(super) fn too_deep() -> BrokerError {
    BrokerError::Refused(format!("its headers are nested more than {MAX_DEPTH} deep, which no worker reads"))
}

/// The same message, if its properties fit.
///
/// # Errors
/// They take more than [`MOST`].
pub(super) fn fitting(post: OutgoingMessage) -> Result<OutgoingMessage, BrokerError> {
    match table::frame_size(&post.properties) {
        ..=MOST => Ok(post),
        size => Err(BrokerError::Refused(format!(
            "its headers and properties take {size} bytes, and RabbitMQ has room for {MOST}: put less into headers and stamps, and send the rest as an argument"
        ))),
    }
}

/// Whether the value of a header is nested deeper than any worker reads.
pub(super) fn is_too_deep(value: &Value) -> bool {
    is_deeper(value, MAX_DEPTH - 1)
}

/// As [`is_too_deep`], of a value in a table that is the value of a header.
pub(super) fn is_too_deep_in_table(value: &Value) -> bool {
    is_deeper(value, MAX_DEPTH - 2)
}

/// Whether arrays and objects are nested in one another to more levels than `depth`.
fn is_deeper(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(_) | Value::Object(_) if depth == 0 => true,
        Value::Array(items) => items.iter().any(|item| is_deeper(item, depth - 1)),
        Value::Object(map) => map.values().any(|item| is_deeper(item, depth - 1)),
        _ => false,
    }
}

/// The facts that are written on a dead letter, and on a failed task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label<'a> {
    pub(super) queue: &'a str,
    pub(super) reason: &'a str,
    pub(super) letter: &'a str,
    pub(super) now: Timestamp,
    /// The time until which a failed task is kept.
    pub(super) expires_at: Option<Timestamp>,
}

impl Label<'_> {
    fn write(&self, headers: &mut FieldTable) {
        let text = |text: &str| AMQPValue::LongString(text.into());
        headers.insert(REASON.into(), text(&shortened(self.reason, text::ERROR)));
        headers.insert(QUEUE.into(), text(self.queue));
        let time =
            |time: Timestamp| AMQPValue::LongLongInt(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        headers.insert(DIED_AT.into(), time(self.now));
        if let Some(at) = self.expires_at {
            headers.insert(EXPIRES_AT.into(), time(at));
        }
        headers.insert(LETTER.into(), text(self.letter));
    }
}

/// A message on its way to the dead letters. What cannot be written with all its headers is kept with the most needed
/// ones, and with its arguments as they are.
pub(super) fn letter(message: &Message, reason: &str) -> OutgoingMessage {
    let now = now();
    let wire = encode(message, now).unwrap_or_else(|_| bare(message));
    dead(wire, Label { queue: &message.queue, reason, letter: message.id.as_str(), now, expires_at: None })
}

/// A failed task on its way to where it is kept. RabbitMQ drops it when its time has come.
pub(super) fn failed(task: &FailedTask) -> OutgoingMessage {
    let (message, expires_at) = (&task.message, task.expires_at);
    let wire = encode(message, task.failed_at).unwrap_or_else(|_| bare(message));
    let (queue, reason) = (message.queue.as_str(), task.reason.as_str());
    let label = Label { queue, reason, letter: message.id.as_str(), now: task.failed_at, expires_at };
    let mut post = OutgoingMessage { key: FAILED.into(), aim: Aim::Failed, ..dead(wire, label) };
    let life = expires_at.map(|at| at.since(now()).as_millis().min(u128::from(LONGEST_LIFE)).to_string());
    if let Some(life) = life.and_then(|life| ShortString::try_new(life).ok()) {
        post.properties = post.properties.with_expiration(life);
    }
    post
}

/// Addresses a whole message to the dead letters.
pub(super) fn dead(wire: WireMessage, label: Label<'_>) -> OutgoingMessage {
    dead_as_it_came(&table::to_properties(wire.properties, wire.headers), wire.body, None, label)
}

/// Addresses a message to the dead letters as it came, with its properties as bytes if they could not be read.
pub(super) fn dead_as_it_came(
    properties: &BasicProperties,
    mut body: Vec<u8>,
    unread: Option<Vec<u8>>,
    label: Label<'_>,
) -> OutgoingMessage {
    let came = properties.headers().clone().unwrap_or_default();
    let mut headers = FieldTable::default();
    for (name, value) in came.inner() {
        if !table::is_trace(name.as_str()) && ![KEPT, COPY].contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    label.write(&mut headers);
    if let Some(unread) = &unread {
        headers.insert(PROPERTIES.into(), AMQPValue::ByteArray(unread.clone().into()));
    }
    let mut properties = table::sent_on(properties, headers);
    // Whoever looks at the letter reads it through the same guard.
    if table::frame_size(&properties) > frame_guard::room(FRAME) {
        let tail = unread.unwrap_or_else(|| serde_json::to_vec(&table::to_map(&came)).unwrap_or_default());
        let mut headers = FieldTable::default();
        for name in ["id", "task"] {
            if let Some(AMQPValue::LongString(text)) = came.inner().get(name)
                && text.as_bytes().len() <= text::ERROR
            {
                headers.insert(name.into(), AMQPValue::LongString(text.clone()));
            }
        }
        label.write(&mut headers);
        headers.insert(APPENDED.into(), AMQPValue::LongLongInt(i64::try_from(tail.len()).unwrap_or(0)));
        body.extend(tail);
        properties = table::sent_on(&properties, headers);
    }
    let wire = WireMessage { body, ..WireMessage::default() };
    OutgoingMessage { properties, ..post("".into(), DEAD.into(), wire, Aim::Dead) }
}

/// The same dead letter for the exchange that its queue has for its letters, with the headers that RabbitMQ writes on a
/// message that is rejected. If the exchange has no usable name, it stays as it is.
pub(super) fn letter_to(
    letter: OutgoingMessage,
    queue: &str,
    exchange: &str,
    key: &str,
    now: Timestamp,
) -> OutgoingMessage {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut death = FieldTable::default();
    death.insert("count".into(), AMQPValue::LongLongInt(1));
    death.insert("reason".into(), text("rejected"));
    death.insert("queue".into(), text(queue));
    death.insert("time".into(), AMQPValue::Timestamp(now.as_millis() / 1000));
    death.insert("exchange".into(), text(""));
    death.insert("routing-keys".into(), AMQPValue::FieldArray(vec![text(queue)].into()));
    let mut headers = letter.properties.headers().clone().unwrap_or_default();
    headers.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
    for (name, value) in [("reason", "rejected"), ("queue", queue), ("exchange", "")] {
        headers.insert(format!("x-first-death-{name}").into(), text(value));
    }
    let properties = letter.properties.clone().with_headers(headers);
    let addressed = OutgoingMessage { properties, ..letter.clone() }.addressed_to(exchange, key);
    addressed.unwrap_or(letter)
}

/// The properties of a dead letter without the facts that were written on it.
pub(super) fn unlabelled(properties: &BasicProperties) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if ![REASON, QUEUE, DIED_AT, LETTER, EXPIRES_AT].contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    table::sent_on(properties, headers)
}

/// Addresses a message to its queue again, as it was.
///
/// # Errors
/// RabbitMQ has no queue of such a name.
pub(super) fn again(
    properties: BasicProperties,
    body: Vec<u8>,
    queue: &str,
) -> Result<OutgoingMessage, BrokerError> {
    let wire = WireMessage { body, ..WireMessage::default() };
    Ok(OutgoingMessage { properties, ..post("".into(), short(queue)?, wire, Aim::Queue(queue.to_owned())) })
}

/// The queue of the message in a dead letter; `None` if the post is no dead letter.
pub(super) fn queue_of_letter(post: &OutgoingMessage) -> Option<String> {
    if post.aim != Aim::Dead {
        return None;
    }
    match post.properties.headers().as_ref()?.inner().get(QUEUE)? {
        AMQPValue::LongString(queue) => Some(String::from_utf8_lossy(queue.as_bytes()).into_owned()),
        _ => None,
    }
}

/// A dead letter that RabbitMQ has refused, reduced to its body, its ids and the beginning of the reason.
pub(super) fn plain(letter: &OutgoingMessage) -> OutgoingMessage {
    const LEFT: [&str; 6] = ["id", "task", "lang", QUEUE, DIED_AT, LETTER];
    let mut headers = FieldTable::default();
    for (name, value) in letter.properties.headers().iter().flat_map(|headers| headers.inner()) {
        match value {
            AMQPValue::LongString(text) if name.as_str() == REASON => {
                let reason = shown(&String::from_utf8_lossy(text.as_bytes()));
                headers.insert(name.clone(), AMQPValue::LongString(reason.into()));
            }
            value if LEFT.contains(&name.as_str()) => drop(headers.insert(name.clone(), value.clone())),
            _ => {}
        }
    }
    OutgoingMessage { properties: letter.properties.clone().with_headers(headers), ..letter.clone() }
}

/// Makes a post of a message, with any exchange and key.
pub(super) fn post(
    exchange: ShortString,
    key: ShortString,
    mut wire: WireMessage,
    aim: Aim,
) -> OutgoingMessage {
    if aim != Aim::Anybody {
        wire.properties.delivery_mode = Some(2);
    }
    // A bare `true` asks for a mark that tells the copies of a message apart. A message that is sent on keeps the
    // mark that it came with.
    wire.properties.expiration = wire.properties.expiration.filter(|life| is_life(life));
    let once = wire.headers.get(RUN_ONCE_HEADER) == Some(&Value::Bool(true));
    if once {
        wire.headers.insert(RUN_ONCE_HEADER.into(), mark().into());
    }
    let properties = table::to_properties(wire.properties, wire.headers);
    OutgoingMessage { exchange, key, properties, body: wire.body, aim, confirm: true, once, task: None }
}

/// Whether RabbitMQ takes this text for a time to live.
pub(super) fn is_life(expiration: &str) -> bool {
    expiration.parse::<u64>().is_ok_and(|millis| millis <= LONGEST_LIFE)
}

/// A mark that no other copy of a message has.
pub(super) fn mark() -> String {
    TaskId::new().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::{CONFIRM, TaskOptions, Unique, UniqueKey};

    const LABEL: Label<'_> = Label {
        queue: "q",
        reason: "of a test",
        letter: "me",
        now: Timestamp::from_millis(7),
        expires_at: None,
    };

    fn with(name: &str, value: AMQPValue) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert(name.into(), value);
        BasicProperties::default().with_headers(headers)
    }

    fn headers(post: &OutgoingMessage) -> serde_json::Map<String, Value> {
        post.properties.headers().as_ref().map(table::to_map).unwrap_or_default()
    }

    #[test]
    fn whatever_is_written_on_a_dead_letter_it_fits_a_frame() {
        let (long, properties) =
            ("\u{e4}".repeat(40_000), with("task", AMQPValue::LongString("t".repeat(80_000).into())));
        let label = Label { reason: &long, ..LABEL };
        let post = dead_as_it_came(&properties, b"body".to_vec(), None, label);
        assert!(table::frame_size(&post.properties) < FRAME);
        let reason = headers(&post)[REASON].as_str().unwrap().to_owned();
        assert!(reason.len() <= text::ERROR && reason.ends_with("... (80000 bytes)"), "{reason}");
        assert_eq!(headers(&post)["task"].as_str().unwrap().len(), 80_000);
        assert_eq!(post.body, b"body");
    }

    #[test]
    fn properties_that_were_not_read_are_kept_with_it_or_behind_its_body() {
        let small =
            dead_as_it_came(&with("id", AMQPValue::Void), b"body".to_vec(), Some(vec![0xff; 9]), LABEL);
        let kept = small.properties.headers().as_ref().unwrap().inner()[PROPERTIES].clone();
        assert_eq!((kept, &small.body[..]), (AMQPValue::ByteArray(vec![0xff; 9].into()), &b"body"[..]));
        let big = vec![0xff; 131_000];
        let id = with("id", AMQPValue::LongString("me".into()));
        let post = dead_as_it_came(&id, b"body".to_vec(), Some(big.clone()), LABEL);
        assert!(table::frame_size(&post.properties) < FRAME);
        assert_eq!(post.body, [&b"body"[..], &big].concat());
        assert_eq!((&headers(&post)[APPENDED], &headers(&post)["id"]), (&json!(131_000), &json!("me")));
        // Headers that were read can lack room as well.
        let large = with("h", AMQPValue::LongString("x".repeat(140_000).into()));
        let post = dead_as_it_came(&large, b"body".to_vec(), None, LABEL);
        assert!(table::frame_size(&post.properties) < FRAME);
        let kept: Value = serde_json::from_slice(&post.body[4..]).unwrap();
        assert_eq!(kept["h"].as_str().unwrap().len(), 140_000);
    }

    #[test]
    fn what_no_worker_could_read_is_not_sent() {
        let mut deep = json!(1);
        for _ in 0..MAX_DEPTH {
            deep = json!([deep]);
        }
        let now = Timestamp::from_millis(7);
        for (value, part) in [(deep, "nested more than 64"), (json!("x".repeat(100_000)), "take 100")] {
            let mut message = WireMessage::default();
            message.headers.insert("h".to_owned(), value);
            let error = wire(message, "q", None, now).err().unwrap();
            assert!(matches!(&error, BrokerError::Refused(text) if text.contains(part)), "{error}");
        }
    }

    #[test]
    fn a_name_that_amqp_cannot_carry_is_refused_and_a_dead_letter_goes_without_it() {
        let (long, now) = ("n".repeat(300), Timestamp::from_millis(7));
        let header = |name: &str, value: Value| {
            let mut message = WireMessage { body: b"body".to_vec(), ..WireMessage::default() };
            message.headers.insert("id".to_owned(), json!("me"));
            message.headers.insert(name.to_owned(), value);
            message
        };
        let property = |set: fn(&mut protocol::Properties, String)| {
            let mut message = header("h", json!(1));
            set(&mut message.properties, "n".repeat(300));
            message
        };
        for (message, part) in [
            (header(&long, json!(1)), "the name of a header (it begins with `nnn"),
            (header("stamps", json!({"s": [{long.as_str(): 1}]})), "a name in the value of header `stamps`"),
            (property(|properties, text| properties.message_id = Some(text)), "the property `message_id`"),
            (property(|properties, text| properties.app_id = Some(text)), "the property `app_id`"),
            (property(|properties, text| properties.kind = Some(text)), "the property `type`"),
            (property(|properties, text| properties.reply_to = Some(text)), "the property `reply_to`"),
        ] {
            for eta in [None, Some(Timestamp::from_millis(60_000))] {
                let error = wire(message.clone(), "q", eta, now).err().unwrap();
                assert!(matches!(&error, BrokerError::Refused(text) if text.contains(part)), "{error}");
                assert!(error.to_string().contains("has 300 bytes; give it at most 255"), "{error}");
            }
            let reason = "RabbitMQ cannot carry it";
            let letter = dead(message, Label { reason, ..LABEL });
            assert_eq!((&headers(&letter)["id"], &letter.body[..]), (&json!("me"), &b"body"[..]));
            assert_eq!(headers(&letter)[REASON], json!(reason));
        }
        let longest = "n".repeat(255);
        let fits = header(&longest, json!({longest.as_str(): 1}));
        let Ok(post) = wire(fits, "q", None, now) else { panic!("it fits") };
        assert_eq!(headers(&post)[&longest], json!({longest.as_str(): 1}));
        assert!(wire(header("", json!(1)), "q", None, now).is_ok(), "whoever sent it");
    }

    #[test]
    fn what_something_else_waits_for_is_confirmed_whatever_its_sender_says() {
        let now = Timestamp::from_millis(7);
        let options = TaskOptions::default();
        let mut message = Message::new("me".into(), "t", Arguments::default(), "q", options, now);
        let confirms = |message: &Message| call(message, now).unwrap().confirm;
        assert!(confirms(&message), "by default");
        message.headers.set_property(CONFIRM, false.into());
        assert!(!confirms(&message));
        let unique = Unique::new(UniqueKey::new("t", "k"), Duration::from_secs(60));
        assert!(confirms(&Message { unique: Some(Box::new(unique)), ..message.clone() }));
        let mut with_permit = message.clone();
        let permit = r#"{"wants":[],"holder":"h","within":{"secs":600,"nanos":0}}"#;
        with_permit.headers.0.insert("celeriac_permit".to_owned(), permit.into());
        assert!(confirms(&with_permit), "nobody else has the permit until its task comes");
        message.headers.0.insert(RUN_ONCE_HEADER.to_owned(), true.into());
        assert!(confirms(&message));
    }

    #[test]
    fn a_time_to_live_that_rabbitmq_refuses_is_left_out() {
        for (expiration, is_taken) in [
            ("0", true),
            ("4294967295", true),
            ("4294967296", false),
            ("18446744073709551616", false),
            ("-1", false),
            ("1.5", false),
        ] {
            let mut wire = WireMessage::default();
            wire.properties.expiration = Some(expiration.to_owned());
            let post = post("".into(), "q".into(), wire, Aim::Queue("q".to_owned()));
            assert_eq!(post.properties.expiration().is_some(), is_taken, "{expiration}");
        }
    }
}

//! Publishes events of this worker and of its tasks to the exchange `celeryev`, for Flower, `celery events` and
//! exporters.
//!
//! Events have a channel of their own on the connection that publishes; they are neither confirmed nor mandatory nor
//! kept. Nothing waits for them: tasks drop them into the runtime's funnel, and one task on the broker's thread takes
//! them out, many at a time: the first event makes it set its clock to a moment later, and it is woken before that only
//! if a whole message of them has come. It also has the timer of the heartbeats, so that a worker whose event loops are
//! blocked shows up as alive. While RabbitMQ is away or blocks publishers, heartbeats are left out, and the events of
//! tasks wait, up to a limit; beyond that the oldest are dropped and counted. What was under way when a channel ended may have
//! come or not: it is not sent again, because whoever counts events would count it twice, and is counted as dropped.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::maybe_done;
use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::event_batches::{EventBatches, EventMessage, Handover};
use super::link::LinkState;
use super::post::Aim;
use super::topology::{broken, short};
use super::{AmqpInner, clock, outgoing};
use crate::broker::{Activity, BrokerError, BrokerListener};
use crate::protocol::control::Request;
use crate::protocol::events::{self, EventOrigin, TaskEventWriter, Vitals, WorkerEvent};
use crate::task::clock::now;
use crate::task::{EventGroup, EventStream, TaskEvent};

/// The time between two heartbeats, [`events::FREQ`].
const HEARTBEAT: Duration = Duration::from_secs(2);
/// The most events of tasks that are published at once: those of some seventy tasks, and about a message full.
const BATCH: usize = 200;
/// An event of a task waits this long for others that go with it.
const BATCH_WAIT: Duration = Duration::from_millis(50);
/// The most messages that are handed to the connection before it has written the first one.
const AT_ONCE: usize = 64;
/// The most events of tasks that wait for RabbitMQ.
const MOST: usize = 10_000;
/// How long RabbitMQ may take for one step.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the first event waits for the node's name, which another process may have.
const NAME_PATIENCE: Duration = Duration::from_secs(2);
/// How long a remote command waits until its switch is thrown, and a close until the last event is out.
const SWITCH_PATIENCE: Duration = Duration::from_millis(500);
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How long an exchange that RabbitMQ refuses is not declared again.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// The most commands that wait; of more, Flower and others ask again anyway.
const COMMANDS: usize = 64;

/// What the publisher of events is told to do.
enum EventsCommand {
    /// Task events were switched on or off.
    Switch(oneshot::Sender<()>),
    /// Somebody has asked for a heartbeat.
    Heartbeat,
    /// Another worker stands for election, under this id.
    Elect(Value),
    /// The broker closes.
    End(oneshot::Sender<()>),
}

/// The handle on the publisher of events.
pub(super) struct EventsHandle {
    enabled: AtomicBool,
    commands: mpsc::Sender<EventsCommand>,
    /// Taken by the publisher when it starts.
    inbox: Mutex<Option<mpsc::Receiver<EventsCommand>>>,
    /// Whether the name of this node is settled.
    named: watch::Sender<bool>,
    /// How many events were dropped since the start.
    dropped: AtomicU64,
}

impl EventsHandle {
    /// `enabled`: task events are sent from the start.
    pub(super) fn new(enabled: bool) -> Self {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        Self {
            enabled: AtomicBool::new(enabled),
            commands,
            inbox: Mutex::new(Some(inbox)),
            named: watch::Sender::new(false),
            dropped: AtomicU64::new(0),
        }
    }

    /// The node has its name, under which events go from now on.
    pub(super) fn named(&self) {
        self.named.send_replace(true);
    }

    /// The number of events that were dropped since the start, because they came faster than RabbitMQ took them, or were under
    /// way when a channel ended.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Acknowledges that another worker stands for election: it waits until all workers that it knows have done so.
    pub(super) fn acknowledge_election(&self, id: Value) {
        let _ = self.commands.try_send(EventsCommand::Elect(id));
    }

    /// Does what a remote command about events says, and answers in Celery's words. `None`: the command is about
    /// something else.
    pub(super) async fn obey(&self, request: &Request) -> Option<Value> {
        match request.method.as_str() {
            "enable_events" => Some(self.switch(true).await),
            "disable_events" => Some(self.switch(false).await),
            "heartbeat" => {
                let _ = self.commands.try_send(EventsCommand::Heartbeat);
                Some(Value::Null)
            }
            _ => None,
        }
    }

    async fn switch(&self, on: bool) -> Value {
        let word = if on { "enabled" } else { "disabled" };
        if self.enabled.swap(on, Ordering::AcqRel) == on {
            return json!({ "ok": format!("task events already {word}") });
        }
        // Whoever has the answer may rely on it.
        let (done, switched) = oneshot::channel();
        if self.commands.try_send(EventsCommand::Switch(done)).is_ok() {
            let _ = timeout(SWITCH_PATIENCE, switched).await;
        }
        json!({ "ok": format!("task events {word}") })
    }

    /// Publishes what has happened, and that the worker goes offline.
    pub(super) async fn end(&self) {
        if self.inbox.lock().is_some() {
            return; // there is no publisher
        }
        let (done, ended) = oneshot::channel();
        let end = async {
            if self.commands.send(EventsCommand::End(done)).await.is_ok() {
                let _ = ended.await;
            }
        };
        if timeout(END_PATIENCE, end).await.is_err() {
            tracing::debug!("the last events are not published: RabbitMQ does not take them in time");
        }
    }
}

/// Publishes the events of this process.
struct EventPublisher {
    shared: Arc<AmqpInner>,
    listener: Arc<dyn BrokerListener>,
    stream: Option<EventStream>,
    missed: u64,
    /// Events that have just been taken out of the stream. It is empty between two times, and keeps its room.
    taken: VecDeque<TaskEvent>,
    batches: EventBatches,
    /// The node that tells of this program's calls: Celery's `gen<pid>@<host>`.
    caller: Arc<str>,
    channel: Option<Channel>,
    /// The name under which this worker is online on this channel.
    online_as: String,
    /// When what has come is published, if it is not a whole batch before.
    flush_at: Option<Instant>,
    refused_at: Option<Instant>,
}

/// Publishes events, for as long as the broker is open.
pub(super) async fn attend(shared: Arc<AmqpInner>, listener: Arc<dyn BrokerListener>) {
    let inbox = shared.events.inbox.lock().take();
    let Some(mut commands) = inbox else { return };
    let mut publisher = EventPublisher {
        shared: Arc::clone(&shared),
        listener,
        stream: None,
        missed: 0,
        taken: VecDeque::new(),
        batches: EventBatches::new(MOST),
        caller: format!("gen{}@{}", std::process::id(), super::node::host()).into(),
        channel: None,
        online_as: String::new(),
        flush_at: None,
        refused_at: None,
    };
    publisher.listen();
    let mut named = shared.events.named.subscribe();
    let _ = timeout(NAME_PATIENCE, named.wait_for(|named| *named)).await;
    let mut link = shared.publishing.watch();
    publisher.connect().await;
    let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let flush_at = publisher.flush_at;
        let enough = if flush_at.is_some() { BATCH } else { 1 };
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(EventsCommand::Switch(done)) => {
                    publisher.listen();
                    let _ = done.send(());
                }
                Some(EventsCommand::Heartbeat) => publisher.tell(WorkerEvent::AskedHeartbeat).await,
                Some(EventsCommand::Elect(id)) => publisher.acknowledge(&id).await,
                Some(EventsCommand::End(done)) => {
                    publisher.end().await;
                    let _ = done.send(());
                    return;
                }
                None => return,
            },
            changed = link.changed() => match changed {
                Ok(()) => {
                    publisher.connect().await;
                    publisher.flush().await;
                }
                Err(_) => return,
            },
            _ = heartbeat.tick() => publisher.beat().await,
            () = tokio::time::sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => {
                publisher.flush().await;
            }
            () = filled(&mut publisher.stream, enough) => publisher.notice().await,
        }
    }
}

/// Waits for so many events, or the end of the stream, if events are listened to.
async fn filled(stream: &mut Option<EventStream>, enough: usize) {
    match stream {
        Some(stream) => stream.filled(enough).await,
        None => std::future::pending().await,
    }
}

impl EventPublisher {
    /// Listens to what is to be published from now on.
    fn listen(&mut self) {
        let mut groups = vec![EventGroup::Custom];
        if self.shared.events.enabled.load(Ordering::Acquire) {
            groups.push(EventGroup::Run);
        }
        if self.shared.options.task_sent_events {
            groups.push(EventGroup::Sent);
        }
        match &self.stream {
            // It stays the same stream, so that no event is lost between two.
            Some(stream) => stream.listen_to(&groups),
            None => (self.stream, self.missed) = (Some(self.listener.events(&groups)), 0),
        }
    }

    /// Events have come, or the stream has ended: the first event waits for others, and a whole batch is published.
    async fn notice(&mut self) {
        let has_ended = self.stream.as_ref().is_some_and(EventStream::has_ended);
        if has_ended || self.flush_at.is_some() {
            self.flush().await;
        } else {
            self.flush_at = Some(Instant::now() + BATCH_WAIT);
        }
        if has_ended {
            self.stream = None;
        }
    }

    /// Takes and writes all that has happened so far. If anything has, more is likely to follow, so the next flush is set, and the
    /// first event until then need not wake this task.
    fn gather(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let mut taken = std::mem::take(&mut self.taken);
        stream.take_all(&mut taken);
        let missed = stream.missed();
        let before = std::mem::replace(&mut self.missed, missed);
        let mut lost = missed.saturating_sub(before);
        if !taken.is_empty() {
            self.flush_at.get_or_insert_with(|| Instant::now() + BATCH_WAIT);
            lost += self.write(&mut taken);
        }
        self.taken = taken;
        self.lose(lost);
    }

    /// Writes events, and returns how many were dropped.
    fn write(&mut self, taken: &mut VecDeque<TaskEvent>) -> u64 {
        let node = self.shared.node();
        let own = TaskEventWriter::new(&origin(&node));
        // Most programs tell of no calls, so the writer for them is made for the first one.
        let mut callers: Option<TaskEventWriter> = None;
        let mut lost = 0;
        for event in taken.drain(..) {
            let group = event.kind.group();
            let (hostname, writer) = if group == EventGroup::Sent {
                let caller = &self.caller;
                (caller, &*callers.get_or_insert_with(|| TaskEventWriter::new(&origin(caller))))
            } else {
                (&node, &own)
            };
            let text = |out: &mut Vec<u8>| writer.write(&event, clock::tick(), out);
            lost += if group == EventGroup::Run {
                self.batches.add(hostname, text)
            } else {
                match short(&events::routing_key(event.kind.name())) {
                    Ok(key) => self.batches.add_alone(key, hostname, text),
                    Err(_) => 1, // no message can have such a key
                }
            };
        }
        lost
    }

    /// Counts events that were dropped. It is logged for the first one, and then less and less often.
    fn lose(&self, lost: u64) {
        let before = self.shared.events.dropped.fetch_add(lost, Ordering::Relaxed);
        let after = before.saturating_add(lost);
        if lost > 0 && before.checked_ilog2() != after.checked_ilog2() {
            tracing::warn!(
                dropped = after,
                "events of tasks were dropped: they come faster than RabbitMQ takes them, or were under way when a channel ended"
            );
        }
    }

    /// Whether events can be published now.
    fn is_ready(&self) -> bool {
        let is_blocked = || match &*self.shared.publishing.now() {
            LinkState::Up(up) => up.blocked.is_some(),
            LinkState::Down(_) => true,
        };
        self.channel.as_ref().is_some_and(|channel| channel.status().connected()) && !is_blocked()
    }

    /// Opens the channel, if there is none, and says that the worker is online.
    async fn connect(&mut self) {
        if self.channel.as_ref().is_some_and(|channel| channel.status().connected()) {
            return;
        }
        self.channel = None;
        if self.refused_at.is_some_and(|at| at.elapsed() < REFUSED_FOR) {
            return;
        }
        let up = match &*self.shared.publishing.now() {
            LinkState::Up(up) if up.blocked.is_none() => up.clone(),
            _ => return,
        };
        let opened = self.shared.publishing.during(async {
            let channel = up.connection.create_channel().await.map_err(|e| broken(&e))?;
            let exchange = short(&self.shared.options.event_exchange)?;
            let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let declared =
                channel.exchange_declare(exchange, ExchangeKind::Topic, durable, FieldTable::default());
            declared.await.map_err(|e| broken(&e))?;
            Ok::<_, BrokerError>(channel)
        });
        match timeout(PATIENCE, opened).await {
            Ok(Ok(channel)) => {
                self.channel = Some(channel);
                self.say_online().await;
                self.flush().await;
            }
            Ok(Err(error)) => {
                if error.is_permanent() {
                    tracing::warn!(%error, "no events are published for now; trying again in a minute");
                    self.refused_at = Some(Instant::now());
                }
                tracing::debug!(%error, "there is no channel for events yet");
            }
            Err(_) => tracing::debug!("there is no channel for events yet: RabbitMQ does not answer"),
        }
    }

    async fn say_online(&mut self) {
        self.online_as = self.shared.node().to_string();
        self.tell(WorkerEvent::Online(self.vitals())).await;
    }

    /// Says that the worker is there.
    async fn beat(&mut self) {
        self.connect().await;
        if !self.is_ready() {
            return;
        }
        if *self.online_as == *self.shared.node() {
            self.tell(WorkerEvent::Heartbeat(self.vitals())).await;
        } else {
            self.say_online().await;
        }
    }

    fn vitals(&self) -> Vitals {
        let Activity { active, processed } = self.listener.activity();
        Vitals { active, processed, loadavg: loadavg() }
    }

    /// Publishes an event of this worker; it is not kept for later.
    async fn tell(&mut self, event: WorkerEvent) {
        let node = self.shared.node();
        self.publish_worker(&node, events::of_worker(&event, &origin(&node), clock::tick(), now())).await;
    }

    async fn acknowledge(&mut self, id: &Value) {
        let node = self.shared.node();
        self.publish_worker(&node, events::elect_ack(id, &origin(&node), clock::tick(), now())).await;
    }

    async fn publish_worker(&mut self, node: &str, fields: Map<String, Value>) {
        let key = events::routing_key(fields.get("type").and_then(Value::as_str).unwrap_or_default());
        let Ok(key) = short(&key) else { return };
        let body = Value::Object(fields).to_string();
        if self.is_ready()
            && let Some(channel) = &self.channel
        {
            let message = EventMessage { key: &key, hostname: node, body: body.as_bytes() };
            let sent = publish_all(channel, &self.shared.options.event_exchange, vec![message]).await;
            if !is_written(&sent) {
                self.channel = None;
            }
        }
    }

    /// Publishes all that has happened so far.
    async fn flush(&mut self) {
        self.flush_at = None;
        self.gather();
        while !self.batches.is_empty() && self.is_ready() {
            let Some(channel) = &self.channel else { return };
            let messages: Vec<_> = self.batches.first(AT_ONCE).collect();
            let sent = publish_all(channel, &self.shared.options.event_exchange, messages).await;
            let lost = self.batches.settle(&sent);
            self.lose(lost);
            if !is_written(&sent) {
                // What waits is sent when there is a channel again.
                self.channel = None;
            }
        }
    }

    /// Publishes what has happened, and that the worker goes.
    async fn end(&mut self) {
        self.flush().await;
        self.tell(WorkerEvent::Offline(self.vitals())).await;
    }
}

/// The origin of what this node says.
fn origin(node: &str) -> EventOrigin {
    EventOrigin { hostname: node.to_owned(), pid: std::process::id() }
}

/// Whether all messages were written.
fn is_written(sent: &[Handover]) -> bool {
    sent.iter().all(|outcome| *outcome == Handover::Written)
}

/// Publishes messages to whoever listens, in their order, and returns what became of each. All are handed to the connection
/// before the first one is written, so it is woken once for all of them.
async fn publish_all(channel: &Channel, exchange: &str, messages: Vec<EventMessage<'_>>) -> Vec<Handover> {
    let Ok(exchange) = short(exchange) else { return vec![Handover::Refused; messages.len()] };
    let mut sending = Vec::with_capacity(messages.len());
    for message in messages {
        sending.push(Box::pin(maybe_done(publish(channel, exchange.clone(), message))));
    }
    let all_sent = poll_fn(|cx| {
        let mut all_sent = true;
        for one in &mut sending {
            all_sent &= one.as_mut().poll(cx).is_ready();
        }
        if all_sent { Poll::Ready(()) } else { Poll::Pending }
    });
    if timeout(PATIENCE, all_sent).await.is_err() {
        tracing::debug!("an event was not taken in time");
    }
    // Each was looked at once at least, so one that is not over was taken.
    sending.iter_mut().map(|one| one.as_mut().take_output().unwrap_or(Handover::Unknown)).collect()
}

/// Publishes one message.
async fn publish(channel: &Channel, exchange: ShortString, message: EventMessage<'_>) -> Handover {
    // A channel that is closed takes nothing; any other has all of the message after the first look at the future.
    if !channel.status().connected() {
        return Handover::Refused;
    }
    let envelope = events::envelope(message.hostname);
    let post = outgoing::post(exchange, message.key.clone(), envelope, Aim::Anybody);
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(post.exchange, post.key, options, message.body, post.properties);
    let sent = async { sent.await?.await };
    match sent.await {
        Ok(_) => Handover::Written,
        Err(error) => {
            tracing::debug!(%error, "an event could not be published");
            Handover::Unknown
        }
    }
}

/// The load of the machine over 1, 5 and 15 minutes; zeros where it cannot be read.
fn loadavg() -> [f64; 3] {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut loads = text.split_whitespace().map(|load| load.parse().unwrap_or_default());
    std::array::from_fn(|_| loads.next().unwrap_or_default())
}

//! The line of one queue in an outbox: the messages that wait there for the broker, and go to it in order.
//!
//! Each queue has a line of its own, so that a full queue slows those who send to it, and nobody else. A message
//! that the broker refuses for good leaves the line: it becomes a dead letter of the outbox, its record says why,
//! and what was to follow from it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{mpsc, watch};

use crate::broker::dead_letter::requeued;
use crate::broker::{
    Broker, BrokerError, BrokerListener, Consumer, DeadLetter, Delivery, EmbeddedBroker, Settle, Sink,
    refusal_reason, refused_result,
};
use crate::core::{Backoff, IoFailure};
use crate::store::Store;
use crate::task::{Arguments, CONFIRM, Durability, Message};

/// The name of the line of earlier versions, which had one for all queues. What they left there goes first.
pub(super) const OLD: &str = "outbox";
/// The most messages of a line that are on their way to the broker at a time. They leave in order.
pub(super) const IN_FLIGHT: usize = 256;
/// How often a line looks whether a broker that was away is back.
const LOOK: Duration = Duration::from_millis(250);
/// The pauses after the broker refused.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long a refusal waits for a listener that carries out what follows from it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes that the name of a queue may take.
const NAME: usize = 255;

/// Where the messages of an outbox go, and who is told what became of them.
pub(super) struct Way {
    pub(super) inner: Arc<dyn Broker>,
    pub(super) store: Arc<dyn Store>,
    pub(super) listener: watch::Sender<Option<Arc<dyn BrokerListener>>>,
}

/// The line of one queue.
pub(super) struct OutboxQueue {
    /// The number of messages in the line that the broker has not confirmed.
    pending: Arc<AtomicU64>,
    /// The number of dead letters of the line.
    dead: Arc<AtomicU64>,
    /// The outbox's consumer, kept alive.
    _consumer: Box<dyn Consumer>,
}

/// The name of a queue's line in the outbox. Very long names that begin alike share one.
pub(super) fn name_of(queue: &str) -> String {
    let mut name = format!("{OLD}/{queue}");
    if name.len() > NAME {
        let end = (0..=NAME).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
        name.truncate(end);
    }
    name
}

/// Whether a queue of a store is a line of an outbox.
pub(crate) fn is_line(queue: &str) -> bool {
    queue.strip_prefix(OLD).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Wraps a message for its way through the outbox: the whole of it is the argument of another message, which has
/// no ETA and no priority, because the outbox keeps nothing but the order of acceptance.
pub(super) fn wrap(mut message: Message) -> Result<Message, BrokerError> {
    // It leaves the outbox when the broker has confirmed it.
    message.headers.take_property(CONFIRM);
    let text = serde_json::to_string(&message)
        .map_err(|e| BrokerError::Refused(format!("task `{}` has no form in JSON: {e}", message.task)))?;
    Ok(Message {
        arguments: Arguments { args: text, kwargs: String::new() },
        queue: name_of(&message.queue),
        priority: 0,
        eta: None,
        expires: None,
        durability: Durability::Disk,
        workflow: None,
        serial: None, // the outbox keeps the order of acceptance, and the broker keeps the lane
        unique: None, // whether it is a duplicate was decided before it came here
        headers: crate::task::Headers::default(),
        last_errors: Vec::new(),
        ..message
    })
}

pub(super) fn unwrap(wrapped: &Message) -> Result<Message, IoFailure> {
    let message = serde_json::from_str::<Message>(&wrapped.arguments.args)
        .map_err(|e| IoFailure::caused_by(format!("not a message of this version: {e}"), e))?;
    // The message was a dead letter, and goes again.
    let goes_again = wrapped.enqueued_at != message.enqueued_at;
    Ok(if goes_again { requeued(message, wrapped.enqueued_at) } else { message })
}

/// A dead letter as it is shown: a letter of an outbox is shown as that of the task in it.
pub(crate) fn opened(letter: DeadLetter) -> DeadLetter {
    match Some(&letter.message).filter(|message| is_line(&message.queue)).map(unwrap) {
        Some(Ok(message)) => DeadLetter { message, ..letter },
        _ => letter,
    }
}

impl OutboxQueue {
    /// Opens the line of this name, and begins to forward what is there. `first`: the line that goes before it.
    pub(super) async fn open(
        name: &str,
        outbox: &EmbeddedBroker,
        way: Arc<Way>,
        first: Option<Arc<Self>>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Arc<Self>, BrokerError> {
        outbox.declare(name).await?;
        let counts = outbox.counts(name).await?;
        let pending = Arc::new(AtomicU64::new(counts.ready + counts.scheduled));
        let dead = Arc::new(AtomicU64::new(counts.dead));
        let (sender, deliveries) = mpsc::unbounded_channel(); // bounded by the prefetch
        let sink: Sink = Arc::new(move |batch: Vec<Delivery>| {
            for delivery in batch {
                let _ = sender.send(delivery); // if the forwarder is gone, the delivery is dropped and stays in the outbox
            }
        });
        let consumer = outbox.consume(name, 2 * IN_FLIGHT, sink)?;
        let forwarder = Forwarder {
            name: name.to_owned(),
            way,
            pending: Arc::clone(&pending),
            dead: Arc::clone(&dead),
            first,
        };
        // When its thread ends, the forwarder drops what it holds, which stays in the outbox.
        runtime.spawn(forwarder.forward(deliveries));
        Ok(Arc::new(Self { pending, dead, _consumer: consumer }))
    }

    /// The number of messages of this line that wait to be forwarded.
    pub(super) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Acquire)
    }

    /// The number of dead letters of this line.
    pub(super) fn dead(&self) -> u64 {
        self.dead.load(Ordering::Acquire)
    }

    /// Counts messages before they are in the line, so that nothing that is accepted after them can overtake them.
    pub(super) fn expect(&self, more: u64) {
        self.pending.fetch_add(more, Ordering::AcqRel);
    }

    /// Takes messages off the count that do not wait any more, or never did.
    pub(super) fn forget(&self, fewer: u64) {
        self.pending.fetch_sub(fewer, Ordering::AcqRel);
    }

    /// Notes that dead letters of this line wait again.
    pub(super) fn requeued(&self, letters: u64) {
        let fewer = |dead: u64| Some(dead.saturating_sub(letters));
        let _ = self.dead.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
    }
}

/// Forwards the messages of a line to the broker, in order.
struct Forwarder {
    name: String,
    way: Arc<Way>,
    pending: Arc<AtomicU64>,
    dead: Arc<AtomicU64>,
    first: Option<Arc<OutboxQueue>>,
}

impl Forwarder {
    async fn forward(self, mut line: mpsc::UnboundedReceiver<Delivery>) {
        let mut batch = Vec::with_capacity(IN_FLIGHT);
        while line.recv_many(&mut batch, IN_FLIGHT).await > 0 {
            while self.first.as_ref().is_some_and(|first| first.pending() > 0) {
                tokio::time::sleep(LOOK).await;
            }
            let mut backoff = BACKOFF;
            // Messages to a broker that is away would not go in order, because those who wait for it are woken in
            // no order.
            while self.way.inner.condition().is_unavailable {
                tokio::time::sleep(LOOK).await;
            }
            let mut at_a_time = batch.len();
            // Refused messages go again, in order, before any message that came after them.
            while !batch.is_empty() {
                let rest = batch.split_off(at_a_time.min(batch.len()));
                let refused = self.send(&mut batch).await;
                batch.extend(rest);
                let Some(error) = refused else {
                    backoff.reset();
                    at_a_time = IN_FLIGHT;
                    continue;
                };
                if error == BrokerError::Closed {
                    return;
                }
                // One message is enough to find out whether there is room.
                at_a_time = if matches!(error, BrokerError::Full(_)) { 1 } else { IN_FLIGHT };
                let pending = self.pending.load(Ordering::Relaxed);
                tracing::warn!(line = self.name, %error, pending, "the outbox tries again");
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }

    /// Hands over the messages that the broker takes. The others stay in `batch`, and the answer is the first
    /// error.
    async fn send(&self, batch: &mut Vec<Delivery>) -> Option<BrokerError> {
        // The publishes begin in order, and a broker keeps the order in which publishes begin.
        let answers: Vec<_> = stream::iter(batch.drain(..).map(|delivery| async {
            let answer = match unwrap(delivery.message()) {
                Ok(message) => match self.way.inner.publish(message.clone(), false).await {
                    Err(error) if error.is_permanent() && !matches!(error, BrokerError::DuplicateId(_)) => {
                        Ok(Err(self.refuse(&message, &error).await))
                    }
                    answer => answer.map(|_| Ok(())),
                },
                Err(unreadable) => Ok(Err(unreadable.to_string())),
            };
            (delivery, answer)
        }))
        .buffered(IN_FLIGHT)
        .collect()
        .await;
        let (mut refused, mut settled) = (None, Vec::new());
        for (delivery, answer) in answers {
            let (settle, dead) = match answer {
                Ok(Ok(())) | Err(BrokerError::DuplicateId(_)) => {
                    (Settle::Ack { result: None, follow_ups: None }, 0)
                }
                Ok(Err(reason)) => {
                    let id = &delivery.message().id;
                    tracing::error!(%id, line = self.name, reason, "the outbox cannot forward this; it is a dead letter there");
                    (Settle::DeadLetter { reason, result: None, follow_ups: None }, 1)
                }
                Err(error) => {
                    refused.get_or_insert(error);
                    batch.push(delivery);
                    continue;
                }
            };
            settled.push(async move { delivery.settle_and_wait(settle).await.map(|()| dead) });
        }
        let settled: Vec<u64> = join_all(settled).await.into_iter().filter_map(Result::ok).collect();
        self.dead.fetch_add(settled.iter().sum(), Ordering::AcqRel);
        self.pending.fetch_sub(settled.len() as u64, Ordering::AcqRel);
        refused
    }

    /// Fails a message that the broker will never take, and what was to follow from it. Answers with the reason.
    async fn refuse(&self, message: &Message, error: &BrokerError) -> String {
        let reason = refusal_reason(error);
        let record = refused_result(message, reason.clone());
        let mut listener = self.way.listener.subscribe();
        let attended = listener.wait_for(Option::is_some);
        let attended = tokio::time::timeout(PATIENCE, attended).await;
        let listener = attended.ok().and_then(Result::ok).and_then(|listener| listener.clone());
        match listener {
            Some(listener) => listener.end(record, Some(message)).await,
            None => {
                if let Err(error) = self.way.store.put(record).await {
                    tracing::error!(id = %message.id, %error, "the end of a task cannot be recorded");
                }
            }
        }
        reason
    }
}

//! Accepts while the broker is away: what cannot be handed over goes to disk here, and is forwarded when the broker is
//! back.
//!
//! - An `Ok` means that the broker has the message, or that it is synced to disk in the outbox; the receipt says which
//!   ([`Keeper`]).
//! - The order of acceptance is kept: while anything waits in the outbox, all that comes goes through it. Should the broker
//!   go away while it is forwarded, what was on its way then ([`IN_FLIGHT`] at most) may arrive in another order.
//! - A message is forwarded once, and deleted when the broker has confirmed it. If this process dies between the two, or
//!   the broker took a message and could not say so, it is sent again under the same id; no queue without a shared
//!   transaction can do better, so tasks are written to run twice.
//!
//! Only the enqueue is decoupled. What runs here still needs the broker to be settled.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::embedded::EmbeddedOptions;
use super::{
    Attendant, Broker, BrokerError, Consumer, Counts, DeadLetter, Delivery, EmbeddedBroker, LaneFacts,
    LaneLever, Place, RecordFn, Removal, Settle, Sink,
};
use crate::store::Store;
use crate::task::{Arguments, Durability, Keeper, LaneName, Message, Receipt, TaskId, UniqueKey};

/// The one queue of the outbox's own store.
const QUEUE: &str = "outbox";
/// So many are on their way to the broker at a time. They leave in order.
const IN_FLIGHT: usize = 256;
/// How often it is looked whether a broker that says that it is away is back.
const LOOK: Duration = Duration::from_millis(250);
/// The first pause after the broker refused; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A broker with an outbox in front of it.
pub struct OutboxBroker {
    inner: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    outbox: EmbeddedBroker,
    /// What lies in the outbox and is not confirmed by the broker.
    pending: Arc<AtomicU64>,
    closing: CancellationToken,
    forwarder: Option<JoinHandle<()>>,
    /// Keeps the outbox's consumer alive.
    _consumer: Box<dyn Consumer>,
}

impl OutboxBroker {
    /// Puts an outbox in `dir` in front of `inner`, and begins to forward what was left there. `store` gets the records of
    /// tasks that are revoked before they are forwarded.
    ///
    /// # Errors
    /// The directory is in use by another process, damaged, or not writable.
    pub async fn open(
        inner: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        dir: impl AsRef<Path>,
        options: EmbeddedOptions,
    ) -> Result<Self, BrokerError> {
        let dir = dir.as_ref().to_owned();
        let outbox = blocking::unblock(move || EmbeddedBroker::open(dir, options)).await?;
        outbox.declare(QUEUE).await?;
        let counts = outbox.counts(QUEUE).await?;
        let pending = Arc::new(AtomicU64::new(counts.ready + counts.scheduled));
        let closing = CancellationToken::new();
        let (sender, line) = mpsc::unbounded_channel(); // bounded by the prefetch
        let sink: Sink = Arc::new(move |deliveries: Vec<Delivery>| {
            for delivery in deliveries {
                let _ = sender.send(delivery); // dropped with the forwarder, it stays in the outbox
            }
        });
        let consumer = outbox.consume(QUEUE, 2 * IN_FLIGHT, sink)?;
        let forwarder = Forwarder { inner: Arc::clone(&inner), pending: Arc::clone(&pending) };
        let forwarder = Some(forwarder.start(line, closing.clone())?);
        Ok(Self { inner, store, outbox, pending, closing, forwarder, _consumer: consumer })
    }

    /// How many messages wait in the outbox.
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Acquire)
    }

    async fn keep(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        let (id, queue) = (message.id.clone(), message.queue.clone());
        // Counted first, so that nothing that is accepted after this one can overtake it.
        self.pending.fetch_add(1, Ordering::AcqRel);
        let kept = match wrap(message) {
            Ok(message) => self.outbox.publish(message, unique).await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            self.pending.fetch_sub(1, Ordering::AcqRel);
            return Err(error);
        }
        Ok(Receipt::new(id, queue, Durability::Disk).kept_by(Keeper::Outbox))
    }
}

impl Drop for OutboxBroker {
    /// Lets go of the directory.
    fn drop(&mut self) {
        self.closing.cancel();
        if let Some(forwarder) = self.forwarder.take() {
            let _ = forwarder.join();
        }
    }
}

/// A message on its way through the outbox: the whole of it is the argument of another one, which has no ETA and no
/// priority, because the outbox keeps nothing but the order of acceptance.
fn wrap(message: Message) -> Result<Message, BrokerError> {
    let text = serde_json::to_string(&message)
        .map_err(|e| BrokerError::Io(format!("task `{}` has no form in JSON: {e}", message.task)))?;
    Ok(Message {
        arguments: Arguments { args: text, kwargs: String::new() },
        queue: QUEUE.to_owned(),
        priority: 0,
        eta: None,
        expires: None,
        durability: Durability::Disk,
        workflow: None,
        serial: None, // the order of acceptance is kept here, and the lane is the broker's
        unique: None, // whether it is a duplicate was decided before it came here
        headers: crate::task::Headers::default(),
        last_errors: Vec::new(),
        ..message
    })
}

fn unwrap(wrapped: &Message) -> Result<Message, String> {
    serde_json::from_str(&wrapped.arguments.args).map_err(|e| format!("not a message of this version: {e}"))
}

/// Brings what lies in the outbox to the broker, in order.
struct Forwarder {
    inner: Arc<dyn Broker>,
    pending: Arc<AtomicU64>,
}

impl Forwarder {
    /// On a thread of its own, so that it depends on no event loop of the program's.
    fn start(
        self,
        line: mpsc::UnboundedReceiver<Delivery>,
        closing: CancellationToken,
    ) -> Result<JoinHandle<()>, BrokerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| BrokerError::Io(format!("no event loop for the outbox: {e}")))?;
        std::thread::Builder::new()
            .name("celeriac-outbox".to_owned())
            .spawn(move || {
                // Cancelled, it drops what it holds, and that stays in the outbox.
                let _ = runtime.block_on(closing.run_until_cancelled(self.forward(line)));
            })
            .map_err(|e| BrokerError::Io(format!("no thread for the outbox: {e}")))
    }

    async fn forward(self, mut line: mpsc::UnboundedReceiver<Delivery>) {
        let mut batch = Vec::with_capacity(IN_FLIGHT);
        while line.recv_many(&mut batch, IN_FLIGHT).await > 0 {
            let mut pause = PAUSE;
            // To one that is away they would not go in order: whoever waits for it is woken in no order.
            while self.inner.is_away() {
                tokio::time::sleep(LOOK).await;
            }
            // What was refused goes again, in order, before anything that came after it.
            while let Some(error) = self.send(&mut batch).await {
                if error == BrokerError::Closed {
                    return;
                }
                let pending = self.pending.load(Ordering::Relaxed);
                tracing::warn!(%error, pending, "the outbox tries again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Hands over what the broker takes; the rest stays in `batch`, with the first reason.
    async fn send(&self, batch: &mut Vec<Delivery>) -> Option<BrokerError> {
        // They are begun in order, and a broker keeps the order in which publishes begin.
        let answers: Vec<_> = stream::iter(batch.drain(..).map(|delivery| async {
            let answer = match unwrap(delivery.message()) {
                Ok(message) => self.inner.publish(message, false).await.map(|_| Ok(())),
                Err(reason) => Ok(Err(reason)),
            };
            (delivery, answer)
        }))
        .buffered(IN_FLIGHT)
        .collect()
        .await;
        let (mut refused, mut settled) = (None, Vec::new());
        for (delivery, answer) in answers {
            let settle = match answer {
                Ok(Ok(())) | Err(BrokerError::DuplicateId(_)) => Settle::Ack { result: None, sequel: None },
                Ok(Err(reason)) => {
                    let id = &delivery.message().id;
                    tracing::error!(%id, reason, "the outbox cannot forward this; it is a dead letter there");
                    Settle::DeadLetter { reason, result: None, sequel: None }
                }
                Err(error) => {
                    refused.get_or_insert(error);
                    batch.push(delivery);
                    continue;
                }
            };
            settled.push(delivery.settle_and_wait(settle));
        }
        let settled = join_all(settled).await.into_iter().filter(Result::is_ok).count();
        self.pending.fetch_sub(settled as u64, Ordering::AcqRel);
        refused
    }
}

#[async_trait]
impl Broker for OutboxBroker {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn settles_results(&self) -> bool {
        self.inner.settles_results()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn delivery_limit(&self) -> Option<u32> {
        self.inner.delivery_limit()
    }

    fn is_away(&self) -> bool {
        false // it accepts
    }

    fn keeps_lanes(&self) -> bool {
        self.inner.keeps_lanes()
    }

    fn keeps_windows(&self) -> bool {
        self.inner.keeps_windows()
    }

    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        self.inner.holder(key).await
    }

    fn let_go(&self, message: &Message) {
        self.inner.let_go(message);
    }

    async fn lane(&self, lane: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        self.inner.lane(lane).await
    }

    async fn lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        self.inner.lanes(limit).await
    }

    async fn steer_lane(&self, lane: &LaneName, lever: LaneLever) -> Result<bool, BrokerError> {
        self.inner.steer_lane(lane, lever).await
    }

    fn knows_all(&self) -> bool {
        self.inner.knows_all()
    }

    fn attend(&self, attendant: Arc<dyn Attendant>) {
        self.inner.attend(attendant);
    }

    async fn tell_revoked(&self, ids: &[TaskId], terminate: bool) -> Result<(), BrokerError> {
        self.inner.tell_revoked(ids, terminate).await
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        if self.inner.is_away() {
            return Ok(()); // whoever consumes it, or forwards to it, declares it
        }
        self.inner.declare(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.inner.queues().await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        if self.pending() > 0 || self.inner.is_away() {
            return self.keep(message, unique).await;
        }
        match self.inner.publish(message.clone(), unique).await {
            // Not taken, or not known to be: it is sent again under the same id.
            Err(error @ (BrokerError::Io(_) | BrokerError::Full(_))) => {
                tracing::warn!(id = %message.id, %error, "the broker does not take it; it goes to the outbox");
                self.keep(message, false).await
            }
            other => other,
        }
    }

    async fn publish_all(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        if self.inner.settles_results() {
            // Such a broker is never away, and takes all or none.
            return self.inner.publish_all(messages, sizes, unique).await;
        }
        for message in messages {
            self.publish(message, unique).await?;
        }
        Ok(())
    }

    async fn publish_beside(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        group: &str,
    ) -> Result<(), BrokerError> {
        self.inner.publish_beside(messages, sizes, group).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        self.inner.consume(queue, prefetch, sink)
    }

    async fn counts(&self, queue: &str) -> Result<Counts, BrokerError> {
        self.inner.counts(queue).await
    }

    async fn find(&self, id: &TaskId) -> Result<Option<Place>, BrokerError> {
        match self.outbox.find(id).await? {
            Some(Place::Waiting(wrapped)) => {
                let message = unwrap(&wrapped).map_err(BrokerError::Io)?;
                Ok(Some(Place::Waiting(Box::new(message))))
            }
            // On its way to the broker; the broker may know more.
            Some(Place::Delivered { .. }) | None => self.inner.find(id).await,
        }
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        if let Some(Place::Waiting(wrapped)) = self.outbox.find(id).await?
            && let Removal::Removed = self.outbox.remove(id, Box::new(|_| None.into())).await?
        {
            self.pending.fetch_sub(1, Ordering::AcqRel);
            let message = unwrap(&wrapped).map_err(BrokerError::Io)?;
            // An outbox is in front of brokers whose results, and what follows from them, are the store's.
            if let Some(record) = record(&message).record {
                self.store.put(record).await.map_err(|e| BrokerError::Io(e.to_string()))?;
            }
            return Ok(Removal::Removed);
        }
        self.inner.remove(id, record).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.inner.dead_letters(limit).await
    }

    async fn revive(&self, id: &TaskId) -> Result<bool, BrokerError> {
        self.inner.revive(id).await
    }

    async fn revive_all(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        self.inner.revive_all(ids).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.closing.cancel();
        let inner = self.inner.close().await;
        self.outbox.close().await?;
        inner
    }
}

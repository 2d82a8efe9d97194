//! The broker on RabbitMQ, which speaks Celery's protocol: Python workers can run the tasks that wait here, and
//! tasks that Python programs send run here.
//!
//! It has two connections: one publishes, one consumes. So when RabbitMQ has no room and blocks publishers,
//! deliveries can still be acknowledged. Each connection is made again when it is lost. The broker lives on a
//! thread of its own; its functions may be called on any thread and in any runtime.
//!
//! It differs from the other brokers where RabbitMQ does:
//! - It does not know every task: a task that waits in RabbitMQ can be neither found nor taken out. A task is
//!   revoked by telling all workers and the store, and is dropped when its turn comes.
//! - It does not check ids: a message that is sent twice under one id runs twice.
//! - [`QueueCounts`]: `scheduled` and `unsettled` count what this process has, and `dead` the dead letters of all
//!   queues. Nobody can tell the queue of a dead letter without fetching it, so for one queue only those letters
//!   are known that this process put there.
//! - Priorities need a classic queue with `max_priority`.
//! - RabbitMQ says only by its flag `redelivered` that a run took its process down, so the first crash of a task
//!   is not counted.

mod abilities;
mod acks;
mod burial;
mod calls;
mod clock;
mod consumer;
mod dead_letters;
mod delay;
mod elections;
mod event_batches;
mod events;
mod failed;
mod fleet_events;
mod link;
mod mailbox;
mod node;
mod options;
mod outgoing;
mod parked;
mod partitions;
mod pidbox;
mod post;
mod prefetch;
mod publish_channels;
mod publisher;
mod reading;
mod replies;
mod table;
mod task_post;
mod topology;
mod vain_priorities;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future, stream};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerListener, BrokerNotes, BulkChanges, Condition, Consumer,
    DeadLetter, DeadLetterQueue, Events, FailedTasks, Inspect, Lanes, PublishFuture, QueueCounts, Results,
    Sink, TenantBacklog, UniqueWindows,
};
use crate::core::Timestamp;
use crate::core::time::deadline;
use crate::protocol::{self, Arrival, BorrowedProperties, DecodeError, Table};
use crate::rabbitmq::{AddressError, Addresses};
use crate::task::clock::now;
use crate::task::{Message, Receipt, TaskId, TaskResult};
use consumer::{ConsumerCommand, ConsumerHandle, QueueConsumer};
use events::EventsHandle;
use link::{AmqpLink, ReconnectPause};
use node::NodeName;
use options::WriteUrl;
use parked::ParkedTasks;
use partitions::Partitions;
use post::OutgoingMessage;
use publisher::Publisher;
use replies::ControlReplies;
use topology::{Topology, short};
use vain_priorities::VainPriorities;

pub use super::{QueueSetup, QueueType};
pub use fleet_events::FleetEvents;
pub use options::AmqpOptions;

/// How long a close waits for messages that are still being published.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// How long RabbitMQ may take to answer a count. After that it counts as silent, and the answer is what this
/// process knows.
const COUNT_PATIENCE: Duration = Duration::from_secs(2);
/// The most messages of one call that are on their way at a time.
const IN_FLIGHT: usize = 1024;

/// The broker on RabbitMQ. See the [module](self) for what it does and does not promise.
pub struct AmqpBroker {
    shared: Arc<AmqpInner>,
    consumers: AtomicU64,
    closed: AtomicBool,
    closing: CancellationToken,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// The state that all parts of the broker share.
struct AmqpInner {
    options: Arc<AmqpOptions>,
    link: Arc<AmqpLink>,
    topology: Arc<Topology>,
    publisher: Arc<Publisher>,
    /// The connection that publishes.
    publishing: Arc<AmqpLink>,
    events: EventsHandle,
    runtime: tokio::runtime::Handle,
    node: NodeName,
    /// What waits for its ETA in RabbitMQ since this process has seen it.
    parked: ParkedTasks,
    tags: AtomicU64,
    refused: AtomicU64,
    /// The number of failed tasks that RabbitMQ has refused to keep.
    dropped_failed: AtomicU64,
    replies: ControlReplies,
    /// Whether RabbitMQ failed to answer the last count in time.
    silent: AtomicBool,
    vain_priorities: VainPriorities,
    partitions: Partitions,
    listener: OnceLock<Arc<dyn BrokerListener>>,
    lines: Mutex<HashMap<String, ConsumerHandle>>,
}

impl AmqpInner {
    fn next_tag(&self) -> u64 {
        self.tags.fetch_add(1, Ordering::Relaxed)
    }

    fn node(&self) -> Arc<str> {
        self.node.get()
    }

    /// Reads a message that came through this queue.
    fn decode(
        &self,
        properties: BorrowedProperties<'_>,
        headers: &dyn Table,
        body: &[u8],
        queue: &str,
        now: Timestamp,
    ) -> Result<Message, DecodeError> {
        let options = |task: &str| self.listener.get()?.options(task);
        let arrival = Arrival::new(queue, now, &options).max_size(self.options.max_size);
        protocol::decode_borrowed(properties, headers, body, &arrival)
    }

    /// Tells the runtime that a task is over without having been delivered.
    fn over(&self, record: TaskResult, message: Option<&Message>) {
        if let Some(listener) = self.listener.get() {
            listener.over(record, message);
        }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<String, ConsumerHandle>> {
        self.lines.lock()
    }

    /// Sends a question to the line of a queue, if there is one, and waits for the answer.
    async fn ask<T>(
        &self,
        queue: &str,
        question: impl FnOnce(oneshot::Sender<T>) -> ConsumerCommand,
    ) -> Option<T> {
        let line = self.lines().get(queue).cloned()?;
        let (answer, asked) = oneshot::channel();
        line.send(question(answer)).ok()?;
        asked.await.ok()
    }

    /// The queue whose consumer in this process has this task.
    async fn who_has(&self, id: &TaskId) -> Option<String> {
        let queues: Vec<String> = self.lines().keys().cloned().collect();
        for queue in queues {
            if self.ask(&queue, |answer| ConsumerCommand::Find(id.clone(), answer)).await == Some(true) {
                return Some(queue);
            }
        }
        None
    }

    /// All tasks that were delivered to this process.
    async fn held(&self) -> Vec<Arc<Message>> {
        let queues: Vec<String> = self.lines().keys().cloned().collect();
        let asked = queues.iter().map(|queue| self.ask(queue, ConsumerCommand::Held));
        future::join_all(asked).await.into_iter().flatten().flatten().collect()
    }

    /// The number of ready messages in a queue; `None` if there is no such queue, or RabbitMQ cannot be asked.
    async fn waiting(&self, queue: &str) -> Option<u64> {
        if !self.link.is_up() || self.options.is_broadcast(queue) {
            return None;
        }
        self.topology.waiting_in_all(queue).await.ok()?
    }

    /// Writes a message for its way, to its exchange or to this partition of its queue.
    fn write(&self, message: &Message, partition: Option<u8>) -> Result<OutgoingMessage, BrokerError> {
        outgoing::task(message, now())?.addressed(&self.options).into_partition(partition)
    }

    /// As [`write`](Self::write), of a call, which RabbitMQ need not confirm if its sender says so.
    fn write_call(&self, message: &Message, partition: Option<u8>) -> Result<OutgoingMessage, BrokerError> {
        outgoing::call(message, now())?.addressed(&self.options).into_partition(partition)
    }

    /// The counts of a queue, of what RabbitMQ has and of what this process has.
    async fn count(&self, queue: &str) -> QueueCounts {
        let counts = match self.ask(queue, ConsumerCommand::Counts).await {
            Some(counts) => counts,
            None => {
                QueueCounts { ready: self.waiting(queue).await.unwrap_or_default(), ..QueueCounts::default() }
            }
        };
        let dead = self.topology.waiting_dead().await.ok().flatten();
        QueueCounts { dead: dead.unwrap_or_default(), ..counts }
    }
}

impl AmqpBroker {
    /// Connects to RabbitMQ at `amqp://user:password@host:5672/vhost`, as Celery does. The addresses of a
    /// cluster's nodes are separated by `;`: if one cannot be reached, the next one is tried.
    ///
    /// # Errors
    /// The address cannot be read, or RabbitMQ cannot be reached.
    pub async fn connect(url: &str, options: AmqpOptions) -> Result<Self, BrokerError> {
        Self::open(url, options, false).await
    }

    /// Makes a broker as [`connect`](Self::connect) does, but RabbitMQ need not be there yet: the broker connects as soon as it
    /// is. Until then nothing is delivered, and publishes and declarations wait. It suits a broker behind an
    /// [outbox](crate::broker::OutboxBroker).
    ///
    /// # Errors
    /// The address cannot be read.
    pub async fn connect_later(url: &str, options: AmqpOptions) -> Result<Self, BrokerError> {
        Self::open(url, options, true).await
    }

    async fn open(url: &str, options: AmqpOptions, patient: bool) -> Result<Self, BrokerError> {
        let wrong = |error: AddressError| BrokerError::io_because(error.to_string(), error);
        let read = |url: &str| -> Result<Addresses, AddressError> {
            let addresses = Addresses::parse(url)?.trusting(options.ca_certs.as_deref())?;
            Ok(addresses.beating(options.heartbeat))
        };
        let reading = read(url).map_err(wrong)?;
        let writing = match &options.write_url {
            None => reading.clone(),
            Some(WriteUrl(url)) => {
                let writing = read(url).map_err(wrong)?;
                reading.check_one_vhost(&writing).map_err(wrong)?;
                writing
            }
        };
        let addresses = BothWays { reading, writing };
        let closing = CancellationToken::new();
        let (told, opened) = oneshot::channel();
        let until = closing.clone();
        let thread = std::thread::Builder::new()
            .name("celeriac-amqp".to_owned())
            .spawn(move || live(addresses, options, patient, until, told))
            .map_err(|error| BrokerError::io_because(format!("no thread for RabbitMQ: {error}"), error))?;
        let shared = opened.await.unwrap_or(Err(BrokerError::Closed))?;
        Ok(Self {
            shared,
            consumers: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            closing,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The number of messages that were refused since the start because they were no tasks; they are dead letters.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// The node name under which this process listens for remote control. It changes if another process keeps the
    /// name that the [options](AmqpOptions::node) state.
    pub fn node(&self) -> String {
        self.shared.node().to_string()
    }

    fn still_open(&self) -> Result<(), BrokerError> {
        if self.closed.load(Ordering::Acquire) { Err(BrokerError::Closed) } else { Ok(()) }
    }

    /// Runs something on the broker's own thread, which has the timers and sockets, whatever runtime the caller
    /// has.
    async fn there<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>> + Send + 'static,
    ) -> Result<T, BrokerError> {
        self.still_open()?;
        self.shared.runtime.spawn(work).await.unwrap_or(Err(BrokerError::Closed))
    }
}

/// The addresses by which the broker consumes, and those by which it publishes.
struct BothWays {
    reading: Addresses,
    writing: Addresses,
}

/// The body of the broker's thread.
fn live(
    addresses: BothWays,
    options: AmqpOptions,
    patient: bool,
    closing: CancellationToken,
    told: oneshot::Sender<Result<Arc<AmqpInner>, BrokerError>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return drop(told.send(Err(BrokerError::io(format!("no event loop for RabbitMQ: {error}")))));
        }
    };
    runtime.block_on(async {
        let opened = AmqpInner::open(addresses, options, patient, closing.clone()).await;
        let failed = opened.is_err();
        if told.send(opened).is_err() || failed {
            closing.cancel();
        }
        closing.cancelled().await;
    });
    // The connections say goodbye on their own tasks.
    runtime.shutdown_timeout(Duration::from_secs(1));
}

impl AmqpInner {
    async fn open(
        addresses: BothWays,
        options: AmqpOptions,
        patient: bool,
        closing: CancellationToken,
    ) -> Result<Arc<Self>, BrokerError> {
        let options = Arc::new(options);
        let BothWays { reading, writing } = addresses;
        let link = AmqpLink::open("consumer", reading, patient, closing.clone()).await?;
        let publishing = AmqpLink::open("publisher", writing, patient, closing).await?;
        let topology = Arc::new(Topology::new(Arc::clone(&link), Arc::clone(&options)));
        let publisher = Publisher::new(Arc::clone(&publishing), Arc::clone(&topology));
        let partitions = Partitions::new(Arc::clone(&options), Arc::clone(&topology));
        let events = EventsHandle::new(options.task_events);
        let node = NodeName::new(options.node.as_deref());
        Ok(Arc::new(Self {
            options,
            link,
            topology,
            publisher,
            publishing,
            events,
            runtime: tokio::runtime::Handle::current(),
            node,
            parked: ParkedTasks::default(),
            tags: AtomicU64::new(1),
            refused: AtomicU64::new(0),
            dropped_failed: AtomicU64::new(0),
            replies: ControlReplies::default(),
            silent: AtomicBool::new(false),
            vain_priorities: VainPriorities::default(),
            partitions,
            listener: OnceLock::new(),
            lines: Mutex::default(),
        }))
    }
}

#[async_trait]
impl Broker for AmqpBroker {
    fn name(&self) -> &'static str {
        "amqp"
    }

    fn facts(&self) -> BrokerFacts {
        BrokerFacts { is_shared: true, knows_all: false, delivery_limit: None }
    }

    fn condition(&self) -> Condition {
        Condition {
            is_unavailable: self.shared.publisher.is_unavailable(),
            is_silent: !self.shared.link.is_up() || self.shared.silent.load(Ordering::Acquire),
        }
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        let (shared, queue) = (Arc::clone(&self.shared), queue.to_owned());
        self.there(async move {
            // A program that starts while its connection is cut or a node is restarted must not fail for that.
            let until = deadline(Instant::now(), shared.options.publish_timeout);
            let mut pause = ReconnectPause::default();
            loop {
                match shared.topology.declare(&queue).await {
                    Err(error @ BrokerError::Closed) => return Err(error),
                    Err(error) if !error.is_permanent() && Instant::now() < until => {
                        tracing::debug!(queue, %error, "a queue cannot be declared yet");
                        pause.rest().await;
                    }
                    done => return done,
                }
            }
        })
        .await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.still_open()?;
        Ok(self.shared.topology.queues())
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.begin_publish(Arc::new(message), unique).await
    }

    /// The message is written here and now, so the calls of a program are written on as many threads as it calls from. It is
    /// put in line when the answer is polled first.
    fn begin_publish(&self, message: Arc<Message>, _unique: bool) -> PublishFuture<'_> {
        match self.prepare(&message) {
            Ok(call) => self.send(message, call).boxed().into(),
            Err(error) => PublishFuture::answered(Err(error)),
        }
    }

    /// Publishes many messages at a time; within a queue they keep the order of `messages`.
    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        let all = stream::iter(messages).map(|message| self.begin_publish(Arc::new(message), unique));
        all.buffered(IN_FLIGHT).try_for_each(|_| future::ready(Ok(()))).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        self.still_open()?;
        let consumer = self.consumers.fetch_add(1, Ordering::Relaxed);
        let line = self
            .shared
            .lines()
            .entry(queue.to_owned())
            .or_insert_with(|| QueueConsumer::spawn(Arc::clone(&self.shared), queue.to_owned()))
            .clone();
        line.send(ConsumerCommand::Attach { consumer, prefetch, sink }).map_err(|_| BrokerError::Closed)?;
        Ok(Box::new(AmqpConsumer { consumer, line }))
    }

    /// While RabbitMQ is away or does not answer, it [is silent](Condition::is_silent), and the answer counts only
    /// what this process has.
    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        self.still_open()?;
        short(queue)?;
        let (shared, queue) = (Arc::clone(&self.shared), queue.to_owned());
        self.there(async move {
            // Both are asked together, this one first: a line that waits for RabbitMQ answers nothing else meanwhile.
            let here = tokio::time::timeout(COUNT_PATIENCE, shared.ask(&queue, ConsumerCommand::Here));
            if !shared.link.is_up() {
                return Ok(here.await.ok().flatten().unwrap_or_default());
            }
            let counted = tokio::time::timeout(COUNT_PATIENCE, shared.count(&queue));
            let (here, counted) = future::join(here, counted).await;
            shared.silent.store(counted.is_err(), Ordering::Release);
            Ok(counted.unwrap_or_else(|_| here.ok().flatten().unwrap_or_default()))
        })
        .await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        let shared = Arc::clone(&self.shared);
        self.there(async move { dead_letters::list(&shared, limit).await }).await
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let (shared, ids) = (Arc::clone(&self.shared), ids.to_vec());
        self.there(async move { dead_letters::requeue_dead_letter(&shared, &ids).await }).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let lines: Vec<ConsumerHandle> = self.shared.lines().drain().map(|(_, line)| line).collect();
        let mut ends = Vec::new();
        for line in lines {
            let (done, ended) = oneshot::channel();
            if line.send(ConsumerCommand::Close(done)).is_ok() {
                ends.push(ended);
            }
        }
        let all = futures_util::future::join_all(ends);
        let patient =
            self.shared.runtime.spawn(async { tokio::time::timeout(CLOSE_PATIENCE, all).await.is_ok() });
        let all_settled = patient.await.unwrap_or(false);
        let shared = Arc::clone(&self.shared);
        let _ = self.shared.runtime.spawn(async move { shared.events.end().await }).await;
        self.closing.cancel();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            blocking::unblock(move || drop(thread.join())).await;
        }
        if all_settled {
            Ok(())
        } else {
            Err(BrokerError::io(
                "what followed from some runs could not be published in time; those tasks run again"
                    .to_owned(),
            ))
        }
    }

    fn results(&self) -> Option<&dyn Results> {
        None
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        None
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        None
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        None // RabbitMQ does not say since when its messages have been ready
    }

    fn events(&self) -> Option<&dyn Events> {
        Some(self)
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        Some(self)
    }

    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        Some(self)
    }

    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        None // RabbitMQ cannot reorder what waits in a queue
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        None // nobody can look into a queue of RabbitMQ
    }
}

impl Drop for AmqpBroker {
    /// Without a close, deliveries go back to RabbitMQ when the connections end.
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// The handle on the consumer of a queue.
struct AmqpConsumer {
    consumer: u64,
    line: ConsumerHandle,
}

impl Consumer for AmqpConsumer {
    fn set_prefetch(&self, prefetch: usize) {
        let _ = self.line.send(ConsumerCommand::Prefetch { consumer: self.consumer, prefetch });
    }
}

impl Drop for AmqpConsumer {
    fn drop(&mut self) {
        let _ = self.line.send(ConsumerCommand::Detach { consumer: self.consumer });
    }
}

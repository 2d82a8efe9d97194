//! The broker on RabbitMQ, in Celery's tongue: what waits here can be run by Python workers, and what they send runs here.
//!
//! Two connections: one publishes, one consumes. So when RabbitMQ has no room and blocks publishers, what was delivered can
//! still be acknowledged. Both are made again when they are lost. It lives on a thread of its own; its calls come from any
//! thread and any runtime.
//!
//! What differs from the other brokers, because RabbitMQ is as it is:
//! - It does not know all: what waits in RabbitMQ can be neither found nor taken out. A task is revoked by telling all workers
//!   and the store, and is dropped when its turn comes.
//! - Ids are not checked: whoever sends one twice has it run twice.
//! - [`Counts`]: `scheduled` and `unsettled` are those of this process, `dead` those of all queues.
//! - Priorities need a classic queue with `max_priority`.
//! - A run that took its process down is known by RabbitMQ's `redelivered` flag, so the first one of a task is not counted.

mod acks;
mod address;
mod delay;
mod letters;
mod line;
mod link;
mod options;
mod outgoing;
mod pidbox;
mod publisher;
mod ration;
mod table;
mod topology;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use lapin::types::ShortString;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Attendant, Broker, BrokerError, Consumer, Counts, DeadLetter, Place, RecordFn, Removal, Sink};
use crate::core::Timestamp;
use crate::protocol::control::Request;
use crate::protocol::{self, Arrival, DecodeError, Properties, Table};
use crate::task::clock::now;
use crate::task::{Durability, Message, Receipt, TaskId, TaskResult};
pub(crate) use address::Addresses;
use line::{Command, Commands, Line};
use link::Link;
use publisher::{Attempt, Publisher};
use topology::{DEAD, Topology, short};

pub use super::{QueueSetup, QueueType};
pub use options::AmqpOptions;

/// How long a close waits for what is still being published.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// So many of the messages of one call are on their way at a time.
const IN_FLIGHT: usize = 1024;

/// The broker on RabbitMQ.
pub struct AmqpBroker {
    shared: Arc<Shared>,
    consumers: AtomicU64,
    closed: AtomicBool,
    closing: CancellationToken,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// What all parts of the broker share.
struct Shared {
    options: Arc<AmqpOptions>,
    link: Arc<Link>,
    topology: Arc<Topology>,
    publisher: Arc<Publisher>,
    runtime: tokio::runtime::Handle,
    node: String,
    tags: AtomicU64,
    refused: AtomicU64,
    attendant: OnceLock<Arc<dyn Attendant>>,
    lines: Mutex<HashMap<String, Commands>>,
}

impl Shared {
    fn next_tag(&self) -> u64 {
        self.tags.fetch_add(1, Ordering::Relaxed)
    }

    fn node(&self) -> &str {
        &self.node
    }

    /// Reads a message that came through this queue.
    fn decode(
        &self,
        properties: &Properties,
        headers: &dyn Table,
        body: &[u8],
        queue: &str,
        now: Timestamp,
    ) -> Result<Message, DecodeError> {
        let options = |task: &str| self.attendant.get()?.options(task);
        let arrival = Arrival::new(queue, now, &options).max_size(self.options.max_size);
        protocol::decode_parts(properties, headers, body, &arrival)
    }

    /// A task is over without having been delivered.
    fn over(&self, record: TaskResult, message: Option<&Message>) {
        if let Some(attendant) = self.attendant.get() {
            attendant.over(record, message);
        }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<String, Commands>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the line of a queue, if there is one.
    async fn ask<T>(&self, queue: &str, question: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let line = self.lines().get(queue).cloned()?;
        let (answer, asked) = oneshot::channel();
        line.send(question(answer)).ok()?;
        asked.await.ok()
    }

    /// The queue whose consumer here has this task.
    async fn who_has(&self, id: &TaskId) -> Option<String> {
        let queues: Vec<String> = self.lines().keys().cloned().collect();
        for queue in queues {
            if self.ask(&queue, |answer| Command::Find(id.clone(), answer)).await == Some(true) {
                return Some(queue);
            }
        }
        None
    }

    /// How many messages are ready in a queue, if there is one.
    async fn waiting(&self, queue: &str) -> Option<u64> {
        self.topology.waiting(&ShortString::try_new(queue).ok()?).await.ok()?
    }
}

impl AmqpBroker {
    /// Connects to RabbitMQ: `amqp://user:password@host:5672/vhost`, as for Celery. The nodes of a cluster are separated by
    /// `;`: whenever one is not to be reached, the next one is tried.
    ///
    /// # Errors
    /// The address cannot be read, or RabbitMQ is not to be reached.
    pub async fn connect(url: &str, options: AmqpOptions) -> Result<Self, BrokerError> {
        Self::open(url, options, false).await
    }

    /// As [`connect`](Self::connect), but RabbitMQ need not be there: it is connected to as soon as it is. Until then nothing is
    /// delivered, and publishes and declarations wait. For a broker with an [outbox](crate::broker::OutboxBroker) before it.
    ///
    /// # Errors
    /// The address cannot be read.
    pub async fn connect_later(url: &str, options: AmqpOptions) -> Result<Self, BrokerError> {
        Self::open(url, options, true).await
    }

    async fn open(url: &str, options: AmqpOptions, patient: bool) -> Result<Self, BrokerError> {
        let addresses =
            Addresses::parse(url)?.trusting(options.ca_certs.as_deref())?.beating(options.heartbeat);
        let closing = CancellationToken::new();
        let (told, opened) = oneshot::channel();
        let until = closing.clone();
        let thread = std::thread::Builder::new()
            .name("celeriac-amqp".to_owned())
            .spawn(move || live(addresses, options, patient, until, told))
            .map_err(|error| BrokerError::Io(format!("no thread for RabbitMQ: {error}")))?;
        let shared = opened.await.unwrap_or(Err(BrokerError::Closed))?;
        Ok(Self {
            shared,
            consumers: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            closing,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// How many messages were refused since the start, because they were no tasks; they are in the dead letters.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// The name under which this process hears of revocations.
    pub fn node(&self) -> &str {
        self.shared.node()
    }

    fn still_open(&self) -> Result<(), BrokerError> {
        if self.closed.load(Ordering::Acquire) { Err(BrokerError::Closed) } else { Ok(()) }
    }

    /// Runs something on the broker's own thread: its timers and sockets are there, whatever runtime the caller has.
    async fn there<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>> + Send + 'static,
    ) -> Result<T, BrokerError> {
        self.still_open()?;
        self.shared.runtime.spawn(work).await.unwrap_or(Err(BrokerError::Closed))
    }
}

/// The thread of a broker.
fn live(
    addresses: Addresses,
    options: AmqpOptions,
    patient: bool,
    closing: CancellationToken,
    told: oneshot::Sender<Result<Arc<Shared>, BrokerError>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return drop(told.send(Err(BrokerError::Io(format!("no event loop for RabbitMQ: {error}")))));
        }
    };
    runtime.block_on(async {
        let opened = Shared::open(addresses, options, patient, closing.clone()).await;
        let failed = opened.is_err();
        if told.send(opened).is_err() || failed {
            closing.cancel();
        }
        closing.cancelled().await;
    });
    // The connections say goodbye on their own tasks.
    runtime.shutdown_timeout(Duration::from_secs(1));
}

impl Shared {
    async fn open(
        addresses: Addresses,
        options: AmqpOptions,
        patient: bool,
        closing: CancellationToken,
    ) -> Result<Arc<Self>, BrokerError> {
        let options = Arc::new(options);
        let link = Link::open("consumer", addresses.clone(), patient, closing.clone()).await?;
        let publishing = Link::open("publisher", addresses, patient, closing).await?;
        let topology = Arc::new(Topology::new(Arc::clone(&link), Arc::clone(&options)));
        let publisher = Publisher::new(publishing, Arc::clone(&topology));
        let node = options.node.clone().unwrap_or_else(|| format!("celeriac@{}", host()));
        Ok(Arc::new(Self {
            options,
            link,
            topology,
            publisher,
            runtime: tokio::runtime::Handle::current(),
            node,
            tags: AtomicU64::new(1),
            refused: AtomicU64::new(0),
            attendant: OnceLock::new(),
            lines: Mutex::default(),
        }))
    }
}

/// The name of this machine.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    name.map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[async_trait]
impl Broker for AmqpBroker {
    fn name(&self) -> &'static str {
        "amqp"
    }

    fn settles_results(&self) -> bool {
        false
    }

    fn is_away(&self) -> bool {
        self.shared.publisher.is_away()
    }

    fn knows_all(&self) -> bool {
        false
    }

    fn attend(&self, attendant: Arc<dyn Attendant>) {
        if self.shared.attendant.set(Arc::clone(&attendant)).is_ok() {
            self.shared.runtime.spawn(pidbox::listen(Arc::clone(&self.shared), attendant));
        } else {
            tracing::error!("a broker has one runtime that attends it; the second one hears nothing");
        }
    }

    async fn tell_revoked(&self, ids: &[TaskId], terminate: bool) -> Result<(), BrokerError> {
        let (shared, request) = (Arc::clone(&self.shared), Request::revoke(ids, terminate));
        self.there(async move { pidbox::broadcast(&shared, &request).await }).await
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        let (topology, queue) = (Arc::clone(&self.shared.topology), queue.to_owned());
        self.there(async move { topology.declare(&queue).await }).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.still_open()?;
        Ok(self.shared.topology.queues())
    }

    async fn publish(&self, message: Message, _unique: bool) -> Result<Receipt, BrokerError> {
        self.still_open()?;
        let post = outgoing::task(&message, now())?;
        let mut attempt = Attempt::new(self.shared.options.publish_timeout);
        if !self.shared.publisher.publish_at_once(post, &mut attempt).await? {
            let post = outgoing::task(&message, now())?;
            let publisher = Arc::clone(&self.shared.publisher);
            // From here on, and not from when the broker's thread comes to it: who is asked next must not overtake.
            let announced = Arc::clone(&publisher).announce();
            self.there(async move {
                let mut going = pin!(publisher.go_on(&post, &mut attempt));
                // Polled first, it stands at the gate itself.
                let first = future::poll_fn(|cx| Poll::Ready(going.as_mut().poll(cx))).await;
                drop(announced);
                match first {
                    Poll::Ready(published) => published,
                    Poll::Pending => going.await,
                }
            })
            .await?;
        }
        Ok(Receipt::new(message.id, message.queue, Durability::Disk))
    }

    /// Many are on their way at a time; in their queues they have the order that they have here.
    async fn publish_all(
        &self,
        messages: Vec<Message>,
        _sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        let all = stream::iter(messages).map(|message| self.publish(message, unique));
        all.buffered(IN_FLIGHT).try_for_each(|_| future::ready(Ok(()))).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        self.still_open()?;
        let consumer = self.consumers.fetch_add(1, Ordering::Relaxed);
        let line = self
            .shared
            .lines()
            .entry(queue.to_owned())
            .or_insert_with(|| Line::spawn(Arc::clone(&self.shared), queue.to_owned()))
            .clone();
        line.send(Command::Attach { consumer, prefetch, sink }).map_err(|_| BrokerError::Closed)?;
        Ok(Box::new(Consuming { consumer, line }))
    }

    async fn counts(&self, queue: &str) -> Result<Counts, BrokerError> {
        self.still_open()?;
        short(queue)?;
        let here = self.shared.ask(queue, Command::Counts).await;
        let (shared, queue) = (Arc::clone(&self.shared), queue.to_owned());
        self.there(async move {
            let counts = match here {
                Some(counts) => counts,
                None => {
                    Counts { ready: shared.waiting(&queue).await.unwrap_or_default(), ..Counts::default() }
                }
            };
            Ok(Counts { dead: shared.waiting(DEAD).await.unwrap_or_default(), ..counts })
        })
        .await
    }

    async fn find(&self, id: &TaskId) -> Result<Option<Place>, BrokerError> {
        self.still_open()?;
        Ok(self.shared.who_has(id).await.map(|queue| Place::Delivered { queue }))
    }

    async fn remove(&self, id: &TaskId, _record: RecordFn) -> Result<Removal, BrokerError> {
        Ok(match self.find(id).await? {
            Some(Place::Delivered { queue }) => Removal::Delivered { queue },
            _ => Removal::Unknown,
        })
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        let shared = Arc::clone(&self.shared);
        self.there(async move { letters::list(&shared, limit).await }).await
    }

    async fn revive(&self, id: &TaskId) -> Result<bool, BrokerError> {
        Ok(!self.revive_all(std::slice::from_ref(id)).await?.is_empty())
    }

    async fn revive_all(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let (shared, ids) = (Arc::clone(&self.shared), ids.to_vec());
        self.there(async move { letters::revive(&shared, &ids).await }).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let lines: Vec<Commands> = self.shared.lines().drain().map(|(_, line)| line).collect();
        let mut ends = Vec::new();
        for line in lines {
            let (done, ended) = oneshot::channel();
            if line.send(Command::Close(done)).is_ok() {
                ends.push(ended);
            }
        }
        let all = futures_util::future::join_all(ends);
        let patient =
            self.shared.runtime.spawn(async { tokio::time::timeout(CLOSE_PATIENCE, all).await.is_ok() });
        let all_settled = patient.await.unwrap_or(false);
        self.closing.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            blocking::unblock(move || drop(thread.join())).await;
        }
        if all_settled {
            Ok(())
        } else {
            Err(BrokerError::Io(
                "what followed from some runs could not be published in time; those tasks run again"
                    .to_owned(),
            ))
        }
    }
}

impl Drop for AmqpBroker {
    /// Without a close, what was delivered goes back as the connections end.
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// The handle on the consumer of a queue.
struct Consuming {
    consumer: u64,
    line: Commands,
}

impl Consumer for Consuming {
    fn set_prefetch(&self, prefetch: usize) {
        let _ = self.line.send(Command::Prefetch { consumer: self.consumer, prefetch });
    }
}

impl Drop for Consuming {
    fn drop(&mut self) {
        let _ = self.line.send(Command::Detach { consumer: self.consumer });
    }
}

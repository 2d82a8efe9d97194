//! How a runtime is put together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::attendant::RuntimeAttendant;
use super::backend::{Backend, Opened};
use super::catalogue::{Catalogue, CatalogueErrors, QueueRow};
use super::handle::{Celeriac, Inner};
use super::routing::Routing;
use super::schedule::{self, ScheduleErrors};
use crate::actors::root::Tree;
use crate::actors::runtime::Runtime;
use crate::actors::{FailureHook, ReadyHook, WorkerHook};
#[cfg(all(feature = "amqp", feature = "redis"))]
use crate::broker::LanedBroker;
#[cfg(feature = "amqp")]
use crate::broker::OutboxBroker;
#[cfg(feature = "amqp")]
use crate::broker::amqp::{AmqpBroker, AmqpOptions};
use crate::broker::embedded::EmbeddedOptions;
use crate::broker::{Attendant, Broker, BrokerError, EmbeddedBroker, MemoryBroker};
use crate::store::{Address, EmbeddedStore, MemoryStore, Payloads, Store, StoreError};
use crate::task::registry::{DuplicateTask, Registry};
use crate::task::{Context, Dispatcher, DownloadFacts, HookEvent, Periodic, Producer};

/// Why a runtime did not start; the text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The catalogue has mistakes.
    #[error(transparent)]
    Catalogue(#[from] CatalogueErrors),
    /// Two tasks of one name.
    #[error(transparent)]
    DuplicateTask(#[from] DuplicateTask),
    /// Periodic entries that cannot be.
    #[error(transparent)]
    Schedule(#[from] ScheduleErrors),
    /// Two producer loops of one name.
    #[error(
        "two producer loops are named `{0}`; each needs a name of its own, by which it is paused and told apart"
    )]
    DuplicateProducer(String),
    /// A producer loop, and nobody who keeps dedupe windows.
    #[error(
        "producer loop `{0}` needs dedupe windows, and neither the broker nor the result store keeps any: with RabbitMQ, keep results in Redis (`.result_backend(\"redis://…\")`)"
    )]
    ProducerWithoutWindows(String),
    /// The broker or store did not open.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The result store did not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The place for downloads is none.
    #[error("{0}")]
    Downloads(String),
    /// No threads to be had.
    #[error("the actor system did not start: {0}")]
    System(std::io::Error),
}

/// How long a publish may wait for RabbitMQ when there is an outbox to go to instead.
#[cfg(feature = "amqp")]
const OUTBOX_PATIENCE: Duration = Duration::from_secs(5);

/// Where messages and results are kept.
enum Keeping {
    Embedded(PathBuf),
    Memory,
    #[cfg(feature = "amqp")]
    Amqp(String),
    Given(Arc<dyn Broker>, Arc<dyn Store>),
}

/// Where downloads are kept, if not where the messages are.
enum Downloads {
    Address(String),
    Directory(PathBuf),
    Store(Arc<dyn object_store::ObjectStore>),
}

/// Puts a runtime together; [`Celeriac::builder`] makes one.
///
/// ```no_run
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// use celeriac::Celeriac;
/// let celeriac = Celeriac::builder().catalogue_file("celeriac.toml").directory("data").start().await?;
/// # celeriac.shutdown().await?;
/// # Ok(()) }
/// ```
#[must_use = "nothing runs until `.start().await`"]
pub struct Builder {
    catalogue: Catalogue,
    file: Option<PathBuf>,
    environment: Option<String>,
    keeping: Keeping,
    backend: Option<Backend>,
    track_started: bool,
    embedded: EmbeddedOptions,
    #[cfg(feature = "amqp")]
    amqp: AmqpOptions,
    #[cfg(feature = "amqp")]
    outbox: Option<PathBuf>,
    max_message_size: usize,
    arbiters: usize,
    grace: Duration,
    downloads: Option<Downloads>,
    on_failure: Option<Box<FailureHook>>,
    on_ready: Option<Box<ReadyHook>>,
    on_worker_start: Option<Box<WorkerHook>>,
    periodic: Vec<Periodic>,
    producers: Vec<Producer>,
    beat: Option<bool>,
    beat_lease: Option<Duration>,
    /// Without actors: a test does their work.
    unmanned: bool,
    ca_certs: Option<PathBuf>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            catalogue: Catalogue::new(),
            file: None,
            environment: None,
            keeping: Keeping::Embedded(PathBuf::from("celeriac-data")),
            backend: None,
            track_started: false,
            embedded: EmbeddedOptions::default(),
            #[cfg(feature = "amqp")]
            amqp: AmqpOptions::default(),
            #[cfg(feature = "amqp")]
            outbox: None,
            max_message_size: 64 << 10,
            arbiters: std::thread::available_parallelism().map_or(1, usize::from),
            grace: Duration::from_secs(30),
            downloads: None,
            on_failure: None,
            on_ready: None,
            on_worker_start: None,
            periodic: Vec::new(),
            producers: Vec::new(),
            beat: None,
            beat_lease: None,
            unmanned: false,
            ca_certs: None,
        }
    }

    /// Without actors, on this broker and store.
    #[cfg(feature = "testing")]
    pub(crate) fn unmanned(self, broker: Arc<dyn Broker>, store: Arc<dyn Store>) -> Self {
        Self { unmanned: true, downloads: None, ..self.broker(broker, store) }
    }

    /// The queues, from a catalogue built in code. Replaces what was set before.
    pub fn catalogue(mut self, catalogue: Catalogue) -> Self {
        self.catalogue = catalogue;
        self.file = None;
        self
    }

    /// The queues, from a file; read at start.
    pub fn catalogue_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Which `[environment.…]` of the catalogue applies.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// One more queue.
    pub fn queue(mut self, row: QueueRow) -> Self {
        self.catalogue = self.catalogue.with_queue(row);
        self
    }

    /// One more periodic entry, beside those of `#[periodic_task]` and of the catalogue.
    pub fn periodic(mut self, entry: Periodic) -> Self {
        self.periodic.push(entry);
        self
    }

    /// A producer loop: it finds rows of a table that are due, and enqueues a task for each. Of those of one name, in however many
    /// processes, one works at a time, where the broker or the store keeps notes.
    pub fn producer(mut self, producer: Producer) -> Self {
        self.producers.push(producer);
        self
    }

    /// Whether periodic tasks fire in this program; wins over the catalogue. Default `true`.
    pub fn beat(mut self, on: bool) -> Self {
        self.beat = Some(on);
        self
    }

    /// How long the one of several processes that beats does so without saying so again: if it dies, another one takes over
    /// within this time. At least 10 ms. Default 10 s.
    pub fn beat_lease(mut self, lease: Duration) -> Self {
        self.beat_lease = Some(lease.max(Duration::from_millis(10)));
        self
    }

    /// The directory of the embedded store. Default `celeriac-data` in the working directory.
    pub fn directory(mut self, dir: impl Into<PathBuf>) -> Self {
        self.keeping = Keeping::Embedded(dir.into());
        self
    }

    /// Keeps everything in memory: gone with the process.
    pub fn in_memory(mut self) -> Self {
        self.keeping = Keeping::Memory;
        self
    }

    /// RabbitMQ as the broker, in Celery's protocol: `amqp://user:password@host:5672/vhost`. Celery's `broker_url`: the nodes
    /// of a cluster are separated by `;`, and whenever one is not to be reached, the next one is tried. Results are kept in
    /// this process's memory unless another store is named.
    #[cfg(feature = "amqp")]
    pub fn amqp(mut self, url: impl Into<String>) -> Self {
        self.keeping = Keeping::Amqp(url.into());
        self
    }

    /// How the RabbitMQ broker behaves. What a row of the catalogue says of its queue (`queue_type`, `max_priority`,
    /// `queue_arguments`) wins over this.
    #[cfg(feature = "amqp")]
    pub fn amqp_options(mut self, options: AmqpOptions) -> Self {
        self.amqp = options;
        self
    }

    /// An outbox for RabbitMQ in this directory, which must be this process's alone: while RabbitMQ is away, what is enqueued
    /// goes to disk there, and is forwarded when RabbitMQ is back, in the order of acceptance; the receipt says
    /// [`Keeper::Outbox`](crate::task::Keeper). The runtime starts without RabbitMQ, too. A publish that is under way when
    /// the connection is lost goes to the outbox after 5 s, or the options' `publish_timeout` if that is less. Has no
    /// effect on other brokers.
    #[cfg(feature = "amqp")]
    pub fn outbox(mut self, dir: impl Into<PathBuf>) -> Self {
        self.outbox = Some(dir.into());
        self
    }

    /// Another broker and store.
    pub fn broker(mut self, broker: Arc<dyn Broker>, store: Arc<dyn Store>) -> Self {
        self.keeping = Keeping::Given(broker, store);
        self
    }

    /// Where results are kept, if not beside the messages. Celery's `result_backend`:
    /// - `redis://[user:password@]host[:port][/database]`: in Redis, readable by Python; `rediss://` over TLS.
    /// - `rpc://`: sent back over the broker's RabbitMQ to whoever sent the task, and kept by nobody. Another RabbitMQ is
    ///   `rpc://[user:password@]host[:port][/vhost]`.
    /// - `memory://`: in this process.
    ///
    /// Read at start.
    pub fn result_backend(mut self, url: impl Into<String>) -> Self {
        self.backend = Some(Backend::at(url.into()));
        self
    }

    /// Results in Redis, with other than its default options.
    #[cfg(feature = "redis")]
    pub fn redis(mut self, url: impl Into<String>, options: crate::store::RedisOptions) -> Self {
        self.backend = Some(Backend::Redis(url.into(), options));
        self
    }

    /// A PEM file with the certificate authorities that RabbitMQ (`amqps://`) and Redis (`rediss://`) are checked against, where
    /// their options name none. Default: the system's.
    pub fn ca_certs(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_certs = Some(file.into());
        self
    }

    /// Tells the result store of each start of a task (STARTED). Celery's `task_track_started`. Default: only of those tasks
    /// that say so themselves.
    pub fn track_started(mut self, track: bool) -> Self {
        self.track_started = track;
        self
    }

    /// How the embedded store behaves.
    pub fn embedded_options(mut self, options: EmbeddedOptions) -> Self {
        self.embedded = options;
        self
    }

    /// The most that a task's arguments may take, in bytes. Default 64 KiB: a message carries ids, not objects.
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// Event loops to spread the queues over, each a thread. Default: one a core.
    pub fn arbiters(mut self, arbiters: usize) -> Self {
        self.arbiters = arbiters;
        self
    }

    /// How long a shutdown waits for running tasks. Default 30 s.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The directory of the files that tasks make for their users. Default: `downloads` in the directory of the embedded store;
    /// in memory, if everything is; over another broker there is none until it is named here, and all programs that run or
    /// serve the exports need the same one.
    pub fn downloads_in(mut self, dir: impl Into<PathBuf>) -> Self {
        self.downloads = Some(Downloads::Directory(dir.into()));
        self
    }

    /// The place of those files as a URL: `s3://bucket/prefix` (feature `s3`; S3 or what speaks its protocol, found by the
    /// variables that AWS's tools read, such as `AWS_ENDPOINT_URL` and `AWS_ACCESS_KEY_ID`) or `file:///srv/exports`. One that is
    /// neither is refused at the start.
    pub fn downloads_at(mut self, url: impl Into<String>) -> Self {
        self.downloads = Some(Downloads::Address(url.into()));
        self
    }

    /// Another place for those files: anything that is an [`ObjectStore`](object_store::ObjectStore).
    pub fn download_store(mut self, store: Arc<dyn object_store::ObjectStore>) -> Self {
        self.downloads = Some(Downloads::Store(store));
        self
    }

    /// Called for each download that is ready, on the queue's event loop, after its record is safe; it must not block. Should
    /// the process die at that moment, it is not called: what must be told for sure is a task, linked to the export.
    pub fn on_ready(mut self, hook: impl Fn(&Context, &DownloadFacts) + Send + Sync + 'static) -> Self {
        self.on_ready = Some(Box::new(hook));
        self
    }

    /// Called for every task that fails for good.
    pub fn on_failure(mut self, hook: impl Fn(&Context, &HookEvent) + Send + Sync + 'static) -> Self {
        self.on_failure = Some(Box::new(hook));
        self
    }

    /// Called in each worker when it starts, with its queue and slot; it must not block. If it panics, the worker has
    /// died, and the queue's restart intensity decides what follows.
    pub fn on_worker_start(mut self, hook: impl Fn(&str, usize) + Send + Sync + 'static) -> Self {
        self.on_worker_start = Some(Box::new(hook));
        self
    }

    /// Starts the runtime on threads of its own, and makes it the one that `delay` uses.
    ///
    /// # Errors
    /// A wrong catalogue or schedule (all mistakes at once), two tasks of one name, a store that does not open.
    pub async fn start(self) -> Result<Celeriac, StartError> {
        let registry = Registry::discover()?;
        let catalogue = self.read_catalogue()?;
        let beat = self.beat.or(catalogue.beat).unwrap_or(true);
        let environment = self.environment.as_deref();
        // Where nobody else can run a task, one that is not in this program is a mistake.
        let runs_all = matches!(self.keeping, Keeping::Embedded(..) | Keeping::Memory);
        let entries = schedule::collect(&catalogue.periodic, environment, &registry, runs_all)?;
        let mut routing = Routing::new(catalogue, &registry);
        #[cfg_attr(not(feature = "amqp"), allow(unused_mut))]
        let mut rabbitmq: Option<String> = None;
        #[cfg(feature = "amqp")]
        if let Keeping::Amqp(url) = &self.keeping {
            rabbitmq = Some(url.clone());
        }
        #[cfg(feature = "amqp")]
        let mut outbox = None;
        let payloads = self.payloads()?;
        #[cfg(all(feature = "amqp", feature = "redis"))]
        let mut lane_limit = None;
        let (broker, store): (Arc<dyn Broker>, Arc<dyn Store>) = match self.keeping {
            Keeping::Given(broker, store) => (broker, store),
            Keeping::Memory => {
                let store = Arc::new(MemoryStore::default());
                (Arc::new(MemoryBroker::new(Arc::clone(&store))), store)
            }
            #[cfg(feature = "amqp")]
            Keeping::Amqp(url) => {
                let mut options = self.amqp;
                options.ca_certs = options.ca_certs.or_else(|| self.ca_certs.clone());
                for row in routing.catalogue().queues.iter().filter(|row| !row.setup.is_plain()) {
                    let of_options = options.queues.remove(&row.name).unwrap_or_default();
                    options.queues.insert(row.name.clone(), row.setup.clone().over(of_options));
                }
                #[cfg(feature = "redis")]
                lane_limit.replace(options.delivery_limit);
                let broker = if self.outbox.is_some() {
                    options.publish_timeout = options.publish_timeout.min(OUTBOX_PATIENCE);
                    AmqpBroker::connect_later(&url, options).await?
                } else {
                    AmqpBroker::connect(&url, options).await?
                };
                outbox = self.outbox;
                (Arc::new(broker), Arc::new(MemoryStore::default()))
            }
            Keeping::Embedded(dir) => {
                let options = self.embedded.clone();
                let broker = blocking::unblock(move || EmbeddedBroker::open(dir, options)).await?;
                (Arc::new(broker.clone()), Arc::new(EmbeddedStore::new(broker)))
            }
        };
        routing.set_shared(broker.is_shared());
        let apart = self.backend.is_some();
        let opened = match self.backend {
            Some(backend) => backend.open(rabbitmq.as_deref(), self.ca_certs).await?,
            None => Opened::plain(store),
        };
        // What RabbitMQ cannot do with lanes, Redis does.
        #[cfg(all(feature = "amqp", feature = "redis"))]
        let broker = match (lane_limit, opened.redis) {
            (Some(limit), Some(redis)) => {
                Arc::new(LanedBroker::open(broker, redis, limit).await) as Arc<dyn Broker>
            }
            _ => broker,
        };
        let store = opened.store;
        #[cfg(feature = "amqp")]
        let broker = match outbox {
            Some(dir) => {
                let front = OutboxBroker::open(broker, Arc::clone(&store), dir, self.embedded).await?;
                Arc::new(front) as Arc<dyn Broker>
            }
            None => broker,
        };
        for queue in broker.queues().await? {
            let counts = broker.counts(&queue).await?;
            if counts.ready + counts.scheduled + counts.in_line > 0 {
                routing.serve_unlisted(&queue);
            }
        }
        for row in &routing.catalogue().queues {
            broker.declare(&row.name).await?;
        }
        let mut names = std::collections::HashSet::new();
        if let Some(twice) = self.producers.iter().find(|producer| !names.insert(producer.name.clone())) {
            return Err(StartError::DuplicateProducer(twice.name.clone()));
        }
        let keeps_windows = broker.keeps_windows() || store.windows().is_some();
        if let Some(first) = self.producers.first().filter(|_| !keeps_windows) {
            return Err(StartError::ProducerWithoutWindows(first.name.clone()));
        }
        let routing = Arc::new(routing);
        let dispatcher = Arc::new(Dispatcher {
            registry,
            route: Box::new(Arc::clone(&routing)),
            max_message_size: self.max_message_size,
            reply_to: store.reply_to(),
            without_lanes: (!broker.keeps_lanes()).then(|| broker.name()),
            without_windows: (!keeps_windows).then(|| broker.name()),
        });
        let mut runtime = Runtime::new(broker, store, dispatcher);
        runtime.settles_results &= !apart;
        runtime.track_started = self.track_started;
        runtime.on_failure = self.on_failure;
        runtime.on_ready = self.on_ready;
        runtime.payloads = Arc::new(payloads);
        runtime.on_worker_start = self.on_worker_start;
        let runtime = Arc::new(runtime);
        let attendant = Arc::new(RuntimeAttendant::new(Arc::clone(&runtime)));
        runtime.broker.attend(Arc::clone(&attendant) as Arc<dyn Attendant>);
        let tree = if self.unmanned {
            None
        } else {
            let rows = routing.catalogue().queues.iter().filter(|row| row.served).cloned().collect();
            let (tree, up) =
                Tree::grow(Arc::clone(&runtime), rows, self.arbiters).map_err(StartError::System)?;
            attendant.grown(Arc::clone(&tree.queues));
            up.await.map_err(|_| StartError::System(std::io::Error::other("the queues did not come up")))?;
            Some(tree)
        };
        let mut inner = Inner::new(runtime, routing, tree, self.grace);
        inner.beat_lease = self.beat_lease.unwrap_or(inner.beat_lease);
        Ok(Celeriac::started(inner, beat.then_some(entries), self.producers).await)
    }

    fn payloads(&self) -> Result<Payloads, StartError> {
        // Of a store of its own nobody else runs the tasks.
        let alone = matches!(self.keeping, Keeping::Embedded(..) | Keeping::Memory);
        let reserve = self.embedded.min_free_space / 2;
        Ok(match (&self.downloads, &self.keeping) {
            (Some(Downloads::Address(url)), _) => match Address::open(url).map_err(StartError::Downloads)? {
                Address::Directory(dir) => Payloads::in_directory(dir, 0, alone),
                Address::Objects(objects) => Payloads::given(objects, alone),
            },
            (Some(Downloads::Store(store)), _) => Payloads::given(Arc::clone(store), alone),
            (Some(Downloads::Directory(dir)), _) => Payloads::in_directory(dir.clone(), 0, alone),
            (None, Keeping::Embedded(dir)) => Payloads::in_directory(dir.join("downloads"), reserve, alone),
            (None, Keeping::Memory) => Payloads::in_memory(),
            (None, _) if self.unmanned => Payloads::in_memory(),
            (None, _) => Payloads::nowhere(),
        })
    }

    fn read_catalogue(&self) -> Result<Catalogue, CatalogueErrors> {
        let mut catalogue = self.catalogue.clone();
        if let Some(file) = &self.file {
            let mut read = Catalogue::load(file)?;
            for row in catalogue.queues.drain(..) {
                read = read.with_queue(row);
            }
            for entry in catalogue.periodic.drain(..) {
                read = read.with_periodic(entry);
            }
            catalogue = read;
        }
        for entry in &self.periodic {
            catalogue = catalogue.with_periodic(entry.clone());
        }
        // One that only the program's periodic tasks name is known as well, and changes nothing here.
        let environment = self.environment.as_ref().filter(|name| {
            catalogue.environments().any(|known| known == name.as_str()) || !schedule::names_environment(name)
        });
        if let Some(environment) = environment {
            catalogue = catalogue.for_environment(environment)?;
        }
        catalogue.validate()?;
        Ok(catalogue)
    }
}

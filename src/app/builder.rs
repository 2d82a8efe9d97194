//! Puts a runtime together from its catalogue, broker, store and options, and starts it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::backend::{Backend, OpenBackend};
use super::brakes;
use super::control::{CustomCommands, Settings};
use super::defaults::warn_of_unknown_tasks;
use super::downloads::DownloadLocation;
use super::durations;
use super::handle::{Celeriac, CeleriacInner};
use super::history::HistorySettings;
use super::listener::RuntimeListener;
use super::persistent;
use super::revocation_orders;
use super::routing::Routing;
use super::schedule;
use super::start_error::StartError;
use super::takeover::when_free;
use super::variables::TakenVariable;
use crate::actors::progress::ActorProgressHub;
use crate::actors::root::Tree;
use crate::actors::slot_pool::SlotPools;
#[cfg(feature = "amqp")]
use crate::broker::OutboxBroker;
#[cfg(all(feature = "amqp", feature = "redis"))]
use crate::broker::RedisLanesBroker;
#[cfg(feature = "amqp")]
use crate::broker::amqp::{AmqpBroker, AmqpOptions};
use crate::broker::embedded::EmbeddedOptions;
use crate::broker::{Broker, BrokerListener, EmbeddedBroker, GuardedBroker, MemoryBroker, SplitBroker};
use crate::catalogue::{Catalogue, QueueRow};
use crate::commit_table::CommitTable;
use crate::core::calendar::Zone;
use crate::runtime::hooks::ProgramHooks;
use crate::runtime::keep_failed::KeepFailed;
use crate::runtime::progress::ProgressHub;
use crate::runtime::start_limits::StartLimits;
use crate::runtime::{MAX_RESULT_SIZE, Runtime};
use crate::store::{EmbeddedStore, GuardedStore, MemoryStore, Store};
use crate::task::canvas::CanvasLimits;
use crate::task::registry::Registry;
use crate::task::{DataMap, Dispatcher, Layer, Periodic, SourcePoller, TaskDefaults};

/// How long a publish may wait for RabbitMQ if the message can go to an outbox instead.
#[cfg(feature = "amqp")]
const OUTBOX_PATIENCE: Duration = Duration::from_secs(5);

/// Where messages are kept, and results unless a backend is named.
pub(super) enum Transport {
    Embedded(PathBuf),
    Memory,
    #[cfg(feature = "amqp")]
    Amqp(String),
    Given(Arc<dyn Broker>, Arc<dyn Store>),
}

/// Puts a runtime together. [`Celeriac::builder`] returns one with the defaults.
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
    pub(super) catalogue: Catalogue,
    pub(super) file: Option<PathBuf>,
    pub(super) environment: Option<String>,
    pub(super) keeping: Transport,
    pub(super) backend: Option<Backend>,
    track_started: bool,
    track_sent: bool,
    pub(super) embedded: EmbeddedOptions,
    #[cfg(feature = "amqp")]
    amqp: AmqpOptions,
    #[cfg(feature = "amqp")]
    task_events: Option<bool>,
    #[cfg(feature = "amqp")]
    outbox: Option<PathBuf>,
    max_message_size: usize,
    pub(super) max_result_size: usize,
    limits: CanvasLimits,
    arbiters: usize,
    grace: Duration,
    pub(super) downloads: Option<DownloadLocation>,
    pub(super) hooks: ProgramHooks,
    pub(super) layers: Vec<Box<dyn Layer>>,
    pub(super) commands: CustomCommands,
    pub(super) periodic: Vec<Periodic>,
    pollers: Vec<SourcePoller>,
    commit_table: Option<Arc<dyn CommitTable>>,
    beat: Option<bool>,
    beat_lease: Option<Duration>,
    pub(super) data: DataMap,
    pub(super) defaults: TaskDefaults,
    pub(super) zone: Option<Zone>,
    /// How long the start waits for a directory that another process has.
    pub(super) patience: Duration,
    /// A test has no actors: it does their work itself.
    pub(super) without_actors: bool,
    /// Nothing is served, sent or carried out here: a console by itself.
    pub(super) client_only: bool,
    ca_certs: Option<PathBuf>,
    pub(super) history: HistorySettings,
    /// What was taken from the environment.
    pub(super) taken: Vec<TakenVariable>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            catalogue: Catalogue::new(),
            file: None,
            environment: None,
            keeping: Transport::Embedded(PathBuf::from("celeriac-data")),
            backend: None,
            track_started: false,
            track_sent: false,
            embedded: EmbeddedOptions::default(),
            #[cfg(feature = "amqp")]
            amqp: AmqpOptions::default(),
            #[cfg(feature = "amqp")]
            task_events: None,
            #[cfg(feature = "amqp")]
            outbox: None,
            max_message_size: 64 << 10,
            max_result_size: MAX_RESULT_SIZE,
            limits: CanvasLimits::default(),
            arbiters: std::thread::available_parallelism().map_or(1, usize::from),
            grace: Duration::from_secs(30),
            downloads: None,
            hooks: ProgramHooks::default(),
            layers: Vec::new(),
            commands: CustomCommands::default(),
            periodic: Vec::new(),
            pollers: Vec::new(),
            commit_table: None,
            beat: None,
            beat_lease: None,
            data: DataMap::default(),
            defaults: TaskDefaults::default(),
            zone: None,
            patience: Duration::ZERO,
            without_actors: false,
            client_only: false,
            ca_certs: None,
            history: HistorySettings::default(),
            taken: Vec::new(),
        }
    }

    /// A runtime without actors, on this broker and store, for a test.
    #[cfg(feature = "testing")]
    pub(crate) fn without_actors(self, broker: Arc<dyn Broker>, store: Arc<dyn Store>) -> Self {
        Self { without_actors: true, downloads: None, ..self.broker(broker, store) }
    }

    /// Takes the queues from a catalogue built in code. This replaces any catalogue that was set before.
    pub fn catalogue(mut self, catalogue: Catalogue) -> Self {
        self.catalogue = catalogue;
        self.file = None;
        self
    }

    /// Takes the queues from a file, which [`start`](Self::start) reads.
    pub fn catalogue_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Chooses the `[environment.…]` of the catalogue that applies.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// Adds the row of a queue to the catalogue.
    pub fn queue(mut self, row: QueueRow) -> Self {
        self.catalogue = self.catalogue.with_queue(row);
        self
    }

    /// Adds a periodic entry to those of `#[periodic_task]` and of the catalogue.
    pub fn periodic(mut self, entry: Periodic) -> Self {
        self.periodic.push(entry);
        self
    }

    /// Adds a source poller: it finds rows of a table that are due, and enqueues a task for each. Where the broker
    /// or the store keeps notes, one poller of a name works at a time, in however many processes it is.
    pub fn poller(mut self, poller: SourcePoller) -> Self {
        self.pollers.push(poller);
        self
    }

    /// Forwards the calls of [`delay_on_commit`](crate::Signature::delay_on_commit) from this table of the program's
    /// database to the broker, when their transactions have committed. Of several processes with one table, one at a time
    /// forwards. A program that only writes into the table does not need this.
    pub fn commit_table(mut self, table: impl CommitTable) -> Self {
        self.commit_table = Some(Arc::new(table));
        self
    }

    /// Whether beat runs in this program. It wins over the catalogue. Default `true`.
    pub fn beat(mut self, on: bool) -> Self {
        self.beat = Some(on);
        self
    }

    /// Sets the time for which the process that leads beat leads without renewing its lease: if it dies, another one takes over
    /// within this time. At least 10 ms. Default 10 s.
    pub fn beat_lease(mut self, lease: Duration) -> Self {
        self.beat_lease = Some(lease.clamp(Duration::from_millis(10), crate::core::time::FOR_EVER));
        self
    }

    /// Keeps messages and results in the embedded store in this directory. Default `celeriac-data` in the working
    /// directory.
    pub fn directory(mut self, dir: impl Into<PathBuf>) -> Self {
        self.keeping = Transport::Embedded(dir.into());
        self
    }

    /// Keeps messages and results in memory: they are gone with the process.
    pub fn in_memory(mut self) -> Self {
        self.keeping = Transport::Memory;
        self
    }

    /// Takes RabbitMQ as the broker, in Celery's protocol: `amqp://user:password@host:5672/vhost`. As in Celery's
    /// `broker_url`, the nodes of a cluster are separated by `;`; when one cannot be reached, the next one is
    /// tried. Results are kept in this process's memory unless a result backend is named.
    #[cfg(feature = "amqp")]
    pub fn amqp(mut self, url: impl Into<String>) -> Self {
        self.keeping = Transport::Amqp(url.into());
        self
    }

    /// Sets how the RabbitMQ broker behaves. A catalogue row's own settings for its queue (`queue_type`,
    /// `max_priority`, `queue_arguments`) win over these.
    #[cfg(feature = "amqp")]
    pub fn amqp_options(mut self, options: AmqpOptions) -> Self {
        self.amqp = options;
        self
    }

    /// Whether RabbitMQ is sent events of what happens to tasks here: Celery's `-E`. Wins over the options. See
    /// [`AmqpOptions::task_events`].
    #[cfg(feature = "amqp")]
    pub fn task_events(mut self, on: bool) -> Self {
        self.task_events = Some(on);
        self
    }

    /// Keeps an outbox for RabbitMQ in this directory, which no other process may use. While RabbitMQ is away,
    /// messages go to disk there, and are forwarded in the order of acceptance when it is back; the receipt says
    /// [`AcceptedBy::Outbox`](crate::task::AcceptedBy). The runtime starts without RabbitMQ, too. A publish that is
    /// under way when the connection is lost goes to the outbox after 5 s, or after the options' `publish_timeout`
    /// if that is less. Other brokers ignore this.
    #[cfg(feature = "amqp")]
    pub fn outbox(mut self, dir: impl Into<PathBuf>) -> Self {
        self.outbox = Some(dir.into());
        self
    }

    /// Takes another broker and store.
    pub fn broker(mut self, broker: Arc<dyn Broker>, store: Arc<dyn Store>) -> Self {
        self.keeping = Transport::Given(broker, store);
        self
    }

    /// Says where results are kept, if not beside the messages. Celery's `result_backend`:
    /// - `redis://[user:password@]host[:port][/database]`: in Redis, where Python programs read them; `rediss://`
    ///   over TLS, `redis+socket:///path` at a Unix socket, `sentinel://one;sentinel://two?master_name=name`.
    /// - `rpc://`: nobody keeps them; they are sent over the broker's RabbitMQ to the sender of the task. Another
    ///   RabbitMQ is `rpc://[user:password@]host[:port][/vhost]`.
    /// - `memory://`: in this process.
    ///
    /// [`start`](Self::start) opens it.
    pub fn result_backend(mut self, url: impl Into<String>) -> Self {
        self.backend = Some(Backend::at(url.into()));
        self
    }

    /// Keeps results in Redis, with options of its own.
    #[cfg(feature = "redis")]
    pub fn redis(mut self, url: impl Into<String>, options: crate::store::RedisOptions) -> Self {
        self.backend = Some(Backend::Redis(url.into(), options));
        self
    }

    /// A PEM file with the certificate authorities by which RabbitMQ (`amqps://`) and Redis (`rediss://`) are
    /// checked, unless their options name one. Default: the system's.
    pub fn ca_certs(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_certs = Some(file.into());
        self
    }

    /// Whether the result store is told of the start of every task (STARTED). Celery's `task_track_started`.
    /// Default: only of tasks that state it themselves.
    pub fn track_started(mut self, track: bool) -> Self {
        self.track_started = track;
        self
    }

    /// Whether Redis is told of each task when it is sent. On RabbitMQ, where nobody can look into a queue, an id that nobody
    /// ever sent then has the state [`UNKNOWN`](crate::State::Unknown), and [`get`](crate::task::AsyncResult::get) says so at
    /// once; else it looks like a task that waits, as for Celery. It costs a write to Redis for each task. All programs that send
    /// tasks must do so: what a Python program has sent is unknown until it starts. Tasks that keep no result are not
    /// told of. Default `false`. The brokers without a server know all their tasks, and results by rpc cannot do it: there it
    /// changes nothing.
    pub fn track_sent(mut self, track: bool) -> Self {
        self.track_sent = track;
        self
    }

    /// Sets how the embedded store behaves.
    pub fn embedded_options(mut self, options: EmbeddedOptions) -> Self {
        self.embedded = options;
        self
    }

    /// The most bytes that a task's arguments may take, and its headers. Default 64 KiB: a message carries ids, not
    /// objects.
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// The most bytes of JSON that the value of a task may take. Default 16 MiB. A larger value fails its task,
    /// with an error that says what to do.
    pub fn max_result_size(mut self, bytes: usize) -> Self {
        self.max_result_size = bytes;
        self
    }

    /// The most tasks that one canvas may have, and that may follow from the end of one task. Default 10,000.
    pub fn max_canvas_tasks(mut self, tasks: usize) -> Self {
        self.limits.tasks = tasks;
        self
    }

    /// The most bytes that the messages may take which a canvas sends at once, or which follow from the end of one
    /// task. Default 64 MiB. Each member of a group has a copy of the value that it gets, each member of a chord's
    /// header has a copy of the body, and a body has the results of all members. A canvas above the limit is
    /// refused at the call; a task whose end would send more fails, with an error that says what to do.
    pub fn max_canvas_size(mut self, bytes: usize) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// The number of event loops for the queues, each on a thread. Default: one for each core.
    pub fn arbiters(mut self, arbiters: usize) -> Self {
        self.arbiters = arbiters;
        self
    }

    /// The grace of a shutdown: how long it waits for running tasks. Default 30 s.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Opens the parts and starts the actors. [`start`](Self::start) is this with what is said around it.
    pub(super) async fn assemble(self) -> Result<Celeriac, StartError> {
        let registry = Registry::discover()?;
        let catalogue = self.read_catalogue()?;
        let registry = registry.with_defaults(catalogue.defaults.clone());
        let registry = registry.with_rate_limits(catalogue.rate_limits.clone());
        warn_of_unknown_tasks(&catalogue, &registry);
        let tenants = super::defaults::tenants(&catalogue, &registry)?;
        let registry = registry.with_tenants(tenants);
        let beat = self.beat.or(catalogue.beat).unwrap_or(true);
        let environment = self.environment.as_deref();
        // Where no other program can run a task, a periodic entry of a task that is not here is a mistake.
        let runs_all = matches!(self.keeping, Transport::Embedded(..) | Transport::Memory);
        let forgets = matches!(self.keeping, Transport::Memory);
        let zone = catalogue.zone;
        let entries = schedule::collect(&catalogue.periodic, environment, zone, &registry, runs_all)?;
        for row in catalogue.queues.iter().filter(|_| !self.without_actors) {
            if let Some(problem) = crate::runtime::children::impossible(row) {
                return Err(StartError::Processes { queue: row.name.clone(), problem });
            }
        }
        let mut routing = Routing::new(catalogue, &registry);
        routing.check_broadcasts(&registry)?;
        // A test runs some of the tasks of its program: a task that it does not run may go without its data.
        let runs_here = !self.without_actors && routing.catalogue().queues.iter().any(|row| row.served);
        if let Some((task, data)) = registry.lacks(&self.data).filter(|_| runs_here) {
            return Err(StartError::data_not_given(task, data));
        }
        #[cfg_attr(not(feature = "amqp"), allow(unused_mut))]
        let mut rabbitmq: Option<String> = None;
        #[cfg(feature = "amqp")]
        if let Transport::Amqp(url) = &self.keeping {
            rabbitmq = Some(url.clone());
        }
        #[cfg(feature = "amqp")]
        let mut outbox = None;
        if let Some(table) = &self.commit_table {
            table.open().await.map_err(StartError::CommitTable)?;
        }
        let payloads = self.payloads()?;
        let settings = self.settings(beat, routing.catalogue());
        let commands = self.commands.checked()?;
        #[cfg(all(feature = "amqp", feature = "redis"))]
        let mut lane_limit = None;
        let (broker, store): (Arc<dyn Broker>, Arc<dyn Store>) = match self.keeping {
            Transport::Given(broker, store) => (GuardedBroker::over(broker), GuardedStore::over(store)),
            Transport::Memory => {
                let store = Arc::new(MemoryStore::default());
                (Arc::new(MemoryBroker::new(Arc::clone(&store))), store)
            }
            #[cfg(feature = "amqp")]
            Transport::Amqp(url) => {
                let mut options = self.amqp;
                options.ca_certs = options.ca_certs.or_else(|| self.ca_certs.clone());
                options.task_events = self.task_events.unwrap_or(options.task_events);
                options.take_rows(&routing.catalogue().queues);
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
            Transport::Embedded(dir) => {
                let options = EmbeddedOptions { max_chord_size: self.limits.bytes, ..self.embedded.clone() };
                let open = || {
                    let (dir, options) = (dir.clone(), options.clone());
                    blocking::unblock(move || EmbeddedBroker::open(dir, options))
                };
                let broker = when_free(self.patience, open).await?;
                (Arc::new(broker.clone()), Arc::new(EmbeddedStore::new(broker)))
            }
        };
        routing.set_shared(broker.facts().is_shared);
        let apart = self.backend.is_some();
        let opened = match self.backend {
            Some(backend) => backend.open(rabbitmq.as_deref(), self.ca_certs, self.limits.bytes).await?,
            None => OpenBackend::plain(store),
        };
        // RabbitMQ has no lanes; if results are in Redis, Redis keeps them.
        #[cfg(all(feature = "amqp", feature = "redis"))]
        let broker = match (lane_limit, opened.redis) {
            (Some(limit), Some(redis)) => {
                Arc::new(RedisLanesBroker::open(broker, redis, limit).await) as Arc<dyn Broker>
            }
            _ => broker,
        };
        let store = opened.store;
        #[cfg(feature = "amqp")]
        let broker = match outbox {
            Some(dir) => {
                let open = || {
                    let (broker, store) = (Arc::clone(&broker), Arc::clone(&store));
                    OutboxBroker::open(broker, store, dir.clone(), self.embedded.clone())
                };
                Arc::new(when_free(self.patience, open).await?) as Arc<dyn Broker>
            }
            None => broker,
        };
        let knows_all = broker.facts().knows_all;
        let marks_sent = self.track_sent && !knows_all && store.is_shared() && store.reply_to().is_none();
        // The outermost layer: it settles through the store whatever the layers below deliver.
        let broker = match broker.results() {
            Some(_) if !apart => broker,
            _ => {
                let split = SplitBroker::open(broker, Arc::clone(&store))?;
                Arc::new(split.marking_sent(marks_sent)) as Arc<dyn Broker>
            }
        };
        // Before the actors are built, so that a queue which still has tasks gets one, whatever the catalogue says.
        for queue in broker.queues().await? {
            let counts = broker.counts(&queue).await?;
            if counts.ready + counts.scheduled + counts.in_line > 0 {
                routing.serve_unlisted(&queue);
            }
        }
        if self.client_only {
            routing.serve_none();
        }
        for row in routing.catalogue().queues.iter().filter(|_| !self.client_only) {
            broker.declare(&row.name).await?;
        }
        let mut names = std::collections::HashSet::new();
        if let Some(twice) = self.pollers.iter().find(|poller| !names.insert(poller.name.clone())) {
            return Err(StartError::DuplicatePoller(twice.name.clone()));
        }
        let keeps_unique_windows = broker.unique_windows().is_some();
        if let Some(first) = self.pollers.first().filter(|_| !keeps_unique_windows) {
            return Err(StartError::PollerWithoutWindows(first.name.clone()));
        }
        let routing = Arc::new(routing);
        let dispatcher = Arc::new(Dispatcher {
            registry,
            route: Box::new(Arc::clone(&routing)),
            max_message_size: self.max_message_size,
            limits: self.limits,
            reply_to: store.reply_to(),
            without_lanes: broker.lanes().is_none().then(|| broker.name()),
            without_windows: (!keeps_unique_windows).then(|| broker.name()),
            without_exchanges: broker.events().is_none_or(|e| !e.has_exchanges()).then(|| broker.name()),
            indexes_arguments: broker.facts().knows_all,
        });
        let mut runtime = Runtime::new(broker, store, dispatcher);
        let limits = StartLimits::of(
            &runtime.dispatcher.registry,
            routing.catalogue(),
            Arc::clone(&runtime.broker),
            Arc::clone(&runtime.store),
        )?;
        runtime.limit_starts(limits);
        runtime.track_started = self.track_started;
        runtime.marks_sent = marks_sent;
        runtime.max_result_size = self.max_result_size;
        runtime.keep_failed = KeepFailed::of(&routing.catalogue().queues);
        runtime.has_run_hooks = self.hooks.has_any_of_runs();
        runtime.hooks = self.hooks;
        runtime.layers = self.layers.into();
        runtime.payloads = Arc::new(payloads);
        runtime.data = Arc::new(self.data);
        runtime.run_times = Arc::clone(routing.run_times());
        let progress_hub = Arc::new(ActorProgressHub::default());
        if !self.without_actors {
            runtime.show_on(Arc::clone(&progress_hub) as Arc<dyn ProgressHub>);
        }
        let runtime = Arc::new(runtime);
        // The broker hears of its listener before the first delivery, and of the queues when they are there.
        let listener = Arc::new(RuntimeListener::new(Arc::clone(&runtime)));
        if let Some(events) = runtime.broker.events() {
            events.set_listener(Arc::clone(&listener) as Arc<dyn BrokerListener>);
        }
        if !self.client_only {
            revocation_orders::carry_out(&runtime, &routing).await?;
        }
        let tree = if self.without_actors {
            None
        } else {
            let rows = routing.catalogue().queues.iter().filter(|row| row.served).cloned().collect();
            let queues = persistent::begin(&runtime, rows).await?;
            runtime.begin_brakes(brakes::standing(routing.catalogue())).await?;
            durations::begin(&runtime).await;
            let pools = SlotPools::of(routing.catalogue());
            let tree = Tree::start(Arc::clone(&runtime), progress_hub, queues, pools, self.arbiters)
                .map_err(StartError::System)?;
            listener.grown(tree.queues.clone());
            Some(tree)
        };
        let mut inner = CeleriacInner::new(runtime, routing, tree, self.grace);
        inner.forgets = forgets;
        inner.history = self.history;
        inner.beat_lease = self.beat_lease.unwrap_or(inner.beat_lease);
        inner.control.settings = settings;
        inner.control.commands = commands;
        let celeriac =
            Celeriac::started(inner, beat.then_some(entries), self.pollers, self.commit_table).await?;
        listener.attend(Arc::downgrade(&celeriac.inner));
        if celeriac.inner.tree.lock().is_some() && !self.client_only {
            celeriac.resume_bulk();
        }
        Ok(celeriac)
    }

    /// What operators may want to know of this program.
    fn settings(&self, beat: bool, catalogue: &Catalogue) -> Settings {
        #[cfg(feature = "amqp")]
        let outbox = self.outbox.is_some();
        #[cfg(feature = "amqp")]
        let of_broker = self.amqp.settings();
        #[cfg(not(feature = "amqp"))]
        let (outbox, of_broker) = (false, serde_json::Map::new());
        Settings {
            result_backend: self.backend.as_ref().map(Backend::address),
            task_track_started: self.track_started,
            of_tasks: catalogue.defaults.clone(),
            zone: catalogue.zone.unwrap_or_default(),
            beat,
            environment: self.environment.clone(),
            shutdown_grace: self.grace,
            max_message_size: self.max_message_size,
            max_result_size: self.max_result_size,
            outbox,
            of_broker,
        }
    }
}

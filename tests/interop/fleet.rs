//! The fleet: one RabbitMQ, one Redis, Celery workers, a Celeriac, and a Python client that runs cases.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use celeriac::broker::amqp::{AmqpOptions, QueueSetup};
use celeriac::catalogue::{Catalogue, Pool, QueueRow, RouteRow};
use celeriac::{Builder, Celeriac};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, ConnectionProperties};
use serde_json::{Value, json};

use crate::python_client::{self, PythonClient};
use crate::rust_log;
use crate::services::{CeleryWorker, Python, RabbitMq, Redis, Script};

/// Where Python keeps results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    Redis,
    Rpc,
}

/// A vhost with its workers.
pub struct Fleet {
    broker: String,
    backend: String,
    /// Where results are kept, unless they go over rpc.
    pub redis: Redis,
    client: Mutex<PythonClient>,
    workers: Vec<CeleryWorker>,
}

/// A database of Redis for what tests tell each other, apart from that of the results.
pub fn gates_url() -> String {
    Redis::shared().url_of(15)
}

impl Fleet {
    /// Celery workers for these sides in a vhost of this name, and a client.
    pub fn start(vhost: &str, backend: Backend, sides: &[&str]) -> Self {
        let broker = RabbitMq::shared().vhost(vhost);
        let redis = Redis::shared();
        let backend = match backend {
            Backend::Redis => redis.url(),
            Backend::Rpc => "rpc://".to_owned(),
        };
        let python = Python::with_celery();
        let script = |file: &str| {
            Script::new(&format!("tests/interop/python/{file}"))
                .env("INTEROP_BROKER", broker.replace("amqp://", "pyamqp://"))
                .env("INTEROP_BACKEND", backend.clone())
                .env("INTEROP_GATES", gates_url())
        };
        let worker = |side: &str, name: &str, queues: String, concurrency: &str| {
            let script = script("app.py").env("INTEROP_SIDE", side);
            let options = ["-Q", &queues, "--concurrency", concurrency, "--prefetch-multiplier", "1"];
            let script = options.into_iter().fold(script, Script::arg);
            python.worker(&script.arg("--without-gossip").arg("--without-mingle"), &format!("{side}-{name}"))
        };
        // Started side by side: most of a start is waiting.
        let workers = std::thread::scope(|scope| {
            let starting: Vec<_> = sides
                .iter()
                .flat_map(|side| {
                    let one = match *side {
                        "rust" => "rust-one,rust-priority".to_owned(),
                        side => format!("{side}-one"),
                    };
                    [("many", format!("{side},{side}-extra,news"), "4"), ("one", one, "1")]
                        .map(|rest| (*side, rest))
                })
                .map(|(side, (name, queues, concurrency))| {
                    let worker = &worker;
                    scope.spawn(move || worker(side, name, queues, concurrency))
                })
                .collect();
            starting.into_iter().map(|worker| worker.join().expect("a worker")).collect()
        });
        let client = Mutex::new(PythonClient::new(python.converse(&script("client.py"))));
        Self { broker, backend, redis, client, workers }
    }

    /// Starts one more Python worker, with Celery's defaults: it mingles, gossips and sends heartbeats.
    pub fn default_worker(&self, node: &str) -> CeleryWorker {
        let script = Script::new("tests/interop/python/app.py")
            .env("INTEROP_BROKER", self.broker.replace("amqp://", "pyamqp://"))
            .env("INTEROP_BACKEND", self.backend.clone())
            .env("INTEROP_GATES", gates_url())
            .env("INTEROP_SIDE", "python");
        // Who joins is told at this level only.
        let options = ["-Q", "python", "--concurrency", "1", "--loglevel", "DEBUG"];
        Python::with_celery().worker(&options.into_iter().fold(script, Script::arg), node)
    }

    /// Has the Python client run a case. If it fails, panics with its direction, its traceback, and what the workers have
    /// logged meanwhile.
    pub fn case(&self, case: &str, arguments: Value) -> Value {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.length_of_logs();
        let came_to = client.run(case, &arguments);
        drop(client);
        came_to.unwrap_or_else(|why| {
            panic!("{}", python_client::failure(case, &arguments, &why, &self.logs_since(&before)))
        })
    }

    /// How long the logs of the workers are now, and last that of the Rust side.
    fn length_of_logs(&self) -> Vec<usize> {
        let lengths = self.workers.iter().map(|worker| worker.log().len());
        lengths.chain([rust_log::position()]).collect()
    }

    /// What has come to the logs since they had these lengths, with the names of the workers.
    fn logs_since(&self, lengths: &[usize]) -> Vec<(String, String)> {
        let python = self.workers.iter().zip(lengths).map(|(worker, length)| {
            let log = worker.log();
            (worker.node().to_owned(), log[log.ceil_char_boundary(*length)..].to_owned())
        });
        let rust = lengths.last().map(|position| ("the Rust side".to_owned(), rust_log::since(*position)));
        python.chain(rust).collect()
    }
}

/// The Rust side of a fleet.
pub struct Mixed {
    pub fleet: Fleet,
    pub celeriac: Celeriac,
    /// For looking at queues.
    connection: lapin::Connection,
    /// Who uses the queue `python-one`, whose worker does one task at a time.
    only_worker: tokio::sync::Mutex<()>,
}

impl std::ops::Deref for Mixed {
    type Target = Fleet;

    fn deref(&self) -> &Fleet {
        &self.fleet
    }
}

/// Python on its side, Rust on the other, over Redis.
pub fn mixed() -> &'static Mixed {
    static FLEET: LazyLock<Mixed> = LazyLock::new(|| Mixed::start("mixed", Backend::Redis));
    &FLEET
}

/// As above, with results over rpc.
pub fn mixed_rpc() -> &'static Mixed {
    static FLEET: LazyLock<Mixed> = LazyLock::new(|| Mixed::start("mixed-rpc", Backend::Rpc));
    &FLEET
}

/// Blocks on the Rust side of a test. All do so on one runtime, which outlives them as the fleet does.
pub fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Runtime::new().expect("threads"));
    RUNTIME.block_on(test)
}

impl Mixed {
    pub fn start(vhost: &str, backend: Backend) -> Self {
        Self::over(Fleet::start(vhost, backend, &["python"]))
    }

    /// The Rust side of this fleet.
    pub fn over(fleet: Fleet) -> Self {
        rust_log::keep();
        let started = on_runtime(builder(&fleet).start());
        let celeriac = started.unwrap_or_else(|error| panic!("the Rust side does not start: {error}"));
        let connection =
            on_runtime(lapin::Connection::connect(&fleet.broker, ConnectionProperties::default()));
        let connection = connection.expect("a connection to RabbitMQ");
        Self { fleet, celeriac, connection, only_worker: tokio::sync::Mutex::default() }
    }

    /// Starts another program with the same queues.
    pub fn another(&self, node: &str) -> Celeriac {
        let options = steady().with_node(node);
        on_runtime(builder(&self.fleet).amqp_options(options).start()).expect("a start")
    }

    /// Holds off other tests from the queue `python-one`.
    pub async fn only_worker(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.only_worker.lock().await
    }

    /// Sends a message that no client would.
    pub async fn publish(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let channel = self.connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = channel.basic_publish("".into(), queue.into(), options, body, properties);
        let confirmed = sent.await.expect("it is sent").await.expect("it is confirmed");
        assert!(confirmed.is_ack() && confirmed.take_message().is_none(), "it arrives in `{queue}`");
        channel.close(200, "OK".into()).await.expect("it closes");
    }

    /// How many messages wait in a queue and are with no worker.
    pub async fn ready(&self, queue: &str) -> u32 {
        let channel = self.connection.create_channel().await.expect("a channel");
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(queue.into(), look, FieldTable::default()).await;
        found.expect("the queue is there").message_count()
    }
}

/// On a machine that has no time for short heartbeats they would cut connections that nobody wants to cut.
fn steady() -> AmqpOptions {
    AmqpOptions::default().with_heartbeat(Duration::from_secs(60))
}

fn builder(fleet: &Fleet) -> Builder {
    let priorities = QueueSetup { max_priority: Some(10), ..QueueSetup::default() };
    let row = |name: &str, workers| QueueRow::new(name).with_pool(Pool::Io).with_workers(workers);
    let catalogue = Catalogue::new()
        .with_queue(row("rust", 8))
        .with_queue(row("rust-extra", 8))
        // One at a time, and one more in hand.
        .with_queue(row("rust-one", 1).with_prefetch(2))
        // One at a time, and the next is chosen by RabbitMQ.
        .with_queue(row("rust-priority", 1).with_prefetch(1))
        .with_queue(QueueRow::new("python").with_served(false))
        .with_queue(QueueRow::new("python-one").with_served(false))
        .with_queue(row("news", 2).with_broadcast(true))
        .with_route("all.heard", "news")
        // As `task_routes` in the Python app.
        .with_route_row(RouteRow::new("python.*", "python"));
    Celeriac::builder()
        .catalogue(catalogue)
        .amqp(&fleet.broker)
        .amqp_options(steady().queue("rust-priority", priorities).with_node("rust@localhost"))
        .result_backend(&fleet.backend)
        // As in the Python app.
        .control_command("greet_everybody", |arguments| async move {
            let name = arguments["name"].as_str().ok_or("greet_everybody() needs `name`, a text")?;
            let times = arguments["times"].as_u64().unwrap_or(1);
            let all: Vec<String> = (0..times).map(|_| format!("hello {name}")).collect();
            Ok(json!({ "ok": all.join(", ") }))
        })
        .inspect_command("side", |_| async { Ok(json!({ "language": "rust" })) })
        .arbiters(1)
}

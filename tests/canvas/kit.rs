//! Runtimes and tasks to build canvases of.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use celeriac::actors::QueueStatus;
use celeriac::app::ControlError;
use celeriac::broker::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, Condition, Consumer, DeadLetter,
    DeadLetterQueue, Events, FailedTasks, Inspect, Lanes, MemoryBroker, QueueCounts, Results, Sink,
    TenantBacklog, UniqueWindows,
};
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::store::{MemoryStore, Store};
use celeriac::task::{Message, Receipt};
use celeriac::{Builder, Celeriac, Context, TaskError, TaskId, task};

/// Longer than anything takes, even on a slow machine.
pub const LONG: Duration = Duration::from_secs(300);

pub fn builder() -> Builder {
    let row = |name: &str| QueueRow::new(name).with_pool(Pool::Io).with_workers(4);
    Celeriac::builder().queue(row("default")).queue(row("other")).arbiters(1)
}

pub async fn memory() -> Celeriac {
    builder().in_memory().start().await.unwrap()
}

pub async fn embedded(dir: &Path) -> Celeriac {
    builder().directory(dir).start().await.unwrap()
}

/// A broker that keeps no results, with a store of its own for them, as RabbitMQ and Redis are.
pub async fn apart() -> Celeriac {
    apart_and_its_broker().await.0
}

/// The same, and the broker, for messages that others send.
pub async fn apart_and_its_broker() -> (Celeriac, Arc<dyn Broker>) {
    apart_with(Arc::new(MemoryStore::default())).await
}

/// The same, with this store.
pub async fn apart_with(store: Arc<dyn Store>) -> (Celeriac, Arc<dyn Broker>) {
    let broker: Arc<dyn Broker> = Arc::new(Apart(MemoryBroker::new(Arc::default())));
    let celeriac = builder().broker(Arc::clone(&broker), store);
    (celeriac.start().await.unwrap(), broker)
}

/// Runs a test on all forms.
pub async fn on_all<F: Future<Output = ()>>(test: impl Fn(Celeriac) -> F) {
    let dir = tempfile::tempdir().unwrap();
    for celeriac in [memory().await, embedded(dir.path()).await, apart().await] {
        test(celeriac.clone()).await;
        celeriac.shutdown().await.unwrap();
    }
}

/// Runs an ignored test in a process of its own, without the runtimes of other tests: what a body sends goes to the runtime that
/// was started last.
pub fn alone(test: &str) {
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

/// Runs a test on all forms, one after the other: what a body sends goes to the runtime that was started last. If one sends, the
/// test is [alone].
pub async fn on_each<F: Future<Output = ()>>(test: impl Fn(Celeriac) -> F) {
    let dir = tempfile::tempdir().unwrap();
    for form in 0..3 {
        let celeriac = match form {
            0 => memory().await,
            1 => embedded(dir.path()).await,
            _ => apart().await,
        };
        test(celeriac.clone()).await;
        celeriac.shutdown().await.unwrap();
    }
}

/// A memory broker that says that it settles no results, and is given none.
struct Apart(MemoryBroker);

#[async_trait]
impl Broker for Apart {
    fn name(&self) -> &'static str {
        "apart"
    }

    fn facts(&self) -> BrokerFacts {
        BrokerFacts { is_shared: true, knows_all: true, delivery_limit: None }
    }

    fn condition(&self) -> Condition {
        self.0.condition()
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.0.declare(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.0.queues().await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        self.0.publish(message, unique).await
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        self.0.publish_all(messages, unique).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        self.0.consume(queue, prefetch, sink)
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        self.0.counts(queue).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.0.dead_letters(limit).await
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        self.0.requeue_dead_letters(ids).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.0.close().await
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
        self.0.inspect()
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        None
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        None
    }

    fn events(&self) -> Option<&dyn Events> {
        None
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        None
    }

    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        self.0.failed_tasks()
    }

    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        self.0.tenant_backlog()
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        self.0.bulk_changes()
    }
}

/// Waits until a condition holds that nothing signals.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < LONG, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The counters of the queue `default` now. An event loop that has no time to answer is asked again.
pub async fn default_queue(celeriac: &Celeriac) -> QueueStatus {
    let start = Instant::now();
    loop {
        match celeriac.queue("default").await {
            Err(ControlError::NotAnswering(_)) if start.elapsed() < LONG => {}
            status => return status.unwrap(),
        }
    }
}

static NOTES: LazyLock<Mutex<HashMap<String, Vec<String>>>> = LazyLock::new(Mutex::default);

/// What was noted under a name.
pub fn notes(name: &str) -> Vec<String> {
    NOTES.lock().unwrap().get(name).cloned().unwrap_or_default()
}

/// Notes what it is given first.
#[task]
pub async fn note(what: serde_json::Value, name: String) {
    NOTES.lock().unwrap().entry(name).or_default().push(what.to_string());
}

#[task]
pub async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[task]
pub fn add_cpu(a: i64, b: i64) -> i64 {
    a + b
}

#[task]
pub async fn sum(all: Vec<i64>) -> i64 {
    all.iter().sum()
}

#[task]
pub async fn twice(n: i64) -> i64 {
    2 * n
}

#[task]
pub async fn none() {}

/// Who it is: its queue, its root and its parent.
#[task]
pub async fn who(ctx: Context) -> (String, Option<String>, Option<String>) {
    let workflow = ctx.message().workflow.as_deref().cloned().unwrap_or_default();
    let text = |id: Option<celeriac::TaskId>| id.map(|id| id.to_string());
    (ctx.queue().to_owned(), text(workflow.root_id), text(workflow.parent_id))
}

#[task]
pub async fn fail(why: String) -> Result<i64, TaskError> {
    Err(TaskError::permanent(why))
}

//! Runtimes and tasks to build canvases of.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use celeriac::app::catalogue::{Pool, QueueRow};
use celeriac::broker::{
    Broker, BrokerError, Consumer, Counts, DeadLetter, MemoryBroker, Place, RecordFn, Removal, Sink,
};
use celeriac::store::MemoryStore;
use celeriac::task::{Message, Receipt};
use celeriac::{Builder, Celeriac, Context, TaskError, TaskId, task};

/// Longer than anything takes, even on a slow machine.
pub const LONG: Duration = Duration::from_secs(120);

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
    let broker = Arc::new(Apart(MemoryBroker::new(Arc::default())));
    builder().broker(broker, Arc::new(MemoryStore::default())).start().await.unwrap()
}

/// Runs a test on all forms.
pub async fn on_all<F: Future<Output = ()>>(test: impl Fn(Celeriac) -> F) {
    let dir = tempfile::tempdir().unwrap();
    for celeriac in [memory().await, embedded(dir.path()).await, apart().await] {
        test(celeriac.clone()).await;
        celeriac.shutdown().await.unwrap();
    }
}

/// Runs a test on all forms, one after the other: what a body sends goes to the runtime that was started last.
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

    fn settles_results(&self) -> bool {
        false
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

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        self.0.consume(queue, prefetch, sink)
    }

    async fn counts(&self, queue: &str) -> Result<Counts, BrokerError> {
        self.0.counts(queue).await
    }

    async fn find(&self, id: &TaskId) -> Result<Option<Place>, BrokerError> {
        self.0.find(id).await
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        self.0.remove(id, record).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.0.dead_letters(limit).await
    }

    async fn revive(&self, id: &TaskId) -> Result<bool, BrokerError> {
        self.0.revive(id).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.0.close().await
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

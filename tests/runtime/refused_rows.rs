//! A row that its broker never takes costs the rows behind it nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use celeriac::broker::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, Condition, Consumer, DeadLetter,
    DeadLetterQueue, Events, FailedTasks, Inspect, Lanes, MemoryBroker, QueueCounts, Results, Sink,
    TenantBacklog, UniqueWindows,
};
use celeriac::store::MemoryStore;
use celeriac::task::source_poller::{Due, Source, SourcePoller};
use celeriac::task::{Message, Receipt};
use celeriac::{TaskError, TaskId, task};

use crate::kit::{builder, note, notes, until};

/// The row whose task the broker does not take.
const INVALID: u64 = 2;

/// A broker that finds something of one row's task too long, whose queue `io` may be full, and that may keep no notes.
pub struct Narrow {
    inner: MemoryBroker,
    pub is_full: AtomicBool,
    keeps_notes: bool,
}

impl Narrow {
    pub fn new(store: Arc<MemoryStore>, keeps_notes: bool) -> Self {
        Self { inner: MemoryBroker::new(store), is_full: AtomicBool::new(false), keeps_notes }
    }
}

#[async_trait]
impl Broker for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn facts(&self) -> BrokerFacts {
        self.inner.facts()
    }

    fn condition(&self) -> Condition {
        self.inner.condition()
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.inner.declare(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.inner.queues().await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        if message.arguments.args.ends_with(&format!(",{INVALID}]")) {
            return Err(BrokerError::Invalid("the unique key has 2000 bytes".to_owned()));
        }
        if message.queue == "io" && self.is_full.load(Ordering::SeqCst) {
            return Err(BrokerError::Full("the queue is at its length".to_owned()));
        }
        self.inner.publish(message, unique).await
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        self.inner.publish_all(messages, unique).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        self.inner.consume(queue, prefetch, sink)
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        self.inner.counts(queue).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.inner.dead_letters(limit).await
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        self.inner.requeue_dead_letters(ids).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.inner.close().await
    }

    fn results(&self) -> Option<&dyn Results> {
        self.inner.results()
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        self.inner.lanes()
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        self.inner.unique_windows()
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.inner.inspect()
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        Broker::notes(&self.inner).filter(|_| self.keeps_notes)
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        self.inner.backlog()
    }

    fn events(&self) -> Option<&dyn Events> {
        self.inner.events()
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        self.inner.dead_letter_queue()
    }

    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        self.inner.failed_tasks()
    }

    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        self.inner.tenant_backlog()
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        self.inner.bulk_changes()
    }
}

#[task(queue = "io")]
async fn take(list: String, row: u64) {
    note(&list.as_str().into(), row.to_string());
}

/// Rows that are due until they have a task.
struct Rows {
    list: String,
    due: Arc<Mutex<Vec<u64>>>,
}

#[async_trait]
impl Source for Rows {
    async fn due(&self, limit: usize) -> Result<Vec<Due>, TaskError> {
        let row = |row: &u64| Due::new(row, take::s(self.list.clone(), *row));
        Ok(self.due.lock().unwrap().iter().take(limit).map(row).collect())
    }

    async fn enqueued(&self, keys: &[String]) -> Result<(), TaskError> {
        self.due.lock().unwrap().retain(|row| !keys.contains(&row.to_string()));
        Ok(())
    }
}

#[tokio::test]
async fn the_other_four_are_enqueued() {
    let (list, due) = (TaskId::new().to_string(), Arc::new(Mutex::new((0..5).collect::<Vec<u64>>())));
    let poller = SourcePoller::new("rows", Rows { list: list.clone(), due: Arc::clone(&due) })
        .interval(Duration::from_millis(5))
        .longest_pause(Duration::from_millis(5));
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(Narrow::new(Arc::clone(&store), true));
    let celeriac = builder().broker(broker, store).poller(poller).start().await.unwrap();
    let ran = || {
        let mut rows = notes(&list.as_str().into());
        rows.sort_unstable();
        rows
    };
    until("the others ran", async || ran().len() == 4).await;
    until("it is told why the one did not", async || {
        let status = celeriac.pollers().await.unwrap().remove(0);
        status.enqueued == 4 && status.last_error.is_some_and(|error| error.contains("2000 bytes"))
    })
    .await;
    assert_eq!(ran(), ["0", "1", "3", "4"]);
    assert_eq!(*due.lock().unwrap(), [INVALID]);
    celeriac.shutdown().await.unwrap();
}

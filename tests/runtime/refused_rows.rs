//! A row that its broker never takes costs the rows behind it nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use celeriac::broker::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, Condition, Consumer, DeadLetter, DeadLetterQueue,
    Events, FailedTasks, Inspect, Lanes, MemoryBroker, QueueCounts, Results, Sink, UniqueWindows,
};
use celeriac::store::MemoryStore;
use celeriac::task::source_poller::{Due, Source, SourcePoller};
use celeriac::task::{Message, Receipt};
use celeriac::{TaskError, TaskId, task};

use crate::kit::{builder, note, notes, until};

/// The row whose task the broker does not take.
const INVALID: u64 = 2;

/// A broker that finds something of one row's task too long.
struct Narrow(MemoryBroker);

#[async_trait]
impl Broker for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn facts(&self) -> BrokerFacts {
        self.0.facts()
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
        if message.arguments.args.ends_with(&format!(",{INVALID}]")) {
            return Err(BrokerError::Invalid("the unique key has 2000 bytes".to_owned()));
        }
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
        self.0.results()
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        self.0.lanes()
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        self.0.unique_windows()
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.0.inspect()
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        Broker::notes(&self.0)
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        self.0.backlog()
    }

    fn events(&self) -> Option<&dyn Events> {
        self.0.events()
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        self.0.dead_letter_queue()
    }

    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        self.0.failed_tasks()
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
    let broker = Arc::new(Narrow(MemoryBroker::new(Arc::clone(&store))));
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

//! The seam: what Celeriac asks of a broker, each question as one step at the [`Table`].
//!
//! A step goes to the thread that owns the database, and its answer comes when the transaction is committed. So nobody
//! waits for the disk on an event loop, and `Ok` is the promise that the receipt names. (The note of a start does wait.)

use std::fs::{DirBuilder, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use celeriac::async_trait;
use celeriac::broker::{
    AgendaPlace, Backlog, Broker, BrokerConnection, BrokerError, BrokerFacts, BrokerListener, BrokerNotes,
    BulkChanges, Condition, Consumer, DeadLetter, DeadLetterQueue, Events, FailedTasks, Hastened, Inspect,
    Lanes, MessageLocation, QueueCounts, RecordFn, Removal, Results, ScheduledTask, Settle, Settler, Sink,
    TaskFilter, TenantBacklog, UnfinishedTask, UniqueWindows, requeued,
};
use celeriac::core::Timestamp;
use celeriac::protocol::control::{Reply, Request};
use celeriac::task::{Durability, Message, Receipt, TaskId};
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::table::{Answer, Step, Subscriber, Table, now, step};

/// A broker whose messages wait in a table of SQLite.
pub struct SqliteBroker {
    steps: Sender<Step>,
    /// The number of consumers so far. Each has a number, so that a late word of one that was replaced is ignored.
    consumers: AtomicU64,
}

impl SqliteBroker {
    /// Opens the table in this file, which is made if it is not there, and counts a crash for each run that ended with
    /// the last process.
    pub fn open(file: impl AsRef<Path>) -> Result<Self, BrokerError> {
        let file = file.as_ref();
        make(file)
            .map_err(|e| BrokerError::io_because(format!("{} cannot be made: {e}", file.display()), e))?;
        let (steps, queue) = channel();
        let table =
            Table::open(file, steps.clone()).map_err(|e| BrokerError::io_because(e.to_string(), e))?;
        let thread = std::thread::Builder::new().name("sqlite-broker".to_owned());
        thread.spawn(move || table.run(queue)).map_err(|e| BrokerError::io_because(e.to_string(), e))?;
        Ok(Self { steps, consumers: AtomicU64::new(0) })
    }

    /// Has a step done, and waits until it is committed. If the thread has ended, it drops the step unanswered.
    pub async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Table) -> Answer<T> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let (tell, told) = oneshot::channel();
        let _ = self.steps.send(step(work, move |answer| drop(tell.send(answer))));
        told.await.unwrap_or(Err(BrokerError::Closed))
    }
}

/// Makes the file and its directory if they are not there, for their owner only, because the arguments of tasks are
/// in them. SQLite gives the files that it makes beside it the rights of this one.
fn make(file: &Path) -> std::io::Result<()> {
    let (mut directory, mut options) = (DirBuilder::new(), OpenOptions::new());
    directory.recursive(true);
    // A file that is there is not opened: to close it again would take SQLite's locks from this process.
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        std::os::unix::fs::DirBuilderExt::mode(&mut directory, 0o700);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    directory.create(file.parent().unwrap_or(Path::new("")))?;
    match options.open(file) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The thread has a sender of its own, so it has to be told that the broker is gone.
impl Drop for SqliteBroker {
    fn drop(&mut self) {
        let _ = self.steps.send(step(Table::stop, drop));
    }
}

#[async_trait]
impl Broker for SqliteBroker {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn facts(&self) -> BrokerFacts {
        // - One process has the file (the table locks it), so nobody else delivers from it.
        // - Every task that waits is a row, so all are known.
        // - No limit is stated, because the table itself makes dead letters of all messages that have reached its own:
        //   `Table::deliver`.
        BrokerFacts { is_shared: false, knows_all: true, delivery_limit: None }
    }

    fn condition(&self) -> Condition {
        Condition::default() // a file is never away, as a server may be
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        let queue = queue.to_owned();
        self.ask(move |table| table.declare(&queue)).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.ask(|table| table.queues()).await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        let receipt = Receipt::new(message.id.clone(), message.queue.clone(), Durability::Disk);
        self.publish_all(vec![message], unique).await?;
        Ok(receipt)
    }

    /// All or none, because a step is one transaction.
    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        self.ask(move |table| {
            for message in &messages {
                if unique && table.has(&message.id)? {
                    return Ok(Err(BrokerError::DuplicateId(message.id.clone()))); // before the first insert
                }
            }
            messages.iter().try_for_each(|message| table.insert(message, message.eta)).map(Ok)
        })
        .await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        let number = self.consumers.fetch_add(1, Ordering::Relaxed);
        let consumer = SqliteConsumer { steps: self.steps.clone(), queue: queue.to_owned(), number };
        let queue = queue.to_owned();
        let subscribe = move |table: &mut Table| {
            table.subscribers.insert(queue, Subscriber { number, prefetch, sink });
            Ok(Ok(()))
        };
        self.steps.send(step(subscribe, drop)).map_err(|_| BrokerError::Closed)?;
        Ok(Box::new(consumer))
    }

    async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerError> {
        let queue = queue.to_owned();
        self.ask(move |table| table.counts(&queue)).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.ask(move |table| table.dead_letters(limit)).await
    }

    async fn requeue_dead_letters(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let ids = ids.to_vec();
        self.ask(move |table| {
            let mut found = Vec::new();
            for id in ids {
                if let Some(letter) = table.exhume(&id)? {
                    table.insert(&requeued(letter.message, now()), None)?;
                    found.push(id);
                }
            }
            Ok(Ok(found))
        })
        .await
    }

    /// Steps are done in their order, so everything settled before this is committed when this is.
    async fn close(&self) -> Result<(), BrokerError> {
        self.ask(Table::stop).await
    }

    /// `None`: this broker keeps no records and counts no chords. The builder puts a `SplitBroker` around it, which
    /// keeps them in the store that the program gives, and passes us the messages that follow from an end.
    fn results(&self) -> Option<&dyn Results> {
        None
    }

    /// `None`: the runtime refuses serial tasks when they are sent, with an error that names this broker.
    fn lanes(&self) -> Option<&dyn Lanes> {
        None
    }

    /// `None`: the `SplitBroker` keeps unique windows in the store, if that can; otherwise unique tasks are refused.
    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        None
    }

    /// Tasks can be found and revoked while they wait.
    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }

    /// `None`: the schedule and other state of the runtime are in the store, and a tick of a periodic task is published
    /// beside its note and not together with it.
    fn notes(&self) -> Option<&dyn BrokerNotes> {
        None
    }

    /// A broker of one process knows since when its messages wait: one more query.
    fn backlog(&self) -> Option<&dyn Backlog> {
        Some(self)
    }

    /// There is no other process to tell anything. But tasks at the delivery limit end here, undelivered, and the
    /// runtime has to hear of them: somebody may wait for their results.
    fn events(&self) -> Option<&dyn Events> {
        Some(self)
    }

    /// `None`: a task that failed for good leaves its record alone, and the runtime then settles it like any other. A
    /// table beside the dead letters would do it.
    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        None
    }

    /// `None`: tasks come by priority and in order of arrival, whoever they are for. A column with the tenant and an index
    /// on it would let the tenants take turns.
    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        None
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        None
    }

    /// `None`: dead letters are counted for each queue, and SQLite refuses no message for good.
    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        None
    }
}

#[async_trait]
impl Inspect for SqliteBroker {
    async fn find(&self, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
        let id = id.clone();
        self.ask(move |table| {
            Ok(Ok(table.find(&id)?.map(|(_, message, is_delivered)| match is_delivered {
                true => MessageLocation::Delivered { queue: message.queue },
                false => MessageLocation::Waiting(Box::new(message)),
            })))
        })
        .await
    }

    async fn position(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        let id = id.clone();
        self.ask(move |table| table.position(&id, limit)).await
    }

    async fn list_unfinished(
        &self,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<Vec<UnfinishedTask>, BrokerError> {
        let filter = filter.clone();
        self.ask(move |table| table.unfinished(&filter, limit).map(Ok)).await
    }

    async fn unfinished_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        let all = self.list_unfinished(filter, usize::MAX).await?;
        Ok(all.into_iter().map(|task| task.message.id).collect())
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        let id = id.clone();
        self.ask(move |table| match table.find(&id)? {
            None => Ok(Ok(Removal::Unknown)),
            Some((_, message, true)) => Ok(Ok(Removal::Delivered { queue: message.queue })),
            Some((seq, message, false)) => {
                table.delete(seq)?;
                table.follow(record(&message).follow_ups)?; // the record itself is the `SplitBroker`'s to keep
                Ok(Ok(Removal::Removed))
            }
        })
        .await
    }
}

#[async_trait]
impl Backlog for SqliteBroker {
    async fn oldest_ready(&self, queue: &str) -> Result<Option<Timestamp>, BrokerError> {
        let queue = queue.to_owned();
        self.ask(move |table| table.oldest_ready(&queue)).await
    }

    async fn hasten(&self, queue: &str, from: AgendaPlace, limit: usize) -> Result<Hastened, BrokerError> {
        let queue = queue.to_owned();
        self.ask(move |table| table.hasten(&queue, from, limit)).await
    }
}

#[async_trait]
impl Events for SqliteBroker {
    fn node(&self) -> Option<String> {
        None
    }

    fn set_listener(&self, listener: Arc<dyn BrokerListener>) {
        let runtime = Handle::current(); // the start calls this, and the listener's futures need a runtime
        let listen = move |table: &mut Table| {
            table.listener = Some((runtime, listener));
            Ok(Ok(()))
        };
        let _ = self.steps.send(step(listen, drop));
    }

    async fn broadcast_revoke(&self, _ids: &[TaskId], _terminate: bool) -> Result<(), BrokerError> {
        Ok(())
    }

    // Nobody else consumes here, so there is no node to ask by remote control, and nobody to show a connection to.
    async fn ask(&self, _request: Request, _patience: Duration) -> Result<Vec<Reply>, BrokerError> {
        Ok(Vec::new())
    }

    fn connection(&self) -> Option<BrokerConnection> {
        None
    }

    fn queue_arguments(&self, _queue: &str) -> Map<String, Value> {
        Map::new()
    }

    async fn scheduled(&self, _limit: usize) -> Vec<ScheduledTask> {
        Vec::new()
    }
}

/// The consuming end of one queue.
struct SqliteConsumer {
    steps: Sender<Step>,
    queue: String,
    number: u64,
}

impl SqliteConsumer {
    /// Changes the subscription, unless another consumer has taken the queue over.
    fn change(&self, change: impl FnOnce(&mut Table, &str) + Send + 'static) {
        let (queue, number) = (self.queue.clone(), self.number);
        let change = move |table: &mut Table| {
            if table.subscribers.get(&queue).is_some_and(|subscriber| subscriber.number == number) {
                change(table, &queue);
            }
            Ok(Ok(()))
        };
        let _ = self.steps.send(step(change, drop));
    }
}

impl Consumer for SqliteConsumer {
    fn set_prefetch(&self, prefetch: usize) {
        self.change(move |table, queue| {
            if let Some(subscriber) = table.subscribers.get_mut(queue) {
                subscriber.prefetch = prefetch;
            }
        });
    }
}

impl Drop for SqliteConsumer {
    fn drop(&mut self) {
        self.change(|table, queue| drop(table.subscribers.remove(queue)));
    }
}

/// Ends the deliveries of a table. Each end is a step, so it may be called from anywhere, the sink included.
#[derive(Clone)]
pub struct SqliteSettler(pub Sender<Step>);

impl Settler for SqliteSettler {
    fn note_started(&self, tag: u64) {
        let _ = self.0.send(step(move |table| table.note_start(tag), drop));
    }

    /// Waits for the commit. Otherwise a body that takes the process down at once would not be counted, and would run
    /// again for ever.
    fn write_starts(&self) {
        let (tell, told) = channel();
        let _ = self.0.send(step(|_| Ok(Ok(())), move |noted| drop(tell.send(noted))));
        let _ = told.recv(); // an error: the table is closed, and so nothing more is noted
    }

    /// `None`: no other process can be given what this one has.
    fn check_fence(&self, _tag: u64) -> Option<oneshot::Receiver<bool>> {
        None
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>) {
        let settler = self.clone();
        let tell = move |settled: Result<(), BrokerError>| {
            if let Err(BrokerError::Io(_)) = settled {
                // An end that was not written has ended nothing. The message goes back, and the task runs again.
                settler.settle(tag, Settle::Return { crashed: false }, None);
            }
            done.map(|done| done.send(settled));
        };
        let _ = self.0.send(step(move |table| table.settle(tag, settle), tell));
    }
}

//! What follows from a serial run and is refused for good, while dead letters cannot be kept for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use celeriac::broker::amqp::AmqpBroker;
use celeriac::broker::conformance::{Inbox, sample};
use celeriac::broker::{
    Backlog, Broker, BrokerError, BrokerFacts, BrokerNotes, BulkChanges, Condition, Consumer, DeadLetter,
    DeadLetterQueue, Events, FailedTasks, FollowUps, Inspect, Lanes, QueueCounts, RedisLanesBroker, Results,
    Settle, Sink, TenantBacklog, UniqueWindows,
};
use celeriac::store::{RedisOptions, RedisStore};
use celeriac::task::{Durability, LaneName, Message, Receipt, SerialHeader, TaskId};

use crate::amqp::{LIMIT, options};
use crate::redis_lanes::place;
use crate::services::{Redis, blocking};

/// How many burials fail before one is let through.
const FAILURES: usize = 2;

/// A broker that refuses what goes to the queue `forbidden`, and whose dead letters cannot be kept at first.
struct Withholds {
    inner: AmqpBroker,
    burials: Arc<AtomicUsize>,
}

#[async_trait]
impl Broker for Withholds {
    fn name(&self) -> &'static str {
        self.inner.name()
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
        if message.queue == "forbidden" {
            return Err(BrokerError::Refused("nobody may send there".to_owned()));
        }
        self.inner.publish(message, unique).await
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        for message in messages {
            self.publish(message, unique).await?;
        }
        Ok(())
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
        None
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        None
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.inner.inspect()
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        None
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        None
    }

    fn events(&self) -> Option<&dyn Events> {
        self.inner.events()
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        Some(self)
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

#[async_trait]
impl DeadLetterQueue for Withholds {
    async fn bury(&self, message: Message, reason: &str) -> Result<(), BrokerError> {
        if self.burials.fetch_add(1, Ordering::SeqCst) < FAILURES {
            return Err(BrokerError::io("the connection is lost"));
        }
        self.inner.bury(message, reason).await
    }

    fn dead_from_here(&self, queue: &str) -> u64 {
        self.inner.dead_from_here(queue)
    }
}

/// The run is over for its broker only when the letter is there, and then its lane goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_letter_of_what_follows_is_tried_until_it_is_kept() {
    let (url, prefix) = place().await;
    let burials = Arc::new(AtomicUsize::new(0));
    let inner = AmqpBroker::connect(&url, options()).await.unwrap();
    let inner = Withholds { inner, burials: Arc::clone(&burials) };
    let mut redis = RedisOptions::default();
    redis.global_keyprefix = Some(prefix);
    let store = RedisStore::connect(&blocking(|| Redis::shared().url()).await, redis).await.unwrap();
    let broker: Arc<dyn Broker> = Arc::new(RedisLanesBroker::open(Arc::new(inner), store, LIMIT).await);
    for n in 0..2 {
        let serial = SerialHeader::new(LaneName::new("refusal.task", "key"));
        let message = Message { serial: Some(Box::new(serial)), ..sample("q", n, Durability::Disk) };
        broker.publish(message, false).await.unwrap();
    }
    let mut inbox = Inbox::open(&broker, "q", 1);
    let next = sample("forbidden", 0, Durability::Disk);
    let follow_ups = FollowUps { messages: vec![next], ..FollowUps::default() };
    let end = Settle::Ack { result: None, follow_ups: Some(Box::new(follow_ups)) };
    inbox.next().await.settle_and_wait(end).await.unwrap();
    assert_eq!(burials.load(Ordering::SeqCst), FAILURES + 1);
    let letters = broker.dead_letters(10).await.unwrap();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(letter.message.id.as_str(), "forbidden-0");
    assert!(letter.reason.contains("nobody may send there"), "{}", letter.reason);
    let second = inbox.next().await;
    assert_eq!(second.message().id.as_str(), "q-1");
    second.settle_and_wait(Settle::Ack { result: None, follow_ups: None }).await.unwrap();
    drop(inbox);
    broker.close().await.unwrap();
}

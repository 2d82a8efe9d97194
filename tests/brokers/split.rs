//! Brokers whose results are kept beside them: in Redis for RabbitMQ, with and without lanes, and in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use celeriac::broker::conformance::{Abilities, BrokerUnderTest};
use celeriac::broker::{Activity, Broker, BrokerListener, ControlRequest, FollowUps, SplitBroker};
use celeriac::store::{RedisOptions, RedisStore, Store, StoreError};
use celeriac::task::{
    Durability, EventFunnel, EventGroup, EventStream, Message, TaskId, TaskOptions, TaskResult,
};
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::amqp::{classic::Classic, quorum::Quorum};
use crate::memory::Memory;
use crate::redis_lanes::RedisLanes;
use crate::services::{Redis, blocking};

/// A broker, and the store beside it.
struct Split<T> {
    transport: T,
    broker: Arc<SplitBroker>,
    store: Arc<dyn Store>,
}

/// Where the results of a transport are kept in these tests.
#[async_trait]
trait Beside: BrokerUnderTest {
    async fn place(&self) -> Arc<dyn Store> {
        static STORES: AtomicUsize = AtomicUsize::new(0);
        let n = STORES.fetch_add(1, Ordering::Relaxed);
        let mut options = RedisOptions::default();
        options.global_keyprefix = Some(format!("split-{}-{n}", std::process::id()));
        let address = blocking(|| Redis::shared().url()).await;
        Arc::new(RedisStore::connect(&address, options).await.expect("Redis"))
    }
}

#[async_trait]
impl Beside for Memory {
    async fn place(&self) -> Arc<dyn Store> {
        self.store()
    }
}

impl Beside for Classic {}
impl Beside for Quorum {}
impl Beside for RedisLanes {}

impl<T: Beside> Split<T> {
    fn of(transport: T, store: Arc<dyn Store>) -> Self {
        let broker = SplitBroker::open(transport.broker(), Arc::clone(&store)).expect("a thread");
        broker.events().expect("it tells").set_listener(Arc::new(Keeps(Arc::clone(&store))));
        Self { transport, broker: Arc::new(broker), store }
    }
}

#[async_trait]
impl<T: Beside> BrokerUnderTest for Split<T> {
    const DURABILITY: Durability = T::DURABILITY;
    const DELIVERY_LIMIT: u32 = T::DELIVERY_LIMIT;
    const ABILITIES: Abilities = T::ABILITIES;

    async fn open() -> Self {
        let transport = T::open().await;
        let store = transport.place().await;
        Self::of(transport, store)
    }

    fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn reopen(self) -> Option<Self> {
        let Self { transport, broker, store } = self;
        broker.close().await.expect("a close");
        drop(broker);
        Some(Self::of(transport.reopen().await?, store))
    }

    async fn crash(self) -> Option<Self> {
        let Self { transport, broker, store } = self;
        drop(broker);
        Some(Self::of(transport.crash().await?, store))
    }
}

/// Keeps what it hears in the store, as a runtime does.
struct Keeps(Arc<dyn Store>);

impl BrokerListener for Keeps {
    fn options(&self, _: &str) -> Option<TaskOptions> {
        None
    }

    fn plan_follow_ups(&self, _: &Message, _: &mut TaskResult) -> Option<Box<FollowUps>> {
        None
    }

    fn over(&self, record: TaskResult, message: Option<&Message>) {
        tokio::spawn(self.end(record, message));
    }

    fn end(&self, record: TaskResult, _: Option<&Message>) -> BoxFuture<'static, ()> {
        let store = Arc::clone(&self.0);
        Box::pin(async move {
            let id = record.id.clone();
            assert_eq!(store.put(record).await, Ok(true));
            if let Some(windows) = store.unique_windows() {
                windows.release_of(&id).await.expect("the window ends with its task");
            }
        })
    }

    fn events(&self, groups: &[EventGroup]) -> EventStream {
        EventFunnel::default().listen(groups)
    }

    fn activity(&self) -> Activity {
        Activity::default()
    }

    fn parked(&self, _: &Arc<Message>) -> bool {
        false
    }

    fn lost(&self, _: Vec<u64>) {}

    fn revoked(&self, _: Vec<TaskId>, _: bool) -> BoxFuture<'static, Result<Vec<TaskId>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn control(&self, _: ControlRequest) -> BoxFuture<'static, Option<Value>> {
        Box::pin(std::future::ready(None))
    }
}

mod in_memory {
    use super::*;

    celeriac::broker_conformance!(Split<Memory>);
    celeriac::broker_conformance!(Split<Memory>, results);
    celeriac::broker_conformance!(Split<Memory>, lanes);
    celeriac::broker_conformance!(Split<Memory>, windows);
    celeriac::broker_conformance!(Split<Memory>, failed);
    celeriac::broker_conformance!(Split<Memory>, tenants);
}

mod on_classic_queues {
    use super::*;

    celeriac::broker_conformance!(Split<Classic>, durable);
    celeriac::broker_conformance!(Split<Classic>, durable results);
    celeriac::broker_conformance!(Split<Classic>, durable windows);
    celeriac::broker_conformance!(Split<Classic>, durable failed);
}

mod on_quorum_queues {
    use super::*;

    celeriac::broker_conformance!(Split<Quorum>, durable results);
    celeriac::broker_conformance!(Split<Quorum>, durable windows);
}

mod with_lanes {
    use super::*;

    celeriac::broker_conformance!(Split<RedisLanes>, results);
    celeriac::broker_conformance!(Split<RedisLanes>, durable lanes);
}

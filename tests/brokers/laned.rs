//! The broker on RabbitMQ with its lanes in Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use celeriac::broker::amqp::AmqpBroker;
use celeriac::broker::conformance::{Abilities, Subject};
use celeriac::broker::{Broker, LanedBroker};
use celeriac::store::{RedisOptions, RedisStore, Store};
use celeriac::task::Durability;

use crate::amqp::{LIMIT, NONE, options};
use crate::services::{Proxy, RabbitMq, Redis, blocking};

/// A broker of lanes; a process that dies is one whose connections to RabbitMQ are cut, and which renews no lease.
struct Laned {
    broker: Arc<LanedBroker>,
    store: RedisStore,
    url: String,
    prefix: String,
    proxy: Proxy,
}

impl Laned {
    async fn at(url: String, prefix: String) -> Self {
        let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
        let inner =
            AmqpBroker::connect(&proxy.url(&url), options().max_priority(255)).await.expect("RabbitMQ");
        let mut redis = RedisOptions::default();
        redis.global_keyprefix = Some(prefix.clone());
        redis.lane_lease = Duration::from_millis(500);
        let address = blocking(|| Redis::shared().url()).await;
        let store = RedisStore::connect(&address, redis).await.expect("Redis");
        let broker = LanedBroker::open(Arc::new(inner), store.clone(), LIMIT).await;
        Self { broker: Arc::new(broker), store, url, prefix, proxy }
    }
}

#[async_trait]
impl Subject for Laned {
    const DURABILITY: Durability = Durability::Disk;
    const DELIVERY_LIMIT: u32 = LIMIT;
    const ABILITIES: Abilities = Abilities { priorities: true, unstarted_keep_their_place: true, ..NONE };

    async fn open() -> Self {
        static SUBJECTS: AtomicUsize = AtomicUsize::new(0);
        let n = SUBJECTS.fetch_add(1, Ordering::Relaxed);
        let name = format!("laned-{}-{n}", std::process::id());
        let vhost = name.clone();
        let url = blocking(move || RabbitMq::shared().vhost(&vhost)).await;
        Self::at(url, name).await
    }

    fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    async fn reopen(self) -> Option<Self> {
        self.broker.close().await.expect("a close");
        Some(Self::at(self.url, self.prefix).await)
    }

    async fn crash(self) -> Option<Self> {
        self.proxy.refuse();
        self.proxy.cut();
        drop(self.broker);
        Some(Self::at(self.url, self.prefix).await)
    }
}

// Plain tasks pass by as they do without lanes; what of them survives is the other one's affair.
celeriac::broker_conformance!(Laned);
celeriac::broker_conformance!(Laned, durable lanes);

//! The broker on RabbitMQ, with classic and with quorum queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use celeriac::broker::Broker;
use celeriac::broker::amqp::{AmqpBroker, AmqpOptions, QueueType};
use celeriac::broker::conformance::{Abilities, BrokerUnderTest};
use celeriac::store::{MemoryStore, Store};
use celeriac::task::Durability;

use crate::services::{Proxy, RabbitMq, blocking};

/// Few, for each crash of a process costs a lease.
pub const LIMIT: u32 = 3;

/// RabbitMQ has a queue for each priority within a queue, and takes a third of a second to make one with 255 of them. So
/// most tests have few, and those about priorities have all as well.
pub const PRIORITIES: u8 = 10;

pub const NONE: Abilities = Abilities {
    priorities: false,
    unstarted_keep_their_place: false,
    crashed_keep_their_place: false,
    first_crash_is_counted: false,
    counts_at_once: false,
    counts_scheduled: false,
    counts_no_copies: false,
};

/// A process that dies cuts its connections here, so nobody needs a short heartbeat; on a machine that has no time for one
/// a short heartbeat would cut a connection that a test still uses.
pub fn options() -> AmqpOptions {
    let options = AmqpOptions::default().with_heartbeat(Duration::from_secs(60));
    options.with_delivery_limit(LIMIT).with_lease(Duration::from_millis(500))
}

/// A broker that reaches RabbitMQ through a proxy: a process that dies is one whose connections are cut.
struct Rabbit {
    broker: Arc<AmqpBroker>,
    store: Arc<MemoryStore>,
    url: String,
    proxy: Proxy,
    options: AmqpOptions,
}

impl Rabbit {
    async fn open(options: AmqpOptions) -> Self {
        static VHOSTS: AtomicUsize = AtomicUsize::new(0);
        let n = VHOSTS.fetch_add(1, Ordering::Relaxed);
        let url = blocking(move || RabbitMq::shared().vhost(&format!("conformance-{n}"))).await;
        Self::at(url, options).await
    }

    async fn at(url: String, options: AmqpOptions) -> Self {
        let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
        let broker = AmqpBroker::connect(&proxy.url(&url), options.clone()).await.expect("RabbitMQ");
        Self { broker: Arc::new(broker), store: Arc::new(MemoryStore::default()), url, proxy, options }
    }

    async fn reopen(self) -> Self {
        self.broker.close().await.expect("a close");
        Self::at(self.url, self.options).await
    }

    async fn crash(self) -> Self {
        self.proxy.refuse();
        self.proxy.cut();
        Self::at(self.url, self.options).await
    }
}

/// A subject of this name.
macro_rules! subject {
    ($name:ident, $options:expr, can: $($ability:ident)*) => {
        pub struct $name(Rabbit);

        #[async_trait]
        impl BrokerUnderTest for $name {
            const DURABILITY: Durability = Durability::Disk;
            const DELIVERY_LIMIT: u32 = LIMIT;
            const ABILITIES: Abilities = Abilities { $($ability: true,)* ..NONE };

            async fn open() -> Self {
                Self(Rabbit::open($options).await)
            }

            fn broker(&self) -> Arc<dyn Broker> {
                self.0.broker.clone()
            }

            fn store(&self) -> Arc<dyn Store> {
                self.0.store.clone()
            }

            async fn reopen(self) -> Option<Self> {
                Some(Self(self.0.reopen().await))
            }

            async fn crash(self) -> Option<Self> {
                Some(Self(self.0.crash().await))
            }
        }
    };
}

pub mod classic {
    use super::*;

    subject!(Classic, options().max_priority(PRIORITIES), can: priorities unstarted_keep_their_place);
    celeriac::broker_conformance!(Classic, durable);
    celeriac::broker_conformance!(Classic, durable failed);
}

pub mod quorum {
    use super::*;

    subject!(Quorum, options().queue_type(QueueType::Quorum), can:);
    celeriac::broker_conformance!(Quorum, durable);
    celeriac::broker_conformance!(Quorum, durable failed);
}

mod all_priorities {
    use super::*;

    subject!(AllPriorities, options().max_priority(u8::MAX), can: priorities unstarted_keep_their_place);
    celeriac::broker_conformance! { @tests AllPriorities:
        high_priority_first urgent_overtakes_a_full_prefetch etas_due_together what_waits_survives
    }
}

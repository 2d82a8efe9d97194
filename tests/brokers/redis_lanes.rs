//! The broker on RabbitMQ with its lanes in Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use celeriac::broker::amqp::AmqpBroker;
use celeriac::broker::conformance::{Abilities, BrokerUnderTest, Inbox, sample};
use celeriac::broker::{Broker, Delivery, Lanes as _, RedisLanesBroker, Settle};
use celeriac::store::{RedisOptions, RedisStore, Store};
use celeriac::task::{Durability, LaneName, Message, RUN_ONCE_HEADER, SerialHeader};

use crate::amqp::{LIMIT, NONE, PRIORITIES, options};
use crate::services::{Proxy, RabbitMq, Redis, await_condition, blocking};

/// A broker of lanes; a process that dies is one whose connections to RabbitMQ are cut, and which renews no lease.
pub struct RedisLanes {
    broker: Arc<RedisLanesBroker>,
    store: RedisStore,
    url: String,
    prefix: String,
    proxy: Proxy,
}

impl RedisLanes {
    async fn at(url: String, prefix: String) -> Self {
        let address = blocking(|| Redis::shared().url()).await;
        Self::with(url, prefix, address, LEASE).await
    }

    pub async fn with(url: String, prefix: String, address: String, lease: Duration) -> Self {
        Self::with_priorities(PRIORITIES, url, prefix, address, lease).await
    }

    async fn with_priorities(
        priorities: u8,
        url: String,
        prefix: String,
        address: String,
        lease: Duration,
    ) -> Self {
        let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
        let options = options().max_priority(priorities);
        let inner = AmqpBroker::connect(&proxy.url(&url), options).await.expect("RabbitMQ");
        let mut redis = RedisOptions::default();
        redis.global_keyprefix = Some(prefix.clone());
        redis.lane_lease = lease;
        let store = RedisStore::connect(&address, redis).await.expect("Redis");
        let broker = RedisLanesBroker::open(Arc::new(inner), store.clone(), LIMIT).await;
        Self { broker: Arc::new(broker), store, url, prefix, proxy }
    }
}

/// A vhost of its own, and its name.
pub async fn place() -> (String, String) {
    static SUBJECTS: AtomicUsize = AtomicUsize::new(0);
    let n = SUBJECTS.fetch_add(1, Ordering::Relaxed);
    let name = format!("laned-{}-{n}", std::process::id());
    let vhost = name.clone();
    (blocking(move || RabbitMq::shared().vhost(&vhost)).await, name)
}

#[async_trait]
impl BrokerUnderTest for RedisLanes {
    const DURABILITY: Durability = Durability::Disk;
    const DELIVERY_LIMIT: u32 = LIMIT;
    const ABILITIES: Abilities = Abilities { priorities: true, unstarted_keep_their_place: true, ..NONE };

    async fn open() -> Self {
        let (url, name) = place().await;
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
celeriac::broker_conformance!(RedisLanes);
celeriac::broker_conformance!(RedisLanes, durable lanes);
celeriac::broker_conformance!(RedisLanes, failed);

mod all_priorities {
    use super::*;

    struct AllPriorities(RedisLanes);

    #[async_trait]
    impl BrokerUnderTest for AllPriorities {
        const DURABILITY: Durability = RedisLanes::DURABILITY;
        const DELIVERY_LIMIT: u32 = RedisLanes::DELIVERY_LIMIT;
        const ABILITIES: Abilities = RedisLanes::ABILITIES;

        async fn open() -> Self {
            let (url, name) = place().await;
            let redis = blocking(|| Redis::shared().url()).await;
            Self(RedisLanes::with_priorities(u8::MAX, url, name, redis, LEASE).await)
        }

        fn broker(&self) -> Arc<dyn Broker> {
            self.0.broker()
        }

        fn store(&self) -> Arc<dyn Store> {
            self.0.store()
        }
    }

    celeriac::broker_conformance! { @tests AllPriorities:
        high_priority_first urgent_overtakes_a_full_prefetch etas_due_together
    }
}

/// Longer than RabbitMQ takes to confirm a message on a busy machine: what is not confirmed in a lease is sent once more.
const LEASE: Duration = Duration::from_secs(4);
const BACKLOG: usize = 40;
const PREFETCH: usize = 4;

/// One process that holds a lane, and another one that is busy with what else is in the queue.
struct Two {
    one: Option<(Arc<RedisLanesBroker>, Inbox)>,
    proxy: Proxy,
    other: RedisLanes,
    inbox: Inbox,
    busy_with: Vec<Delivery>,
}

impl Two {
    async fn open() -> Self {
        let (url, prefix) = place().await;
        let redis = blocking(|| Redis::shared().url()).await;
        let one = RedisLanes::with(url.clone(), prefix.clone(), redis.clone(), LEASE).await;
        let RedisLanes { broker: one, proxy, .. } = one;
        let broker: Arc<dyn Broker> = one.clone();
        broker.publish(serial(0, "key"), false).await.unwrap();
        let mut its = Inbox::open(&broker, "q", 1);
        std::mem::forget(its.next().await); // who is killed says nothing more
        for n in 1..=BACKLOG {
            broker.publish(sample("q", n, Durability::Disk), false).await.unwrap();
        }
        let other = RedisLanes::with(url, prefix, redis, LEASE).await;
        let mut inbox = Inbox::open(&other.broker(), "q", PREFETCH);
        let busy_with = inbox.take(PREFETCH).await;
        Self { one: Some((one, its)), proxy, other, inbox, busy_with }
    }

    /// It renews its lease no more.
    fn one_dies(&mut self) {
        self.one = None;
    }

    /// Until so many are ready, copies included.
    async fn until_ready(&self, is_enough: impl Fn(u64) -> bool) {
        let start = std::time::Instant::now();
        loop {
            let counts = self.other.broker.counts("q").await.unwrap();
            if is_enough(counts.ready) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "{counts:?}");
            tokio::task::yield_now().await;
        }
    }

    /// RabbitMQ has back what the one that died had.
    async fn until_back(&self) {
        let vhost = self.other.url.rsplit_once('/').unwrap().1.to_owned();
        let out = move || {
            let columns = ["name", "messages_unacknowledged"];
            let table = RabbitMq::shared()
                .ctl(&[&["list_queues", "-p", &vhost, "--no-table-headers"][..], &columns].concat());
            let row = table.lines().find_map(|line| line.strip_prefix("q\t")).expect("the queue");
            row.trim().parse::<usize>().expect("a number")
        };
        blocking(move || {
            await_condition("one of two has what is out", || match out() {
                PREFETCH => Ok(()),
                others => Err(format!("{others} are out")),
            });
        })
        .await;
    }

    /// The next one that comes is the one that the dead one had. Then all the others do, and no lane is left.
    async fn expect_the_dead_ones(mut self) {
        ack(self.busy_with.pop().unwrap()).await;
        let next = self.inbox.next().await;
        assert_eq!(next.message().id.as_str(), "q-0");
        assert!(next.is_again());
        ack(next).await;
        for delivery in std::mem::take(&mut self.busy_with) {
            ack(delivery).await;
        }
        for _ in PREFETCH..BACKLOG {
            let next = self.inbox.next().await;
            assert_ne!(next.message().id.as_str(), "q-0");
            ack(next).await;
        }
        self.until_ready(|ready| ready == 0).await;
        assert_eq!(self.other.broker.busy_lanes(10).await.unwrap(), []);
    }
}

fn serial(n: usize, key: &str) -> Message {
    Message { serial: Some(Box::new(SerialHeader::new(lane(key)))), ..sample("q", n, Durability::Disk) }
}

fn lane(key: &str) -> LaneName {
    LaneName::new("laned.task", key)
}

async fn ack(delivery: Delivery) {
    delivery.settle_and_wait(Settle::Ack { result: None, follow_ups: None }).await.unwrap();
}

/// RabbitMQ gives it to the other one, where it waits for the end of the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_process_had_does_not_wait_in_the_queue_again() {
    let mut two = Two::open().await;
    two.proxy.refuse();
    two.one_dies();
    two.until_back().await;
    two.expect_the_dead_ones().await;
}

/// At the end of the lease it is sent anew, to the end of the queue. Then RabbitMQ finds out, too: the first copy counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_vanished_process_had_starts_when_rabbitmq_finds_out() {
    let mut two = Two::open().await;
    two.proxy.swallow();
    two.one_dies();
    two.until_ready(|ready| ready > (BACKLOG - PREFETCH) as u64).await;
    two.proxy.cut();
    two.until_back().await;
    two.expect_the_dead_ones().await;
}

/// Of the copies of a message that is to run once, the first one that starts is the only one. What is sent anew is the same copy
/// as the one that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_anew_has_the_mark_of_the_copy_that_a_process_has_vanished_with() {
    let (url, prefix) = place().await;
    let redis = blocking(|| Redis::shared().url()).await;
    let one = RedisLanes::with(url.clone(), prefix.clone(), redis.clone(), LEASE).await;
    let RedisLanes { broker, proxy, .. } = one;
    let broker: Arc<dyn Broker> = broker;
    let mut message = serial(0, "key");
    message.headers.0.insert(RUN_ONCE_HEADER.to_owned(), true.into());
    broker.publish(message, true).await.unwrap();
    let mut its = Inbox::open(&broker, "q", 1);
    let first = its.next().await;
    let mark = first.message().headers.0[RUN_ONCE_HEADER].clone();
    assert!(mark.is_string(), "{mark}");
    std::mem::forget(first); // who is killed says nothing more
    proxy.swallow();
    drop((its, broker));
    let other = RedisLanes::with(url, prefix, redis, LEASE).await;
    let mut inbox = Inbox::open(&other.broker(), "q", 1);
    let again = inbox.next().await;
    assert!(again.is_again());
    assert_eq!(again.message().headers.0[RUN_ONCE_HEADER], mark);
    ack(again).await;
}

/// Redis starts again with nothing. Who was let in is in RabbitMQ, or with a process, and comes to its lane anew; who waited in
/// line is lost, as the documentation says, and holds nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_let_in_outlives_the_memory_of_redis() {
    let redis = blocking(Redis::start).await;
    let (url, prefix) = place().await;
    let redis_lanes = RedisLanes::with(url, prefix, redis.url(), LEASE).await;
    let broker = redis_lanes.broker();
    for (n, key) in [(0, "ends"), (1, "is cut off"), (2, "ready"), (3, "ends")] {
        broker.publish(serial(n, key), false).await.unwrap();
    }
    let mut inbox = Inbox::open(&broker, "q", 2);
    let [ends, is_cut_off] = <[Delivery; 2]>::try_from(inbox.take(2).await).unwrap();
    let token = ends.fence().max(is_cut_off.fence());
    assert_eq!(broker.lanes().unwrap().lane(&lane("ends")).await.unwrap().unwrap().waiting, 1);
    let _redis = blocking(move || {
        redis.kill();
        redis.start_again();
        redis
    })
    .await;
    ack(ends).await;
    is_cut_off.settle(Settle::Return { crashed: false });
    let mut again = inbox.take(2).await;
    again.sort_by_key(|delivery| delivery.message().id.clone());
    for (delivery, id) in again.iter().zip(["q-1", "q-2"]) {
        assert_eq!(delivery.message().id.as_str(), id);
        assert!(delivery.is_again() && delivery.fence() > token, "{delivery:?}");
    }
    // It has its lane for itself, as before.
    broker.publish(serial(4, "is cut off"), false).await.unwrap();
    assert_eq!(broker.lanes().unwrap().lane(&lane("is cut off")).await.unwrap().unwrap().waiting, 1);
    assert!(
        broker.inspect().unwrap().find(&serial(3, "").id).await.unwrap().is_none(),
        "it had waited in line"
    );
    broker.publish(serial(5, "ends"), false).await.unwrap();
    for delivery in again {
        ack(delivery).await;
    }
    let mut rest = inbox.take(2).await;
    rest.sort_by_key(|delivery| delivery.message().id.clone());
    let ids: Vec<&str> = rest.iter().map(|delivery| delivery.message().id.as_str()).collect();
    assert_eq!(ids, ["q-4", "q-5"]);
    for delivery in rest {
        ack(delivery).await;
    }
    assert_eq!(broker.lanes().unwrap().busy_lanes(10).await.unwrap(), []);
}

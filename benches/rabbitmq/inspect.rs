//! How soon a worker answers questions while each of its slots computes and a long line waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use celeriac::broker::Broker;
use celeriac::broker::amqp::{AmqpBroker, AmqpOptions};
use celeriac::catalogue::{Catalogue, Pool, QueueRow};
use celeriac::store::MemoryStore;
use celeriac::{Celeriac, task};
use serde_json::json;

use super::support::figures::{Table, goal};
use super::support::sized;
use super::{PREFETCH, Place, Raw};

const NODE: &str = "busy@bench";
/// Every method of Celery's `inspect`.
const METHODS: [&str; 13] = [
    "ping",
    "active",
    "reserved",
    "scheduled",
    "revoked",
    "registered",
    "stats",
    "conf",
    "report",
    "query_task",
    "active_queues",
    "clock",
    "memsample",
];
/// An answer is to come in this time.
const SOON: Duration = Duration::from_millis(100);

static OVER: AtomicBool = AtomicBool::new(false);
static COMPUTING: AtomicUsize = AtomicUsize::new(0);

/// Computes until the measurement is over.
#[task(name = "bench.computes", ignore_result)]
fn computes(payload: String) {
    COMPUTING.fetch_add(1, Ordering::AcqRel);
    while !OVER.load(Ordering::Relaxed) {
        std::hint::black_box(&payload);
    }
}

async fn runtime(place: &Place, served: Option<usize>, node: &str) -> Celeriac {
    let row = QueueRow::new(&*place.queue)
        .with_pool(Pool::Cpu)
        .with_workers(served.unwrap_or(1))
        .with_prefetch(PREFETCH)
        .with_served(served.is_some());
    let options = AmqpOptions::default().queue_type(place.queue_type).with_node(node);
    let broker: Arc<dyn Broker> =
        Arc::new(AmqpBroker::connect(&place.rabbit.url(), options).await.expect("RabbitMQ is there"));
    Celeriac::builder()
        .catalogue(Catalogue::new().with_queue(row))
        .broker(broker, Arc::new(MemoryStore::default()))
        .result_backend(place.redis.url())
        .start()
        .await
        .expect("the runtime starts")
}

/// Asks each question many times, and prints how long the answers took.
pub async fn answers(place: &Place) {
    let (cores, waiting) =
        (std::thread::available_parallelism().map_or(2, usize::from), sized(200_000, 5_000));
    Raw::open(place).await.close().await; // declares
    Raw::purge(place).await;
    let asking = runtime(place, None, "asking@bench").await;
    drop(computes::s("x".into()).queue(&*place.queue).send(asking.client()).await.expect("accepted"));
    let letter = Raw::take(place).await;
    Raw::fill(place, &letter, waiting).await;
    let busy = runtime(place, Some(cores), NODE).await;
    while COMPUTING.load(Ordering::Acquire) < cores {
        tokio::task::yield_now().await;
    }
    let mut table = Table::new(&["question", "median", "longest", "goal"]);
    for method in METHODS {
        let arguments = if method == "query_task" { json!({"ids": ["nobody"]}) } else { json!({}) };
        let mut took = Vec::new();
        for _ in 0..sized(50, 5) {
            let asked = Instant::now();
            let fleet = asking.fleet().nodes([NODE]).within(Duration::from_secs(10));
            let replies = fleet.inspect(method, arguments.clone()).await.expect("RabbitMQ is there");
            took.push(asked.elapsed());
            assert!(replies.contains_key(NODE), "{method}: {replies:?}");
        }
        took.sort();
        let longest = took[took.len() - 1];
        let show = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1e3);
        table.row(vec![
            method.to_owned(),
            show(took[took.len() / 2]),
            show(longest),
            goal(longest <= SOON, &show(SOON)),
        ]);
    }
    table.print(&format!(
        "Answers of a worker whose {cores} slots compute on {cores} cores while {waiting} tasks wait"
    ));
    OVER.store(true, Ordering::Relaxed);
    // The line is taken away, so that the shutdown does not run it.
    busy.shutdown().await.expect("the runtime shuts down");
    asking.shutdown().await.expect("the runtime shuts down");
    Raw::purge(place).await;
}

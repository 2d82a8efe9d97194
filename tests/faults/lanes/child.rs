//! The child's side: one that enqueues serial tasks, in order for each key, or one that works.

use std::sync::OnceLock;
use std::time::Duration;

use celeriac::broker::amqp::AmqpOptions;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::store::RedisOptions;
use celeriac::{Celeriac, Context, TaskError, serial_task};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::book::{Line, is_flaky};
use crate::child::PUBLISH_TIMEOUT;
use crate::ledger::{note, now};

/// The queue of all tasks here.
const QUEUE: &str = "lanes";
/// Keys of one process that are enqueued for at a time.
const AT_ONCE: usize = 32;

/// What a child is told at its start. It lives until it is told to `end`. A producer enqueues one task for each of its keys when
/// it is told `round`, and says `produced`; when it is told `enough`, it says so as soon as it has enqueued those of the first key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    pub amqp: String,
    pub redis: String,
    /// In milliseconds.
    pub lease: u64,
    /// Whether it sees that others on its machine are dead.
    pub neighbours: bool,
    /// None: it only enqueues.
    pub workers: usize,
    /// It enqueues for these keys.
    pub keys: std::ops::Range<u64>,
    /// So many for the first of its keys, one after the other; the first one takes as long as three leases.
    pub hot: u64,
}

static LIFE: OnceLock<u64> = OnceLock::new();

fn life() -> u64 {
    *LIFE.get_or_init(|| std::env::var("CRASH_LIFE").expect("it is set").parse().expect("a number"))
}

/// Notes the begin of a run, and its end if nobody else does.
struct Run {
    key: u64,
    n: u64,
    token: u64,
    ended: bool,
}

impl Run {
    fn start(ctx: &Context, key: u64, n: u64) -> Self {
        let token = ctx.fencing_token().expect("a serial run has one");
        note(&Line::Start { life: life(), key, n, token, at: now() });
        Self { key, n, token, ended: false }
    }

    fn end(mut self, done: bool) {
        self.ended = true;
        let (life, key, n, token) = (life(), self.key, self.n, self.token);
        note(&if done { Line::Done { life, key, n, token } } else { Line::Ended { life, key, n, token } });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.ended {
            note(&Line::Ended { life: life(), key: self.key, n: self.n, token: self.token });
        }
    }
}

#[serial_task(
    key = "{key}",
    queue = "lanes",
    max_retries = 5,
    default_retry_delay = "20ms",
    retry_backoff = false
)]
async fn step(ctx: Context, key: u64, n: u64, takes: u64) -> Result<(), TaskError> {
    let run = Run::start(&ctx, key, n);
    tokio::time::sleep(Duration::from_millis(takes)).await; // stands for work
    let failed = is_flaky(key, n) && ctx.retries() == 0;
    run.end(!failed);
    if failed { Err(TaskError::transient("the first time")) } else { Ok(()) }
}

/// Lives to its end.
pub async fn live(
    orders: Orders,
    mut commands: mpsc::UnboundedReceiver<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut redis = RedisOptions::default();
    redis.lane_lease = Duration::from_millis(orders.lease);
    redis.lane_neighbours = orders.neighbours;
    // Here each kill is one of ours.
    let options = AmqpOptions::default().with_delivery_limit(1000).with_publish_timeout(PUBLISH_TIMEOUT);
    let row = QueueRow::new(QUEUE).with_pool(Pool::Io).with_workers(orders.workers.max(1));
    let celeriac = Celeriac::builder()
        .amqp(orders.amqp.clone())
        .amqp_options(options)
        .redis(orders.redis.clone(), redis)
        .queue(row.with_served(orders.workers > 0))
        .arbiters(1)
        .shutdown_grace(Duration::from_secs(20))
        .start()
        .await?;
    println!("up");
    let (keys, lease) = (orders.keys, orders.lease);
    let mut hot = JoinSet::new();
    if !keys.is_empty() {
        let key = keys.start;
        hot.spawn(async move {
            for n in 0..orders.hot {
                enqueue(key, n, if n == 0 { 3 * lease } else { (key + n) % 40 }).await;
            }
        });
    }
    let mut round = 0;
    while let Some(command) = commands.recv().await {
        match command.as_str() {
            "round" => {
                produce(keys.start + 1..keys.end, round).await;
                round += 1;
            }
            "enough" => while hot.join_next().await.is_some() {},
            _ => break,
        }
        println!("produced");
    }
    celeriac.shutdown().await?;
    Ok(())
}

/// Enqueues the `n`th task of each key.
async fn produce(keys: std::ops::Range<u64>, n: u64) {
    let mut under_way = JoinSet::new();
    for key in keys {
        while under_way.len() >= AT_ONCE {
            under_way.join_next().await;
        }
        under_way.spawn(enqueue(key, n, (key + n) % 40));
    }
    while under_way.join_next().await.is_some() {}
}

async fn enqueue(key: u64, n: u64, takes: u64) {
    let line = match step::s(key, n, takes).delay().await {
        Ok(task) => Line::Ack { life: life(), key, n, id: task.id().to_string() },
        Err(error) => Line::Refused { life: life(), key, n, why: error.to_string() },
    };
    note(&line);
}

//! The child's side: one that sends flows and waits for their ends, or one that works.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use celeriac::broker::amqp::AmqpOptions;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::store::RedisOptions;
use celeriac::{Celeriac, GetError};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::book::Line;
use super::flow::{QUEUE, Shape};
use crate::ledger::note;

/// Longer than anything takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// What a child is told at its start. A producer then hears the numbers of flows, a worker `idle`, which it answers as soon as
/// nothing is left to do; both hear `end`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    pub amqp: String,
    pub redis: String,
    /// None: it only sends.
    pub workers: usize,
    /// After how many milliseconds a chord that one process has begun to close is for another one.
    pub chord_lease: u64,
}

static LIFE: OnceLock<u64> = OnceLock::new();

/// Which process this is.
pub fn life() -> u64 {
    *LIFE.get_or_init(|| std::env::var("CRASH_LIFE").expect("it is set").parse().expect("a number"))
}

/// Lives to its end.
pub async fn live(
    orders: Orders,
    mut commands: mpsc::UnboundedReceiver<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut redis = RedisOptions::default();
    redis.chord_lease = Duration::from_millis(orders.chord_lease);
    // Here each kill is one of ours.
    let options = AmqpOptions::default().with_delivery_limit(1000).with_publish_timeout(PATIENCE);
    let row = QueueRow::new(QUEUE).with_pool(Pool::Io).with_workers(orders.workers.max(1));
    let celeriac = Celeriac::builder()
        .amqp(orders.amqp)
        .amqp_options(options)
        .redis(orders.redis, redis)
        .queue(row.with_served(orders.workers > 0))
        .arbiters(1)
        .shutdown_grace(Duration::from_secs(20))
        .start()
        .await?;
    let celeriac = Arc::new(celeriac);
    println!("up");
    while let Some(command) = commands.recv().await {
        match command.as_str() {
            "end" => break,
            "idle" => idle(&celeriac).await?,
            flow => drop(tokio::spawn(send(flow.parse()?))),
        }
    }
    if let Ok(celeriac) = Arc::try_unwrap(celeriac) {
        celeriac.shutdown().await?;
    }
    Ok(())
}

/// Sends a flow and notes how it ends.
async fn send(flow: u64) {
    let sent = Shape::of(flow).canvas(flow).delay().await.expect("RabbitMQ is there");
    note(&Line::Ack { flow });
    let end = match sent.get(PATIENCE).await {
        Ok(value) => format!("value {}", value),
        Err(GetError::Ended(record)) => {
            format!("failed {}", record.error_type.as_deref().unwrap_or_default())
        }
        Err(error) => error.to_string(),
    };
    note(&Line::Over { flow, end });
}

async fn idle(celeriac: &Celeriac) -> Result<(), Box<dyn std::error::Error>> {
    let mut look = tokio::time::interval(Duration::from_millis(10));
    loop {
        look.tick().await;
        let queues = celeriac.queues().await?;
        if queues.iter().all(|q| !q.away && (q.ready, q.scheduled, q.running) == (0, 0, 0)) {
            println!("idle");
            return Ok(());
        }
    }
}

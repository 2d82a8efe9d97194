//! How fast this machine is: empty tasks through one queue of the embedded store.
//! `cargo run --release --example throughput -- [tasks] [producers]`

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use celeriac::catalogue::{Pool, QueueRow};
use celeriac::{Celeriac, task};
use tokio::sync::Notify;

static DONE: AtomicUsize = AtomicUsize::new(0);
static ALL: Notify = Notify::const_new();

#[task(ignore_result, queue = "fast")]
async fn noop(n: usize) {
    if DONE.fetch_add(1, Ordering::Relaxed) + 1 == n {
        ALL.notify_one();
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let mut args = std::env::args().skip(1);
    let tasks: usize = args.next().map_or(Ok(100_000), |n| n.parse())?;
    let producers: usize = args.next().map_or(Ok(512), |n| n.parse())?;
    let dir = tempfile::tempdir_in(".")?;
    let queue = QueueRow::new("fast").with_pool(Pool::Io).with_workers(64).with_prefetch(4096);
    let celeriac = Celeriac::builder().directory(dir.path()).queue(queue).start().await?;
    let total = tasks / producers * producers;
    let start = Instant::now();
    let mut running = Vec::new();
    for _ in 0..producers {
        running.push(tokio::spawn(async move {
            for _ in 0..tasks / producers {
                noop::delay(total).await.expect("the disk takes it");
            }
        }));
    }
    for producer in running {
        producer.await?;
    }
    let accepted = start.elapsed();
    ALL.notified().await;
    let took = start.elapsed();
    let rate = |t: Duration| total as f64 / t.as_secs_f64();
    println!(
        "{total} tasks by {producers} producers: accepted {:.0}/s, done {:.0}/s",
        rate(accepted),
        rate(took)
    );
    println!("{:#?}", celeriac.queue("fast").await?.time_to_start);
    celeriac.shutdown().await?;
    Ok(())
}

//! rusty-celery on the broker that Celeriac is measured on; the benchmark `rabbitmq` runs it.
//!
//! `fill URL QUEUE COUNT PREFETCH AHEAD BYTES` sends so many tasks with an argument of so many bytes; `drain …` runs what
//! waits in the queue, with late acknowledgement; `both …` sends and runs at the same time.
//!
//! Says `rate R` on a line: tasks per second, from when the first AHEAD of them have run until the last one has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use celery::prelude::*;
use tokio::sync::Notify;

static RUN: AtomicU64 = AtomicU64::new(0);
static AHEAD: AtomicU64 = AtomicU64::new(u64::MAX);
static COUNT: AtomicU64 = AtomicU64::new(u64::MAX);
static START: OnceLock<Instant> = OnceLock::new();
static ALL: Notify = Notify::const_new();

/// How many tasks of the sending half are at it at a time, as in the benchmark itself.
const PRODUCERS: u64 = 64;

#[celery::task(name = "bench.noop")]
async fn noop(payload: String) -> TaskResult<()> {
    let _ = payload;
    let run = RUN.fetch_add(1, Ordering::Relaxed) + 1;
    if run == AHEAD.load(Ordering::Relaxed) {
        let _ = START.set(Instant::now());
    }
    if run >= COUNT.load(Ordering::Relaxed) {
        ALL.notify_one();
    }
    Ok(())
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().unwrap_or_else(|| panic!("{what} is missing"));
    let (mode, url, queue) = (next("the mode"), next("the URL"), next("the queue"));
    let count: u64 = next("the count").parse().expect("the count is a number");
    let prefetch: u16 = next("the prefetch").parse().expect("the prefetch is a number");
    let ahead: u64 = next("how many come ahead").parse().expect("that is a number");
    let bytes: usize = next("the bytes").parse().expect("the bytes are a number");
    COUNT.store(count, Ordering::Relaxed);
    AHEAD.store(ahead, Ordering::Relaxed);

    let app = celery::app!(
        broker = AMQPBroker { url },
        tasks = [noop],
        task_routes = ["*" => &queue],
        default_queue = &queue,
        prefetch_count = prefetch,
        acks_late = true,
    )
    .await
    .expect("rusty-celery connects");

    if mode == "fill" {
        send(&app, count, bytes).await;
        app.close().await.expect("it closes");
        return;
    }
    if ahead == 0 {
        let _ = START.set(Instant::now());
    }
    let queues = [queue.as_str()];
    let consuming = app.consume_from(&queues);
    let work = async {
        if mode == "both" {
            send(&app, count, bytes).await;
        }
        tokio::time::timeout(Duration::from_secs(120), ALL.notified()).await
    };
    // Its consumer can be sent to no other thread; the tasks run on all of them.
    let worked = tokio::select! {
        ended = consuming => panic!("it consumes no longer: {ended:?}"),
        worked = work => worked,
    };
    assert!(worked.is_ok(), "only {} of {count} tasks ran", RUN.load(Ordering::Relaxed));
    let start = START.get().expect("enough have run");
    println!("rate {}", (count - ahead) as f64 / start.elapsed().as_secs_f64());
    // What was acknowledged last is on its way; its connections end in order.
    app.close().await.ok();
}

async fn send(app: &Arc<celery::Celery>, count: u64, bytes: usize) {
    let mut sending = Vec::new();
    for producer in 0..PRODUCERS {
        let app = Arc::clone(app);
        let share = count / PRODUCERS + u64::from(producer < count % PRODUCERS);
        sending.push(tokio::spawn(async move {
            for _ in 0..share {
                app.send_task(noop::new("x".repeat(bytes))).await.expect("it is sent");
            }
        }));
    }
    for sender in sending {
        sender.await.expect("it sends all");
    }
}

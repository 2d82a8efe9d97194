//! The child's side: a process of the fleet, which enqueues as much as it is told to, and works.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use celeriac::broker::amqp::{AmqpOptions, QueueType};
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::store::RedisOptions;
use celeriac::task::AcceptedBy;
use celeriac::{Celeriac, Context, TaskError, task};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::beat;
use crate::book::{is_flaky, value};
use crate::lanes::child as lanes;
use crate::ledger::{self, Line, note, now};
use crate::source_pollers;
use crate::workflows::child as workflows;

/// The queue of all tasks here.
pub const QUEUE: &str = "fleet";
/// Enqueues of one process that are under way at a time.
const AT_ONCE: usize = 100;
/// Longer than anything that is got over takes on a slow machine, alarms and stopped nodes included.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(120);

/// What a child is told at its start, on the first line of its stdin. Later lines: `more <n>` enqueues so many, and is
/// answered by `enqueued`; `end` ends it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    pub amqp: String,
    pub redis: String,
    pub workers: usize,
    /// A process fetches no more than its workers can start.
    pub none_in_reserve: bool,
    pub quorum: bool,
    pub outbox: Option<PathBuf>,
    /// Tasks do not end while this file is there.
    pub gate: PathBuf,
    /// How long a task takes, in milliseconds.
    pub takes: u64,
}

static GATE: OnceLock<PathBuf> = OnceLock::new();
static LIFE: AtomicU64 = AtomicU64::new(0);
static INSIDE: AtomicUsize = AtomicUsize::new(0);

fn life() -> u64 {
    LIFE.load(Ordering::Relaxed)
}

/// Notes the begin of a run, and its end if nobody else does.
struct Run {
    n: u64,
    ended: bool,
}

impl Run {
    fn start(ctx: &Context, n: u64) -> Self {
        let inside = INSIDE.fetch_add(1, Ordering::SeqCst) + 1;
        let (retries, crashes, again) = (ctx.retries(), ctx.message().crashes, ctx.is_redelivered());
        note(&Line::Start { life: life(), n, inside, retries, crashes, again, at: now() });
        Self { n, ended: false }
    }

    fn end(mut self, line: &Line) {
        self.ended = true;
        note(line);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.ended {
            note(&Line::Cut { life: life(), n: self.n });
        }
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

#[task(queue = "fleet", max_retries = 5, default_retry_delay = "20ms", retry_backoff = false)]
async fn toil(ctx: Context, n: u64, takes: u64) -> Result<u64, TaskError> {
    let run = Run::start(&ctx, n);
    // Stands for work.
    tokio::time::sleep(Duration::from_millis(takes / 2 + n % (takes + 1))).await;
    while GATE.get().is_some_and(|gate| gate.exists()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if is_flaky(n) && ctx.retries() == 0 {
        run.end(&Line::Failed { life: life(), n });
        return Err(TaskError::transient("the first time"));
    }
    run.end(&Line::Done { life: life(), n });
    Ok(value(n))
}

/// Plays a role to its end.
pub fn run(role: &str) -> ExitCode {
    if let Ok(level) = std::env::var("FAULTS_LOG") {
        let level = level.parse::<tracing_subscriber::filter::LevelFilter>().expect("a level, such as info");
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_max_level(level).init();
    }
    let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the parent"));
    LIFE.store(variable("CRASH_LIFE").parse().expect("a number"), Ordering::Relaxed);
    ledger::begin(&PathBuf::from(variable("CRASH_LEDGER")));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("stdin is open");
    let (told, commands) = mpsc::unbounded_channel();
    // Its end is the parent's.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = told.send(line);
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("threads");
    let lived = match role {
        "fleet" => runtime.block_on(live(serde_json::from_str(&line).expect("orders"), commands)),
        "beat" => runtime.block_on(beat::child(&line, commands)),
        "producers" => runtime.block_on(source_pollers::child(&line, commands)),
        "lanes" => runtime.block_on(lanes::live(serde_json::from_str(&line).expect("orders"), commands)),
        "workflows" => {
            runtime.block_on(workflows::live(serde_json::from_str(&line).expect("orders"), commands))
        }
        role => panic!("nobody plays {role}"),
    };
    match lived {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn live(
    orders: Orders,
    mut commands: mpsc::UnboundedReceiver<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    GATE.set(orders.gate).expect("one fleet a process");
    let queue_type = if orders.quorum { QueueType::Quorum } else { QueueType::Classic };
    // Here each kill is one of ours.
    let options = AmqpOptions::default()
        .queue_type(queue_type)
        .with_delivery_limit(1000)
        .with_publish_timeout(PUBLISH_TIMEOUT);
    let mut row = QueueRow::new(QUEUE).with_pool(Pool::Io).with_workers(orders.workers);
    if orders.none_in_reserve {
        row = row.with_prefetch(orders.workers);
    }
    let mut builder = Celeriac::builder()
        .amqp(orders.amqp)
        .amqp_options(options)
        .redis(orders.redis, RedisOptions::default())
        .queue(row)
        .queue(QueueRow::new(beat::QUEUE).with_served(false))
        .arbiters(1)
        .shutdown_grace(Duration::from_secs(20));
    if let Some(dir) = orders.outbox {
        builder = builder.outbox(dir);
    }
    let celeriac = builder.start().await?;
    println!("up");
    let numbers = Arc::new(AtomicU64::new(life() * 1_000_000));
    while let Some(command) = commands.recv().await {
        match command.split_once(' ') {
            Some(("more", count)) => enqueue(&numbers, count.parse()?, AT_ONCE, orders.takes).await,
            // One after the other: their order is that of their numbers.
            Some(("ordered", count)) => enqueue(&numbers, count.parse()?, 1, orders.takes).await,
            _ => break,
        }
        println!("enqueued");
    }
    celeriac.shutdown().await?;
    Ok(())
}

async fn enqueue(numbers: &Arc<AtomicU64>, count: u64, at_once: usize, takes: u64) {
    let mut under_way = JoinSet::new();
    for _ in 0..count {
        if under_way.len() >= at_once {
            under_way.join_next().await;
        }
        let n = numbers.fetch_add(1, Ordering::Relaxed);
        under_way.spawn(async move {
            match toil::s(n, takes).delay().await {
                Ok(task) => {
                    let outbox = task.receipt().keeper == AcceptedBy::Outbox;
                    note(&Line::Ack { life: life(), n, id: task.id().to_string(), outbox });
                }
                Err(error) => note(&Line::Refused { life: life(), n, why: error.to_string() }),
            }
        });
    }
    while under_way.join_next().await.is_some() {}
}

//! The child's side: a shop that takes orders, and programs that forward and send their mails.

use std::future::pending;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use celeriac::broker::amqp::AmqpOptions;
use celeriac::broker::embedded::EmbeddedOptions;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::store::RedisOptions;
use celeriac::{Builder, Celeriac, Context, task};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::database::{Database, End, Orders};
use crate::ledger::{self, Line, note};
use crate::tripping::Step;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The numbers of a life begin here, times its own number.
const NUMBERS: i64 = 1_000_000;
/// So many orders of a life go well before it dies at one.
const ORDERS: i64 = 10;

/// What a child is told at its start, on the first line of its stdin. A later line, `end`, ends it.
#[derive(Serialize, Deserialize)]
pub struct Plan {
    pub database: Database,
    /// The step at which it dies.
    pub step: Option<Step>,
    /// RabbitMQ and Redis, of a program that does not keep its tasks itself.
    pub fleet: Option<(String, String)>,
    /// How many orders a writer takes.
    pub orders: i64,
}

impl Plan {
    pub fn of(database: Database) -> Self {
        Self { database, step: None, fleet: None, orders: i64::MAX }
    }

    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a plan has a form in JSON")
    }
}

/// The mail of an order. It keeps no result, so nothing but the forwarder knows afterwards that it was sent.
#[task(queue = "mail", ignore_result)]
pub async fn send_mail(ctx: Context, n: i64) {
    let again = ctx.is_redelivered() || ctx.message().crashes > 0;
    note(&Line::Mail { n, id: ctx.id().to_string(), again });
}

/// Plays a role to its end.
pub fn run(role: &str) -> ExitCode {
    if let Ok(level) = std::env::var("COMMIT_LOG") {
        let level = level.parse::<tracing_subscriber::filter::LevelFilter>().expect("a level, such as info");
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_max_level(level).init();
    }
    let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the parent"));
    ledger::begin(&PathBuf::from(variable("CRASH_LEDGER")));
    let life: i64 = variable("CRASH_LIFE").parse().expect("a number");
    let store = PathBuf::from(variable("CRASH_STORE"));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("stdin is open");
    let plan: Plan = serde_json::from_str(&line).expect("a plan");
    let (told, end) = mpsc::channel(1);
    // The end of stdin is the parent's.
    std::thread::spawn(move || {
        let said = std::io::stdin().lock().lines().map_while(Result::ok).next();
        if said.is_none() {
            std::process::exit(3);
        }
        let _ = told.blocking_send(());
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.expect("threads").block_on(async {
        match role {
            "shop" => shop(plan, store, life).await,
            "drain" => drain(plan, store).await,
            "writer" => writer(plan, life, end).await,
            "worker" => worker(plan, end).await,
            other => panic!("no role {other}"),
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn builder() -> Builder {
    let mail = QueueRow::new("mail").with_pool(Pool::Io).with_workers(8);
    Celeriac::builder().queue(mail).arbiters(1).shutdown_grace(Duration::from_secs(20))
}

fn embedded(store: PathBuf) -> Builder {
    let mut options = EmbeddedOptions::default();
    options.delivery_limit = 1000; // here each kill is one of ours
    builder().directory(store).embedded_options(options)
}

/// Takes orders and sends their mails, until it is killed.
async fn shop(plan: Plan, store: PathBuf, life: i64) -> Result<(), Failure> {
    let _celeriac = plan.database.forward(embedded(store), plan.step).start().await?;
    let orders = Arc::new(plan.database.open().await?);
    println!("up");
    let numbers = Arc::new(AtomicI64::new(life * NUMBERS));
    for _ in 0..2 {
        tokio::spawn(produce(Arc::clone(&orders), Arc::clone(&numbers), plan.step, plan.orders));
    }
    pending().await
}

/// Takes its orders, and runs no Celeriac.
async fn writer(plan: Plan, life: i64, mut end: mpsc::Receiver<()>) -> Result<(), Failure> {
    let orders = Arc::new(plan.database.open().await?);
    println!("up");
    let numbers = Arc::new(AtomicI64::new(life * NUMBERS));
    produce(orders, numbers, None, plan.orders).await;
    let _ = end.recv().await;
    Ok(())
}

async fn produce(orders: Arc<Orders>, numbers: Arc<AtomicI64>, step: Option<Step>, count: i64) {
    for _ in 0..count {
        let n = numbers.fetch_add(1, Ordering::Relaxed);
        let is_due = n % NUMBERS >= ORDERS;
        let end = match step {
            Some(Step::Written) if is_due => End::DieBefore,
            Some(Step::Committed) if is_due => End::DieAfter,
            _ if n % 5 == 0 => End::RollBack,
            _ => End::Commit,
        };
        orders.take(n, end).await.unwrap_or_else(|error| panic!("order {n}: {error}"));
        if end == End::Commit {
            note(&Line::Committed { n });
        }
        // Stands for the time from one customer to the next.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Forwards and sends what is left.
async fn drain(plan: Plan, store: PathBuf) -> Result<(), Failure> {
    let celeriac = plan.database.forward(embedded(store), None).start().await?;
    let orders = plan.database.open().await?;
    let (mut look, patience) = (tokio::time::interval(Duration::from_millis(100)), Duration::from_secs(600));
    let begun = Instant::now();
    loop {
        look.tick().await;
        let (waiting, queues) = (orders.waiting().await?, celeriac.queues().await?);
        let is_idle = queues.missing.is_empty()
            && queues.iter().all(|q| (q.ready, q.scheduled, q.in_line, q.running) == (0, 0, 0, 0));
        if waiting == 0 && is_idle {
            break;
        }
        println!("{waiting} rows wait");
        if begun.elapsed() > patience {
            return Err(format!("{waiting} rows are left: {:?}", celeriac.commit_table()).into());
        }
    }
    celeriac.shutdown().await?;
    Ok(())
}

/// Forwards and sends, over RabbitMQ, until it is told to end.
async fn worker(plan: Plan, mut end: mpsc::Receiver<()>) -> Result<(), Failure> {
    let (amqp, redis) = plan.fleet.ok_or("a worker has a fleet")?;
    let builder = builder()
        .amqp(amqp)
        .amqp_options(AmqpOptions::default().with_delivery_limit(1000))
        .redis(redis, RedisOptions::default());
    let celeriac = plan.database.forward(builder, None).start().await?;
    println!("up");
    let _ = end.recv().await;
    celeriac.shutdown().await?;
    Ok(())
}

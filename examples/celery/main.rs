//! A mixed fleet: a queue that was moved from Python's Celery to Rust, and both sides still work for each other.
//!
//! The shop's tasks were all Python's. The queue `prices` is served by this program now; `tasks.total`, in the queue
//! `orders`, is Python's still. Neither side's callers changed.
//!
//! ```text
//! cargo run --features amqp,redis --example celery -- worker          # serves `prices` until Ctrl-C
//! cargo run --features amqp,redis --example celery -- order shoes=2   # sends work to both sides, and prints what comes back
//! ```
//!
//! `BROKER_URL` and `RESULT_URL` say where RabbitMQ and Redis are; the Python side is in `python/`.

use std::time::Duration;

use celeriac::catalogue::{Catalogue, QueueRow, RouteRow};
use celeriac::task::canvas::{chord, signature};
use celeriac::{Celeriac, TaskError, task};

/// What a task raises is what Python's callers catch.
fn unknown_article(article: &str) -> TaskError {
    let error = TaskError::permanent(format!("we do not sell {article}"));
    error.with_python_type("builtins", "LookupError")
}

/// In cents. The name is the one that it had in Python.
#[task(name = "tasks.price", queue = "prices")]
async fn price(article: String, count: u32) -> Result<u32, TaskError> {
    let each = match article.as_str() {
        "shoes" => 8900,
        "laces" => 350,
        _ => return Err(unknown_article(&article)),
    };
    Ok(each * count)
}

/// What both roles know: where the queues are, and which are this program's.
fn catalogue(serves_prices: bool) -> Catalogue {
    Catalogue::new()
        .with_default_queue("prices")
        .with_queue(QueueRow::new("prices").with_io_bound(true).with_served(serves_prices))
        .with_queue(QueueRow::new("orders").with_served(false))
        .with_route_row(RouteRow::new("tasks.total", "orders"))
}

async fn start(serves_prices: bool) -> Result<Celeriac, Box<dyn std::error::Error>> {
    let address = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let celeriac = Celeriac::builder()
        .catalogue(catalogue(serves_prices))
        .amqp(address("BROKER_URL", "amqp://guest:guest@localhost:5672/%2f"))
        .result_backend(address("RESULT_URL", "redis://localhost:6379/0"))
        .start()
        .await?;
    Ok(celeriac)
}

async fn work() -> Result<(), Box<dyn std::error::Error>> {
    let celeriac = start(true).await?;
    println!("serving prices");
    celeriac.run_until_signal().await?;
    Ok(())
}

/// `shoes=2 laces=1`: each price is a task of Rust's, their total one of Python's.
async fn order(items: impl Iterator<Item = String>) -> Result<(), Box<dyn std::error::Error>> {
    let mut prices = Vec::new();
    for item in items {
        let (article, count) = item.split_once('=').ok_or(format!("`{item}` is not article=count"))?;
        prices.push(price::s(article.to_owned(), count.parse()?));
    }
    let celeriac = start(false).await?;
    let total = chord(prices, signature("tasks.total").returns::<u32>());
    let total = total.send(celeriac.client()).await?;
    println!("total {}", total.get(Duration::from_secs(60)).await?);
    celeriac.shutdown().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("worker") => work().await,
        Some("order") => order(arguments).await,
        _ => Err("say `worker`, or `order article=count ...`".into()),
    }
}

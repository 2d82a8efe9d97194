//! What the console shows.

use std::sync::{Condvar, Mutex};

use celeriac::{Context, TaskError, serial_task, task};
use tokio::sync::Semaphore;

/// What nobody ever gets: a body that asks for it runs until it is told to end.
static NOTHING: Semaphore = Semaphore::const_new(0);

#[task(name = "shop.mail", queue = "mail")]
pub async fn mail(to: String, body: String) -> usize {
    to.len() + body.len()
}

/// Fails for good, unless it is asked to be good.
#[task(name = "shop.fails", queue = "mail", max_retries = 0)]
pub async fn fails(text: String) -> Result<String, TaskError> {
    if text == "good" { Ok(text) } else { Err(TaskError::permanent(text)) }
}

/// Logs a line, and fails for good.
#[task(name = "shop.logs", queue = "mail", max_retries = 0)]
pub async fn logs(text: String) -> Result<(), TaskError> {
    tracing::warn!("{text}");
    Err(TaskError::permanent("it has said all"))
}

/// Logs so many lines, and runs until it is told to end.
#[task(name = "shop.talks", queue = "slow")]
pub async fn talks(lines: u64) -> Result<(), TaskError> {
    for line in 0..lines {
        tracing::info!("line {line} <b>");
    }
    NOTHING.acquire().await.map_err(TaskError::from_display)?.forget();
    Ok(())
}

/// Fails for good if it is bad. It is searched for by its number.
#[task(name = "shop.form", queue = "mail", max_retries = 0, search = ["form_id"])]
pub async fn form(form_id: u64, title: String) -> Result<u64, TaskError> {
    if title == "bad" { Err(TaskError::permanent(title)) } else { Ok(form_id) }
}

#[task(name = "shop.rejects", queue = "mail", max_retries = 0)]
pub async fn rejects(text: String) -> Result<(), TaskError> {
    Err(TaskError::reject(text))
}

#[task(name = "shop.waits", queue = "slow")]
pub async fn waits(name: String) -> Result<String, TaskError> {
    NOTHING.acquire().await.map_err(TaskError::from_display)?.forget();
    Ok(name)
}

/// Says what it does, and runs until it is told to end.
#[task(name = "shop.notes", queue = "slow")]
pub async fn notes(ctx: Context, text: String) -> Result<(), TaskError> {
    ctx.progress_note(&text);
    NOTHING.acquire().await.map_err(TaskError::from_display)?.forget();
    Ok(())
}

#[serial_task(name = "shop.import", key = "{domain}", queue = "keyed")]
pub async fn import(domain: String) -> String {
    domain
}

/// Fails for good, and blocks its lane.
#[serial_task(
    name = "shop.books",
    key = "{account}",
    queue = "slow",
    max_retries = 0,
    after_failure = "block"
)]
pub async fn books(account: String) -> Result<(), TaskError> {
    Err(TaskError::permanent(format!("{account} is closed")))
}

/// A task of a tenant.
#[task(name = "shop.export", queue = "mail", tenant = "{domain}")]
pub async fn export(domain: String, form: u64) -> u64 {
    form + domain.len() as u64
}

/// Fails for good if the amount is zero.
#[task(name = "shop.charge", queue = "mail", tenant = "{domain}", max_retries = 0)]
pub async fn charge(domain: String, amount: u64) -> Result<u64, TaskError> {
    if amount == 0 { Err(TaskError::permanent(format!("{domain} owes nothing"))) } else { Ok(amount) }
}

/// One error of a gateway opens its breaker for an hour.
#[task(
    name = "shop.ring",
    queue = "slow",
    max_retries = 0,
    max_running = 3,
    limit_key = "{gateway}",
    breaker(errors = 1, of = 1, pause = "1h", longest = "1h")
)]
pub async fn ring(gateway: String, answers: bool) -> Result<usize, TaskError> {
    if answers { Ok(gateway.len()) } else { Err(TaskError::permanent("nobody answers")) }
}

static OPEN: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Does what an async body must not do: it keeps the event loop of its queue from everything else until it is
/// [let go](let_go).
#[task(name = "shop.blocks", queue = "slow")]
pub async fn blocks() {
    let (open, told) = &OPEN;
    drop(told.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
}

pub fn let_go() {
    let (open, told) = &OPEN;
    *open.lock().unwrap() = true;
    told.notify_all();
}

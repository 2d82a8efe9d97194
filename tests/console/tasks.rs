//! What the console shows.

use celeriac::{TaskError, serial_task, task};
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

#[task(name = "shop.rejects", queue = "mail", max_retries = 0)]
pub async fn rejects(text: String) -> Result<(), TaskError> {
    Err(TaskError::reject(text))
}

#[task(name = "shop.waits", queue = "slow")]
pub async fn waits(name: String) -> Result<String, TaskError> {
    NOTHING.acquire().await.map_err(TaskError::from_display)?.forget();
    Ok(name)
}

#[serial_task(name = "shop.import", key = "{domain}", queue = "keyed")]
pub async fn import(domain: String) -> String {
    domain
}

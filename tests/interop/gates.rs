//! How a test sees that a task runs, and holds it there; the Rust side of `python/gates.py`.

use std::time::Duration;

use celeriac::TaskError;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::fleet::gates_url;

/// As the Python side has it.
const PATIENCE: f64 = 120.0;

/// A connection of its own for each call that waits: a wait holds up all that share it.
async fn connection() -> Result<MultiplexedConnection, redis::RedisError> {
    static CLIENT: OnceCell<redis::Client> = OnceCell::const_new();
    let client = CLIENT.get_or_try_init(async || redis::Client::open(gates_url())).await?;
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Says that something is here, and waits until it may go on.
pub async fn hold(key: &str) -> Result<(), TaskError> {
    let mut redis = connection().await?;
    let () = redis.rpush(format!("here:{key}"), 1).await?;
    let opened: Option<(String, u8)> = redis.blpop(format!("go:{key}"), PATIENCE).await?;
    opened.map(drop).ok_or_else(|| TaskError::permanent(format!("nobody opened {key} in {PATIENCE} s")))
}

/// Waits until something is held.
pub async fn await_held(key: &str) {
    let mut redis = connection().await.unwrap();
    let here: Option<(String, u8)> = redis.blpop(format!("here:{key}"), PATIENCE).await.unwrap();
    here.unwrap_or_else(|| panic!("nothing came to {key} in {PATIENCE} s"));
}

/// Lets what is held, or comes next, go on.
pub async fn release(key: &str) {
    let () = connection().await.unwrap().rpush(format!("go:{key}"), 1).await.unwrap();
}

/// Writes down that something happened.
pub async fn note(key: &str, value: &Value) -> Result<(), TaskError> {
    let () = connection().await?.rpush(format!("note:{key}"), value.to_string()).await?;
    Ok(())
}

/// The oldest thing that was written down and not read yet; waits for it.
pub async fn next_note(key: &str) -> Value {
    let mut redis = connection().await.unwrap();
    let noted: Option<(String, String)> = redis.blpop(format!("note:{key}"), PATIENCE).await.unwrap();
    let (_, text) = noted.unwrap_or_else(|| panic!("nothing was noted in {key} in {PATIENCE} s"));
    serde_json::from_str(&text).unwrap()
}

/// What was written down and not read yet.
pub async fn noted(key: &str) -> Vec<Value> {
    let mut redis = connection().await.unwrap();
    let texts: Vec<String> = redis.lrange(format!("note:{key}"), 0, -1).await.unwrap();
    texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// Waits for a condition that nothing signals.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let start = std::time::Instant::now();
    while !condition().await {
        assert!(start.elapsed() < Duration::from_secs(120), "not in two minutes: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

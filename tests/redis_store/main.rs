//! The Redis store beside Python's: keys and documents, each other's results, chords that are sent again, faults, and a
//! runtime that uses it.

use celeriac_test_support as services;

mod chords;
mod documents;
mod faults;
mod limits;
mod python;
mod revocations;
mod runtime;
mod sentinel;

use std::time::Duration;

use celeriac::core::Timestamp;
use celeriac::store::conformance::record;
use celeriac::store::{RedisOptions, RedisStore};
use celeriac::task::{TaskId, TaskResult};
use services::{Redis, blocking};

const PATIENCE: Duration = Duration::from_secs(120);
/// When records of the conformance suite were finished.
const NOW: Timestamp = Timestamp::from_millis(4_102_444_800_000);

async fn connect(url: &str) -> RedisStore {
    let mut options = RedisOptions::default();
    options.patience = PATIENCE;
    RedisStore::connect(url, options).await.unwrap()
}

/// The server that most tests share, with a store on its database 2.
async fn shared() -> (Redis, RedisStore) {
    let server = blocking(Redis::shared).await;
    let store = connect(&server.url_of(2)).await;
    (server, store)
}

/// Talks to the server without the store.
async fn raw(server: &Redis) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(server.url_of(2)).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

fn new_record(result: &str) -> TaskResult {
    record(TaskId::new().as_str(), result)
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

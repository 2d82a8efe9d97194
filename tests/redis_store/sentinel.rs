//! A Redis that is found through a sentinel.

use celeriac::store::{Store, StoreError};
use celeriac::task::{PermitAnswer, Want};

use super::services::{Sentinel, await_condition};
use super::*;

/// A master, its replica and the sentinel that watches both.
fn watched() -> (Redis, Redis, Sentinel) {
    let master = services::RedisOptions::new().setting("repl-diskless-sync-delay", "0").start();
    let replica = services::RedisOptions::new().replica_of(&master).start();
    let sentinel = Sentinel::start("mymaster", &master);
    (master, replica, sentinel)
}

/// Waits until the record is in database 2 of `server`.
fn await_record(server: &Redis, id: &TaskId) {
    let key = format!("celery-task-meta-{id}");
    await_condition("the record is there", || match server.cli(&["-n", "2", "EXISTS", &key]).as_str() {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_followed() {
    let (master, replica, sentinel) = blocking(watched).await;
    let mut options = RedisOptions::default();
    options.patience = PATIENCE;
    let store = RedisStore::connect(&sentinel.url_of(2), options).await.unwrap();
    let (first, second) = (new_record("1"), new_record("2"));
    assert_eq!(store.put(first.clone()).await, Ok(true));
    let (server, id) = (replica.clone(), first.id.clone());
    blocking(move || await_record(&server, &id)).await;
    let waiting = tokio::spawn({
        let (store, id) = (store.clone(), second.id.clone());
        async move { store.wait(&id).await }
    });
    let killed = master.clone();
    blocking(move || killed.kill()).await;
    // Calls wait until the replica is promoted.
    assert_eq!(in_time("a write", store.put(second.clone())).await, Ok(true));
    assert_eq!(store.get(&first.id, NOW).await, Ok(Some(first)));
    assert_eq!(in_time("the wait", waiting).await.unwrap(), Ok(second.clone()));
    let wants = [Want { name: new_record("permit").id.to_string(), limit: 1 }];
    let permit = store.permits().unwrap().acquire(&wants, "holder").await;
    assert!(matches!(permit, Ok(PermitAnswer::Granted { .. })), "{permit:?}");
    blocking(move || {
        assert!(replica.cli(&["ROLE"]).starts_with("master"));
        await_record(&replica, &second.id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_no_sentinel_knows_is_an_error_that_says_so() {
    let (_master, _replica, sentinel) = blocking(watched).await;
    let mut options = RedisOptions::default();
    options.master_name = Some("nobody".to_owned());
    let error = RedisStore::connect(&sentinel.url_of(2), options).await.err().unwrap();
    assert!(matches!(error, StoreError::Io(_)));
    let text = error.to_string();
    assert!(text.contains("know no master of this name") && text.contains("sentinel monitor"), "{text}");
}

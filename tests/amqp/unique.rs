//! Dedupe windows on RabbitMQ: Redis keeps them, or nobody does.

use std::time::Duration;

use celeriac::store::RedisOptions;
use celeriac::task::Task as _;
use celeriac::{Celeriac, EnqueueError, TaskError, TaskId, task};

use crate::kit::{Gate, LONG, until};
use crate::rabbit::{builder, runtime, vhost};
use crate::services::{Proxy, Redis, blocking};

#[task(unique_for = "1h", unique_key = "{domain}", queue = "io", max_retries = 0)]
async fn export(domain: String, gate: String, fail: bool) -> Result<(), TaskError> {
    Gate::named(&gate).pass().await;
    let _ = domain;
    if fail { Err(TaskError::failure(["boom"])) } else { Ok(()) }
}

#[task(unique_for = "1h", unique_until = "start", queue = "io")]
async fn restore(user: String, gate: String) {
    let _ = user;
    Gate::named(&gate).pass().await;
}

async fn over_redis(url: &str, prefix: &str, redis: &str) -> Celeriac {
    let mut options = RedisOptions::default();
    options.global_keyprefix = Some(prefix.to_owned());
    options.patience = Duration::from_millis(500);
    builder(url).redis(redis, options).start().await.unwrap()
}

/// Of two processes one is the first, and whichever of them runs it ends the window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_processes_share_windows() {
    let (url, prefix) = (vhost().await, TaskId::new().to_string());
    let redis = blocking(Redis::shared).await.url_of(5);
    let (one, two) = (over_redis(&url, &prefix, &redis).await, over_redis(&url, &prefix, &redis).await);
    for fail in [false, true] {
        let gate = Gate::new();
        let call =
            |celeriac: &Celeriac| export::s("demo".into(), gate.name.clone(), fail).send(celeriac.client());
        assert_eq!(one.unique(export::Task::NAME, "demo").await.unwrap(), None);
        let (first, second) = (call(&one).await.unwrap(), call(&two).await.unwrap());
        assert!(!first.receipt().joined && second.receipt().joined && first.id() == second.id());
        gate.entered(1).await;
        assert_eq!(two.unique(export::Task::NAME, "demo").await.unwrap().as_ref(), Some(first.id()));
        gate.open();
        assert_eq!(second.get(LONG).await.is_err(), fail);
        let third = call(&two).await.unwrap();
        assert!(!third.receipt().joined, "whoever reads the result finds the window over");
        let _ = third.get(LONG).await;
    }
    let gate = Gate::new();
    let call = || restore::s("7".into(), gate.name.clone()).send(one.client());
    let first = call().await.unwrap();
    gate.entered(1).await;
    let second = call().await.unwrap();
    assert!(!second.receipt().joined, "a body that has started may have read what is changed now");
    gate.open();
    assert_eq!((first.get(LONG).await, second.get(LONG).await), (Ok(()), Ok(())));

    // Revoked while it waits where nobody can look, it is no first.
    for celeriac in [&one, &two] {
        celeriac.pause("io").await.unwrap();
    }
    let call = || export::s("revoked".into(), gate.name.clone(), false).send(two.client());
    let first = call().await.unwrap();
    assert!(call().await.unwrap().receipt().joined);
    assert_eq!(first.revoke(false).await, Ok(true));
    assert!(!call().await.unwrap().receipt().joined);
    for celeriac in [one, two] {
        celeriac.shutdown().await.unwrap();
    }
}

/// Nothing is enqueued of which it is not known whether it is a duplicate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_it_is_an_error() {
    let gate = Gate::new();
    let celeriac = runtime(&vhost().await).await;
    let call = |celeriac: &Celeriac| export::s("d".into(), gate.name.clone(), false).send(celeriac.client());
    let error = call(&celeriac).await.unwrap_err();
    assert!(matches!(error, EnqueueError::NoWindows { .. }), "{error}");
    assert!(error.to_string().contains("keep results in Redis"), "{error}");
    assert!(celeriac.unique(export::Task::NAME, "d").await.is_err());
    celeriac.shutdown().await.unwrap();

    let redis = blocking(Redis::shared).await;
    let proxy = blocking(move || Proxy::start(redis.address())).await;
    let through = format!("redis://127.0.0.1:{}/5", proxy.address().port());
    let (url, prefix) = (vhost().await, TaskId::new().to_string());
    let celeriac = over_redis(&url, &prefix, &through).await;
    proxy.refuse();
    proxy.cut();
    let error = call(&celeriac).await.unwrap_err();
    assert!(matches!(error, EnqueueError::Window { .. }), "{error}");
    proxy.resume();
    gate.open();
    until("Redis is there again", async || call(&celeriac).await.is_ok()).await;
    celeriac.shutdown().await.unwrap();
}

//! Unique windows on RabbitMQ: Redis keeps them, or nobody does.

use std::time::Duration;

use celeriac::broker::amqp::AmqpOptions;
use celeriac::store::{RedisOptions, RedisStore, Store, WindowHold};
use celeriac::task::{Task as _, UniqueKey};
use celeriac::{Celeriac, Context, EnqueueError, TaskError, TaskId, task};

use crate::kit::{self, Gate, LONG, until};
use crate::rabbit::{builder, impatient, runtime, vhost};
use crate::services::{Proxy, RabbitMq, Redis, blocking};

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

pub async fn over_redis(url: &str, prefix: &str, redis: &str) -> Celeriac {
    let mut options = RedisOptions::default();
    options.global_keyprefix = Some(prefix.to_owned());
    options.patience = Duration::from_millis(500);
    builder(url).redis(redis, options).start().await.unwrap()
}

/// RabbitMQ behind a proxy that is shut: calls wait for it.
async fn cut_off(options: AmqpOptions) -> (Celeriac, Proxy, RedisStore) {
    let (url, prefix) = (vhost().await, TaskId::new().to_string());
    let redis = blocking(Redis::shared).await.url_of(5);
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let mut of_redis = RedisOptions::default();
    of_redis.global_keyprefix = Some(prefix);
    let store = RedisStore::connect(&redis, of_redis.clone()).await.unwrap();
    let started = builder(&proxy.url(&url)).amqp_options(options).redis(redis, of_redis).start().await;
    let celeriac = started.unwrap();
    // All is declared and open.
    kit::add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await.unwrap();
    proxy.refuse();
    proxy.cut();
    (celeriac, proxy, store)
}

/// So long callers have patience here.
const A_MOMENT: Duration = Duration::from_millis(300);

/// The caller gave up while RabbitMQ was away. When it is back it gets the task all the same, and who asked meanwhile
/// joins that: there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_a_call_that_was_given_up_joins_a_task() {
    let (celeriac, proxy, _) = cut_off(AmqpOptions::default()).await;
    let gate = Gate::new();
    let call = || export::s("demo".into(), gate.name.clone(), false).send(celeriac.client());
    assert!(tokio::time::timeout(A_MOMENT, call()).await.is_err(), "it waits for RabbitMQ");
    assert_eq!(celeriac.unique(export::Task::NAME, "demo").await.unwrap(), None, "there is no task yet");
    let second = call();
    let back = async { proxy.resume() };
    let (second, ()) = tokio::join!(second, back);
    let second = second.unwrap();
    assert!(second.receipt().joined);
    gate.open();
    assert_eq!(second.get(LONG).await, Ok(()));
    assert_eq!(gate.gauge.all(), 1);
    assert!(!call().await.unwrap().receipt().joined, "its window is over with it");
    celeriac.shutdown().await.unwrap();
}

/// RabbitMQ does not come back in time: nobody is told of a task that there is not, and nothing is in the way afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_comes_to_nothing_leaves_no_window() {
    let (celeriac, proxy, store) = cut_off(impatient()).await;
    let gate = Gate::new();
    gate.open();
    let call = || export::s("demo".into(), gate.name.clone(), false).send(celeriac.client());
    assert!(tokio::time::timeout(A_MOMENT, call()).await.is_err(), "it waits for RabbitMQ");
    let (second, third) = tokio::join!(call(), call());
    for asked in [second, third] {
        assert!(asked.is_err(), "it is no task, and has joined none: {asked:?}");
    }
    proxy.resume();
    until("RabbitMQ is there again", async || match call().await {
        Ok(task) => !task.receipt().joined && task.get(LONG).await == Ok(()),
        Err(_) => false,
    })
    .await;

    // A process died between its window and its message.
    let windows = store.unique_windows().unwrap();
    let (key, ghost) = (UniqueKey::new(export::Task::NAME, "demo"), TaskId::new());
    assert_eq!(windows.acquire(&key, &ghost, A_MOMENT).await, Ok(WindowHold::Begun));
    let task = call().await.unwrap();
    assert!(!task.receipt().joined && *task.id() != ghost);
    assert_eq!(task.get(LONG).await, Ok(()));
    celeriac.shutdown().await.unwrap();
}

#[task(queue = "io", max_retries = 0)]
async fn hands_over(ctx: Context, lock: String, gate: String) -> Result<bool, TaskError> {
    let permit = ctx.lock(lock.clone()).acquire().await?;
    let joins =
        export::s(gate.clone(), gate, false).hand_over_within(permit, 10 * LONG).send(client()).await?;
    Ok(joins.receipt().joined)
}

#[task(queue = "io", max_retries = 0)]
async fn is_free(ctx: Context, lock: String) -> Result<bool, TaskError> {
    Ok(ctx.lock(lock).try_acquire().await?.is_some())
}

static CLIENT: std::sync::OnceLock<std::sync::Arc<dyn celeriac::task::Client>> = std::sync::OnceLock::new();

fn client() -> std::sync::Arc<dyn celeriac::task::Client> {
    CLIENT.get().unwrap().clone()
}

/// A permit that was handed over to a call that has joined another one is free: nobody would come for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_handed_over_to_no_task_is_free() {
    let (url, prefix) = (vhost().await, TaskId::new().to_string());
    let redis = blocking(Redis::shared).await.url_of(5);
    let celeriac = over_redis(&url, &prefix, &redis).await;
    CLIENT.set(celeriac.client()).ok().unwrap();
    let (gate, lock) = (Gate::new(), TaskId::new().to_string());
    let first = export::s(gate.name.clone(), gate.name.clone(), false).send(client()).await.unwrap();
    gate.entered(1).await;
    let joined = hands_over::s(lock.clone(), gate.name.clone()).send(client()).await.unwrap();
    assert_eq!(joined.get(LONG).await, Ok(true));
    let is_free = async || is_free::s(lock.clone()).send(client()).await.unwrap().get(LONG).await.unwrap();
    until("the permit is free", is_free).await;
    gate.open();
    first.get(LONG).await.unwrap();
    celeriac.shutdown().await.unwrap();
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

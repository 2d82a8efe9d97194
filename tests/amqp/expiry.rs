//! What expires while it waits: whoever waits for it hears so, and what it held is free.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use celeriac::task::canvas::{chord, group};
use celeriac::task::{Client, GetError, PermitError, Task as _, TaskResult};
use celeriac::{Celeriac, Context, State, TaskError, TaskId, serial_task, task};

use crate::kit::{Gate, LONG, add, hold, record, until};
use crate::rabbit::{Peer, vhost};
use crate::services::{Redis, blocking};
use crate::unique::over_redis;

/// How long the tasks may wait for the one worker, which waits longer at its gate.
const SOON: Duration = Duration::from_millis(100);

#[task(unique_for = "1h", unique_key = "{name}", queue = "one")]
async fn report(name: String) -> String {
    name
}

#[serial_task(key = "{name}", queue = "one")]
async fn import(name: String) -> String {
    name
}

#[task(queue = "io")]
async fn total(parts: Vec<i64>) -> i64 {
    parts.into_iter().sum()
}

/// Of the one test whose bodies send.
static CLIENT: OnceLock<Arc<dyn Client>> = OnceLock::new();

/// Takes a lock, and hands it over to a task that comes too late for it.
#[task(queue = "io", max_retries = 0)]
async fn hands_over(ctx: Context, lock: String) -> Result<(), TaskError> {
    let permit = ctx.lock(lock).acquire().await?;
    let late =
        add::s(1, 1).queue("one").expires(SOON).ignore_result(true).hand_over_within(permit, 10 * LONG);
    late.send(CLIENT.get().expect("it is set").clone()).await?;
    Ok(())
}

#[task(queue = "io", max_retries = 0)]
async fn is_free(ctx: Context, lock: String) -> Result<bool, PermitError> {
    Ok(ctx.lock(lock).try_acquire().await?.is_some())
}

fn is_expired(record: &TaskResult) -> bool {
    record.state == State::Revoked && record.errors.iter().any(|error| error.contains("expired"))
}

fn ended(error: GetError) -> TaskResult {
    match error {
        GetError::Ended(record) => *record,
        other => panic!("{other}"),
    }
}

/// The one worker of `one` is busy, and so is the place in its prefetch: what is sent there now waits in RabbitMQ.
async fn busy(celeriac: &Celeriac, peer: &Peer) -> Arc<Gate> {
    let gate = Gate::new();
    hold::s(gate.name.clone()).queue("one").send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    add::s(0, 0).queue("one").send(celeriac.client()).await.unwrap();
    until("it is fetched", async || peer.ready("one").await == 0).await;
    gate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_what_has_expired_hears_so() {
    let (url, prefix) = (vhost().await, TaskId::new().to_string());
    let redis = blocking(Redis::shared).await.url_of(5);
    let celeriac = over_redis(&url, &prefix, &redis).await;
    let client = || celeriac.client();
    CLIENT.set(client()).ok().expect("it is the only one");
    let gate = busy(&celeriac, &Peer::connect(&url).await).await;

    let late = || add::s(1, 1).queue("one").expires(SOON);
    let alone = late().send(client()).await.unwrap();
    let delayed = late().countdown(Duration::from_millis(1100)).send(client()).await.unwrap();
    let chain = late().then(add::p(1)).then(add::p(1)).send(client()).await.unwrap();
    let step = add::s(1, 1).then(add::p(1).queue("one").expires(SOON)).then(add::p(1));
    let step = step.send(client()).await.unwrap();
    let members = group([late().then(add::p(1)), add::s(2, 2).then(add::p(1))]).send(client()).await.unwrap();
    let chord = chord([late(), add::s(2, 2)], total::p()).send(client()).await.unwrap();
    let first = report::s("cases".into()).expires(SOON).send(client()).await.unwrap();
    let joined = report::s("cases".into()).send(client()).await.unwrap();
    assert!(joined.receipt().joined);
    let in_lane = import::s("demo".into()).expires(SOON).send(client()).await.unwrap();
    let behind = import::s("demo".into()).send(client()).await.unwrap();
    let lock = TaskId::new().to_string();
    hands_over::s(lock.clone()).send(client()).await.unwrap().get(LONG).await.unwrap();
    let is_free = async || is_free::s(lock.clone()).send(client()).await.unwrap().get(LONG).await.unwrap();
    assert!(!is_free().await, "it is the late one's");

    let sent = Instant::now();
    until("all of them have expired", async || sent.elapsed() > 2 * SOON).await;
    gate.open();
    for late in [&alone, &delayed] {
        assert!(is_expired(&record(late).await));
    }
    for last in [chain.get(LONG).await, step.get(LONG).await] {
        let record = ended(last.unwrap_err());
        assert!(is_expired(&record), "what was to follow never runs: {record:?}");
    }
    assert!(is_expired(&ended(members.members()[0].get(LONG).await.unwrap_err())));
    assert_eq!(members.members()[1].get(LONG).await, Ok(5.into()));
    assert!(members.get(LONG).await.is_err());
    let body = ended(chord.get(LONG).await.unwrap_err());
    assert_eq!(body.error_type.as_deref(), Some("ChordError"), "{body:?}");
    // Its window is open, and who had joined it hears the same.
    assert!(is_expired(&record(&first).await) && is_expired(&record(&joined).await));
    assert_eq!(celeriac.unique(report::Task::NAME, "cases").await.unwrap(), None);
    let again = report::s("cases".into()).send(client()).await.unwrap();
    assert!(!again.receipt().joined);
    assert_eq!(again.get(LONG).await.as_deref(), Ok("cases"));
    // The next one in its lane goes on.
    assert!(is_expired(&record(&in_lane).await));
    assert_eq!(behind.get(LONG).await.as_deref(), Ok("demo"));
    until("what was handed over to it is free", is_free).await;
    celeriac.shutdown().await.unwrap();
}

/// What nobody waits for need not be fetched to be thrown away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_expires_in_rabbitmq() {
    let (url, prefix) = (vhost().await, TaskId::new().to_string());
    let redis = blocking(Redis::shared).await.url_of(5);
    let celeriac = over_redis(&url, &prefix, &redis).await;
    let peer = Peer::connect(&url).await;
    let gate = busy(&celeriac, &peer).await;
    add::s(1, 1).queue("one").expires(SOON).ignore_result(true).send(celeriac.client()).await.unwrap();
    until("it is gone", async || peer.ready("one").await == 0).await;
    let kept = add::s(1, 1).queue("one").expires(SOON).send(celeriac.client()).await.unwrap();
    let sent = Instant::now();
    until("it has expired", async || sent.elapsed() > 2 * SOON).await;
    assert_eq!(peer.ready("one").await, 1);
    gate.open();
    assert!(is_expired(&record(&kept).await));
    celeriac.shutdown().await.unwrap();
}

//! Revocations that a process hears of, and does not have to ask for.

use std::sync::Arc;
use std::time::SystemTime;

use celeriac::store::Store;

use super::services::Proxy;
use super::*;

/// Until when the tests' revocations last.
const LATER: Timestamp = NOW;

fn known(store: &RedisStore, id: &TaskId) -> Option<bool> {
    store.is_known_revoked(id, Timestamp::from(SystemTime::now()))
}

/// Comes back when the store says this of a task without asking.
async fn says(store: &RedisStore, id: &TaskId, answer: Option<bool>) {
    in_time("the answer", async {
        while known(store, id) != answer {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn on(proxy: &Arc<Proxy>, act: fn(&Proxy)) {
    let proxy = Arc::clone(proxy);
    blocking(move || act(&proxy)).await;
}

/// A server of the test's own, a store behind a proxy, and one beside it.
async fn behind_a_proxy() -> (Redis, Arc<Proxy>, RedisStore, RedisStore) {
    let server = blocking(Redis::start).await;
    let address = server.address();
    let proxy = Arc::new(blocking(move || Proxy::start(address)).await);
    let store = connect(&proxy.url(&server.url_of(2))).await;
    let other = connect(&server.url_of(2)).await;
    (server, proxy, store, other)
}

#[tokio::test]
async fn what_others_revoke_is_known_without_asking() {
    let (server, store) = shared().await;
    let other = connect(&server.url_of(2)).await;
    let [before, after, own, never] = [(); 4].map(|()| TaskId::new());
    assert_eq!(other.revoke(&before, LATER).await, Ok(()));
    says(&store, &before, Some(true)).await;
    assert_eq!((known(&store, &after), known(&store, &never)), (Some(false), Some(false)));
    assert_eq!(other.revoke(&after, LATER).await, Ok(()));
    says(&store, &after, Some(true)).await;
    assert_eq!(store.revoke(&own, LATER).await, Ok(()));
    assert_eq!(known(&store, &own), Some(true), "a process knows its own at once");
    assert_eq!(known(&store, &"an id of the program".into()), Some(false));
    assert_eq!(known(&store, &never), Some(false));
}

/// Channels belong to the whole server, and databases do not share tasks.
#[tokio::test]
async fn another_database_has_revocations_of_its_own() {
    let (server, store) = shared().await;
    let elsewhere = connect(&server.url_of(3)).await;
    let [id, last] = [(); 2].map(|()| TaskId::new());
    says(&store, &id, Some(false)).await;
    assert_eq!(elsewhere.revoke(&id, LATER).await, Ok(()));
    let beside = connect(&server.url_of(2)).await;
    assert_eq!(beside.revoke(&last, LATER).await, Ok(()));
    says(&store, &last, Some(true)).await;
    assert_eq!(known(&store, &id), Some(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_while_the_subscription_was_lost_is_known_after_it() {
    let (_server, proxy, store, other) = behind_a_proxy().await;
    let [heard, missed, never] = [(); 3].map(|()| TaskId::new());
    says(&store, &never, Some(false)).await;
    assert_eq!(other.revoke(&heard, LATER).await, Ok(()));
    says(&store, &heard, Some(true)).await;
    on(&proxy, Proxy::refuse).await;
    says(&store, &never, None).await;
    assert_eq!(other.revoke(&missed, LATER).await, Ok(()));
    assert_eq!((known(&store, &missed), known(&store, &heard)), (None, Some(true)));
    on(&proxy, Proxy::resume).await;
    says(&store, &missed, Some(true)).await;
    assert_eq!(known(&store, &never), Some(false));
}

/// A half-open connection looks as one on which nobody revokes anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_nobody_confirms_is_not_relied_on() {
    let (_server, proxy, store, other) = behind_a_proxy().await;
    let [missed, never] = [(); 2].map(|()| TaskId::new());
    says(&store, &never, Some(false)).await;
    on(&proxy, Proxy::swallow).await;
    says(&store, &never, None).await;
    assert_eq!(other.revoke(&missed, LATER).await, Ok(()));
    assert_eq!(known(&store, &missed), None);
    on(&proxy, Proxy::resume).await;
    says(&store, &missed, Some(true)).await;
    says(&store, &never, Some(false)).await;
}

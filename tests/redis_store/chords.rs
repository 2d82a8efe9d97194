//! Chords that a client of Celery's sends again under the same ids. It opens the chord late: it sends all members but
//! the last, and then deletes the mark that the chord is done and stores the size. Meanwhile members may end.

use celeriac::store::{ChordJoin, ChordPart, ChordStore, RedisOptions, RedisStore, StoreError};
use celeriac::task::State;
use redis::AsyncCommands;
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;

const CLAIM: &str = "celery-taskset-meta-g.c";
const SIZE: &str = "celery-taskset-meta-g.s";

/// A server that serves this test alone, and a store on it whose claims outlive the test.
async fn alone() -> (Redis, RedisStore) {
    let server = blocking(Redis::start).await;
    let mut options = RedisOptions::default();
    options.chord_lease = Duration::from_secs(3600);
    let store = RedisStore::connect(&server.url_of(2), options).await.unwrap();
    (server, store)
}

fn part(n: u32) -> ChordPart {
    ChordPart {
        group: "g".into(),
        id: format!("m{n}").into(),
        index: Some(n),
        state: State::Success,
        value: json!(n).into(),
    }
}

/// The first sending up to its last member, who is to send the body: the token of the claim.
async fn sent_once(store: &RedisStore) -> String {
    assert_eq!(store.open_chord("g", 2).await, Ok(()));
    assert_eq!(store.join_chord(part(0)).await, Ok(ChordJoin::Waiting));
    let Ok(ChordJoin::Complete { token, .. }) = store.join_chord(part(1)).await else {
        panic!("both are there")
    };
    token
}

/// Celery's `set_chord_size`.
async fn open_as_celery_does(server: &Redis) {
    let mut raw = raw(server).await;
    let _: () = raw.del(CLAIM).await.unwrap();
    let _: () = raw.set(SIZE, 2).await.unwrap();
}

/// How many scripts the server has run.
fn scripts_run(server: &Redis) -> u64 {
    let figures = server.cli(&["INFO", "commandstats"]);
    let calls = figures.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    calls.and_then(|calls| calls.split(',').next()?.parse().ok()).unwrap_or_default()
}

/// Joins with the first member of the next sending. Comes back when Redis has answered at least once.
async fn join_early(server: &Redis, store: &RedisStore) -> JoinHandle<Result<ChordJoin, StoreError>> {
    let asked = server.clone();
    let before = blocking(move || scripts_run(&asked)).await;
    let joining = tokio::spawn({
        let store = store.clone();
        async move { store.join_chord(part(0)).await }
    });
    let asked = server.clone();
    blocking(move || {
        services::await_condition("the member asks", || match scripts_run(&asked) {
            run if run > before => Ok(()),
            run => Err(format!("{run} scripts have run")),
        });
    })
    .await;
    joining
}

async fn both_count(store: &RedisStore, early: JoinHandle<Result<ChordJoin, StoreError>>) {
    let early = in_time("the early member is counted", early).await.unwrap();
    assert_eq!(early, Ok(ChordJoin::Waiting));
    let last = store.join_chord(part(1)).await;
    let Ok(ChordJoin::Complete { parts, .. }) = last else { panic!("both were counted: {last:?}") };
    assert_eq!(parts, [part(0), part(1)]);
}

/// The member ends after the first sending was closed, and before the size of the second is stated.
#[tokio::test]
async fn a_member_that_ends_before_its_chord_is_opened_again_counts() {
    let (server, store) = alone().await;
    let token = sent_once(&store).await;
    assert_eq!(store.close_chord("g", &token).await, Ok(()));
    let early = join_early(&server, &store).await;
    open_as_celery_does(&server).await;
    both_count(&store, early).await;
}

/// The member ends while the body of the first sending is being sent. It does not wait until that claim runs out.
#[tokio::test]
async fn a_member_that_ends_while_its_chord_is_being_closed_counts_in_the_next_sending() {
    let (server, store) = alone().await;
    let token = sent_once(&store).await;
    let early = join_early(&server, &store).await;
    assert_eq!(store.close_chord("g", &token).await, Ok(()));
    open_as_celery_does(&server).await;
    both_count(&store, early).await;
}

/// A late duplicate of a member, whose chord nobody sends again, is told so, and leaves nothing behind.
#[tokio::test]
async fn a_duplicate_of_a_member_counts_in_no_chord() {
    let (server, store) = alone().await;
    let token = sent_once(&store).await;
    assert_eq!(store.close_chord("g", &token).await, Ok(()));
    assert_eq!(in_time("an answer", store.join_chord(part(0))).await, Ok(ChordJoin::Waiting));
    let keys: Vec<String> = raw(&server).await.keys("*").await.unwrap();
    assert_eq!(keys, [CLAIM]);
}

//! Each tick exactly once: while all is well, through restarts, and on a store that refuses for a while.

use std::time::Duration;

use celeriac::app::Builder;
use celeriac::core::calendar::{Misfire, Schedule};

use crate::kit::{
    LONG, assert_each_once, builder, each, embedded, entry, io, now, ran, status, tick, until, until_ran,
};

const INTERVAL: Duration = Duration::from_millis(20);

async fn fires(key: &str, builder: Builder) {
    let begin = now();
    let celeriac = builder.periodic(each(key, INTERVAL)).start().await.unwrap();
    until_ran(key, 50).await;
    let end = status(&celeriac, key).await.last;
    until("all that was published ran", async || {
        let queue = io(&celeriac).await;
        queue.ready + queue.scheduled == 0 && queue.running == 0
    })
    .await;
    assert_each_once(key, INTERVAL, begin, end);
    // The last ones are told, the newest first.
    let told = status(&celeriac, key).await;
    assert_eq!((told.past.len(), told.past[0].at), (20, told.last), "{told:?}");
    assert_eq!(told.past[0].id, told.last_id);
    let in_order = told.past.is_sorted_by(|newer, older| newer.at > older.at);
    assert!(in_order && told.past.iter().all(|tick| tick.id.is_some()), "{told:?}");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tick_once_in_memory() {
    fires("memory", builder().in_memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tick_once_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    fires("disk", embedded(dir.path())).await;
}

/// Ten lives of a program; what came due in between is made up for, and nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_neither_lose_nor_double_a_tick() {
    let dir = tempfile::tempdir().unwrap();
    let begin = now();
    for life in 1..=10 {
        let celeriac = embedded(dir.path()).periodic(each("lives", INTERVAL)).start().await.unwrap();
        until_ran("lives", life * 10).await;
        celeriac.shutdown().await.unwrap();
    }
    let last = embedded(dir.path()).periodic(each("lives", INTERVAL)).start().await.unwrap();
    let end = now();
    until("all up to now is decided", async || status(&last, "lives").await.last >= end - INTERVAL).await;
    until("and has run", async || io(&last).await.ready == 0).await;
    last.shutdown_within(LONG).await.unwrap();
    let ticks = assert_each_once("lives", INTERVAL, begin, end - INTERVAL);
    assert!(ticks >= 50, "{ticks}");
}

/// One run stands for all that was missed, or none does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missed_ticks_by_policy() {
    let dir = tempfile::tempdir().unwrap();
    // Every second: the program is down for at least one tick.
    let second = Duration::from_secs(1);
    let once = || entry::<tick::Task>("once", second).expires(LONG);
    let celeriac = embedded(dir.path()).periodic(once()).start().await.unwrap();
    until_ran("once", 1).await;
    celeriac.shutdown().await.unwrap();
    let before = ran("once").len();
    let down = now();
    until("three ticks came due", async || now().since(down) > 3 * second).await;
    let celeriac = embedded(dir.path()).periodic(once()).start().await.unwrap();
    until_ran("once", before + 1).await;
    let made_up = status(&celeriac, "once").await;
    assert!(made_up.published <= 1 + made_up.last.since(down).as_secs() - 2, "one for all: {made_up:?}");
    celeriac.shutdown().await.unwrap();
}

/// An interval of which no tick comes due while a test runs: of some that are about an hour long, the one whose next tick is
/// the furthest.
fn about_an_hour() -> Duration {
    let some = (0..10).map(|n| Duration::from_secs(3600 - 97 * n));
    let next = |every: &Duration| Schedule::Every(*every).next_after(now());
    some.max_by_key(next).expect("ten")
}

/// Another schedule begins anew: nothing of the old one is made up for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_schedule_begins_now() {
    let dir = tempfile::tempdir().unwrap();
    let hourly = about_an_hour();
    let celeriac = embedded(dir.path()).periodic(each("changed", INTERVAL)).start().await.unwrap();
    until_ran("changed", 1).await;
    celeriac.shutdown().await.unwrap();
    let changed = each("changed", hourly).misfire(Misfire::All { within: 10 * hourly });
    let begin = now();
    let celeriac = embedded(dir.path()).periodic(changed).start().await.unwrap();
    let changed = status(&celeriac, "changed").await;
    assert!(changed.last >= begin && changed.next > Some(begin), "{changed:?}");
    assert_eq!(changed.published, 0);
    celeriac.shutdown().await.unwrap();
}

/// A tick is not lost when nothing can be published for a while: it is told, tried again, and made up for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_refuses_loses_no_tick() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = celeriac::broker::embedded::EmbeddedOptions::default();
    options.min_free_space = u64::MAX; // no new task is taken
    let begin = now();
    let full = embedded(dir.path()).embedded_options(options).periodic(each("refused", INTERVAL));
    let celeriac = full.start().await.unwrap();
    until("the refusal is told", async || {
        status(&celeriac, "refused").await.error.is_some_and(|error| error.contains("takes no new tasks"))
    })
    .await;
    celeriac.shutdown().await.unwrap();
    assert!(ran("refused").is_empty());
    let end = now();
    let celeriac = embedded(dir.path()).periodic(each("refused", INTERVAL)).start().await.unwrap();
    until("all up to now is decided", async || status(&celeriac, "refused").await.last >= end).await;
    until("all ran", async || io(&celeriac).await.ready == 0).await;
    celeriac.shutdown().await.unwrap();
    assert_each_once("refused", INTERVAL, begin, end);
}

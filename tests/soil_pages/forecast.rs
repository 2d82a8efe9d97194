//! When a task is likely to start, as its page says it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use celeriac::catalogue::{Pool, QueueRow};
use celeriac::core::forecast::OBSERVED_AT_LEAST;
use celeriac::{Celeriac, task};
use tokio::sync::watch;

use super::routes::{ask, beyond, get, pages};
use super::tasks::without_file;

/// Longer than anything takes, even on a slow machine.
const LONG: Duration = Duration::from_secs(120);

static IS_OPEN: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Runs until the test lets it end.
#[task(queue = "exports")]
async fn waits_for_the_test() {
    let _ = IS_OPEN.subscribe().wait_for(|is_open| *is_open).await;
}

#[actix_web::test]
async fn a_waiting_one_says_when_it_is_likely_to_start() {
    let row = QueueRow::new("exports").with_pool(Pool::Io).with_workers(1);
    let celeriac = Celeriac::builder().queue(row).in_memory().start().await.unwrap();
    let pages = pages();
    for _ in 0..OBSERVED_AT_LEAST {
        without_file::s().send(celeriac.client()).await.unwrap().get(LONG).await.unwrap();
    }
    let held = waits_for_the_test::s().send(celeriac.client()).await.unwrap();
    let waiting = without_file::s().send(celeriac.client()).await.unwrap();
    let url = pages.start(waiting.id()).url();
    let begun = Instant::now();
    let page = loop {
        let page = ask(&celeriac, &pages, get(&url)).await.body;
        if page.contains("data-role=\"starts\"") {
            break page;
        }
        assert!(begun.elapsed() < LONG, "it never says when: {page}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(page.contains("It is likely to start "), "{page}");
    let status = ask(&celeriac, &pages, get(&beyond(&url, "/status"))).await.json();
    let said = status["starts_between"].as_str().unwrap_or_default();
    assert!(said.starts_with("It is likely to start "), "{status}");
    IS_OPEN.send_replace(true);
    held.get(LONG).await.unwrap();
    waiting.get(LONG).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

//! Limits that all programs with one Redis keep together: rates, and caps of days.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use celeriac::catalogue::{Catalogue, LimitRow, QueueRow};
use celeriac::core::calendar::Zone;
use celeriac::core::start_limit::StartLimit;
use celeriac::store::{SharedRates, StartsWanted};
use celeriac::{Celeriac, task};
use futures_util::future::try_join_all;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread")]
async fn starts_of_a_rate_are_given_to_nobody_twice() {
    let (server, store) = shared().await;
    let name = TaskId::new().to_string();
    let wanted = StartsWanted { interval: HOUR, starts: 3, ahead: 4 * HOUR };
    let first = store.take_starts(&name, wanted).await.unwrap();
    assert_eq!((first.starts, first.after), (3, Duration::ZERO));
    // The next ones lie three and four hours ahead.
    let second = store.take_starts(&name, wanted).await.unwrap();
    assert_eq!(second.starts, 2);
    assert!(second.after <= 3 * HOUR && second.after > 3 * HOUR - PATIENCE, "{second:?}");
    let third = store.take_starts(&name, wanted).await.unwrap();
    assert_eq!(third.starts, 0);
    assert!(third.after <= HOUR && third.after > HOUR - PATIENCE, "{third:?}");
    assert_eq!(store.take_starts(&format!("{name}-other"), wanted).await.unwrap().starts, 3);
    // What nobody uses goes by itself.
    let lives: i64 = redis::cmd("PTTL")
        .arg(format!("celeriac:rate:{name}"))
        .query_async(&mut raw(&server).await)
        .await
        .unwrap();
    assert!(lives > 0 && lives <= 5 * 3_600_000, "{lives}");
}

#[task(rate_limit = "20/s", rate_key = "{gateway}")]
async fn texts(gateway: String) {
    let _ = gateway;
}

#[task]
async fn reports(domain: String) -> String {
    domain
}

/// A program of its own, with its own broker, on the Redis that all share.
async fn program(server: &Redis, catalogue: Catalogue) -> Celeriac {
    let row = QueueRow::new("celery").with_io_bound(true).with_workers(8);
    let catalogue = catalogue.with_queue(row);
    let options = RedisOptions::default();
    Celeriac::builder()
        .catalogue(catalogue)
        .in_memory()
        .redis(server.url_of(2), options)
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_keep_to_one_rate() {
    const EACH: u32 = 50;
    let (server, _) = shared().await;
    let programs = [program(&server, Catalogue::new()).await, program(&server, Catalogue::new()).await];
    let gateway = TaskId::new().to_string();
    let begun = Instant::now();
    let mut sent = Vec::new();
    for celeriac in &programs {
        let calls = (0..EACH).map(|_| texts::s(gateway.clone()).send(celeriac.client()).into_future());
        sent.extend(try_join_all(calls).await.unwrap());
    }
    for task in &sent {
        assert_eq!(task.get(PATIENCE).await, Ok(()));
    }
    // Twenty a second: each of the hundred starts has a time of its own. If each program counted by itself, it would take
    // half as long.
    let least = Duration::from_millis(50) * (2 * EACH - 1);
    assert!(begun.elapsed() >= least.mul_f64(0.99), "{:?} is too short for all", begun.elapsed());
    for celeriac in programs {
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_share_the_cap_of_a_day() {
    // It is past noon there, so that the day does not end within the test.
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600 % 24;
    let zone = if hour < 12 { format!("Etc/GMT-{}", 12 - hour) } else { format!("Etc/GMT+{}", hour - 12) };
    let zone: Zone = zone.parse().unwrap();
    let (server, _) = shared().await;
    let mut limit = StartLimit::default();
    limit.daily = Some(10);
    let row = LimitRow::new("redis_store::limits::reports", limit).with_key("domain").with_zone(zone);
    let catalogue = Catalogue::new().with_limit(row);
    let programs = [program(&server, catalogue.clone()).await, program(&server, catalogue).await];
    let domain = TaskId::new().to_string();
    for celeriac in &programs {
        let calls = (0..10).map(|_| reports::s(domain.clone()).send(celeriac.client()).into_future());
        try_join_all(calls).await.unwrap();
    }
    let counts = async || {
        let (mut done, mut held) = (0, 0);
        for celeriac in &programs {
            let Ok(queue) = celeriac.queue("celery").await else { return None };
            (done, held) = (done + queue.done, held + queue.held);
        }
        Some((done, held))
    };
    in_time("ten of twenty", async {
        loop {
            let now = counts().await;
            assert!(now.is_none_or(|(done, _)| done <= 10), "{now:?}");
            if now == Some((10, 10)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    for celeriac in programs {
        celeriac.shutdown().await.unwrap();
    }
}

//! Blocks of table files that are damaged: what lies behind them runs, what cannot be read is listed, and the rest can be
//! copied to a new store.

use std::collections::BTreeSet;
use std::sync::Arc;

use celeriac::broker::conformance::{counts, sample, success};
use celeriac::broker::embedded::{salvage, verify};
use celeriac::broker::{Broker, Settle};
use celeriac::store::{EmbeddedStore, Store};
use celeriac::task::{Durability, LaneName, Message, SerialHeader, TENANT};

use crate::damaged_block::{damage, flush, table};
use crate::{copy, drain, open, publish, shared};

const TASKS: usize = 5400;

async fn backlog(message: impl Fn(usize) -> Message) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let messages: Vec<Message> = (0..TASKS).map(message).collect();
    for some in messages.chunks(1000) {
        futures_util::future::try_join_all(some.iter().map(|m| broker.publish(m.clone(), false)))
            .await
            .unwrap();
    }
    broker.close().await.unwrap();
    drop(broker);
    flush(dir.path());
    dir
}

fn number(message: &Message) -> usize {
    message.id.as_str().rsplit('-').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_queue_goes_on_behind_what_cannot_be_read() {
    let base = backlog(crate::message).await;
    for places in [&[50][..], &[0], &[99], &[20, 21, 70]] {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        places.iter().for_each(|at| damage(&table(dir.path(), 1), *at));

        let found = verify(dir.path()).unwrap();
        assert!(!found.damage.is_empty(), "{places:?}");
        let into = tempfile::tempdir().unwrap();
        let salvaged = salvage(dir.path(), into.path()).unwrap();
        assert_eq!((salvaged.waiting, &salvaged.lost), (found.waiting, &found.lost));
        assert_eq!(found.waiting as usize + found.lost.len(), TASKS, "{places:?}");
        assert!((1..200).contains(&found.lost.len()), "{places:?}: {} are lost", found.lost.len());

        let broker = open(dir.path()).unwrap();
        let drained = drain(&broker, "q").await;
        assert!(drained.is_sorted_by_key(number));
        assert_eq!(drained.len() as u64, found.waiting, "{places:?}");
        assert!(drained.iter().all(|message| !found.lost.contains(&message.id)));
        assert_eq!(counts(&shared(&broker), "q").await.ready as usize, TASKS - drained.len());
        publish(&broker, TASKS..TASKS + 2).await;
        assert_eq!(drain(&broker, "q").await.len(), 2);

        // The new store has all that the old one could tell, and is sound.
        let sound = verify(into.path()).unwrap();
        assert_eq!((sound.damage, sound.lost, sound.waiting), (Vec::new(), Vec::new(), found.waiting));
        let broker = open(into.path()).unwrap();
        assert_eq!(counts(&shared(&broker), "q").await.ready, found.waiting);
        assert_eq!(drain(&broker, "q").await.len() as u64, found.waiting);
    }
}

/// A damaged block has rows of several tenants, and another file has rows between them: these are found, counted and copied.
#[tokio::test]
async fn what_lies_between_the_damaged_rows_of_several_tenants_is_copied() {
    const EACH: usize = 1800;
    let dir = tempfile::tempdir().unwrap();
    for file in 0..2 {
        let broker = open(dir.path()).unwrap();
        let of_tenant = |n: usize| {
            let mut message = crate::message(n);
            message.headers.0.insert(TENANT.to_owned(), format!("tenant {}", n % (EACH / 2)).into());
            message
        };
        let messages: Vec<Message> = (file * EACH..(file + 1) * EACH).map(of_tenant).collect();
        for some in messages.chunks(600) {
            futures_util::future::try_join_all(some.iter().map(|m| broker.publish(m.clone(), false)))
                .await
                .unwrap();
        }
        broker.close().await.unwrap();
        drop(broker);
        flush(dir.path());
    }
    damage(&table(dir.path(), 1), 50);
    let found = verify(dir.path()).unwrap();
    assert!((1..EACH / 2).contains(&found.lost.len()), "{} are lost", found.lost.len());
    assert_eq!(found.waiting as usize + found.lost.len(), 2 * EACH, "each is found or lost");
    let into = tempfile::tempdir().unwrap();
    let salvaged = salvage(dir.path(), into.path()).unwrap();
    assert_eq!((salvaged.waiting, &salvaged.lost), (found.waiting, &found.lost));
    let sound = verify(into.path()).unwrap();
    assert_eq!((sound.damage, sound.waiting), (Vec::new(), found.waiting));
    let broker = open(into.path()).unwrap();
    assert_eq!(drain(&broker, "q").await.len() as u64, found.waiting);
}

/// New tasks of tenants whose other ones cannot be read are delivered, although no scan comes to them: where the damaged block
/// goes on with the rows of the next tenants, it hides what lies before these.
#[tokio::test]
async fn new_tasks_of_tenants_in_a_damaged_block_are_delivered() {
    const TENANTS: usize = TASKS / 2;
    let of_tenant = |n: usize| {
        let mut message = crate::message(n);
        message.headers.0.insert(TENANT.to_owned(), format!("tenant {}", n % TENANTS).into());
        message
    };
    let dir = backlog(of_tenant).await; // two of each
    damage(&table(dir.path(), 1), 50);
    let lost: BTreeSet<usize> =
        verify(dir.path()).unwrap().lost.iter().map(|id| id.as_str()[2..].parse().unwrap()).collect();
    let tenants: Vec<usize> =
        (0..TENANTS).filter(|tenant| (*tenant..TASKS).step_by(TENANTS).all(|n| lost.contains(&n))).collect();
    assert!(!tenants.is_empty(), "of none of {lost:?} all are lost");
    let broker = open(dir.path()).unwrap();
    assert_eq!(drain(&broker, "q").await.len(), TASKS - lost.len());
    for round in [TASKS, TASKS + TENANTS] {
        for tenant in &tenants {
            broker.publish(of_tenant(round + tenant), false).await.unwrap();
        }
        let mut drained: Vec<usize> = drain(&broker, "q").await.iter().map(number).collect();
        drained.sort_unstable();
        assert_eq!(drained, tenants.iter().map(|tenant| round + tenant).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn tasks_that_wait_for_their_time_are_found_behind_it_too() {
    let dir = backlog(|n| {
        let mut message = crate::message(n);
        message.eta = Some(message.enqueued_at + std::time::Duration::from_millis(1 + n as u64 / 100));
        message
    })
    .await;
    damage(&table(dir.path(), 1), 30);
    let found = verify(dir.path()).unwrap();
    let broker = open(dir.path()).unwrap();
    let drained = drain(&broker, "q").await;
    // Which of them lie between two that can be read is not known, so a few more than the damaged ones are passed over.
    assert!(drained.len() as u64 <= found.waiting && drained.len() > TASKS - 400, "{}", drained.len());
}

/// A lane in whose line some cannot be read lets in the others, and its store goes on taking and settling.
#[tokio::test]
async fn a_lane_goes_on_behind_what_cannot_be_read() {
    let serial = |n: usize| Message {
        serial: Some(Box::new(SerialHeader::new(LaneName::new("task", "key")))),
        ..sample("q", n, Durability::Disk)
    };
    let base = backlog(serial).await;
    for places in [&[50][..], &[5, 60]] {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        places.iter().for_each(|at| damage(&table(dir.path(), 6), *at));
        let found = verify(dir.path()).unwrap();
        let into = tempfile::tempdir().unwrap();
        salvage(dir.path(), into.path()).unwrap();
        for store in [dir.path(), into.path()] {
            let broker = open(store).unwrap();
            let drained = drain(&broker, "q").await;
            assert!(drained.is_sorted_by_key(number));
            assert_eq!(drained.len() as u64, found.waiting, "{places:?}");
            publish(&broker, TASKS..TASKS + 2).await;
            broker.publish(serial(TASKS + 2), true).await.unwrap();
            assert_eq!(drain(&broker, "q").await.len(), 3);
        }
    }
}

/// A due serial task whose lane cannot be read does not start beside the one that has the lane, and is not lost; the scheduled
/// tasks behind it start.
#[tokio::test]
async fn scheduled_tasks_go_on_behind_a_lane_that_cannot_be_read() {
    const KEYS: usize = TASKS / 3;
    let serial = |queue: &str, n: usize| Message {
        serial: Some(Box::new(SerialHeader::new(LaneName::new("task", format!("key-{}", n % KEYS))))),
        ..sample(queue, n, Durability::Disk)
    };
    let later = |message: Message, ms: u64| {
        let eta = message.enqueued_at + std::time::Duration::from_millis(ms);
        Message { eta: Some(eta), ..message }
    };
    // Each lane has a task in another queue, so it has a record; then come the scheduled ones, serial and plain.
    let base = backlog(|n| match n / KEYS {
        0 => serial("other", n),
        1 => later(serial("q", n), 1),
        _ => later(crate::message(n), 2),
    })
    .await;
    for place in [5, 50, 95] {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        damage(&table(dir.path(), 6), place);
        assert!(!verify(dir.path()).unwrap().damage.is_empty(), "{place}");
        let broker = open(dir.path()).unwrap();
        let drained = drain(&broker, "q").await;
        assert!(drained.iter().all(|message| message.serial.is_none()), "{place}: each lane is taken");
        assert_eq!(drained.len(), KEYS, "{place}");
        let left = counts(&shared(&broker), "q").await;
        assert_eq!(left.scheduled + left.in_line, KEYS as u64, "{place}: none is lost");
    }
}

/// Records, dead letters and what expires: the readable ones are there, and the store goes on.
#[tokio::test]
async fn what_is_over_can_be_read_around_damage() {
    const RECORDS: usize = 3000;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let numbers: Vec<usize> = (0..RECORDS).collect();
    for some in numbers.chunks(1000) {
        futures_util::future::join_all(some.iter().map(|n| publish(&broker, *n..n + 1))).await;
    }
    let shared_broker: Arc<dyn Broker> = shared(&broker);
    let mut inbox = celeriac::broker::conformance::Inbox::open(&shared_broker, "q", RECORDS);
    let deliveries = inbox.take(RECORDS).await;
    let ends = deliveries.into_iter().map(|delivery| {
        let result = Some(success(delivery.message()));
        let reason = "for a test ".repeat(20);
        delivery.settle_and_wait(Settle::DeadLetter { reason, result, follow_ups: None })
    });
    futures_util::future::try_join_all(ends).await.unwrap();
    drop(inbox);
    broker.close().await.unwrap();
    drop((shared_broker, broker));
    flush(dir.path());
    damage(&table(dir.path(), 2), 50);
    damage(&table(dir.path(), 3), 50);
    let found = verify(dir.path()).unwrap();
    assert!(found.results > 2500 && found.results < RECORDS as u64 && found.dead > 2500, "{found:?}");
    let broker = open(dir.path()).unwrap();
    assert_eq!(broker.dead_letters(usize::MAX).await.unwrap().len() as u64, found.dead);
    let store = EmbeddedStore::new(broker.clone());
    let later = crate::message(0).enqueued_at + std::time::Duration::from_secs(30 * 24 * 60 * 60);
    let swept = store.sweep(later).await.unwrap();
    // Each id is asked for by itself, so that more are found than when they are read in a row.
    assert!((found.results..RECORDS as u64).contains(&(swept as u64)), "{swept} of {}", found.results);
    publish(&broker, RECORDS..RECORDS + 1).await;
    assert_eq!(drain(&broker, "q").await.len(), 1);
}

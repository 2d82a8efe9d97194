//! Many queues, and a long backlog.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use celeriac::broker::conformance::{Inbox, counts, sample};
use celeriac::broker::{Broker, EmbeddedBroker, Settle};
use celeriac::core::Timestamp;
use celeriac::task::Durability;

use crate::{CHILD, in_a_child, large, open, shared};

#[tokio::test]
async fn a_thousand_queues() {
    const QUEUES: usize = 1000;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let messages =
        (0..3).flat_map(|n| (0..QUEUES).map(move |q| sample(&format!("queue {q}"), n, Durability::Disk)));
    let published = futures_util::future::join_all(messages.map(|m| broker.publish(m, false))).await;
    assert!(published.iter().all(Result::is_ok));
    drop(published);
    drop(broker);
    let broker = open(dir.path()).unwrap();
    let mut inboxes: Vec<Inbox> =
        (0..QUEUES).map(|q| Inbox::open(&shared(&broker), &format!("queue {q}"), 2)).collect();
    for (q, inbox) in inboxes.iter_mut().enumerate() {
        for n in 0..3 {
            let delivery = inbox.next().await;
            assert_eq!(delivery.message().id.as_str(), format!("queue {q}-{n}"));
            delivery.settle(Settle::Ack { result: None, follow_ups: None });
        }
    }
    for q in 0..QUEUES {
        assert_eq!(counts(&shared(&broker), &format!("queue {q}")).await, Default::default());
    }
}

/// What comes, what is due and what goes back arrives in each queue, although a round of the store's thread looks at few
/// of them.
#[tokio::test]
async fn no_queue_of_three_hundred_is_forgotten() {
    const QUEUES: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let name = |queue: usize| format!("queue {queue}");
    let mut inboxes: Vec<Inbox> =
        (0..QUEUES).map(|queue| Inbox::open(&shared(&broker), &name(queue), 1)).collect();
    let start = Timestamp::from(SystemTime::now());
    let messages = (0..QUEUES).flat_map(|queue| {
        let ready = sample(&name(queue), 0, Durability::Disk);
        let mut due = sample(&name(queue), 1, Durability::Disk);
        // In no order of the queues.
        due.eta = Some(start + Duration::from_millis((queue * 7 % 50) as u64));
        [due, ready]
    });
    let published = futures_util::future::join_all(messages.map(|m| broker.publish(m, false))).await;
    assert!(published.iter().all(Result::is_ok));
    for (queue, inbox) in inboxes.iter_mut().enumerate() {
        // The first delivery goes back, and comes again by itself. Each queue has room for one.
        drop(inbox.next().await);
        let mut ids = Vec::new();
        for _ in 0..2 {
            let delivery = inbox.next().await;
            ids.push(delivery.message().id.to_string());
            delivery.settle(Settle::Ack { result: None, follow_ups: None });
        }
        ids.sort();
        assert_eq!(ids, [0, 1].map(|n| format!("{}-{n}", name(queue))));
    }
    for queue in 0..QUEUES {
        assert_eq!(counts(&shared(&broker), &name(queue)).await, Default::default());
    }
}

fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() >> 10
}

/// Memory holds what is delivered, never the backlog.
#[test]
fn memory_does_not_grow_with_the_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let child = in_a_child("scale::backlog", dir.path());
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("backlog of"), "{said}");
    println!("{said}");
}

async fn publish_large(broker: &EmbeddedBroker, numbers: std::ops::Range<usize>) {
    let numbers: Vec<usize> = numbers.collect();
    for chunk in numbers.chunks(1000) {
        let published = chunk.iter().map(|n| broker.publish(large(*n, 4000), false));
        futures_util::future::try_join_all(published).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "a part of `memory_does_not_grow_with_the_backlog`, in a process of its own"]
async fn backlog() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let broker = open(&PathBuf::from(dir)).unwrap();
    let mut inbox = Inbox::open(&shared(&broker), "q", 10);
    publish_large(&broker, 0..10_000).await;
    let before = resident_mib();
    publish_large(&broker, 10_000..100_000).await;
    let after = resident_mib();
    // 90,000 messages of 4 KB: 360 MB and more, were they in memory. The log keeps three memtables of 32 MiB at most,
    // where the disk is slow, and the cache has 32 MiB.
    println!("{before} MiB with a backlog of 10,000, {after} MiB with a backlog of 100,000");
    assert!(after < before + 200, "grew from {before} to {after} MiB");
    assert_eq!(counts(&shared(&broker), "q").await.ready, 99_990);
    for n in 0..1000 {
        let delivery = inbox.next().await;
        assert_eq!(delivery.message().id.as_str(), format!("q-{n}"));
        delivery.settle(Settle::Ack { result: None, follow_ups: None });
    }
}

//! A full disk: refusals that say so, nothing that was accepted lost, and it goes on by itself when there is room.
//!
//! These tests mount small disks in memory, which takes the rights to do so.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use celeriac::broker::conformance::{Inbox, counts, success};
use celeriac::broker::embedded::EmbeddedOptions;
use celeriac::broker::{Broker, BrokerError, EmbeddedBroker, Lanes as _, Settle};
use celeriac::store::{EmbeddedStore, Store};
use celeriac::task::{LaneName, Message, SerialHeader};
use tempfile::TempDir;

use crate::{PATIENCE, drain, large, message, publish, shared};

const MIB: usize = 1 << 20;

/// A small disk.
struct Disk(TempDir);

impl Disk {
    fn mount(mib: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        let mounted = mounted.expect("the command `mount`");
        let said = String::from_utf8_lossy(&mounted.stderr);
        assert!(
            mounted.status.success(),
            "these tests mount small disks and need the right to (run them as root): {said}"
        );
        Self(dir)
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// A file that takes this much, or all there is.
    fn ballast(&self, mib: Option<usize>) -> PathBuf {
        let path = self.0.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        let mut left = mib.map_or(usize::MAX, |mib| mib * MIB);
        for size in [MIB, 4096, 1] {
            let block = vec![1; size];
            while left >= size && file.write_all(&block).is_ok() {
                left -= size;
            }
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|s| s.success()));
    }
}

fn open(dir: &Path, min_free_space: usize) -> EmbeddedBroker {
    let mut options = EmbeddedOptions::default();
    options.min_free_space = min_free_space as u64;
    EmbeddedBroker::open(dir, options).unwrap()
}

/// Publishes messages of `size` bytes until one is refused; the number of that one.
async fn fill(broker: &EmbeddedBroker, from: usize, size: usize) -> (usize, BrokerError) {
    for n in from.. {
        if let Err(error) = broker.publish(large(n, size), false).await {
            return (n, error);
        }
    }
    unreachable!("the disk is endless")
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it has room again")
}

fn numbers(from: std::ops::Range<usize>) -> Vec<String> {
    from.map(|n| format!("q-{n}")).collect()
}

#[tokio::test]
async fn the_reserve_is_kept_for_what_runs() {
    let disk = Disk::mount(384);
    let ballast = disk.ballast(Some(48));
    let broker = open(&disk.store(), 64 * MIB);
    publish(&broker, 0..4).await;
    let mut inbox = Inbox::open(&shared(&broker), "q", 4);
    let mut running = inbox.take(4).await;
    inbox.set_prefetch(0);
    running.iter_mut().for_each(|d| d.started());

    let (refused, error) = fill(&broker, 4, 512 * 1024).await;
    assert!(refused > 40, "{refused}");
    assert!(matches!(error, BrokerError::Full(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("MiB are free on the disk of") && text.contains("the last 64 MiB are kept"),
        "{text}"
    );
    let again = broker.publish(large(refused, 512 * 1024), false).await;
    assert!(matches!(again, Err(BrokerError::Full(_))));
    assert_eq!(counts(&shared(&broker), "q").await.ready as usize, refused - 4);

    let store = EmbeddedStore::new(broker.clone());
    let last = running.pop().unwrap();
    for delivery in running {
        let result = success(delivery.message());
        delivery
            .settle_and_wait(Settle::Ack { result: Some(result.clone()), follow_ups: None })
            .await
            .unwrap();
        assert_eq!(store.get(&result.id, result.finished_at).await, Ok(Some(result)));
    }

    std::fs::remove_file(ballast).unwrap();
    broker.publish(large(refused, 512 * 1024), false).await.unwrap();
    last.settle_and_wait(Settle::Ack { result: None, follow_ups: None }).await.unwrap();
    drop((inbox, store));
    broker.close().await.unwrap();
    let broker = open(&disk.store(), 0);
    assert_eq!(crate::ids(&drain(&broker, "q").await), numbers(4..refused + 1));
}

/// The disk is full to the last byte, under the store's feet.
#[tokio::test]
async fn a_disk_full_to_the_last_byte() {
    let disk = Disk::mount(96);
    let broker = open(&disk.store(), 0);
    publish(&broker, 0..10).await;
    let mut inbox = Inbox::open(&shared(&broker), "q", 5);
    let mut running = inbox.take(5).await;
    inbox.set_prefetch(0);
    running[0].started();
    let ballast = disk.ballast(None);

    // The rest of the last page may still take some.
    let (refused, error) = fill(&broker, 10, 5000).await;
    assert_eq!(error.to_string(), format!("the disk of {} is full", disk.store().display()));
    assert!(matches!(error, BrokerError::Full(_)));
    assert!(matches!(broker.publish(message(90), false).await, Err(BrokerError::Full(_))));
    let store = EmbeddedStore::new(broker.clone());
    let result = success(running[0].message());
    let read = store.get(&result.id, result.finished_at).await.unwrap_err();
    assert!(read.to_string().contains("is full"), "{read}");

    // Settlements are kept: one of each kind.
    let waiter = tokio::spawn({
        let (store, id) = (store.clone(), result.id.clone());
        async move { store.wait(&id).await }
    });
    let again = celeriac::task::Message::clone(running[1].message());
    let ends = [
        Settle::Ack { result: Some(result.clone()), follow_ups: None },
        Settle::Requeue { message: Box::new(again), due: None },
        Settle::DeadLetter { reason: "for a test".to_owned(), result: None, follow_ups: None },
        Settle::Return { crashed: true },
        Settle::Return { crashed: false },
    ];
    let mut kept = tokio::task::JoinSet::new();
    for (delivery, end) in running.into_iter().zip(ends) {
        kept.spawn(delivery.settle_and_wait(end));
    }
    let _ = counts(&shared(&broker), "q").await;
    assert!(kept.try_join_next().is_none() || refused > 10, "nothing can be safe yet");

    std::fs::remove_file(ballast).unwrap();
    for settled in soon(kept.join_all()).await {
        assert_eq!(settled, Ok(()));
    }
    drop(waiter);
    assert_eq!(store.get(&result.id, result.finished_at).await, Ok(Some(result.clone())));
    broker.publish(message(91), false).await.unwrap();
    let counted = counts(&shared(&broker), "q").await;
    assert_eq!((counted.ready as usize, counted.unsettled, counted.dead), (refused - 2 + 1, 0, 1));

    drop((inbox, store));
    broker.close().await.unwrap();
    let broker = open(&disk.store(), 0);
    assert_eq!(counts(&shared(&broker), "q").await, counted, "counted as it is on disk");
    let drained = drain(&broker, "q").await;
    let mut expected = numbers(3..refused);
    expected.extend(["q-1".to_owned(), "q-91".to_owned()]);
    assert_eq!(crate::ids(&drained), expected);
    assert_eq!(drained[0].crashes, 1, "the one whose worker died");
    assert_eq!(drained[1].crashes, 0);
}

/// What a run's end does to its lane is kept with it, and who was refused is in no line.
#[tokio::test]
async fn lanes_on_a_full_disk() {
    let disk = Disk::mount(96);
    let broker = open(&disk.store(), 0);
    let serial = |n: usize, key: &str| Message {
        serial: Some(Box::new(SerialHeader::new(LaneName::new("task", key)))),
        ..message(n)
    };
    for (n, key) in [(0, "a"), (1, "a"), (2, "a"), (3, "b"), (4, "b")] {
        broker.publish(serial(n, key), false).await.unwrap();
    }
    let mut inbox = Inbox::open(&shared(&broker), "q", 100);
    let mut running = inbox.take(2).await;
    assert_eq!(running.iter().map(|d| d.message().id.as_str()).collect::<Vec<_>>(), ["q-0", "q-3"]);
    let ballast = disk.ballast(None);
    inbox.set_prefetch(2);
    let (_, error) = fill(&broker, 1000, 5000).await;
    assert!(matches!(error, BrokerError::Full(_)));
    assert!(matches!(broker.publish(serial(90, "a"), false).await, Err(BrokerError::Full(_))));

    let again = Message { retries: 1, ..Message::clone(running[1].message()) };
    let mut kept = tokio::task::JoinSet::new();
    kept.spawn(running.remove(0).settle_and_wait(Settle::Ack { result: None, follow_ups: None }));
    kept.spawn(running.remove(0).settle_and_wait(Settle::Requeue { message: Box::new(again), due: None }));
    assert!(matches!(broker.publish(serial(91, "b"), false).await, Err(BrokerError::Full(_))));
    std::fs::remove_file(ballast).unwrap();
    for settled in soon(kept.join_all()).await {
        assert_eq!(settled, Ok(()));
    }
    assert_eq!(counts(&shared(&broker), "q").await.in_line, 2);
    broker.publish(serial(92, "a"), false).await.unwrap();
    drop(inbox);
    broker.close().await.unwrap();
    let broker = open(&disk.store(), 0);
    let drained = drain(&broker, "q").await;
    let order = |key: &str| -> Vec<&str> {
        let in_lane = |m: &&Message| m.serial.as_ref().is_some_and(|serial| serial.lane.key() == key);
        drained.iter().filter(in_lane).map(|m| m.id.as_str()).collect()
    };
    assert_eq!(order("a"), ["q-1", "q-2", "q-92"]);
    assert_eq!(order("b"), ["q-3", "q-4"]);
    assert_eq!(counts(&shared(&broker), "q").await.in_line, 0);
    assert_eq!(broker.busy_lanes(10).await, Ok(Vec::new()));
}

/// The disk fills while the database moves its data about: its background work fails as well.
#[tokio::test]
async fn a_disk_full_of_large_messages() {
    let disk = Disk::mount(144);
    let ballast = disk.ballast(Some(64));
    let broker = open(&disk.store(), 0);
    publish(&broker, 0..1).await;
    let mut inbox = Inbox::open(&shared(&broker), "q", 1);
    let running = inbox.next().await;
    inbox.set_prefetch(0);
    let (refused, error) = soon(fill(&broker, 1, 512 * 1024)).await;
    assert!(refused > 20, "{refused}");
    assert!(matches!(error, BrokerError::Full(_)), "{error:?}");
    let settled = tokio::spawn(running.settle_and_wait(Settle::Ack { result: None, follow_ups: None }));
    std::fs::remove_file(ballast).unwrap();
    soon(settled).await.unwrap().unwrap();
    broker.publish(message(refused), false).await.unwrap();
    drop(inbox);
    broker.close().await.unwrap();
    let broker = open(&disk.store(), 0);
    assert_eq!(crate::ids(&drain(&broker, "q").await), numbers(1..refused + 1));
}

/// A store that is closed while its disk is full says that what was settled last is not safe, and that is then so.
#[tokio::test]
async fn closed_while_full() {
    let disk = Disk::mount(96);
    let broker = open(&disk.store(), 0);
    publish(&broker, 0..2).await;
    let mut inbox = Inbox::open(&shared(&broker), "q", 1);
    let mut running = inbox.next().await;
    running.started();
    inbox.set_prefetch(0);
    let ballast = disk.ballast(None);
    let (refused, _) = fill(&broker, 2, 5000).await;
    running.settle(Settle::Ack { result: None, follow_ups: None });
    drop(inbox);
    assert!(matches!(broker.close().await, Err(BrokerError::Full(_))));
    let full = EmbeddedBroker::open(disk.0.path().join("another"), EmbeddedOptions::default());
    assert!(matches!(full.err(), Some(BrokerError::Full(_))));
    std::fs::remove_file(ballast).unwrap();
    let broker = open(&disk.store(), 0);
    let drained = drain(&broker, "q").await;
    assert_eq!(crate::ids(&drained), numbers(0..refused));
}

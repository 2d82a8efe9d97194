//! The failed tasks of a queue: how many the store keeps, and that it keeps count of them.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use celeriac::broker::conformance::{Inbox, success};
use celeriac::broker::embedded::{EmbeddedOptions, salvage, verify};
use celeriac::broker::{Broker, EmbeddedBroker, FailedTask, FailedTasks as _, Settle, TaskFilter};
use celeriac::task::{Message, TaskResult};
use celeriac::{State, Timestamp};

use crate::{large, message, shared};

const HOUR: Duration = Duration::from_secs(3600);

fn bounded(most: u64, bytes: u64) -> EmbeddedOptions {
    let mut options = EmbeddedOptions::default();
    (options.max_failed, options.max_failed_bytes) = (most, bytes);
    options
}

fn open(dir: &Path, options: EmbeddedOptions) -> EmbeddedBroker {
    EmbeddedBroker::open(dir, options).unwrap()
}

/// Sends a task and has it fail for good; it is kept for this long.
async fn fail(broker: &EmbeddedBroker, message: Message, life: Duration) {
    let handle = shared(broker);
    let mut inbox = Inbox::open(&handle, &message.queue, 1);
    broker.publish(message, true).await.unwrap();
    let delivery = inbox.next().await;
    let message = Message::clone(delivery.message());
    let result = TaskResult { state: State::Failure, result: None, ..success(&message) };
    let failed_at = Timestamp::from(SystemTime::now());
    let task =
        FailedTask { message, reason: "boom".to_owned(), failed_at, expires_at: Some(failed_at + life) };
    let end = Settle::Fail { failed: Box::new(task), result: Some(result), follow_ups: None };
    delivery.settle_and_wait(end).await.unwrap();
}

async fn fail_all(broker: &EmbeddedBroker, numbers: Range<usize>) {
    for n in numbers {
        fail(broker, message(n), HOUR).await;
    }
}

async fn kept(broker: &EmbeddedBroker) -> Vec<String> {
    let ids = broker.failed_ids(&TaskFilter::new()).await.unwrap();
    ids.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_many_the_oldest_go_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let options = bounded(3, u64::MAX);
    let broker = open(dir.path(), options.clone());
    fail_all(&broker, 0..5).await;
    assert_eq!(kept(&broker).await, ["q-2", "q-3", "q-4"]);
    assert_eq!(broker.dropped_failed(), 2);
    // Another queue has a bound of its own.
    let other = Message { queue: "other".to_owned(), id: "other-0".into(), ..message(0) };
    fail(&broker, other, HOUR).await;
    assert_eq!(kept(&broker).await, ["q-2", "q-3", "q-4", "other-0"]);
    broker.close().await.unwrap();

    // The store still knows how many there are.
    let broker = open(dir.path(), options);
    fail_all(&broker, 5..6).await;
    assert_eq!(kept(&broker).await, ["q-3", "q-4", "other-0", "q-5"]);
    // Those that are taken make room.
    assert_eq!(broker.delete_failed(&["q-4".into()]).await.unwrap().len(), 1);
    assert_eq!(broker.retry_failed(&["q-3".into()], None).await.unwrap().ids.len(), 1);
    let handle = shared(&broker);
    Inbox::open(&handle, "q", 1).next().await.settle(Settle::Ack { result: None, follow_ups: None });
    fail_all(&broker, 6..8).await;
    assert_eq!(kept(&broker).await, ["other-0", "q-5", "q-6", "q-7"]);
    assert_eq!(broker.dropped_failed(), 1, "since this start");
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_go_when_they_take_too_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), bounded(100, 20_000));
    for n in 0..3 {
        fail(&broker, large(n, 8_000), HOUR).await;
    }
    assert_eq!(kept(&broker).await, ["q-1", "q-2"]);
    fail(&broker, large(3, 60_000), HOUR).await;
    assert_eq!(kept(&broker).await, ["q-3"], "one is kept, however large");
    assert_eq!(broker.dropped_failed(), 3);
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn those_whose_time_is_over_go_and_a_copy_has_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), EmbeddedOptions::default());
    for n in 0..2 {
        fail(&broker, message(n), Duration::ZERO).await;
    }
    fail_all(&broker, 2..4).await;
    assert_eq!((kept(&broker).await, broker.dropped_failed()), (vec!["q-2".to_owned(), "q-3".to_owned()], 0));
    broker.close().await.unwrap();
    drop(broker);
    let found = verify(dir.path()).unwrap();
    assert_eq!((found.failed, found.dead, found.results), (2, 0, 4));

    let copy = tempfile::tempdir().unwrap();
    let done = salvage(dir.path(), copy.path()).unwrap();
    assert_eq!((done.failed, done.dead), (2, 0));
    let broker = open(copy.path(), bounded(2, u64::MAX));
    assert_eq!(kept(&broker).await, ["q-2", "q-3"]);
    fail_all(&broker, 4..5).await;
    assert_eq!(kept(&broker).await, ["q-3", "q-4"], "they are counted in the copy too");
    broker.close().await.unwrap();
}

//! The promises of unique windows: while a task waits or runs, and its window lasts, another task of its key joins
//! it.

use std::time::Duration;

use super::*;
use crate::broker::{CasOutcome, Removal};
use crate::store::CompareAndSet;
use crate::task::{Receipt, Unique, UniqueKey};

fn key(key: &str) -> UniqueKey {
    UniqueKey::new("conformance.task", key)
}

fn unique_for<S: BrokerUnderTest>(n: usize, text: &str, window: Duration) -> Message {
    Message { unique: Some(Box::new(Unique::new(key(text), window))), ..message::<S>("q", n) }
}

fn unique<S: BrokerUnderTest>(n: usize, text: &str) -> Message {
    unique_for::<S>(n, text, Duration::from_secs(3600))
}

async fn send(broker: &Arc<dyn Broker>, message: Message) -> Receipt {
    broker.publish(message, false).await.expect("a publish")
}

/// Publishes the `n`th message of this key. Answers with the task that it joins.
async fn joins<S: BrokerUnderTest>(broker: &Arc<dyn Broker>, n: usize, text: &str) -> Option<String> {
    let receipt = send(broker, unique::<S>(n, text)).await;
    assert!(receipt.joined || receipt.id.as_str() == format!("q-{n}"));
    receipt.joined.then(|| receipt.id.to_string())
}

async fn holder(broker: &Arc<dyn Broker>, text: &str) -> Option<String> {
    windows(broker).holder(&key(text)).await.expect("an answer").map(|id| id.to_string())
}

fn is(n: usize) -> Option<String> {
    Some(format!("q-{n}"))
}

/// A duplicate is left out, and its receipt names the first task, also while that one is due later, runs, or waits
/// for its next attempt. Other keys are not affected.
pub async fn a_duplicate_joins<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    assert!(broker.unique_windows().is_some());
    assert_eq!(holder(&broker, "a").await, None);
    assert_eq!(joins::<S>(&broker, 0, "a").await, None);
    assert_eq!(joins::<S>(&broker, 1, "a").await, is(0));
    assert_eq!(joins::<S>(&broker, 2, "b").await, None);
    let later = Message { eta: Some(far()), ..unique::<S>(3, "c") };
    assert!(!send(&broker, later).await.joined);
    assert_eq!(joins::<S>(&broker, 4, "c").await, is(3));
    let elsewhere = Unique::new(UniqueKey::new("another.task", "a"), Duration::from_secs(3600));
    assert!(
        !send(&broker, Message { unique: Some(Box::new(elsewhere)), ..message::<S>("q", 5) }).await.joined
    );
    expect::<S>(&broker, "q", count(3, 1, 0, 0)).await;
    assert_eq!(find(&broker, &TaskId::from("q-1")).await.expect("an answer"), None);
    if let Some(notes) = broker.notes() {
        let change =
            |value: &str| CompareAndSet { key: value.into(), expected: None, value: Some("1".into()) };
        let noted = notes.publish_with_cas(unique::<S>(6, "a"), change("x")).await.expect("a publish");
        assert!(
            matches!(noted, CasOutcome::Taken(receipt) if receipt.joined && receipt.id.as_str() == "q-0")
        );
        let noted = notes.publish_with_cas(unique::<S>(7, "noted"), change("y")).await.expect("a publish");
        assert!(matches!(noted, CasOutcome::Taken(receipt) if !receipt.joined));
        assert_eq!(joins::<S>(&broker, 8, "noted").await, is(7));
    }
    let mut inbox = Inbox::open(&broker, "q", 1);
    let first = inbox.next().await;
    assert_eq!((first.message().id.as_str(), holder(&broker, "a").await), ("q-0", is(0)));
    assert_eq!(joins::<S>(&broker, 9, "a").await, is(0));
    let retry = Message { retries: 1, ..Message::clone(first.message()) };
    let requeue = Settle::Requeue { message: Box::new(retry), due: Some(far()) };
    first.settle_and_wait(requeue).await.expect("a requeue");
    assert_eq!(joins::<S>(&broker, 9, "a").await, is(0));
}

/// A window ends with its task, whatever the end, and not when a message only goes back.
pub async fn a_window_ends_with_its_task<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 1);
    assert_eq!(joins::<S>(&broker, 0, "a").await, None);
    drop(inbox.next().await);
    assert_eq!(joins::<S>(&broker, 1, "a").await, is(0));
    let result = Some(success(&unique::<S>(0, "a")));
    let delivery = inbox.next().await;
    delivery.settle_and_wait(Settle::Ack { result, follow_ups: None }).await.expect("an acknowledgement");
    assert_eq!(holder(&broker, "a").await, None);

    assert_eq!(joins::<S>(&broker, 2, "a").await, None);
    let dead = Settle::DeadLetter { reason: "odd".into(), result: None, follow_ups: None };
    inbox.next().await.settle_and_wait(dead).await.expect("a dead letter");
    assert_eq!(joins::<S>(&broker, 3, "a").await, None);
    for _ in 0..S::DELIVERY_LIMIT {
        assert_eq!(joins::<S>(&broker, 4, "a").await, is(3));
        let mut delivery = inbox.next().await;
        assert_eq!(delivery.message().id.as_str(), "q-3");
        delivery.started();
        drop(delivery); // the drop stands for a worker that died
    }
    expect::<S>(&broker, "q", count(0, 0, 0, 2)).await;
    // Where the window lies in a store apart, it ends a moment after the message is a dead letter.
    let start = std::time::Instant::now();
    while joins::<S>(&broker, 5, "a").await.is_some() {
        assert!(start.elapsed() < PATIENCE, "the window of a dead letter does not end");
    }
    // A dead letter that was put back has no window, and its end ends no other task's window.
    assert_eq!(broker.requeue_dead_letter(&TaskId::from("q-2")).await, Ok(true));
    let [fifth, second] = [inbox.next().await, {
        inbox.set_prefetch(2);
        inbox.next().await
    }];
    assert_eq!(ids(&[second]), names("q", [2]));
    assert_eq!(holder(&broker, "a").await, is(5));
    ack(fifth).await;

    drop(inbox);
    assert_eq!(joins::<S>(&broker, 6, "b").await, None);
    if !broker.facts().knows_all {
        limits::in_part("a_window_ends_with_its_task");
        return;
    }
    let removed = inspect(&broker).remove(&TaskId::from("q-6"), Box::new(|_| None.into())).await;
    assert_eq!(removed, Ok(Removal::Removed));
    assert_eq!(joins::<S>(&broker, 7, "b").await, None);
}

/// A window passes by itself. The next task has a window of its own, which the end of the first does not end.
pub async fn a_window_passes<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 2);
    send(&broker, unique_for::<S>(0, "a", Duration::from_millis(1))).await;
    let start = std::time::Instant::now();
    while joins::<S>(&broker, 1, "a").await.is_some() {
        assert!(start.elapsed() < PATIENCE, "it does not pass");
    }
    let first = inbox.next().await;
    assert_eq!(ids(&[inbox.next().await]), names("q", [1]));
    ack(first).await;
    assert_eq!(holder(&broker, "a").await, is(1));
}

/// A window may end before its task does.
pub async fn a_window_ends_when_it_is_said<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 1);
    assert_eq!(joins::<S>(&broker, 0, "a").await, None);
    let first = inbox.next().await;
    windows(&broker).release(first.message()).await.expect("an end");
    assert_eq!(joins::<S>(&broker, 1, "a").await, None);
    windows(&broker).release(first.message()).await.expect("an end"); // the window is another task's by now, and stays
    assert_eq!(joins::<S>(&broker, 2, "a").await, is(1));
    ack(first).await;
    assert_eq!(joins::<S>(&broker, 3, "a").await, is(1));
}

/// Of many tasks that are published at once with one key, one is taken, again and again, while others settle what
/// was taken.
pub async fn of_many_duplicates_one_is_taken<S: BrokerUnderTest>() {
    const ROUNDS: usize = 20;
    const MANY: usize = 8;
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 100);
    for round in 0..ROUNDS {
        let publishes = (0..MANY).map(|n| {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move { joins::<S>(&broker, round * MANY + n, "a").await })
        });
        let joined = futures_util::future::try_join_all(publishes).await.expect("publishes");
        let delivery = inbox.next().await;
        let taken = delivery.message().id.to_string();
        assert_eq!(joined.iter().filter(|joined| joined.is_none()).count(), 1, "{joined:?}");
        assert!(joined.iter().flatten().all(|id| *id == taken), "{joined:?} are to join {taken}");
        ack(delivery).await;
    }
    inbox.is_quiet(&broker, "q").await;
}

/// A window is there after a restart and after a crash, and so is its end.
pub async fn windows_survive<S: BrokerUnderTest>() {
    let subject = S::open().await;
    for n in 0..2 {
        let text = ["a", "b"][n];
        assert_eq!(joins::<S>(&subject.broker(), n, text).await, None);
    }
    let subject = subject.reopen().await.expect("a durable broker");
    assert_eq!(joins::<S>(&subject.broker(), 2, "a").await, is(0));
    let subject = subject.crash().await.expect("a durable broker");
    let broker = subject.broker();
    assert_eq!(joins::<S>(&broker, 2, "a").await, is(0));
    let mut inbox = Inbox::open(&broker, "q", 1);
    ack(inbox.next().await).await;
    drop((inbox, broker));
    let subject = subject.crash().await.expect("a durable broker");
    let broker = subject.broker();
    assert_eq!(joins::<S>(&broker, 3, "a").await, None);
    assert_eq!(joins::<S>(&broker, 4, "b").await, is(1));
}

//! The promises about what a consumer has at a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A consumer never has more unsettled deliveries than its prefetch, and always as many as there are.
pub async fn prefetch_bounds_the_unsettled<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..30).await;
    let mut inbox = Inbox::open(&broker, "q", 7);
    let mut held = inbox.take(7).await;
    inbox.is_quiet(&broker, "q").await;
    expect::<S>(&broker, "q", count(23, 0, 7, 0)).await;
    for n in 7..30 {
        ack(held.remove(n % 7)).await;
        held.push(inbox.next().await);
        inbox.is_quiet(&broker, "q").await;
    }
    expect::<S>(&broker, "q", count(0, 0, 7, 0)).await;
}

/// A larger prefetch takes effect at once, and a smaller one as deliveries are settled; a prefetch of none stops
/// the deliveries.
pub async fn prefetch_can_change<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..20).await;
    let mut inbox = Inbox::open(&broker, "q", 0);
    inbox.is_quiet(&broker, "q").await;
    inbox.set_prefetch(2);
    let mut held = inbox.take(2).await;
    inbox.is_quiet(&broker, "q").await;
    inbox.set_prefetch(5);
    held.extend(inbox.take(3).await);
    inbox.is_quiet(&broker, "q").await;
    inbox.set_prefetch(3);
    ack(held.pop().expect("five")).await;
    ack(held.pop().expect("four")).await;
    inbox.is_quiet(&broker, "q").await;
    ack(held.pop().expect("three")).await;
    held.extend(inbox.take(1).await);
    inbox.is_quiet(&broker, "q").await;
    expect::<S>(&broker, "q", count(14, 0, 3, 0)).await;
    inbox.set_prefetch(0);
    held.into_iter().for_each(|d| d.settle(Settle::Ack { result: None, follow_ups: None }));
    inbox.is_quiet(&broker, "q").await;
    inbox.set_prefetch(100);
    assert_eq!(ids(&inbox.take(14).await), names("q", 6..20));
}

/// A new consumer replaces the old one. The old one keeps what it has until that is settled or dropped, and that
/// counts.
pub async fn a_replaced_consumer_keeps_what_it_has<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..10).await;
    let mut old = Inbox::open(&broker, "q", 3);
    let mut kept = old.take(3).await;
    if !S::ABILITIES.unstarted_keep_their_place {
        return replaced_out_of_order(&broker, old, kept).await;
    }
    let mut new = Inbox::open(&broker, "q", 5);
    assert_eq!(ids(&new.take(2).await), names("q", [3, 4]), "three of five are still out");
    let taken = new.take(2).await; // the dropped two come again
    assert_eq!(ids(&taken), names("q", [3, 4]));
    new.is_quiet(&broker, "q").await;
    old.set_prefetch(100); // the old consumer has no say any more
    new.is_quiet(&broker, "q").await;
    ack(kept.remove(0)).await;
    assert_eq!(ids(&new.take(1).await), names("q", [5]));
    let mut last = new.take(1).await;
    drop(kept); // 1 and 2 go back, and come to the new consumer
    last.extend(new.take(2).await);
    assert_eq!(ids(&last), names("q", [5, 1, 2]));
    old.is_quiet(&broker, "q").await;
    drop(old);
    new.is_quiet(&broker, "q").await;
    ack(last.remove(0)).await;
    assert_eq!(ids(&new.take(1).await), names("q", [6]), "the drop of the old one did not end the new one");
}

/// The same promise for brokers in which a message that goes back may come at any later time.
async fn replaced_out_of_order(broker: &Arc<dyn Broker>, mut old: Inbox, mut kept: Vec<Delivery>) {
    let mut new = Inbox::open(broker, "q", 5);
    let mut taken = new.take(2).await;
    new.is_quiet(broker, "q").await; // three of five are still unsettled
    ack(kept.remove(0)).await;
    taken.extend(new.take(1).await);
    new.is_quiet(broker, "q").await;
    drop(kept); // 1 and 2 go back
    taken.extend(new.take(2).await);
    old.is_quiet(broker, "q").await;
    drop(old);
    new.is_quiet(broker, "q").await;
    let mut came = ids(&taken);
    while came.len() < 9 {
        ack(taken.remove(0)).await; // the drop of the old consumer did not end the new one
        taken.extend(new.take(1).await);
        came.extend(ids(&taken[4..]));
    }
    same(came, names("q", 1..10), false);
}

/// A dropped consumer gets nothing more. What it had may still be settled, and the rest waits for the next
/// consumer.
pub async fn a_dropped_consumer_gets_nothing_more<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..6).await;
    let mut inbox = Inbox::open(&broker, "q", 3);
    let mut held = inbox.take(3).await;
    drop(inbox);
    ack(held.remove(0)).await;
    put(&broker, message::<S>("q", 6)).await;
    expect::<S>(&broker, "q", count(4, 0, 2, 0)).await;
    drop(held);
    expect::<S>(&broker, "q", count(6, 0, 0, 0)).await;
    let mut next = Inbox::open(&broker, "q", 10);
    same(ids(&next.take(6).await), names("q", 1..7), S::ABILITIES.unstarted_keep_their_place);
}

/// What happens in one queue does not hold up another.
pub async fn queues_are_independent<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    for queue in ["a", "b", "c"] {
        broker.declare(queue).await.expect("a queue");
        publish::<S>(&broker, queue, 0..3).await;
    }
    let mut a = Inbox::open(&broker, "a", 1);
    let held = a.next().await;
    let mut b = Inbox::open(&broker, "b", 10);
    assert_eq!(ids(&b.take(3).await), names("b", 0..3));
    expect::<S>(&broker, "c", count(3, 0, 0, 0)).await;
    expect::<S>(&broker, "nobody knows it", count(0, 0, 0, 0)).await;
    ack(held).await;
    assert_eq!(ids(&a.take(1).await), names("a", [1]));
}

/// A sink may settle deliveries while it is called.
pub async fn settling_in_the_sink<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let sink = Arc::new(move |batch: Vec<Delivery>| {
        for delivery in batch {
            let _ = sender.send(delivery.message().id.to_string());
            delivery.settle(Settle::Ack { result: None, follow_ups: None });
        }
    });
    let messages = (0..500).map(|n| broker.publish(message::<S>("q", n), false));
    futures_util::future::try_join_all(messages).await.expect("publishes");
    let _consumer = broker.consume("q", 1, sink).expect("a consumer");
    for n in 0..500 {
        let id = tokio::time::timeout(PATIENCE, seen.recv()).await.expect("a delivery in time");
        assert_eq!(id, Some(format!("q-{n}")));
    }
    expect::<S>(&broker, "q", count(0, 0, 0, 0)).await;
}

/// A sink that panics is not called again; what it was given goes to the next consumer.
pub async fn a_sink_that_panics_loses_nothing<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let sink = Arc::new(move |_: Vec<Delivery>| {
        called.fetch_add(1, Ordering::SeqCst);
        panic!("a sink of the conformance suite panics, as it should");
    });
    let _consumer = broker.consume("q", 2, sink).expect("a consumer");
    publish::<S>(&broker, "q", 0..3).await;
    expect::<S>(&broker, "q", count(3, 0, 0, 0)).await;
    let mut inbox = Inbox::open(&broker, "q", 5);
    same(ids(&inbox.take(3).await), names("q", 0..3), S::ABILITIES.unstarted_keep_their_place);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// Several producers publish at once, and a consumer settles as it gets: every message comes once, and each
/// producer's messages come in order.
pub async fn every_message_exactly_once<S: BrokerUnderTest>() {
    const PRODUCERS: usize = 8;
    const EACH: usize = 200;
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 10);
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..PRODUCERS {
        let broker = Arc::clone(&broker);
        producers.spawn(async move {
            for n in 0..EACH {
                put(&broker, message::<S>("q", producer * EACH + n)).await;
            }
        });
    }
    let mut last: HashMap<usize, usize> = HashMap::new();
    let mut settling = tokio::task::JoinSet::new();
    for _ in 0..PRODUCERS * EACH {
        let delivery = inbox.next().await;
        let n: usize = delivery.message().id.as_str()[2..].parse().expect("a number");
        let before = last.insert(n / EACH, n % EACH);
        assert_eq!(n % EACH, before.map_or(0, |b| b + 1), "of producer {}", n / EACH);
        settling.spawn(ack(delivery));
    }
    producers.join_all().await;
    settling.join_all().await;
    inbox.is_quiet(&broker, "q").await;
    expect::<S>(&broker, "q", count(0, 0, 0, 0)).await;
}

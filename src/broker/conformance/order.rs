//! The promises about the order in which messages come, and when.

use std::time::Duration;

use super::*;

/// The receipt of a publish says what was promised.
pub async fn receipt_tells_the_durability<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let receipt = subject.broker().publish(message::<S>("q", 7), false).await.expect("a publish");
    assert_eq!(receipt.id.as_str(), "q-7");
    assert_eq!(receipt.queue, "q");
    assert_eq!(receipt.durability, S::DURABILITY);
}

/// Messages come in the order of their arrival, those that waited before the consumer came and those that come
/// after it.
pub async fn first_in_first_out<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..50).await;
    let mut inbox = Inbox::open(&broker, "q", 3);
    publish::<S>(&broker, "q", 50..100).await;
    for n in 0..100 {
        let delivery = inbox.next().await;
        assert_eq!(delivery.message().id.as_str(), format!("q-{n}"));
        assert_eq!(
            **delivery.message(),
            Message {
                enqueued_at: delivery.message().enqueued_at,
                // A broker that other programs use says who has sent the message.
                workflow: delivery.message().workflow.clone(),
                ..message::<S>("q", n)
            }
        );
        delivery.settle(Settle::Ack { result: None, follow_ups: None });
    }
    inbox.is_quiet(&broker, "q").await;
}

/// A message of a higher priority comes first; those of the same priority come in the order of their arrival.
pub async fn high_priority_first<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    for (n, priority) in [0, 9, 255, 9, 0, 128].into_iter().enumerate() {
        put(&broker, Message { priority, ..message::<S>("q", n) }).await;
    }
    let mut inbox = Inbox::open(&broker, "q", 1);
    let mut order = Vec::new();
    for _ in 0..6 {
        let delivery = inbox.next().await;
        order.push(delivery.message().id.to_string());
        ack(delivery).await;
    }
    let expected = if S::ABILITIES.priorities { [2, 5, 1, 3, 0, 4] } else { [0, 1, 2, 3, 4, 5] };
    assert_eq!(order, names("q", expected));
}

/// An urgent message behind a full prefetch comes as soon as one place is free.
pub async fn urgent_overtakes_a_full_prefetch<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..20).await;
    let mut inbox = Inbox::open(&broker, "q", 5);
    let mut held = inbox.take(5).await;
    put(&broker, Message { priority: 9, ..message::<S>("q", 99) }).await;
    inbox.is_quiet(&broker, "q").await;
    ack(held.remove(2)).await;
    if !S::ABILITIES.priorities {
        limits::in_part("urgent_overtakes_a_full_prefetch");
        assert_eq!(ids(&inbox.take(1).await), names("q", [5]), "no urgent ones are known");
        return;
    }
    assert_eq!(inbox.next().await.message().id.as_str(), "q-99");
    // The urgent message went back by the drop, so it comes again, before the rest.
    assert_eq!(ids(&inbox.take(1).await), names("q", [99]));
}

/// No message comes before its ETA, and each comes promptly then. An ETA in the past counts as none.
pub async fn eta_is_kept<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 10);
    put(&broker, Message { eta: Some(far()), ..message::<S>("q", 0) }).await;
    put(&broker, Message { eta: Some(now() - Duration::from_secs(1)), ..message::<S>("q", 3) }).await;
    // Late enough for both of them to be there before it.
    let eta = now() + Duration::from_secs(3);
    put(&broker, Message { eta: Some(eta + Duration::from_millis(100)), ..message::<S>("q", 1) }).await;
    put(&broker, Message { eta: Some(eta), ..message::<S>("q", 2) }).await;
    for (n, due) in [(3, Timestamp::ZERO), (2, eta), (1, eta + Duration::from_millis(100))] {
        let delivery = inbox.next().await;
        let at = now();
        assert_eq!(delivery.message().id.as_str(), format!("q-{n}"));
        assert!(at >= due, "{:?} too early", due.since(at));
        assert!(n == 3 || at.since(due) < PATIENCE, "{:?} too late", at.since(due));
        delivery.settle(Settle::Ack { result: None, follow_ups: None });
    }
    inbox.is_quiet(&broker, "q").await;
    expect::<S>(&broker, "q", count(0, 1, 0, 0)).await;
}

/// Many messages of one ETA come together, by priority and then by arrival, even if nobody consumed when they came
/// due.
pub async fn etas_due_together<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let eta = now() + Duration::from_millis(400);
    let mut publishes = tokio::task::JoinSet::new();
    for queue in ["early", "late"] {
        let broker = Arc::clone(&broker);
        publishes.spawn(async move {
            let messages =
                (0..500).map(|n| broker.publish(Message { eta: Some(eta), ..message::<S>(queue, n) }, false));
            futures_util::future::try_join_all(messages).await.expect("publishes");
        });
    }
    publishes.join_all().await;
    let mut early = Inbox::open(&broker, "early", 1000);
    let taken = early.take(500).await;
    assert!(now() >= eta);
    assert_eq!(ids(&taken), names("early", 0..500));
    let mut late = Inbox::open(&broker, "late", 1000);
    assert_eq!(ids(&late.take(500).await), names("late", 0..500));
    expect::<S>(&broker, "late", count(0, 0, 500, 0)).await;
}

/// A requeued message waits for its time, and the rest does not wait for it.
pub async fn requeue_waits_for_its_time<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..2).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let first = inbox.next().await;
    let due = now() + Duration::from_secs(2);
    let again = Message { retries: 1, ..Message::clone(first.message()) };
    first.settle(Settle::Requeue { message: Box::new(again), due: Some(due) });
    let second = inbox.next().await;
    assert_eq!(second.message().id.as_str(), "q-1");
    ack(second).await;
    let again = inbox.next().await;
    assert!(now() >= due);
    assert_eq!((again.message().id.as_str(), again.message().retries), ("q-0", 1));
}

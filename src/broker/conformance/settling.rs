//! The promises about how deliveries end.

use super::*;
use crate::broker::MessageLocation;

/// An acknowledged message is gone.
pub async fn ack_removes<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..1).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let delivery = inbox.next().await;
    let id = delivery.message().id.clone();
    ack(delivery).await;
    inbox.is_quiet(&broker, "q").await;
    expect::<S>(&broker, "q", count(0, 0, 0, 0)).await;
    assert_eq!(find(&broker, &id).await, Ok(None));
}

/// A result that goes with an acknowledgement is in the store when that is safe, and wakes those who wait for it.
pub async fn ack_leaves_the_result<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    publish::<S>(&broker, "q", 0..1).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let delivery = inbox.next().await;
    let id = delivery.message().id.clone();
    assert_eq!(store.get(&id, now()).await, Ok(None));
    let waiting = tokio::spawn({
        let (store, id) = (Arc::clone(&store), id.clone());
        async move { store.wait(&id).await }
    });
    let result = success(delivery.message());
    delivery
        .settle_and_wait(Settle::Ack { result: Some(result.clone()), follow_ups: None })
        .await
        .expect("an acknowledgement");
    let result = as_kept(&broker, &store, result);
    assert_eq!(store.get(&id, now()).await, Ok(Some(result.clone())));
    let woken = tokio::time::timeout(PATIENCE, waiting).await.expect("woken in time");
    assert_eq!(woken.expect("no panic"), Ok(result));
}

/// A delivery that is dropped before it started goes back as it was.
pub async fn unstarted_goes_back_unburnt<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..1).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let before = Message::clone(inbox.next().await.message());
    let again = inbox.next().await;
    assert_eq!(**again.message(), before);
    again.settle_and_wait(Settle::Return { crashed: false }).await.expect("a return");
    assert_eq!(**inbox.next().await.message(), before);
}

/// A delivery that is dropped after its start goes back with a crash counted.
pub async fn started_goes_back_with_a_crash<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..1).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let mut delivery = inbox.next().await;
    delivery.started();
    drop(delivery);
    let mut delivery = inbox.next().await;
    assert_eq!(delivery.message().crashes, 1);
    delivery.started();
    delivery.settle(Settle::Return { crashed: false }); // a shutdown, which counts no crash
    assert_eq!(inbox.next().await.message().crashes, 1);
}

/// A message that goes back is where it was: before those that came after it.
pub async fn what_goes_back_keeps_its_place<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..8).await;
    let mut inbox = Inbox::open(&broker, "q", 5);
    let held = inbox.take(5).await;
    inbox.set_prefetch(0);
    for mut delivery in held.into_iter().rev() {
        if delivery.tag() % 2 == 0 {
            delivery.started();
        }
        drop(delivery);
    }
    expect::<S>(&broker, "q", count(8, 0, 0, 0)).await;
    inbox.set_prefetch(8);
    let again = inbox.take(8).await;
    let Abilities { unstarted_keep_their_place, crashed_keep_their_place, .. } = S::ABILITIES;
    same(ids(&again), names("q", 0..8), unstarted_keep_their_place && crashed_keep_their_place);
    if unstarted_keep_their_place && !crashed_keep_their_place {
        assert!(again.is_sorted_by_key(|d| d.message().crashes), "crashed ones are at the end: {again:?}");
        let calm = ids(&again).into_iter().take(again.iter().filter(|d| d.message().crashes == 0).count());
        assert!(calm.is_sorted(), "the others keep their order: {again:?}");
    }
    assert_eq!(again.iter().filter(|d| d.message().crashes == 1).count() / 2, 1, "two or three of five");
}

/// A message becomes a dead letter that says so when its runs have ended with their worker too often.
pub async fn the_delivery_limit_makes_a_dead_letter<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let keeps = S::ABILITIES.crashed_keep_their_place;
    publish::<S>(&broker, "q", if keeps { 0..2 } else { 0..1 }).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    for run in 0..S::DELIVERY_LIMIT {
        let mut delivery = inbox.next().await;
        assert_eq!((delivery.message().id.as_str(), delivery.message().crashes), ("q-0", run));
        delivery.started();
    }
    if !keeps {
        publish::<S>(&broker, "q", 1..2).await;
    }
    assert_eq!(inbox.next().await.message().id.as_str(), "q-1");
    let letters = broker.dead_letters(10).await.expect("dead letters");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].message.id.as_str(), "q-0");
    assert!(letters[0].reason.starts_with("WorkerLost"), "{}", letters[0].reason);
    if broker.results().is_some() {
        let store = subject.store();
        let record = tokio::time::timeout(PATIENCE, store.wait(&letters[0].message.id)).await;
        let record = record.expect("a record in time").expect("a store");
        assert_eq!((record.state, record.error_type.as_deref()), (State::Failure, Some("WorkerLost")));
        assert_eq!(record.attempts, S::DELIVERY_LIMIT);
    }
}

/// A requeue puts another message of the same id in the place of the delivered one: never both, never none.
pub async fn requeue_replaces<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..3).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let delivery = inbox.next().await;
    let next = Message { continuations: 1, ..Message::clone(delivery.message()) };
    let requeue = Settle::Requeue { message: Box::new(next.clone()), due: None };
    delivery.settle_and_wait(requeue).await.expect("a requeue");
    expect::<S>(&broker, "q", count(2, 0, 1, 0)).await;
    let is_known =
        find(&broker, &next.id).await == Ok(Some(MessageLocation::Waiting(Box::new(next.clone()))));
    assert_eq!(is_known, broker.facts().knows_all);
    for n in [1, 2] {
        let delivery = inbox.next().await;
        assert_eq!(delivery.message().id.as_str(), format!("q-{n}"));
        ack(delivery).await;
    }
    let delivery = inbox.next().await;
    assert_eq!(**delivery.message(), next);
    let later = Settle::Requeue { message: Box::new(next.clone()), due: Some(far()) };
    delivery.settle_and_wait(later).await.expect("a requeue");
    expect::<S>(&broker, "q", count(0, 1, 0, 0)).await;
    assert_eq!(
        matches!(find(&broker, &next.id).await, Ok(Some(MessageLocation::Waiting(_)))),
        broker.facts().knows_all
    );
}

/// A requeue may name another queue: the message waits there from then on, and is gone from its old one.
pub async fn requeue_moves_to_another_queue<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..2).await;
    let (mut inbox, mut other) = (Inbox::open(&broker, "q", 1), Inbox::open(&broker, "other", 1));
    let delivery = inbox.next().await;
    let next = Message { queue: "other".to_owned(), ..Message::clone(delivery.message()) };
    let requeue = Settle::Requeue { message: Box::new(next.clone()), due: None };
    delivery.settle_and_wait(requeue).await.expect("a requeue");
    let moved = other.next().await;
    assert_eq!(**moved.message(), next);
    let stays = inbox.next().await;
    assert_eq!(stays.message().id.as_str(), "q-1");
    expect::<S>(&broker, "q", count(0, 0, 1, 0)).await;
    expect::<S>(&broker, "other", count(0, 0, 1, 0)).await;
    for delivery in [moved, stays] {
        ack(delivery).await;
    }
    for queue in ["q", "other"] {
        expect::<S>(&broker, queue, count(0, 0, 0, 0)).await;
    }
}

/// Many dead letters are put back at once, and the others stay.
pub async fn many_are_requeued<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    for n in 0..60 {
        put(&broker, message::<S>("q", n)).await;
    }
    let mut inbox = Inbox::open(&broker, "q", 60);
    for delivery in inbox.take(60).await {
        let end = Settle::DeadLetter { reason: "why not".to_owned(), result: None, follow_ups: None };
        delivery.settle_and_wait(end).await.expect("a dead letter");
    }
    let ids: Vec<TaskId> = (0..60).filter(|n| n % 3 > 0).map(|n| TaskId::from(format!("q-{n}"))).collect();
    let mut requeued = broker.requeue_dead_letters(&ids).await.expect("a requeue");
    requeued.sort_by_key(|id| ids.iter().position(|known| known == id));
    assert_eq!(requeued, ids);
    let mut came: Vec<TaskId> = Vec::new();
    for delivery in inbox.take(40).await {
        came.push(delivery.message().id.clone());
        ack(delivery).await;
    }
    came.sort_by_key(|id| ids.iter().position(|known| known == id));
    assert_eq!(came, ids);
    expect::<S>(&broker, "q", count(0, 0, 0, 20)).await;
    let left = broker.dead_letters(100).await.expect("dead letters");
    assert!(left.iter().all(|letter| !ids.contains(&letter.message.id)) && left.len() == 20);
}

/// Dead letters are kept, oldest first, with reason and record, and can be put back.
pub async fn dead_letters_and_requeue<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    for n in 0..3 {
        put(&broker, Message { retries: 2, crashes: 1, ..message::<S>("q", n) }).await;
    }
    let mut inbox = Inbox::open(&broker, "q", 3);
    for (n, delivery) in inbox.take(3).await.into_iter().enumerate() {
        let result =
            Some(TaskResult { state: State::Rejected, ..success(delivery.message()) }).filter(|_| n == 1);
        let end = Settle::DeadLetter { reason: format!("reason {n}"), result, follow_ups: None };
        delivery.settle_and_wait(end).await.expect("a dead letter");
    }
    expect::<S>(&broker, "q", count(0, 0, 0, 3)).await;
    let letters = broker.dead_letters(10).await.expect("dead letters");
    let reasons: Vec<_> = letters.iter().map(|l| (l.message.id.as_str(), l.reason.as_str())).collect();
    assert_eq!(reasons, [("q-0", "reason 0"), ("q-1", "reason 1"), ("q-2", "reason 2")]);
    assert_eq!(broker.dead_letters(2).await.expect("dead letters"), letters[..2]);
    let id = &letters[1].message.id;
    if broker.results().is_some() {
        assert_eq!(store.get(id, now()).await.expect("a store").map(|r| r.state), Some(State::Rejected));
    }
    assert_eq!(find(&broker, id).await, Ok(None));

    assert_eq!(broker.requeue_dead_letter(id).await, Ok(true));
    assert_eq!(broker.requeue_dead_letter(id).await, Ok(false), "it is no dead letter any more");
    assert_eq!(broker.requeue_dead_letters(&[id.clone(), TaskId::from("nobody")]).await, Ok(vec![]));
    let requeued = inbox.next().await;
    assert_eq!(requeued.message().id, *id);
    assert_eq!((requeued.message().retries, requeued.message().crashes), (0, 0));
    assert_eq!(store.get(id, now()).await, Ok(None), "it is not over any more");
    expect::<S>(&broker, "q", count(0, 0, 1, 2)).await;
    let result = success(requeued.message());
    requeued
        .settle_and_wait(Settle::Ack { result: Some(result.clone()), follow_ups: None })
        .await
        .expect("an acknowledgement");
    if broker.results().is_some() {
        assert_eq!(store.get(id, now()).await, Ok(Some(as_kept(&broker, &store, result))));
    }
}

/// A delivery is settled once: a second settlement is refused, without effect.
pub async fn settled_once<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..1).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let first = inbox.next().await;
    let (stale_tag, settler) = (first.tag(), first.settler().expect("unsettled"));
    let settle = |tag, end| {
        let (done, verdict) = tokio::sync::oneshot::channel();
        settler.settle(tag, end, Some(done));
        verdict
    };
    // The delivery was given up and returned, and the message runs again elsewhere.
    let returned = settle(stale_tag, Settle::Return { crashed: true });
    returned.await.expect("a verdict").expect("a return");
    let second = inbox.next().await;
    assert_ne!(second.tag(), stale_tag);
    for end in [
        Settle::Ack { result: Some(success(second.message())), follow_ups: None },
        Settle::Return { crashed: true },
        Settle::DeadLetter { reason: "stale".to_owned(), result: None, follow_ups: None },
        Settle::Requeue { message: Box::new(message::<S>("q", 0)), due: None },
    ] {
        let verdict = settle(stale_tag, end).await.expect("a verdict");
        assert_eq!(verdict, Err(crate::broker::BrokerError::Stale));
    }
    drop(first); // this drop is too late as well
    inbox.is_quiet(&broker, "q").await;
    expect::<S>(&broker, "q", count(0, 0, 1, 0)).await;
    assert_eq!(subject.store().get(&second.message().id, now()).await, Ok(None));
    ack(second).await;
    expect::<S>(&broker, "q", count(0, 0, 0, 0)).await;
}

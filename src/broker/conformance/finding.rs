//! What a broker knows of its tasks.

use super::*;
use crate::broker::{BrokerError, Place, Removal};

/// An id is taken while its task waits, is scheduled or runs, and while its result is kept.
pub async fn unique_ids_are_refused<S: Subject>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    let again = || message::<S>("q", 0);
    let refused = Err(BrokerError::DuplicateId(again().id));
    let publish = async || broker.publish(again(), true).await.map(|_| ());
    assert_eq!(publish().await, Ok(()));
    if !broker.knows_all() {
        // It cannot know, and takes it: whoever sends an id twice has it run twice.
        assert_eq!(publish().await, Ok(()));
        let mut inbox = Inbox::open(&broker, "q", 2);
        assert_eq!(ids(&inbox.take(2).await), names("q", [0, 0]));
        return;
    }
    assert_eq!(publish().await, refused, "it waits");
    let mut inbox = Inbox::open(&broker, "q", 1);
    let delivery = inbox.next().await;
    assert_eq!(publish().await, refused, "it runs");
    let later = Settle::Requeue { message: Box::new(again()), due: Some(far()) };
    delivery.settle_and_wait(later).await.expect("a requeue");
    assert_eq!(publish().await, refused, "it is scheduled");
    expect::<S>(&broker, "q", count(0, 1, 0, 0)).await;

    // Two at once: one of them is taken.
    let two = [message::<S>("two", 1), message::<S>("two", 1)];
    let taken = futures_util::future::join_all(two.map(|m| broker.publish(m, true))).await;
    assert_eq!(taken.iter().filter(|t| t.is_ok()).count(), 1);

    let mut inbox = Inbox::open(&broker, "two", 1);
    let delivery = inbox.next().await;
    let id = delivery.message().id.clone();
    if broker.settles_results() {
        let result = success(delivery.message());
        delivery
            .settle_and_wait(Settle::Ack { result: Some(result), sequel: None })
            .await
            .expect("an acknowledgement");
        let kept = broker.publish(message::<S>("two", 1), true).await;
        assert_eq!(kept, Err(BrokerError::DuplicateId(id.clone())), "its result is kept");
        assert_eq!(store.forget(&id).await, Ok(true));
    } else {
        ack(delivery).await;
    }
    broker.publish(message::<S>("two", 1), true).await.expect("free again");
    let delivery = inbox.next().await;
    if broker.settles_results() {
        let expired = TaskResult { expires_at: now(), ..success(delivery.message()) };
        delivery
            .settle_and_wait(Settle::Ack { result: Some(expired), sequel: None })
            .await
            .expect("an acknowledgement");
        broker.publish(message::<S>("two", 1), true).await.expect("free when its result has expired");
    }
}

/// A task is found while it waits, ready or scheduled, and while it is delivered; else not.
pub async fn find_tells_the_place<S: Subject>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let ready = message::<S>("q", 0);
    let scheduled = Message { eta: Some(far()), ..message::<S>("q", 1) };
    assert_eq!(broker.find(&ready.id).await, Ok(None));
    put(&broker, ready.clone()).await;
    put(&broker, scheduled.clone()).await;
    if !broker.knows_all() {
        for message in [&ready, &scheduled] {
            assert_eq!(broker.find(&message.id).await, Ok(None), "what waits is not known");
        }
        let mut inbox = Inbox::open(&broker, "q", 5);
        let delivery = inbox.next().await;
        assert_eq!(broker.find(&ready.id).await, Ok(Some(Place::Delivered { queue: "q".to_owned() })));
        ack(delivery).await;
        assert_eq!(broker.find(&ready.id).await, Ok(None));
        return;
    }
    for message in [&ready, &scheduled] {
        assert_eq!(broker.find(&message.id).await, Ok(Some(Place::Waiting(Box::new(message.clone())))));
    }
    let mut inbox = Inbox::open(&broker, "q", 5);
    let delivery = inbox.next().await;
    assert_eq!(broker.find(&ready.id).await, Ok(Some(Place::Delivered { queue: "q".to_owned() })));
    assert!(matches!(broker.find(&scheduled.id).await, Ok(Some(Place::Waiting(_)))));
    inbox.set_prefetch(0);
    delivery.settle_and_wait(Settle::Return { crashed: false }).await.expect("a return");
    assert!(matches!(broker.find(&ready.id).await, Ok(Some(Place::Waiting(_)))));
}

/// A waiting task is taken out and leaves its record; a delivered one is named; an unknown one is unknown.
pub async fn remove_takes_out_what_waits<S: Subject>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    publish::<S>(&broker, "q", 0..3).await;
    put(&broker, Message { eta: Some(far()), ..message::<S>("q", 3) }).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let delivery = inbox.next().await;
    let revoked = async |id: &TaskId| {
        let record = |m: &Message| Some(TaskResult { state: State::Revoked, ..success(m) }).into();
        broker.remove(id, Box::new(record)).await
    };
    let delivered = Removal::Delivered { queue: "q".to_owned() };
    assert_eq!(revoked(&TaskId::from("q-0")).await, Ok(delivered));
    assert_eq!(revoked(&TaskId::from("q-99")).await, Ok(Removal::Unknown));
    if !broker.knows_all() {
        // It waits on: the runtime will not start it, for the store says that it is revoked.
        assert_eq!(revoked(&TaskId::from("q-1")).await, Ok(Removal::Unknown));
        assert_eq!(broker.tell_revoked(&[TaskId::from("q-1")], false).await, Ok(()));
        ack(delivery).await;
        assert_eq!(inbox.next().await.message().id.as_str(), "q-1");
        return;
    }
    for n in [1, 3] {
        let id = TaskId::from(format!("q-{n}"));
        let waiting = tokio::spawn({
            let (store, id) = (Arc::clone(&store), id.clone());
            async move { store.wait(&id).await }
        });
        assert_eq!(revoked(&id).await, Ok(Removal::Removed));
        assert_eq!(broker.find(&id).await, Ok(None));
        assert_eq!(revoked(&id).await, Ok(Removal::Unknown));
        let record = store.get(&id, now()).await.expect("a store").expect("a record");
        assert_eq!(record.state, State::Revoked);
        let woken = tokio::time::timeout(PATIENCE, waiting).await.expect("woken in time");
        assert_eq!(woken.expect("no panic"), Ok(record));
    }
    expect::<S>(&broker, "q", count(1, 0, 1, 0)).await;
    ack(delivery).await;
    assert_eq!(inbox.next().await.message().id.as_str(), "q-2");
    let silent = message::<S>("other", 0);
    put(&broker, silent.clone()).await;
    assert_eq!(broker.remove(&silent.id, Box::new(|_| None.into())).await, Ok(Removal::Removed));
    assert_eq!(store.get(&silent.id, now()).await, Ok(None));
}

/// The counts are right at each step of a life.
pub async fn counts_at_each_step<S: Subject>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let is = async |ready, scheduled, unsettled, dead| {
        expect::<S>(&broker, "q", count(ready, scheduled, unsettled, dead)).await;
    };
    is(0, 0, 0, 0).await;
    publish::<S>(&broker, "q", 0..4).await;
    is(4, 0, 0, 0).await;
    put(&broker, Message { eta: Some(far()), ..message::<S>("q", 4) }).await;
    is(4, 1, 0, 0).await;
    let mut inbox = Inbox::open(&broker, "q", 2);
    let mut held = inbox.take(2).await;
    is(2, 1, 2, 0).await;
    held[0].started();
    is(2, 1, 2, 0).await;
    inbox.set_prefetch(1);
    held.remove(0).settle(Settle::DeadLetter { reason: "why not".to_owned(), result: None, sequel: None });
    is(2, 1, 1, 1).await;
    inbox.set_prefetch(0);
    let delivery = held.remove(0);
    let later = Message::clone(delivery.message());
    delivery.settle(Settle::Requeue { message: Box::new(later), due: Some(far()) });
    is(2, 2, 0, 1).await;
    inbox.set_prefetch(1);
    let delivery = inbox.next().await;
    inbox.set_prefetch(0);
    drop(delivery);
    is(2, 2, 0, 1).await;
    inbox.set_prefetch(1);
    let mut delivery = inbox.next().await;
    inbox.set_prefetch(0);
    delivery.started();
    drop(delivery);
    is(2, 2, 0, 1).await;
    assert_eq!(broker.revive(&TaskId::from("q-0")).await, Ok(true));
    is(3, 2, 0, 0).await;
    inbox.set_prefetch(3);
    for delivery in inbox.take(3).await {
        ack(delivery).await;
    }
    is(0, 2, 0, 0).await;
}

/// After its close a broker says so, and what is still out there can be dropped or settled without harm.
pub async fn closed_is_closed<S: Subject>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..2).await;
    let mut inbox = Inbox::open(&broker, "q", 2);
    let mut held = inbox.take(2).await;
    broker.close().await.expect("closes");
    assert_eq!(broker.publish(message::<S>("q", 9), false).await, Err(BrokerError::Closed));
    assert_eq!(broker.counts("q").await, Err(BrokerError::Closed));
    assert_eq!(broker.find(&TaskId::from("q-0")).await, Err(BrokerError::Closed));
    assert!(broker.consume("q", 1, Arc::new(|_| {})).is_err());
    let late = held.remove(0).settle_and_wait(Settle::Ack { result: None, sequel: None }).await;
    assert_eq!(late, Err(BrokerError::Closed));
    drop(held);
    inbox.set_prefetch(5);
}

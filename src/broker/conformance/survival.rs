//! The promises about what survives a restart and a crash, for durable brokers.

use std::collections::BTreeSet;

use super::failed::{failures, numbers, task_ids};
use super::*;
use crate::broker::{BrokerError, TaskFilter};

async fn reopen<S: BrokerUnderTest>(subject: S) -> S {
    subject.reopen().await.expect("a durable broker can be opened again")
}

async fn crash<S: BrokerUnderTest>(subject: S) -> S {
    subject.crash().await.expect("a durable broker survives a crash")
}

/// Waiting messages are there again, in order, the scheduled ones too, and the counts are the same.
pub async fn what_waits_survives<S: BrokerUnderTest>() {
    let mut subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..20).await;
    put(&broker, Message { priority: 9, ..message::<S>("q", 20) }).await;
    for n in [21, 22] {
        put(&broker, Message { eta: Some(far()), ..message::<S>("q", n) }).await;
    }
    publish::<S>(&broker, "other", 0..1).await;
    drop(broker);
    for round in 0..4 {
        subject = if round % 2 == 0 { reopen(subject).await } else { crash(subject).await };
        expect::<S>(&subject.broker(), "q", count(21, 2, 0, 0)).await;
        expect::<S>(&subject.broker(), "other", count(1, 0, 0, 0)).await;
    }
    // One that comes due afterwards; before, it would become ready while the test counts.
    let eta = now() + std::time::Duration::from_millis(1500);
    put(&subject.broker(), Message { eta: Some(eta), ..message::<S>("q", 23) }).await;
    subject = crash(subject).await;
    let mut inbox = Inbox::open(&subject.broker(), "q", 30);
    let mut came = Vec::new();
    while came.len() < 22 {
        let delivery = inbox.next().await;
        assert!(now() >= eta || delivery.message().id.as_str() != "q-23", "too early");
        came.push(delivery);
    }
    let mut came = ids(&came);
    came.retain(|id| id != "q-23");
    let order = if S::ABILITIES.priorities { names("q", [20]) } else { names("q", 0..20) };
    let rest = if S::ABILITIES.priorities { names("q", 0..20) } else { names("q", [20]) };
    assert_eq!(came, [order, rest].concat());
}

/// A settled message does not come back, and its result is kept.
pub async fn what_is_settled_stays_settled<S: BrokerUnderTest>() {
    let mut subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..10).await;
    let mut inbox = Inbox::open(&broker, "q", 10);
    let mut held = inbox.take(10).await;
    let last = held.split_off(8);
    let mut results = Vec::new();
    for delivery in held {
        results.push(success(delivery.message()));
        let result = results.last().cloned();
        delivery.settle_and_wait(Settle::Ack { result, follow_ups: None }).await.expect("an acknowledgement");
    }
    for delivery in last {
        let message = Box::new(Message { retries: 1, ..Message::clone(delivery.message()) });
        delivery.settle_and_wait(Settle::Requeue { message, due: None }).await.expect("a requeue");
    }
    drop((broker, inbox));
    for round in 0..2 {
        subject = if round == 0 { crash(subject).await } else { reopen(subject).await };
        let broker = subject.broker();
        expect::<S>(&broker, "q", count(2, 0, 0, 0)).await;
        if broker.results().is_some() {
            for result in &results {
                let (store, result) = (subject.store(), result.clone());
                let kept = Ok(Some(as_kept(&broker, &store, result.clone())));
                assert_eq!(store.get(&result.id, now()).await, kept);
            }
            if broker.facts().knows_all {
                let again = broker.publish(message::<S>("q", 0), true).await;
                assert_eq!(again, Err(BrokerError::DuplicateId(TaskId::from("q-0"))));
            }
        }
    }
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 10);
    let came = inbox.take(2).await;
    same(ids(&came), names("q", [8, 9]), S::ABILITIES.crashed_keep_their_place);
    assert!(came.iter().all(|d| d.message().retries == 1));
}

/// After a crash, a message that had started comes back with a crash counted, and another one as it was, each to
/// its place.
pub async fn crashes_are_counted<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..6).await;
    let mut inbox = Inbox::open(&broker, "q", 5);
    let mut held = inbox.take(5).await;
    for n in [0, 1, 3, 4] {
        held[n].started();
    }
    held.remove(4).settle_and_wait(Settle::Return { crashed: false }).await.expect("a return");
    ack(held.remove(0)).await;
    held.extend(inbox.take(2).await); // the message that was returned, and the last one
    expect::<S>(&broker, "q", count(0, 0, 5, 0)).await;
    let subject = crash(subject).await;
    drop((held, inbox, broker));
    let broker = subject.broker();
    expect::<S>(&broker, "q", count(5, 0, 0, 0)).await;
    let mut inbox = Inbox::open(&broker, "q", 10);
    let came = inbox.take(5).await;
    if !S::ABILITIES.first_crash_is_counted {
        return crashes_from_the_second_on(subject, inbox, came).await;
    }
    let crashes: Vec<_> = came.iter().map(|d| (d.message().id.to_string(), d.message().crashes)).collect();
    let expected = [("q-1", 1), ("q-2", 0), ("q-3", 1), ("q-4", 0), ("q-5", 0)];
    assert_eq!(crashes, expected.map(|(id, crashes)| (id.to_owned(), crashes)));
    drop((came, inbox, broker));

    // The crash is counted once, since nothing had started after it.
    let subject = crash(subject).await;
    let mut inbox = Inbox::open(&subject.broker(), "q", 10);
    let crashes: Vec<_> = inbox.take(5).await.iter().map(|d| d.message().crashes).collect();
    assert_eq!(crashes, [1, 0, 1, 0, 0]);
}

/// The same promise for brokers that know only from the second delivery on that a run ended with its process.
async fn crashes_from_the_second_on<S: BrokerUnderTest>(subject: S, inbox: Inbox, mut came: Vec<Delivery>) {
    let by_name = |came: &mut Vec<Delivery>| came.sort_by_key(|d| d.message().id.to_string());
    let crashes = |came: &[Delivery]| came.iter().map(|d| d.message().crashes).collect::<Vec<_>>();
    by_name(&mut came);
    assert_eq!(crashes(&came), [0; 5]);
    came[0].started();
    came[2].started();
    counts(&subject.broker(), "q").await;
    let subject = crash(subject).await;
    drop((came, inbox));
    for _ in 0..2 {
        let mut inbox = Inbox::open(&subject.broker(), "q", 10);
        let mut came = inbox.take(5).await;
        by_name(&mut came);
        same(ids(&came), names("q", 1..6), true);
        assert_eq!(crashes(&came), [1, 0, 1, 0, 0], "counted once: nothing has started since");
    }
}

/// Dead letters survive, and can be put back then.
pub async fn dead_letters_survive<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..2).await;
    let mut inbox = Inbox::open(&broker, "q", 2);
    for delivery in inbox.take(2).await {
        let end = Settle::DeadLetter { reason: "for a test".to_owned(), result: None, follow_ups: None };
        delivery.settle_and_wait(end).await.expect("a dead letter");
    }
    drop((inbox, broker));
    let subject = reopen(crash(subject).await).await;
    let broker = subject.broker();
    expect::<S>(&broker, "q", count(0, 0, 0, 2)).await;
    let letters = broker.dead_letters(5).await.expect("dead letters");
    assert_eq!(letters.iter().map(|l| l.message.id.to_string()).collect::<Vec<_>>(), names("q", [0, 1]));
    assert_eq!(broker.requeue_dead_letter(&TaskId::from("q-1")).await, Ok(true));
    drop(broker);
    let subject = crash(subject).await;
    expect::<S>(&subject.broker(), "q", count(1, 0, 0, 1)).await;
}

/// Failed tasks are there after a crash and a restart, and can be retried and deleted then.
pub async fn failed_tasks_survive<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    failures::<S>(&broker, "q", 0..4).await;
    drop(broker);
    let subject = crash(subject).await;
    let broker = subject.broker();
    assert_eq!(numbers(&broker, TaskFilter::new()).await, [0, 1, 2, 3]);
    let retried = failed_tasks(&broker).retry_failed(&task_ids("q", [1]), None).await.expect("a retry");
    assert_eq!(retried.ids, task_ids("q", [1]));
    assert_eq!(failed_tasks(&broker).delete_failed(&task_ids("q", [2])).await, Ok(task_ids("q", [2])));
    drop(broker);
    let subject = reopen(crash(subject).await).await;
    let broker = subject.broker();
    assert_eq!(numbers(&broker, TaskFilter::new()).await, [0, 3]);
    expect::<S>(&broker, "q", count(1, 0, 0, 0)).await;
}

/// New messages go behind the old ones, however often the broker was opened in between.
pub async fn order_goes_on_after_a_restart<S: BrokerUnderTest>() {
    let mut subject = S::open().await;
    for round in 0..4 {
        let broker = subject.broker();
        publish::<S>(&broker, "q", round * 5..round * 5 + 5).await;
        // The place of a settled message must not be used again.
        let mut inbox = Inbox::open(&broker, "side", 5);
        publish::<S>(&broker, "side", round * 5..round * 5 + 5).await;
        let mut held = inbox.take(5).await;
        held[4].started();
        for delivery in held {
            ack(delivery).await;
        }
        drop((inbox, broker));
        subject = if round % 2 == 0 { crash(subject).await } else { reopen(subject).await };
    }
    let broker = subject.broker();
    expect::<S>(&broker, "side", count(0, 0, 0, 0)).await;
    let mut inbox = Inbox::open(&broker, "q", 20);
    let came = inbox.take(20).await;
    assert_eq!(ids(&came), names("q", 0..20));
    assert!(came.iter().all(|d| d.message().crashes == 0));
    let tags: BTreeSet<u64> = came.iter().map(Delivery::tag).collect();
    assert_eq!(tags.len(), 20);
}

/// A task that takes its process down each time becomes a dead letter.
pub async fn crash_limit_across_processes<S: BrokerUnderTest>() {
    let mut subject = S::open().await;
    publish::<S>(&subject.broker(), "q", 0..1).await;
    let uncounted = u32::from(!S::ABILITIES.first_crash_is_counted);
    for run in 0..S::DELIVERY_LIMIT + uncounted {
        let mut inbox = Inbox::open(&subject.broker(), "q", 1);
        let mut delivery = inbox.next().await;
        assert_eq!(delivery.message().crashes, run.saturating_sub(uncounted));
        delivery.started();
        counts(&subject.broker(), "q").await;
        subject = crash(subject).await;
        drop((delivery, inbox));
    }
    let broker = subject.broker();
    let _inbox = Inbox::open(&broker, "q", 1); // the process that would deliver it finds that it is over
    expect::<S>(&broker, "q", count(0, 0, 0, 1)).await;
    let letters = broker.dead_letters(5).await.expect("dead letters");
    assert!(letters[0].reason.starts_with("WorkerLost"), "{}", letters[0].reason);
    let (store, id) = (subject.store(), &letters[0].message.id);
    if broker.results().is_some() {
        let record = tokio::time::timeout(PATIENCE, store.wait(id)).await.expect("a record in time");
        assert_eq!(record.expect("a store").error_type.as_deref(), Some("WorkerLost"));
    } else {
        assert_eq!(store.get(id, now()).await, Ok(None));
    }
}

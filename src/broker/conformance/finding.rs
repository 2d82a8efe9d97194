//! The promises about what a broker knows of its tasks.

use super::*;
use crate::broker::{BrokerError, Hastened, MessageLocation, Removal, Standing, TaskFilter};
use crate::catalogue::Argument;
use crate::task::HeldMark;

/// An id is taken while its task waits, is scheduled or runs, and while its result is kept.
pub async fn unique_ids_are_refused<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    let again = || message::<S>("q", 0);
    let refused = Err(BrokerError::DuplicateId(again().id));
    let publish = async || broker.publish(again(), true).await.map(|_| ());
    assert_eq!(publish().await, Ok(()));
    if !broker.facts().knows_all {
        limits::in_part("unique_ids_are_refused");
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

    // Of two publishes at once, one is taken.
    let two = [message::<S>("two", 1), message::<S>("two", 1)];
    let taken = futures_util::future::join_all(two.map(|m| broker.publish(m, true))).await;
    assert_eq!(taken.iter().filter(|t| t.is_ok()).count(), 1);

    let mut inbox = Inbox::open(&broker, "two", 1);
    let delivery = inbox.next().await;
    let id = delivery.message().id.clone();
    if broker.results().is_some() {
        let result = success(delivery.message());
        delivery
            .settle_and_wait(Settle::Ack { result: Some(result), follow_ups: None })
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
    if broker.results().is_some() {
        let expired = TaskResult { expires_at: now(), ..success(delivery.message()) };
        delivery
            .settle_and_wait(Settle::Ack { result: Some(expired), follow_ups: None })
            .await
            .expect("an acknowledgement");
        broker.publish(message::<S>("two", 1), true).await.expect("free when its result has expired");
    }
}

/// A task is found while it waits, ready or scheduled, and while it is delivered; otherwise it is not.
pub async fn find_tells_the_place<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let ready = message::<S>("q", 0);
    let scheduled = Message { eta: Some(far()), ..message::<S>("q", 1) };
    assert_eq!(find(&broker, &ready.id).await, Ok(None));
    put(&broker, ready.clone()).await;
    put(&broker, scheduled.clone()).await;
    if !broker.facts().knows_all {
        limits::in_part("find_tells_the_place");
        for message in [&ready, &scheduled] {
            assert_eq!(find(&broker, &message.id).await, Ok(None), "what waits is not known");
        }
        let mut inbox = Inbox::open(&broker, "q", 5);
        let delivery = inbox.next().await;
        assert_eq!(
            find(&broker, &ready.id).await,
            Ok(Some(MessageLocation::Delivered { queue: "q".to_owned() }))
        );
        ack(delivery).await;
        assert_eq!(find(&broker, &ready.id).await, Ok(None));
        return;
    }
    for message in [&ready, &scheduled] {
        assert_eq!(
            find(&broker, &message.id).await,
            Ok(Some(MessageLocation::Waiting(Box::new(message.clone()))))
        );
    }
    let mut inbox = Inbox::open(&broker, "q", 5);
    let delivery = inbox.next().await;
    assert_eq!(
        find(&broker, &ready.id).await,
        Ok(Some(MessageLocation::Delivered { queue: "q".to_owned() }))
    );
    assert!(matches!(find(&broker, &scheduled.id).await, Ok(Some(MessageLocation::Waiting(_)))));
    inbox.set_prefetch(0);
    delivery.settle_and_wait(Settle::Return { crashed: false }).await.expect("a return");
    assert!(matches!(find(&broker, &ready.id).await, Ok(Some(MessageLocation::Waiting(_)))));
}

/// Tasks that wait and tasks that run are listed, each with what it waits for, and chosen by what they say.
pub async fn unfinished_tasks_are_listed<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..3).await;
    put(&broker, Message { eta: Some(far()), ..message::<S>("q", 3) }).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let _running = inbox.next().await;
    let list = async |filter: TaskFilter, limit| {
        let listed = inspect(&broker).list_unfinished(&filter, limit).await.expect("tasks");
        let mut listed: Vec<_> =
            listed.into_iter().map(|task| (task.message.id.to_string(), task.standing)).collect();
        listed.sort_by(|a, b| a.0.cmp(&b.0));
        listed
    };
    let all = TaskFilter::new;
    if !broker.facts().knows_all {
        limits::in_part("unfinished_tasks_are_listed");
        assert_eq!(
            list(all(), 10).await,
            [("q-0".to_owned(), Standing::Delivered)],
            "what waits is not known"
        );
        assert!(list(all().queue("other"), 10).await.is_empty());
        return;
    }
    let expected = [Standing::Delivered, Standing::Ready, Standing::Ready, Standing::Scheduled];
    let expected: Vec<_> = names("q", 0..4).into_iter().zip(expected).collect();
    assert_eq!(list(all(), 10).await, expected);
    assert_eq!(list(all(), 2).await.len(), 2);
    assert_eq!(list(all().argument(Argument::Position(0), "2"), 10).await, expected[2..3]);
    assert!(list(all().queue("other"), 10).await.is_empty());
    let ids = inspect(&broker).unfinished_ids(&all().ids(["q-1", "q-3", "q-9"])).await.expect("ids");
    same(ids.iter().map(TaskId::to_string).collect(), names("q", [1, 3]), false);
    for (filter, limit) in [(all(), 1), (all(), 3), (all().queue("q"), 10), (all().queue("other"), 2)] {
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = inspect(&broker).page_unfinished_ids(&filter, after.as_deref(), limit);
            let page = page.await.expect("a page of ids");
            assert!(page.tasks.len() <= limit, "{} ids on a page of {limit}", page.tasks.len());
            found.extend(page.tasks);
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        assert_eq!(found, inspect(&broker).unfinished_ids(&filter).await.expect("ids"), "in the same order");
    }
    assert!(inspect(&broker).page_unfinished_ids(&all(), Some("nowhere"), 1).await.is_err());

    // Page by page they are the same, and none comes twice.
    let pages = async |filter: TaskFilter, standings: &[Standing], limit: usize| {
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = inspect(&broker).page_unfinished(&filter, standings, after.as_deref(), limit);
            let page = page.await.expect("a page");
            assert!(page.tasks.len() <= limit, "{} tasks on a page of {limit}", page.tasks.len());
            found.extend(page.tasks.into_iter().map(|task| (task.message.id.to_string(), task.standing)));
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    };
    for limit in [1, 2, 4, 10] {
        assert_eq!(pages(all(), &[], limit).await, expected);
        assert_eq!(pages(all().queue("q"), &[], limit).await, expected);
        assert_eq!(pages(all(), &[Standing::Delivered], limit).await, expected[..1]);
        assert_eq!(pages(all(), &[Standing::Ready], limit).await, expected[1..3]);
        assert_eq!(pages(all(), &[Standing::Ready, Standing::Delivered], limit).await, expected[..3]);
        assert_eq!(pages(all().queue("q"), &[Standing::Scheduled], limit).await, expected[3..]);
        assert!(pages(all(), &[Standing::InLine], limit).await.is_empty());
        assert!(pages(all().queue("other"), &[], limit).await.is_empty());
        assert_eq!(pages(all().argument(Argument::Position(0), "2"), &[], limit).await, expected[2..3]);
    }
    let nowhere = inspect(&broker).page_unfinished(&all(), &[], Some("?"), 1).await;
    assert!(matches!(nowhere, Err(BrokerError::Invalid(_))), "{nowhere:?}");
}

/// A waiting task is taken out and leaves its record, if the broker keeps results. Of a delivered task the broker names the queue. An unknown
/// task is unknown.
pub async fn remove_takes_out_what_waits<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    publish::<S>(&broker, "q", 0..3).await;
    put(&broker, Message { eta: Some(far()), ..message::<S>("q", 3) }).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let delivery = inbox.next().await;
    let revoked = async |id: &TaskId| {
        let record = |m: &Message| Some(TaskResult { state: State::Revoked, ..success(m) }).into();
        inspect(&broker).remove(id, Box::new(record)).await
    };
    let delivered = Removal::Delivered { queue: "q".to_owned() };
    assert_eq!(revoked(&TaskId::from("q-0")).await, Ok(delivered));
    assert_eq!(revoked(&TaskId::from("q-99")).await, Ok(Removal::Unknown));
    if !broker.facts().knows_all {
        limits::in_part("remove_takes_out_what_waits");
        // The task waits on. The runtime will not start it, because the store says that it is revoked.
        assert_eq!(revoked(&TaskId::from("q-1")).await, Ok(Removal::Unknown));
        assert_eq!(
            broker.events().expect("others hear of it").broadcast_revoke(&[TaskId::from("q-1")], false).await,
            Ok(())
        );
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
        assert_eq!(find(&broker, &id).await, Ok(None));
        assert_eq!(revoked(&id).await, Ok(Removal::Unknown));
        let record = store.get(&id, now()).await.expect("a store");
        let Some(record) = record.filter(|_| broker.results().is_some()) else {
            assert!(broker.results().is_none(), "a broker that keeps results keeps this one");
            waiting.abort(); // who keeps no results leaves none
            continue;
        };
        assert_eq!(record.state, State::Revoked);
        let woken = tokio::time::timeout(PATIENCE, waiting).await.expect("woken in time");
        assert_eq!(woken.expect("no panic"), Ok(record));
    }
    expect::<S>(&broker, "q", count(1, 0, 1, 0)).await;
    ack(delivery).await;
    assert_eq!(inbox.next().await.message().id.as_str(), "q-2");
    let silent = message::<S>("other", 0);
    put(&broker, silent.clone()).await;
    assert_eq!(inspect(&broker).remove(&silent.id, Box::new(|_| None.into())).await, Ok(Removal::Removed));
    assert_eq!(store.get(&silent.id, now()).await, Ok(None));
}

/// The counts are right at each step of a message's life.
pub async fn counts_at_each_step<S: BrokerUnderTest>() {
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
    held.remove(0).settle(Settle::DeadLetter {
        reason: "why not".to_owned(),
        result: None,
        follow_ups: None,
    });
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
    assert_eq!(broker.requeue_dead_letter(&TaskId::from("q-0")).await, Ok(true));
    is(3, 2, 0, 0).await;
    inbox.set_prefetch(3);
    for delivery in inbox.take(3).await {
        ack(delivery).await;
    }
    is(0, 2, 0, 0).await;
}

/// The age is that of the oldest ready message, whatever its priority; delivered messages and those that are not
/// due do not count. A broker that does not know it lacks the ability.
pub async fn the_age_of_what_waits<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let Some(backlog) = broker.backlog() else {
        limits::in_part("the_age_of_what_waits");
        assert!(broker.facts().is_shared, "a broker of one process knows since when its messages wait");
        return;
    };
    let is = async |expected: Option<Timestamp>| {
        expect::<S>(&broker, "q", broker.counts("q").await.expect("counts")).await;
        assert_eq!(backlog.oldest_ready("q").await, Ok(expected));
    };
    is(None).await;
    let at = |seconds: u64| now() - Duration::from_secs(100 - seconds);
    let times = [at(10), at(20), at(5), at(30)];
    for (n, priority) in [0, 0, 9, 3].into_iter().enumerate() {
        put(&broker, Message { enqueued_at: times[n], priority, ..message::<S>("q", n) }).await;
    }
    put(&broker, Message { enqueued_at: at(1), eta: Some(far()), ..message::<S>("q", 4) }).await;
    is(Some(times[2])).await;
    // The urgent messages come first, and then the oldest is the first of the others.
    let mut inbox = Inbox::open(&broker, "q", 2);
    let mut held = inbox.take(2).await;
    is(Some(times[0])).await;
    inbox.set_prefetch(0);
    let urgent = held.remove(0);
    assert_eq!(urgent.message().enqueued_at, times[2]);
    drop(urgent); // the message goes back, as old as it is
    is(Some(times[2])).await;
    drop(held);
    inbox.set_prefetch(4);
    for delivery in inbox.take(4).await {
        ack(delivery).await;
    }
    is(None).await;
}

/// Messages that were put back until later because something held them can be made due at once. They come in the order of
/// their times, and those that wait for an ETA go on waiting. A broker that cannot do it lacks the ability.
pub async fn what_was_put_back_is_hastened<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let Some(backlog) = broker.backlog() else {
        limits::in_part("what_was_put_back_is_hastened");
        assert!(broker.facts().is_shared, "a broker of one process can change when a message is due");
        return;
    };
    let first = (Timestamp::ZERO, 0);
    assert_eq!(backlog.hasten("other", first, 10).await, Ok(Hastened::default()), "nothing waits there");
    publish::<S>(&broker, "q", 0..5).await;
    let mut inbox = Inbox::open(&broker, "q", 5);
    let held = inbox.take(5).await;
    inbox.set_prefetch(0);
    for (n, delivery) in (0..).zip(held) {
        let due = far() + Duration::from_secs(n);
        let message = Box::new(delivery.message().held_until(due, HeldMark { since: now(), times: 0 }));
        delivery.settle_and_wait(Settle::Requeue { message, due: Some(due) }).await.expect("a requeue");
    }
    let eta = Some(far() - Duration::from_secs(600));
    put(&broker, Message { eta, ..message::<S>("q", 5) }).await;
    expect::<S>(&broker, "q", count(0, 6, 0, 0)).await;
    let (mut made_due, mut next, mut calls) = (0, Some(first), 0);
    while let Some(from) = next {
        let hastened = backlog.hasten("q", from, 4).await.expect("an answer");
        made_due += hastened.made_due;
        calls += 1;
        assert!(calls <= 3, "six messages are looked at, four in a call");
        next = hastened.next;
    }
    assert_eq!(made_due, 5);
    inbox.set_prefetch(6);
    let early = inbox.take(5).await;
    same(ids(&early), names("q", 0..5), S::ABILITIES.priorities);
    let time = now();
    for delivery in early {
        let message = delivery.message();
        assert!(message.eta.is_some_and(|eta| eta <= time), "{message:?}");
        assert_eq!((message.tries(), message.held().map(|mark| mark.times)), (0, Some(1)));
        ack(delivery).await;
    }
    inbox.is_quiet(&broker, "q").await;
    expect::<S>(&broker, "q", count(0, 1, 0, 0)).await;
}

/// After its close a broker says so, and deliveries that are still out can be dropped or settled without harm.
pub async fn closed_is_closed<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..2).await;
    let mut inbox = Inbox::open(&broker, "q", 2);
    let mut held = inbox.take(2).await;
    broker.close().await.expect("closes");
    assert_eq!(broker.publish(message::<S>("q", 9), false).await, Err(BrokerError::Closed));
    assert_eq!(broker.counts("q").await, Err(BrokerError::Closed));
    assert_eq!(find(&broker, &TaskId::from("q-0")).await, Err(BrokerError::Closed));
    assert!(broker.consume("q", 1, Arc::new(|_| {})).is_err());
    let late = held.remove(0).settle_and_wait(Settle::Ack { result: None, follow_ups: None }).await;
    assert_eq!(late, Err(BrokerError::Closed));
    drop(held);
    inbox.set_prefetch(5);
}

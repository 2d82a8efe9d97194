//! What follows from the end of a task, for brokers that keep results: all of it is there when the settlement is safe. One that does
//! not know all that waits in it cannot leave out what it was sent before; that is expected otherwise.

use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::broker::{BrokerError, ChordEnd, FollowUps};
use crate::store::{ChordPart, ChordSize};
use crate::task::Workflow;

/// A message of a workflow, as each is from which something follows and which follows from something.
fn message<S: BrokerUnderTest>(queue: &str, n: usize) -> Message {
    let workflow = Workflow { group: Some("group".to_owned()), ..Workflow::default() };
    Message { workflow: Some(Box::new(workflow)), ..super::message::<S>(queue, n) }
}

/// Publishes the messages of these numbers.
async fn publish<S: BrokerUnderTest>(broker: &Arc<dyn Broker>, queue: &str, numbers: std::ops::Range<usize>) {
    for n in numbers {
        put(broker, message::<S>(queue, n)).await;
    }
}

fn ack_with(follow_ups: FollowUps) -> Settle {
    Settle::Ack { result: None, follow_ups: Some(Box::new(follow_ups)) }
}

/// The part of the `n`th member of chord `g`. Each part makes the indices of all parts the argument of the body,
/// `body-0`, and notes them.
fn part<S: BrokerUnderTest>(n: u32, noted: &Arc<Mutex<Vec<Vec<u32>>>>) -> ChordEnd {
    let noted = Arc::clone(noted);
    let part = ChordPart {
        group: "g".to_owned(),
        id: TaskId::from(format!("q-{n}")),
        index: Some(n),
        state: State::Success,
        value: json!({ "n": n }).into(),
    };
    let then = move |parts: Vec<ChordPart>| {
        let indices: Vec<u32> = parts.iter().filter_map(|part| part.index).collect();
        let values = parts.iter().map(|part| part.value["n"].clone()).collect::<Vec<_>>();
        assert_eq!(json!(indices), json!(values), "the parts are as they were");
        noted.lock().push(indices);
        FollowUps { messages: vec![message::<S>("body", 0)], ..FollowUps::default() }
    };
    ChordEnd { part, then: Box::new(then) }
}

/// Publishes the `size` members of chord `g`.
async fn publish_chord<S: BrokerUnderTest>(broker: &Arc<dyn Broker>, size: usize) {
    let members = (0..size).map(|n| message::<S>("q", n)).collect();
    results(broker)
        .publish_canvas(members, vec![("g".to_owned(), size as u64)], true)
        .await
        .expect("a group");
}

/// Messages and records that follow from an end are there when the end is safe.
pub async fn what_follows_is_written_along<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    publish::<S>(&broker, "q", 0..2).await;
    let mut inbox = Inbox::open(&broker, "q", 2);
    let mut next = Inbox::open(&broker, "next", 10);
    let lost = success(&message::<S>("lost", 0));
    let waiting = tokio::spawn({
        let (store, id) = (Arc::clone(&store), lost.id.clone());
        async move { store.wait(&id).await }
    });
    let messages = vec![message::<S>("next", 0), message::<S>("next", 1)];
    let follow_ups = FollowUps { messages, records: vec![lost.clone()], ..FollowUps::default() };
    inbox.next().await.settle_and_wait(ack_with(follow_ups)).await.expect("an acknowledgement");
    let held = next.take(2).await;
    assert_eq!(ids(&held), names("next", 0..2));
    let woken = tokio::time::timeout(PATIENCE, waiting).await.expect("woken in time");
    assert_eq!(woken.expect("no panic"), Ok(as_kept(&broker, &store, lost)));
    let follow_ups =
        Some(Box::new(FollowUps { messages: vec![message::<S>("next", 2)], ..FollowUps::default() }));
    let end = Settle::DeadLetter { reason: "for a test".to_owned(), result: None, follow_ups };
    inbox.next().await.settle_and_wait(end).await.expect("a dead letter");
    assert_eq!(next.next().await.message().id.as_str(), "next-2");
}

/// A task that was sent or recorded before is neither sent nor recorded again.
pub async fn what_was_sent_before_is_left_out<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    publish::<S>(&broker, "q", 0..1).await;
    publish::<S>(&broker, "next", 0..1).await;
    let over = success(&message::<S>("next", 1));
    assert_eq!(store.put(over.clone()).await, Ok(true));
    let again = celeriac_record(&over);
    let messages = vec![message::<S>("next", 0), message::<S>("next", 1), message::<S>("next", 2)];
    let follow_ups = FollowUps { messages, records: vec![again], ..FollowUps::default() };
    let mut inbox = Inbox::open(&broker, "q", 1);
    inbox.next().await.settle_and_wait(ack_with(follow_ups)).await.expect("an acknowledgement");
    let sent = if broker.facts().knows_all { 2 } else { 4 };
    expect::<S>(&broker, "next", count(sent, 0, 0, 0)).await;
    assert_eq!(store.get(&over.id, now()).await, Ok(Some(over)));
}

/// A failure under the id of a task that has succeeded.
fn celeriac_record(over: &TaskResult) -> TaskResult {
    TaskResult { state: State::Failure, result: None, ..over.clone() }
}

/// A message of the id that is settled takes the place of the settled one.
pub async fn a_task_is_replaced<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..1).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let other = Message { queue: "next".to_owned(), ..message::<S>("q", 0) };
    let follow_ups = FollowUps { messages: vec![other.clone()], ..FollowUps::default() };
    inbox.next().await.settle_and_wait(ack_with(follow_ups)).await.expect("an acknowledgement");
    expect::<S>(&broker, "q", count(0, 0, 0, 0)).await;
    expect::<S>(&broker, "next", count(1, 0, 0, 0)).await;
    let mut next = Inbox::open(&broker, "next", 1);
    assert_eq!(next.next().await.message().id, other.id);
}

/// The last part of a chord sends its body, once, with all parts in the order of their indices. Each member counts
/// once.
pub async fn a_chord_sends_its_body_once<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let noted = Arc::default();
    publish_chord::<S>(&broker, 12).await;
    publish::<S>(&broker, "again", 0..2).await;
    let mut inbox = Inbox::open(&broker, "q", 12);
    let mut members = inbox.take(12).await;
    let last = members.pop().expect("a member");
    for (n, member) in members.into_iter().enumerate().rev() {
        let follow_ups = FollowUps { chords: vec![part::<S>(n as u32, &noted)], ..FollowUps::default() };
        member.settle(ack_with(follow_ups));
    }
    // A member that was counted already is counted no second time.
    let mut again = Inbox::open(&broker, "again", 2);
    let repeated = |n| FollowUps { chords: vec![part::<S>(n, &noted)], ..FollowUps::default() };
    again.next().await.settle_and_wait(ack_with(repeated(3))).await.expect("an acknowledgement");
    assert_eq!(noted.lock().len(), 0);
    last.settle_and_wait(ack_with(repeated(11))).await.expect("an acknowledgement");
    again.next().await.settle_and_wait(ack_with(repeated(5))).await.expect("an acknowledgement");
    assert_eq!(*noted.lock(), [(0..12).collect::<Vec<u32>>()]);
    expect::<S>(&broker, "body", count(1, 0, 0, 0)).await;
}

/// The members of a chord that follows from an end count, and a chord may follow from a chord.
pub async fn a_chord_follows_from_an_end<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let noted = Arc::default();
    publish::<S>(&broker, "first", 0..1).await;
    let mut inbox = Inbox::open(&broker, "first", 1);
    let follow_ups = FollowUps {
        messages: vec![message::<S>("q", 0), message::<S>("q", 1)],
        sizes: vec![
            ChordSize { group: "g".to_owned(), size: 1 },
            ChordSize { group: "inner".to_owned(), size: 2 },
        ],
        ..FollowUps::default()
    };
    inbox.next().await.settle_and_wait(ack_with(follow_ups)).await.expect("an acknowledgement");
    let mut members = Inbox::open(&broker, "q", 2);
    for (n, member) in members.take(2).await.into_iter().enumerate() {
        let outer = part::<S>(0, &noted);
        let mut inner = part::<S>(n as u32, &noted);
        inner.part.group = "inner".to_owned();
        inner.then = Box::new(|_| FollowUps { chords: vec![outer], ..FollowUps::default() });
        let follow_ups = FollowUps { chords: vec![inner], ..FollowUps::default() };
        member.settle_and_wait(ack_with(follow_ups)).await.expect("an acknowledgement");
    }
    assert_eq!(noted.lock().len(), 1);
    expect::<S>(&broker, "body", count(1, 0, 0, 0)).await;
}

/// A chord waits for a member that is added while it is open. A member that is refused is not counted.
pub async fn a_chord_gets_one_more_member<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let noted = Arc::default();
    publish_chord::<S>(&broker, 1).await;
    let mut inbox = Inbox::open(&broker, "q", 3);
    let (member, knows_all) = (inbox.next().await, broker.facts().knows_all);
    let beside = async |n, group| {
        let (added, member) = (message::<S>("q", n), TaskId::from(format!("q-{n}")));
        results(&broker).publish_chord_member(vec![added], Vec::new(), group, &member).await
    };
    assert_eq!(beside(7, "g").await, Ok(()));
    let again = if knows_all { Err(BrokerError::DuplicateId("q-7".into())) } else { Ok(()) };
    assert_eq!(beside(7, "g").await, again);
    // In a store that others count in as well, a chord may be open that it has not seen opened.
    if !subject.store().is_shared() {
        assert_eq!(beside(8, "none").await, Err(BrokerError::NoChord("none".to_owned())));
    }
    let end = |n| FollowUps { chords: vec![part::<S>(n, &noted)], ..FollowUps::default() };
    member.settle_and_wait(ack_with(end(0))).await.expect("an acknowledgement");
    assert_eq!(noted.lock().len(), 0, "another one was added");
    inbox.next().await.settle_and_wait(ack_with(end(7))).await.expect("an acknowledgement");
    if !knows_all {
        ack(inbox.next().await).await; // the second copy
    }
    assert_eq!(*noted.lock(), [[0, 7]]);
    expect::<S>(&broker, "body", count(1, 0, 0, 0)).await;
    assert_eq!(beside(9, "g").await, Err(BrokerError::NoChord("g".to_owned())), "its body was sent");
    expect::<S>(&broker, "q", count(0, 0, 0, 0)).await;
}

/// Messages that are published together are all taken, or none. Who does not know which ids are taken takes them all.
pub async fn a_group_is_taken_as_a_whole<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 2..3).await;
    let members: Vec<_> = (0..4).map(|n| message::<S>("q", n)).collect();
    let taken = broker.publish_all(members.clone(), true).await;
    let before = if broker.facts().knows_all {
        assert_eq!(taken, Err(BrokerError::DuplicateId("q-2".into())));
        1
    } else {
        assert_eq!(taken, Ok(()));
        5
    };
    expect::<S>(&broker, "q", count(before, 0, 0, 0)).await;
    assert_eq!(broker.publish_all(members[..2].to_vec(), true).await, Ok(()));
    assert_eq!(broker.publish_all(Vec::new(), true).await, Ok(()));
    expect::<S>(&broker, "q", count(before + 2, 0, 0, 0)).await;
}

/// A process dies while members of a chord run, and again after the last one. Each member counts once, whether it
/// ran once or twice, and the body is there once.
pub async fn parts_survive<S: BrokerUnderTest>() {
    let mut subject = S::open().await;
    let noted = Arc::default();
    publish_chord::<S>(&subject.broker(), 6).await;
    for n in [4, 1, 0, 3, 5, 2] {
        let broker = subject.broker();
        let mut inbox = Inbox::open(&broker, "q", 6);
        loop {
            // The process holds the members that are not to end yet when it dies.
            let mut delivery = inbox.next().await;
            if delivery.message().id.as_str() == format!("q-{n}") {
                delivery.started();
                let follow_ups = FollowUps { chords: vec![part::<S>(n, &noted)], ..FollowUps::default() };
                delivery.settle_and_wait(ack_with(follow_ups)).await.expect("an acknowledgement");
                break;
            }
            std::mem::forget(delivery);
        }
        subject = subject.crash().await.expect("a durable broker can be opened again");
    }
    let broker = subject.broker();
    let nothing_is_left = expect::<S>(&broker, "q", count(0, 0, 0, 0));
    if broker.facts().is_shared {
        // A server elsewhere may not have heard the last acknowledgement of a process that died. That member comes again then, as
        // soon as the server has noticed, and counts no second time.
        let mut inbox = Inbox::open(&broker, "q", 6);
        let comes_again = async {
            while let Some(mut delivery) = inbox.deliveries.recv().await {
                let n = delivery.message().id.as_str().strip_prefix("q-").and_then(|n| n.parse().ok());
                delivery.started();
                let n = n.expect("a member");
                let follow_ups = FollowUps { chords: vec![part::<S>(n, &noted)], ..FollowUps::default() };
                delivery.settle_and_wait(ack_with(follow_ups)).await.expect("an acknowledgement");
            }
        };
        tokio::select! {
            () = nothing_is_left => {}
            () = comes_again => panic!("the consumer was dropped by its broker"),
        }
    } else {
        nothing_is_left.await;
    }
    assert_eq!(*noted.lock(), [(0..6).collect::<Vec<u32>>()]);
    expect::<S>(&broker, "body", count(1, 0, 0, 0)).await;
}

//! What follows from the end of a task, for brokers that settle results: all of it is written with the settlement.

use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::broker::{BrokerError, ChordEnd, Sequel};
use crate::store::{ChordPart, ChordSize};
use crate::task::Workflow;

/// A message that is part of a workflow, as all are from which something follows, and which do so.
fn message<S: Subject>(queue: &str, n: usize) -> Message {
    let workflow = Workflow { group: Some("group".to_owned()), ..Workflow::default() };
    Message { workflow: Some(Box::new(workflow)), ..super::message::<S>(queue, n) }
}

/// Publishes the messages of these numbers.
async fn publish<S: Subject>(broker: &Arc<dyn Broker>, queue: &str, numbers: std::ops::Range<usize>) {
    for n in numbers {
        put(broker, message::<S>(queue, n)).await;
    }
}

fn ack_with(sequel: Sequel) -> Settle {
    Settle::Ack { result: None, sequel: Some(Box::new(sequel)) }
}

/// The part of the `n`th member of chord `g`. All of them make the parts' indices the arguments of the body, `body-0`,
/// and note them.
fn part<S: Subject>(n: u32, noted: &Arc<Mutex<Vec<Vec<u32>>>>) -> ChordEnd {
    let noted = Arc::clone(noted);
    let part = ChordPart {
        group: "g".to_owned(),
        id: TaskId::from(format!("q-{n}")),
        index: Some(n),
        state: State::Success,
        value: json!({ "n": n }),
    };
    let then = move |parts: Vec<ChordPart>| {
        let indices: Vec<u32> = parts.iter().filter_map(|part| part.index).collect();
        let values = parts.iter().map(|part| part.value["n"].clone()).collect::<Vec<_>>();
        assert_eq!(json!(indices), json!(values), "the parts are as they were");
        noted.lock().expect("no panic").push(indices);
        Sequel { messages: vec![message::<S>("body", 0)], ..Sequel::default() }
    };
    ChordEnd { part, then: Box::new(then) }
}

/// Publishes the `size` members of chord `g`.
async fn publish_chord<S: Subject>(broker: &Arc<dyn Broker>, size: usize) {
    let members = (0..size).map(|n| message::<S>("q", n)).collect();
    broker.publish_all(members, vec![("g".to_owned(), size as u64)], true).await.expect("a group");
}

/// Messages and records that follow from an end are there when it is safe.
pub async fn what_follows_is_written_along<S: Subject>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    if !broker.settles_results() {
        return;
    }
    publish::<S>(&broker, "q", 0..2).await;
    let mut inbox = Inbox::open(&broker, "q", 2);
    let mut next = Inbox::open(&broker, "next", 10);
    let lost = success(&message::<S>("lost", 0));
    let waiting = tokio::spawn({
        let (store, id) = (Arc::clone(&store), lost.id.clone());
        async move { store.wait(&id).await }
    });
    let messages = vec![message::<S>("next", 0), message::<S>("next", 1)];
    let sequel = Sequel { messages, records: vec![lost.clone()], ..Sequel::default() };
    inbox.next().await.settle_and_wait(ack_with(sequel)).await.expect("an acknowledgement");
    let held = next.take(2).await;
    assert_eq!(ids(&held), names("next", 0..2));
    let woken = tokio::time::timeout(PATIENCE, waiting).await.expect("woken in time");
    assert_eq!(woken.expect("no panic"), Ok(lost));
    let sequel = Some(Box::new(Sequel { messages: vec![message::<S>("next", 2)], ..Sequel::default() }));
    let end = Settle::DeadLetter { reason: "for a test".to_owned(), result: None, sequel };
    inbox.next().await.settle_and_wait(end).await.expect("a dead letter");
    assert_eq!(next.next().await.message().id.as_str(), "next-2");
}

/// A task that was sent or recorded before is not sent or recorded again.
pub async fn what_was_sent_before_is_left_out<S: Subject>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    if !broker.settles_results() {
        return;
    }
    publish::<S>(&broker, "q", 0..1).await;
    publish::<S>(&broker, "next", 0..1).await;
    let over = success(&message::<S>("next", 1));
    assert_eq!(store.put(over.clone()).await, Ok(true));
    let again = celeriac_record(&over);
    let messages = vec![message::<S>("next", 0), message::<S>("next", 1), message::<S>("next", 2)];
    let sequel = Sequel { messages, records: vec![again], ..Sequel::default() };
    let mut inbox = Inbox::open(&broker, "q", 1);
    inbox.next().await.settle_and_wait(ack_with(sequel)).await.expect("an acknowledgement");
    assert_eq!(counts(&broker, "next").await, count(2, 0, 0, 0));
    assert_eq!(store.get(&over.id, now()).await, Ok(Some(over)));
}

/// A failure under the id of a task that has succeeded.
fn celeriac_record(over: &TaskResult) -> TaskResult {
    TaskResult { state: State::Failure, result: None, ..over.clone() }
}

/// A message of the id that is settled takes its place.
pub async fn a_task_is_replaced<S: Subject>() {
    let subject = S::open().await;
    let broker = subject.broker();
    if !broker.settles_results() {
        return;
    }
    publish::<S>(&broker, "q", 0..1).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    let other = Message { queue: "next".to_owned(), ..message::<S>("q", 0) };
    let sequel = Sequel { messages: vec![other.clone()], ..Sequel::default() };
    inbox.next().await.settle_and_wait(ack_with(sequel)).await.expect("an acknowledgement");
    assert_eq!(
        (counts(&broker, "q").await, counts(&broker, "next").await),
        (count(0, 0, 0, 0), count(1, 0, 0, 0))
    );
    let mut next = Inbox::open(&broker, "next", 1);
    assert_eq!(next.next().await.message().id, other.id);
}

/// The last part of a chord sends its body, once, with all parts in the order of their indices. Each member counts once.
pub async fn a_chord_sends_its_body_once<S: Subject>() {
    let subject = S::open().await;
    let broker = subject.broker();
    if !broker.settles_results() {
        return;
    }
    let noted = Arc::default();
    publish_chord::<S>(&broker, 12).await;
    publish::<S>(&broker, "again", 0..2).await;
    let mut inbox = Inbox::open(&broker, "q", 12);
    let mut members = inbox.take(12).await;
    let last = members.pop().expect("a member");
    for (n, member) in members.into_iter().enumerate().rev() {
        let sequel = Sequel { chords: vec![part::<S>(n as u32, &noted)], ..Sequel::default() };
        member.settle(ack_with(sequel));
    }
    // A member that has counted says so again.
    let mut again = Inbox::open(&broker, "again", 2);
    let repeated = |n| Sequel { chords: vec![part::<S>(n, &noted)], ..Sequel::default() };
    again.next().await.settle_and_wait(ack_with(repeated(3))).await.expect("an acknowledgement");
    assert_eq!(noted.lock().expect("no panic").len(), 0);
    last.settle_and_wait(ack_with(repeated(11))).await.expect("an acknowledgement");
    again.next().await.settle_and_wait(ack_with(repeated(5))).await.expect("an acknowledgement");
    assert_eq!(*noted.lock().expect("no panic"), [(0..12).collect::<Vec<u32>>()]);
    assert_eq!(counts(&broker, "body").await, count(1, 0, 0, 0));
}

/// The members of a chord that follows from an end count, and a chord may follow from a chord.
pub async fn a_chord_follows_from_an_end<S: Subject>() {
    let subject = S::open().await;
    let broker = subject.broker();
    if !broker.settles_results() {
        return;
    }
    let noted = Arc::default();
    publish::<S>(&broker, "first", 0..1).await;
    let mut inbox = Inbox::open(&broker, "first", 1);
    let sequel = Sequel {
        messages: vec![message::<S>("q", 0), message::<S>("q", 1)],
        sizes: vec![
            ChordSize { group: "g".to_owned(), size: 1 },
            ChordSize { group: "inner".to_owned(), size: 2 },
        ],
        ..Sequel::default()
    };
    inbox.next().await.settle_and_wait(ack_with(sequel)).await.expect("an acknowledgement");
    let mut members = Inbox::open(&broker, "q", 2);
    for (n, member) in members.take(2).await.into_iter().enumerate() {
        let outer = part::<S>(0, &noted);
        let mut inner = part::<S>(n as u32, &noted);
        inner.part.group = "inner".to_owned();
        inner.then = Box::new(|_| Sequel { chords: vec![outer], ..Sequel::default() });
        let sequel = Sequel { chords: vec![inner], ..Sequel::default() };
        member.settle_and_wait(ack_with(sequel)).await.expect("an acknowledgement");
    }
    assert_eq!(noted.lock().expect("no panic").len(), 1);
    assert_eq!(counts(&broker, "body").await, count(1, 0, 0, 0));
}

/// A member that is added to an open chord is waited for; what is refused is not counted.
pub async fn a_chord_gets_one_more_member<S: Subject>() {
    let subject = S::open().await;
    let broker = subject.broker();
    if !broker.settles_results() {
        return;
    }
    let noted = Arc::default();
    publish_chord::<S>(&broker, 1).await;
    let mut inbox = Inbox::open(&broker, "q", 3);
    let member = inbox.next().await;
    let beside = async |n, group| broker.publish_beside(vec![message::<S>("q", n)], Vec::new(), group).await;
    assert_eq!(beside(7, "g").await, Ok(()));
    assert_eq!(beside(7, "g").await, Err(BrokerError::DuplicateId("q-7".into())));
    assert_eq!(beside(8, "none").await, Err(BrokerError::NoChord("none".to_owned())));
    let end = |n| Sequel { chords: vec![part::<S>(n, &noted)], ..Sequel::default() };
    member.settle_and_wait(ack_with(end(0))).await.expect("an acknowledgement");
    assert_eq!(noted.lock().expect("no panic").len(), 0, "another one was added");
    inbox.next().await.settle_and_wait(ack_with(end(7))).await.expect("an acknowledgement");
    assert_eq!(*noted.lock().expect("no panic"), [[0, 7]]);
    assert_eq!(counts(&broker, "body").await, count(1, 0, 0, 0));
    assert_eq!(beside(9, "g").await, Err(BrokerError::NoChord("g".to_owned())), "its body was sent");
    assert_eq!(counts(&broker, "q").await, count(0, 0, 0, 0));
}

/// Messages that are published together are all taken, or none.
pub async fn a_group_is_taken_as_a_whole<S: Subject>() {
    let subject = S::open().await;
    let broker = subject.broker();
    if !broker.settles_results() {
        return;
    }
    publish::<S>(&broker, "q", 2..3).await;
    let members: Vec<_> = (0..4).map(|n| message::<S>("q", n)).collect();
    let refused = broker.publish_all(members.clone(), Vec::new(), true).await;
    assert_eq!(refused, Err(BrokerError::DuplicateId("q-2".into())));
    assert_eq!(counts(&broker, "q").await, count(1, 0, 0, 0));
    assert_eq!(broker.publish_all(members[..2].to_vec(), Vec::new(), true).await, Ok(()));
    assert_eq!(broker.publish_all(Vec::new(), Vec::new(), true).await, Ok(()));
    assert_eq!(counts(&broker, "q").await, count(3, 0, 0, 0));
}

/// A process dies among the members of a chord, and again after the last one: each member counts once, whether it ran once
/// or twice, and the body is there once.
pub async fn parts_survive<S: Subject>() {
    let mut subject = S::open().await;
    if !subject.broker().settles_results() {
        return;
    }
    let noted = Arc::default();
    publish_chord::<S>(&subject.broker(), 6).await;
    for n in [4, 1, 0, 3, 5, 2] {
        let broker = subject.broker();
        let mut inbox = Inbox::open(&broker, "q", 6);
        loop {
            // Those that are not yet to end are in the hands of the process when it dies.
            let mut delivery = inbox.next().await;
            if delivery.message().id.as_str() == format!("q-{n}") {
                delivery.started();
                let sequel = Sequel { chords: vec![part::<S>(n, &noted)], ..Sequel::default() };
                delivery.settle_and_wait(ack_with(sequel)).await.expect("an acknowledgement");
                break;
            }
            std::mem::forget(delivery);
        }
        subject = subject.crash().await.expect("a durable broker can be opened again");
    }
    assert_eq!(*noted.lock().expect("no panic"), [(0..6).collect::<Vec<u32>>()]);
    let broker = subject.broker();
    assert_eq!(
        (counts(&broker, "q").await, counts(&broker, "body").await),
        (count(0, 0, 0, 0), count(1, 0, 0, 0))
    );
}

//! Ids, names and keys that the database cannot take: a typed error, and a store that goes on.

use std::time::Duration;

use celeriac::State;
use celeriac::broker::conformance::{Inbox, counts};
use celeriac::broker::{
    Broker, BrokerError, BrokerNotes as _, FollowUps, Inspect as _, LaneLever, Lanes as _, Settle,
    UniqueWindows as _,
};
use celeriac::store::{
    ChordPart, ChordSize, ChordStore, CompareAndSet, EmbeddedStore, GroupResult, GroupStore, Notes, Store,
};
use celeriac::task::{LaneName, Message, SerialHeader, Unique, UniqueKey};

use crate::{PATIENCE, drain, ids, message, open, publish, shared};

/// The database's longest key has 65,535 bytes.
const LONG: usize = 70_000;

fn long() -> String {
    "x".repeat(LONG)
}

/// The name of a lane as a message may bring it: those that are made here are cut.
fn lane(scope: &str, key: &str) -> LaneName {
    serde_json::from_value(serde_json::json!({ "scope": scope, "key": key })).unwrap()
}

/// The same of a unique window.
fn window() -> UniqueKey {
    serde_json::from_value(serde_json::json!({ "scope": "task", "key": long() })).unwrap()
}

/// Messages that cannot be written, each for another reason.
fn unwritable() -> Vec<Message> {
    let with = |change: &dyn Fn(&mut Message)| {
        let mut message = message(7);
        change(&mut message);
        message
    };
    vec![
        with(&|m| m.id = long().as_str().into()),
        with(&|m| m.id = "y".repeat(300).as_str().into()),
        with(&|m| m.id = "".into()),
        with(&|m| m.queue = long()),
        with(&|m| m.queue = String::new()),
        with(&|m| m.serial = Some(Box::new(SerialHeader::new(lane("task", &long()))))),
        with(&|m| m.serial = Some(Box::new(SerialHeader::new(lane(&long(), "key"))))),
        with(&|m| {
            let key = window();
            m.unique = Some(Box::new(Unique::new(key, Duration::from_secs(60))));
        }),
        with(&|m| m.workflow.get_or_insert_default().group = Some(long())),
    ]
}

#[tokio::test]
async fn at_the_call_they_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let store = EmbeddedStore::new(broker.clone());
    for (n, message) in unwritable().into_iter().enumerate() {
        let alone = broker.publish(message.clone(), true).await;
        assert!(matches!(alone, Err(BrokerError::Invalid(_))), "{n}: {alone:?}");
        let together = broker.publish_all(vec![crate::message(1), message.clone()], true).await;
        assert!(matches!(together, Err(BrokerError::Invalid(_))), "{n}: {together:?}");
        let change = CompareAndSet { key: "note".to_owned(), expected: None, value: Some("1".to_owned()) };
        assert!(
            matches!(broker.publish_with_cas(message, change).await, Err(BrokerError::Invalid(_))),
            "{n}"
        );
    }
    let (id, key) = (long().as_str().into(), window());
    let lane = lane("task", &long());
    assert!(matches!(broker.declare(&long()).await, Err(BrokerError::Invalid(_))));
    drop(broker.consume(&long(), 1, std::sync::Arc::new(|_| {})).unwrap());
    assert_eq!(broker.find(&id).await, Ok(None));
    assert_eq!(broker.holder(&key).await, Ok(None));
    assert_eq!(broker.lane(&lane).await, Ok(None));
    assert!(matches!(broker.steer_lane(&lane, LaneLever::Unblock).await, Err(BrokerError::Invalid(_))));
    assert_eq!(broker.position(&id, 10).await, Ok(None));
    assert_eq!(broker.requeue_dead_letter(&id).await, Ok(false));
    assert!(store.get(&id, message(1).enqueued_at).await.unwrap().is_none());
    assert!(!store.forget(&id).await.unwrap());
    assert!(store.open_chord(&long(), 2).await.is_err());
    let part = ChordPart {
        group: long(),
        id: id.clone(),
        index: Some(0),
        state: State::Success,
        value: serde_json::json!(1).into(),
    };
    let _ = store.join_chord(part).await;
    let _ = store.close_chord(&long(), "").await;
    let group = GroupResult { id: long(), parent: serde_json::Value::Null, members: Vec::new() };
    assert!(store.save_group(&group, None).await.is_err());
    assert!(store.group(&long(), message(1).enqueued_at).await.unwrap().is_none());
    assert!(broker.note(&long()).await.is_err());
    let change = CompareAndSet { key: long(), expected: None, value: Some("1".to_owned()) };
    assert!(broker.compare_and_set_all(vec![change], None).await.is_err());
    let mut result = celeriac::broker::conformance::success(&message(1));
    result.id = id;
    assert!(store.put(result).await.is_err());
    // And the store is as it was.
    publish(&broker, 0..3).await;
    drop((store, broker));
    assert_eq!(ids(&drain(&open(dir.path()).unwrap(), "q").await), ["q-0", "q-1", "q-2"]);
}

/// What was promised to follow from a task fails, who waits for it hears so, and the store goes on.
#[tokio::test]
async fn as_a_step_they_fail_and_are_not_tried_again() {
    for (n, step) in unwritable().into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(dir.path()).unwrap();
        let store = EmbeddedStore::new(broker.clone());
        publish(&broker, 0..1).await;
        let mut inbox = Inbox::open(&shared(&broker), "q", 10);
        let first = inbox.next().await;
        let healthy = message(3);
        let follow_ups = FollowUps {
            messages: vec![step.clone(), healthy.clone()],
            sizes: vec![ChordSize { group: long(), size: 2 }],
            ..FollowUps::default()
        };
        let end = Settle::Ack { result: None, follow_ups: Some(Box::new(follow_ups)) };
        first.settle_and_wait(end).await.unwrap();
        let held = inbox.next().await;
        assert_eq!(held.message().id, healthy.id, "{n}");
        if (1..60_000).contains(&step.id.as_str().len()) {
            let waited = tokio::time::timeout(PATIENCE, store.wait(&step.id)).await;
            let record = waited.expect("it hears").unwrap();
            assert_eq!(record.state, State::Failure, "{n}");
            assert!(record.errors[0].contains("cannot be enqueued"), "{:?}", record.errors);
        }
        // A retry that changes its key to such a one is the end of it as well.
        publish(&broker, 4..5).await;
        let running = inbox.next().await;
        let mut next = Message::clone(running.message());
        next.serial = Some(Box::new(SerialHeader::new(lane("task", &long()))));
        running.settle_and_wait(Settle::Requeue { message: Box::new(next), due: None }).await.unwrap();
        let record = store.get(&message(4).id, message(4).enqueued_at).await.unwrap();
        assert_eq!(record.map(|record| record.state), Some(State::Failure));
        publish(&broker, 5..6).await;
        drop((held, inbox));
        drop((store, broker));
        let broker = open(dir.path()).unwrap();
        assert_eq!(ids(&drain(&broker, "q").await), ["q-3", "q-5"], "{n}");
        assert_eq!(counts(&shared(&broker), "q").await.ready, 0);
    }
}

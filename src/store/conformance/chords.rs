//! The promises of counted chords.

use serde_json::json;

use super::{PATIENCE, Subject};
use crate::store::{ChordJoin, ChordPart};
use crate::task::{State, TaskId};

fn part(group: &str, n: u32) -> ChordPart {
    ChordPart {
        group: group.to_owned(),
        id: TaskId::from(format!("{group}-{n}")),
        index: Some(n),
        state: State::Success,
        value: json!({"n": n}),
    }
}

/// The last member of a chord gets all parts, in the order of the header; each member counts once.
pub async fn chords_are_counted<S: Subject>() {
    let subject = S::open().await;
    let store = subject.store();
    assert_eq!(store.open_chord("g", 12).await, Ok(()));
    assert_eq!(store.open_chord("other", 1).await, Ok(()));
    let failed = ChordPart {
        state: State::Failure,
        value: json!({"exc_type": "KeyError", "exc_message": ["k"], "exc_module": "builtins"}),
        ..part("g", 11)
    };
    for n in (1..11).rev() {
        assert_eq!(store.join_chord(part("g", n)).await, Ok(ChordJoin::Waiting));
        // It ran twice, and the second time it returned something else: the first counts.
        let again = ChordPart { value: json!("again"), ..part("g", n) };
        assert_eq!(store.join_chord(again).await, Ok(ChordJoin::Waiting));
    }
    assert_eq!(store.join_chord(failed.clone()).await, Ok(ChordJoin::Waiting));
    let Ok(ChordJoin::Complete { token, parts }) = store.join_chord(part("g", 0)).await else {
        panic!("all are there")
    };
    let mut wanted: Vec<_> = (0..11).map(|n| part("g", n)).collect();
    wanted.push(failed);
    assert_eq!(parts, wanted);
    assert_eq!(store.close_chord("g", &token).await, Ok(()));
    assert_eq!(store.join_chord(part("g", 0)).await, Ok(ChordJoin::Waiting), "the body was sent");
    assert!(matches!(store.join_chord(part("other", 0)).await, Ok(ChordJoin::Complete { .. })));
    // The same chord can be sent again, as Celery lets one.
    assert_eq!(store.open_chord("g", 1).await, Ok(()));
    assert!(matches!(store.join_chord(part("g", 0)).await, Ok(ChordJoin::Complete { .. })));
}

/// However many members end at once, one of them sends the body.
pub async fn a_chord_completes_once<S: Subject>() {
    let subject = S::open().await;
    for round in 0..20 {
        let group = format!("g{round}");
        assert_eq!(subject.store().open_chord(&group, 20).await, Ok(()));
        let mut joins = tokio::task::JoinSet::new();
        for n in 0..20 {
            let (store, part) = (subject.store(), part(&group, n));
            joins.spawn(async move { store.join_chord(part).await.expect("counted") });
        }
        let came_to = joins.join_all().await;
        let complete = came_to.iter().filter(|join| matches!(join, ChordJoin::Complete { .. })).count();
        assert_eq!(complete, 1, "in round {round}");
    }
}

/// The one who was to send the body died: its task runs again, and sends it.
pub async fn a_claim_of_the_dead_is_taken_over<S: Subject>() {
    let subject = S::open().await;
    let store = subject.store();
    assert_eq!(store.open_chord("g", 2).await, Ok(()));
    assert_eq!(store.join_chord(part("g", 1)).await, Ok(ChordJoin::Waiting));
    let Ok(ChordJoin::Complete { token: of_the_dead, .. }) = store.join_chord(part("g", 0)).await else {
        panic!("all are there")
    };
    let again =
        tokio::time::timeout(PATIENCE, store.join_chord(part("g", 0))).await.expect("a claim that ends");
    let Ok(ChordJoin::Complete { token, parts }) = again else { panic!("{again:?}") };
    assert_eq!(parts, [part("g", 0), part("g", 1)]);
    assert_ne!(token, of_the_dead);
    assert_eq!(store.close_chord("g", &of_the_dead).await, Ok(()), "no error, and no effect");
    assert_eq!(store.close_chord("g", &token).await, Ok(()));
    assert_eq!(store.join_chord(part("g", 1)).await, Ok(ChordJoin::Waiting));
}

/// A member that is added is waited for, once, however often it is said; nothing is added to a chord that is over.
pub async fn chords_are_extended<S: Subject>() {
    let subject = S::open().await;
    let store = subject.store();
    let added = |n: u32| ChordPart { index: Some(0), ..part("g", n) };
    assert_eq!(store.open_chord("g", 2).await, Ok(()));
    assert_eq!(store.join_chord(part("g", 1)).await, Ok(ChordJoin::Waiting));
    for n in [7, 8, 7, 8] {
        assert_eq!(store.extend_chord("g", &part("g", n).id).await, Ok(()));
    }
    assert_eq!(store.join_chord(added(8)).await, Ok(ChordJoin::Waiting));
    assert_eq!(store.join_chord(part("g", 0)).await, Ok(ChordJoin::Waiting));
    let Ok(ChordJoin::Complete { token, parts }) = store.join_chord(added(7)).await else {
        panic!("all are there")
    };
    assert_eq!(parts, [part("g", 0), added(7), added(8), part("g", 1)], "by place, then by id");
    assert_eq!(store.close_chord("g", &token).await, Ok(()));
    assert!(store.extend_chord("g", &part("g", 9).id).await.is_err(), "its body was sent");
}

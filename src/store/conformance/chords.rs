//! The promises about counting chords.

use std::sync::Arc;

use serde_json::json;

use super::{PATIENCE, StoreUnderTest};
use crate::store::{ChordJoin, ChordPart, ChordStore, Store};
use crate::task::{State, TaskId};

/// The ability that these promises are about.
fn chords(store: &Arc<dyn Store>) -> &dyn ChordStore {
    store.chords().expect("it counts chords")
}

fn part(group: &str, n: u32) -> ChordPart {
    ChordPart {
        group: group.to_owned(),
        id: TaskId::from(format!("{group}-{n}")),
        index: Some(n),
        state: State::Success,
        value: json!({"n": n}).into(),
    }
}

/// The last member of a chord gets all parts, in the order of the header; each member counts once.
pub async fn chords_are_counted<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    assert_eq!(chords(&store).open_chord("g", 12).await, Ok(()));
    assert_eq!(chords(&store).open_chord("other", 1).await, Ok(()));
    let failed = ChordPart {
        state: State::Failure,
        value: json!({"exc_type": "KeyError", "exc_message": ["k"], "exc_module": "builtins"}).into(),
        ..part("g", 11)
    };
    for n in (1..11).rev() {
        assert_eq!(chords(&store).join_chord(part("g", n)).await, Ok(ChordJoin::Waiting));
        // The member ran twice, and returned something else the second time: the first value counts.
        let again = ChordPart { value: json!("again").into(), ..part("g", n) };
        assert_eq!(chords(&store).join_chord(again).await, Ok(ChordJoin::Waiting));
    }
    assert_eq!(chords(&store).join_chord(failed.clone()).await, Ok(ChordJoin::Waiting));
    let Ok(ChordJoin::Complete { token, parts }) = chords(&store).join_chord(part("g", 0)).await else {
        panic!("all are there")
    };
    let mut wanted: Vec<_> = (0..11).map(|n| part("g", n)).collect();
    wanted.push(failed);
    assert_eq!(parts, wanted);
    assert_eq!(chords(&store).close_chord("g", &token).await, Ok(()));
    assert_eq!(chords(&store).join_chord(part("g", 0)).await, Ok(ChordJoin::Waiting), "the body was sent");
    assert!(matches!(chords(&store).join_chord(part("other", 0)).await, Ok(ChordJoin::Complete { .. })));
    // The same chord can be sent again, as Celery allows.
    assert_eq!(chords(&store).open_chord("g", 1).await, Ok(()));
    assert!(matches!(chords(&store).join_chord(part("g", 0)).await, Ok(ChordJoin::Complete { .. })));
}

/// However many members end at once, one of them sends the body.
pub async fn a_chord_completes_once<S: StoreUnderTest>() {
    let subject = S::open().await;
    for round in 0..20 {
        let group = format!("g{round}");
        assert_eq!(chords(&subject.store()).open_chord(&group, 20).await, Ok(()));
        let mut joins = tokio::task::JoinSet::new();
        for n in 0..20 {
            let (store, part) = (subject.store(), part(&group, n));
            joins.spawn(async move { chords(&store).join_chord(part).await.expect("counted") });
        }
        let came_to = joins.join_all().await;
        let complete = came_to.iter().filter(|join| matches!(join, ChordJoin::Complete { .. })).count();
        assert_eq!(complete, 1, "in round {round}");
    }
}

/// The process that was to send the body died: its task runs again, and sends it.
pub async fn a_claim_of_the_dead_is_taken_over<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    assert_eq!(chords(&store).open_chord("g", 2).await, Ok(()));
    assert_eq!(chords(&store).join_chord(part("g", 1)).await, Ok(ChordJoin::Waiting));
    let Ok(ChordJoin::Complete { token: of_the_dead, .. }) = chords(&store).join_chord(part("g", 0)).await
    else {
        panic!("all are there")
    };
    let again = tokio::time::timeout(PATIENCE, chords(&store).join_chord(part("g", 0)))
        .await
        .expect("a claim that ends");
    let Ok(ChordJoin::Complete { token, parts }) = again else { panic!("{again:?}") };
    assert_eq!(parts, [part("g", 0), part("g", 1)]);
    assert_ne!(token, of_the_dead);
    assert_eq!(chords(&store).close_chord("g", &of_the_dead).await, Ok(()), "no error, and no effect");
    assert_eq!(chords(&store).close_chord("g", &token).await, Ok(()));
    assert_eq!(chords(&store).join_chord(part("g", 1)).await, Ok(ChordJoin::Waiting));
}

/// A chord waits once for a member that is added, however often it is added. Nothing is added to a chord that is
/// over.
pub async fn chords_are_extended<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let added = |n: u32| ChordPart { index: Some(0), ..part("g", n) };
    assert_eq!(chords(&store).open_chord("g", 2).await, Ok(()));
    assert_eq!(chords(&store).join_chord(part("g", 1)).await, Ok(ChordJoin::Waiting));
    for n in [7, 8, 7, 8] {
        assert_eq!(chords(&store).extend_chord("g", &part("g", n).id).await, Ok(()));
    }
    assert_eq!(chords(&store).join_chord(added(8)).await, Ok(ChordJoin::Waiting));
    assert_eq!(chords(&store).join_chord(part("g", 0)).await, Ok(ChordJoin::Waiting));
    let Ok(ChordJoin::Complete { token, parts }) = chords(&store).join_chord(added(7)).await else {
        panic!("all are there")
    };
    assert_eq!(parts, [part("g", 0), added(7), added(8), part("g", 1)], "by place, then by id");
    assert_eq!(chords(&store).close_chord("g", &token).await, Ok(()));
    assert!(chords(&store).extend_chord("g", &part("g", 9).id).await.is_err(), "its body was sent");
}

/// A chord that has failed is over as well, and can be sent again; what is left of it does not count then.
pub async fn failed_chords_are_closed<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let failed = ChordPart {
        state: State::Failure,
        value: json!({"exc_type": "KeyError", "exc_message": ["k"], "exc_module": "builtins"}).into(),
        ..part("g", 1)
    };
    for _ in 0..2 {
        assert_eq!(chords(&store).open_chord("g", 2).await, Ok(()));
        assert_eq!(chords(&store).join_chord(part("g", 0)).await, Ok(ChordJoin::Waiting));
        let Ok(ChordJoin::Complete { token, parts }) = chords(&store).join_chord(failed.clone()).await else {
            panic!("all are there")
        };
        assert_eq!(parts, [part("g", 0), failed.clone()]);
        assert_eq!(chords(&store).close_failed_chord("g", &token).await, Ok(()));
        assert_eq!(
            chords(&store).join_chord(failed.clone()).await,
            Ok(ChordJoin::Waiting),
            "its body has failed"
        );
        assert!(chords(&store).extend_chord("g", &part("g", 9).id).await.is_err(), "its body has failed");
    }
}

//! The promises of notes, and of elections.

use std::time::Duration;

use super::{HOUR, NOW, PATIENCE, StoreUnderTest};
use crate::store::{CompareAndSet, Leadership, Term};
use crate::task::clock::now;

fn change(key: &str, expected: Option<&str>, value: Option<&str>) -> CompareAndSet {
    let text = |text: Option<&str>| text.map(str::to_owned);
    CompareAndSet { key: key.to_owned(), expected: text(expected), value: text(value) }
}

/// A note changes only for a caller who knows what it says, and of many who change it at once for one only.
pub async fn notes_are_compared_and_set<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let notes = store.notes().expect("this store keeps notes");
    assert_eq!(notes.note("a/1").await, Ok(None));
    assert_eq!(notes.compare_and_set(change("a/1", Some("x"), Some("y"))).await, Ok(false));
    assert_eq!(notes.compare_and_set(change("a/1", None, Some("ä"))).await, Ok(true));
    assert_eq!(notes.compare_and_set(change("a/1", None, Some("y"))).await, Ok(false));
    assert_eq!(notes.compare_and_set(change("a/1", Some("ä"), Some(""))).await, Ok(true));
    assert_eq!(notes.note("a/1").await, Ok(Some(String::new())), "an empty note is one");
    for key in ["a/3", "a/2", "b/1"] {
        assert_eq!(notes.compare_and_set(change(key, None, Some(key))).await, Ok(true));
    }
    let all = [("a/1", ""), ("a/2", "a/2"), ("a/3", "a/3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(notes.notes("a/").await, Ok(all.to_vec()));
    assert_eq!(notes.compare_and_set(change("a/1", Some(""), None)).await, Ok(true));
    assert_eq!(notes.note("a/1").await, Ok(None));
    let values: Vec<String> = (0..16).map(|n| n.to_string()).collect();
    let racing = values.iter().map(|value| notes.compare_and_set(change("race", None, Some(value))));
    let won = futures_util::future::try_join_all(racing).await.expect("changes");
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    let winner = won.iter().position(|won| *won).expect("one");
    assert_eq!(notes.note("race").await, Ok(Some(values[winner].clone())));
}

/// Several notes change together or not at all, and only for the leader, if that is asked for.
pub async fn notes_change_together<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let notes = store.notes().expect("this store keeps notes");
    let both = |a, b| vec![change("a", a, Some("1")), change("b", b, None)];
    assert_eq!(
        notes.compare_and_set_all(both(None, Some("x")), None).await,
        Ok(false),
        "the second is not as expected"
    );
    assert_eq!(notes.note("a").await, Ok(None));
    assert_eq!(notes.compare_and_set(change("b", None, Some("x"))).await, Ok(true));
    let term = |term| Some(Term { election: "e".to_owned(), candidate: "me".to_owned(), term });
    assert_eq!(notes.compare_and_set_all(both(None, Some("x")), term(1)).await, Ok(false), "nobody leads");
    assert_eq!(notes.lead("e", "me", HOUR, NOW).await, Ok(Leadership::Leader { term: 1 }));
    assert_eq!(
        notes.compare_and_set_all(both(None, Some("x")), term(2)).await,
        Ok(false),
        "not in that term"
    );
    assert_eq!(notes.compare_and_set_all(both(None, Some("x")), term(1)).await, Ok(true));
    assert_eq!((notes.note("a").await, notes.note("b").await), (Ok(Some("1".to_owned())), Ok(None)));
    assert_eq!(notes.resign("e", "me").await, Ok(()));
    assert_eq!(
        notes.compare_and_set_all(vec![change("a", Some("1"), None)], term(1)).await,
        Ok(false),
        "resigned"
    );
    assert_eq!(notes.lead("e", "you", HOUR, NOW).await, Ok(Leadership::Leader { term: 2 }));
    assert_eq!(
        notes.compare_and_set_all(vec![change("a", Some("1"), None)], term(1)).await,
        Ok(false),
        "deposed"
    );
    assert_eq!(notes.compare_and_set_all(vec![change("a", Some("1"), None)], None).await, Ok(true));
}

/// However many notes there are, they are listed by name, and no others.
pub async fn many_notes_are_listed<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let notes = store.notes().expect("this store keeps notes");
    let name = |n: u32| format!("of/ä{n:05}");
    let all: Vec<_> = (0..2500).map(|n| (name(n), n.to_string())).collect();
    for some in all.chunks(500) {
        let changes = some.iter().map(|(key, value)| change(key, None, Some(value))).collect();
        assert_eq!(notes.compare_and_set_all(changes, None).await, Ok(true));
    }
    for other in ["of", "og/", "of.", "ofä"] {
        assert_eq!(notes.compare_and_set(change(other, None, Some(other))).await, Ok(true));
    }
    assert_eq!(notes.notes("of/").await, Ok(all.clone()));
    assert_eq!(notes.notes("of/ä000").await, Ok(all[..100].to_vec()));
    assert_eq!(notes.notes("of/\n").await, Ok(vec![]));
}

/// One candidate leads at a time. Another one leads when the lease is over or given back, and in a higher term.
pub async fn one_leads_at_a_time<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let notes = store.notes().expect("this store keeps notes");
    let lead = async |who: &str, now| notes.lead("beat", who, HOUR, now).await.expect("an answer");
    assert_eq!(lead("a", NOW).await, Leadership::Leader { term: 1 });
    let ends = match lead("b", NOW).await {
        Leadership::Follower { until } => until,
        leader => panic!("{leader:?}"),
    };
    assert!(ends > if S::EXPIRES_BY_ITSELF { now() } else { NOW });
    assert_eq!(lead("a", NOW + HOUR / 2).await, Leadership::Leader { term: 1 }, "renewed");
    assert!(matches!(lead("b", NOW + HOUR).await, Leadership::Follower { .. }));
    let moment = Duration::from_millis(1);
    let shortened = notes.lead("beat", "a", moment, NOW + HOUR).await;
    assert_eq!(shortened, Ok(Leadership::Leader { term: 1 }));
    // A store with a clock of its own goes by that; for the others it is two hours later.
    let taken_over = async {
        loop {
            let asked = lead("b", NOW + 2 * HOUR).await;
            if matches!(asked, Leadership::Leader { .. }) {
                return asked;
            }
            tokio::time::sleep(moment).await;
        }
    };
    let taken_over = tokio::time::timeout(PATIENCE, taken_over).await.expect("a lease that ends");
    assert_eq!(taken_over, Leadership::Leader { term: 2 }, "the lease is over");
    assert!(matches!(lead("a", NOW + 2 * HOUR).await, Leadership::Follower { .. }));
    assert_eq!(notes.resign("beat", "a").await, Ok(()), "what is not had is not given back");
    assert!(matches!(lead("a", NOW + 2 * HOUR).await, Leadership::Follower { .. }));
    assert_eq!(notes.resign("beat", "b").await, Ok(()));
    assert_eq!(lead("a", NOW + 2 * HOUR).await, Leadership::Leader { term: 3 });
    assert_eq!(notes.lead("other", "b", HOUR, NOW).await, Ok(Leadership::Leader { term: 1 }));
}

/// Notes survive a restart. For durable stores.
pub async fn notes_survive<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    let notes = store.notes().expect("this store keeps notes");
    assert_eq!(notes.compare_and_set(change("kept", None, Some("1"))).await, Ok(true));
    assert_eq!(notes.compare_and_set(change("gone", None, Some("1"))).await, Ok(true));
    assert_eq!(notes.compare_and_set(change("gone", Some("1"), None)).await, Ok(true));
    drop(store);
    let subject = subject.reopen().await.expect("a durable store can be opened again");
    let store = subject.store();
    let notes = store.notes().expect("this store keeps notes");
    assert_eq!(notes.note("gone").await, Ok(None));
    assert_eq!(notes.compare_and_set(change("kept", Some("1"), Some("2"))).await, Ok(true));
}

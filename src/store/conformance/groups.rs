//! The promises of saved groups.

use std::sync::Arc;
use std::time::Duration;

use super::{HOUR, StoreUnderTest, soon};
use crate::store::{GroupMember, GroupResult, GroupStore, Store};
use crate::task::clock::now;

/// The ability that these promises are about.
fn groups(store: &Arc<dyn Store>) -> &dyn GroupStore {
    store.groups().expect("it keeps groups")
}

/// A group with another one inside.
fn nested(id: &str) -> GroupResult {
    let task = |id: &str| GroupMember::Task(id.into());
    let inner = GroupResult::new(format!("{id}/inner"), [task("ä"), task("c")]);
    GroupResult::new(id, [task("b"), GroupMember::Group(inner), task("a")])
}

/// The members of a group are kept as they were saved last, until they are forgotten.
pub async fn groups_are_kept<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    assert_eq!(groups(&store).group("g", now()).await, Ok(None));
    let empty = GroupResult::new("none", []);
    for group in [nested("g"), nested("g-2"), empty.clone()] {
        assert_eq!(groups(&store).save_group(&group, None).await, Ok(()));
        assert_eq!(groups(&store).group(&group.id, now()).await, Ok(Some(group)));
    }
    assert_eq!(groups(&store).group("g/inner", now()).await, Ok(None), "it was not saved by itself");
    let again = GroupResult { id: "g".to_owned(), ..nested("other") };
    for lifetime in [Some(HOUR), Some(HOUR), None] {
        assert_eq!(groups(&store).save_group(&again, lifetime).await, Ok(()));
        assert_eq!(groups(&store).group("g", now()).await, Ok(Some(again.clone())));
    }
    assert_eq!(groups(&store).forget_group("g").await, Ok(true));
    assert_eq!(groups(&store).forget_group("g").await, Ok(false));
    assert_eq!(groups(&store).group("g", now()).await, Ok(None));
    assert_eq!(groups(&store).group("g-2", now()).await, Ok(Some(nested("g-2"))));
    assert_eq!(groups(&store).group("none", now()).await, Ok(Some(empty)));
}

/// A group is kept for its lifetime, and no longer.
pub async fn groups_expire<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    assert_eq!(groups(&store).save_group(&nested("short"), Some(Duration::from_millis(1))).await, Ok(()));
    assert_eq!(groups(&store).save_group(&nested("long"), Some(HOUR)).await, Ok(()));
    // A lifetime that is shorter than the one before counts as well.
    assert_eq!(groups(&store).save_group(&nested("shortened"), Some(HOUR)).await, Ok(()));
    assert_eq!(groups(&store).save_group(&nested("shortened"), Some(Duration::from_millis(1))).await, Ok(()));
    for id in ["short", "shortened"] {
        soon("its time is over", async || groups(&store).group(id, now()).await == Ok(None)).await;
        assert_eq!(groups(&store).forget_group(id).await, Ok(false));
    }
    assert_eq!(groups(&store).group("long", now()).await, Ok(Some(nested("long"))));
    if !S::EXPIRES_BY_ITSELF {
        assert_eq!(groups(&store).group("long", now() + HOUR).await, Ok(None));
    }
}

/// A sweep deletes the groups that have expired, however many, and no others.
pub async fn many_groups_are_swept<S: StoreUnderTest>() {
    let subject = S::open().await;
    let store = subject.store();
    for n in 0..100 {
        let lifetime = if n % 2 == 0 { HOUR } else { 3 * HOUR };
        assert_eq!(groups(&store).save_group(&nested(&format!("g-{n}")), Some(lifetime)).await, Ok(()));
    }
    // The group is saved again, for longer, so the end that was noted first does not count any more.
    assert_eq!(groups(&store).save_group(&nested("g-0"), Some(3 * HOUR)).await, Ok(()));
    assert_eq!(store.sweep(now() + 2 * HOUR).await, Ok(0), "these are no records");
    for n in 0..100 {
        let id = format!("g-{n}");
        let stays = S::EXPIRES_BY_ITSELF || n % 2 == 1 || n == 0;
        assert_eq!(groups(&store).group(&id, now()).await, Ok(stays.then(|| nested(&id))), "{id}");
    }
}

/// Saved groups survive a restart, and go on expiring. For durable stores.
pub async fn groups_survive<S: StoreUnderTest>() {
    let subject = S::open().await;
    assert_eq!(groups(&subject.store()).save_group(&nested("g"), Some(HOUR)).await, Ok(()));
    assert_eq!(groups(&subject.store()).save_group(&nested("forgotten"), None).await, Ok(()));
    assert_eq!(groups(&subject.store()).forget_group("forgotten").await, Ok(true));
    let subject = subject.reopen().await.expect("a durable store can be opened again");
    let store = subject.store();
    assert_eq!(groups(&store).group("g", now()).await, Ok(Some(nested("g"))));
    assert_eq!(groups(&store).group("forgotten", now()).await, Ok(None));
    if !S::EXPIRES_BY_ITSELF {
        assert_eq!(store.sweep(now() + 2 * HOUR).await, Ok(0));
        assert_eq!(groups(&store).group("g", now()).await, Ok(None));
    }
}

//! The promises of saved groups.

use std::time::Duration;

use super::{HOUR, Subject, soon};
use crate::store::{GroupMember, GroupResult};
use crate::task::clock::now;

/// A group with another one inside.
fn nested(id: &str) -> GroupResult {
    let task = |id: &str| GroupMember::Task(id.into());
    let inner = GroupResult::new(format!("{id}/inner"), [task("ä"), task("c")]);
    GroupResult::new(id, [task("b"), GroupMember::Group(inner), task("a")])
}

/// Who the members of a group are is kept as it was said, last, until it is forgotten.
pub async fn groups_are_kept<S: Subject>() {
    let subject = S::open().await;
    let store = subject.store();
    assert_eq!(store.group("g", now()).await, Ok(None));
    let empty = GroupResult::new("none", []);
    for group in [nested("g"), nested("g-2"), empty.clone()] {
        assert_eq!(store.save_group(&group, None).await, Ok(()));
        assert_eq!(store.group(&group.id, now()).await, Ok(Some(group)));
    }
    assert_eq!(store.group("g/inner", now()).await, Ok(None), "it was not saved by itself");
    let again = GroupResult { id: "g".to_owned(), ..nested("other") };
    for lifetime in [Some(HOUR), Some(HOUR), None] {
        assert_eq!(store.save_group(&again, lifetime).await, Ok(()));
        assert_eq!(store.group("g", now()).await, Ok(Some(again.clone())));
    }
    assert_eq!(store.forget_group("g").await, Ok(true));
    assert_eq!(store.forget_group("g").await, Ok(false));
    assert_eq!(store.group("g", now()).await, Ok(None));
    assert_eq!(store.group("g-2", now()).await, Ok(Some(nested("g-2"))));
    assert_eq!(store.group("none", now()).await, Ok(Some(empty)));
}

/// A group is there for the time that was said, and not longer.
pub async fn groups_expire<S: Subject>() {
    let subject = S::open().await;
    let store = subject.store();
    assert_eq!(store.save_group(&nested("short"), Some(Duration::from_millis(1))).await, Ok(()));
    assert_eq!(store.save_group(&nested("long"), Some(HOUR)).await, Ok(()));
    // Shorter than before counts as well.
    assert_eq!(store.save_group(&nested("shortened"), Some(HOUR)).await, Ok(()));
    assert_eq!(store.save_group(&nested("shortened"), Some(Duration::from_millis(1))).await, Ok(()));
    for id in ["short", "shortened"] {
        soon("its time is over", async || store.group(id, now()).await == Ok(None)).await;
        assert_eq!(store.forget_group(id).await, Ok(false));
    }
    assert_eq!(store.group("long", now()).await, Ok(Some(nested("long"))));
    if !S::EXPIRES_BY_ITSELF {
        assert_eq!(store.group("long", now() + HOUR).await, Ok(None));
    }
}

/// A sweep takes the groups whose time is over, however many, and no other.
pub async fn many_groups_are_swept<S: Subject>() {
    let subject = S::open().await;
    let store = subject.store();
    for n in 0..100 {
        let lifetime = if n % 2 == 0 { HOUR } else { 3 * HOUR };
        assert_eq!(store.save_group(&nested(&format!("g-{n}")), Some(lifetime)).await, Ok(()));
    }
    // Saved again, for longer: the end that was noted first is none any more.
    assert_eq!(store.save_group(&nested("g-0"), Some(3 * HOUR)).await, Ok(()));
    assert_eq!(store.sweep(now() + 2 * HOUR).await, Ok(0), "these are no records");
    for n in 0..100 {
        let id = format!("g-{n}");
        let stays = S::EXPIRES_BY_ITSELF || n % 2 == 1 || n == 0;
        assert_eq!(store.group(&id, now()).await, Ok(stays.then(|| nested(&id))), "{id}");
    }
}

/// Saved groups survive a restart, and go on expiring. For durable stores.
pub async fn groups_survive<S: Subject>() {
    let subject = S::open().await;
    assert_eq!(subject.store().save_group(&nested("g"), Some(HOUR)).await, Ok(()));
    assert_eq!(subject.store().save_group(&nested("forgotten"), None).await, Ok(()));
    assert_eq!(subject.store().forget_group("forgotten").await, Ok(true));
    let subject = subject.reopen().await.expect("a durable store can be opened again");
    let store = subject.store();
    assert_eq!(store.group("g", now()).await, Ok(Some(nested("g"))));
    assert_eq!(store.group("forgotten", now()).await, Ok(None));
    if !S::EXPIRES_BY_ITSELF {
        assert_eq!(store.sweep(now() + 2 * HOUR).await, Ok(0));
        assert_eq!(store.group("g", now()).await, Ok(None));
    }
}

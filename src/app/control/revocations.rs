//! Which tasks are revoked, as this process has heard, and what a revocation leaves in the result store.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::{Store, StoreError};
use crate::task::clock::now;
use crate::task::{State, TaskId, TaskResult};

/// The most ids that are remembered, and for how long: Celery's `REVOKES_MAX` and `REVOKE_EXPIRES`. The result store
/// keeps revocations for longer.
const MOST: usize = 50_000;
const KEPT_FOR: Duration = Duration::from_secs(10_800);
/// The most bytes of an id.
const MAX_ID: usize = 255;
/// How long the mark of a revocation is kept: Celery's `result_expires`.
const MARK_EXPIRES: Duration = Duration::from_secs(24 * 3600);

/// The ids that were heard to be revoked.
#[derive(Default)]
pub(in super::super) struct Revocations(Mutex<RevocationLog>);

#[derive(Default)]
struct RevocationLog {
    ids: HashSet<TaskId>,
    by_age: VecDeque<(Instant, TaskId)>,
}

impl RevocationLog {
    fn forget(&mut self, at: Instant) {
        let is_old = |(since, _): &(Instant, TaskId)| at.duration_since(*since) > KEPT_FOR;
        while self.by_age.len() > MOST || self.by_age.front().is_some_and(is_old) {
            if let Some((_, id)) = self.by_age.pop_front() {
                self.ids.remove(&id);
            }
        }
    }
}

impl Revocations {
    /// These were heard just now.
    pub(in super::super) fn add<'a>(&self, ids: impl IntoIterator<Item = &'a str>) {
        let at = Instant::now();
        let mut heard = self.0.lock();
        for id in ids.into_iter().filter(|id| (1..=MAX_ID).contains(&id.len())) {
            let id = TaskId::from(id);
            if heard.ids.insert(id.clone()) {
                heard.by_age.push_back((at, id));
            }
            heard.forget(at);
        }
    }

    /// The ids, the oldest first.
    pub(super) fn list(&self) -> Vec<TaskId> {
        let mut heard = self.0.lock();
        heard.forget(Instant::now());
        heard.by_age.iter().map(|(_, id)| id.clone()).collect()
    }
}

/// Writes REVOKED for a task that does not run in this process, unless the store says that somebody has begun it or
/// that it is over. Celery 5.7 does the same, and its clients see at once that the task will not run. The mark gives
/// way to the record of how the task really ended.
pub(in super::super) async fn mark_revoked(store: &dyn Store, id: &TaskId) -> Result<(), StoreError> {
    // Of a store that nobody else reads, every reader is in this process, and is told when the task's turn comes.
    if !store.is_shared() || store.get(id, now()).await?.is_some() {
        return Ok(());
    }
    let begun = store.tracked(id).await?.is_some_and(|tracked| !is_waiting(&tracked.state));
    if !begun {
        store.put(TaskResult::marked_revoked(id.clone(), now(), MARK_EXPIRES)).await?;
    }
    Ok(())
}

/// Whether a task in this state has not begun, as far as anybody knows.
fn is_waiting(state: &str) -> bool {
    [State::Pending, State::Received, State::Retry, State::Rejected].iter().any(|s| s.as_str() == state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_told_in_its_order_once() {
        let heard = Revocations::default();
        heard.add(["b", "a", "b", "", &"x".repeat(256)]);
        heard.add(["c", "a"]);
        assert_eq!(heard.list(), ["b", "a", "c"].map(TaskId::from));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let heard = Revocations::default();
        let ids: Vec<String> = (0..MOST + 3).map(|n| n.to_string()).collect();
        heard.add(ids.iter().map(String::as_str));
        let kept = heard.list();
        assert_eq!((kept.len(), kept[0].as_str()), (MOST, "3"));
        heard.add(["0"]);
        assert_eq!(heard.list()[0].as_str(), "4", "one that went can come again");
    }
}

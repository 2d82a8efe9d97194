//! Puts tasks back whose records are in a store apart from the broker: dead letters, and tasks that have failed for good.
//!
//! Invariants:
//! - A record goes before its task is back. The next run may end before anything else happens here, and the first record
//!   would stay.
//! - The record of a task that does not go back is written back.
//! - One process at a time puts a task back. Another one that had the record in hand would write it back, because it does not
//!   find the task, and the record of the run that goes on meanwhile would come too late. So a note says whose the task is.
//! - What a process that has died has claimed stays claimed for [`LEASE`]. Whoever puts tasks back later deletes its notes.

use std::time::Duration;

use futures_util::future::join_all;

use crate::broker::{Broker, BrokerError, FailedTasks, Retried, TaskEdit, TaskFilter};
use crate::core::Timestamp;
use crate::store::sent_marks::{mark, write_marks};
use crate::store::{CompareAndSet, Notes, Store, StoreError};
use crate::task::clock::now;
use crate::task::{TaskId, TaskResult};

/// The most dead letters that are looked at after a requeue that failed half-way.
const LETTERS: usize = 10_000;
/// The prefix of the notes that say whose tasks are; the id of the task follows.
const CLAIMED: &str = "run-again/";
/// How long a claim lasts whose process has died.
const LEASE: Duration = Duration::from_secs(120);
/// How many notes are changed at a time.
const AT_ONCE: usize = 64;

/// Puts dead letters back into their queues. Returns the ids of those that were there.
pub(in crate::broker) async fn requeue_dead_letter(
    broker: &dyn Broker,
    store: &dyn Store,
    marks_sent: bool,
    ids: &[TaskId],
) -> Result<Vec<TaskId>, BrokerError> {
    let again = RunAgain::begin(store, marks_sent, ids).await?;
    if again.ids.is_empty() {
        return Ok(Vec::new());
    }
    let requeued = broker.requeue_dead_letters(&again.ids).await;
    // If it is not known which are back, those that are no dead letters any more are.
    let back = match &requeued {
        Ok(back) => back.clone(),
        Err(_) => match broker.dead_letters(LETTERS).await {
            Ok(letters) => again.but(|id| letters.iter().any(|letter| letter.message.id == *id)),
            Err(_) => Vec::new(),
        },
    };
    again.end(&back).await?;
    requeued
}

/// Puts failed tasks back into their queues.
pub(in crate::broker) async fn retry_failed(
    failed: &dyn FailedTasks,
    store: &dyn Store,
    marks_sent: bool,
    ids: &[TaskId],
    edit: Option<&TaskEdit>,
) -> Result<Retried, BrokerError> {
    let again = RunAgain::begin(store, marks_sent, ids).await?;
    if again.ids.is_empty() {
        return Ok(Retried::default());
    }
    let retried = failed.retry_failed(&again.ids, edit).await;
    let back = match &retried {
        Ok(retried) => retried.ids.clone(),
        Err(_) => match failed.failed_ids(&TaskFilter::new().ids(again.ids.iter().cloned())).await {
            Ok(left) => again.but(|id| left.contains(id)),
            Err(_) => Vec::new(),
        },
    };
    again.end(&back).await?;
    retried
}

/// Tasks that this process puts back. Their records are in its hand.
struct RunAgain<'a> {
    store: &'a dyn Store,
    /// What the notes of these tasks say, if the store keeps notes.
    claim: String,
    ids: Vec<TaskId>,
    records: Vec<TaskResult>,
}

impl<'a> RunAgain<'a> {
    /// Claims those of the tasks that no other process puts back just now, and takes their records.
    async fn begin(store: &'a dyn Store, marks_sent: bool, ids: &[TaskId]) -> Result<Self, BrokerError> {
        let claim = format!("{} {}", (now() + LEASE).as_micros(), TaskId::new());
        let mut again = Self { store, claim, ids: Vec::new(), records: Vec::new() };
        let begun = match again.claim(ids).await {
            Ok(()) => again.take_records(marks_sent).await,
            Err(error) => Err(error),
        };
        match begun {
            Ok(()) => Ok(again),
            Err(error) => {
                again.end(&[]).await?;
                Err(error.into())
            }
        }
    }

    async fn claim(&mut self, ids: &[TaskId]) -> Result<(), StoreError> {
        let Some(notes) = self.store.notes() else {
            self.ids = ids.to_vec();
            return Ok(());
        };
        for ids in ids.chunks(AT_ONCE) {
            let claimed = join_all(ids.iter().map(|id| claim(notes, id, &self.claim))).await;
            let ours = |(id, claimed): (&TaskId, &Result<bool, _>)| {
                // One of which that is not known is given back with the others.
                (!matches!(claimed, Ok(false))).then(|| id.clone())
            };
            self.ids.extend(ids.iter().zip(&claimed).filter_map(ours));
            if let Some(error) = claimed.into_iter().find_map(Result::err) {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn take_records(&mut self, marks_sent: bool) -> Result<(), StoreError> {
        for id in &self.ids {
            // A record that comes after this look is that of another run, and stays.
            if let Some(record) = self.store.get(id, now()).await? {
                self.records.push(record);
                self.store.forget(id).await?;
            }
        }
        if marks_sent {
            write_marks(self.store, self.ids.iter().cloned().map(mark).collect()).await;
        }
        Ok(())
    }

    /// The tasks of which this does not hold.
    fn but(&self, is_left: impl Fn(&TaskId) -> bool) -> Vec<TaskId> {
        self.ids.iter().filter(|id| !is_left(id)).cloned().collect()
    }

    /// Writes the records of those back that are not back themselves, and gives up the claims.
    async fn end(self, back: &[TaskId]) -> Result<(), StoreError> {
        let Self { store, claim, ids, records } = self;
        let mut kept = Ok(());
        for record in records.into_iter().filter(|record| !back.contains(&record.id)) {
            kept = kept.and(store.put(record).await.map(drop));
        }
        if let Some(notes) = store.notes() {
            for ids in ids.chunks(AT_ONCE) {
                let free =
                    |id: &TaskId| CompareAndSet { key: key(id), expected: Some(claim.clone()), value: None };
                let freed = join_all(ids.iter().map(|id| notes.compare_and_set(free(id)))).await;
                if let Some(error) = freed.into_iter().find_map(Result::err) {
                    tracing::warn!(%error, "others can put these tasks back only after {LEASE:?}");
                }
            }
            if let Err(error) = forget_old(notes).await {
                tracing::debug!(%error, "claims that are over stay for now");
            }
        }
        kept
    }
}

/// Deletes the claims that are over, which processes have left that died.
async fn forget_old(notes: &dyn Notes) -> Result<(), StoreError> {
    let claims = notes.notes(CLAIMED).await?;
    for (key, text) in claims.into_iter().filter(|(_, claim)| lasts_until(claim) <= now()).take(AT_ONCE) {
        notes.compare_and_set(CompareAndSet { key, expected: Some(text), value: None }).await?;
    }
    Ok(())
}

/// Claims one task, unless it is another process's now.
async fn claim(notes: &dyn Notes, id: &TaskId, claim: &str) -> Result<bool, StoreError> {
    let set = |expected| CompareAndSet { key: key(id), expected, value: Some(claim.to_owned()) };
    if notes.compare_and_set(set(None)).await? {
        return Ok(true);
    }
    let held = notes.note(&key(id)).await?;
    // The answer to the first change was lost on its way.
    if held.as_deref() == Some(claim) {
        return Ok(true);
    }
    if held.as_deref().is_some_and(|held| lasts_until(held) > now()) {
        return Ok(false);
    }
    notes.compare_and_set(set(held)).await
}

fn key(id: &TaskId) -> String {
    format!("{CLAIMED}{id}")
}

/// Until when a claim lasts. One that cannot be read lasts no longer.
fn lasts_until(claim: &str) -> Timestamp {
    let until = claim.split(' ').next().and_then(|until| until.parse().ok());
    until.map_or(Timestamp::ZERO, Timestamp::from_micros)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use tokio::sync::Notify;

    use super::*;
    use crate::broker::FailedTask;
    use crate::store::MemoryStore;
    use crate::task::State;

    /// Failed tasks, of which the first retry stops when it has the records in hand.
    struct Kept {
        ids: Mutex<Vec<TaskId>>,
        first: Mutex<bool>,
        came: Notify,
        goes: Notify,
    }

    impl Kept {
        fn new(ids: &[TaskId]) -> Self {
            let (came, goes) = (Notify::new(), Notify::new());
            Self { ids: Mutex::new(ids.to_vec()), first: Mutex::new(true), came, goes }
        }
    }

    #[async_trait]
    impl FailedTasks for Kept {
        async fn keep_failed(&self, _: FailedTask) -> Result<(), BrokerError> {
            Ok(())
        }

        async fn list_failed(&self, _: &TaskFilter, _: usize) -> Result<Vec<FailedTask>, BrokerError> {
            Ok(Vec::new())
        }

        async fn failed_ids(&self, _: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
            Ok(self.ids.lock().clone())
        }

        async fn retry_failed(&self, ids: &[TaskId], _: Option<&TaskEdit>) -> Result<Retried, BrokerError> {
            let is_first = std::mem::take(&mut *self.first.lock());
            if is_first {
                self.came.notify_one();
                self.goes.notified().await;
            }
            let mut kept = self.ids.lock();
            let (back, left) = kept.drain(..).partition(|id| ids.contains(id));
            *kept = left;
            Ok(Retried { ids: back, refused: Vec::new() })
        }

        async fn delete_failed(&self, _: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
            Ok(Vec::new())
        }

        fn dropped_failed(&self) -> u64 {
            0
        }
    }

    fn record(id: &TaskId, state: State) -> TaskResult {
        TaskResult::new(id.clone(), "task", state, now(), now() + LEASE)
    }

    async fn state(store: &dyn Store, id: &TaskId) -> Option<State> {
        store.get(id, now()).await.unwrap().map(|record| record.state)
    }

    #[tokio::test]
    async fn of_two_that_retry_one_task_in_lockstep_one_does() {
        let (id, other) = (TaskId::from("a"), TaskId::from("b"));
        let ids = [id.clone(), other.clone()];
        let (kept, store) = (Kept::new(&ids), MemoryStore::default());
        let store: &dyn Store = &store;
        store.put(record(&id, State::Failure)).await.unwrap();
        let first = retry_failed(&kept, store, false, &ids[..1], None);
        let second = async {
            kept.came.notified().await;
            let second = retry_failed(&kept, store, false, &ids, None).await.unwrap();
            assert_eq!(
                second.ids,
                std::slice::from_ref(&other),
                "the first one is another's, and holds up no other"
            );
            kept.goes.notify_one();
        };
        let (first, ()) = tokio::join!(first, second);
        assert_eq!(first.unwrap().ids, std::slice::from_ref(&id));
        assert_eq!(state(store, &id).await, None, "the old record does not come back");
        assert!(store.put(record(&id, State::Success)).await.unwrap());
        // Who comes afterwards finds no failed task, and leaves the record of the new run as it is.
        let late = retry_failed(&kept, store, false, &ids, None).await.unwrap();
        assert_eq!((late, state(store, &id).await), (Retried::default(), Some(State::Success)));
        assert!(store.notes().unwrap().notes(CLAIMED).await.unwrap().is_empty(), "no claim is left");
    }

    #[tokio::test]
    async fn the_claim_of_a_process_that_has_died_ends() {
        let id = TaskId::from("a");
        let store = MemoryStore::default();
        let (store, ids): (&dyn Store, _) = (&store, [id.clone()]);
        let notes = store.notes().unwrap();
        for (until, is_free) in [(now() + LEASE, false), (now(), true)] {
            let kept = Kept::new(&ids);
            *kept.first.lock() = false;
            let old = format!("{} other", until.as_micros());
            let set = CompareAndSet { key: key(&id), expected: None, value: Some(old.clone()) };
            assert!(notes.compare_and_set(set).await.unwrap());
            let retried = retry_failed(&kept, store, false, &ids, None).await.unwrap();
            assert_eq!(retried.ids.len(), usize::from(is_free));
            let free = CompareAndSet { key: key(&id), expected: Some(old), value: None };
            assert_eq!(notes.compare_and_set(free).await.unwrap(), !is_free);
        }
    }

    #[tokio::test]
    async fn claims_that_are_over_are_deleted_when_somebody_puts_other_tasks_back() {
        let id = TaskId::from("a");
        let store = MemoryStore::default();
        let (store, ids): (&dyn Store, _) = (&store, [id.clone()]);
        let notes = store.notes().unwrap();
        for (of, until) in [("dead", now()), ("alive", now() + LEASE)] {
            let claim = format!("{} {of}", until.as_micros());
            let set = CompareAndSet { key: key(&TaskId::from(of)), expected: None, value: Some(claim) };
            assert!(notes.compare_and_set(set).await.unwrap());
        }
        let kept = Kept::new(&ids);
        *kept.first.lock() = false;
        assert_eq!(retry_failed(&kept, store, false, &ids, None).await.unwrap().ids, ids);
        let left: Vec<String> = notes.notes(CLAIMED).await.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, [key(&TaskId::from("alive"))]);
    }

    #[tokio::test]
    async fn a_task_that_does_not_go_back_keeps_its_record() {
        let (kept, store) = (Kept::new(&[]), MemoryStore::default());
        *kept.first.lock() = false;
        let (store, id): (&dyn Store, _) = (&store, TaskId::from("a"));
        store.put(record(&id, State::Failure)).await.unwrap();
        let ids = [id.clone()];
        assert_eq!(retry_failed(&kept, store, false, &ids, None).await.unwrap(), Retried::default());
        assert_eq!(state(store, &id).await, Some(State::Failure));
    }
}

//! Stands in front of a store that the program brings: a panic in that store is an error of it, and harms nothing
//! else.
//!
//! Actors and loops of the runtime wait for answers of the store. If the future that was to give an answer has
//! unwound, the answer never comes, which would stall a queue, beat or the writer of states for ever. With an
//! error they know what to do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    ChordJoin, ChordPart, ChordStore, CompareAndSet, DuplicateClaim, DuplicateStore, GroupResult, GroupStore,
    Leadership, Notes, SharedRates, StartsGranted, StartsWanted, Store, StoreError, Term, UniqueWindowStore,
    WindowHold, chords, groups,
};
use crate::core::IoFailure;
use crate::core::Timestamp;
use crate::core::permits::{PermitHolder, Want};
use crate::task::panic::{self, Fixed};
use crate::task::{PermitAnswer, PermitKeeper, TaskId, TaskResult, TrackedState, UniqueKey};

/// A program's store, each call of which may panic.
pub(crate) struct GuardedStore(Arc<dyn Store>, StoreAbilities);

/// What the store can do, since it has said so. A store for which that is not known yet is taken for one that cannot.
#[derive(Default)]
struct StoreAbilities {
    notes: Fixed<bool>,
    unique_windows: Fixed<bool>,
    permits: Fixed<Option<Arc<dyn PermitKeeper>>>,
    shared_rates: Fixed<bool>,
    is_shared: Fixed<bool>,
    chords: Fixed<bool>,
    groups: Fixed<bool>,
    duplicates: Fixed<bool>,
}

struct GuardedPermits(Arc<dyn PermitKeeper>);

/// Awaits a future that may panic, and makes a panic an error.
async fn caught<T, E>(
    what: &str,
    work: impl Future<Output = Result<T, E>>,
    wrong: impl FnOnce(String) -> E,
) -> Result<T, E> {
    panic::caught("store", what, work, wrong).await
}

/// Calls a function that may panic; after a panic the answer is the default one.
fn calm<T: Default>(what: &str, call: impl FnOnce() -> T) -> T {
    panic::tried("store", what, call).unwrap_or_default()
}

/// Asks whether the store has an ability.
fn has(what: &str, known: &Fixed<bool>, ask: impl Fn() -> bool) -> bool {
    known.ask("store", what, ask).unwrap_or_default()
}

impl GuardedStore {
    pub(crate) fn over(store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Self(store, StoreAbilities::default()))
    }

    fn own_notes(&self) -> Result<&dyn Notes, StoreError> {
        self.0.notes().ok_or_else(|| StoreError::Unsupported("this store keeps no notes".to_owned()))
    }

    fn own_chords(&self) -> Result<&dyn ChordStore, StoreError> {
        chords(&*self.0)
    }

    fn own_groups(&self) -> Result<&dyn GroupStore, StoreError> {
        groups(&*self.0)
    }

    fn own_windows(&self) -> Result<&dyn UniqueWindowStore, StoreError> {
        self.0
            .unique_windows()
            .ok_or_else(|| StoreError::Unsupported("this store keeps no unique windows".to_owned()))
    }
}

#[async_trait]
impl Store for GuardedStore {
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        caught("put", async { self.0.put(result).await }, StoreError::Panicked).await
    }

    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        caught("get", async { self.0.get(id, now).await }, StoreError::Panicked).await
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        caught("wait", async { self.0.wait(id).await }, StoreError::Panicked).await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        caught("forget", async { self.0.forget(id).await }, StoreError::Panicked).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        caught("sweep", async { self.0.sweep(now).await }, StoreError::Panicked).await
    }

    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        caught("track", async { self.0.track(state).await }, StoreError::Panicked).await
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        caught("tracked", async { self.0.tracked(id).await }, StoreError::Panicked).await
    }

    async fn untrack(&self, id: &TaskId) -> Result<(), StoreError> {
        caught("untrack", async { self.0.untrack(id).await }, StoreError::Panicked).await
    }

    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        caught("revoke", async { self.0.revoke(id, until).await }, StoreError::Panicked).await
    }

    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        caught("revoked", async { self.0.revoked(ids, now).await }, StoreError::Panicked).await
    }

    fn is_known_revoked(&self, id: &TaskId, now: Timestamp) -> Option<bool> {
        calm("is_known_revoked", || self.0.is_known_revoked(id, now))
    }

    fn notes(&self) -> Option<&dyn Notes> {
        has("notes", &self.1.notes, || self.0.notes().is_some()).then_some(self)
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore> {
        has("unique_windows", &self.1.unique_windows, || self.0.unique_windows().is_some()).then_some(self)
    }

    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        let permits = self.1.permits.ask("store", "permits", || self.0.permits())??;
        Some(Arc::new(GuardedPermits(permits)))
    }
    fn shared_rates(&self) -> Option<&dyn SharedRates> {
        has("shared_rates", &self.1.shared_rates, || self.0.shared_rates().is_some()).then_some(self)
    }

    fn reply_to(&self) -> Option<String> {
        calm("reply_to", || self.0.reply_to())
    }

    fn is_shared(&self) -> bool {
        has("is_shared", &self.1.is_shared, || self.0.is_shared())
    }

    fn chords(&self) -> Option<&dyn ChordStore> {
        has("chords", &self.1.chords, || self.0.chords().is_some()).then_some(self)
    }

    fn groups(&self) -> Option<&dyn GroupStore> {
        has("groups", &self.1.groups, || self.0.groups().is_some()).then_some(self)
    }

    fn duplicates(&self) -> Option<&dyn DuplicateStore> {
        has("duplicates", &self.1.duplicates, || self.0.duplicates().is_some()).then_some(self)
    }
}

#[async_trait]
impl ChordStore for GuardedStore {
    async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError> {
        caught("open_chord", async { self.own_chords()?.open_chord(group, size).await }, StoreError::Panicked)
            .await
    }

    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        caught("join_chord", async { self.own_chords()?.join_chord(part).await }, StoreError::Panicked).await
    }

    async fn extend_chord(&self, group: &str, id: &TaskId) -> Result<(), StoreError> {
        caught(
            "extend_chord",
            async { self.own_chords()?.extend_chord(group, id).await },
            StoreError::Panicked,
        )
        .await
    }

    async fn close_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        caught(
            "close_chord",
            async { self.own_chords()?.close_chord(group, token).await },
            StoreError::Panicked,
        )
        .await
    }

    async fn close_failed_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        let close = async { self.own_chords()?.close_failed_chord(group, token).await };
        caught("close_failed_chord", close, StoreError::Panicked).await
    }
}

#[async_trait]
impl GroupStore for GuardedStore {
    async fn save_group(&self, group: &GroupResult, lifetime: Option<Duration>) -> Result<(), StoreError> {
        caught(
            "save_group",
            async { self.own_groups()?.save_group(group, lifetime).await },
            StoreError::Panicked,
        )
        .await
    }

    async fn group(&self, id: &str, now: Timestamp) -> Result<Option<GroupResult>, StoreError> {
        caught("group", async { self.own_groups()?.group(id, now).await }, StoreError::Panicked).await
    }

    async fn forget_group(&self, id: &str) -> Result<bool, StoreError> {
        caught("forget_group", async { self.own_groups()?.forget_group(id).await }, StoreError::Panicked)
            .await
    }
}

#[async_trait]
impl DuplicateStore for GuardedStore {
    async fn claim(&self, claims: &[DuplicateClaim]) -> Result<Vec<bool>, StoreError> {
        let claim = async {
            match self.0.duplicates() {
                Some(duplicates) => duplicates.claim(claims).await,
                None => Ok(vec![true; claims.len()]),
            }
        };
        caught("claim", claim, StoreError::Panicked).await
    }
}

#[async_trait]
impl Notes for GuardedStore {
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        caught("note", async { self.own_notes()?.note(key).await }, StoreError::Panicked).await
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        caught("notes", async { self.own_notes()?.notes(prefix).await }, StoreError::Panicked).await
    }

    async fn compare_and_set(&self, change: CompareAndSet) -> Result<bool, StoreError> {
        caught(
            "compare_and_set",
            async { self.own_notes()?.compare_and_set(change).await },
            StoreError::Panicked,
        )
        .await
    }

    async fn compare_and_set_all(
        &self,
        changes: Vec<CompareAndSet>,
        under: Option<Term>,
    ) -> Result<bool, StoreError> {
        let change = async { self.own_notes()?.compare_and_set_all(changes, under).await };
        caught("compare_and_set_all", change, StoreError::Panicked).await
    }

    async fn lead(
        &self,
        election: &str,
        candidate: &str,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Leadership, StoreError> {
        let lead = async { self.own_notes()?.lead(election, candidate, lease, now).await };
        caught("lead", lead, StoreError::Panicked).await
    }

    async fn resign(&self, election: &str, candidate: &str) -> Result<(), StoreError> {
        caught("resign", async { self.own_notes()?.resign(election, candidate).await }, StoreError::Panicked)
            .await
    }
}

#[async_trait]
impl UniqueWindowStore for GuardedStore {
    async fn acquire(&self, key: &UniqueKey, id: &TaskId, lease: Duration) -> Result<WindowHold, StoreError> {
        caught("acquire", async { self.own_windows()?.acquire(key, id, lease).await }, StoreError::Panicked)
            .await
    }

    async fn renew(&self, key: &UniqueKey, id: &TaskId, lease: Duration) -> Result<bool, StoreError> {
        caught("renew", async { self.own_windows()?.renew(key, id, lease).await }, StoreError::Panicked).await
    }

    async fn confirm(&self, key: &UniqueKey, id: &TaskId, window: Duration) -> Result<bool, StoreError> {
        let confirm = async { self.own_windows()?.confirm(key, id, window).await };
        caught("confirm", confirm, StoreError::Panicked).await
    }

    async fn release(&self, key: &UniqueKey, id: &TaskId) -> Result<bool, StoreError> {
        caught("release", async { self.own_windows()?.release(key, id).await }, StoreError::Panicked).await
    }

    async fn release_of(&self, id: &TaskId) -> Result<bool, StoreError> {
        caught("release_of", async { self.own_windows()?.release_of(id).await }, StoreError::Panicked).await
    }

    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, StoreError> {
        caught("holder", async { self.own_windows()?.holder(key).await }, StoreError::Panicked).await
    }

    fn carry_out(&self, work: Pin<Box<dyn Future<Output = ()> + Send>>) {
        // The work stays here until the store begins it: a caller waits for what becomes of it.
        let kept = Arc::new(Mutex::new(Some(work)));
        let begun = Arc::clone(&kept);
        let carried = Box::pin(async move {
            let work = begun.lock().take();
            if let Some(work) = work {
                work.await;
            }
        });
        let is_carried = calm("carry_out", || match self.own_windows() {
            Ok(windows) => {
                windows.carry_out(carried);
                true
            }
            Err(_) => false, // a caller with work for a window has asked for a window before
        });
        if !is_carried {
            let left = kept.lock().take();
            if let Some(work) = left {
                drop(tokio::spawn(work));
            }
        }
    }
}

#[async_trait]
impl SharedRates for GuardedStore {
    async fn take_starts(&self, name: &str, wanted: StartsWanted) -> Result<StartsGranted, StoreError> {
        let take = async {
            match self.0.shared_rates() {
                Some(rates) => rates.take_starts(name, wanted).await,
                None => Err(StoreError::Unsupported("this store keeps no rates".to_owned())),
            }
        };
        caught("take_starts", take, StoreError::Panicked).await
    }
}

#[async_trait]
impl PermitKeeper for GuardedPermits {
    async fn acquire(&self, wants: &[Want], holder: &str) -> Result<PermitAnswer, IoFailure> {
        caught("acquire", async { self.0.acquire(wants, holder).await }, IoFailure::new).await
    }

    fn release(&self, wants: &[Want], holder: &str) {
        calm("release", || self.0.release(wants, holder));
    }

    fn park(&self, wants: &[Want], holder: &str, within: Duration) {
        calm("park", || self.0.park(wants, holder, within));
    }

    async fn freed(&self, at_most: Duration) {
        let freed = async {
            self.0.freed(at_most).await;
            Ok::<_, IoFailure>(())
        };
        // Without the pause, the caller who waits would ask again and again.
        if caught("freed", freed, IoFailure::new).await.is_err() {
            tokio::time::sleep(at_most).await;
        }
    }

    async fn holders(&self, name: &str) -> Result<Vec<PermitHolder>, IoFailure> {
        caught("holders", async { self.0.holders(name).await }, IoFailure::new).await
    }
}

#[cfg(test)]
mod tests;

//! Keeps records in this process's memory.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::{Mutex, MutexGuard};

use super::group::GROUPS_GO;
use super::{
    ChordJoin, ChordPart, ChordStore, CompareAndSet, DuplicateStore, GroupResult, GroupStore, LocalPermits,
    Notes, SharedRates, Store, StoreError, Term, TrackedState, UniqueWindowStore, Waiters,
};
use crate::core::Timestamp;
use crate::task::clock::{now, steady};
use crate::task::{PermitKeeper, TaskId, TaskResult};

/// How long a chord may stay unchanged before it is forgotten, since nobody can wait for its body any more.
const CHORDS_GO: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long it is remembered that a body was sent, for members that run twice.
const CLOSED_GO: Duration = Duration::from_secs(5 * 60);
/// How long a caller that is to send a body may take before it is taken for dead.
const CLAIM: Duration = Duration::from_secs(5);
/// How long the state of a task is kept that leaves no record, or no record here.
const TRACKED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps records as long as the process lives.
#[derive(Default)]
pub struct MemoryStore {
    results: DashMap<TaskId, TaskResult>,
    tracked: DashMap<TaskId, (TrackedState, Timestamp)>,
    revoked: DashMap<TaskId, Timestamp>,
    chords: DashMap<String, OpenChord>,
    groups: DashMap<String, (GroupResult, Timestamp)>,
    waiters: Waiters,
    notes: Mutex<BTreeMap<String, String>>,
    permits: Arc<LocalPermits>,
}

/// A chord and the parts that were counted.
#[derive(Default)]
struct OpenChord {
    size: Option<u64>,
    /// The members that were added since, which `size` counts too.
    added: HashSet<TaskId>,
    /// The parts by place and id, so that each member counts once and all come in order; parts without a place
    /// come last.
    parts: BTreeMap<(u32, TaskId), ChordPart>,
    /// The token of the caller that is to send the body, and until when it has that claim, by the steady clock.
    claimed: Option<(String, Timestamp)>,
    closed: bool,
    touched: Timestamp,
}

impl MemoryStore {
    /// Keeps a record; `false`: there was one already, which stays.
    pub(crate) fn insert(&self, result: TaskResult) -> bool {
        match self.results.entry(result.id.clone()) {
            Entry::Occupied(mut old) if old.get().expires_at <= result.finished_at => {
                old.insert(result.clone());
            }
            Entry::Occupied(_) => return false,
            Entry::Vacant(free) => {
                free.insert(result.clone());
            }
        }
        self.tracked.remove(&result.id);
        self.waiters.wake(&result);
        true
    }

    /// Whether there is a record of this id that has not expired.
    pub(crate) fn keeps(&self, id: &TaskId, now: impl FnOnce() -> Timestamp) -> bool {
        self.results.get(id).is_some_and(|r| r.expires_at > now())
    }

    /// The record of this id, also one that has expired.
    pub(crate) fn record(&self, id: &TaskId) -> Option<TaskResult> {
        self.results.get(id).map(|record| record.clone())
    }

    pub(crate) fn lock_notes(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.notes.lock()
    }

    /// States how many parts a chord has.
    pub(crate) fn open(&self, group: &str, size: u64) {
        let mut chord = self.chords.entry(group.to_owned()).or_default();
        if chord.closed {
            *chord = OpenChord::default();
        }
        (chord.size, chord.touched) = (Some(size), now());
    }

    /// Notes that one more part is to come, unless this member was added before. `false`: the chord is not open.
    pub(crate) fn extend(&self, group: &str, id: &TaskId) -> bool {
        let Some(mut chord) = self.chords.get_mut(group).filter(|chord| chord.size.is_some()) else {
            return false;
        };
        if chord.added.insert(id.clone()) {
            chord.size = chord.size.map(|size| size + 1);
        }
        chord.touched = now();
        true
    }

    /// Counts a part. Answers with all parts, if they are complete and the chord is not closed.
    pub(crate) fn count(&self, part: ChordPart) -> Option<Vec<ChordPart>> {
        let mut chord = self.chords.entry(part.group.clone()).or_default();
        if chord.closed {
            return None;
        }
        chord.touched = now();
        chord.parts.entry((part.index.unwrap_or(u32::MAX), part.id.clone())).or_insert(part);
        let complete = chord.size.is_some_and(|size| chord.parts.len() as u64 >= size);
        complete.then(|| chord.parts.values().cloned().collect())
    }

    /// Claims the body: the token of the claim, or how long another caller still has it.
    fn claim(&self, group: &str) -> Result<String, Duration> {
        let mut chord = self.chords.entry(group.to_owned()).or_default();
        let now = steady();
        if let Some((_, until)) = chord.claimed.as_ref().filter(|(_, until)| *until > now) {
            return Err(until.since(now));
        }
        let token = TaskId::new().to_string();
        chord.claimed = Some((token.clone(), now + CLAIM));
        Ok(token)
    }

    /// Closes a chord whose body is sent: members that join it from now on get nothing.
    pub(crate) fn close(&self, group: &str) {
        let closed = OpenChord { closed: true, touched: now(), ..OpenChord::default() };
        self.chords.insert(group.to_owned(), closed);
    }

    /// Shows the state of a task that is not over, whatever the records say.
    pub(crate) fn show(&self, state: TrackedState) {
        self.tracked.insert(state.id.clone(), (state, now()));
    }

    /// The states of all tasks that are not over.
    pub(crate) fn shown(&self) -> Vec<TrackedState> {
        self.tracked.iter().map(|state| state.0.clone()).collect()
    }

    /// Deletes a record. Says whether there was one.
    pub(crate) fn remove(&self, id: &TaskId) -> bool {
        self.results.remove(id).is_some()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        Ok(self.insert(result))
    }

    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        Ok(self.results.get(id).filter(|r| r.expires_at > now).map(|r| r.clone()))
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        let waiting = self.waiters.subscribe(id);
        if let Some(result) = self.results.get(id).map(|r| r.clone()) {
            return Ok(result);
        }
        waiting.record().await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        Ok(self.remove(id))
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut swept = 0;
        self.results.retain(|_, result| {
            let stays = result.expires_at > now;
            swept += usize::from(!stays);
            stays
        });
        self.revoked.retain(|_, until| *until > now);
        let kept = |chord: &OpenChord| if chord.closed { CLOSED_GO } else { CHORDS_GO };
        self.chords.retain(|_, chord| chord.touched + kept(chord) > now);
        self.tracked.retain(|_, (_, at)| *at + TRACKED_FOR > now);
        self.groups.retain(|_, (_, until)| *until > now);
        Ok(swept)
    }

    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        if !self.results.contains_key(&state.id) {
            self.tracked.insert(state.id.clone(), (state, now()));
        }
        Ok(())
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        Ok(self.tracked.get(id).map(|tracked| tracked.0.clone()))
    }

    async fn untrack(&self, id: &TaskId) -> Result<(), StoreError> {
        self.tracked.remove(id);
        Ok(())
    }

    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        self.revoked.insert(id.clone(), until);
        Ok(())
    }

    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        let revoked = |id: &&TaskId| self.revoked.get(*id).is_some_and(|until| *until > now);
        Ok(ids.iter().filter(revoked).cloned().collect())
    }

    fn is_known_revoked(&self, id: &TaskId, now: Timestamp) -> Option<bool> {
        Some(self.revoked.get(id).is_some_and(|until| *until > now))
    }

    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        Some(Arc::clone(&self.permits) as Arc<dyn PermitKeeper>)
    }
    fn shared_rates(&self) -> Option<&dyn SharedRates> {
        None
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(self)
    }

    fn chords(&self) -> Option<&dyn ChordStore> {
        Some(self)
    }

    fn groups(&self) -> Option<&dyn GroupStore> {
        Some(self)
    }

    fn duplicates(&self) -> Option<&dyn DuplicateStore> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore> {
        None
    }

    fn reply_to(&self) -> Option<String> {
        None
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[async_trait]
impl ChordStore for MemoryStore {
    async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError> {
        self.open(group, size);
        Ok(())
    }

    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        loop {
            let Some(parts) = self.count(part.clone()) else { return Ok(ChordJoin::Waiting) };
            let pause = match self.claim(&part.group) {
                Ok(token) => return Ok(ChordJoin::Complete { token, parts }),
                Err(pause) => pause,
            };
            // Another caller is to send the body, and may be dead.
            tokio::time::sleep(pause).await;
        }
    }

    async fn extend_chord(&self, group: &str, id: &TaskId) -> Result<(), StoreError> {
        if self.extend(group, id) { Ok(()) } else { Err(StoreError::NoChord(group.to_owned())) }
    }

    async fn close_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        let owns = |chord: &OpenChord| chord.claimed.as_ref().is_some_and(|(owner, _)| owner == token);
        if self.chords.get(group).is_some_and(|chord| owns(&chord)) {
            self.close(group);
        }
        Ok(())
    }

    async fn close_failed_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        self.close_chord(group, token).await
    }
}

#[async_trait]
impl GroupStore for MemoryStore {
    async fn save_group(&self, group: &GroupResult, lifetime: Option<Duration>) -> Result<(), StoreError> {
        let until = now() + lifetime.unwrap_or(GROUPS_GO);
        self.groups.insert(group.id.clone(), (group.clone(), until));
        Ok(())
    }

    async fn group(&self, id: &str, now: Timestamp) -> Result<Option<GroupResult>, StoreError> {
        let group = self.groups.get(id).filter(|group| group.1 > now);
        Ok(group.map(|group| group.0.clone()))
    }

    async fn forget_group(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.groups.remove(id).is_some_and(|(_, (_, until))| until > now()))
    }
}

#[async_trait]
impl Notes for MemoryStore {
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.lock_notes().get(key).cloned())
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        let notes = self.lock_notes();
        let from = notes.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(from.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    async fn compare_and_set_all(
        &self,
        changes: Vec<CompareAndSet>,
        under: Option<Term>,
    ) -> Result<bool, StoreError> {
        Ok(CompareAndSet::apply_all(&changes, under.as_ref(), &mut self.lock_notes()))
    }
}

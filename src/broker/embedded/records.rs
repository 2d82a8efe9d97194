//! The tables as [`EmbeddedStore`] sees them: records, chords, groups, and the permits that were handed over.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::EmbeddedBroker;
use crate::core::IoFailure;
use crate::core::Timestamp;
use crate::core::key::joined;
use crate::store::embedded::RecordTables;
use crate::store::{
    ChordJoin, ChordPart, EmbeddedStore, GroupResult, LocalPermits, MemoryStore, Notes, ParkedPermit,
    Parking, StoreError, Waiters,
};
use crate::task::{TaskId, TaskResult, TrackedState};

/// The start of the names of notes about permits that were handed over.
const PARKED: &str = "permit/";

fn parked_key(name: &str, holder: &str) -> String {
    joined(&[PARKED, "/", ""], &[&holder, &name])
}

/// Reads a note about a permit. An earlier version noted the name and the holder only.
fn read_parked(text: &str) -> Option<ParkedPermit> {
    let earlier = || {
        let (name, holder) = serde_json::from_str(text).ok()?;
        Some(ParkedPermit { name, holder, within: Duration::MAX })
    };
    serde_json::from_str(text).ok().or_else(earlier)
}

impl EmbeddedStore {
    /// The store that belongs to this broker.
    pub fn new(broker: EmbeddedBroker) -> Self {
        let permits = LocalPermits::parking(broker.clone());
        Self::of(Arc::new(broker), permits)
    }
}

impl Parking for EmbeddedBroker {
    fn parked(&self) -> Result<Vec<ParkedPermit>, IoFailure> {
        let mut parked: Vec<ParkedPermit> = Vec::new();
        for (key, text) in
            self.read_notes(PARKED).map_err(|error| IoFailure::from(StoreError::from(error)))?
        {
            let Some(permit) = read_parked(&text) else { continue };
            let now_called = parked_key(&permit.name, &permit.holder.holder);
            if key != now_called {
                // As an earlier version called it.
                self.set_note(now_called, Some(text));
                self.set_note(key, None);
            }
            parked.push(permit);
        }
        Ok(parked)
    }

    fn park(&self, permit: &ParkedPermit) {
        let text = serde_json::to_string(permit).ok();
        self.set_note(parked_key(&permit.name, &permit.holder.holder), text);
    }

    fn unpark(&self, name: &str, holder: &str) {
        self.set_note(parked_key(name, holder), None);
    }
}

#[async_trait]
impl RecordTables for EmbeddedBroker {
    fn in_memory(&self) -> &MemoryStore {
        self.volatile_results()
    }

    fn waiters(&self) -> &Waiters {
        self.waiters()
    }

    fn notes(&self) -> &dyn Notes {
        self
    }

    fn read_result(&self, id: &TaskId) -> Result<Option<TaskResult>, StoreError> {
        Ok(self.read_result(id)?)
    }

    async fn put_result(&self, result: TaskResult) -> Result<bool, StoreError> {
        Ok(self.put_result(result).await?)
    }

    async fn forget_result(&self, id: TaskId) -> Result<bool, StoreError> {
        Ok(self.forget_result(id).await?)
    }

    async fn sweep_results(&self, now: Timestamp) -> Result<usize, StoreError> {
        Ok(self.sweep_results(now).await?)
    }

    fn keep_state(&self, state: TrackedState) {
        self.keep_state(state);
    }

    async fn open_chord(&self, group: String, size: u64) -> Result<(), StoreError> {
        Ok(self.open_chord(group, size).await?)
    }

    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        Ok(self.join_chord(part).await?)
    }

    async fn close_chord(&self, group: String) -> Result<(), StoreError> {
        Ok(self.close_chord(group).await?)
    }

    async fn save_group(&self, group: &GroupResult, until: Timestamp) -> Result<(), StoreError> {
        Ok(self.save_group(group, until).await?)
    }

    fn read_group(&self, id: &str, now: Timestamp) -> Result<Option<GroupResult>, StoreError> {
        Ok(self.read_group(id, now)?)
    }

    async fn forget_group(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.forget_group(id).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::PermitHolder;

    #[test]
    fn a_note_of_an_earlier_version_is_read() {
        let holder =
            PermitHolder { holder: "h".to_owned(), token: 7, until: Some(Timestamp::from_millis(5)) };
        let earlier = serde_json::to_string(&("a", &holder)).unwrap();
        let mut permit = ParkedPermit { name: "a".to_owned(), holder, within: Duration::MAX };
        assert_eq!(read_parked(&earlier).as_ref(), Some(&permit));
        permit.within = Duration::from_secs(3);
        assert_eq!(read_parked(&serde_json::to_string(&permit).unwrap()), Some(permit));
        assert_eq!(read_parked("{}"), None);
    }
}

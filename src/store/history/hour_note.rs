//! The note of one hour of this process, and what is to be added to it.
//!
//! Invariants:
//! - What is added is in the note once, also if a write fails and nobody knows whether it happened: the next write looks.
//! - Two processes of one name share a note, and each of them adds to it.
//! - A note that cannot be read stays as it is, because a later version may have written it. This hour then has another one.

use std::mem;

use super::{key_of, read, written};
use crate::core::history::{Hour, Resolution};
use crate::store::{CompareAndSet, Notes, StoreError};

/// How often a write begins anew because somebody else has changed the note.
const TRIES: usize = 5;
/// How many notes are tried of which none can be read.
const OTHER_NOTES: usize = 3;

/// An hour of this process.
pub(crate) struct HourNote {
    key: String,
    /// Whether the note was read.
    is_read: bool,
    /// What the note says, as text and as the hour in it.
    text: Option<String>,
    stored: Hour,
    /// What is not in the note yet.
    pending: Hour,
    /// What was written, although nobody knows whether it is there.
    in_flight: Option<UnconfirmedHour>,
}

struct UnconfirmedHour {
    text: String,
    /// The hour in this text.
    merged: Hour,
    /// What this text has more than the note before.
    added: Hour,
}

impl HourNote {
    /// The note of this hour of the process of this name. It is read before the first write.
    pub(crate) fn new(hour: u64, node: &str) -> Self {
        Self {
            key: key_of(hour, node),
            is_read: false,
            text: None,
            stored: Hour::default(),
            pending: Hour::default(),
            in_flight: None,
        }
    }

    /// What is to be added to the note with the next write.
    pub(crate) fn pending(&mut self) -> &mut Hour {
        &mut self.pending
    }

    /// What is not in the note for sure.
    pub(crate) fn unwritten(&self) -> Hour {
        let mut unwritten = self.pending.clone();
        if let Some(in_flight) = &self.in_flight {
            unwritten.merge(&in_flight.added);
        }
        unwritten
    }

    /// Whether all is in the note.
    pub(crate) fn is_written(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_none()
    }

    /// Takes less memory while the note cannot be written: of the hour only sums are kept.
    pub(crate) fn shrink(&mut self) {
        let [.., names_of_queues, _] = Resolution::COARSER;
        self.pending = mem::take(&mut self.pending).coarser(names_of_queues);
    }

    /// Finds out whether what was written last is there, if nobody knows.
    ///
    /// # Errors
    /// The note cannot be read.
    pub(crate) async fn settle(&mut self, notes: &dyn Notes) -> Result<(), StoreError> {
        if self.in_flight.is_some() { self.look(notes).await } else { Ok(()) }
    }

    /// Writes what is pending.
    ///
    /// # Errors
    /// It is not written, or that is not known. The next write adds it, unless it is there.
    pub(crate) async fn write(&mut self, notes: &dyn Notes) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            if self.is_written() {
                return Ok(());
            }
            if !self.is_read || self.in_flight.is_some() {
                self.look(notes).await?;
            }
            if self.pending.is_empty() {
                return Ok(());
            }
            let mut merged = self.stored.clone();
            merged.merge(&self.pending);
            let (text, merged) = written(&merged)?;
            let (key, expected) = (self.key.clone(), self.text.clone());
            let change = CompareAndSet { key, expected, value: Some(text.clone()) };
            let added = mem::take(&mut self.pending);
            self.in_flight = Some(UnconfirmedHour { text, merged, added });
            if notes.compare_and_set(change).await? {
                self.landed();
                return Ok(());
            }
            // Somebody else has changed the note, perhaps to the very same text.
            self.not_landed();
            self.is_read = false;
        }
        Err(StoreError::io("the note of an hour of the history is changed by others time after time"))
    }

    /// Reads the note, and finds out whether what was in flight is there.
    async fn look(&mut self, notes: &dyn Notes) -> Result<(), StoreError> {
        for _ in 0..OTHER_NOTES {
            let text = notes.note(&self.key).await?;
            if self.in_flight.as_ref().is_some_and(|in_flight| text.as_ref() == Some(&in_flight.text)) {
                self.landed();
                return Ok(());
            }
            self.not_landed();
            match text.as_deref().map(read) {
                None => {
                    (self.text, self.stored, self.is_read) = (None, Hour::default(), true);
                    return Ok(());
                }
                Some(Some(hour)) => {
                    (self.text, self.stored, self.is_read) = (text, hour, true);
                    return Ok(());
                }
                Some(None) => {
                    tracing::warn!(
                        note = self.key,
                        "a note of the history cannot be read, so it stays as it is, and this hour is kept beside it"
                    );
                    self.key.push('~');
                }
            }
        }
        Err(StoreError::Refused(format!("the note `{}` cannot be read", self.key)))
    }

    /// What was in flight is not in the note, and is written with the next write.
    fn not_landed(&mut self) {
        if let Some(UnconfirmedHour { added, .. }) = self.in_flight.take() {
            self.pending.merge(&added);
        }
    }

    /// What was in flight is in the note.
    fn landed(&mut self) {
        if let Some(UnconfirmedHour { text, merged, .. }) = self.in_flight.take() {
            (self.text, self.stored, self.is_read) = (Some(text), merged, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::super::tests::some;
    use super::super::{StoredHour, hours};
    use super::*;
    use crate::store::{MemoryStore, Term};

    /// What the notes say of the hour, summed up over its processes.
    async fn told(notes: &dyn Notes) -> Hour {
        let mut all = Hour::default();
        for StoredHour { hour, .. } in hours(notes, 9).await.unwrap() {
            all.merge(&hour.unwrap_or_default());
        }
        all
    }

    #[tokio::test]
    async fn a_process_goes_on_where_the_one_before_it_was() {
        let notes = MemoryStore::default();
        for received in [2, 3] {
            let mut note = HourNote::new(9, "web1");
            note.pending().merge(&some(541, received));
            assert_eq!(note.unwritten(), some(541, received));
            note.write(&notes).await.unwrap();
            note.pending().merge(&some(541, 1));
            note.write(&notes).await.unwrap();
            assert!(note.is_written() && note.unwritten().is_empty());
            note.write(&notes).await.unwrap();
        }
        assert_eq!(told(&notes).await, some(541, 2 + 1 + 3 + 1));
    }

    #[tokio::test]
    async fn processes_of_one_name_add_to_one_note() {
        let notes = MemoryStore::default();
        let mut both = [HourNote::new(9, "web1"), HourNote::new(9, "web1")];
        for round in 0..5 {
            for note in &mut both {
                note.pending().merge(&some(541 + round, 1));
                note.write(&notes).await.unwrap();
            }
        }
        let mut expected = Hour::default();
        (0..5).for_each(|round| expected.merge(&some(541 + round, 2)));
        assert_eq!(told(&notes).await, expected);
        assert_eq!(hours(&notes, 9).await.unwrap().len(), 1);
    }

    /// Notes whose writes fail, before they happen or after that, in turn.
    #[derive(Default)]
    struct Unsure {
        inner: MemoryStore,
        writes: AtomicUsize,
    }

    #[async_trait]
    impl Notes for Unsure {
        async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
            self.inner.note(key).await
        }

        async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
            self.inner.notes(prefix).await
        }

        async fn compare_and_set_all(
            &self,
            changes: Vec<CompareAndSet>,
            under: Option<Term>,
        ) -> Result<bool, StoreError> {
            match self.writes.fetch_add(1, Ordering::SeqCst) % 3 {
                0 => Err(StoreError::io("the way there is cut")),
                1 => {
                    self.inner.compare_and_set_all(changes, under).await?;
                    Err(StoreError::io("the way back is cut"))
                }
                _ => self.inner.compare_and_set_all(changes, under).await,
            }
        }
    }

    #[tokio::test]
    async fn what_may_be_written_already_is_not_written_twice() {
        let notes = Unsure::default();
        let mut note = HourNote::new(9, "web1");
        let mut expected = Hour::default();
        for round in 0..20 {
            note.pending().merge(&some(540 + round, 1));
            expected.merge(&some(540 + round, 1));
            let _ = note.write(&notes).await;
            let mut all = told(&notes).await;
            if !note.is_written() && all != expected {
                all.merge(&note.unwritten());
            }
            assert_eq!(all, expected, "after round {round}");
        }
        while note.write(&notes).await.is_err() {}
        assert_eq!(told(&notes).await, expected);
    }

    #[tokio::test]
    async fn a_note_of_a_later_version_stays() {
        let notes = MemoryStore::default();
        let later =
            CompareAndSet { key: key_of(9, "web1"), expected: None, value: Some("9later".to_owned()) };
        assert_eq!(notes.compare_and_set(later).await, Ok(true));
        let mut note = HourNote::new(9, "web1");
        note.pending().merge(&some(541, 1));
        note.write(&notes).await.unwrap();
        assert_eq!(notes.note(&key_of(9, "web1")).await, Ok(Some("9later".to_owned())));
        assert_eq!(told(&notes).await, some(541, 1));
    }

    #[test]
    fn a_shrunk_hour_has_the_same_sums() {
        let mut note = HourNote::new(9, "web1");
        note.pending().merge(&some(541, 1));
        note.pending().merge(&some(547, 2));
        note.shrink();
        let one = Resolution { names: 0, minutes: 60, queues: 9 };
        let mut both = some(541, 1);
        both.merge(&some(547, 2));
        assert_eq!(note.unwritten(), both.coarser(one));
    }
}

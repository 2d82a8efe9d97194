//! Notes: small texts under a name, which only a caller that knows what they say now can change.
//!
//! Beat keeps what it remembers in notes: up to when an entry's ticks are decided, which day a tenant had last,
//! which entries were added or paused at run time. A change names what the caller believes the note to say. So of
//! several processes that decide the same tick one succeeds, whichever of them believe that they lead.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::core::Timestamp;

/// A change of one note, made only if the note is still as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompareAndSet {
    /// The name of the note; up to 1024 bytes.
    pub key: String,
    /// What the note is expected to say; `None`: there is no such note.
    pub expected: Option<String>,
    /// What the note is to say; `None`: it is deleted.
    pub value: Option<String>,
}

impl CompareAndSet {
    /// Makes the changes in a map of notes, if all notes say what is expected and the term is not over.
    pub(crate) fn apply_all(
        changes: &[Self],
        under: Option<&Term>,
        notes: &mut BTreeMap<String, String>,
    ) -> bool {
        let in_office = under.is_none_or(|term| term.holds(notes.get(&term.key()).map(String::as_str)));
        if !in_office || changes.iter().any(|change| notes.get(&change.key) != change.expected.as_ref()) {
            return false;
        }
        for change in changes {
            match &change.value {
                Some(value) => notes.insert(change.key.clone(), value.clone()),
                None => notes.remove(&change.key),
            };
        }
        true
    }
}

/// The time for which a candidate leads, and under which it changes notes. A leader that was deposed without
/// noticing, because its process was frozen, changes nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The election in which the term was won.
    pub election: String,
    /// The candidate who won it.
    pub candidate: String,
    /// The number of the term.
    pub term: u64,
}

impl Term {
    /// The note in which the default [`Notes::lead`] keeps who leads.
    pub(crate) fn key(&self) -> String {
        election_key(&self.election)
    }

    /// Whether, by what that note says, nobody else has led since.
    pub(crate) fn holds(&self, note: Option<&str>) -> bool {
        let held = note.and_then(|text| serde_json::from_str::<ElectionNote>(text).ok());
        held.is_some_and(|held| held.holder == self.candidate && held.term == self.term)
    }
}

/// The answer to a candidate who asks to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// The candidate leads for the time of its lease. The term goes up with each new leader and never comes again.
    Leader {
        /// The number of its term.
        term: u64,
    },
    /// Another candidate leads. Its lease ends at `until`, unless it renews or resigns.
    Follower {
        /// The end of the other candidate's lease.
        until: Timestamp,
    },
}

/// Keeps notes, and elects leaders.
#[async_trait]
pub trait Notes: Send + Sync {
    /// What a note says; `None`: there is no such note.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError>;

    /// All notes whose names begin with `prefix`, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError>;

    /// Changes a note, as durably as the store is. `false`: the note says something else, and stays.
    ///
    /// # Errors
    /// It is not known whether the note is changed.
    async fn compare_and_set(&self, change: CompareAndSet) -> Result<bool, StoreError> {
        self.compare_and_set_all(vec![change], None).await
    }

    /// Changes several notes, all or none, as durably as the store is. `false`: one of them says something else,
    /// or the term is over; all notes stay.
    ///
    /// # Errors
    /// It is not known whether the notes are changed.
    async fn compare_and_set_all(
        &self,
        changes: Vec<CompareAndSet>,
        under: Option<Term>,
    ) -> Result<bool, StoreError>;

    /// Asks to lead, or to go on leading, for a lease from `now`. The clocks of the candidates must agree to a
    /// good part of the lease; a store with a clock of its own does better to use that one.
    ///
    /// # Errors
    /// The store cannot be read or written. A candidate that led must count on having lost the lead at the end of
    /// its lease.
    async fn lead(
        &self,
        election: &str,
        candidate: &str,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Leadership, StoreError> {
        let key = election_key(election);
        loop {
            let expected = self.note(&key).await?;
            let held = expected.as_deref().and_then(|text| serde_json::from_str::<ElectionNote>(text).ok());
            let term = match &held {
                Some(held) if held.holder == candidate => held.term,
                Some(held) if held.until > now => return Ok(Leadership::Follower { until: held.until }),
                Some(held) => held.term + 1,
                None => 1,
            };
            let mine = ElectionNote { holder: candidate.to_owned(), term, until: now + lease };
            let value = serde_json::to_string(&mine).map_err(|e| StoreError::io_because(e.to_string(), e))?;
            if self.compare_and_set(CompareAndSet { key: key.clone(), expected, value: Some(value) }).await? {
                return Ok(Leadership::Leader { term });
            }
        }
    }

    /// Gives the lead back, so that nobody has to wait for the end of the lease.
    ///
    /// # Errors
    /// The store cannot be read or written.
    async fn resign(&self, election: &str, candidate: &str) -> Result<(), StoreError> {
        let key = election_key(election);
        let Some(text) = self.note(&key).await? else { return Ok(()) };
        match serde_json::from_str::<ElectionNote>(&text) {
            Ok(held) if held.holder == candidate => {
                // The term stays, so that the next one is higher.
                let free = ElectionNote { until: Timestamp::ZERO, holder: String::new(), ..held };
                let value =
                    serde_json::to_string(&free).map_err(|e| StoreError::io_because(e.to_string(), e))?;
                self.compare_and_set(CompareAndSet { key, expected: Some(text), value: Some(value) })
                    .await
                    .map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// Sets a note to `value`, whatever it says now; `None` deletes it.
///
/// # Errors
/// The store cannot be read, or it is not known whether the note is changed.
pub(crate) async fn set_note(
    notes: &dyn Notes,
    key: String,
    value: Option<String>,
) -> Result<(), StoreError> {
    loop {
        let expected = notes.note(&key).await?;
        if expected == value {
            return Ok(());
        }
        let change = CompareAndSet { key: key.clone(), expected, value: value.clone() };
        if notes.compare_and_set(change).await? {
            return Ok(());
        }
    }
}

/// What the note of an election says.
#[derive(Serialize, Deserialize)]
struct ElectionNote {
    holder: String,
    term: u64,
    until: Timestamp,
}

fn election_key(election: &str) -> String {
    format!("election/{election}")
}

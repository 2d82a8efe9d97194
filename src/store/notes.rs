//! Notes: small texts under a name, changed only by whoever knows what they say now.
//!
//! What beat remembers is in notes: up to when an entry's ticks are decided, which day a tenant had last, which entries
//! were added or paused at run time. A change names what it believes the note to say, so that of several who decide the
//! same tick one succeeds, whoever believes to be the leader.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::core::Timestamp;

/// A change of one note, made only if the note is still as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteChange {
    /// The note's name; up to 1024 bytes.
    pub key: String,
    /// What it says; `None`: there is none.
    pub expected: Option<String>,
    /// What it is to say; `None`: it goes.
    pub value: Option<String>,
}

impl NoteChange {
    /// Makes the changes where notes are a map, if all of them say what is expected, and the term is not over.
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

/// The time for which somebody leads, under which notes are changed: whoever was deposed without having noticed, because its
/// process was frozen, changes nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The election that it was won in.
    pub election: String,
    /// By whom.
    pub candidate: String,
    /// Its number.
    pub term: u64,
}

impl Term {
    /// Where notes keep who leads as [`Notes::lead`] does by itself.
    pub(crate) fn key(&self) -> String {
        election_key(&self.election)
    }

    /// Whether nobody else has led since, by what that note says.
    pub(crate) fn holds(&self, note: Option<&str>) -> bool {
        let held = note.and_then(|text| serde_json::from_str::<Held>(text).ok());
        held.is_some_and(|held| held.holder == self.candidate && held.term == self.term)
    }
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// The one who asked, for the time of its lease. The term goes up with each new leader and never comes again.
    Leader {
        /// Its term.
        term: u64,
    },
    /// Somebody else, at least until then unless it resigns.
    Follower {
        /// The end of the other's lease.
        until: Timestamp,
    },
}

/// Keeps notes.
#[async_trait]
pub trait Notes: Send + Sync {
    /// What a note says.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError>;

    /// All notes whose names begin like this, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError>;

    /// Changes a note, durably as far as the store is durable. `false`: it says something else, and stays.
    ///
    /// # Errors
    /// It is not known to be changed.
    async fn change_note(&self, change: NoteChange) -> Result<bool, StoreError> {
        self.change_notes(vec![change], None).await
    }

    /// Changes several notes, all or none, durably as far as the store is durable. `false`: one of them says something else,
    /// or the term is over; all stay.
    ///
    /// # Errors
    /// They are not known to be changed.
    async fn change_notes(&self, changes: Vec<NoteChange>, under: Option<Term>) -> Result<bool, StoreError>;

    /// Asks to lead, or to go on leading, for so long from now. The clocks of those who ask must agree to a good part of
    /// the lease; a store with a clock of its own does better to use that one.
    ///
    /// # Errors
    /// The store cannot be read or written; who led before must count on having lost it at the end of its lease.
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
            let held = expected.as_deref().and_then(|text| serde_json::from_str::<Held>(text).ok());
            let term = match &held {
                Some(held) if held.holder == candidate => held.term,
                Some(held) if held.until > now => return Ok(Leadership::Follower { until: held.until }),
                Some(held) => held.term + 1,
                None => 1,
            };
            let mine = Held { holder: candidate.to_owned(), term, until: now + lease };
            let value = serde_json::to_string(&mine).map_err(|e| StoreError::Io(e.to_string()))?;
            if self.change_note(NoteChange { key: key.clone(), expected, value: Some(value) }).await? {
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
        match serde_json::from_str::<Held>(&text) {
            Ok(held) if held.holder == candidate => {
                // The term stays, so that the next one is higher.
                let free = Held { until: Timestamp::ZERO, holder: String::new(), ..held };
                let value = serde_json::to_string(&free).map_err(|e| StoreError::Io(e.to_string()))?;
                self.change_note(NoteChange { key, expected: Some(text), value: Some(value) }).await.map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// What the note of an election says.
#[derive(Serialize, Deserialize)]
struct Held {
    holder: String,
    term: u64,
    until: Timestamp,
}

fn election_key(election: &str) -> String {
    format!("election/{election}")
}

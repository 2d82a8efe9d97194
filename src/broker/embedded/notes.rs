//! Notes beside the tasks: rows of the `meta` table, and the publish that changes one in its own commit.

use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::EmbeddedBroker;
use super::command::{Command, Reply};
use super::engine::Engine;
use super::lanes::LaneBatch;
use super::rows::encode;
use super::tables::{Table, Writes};
use crate::broker::{BrokerError, Noted};
use crate::store::{NoteChange, Notes, StoreError, Term};
use crate::task::{Durability, Message, Receipt};

const PREFIX: &str = "note/";
/// The database's own limit is far above; this one keeps names sane.
const LONGEST_KEY: usize = 1024;

/// A change of notes, and the message that is published if it succeeds.
pub(super) struct Noting {
    changes: Vec<NoteChange>,
    under: Option<Term>,
    message: Option<(Arc<Message>, Vec<u8>)>,
    reply: Reply<Noted>,
}

fn row_key(key: &str) -> Result<Vec<u8>, BrokerError> {
    if key.is_empty() || key.len() > LONGEST_KEY {
        return Err(BrokerError::Io(format!(
            "the name of a note has {} bytes; give it 1 to {LONGEST_KEY}",
            key.len()
        )));
    }
    Ok(format!("{PREFIX}{key}").into_bytes())
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

#[async_trait]
impl Notes for EmbeddedBroker {
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = row_key(key)?;
        let tables = self.inner.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
        let row = tables.as_ref().map_err(Clone::clone)?.get(Table::Meta, &key)?;
        Ok(row.as_deref().map(text))
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        Ok(self.read_notes(prefix)?)
    }

    async fn change_notes(&self, changes: Vec<NoteChange>, under: Option<Term>) -> Result<bool, StoreError> {
        Ok(self.note_with(changes, under, None).await? != Noted::Outdated)
    }
}

impl EmbeddedBroker {
    /// All notes whose names begin like this, straight from the tables.
    pub(crate) fn read_notes(&self, prefix: &str) -> Result<Vec<(String, String)>, BrokerError> {
        let start = format!("{PREFIX}{prefix}").into_bytes();
        let tables = self.inner.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
        let rows = tables.as_ref().map_err(Clone::clone)?.range(Table::Meta, &start, Bound::Unbounded)?;
        let mut notes = Vec::new();
        for row in rows {
            let (key, value) = row?;
            if !key.starts_with(&start) {
                break;
            }
            notes.push((text(&key[PREFIX.len()..]), text(&value)));
        }
        Ok(notes)
    }

    /// Has a note say this, whatever it says now, before anything that is asked from now on; does not wait for it.
    pub(crate) fn set_note(&self, key: String, value: Option<String>) {
        // A store that is closed takes nothing, and nobody is there to hear of it.
        let _ = self.inner.requests.send(Command::SetNote { key, value });
    }

    /// Changes the note and takes the message in one commit.
    pub(super) async fn publish_with_note(
        &self,
        message: Message,
        change: NoteChange,
    ) -> Result<Noted, BrokerError> {
        if super::is_volatile(&message) {
            // It may be lost with the process, but is not to run twice: noted first.
            return match self.note_with(vec![change], None, None).await? {
                Noted::Outdated => Ok(Noted::Outdated),
                Noted::Changed | Noted::Taken(_) => match self.inner.volatile.publish_now(message, true) {
                    Ok(receipt) => Ok(Noted::Taken(receipt)),
                    Err(BrokerError::DuplicateId(_)) => Ok(Noted::Changed),
                    Err(error) => Err(error),
                },
            };
        }
        if self.inner.volatile.knows(&message.id)? {
            return self.note_with(vec![change], None, None).await;
        }
        let row = encode(&message)?;
        self.note_with(vec![change], None, Some((Arc::new(message), row))).await
    }

    async fn note_with(
        &self,
        changes: Vec<NoteChange>,
        under: Option<Term>,
        message: Option<(Arc<Message>, Vec<u8>)>,
    ) -> Result<Noted, BrokerError> {
        let (reply, answer) = oneshot::channel();
        let noting = Box::new(Noting { changes, under, message, reply });
        self.inner.requests.send(Command::Note(noting)).map_err(|_| BrokerError::Closed)?;
        answer.await.unwrap_or(Err(BrokerError::Closed))
    }
}

impl Engine {
    pub(super) fn note(&mut self, noting: Noting) {
        let Noting { changes, under, message, reply } = noting;
        let _ = reply.send(self.try_note(&changes, under.as_ref(), message));
    }

    pub(super) fn set_note(&mut self, key: &str, value: Option<&str>) {
        let written = row_key(key).and_then(|key| {
            let mut writes = Writes::default();
            match value {
                Some(value) => writes.put(Table::Meta, &key, value.as_bytes()),
                None => writes.delete(Table::Meta, &key),
            }
            self.commit_now(&[], &writes)
        });
        if let Err(error) = written {
            tracing::warn!(key, %error, "a note is not kept");
        }
    }

    fn try_note(
        &mut self,
        changes: &[NoteChange],
        under: Option<&Term>,
        message: Option<(Arc<Message>, Vec<u8>)>,
    ) -> Result<Noted, BrokerError> {
        if let Some(term) = under {
            let note = self.open_tables()?.get(Table::Meta, &row_key(&term.key())?)?;
            if !term.holds(note.as_deref().map(text).as_deref()) {
                return Ok(Noted::Outdated);
            }
        }
        let mut writes = Writes::default();
        for change in changes {
            let key = row_key(&change.key)?;
            let now = self.open_tables()?.get(Table::Meta, &key)?;
            if now.as_deref() != change.expected.as_deref().map(str::as_bytes) {
                return Ok(Noted::Outdated);
            }
            match &change.value {
                Some(value) => writes.put(Table::Meta, &key, value.as_bytes()),
                None => writes.delete(Table::Meta, &key),
            }
        }
        let mut batch = LaneBatch::default();
        let mut noted = Noted::Changed;
        if let Some((message, row)) = message {
            match self.refuse(&message.id, true, row.len()) {
                Ok(()) => {
                    let (tables, queue) = (self.open_tables()?, self.queue(&message.queue)?);
                    let receipt = Receipt::new(message.id.clone(), message.queue.clone(), Durability::Disk);
                    // Should it fail, it is told from the commit before by its sequence.
                    self.seq += 1;
                    noted = Noted::Taken(match self.arrive(&mut batch, &tables, queue, &message, &row)? {
                        Some(holder) => receipt.joining(holder),
                        None => receipt,
                    });
                }
                // It was taken before: all that is left is to say so.
                Err(BrokerError::DuplicateId(_)) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        self.commit.free = None;
        self.commit_lanes(batch, writes)?;
        Ok(noted)
    }
}

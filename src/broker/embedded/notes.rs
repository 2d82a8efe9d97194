//! Notes beside the tasks: rows of the `meta` table, and a publish that changes a note in its own commit.

use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::EmbeddedBroker;
use super::command::{EngineCommand, ReplySender};
use super::engine::Engine;
use super::lanes::LaneBatch;
use super::rows::encode;
use super::tables::{TableName, Writes};
use crate::broker::{BrokerError, CasOutcome, limits};
use crate::store::{CompareAndSet, Notes, StoreError, Term};
use crate::task::{Durability, Message, Receipt};

const PREFIX: &str = "note/";

/// A change of notes, and the message that is published if the change succeeds.
pub(super) struct Noting {
    changes: Vec<CompareAndSet>,
    under: Option<Term>,
    message: Option<(Arc<Message>, Vec<u8>)>,
    reply: ReplySender<CasOutcome>,
}

fn row_key(key: &str) -> Result<Vec<u8>, BrokerError> {
    limits::note(key)?;
    Ok(format!("{PREFIX}{key}").into_bytes())
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

#[async_trait]
impl Notes for EmbeddedBroker {
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = row_key(key)?;
        let tables = self.inner.shared.tables.read();
        let row = tables.as_ref().map_err(Clone::clone)?.get(TableName::Meta, &key)?;
        Ok(row.as_deref().map(text))
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        Ok(self.read_notes(prefix)?)
    }

    async fn compare_and_set_all(
        &self,
        changes: Vec<CompareAndSet>,
        under: Option<Term>,
    ) -> Result<bool, StoreError> {
        Ok(self.note_with(changes, under, None).await? != CasOutcome::Outdated)
    }
}

impl EmbeddedBroker {
    /// Reads all notes whose names begin with `prefix`, straight from the tables.
    pub(crate) fn read_notes(&self, prefix: &str) -> Result<Vec<(String, String)>, BrokerError> {
        let start = format!("{PREFIX}{prefix}").into_bytes();
        let tables = self.inner.shared.tables.read();
        let rows = tables.as_ref().map_err(Clone::clone)?.range(TableName::Meta, &start, Bound::Unbounded)?;
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

    /// Sets a note, whatever it says now, before any later request is handled. Does not wait until that is done.
    pub(crate) fn set_note(&self, key: String, value: Option<String>) {
        // A closed store takes nothing, and then nobody is there to be told.
        let _ = self.inner.requests.send(EngineCommand::SetNote { key, value });
    }

    /// Changes the note and takes the message in one commit.
    pub(super) async fn publish_with_note(
        &self,
        message: Message,
        change: CompareAndSet,
    ) -> Result<CasOutcome, BrokerError> {
        if super::is_volatile(&message) {
            // The message may be lost with the process but must not run twice, so the note is changed first.
            return match self.note_with(vec![change], None, None).await? {
                CasOutcome::Outdated => Ok(CasOutcome::Outdated),
                CasOutcome::Changed | CasOutcome::Taken(_) => {
                    match self.inner.volatile.publish_now(Arc::new(message), true) {
                        Ok(receipt) => Ok(CasOutcome::Taken(receipt)),
                        Err(BrokerError::DuplicateId(_)) => Ok(CasOutcome::Changed),
                        Err(error) => Err(error),
                    }
                }
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
        changes: Vec<CompareAndSet>,
        under: Option<Term>,
        message: Option<(Arc<Message>, Vec<u8>)>,
    ) -> Result<CasOutcome, BrokerError> {
        let (reply, answer) = oneshot::channel();
        let noting = Box::new(Noting { changes, under, message, reply });
        self.inner.requests.send(EngineCommand::Note(noting)).map_err(|_| BrokerError::Closed)?;
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
                Some(value) => writes.put(TableName::Meta, &key, value.as_bytes()),
                None => writes.delete(TableName::Meta, &key),
            }
            self.commit_now(&[], &writes)
        });
        if let Err(error) = written {
            tracing::warn!(key, %error, "a note is not kept");
        }
    }

    fn try_note(
        &mut self,
        changes: &[CompareAndSet],
        under: Option<&Term>,
        message: Option<(Arc<Message>, Vec<u8>)>,
    ) -> Result<CasOutcome, BrokerError> {
        if let Some(term) = under {
            let note = self.open_tables()?.get(TableName::Meta, &row_key(&term.key())?)?;
            if !term.holds(note.as_deref().map(text).as_deref()) {
                return Ok(CasOutcome::Outdated);
            }
        }
        let mut writes = Writes::default();
        for change in changes {
            let key = row_key(&change.key)?;
            let now = self.open_tables()?.get(TableName::Meta, &key)?;
            if now.as_deref() != change.expected.as_deref().map(str::as_bytes) {
                return Ok(CasOutcome::Outdated);
            }
            match &change.value {
                Some(value) => writes.put(TableName::Meta, &key, value.as_bytes()),
                None => writes.delete(TableName::Meta, &key),
            }
        }
        let mut batch = LaneBatch::default();
        let mut noted = CasOutcome::Changed;
        if let Some((message, row)) = message {
            match self.refuse(&message.id, true, row.len()) {
                Ok(()) => {
                    let (tables, queue) = (self.open_tables()?, self.queue(&message.queue)?);
                    let receipt = Receipt::new(message.id.clone(), message.queue.clone(), Durability::Disk);
                    // A commit that fails is removed from the journal by its sequence, which must differ from that
                    // of the commit before.
                    self.seq += 1;
                    noted =
                        CasOutcome::Taken(match self.arrive(&mut batch, &tables, queue, &message, &row)? {
                            Some(holder) => receipt.joining(holder),
                            None => receipt,
                        });
                }
                // The message was taken before, so only the note is left to change.
                Err(BrokerError::DuplicateId(_)) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        self.commit.free = None;
        self.commit_lanes(batch, writes)?;
        Ok(noted)
    }
}

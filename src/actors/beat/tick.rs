//! One tick on its way to the broker.

use super::{BeatParts, publication};
use crate::broker::Noted;
use crate::core::Timestamp;
use crate::core::calendar::Overlap;
use crate::store::NoteChange;
use crate::task::clock::now;
use crate::task::{Arguments, Client, NewTask, Periodic, State, TaskId, TaskOptions};

/// The runtime that ticks are published for.
pub(crate) trait Publisher: Client {
    /// Whether it takes nothing more.
    fn is_closing(&self) -> bool;
}

/// A tick that is to be published.
pub(super) struct Tick<'a> {
    pub(super) entry: &'a Periodic,
    pub(super) id: TaskId,
    pub(super) arguments: Arguments,
    /// When it stops being of use, if neither the entry nor the task says.
    pub(super) next: Option<Timestamp>,
    /// The task of the tick before, and when that one stops being of use.
    pub(super) before: Option<(TaskId, Option<Timestamp>)>,
    /// The note that says that this tick is published, and the one that says that it was dropped.
    pub(super) key: String,
    pub(super) note: Option<String>,
    pub(super) published: String,
    pub(super) dropped: String,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is published, by us or before.
    Published,
    /// The one before stands for it, or the policy drops it.
    Coalesced,
    /// It waits until this one is over.
    Held(TaskId),
    /// Somebody else has decided it.
    Outdated,
}

impl Tick<'_> {
    /// When it stops being of use.
    pub(super) fn expires_at(&self, parts: &BeatParts) -> Option<Timestamp> {
        let after = self.entry.expires.or(options(parts, self.entry).expires);
        after.map_or(self.next, |after| Some(now() + after))
    }

    pub(super) async fn publish(self, parts: &BeatParts) -> Result<Told, String> {
        if self.entry.overlap != Overlap::Allow
            && let Some((before, expires)) = &self.before
        {
            let state = parts.client().ok_or("the runtime has ended")?.state(before).await;
            match state.map_err(|e| e.to_string())? {
                State::Started if self.entry.overlap == Overlap::BufferOne => {
                    return Ok(Told::Held(before.clone()));
                }
                State::Started => return self.drop_it(parts).await,
                State::Pending | State::Received | State::Retry => {
                    if expires.is_none_or(|at| at > now()) {
                        return self.drop_it(parts).await;
                    }
                    // It would be revoked instead of run, so it stands for nothing any more.
                    let client = parts.client().ok_or("the runtime has ended")?;
                    client.revoke(before, false).await.map_err(|e| e.to_string())?;
                }
                _ => {}
            }
        }
        let mut call = NewTask::new(&self.entry.task, options(parts, self.entry));
        call.expires_at = self.expires_at(parts);
        call.id = Some(self.id);
        call.arguments = self.arguments;
        // As Celery's beat marks its messages.
        call.headers.0.insert("celery_beat_task".to_owned(), true.into());
        let change = NoteChange { key: self.key, expected: self.note, value: Some(self.published) };
        match publication::publish(parts, call, change).await.map_err(|e| e.to_string())? {
            Noted::Taken(receipt) => {
                tracing::debug!(entry = self.entry.name, id = %receipt.id, queue = receipt.queue, "tick");
                Ok(Told::Published)
            }
            Noted::Changed => Ok(Told::Published),
            Noted::Outdated => Ok(Told::Outdated),
        }
    }

    async fn drop_it(self, parts: &BeatParts) -> Result<Told, String> {
        let change = NoteChange { key: self.key, expected: self.note, value: Some(self.dropped) };
        let changed = parts.runtime.notes().change_notes(vec![change], parts.term()).await;
        let changed = changed.map_err(|e| e.to_string())?;
        tracing::debug!(entry = self.entry.name, "a tick was dropped: the one before is not over");
        Ok(if changed { Told::Coalesced } else { Told::Outdated })
    }
}

/// The options of an entry's calls: those of its task, if it is one of this program.
pub(super) fn options(parts: &BeatParts, entry: &Periodic) -> TaskOptions {
    let mut options = parts
        .runtime
        .dispatcher
        .registry
        .get(&entry.task)
        .map_or_else(TaskOptions::default, |task| (task.options)());
    if let Some(queue) = &entry.queue {
        options.queue = Some(queue.clone());
    }
    if entry.expires.is_some() {
        options.expires = entry.expires;
    }
    options
}

//! One tick on its way to the broker: the overlap policy decides whether it is published, dropped or held, and its
//! task gets the options and headers of the entry.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::{BeatParts, publication};
use crate::broker::CasOutcome;
use crate::core::Timestamp;
use crate::core::calendar::Overlap;
use crate::store::CompareAndSet;
use crate::task::clock::now;
use crate::task::{Arguments, Client, NewTask, Periodic, State, TaskId, TaskOptions, panic_message};

/// The runtime as beat and the source pollers see it: a client that may be shutting down.
pub(crate) trait TickPublisher: Client {
    /// Whether the runtime shuts down, so that nothing more is to be published.
    fn is_closing(&self) -> bool;
}

/// A tick that is due, with all that is needed to decide and publish it.
pub(super) struct DueTick<'a> {
    pub(super) entry: &'a Periodic,
    pub(super) id: TaskId,
    pub(super) arguments: Arguments,
    /// When the tick's task expires, if neither the entry nor the task states it: at the next tick.
    pub(super) next: Option<Timestamp>,
    /// The task of the tick before, and when that one expires.
    pub(super) before: Option<(TaskId, Option<Timestamp>)>,
    /// The key of the note that the tick changes, what it says now, and what it is to say when the tick is
    /// published or dropped.
    pub(super) key: String,
    pub(super) note: Option<String>,
    pub(super) published: String,
    pub(super) dropped: String,
}

/// What became of a tick.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PublishReport {
    /// It is published, by this process now or by any before.
    Published,
    /// It was dropped: the tick before stands for it.
    Coalesced,
    /// It is held back until this task, the tick before it, is over.
    Held(TaskId),
    /// The note says something else: another process has decided the tick.
    Outdated,
}

impl DueTick<'_> {
    /// When the tick's task expires.
    pub(super) fn expires_at(&self, parts: &BeatParts) -> Option<Timestamp> {
        let after = self.entry.expires.or(options(parts, self.entry).expires);
        after.map_or(self.next, |after| Some(now() + after))
    }

    /// Publishes the tick, or decides by the overlap policy that it is dropped or held. The error is a text: the
    /// tick is not decided, and is to be tried again.
    pub(super) async fn publish(self, parts: &BeatParts) -> Result<PublishReport, String> {
        // The overlap policy comes first: it needs the state of the task of the tick before.
        if self.entry.overlap != Overlap::Allow
            && let Some((before, expires)) = &self.before
        {
            let state = parts.client().ok_or("the runtime has ended")?.state(before).await;
            match state.map_err(|e| e.to_string())? {
                State::Started if self.entry.overlap == Overlap::BufferOne => {
                    return Ok(PublishReport::Held(before.clone()));
                }
                State::Started => return self.drop_it(parts).await,
                State::Pending | State::Received | State::Retry => {
                    if expires.is_none_or(|at| at > now()) {
                        return self.drop_it(parts).await;
                    }
                    // The task before has expired: it would be revoked instead of run. So it does not stand for
                    // this tick any more.
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
        // Celery's beat marks its messages by this header.
        call.headers.0.insert("celery_beat_task".to_owned(), true.into());
        let change = CompareAndSet { key: self.key, expected: self.note, value: Some(self.published) };
        // A task's unique key is made by the program's own code, which may panic. The panic must become a failure:
        // without an answer the tick would never be tried again.
        let published = AssertUnwindSafe(publication::publish(parts, call, change)).catch_unwind().await;
        let published =
            published.map_err(|panic| format!("its publish panicked: {}", panic_message(panic)))?;
        match published.map_err(|e| e.to_string())? {
            CasOutcome::Taken(receipt) => {
                tracing::debug!(entry = self.entry.name, id = %receipt.id, queue = receipt.queue, "tick published");
                Ok(PublishReport::Published)
            }
            CasOutcome::Changed => Ok(PublishReport::Published),
            CasOutcome::Outdated => Ok(PublishReport::Outdated),
        }
    }

    async fn drop_it(self, parts: &BeatParts) -> Result<PublishReport, String> {
        let change = CompareAndSet { key: self.key, expected: self.note, value: Some(self.dropped) };
        let changed = parts.runtime.notes().compare_and_set_all(vec![change], parts.term()).await;
        let changed = changed.map_err(|e| e.to_string())?;
        tracing::debug!(entry = self.entry.name, "a tick was dropped: the one before is not over");
        Ok(if changed { PublishReport::Coalesced } else { PublishReport::Outdated })
    }
}

/// The options of an entry's calls: those of its task, if this program has the task, changed by the entry's own.
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

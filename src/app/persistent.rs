//! Levers on queues that hold after a restart, too. What an operator has set is a note, and the start reads it before
//! anything runs.
//!
//! | note | says |
//! |---|---|
//! | `queue/paused/QUEUE` | that the queue is paused, and since when |
//! | `queue/workers/QUEUE` | how many workers it has, in place of what its row says |
//!
//! Programs that keep their notes in one place share these as well: a note takes the place of what the catalogue says,
//! and each program goes by it from its next start.

use std::collections::HashMap;

use super::handle::{Celeriac, ControlError};
use crate::actors::InitialQueue;
use crate::actors::queue::Steer;
use crate::catalogue::QueueRow;
use crate::core::autoscale::WorkerRange;
use crate::runtime::Runtime;
use crate::store::{StoreError, set_note};
use crate::task::clock::now;

const PAUSED: &str = "queue/paused/";
const WORKERS: &str = "queue/workers/";

/// Levers on queues whose effect outlasts the program. [`Celeriac::persistent`] makes it.
///
/// ```no_run
/// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
/// celeriac.persistent().pause("repeat_record_queue").await?; // a deploy does not start it again
/// celeriac.persistent().resize("email_queue", 200).await?;
/// celeriac.persistent().reset("email_queue").await?; // as its row says
/// # Ok(()) }
/// ```
pub struct PersistentLevers<'a> {
    celeriac: &'a Celeriac,
}

/// What a note keeps of a queue.
#[derive(Clone, Copy)]
pub(super) enum KeptLever {
    Paused,
    Workers(usize),
}

impl Celeriac {
    /// Levers on queues that hold after a restart, too. They act in this program at once; programs that share the store
    /// where they are kept go by them from their next start.
    pub fn persistent(&self) -> PersistentLevers<'_> {
        PersistentLevers { celeriac: self }
    }
}

impl PersistentLevers<'_> {
    /// Pauses a queue until [`Celeriac::resume`] or [`reset`](Self::reset), also after a restart.
    ///
    /// # Errors
    /// There is no such queue, nothing here keeps notes that outlast the program, or they cannot be written. If the queue
    /// does not answer, the pause is kept all the same.
    pub async fn pause(&self, queue: &str) -> Result<(), ControlError> {
        let paused = self.celeriac.pause(queue).await;
        self.keep_unless_refused(queue, paused, KeptLever::Paused).await
    }

    /// Sets the number of workers of a queue until [`reset`](Self::reset), also after a restart.
    ///
    /// # Errors
    /// As [`pause`](Self::pause), or `workers` is 0.
    pub async fn resize(&self, queue: &str, workers: usize) -> Result<(), ControlError> {
        let resized = self.celeriac.resize(queue, workers).await;
        self.keep_unless_refused(queue, resized, KeptLever::Workers(workers)).await
    }

    /// Forgets what was set: the queue is not paused, and has as many workers as its row says or follows its load within the
    /// range that its row says, now and after a restart.
    ///
    /// # Errors
    /// There is no such queue, it does not answer, or the notes cannot be written.
    pub async fn reset(&self, queue: &str) -> Result<(), ControlError> {
        let row = self.celeriac.find(queue)?;
        let (name, workers) = (row.name.clone(), row.workers);
        let range = row.max_workers.map(|most| WorkerRange::new(workers, most));
        forget(self.celeriac.runtime(), &[PAUSED, WORKERS], &name).await?;
        self.celeriac.resume(&name).await?;
        self.celeriac.steer(&name, Steer::AsStated { workers, range }).await
    }

    /// Keeps what was set, also if the queue did not answer: then it finds the note at its next start.
    async fn keep_unless_refused(
        &self,
        queue: &str,
        set: Result<(), ControlError>,
        lever: KeptLever,
    ) -> Result<(), ControlError> {
        if matches!(set, Ok(()) | Err(ControlError::NotAnswering(_))) {
            keep(self.celeriac.runtime(), &self.celeriac.find(queue)?.name, lever).await?;
        }
        set
    }
}

/// Keeps a lever of a queue, by its physical name.
///
/// # Errors
/// Nothing here keeps notes that outlast the program, or they cannot be written.
pub(super) async fn keep(runtime: &Runtime, queue: &str, lever: KeptLever) -> Result<(), ControlError> {
    if !runtime.shares_notes() {
        return Err(ControlError::NothingKept);
    }
    let (prefix, value) = match lever {
        KeptLever::Paused => {
            // Noted first: a pause of which it is not known whether it is kept has to be forgotten as well.
            runtime.kept_pauses.lock().insert(queue.to_owned());
            (PAUSED, now().to_string())
        }
        KeptLever::Workers(workers) => (WORKERS, workers.to_string()),
    };
    Ok(set_note(runtime.notes(), format!("{prefix}{queue}"), Some(value)).await?)
}

/// Forgets the pause that was kept of a queue, if there is one. Where nobody else keeps notes and none is known, the store is
/// not asked: one whose disk is full would not answer, and a queue that is paused for now goes on all the same.
pub(super) async fn forget_pause(runtime: &Runtime, queue: &str) -> Result<(), StoreError> {
    let is_known = runtime.kept_pauses.lock().contains(queue);
    if !is_known && !runtime.broker.facts().is_shared && !runtime.store.is_shared() {
        return Ok(());
    }
    forget(runtime, &[PAUSED], queue).await
}

async fn forget(runtime: &Runtime, prefixes: &[&str], queue: &str) -> Result<(), StoreError> {
    if !runtime.shares_notes() {
        return Ok(());
    }
    for prefix in prefixes {
        set_note(runtime.notes(), format!("{prefix}{queue}"), None).await?;
    }
    if prefixes.contains(&PAUSED) {
        runtime.kept_pauses.lock().remove(queue);
    }
    Ok(())
}

/// Since when a queue is paused for good, as its note says. `None`: it is not.
///
/// # Errors
/// The notes cannot be read.
#[cfg(feature = "cli")]
pub(crate) async fn paused_since(
    notes: &dyn crate::store::Notes,
    queue: &str,
) -> Result<Option<String>, StoreError> {
    notes.note(&format!("{PAUSED}{queue}")).await
}

/// The queues as they begin, by their rows and by what is kept of them.
///
/// # Errors
/// The notes cannot be read.
pub(super) async fn begin(runtime: &Runtime, rows: Vec<QueueRow>) -> Result<Vec<InitialQueue>, StoreError> {
    if !runtime.shares_notes() {
        return Ok(rows.into_iter().map(InitialQueue::from).collect());
    }
    let (paused, workers) = (kept(runtime, PAUSED).await?, kept(runtime, WORKERS).await?);
    runtime.kept_pauses.lock().extend(paused.keys().cloned());
    let begun = rows.into_iter().map(|mut row| {
        let since = paused.get(&row.name);
        let count = workers.get(&row.name).and_then(|count| count.parse::<usize>().ok()).filter(|count| *count > 0);
        if since.is_some() || count.is_some() {
            tracing::info!(target: "celeriac", queue = row.name, paused = ?since, workers = ?count, "a queue begins as an operator has set it for good");
        }
        row.workers = count.unwrap_or(row.workers);
        InitialQueue { is_paused: since.is_some(), row }
    });
    Ok(begun.collect())
}

/// What the notes with this prefix say, by queue.
async fn kept(runtime: &Runtime, prefix: &str) -> Result<HashMap<String, String>, StoreError> {
    let notes = runtime.notes().notes(prefix).await?;
    Ok(notes
        .into_iter()
        .filter_map(|(key, text)| Some((key.strip_prefix(prefix)?.to_owned(), text)))
        .collect())
}

//! What operators see of beat's entries, and why a lever of beat may fail.

use std::sync::Arc;

use serde::Serialize;

use crate::core::Timestamp;
use crate::task::Periodic;

/// Where a periodic entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EntryOrigin {
    /// A `#[periodic_task]` in the program's code.
    Program,
    /// `[[periodic]]` of the catalogue, or the builder's `periodic`.
    Catalogue,
    /// It was added or changed at run time.
    RunTime,
}

/// A tick of a periodic entry that is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PastTick {
    /// The time of the tick.
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub at: Timestamp,
    /// The id of its task; `None`: it was dropped, because the tick before it was not over.
    pub id: Option<String>,
}

/// A periodic entry as it is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EntryStatus {
    /// The name of the entry.
    pub name: String,
    /// The name of the task that it calls.
    pub task: String,
    /// The schedule of the entry, as text.
    pub schedule: String,
    /// The entry itself: its schedule, its arguments and its rules. It is not in the serialized form.
    #[serde(skip)]
    pub entry: Arc<Periodic>,
    /// The place where the entry was declared.
    pub origin: EntryOrigin,
    /// Whether somebody has paused the entry.
    pub paused: bool,
    /// When it fires next; `None`: it is paused, is firing just now, or never fires again.
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub next: Option<Timestamp>,
    /// Up to when its ticks are decided: published, or dropped by its policies.
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub last: Timestamp,
    /// The id of the task of its last tick.
    pub last_id: Option<String>,
    /// Whether a tick is held back until the run of the tick before is over.
    pub held: bool,
    /// How many tenants it fires for; `None`: it does not fire for tenants.
    pub tenants: Option<usize>,
    /// Ticks that were published since this process began to lead.
    pub published: u64,
    /// Ticks that were dropped in that time, because the tick before was not over.
    pub coalesced: u64,
    /// The last twenty ticks that were decided in that time, the newest first. An entry that fires for tenants has
    /// none.
    pub past: Vec<PastTick>,
    /// Why the last tick could not be published, or the tenants could not be listed; `None`: that has succeeded
    /// since.
    pub error: Option<String>,
}

/// Why beat did not do what an operator asked.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BeatError {
    /// Beat is switched off in this program.
    #[error(
        "beat is switched off in this program (`beat = false` in the catalogue, or `.beat(false)`; in a test it is on after `testing::builder().beat(true)`)"
    )]
    Off,
    /// There is no entry of this name.
    #[error("no periodic entry `{name}`{hint}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// `; did you mean ...`, or nothing.
        hint: String,
    },
    /// The entry is not valid: its parts contradict each other, or one is out of range.
    #[error("the entry `{name}` cannot be: {fault}")]
    Entry {
        /// The entry's name.
        name: String,
        /// What is wrong and what to do.
        fault: String,
    },
    /// The entry is written in the program or its catalogue, so it cannot be taken out here.
    #[error("the entry `{0}` is in the program or its catalogue: pause it, or take it out there")]
    Written(String),
    /// The entry fires for each tenant, so it has no single call to trigger.
    #[error(
        "the entry `{0}` fires for each tenant by its own clock; enqueue its task for the tenant that you mean"
    )]
    PerTenant(String),
    /// The actor does not answer, or this process does not lead.
    #[error(
        "beat does not answer: it is being restarted, another process leads, or the runtime has shut down; try again"
    )]
    NotAnswering,
    /// The task of the entry could not be enqueued.
    #[error(transparent)]
    Enqueue(#[from] crate::task::EnqueueError),
    /// The notes could not be read or changed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

crate::core::debug_as_display!(BeatError);

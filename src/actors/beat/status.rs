//! What beat tells about its entries.

use serde::Serialize;

use crate::core::Timestamp;

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// A `#[periodic_task]`.
    Program,
    /// `[[periodic]]` of the catalogue, or the builder.
    Catalogue,
    /// Added or changed at run time.
    RunTime,
}

/// An entry as it is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EntryStatus {
    /// Its name.
    pub name: String,
    /// The task that it calls.
    pub task: String,
    /// When, as text.
    pub schedule: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it is paused.
    pub paused: bool,
    /// When it fires next; `None` when it is paused, is firing, or never does again.
    pub next: Option<Timestamp>,
    /// Up to when its ticks are decided.
    pub last: Timestamp,
    /// The task of its last tick.
    pub last_id: Option<String>,
    /// A tick is held until the run of the one before is over.
    pub held: bool,
    /// How many tenants it fires for; `None`: it is not about tenants.
    pub tenants: Option<usize>,
    /// Ticks that were published since the program started, here as in the next two.
    pub published: u64,
    /// Ticks that were dropped because the one before was not over.
    pub coalesced: u64,
    /// What kept the last tick from being published, or the tenants from being listed, if they are still kept from it.
    pub error: Option<String>,
}

/// Why beat did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BeatError {
    /// Beat is switched off here.
    #[error("beat is switched off in this program (`beat = false` in the catalogue, or `.beat(false)`)")]
    Off,
    /// No such entry.
    #[error("no periodic entry `{name}`{hint}")]
    Unknown {
        /// The name.
        name: String,
        /// "; did you mean ..." or nothing.
        hint: String,
    },
    /// The entry makes no sense.
    #[error("the entry `{name}` cannot be: {fault}")]
    Entry {
        /// Its name.
        name: String,
        /// What is wrong and what to do.
        fault: String,
    },
    /// It is part of the program.
    #[error("the entry `{0}` is in the program or its catalogue: pause it, or take it out there")]
    Written(String),
    /// It has tenants.
    #[error(
        "the entry `{0}` fires for each tenant by its own clock; enqueue its task for the tenant that you mean"
    )]
    PerTenant(String),
    /// The actor does not answer.
    #[error(
        "beat does not answer: it is being restarted, another process leads, or the runtime has shut down; try again"
    )]
    NotAnswering,
    /// The task was not accepted.
    #[error(transparent)]
    Enqueue(#[from] crate::task::EnqueueError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

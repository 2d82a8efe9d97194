//! The supervision tree: thin actix shells around [`core`](crate::core).
//!
//! ```text
//! Root ── Queue (one a queue: supervisor) ── Worker … Worker      one worker = one task at a time
//!      ├─ Serial (one a lane that has a run here)
//!      ├─ Beat (one in the cluster at a time)
//!      └─ ProducerLoop (one a producer; of each, one in the cluster works at a time)
//! ```
//! This room, and no room below it, names actix.

pub(crate) mod admission;
pub(crate) mod beat;
pub(crate) mod body;
mod lasting;
pub(crate) mod producer;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod root;
pub(crate) mod run;
pub(crate) mod runtime;
mod sequel;
pub(crate) mod serial;
mod states;
mod status;
mod supervisor;
#[cfg(test)]
mod tests;
mod window;
mod worker;

pub use beat::{BeatError, EntryStatus, Origin};
pub use producer::ProducerStatus;
pub use runtime::{FailureHook, ReadyHook, WorkerHook};
pub use serial::{LaneHolder, LaneRun, LaneStatus};
pub use status::QueueStatus;

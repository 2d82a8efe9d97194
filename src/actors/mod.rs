//! The supervision tree of a running program: thin actix actors around the pure rules of [`core`](crate::core).
//!
//! ```text
//! Root ── Queue (one per queue; it supervises its workers) ── Worker … Worker   (one task at a time each)
//!      ├─ Progress (one; it keeps the progress bars of the tasks that run here)
//!      ├─ Beat (in each process; one in the cluster leads)
//!      ├─ PollerLoop (one per source poller; of each, one in the cluster leads)
//!      ├─ CommitForwarder (of the commit table; one at a time forwards)
//!      └─ Historian (it writes down what happened, once a minute)
//! Serials (a register) ── Serial (one per lane that has a run here)
//! ```
//! `Tree::start` grows the tree when the runtime starts, and a parent builds a child anew when it dies.
//!
//! Invariant: only this module and its submodules name actix; the runtime below it works without actors too.

pub(crate) mod beat;
mod brake_watch;
pub(crate) mod commit_forwarder;
mod countdown;
pub(crate) mod held;
pub(crate) mod historian;
mod patience;
pub(crate) mod progress;
pub(crate) mod queue;
mod queue_stats;
pub(crate) mod queues;
mod retained;
pub(crate) mod root;
mod run_time_rounds;
mod running;
pub(crate) mod serial;
pub(crate) mod slot_pool;
pub(crate) mod source_poller;
mod status;
mod supervisor;
#[cfg(test)]
mod tests;
mod worker;

pub use beat::{BeatError, EntryOrigin, EntryStatus, PastTick};
pub use commit_forwarder::CommitTableStatus;
pub use held::QueueHold;
pub(crate) use patience::{PATIENCE, answered};
pub(crate) use retained::InitialQueue;
pub use running::RunningTask;
pub use serial::{LaneHolder, LaneRun, LaneStatus};
pub use slot_pool::PoolStatus;
pub use source_poller::PollerStatus;
pub use status::{QueueAccounts, QueueStatus};

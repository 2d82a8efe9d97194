//! Frees the room on the disk that the database holds for deleted rows.
//!
//! Settled rows stay in journals and table files until the database's background work removes them, and only
//! writes drive that work. A store that refuses new tasks for want of room writes next to nothing, so it would
//! refuse for ever although its backlog is gone. So a refusal starts the work, on a thread of its own, if
//! something was written since the work was done last.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::tables::Tables;

/// The shortest pause between two times. After work that took long, the pause is ten times as long as the work.
const PAUSE: Duration = Duration::from_secs(1);

/// The work under way, and the time before which it is not done again.
#[derive(Default)]
pub(super) struct Reclaim {
    under_way: Option<JoinHandle<Duration>>,
    /// The sequence of the last commit when the work was begun.
    seq: u64,
    not_before: Option<Instant>,
}

impl Reclaim {
    /// Begins the work, unless it can free nothing more than last time. `waiting` counts the rows that must be kept; it
    /// is called if the work is begun.
    pub(super) fn begin(&mut self, tables: &Tables, seq: u64, waiting: impl FnOnce() -> u64) {
        if self.under_way.as_ref().is_some_and(JoinHandle::is_finished) {
            self.end();
        }
        let too_soon = self.not_before.is_some_and(|at| Instant::now() < at);
        if self.under_way.is_some() || self.seq == seq || too_soon {
            return;
        }
        let (tables, waiting) = (tables.clone(), waiting());
        let work = move || {
            let start = Instant::now();
            if let Err(error) = tables.reclaim(waiting) {
                tracing::warn!(%error, "room on the disk could not be given back; it is tried again");
            }
            tables.close();
            start.elapsed()
        };
        // If no thread can be started now, a later refusal tries again.
        self.under_way = std::thread::Builder::new().name("celeriac-reclaim".to_owned()).spawn(work).ok();
        if self.under_way.is_some() {
            self.seq = seq;
        }
    }

    /// Waits until the work is over; the database cannot be closed before.
    pub(super) fn end(&mut self) {
        if let Some(thread) = self.under_way.take() {
            let took = thread.join().unwrap_or_default();
            self.not_before = Some(Instant::now() + PAUSE.max(took * 10));
        }
    }
}

impl Drop for Reclaim {
    fn drop(&mut self) {
        self.end();
    }
}

//! What one queue of the embedded broker has out, and where its next rows are.
//!
//! Memory is bounded by the consumer's prefetch, not by the backlog: only delivered rows are known here, the rest is
//! on disk, found by a scan from `from`. The invariant: every ready row below `from` is held or lies in `ahead`, and when
//! `drained` is true there is no ready row that is not held.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ahead::Ahead;
use super::rows::{ReadyKey, ready_bounds};
use crate::broker::{Counts, Sink};
use crate::core::Timestamp;
use crate::task::Message;

/// A delivered row.
pub(super) struct Held {
    pub(super) key: ReadyKey,
    pub(super) message: Arc<Message>,
}

/// The consumer of a queue.
pub(super) struct Consuming {
    pub(super) epoch: u64,
    pub(super) prefetch: usize,
    pub(super) sink: Sink,
}

pub(super) struct Window {
    pub(super) name: String,
    pub(super) number: u16,
    /// Rows of the ready class, held ones included.
    pub(super) ready: u64,
    pub(super) scheduled: u64,
    pub(super) dead: u64,
    /// Rows in the lines of their lanes.
    pub(super) in_line: u64,
    pub(super) consumer: Option<Consuming>,
    /// Delivered and not settled, by delivery tag.
    pub(super) held: HashMap<u64, Held>,
    held_keys: BTreeSet<ReadyKey>,
    /// Rows that the scan has passed and that are not held: they come first.
    pub(super) ahead: Ahead,
    /// Where the next scan starts.
    from: Vec<u8>,
    drained: bool,
    /// When the scheduled rows are to be looked at: the time of the earliest, or an earlier one.
    pub(super) next_due: Option<Timestamp>,
    /// Its rows could not be read; not again before this time.
    retry_at: Option<Instant>,
}

/// The pause after rows could not be read.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Window {
    pub(super) fn new(name: String, number: u16) -> Self {
        Self {
            name,
            number,
            ready: 0,
            scheduled: 0,
            dead: 0,
            in_line: 0,
            consumer: None,
            held: HashMap::new(),
            held_keys: BTreeSet::new(),
            ahead: Ahead::default(),
            from: ready_bounds(number).0.to_vec(),
            drained: false,
            next_due: None,
            retry_at: None,
        }
    }

    /// Whether its rows may be read: they could be last time, or that is a while ago.
    pub(super) fn may_read(&mut self) -> bool {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
        }
        self.retry_at.is_none()
    }

    /// Its rows could not be read: nothing is known of them, and they are left alone for a while.
    pub(super) fn read_failed(&mut self) {
        self.look_again();
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
    }

    /// Whether scheduled rows may be due that somebody would run.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.consumer.is_some() && self.next_due.is_some_and(|due| due <= now)
    }

    /// When there is something to do without being asked.
    pub(super) fn wake_at(&self, now: Timestamp) -> Option<Instant> {
        self.consumer.as_ref()?;
        if let Some(at) = self.retry_at {
            return Some(at);
        }
        Some(Instant::now() + self.next_due?.since(now).min(Duration::from_secs(3600)))
    }

    /// How many more deliveries the consumer may have.
    pub(super) fn room(&self) -> usize {
        self.consumer.as_ref().map_or(0, |c| c.prefetch.saturating_sub(self.held.len()))
    }

    /// Whether a scan may find rows to deliver.
    pub(super) fn wants_scan(&self) -> bool {
        !self.drained && self.room() > 0
    }

    pub(super) fn scan_from(&self) -> &[u8] {
        &self.from
    }

    /// A scan read up to and including `last`; `end`: there was nothing behind it.
    pub(super) fn scanned(&mut self, last: Option<&[u8]>, end: bool) {
        if let Some(last) = last {
            self.from.clear();
            self.from.extend_from_slice(last);
            self.from.push(0); // the next key behind `last`
        }
        self.drained = end;
    }

    /// Whether a row that arrives now is the next to go out and may be delivered without a scan.
    pub(super) fn is_next(&self) -> bool {
        self.drained && self.room() > 0
    }

    /// A row was scheduled.
    pub(super) fn scheduled_for(&mut self, due: Timestamp) {
        self.next_due = Some(self.next_due.map_or(due, |d| d.min(due)));
    }

    /// A ready row that is not held lies at `key`.
    pub(super) fn waits(&mut self, key: &ReadyKey) {
        if key.as_slice() < self.from.as_slice() {
            self.ahead.insert(*key);
        } else if self.drained {
            self.from.clear(); // nothing is left up to there
            self.from.extend_from_slice(key);
        }
        self.drained = false;
    }

    pub(super) fn hold(&mut self, tag: u64, key: ReadyKey, message: Arc<Message>) {
        self.held_keys.insert(key);
        self.held.insert(tag, Held { key, message });
    }

    pub(super) fn release(&mut self, tag: u64) -> Option<Held> {
        let held = self.held.remove(&tag)?;
        self.held_keys.remove(&held.key);
        Some(held)
    }

    pub(super) fn holds(&self, key: &[u8]) -> bool {
        ReadyKey::try_from(key).is_ok_and(|key| self.held_keys.contains(&key))
    }

    /// Looks at all rows again, the scheduled ones too; held ones stay held.
    pub(super) fn look_again(&mut self) {
        self.ahead.clear();
        self.from = ready_bounds(self.number).0.to_vec();
        self.drained = false;
        self.next_due = Some(Timestamp::ZERO);
    }

    pub(super) fn counts(&self) -> Counts {
        let unsettled = self.held.len() as u64;
        Counts {
            ready: self.ready.saturating_sub(unsettled),
            scheduled: self.scheduled,
            unsettled,
            dead: self.dead,
            in_line: self.in_line,
        }
    }
}

//! What one queue of the embedded broker has out, and where its next rows are.
//!
//! Memory is bounded by the consumer's prefetch, not by the backlog: only delivered rows are known here, the rest is
//! on disk, found by a scan from `from`. The invariant: every ready row below `from` is held, and when `drained` is
//! true there is no ready row that is not held.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::tables::{ReadyKey, ready_bounds};
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
    pub(super) consumer: Option<Consuming>,
    /// Delivered and not settled, by delivery tag.
    pub(super) held: HashMap<u64, Held>,
    held_keys: BTreeSet<ReadyKey>,
    /// Where the next scan starts.
    from: Vec<u8>,
    drained: bool,
    /// The earliest scheduled row, if that is known.
    pub(super) next_due: Option<Timestamp>,
}

impl Window {
    pub(super) fn new(name: String, number: u16) -> Self {
        Self {
            name,
            number,
            ready: 0,
            scheduled: 0,
            dead: 0,
            consumer: None,
            held: HashMap::new(),
            held_keys: BTreeSet::new(),
            from: ready_bounds(number).0.to_vec(),
            drained: false,
            next_due: None,
        }
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

    /// A ready row was written. `true`: it is the next to go out and may be delivered without a scan.
    pub(super) fn arrived(&mut self, key: &ReadyKey) -> bool {
        if self.drained && self.room() > 0 {
            return true;
        }
        self.rewind(key);
        false
    }

    /// A ready row that is not held lies at `key`.
    pub(super) fn rewind(&mut self, key: &ReadyKey) {
        if self.drained || key.as_slice() < self.from.as_slice() {
            self.from.clear();
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

    /// Looks at all rows again; held ones stay held.
    pub(super) fn rescan(&mut self) {
        self.from = ready_bounds(self.number).0.to_vec();
        self.drained = false;
    }

    pub(super) fn counts(&self) -> Counts {
        let unsettled = self.held.len() as u64;
        Counts {
            ready: self.ready.saturating_sub(unsettled),
            scheduled: self.scheduled,
            unsettled,
            dead: self.dead,
        }
    }
}

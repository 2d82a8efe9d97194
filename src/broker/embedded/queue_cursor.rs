//! The delivered rows of one queue of the embedded broker, and the position of its scan.
//!
//! The consumer's prefetch limits the memory, and the backlog does not. Memory holds only the delivered rows. The other
//! rows are on disk, and a scan finds them from the key `from` on. There are two invariants: every ready row before
//! `from` is held or lies in `revisit`, and while `drained` is true every ready row is held.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failed::FailedTotals;
use super::revisit::RevisitSet;
use super::rows::{ReadyKey, ready_bounds};
use crate::broker::{QueueCounts, Sink};
use crate::core::Timestamp;
use crate::task::Message;

/// A row that is delivered and not settled.
pub(super) struct DeliveredRow {
    pub(super) key: ReadyKey,
    pub(super) message: Arc<Message>,
}

/// The consumer of a queue, with its prefetch.
pub(super) struct AttachedConsumer {
    pub(super) epoch: u64,
    pub(super) prefetch: usize,
    pub(super) sink: Sink,
}

/// What memory holds of one queue.
pub(super) struct QueueCursor {
    pub(super) name: String,
    pub(super) number: u16,
    /// The number of ready rows, held ones included.
    pub(super) ready: u64,
    pub(super) scheduled: u64,
    pub(super) dead: u64,
    /// The failed tasks that are kept.
    pub(super) failed: FailedTotals,
    /// Those that the table `meta` has.
    pub(super) failed_on_disk: FailedTotals,
    /// The sequence from which the oldest failed task is looked for.
    pub(super) failed_from: u64,
    /// The number of rows that wait in the lines of their lanes.
    pub(super) in_line: u64,
    pub(super) consumer: Option<AttachedConsumer>,
    /// The rows that are delivered and not settled, by delivery tag.
    pub(super) held: HashMap<u64, DeliveredRow>,
    held_keys: BTreeSet<ReadyKey>,
    /// The rows that the scan has passed and that are not held. They are delivered first.
    pub(super) revisit: RevisitSet,
    /// The key from which the next scan reads.
    from: Vec<u8>,
    drained: bool,
    /// A time that is not later than that of the earliest scheduled row.
    pub(super) next_due: Option<Timestamp>,
    /// The time before which the queue is not read again, because none of its rows could be read.
    retry_at: Option<Instant>,
    /// The time at which unreadable rows are tried again, and the pause before that time.
    unreadable: Option<(Instant, Duration)>,
}

/// The pause after none of the rows could be read.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest pause before unreadable rows are tried again, while other rows can be read.
const RETRY_AT_MOST: Duration = Duration::from_secs(600);

impl QueueCursor {
    pub(super) fn new(name: String, number: u16) -> Self {
        Self {
            name,
            number,
            ready: 0,
            scheduled: 0,
            dead: 0,
            failed: FailedTotals::default(),
            failed_on_disk: FailedTotals::default(),
            failed_from: 0,
            in_line: 0,
            consumer: None,
            held: HashMap::new(),
            held_keys: BTreeSet::new(),
            revisit: RevisitSet::default(),
            from: ready_bounds(number).0.to_vec(),
            drained: false,
            next_due: None,
            retry_at: None,
            unreadable: None,
        }
    }

    /// Whether the queue may be read. It may if the last read succeeded, or if enough time has passed since it failed.
    pub(super) fn may_read(&mut self) -> bool {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
        }
        self.retry_at.is_none()
    }

    /// Notes that the queue could not be read. Nothing is known of its rows, and the queue is left alone for a while.
    pub(super) fn read_failed(&mut self) {
        self.look_again();
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
    }

    /// Notes that the scan could not read some rows and passed over them. These rows are tried again after pauses that
    /// grow, in case the disk failed and the file is sound.
    pub(super) fn passed_over(&mut self) {
        if self.unreadable.is_none() {
            self.unreadable = Some((Instant::now() + RETRY_AFTER, RETRY_AFTER));
        }
    }

    /// Tries the rows that were passed over again, if it is time.
    pub(super) fn try_again(&mut self) {
        if let Some((at, pause)) = self.unreadable.filter(|(at, _)| *at <= Instant::now()) {
            self.look_again();
            let pause = (pause * 4).min(RETRY_AT_MOST);
            self.unreadable = Some((at.max(Instant::now()) + pause, pause));
        }
    }

    /// Whether there may be due scheduled rows that a consumer would run.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.consumer.is_some() && self.next_due.is_some_and(|due| due <= now)
    }

    /// The next time at which the queue has work without a call from outside.
    pub(super) fn wake_at(&self, now: Timestamp) -> Option<Instant> {
        self.consumer.as_ref()?;
        if let Some(at) = self.retry_at {
            return Some(at);
        }
        let due = self.next_due.map(|due| Instant::now() + due.since(now).min(Duration::from_secs(3600)));
        let again = self.unreadable.filter(|_| self.room() > 0).map(|(at, _)| at);
        due.into_iter().chain(again).min()
    }

    /// The number of further deliveries that the consumer may have.
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

    /// Notes that a scan has read all rows up to `last`. `end` says that no row follows it.
    pub(super) fn scanned(&mut self, last: Option<&[u8]>, end: bool) {
        if let Some(last) = last {
            self.from.clear();
            self.from.extend_from_slice(last);
            self.from.push(0); // the next possible key after `last`
        }
        self.drained = end;
    }

    /// Whether a row that arrives now is the next one to deliver, and needs no scan.
    pub(super) fn is_next(&self) -> bool {
        self.drained && self.room() > 0
    }

    /// Notes that a row was scheduled for this time.
    pub(super) fn scheduled_for(&mut self, due: Timestamp) {
        self.next_due = Some(self.next_due.map_or(due, |d| d.min(due)));
    }

    /// Notes that there is a ready row at `key` that is not held.
    pub(super) fn waits(&mut self, key: &ReadyKey) {
        if key.as_slice() < self.from.as_slice() {
            self.revisit.insert(*key);
        } else if self.drained {
            self.from.clear(); // no row is left before this key
            self.from.extend_from_slice(key);
        }
        self.drained = false;
    }

    pub(super) fn hold(&mut self, tag: u64, key: ReadyKey, message: Arc<Message>) {
        self.held_keys.insert(key);
        self.held.insert(tag, DeliveredRow { key, message });
    }

    pub(super) fn release(&mut self, tag: u64) -> Option<DeliveredRow> {
        let held = self.held.remove(&tag)?;
        self.held_keys.remove(&held.key);
        Some(held)
    }

    /// The keys of the rows that are delivered and not settled.
    pub(super) fn held_keys(&self) -> impl Iterator<Item = &ReadyKey> {
        self.held_keys.iter()
    }

    pub(super) fn holds(&self, key: &[u8]) -> bool {
        ReadyKey::try_from(key).is_ok_and(|key| self.held_keys.contains(&key))
    }

    /// Makes the next scan read all rows again, the scheduled ones too. Held rows stay held.
    pub(super) fn look_again(&mut self) {
        self.revisit.clear();
        self.from = ready_bounds(self.number).0.to_vec();
        self.drained = false;
        self.next_due = Some(Timestamp::ZERO);
    }

    pub(super) fn counts(&self) -> QueueCounts {
        let unsettled = self.held.len() as u64;
        QueueCounts {
            ready: self.ready.saturating_sub(unsettled),
            scheduled: self.scheduled,
            unsettled,
            dead: self.dead,
            in_line: self.in_line,
        }
    }
}

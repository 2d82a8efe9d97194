//! The delivered rows of one queue of the embedded broker, and the positions of its scans.
//!
//! The consumer's prefetch limits the memory, and the backlog does not. Memory holds only the delivered rows. The other
//! rows are on disk, and scans find them. The rows of each tenant are a [line](super::tenant_lines) of their own, and so
//! are the rows without a tenant; each line has a [position](LineCursor) of its own. [`FairLines`] says which line gives
//! the next row, so that no tenant's rows hide those of another. A queue without tenants has one line.
//!
//! Invariant: a line counts as one that gives unless it is drained.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commit::RowKey;
use super::failed::FailedTotals;
use super::line_cursor::LineCursor;
use super::ready_key::{LineNumber, ReadyKey};
use super::tenant_lines::TenantLines;
use crate::broker::{QueueCounts, QueueTenants, Sink, TenantCounts};
use crate::core::Timestamp;
use crate::core::fair_lines::FairLines;
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

/// The times at which a queue has work although nothing happens to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NextLook {
    /// When scheduled rows may be due, by the wall clock.
    pub(super) due: Option<Timestamp>,
    /// When rows that could not be read are tried again.
    pub(super) again: Option<Instant>,
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
    /// The position in the line of the rows without a tenant.
    plain: LineCursor,
    pub(super) tenants: TenantLines,
    /// Which line gives the next row. The rows that are out are the held ones.
    fair: FairLines<LineNumber>,
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
        let mut fair = FairLines::default();
        fair.set_giving(&None, true);
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
            plain: LineCursor::unread(number, None),
            tenants: TenantLines::default(),
            fair,
            next_due: None,
            retry_at: None,
            unreadable: None,
        }
    }

    /// Whether the queue may be read. It may if the last read succeeded, or if enough time has passed since it failed.
    pub(super) fn may_read(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.retry_at.is_some_and(|at| at <= now()) {
            self.retry_at = None;
        }
        self.retry_at.is_none()
    }

    /// Notes that the queue could not be read. Nothing is known of its rows, and the queue is left alone for a while.
    pub(super) fn read_failed(&mut self, now: Instant) {
        self.look_again();
        self.retry_at = Some(now + RETRY_AFTER);
    }

    /// Notes that the scan could not read some rows and passed over them. These rows are tried again after pauses that
    /// grow, in case the disk failed and the file is sound.
    pub(super) fn passed_over(&mut self, now: Instant) {
        if self.unreadable.is_none() {
            self.unreadable = Some((now + RETRY_AFTER, RETRY_AFTER));
        }
    }

    /// Tries the rows that were passed over again, if it is time.
    pub(super) fn try_again(&mut self, now: impl FnOnce() -> Instant) {
        let Some((at, pause)) = self.unreadable else { return };
        let now = now();
        if at <= now {
            self.look_again();
            let pause = (pause * 4).min(RETRY_AT_MOST);
            self.unreadable = Some((now + pause, pause));
        }
    }

    /// Whether there may be due scheduled rows that a consumer would run.
    pub(super) fn is_due(&self, now: impl FnOnce() -> Timestamp) -> bool {
        self.consumer.is_some() && self.next_due.is_some_and(|due| due <= now())
    }

    /// When the queue next has work without a change from outside.
    pub(super) fn next_look(&self) -> NextLook {
        if self.consumer.is_none() {
            return NextLook::default();
        }
        match self.retry_at {
            Some(at) => NextLook { due: None, again: Some(at) },
            None => NextLook { due: self.next_due, again: self.unreadable.map(|(at, _)| at) },
        }
    }

    /// Whether a look at the queue may deliver something now, but for rows that are due.
    pub(super) fn may_deliver(&self) -> bool {
        self.wants_scan() && self.retry_at.is_none()
    }

    /// The number of further deliveries that the consumer may have, whichever line they are from.
    pub(super) fn room(&self) -> usize {
        self.prefetch().saturating_sub(self.held.len())
    }

    fn prefetch(&self) -> usize {
        self.consumer.as_ref().map_or(0, |c| c.prefetch)
    }

    /// Whether a scan may find rows to deliver.
    pub(super) fn wants_scan(&self) -> bool {
        self.fair.next(self.prefetch()).is_some()
    }

    /// The lines that give the next rows, one turn after the other, at most `most`.
    pub(super) fn turns(&mut self, most: usize) -> Vec<LineNumber> {
        self.fair.turns(self.prefetch(), most)
    }

    /// The position of the scan in a line. `None`: there is no such line.
    pub(super) fn line(&self, line: LineNumber) -> Option<&LineCursor> {
        match line {
            None => Some(&self.plain),
            Some(number) => self.tenants.get(number).map(|line| &line.cursor),
        }
    }

    pub(super) fn line_mut(&mut self, line: LineNumber) -> Option<&mut LineCursor> {
        match line {
            None => Some(&mut self.plain),
            Some(number) => self.tenants.get_mut(number).map(|line| &mut line.cursor),
        }
    }

    /// Notes that a scan has read all rows of a line up to `last`. `end` says that no row follows it.
    pub(super) fn scanned(&mut self, line: LineNumber, last: Option<&[u8]>, end: bool) {
        if let Some(cursor) = self.line_mut(line) {
            cursor.scanned(last, end);
        }
        if end {
            self.fair.set_giving(&line, false);
            self.forget_if_empty(line);
        }
    }

    /// Notes that a scan has read what it can of a line, and that the rows from there on to `end`, its end, cannot be read.
    pub(super) fn broke_off(&mut self, line: LineNumber, end: &[u8]) {
        let Some(cursor) = self.line_mut(line) else { return };
        cursor.broke_off(end);
        let gives = !cursor.is_drained();
        self.fair.set_giving(&line, gives);
    }

    /// Notes that there is no such line, so that no row of it is asked for.
    pub(super) fn has_no_line(&mut self, line: LineNumber) {
        self.fair.set_giving(&line, false);
    }

    /// Forgets the line of a tenant who has no rows any more. The commit that took the last one must be safe.
    pub(super) fn forget_if_empty(&mut self, line: LineNumber) {
        if let Some(number) = line.filter(|_| self.fair.out_of(&line) == 0) {
            self.tenants.forget_if_empty(number);
        }
    }

    /// Whether a row that arrives now at this key is the next one to deliver, and needs no scan.
    pub(super) fn is_next(&self, key: &ReadyKey) -> bool {
        !self.fair.any_gives() && self.fair.may_give(&key.line(), self.prefetch())
    }

    /// Notes that a row was scheduled for this time.
    pub(super) fn scheduled_for(&mut self, due: Timestamp) {
        self.next_due = Some(self.next_due.map_or(due, |d| d.min(due)));
    }

    /// Notes that there is a ready row at `key` that is not held.
    pub(super) fn waits(&mut self, key: &ReadyKey) {
        match key.line() {
            None => self.plain.waits(key),
            Some(number) => self.tenants.waits(self.number, number, key),
        }
        self.fair.set_giving(&key.line(), true);
    }

    pub(super) fn hold(&mut self, tag: u64, key: ReadyKey, message: Arc<Message>) {
        self.held_keys.insert(key);
        self.held.insert(tag, DeliveredRow { key, message });
        self.fair.gave(&key.line());
        if let Some(line) = key.line().and_then(|number| self.tenants.get_mut(number)) {
            line.oldest = None;
        }
    }

    pub(super) fn release(&mut self, tag: u64) -> Option<DeliveredRow> {
        let held = self.held.remove(&tag)?;
        self.held_keys.remove(&held.key);
        self.fair.took_back(&held.key.line());
        Some(held)
    }

    /// The keys of the rows that are delivered and not settled.
    pub(super) fn held_keys(&self) -> impl Iterator<Item = &ReadyKey> {
        self.held_keys.iter()
    }

    pub(super) fn holds(&self, key: &[u8]) -> bool {
        ReadyKey::of(key).is_some_and(|key| self.held_keys.contains(&key))
    }

    /// Makes the next scan read all rows again, the scheduled ones too. Held rows stay held.
    pub(super) fn look_again(&mut self) {
        self.plain.look_again(self.number, None);
        self.fair.set_giving(&None, true);
        for (number, line) in self.tenants.iter_mut() {
            line.cursor.look_again(self.number, Some(number));
            self.fair.set_giving(&Some(number), true);
        }
        self.next_due = Some(Timestamp::ZERO);
    }

    /// The key of a ready row of this message.
    pub(super) fn ready_key(&mut self, message: &Message, seq: u64) -> ReadyKey {
        let line = message.tenant().map(|tenant| self.tenants.number_of(self.number, tenant));
        ReadyKey::new(self.number, line, message.priority, seq)
    }

    /// Counts a row of this message that has come to its place.
    pub(super) fn came(&mut self, place: &RowKey, message: &Message) {
        match place {
            RowKey::Scheduled(..) => self.scheduled += 1,
            RowKey::Ready(key) => {
                self.ready += 1;
                if let Some(number) = key.line() {
                    self.tenants.came(self.number, number, message.tenant());
                }
            }
        }
    }

    /// Counts a row that has left its place.
    pub(super) fn left(&mut self, place: &RowKey) {
        match place {
            RowKey::Scheduled(..) => self.scheduled = self.scheduled.saturating_sub(1),
            RowKey::Ready(key) => self.left_ready(key),
        }
    }

    /// Counts a row that has left the ready ones.
    pub(super) fn left_ready(&mut self, key: &ReadyKey) {
        self.ready = self.ready.saturating_sub(1);
        if let Some(number) = key.line() {
            self.tenants.left(number);
        }
    }

    /// As [`left`](Self::left), for a key as the table `messages` has it.
    pub(super) fn left_at(&mut self, key: &[u8]) {
        match ReadyKey::of(key) {
            Some(key) => self.left_ready(&key),
            None => self.scheduled = self.scheduled.saturating_sub(1),
        }
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

    /// The tenants that have ready rows. O(n log n) in the number of tenants.
    pub(super) fn tenant_counts(&self) -> QueueTenants {
        let mut tenants = QueueTenants::default();
        for (number, line) in self.tenants.iter().filter(|(_, line)| line.ready > 0) {
            let unsettled = self.fair.out_of(&Some(number)) as u64;
            let ready = line.ready.saturating_sub(unsettled);
            tenants.add(TenantCounts { tenant: line.name.to_string(), ready, unsettled });
        }
        tenants
    }
}

//! Writes retired memtables to the database, on a thread of its own, and then gives their files back.
//!
//! The oldest memtable comes first. Of its rows only those are written that no newer memtable has the last word on: the newer
//! memtable is on disk as well, and is read after this one when the store is opened again. A deleted row is written only if the
//! database has that row. So what is over before its memtable is written costs the database nothing.
//!
//! A file is given back when the database has said that it has all of its memtable, synced. Until then the memtable can be read
//! from the file and written once more.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use parking_lot::MutexGuard;

use super::memtables::{Memtables, SharedMemtable};
use super::{FlushQueue, Retired};
use crate::broker::BrokerError;
use crate::broker::embedded::disk_tables::{DiskTables, Flushed};
use crate::broker::embedded::tables::{Slice, TABLES, TableName, full_error};

/// The rows that are read from a memtable at a time.
const CHUNK: usize = 512;
/// The files without frames that are kept.
const SPARES: usize = 1;
/// The pause before the flusher looks again whether the disk has room, or whether the database has caught up.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What a row takes in a table file beside its key and its value, in bytes, about.
const ROW: u64 = 48;
/// The least and the most bytes that must be free beside what the rows of a memtable take: the log and the merging of table files
/// go on meanwhile. The fewer rows are alive, the less it is, because the memtable's file gives more room than the rows take.
const LEAST_SPARE_ROOM: u64 = 1 << 20;
const MOST_SPARE_ROOM: u64 = 16 << 20;

impl FlushQueue {
    /// Writes memtables until it is told to stop or the database refuses one.
    pub(super) fn run(&self, disk: &DiskTables) {
        let panic = catch_unwind(AssertUnwindSafe(|| self.write_memtables(disk))).err();
        if let Some(panic) = panic {
            // Whoever waits for the next memtable must not wait for ever.
            let error = format!(
                "the thread that writes the log to the database has panicked: {}",
                crate::task::panic_message(panic)
            );
            tracing::error!(dir = %self.dir.display(), %error, "the store takes no further commits");
            self.state.lock().failed = Some(BrokerError::io(error));
            self.changed.notify_all();
        }
    }

    fn write_memtables(&self, disk: &DiskTables) {
        while let Some((memtables, mark)) = self.next(disk) {
            let written = write(disk, &self.memtables, &memtables, mark);
            let mut state = self.state.lock();
            match written {
                Ok(()) => {
                    memtables.iter().for_each(|_| self.memtables.drop_oldest());
                    if let Some(Retired { mut segment, .. }) = state.retired.pop_front() {
                        segment.start_over();
                        state.spares.push(segment);
                    }
                    while state.spares.len() > SPARES
                        && let Some(spare) = state.spares.pop()
                    {
                        spare.remove();
                    }
                }
                Err(error) => {
                    tracing::error!(dir = %self.dir.display(), %error, "the log cannot be written to the database");
                    state.failed = Some(error);
                }
            }
            self.changed.notify_all();
        }
    }

    /// Waits for a retired memtable, for room on the disk, and for the database to have caught up. `None`: it is time to stop.
    fn next(&self, disk: &DiskTables) -> Option<(Vec<SharedMemtable>, Flushed)> {
        let mut state = self.state.lock();
        loop {
            if state.stops || state.failed.is_some() {
                return None;
            }
            let Some(oldest) = state.retired.front() else {
                self.changed.wait(&mut state);
                continue;
            };
            let (memtables, mark) = (oldest.memtables.clone(), oldest.mark);
            let free = fs4::available_space(&self.dir).unwrap_or(u64::MAX);
            // What newer memtables hide is counted exactly only if the room may be too little: that reads all rows.
            let is_short = free < room_for(at_most(&memtables))
                && MutexGuard::unlocked(&mut state, || free < room_for(self.size(disk, &memtables)));
            let was_short = state.short.is_some();
            state.short = is_short.then(|| full_error(&self.dir));
            if is_short != was_short {
                self.changed.notify_all();
            }
            if !is_short && !disk.is_behind() {
                return Some((memtables, mark));
            }
            // Background work that has failed would never catch up. To ask takes a lock that the database may hold for long.
            if let Err(error) = MutexGuard::unlocked(&mut state, || disk.check()) {
                state.failed = Some(error);
                self.changed.notify_all();
                return None;
            }
            self.changed.wait_for(&mut state, LOOK_AGAIN);
        }
    }

    /// The bytes that the database gets of the memtables of a segment, about.
    fn size(&self, disk: &DiskTables, segment: &[SharedMemtable]) -> u64 {
        let of_memtable = |memtable: &SharedMemtable| {
            let newer = self.memtables.newer_than(memtable);
            let rows = TABLES.into_iter().flat_map(|table| LiveRows::of(disk, &newer, memtable, table));
            rows.map(|(key, value)| ROW + (key.len() + value.map_or(0, |value| value.len())) as u64)
                .sum::<u64>()
        };
        segment.iter().map(of_memtable).sum()
    }
}

/// The most bytes that the database gets of these memtables.
fn at_most(memtables: &[SharedMemtable]) -> u64 {
    let sizes = memtables.iter().map(|memtable| {
        let memtable = memtable.read();
        memtable.alive() as u64 + ROW * memtable.rows() as u64
    });
    sizes.sum()
}

/// How much must be free for so many bytes of rows.
fn room_for(bytes: u64) -> u64 {
    bytes + bytes.clamp(LEAST_SPARE_ROOM, MOST_SPARE_ROOM)
}

/// Writes what the database needs of the memtables of a segment, oldest first, and with the last one how far the log has come.
pub(super) fn write(
    disk: &DiskTables,
    memtables: &Memtables,
    segment: &[SharedMemtable],
    mark: Flushed,
) -> Result<(), BrokerError> {
    // Background work may have failed since the last memtable.
    disk.check()?;
    for (nth, memtable) in segment.iter().enumerate() {
        let newer = memtables.newer_than(memtable);
        let mark = (nth + 1 == segment.len()).then_some(mark);
        disk.flush_memtable(mark, |table| LiveRows::of(disk, &newer, memtable, table))?;
    }
    Ok(())
}

/// The rows of a table of a memtable that the database needs, in order.
struct LiveRows<'a> {
    disk: &'a DiskTables,
    newer: &'a [SharedMemtable],
    memtable: &'a SharedMemtable,
    table: TableName,
    read: VecDeque<(Slice, Option<Slice>)>,
    /// The last key that was read from the memtable.
    last: Option<Slice>,
}

impl<'a> LiveRows<'a> {
    fn of(
        disk: &'a DiskTables,
        newer: &'a [SharedMemtable],
        memtable: &'a SharedMemtable,
        table: TableName,
    ) -> Self {
        Self { disk, newer, memtable, table, read: VecDeque::new(), last: None }
    }

    /// Reads the next rows of the memtable, without those that a newer memtable hides. Answers with `false` if there are none.
    fn read_on(&mut self) -> bool {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = self.last.as_ref().map_or(Unbounded, |last| Excluded(&last[..]));
        let mut rows = self.memtable.read().first(self.table, (from, Unbounded), CHUNK);
        let Some((last, _)) = rows.back() else { return false };
        self.last = Some(last.clone());
        for newer in self.newer {
            let newer = newer.read();
            rows.retain(|(key, _)| !newer.hides(self.table, key));
        }
        self.read = rows;
        true
    }

    /// Whether the database may have a row of this key.
    fn may_have(&self, key: &[u8]) -> bool {
        !matches!(self.disk.get(self.table, key), Ok(None)) // a row that cannot be read is there
    }
}

impl Iterator for LiveRows<'_> {
    type Item = (Slice, Option<Slice>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read.pop_front() {
                Some((key, None)) if !self.may_have(&key) => {}
                Some(row) => return Some(row),
                None => {
                    if !self.read_on() {
                        return None;
                    }
                }
            }
        }
    }
}

//! The memtables over the database: the active one, which takes the commits, and the retired ones, which wait to be written
//! to the database.
//!
//! A reader who needs all rows as they are at one time has the active memtable frozen: commits go on in a new one, and the two belong
//! to one segment. Whoever writes to the database takes the memtables of a segment one after the other.
//!
//! Any thread reads them. A reader takes the memtables first and the database second: what leaves the memtables has come to
//! the database before. A commit is added under the lock of its memtable, so it is seen whole or not at all by whoever looks at
//! one row; a reader of many rows sees those of the active memtable as they are when it comes to them.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;

use super::memtable::Memtable;
use crate::broker::embedded::tables::{Slice, TableName, Writes};

/// A memtable that several threads read, and one may write.
pub(in super::super) type SharedMemtable = Arc<RwLock<Memtable>>;

/// The memtables, newest last. The handle is cheap to clone.
#[derive(Clone)]
pub(in super::super) struct Memtables(Arc<RwLock<Stack>>);

struct Stack {
    active: SharedMemtable,
    /// The memtables that take no commits any more, oldest first: the retired ones, and then those that were frozen for a reader
    /// and belong to the segment of the active one.
    frozen: VecDeque<SharedMemtable>,
    /// How many of the frozen memtables, from the newest on, belong to the segment of the active one.
    of_segment: usize,
}

impl Stack {
    /// The number of rows of the memtables that were frozen beside the active one.
    fn rows_beside(&self) -> usize {
        self.frozen.iter().rev().take(self.of_segment).map(|memtable| memtable.read().rows()).sum()
    }
}

impl Memtables {
    /// Memtables that were read from segments, oldest first. The last one becomes the active one.
    pub(in super::super) fn of(mut memtables: Vec<Memtable>) -> Self {
        let active = Arc::new(RwLock::new(memtables.pop().unwrap_or_default()));
        let frozen = memtables.into_iter().map(|memtable| Arc::new(RwLock::new(memtable))).collect();
        Self(Arc::new(RwLock::new(Stack { active, frozen, of_segment: 0 })))
    }

    /// Looks a key up in the memtables: `None` if nothing, `Some(None)` if the row is deleted.
    pub(in super::super) fn get(&self, table: TableName, key: &[u8]) -> Option<Option<Slice>> {
        let stack = self.0.read();
        let newest_first = std::iter::once(&stack.active).chain(stack.frozen.iter().rev());
        for memtable in newest_first {
            let found = memtable.read().get(table, key);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// All memtables as they are now, newest first.
    pub(in super::super) fn newest_first(&self) -> Vec<SharedMemtable> {
        let stack = self.0.read();
        std::iter::once(&stack.active).chain(stack.frozen.iter().rev()).cloned().collect()
    }

    /// The retired memtables, oldest first.
    pub(super) fn retired(&self) -> Vec<SharedMemtable> {
        let stack = self.0.read();
        stack.frozen.iter().take(stack.frozen.len() - stack.of_segment).cloned().collect()
    }

    /// The memtables that are newer than this one.
    pub(super) fn newer_than(&self, memtable: &SharedMemtable) -> Vec<SharedMemtable> {
        let mut newer = self.newest_first();
        if let Some(at) = newer.iter().position(|other| Arc::ptr_eq(other, memtable)) {
            newer.truncate(at);
        }
        newer
    }

    /// Adds a commit to the active memtable. Answers with the number of rows of the [segment](Self::rows_of_segment).
    pub(super) fn apply(&self, parts: &[&Writes]) -> usize {
        let stack = self.0.read();
        let mut active = stack.active.write();
        parts.iter().flat_map(|part| part.iter()).for_each(|write| active.apply(write));
        let rows = active.rows();
        drop(active);
        rows + stack.rows_beside()
    }

    /// The number of rows of the active memtable and of those that were frozen beside it.
    pub(super) fn rows_of_segment(&self) -> usize {
        let stack = self.0.read();
        let active = stack.active.read().rows();
        active + stack.rows_beside()
    }

    /// Retires the active memtable, and those that were frozen beside it, and begins an empty one. Answers with the retired ones,
    /// oldest first.
    pub(super) fn retire(&self) -> Vec<SharedMemtable> {
        let mut stack = self.0.write();
        let active = std::mem::take(&mut stack.active);
        stack.frozen.push_back(active);
        let retired = std::mem::take(&mut stack.of_segment) + 1;
        stack.frozen.range(stack.frozen.len() - retired..).cloned().collect()
    }

    /// Freezes the active memtable, so that it can be read as it is now, and calls `read` before anything else is retired. Answers
    /// with memtables that nobody changes, and with what `read` has said.
    pub(in super::super) fn as_of_now<T>(&self, read: impl FnOnce() -> T) -> (Self, T) {
        let mut stack = self.0.write();
        if stack.active.read().rows() > 0 {
            let active = std::mem::take(&mut stack.active);
            // If no reader has the memtable that was frozen last any more, the two become one. So there are no more of them than
            // there are looks under way.
            let last =
                stack.frozen.back().filter(|last| stack.of_segment > 0 && Arc::strong_count(last) == 1);
            match last {
                Some(last) => last.write().absorb(&mut active.write()),
                None => {
                    stack.frozen.push_back(active);
                    stack.of_segment += 1;
                }
            }
        }
        let frozen = stack.frozen.clone();
        let read = read();
        let active = SharedMemtable::default();
        (Self(Arc::new(RwLock::new(Stack { active, frozen, of_segment: 0 }))), read)
    }

    /// Forgets the oldest retired memtable, which the database has now.
    pub(super) fn drop_oldest(&self) {
        self.0.write().frozen.pop_front();
    }

    /// The bytes of the rows of all memtables that are not deleted, about.
    pub(in super::super) fn alive(&self) -> u64 {
        self.newest_first().iter().map(|memtable| memtable.read().alive() as u64).sum()
    }
}

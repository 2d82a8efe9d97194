//! The memtables over the database: the active one, which takes the commits, and the retired ones, which wait to be written
//! to the database.
//!
//! Any thread reads them. A reader takes the memtables first and the database second: what leaves the memtables has come to
//! the database before. A commit is added under the lock of its memtable, so it is seen whole or not at all by whoever looks at
//! one row; a reader of many rows sees those of the active memtable as they are when it comes to them.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;

use super::memtable::Memtable;
use crate::broker::embedded::tables::{Slice, TableName};
use crate::broker::embedded::writes::Writes;

/// A memtable that several threads read, and one may write.
pub(in super::super) type SharedMemtable = Arc<RwLock<Memtable>>;

/// The memtables, newest last. The handle is cheap to clone.
#[derive(Clone)]
pub(in super::super) struct Memtables(Arc<RwLock<Stack>>);

struct Stack {
    active: SharedMemtable,
    /// The retired memtables, oldest first.
    retired: VecDeque<SharedMemtable>,
}

impl Memtables {
    /// Memtables that were read from segments, oldest first. The last one becomes the active one.
    pub(in super::super) fn of(mut memtables: Vec<Memtable>) -> Self {
        let active = Arc::new(RwLock::new(memtables.pop().unwrap_or_default()));
        let retired = memtables.into_iter().map(|memtable| Arc::new(RwLock::new(memtable))).collect();
        Self(Arc::new(RwLock::new(Stack { active, retired })))
    }

    /// Looks a key up in the memtables: `None` if nothing, `Some(None)` if the row is deleted.
    pub(in super::super) fn get(&self, table: TableName, key: &[u8]) -> Option<Option<Slice>> {
        let stack = self.0.read();
        let newest_first = std::iter::once(&stack.active).chain(stack.retired.iter().rev());
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
        std::iter::once(&stack.active).chain(stack.retired.iter().rev()).cloned().collect()
    }

    /// The retired memtables, oldest first.
    pub(super) fn retired(&self) -> Vec<SharedMemtable> {
        self.0.read().retired.iter().cloned().collect()
    }

    /// The memtables that are newer than this one.
    pub(super) fn newer_than(&self, memtable: &SharedMemtable) -> Vec<SharedMemtable> {
        let mut newer = self.newest_first();
        if let Some(at) = newer.iter().position(|other| Arc::ptr_eq(other, memtable)) {
            newer.truncate(at);
        }
        newer
    }

    /// Adds a commit to the active memtable.
    pub(super) fn apply(&self, parts: &[&Writes]) {
        let stack = self.0.read();
        let mut active = stack.active.write();
        parts.iter().flat_map(|part| part.iter()).for_each(|write| active.apply(write));
    }

    /// The bytes and the rows of the active memtable.
    pub(super) fn active_size(&self) -> (usize, usize) {
        let stack = self.0.read();
        let active = stack.active.read();
        (active.bytes(), active.rows())
    }

    /// Retires the active memtable and begins an empty one. Answers with the retired one.
    pub(super) fn retire(&self) -> SharedMemtable {
        let mut stack = self.0.write();
        let retired = std::mem::take(&mut stack.active);
        stack.retired.push_back(Arc::clone(&retired));
        retired
    }

    /// Forgets the oldest retired memtable, which the database has now.
    pub(super) fn drop_oldest(&self) {
        self.0.write().retired.pop_front();
    }

    /// The bytes of all memtables, about.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.newest_first().iter().map(|memtable| memtable.read().bytes() as u64).sum()
    }
}

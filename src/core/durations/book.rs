//! The run times of one process, or of several that were added up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RunTimeFigures;
use super::entry::RunTimeEntry;
use super::key::{KeyKind, RunTimeKey};
use super::table::{RunTimeTable, StoredEntry};
use crate::core::Timestamp;

/// How many tasks are told apart: those that ran last.
pub const MOST_TASKS: usize = 1_000;
/// How many pairs of a task and a tenant are told apart.
pub const MOST_TENANTS: usize = 10_000;
/// How many values of arguments are told apart.
pub const MOST_VALUES: usize = 10_000;

/// A table of measured run times, by their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredBook", into = "StoredBook")]
pub struct RunTimeBook {
    tasks: RunTimeTable,
    tenants: RunTimeTable,
    values: RunTimeTable,
}

/// A book as it is kept.
#[derive(Serialize, Deserialize)]
struct StoredBook {
    tasks: Vec<StoredEntry>,
    tenants: Vec<StoredEntry>,
    values: Vec<StoredEntry>,
}

impl Default for RunTimeBook {
    fn default() -> Self {
        Self {
            tasks: RunTimeTable::new(MOST_TASKS),
            tenants: RunTimeTable::new(MOST_TENANTS),
            values: RunTimeTable::new(MOST_VALUES),
        }
    }
}

impl RunTimeBook {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.tenants.is_empty() && self.values.is_empty()
    }

    /// Records a run of this length, which ended at `at`, under each of these keys.
    pub fn record(&mut self, keys: &[RunTimeKey], took: Duration, at: Timestamp) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        for key in keys {
            let table = match key.kind {
                KeyKind::Task => &mut self.tasks,
                KeyKind::Tenant => &mut self.tenants,
                KeyKind::Value => &mut self.values,
            };
            table.record(key.hash, micros, at);
        }
    }

    /// Adds what was recorded elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.tasks.merge(&other.tasks);
        self.tenants.merge(&other.tenants);
        self.values.merge(&other.values);
    }

    /// Leaves of each kind only the keys that ran last, so many of them.
    pub fn keep_newest(&mut self, most: usize) {
        self.tasks.keep_newest(most);
        self.tenants.keep_newest(most);
        self.values.keep_newest(most);
    }

    fn entry(&self, key: RunTimeKey) -> Option<&RunTimeEntry> {
        let table = match key.kind {
            KeyKind::Task => &self.tasks,
            KeyKind::Tenant => &self.tenants,
            KeyKind::Value => &self.values,
        };
        table.get(key.hash)
    }
}

/// What these books say of a key together. `None`: none of them knows it.
pub fn figures<'b>(
    books: impl IntoIterator<Item = &'b RunTimeBook>,
    key: RunTimeKey,
) -> Option<RunTimeFigures> {
    let mut entries = books.into_iter().filter_map(|book| book.entry(key));
    let first = entries.next()?;
    let Some(second) = entries.next() else { return Some(first.figures()) };
    let mut sum = first.clone();
    sum.merge(second);
    entries.for_each(|entry| sum.merge(entry));
    Some(sum.figures())
}

impl From<RunTimeBook> for StoredBook {
    fn from(book: RunTimeBook) -> Self {
        let RunTimeBook { tasks, tenants, values } = book;
        Self { tasks: tasks.stored(), tenants: tenants.stored(), values: values.stored() }
    }
}

impl From<StoredBook> for RunTimeBook {
    fn from(StoredBook { tasks, tenants, values }: StoredBook) -> Self {
        Self {
            tasks: RunTimeTable::of_stored(MOST_TASKS, tasks),
            tenants: RunTimeTable::of_stored(MOST_TENANTS, tenants),
            values: RunTimeTable::of_stored(MOST_VALUES, values),
        }
    }
}

//! The index of the arguments by which tasks are searched for, in the table `lanes`: an entry for each such argument of a task
//! that waits, is scheduled, stands in a lane or runs, and of one that has failed or is a dead letter.
//!
//! The keys begin with a byte that says what they hold, behind those of [`lanes`](super::lanes):
//! - `4`, the argument and its value, the key of the task in the table `tasks`: a task that is not over.
//! - `5`, the argument and its value, a sequence, a queue: a failed task, whose row in the table `dead` has this queue and this
//!   sequence. Dead letters have no queue there.
//!
//! Argument and value are: the length of the name, the name, the length of the value, the value. A value of more than
//! [`WHOLE`] bytes is its beginning and a hash, with a length that no other value has.
//!
//! Invariants:
//! - The entries of a task are written and deleted in the commit that does so with its row, and follow from its message alone
//!   (see [`Message::searched`]). A task that declares nothing, or hides its arguments, has none. A row that moves keeps them.
//! - A commit writes each key at most once. So where a message takes the place of another one of its id, only those entries are
//!   deleted that the new one lacks.
//! - An entry only says where to look. Whoever finds one reads the row, and asks the filter. So neither the same hash of two
//!   values nor an entry that an earlier program has left behind, which knows of none, shows a task that does not match.

use std::ops::Bound;

use xxhash_rust::xxh3::xxh3_128;

use super::EmbeddedBroker;
use super::failed::{failed_key, parts_of};
use super::rows::{TaskRow, task_key};
use super::tables::{Slice, TableName, Tables, Writes};
use crate::broker::BrokerError;
use crate::broker::limits::LONGEST_NAME;
use crate::task::Message;

/// The first byte of the keys of tasks that are not over.
const WAITING: u8 = 4;
/// The first byte of the keys of failed tasks.
const FAILED: u8 = 5;
/// The most bytes of a value that is in its key as it is.
const WHOLE: usize = 128;
/// The bytes of a longer value that are in its key, before its hash.
const BEGINNING: usize = 112;
/// The length that stands in the key of such a value.
const CUT: u16 = u16::MAX;
/// What stands in each entry: the version of its layout.
const VERSION: [u8; 1] = [1];
/// A byte behind all bytes with which an entry goes on behind its value.
const BEHIND: u8 = u8::MAX;

/// An argument and its value.
type Searched<'a> = (&'a str, &'a str);

/// What the keys of an argument begin with.
fn name_prefix(kind: u8, name: &str) -> Vec<u8> {
    [&[kind][..], &(name.len() as u16).to_be_bytes(), name.as_bytes()].concat()
}

/// What the keys of a value of an argument begin with.
fn prefix(kind: u8, (name, value): Searched<'_>) -> Vec<u8> {
    let (mut key, value) = (name_prefix(kind, name), value.as_bytes());
    if value.len() <= WHOLE {
        key.extend_from_slice(&(value.len() as u16).to_be_bytes());
        key.extend_from_slice(value);
    } else {
        key.extend_from_slice(&CUT.to_be_bytes());
        key.extend_from_slice(&value[..BEGINNING]);
        key.extend_from_slice(&xxh3_128(value).to_be_bytes());
    }
    key
}

/// The keys of the entries of a message. All end with what `end` makes, which is not asked for if there are none.
fn keys(kind: u8, message: &Message, end: impl FnOnce() -> Vec<u8>) -> Vec<Vec<u8>> {
    let searched = message.searched();
    if searched.is_empty() {
        return Vec::new(); // most tasks declare nothing
    }
    let end = end();
    let fits = searched.iter().filter(|(name, _)| name.len() <= LONGEST_NAME);
    fits.map(|(name, value)| [prefix(kind, (*name, value.as_str())).as_slice(), &end].concat()).collect()
}

fn waiting_keys(message: &Message) -> Vec<Vec<u8>> {
    keys(WAITING, message, || task_key(&message.id))
}

/// The keys of the entries of a failed task or a dead letter, whose row in the table `dead` has this key.
fn failed_keys(message: &Message, dead_key: &[u8]) -> Vec<Vec<u8>> {
    match parts_of(dead_key) {
        Some((queue, seq)) => {
            keys(FAILED, message, || [&seq.to_be_bytes()[..], &queue.to_be_bytes()].concat())
        }
        None if dead_key.len() == 8 => keys(FAILED, message, || dead_key.to_vec()),
        None => Vec::new(),
    }
}

/// The sequence in an entry of a failed task, and the key of its row in the table `dead`, from the end of the entry's key.
fn dead_key(end: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (seq, queue) = end.split_first_chunk::<8>()?;
    let number = u64::from_be_bytes(*seq);
    match queue {
        [] => Some((number, seq.to_vec())),
        [a, b] => Some((number, failed_key(u16::from_be_bytes([*a, *b]), number).to_vec())),
        _ => None,
    }
}

/// Whether this is the key of an entry, and not of anything else in the table `lanes`.
pub(super) fn is_entry(key: &[u8]) -> bool {
    matches!(key.first(), Some(&(WAITING | FAILED)))
}

fn put(writes: &mut Writes, keys: Vec<Vec<u8>>) {
    keys.iter().for_each(|key| writes.put(TableName::Lanes, key, &VERSION));
}

fn delete(writes: &mut Writes, keys: Vec<Vec<u8>>) {
    keys.iter().for_each(|key| writes.delete(TableName::Lanes, key));
}

/// Adds the entries of a message that waits from now on. Those that it has already may be added again.
pub(super) fn add_waiting(writes: &mut Writes, message: &Message) {
    put(writes, waiting_keys(message));
}

/// Deletes the entries of a message that waits and runs no more. `successor`: the message that takes its place under its id.
pub(super) fn delete_waiting(writes: &mut Writes, message: &Message, successor: Option<&Message>) {
    let mut gone = waiting_keys(message);
    if let Some(successor) = successor.filter(|_| !gone.is_empty()) {
        let kept = waiting_keys(successor);
        gone.retain(|key| !kept.contains(key));
    }
    delete(writes, gone);
}

/// Adds the entries of a failed task or a dead letter, whose row in the table `dead` has this key.
pub(super) fn add_failed(writes: &mut Writes, message: &Message, dead_key: &[u8]) {
    put(writes, failed_keys(message, dead_key));
}

/// Deletes the entries of a failed task or a dead letter.
pub(super) fn delete_failed(writes: &mut Writes, message: &Message, dead_key: &[u8]) {
    delete(writes, failed_keys(message, dead_key));
}

/// Where the message of an entry is: a row, and its table.
pub(super) type Found = (TableName, Vec<u8>, Slice);

/// The tasks that are not over and have this value for this argument, behind the task of this key, in the order of their keys,
/// which for Celeriac's own ids is that of their enqueue: for each entry the key of its task, and its message, if there is one.
pub(super) fn waiting(
    tables: &Tables,
    argument: Searched<'_>,
    after: &[u8],
) -> impl Iterator<Item = (Vec<u8>, Option<Found>)> + use<> {
    let prefix = prefix(WAITING, argument);
    let (start, end) = ([&prefix[..], after].concat(), [&prefix[..], &[BEHIND]].concat());
    let (tables, after) = (tables.clone(), after.to_vec());
    // The database is not asked for a range that ends before it begins, wherever `after` is from.
    let entries = (start < end).then(|| tables.readable(TableName::Lanes, &start, Bound::Excluded(&end)));
    entries.into_iter().flatten().filter_map(move |(key, version)| {
        let task = key.get(prefix.len()..)?.to_vec();
        let is_next = *version == VERSION && (after.is_empty() || task > after);
        is_next.then(|| {
            let found = message_of(&tables, &task);
            (task, found)
        })
    })
}

/// The message of a task that is not over. The row may move between the two looks, and is then looked for once more.
fn message_of(tables: &Tables, task: &[u8]) -> Option<Found> {
    (0..2).find_map(|_| {
        let row = tables.get(TableName::Tasks, task).ok().flatten()?;
        let (table, key) = match TaskRow::decode(&row).ok()? {
            TaskRow::At(key) => (TableName::Messages, key),
            TaskRow::InLine(key) => (TableName::Lanes, key),
            TaskRow::Over(_) => return None,
        };
        let value = tables.get(table, &key).ok().flatten()?;
        Some((table, key, value))
    })
}

/// An entry of a failed task: its sequence, and the key and the row of the table `dead`, if there is one.
type FailedEntry = (u64, Option<(Vec<u8>, Slice)>);

/// The failed tasks and dead letters that have this value for this argument, before this sequence, the newest first: for each
/// entry the sequence, and the key and the row of the table `dead`, if there is one.
///
/// # Errors
/// The table cannot be read.
pub(super) fn failed(
    tables: &Tables,
    argument: Searched<'_>,
    before: u64,
) -> Result<impl Iterator<Item = FailedEntry> + use<>, BrokerError> {
    let prefix = prefix(FAILED, argument);
    let end = [&prefix[..], &before.to_be_bytes()].concat();
    let entries = tables.range(TableName::Lanes, &prefix, Bound::Excluded(&end))?;
    let tables = tables.clone();
    Ok(entries.rev().filter_map(move |entry| {
        let (key, version) = entry.ok()?;
        let (seq, dead_key) = dead_key(key.get(prefix.len()..)?)?;
        (*version == VERSION).then(|| {
            let row = tables.get(TableName::Dead, &dead_key).ok().flatten();
            (seq, row.map(|row| (dead_key, row)))
        })
    }))
}

impl EmbeddedBroker {
    /// Whether the index has an entry of an argument of this name. For who does not know which tasks declare it.
    ///
    /// # Errors
    /// The store is closed, or cannot be read.
    #[cfg(feature = "cli")]
    pub(crate) fn has_index_of(&self, argument: &str) -> Result<bool, BrokerError> {
        let tables = self.inner.shared.tables.read();
        let tables = tables.as_ref().map_err(Clone::clone)?;
        for kind in [WAITING, FAILED] {
            let start = name_prefix(kind, argument);
            let end = [&start[..], &[BEHIND; 3]].concat();
            if tables.range(TableName::Lanes, &start, Bound::Excluded(&end))?.next().transpose()?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests;

//! Looks over a store and says what is damaged and which tasks that costs. Verification writes nothing to the store.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use super::copy::Copy;
use super::failed::parts_of;
use super::lanes;
use super::readable::Gap;
use super::ready_key::{ReadyKey, is_ready};
use super::rows::{StoredQueue, TaskRow, decode, id_of, queue_of};
use super::tables::{Slice, TableName, Tables};
use super::tenant_lines::{self, StoredLine};
use crate::broker::{BrokerError, DeadLetter, FailedTask};
use crate::task::{Message, TaskId};

/// The findings of a look over a store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// The damage, and what it costs, in words; empty if the store is sound.
    pub damage: Vec<String>,
    /// The remains of a crash that do no harm, in words.
    pub notes: Vec<String>,
    /// The number of messages that wait, in queues and in lanes, and can be read.
    pub waiting: u64,
    /// The number of records of tasks that are over.
    pub results: u64,
    /// The number of dead letters that were found.
    pub dead: u64,
    /// The number of failed tasks that are kept.
    pub failed: u64,
    /// The tasks that are known to wait and whose messages cannot be read.
    pub lost: Vec<TaskId>,
}

/// Looks over each file and each row of the store in `dir`, whose program must not be running. It works on a copy
/// that it makes in the directory and deletes afterwards; table files are linked and take no room, the log is
/// copied.
///
/// # Errors
/// There is no store, another process has it, or the copy cannot be made.
pub fn verify(dir: impl AsRef<Path>) -> Result<Verified, BrokerError> {
    let copy = Copy::of(dir.as_ref())?;
    let tables = copy.tables()?;
    let mut verified =
        Verified { damage: copy.damage.clone(), notes: copy.notes.clone(), ..Verified::default() };
    let mut found: BTreeMap<u16, RowCounts> = BTreeMap::new();
    let mut lines: BTreeMap<(u16, u32), u64> = BTreeMap::new();
    let mut damage = std::mem::take(&mut verified.damage);
    each(&tables, TableName::Messages, &mut damage, |key, value, damage| {
        let counts = found.entry(queue_of(key).unwrap_or_default()).or_default();
        if check::<Message>(TableName::Messages, key, value, damage) {
            *(if is_ready(key) { &mut counts.ready } else { &mut counts.scheduled }) += 1;
            if let Some(number) = ReadyKey::of(key).and_then(|key| key.line()) {
                *lines.entry((queue_of(key).unwrap_or_default(), number)).or_default() += 1;
            }
            verified.waiting += 1;
        }
    });
    each(&tables, TableName::Lanes, &mut damage, |key, value, damage| {
        if lanes::is_waiting(key) && check::<Message>(TableName::Lanes, key, value, damage) {
            verified.waiting += 1;
        }
    });
    each(&tables, TableName::Dead, &mut damage, |key, value, damage| match key.len() {
        _ if parts_of(key).is_some() => {
            verified.failed += u64::from(check::<FailedTask>(TableName::Dead, key, value, damage));
        }
        8 => verified.dead += u64::from(check::<DeadLetter>(TableName::Dead, key, value, damage)),
        _ => {
            damage.push(format!("table dead: the row {} was set aside, because it did not decode", hex(key)))
        }
    });
    each(&tables, TableName::Expiries, &mut damage, |_, _, _| {});
    each(&tables, TableName::Tasks, &mut damage, |key, value, damage| match TaskRow::decode(value) {
        Ok(TaskRow::Over(_)) => verified.results += 1,
        Ok(place) => {
            if message_at(&tables, &place).is_none() {
                verified.lost.push(id_of(key));
            }
        }
        Err(error) => damage.push(format!("table tasks: the row of {} does not decode: {error}", id_of(key))),
    });
    each(&tables, TableName::Meta, &mut damage, |key, value, damage| {
        if let Some(line) = tenant_lines::parts_of(key) {
            let found = lines.remove(&line).unwrap_or_default();
            check_line(line, decode(value).ok().as_ref(), found, damage);
        }
        let Some(name) = key.strip_prefix(b"queue/") else { return };
        let name = String::from_utf8_lossy(name).into_owned();
        let Ok(row) = StoredQueue::decode(value) else {
            damage.push(format!("queue `{name}`: its counts do not decode"));
            return;
        };
        let counts = found.get(&row.number).copied().unwrap_or_default();
        let both = [("waiting", row.ready, counts.ready), ("scheduled", row.scheduled, counts.scheduled)];
        for (what, counted, found) in both.into_iter().filter(|(_, counted, found)| counted != found) {
            damage.push(format!(
                "queue `{name}`: {counted} tasks are counted as {what}, and {found} can be read"
            ));
        }
    });
    // Those that the table `meta` has were taken out.
    lines.into_iter().for_each(|(line, found)| check_line(line, None, found, &mut damage));
    verified.damage = copy.damaged_files(&damage);
    verified.damage.append(&mut damage);
    Ok(verified)
}

/// The most keys of unreadable rows that are named one by one.
const SHOWN: usize = 100;

#[derive(Clone, Copy, Default)]
struct RowCounts {
    ready: u64,
    scheduled: u64,
}

/// Calls `take` for each row of a table that can be read, and adds to `damage` what cannot. The rows come in order, but for
/// those that lie where others cannot be read: these may come last.
pub(super) fn each(
    tables: &Tables,
    table: TableName,
    damage: &mut Vec<String>,
    mut take: impl FnMut(&[u8], &[u8], &mut Vec<String>),
) {
    let mut readable = tables.readable(table, &[], Bound::Unbounded);
    for (key, value) in readable.by_ref() {
        take(&key, &value, damage);
    }
    for (key, value) in hidden(tables, table, &readable.gaps) {
        take(&key, &value, damage);
    }
    for gap in &readable.gaps {
        let (table, from) = (table.name(), hex(&gap.from));
        let to = gap.to.as_deref().map_or_else(|| "the end".to_owned(), |to| format!("before {}", hex(to)));
        let rows = if gap.keys.is_empty() { "rows".to_owned() } else { format!("{} rows", gap.keys.len()) };
        damage.push(format!("table {table}: {rows} from {from} to {to} cannot be read: {}", gap.error));
        let keys = gap.keys.iter().take(SHOWN);
        damage.extend(keys.map(|key| format!("table {table}: the row {} cannot be read", hex(key))));
    }
}

/// The messages in these gaps that can be read although no scan comes to them, because they lie between damaged rows, in
/// another file. The rows of their tasks name their places.
fn hidden<'a>(
    tables: &'a Tables,
    table: TableName,
    gaps: &'a [Gap],
) -> impl Iterator<Item = (Vec<u8>, Slice)> + 'a {
    let has_messages = matches!(table, TableName::Messages | TableName::Lanes);
    let is_searched = has_messages && !gaps.is_empty();
    let tasks = is_searched.then(|| tables.readable(TableName::Tasks, &[], Bound::Unbounded));
    tasks.into_iter().flatten().filter_map(move |(_, row)| {
        let key = match (table, TaskRow::decode(&row)) {
            (TableName::Messages, Ok(TaskRow::At(key))) => key,
            (TableName::Lanes, Ok(TaskRow::InLine(key))) => key,
            _ => return None,
        };
        if !gaps.iter().any(|gap| gap.hides(&key)) {
            return None;
        }
        let value = tables.get(table, &key).ok().flatten()?;
        Some((key, value))
    })
}

/// The message of a task that is not over, from the place that the task's row names.
pub(super) fn message_at(tables: &Tables, place: &TaskRow) -> Option<Message> {
    let row = match place {
        TaskRow::At(key) => tables.get(TableName::Messages, key),
        TaskRow::InLine(key) => tables.get(TableName::Lanes, key),
        TaskRow::Over(_) => return None,
    };
    decode(&row.ok().flatten()?).ok()
}

/// Compares what is kept of a tenant with the rows that can be read. The store counts anew what it has nothing of.
fn check_line((queue, number): (u16, u32), kept: Option<&StoredLine>, found: u64, damage: &mut Vec<String>) {
    let counted = kept.map_or(0, |line| line.ready);
    if counted != found {
        let tenant = kept.map_or("", |line| line.tenant.as_str());
        damage.push(format!(
            "queue number {queue}, tenant `{tenant}` ({number}): {counted} tasks are counted as waiting, and {found} can be read"
        ));
    }
}

fn check<T: serde::de::DeserializeOwned>(
    table: TableName,
    key: &[u8],
    value: &[u8],
    damage: &mut Vec<String>,
) -> bool {
    match decode::<T>(value) {
        Ok(_) => true,
        Err(error) => {
            damage.push(format!("table {}: the row {} does not decode: {error}", table.name(), hex(key)));
            false
        }
    }
}

pub(super) fn hex(key: &[u8]) -> String {
    if key.is_empty() {
        "the beginning".to_owned()
    } else {
        key.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

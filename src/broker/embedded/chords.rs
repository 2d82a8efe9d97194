//! Chords as they lie in the tables: a row for each that is open, and one for each part that is over.
//!
//! Both are in the `meta` table, under prefixes of their own. A chord is opened with its first members and gone when its
//! body is sent, in the same commits, so a part of a chord without a row comes too late and counts for nothing. A chord
//! that nothing was heard of for [`FORGOTTEN_AFTER`] goes in a sweep: a member of it was ignored, or forgotten.
//!
//! Several parts of one chord may be in one commit, and a commit writes no row twice: what changes is gathered here and
//! staged with the commit.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rows::{decode, encode};
use super::tables::{Table, Tables, Writes};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::store::ChordPart;
use crate::task::clock::now;
use crate::task::{State, TaskId};

/// See above. Longer than anybody lets a task wait for its ETA.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(90 * 24 * 60 * 60);

const CHORD: &[u8] = b"chord/";
const CHORDS_END: &[u8] = b"chord0";
const PART: &[u8] = b"part/";

/// An open chord.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ChordRow {
    size: u64,
    /// Parts that are over.
    count: u64,
    touched: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct PartRow {
    id: TaskId,
    index: Option<u32>,
    state: State,
    /// JSON.
    value: String,
}

/// The chords that change in this commit.
#[derive(Default)]
pub(super) struct Chords(HashMap<String, Changed>);

struct Changed {
    /// `None`: it is gone.
    row: Option<ChordRow>,
    /// Parts that are not in the table yet, by key.
    parts: BTreeMap<Vec<u8>, ChordPart>,
    /// Parts that are to go from the table.
    gone: Vec<Vec<u8>>,
}

impl Chords {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Opens a chord. What an earlier one of its id has left is of no matter.
    pub(super) fn open(&mut self, tables: &Tables, group: &str, size: u64) -> Result<(), BrokerError> {
        let row = Some(ChordRow { size, count: 0, touched: now() });
        let gone = keys_of_parts(tables, group)?;
        self.0.insert(group.to_owned(), Changed { row, parts: BTreeMap::new(), gone });
        Ok(())
    }

    /// One more part is to come.
    pub(super) fn extend(&mut self, tables: &Tables, group: &str) -> Result<(), BrokerError> {
        match &mut self.changed(tables, group)?.row {
            Some(row) => (row.size, row.touched) = (row.size + 1, now()),
            None => return Err(BrokerError::NoChord(group.to_owned())),
        }
        Ok(())
    }

    /// Counts a part; all of them, in order, if they are complete.
    pub(super) fn join(
        &mut self,
        tables: &Tables,
        part: ChordPart,
    ) -> Result<Option<Vec<ChordPart>>, BrokerError> {
        let group = part.group.clone();
        let changed = self.changed(tables, &group)?;
        let Some(row) = &mut changed.row else {
            tracing::debug!(group, id = %part.id, "a part of a chord that is not open");
            return Ok(None);
        };
        let key = part_key(&part);
        let gone = changed.gone.iter().position(|gone| *gone == key);
        let is_new = gone.is_some() || tables.get(Table::Meta, &key)?.is_none();
        if !changed.parts.contains_key(&key) && is_new {
            gone.map(|at| changed.gone.swap_remove(at)); // a commit writes no row twice
            (row.count, row.touched) = (row.count + 1, now());
            changed.parts.insert(key, part);
        }
        if row.count < row.size {
            return Ok(None);
        }
        let mut parts = read_parts(tables, &group)?;
        changed.gone.iter().for_each(|key| drop(parts.remove(key)));
        parts.extend(changed.parts.iter().map(|(key, part)| (key.clone(), part.clone())));
        Ok(Some(parts.into_values().collect()))
    }

    /// Its body is sent: all of it goes.
    pub(super) fn close(&mut self, tables: &Tables, group: &str) -> Result<(), BrokerError> {
        let gone = keys_of_parts(tables, group)?;
        let changed = self.changed(tables, group)?;
        changed.row = None;
        changed.parts.clear();
        changed.gone = gone;
        Ok(())
    }

    fn changed(&mut self, tables: &Tables, group: &str) -> Result<&mut Changed, BrokerError> {
        if !self.0.contains_key(group) {
            let row = tables.get(Table::Meta, &chord_key(group))?;
            let row = row.as_deref().map(decode::<ChordRow>).transpose()?;
            let changed = Changed { row, parts: BTreeMap::new(), gone: Vec::new() };
            self.0.insert(group.to_owned(), changed);
        }
        Ok(self.0.entry(group.to_owned()).or_insert_with(|| Changed {
            row: None,
            parts: BTreeMap::new(),
            gone: Vec::new(),
        }))
    }

    /// The rows that go with the commit.
    pub(super) fn stage(&self, writes: &mut Writes) -> Result<(), BrokerError> {
        for (group, Changed { row, parts, gone }) in &self.0 {
            gone.iter().for_each(|key| writes.delete(Table::Meta, key));
            match row {
                Some(row) => writes.put(Table::Meta, &chord_key(group), &encode(row)?),
                None => writes.delete(Table::Meta, &chord_key(group)),
            }
            for (key, part) in parts {
                let ChordPart { id, index, state, value, .. } = part;
                let row = PartRow { id: id.clone(), index: *index, state: *state, value: value.to_string() };
                writes.put(Table::Meta, key, &encode(&row)?);
            }
        }
        Ok(())
    }
}

/// Rows to delete of chords that nobody has touched for long.
pub(super) fn forget_old(tables: &Tables, now: Timestamp, writes: &mut Writes) -> Result<(), BrokerError> {
    for row in tables.range(Table::Meta, CHORD, Bound::Excluded(CHORDS_END))? {
        let (key, value) = row?;
        if decode::<ChordRow>(&value)?.touched + FORGOTTEN_AFTER > now {
            continue;
        }
        let group = String::from_utf8_lossy(&key[CHORD.len()..]).into_owned();
        tracing::warn!(group, "a chord that was never complete is forgotten");
        keys_of_parts(tables, &group)?.iter().for_each(|key| writes.delete(Table::Meta, key));
        writes.delete(Table::Meta, &key);
    }
    Ok(())
}

fn chord_key(group: &str) -> Vec<u8> {
    [CHORD, group.as_bytes()].concat()
}

/// Where the parts of a chord begin. The length keeps those of a group apart whose id begins with this one.
fn parts_prefix(group: &str) -> Vec<u8> {
    [PART, &(group.len() as u32).to_be_bytes(), group.as_bytes()].concat()
}

/// Sorts by place in the header; parts without one come last.
fn part_key(part: &ChordPart) -> Vec<u8> {
    let index = part.index.unwrap_or(u32::MAX).to_be_bytes();
    [&parts_prefix(&part.group), &index[..], part.id.as_str().as_bytes()].concat()
}

fn each_part(
    tables: &Tables,
    group: &str,
) -> Result<impl Iterator<Item = Result<(Vec<u8>, super::tables::Slice), BrokerError>>, BrokerError> {
    let prefix = parts_prefix(group);
    let rows = tables.range(Table::Meta, &prefix, Bound::Unbounded)?;
    let own = move |row: &Result<(_, _), BrokerError>| {
        row.as_ref().map_or(true, |(key, _): &(super::tables::Slice, _)| key.starts_with(&prefix))
    };
    Ok(rows.take_while(own).map(|row| row.map(|(key, value)| (key.to_vec(), value))))
}

fn keys_of_parts(tables: &Tables, group: &str) -> Result<Vec<Vec<u8>>, BrokerError> {
    each_part(tables, group)?.map(|row| Ok(row?.0)).collect()
}

fn read_parts(tables: &Tables, group: &str) -> Result<BTreeMap<Vec<u8>, ChordPart>, BrokerError> {
    let mut parts = BTreeMap::new();
    for row in each_part(tables, group)? {
        let (key, value) = row?;
        let PartRow { id, index, state, value } = decode(&value)?;
        let value = serde_json::from_str(&value)
            .map_err(|error| BrokerError::Io(format!("a part of chord {group} does not decode: {error}")))?;
        parts.insert(key, ChordPart { group: group.to_owned(), id, index, state, value });
    }
    Ok(parts)
}

//! Chords as they lie in the tables: a row for each open chord, and a row for each of its members that has ended.
//!
//! Both kinds of row are in the `meta` table, under prefixes of their own. A chord's row is written in the same
//! commit as its first members, and deleted in the same commit as its body is sent. So a part of a chord that has
//! no row comes too late and counts for nothing. A sweep deletes a chord in which nothing has changed for
//! [`FORGOTTEN_AFTER`]: a member of it was ignored, or its record was forgotten.
//!
//! Several parts of one chord may be in one commit, and a commit may write a row only once. So the changes are
//! gathered here and staged together with the commit.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rows::{decode, encode};
use super::tables::{TableName, Tables, Writes};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::store::ChordPart;
use crate::store::chord::too_large;
use crate::task::clock::now;
use crate::task::{State, TaskId};

/// How long a chord may stay unchanged before a sweep deletes it: longer than anybody lets a task wait for its
/// ETA.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(90 * 24 * 60 * 60);

const CHORD: &[u8] = b"chord/";
const CHORDS_END: &[u8] = b"chord0";
const PART: &[u8] = b"part/";

/// The row of an open chord.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ChordRow {
    size: u64,
    /// The number of parts that have ended.
    count: u64,
    touched: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct PartRow {
    id: TaskId,
    index: Option<u32>,
    state: State,
    /// The part's value as JSON text.
    value: String,
}

/// The chords that the commit under construction changes.
#[derive(Default)]
pub(super) struct Chords(HashMap<String, ChangedChord>);

struct ChangedChord {
    /// The chord's row as it is to be written; `None`: the row is to be deleted.
    row: Option<ChordRow>,
    /// Parts to be written, by their keys.
    parts: BTreeMap<Vec<u8>, ChordPart>,
    /// The keys of parts to be deleted.
    gone: Vec<Vec<u8>>,
}

impl Chords {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Opens a chord. Parts that an earlier chord of the same id has left are deleted.
    pub(super) fn open(&mut self, tables: &Tables, group: &str, size: u64) -> Result<(), BrokerError> {
        let row = Some(ChordRow { size, count: 0, touched: now() });
        let gone = keys_of_parts(tables, group)?;
        self.0.insert(group.to_owned(), ChangedChord { row, parts: BTreeMap::new(), gone });
        Ok(())
    }

    /// Notes that one more part of an open chord is to come.
    pub(super) fn extend(&mut self, tables: &Tables, group: &str) -> Result<(), BrokerError> {
        match &mut self.changed(tables, group)?.row {
            Some(row) => (row.size, row.touched) = (row.size + 1, now()),
            None => return Err(BrokerError::NoChord(group.to_owned())),
        }
        Ok(())
    }

    /// Counts a part. Answers with all parts, in order, if the chord is complete.
    pub(super) fn join(
        &mut self,
        tables: &Tables,
        part: ChordPart,
        most: usize,
    ) -> Result<Option<Vec<ChordPart>>, BrokerError> {
        let group = part.group.clone();
        let changed = self.changed(tables, &group)?;
        let Some(row) = &mut changed.row else {
            tracing::debug!(group, id = %part.id, "a part of a chord that is not open");
            return Ok(None);
        };
        let key = part_key(&part);
        let gone = changed.gone.iter().position(|gone| *gone == key);
        let is_new = gone.is_some() || tables.get(TableName::Meta, &key)?.is_none();
        if !changed.parts.contains_key(&key) && is_new {
            gone.map(|at| changed.gone.swap_remove(at)); // a commit writes no row twice
            (row.count, row.touched) = (row.count + 1, now());
            changed.parts.insert(key, part);
        }
        if row.count < row.size {
            return Ok(None);
        }
        let here: usize = changed.parts.values().map(|part| part.value.text().len()).sum();
        let left = most.checked_sub(here);
        let Some(mut parts) =
            left.map(|left| read_parts(tables, &group, &changed.gone, left)).transpose()?.flatten()
        else {
            return Ok(Some(vec![too_large(&group, most)]));
        };
        parts.extend(changed.parts.iter().map(|(key, part)| (key.clone(), part.clone())));
        Ok(Some(parts.into_values().collect()))
    }

    /// Deletes the chord and its parts, because its body is sent.
    pub(super) fn close(&mut self, tables: &Tables, group: &str) -> Result<(), BrokerError> {
        let gone = keys_of_parts(tables, group)?;
        let changed = self.changed(tables, group)?;
        changed.row = None;
        changed.parts.clear();
        changed.gone = gone;
        Ok(())
    }

    fn changed(&mut self, tables: &Tables, group: &str) -> Result<&mut ChangedChord, BrokerError> {
        if !self.0.contains_key(group) {
            let row = tables.get(TableName::Meta, &chord_key(group))?;
            let row = row.as_deref().map(decode::<ChordRow>).transpose()?;
            let changed = ChangedChord { row, parts: BTreeMap::new(), gone: Vec::new() };
            self.0.insert(group.to_owned(), changed);
        }
        Ok(self.0.entry(group.to_owned()).or_insert_with(|| ChangedChord {
            row: None,
            parts: BTreeMap::new(),
            gone: Vec::new(),
        }))
    }

    /// Adds the rows of the changed chords to those of the commit.
    pub(super) fn stage(&self, writes: &mut Writes) -> Result<(), BrokerError> {
        for (group, ChangedChord { row, parts, gone }) in &self.0 {
            gone.iter().for_each(|key| writes.delete(TableName::Meta, key));
            match row {
                Some(row) => writes.put(TableName::Meta, &chord_key(group), &encode(row)?),
                None => writes.delete(TableName::Meta, &chord_key(group)),
            }
            for (key, part) in parts {
                let ChordPart { id, index, state, value, .. } = part;
                let row =
                    PartRow { id: id.clone(), index: *index, state: *state, value: value.text().to_owned() };
                writes.put(TableName::Meta, key, &encode(&row)?);
            }
        }
        Ok(())
    }
}

/// Adds deletions of the chords that have not changed for [`FORGOTTEN_AFTER`].
pub(super) fn forget_old(tables: &Tables, now: Timestamp, writes: &mut Writes) -> Result<(), BrokerError> {
    for (key, value) in tables.readable(TableName::Meta, CHORD, Bound::Excluded(CHORDS_END)) {
        if decode::<ChordRow>(&value).is_ok_and(|row| row.touched + FORGOTTEN_AFTER > now) {
            continue;
        }
        let group = String::from_utf8_lossy(&key[CHORD.len()..]).into_owned();
        tracing::warn!(group, "a chord that was never complete is forgotten");
        keys_of_parts(tables, &group)?.iter().for_each(|key| writes.delete(TableName::Meta, key));
        writes.delete(TableName::Meta, &key);
    }
    Ok(())
}

fn chord_key(group: &str) -> Vec<u8> {
    [CHORD, group.as_bytes()].concat()
}

/// The prefix of the keys of a chord's parts. The length keeps them apart from the parts of a group whose id
/// begins with this id.
fn parts_prefix(group: &str) -> Vec<u8> {
    [PART, &(group.len() as u32).to_be_bytes(), group.as_bytes()].concat()
}

/// The key of a part. Keys sort by the place in the header; parts that have no place come last.
fn part_key(part: &ChordPart) -> Vec<u8> {
    let index = part.index.unwrap_or(u32::MAX).to_be_bytes();
    [&parts_prefix(&part.group), &index[..], part.id.as_str().as_bytes()].concat()
}

fn each_part(
    tables: &Tables,
    group: &str,
) -> Result<impl Iterator<Item = Result<(Vec<u8>, super::tables::Slice), BrokerError>>, BrokerError> {
    let prefix = parts_prefix(group);
    let rows = tables.range(TableName::Meta, &prefix, Bound::Unbounded)?;
    let own = move |row: &Result<(_, _), BrokerError>| {
        row.as_ref().map_or(true, |(key, _): &(super::tables::Slice, _)| key.starts_with(&prefix))
    };
    Ok(rows.take_while(own).map(|row| row.map(|(key, value)| (key.to_vec(), value))))
}

fn keys_of_parts(tables: &Tables, group: &str) -> Result<Vec<Vec<u8>>, BrokerError> {
    each_part(tables, group)?.map(|row| Ok(row?.0)).collect()
}

/// The parts of a chord that are in the table and are not to go; nothing, as soon as they take more than `most` bytes.
fn read_parts(
    tables: &Tables,
    group: &str,
    gone: &[Vec<u8>],
    most: usize,
) -> Result<Option<BTreeMap<Vec<u8>, ChordPart>>, BrokerError> {
    let (mut parts, mut bytes) = (BTreeMap::new(), 0_usize);
    for row in each_part(tables, group)? {
        let (key, value) = row?;
        if gone.contains(&key) {
            continue;
        }
        bytes = bytes.saturating_add(value.len());
        if bytes > most {
            return Ok(None);
        }
        let PartRow { id, index, state, value } = decode(&value)?;
        let value = value.parse().map_err(|error| {
            BrokerError::io_because(format!("a part of chord {group} does not decode: {error}"), error)
        })?;
        parts.insert(key, ChordPart { group: group.to_owned(), id, index, state, value });
    }
    Ok(Some(parts))
}

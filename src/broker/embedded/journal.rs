//! Checks the database's journals before the database replays them.
//!
//! An earlier version wrote each commit there. This one writes commits to the [log](super::hot_log), and empties the journals when
//! it opens such a store; what the database itself writes there since is worth nothing.
//!
//! The database takes the first place that it cannot read for the end of the journal, and cuts off the rest. This is
//! right for a write that a crash tore, and only the last write can be torn, because each write is synced before the
//! next. It is wrong for damage in the middle, which would silently cost acknowledged tasks, and for a journal that
//! somebody cut short. Two findings are therefore errors:
//! - A batch cannot be read, and a readable batch follows it, in the same journal or in a later one.
//! - The journal ends before the last commit that was [acknowledged](super::acknowledged).
//!
//! If the last batch is torn and lies behind that commit, this module cuts it off. It does so too in the case in which
//! the database would give up: a batch of the right length with a page that was never written.
//!
//! A batch is a start (tag 1, number of items, sequence), items (tag 2: kinds, table, lengths, key and value; tag 4: a
//! table) and an end (tag 3, XXH3 of the items, trailer). The database allocates a journal ahead, so zeros follow the
//! last batch.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::broker::BrokerError;

use super::acknowledged::CommitMark;
use super::rows::SEQ;
use super::tables::io_error;

const START: usize = 1 + 4 + 8;
const ITEM: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;
const CLEAR: usize = 1 + 8;
const TRAILER: &[u8] = b"FJL\x03";
const END: usize = 1 + 8 + TRAILER.len();

/// Checks the journals of a database that is not open, and cuts off torn tails. `is_made` says that there must be a
/// journal. `acknowledged` is the last acknowledged commit, which the journals must reach.
pub(super) fn check(db: &Path, is_made: bool, acknowledged: Option<CommitMark>) -> Result<(), BrokerError> {
    for Torn { path, end, size } in examine(db, is_made, acknowledged)? {
        let path_shown = path.display();
        match acknowledged {
            Some(_) => {
                tracing::warn!(path = %path_shown, at = end, bytes = size, "the last write was cut short and never acknowledged; it is taken off")
            }
            None => {
                tracing::warn!(path = %path_shown, at = end, bytes = size, "the last write was cut short and is taken off; whether it was acknowledged is not known")
            }
        }
        truncate(&path, end)?;
    }
    Ok(())
}

/// A last write that a crash cut short.
pub(super) struct Torn {
    pub(super) path: PathBuf,
    /// The offset at which the write begins.
    end: usize,
    /// The number of bytes that exist of the write.
    pub(super) size: usize,
}

/// Looks for the same findings as [`check`], and changes nothing. Returns the torn writes.
pub(super) fn examine(
    db: &Path,
    is_made: bool,
    acknowledged: Option<CommitMark>,
) -> Result<Vec<Torn>, BrokerError> {
    let journals = journals(db)?;
    let Some((_, last)) = journals.last() else {
        let error = "its journal is not there".to_owned();
        return if is_made {
            Err(BrokerError::Damaged { path: db.to_owned(), error })
        } else {
            Ok(Vec::new())
        };
    };
    let mut torn: Vec<Torn> = Vec::new();
    let mut seq = None;
    for (_, path) in &journals {
        let bytes = written(path)?;
        let look = look_over(&bytes);
        // The store writes nothing after a torn write, so content in a later journal means damage.
        if look.end > 0
            && let Some(Torn { path, end, .. }) = torn.first()
        {
            let error = format!("the journal is damaged at byte {end}");
            return Err(BrokerError::Damaged { path: path.clone(), error });
        }
        seq = seq.max(look.seq);
        match look.rest {
            JournalTail::Nothing => {}
            JournalTail::Torn => {
                torn.push(Torn { path: path.clone(), end: look.end, size: bytes.len() - look.end })
            }
            JournalTail::Damaged => {
                let error = format!("the journal is damaged at byte {}", look.end);
                return Err(BrokerError::Damaged { path: path.clone(), error });
            }
        }
    }
    if let Some(mark) = acknowledged {
        let is_cut = match seq {
            Some(seq) => seq < mark.seq,
            // Commits that are in the tables need no journal, and the database deletes the oldest journals first.
            None => journals.iter().any(|(number, _)| *number == mark.journal),
        };
        if is_cut {
            return Err(mark.lost(last.clone(), seq.unwrap_or(0)));
        }
    }
    Ok(torn)
}

/// Reduces the journals of a copy to the batches that can be read, also those behind damage. Returns a text on what it
/// leaves out.
pub(super) fn keep_readable(db: &Path) -> Result<Vec<String>, BrokerError> {
    let mut left_out = Vec::new();
    let mut before = None;
    for (_, path) in journals(db)? {
        let bytes = written(&path)?;
        let used = bytes.len();
        let (mut good, mut at, mut bad) = (Vec::new(), 0, None);
        while at < used {
            match batch(&bytes[at..]).filter(|batch| before < Some(batch.seq)) {
                Some(batch) => {
                    if let Some(from) = bad.take() {
                        left_out.push(unread(&path, from, at));
                    }
                    before = Some(batch.seq);
                    good.extend_from_slice(&bytes[at..at + batch.size]);
                    at += batch.size;
                }
                None => {
                    bad.get_or_insert(at);
                    at += 1;
                }
            }
        }
        if let Some(from) = bad {
            left_out.push(unread(&path, from, used));
            good.resize(good.len() + 64, 0); // zeros end a journal
        } else if left_out.is_empty() {
            continue;
        }
        std::fs::write(&path, good).map_err(|e| io_error(&path, e))?;
    }
    Ok(left_out)
}

fn unread(path: &Path, from: usize, to: usize) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!(
        "db/{name}: bytes {from} to {to} cannot be read; what was written there is lost, unless it is in a table file"
    )
}

/// Whether a journal holds anything but zeros.
pub(super) fn has_content(path: &Path) -> Result<bool, BrokerError> {
    Ok(!written(path)?.is_empty())
}

/// Empties the journals of a database that is not open, and whose tables have all that is in them.
pub(super) fn empty(db: &Path) -> Result<(), BrokerError> {
    journals(db)?.iter().try_for_each(|(_, path)| truncate(path, 0))
}

/// The journals by number, which is the order in which they were written.
fn journals(db: &Path) -> Result<Vec<(u64, PathBuf)>, BrokerError> {
    let entries = match std::fs::read_dir(db) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(db, error)),
    };
    let mut journals = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| io_error(db, e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jnl"));
        if let Some(number) = name.and_then(|name| name.parse().ok()) {
            journals.push((number, path));
        }
    }
    journals.sort_unstable();
    Ok(journals)
}

/// The bytes of a journal up to the last one that is not zero. What was allocated ahead, 64 MiB at a time, is mostly all
/// there is; it is read in pieces and compared with zeros, and not kept.
fn written(path: &Path) -> Result<Vec<u8>, BrokerError> {
    const PIECE: usize = 64 << 10;
    let zeros = [0; PIECE];
    let (mut bytes, mut piece, mut skipped) = (Vec::new(), Vec::with_capacity(PIECE), 0);
    let mut file = File::open(path).map_err(|e| io_error(path, e))?;
    loop {
        piece.clear();
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let read = read.map_err(|e| io_error(path, e))?;
        if read == 0 {
            break;
        }
        if piece == zeros[..read] {
            skipped += read;
            continue;
        }
        bytes.resize(bytes.len() + std::mem::take(&mut skipped), 0);
        bytes.extend_from_slice(&piece);
    }
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    bytes.truncate(used);
    Ok(bytes)
}

fn truncate(path: &Path, size: usize) -> Result<(), BrokerError> {
    let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(size as u64)?;
        file.sync_all()
    });
    cut.map_err(|e| io_error(path, e))
}

/// The result of a look over a journal.
struct JournalSummary {
    /// The offset at which the last readable batch ends.
    end: usize,
    /// The sequence of the last commit in the journal.
    seq: Option<u64>,
    rest: JournalTail,
}

/// The content of a journal behind its last readable batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JournalTail {
    Nothing,
    /// A write that a crash cut short.
    Torn,
    /// Bytes that could be read once.
    Damaged,
}

/// Looks over what is [written] in a journal.
fn look_over(bytes: &[u8]) -> JournalSummary {
    let mut look = JournalSummary { end: 0, seq: None, rest: JournalTail::Nothing };
    let mut before = None;
    while let Some(Batch { size, seq, commit }) = batch(&bytes[look.end..]) {
        if before >= Some(seq) {
            look.rest = JournalTail::Damaged; // the checksum does not cover the sequence, but the sequence only grows
            return look;
        }
        before = Some(seq);
        look.seq = look.seq.max(commit);
        look.end += size;
    }
    let rest = bytes.get(look.end..).unwrap_or_default();
    if !rest.is_empty() {
        let has_batch = (1..rest.len()).any(|at| rest[at] == 1 && batch(&rest[at..]).is_some());
        look.rest = if has_batch { JournalTail::Damaged } else { JournalTail::Torn };
    }
    look
}

/// A batch that is whole.
struct Batch {
    size: usize,
    /// The sequence that the database gave it.
    seq: u64,
    /// The sequence that the store gave the batch, if the batch is a commit of the store.
    commit: Option<u64>,
}

/// The batch at the beginning of `bytes`, or `None` if it is not whole.
fn batch(bytes: &[u8]) -> Option<Batch> {
    let number = |at: usize, size: usize| -> Option<u64> {
        let mut number = [0; 8];
        number[..size].copy_from_slice(bytes.get(at..at + size)?);
        Some(u64::from_le_bytes(number))
    };
    let length = |at, size| usize::try_from(number(at, size)?).ok();
    if *bytes.first()? != 1 {
        return None;
    }
    let (mut at, mut commit) = (START, None);
    for _ in 0..number(1, 4)? {
        at = match *bytes.get(at)? {
            2 => {
                let kinds = bytes.get(at + 1..at + 3)?;
                if kinds[0] > 2 || kinds[1] != 0 {
                    return None; // neither a put nor a delete, or compressed, which the store never asks for
                }
                let lengths = at + ITEM - 10; // of the key, of the value, and of the value on disk
                let (key, end_of_key) = (at + ITEM, at.checked_add(ITEM + length(lengths, 2)?)?);
                let end = end_of_key.checked_add(length(lengths + 6, 4)?)?;
                if bytes.get(key..end_of_key)? == SEQ {
                    let value = bytes.get(end_of_key..end).and_then(|value| <[u8; 8]>::try_from(value).ok());
                    commit = value.map(u64::from_be_bytes);
                }
                end
            }
            4 => at + CLEAR,
            _ => return None,
        };
    }
    let items = bytes.get(START..at)?;
    let end = bytes.get(at..at + END)?;
    let is_whole =
        end[0] == 3 && end.ends_with(TRAILER) && end[1..9] == xxhash_rust::xxh3::xxh3_64(items).to_le_bytes();
    Some(Batch { size: at + END, seq: number(5, 8)?, commit }).filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_ends_with_the_last_byte_that_is_not_zero() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.jnl");
        const PIECE: usize = 64 << 10;
        for (size, ones, used) in [
            (0, vec![], 0),
            (3 * PIECE, vec![], 0),
            (3 * PIECE, vec![0], 1),
            (3 * PIECE + 9, vec![5, 2 * PIECE + 7], 2 * PIECE + 8),
            (2 * PIECE, vec![PIECE - 1], PIECE),
            (2 * PIECE + 9, vec![2 * PIECE + 8], 2 * PIECE + 9),
        ] {
            let mut bytes = vec![0; size];
            ones.iter().for_each(|at| bytes[*at] = 1);
            std::fs::write(&path, &bytes).unwrap();
            bytes.truncate(used);
            assert!(written(&path).unwrap() == bytes, "{ones:?} of {size}");
            assert_eq!(has_content(&path).unwrap(), !ones.is_empty());
        }
    }
}

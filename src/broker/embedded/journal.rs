//! A look over the database's journals before it replays them.
//!
//! The database takes the first place that it cannot read for the end of the journal and cuts off the rest. That is
//! right for a write which a crash tore, and only the last one can be torn, because each is synced before the next.
//! It is wrong for damage in the middle, which would silently cost acknowledged tasks. So: a batch that cannot be
//! read and has a good one behind it is damage and an error; a torn last one is cut off here, also where the
//! database would give up (the right length, with a page in it that was never written).
//!
//! A batch is a start (tag 1, number of items, sequence), items (tag 2: kinds, table, lengths, key and value; tag 4:
//! a table) and an end (tag 3, XXH3 of the items, trailer). A journal is allocated ahead, so zeros end it.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use crate::broker::BrokerError;

use super::tables::io_error;

const START: usize = 1 + 4 + 8;
const ITEM: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;
const CLEAR: usize = 1 + 8;
const TRAILER: &[u8] = b"FJL\x03";
const END: usize = 1 + 8 + TRAILER.len();

/// Checks the journals of a database that is not open, and cuts off torn tails. `is_made`: there must be one.
pub(super) fn check(db: &Path, is_made: bool) -> Result<(), BrokerError> {
    let journals = journals(db)?;
    if is_made && journals.is_empty() {
        return Err(BrokerError::Damaged {
            path: db.to_owned(),
            error: "its journal is not there".to_owned(),
        });
    }
    for path in journals {
        let bytes = std::fs::read(&path).map_err(|e| io_error(&path, &e))?;
        let look = look_over(&bytes);
        match look.rest {
            Rest::Nothing => {}
            Rest::Torn => {
                tracing::warn!(path = %path.display(), at = look.end, "the last write was cut short and never acknowledged; it is taken off");
                truncate(&path, look.end)?;
            }
            Rest::Damaged => {
                let error = format!("the journal is damaged at byte {}", look.end);
                return Err(BrokerError::Damaged { path, error });
            }
        }
    }
    Ok(())
}

/// Takes a batch off the journals of a database that is not open: its commit failed, but it may have got there
/// nevertheless. `mark`: bytes that it has and no other one.
pub(super) fn take_off(db: &Path, mark: &[u8]) -> Result<(), BrokerError> {
    for path in journals(db)? {
        let bytes = std::fs::read(&path).map_err(|e| io_error(&path, &e))?;
        let look = look_over(&bytes);
        if bytes[look.last..look.end].windows(mark.len()).any(|w| w == mark) {
            truncate(&path, look.last)?;
        }
    }
    Ok(())
}

fn journals(db: &Path) -> Result<Vec<PathBuf>, BrokerError> {
    let entries = match std::fs::read_dir(db) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(db, &error)),
    };
    let paths = entries.map(|entry| Ok(entry.map_err(|e| io_error(db, &e))?.path()));
    paths.filter(|path| path.as_ref().map_or(true, |p| p.extension().is_some_and(|e| e == "jnl"))).collect()
}

fn truncate(path: &Path, size: usize) -> Result<(), BrokerError> {
    let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(size as u64)?;
        file.sync_all()
    });
    cut.map_err(|e| io_error(path, &e))
}

/// What a journal holds.
struct Look {
    /// Where the last good batch begins,
    last: usize,
    /// and where it ends.
    end: usize,
    rest: Rest,
}

/// What lies behind the last good batch of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// A write that a crash cut short.
    Torn,
    /// Something that was good once.
    Damaged,
}

fn look_over(bytes: &[u8]) -> Look {
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    let mut look = Look { last: 0, end: 0, rest: Rest::Nothing };
    let mut before = None;
    while let Some((size, seq)) = batch(&bytes[look.end..]) {
        if before >= Some(seq) {
            look.rest = Rest::Damaged; // the sequence is not in the checksum, but it only grows
            return look;
        }
        before = Some(seq);
        (look.last, look.end) = (look.end, look.end + size);
    }
    let rest = bytes.get(look.end..used).unwrap_or_default();
    if !rest.is_empty() {
        let has_batch = (1..rest.len()).any(|at| rest[at] == 1 && batch(&rest[at..]).is_some());
        look.rest = if has_batch { Rest::Damaged } else { Rest::Torn };
    }
    look
}

/// The size and the sequence of the batch that `bytes` begin with, if it is whole.
fn batch(bytes: &[u8]) -> Option<(usize, u64)> {
    let number = |at: usize, size: usize| -> Option<u64> {
        let mut number = [0; 8];
        number[..size].copy_from_slice(bytes.get(at..at + size)?);
        Some(u64::from_le_bytes(number))
    };
    let length = |at, size| usize::try_from(number(at, size)?).ok();
    if *bytes.first()? != 1 {
        return None;
    }
    let mut at = START;
    for _ in 0..number(1, 4)? {
        at = match *bytes.get(at)? {
            2 => {
                let kinds = bytes.get(at + 1..at + 3)?;
                if kinds[0] > 2 || kinds[1] != 0 {
                    return None; // neither put nor delete, or compressed, which we do not ask for
                }
                let lengths = at + ITEM - 10; // of the key, of the value, of the value on disk
                at.checked_add(ITEM + length(lengths, 2)?)?.checked_add(length(lengths + 6, 4)?)?
            }
            4 => at + CLEAR,
            _ => return None,
        };
    }
    let items = bytes.get(START..at)?;
    let end = bytes.get(at..at + END)?;
    let is_whole =
        end[0] == 3 && end.ends_with(TRAILER) && end[1..9] == xxhash_rust::xxh3::xxh3_64(items).to_le_bytes();
    Some((at + END, number(5, 8)?)).filter(|_| is_whole)
}

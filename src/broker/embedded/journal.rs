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

/// Checks the journals of a database that is not open, and cuts off a torn tail.
pub(super) fn check(db: &Path) -> Result<(), BrokerError> {
    let mut journals: Vec<(u64, PathBuf)> = Vec::new();
    let entries = match std::fs::read_dir(db) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(db, &error)),
    };
    for entry in entries {
        let path = entry.map_err(|e| io_error(db, &e))?.path();
        let number = path.file_name().and_then(|n| n.to_str()?.strip_suffix(".jnl")?.parse().ok());
        journals.extend(number.map(|n| (n, path)));
    }
    journals.sort();
    let last = journals.last().map(|(number, _)| *number);
    for (number, path) in journals {
        let bytes = std::fs::read(&path).map_err(|e| io_error(&path, &e))?;
        let (good, damaged) = look_over(&bytes);
        let torn = bytes[good..].iter().any(|b| *b != 0);
        if damaged || (torn && last != Some(number)) {
            return Err(BrokerError::Damaged {
                path,
                error: format!("the journal is damaged at byte {good}"),
            });
        }
        if torn {
            tracing::warn!(path = %path.display(), at = good, "the last write was torn by a crash and never acknowledged; it is cut off");
            let cut = OpenOptions::new().write(true).open(&path).and_then(|file| {
                file.set_len(good as u64)?;
                file.sync_all()
            });
            cut.map_err(|e| io_error(&path, &e))?;
        }
    }
    Ok(())
}

/// Up to where the journal is good, and whether there is a good batch behind that.
fn look_over(bytes: &[u8]) -> (usize, bool) {
    let mut good = 0;
    while let Some(size) = batch(&bytes[good..]) {
        good += size;
    }
    let rest = &bytes[good..];
    let rest = &rest[..rest.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)];
    let starts = rest.iter().enumerate().skip(1).filter(|(_, byte)| **byte == 1);
    let damaged = starts.map(|(at, _)| at).any(|at| batch(&rest[at..]).is_some());
    (good, damaged)
}

/// The size of the batch that `bytes` begin with, if it is whole.
fn batch(bytes: &[u8]) -> Option<usize> {
    let number = |at: usize, size: usize| -> Option<usize> {
        let mut number = [0; 8];
        number[..size].copy_from_slice(bytes.get(at..at + size)?);
        usize::try_from(u64::from_le_bytes(number)).ok()
    };
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
                at.checked_add(ITEM + number(lengths, 2)?)?.checked_add(number(lengths + 6, 4)?)?
            }
            4 => at + CLEAR,
            _ => return None,
        };
    }
    let items = bytes.get(START..at)?;
    let end = bytes.get(at..at + END)?;
    let is_whole =
        end[0] == 3 && end.ends_with(TRAILER) && end[1..9] == xxhash_rust::xxh3::xxh3_64(items).to_le_bytes();
    is_whole.then_some(at + END)
}

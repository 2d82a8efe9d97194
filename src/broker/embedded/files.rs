//! A look over the database's table files and the lists of them before it opens them.
//!
//! The database believes the lengths in a file before it checks the sum over them, so that one flipped bit can make
//! it ask for more memory than there is, which ends the process. So the sums are checked here first: that of each
//! list (kept in the file `current` beside it), and that of each listed table's table of contents. The blocks of a
//! table are checked by the database as it reads them.
//!
//! A keyspace is a directory with `current` (number and XXH3-128 of the list), the list `v<number>` (an archive whose
//! section `tables` names the table files by level and run) and the tables (archives too). An archive ends with its
//! contents and a trailer (magic, version, kind of sum, XXH3-128 and place of the contents, their length).

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use crate::broker::BrokerError;

use super::tables::io_error;

const CURRENT: usize = 8 + 16 + 1;
const TRAILER: usize = 4 + 1 + 1 + 16 + 8 + 8;
/// Number, kind of sum, sum and sequence of a listed table.
const LISTED: usize = 8 + 1 + 16 + 8;

/// Checks the files of a database that is not open. `is_made`: each keyspace must have all that it needs.
pub(super) fn check(db: &Path, is_made: bool) -> Result<(), BrokerError> {
    let keyspaces = db.join("keyspaces");
    let entries = match std::fs::read_dir(&keyspaces) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return missing(&keyspaces, is_made),
        Err(error) => return Err(io_error(&keyspaces, &error)),
    };
    for entry in entries {
        let path = entry.map_err(|e| io_error(&keyspaces, &e))?.path();
        if path.is_dir() {
            check_keyspace(&path, is_made)?;
        }
    }
    Ok(())
}

fn check_keyspace(keyspace: &Path, is_made: bool) -> Result<(), BrokerError> {
    let current = keyspace.join("current");
    if !current.exists() {
        return missing(&current, is_made); // the process ended while the keyspace was made
    }
    let bytes = read(&current)?;
    let (Some(number), Some(sum), CURRENT) = (word(&bytes, 0), sum(&bytes, 8), bytes.len()) else {
        return damaged(&current, "it has not the size that it must have");
    };
    let list = keyspace.join(format!("v{number}"));
    let bytes = read(&list)?;
    if xxh3_128(&bytes) != sum {
        return damaged(&list, "its checksum does not match the one in the file 'current' beside it");
    }
    for table in tables(&list)? {
        check_contents(&keyspace.join("tables").join(table.to_string()))?;
    }
    Ok(())
}

/// The numbers of the table files in a list whose checksum is right.
fn tables(list: &Path) -> Result<Vec<u64>, BrokerError> {
    let broken = |what: &dyn std::fmt::Display| BrokerError::Damaged {
        path: list.to_owned(),
        error: format!("it does not list table files as expected: {what}"),
    };
    let archive = sfa::Reader::new(list).map_err(|e| broken(&e))?;
    let section = archive.toc().section(b"tables").ok_or_else(|| broken(&"it has no section 'tables'"))?;
    let mut bytes = Vec::new();
    section
        .buf_reader(list)
        .and_then(|mut section| section.read_to_end(&mut bytes))
        .map_err(|e| broken(&e))?;
    listed(&bytes).ok_or_else(|| broken(&"it is cut short"))
}

fn listed(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut tables = Vec::new();
    let mut at = 1;
    for _level in 0..*bytes.first()? {
        let runs = *bytes.get(at)?;
        at += 1;
        for _run in 0..runs {
            let count = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
            at += 4;
            for _table in 0..count {
                tables.push(word(bytes, at)?);
                at += LISTED;
            }
        }
    }
    Some(tables).filter(|_| at <= bytes.len())
}

/// Checks the sum over the contents of an archive, which are at its end.
fn check_contents(path: &Path) -> Result<(), BrokerError> {
    let mut file = File::open(path).map_err(|e| unreadable(path, &e))?;
    let mut read_from = |start: SeekFrom| {
        let mut bytes = Vec::new();
        file.seek(start)
            .and_then(|_| file.read_to_end(&mut bytes))
            .map(|_| bytes)
            .map_err(|e| unreadable(path, &e))
    };
    let trailer = read_from(SeekFrom::End(-(TRAILER as i64)))?;
    let (Some(sum), Some(place)) = (sum(&trailer, 6), word(&trailer, 22)) else {
        return damaged(path, "its end is cut off");
    };
    let contents = read_from(SeekFrom::Start(place))?;
    match contents.len().checked_sub(TRAILER) {
        Some(end) if xxh3_128(&contents[..end]) == sum => Ok(()),
        _ => damaged(path, "the checksum of its table of contents does not match"),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BrokerError> {
    std::fs::read(path).map_err(|e| unreadable(path, &e))
}

/// A file that must be there and be long enough: anything else is damage, unless the machine says that it could not.
fn unreadable(path: &Path, error: &std::io::Error) -> BrokerError {
    use std::io::ErrorKind::{InvalidInput, NotFound};
    match error.kind() {
        NotFound => BrokerError::Damaged { path: path.to_owned(), error: "it is not there".to_owned() },
        InvalidInput => {
            BrokerError::Damaged { path: path.to_owned(), error: "its end is cut off".to_owned() }
        }
        _ => io_error(path, error),
    }
}

fn missing(path: &Path, is_made: bool) -> Result<(), BrokerError> {
    if is_made { damaged(path, "it is not there") } else { Ok(()) }
}

fn damaged<T>(path: &Path, error: &str) -> Result<T, BrokerError> {
    Err(BrokerError::Damaged { path: PathBuf::from(path), error: error.to_owned() })
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn sum(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_le_bytes(bytes.get(at..at + 16)?.try_into().ok()?))
}

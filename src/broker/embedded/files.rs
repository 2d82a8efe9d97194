//! Checks the database's table files, and its lists of them, before it opens them.
//!
//! The database believes the lengths in a file before it checks the sum over them, so one flipped bit can make it
//! ask for more memory than there is, which ends the process. So this module checks the sums first: that of each
//! list, which stands in the file `current` beside the list, and that of each listed table's table of contents.
//! The database itself checks the blocks of a table as it reads them.
//!
//! A keyspace is a directory with three kinds of file: `current` (number and XXH3-128 of the list), the list
//! `v<number>` (an archive whose section `tables` names the table files by level and run), and the tables
//! (archives too). An archive ends with its contents and a trailer (magic, version, kind of sum, XXH3-128 and
//! place of the contents, their length).

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use crate::broker::BrokerError;

use super::tables::io_error;

/// The bytes of the file `current`: the list's number, its XXH3-128, and the kind of sum.
const CURRENT: usize = 8 + 16 + 1;
/// The bytes of an archive's trailer.
const TRAILER: usize = 4 + 1 + 1 + 16 + 8 + 8;
/// The bytes of one listed table: its number, the kind of sum, the sum and the sequence.
const LISTED: usize = 8 + 1 + 16 + 8;

/// Checks the files of a database that is not open. `is_made`: the tables were made, so each keyspace must have
/// all files that it needs.
pub(super) fn check(db: &Path, is_made: bool) -> Result<(), BrokerError> {
    let keyspaces = db.join("keyspaces");
    let entries = match std::fs::read_dir(&keyspaces) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return missing(&keyspaces, is_made),
        Err(error) => return Err(io_error(&keyspaces, error)),
    };
    for entry in entries {
        let path = entry.map_err(|e| io_error(&keyspaces, e))?.path();
        if path.is_dir() {
            check_keyspace(&path, is_made)?;
        }
    }
    Ok(())
}

fn check_keyspace(keyspace: &Path, is_made: bool) -> Result<(), BrokerError> {
    let current = keyspace.join("current");
    if !current.exists() {
        return missing(&current, is_made); // without it the process ended while the keyspace was made
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
    for (table, _) in tables(&list)? {
        check_contents(&keyspace.join("tables").join(table.to_string()))?;
    }
    Ok(())
}

/// Makes the keyspaces of a copy name nothing but files that can be opened. Answers, in words, with what it leaves
/// out.
pub(super) fn keep_readable(db: &Path) -> Result<Vec<String>, BrokerError> {
    let mut left_out = Vec::new();
    let keyspaces = db.join("keyspaces");
    for entry in std::fs::read_dir(&keyspaces).map_err(|e| io_error(&keyspaces, e))? {
        let path = entry.map_err(|e| io_error(&keyspaces, e))?.path();
        if path.is_dir() {
            keep_readable_of(&path, &mut left_out)?;
        }
    }
    left_out.sort_unstable();
    Ok(left_out)
}

/// The names of the table files whose checksums are not those in the lists of their keyspaces. What the lists do not
/// tell is left out.
///
/// A sound file may be among them if a write of it was once cut short and tried again: the database's own sum counts
/// the bytes of that write twice. So a name means something only beside other signs of damage.
pub(super) fn unsound(db: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let keyspaces = std::fs::read_dir(db.join("keyspaces")).into_iter().flatten().flatten();
    for keyspace in keyspaces.map(|entry| entry.path()) {
        let current = read(&keyspace.join("current")).ok();
        let Some(number) = current.as_deref().and_then(|bytes| word(bytes, 0)) else { continue };
        for (table, said) in tables(&keyspace.join(format!("v{number}"))).unwrap_or_default() {
            let path = keyspace.join("tables").join(table.to_string());
            if read(&path).is_ok_and(|bytes| xxh3_128(&bytes) != said) {
                names.push(name(&path));
            }
        }
    }
    names.sort_unstable();
    names
}

/// A file of a keyspace as it is shown: `keyspaces/1/tables/5`.
fn name(path: &Path) -> String {
    let parts: Vec<_> = path.iter().rev().take(4).collect();
    let from = parts.iter().position(|part| *part == "keyspaces").unwrap_or(1);
    parts[..=from].iter().rev().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn keep_readable_of(keyspace: &Path, left_out: &mut Vec<String>) -> Result<(), BrokerError> {
    let is_sound = |list: &Path| {
        let current = read(&keyspace.join("current")).ok();
        let said = current.as_deref().and_then(|bytes| Some((word(bytes, 0)?, sum(bytes, 8)?)));
        let sum = read(list).map(|bytes| xxh3_128(&bytes)).ok();
        said.is_some_and(|(number, said)| list.ends_with(format!("v{number}")) && Some(said) == sum)
    };
    let mut lists: Vec<(u64, PathBuf)> = std::fs::read_dir(keyspace)
        .map_err(|e| io_error(keyspace, e))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|path| Some((path.file_name()?.to_str()?.strip_prefix('v')?.parse().ok()?, path)))
        .collect();
    lists.sort_unstable();
    // The list that `current` names is taken, or else the newest one that lists anything.
    let sound = lists.iter().find(|(_, list)| is_sound(list));
    let chosen = sound.or_else(|| lists.iter().rev().find(|(_, list)| tables(list).is_ok())).cloned();
    let Some((number, list)) = chosen else {
        left_out.push(format!("{}: none of its lists of table files can be read; its rows are lost, but for those in the journal", name(keyspace)));
        return std::fs::remove_dir_all(keyspace).map_err(|e| io_error(keyspace, e));
    };
    if sound.is_none() {
        left_out.push(format!(
            "{}: it is damaged or lost; {} is taken for it",
            name(&keyspace.join("current")),
            name(&list)
        ));
    }
    let mut bad = Vec::new();
    for (table, _) in tables(&list)? {
        let path = keyspace.join("tables").join(table.to_string());
        if let Err(BrokerError::Damaged { error, .. }) = check_contents(&path) {
            left_out.push(format!("{}: {error}; its rows are lost", name(&path)));
            bad.push(table);
        }
    }
    let bytes = if bad.is_empty() { read(&list)? } else { without(&list, &bad)? };
    std::fs::write(&list, &bytes).map_err(|e| io_error(&list, e))?;
    let current = [&number.to_le_bytes()[..], &xxh3_128(&bytes).to_le_bytes(), &[0]].concat();
    let path = keyspace.join("current");
    std::fs::write(&path, current).map_err(|e| io_error(&path, e))
}

/// A list of table files without those of the numbers `bad`.
fn without(list: &Path, bad: &[u64]) -> Result<Vec<u8>, BrokerError> {
    let broken = |what: &dyn std::fmt::Display| BrokerError::Damaged {
        path: list.to_owned(),
        error: format!("it cannot be written again: {what}"),
    };
    let archive = sfa::Reader::new(list).map_err(|e| broken(&e))?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = sfa::Writer::from_writer(&mut bytes);
    for section in archive.toc().iter() {
        let mut content = Vec::new();
        let read = section.buf_reader(list).and_then(|mut section| section.read_to_end(&mut content));
        read.map_err(|e| broken(&e))?;
        if section.name() == b"tables" {
            content = relist(&content, bad).ok_or_else(|| broken(&"it is cut short"))?;
        }
        let name = String::from_utf8_lossy(section.name()).into_owned();
        writer.start(name.as_str()).and_then(|()| writer.write_all(&content)).map_err(|e| broken(&e))?;
    }
    writer.finish().map_err(|e| broken(&e))?;
    Ok(bytes.into_inner())
}

/// The section of a list that names table files, without those of the numbers `bad`; runs that become empty go
/// too.
fn relist(bytes: &[u8], bad: &[u64]) -> Option<Vec<u8>> {
    let levels = *bytes.first()?;
    let mut all = vec![levels];
    let mut at = 1;
    for _level in 0..levels {
        let mut runs = Vec::new();
        let count = *bytes.get(at)?;
        at += 1;
        for _run in 0..count {
            let tables = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
            at += 4;
            let mut run = Vec::new();
            for _table in 0..tables {
                let listed = bytes.get(at..at + LISTED)?;
                at += LISTED;
                if !bad.contains(&word(listed, 0)?) {
                    run.push(listed);
                }
            }
            if !run.is_empty() {
                runs.push(run);
            }
        }
        all.push(u8::try_from(runs.len()).ok()?);
        for run in runs {
            all.extend_from_slice(&u32::try_from(run.len()).ok()?.to_le_bytes());
            run.iter().for_each(|listed| all.extend_from_slice(listed));
        }
    }
    Some(all)
}

/// The numbers of the table files in a list whose checksum is right, each with the checksum that the list states.
fn tables(list: &Path) -> Result<Vec<(u64, u128)>, BrokerError> {
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

fn listed(bytes: &[u8]) -> Option<Vec<(u64, u128)>> {
    let mut tables = Vec::new();
    let mut at = 1;
    for _level in 0..*bytes.first()? {
        let runs = *bytes.get(at)?;
        at += 1;
        for _run in 0..runs {
            let count = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
            at += 4;
            for _table in 0..count {
                tables.push((word(bytes, at)?, sum(bytes, at + 8 + 1)?));
                at += LISTED;
            }
        }
    }
    Some(tables).filter(|_| at <= bytes.len())
}

/// Checks the sum over the contents of an archive, which are at its end.
fn check_contents(path: &Path) -> Result<(), BrokerError> {
    let mut file = File::open(path).map_err(|e| unreadable(path, e))?;
    let mut read_from = |start: SeekFrom| {
        let mut bytes = Vec::new();
        file.seek(start)
            .and_then(|_| file.read_to_end(&mut bytes))
            .map(|_| bytes)
            .map_err(|e| unreadable(path, e))
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
    std::fs::read(path).map_err(|e| unreadable(path, e))
}

/// The error for a file that must be there and be long enough: it is damage, unless the machine says that it could
/// not read.
fn unreadable(path: &Path, error: std::io::Error) -> BrokerError {
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

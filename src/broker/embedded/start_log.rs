//! Remembers on which waiting rows a body has started, in a small file of its own.
//!
//! The record of a start is written but not synced. A write survives `kill -9` and an abort, and those are what it
//! must survive, so that a task that takes its process down is counted. After a power cut a count may be missing,
//! never a task. So a start costs a microsecond and no place in the group commit.
//!
//! The file is a list of records of one length. Each holds what happened (1: a body started, 0: the start was taken
//! back, 2: the generation) and the row's key. The key of a row with a tenant is longer; the number of its line
//! stands in a record of its own (3) before the one of the row, which has the rest of the key. A row that is no
//! longer in the tables was settled, so its record is void. The first record is the generation. Recovery counts the
//! crashes and raises the store's own generation in one commit. If the process is killed before it can start the
//! file over, the file still has the older generation, and so the next recovery knows that its records were
//! counted. The file has spare room, written as zeros, so that a start can be noted on a full disk too.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::home::private;
use super::ready_key::{PLAIN_KEY, ReadyKey};

const RECORD: usize = 1 + PLAIN_KEY;
/// The file is written anew when it has grown to this many bytes.
const REWRITE_AT: u64 = 4 << 20;
/// The spare room at the end of the file in bytes: enough for some five thousand starts.
const ROOM: u64 = 64 << 10;

const TAKEN_BACK: u8 = 0;
const START: u8 = 1;
const GENERATION: u8 = 2;
/// The line of the row in the next record. A program that does not know of lines finds no row for that one.
const LINE: u8 = 3;

/// The open file of starts.
pub(super) struct StartLog {
    inner: Mutex<StartLogInner>,
}

/// What the file held when it was opened.
pub(super) struct LoggedStarts {
    pub(super) generation: u64,
    /// The rows on which a body was started and whose start was not taken back.
    pub(super) started: HashSet<ReadyKey>,
}

struct StartLogInner {
    path: PathBuf,
    file: File,
    /// The offset at which the next record goes.
    end: u64,
    /// The length of the file, with the spare room.
    len: u64,
    generation: u64,
    live: HashSet<ReadyKey>,
    /// Records that are not written yet, in order.
    pending: Vec<u8>,
    failed: bool,
}

impl StartLog {
    /// Opens the file and says what it holds. Nothing may be noted before [`reset`](Self::reset) was called.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, LoggedStarts)> {
        let path = dir.join("claims");
        let mut file = private().create(true).truncate(false).read(true).write(true).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut found = LoggedStarts { generation: 0, started: HashSet::new() };
        let mut line = None;
        // A torn last record stands for a start whose body never began.
        for record in bytes.chunks_exact(RECORD) {
            let Some((what, rest)) = record.split_first_chunk::<1>() else { continue };
            let Ok(plain) = <[u8; PLAIN_KEY]>::try_from(rest) else { continue };
            let before = std::mem::take(&mut line);
            match what[0] {
                LINE => line = plain.last_chunk().map(|number| u32::from_be_bytes(*number)),
                GENERATION => found.generation = generation_of(&plain),
                START => found.started.extend(ReadyKey::with_line(&plain, before)),
                _ => {
                    if let Some(key) = ReadyKey::with_line(&plain, before) {
                        found.started.remove(&key);
                    }
                }
            }
        }
        let len = bytes.len() as u64;
        let (generation, live) = (found.generation, HashSet::new());
        let inner =
            StartLogInner { path, file, end: len, len, generation, live, pending: Vec::new(), failed: false };
        Ok((Self { inner: Mutex::new(inner) }, found))
    }

    /// Starts the file over in this generation.
    pub(super) fn reset(&self, generation: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.live.clear();
        inner.generation = generation;
        inner.start_over()
    }

    /// Remembers that a body is about to start on this row. The caller calls [`write_out`](Self::write_out) before the
    /// body starts.
    pub(super) fn starting(&self, key: &ReadyKey) {
        self.inner.lock().note(START, key);
    }

    /// Writes the records that were only remembered so far.
    pub(super) fn write_out(&self) {
        self.inner.lock().write_out();
    }

    /// Notes that the row waits again as if no body had been started on it.
    pub(super) fn take_back(&self, key: ReadyKey) {
        let mut inner = self.inner.lock();
        if inner.live.contains(&key) {
            inner.write(TAKEN_BACK, &[key]);
        }
    }

    /// Forgets these rows, which are no longer in the tables.
    pub(super) fn forget(&self, keys: impl Iterator<Item = ReadyKey>) {
        let mut inner = self.inner.lock();
        for key in keys {
            inner.live.remove(&key);
        }
    }
}

fn generation_of(plain: &[u8; PLAIN_KEY]) -> u64 {
    plain.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn record(what: u8, key: &[u8]) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[0] = what;
    record[RECORD - key.len()..].copy_from_slice(key);
    record
}

/// Adds the records of what happened to a row. They are written together, so that a torn one says nothing.
fn append_records(records: &mut Vec<u8>, what: u8, key: &ReadyKey) {
    if let Some(number) = key.line() {
        records.extend_from_slice(&record(LINE, &number.to_be_bytes()));
    }
    records.extend_from_slice(&record(what, &key.without_line()));
}

impl StartLogInner {
    fn write(&mut self, what: u8, keys: &[ReadyKey]) {
        keys.iter().for_each(|key| self.note(what, key));
        self.write_out();
    }

    fn note(&mut self, what: u8, key: &ReadyKey) {
        append_records(&mut self.pending, what, key);
        if what == START {
            self.live.insert(*key);
        } else {
            self.live.remove(key);
        }
    }

    fn write_out(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.pending);
        let kept = self.append(&bytes);
        bytes.clear();
        self.pending = bytes;
        if let Err(error) = kept {
            // A full disk must not stop running tasks, and only the count of crashes is at stake.
            if !std::mem::replace(&mut self.failed, true) {
                tracing::warn!(path = %self.path.display(), %error, "starts cannot be noted; a crash now would not be counted");
            }
        } else {
            self.failed = false;
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.end + bytes.len() as u64;
        if end > self.len {
            self.make_room(end)?;
        }
        self.write_at(self.end, bytes)?;
        self.end = end;
        if self.end > REWRITE_AT { self.rewrite() } else { Ok(()) }
    }

    /// Makes the file long enough for records up to `end`, with spare room behind them if the disk has it.
    fn make_room(&mut self, end: u64) -> io::Result<()> {
        for len in [end + ROOM, end] {
            let zeros = vec![0; usize::try_from(len - self.len).unwrap_or(0)];
            match self.write_at(self.len, &zeros) {
                Ok(()) => {
                    self.len = len;
                    return Ok(());
                }
                Err(error) => {
                    self.file.set_len(self.len)?; // a part of the zeros would not be counted in `len`
                    if len == end {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(bytes)
    }

    /// Clears the file in place, which takes no room on the disk. The generation is written last: until then the
    /// old generation stands, which says that the old records that are still there were counted.
    fn start_over(&mut self) -> io::Result<()> {
        let len = self.len.min(ROOM);
        self.file.set_len(len)?;
        self.len = len;
        let head = RECORD as u64;
        if let Some(rest) = len.checked_sub(head).and_then(|rest| usize::try_from(rest).ok()) {
            self.write_at(head, &vec![0; rest])?;
        }
        self.end = 0;
        self.append(&record(GENERATION, &self.generation.to_be_bytes()))
    }

    /// Replaces the file by one that holds only the records that still matter.
    fn rewrite(&mut self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut bytes = Vec::with_capacity((1 + self.live.len()) * RECORD);
        bytes.extend_from_slice(&record(GENERATION, &self.generation.to_be_bytes()));
        self.live.iter().for_each(|key| append_records(&mut bytes, START, key));
        let end = bytes.len() as u64;
        let len = end + ROOM;
        bytes.resize(usize::try_from(len).unwrap_or(0), 0);
        let mut file = private().create(true).truncate(true).read(true).write(true).open(&fresh)?;
        file.write_all(&bytes)?;
        std::fs::rename(&fresh, &self.path)?;
        (self.file, self.end, self.len) = (file, end, len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    /// Of every second one the row has a tenant.
    fn key(n: u8) -> ReadyKey {
        let line = (n % 2 == 1).then_some(u32::from(n) << 16);
        ReadyKey::new(u16::from(n), line, n, u64::from(n))
    }

    impl StartLog {
        fn start(&self, keys: &[ReadyKey]) {
            keys.iter().for_each(|key| self.starting(key));
            self.write_out();
        }
    }

    fn opened(dir: &tempfile::TempDir) -> (StartLog, LoggedStarts) {
        StartLog::open(dir.path()).unwrap()
    }

    #[test]
    fn starts_survive_and_a_torn_record_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let (start_log, found) = opened(&dir);
        assert!(found.started.is_empty());
        start_log.reset(7).unwrap();
        start_log.start(&[key(1), key(2), key(3)]);
        start_log.take_back(key(2));
        for n in [5, 6] {
            start_log.starting(&key(n)); // these two together
        }
        start_log.take_back(key(5)); // and one of them goes back before they were written
        start_log.write_out();
        start_log.take_back(key(4)); // never started: nothing to note
        let end = start_log.inner.lock().end;
        drop(start_log);
        let mut file = OpenOptions::new().write(true).open(dir.path().join("claims")).unwrap();
        file.seek(SeekFrom::Start(end)).unwrap();
        file.write_all(&[1, 9, 9]).unwrap();
        let (start_log, found) = opened(&dir);
        assert_eq!(
            (found.generation, found.started.contains(&key(2)) || found.started.contains(&key(5))),
            (7, false)
        );
        assert!(found.started.is_superset(&HashSet::from([key(1), key(3), key(6)])));
        start_log.reset(8).unwrap();
        drop(start_log);
        let (_, found) = opened(&dir);
        assert_eq!((found.generation, found.started.len()), (8, 0));
    }

    #[test]
    fn a_file_that_ends_in_half_a_record_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut records = Vec::new();
        append_records(&mut records, START, &key(5));
        records.extend([1, 9]);
        std::fs::write(dir.path().join("claims"), records).unwrap();
        let (start_log, found) = opened(&dir);
        assert_eq!((found.generation, found.started), (0, HashSet::from([key(5)])));
        start_log.reset(1).unwrap();
        assert_eq!(opened(&dir).1.started, HashSet::new());
    }

    #[test]
    fn the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let (start_log, _) = opened(&dir);
        start_log.reset(3).unwrap();
        start_log.start(&[key(200)]);
        for n in 0..400_000_u64 {
            let k = ReadyKey::new(0, None, 0, n);
            start_log.start(&[k]);
            start_log.forget([k].into_iter());
        }
        assert!(std::fs::metadata(dir.path().join("claims")).unwrap().len() <= REWRITE_AT + 2 * ROOM);
        drop(start_log);
        let (start_log, found) = opened(&dir);
        assert_eq!(found.generation, 3);
        assert!(found.started.contains(&key(200)), "it is live, however often the file is written anew");
        start_log.reset(4).unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("claims")).unwrap().len(), ROOM);
    }

    /// What a program has written that did not know of tenants, and what it reads of a newer one's file.
    #[test]
    fn a_row_without_a_tenant_has_one_record_as_it_always_had() {
        let (plain, of_tenant) = (ReadyKey::new(1, None, 5, 7), ReadyKey::new(1, Some(9), 5, 8));
        let mut records = Vec::new();
        append_records(&mut records, START, &plain);
        assert_eq!(records, [&[1_u8, 0, 1, 0, !5][..], &7_u64.to_be_bytes()].concat());
        append_records(&mut records, START, &of_tenant);
        assert_eq!(records.len(), 3 * RECORD);
        let dir = tempfile::tempdir().unwrap();
        // The row's own record without the one before it, and one before no record, are no starts.
        let torn = [&records[2 * RECORD..], &records[RECORD..2 * RECORD]].concat();
        std::fs::write(dir.path().join("claims"), [&records[..], &torn].concat()).unwrap();
        assert_eq!(opened(&dir).1.started, HashSet::from([plain, of_tenant]));
    }
}

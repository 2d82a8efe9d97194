//! Which waiting rows had a body started on them, in a small file of its own.
//!
//! A start is written but not synced: a write survives `kill -9` and an abort, which is what a start must survive so
//! that a task that takes its process down is counted. After a power cut a count may be missing, never a task. So a
//! start costs a microsecond and no place in the group commit.
//!
//! The file is a list of records of one length: what happened (1 a start, 0 it was taken back, 2 the generation) and
//! the row's key. A row that is gone was settled. The first record is the generation: recovery counts the crashes and
//! raises the store's own generation in one commit, so that a file which was counted already, because the process was
//! killed before it could start the file over, is known by its older one. There is room ahead, written as zeros, so
//! that a start can be noted on a full disk too.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::rows::{READY_KEY, ReadyKey};

const RECORD: usize = 1 + READY_KEY;
/// The file is written anew when it has grown to this.
const REWRITE_AT: u64 = 4 << 20;
/// The room ahead: some five thousand starts.
const ROOM: u64 = 64 << 10;

const TAKEN_BACK: u8 = 0;
const START: u8 = 1;
const GENERATION: u8 = 2;

/// The open file.
pub(super) struct Claims {
    inner: Mutex<Inner>,
}

/// What the file held when it was opened.
pub(super) struct Found {
    pub(super) generation: u64,
    /// Rows that were started and not taken back.
    pub(super) started: HashSet<ReadyKey>,
}

struct Inner {
    path: PathBuf,
    file: File,
    /// Where the next record goes.
    end: u64,
    /// How long the file is, room included.
    len: u64,
    generation: u64,
    live: HashSet<ReadyKey>,
    /// Records to be written, in order.
    pending: Vec<u8>,
    failed: bool,
}

impl Claims {
    /// Opens the file and says what it holds. Nothing may be noted before it was [`reset`](Self::reset).
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Found)> {
        let path = dir.join("claims");
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut found = Found { generation: 0, started: HashSet::new() };
        // A torn last record is a start whose body never began.
        for record in bytes.chunks_exact(RECORD) {
            let Ok(key) = ReadyKey::try_from(&record[1..]) else { continue };
            match record[0] {
                START => {
                    found.started.insert(key);
                }
                GENERATION => found.generation = generation_of(&key),
                _ => {
                    found.started.remove(&key);
                }
            }
        }
        let len = bytes.len() as u64;
        let (generation, live) = (found.generation, HashSet::new());
        let inner = Inner { path, file, end: len, len, generation, live, pending: Vec::new(), failed: false };
        Ok((Self { inner: Mutex::new(inner) }, found))
    }

    /// Starts the file over, in this generation.
    pub(super) fn reset(&self, generation: u64) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.live.clear();
        inner.generation = generation;
        inner.start_over()
    }

    /// Bodies on these rows are about to start.
    pub(super) fn start(&self, keys: &[ReadyKey]) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).write(START, keys);
    }

    /// A body on this row starts together with others; [`write_out`](Self::write_out) follows before any does.
    pub(super) fn starting(&self, key: &ReadyKey) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).note(START, key);
    }

    /// Writes what was only noted so far.
    pub(super) fn write_out(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).write_out();
    }

    /// The row waits again, as if never started.
    pub(super) fn take_back(&self, key: ReadyKey) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.live.contains(&key) {
            inner.write(TAKEN_BACK, &[key]);
        }
    }

    /// The rows are gone.
    pub(super) fn forget(&self, keys: impl Iterator<Item = ReadyKey>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            inner.live.remove(&key);
        }
    }
}

fn generation_of(key: &ReadyKey) -> u64 {
    key.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn record(what: u8, key: &[u8]) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[0] = what;
    record[RECORD - key.len()..].copy_from_slice(key);
    record
}

impl Inner {
    fn write(&mut self, what: u8, keys: &[ReadyKey]) {
        keys.iter().for_each(|key| self.note(what, key));
        self.write_out();
    }

    fn note(&mut self, what: u8, key: &ReadyKey) {
        self.pending.extend_from_slice(&record(what, key));
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
            // A full disk must not stop running tasks: only the count of crashes is at stake.
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

    /// Makes the file long enough for records up to `end`, and room ahead if there is any to be had.
    fn make_room(&mut self, end: u64) -> io::Result<()> {
        for len in [end + ROOM, end] {
            let zeros = vec![0; usize::try_from(len - self.len).unwrap_or(0)];
            match self.write_at(self.len, &zeros) {
                Ok(()) => {
                    self.len = len;
                    return Ok(());
                }
                Err(error) => {
                    self.file.set_len(self.len)?; // half of it would not be counted on
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

    /// Clears the file in place, which takes no room. The generation goes last: until then the old one stands, which
    /// says that what is left of the old records was counted.
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

    /// Puts a file with only what still matters in its place.
    fn rewrite(&mut self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut bytes = Vec::with_capacity((1 + self.live.len()) * RECORD);
        bytes.extend_from_slice(&record(GENERATION, &self.generation.to_be_bytes()));
        self.live.iter().for_each(|key| bytes.extend_from_slice(&record(START, key)));
        let end = bytes.len() as u64;
        let len = end + ROOM;
        bytes.resize(usize::try_from(len).unwrap_or(0), 0);
        let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&fresh)?;
        file.write_all(&bytes)?;
        std::fs::rename(&fresh, &self.path)?;
        (self.file, self.end, self.len) = (file, end, len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> ReadyKey {
        [n; READY_KEY]
    }

    fn opened(dir: &tempfile::TempDir) -> (Claims, Found) {
        Claims::open(dir.path()).unwrap()
    }

    #[test]
    fn starts_survive_and_a_torn_record_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let (claims, found) = opened(&dir);
        assert!(found.started.is_empty());
        claims.reset(7).unwrap();
        claims.start(&[key(1), key(2), key(3)]);
        claims.take_back(key(2));
        for n in [5, 6] {
            claims.starting(&key(n)); // these two together
        }
        claims.take_back(key(5)); // and one of them goes back before they were written
        claims.write_out();
        claims.take_back(key(4)); // never started: nothing to note
        let end = claims.inner.lock().unwrap().end;
        drop(claims);
        let mut file = OpenOptions::new().write(true).open(dir.path().join("claims")).unwrap();
        file.seek(SeekFrom::Start(end)).unwrap();
        file.write_all(&[1, 9, 9]).unwrap();
        let (claims, found) = opened(&dir);
        assert_eq!(
            (found.generation, found.started.contains(&key(2)) || found.started.contains(&key(5))),
            (7, false)
        );
        assert!(found.started.is_superset(&HashSet::from([key(1), key(3), key(6)])));
        claims.reset(8).unwrap();
        drop(claims);
        let (_, found) = opened(&dir);
        assert_eq!((found.generation, found.started.len()), (8, 0));
    }

    #[test]
    fn a_file_that_ends_in_half_a_record_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("claims"), [&record(START, &key(5))[..], &[1, 9]].concat()).unwrap();
        let (claims, found) = opened(&dir);
        assert_eq!((found.generation, found.started), (0, HashSet::from([key(5)])));
        claims.reset(1).unwrap();
        assert_eq!(opened(&dir).1.started, HashSet::new());
    }

    #[test]
    fn the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let (claims, _) = opened(&dir);
        claims.reset(3).unwrap();
        claims.start(&[key(200)]);
        for n in 0..400_000_u64 {
            let mut k = [0; READY_KEY];
            k[..8].copy_from_slice(&n.to_be_bytes());
            claims.start(&[k]);
            claims.forget([k].into_iter());
        }
        assert!(std::fs::metadata(dir.path().join("claims")).unwrap().len() <= REWRITE_AT + 2 * ROOM);
        drop(claims);
        let (claims, found) = opened(&dir);
        assert_eq!(found.generation, 3);
        assert!(found.started.contains(&key(200)), "it is live, however often the file is written anew");
        claims.reset(4).unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("claims")).unwrap().len(), ROOM);
    }
}

//! Which waiting rows had a body started on them, in a small file of its own.
//!
//! A start is written but not synced: a write survives `kill -9` and an abort, which is what a start must survive so
//! that a task that takes its process down is counted. After a power cut a count may be missing, never a task. So a
//! start costs a microsecond and no place in the group commit.
//!
//! The file is a list of records: one byte (1 start, 0 taken back) and the row's key. A row that is gone was settled.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::rows::{READY_KEY, ReadyKey};

const RECORD: usize = 1 + READY_KEY;
/// The file is written anew when it has grown to this.
const REWRITE_AT: u64 = 4 << 20;

/// The open file.
pub(super) struct Claims {
    inner: Mutex<Inner>,
}

struct Inner {
    path: PathBuf,
    file: File,
    size: u64,
    live: HashSet<ReadyKey>,
    /// Records to be written, in order.
    pending: Vec<u8>,
    failed: bool,
}

impl Claims {
    /// Opens the file and says which rows were started and not taken back when it was last used. The file goes on
    /// from there; [`reset`](Self::reset) it when those were dealt with.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, HashSet<ReadyKey>)> {
        let path = dir.join("claims");
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(mut file) => {
                file.read_to_end(&mut bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut started = HashSet::new();
        // A torn last record is a start whose body never began.
        for record in bytes.chunks_exact(RECORD) {
            let Ok(key) = ReadyKey::try_from(&record[1..]) else { continue };
            if record[0] == 1 {
                started.insert(key);
            } else {
                started.remove(&key);
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = bytes.len() as u64;
        let live = started.clone();
        Ok((
            Self { inner: Mutex::new(Inner { path, file, size, live, pending: Vec::new(), failed: false }) },
            started,
        ))
    }

    /// Starts the file over.
    pub(super) fn reset(&self) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.live.clear();
        inner.rewrite()
    }

    /// Bodies on these rows are about to start.
    pub(super) fn start(&self, keys: &[ReadyKey]) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).write(1, keys);
    }

    /// A body on this row starts together with others; [`write_out`](Self::write_out) follows before any does.
    pub(super) fn starting(&self, key: &ReadyKey) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).note(1, key);
    }

    /// Writes what was only noted so far.
    pub(super) fn write_out(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).write_out();
    }

    /// The row waits again, as if never started.
    pub(super) fn take_back(&self, key: ReadyKey) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.live.contains(&key) {
            inner.write(0, &[key]);
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

impl Inner {
    fn write(&mut self, op: u8, keys: &[ReadyKey]) {
        keys.iter().for_each(|key| self.note(op, key));
        self.write_out();
    }

    fn note(&mut self, op: u8, key: &ReadyKey) {
        self.pending.push(op);
        self.pending.extend_from_slice(key);
        if op == 1 {
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
        if let Err(error) = self.file.write_all(bytes) {
            self.file.set_len(self.size)?; // half a record would make the next ones unreadable
            return Err(error);
        }
        self.size += bytes.len() as u64;
        if self.size > REWRITE_AT { self.rewrite() } else { Ok(()) }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        let mut bytes = Vec::with_capacity(self.live.len() * RECORD);
        for key in &self.live {
            bytes.push(1);
            bytes.extend_from_slice(key);
        }
        file.write_all(&bytes)?;
        std::fs::rename(&fresh, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.size = bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> ReadyKey {
        [n; READY_KEY]
    }

    #[test]
    fn starts_survive_and_a_torn_tail_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let (claims, old) = Claims::open(dir.path()).unwrap();
        assert!(old.is_empty());
        claims.start(&[key(1), key(2), key(3)]);
        claims.take_back(key(2));
        for n in [5, 6] {
            claims.starting(&key(n)); // these two together
        }
        claims.take_back(key(5)); // and one of them goes back before they were written
        claims.write_out();
        claims.take_back(key(4)); // never started: nothing to note
        drop(claims);
        let mut file = OpenOptions::new().append(true).open(dir.path().join("claims")).unwrap();
        file.write_all(&[1, 9, 9]).unwrap();
        let (claims, old) = Claims::open(dir.path()).unwrap();
        assert_eq!(old, HashSet::from([key(1), key(3), key(6)]));
        claims.reset().unwrap();
        drop(claims);
        assert!(Claims::open(dir.path()).unwrap().1.is_empty());
    }

    #[test]
    fn the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let (claims, _) = Claims::open(dir.path()).unwrap();
        for n in 0..400_000_u64 {
            let mut k = [0; READY_KEY];
            k[..8].copy_from_slice(&n.to_be_bytes());
            claims.start(&[k]);
            claims.forget([k].into_iter());
        }
        assert!(std::fs::metadata(dir.path().join("claims")).unwrap().len() <= REWRITE_AT + 64);
    }
}

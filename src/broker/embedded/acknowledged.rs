//! Records, in a small file of its own, the last commit that the store has acknowledged.
//!
//! A log that somebody cut short looks like a log whose last write a crash tore. Only the last acknowledged
//! commit tells the two apart. The engine therefore writes the sequence of each commit to this file, after the commit
//! is synced and before it answers anybody. A log that ends before that sequence has lost something. The engine
//! writes the file and does not sync it, as it does with the record of a start. Such a write survives `kill -9`. After
//! a power cut the file may name an earlier commit than the last acknowledged one, and never a later one.
//!
//! The file has two places, which are written in turn, so that a torn write leaves the other record readable. The file
//! has its full length from the start, so it can be written when the disk is full.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::home;
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::clock::now;

const FILE: &str = "acknowledged";
const MAGIC: u64 = u64::from_be_bytes(*b"celeriac");
/// The bytes of a record: magic, sequence, journal, time and checksum, of eight bytes each. An earlier version wrote commits to
/// the database's journals, and noted the number of the journal.
const RECORD: usize = 5 * 8;
/// The bytes of a place. Each place fills a sector of its own, so that a torn write damages only one of them.
const PLACE: usize = 512;
/// Stands in a record in place of the number of an unknown journal.
const NOT_KNOWN: u64 = u64::MAX;

/// The last commit that the store has acknowledged, according to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommitMark {
    /// The sequence of the commit.
    pub(super) seq: u64,
    /// The number of a journal. The commit lies in this journal or in a later one. No journal has the number
    /// [`NOT_KNOWN`].
    pub(super) journal: u64,
    at: u64,
}

impl CommitMark {
    /// The error for a store whose last commit, `seq`, is older than this mark.
    pub(super) fn lost(&self, path: PathBuf, seq: u64) -> BrokerError {
        let (last, missing) = (self.seq, self.seq.saturating_sub(seq));
        let at = Timestamp::from_micros(self.at);
        let error = format!(
            "its log of writes was cut short: it goes to write {seq}, and the store acknowledged up to write {last}, at {at}; up to {missing} tasks, ends of tasks and notes are not there. Nothing was taken off"
        );
        BrokerError::Damaged { path, error }
    }

    fn encode(&self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        for (at, number) in [MAGIC, self.seq, self.journal, self.at].into_iter().enumerate() {
            record[at * 8..][..8].copy_from_slice(&number.to_be_bytes());
        }
        let sum = xxh3_64(&record[..RECORD - 8]);
        record[RECORD - 8..].copy_from_slice(&sum.to_be_bytes());
        record
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let record = bytes.get(..RECORD)?;
        let number = |at: usize| Some(u64::from_be_bytes(record.get(at * 8..)?.first_chunk().copied()?));
        let is_whole = number(0)? == MAGIC && number(4)? == xxh3_64(&record[..RECORD - 8]);
        Some(Self { seq: number(1)?, journal: number(2)?, at: number(3)? }).filter(|_| is_whole)
    }
}

/// Reads the mark from the file in `dir`, and changes nothing. Returns `None` if there is no file, or no whole record
/// in it.
pub(super) fn read(dir: &Path) -> io::Result<Option<CommitMark>> {
    let bytes = match std::fs::read(dir.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let marks = bytes.chunks(PLACE).filter_map(CommitMark::decode);
    let mark = marks.max_by_key(|mark| mark.seq);
    if mark.is_none() {
        let path = dir.join(FILE);
        tracing::warn!(path = %path.display(), "the file does not say how far the store has acknowledged; should its log be cut short, that cannot be told");
    }
    Ok(mark)
}

/// Deletes the file, because it says nothing about the next database.
pub(super) fn forget(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The mark of a commit that is acknowledged now, and that is in no journal.
fn mark_of(seq: u64) -> CommitMark {
    CommitMark { seq, journal: NOT_KNOWN, at: now().as_micros() }
}

/// The file that names the last acknowledged commit.
pub(super) struct Acknowledged {
    path: PathBuf,
    file: File,
    turn: bool,
    failed: bool,
}

impl Acknowledged {
    /// Opens the file of a store whose last commit is `seq`, and makes the file if it is missing.
    pub(super) fn open(dir: &Path, seq: u64) -> io::Result<Self> {
        let path = dir.join(FILE);
        let mut file = home::private().create(true).truncate(false).read(true).write(true).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if bytes.len() < 2 * PLACE {
            bytes.resize(2 * PLACE, 0);
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&bytes)?;
        }
        let known = bytes.chunks(PLACE).filter_map(CommitMark::decode).find(|mark| mark.seq == seq);
        let mark = known.unwrap_or_else(|| mark_of(seq));
        let mut this = Self { path, file, turn: false, failed: false };
        this.write(mark)?;
        this.write(mark)?;
        Ok(this)
    }

    /// Notes that the commit `seq` is safe. The engine calls this before it answers the callers of that commit.
    pub(super) fn note(&mut self, seq: u64) {
        match self.write(mark_of(seq)) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                let path = self.path.display();
                tracing::warn!(%path, %error, "how far the store has acknowledged is not noted; should its log be cut short now, that cannot be told");
            }
            Err(_) => {}
        }
    }

    fn write(&mut self, mark: CommitMark) -> io::Result<()> {
        self.turn = !self.turn;
        self.file.seek(SeekFrom::Start(if self.turn { PLACE as u64 } else { 0 }))?;
        self.file.write_all(&mark.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_two_places_that_is_whole_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let mut file = Acknowledged::open(dir.path(), 3).unwrap();
        file.note(5);
        file.note(9);
        let said = read(dir.path()).unwrap().unwrap();
        assert_eq!((said.seq, said.journal), (9, NOT_KNOWN));
        let mut bytes = std::fs::read(dir.path().join(FILE)).unwrap();
        let torn = usize::from(file.turn) * PLACE;
        bytes[torn + 12] ^= 1;
        std::fs::write(dir.path().join(FILE), &bytes).unwrap();
        assert_eq!(read(dir.path()).unwrap().map(|mark| mark.seq), Some(5));
        std::fs::write(dir.path().join(FILE), b"").unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        drop(file);
        Acknowledged::open(dir.path(), 11).unwrap();
        assert_eq!(read(dir.path()).unwrap().map(|mark| mark.seq), Some(11));
    }
}

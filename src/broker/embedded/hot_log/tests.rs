//! What the log promises: the rows of the commits that were acknowledged, and of no others, whatever is cut, damaged, written
//! again or left half done.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::broker::embedded::merged_rows::MergedRows;
use crate::broker::embedded::rows::SEQ;
use crate::broker::embedded::tables::{Slice, TableName};

mod properties;

const MESSAGES: TableName = TableName::Messages;
const TASKS: TableName = TableName::Tasks;
const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// The log of a store, and its database.
struct Store {
    log: HotLog,
    memtables: Memtables,
    disk: DiskTables,
}

impl Store {
    fn open(dir: &Path) -> Result<Self, BrokerError> {
        std::fs::create_dir_all(dir).unwrap();
        let disk = DiskTables::open(dir, false)?;
        let mut replayed = replay(&log_of(dir), disk.flushed()?)?;
        let memtables = Memtables::of(replayed.take_memtables());
        let log = HotLog::start(dir, &disk, memtables.clone(), replayed)?;
        Ok(Self { log, memtables, disk })
    }

    fn rows(&self, table: TableName) -> Model {
        model_of(merged(&self.memtables, &self.disk, table))
    }

    fn close(self) {
        let Self { log, disk, .. } = self;
        drop(log);
        disk.close();
    }
}

fn log_of(dir: &Path) -> PathBuf {
    dir.join("db").join(DIR)
}

fn merged(memtables: &Memtables, disk: &DiskTables, table: TableName) -> MergedRows {
    MergedRows::merged(memtables.newest_first(), Some(disk.range(table, ALL).unwrap()), table, ALL)
}

fn model_of(rows: impl Iterator<Item = Result<(Slice, Slice), BrokerError>>) -> Model {
    rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

/// A commit with one row, and the sequence `n`.
fn commit(n: u64) -> Writes {
    let mut writes = Writes::default();
    writes.put_new(MESSAGES, &n.to_be_bytes(), format!("the row of commit {n}").as_bytes());
    writes.put(TableName::Meta, SEQ, &n.to_be_bytes());
    writes
}

fn expected(numbers: impl Iterator<Item = u64>) -> Model {
    numbers.map(|n| (n.to_be_bytes().to_vec(), format!("the row of commit {n}").into_bytes())).collect()
}

/// The frames of the commits 1 to `commits`, as they lie in a file, and the offsets at which they end.
fn frames(epoch: u64, commits: u64) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    for n in 1..=commits {
        assert!(frame::encode(&mut buffer, epoch, n, &[&commit(n)]));
        bytes.extend_from_slice(&buffer);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// A directory of a log with these files.
fn dir_with(files: &[&[u8]]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (number, bytes) in files.iter().enumerate() {
        std::fs::write(dir.path().join(format!("{number}.log")), bytes).unwrap();
    }
    dir
}

/// The messages that a replay finds.
fn replayed(dir: &Path, flushed: Flushed) -> Result<Model, BrokerError> {
    let memtables = Memtables::of(replay(dir, flushed)?.take_memtables());
    let rows = MergedRows::merged(memtables.newest_first(), None, MESSAGES, ALL);
    Ok(model_of(rows))
}

fn none() -> Flushed {
    Flushed::default()
}

#[test]
fn a_frame_has_what_was_written() {
    let mut writes = commit(7);
    writes.delete(TASKS, &[]);
    writes.put(TableName::Lanes, &[5; 300], &[0; 70_000]);
    let mut buffer = Vec::new();
    assert!(frame::encode(&mut buffer, 3, 9, &[&writes, &Writes::default()]));
    let read = frame::Frame::read(&buffer).unwrap();
    assert_eq!((read.epoch, read.number, read.size), (3, 9, buffer.len()));
    assert_eq!(read.size % frame::ALIGNMENT, 0);
    let mut found = Vec::new();
    assert!(read.each(|(table, key, value)| found.push((table, key.to_vec(), value.map(<[u8]>::to_vec)))));
    let expected: Vec<_> = writes
        .iter()
        .map(|write| (write.table, write.key.to_vec(), write.value.as_ref().map(|value| value.to_vec())))
        .collect();
    assert_eq!(found, expected);
    assert!(frame::encode(&mut buffer, 3, 9, &[&commit(7)]));
    for at in 0..buffer.len() {
        let mut damaged = buffer.clone();
        damaged[at] ^= 0x10;
        assert!(frame::Frame::read(&damaged).is_none(), "byte {at}");
        assert!(frame::Frame::read(&buffer[..at]).is_none(), "cut at {at}");
    }
}

/// A crash at any byte of the last three frames leaves the commits before, and none of a part.
#[test]
fn a_log_that_ends_anywhere_gives_the_commits_before() {
    let (bytes, ends) = frames(1, 6);
    for at in ends[2]..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= at).count() as u64;
        let mut zeros = bytes.clone();
        zeros[at..].fill(0);
        zeros.resize(bytes.len() + 4096, 0);
        for torn in [&bytes[..at], &zeros[..]] {
            let dir = dir_with(&[torn]);
            assert_eq!(replayed(dir.path(), none()).unwrap(), expected(1..=whole), "at {at}");
        }
    }
    // The last frame may be torn in any way.
    for at in ends[4]..bytes.len() {
        let mut garbage = bytes.clone();
        garbage[at..].iter_mut().for_each(|byte| *byte ^= 0x5a);
        let dir = dir_with(&[&garbage]);
        assert_eq!(replayed(dir.path(), none()).unwrap(), expected(1..=5), "at {at}");
    }
}

#[test]
fn damage_before_the_last_frame_is_an_error_that_names_the_file() {
    let (bytes, ends) = frames(1, 6);
    for at in 0..ends[4] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x21;
        let dir = dir_with(&[&damaged]);
        let Err(BrokerError::Damaged { path, error }) = replayed(dir.path(), none()) else {
            panic!("byte {at} is not missed");
        };
        assert_eq!(path, dir.path().join("0.log"));
        let begin = ends.iter().rev().find(|end| **end <= at).copied().unwrap_or(0);
        assert!(error.contains(&format!("damaged at byte {begin}:")), "{at}: {error}");
        // What can be read is read all the same.
        let read = readable(dir.path(), Some(none())).unwrap();
        assert_eq!((read.damage.len(), read.notes.len()), (1, 0), "{:?}", read.damage);
        let rows = MergedRows::merged(Memtables::of(vec![read.memtable]).newest_first(), None, MESSAGES, ALL);
        let lost = ends.iter().filter(|end| **end <= at).count() as u64 + 1;
        assert_eq!(model_of(rows), expected((1..=6).filter(|n| *n != lost)));
    }
}

/// Of a file that is written again from its beginning, only the new frames count, also if the first one is torn.
#[test]
fn a_file_that_is_used_again_does_not_bring_back_what_was_in_it() {
    let (old, _) = frames(1, 6);
    let flushed = Flushed { epoch: 1, number: 6 };
    let mut buffer = Vec::new();
    assert!(frame::encode(&mut buffer, 2, 7, &[&commit(7)]));
    for written in 0..=buffer.len() {
        let mut bytes = old.clone();
        bytes[..written].copy_from_slice(&buffer[..written]);
        let dir = dir_with(&[&bytes]);
        let is_whole = bytes[..buffer.len()] == buffer;
        let found = replayed(dir.path(), flushed).unwrap();
        assert_eq!(found, if is_whole { expected(7..=7) } else { Model::new() }, "{written} bytes");
    }
    // While the database lacks the old frames, they count.
    assert_eq!(replayed(dir_with(&[&old]).path(), none()).unwrap(), expected(1..=6));
}

#[test]
fn a_file_that_is_missing_is_noticed() {
    let (first, _) = frames(1, 3);
    let of_epoch = |epoch, n| {
        let mut buffer = Vec::new();
        assert!(frame::encode(&mut buffer, epoch, n, &[&commit(n)]));
        buffer
    };
    let (second, third) = (of_epoch(2, 4), of_epoch(3, 5));
    // The names of the files say nothing about their order.
    assert_eq!(replayed(dir_with(&[&third, &first, &second]).path(), none()).unwrap(), expected(1..=5));
    let cut = &first[..first.len() - 1];
    let without: [&[&[u8]]; 4] = [&[&third, &first], &[&third, &second], &[&third, cut, &second], &[&third]];
    for files in without {
        let dir = dir_with(files);
        let error = replayed(dir.path(), none()).unwrap_err().to_string();
        assert!(error.contains("the log has no writes"), "{error}");
    }
    // What the database has may be missing.
    let flushed = Flushed { epoch: 1, number: 3 };
    assert_eq!(replayed(dir_with(&[&third, &second]).path(), flushed).unwrap(), expected(4..=5));
}

#[test]
fn commits_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    for _ in 0..3 {
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.rows(MESSAGES), expected(1..=n));
        for _ in 0..5 {
            n += 1;
            store.log.write(&[&commit(n)]).unwrap();
        }
        assert_eq!(store.rows(MESSAGES), expected(1..=n));
        store.close();
    }
    // As if all were written to the database.
    for _ in 0..2 {
        let store = Store::open(dir.path()).unwrap();
        store.log.flush().unwrap();
        assert_eq!(store.rows(MESSAGES), expected(1..=n));
        let in_database = model_of(store.disk.range(MESSAGES, ALL).unwrap());
        assert_eq!(in_database, expected(1..=n));
        assert_eq!(segment::files(&log_of(dir.path())).unwrap().len(), 1, "the others were given back");
        n += 1;
        store.log.write(&[&commit(n)]).unwrap();
        store.close();
    }
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.rows(MESSAGES), expected(1..=n));
    store.close();
}

/// What is over before its memtable is written never comes to the database.
#[test]
fn what_is_over_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut kept = Writes::default();
    kept.put(TASKS, b"kept before", b"row");
    store.log.write(&[&kept]).unwrap();
    store.log.flush().unwrap();
    for n in 1..=10_u64 {
        let mut begins = commit(n);
        begins.put(TASKS, &n.to_be_bytes(), b"where it is");
        store.log.write(&[&begins]).unwrap();
        let mut ends = Writes::default();
        ends.delete(MESSAGES, &n.to_be_bytes());
        ends.delete(TASKS, &n.to_be_bytes());
        store.log.write(&[&ends]).unwrap();
    }
    kept.clear();
    kept.delete(TASKS, b"kept before");
    store.log.write(&[&kept]).unwrap();
    let written = model_of(store.disk.range(TASKS, ALL).unwrap());
    assert_eq!(written.len(), 1, "the row that was there before");
    store.log.flush().unwrap();
    for table in [MESSAGES, TASKS] {
        assert_eq!(model_of(store.disk.range(table, ALL).unwrap()), Model::new());
        assert_eq!(store.rows(table), Model::new());
    }
    store.close();
}

/// A memtable that was written in part before a crash is written again, and a row that it had and that is deleted since stays away.
#[test]
fn a_flush_that_was_cut_short_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (1..=3).for_each(|n| store.log.write(&[&commit(n)]).unwrap());
    store.close();
    // The rows have come to the database, and the process ended before it could say so.
    let disk = DiskTables::open(dir.path(), true).unwrap();
    disk.flush_memtable(Some(none()), |table| {
        let row = |n: u64| (Slice::from(n.to_be_bytes()), Some(Slice::from("a row of the first attempt")));
        let rows = if table == MESSAGES { vec![row(1), row(2)] } else { Vec::new() };
        rows.into_iter()
    })
    .unwrap();
    disk.close();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.rows(MESSAGES), expected(1..=3));
    let mut ends = Writes::default();
    ends.delete(MESSAGES, &1_u64.to_be_bytes());
    store.log.write(&[&ends]).unwrap();
    assert_eq!(store.rows(MESSAGES), expected(2..=3));
    store.log.flush().unwrap();
    assert_eq!(store.rows(MESSAGES), expected(2..=3));
    store.close();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.rows(MESSAGES), expected(2..=3));
    store.close();
}

/// After a sync has failed, nothing is acknowledged until the log was read again, and what failed is taken off.
#[test]
fn a_sync_that_fails_ends_the_writing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.log.write(&[&commit(1)]).unwrap();
    store.log.writer.lock().segment.breaks = true;
    let error = store.log.write(&[&commit(2)]).unwrap_err();
    assert!(error.to_string().contains("the disk is broken"), "{error}");
    store.log.writer.lock().segment.breaks = false;
    assert_eq!(store.log.write(&[&commit(3)]).unwrap_err(), error);
    assert_eq!(store.log.flush().unwrap_err(), error);
    assert_eq!(store.rows(MESSAGES), expected(1..=1), "readers do not see it");
    store.close();
    // The frame is on disk: a restart without a look for it would find it.
    assert_eq!(replayed(&log_of(dir.path()), none()).unwrap(), expected(1..=2));
    wipe_last_frame(&log_of(dir.path()), 7).unwrap();
    assert_eq!(replayed(&log_of(dir.path()), none()).unwrap(), expected(1..=2), "that is another commit's");
    wipe_last_frame(&log_of(dir.path()), 2).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.rows(MESSAGES), expected(1..=1));
    store.log.write(&[&commit(4)]).unwrap();
    store.close();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.rows(MESSAGES).len(), 2);
    store.close();
}

/// Files that a process did not come to give back are given back with the next memtable.
#[test]
fn files_without_frames_are_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.log.write(&[&commit(1)]).unwrap();
    store.close();
    for number in 1..5 {
        std::fs::write(log_of(dir.path()).join(format!("{number}.log")), [0; 64]).unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    store.log.retire(&mut store.log.writer.lock()).unwrap();
    let mut state = store.log.queue.state.lock();
    while !state.retired.is_empty() {
        store.log.wait(&mut state).unwrap();
    }
    drop(state);
    assert_eq!(
        segment::files(&log_of(dir.path())).unwrap().len(),
        2,
        "the one that is written, and a spare one"
    );
    assert_eq!(store.rows(MESSAGES), expected(1..=1));
    store.close();
}

/// A handle that outlives its log takes nothing away from the one that was opened since.
#[test]
fn a_log_that_was_stopped_touches_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.log.write(&[&commit(1)]).unwrap();
    std::fs::write(log_of(dir.path()).join("1.log"), [0; 64]).unwrap();
    store.close();
    let store = Store::open(dir.path()).unwrap();
    store.log.stop();
    let files = segment::files(&log_of(dir.path())).unwrap();
    assert_eq!(store.log.flush(), Err(BrokerError::Closed));
    assert_eq!(store.log.write(&[&commit(2)]), Err(BrokerError::Closed));
    assert_eq!(segment::files(&log_of(dir.path())).unwrap(), files);
    store.close();
    assert_eq!(replayed(&log_of(dir.path()), none()).unwrap(), expected(1..=1));
}

/// A torn frame is overwritten by a shorter one, and nothing of it is left for the next start.
#[test]
fn a_torn_frame_is_wiped() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.log.write(&[&commit(1)]).unwrap();
    let file = store.log.writer.lock().segment.path().to_owned();
    let end = usize::try_from(store.log.writer.lock().segment.end()).unwrap();
    let mut large = commit(2);
    large.put(TASKS, b"large", &[7; 5000]);
    store.log.write(&[&large]).unwrap();
    store.close();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[end + 3000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.rows(MESSAGES), expected(1..=1));
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes[end..].iter().all(|byte| *byte == 0));
    store.log.write(&[&commit(3)]).unwrap();
    store.close();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.rows(MESSAGES).len(), 2);
    store.close();
}

/// While the flusher writes, commits go on and readers see all; the files are used again.
#[test]
fn segments_fill_and_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let large = vec![3; 6 << 20];
    let commits = 5 * segment::FULL / large.len() as u64;
    for n in 1..=commits {
        let mut writes = commit(n);
        writes.put(TASKS, &n.to_be_bytes(), &large);
        if n > 2 {
            writes.delete(TASKS, &(n - 2).to_be_bytes());
        }
        store.log.write(&[&writes]).unwrap();
        assert_eq!(
            store.memtables.get(MESSAGES, &n.to_be_bytes()).flatten().map(|row| row.len() > 5),
            Some(true)
        );
    }
    assert_eq!(store.rows(MESSAGES), expected(1..=commits));
    assert_eq!(store.rows(TASKS).len(), 2);
    let files = segment::files(&log_of(dir.path())).unwrap().len();
    assert!(files <= MOST_RETIRED + 2, "{files} files");
    store.close();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.rows(MESSAGES), expected(1..=commits));
    assert_eq!(store.rows(TASKS).len(), 2);
    store.log.flush().unwrap();
    assert_eq!(store.rows(MESSAGES), expected(1..=commits));
    assert_eq!(store.rows(TASKS).len(), 2);
    store.close();
}

/// Looks that are over leave nothing behind, however many they were.
#[test]
fn memtables_are_no_more_than_looks_under_way() {
    let memtables = Memtables::of(Vec::new());
    let kept = memtables.as_of_now(|| ()).0;
    for n in 0..1000_u32 {
        let mut writes = Writes::default();
        writes.put(MESSAGES, &n.to_be_bytes(), b"row");
        memtables.apply(&[&writes]);
        let (look, ()) = memtables.as_of_now(|| ());
        assert_eq!(look.get(MESSAGES, &n.to_be_bytes()), Some(Some(Slice::from("row"))));
    }
    assert_eq!(memtables.newest_first().len(), 2, "one that is frozen, and the active one");
    assert_eq!((memtables.rows_of_segment(), kept.get(MESSAGES, &[0; 4])), (1000, None));
}

//! The log that takes each commit before the database does.
//!
//! A commit is one [frame], appended to a [segment] and synced. Its rows are then in a [memtable] in memory, over the database,
//! where readers find them. When a segment is full, its memtable is retired: a [thread](flusher) writes to the database what is
//! still alive of it, in order and in one go, and then the segment's file is written again from its beginning. A task that is
//! over before that was in the log only.
//!
//! What holds:
//! - A commit is in a memtable only after its frame was synced. After a write or a sync has failed, nothing more is appended: the
//!   store closes, and [reads](mod@replay) from disk what is there.
//! - The database gets memtables in the order in which they were written, and each of them is in a file of the log until the
//!   database has synced all of it. To write one again changes nothing.
//! - Memory and the time of a replay are bounded: at most [`MOST_RETIRED`] memtables wait beside the active one, and then commits
//!   wait.

mod flusher;
mod frame;
mod memtable;
mod memtables;
mod replay;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::disk_tables::{DiskTables, Flushed};
use super::home;
use super::tables::{Writes, full_error, io_error};
use crate::broker::BrokerError;
use segment::Segment;

pub(super) use memtable::MemtableRow;
pub(super) use memtables::{Memtables, SharedMemtable};
pub(super) use replay::{Replayed, readable, replay, wipe_last_frame};
pub(super) use segment::is_name;

/// The directory of the log in the directory of the database. Both are moved together.
pub(super) const DIR: &str = "log";
/// The most memtables that wait to be written to the database.
const MOST_RETIRED: usize = 2;
/// A memtable is retired when it has so many keys, even if its segment is not full.
const MOST_ROWS: usize = 256 << 10;
/// A buffer for frames that has grown to more bytes than this is not kept.
const KEPT_BUFFER: usize = 8 << 20;

/// The open log of a store.
pub(super) struct HotLog {
    /// The directory of the store.
    dir: PathBuf,
    memtables: Memtables,
    queue: Arc<FlushQueue>,
    writer: Mutex<FrameWriter>,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

struct FrameWriter {
    segment: Segment,
    /// The epoch of the segment, and the number of the last frame.
    last: Flushed,
    /// The number of keys that the memtables of the segment had after the last frame.
    rows: usize,
    /// The frame under construction.
    buffer: Vec<u8>,
    /// The error of an append, after which nothing more is appended.
    failed: Option<BrokerError>,
}

/// A segment that waits to be written to the database.
struct Retired {
    /// Its memtables, oldest first. There are several if a reader has had some of them frozen.
    memtables: Vec<SharedMemtable>,
    segment: Segment,
    /// What the database has of the log when it has these memtables.
    mark: Flushed,
}

/// What the log and its flusher share.
struct FlushQueue {
    dir: PathBuf,
    memtables: Memtables,
    state: Mutex<FlushState>,
    /// Tells whoever waits that `state` has changed.
    changed: Condvar,
}

struct FlushState {
    /// The retired memtables, oldest first.
    retired: VecDeque<Retired>,
    /// The files without frames.
    spares: Vec<Segment>,
    /// Why no further memtable is written: the database has refused one.
    failed: Option<BrokerError>,
    /// Why the oldest memtable waits: the disk has no room for it.
    short: Option<BrokerError>,
    stops: bool,
}

impl FlushState {
    /// Fails if no further memtable is written.
    fn check(&self) -> Result<(), BrokerError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.stops => Err(BrokerError::Closed),
            None => Ok(()),
        }
    }
}

impl FlushQueue {
    /// `dir`: the directory of the store.
    fn new(dir: PathBuf, memtables: Memtables, retired: VecDeque<Retired>, spares: Vec<Segment>) -> Self {
        let state = FlushState { retired, spares, failed: None, short: None, stops: false };
        Self { dir, memtables, state: Mutex::new(state), changed: Condvar::new() }
    }
}

/// Whether the database in `db` has a log.
pub(super) fn is_there(db: &Path) -> bool {
    segment::files(&db.join(DIR)).is_ok_and(|files| !files.is_empty())
}

/// The bytes that the files of the log in `db` take.
pub(super) fn disk_space(db: &Path) -> u64 {
    let files = segment::files(&db.join(DIR)).unwrap_or_default();
    files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

impl HotLog {
    /// Opens the log of the store in `dir` for writing, and makes it if there is none. `replayed`: what was read of it, of which
    /// the memtables are `memtables` now.
    pub(super) fn start(
        dir: &Path,
        disk: &DiskTables,
        memtables: Memtables,
        replayed: Replayed,
    ) -> Result<Self, BrokerError> {
        let path = dir.join("db").join(DIR);
        home::make(&path)?;
        let failed = |path: &Path| {
            let (dir, path) = (dir.to_owned(), path.to_owned());
            move |error| append_error(&dir, &path, error)
        };
        // The names of the directory and of its files must be on disk before a file in it is relied on. A process may have been
        // killed after it made a file and before it synced the name.
        for named in [&dir.join("db"), &path] {
            File::open(named).and_then(|dir| dir.sync_all()).map_err(failed(named))?;
        }
        let Replayed { segments, spares, last } = replayed;
        let mut opened = VecDeque::new();
        for read in segments {
            if let Some(end) = read.torn {
                let path = read.path.display();
                tracing::warn!(%path, at = read.end, "the last write was cut short and never acknowledged; it is taken off");
                segment::wipe(&read.path, read.end, end).map_err(failed(&read.path))?;
            }
            // The last frame may never have come to the disk.
            segment::write_again(&read.path, read.last_at, read.end).map_err(failed(&read.path))?;
            let segment = Segment::open(&read.path, read.end as u64).map_err(failed(&read.path))?;
            opened.push_back((segment, Flushed { epoch: read.epoch, number: read.last }));
        }
        let mut unused = Vec::new();
        for spare in spares {
            unused.push(Segment::open(&spare, 0).map_err(failed(&spare))?);
        }
        // The last segment goes on; without one, a new one begins.
        let (segment, last) = match opened.pop_back() {
            Some((segment, mark)) => (segment, mark),
            None => {
                let segment = unused.pop().map_or_else(|| Segment::create(&path), Ok);
                (segment.map_err(failed(&path))?, Flushed { epoch: last.epoch + 1, ..last })
            }
        };
        let waiting = memtables.retired().into_iter().zip(opened);
        let retired = waiting
            .map(|(memtable, (segment, mark))| Retired { memtables: vec![memtable], segment, mark })
            .collect();
        let queue = Arc::new(FlushQueue::new(dir.to_owned(), memtables.clone(), retired, unused));
        let (of_thread, disk) = (Arc::clone(&queue), disk.clone());
        let thread = std::thread::Builder::new()
            .name("celeriac-flusher".to_owned())
            .spawn(move || {
                of_thread.run(&disk);
                disk.close();
            })
            .map_err(|e| BrokerError::io_because(format!("no thread for the store's log: {e}"), e))?;
        let rows = memtables.rows_of_segment();
        let writer = FrameWriter { segment, last, rows, buffer: Vec::new(), failed: None };
        let (writer, flusher) = (Mutex::new(writer), Mutex::new(Some(thread)));
        Ok(Self { dir: dir.to_owned(), memtables, queue, writer, flusher })
    }

    /// Writes a commit and syncs it; then its rows are there for all readers.
    ///
    /// # Errors
    /// The disk refused the commit, an earlier one, or a retired memtable. Nothing of this commit is to be seen, but its frame may
    /// be on disk: [`wipe_last_frame`] removes it.
    pub(super) fn write(&self, parts: &[&Writes]) -> Result<(), BrokerError> {
        let mut writer = self.writer.lock();
        if let Some(error) = &writer.failed {
            return Err(error.clone());
        }
        self.queue.state.lock().check()?;
        if writer.segment.end() >= segment::FULL || writer.rows >= MOST_ROWS {
            self.retire(&mut writer)?;
        }
        let number = writer.last.number + 1;
        let FrameWriter { segment, last, rows, buffer, failed } = &mut *writer;
        if !frame::encode(buffer, last.epoch, number, parts) {
            *buffer = Vec::new();
            return Err(BrokerError::io(
                "a commit has more than 4 GiB; enqueue fewer or smaller tasks together".to_owned(),
            ));
        }
        if let Err(error) = segment.append(buffer) {
            let error = append_error(&self.dir, segment.path(), error);
            *failed = Some(error.clone());
            return Err(error);
        }
        last.number = number;
        if buffer.capacity() > KEPT_BUFFER {
            *buffer = Vec::new();
        }
        *rows = self.memtables.apply(parts);
        Ok(())
    }

    /// Retires the active memtable and goes on in another file. Waits while too many memtables are retired.
    fn retire(&self, writer: &mut FrameWriter) -> Result<(), BrokerError> {
        if let Some(error) = &writer.failed {
            return Err(error.clone());
        }
        if writer.segment.end() == 0 {
            return Ok(()); // it has no frame
        }
        let mut state = self.queue.state.lock();
        state.check()?;
        while state.retired.len() >= MOST_RETIRED {
            self.wait(&mut state)?;
        }
        let next = match state.spares.pop() {
            Some(spare) => spare,
            None => {
                let dir = self.dir.join("db").join(DIR);
                Segment::create(&dir).map_err(|error| append_error(&self.dir, &dir, error))?
            }
        };
        let segment = std::mem::replace(&mut writer.segment, next);
        let (memtables, mark) = (self.memtables.retire(), writer.last);
        writer.rows = 0;
        state.retired.push_back(Retired { memtables, segment, mark });
        writer.last.epoch += 1;
        self.queue.changed.notify_all();
        Ok(())
    }

    /// Waits until the flusher has done something, and fails if it writes no further memtable for now.
    fn wait(&self, state: &mut MutexGuard<'_, FlushState>) -> Result<(), BrokerError> {
        if let Some(error) = &state.short {
            return Err(error.clone());
        }
        self.queue.changed.wait(state);
        state.check()
    }

    /// Has all rows written to the database, and gives back the room on the disk that the log does not need then.
    pub(super) fn flush(&self) -> Result<(), BrokerError> {
        self.retire(&mut self.writer.lock())?;
        let mut state = self.queue.state.lock();
        // After a stop the files may be those of a log that was opened since.
        state.check()?;
        while !state.retired.is_empty() {
            self.wait(&mut state)?;
        }
        state.spares.drain(..).for_each(Segment::remove);
        Ok(())
    }

    /// Stops the flusher. After this, commits are refused; what was written is in the files.
    pub(super) fn stop(&self) {
        self.queue.state.lock().stops = true;
        self.queue.changed.notify_all();
        if let Some(thread) = self.flusher.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the log to the database has panicked");
        }
    }
}

impl Drop for HotLog {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The error for a file of the log that cannot be written. A full disk is told with the directory of the store.
fn append_error(dir: &Path, path: &Path, error: io::Error) -> BrokerError {
    match io_error(path, error) {
        BrokerError::Full(_) => full_error(dir),
        error => error,
    }
}

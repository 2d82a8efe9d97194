//! A file of the log: frames one behind the other, from its beginning on.
//!
//! A sync costs little if it has no size to write. So a file is made longer with zeros before frames need the room, and
//! when the database has all rows of a segment, its file is written again from its beginning.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::broker::embedded::home;

/// A segment is full when its frames take this many bytes.
pub(super) const FULL: u64 = 32 << 20;
/// The least and the most by which a file is made longer.
const LEAST_ROOM: u64 = 256 << 10;
const MOST_ROOM: u64 = 4 << 20;

const SUFFIX: &str = ".log";

/// An open file of the log, and the offset at which the next frame goes.
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    /// The length of the file.
    len: u64,
    end: u64,
    /// Makes the next sync fail, as a disk does that is broken.
    #[cfg(test)]
    pub(super) breaks: bool,
}

impl Segment {
    fn of(path: PathBuf, file: File, len: u64, end: u64) -> Self {
        Self {
            path,
            file,
            len,
            end,
            #[cfg(test)]
            breaks: false,
        }
    }

    /// Makes the file with the first free number in `dir`.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let mut number = 0;
        loop {
            let path = dir.join(format!("{number}{SUFFIX}"));
            match home::private().create_new(true).write(true).open(&path) {
                Ok(file) => {
                    // The name must be on disk before a frame in the file is acknowledged.
                    file.sync_all()?;
                    File::open(dir)?.sync_all()?;
                    return Ok(Self::of(path, file, 0, 0));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a file whose frames end at `end`.
    pub(super) fn open(path: &Path, end: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self::of(path.to_owned(), file, len, end))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes that its frames take.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Writes and syncs a frame. After an error nothing more may be appended: what a failed sync has left on disk is not
    /// known.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end))?;
        let end = self.end + frame.len() as u64;
        if let Err(error) = self.file.write_all(frame) {
            let _ = self.file.set_len(self.len); // the part of the frame that made the file longer
            return Err(error);
        }
        if end > self.len {
            self.len = end;
            self.make_room();
        }
        self.sync()?;
        self.end = end;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.breaks {
            return Err(io::Error::other("the disk is broken"));
        }
        self.file.sync_data()
    }

    /// Makes the file longer for the next frames, if the disk has the room.
    fn make_room(&mut self) {
        let most = FULL.saturating_sub(self.len);
        let room = self.len.clamp(LEAST_ROOM, MOST_ROOM).min(most);
        let zeros = vec![0; usize::try_from(room).unwrap_or(0)];
        // The file is at the end of the frame now.
        match self.file.write_all(&zeros) {
            Ok(()) => self.len += room,
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "the log has no room ahead");
                let _ = self.file.set_len(self.len);
            }
        }
    }

    /// Takes the file into use again, from its beginning. Its frames are stale from now on.
    pub(super) fn start_over(&mut self) {
        self.end = 0;
        // One commit may have been far longer than a segment.
        if self.len > 2 * FULL && self.file.set_len(FULL).is_ok() {
            self.len = FULL;
        }
    }

    /// Deletes the file of the segment, which has no frame that is needed.
    pub(super) fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a file of the log is not needed, and stays");
        }
    }
}

/// Whether this is the name of a file of the log.
pub(in super::super) fn is_name(name: &str) -> bool {
    number_of(name).is_some()
}

fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_suffix(SUFFIX)?;
    number.parse().ok().filter(|parsed: &u32| parsed.to_string() == number)
}

/// The files of the log in `dir`, by their numbers, which say nothing about the order of what is in them.
pub(super) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(number) = path.file_name().and_then(|name| name.to_str()).and_then(number_of) {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Writes a part of a file once more as it is, and syncs it. The system may give to a reader what is not on disk: the process before
/// may have ended after a write and before its sync, or after a sync that failed. Whoever relies on what was read calls this first.
pub(super) fn write_again(path: &Path, from: usize, to: usize) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = vec![0; to.saturating_sub(from)];
    file.seek(SeekFrom::Start(from as u64))?;
    file.read_exact(&mut bytes)?;
    file.seek(SeekFrom::Start(from as u64))?;
    file.write_all(&bytes)?;
    file.sync_data()
}

/// Overwrites a part of a file with zeros and syncs it, so that nothing in it is taken for a frame.
pub(super) fn wipe(path: &Path, from: usize, to: usize) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(from as u64))?;
    file.write_all(&vec![0; to.saturating_sub(from)])?;
    file.sync_data()
}

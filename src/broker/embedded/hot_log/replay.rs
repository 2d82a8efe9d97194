//! Reads the log when a store is opened.
//!
//! Each use of a segment's file has an epoch, one higher than that of the segment before it, and the frames are numbered
//! through. The database says up to which epoch and number it has all rows. From there on, no epoch and no number may be
//! missing. Frames of earlier epochs are stale: they are what an earlier use of the file has left.
//!
//! Only the last frame can be torn by a crash, because each frame is synced before the next. So:
//! - What is no frame, and has a frame of the log behind it, is damage. The store does not open, and says where it is.
//! - What is no frame, and has none behind it, is a write that was never acknowledged, and is taken off. Whether it was
//!   acknowledged says the file [`acknowledged`](crate::broker::embedded::acknowledged), which the caller looks at before that.

use std::path::{Path, PathBuf};

use super::frame::{self, Frame};
use super::memtable::Memtable;
use super::segment;
use crate::broker::BrokerError;
use crate::broker::embedded::disk_tables::Flushed;
use crate::broker::embedded::rows::SEQ;
use crate::broker::embedded::tables::{TableName, io_error};

/// What the log of a store holds that the database lacks.
pub(in super::super) struct Replayed {
    /// The segments with frames, oldest first.
    pub(super) segments: Vec<ReadSegment>,
    /// The files without frames.
    pub(super) spares: Vec<PathBuf>,
    /// The epoch and the number of the last frame, or those of the last one that the database has.
    pub(super) last: Flushed,
}

/// A segment that was read.
pub(super) struct ReadSegment {
    pub(super) path: PathBuf,
    pub(super) epoch: u64,
    /// The numbers of its first and its last frame.
    pub(super) first: u64,
    pub(super) last: u64,
    /// The offset at which its last frame begins.
    pub(super) last_at: usize,
    /// The offset at which its frames end.
    pub(super) end: usize,
    /// The offset at which a torn frame ends that begins there.
    pub(super) torn: Option<usize>,
    pub(super) memtable: Memtable,
}

impl Replayed {
    /// Takes the memtables out, oldest first.
    pub(in super::super) fn take_memtables(&mut self) -> Vec<Memtable> {
        self.segments.iter_mut().map(|segment| std::mem::take(&mut segment.memtable)).collect()
    }
}

/// Reads the log in `dir`, and changes nothing. `flushed`: what the database has of it.
///
/// # Errors
/// A file cannot be read, is damaged, or is missing.
pub(in super::super) fn replay(dir: &Path, flushed: Flushed) -> Result<Replayed, BrokerError> {
    let (mut segments, mut spares) = (Vec::new(), Vec::new());
    for path in segment::files(dir).map_err(|e| io_error(dir, e))? {
        let bytes = std::fs::read(&path).map_err(|e| io_error(&path, e))?;
        match read(&path, &bytes, flushed)? {
            Some(segment) => segments.push(segment),
            None => spares.push(path),
        }
    }
    segments.sort_unstable_by_key(|segment| segment.epoch);
    let mut last = flushed;
    for segment in &segments {
        if segment.epoch != last.epoch + 1 || segment.first != last.number + 1 {
            let (from, to) = (last.number + 1, segment.first.saturating_sub(1));
            let error = format!(
                "the log has no writes {from} to {to}, which come before those in {}; a file of it is missing or cut short. Nothing was taken off",
                segment.path.display()
            );
            return Err(BrokerError::Damaged { path: dir.to_owned(), error });
        }
        last = Flushed { epoch: segment.epoch, number: segment.last };
    }
    Ok(Replayed { segments, spares, last })
}

/// Reads one file. Answers with `None` if it has no frame that the database lacks.
fn read(path: &Path, bytes: &[u8], flushed: Flushed) -> Result<Option<ReadSegment>, BrokerError> {
    let damaged = |error| BrokerError::Damaged { path: path.to_owned(), error };
    let mut memtable = Memtable::default();
    let mut found: Option<(u64, u64, u64)> = None; // the epoch, the first number and the last one
    let (mut at, mut last_at) = (0, 0);
    while let Some(frame) = bytes.get(at..).and_then(Frame::read) {
        found = match found {
            None if frame.epoch > flushed.epoch => Some((frame.epoch, frame.number, frame.number)),
            Some((epoch, first, last)) if frame.epoch == epoch && frame.number == last + 1 => {
                Some((epoch, first, frame.number))
            }
            None | Some(_) => break,
        };
        if !apply(&frame, &mut memtable) {
            return Err(damaged(format!("the write at byte {at} of the log is of another version")));
        }
        last_at = at;
        at += frame.size;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some((behind, _)) = frame::find(rest, |epoch| epoch > flushed.epoch) {
        let behind = at + behind;
        return Err(damaged(format!(
            "the log is damaged at byte {at}: what was written there cannot be read, and the write at byte {behind} can"
        )));
    }
    Ok(found.map(|(epoch, first, last)| {
        let torn = frame::begins(rest).filter(|(torn, _)| *torn == epoch);
        let torn = torn.map(|(_, size)| at.saturating_add(size).min(bytes.len()));
        ReadSegment { path: path.to_owned(), epoch, first, last, last_at, end: at, torn, memtable }
    }))
}

/// Adds what a frame wrote. Answers with `false` if it cannot be decoded.
fn apply(frame: &Frame<'_>, memtable: &mut Memtable) -> bool {
    frame.each(|(table, key, value)| match value {
        Some(value) => memtable.put(table, key.into(), value.into(), false),
        None => memtable.delete(table, &key.into()),
    })
}

/// What can be read of the log of a damaged store.
pub(in super::super) struct ReadableLog {
    /// The rows, oldest commits first.
    pub(in super::super) memtable: Memtable,
    /// What is damaged, in words.
    pub(in super::super) damage: Vec<String>,
    /// What a crash has left unfinished and does no harm, in words.
    pub(in super::super) notes: Vec<String>,
}

/// The most epochs that a log has which the database lacks: more are never left to wait.
const EPOCHS: u64 = super::MOST_RETIRED as u64 + 1;

/// Reads all frames of the log in `dir` that can be read, also those behind damage. `flushed`: what the database has of it;
/// `None` if that cannot be read.
///
/// # Errors
/// A file cannot be read for a reason other than damage.
pub(in super::super) fn readable(dir: &Path, flushed: Option<Flushed>) -> Result<ReadableLog, BrokerError> {
    let mut files = Vec::new();
    for path in segment::files(dir).map_err(|e| io_error(dir, e))? {
        let bytes = std::fs::read(&path).map_err(|e| io_error(&path, e))?;
        files.push((shown(&path), bytes));
    }
    let after = flushed.unwrap_or_default().epoch;
    let mut frames: Vec<(usize, usize, Frame<'_>)> = Vec::new();
    for (file, (_, bytes)) in files.iter().enumerate() {
        let mut at = 0;
        while let Some((skipped, frame)) =
            frame::find(bytes.get(at..).unwrap_or_default(), |epoch| epoch > after)
        {
            frames.push((file, at + skipped, frame));
            at += skipped + frame.size;
        }
    }
    frames.sort_unstable_by_key(|(_, _, frame)| (frame.epoch, frame.number));
    if flushed.is_none() {
        let newest = frames.last().map_or(0, |(_, _, frame)| frame.epoch);
        frames.retain(|(_, _, frame)| frame.epoch + EPOCHS > newest);
    }
    let mut found = ReadableLog { memtable: Memtable::default(), damage: Vec::new(), notes: Vec::new() };
    let mut before = flushed.map(|flushed| flushed.number);
    let mut ends = vec![None; files.len()];
    for (file, at, frame) in frames {
        let name = &files[file].0;
        let expected = before.map_or(frame.number, |before| before + 1);
        if frame.number > expected {
            found.damage.push(format!(
                "{name}: the writes {expected} to {} before byte {at} cannot be read; what was written there is lost",
                frame.number - 1
            ));
        }
        if !apply(&frame, &mut found.memtable) {
            found
                .damage
                .push(format!("{name}: the write at byte {at} is of another version, and is left out"));
        }
        before = Some(frame.number);
        ends[file] = Some((at + frame.size, frame.epoch));
    }
    for ((name, bytes), end) in files.iter().zip(ends) {
        let Some((end, epoch)) = end else { continue };
        if frame::begins(bytes.get(end..).unwrap_or_default()).is_some_and(|(torn, _)| torn == epoch) {
            found.notes.push(format!("{name}: the last write was cut short, and not acknowledged"));
        }
    }
    Ok(found)
}

/// A file of the log as it is shown.
fn shown(path: &Path) -> String {
    format!("db/{}/{}", super::DIR, path.file_name().unwrap_or_default().to_string_lossy())
}

/// Wipes the frame of a failed commit out of the log in `dir`, which is not open. The frame may be there although its commit
/// failed. It is the last one, and `seq` is the sequence that the store gave the commit.
///
/// # Errors
/// A file cannot be read or written.
pub(in super::super) fn wipe_last_frame(dir: &Path, seq: u64) -> Result<(), BrokerError> {
    let mut last: Option<(u64, PathBuf, usize, usize, bool)> = None;
    for path in segment::files(dir).map_err(|e| io_error(dir, e))? {
        let bytes = std::fs::read(&path).map_err(|e| io_error(&path, e))?;
        let mut at = 0;
        while let Some(frame) = bytes.get(at..).and_then(Frame::read) {
            let is_newer = last.as_ref().is_none_or(|(number, ..)| *number < frame.number);
            if !is_newer {
                break; // what follows is older than what is known
            }
            last = Some((frame.number, path.clone(), at, at + frame.size, seq_of(&frame) == Some(seq)));
            at += frame.size;
        }
    }
    match last {
        Some((_, path, from, to, true)) => segment::wipe(&path, from, to).map_err(|e| io_error(&path, e)),
        _ => Ok(()),
    }
}

/// The sequence that the store gave a commit.
fn seq_of(frame: &Frame<'_>) -> Option<u64> {
    let mut seq = None;
    frame.each(|(table, key, value)| {
        if table == TableName::Meta && key == SEQ {
            seq = value.and_then(|value| value.try_into().ok()).map(u64::from_be_bytes);
        }
    });
    seq
}

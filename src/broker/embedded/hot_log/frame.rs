//! The bytes of one commit in the log.
//!
//! A frame is a header and a body. All numbers are little-endian.
//!
//! | bytes | header |
//! |---|---|
//! | 4 | magic, with the version of this layout |
//! | 4 | the length of the body |
//! | 8 | the epoch of the segment: each use of a segment's file has a higher one |
//! | 8 | the number of the frame: each frame of a log has the next one |
//! | 8 | XXH3 of the body, with XXH3 of the bytes before as its seed |
//!
//! The body has the writes of the commit, one behind the other: a byte for the table and the kind, the length of the
//! key, for a put the length of the value, then the key and the value. Lengths are LEB128. Zeros and a last byte follow
//! that make the frame a multiple of [`ALIGNMENT`], so that frames begin at multiples of it and a search for one is
//! short. The last byte is not zero, so that zeros behind a frame are no part of it.
//!
//! This module does no I/O.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::broker::embedded::tables::{TABLES, TableName, Writes};

/// The bytes of a header.
pub(super) const HEADER: usize = 32;
/// Frames begin at multiples of this offset.
pub(super) const ALIGNMENT: usize = 8;

const MAGIC: [u8; 4] = *b"CHL\x01";
/// The first byte of a write has this bit, so that it is not taken for a zero behind the last write.
const WRITE: u8 = 0x80;
/// The first byte of a put has this bit, and that of a delete has not.
const PUT: u8 = 0x40;
/// The other bits of the first byte are the number of the table.
const TABLE: u8 = 0x3f;
/// The last byte of each frame.
const LAST: u8 = 0xe5;

/// A frame whose checksum is right.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) epoch: u64,
    pub(super) number: u64,
    /// The bytes of the whole frame.
    pub(super) size: usize,
    body: &'a [u8],
}

/// A write of a frame: the table, the key, and the value if it is a put.
pub(super) type FrameWrite<'a> = (TableName, &'a [u8], Option<&'a [u8]>);

/// Encodes a commit into `buffer`, whose content goes. Answers with `false` if the commit is longer than a frame may be, which
/// is 4 GiB.
pub(super) fn encode(buffer: &mut Vec<u8>, epoch: u64, number: u64, parts: &[&Writes]) -> bool {
    buffer.clear();
    buffer.resize(HEADER, 0);
    for write in parts.iter().flat_map(|part| part.iter()) {
        let kind = if write.value.is_some() { PUT } else { 0 };
        buffer.push(WRITE | kind | write.table as u8);
        push_length(buffer, write.key.len());
        if let Some(value) = &write.value {
            push_length(buffer, value.len());
        }
        buffer.extend_from_slice(&write.key);
        if let Some(value) = &write.value {
            buffer.extend_from_slice(value);
        }
    }
    let size = (buffer.len() + 1).next_multiple_of(ALIGNMENT);
    buffer.resize(size - 1, 0);
    buffer.push(LAST);
    let Ok(length) = u32::try_from(size - HEADER) else { return false };
    let (header, body) = buffer.split_at_mut(HEADER);
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..16].copy_from_slice(&epoch.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    let sum = xxh3_64_with_seed(body, xxh3_64(&header[..24]));
    header[24..].copy_from_slice(&sum.to_le_bytes());
    true
}

impl<'a> Frame<'a> {
    /// The frame at the beginning of `bytes`, or `None` if there is none that is whole.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (epoch, size) = begins(bytes)?;
        let header = bytes.first_chunk::<HEADER>()?;
        let body = bytes.get(HEADER..size)?;
        let sum = u64::from_le_bytes(*header.last_chunk()?);
        let is_whole = body.last() == Some(&LAST)
            && size.is_multiple_of(ALIGNMENT)
            && sum == xxh3_64_with_seed(body, xxh3_64(&header[..24]));
        Some(Self { epoch, number: number(header, 16)?, size, body }).filter(|_| is_whole)
    }

    /// Calls `take` for each write, in order. Answers with `false` if the body is not a list of writes, which means that
    /// another version wrote it.
    pub(super) fn each(&self, mut take: impl FnMut(FrameWrite<'a>)) -> bool {
        let mut rest = self.body;
        loop {
            match rest.split_first() {
                Some((&first, behind)) if first & WRITE != 0 && first != LAST => {
                    let Some((write, behind)) = read_write(first, behind) else { return false };
                    take(write);
                    rest = behind;
                }
                Some((&LAST, [])) => return true,
                Some((0, behind)) => rest = behind,
                _ => return false,
            }
        }
    }
}

/// The epoch and the size that a header states, if there is a header. The frame may be torn nevertheless.
pub(super) fn begins(bytes: &[u8]) -> Option<(u64, usize)> {
    let header = bytes.first_chunk::<HEADER>()?;
    if !header.starts_with(&MAGIC) {
        return None;
    }
    let length = u32::from_le_bytes(*header[4..].first_chunk()?);
    Some((number(header, 8)?, HEADER.checked_add(usize::try_from(length).ok()?)?))
}

/// The first frame in `bytes` that is whole and that `is_meant`, and its offset. `bytes` begins at a place where a frame may
/// begin.
pub(super) fn find(bytes: &[u8], is_meant: impl Fn(u64) -> bool) -> Option<(usize, Frame<'_>)> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER) {
        // The epoch is looked at first, because the checksum of a long frame costs more.
        if rest.starts_with(&MAGIC)
            && begins(rest).is_some_and(|(epoch, _)| is_meant(epoch))
            && let Some(frame) = Frame::read(rest)
        {
            return Some((at, frame));
        }
        at += ALIGNMENT;
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read_write(first: u8, rest: &[u8]) -> Option<(FrameWrite<'_>, &[u8])> {
    let table = *TABLES.get(usize::from(first & TABLE))?;
    let (key, mut rest) = take_length(rest)?;
    let mut value = None;
    if first & PUT != 0 {
        let (length, behind) = take_length(rest)?;
        (value, rest) = (Some(length), behind);
    }
    let (key, rest) = rest.split_at_checked(key)?;
    match value {
        None => Some(((table, key, None), rest)),
        Some(value) => {
            let (value, rest) = rest.split_at_checked(value)?;
            Some(((table, key, Some(value)), rest))
        }
    }
}

fn push_length(buffer: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        buffer.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    buffer.push(length as u8);
}

fn take_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0_usize;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((length, bytes.get(at + 1..)?));
        }
    }
    None
}

//! The rows of the tables: their keys, which sort in the order in which tasks run, and their bytes.
//!
//! A queue's rows lie in the order in which they run, so a short scan finds the next tasks. Rows are encoded with
//! `postcard`, behind a version byte.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::{TaskId, TaskResult};

/// The bytes of a ready row's key.
pub(super) const READY_KEY: usize = 2 + 1 + 1 + 8;
/// The key of a ready row. Keys sort by queue, priority (high first) and arrival.
pub(super) type ReadyKey = [u8; READY_KEY];
/// The bytes of a scheduled row's key.
const SCHEDULED_KEY: usize = 2 + 1 + 8 + 8;
/// The key of a task in the table `tasks`.
pub(super) type TaskKey = Vec<u8>;
/// The key of a scheduled row. Keys sort by queue, due time and arrival.
pub(super) type ScheduledKey = [u8; SCHEDULED_KEY];

const READY: u8 = 0;
const SCHEDULED: u8 = 1;
const END: u8 = 2;

/// The key of the last sequence in the table `meta`, which is the last row of each commit.
pub(super) const SEQ: &[u8] = b"seq";
/// The key in the table `meta` of the number of lanes that have a record.
pub(super) const LANES: &[u8] = b"lanes";
/// The key in the table `meta` of the generation of starts that were not counted yet.
pub(super) const CLAIMS: &[u8] = b"claims";

/// The version of the rows' layout.
const VERSION: u8 = 6;

pub(super) fn ready_key(queue: u16, priority: u8, seq: u64) -> ReadyKey {
    let mut key = [0; READY_KEY];
    key[..2].copy_from_slice(&queue.to_be_bytes());
    key[2] = READY;
    key[3] = !priority;
    key[4..].copy_from_slice(&seq.to_be_bytes());
    key
}

pub(super) fn scheduled_key(queue: u16, due: Timestamp, seq: u64) -> ScheduledKey {
    let mut key = [0; SCHEDULED_KEY];
    key[..2].copy_from_slice(&queue.to_be_bytes());
    key[2] = SCHEDULED;
    key[3..11].copy_from_slice(&due.as_micros().to_be_bytes());
    key[11..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The key of a task in the `tasks` table. An id that is a UUID, as Celeriac's own are, takes 17 bytes instead of
/// 37. That is short enough for the database to keep in place, which makes an index of them faster and half as
/// large.
pub(super) fn task_key(id: &TaskId) -> TaskKey {
    const UUID: u8 = 0;
    const TEXT: u8 = 1;
    let text = id.as_str();
    let mut buffer = [0; Hyphenated::LENGTH];
    let mut key = TaskKey::new();
    match Uuid::try_parse(text) {
        // Another spelling of a UUID is another id.
        Ok(uuid) if uuid.hyphenated().encode_lower(&mut buffer) == text => {
            key.push(UUID);
            key.extend_from_slice(uuid.as_bytes());
        }
        _ => {
            key.push(TEXT);
            key.extend_from_slice(text.as_bytes());
        }
    }
    key
}

/// The id of the task that has this key.
pub(super) fn id_of(key: &[u8]) -> TaskId {
    match key.split_first() {
        Some((0, uuid)) => match Uuid::from_slice(uuid) {
            Ok(uuid) => TaskId::from(uuid.hyphenated().to_string()),
            Err(_) => TaskId::from(format!("{uuid:02x?}")),
        },
        Some((_, text)) => TaskId::from(String::from_utf8_lossy(text).into_owned()),
        None => TaskId::from(String::new()),
    }
}

/// The due time in a scheduled row's key.
pub(super) fn due_of(key: &[u8]) -> Option<Timestamp> {
    Some(Timestamp::from_micros(u64::from_be_bytes(key.get(3..11)?.try_into().ok()?)))
}

/// The sequence in a ready row's key.
pub(super) fn seq_of(key: &ReadyKey) -> u64 {
    key.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The bounds of the keys of a queue's ready rows: the first is included, the second is not.
pub(super) fn ready_bounds(queue: u16) -> ([u8; 3], [u8; 3]) {
    let [a, b] = queue.to_be_bytes();
    ([a, b, READY], [a, b, SCHEDULED])
}

/// The bounds of the keys of a queue's scheduled rows: the first is included, the second is not.
pub(super) fn scheduled_bounds(queue: u16) -> ([u8; 3], [u8; 3]) {
    let [a, b] = queue.to_be_bytes();
    ([a, b, SCHEDULED], [a, b, END])
}

/// The number of the queue in a key of the table `messages`.
pub(super) fn queue_of(key: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(key.get(..2)?.try_into().ok()?))
}

/// Whether a key of the table `messages` belongs to a ready row.
pub(super) fn is_ready(key: &[u8]) -> bool {
    key.get(2) == Some(&READY)
}

/// Encodes a row, behind the version byte.
pub(super) fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, BrokerError> {
    let mut bytes = Vec::with_capacity(384);
    bytes.push(VERSION);
    postcard::to_extend(row, bytes).map_err(|e| {
        BrokerError::io_because(
            format!("a row of type {} cannot be encoded: {e}", std::any::type_name::<T>()),
            e,
        )
    })
}

/// Decodes a row of this version.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BrokerError> {
    match bytes.split_first() {
        Some((&VERSION, row)) => postcard::from_bytes(row).map_err(|e| {
            BrokerError::io_because(
                format!("a row of type {} does not decode: {e}", std::any::type_name::<T>()),
                e,
            )
        }),
        Some((other, _)) => Err(BrokerError::io(format!(
            "a row was written by another version (layout {other}, this program reads {VERSION})"
        ))),
        None => Err(BrokerError::io("an empty row".to_owned())),
    }
}

/// What the table `tasks` says of an id.
pub(super) enum TaskRow {
    /// The task waits or runs; this is the key of its message.
    At(Vec<u8>),
    /// The task waits in its lane's line; this is the key of its message there.
    InLine(Vec<u8>),
    /// The task is over; this is its record.
    Over(Box<TaskResult>),
}

const AT: u8 = 0;
const OVER: u8 = 1;
const IN_LINE: u8 = 2;

impl TaskRow {
    pub(super) fn at(key: &[u8]) -> Vec<u8> {
        [&[AT], key].concat()
    }

    pub(super) fn in_line(key: &[u8]) -> Vec<u8> {
        [&[IN_LINE], key].concat()
    }

    pub(super) fn over(result: &TaskResult) -> Result<Vec<u8>, BrokerError> {
        let mut row = Vec::with_capacity(256);
        row.extend_from_slice(&[OVER, VERSION]);
        postcard::to_extend(result, row)
            .map_err(|e| BrokerError::io_because(format!("a result cannot be encoded: {e}"), e))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BrokerError> {
        match bytes.split_first() {
            Some((&AT, key)) => Ok(Self::At(key.to_vec())),
            Some((&IN_LINE, key)) => Ok(Self::InLine(key.to_vec())),
            Some((&OVER, row)) => decode(row).map(|result| Self::Over(Box::new(result))),
            _ => Err(BrokerError::io("a row of the tasks table is neither a place nor a result".to_owned())),
        }
    }
}

/// What the table `meta` keeps of a queue.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct StoredQueue {
    pub(super) number: u16,
    pub(super) ready: u64,
    pub(super) scheduled: u64,
    pub(super) dead: u64,
    pub(super) in_line: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_tasks_run() {
        assert!(ready_key(1, 9, 5) < ready_key(1, 0, 1), "a higher priority goes first");
        assert!(ready_key(1, 0, 1) < ready_key(1, 0, 256), "then arrival");
        assert!(ready_key(1, 0, u64::MAX) < ready_key(2, 255, 0), "queues lie apart");
        let (lo, hi) = ready_bounds(1);
        assert!(lo.as_slice() <= ready_key(1, 255, 0).as_slice());
        assert!(ready_key(1, 0, u64::MAX).as_slice() < hi.as_slice());
        let key = scheduled_key(1, Timestamp::from_millis(7), 3);
        assert_eq!(due_of(&key), Some(Timestamp::from_millis(7)));
        assert!(is_ready(&ready_key(1, 0, 0)) && !is_ready(&key));
        assert_eq!(queue_of(&key), Some(1));
    }

    #[test]
    fn ids_have_keys_of_their_own() {
        let uuid = "0199a0b0-1234-7abc-8def-0123456789ab";
        let packed = task_key(&uuid.into());
        assert_eq!(packed.len(), 17);
        let bytes = String::from_utf8_lossy(&packed[1..]).into_owned();
        for other in
            [uuid.to_uppercase(), uuid.replace('-', ""), format!("{{{uuid}}}"), bytes, "import-42".into()]
        {
            let key = task_key(&other.as_str().into());
            assert_eq!(&key[1..], other.as_bytes(), "only the usual spelling is packed");
            assert_ne!(key, packed);
        }
    }

    #[test]
    fn another_layout_is_named() {
        let error = decode::<StoredQueue>(&[9, 1]).unwrap_err().to_string();
        assert!(error.contains("layout 9"), "{error}");
        assert!(decode::<StoredQueue>(&[]).is_err());
        assert!(decode::<StoredQueue>(&[VERSION]).is_err());
    }
}

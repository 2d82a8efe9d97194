//! The rows of the tables: their keys and their bytes. The keys of ready rows are in [`ready_key`](super::ready_key).
//!
//! Rows are encoded with `postcard`, behind a version byte.

use postcard::ser_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::{Message, TaskId, TaskResult};

/// The bytes of a scheduled row's key.
const SCHEDULED_KEY: usize = 2 + 1 + 8 + 8;
/// The key of a task in the table `tasks`.
pub(super) type TaskKey = Vec<u8>;
/// The key of a scheduled row. Keys sort by queue, due time and arrival.
pub(super) type ScheduledKey = [u8; SCHEDULED_KEY];

/// The class of scheduled rows in the key. Those of ready rows are the ones before and behind it.
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
/// The version of the row of a queue that has ready rows with a tenant. Programs that do not know of such rows would
/// never run them; so they find a version that they do not read, and do not open the store.
const VERSION_WITH_TENANTS: u8 = 7;

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

/// The due time in a scheduled row's key, and the number behind it.
pub(super) fn agenda_place(key: &[u8]) -> Option<(Timestamp, u64)> {
    Some((due_of(key)?, u64::from_be_bytes(key.get(11..SCHEDULED_KEY)?.try_into().ok()?)))
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

/// Encodes a row, behind the version byte.
pub(super) fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, BrokerError> {
    encode_as(VERSION, row)
}

fn encode_as<T: Serialize>(version: u8, row: &T) -> Result<Vec<u8>, BrokerError> {
    encode_with_room(version, row, 384)
}

/// Encodes the row of a message into a buffer that has room for all of it, whatever the length of its texts.
pub(super) fn encode_message(message: &Message) -> Result<Vec<u8>, BrokerError> {
    encode_with_room(VERSION, message, room_for(message))
}

/// About how many bytes the row of a message takes, and rather more than less. Headers and a workflow may take more yet.
fn room_for(message: &Message) -> usize {
    /// The numbers, and the lengths of the texts.
    const REST: usize = 128;
    const HEADER: usize = 64;
    const WORKFLOW: usize = 256;
    let Message { id, task, queue, arguments, headers, workflow, .. } = message;
    let texts = id.as_str().len() + task.len() + queue.len() + arguments.len();
    let workflow = if workflow.is_some() { WORKFLOW } else { 0 };
    REST + texts + HEADER * headers.0.len() + workflow
}

fn encode_with_room<T: Serialize>(version: u8, row: &T, room: usize) -> Result<Vec<u8>, BrokerError> {
    let mut bytes = Vec::with_capacity(room);
    bytes.push(version);
    postcard::serialize_with_flavor(row, RowBytes(bytes)).map_err(|e| {
        BrokerError::io_because(
            format!("a row of type {} cannot be encoded: {e}", std::any::type_name::<T>()),
            e,
        )
    })
}

/// The bytes of a row so far. Texts are copied into it as a whole; `postcard::to_extend` copies them byte by byte.
struct RowBytes(Vec<u8>);

impl Flavor for RowBytes {
    type Output = Vec<u8>;

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
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
        postcard::serialize_with_flavor(result, RowBytes(row))
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

impl StoredQueue {
    /// Encodes the row. `has_tenants`: the queue has ready rows with a tenant.
    pub(super) fn encode(&self, has_tenants: bool) -> Result<Vec<u8>, BrokerError> {
        encode_as(if has_tenants { VERSION_WITH_TENANTS } else { VERSION }, self)
    }

    /// Decodes a row of either version, which differ in nothing else.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BrokerError> {
        match bytes.split_first() {
            Some((&VERSION_WITH_TENANTS, row)) => decode(&[&[VERSION], row].concat()),
            _ => decode(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::ready_key::{ReadyKey, is_ready};
    use super::*;
    use crate::task::{Arguments, TaskOptions};

    #[test]
    fn scheduled_rows_lie_between_the_classes_of_ready_ones() {
        let key = scheduled_key(1, Timestamp::from_millis(7), 3);
        assert_eq!(due_of(&key), Some(Timestamp::from_millis(7)));
        assert_eq!(agenda_place(&key), Some((Timestamp::from_millis(7), 3)));
        assert_eq!((queue_of(&key), is_ready(&key)), (Some(1), false));
        let (first, end) = scheduled_bounds(1);
        let last_plain = ReadyKey::new(1, None, 0, u64::MAX);
        let first_of_tenant = ReadyKey::new(1, Some(0), 255, 0);
        assert!(&last_plain[..] < first.as_slice() && first.as_slice() <= key.as_slice());
        assert!(key.as_slice() < end.as_slice() && end.as_slice() <= &first_of_tenant[..]);
    }

    #[test]
    fn a_queue_with_tenants_is_of_a_version_of_its_own() {
        let queue = StoredQueue { number: 3, ready: 5, ..StoredQueue::default() };
        let (plain, with_tenants) = (queue.encode(false).unwrap(), queue.encode(true).unwrap());
        assert_eq!((plain[0], with_tenants[0]), (VERSION, VERSION_WITH_TENANTS));
        for row in [&plain, &with_tenants] {
            let read = StoredQueue::decode(row).unwrap();
            assert_eq!((read.number, read.ready), (3, 5));
        }
        // What a program says that does not know of tenants.
        let error = decode::<StoredQueue>(&with_tenants).unwrap_err().to_string();
        assert!(error.contains("layout 7, this program reads 6"), "{error}");
        assert!(StoredQueue::decode(&[9, 1]).is_err() && StoredQueue::decode(&[]).is_err());
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
    fn the_row_of_a_message_is_made_in_one_buffer() {
        let arguments = Arguments { args: format!("[{:?}]", "x".repeat(5_000)), kwargs: String::new() };
        let options = TaskOptions { time_limit: Some(Duration::MAX), ..TaskOptions::default() };
        let now = Timestamp::from_millis(1_796_040_000_000);
        let mut message = Message::new(TaskId::new(), "app.import", arguments, "slow", options, now);
        message.eta = Some(now);
        message.headers.0.insert("celeriac_tenant".to_owned(), "acme".into());
        let row = encode_message(&message).unwrap();
        assert!(row.len() <= room_for(&message), "{} of {}", row.len(), room_for(&message));
        assert_eq!(row, encode(&message).unwrap(), "the room changes nothing in the row");
        assert_eq!(decode::<Message>(&row).unwrap(), message);
        let written = postcard::to_extend(&message, vec![VERSION]).unwrap();
        assert_eq!(row, written, "rows of an earlier program are as these");
    }

    #[test]
    fn another_layout_is_named() {
        let error = decode::<StoredQueue>(&[9, 1]).unwrap_err().to_string();
        assert!(error.contains("layout 9"), "{error}");
        assert!(decode::<StoredQueue>(&[]).is_err());
        assert!(decode::<StoredQueue>(&[VERSION]).is_err());
    }
}

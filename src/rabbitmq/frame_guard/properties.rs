//! The content header of a message: its properties, and the table of headers in them.
//!
//! What the client library cannot read is changed in place if possible, so that no length changes. A byte of a
//! text that is not UTF-8 becomes `?`. A table or array that is nested too deep, or that is malformed, becomes an
//! array of bytes, which has the same form. If a change in place is not possible, the header is replaced by one
//! that keeps only what tells whose message it is.

use std::ops::Range;

use super::method::u16_at;

/// The number of levels to which tables and arrays may be nested. The headers of a task become JSON on their way
/// through a store, which reads 128 levels, those around the headers included.
pub(crate) const MAX_DEPTH: usize = 64;

/// The bytes before the property flags: class, weight and size of the body.
pub(super) const FLAGS: usize = 12;

const HEADERS: u16 = 1 << 13;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;

/// The properties in their order: flag, name, and form.
const PROPERTIES: [(u16, &str, Form); 14] = [
    (1 << 15, "content_type", Form::Text),
    (1 << 14, "content_encoding", Form::Text),
    (HEADERS, "headers", Form::Table),
    (1 << 12, "delivery_mode", Form::Bytes(1)),
    (1 << 11, "priority", Form::Bytes(1)),
    (CORRELATION_ID, "correlation_id", Form::Text),
    (REPLY_TO, "reply_to", Form::Text),
    (1 << 8, "expiration", Form::Text),
    (1 << 7, "message_id", Form::Text),
    (1 << 6, "timestamp", Form::Bytes(8)),
    (1 << 5, "type", Form::Text),
    (1 << 4, "user_id", Form::Text),
    (1 << 3, "app_id", Form::Text),
    (1 << 2, "cluster_id", Form::Text),
];

/// The form of a property in AMQP 0-9-1.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Table,
    Bytes(usize),
}

/// The places that tell whose message it is.
#[derive(Default)]
struct Whose {
    correlation_id: Option<Range<usize>>,
    reply_to: Option<Range<usize>>,
    id: Option<Range<usize>>,
    task: Option<Range<usize>>,
}

/// What was wrong with a content header.
pub(super) struct Wrong {
    pub(super) why: String,
    /// The header that the client library is to read instead, if this one could not be made readable in place.
    pub(super) instead: Option<Vec<u8>>,
}

/// Makes a content header readable, and says what was wrong with it, if anything was. `room`: the most bytes that
/// it may take.
pub(super) fn look(payload: &mut [u8], room: usize) -> Option<Wrong> {
    let mut whose = Whose::default();
    let mut wrong = None;
    let whole = look_through(payload, &mut whose, &mut wrong);
    let size = payload.len();
    let why = match whole {
        Some(()) if size <= room => return wrong.map(|why| Wrong { why, instead: None }),
        Some(()) => {
            format!(
                "its properties take {size} bytes: there is no room in a frame to send on more than {room}"
            )
        }
        None => "its properties are not what AMQP calls so".to_owned(),
    };
    Some(Wrong { why, instead: Some(reduced(payload, &whose)) })
}

fn look_through(bytes: &mut [u8], whose: &mut Whose, wrong: &mut Option<String>) -> Option<()> {
    let flags = u16_at(bytes, FLAGS)?;
    if flags & 0b11 != 0 {
        return None; // there are more flags than properties
    }
    let mut at = FLAGS + 2;
    for (flag, name, form) in PROPERTIES {
        if flags & flag == 0 {
            continue;
        }
        match form {
            Form::Bytes(count) => at += count,
            Form::Text => {
                let text = short_text(bytes, at, bytes.len())?;
                at = text.end;
                if as_text(&mut bytes[text.clone()]) {
                    wrong.get_or_insert_with(|| format!("its `{name}` is not UTF-8"));
                }
                match flag {
                    CORRELATION_ID => whose.correlation_id = Some(text),
                    REPLY_TO => whose.reply_to = Some(text),
                    _ => {}
                }
            }
            Form::Table => {
                let table = long(bytes, at, bytes.len())?;
                at = table.end;
                look_through_table(bytes, table, whose, wrong)?;
            }
        }
    }
    (at == bytes.len()).then_some(())
}

/// A table or array that is being looked through.
struct OpenTable {
    /// The offset of the byte that states its type.
    kind: usize,
    end: usize,
    is_array: bool,
}

/// Looks through a table, and through all that is nested in it, as deep as a reader goes.
fn look_through_table(
    bytes: &mut [u8],
    table: Range<usize>,
    whose: &mut Whose,
    wrong: &mut Option<String>,
) -> Option<()> {
    let mut at = table.start;
    let mut open = vec![OpenTable { kind: 0, end: table.end, is_array: false }];
    while let Some(inner) = open.last() {
        let (end, is_array, is_outermost) = (inner.end, inner.is_array, open.len() == 1);
        if at == end {
            open.pop();
            continue;
        }
        let Some(entry) = TableEntry::read(bytes, at, end, is_array) else {
            let inner = open.pop().filter(|_| !is_outermost)?;
            wrong.get_or_insert_with(|| "a table in its headers is none".to_owned());
            bytes[inner.kind] = b'x';
            at = inner.end;
            continue;
        };
        if let Some(key) = entry.key {
            if is_outermost && bytes[entry.kind] == b'S' {
                match &bytes[key.clone()] {
                    b"id" => whose.id = Some(entry.value.clone()),
                    b"task" => whose.task = Some(entry.value.clone()),
                    _ => {}
                }
            }
            if as_text(&mut bytes[key]) {
                wrong.get_or_insert_with(|| "the name of a header is not UTF-8".to_owned());
            }
        }
        at = entry.value.end;
        if !matches!(bytes[entry.kind], b'F' | b'A') {
            continue;
        }
        if open.len() == MAX_DEPTH {
            wrong.get_or_insert_with(|| format!("its headers are nested more than {MAX_DEPTH} deep"));
            bytes[entry.kind] = b'x';
        } else {
            at = entry.value.start;
            open.push(OpenTable {
                kind: entry.kind,
                end: entry.value.end,
                is_array: bytes[entry.kind] == b'A',
            });
        }
    }
    Some(())
}

/// One value of a table or an array.
struct TableEntry {
    key: Option<Range<usize>>,
    /// The offset of the byte that states its type.
    kind: usize,
    /// Its content, without the length before it.
    value: Range<usize>,
}

impl TableEntry {
    fn read(bytes: &[u8], at: usize, end: usize, is_array: bool) -> Option<Self> {
        let key = if is_array { None } else { Some(short_text(bytes, at, end)?) };
        let kind = key.as_ref().map_or(at, |key| key.end);
        if kind >= end {
            return None;
        }
        let from = kind + 1;
        let count = match bytes[kind] {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'L' | b'l' | b'd' | b'T' => 8,
            b'S' | b'x' | b'F' | b'A' => return Some(Self { key, kind, value: long(bytes, from, end)? }),
            _ => return None,
        };
        let value = from..from + count;
        (value.end <= end).then_some(Self { key, kind, value })
    }
}

/// The place of a text that has its length in one byte before it.
pub(super) fn short_text(bytes: &[u8], at: usize, end: usize) -> Option<Range<usize>> {
    let text = at + 1..at + 1 + usize::from(*bytes.get(at)?);
    (text.end <= end).then_some(text)
}

/// The place of a value that has its length in four bytes before it.
fn long(bytes: &[u8], at: usize, end: usize) -> Option<Range<usize>> {
    let length = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
    let value = at + 4..(at + 4).checked_add(usize::try_from(length).ok()?)?;
    (value.end <= end).then_some(value)
}

/// Replaces each byte that is not UTF-8 by `?`. Says whether there were any.
pub(super) fn as_text(mut bytes: &mut [u8]) -> bool {
    let mut any = false;
    while let Err(error) = std::str::from_utf8(bytes) {
        let from = error.valid_up_to();
        let to = error.error_len().map_or(bytes.len(), |length| from + length);
        bytes[from..to].fill(b'?');
        bytes = &mut bytes[to..];
        any = true;
    }
    any
}

/// A content header that keeps only what tells whose message it is.
fn reduced(payload: &[u8], whose: &Whose) -> Vec<u8> {
    let text = |range: &Option<Range<usize>>| range.clone().map(|range| &payload[range]);
    let mut flags = 0;
    let mut after = Vec::new();
    let mut table = Vec::new();
    for (name, value) in [("id", text(&whose.id)), ("task", text(&whose.task))] {
        // A longer value is no id and no name of a task.
        let Some(value) = value.filter(|value| value.len() <= 1024) else { continue };
        table.push(name.len() as u8);
        table.extend(name.as_bytes());
        table.push(b'S');
        table.extend((value.len() as u32).to_be_bytes());
        table.extend(value);
    }
    if !table.is_empty() {
        flags |= HEADERS;
        after.extend((table.len() as u32).to_be_bytes());
        after.extend(table);
    }
    for (flag, value) in [(CORRELATION_ID, text(&whose.correlation_id)), (REPLY_TO, text(&whose.reply_to))] {
        if let Some(value) = value {
            flags |= flag;
            after.push(value.len() as u8);
            after.extend(value);
        }
    }
    let mut reduced: Vec<u8> = payload.iter().copied().chain(std::iter::repeat(0)).take(FLAGS).collect();
    reduced.extend(flags.to_be_bytes());
    reduced.extend(after);
    reduced
}

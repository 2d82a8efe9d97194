//! The keys under which payloads and tombstones lie.
//!
//! `payload/<task>/<own key>` and `gone/<task>`. A task's id is any text of up to 255 bytes: what a file name cannot have is
//! written as `=` and two hex digits, and what is too long for one is cut into several.

use crate::task::TaskId;

const PAYLOAD: &str = "payload";
const GONE: &str = "gone";
/// File names may have 255 bytes; stores add endings while they write.
const SEGMENT: usize = 200;

/// A new key for a payload of this task.
pub(super) fn new_key(id: &TaskId) -> String {
    format!("{}/{}", payloads_of(id), TaskId::new())
}

/// Under which all payloads of a task lie.
pub(super) fn payloads_of(id: &TaskId) -> String {
    format!("{PAYLOAD}/{}", escape(id.as_str()))
}

/// Under which all payloads lie.
pub(super) fn payloads() -> &'static str {
    PAYLOAD
}

/// Under which all tombstones lie.
pub(super) fn tombstones() -> &'static str {
    GONE
}

/// The tombstone of a task.
pub(super) fn tombstone(id: &TaskId) -> String {
    // A name of its own, so that no id is the directory of another.
    format!("{GONE}/{}/gone", escape(id.as_str()))
}

/// Whose payload or tombstone this is; `None`: nothing of ours.
pub(super) fn task_of(key: &str) -> Option<TaskId> {
    let rest = key.strip_prefix(PAYLOAD).or_else(|| key.strip_prefix(GONE))?.strip_prefix('/')?;
    let (id, _) = rest.rsplit_once('/')?;
    unescape(id).map(TaskId::from)
}

fn escape(id: &str) -> String {
    let mut escaped = String::with_capacity(id.len());
    let mut segment = 0;
    for byte in id.bytes() {
        if segment >= SEGMENT {
            escaped.push('/');
            segment = 0;
        }
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            escaped.push(char::from(byte));
            segment += 1;
        } else {
            escaped.push_str(&format!("={byte:02x}"));
            segment += 3;
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'/' => {}
            b'=' => {
                let hex = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_stay_where_they_belong() {
        for id in ["a", "../../etc/passwd", "/", "a/b", ".", "=2f", "Ä", "a#1", "\0", &"x".repeat(255)] {
            let id = TaskId::from(id);
            let key = new_key(&id);
            assert!(key.split('/').all(|part| !part.is_empty() && !part.contains('.')), "{key}");
            assert!(key.split('/').all(|part| part.len() <= SEGMENT + 3), "{key}");
            assert_eq!(task_of(&key), Some(id.clone()));
            assert_eq!(task_of(&tombstone(&id)), Some(id));
        }
        for foreign in ["", "payload", "payload/x", "other/x/y", "payload/=zz/y", "payload/=f/y"] {
            assert_eq!(task_of(foreign), None, "{foreign}");
        }
        assert_eq!(escape("a/b"), "a=2fb");
    }

    proptest! {
        #[test]
        fn every_id_reads_back(id in "\\PC{1,80}") {
            prop_assert_eq!(unescape(&escape(&id)), Some(id));
        }
    }
}

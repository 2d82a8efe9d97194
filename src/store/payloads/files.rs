//! The keys under which payloads and tombstones lie.
//!
//! All of them lie below `celeriac-downloads`, beside a [marker](MARKER) that says that this directory is
//! Celeriac's. A directory or a bucket that somebody names for downloads may hold other people's files, whatever
//! their names are. Payloads are at `payload/<task>/<own key>`, and tombstones at `gone/<task>/gone`. A task's id
//! is any text of up to 255 bytes: a byte that a file name cannot have is written as `=` and two hex digits, and
//! an id that is too long for one name is cut into several. An own key is a UUID of version 7.
//!
//! Celeriac 0.1 wrote `payload/…` and `gone/…` without a directory of its own. Those are still read. Of them only
//! payloads are deleted that a record was seen to name, which is noted as [adopted].

use uuid::Uuid;

use crate::task::TaskId;

/// The directory whose content is Celeriac's, if it has the marker.
pub(super) const PLACE: &str = "celeriac-downloads";
/// The file that says that a place for downloads is Celeriac's own.
pub(super) const MARKER: &str = "celeriac-downloads/LAYOUT";
/// The text of the marker.
pub(super) const LAYOUT: &[u8] =
    b"These are downloads of Celeriac's tasks. It deletes what lies here. Layout 2.\n";
/// The directory of all payloads.
pub(super) const PAYLOADS: &str = "celeriac-downloads/payload";
/// The directory of all tombstones.
pub(super) const TOMBSTONES: &str = "celeriac-downloads/gone";
/// The directory of the notes that say which payloads of the first layout are Celeriac's.
const ADOPTED: &str = "celeriac-downloads/adopted";
/// The directories of the payloads and of the tombstones of the first layout.
pub(super) const OLD_PAYLOADS: &str = "payload";
const OLD_TOMBSTONES: &str = "gone";
/// The most bytes of a file name: file systems take 255, and stores add endings while they write.
const SEGMENT: usize = 200;

/// A new key for a payload of this task.
pub(super) fn new_key(id: &TaskId) -> String {
    format!("{}/{}", payloads_of(id), TaskId::new())
}

/// The directory of all payloads of a task.
pub(super) fn payloads_of(id: &TaskId) -> String {
    format!("{PAYLOADS}/{}", escape(id.as_str()))
}

/// The directory of all payloads of a task in the first layout.
pub(super) fn old_payloads_of(id: &TaskId) -> String {
    format!("{OLD_PAYLOADS}/{}", escape(id.as_str()))
}

/// The key of a task's tombstone.
pub(super) fn tombstone(id: &TaskId) -> String {
    // The tombstone has a name of its own, so that no id is the directory of another one.
    format!("{TOMBSTONES}/{}/gone", escape(id.as_str()))
}

/// The key of a task's tombstone in the first layout.
pub(super) fn old_tombstone(id: &TaskId) -> String {
    format!("{OLD_TOMBSTONES}/{}/gone", escape(id.as_str()))
}

/// The key of the note that a payload of the first layout is Celeriac's.
pub(super) fn adopted(old_key: &str) -> Option<String> {
    let own = old_key.strip_prefix(OLD_PAYLOADS)?.strip_prefix('/')?;
    owner_below(own).map(|_| format!("{ADOPTED}/{own}"))
}

/// The task of a payload; `None`: Celeriac gives no such name.
pub(super) fn task_of(key: &str) -> Option<TaskId> {
    owner_below(key.strip_prefix(PAYLOADS)?.strip_prefix('/')?)
}

/// The task of a payload of the first layout; `None`: Celeriac never gave such a name.
pub(super) fn task_of_old(key: &str) -> Option<TaskId> {
    owner_below(key.strip_prefix(OLD_PAYLOADS)?.strip_prefix('/')?)
}

/// Whether Celeriac gives such a name to tombstones.
pub(super) fn is_tombstone(key: &str) -> bool {
    let id = key.strip_prefix(TOMBSTONES).and_then(|rest| rest.strip_prefix('/'));
    id.and_then(|id| id.strip_suffix("/gone")).and_then(owner_of).is_some()
}

/// The key of a payload that is being written under this name; the name is the key, `#` and a number.
pub(super) fn key_of_unfinished(name: &str) -> Option<&str> {
    let (key, number) = name.rsplit_once('#')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    task_of(key).filter(|_| is_number).map(|_| key)
}

/// The task in `<task>/<own key>`.
fn owner_below(name: &str) -> Option<TaskId> {
    let (id, own) = name.rsplit_once('/')?;
    let uuid = Uuid::try_parse(own).ok()?;
    (uuid.get_version_num() == 7 && uuid.to_string() == own).then(|| owner_of(id)).flatten()
}

/// The id that is written exactly like this.
fn owner_of(escaped: &str) -> Option<TaskId> {
    let id = unescape(escaped)?;
    (!id.is_empty() && escape(&id) == escaped).then(|| TaskId::from(id))
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
            assert_eq!(key_of_unfinished(&format!("{key}#12")), Some(key.as_str()));
            assert!(is_tombstone(&tombstone(&id)));
            let old = key.strip_prefix("celeriac-downloads/").unwrap();
            assert_eq!((task_of_old(old), task_of(old)), (Some(id), None));
            assert_eq!(adopted(old).unwrap(), key.replace("/payload/", "/adopted/"));
        }
        assert_eq!(escape("a/b"), "a=2fb");
    }

    #[test]
    fn what_nobody_here_would_have_written_is_nobodys() {
        let own = "0199a0b0-1234-7abc-8def-0123456789ab";
        assert!(task_of(&format!("{PAYLOADS}/a/{own}")).is_some());
        for name in [
            String::new(),
            "x".to_owned(),
            own.to_owned(),
            "2026/report.csv".to_owned(),
            format!("a.b/{own}"),
            format!("=zz/{own}"),
            format!("=2F/{own}"),
            format!("=41/{own}"),
            format!("a/b/{own}"),
            format!("/{own}"),
            format!("a/{}", own.to_uppercase()),
            format!("a/{}", own.replace('-', "")),
            // a UUID of another version
            "a/9f3c1f6e-6f0c-4d5e-8a3b-1c2d3e4f5a6b".to_owned(),
            format!("a/{own}.csv"),
        ] {
            assert_eq!(task_of(&format!("{PAYLOADS}/{name}")), None, "{name}");
            assert_eq!(task_of_old(&format!("{OLD_PAYLOADS}/{name}")), None, "{name}");
            assert_eq!(key_of_unfinished(&format!("{PAYLOADS}/{name}#1")), None, "{name}");
        }
        for name in ["", "#", "#x", "#1x", "x#1"] {
            assert_eq!(key_of_unfinished(&format!("{PAYLOADS}/a/{own}{name}")), None, "{name}");
        }
        for name in ["x", "gone", "a/gone/b", "=41/gone", "a/b/gone"] {
            assert!(!is_tombstone(&format!("{TOMBSTONES}/{name}")), "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_id_reads_back(id in "\\PC{1,80}") {
            prop_assert_eq!(unescape(&escape(&id)), Some(id));
        }
    }
}

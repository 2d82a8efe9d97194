//! The outside ledger: what the children did, told by one `write` a line to a file that all of them append to.
//!
//! What `write` has taken survives `kill -9`. A line that the kill tore in two does not parse and counts as not written.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Line {
    /// The transaction of an order, with its mail, has committed.
    Committed { n: i64 },
    /// The task of a mail began. `again`: it was told that it may have begun before.
    Mail { n: i64, id: String, again: bool },
}

static LEDGER: OnceLock<File> = OnceLock::new();

/// Begins this process's part. The line break ends a line that was torn by a kill.
pub fn begin(path: &Path) {
    let file = OpenOptions::new().create(true).append(true).open(path).expect("the ledger opens");
    (&file).write_all(b"\n").expect("the ledger is written");
    assert!(LEDGER.set(file).is_ok(), "one ledger a process");
}

/// Writes a line.
pub fn note(line: &Line) {
    let mut text = serde_json::to_vec(line).expect("a line has a form in JSON");
    text.push(b'\n');
    let mut ledger = LEDGER.get().expect("the ledger was begun");
    ledger.write_all(&text).expect("the ledger is written");
}

/// Microseconds since 1970, the same for parent and child.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_micros()).expect("before the year 586524")
}

/// Reads what was added since it was last asked, while others write.
pub struct Reader {
    file: File,
    /// The begin of a line whose end was not there yet.
    rest: Vec<u8>,
}

impl Reader {
    pub fn open(path: &Path) -> Self {
        let file =
            OpenOptions::new().create(true).append(true).read(true).open(path).expect("the ledger opens");
        Self { file, rest: Vec::new() }
    }

    pub fn lines(&mut self) -> Vec<Line> {
        self.file.read_to_end(&mut self.rest).expect("the ledger is read");
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

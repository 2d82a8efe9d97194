//! The outside ledger: what a child did, told by one `write` a line to a file that is not in the store.
//!
//! What `write` has taken survives `kill -9`, so the ledger is true up to its last line. A line that the kill tore in
//! two does not parse and counts as not written; the thing that it would have told of had not happened yet, because
//! a line is written before a body goes on, and after a promise was received.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::tasks::Kind;

/// How a run ended, as its body saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    Value,
    Error,
    Continued,
    Postponed,
    Rejected,
    Panicked,
    /// The body was dropped before its end.
    Cut,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Line {
    /// A process began.
    Life { life: u64 },
    /// An enqueue is about to be asked for.
    Try { n: u64, kind: Kind },
    /// It returned Ok.
    Ack { n: u64, id: String },
    /// It returned an error.
    Refused { n: u64, why: String },
    /// An id was accepted although it was taken.
    Twice { id: String },
    /// A body began. `at`: microseconds since 1970.
    Start { n: u64, cursor: u32, retries: u32, crashes: u32, attempt: u32, redelivered: bool, at: u64 },
    /// A body ended.
    End { n: u64, how: How },
    /// A hook was told that the task is over, which happens after it is safe on disk.
    Told { n: u64 },
    /// The task's record was read.
    Seen { n: u64, state: String, value: Option<String>, error_type: Option<String>, attempts: u32 },
    /// A revocation returned true.
    Revoked { n: u64 },
    /// The task of a tick began.
    Tick { id: String, crashes: u32 },
    /// A message lies in the dead letters.
    Dead { id: String },
}

static LEDGER: OnceLock<File> = OnceLock::new();

/// Begins this process's part. The line break ends a line that was torn by the kill before.
pub fn begin(path: &Path, life: u64) {
    let file = OpenOptions::new().create(true).append(true).open(path).expect("the ledger opens");
    (&file).write_all(b"\n").expect("the ledger is written");
    assert!(LEDGER.set(file).is_ok(), "one ledger a process");
    note(&Line::Life { life });
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

/// Reads what was added since it was last asked.
pub struct Reader {
    file: File,
    read_to: u64,
    /// Lines that did not parse.
    pub torn: u64,
}

impl Reader {
    pub fn open(path: &Path) -> Self {
        let file =
            OpenOptions::new().create(true).append(true).read(true).open(path).expect("the ledger opens");
        Self { file, read_to: 0, torn: 0 }
    }

    /// Call it while no child writes.
    pub fn lines(&mut self) -> Vec<Line> {
        let mut text = Vec::new();
        self.file.seek(SeekFrom::Start(self.read_to)).expect("the ledger is a file");
        self.file.read_to_end(&mut text).expect("the ledger is read");
        self.read_to += text.len() as u64;
        let mut lines = Vec::new();
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(line) => lines.push(line),
                Err(_) => self.torn += 1,
            }
        }
        lines
    }
}

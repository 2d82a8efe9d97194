//! The outside ledger of a fleet: what each process did, told by one `write` a line to a file that all of them append to.
//!
//! What `write` has taken survives `kill -9`. A line is written before a body goes on, and after a promise was received.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// One thing that happened in the process `life`. `at`: microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Line {
    /// An enqueue returned Ok; the outbox has it, or RabbitMQ.
    Ack { life: u64, n: u64, id: String, outbox: bool },
    /// It returned an error.
    Refused { life: u64, n: u64, why: String },
    /// A body began; so many run in this process now.
    Start { life: u64, n: u64, inside: usize, retries: u32, crashes: u32, again: bool, at: u64 },
    /// A body did what it is there for.
    Done { life: u64, n: u64 },
    /// A body failed, as it was meant to, and is to be tried again.
    Failed { life: u64, n: u64 },
    /// A body was dropped before its end.
    Cut { life: u64, n: u64 },
    /// A tick of a periodic task began.
    Tick { id: String, at: u64 },
}

static LEDGER: OnceLock<File> = OnceLock::new();

/// Begins this process's part.
pub fn begin(path: &Path) {
    let file = OpenOptions::new().create(true).append(true).open(path).expect("the ledger opens");
    assert!(LEDGER.set(file).is_ok(), "one ledger a process");
}

/// Writes a line.
pub fn note(line: &impl Serialize) {
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

    pub fn lines<L: DeserializeOwned>(&mut self) -> Vec<L> {
        self.file.read_to_end(&mut self.rest).expect("the ledger is read");
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line is written at once")).collect()
    }
}

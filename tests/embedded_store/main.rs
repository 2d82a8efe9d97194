//! The embedded store against what happens to disks, files and processes.

mod arguments;
mod crash_count;
mod damage;
mod damaged_block;
mod earlier;
mod failed;
mod full_disk;
mod limits;
mod log;
mod mending;
mod ownership;
mod permissions;
mod scale;
mod strangers;
mod tenants;
mod torn_tail;
mod unreadable;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use celeriac::broker::conformance::{Inbox, sample};
use celeriac::broker::embedded::EmbeddedOptions;
use celeriac::broker::{Broker, BrokerError, EmbeddedBroker, Settle};
use celeriac::task::{Durability, Message};

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn open(dir: &Path) -> Result<EmbeddedBroker, BrokerError> {
    EmbeddedBroker::open(dir, EmbeddedOptions::default())
}

fn shared(broker: &EmbeddedBroker) -> Arc<dyn Broker> {
    Arc::new(broker.clone())
}

fn message(n: usize) -> Message {
    sample("q", n, Durability::Disk)
}

/// A message with an argument of `size` bytes.
fn large(n: usize, size: usize) -> Message {
    let mut message = message(n);
    message.arguments.args = format!("[\"{}\"]", "x".repeat(size));
    message
}

async fn publish(broker: &EmbeddedBroker, numbers: std::ops::Range<usize>) {
    for n in numbers {
        broker.publish(message(n), false).await.unwrap();
    }
}

/// Settles all that waits and says what it was.
async fn drain(broker: &EmbeddedBroker, queue: &str) -> Vec<Message> {
    let broker = shared(broker);
    let mut inbox = Inbox::open(&broker, queue, 64);
    let mut drained = Vec::new();
    loop {
        let deliveries = inbox.rest(&broker, queue).await;
        if deliveries.is_empty() {
            return drained;
        }
        for delivery in deliveries {
            drained.push(Message::clone(delivery.message()));
            delivery.settle(Settle::Ack { result: None, follow_ups: None });
        }
    }
}

fn ids(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|m| m.id.as_str()).collect()
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            match std::fs::copy(entry.path(), to) {
                // The database of an open store deletes what it has replaced, in its own time.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => {
                    copied.unwrap();
                }
            }
        }
    }
}

/// The first file of the log of a store.
fn log_file(dir: &Path) -> PathBuf {
    dir.join("db/log/0.log")
}

/// Up to where a file of the log or a journal is used: it is allocated ahead with zeros.
fn used(file: &Path) -> usize {
    let bytes = std::fs::read(file).unwrap();
    bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)
}

/// Cuts the zeros off the log and the journals of a store, so that copies are small.
fn shrink(dir: &Path) {
    for files in [dir.join("db"), dir.join("db/log")] {
        for file in std::fs::read_dir(files).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "log" || extension == "jnl") {
                let size = used(&file) as u64;
                std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(size).unwrap();
            }
        }
    }
}

/// The variable that tells a test that it is the child, and what to work on.
const CHILD: &str = "CELERIAC_TEST_CHILD";

/// Runs one test of this program in a process of its own.
fn in_a_child(test: &str, on: &Path) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture", "--include-ignored"]).env(CHILD, on).output().unwrap()
}

//! Damaged files: an error that names the place and says what to do, never a panic, never an endless loop, and never
//! a store that silently lost what it had.

use std::path::{Path, PathBuf};
use std::time::Duration;

use celeriac::broker::conformance::{Inbox, success};
use celeriac::broker::{Broker, BrokerError, Inspect as _, Settle};
use celeriac::store::{EmbeddedStore, Store};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::damaged_block::flush;
use crate::{PATIENCE, copy, drain, log_file, message, open, publish, shared, shrink, used};

const MESSAGES: usize = 40;

/// A store with messages, results and dead letters, in table files (`flushed`) and in the log.
fn base(runtime: &tokio::runtime::Runtime, flushed: bool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let broker = open(dir.path()).unwrap();
        publish(&broker, 0..10).await;
        let mut inbox = Inbox::open(&shared(&broker), "q", 10);
        for (n, delivery) in inbox.take(10).await.into_iter().enumerate() {
            let result = Some(success(delivery.message()));
            let end = match n % 2 {
                0 => Settle::Ack { result, follow_ups: None },
                _ => Settle::DeadLetter { reason: "for a test".to_owned(), result, follow_ups: None },
            };
            delivery.settle_and_wait(end).await.unwrap();
        }
        publish(&broker, 0..MESSAGES / 2).await;
        broker.close().await.unwrap();
    });
    if flushed {
        flush(dir.path());
    }
    runtime.block_on(async {
        let broker = open(dir.path()).unwrap();
        publish(&broker, MESSAGES / 2..MESSAGES).await;
        broker.close().await.unwrap();
    });
    shrink(dir.path());
    dir
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// Opens a store that may be damaged. An error must say where and what to do; an open store must do its work. What came
/// out of it, and how many more it says are waiting.
async fn try_out(dir: &Path) -> Result<(Vec<String>, u64), BrokerError> {
    let broker = match open(dir) {
        Ok(broker) => broker,
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(dir.to_str().unwrap()), "the error does not say where: {text}");
            assert!(matches!(error, BrokerError::Damaged { .. }), "{text}");
            assert!(text.contains("put back a copy of the directory"), "{text}");
            return Err(error);
        }
    };
    let work = async {
        let drained = drain(&broker, "q").await;
        for message in &drained {
            let n: usize = message.id.as_str()[2..].parse().unwrap();
            let mut expected = crate::message(n);
            expected.enqueued_at = message.enqueued_at;
            assert_eq!(*message, expected, "a message came out different");
        }
        let unread = broker.counts("q").await.unwrap().ready;
        // Whatever they answer, they answer.
        let store = EmbeddedStore::new(broker.clone());
        let _ = broker.dead_letters(10).await;
        let _ = broker.find(&message(1).id).await;
        let _ = store.get(&message(0).id, message(0).enqueued_at).await;
        let _ = store.sweep(message(0).enqueued_at + Duration::from_secs(100_000)).await;
        let _ = broker.publish(message(99), true).await;
        let _ = broker.close().await;
        (drained.iter().map(|m| m.id.to_string()).collect(), unread)
    };
    Ok(tokio::time::timeout(PATIENCE, work).await.expect("it answers"))
}

/// Nothing is missing.
fn all() -> (Vec<String>, u64) {
    ((0..MESSAGES).map(|n| format!("q-{n}")).collect(), 0)
}

#[test]
fn the_undamaged_store_works() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for flushed in [false, true] {
        let base = base(&runtime, flushed);
        let tables = files(base.path()).iter().filter(|f| f.parent().unwrap().ends_with("tables")).count();
        assert_eq!(tables > 5, flushed, "{:?}", files(base.path()));
        assert_eq!(runtime.block_on(try_out(base.path())), Ok(all()));
    }
}

#[test]
fn damage_in_the_middle_of_the_log_is_an_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = base(&runtime, false);
    let size = used(&log_file(base.path()));
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    // The last write is about 400 bytes; what happens to that cannot be told from a torn write.
    proptest!(config, |(at in 0..size - 1000, garbage in prop::collection::vec(any::<u8>(), 1..64))| {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        let log = log_file(dir.path());
        let mut bytes = std::fs::read(&log).unwrap();
        let before = bytes.clone();
        bytes[at..at + garbage.len()].copy_from_slice(&garbage);
        prop_assume!(bytes != before);
        std::fs::write(&log, bytes).unwrap();
        let Err(BrokerError::Damaged { path, .. }) = runtime.block_on(try_out(dir.path())) else {
            return Err(TestCaseError::fail("opened"));
        };
        prop_assert_eq!(path, log);
    });
}

#[test]
fn each_file_may_be_damaged_or_missing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = base(&runtime, true);
    let mut refused = 0;
    for file in files(base.path()) {
        let name = file.strip_prefix(base.path()).unwrap().to_owned();
        for how in ["missing", "empty", "garbage", "half"] {
            let dir = tempfile::tempdir().unwrap();
            copy(base.path(), dir.path());
            let path = dir.path().join(&name);
            let mut bytes = std::fs::read(&path).unwrap();
            match how {
                "missing" => std::fs::remove_file(&path).unwrap(),
                "empty" => std::fs::write(&path, b"").unwrap(),
                "half" => {
                    bytes.truncate(bytes.len() / 2);
                    std::fs::write(&path, bytes).unwrap();
                }
                _ => {
                    let third = bytes.len() / 3;
                    bytes[third..2 * third].iter_mut().enumerate().for_each(|(n, b)| *b ^= (n as u8) | 1);
                    std::fs::write(&path, bytes).unwrap();
                }
            }
            let what = format!("{} is {how}", name.display());
            match runtime.block_on(try_out(dir.path())) {
                Err(_) => refused += 1,
                Ok(drained) => assert_eq!(drained, all(), "{what}"),
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

/// A list that another one has replaced: the database deletes it when it gets at it.
fn is_former(file: &Path) -> bool {
    let name = file.file_name().unwrap().to_str().unwrap();
    let Ok(number) = name.trim_start_matches('v').parse::<u64>() else { return false };
    name.starts_with('v')
        && std::fs::read(file.with_file_name("current")).unwrap()[..8] != number.to_le_bytes()
}

#[test]
fn a_flip_in_a_list_or_in_the_contents_of_a_table_is_an_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = base(&runtime, true);
    let mut flips = 0;
    for file in files(&base.path().join("db/keyspaces")) {
        if is_former(&file) {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        let is_table = file.parent().unwrap().ends_with("tables");
        // The contents of a table are its end; the last but one word says where they begin, and nobody reads the last.
        let word = bytes.len() - 16;
        let place = u64::from_le_bytes(bytes[word..word + 8].try_into().unwrap());
        let range = if is_table { place as usize..word + 8 } else { 0..bytes.len() };
        for at in range.step_by(7) {
            let dir = tempfile::tempdir().unwrap();
            copy(base.path(), dir.path());
            let path = dir.path().join(file.strip_prefix(base.path()).unwrap());
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            std::fs::write(&path, damaged).unwrap();
            let out = runtime.block_on(try_out(dir.path()));
            assert!(matches!(out, Err(BrokerError::Damaged { .. })), "{} at {at}: {out:?}", path.display());
            flips += 1;
        }
    }
    assert!(flips > 200, "{flips}");
}

#[test]
fn any_byte_may_flip() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = base(&runtime, true);
    let files: Vec<(PathBuf, usize)> = files(base.path())
        .into_iter()
        .map(|file| (file.strip_prefix(base.path()).unwrap().to_owned(), file))
        .map(|(name, file)| (name, std::fs::metadata(file).unwrap().len() as usize))
        .filter(|(_, size)| *size > 0)
        .collect();
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(file in 0..files.len(), at in any::<prop::sample::Index>(), mask in 1..=255_u8)| {
        let (name, size) = &files[file];
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        let path = dir.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at.index(*size)] ^= mask;
        std::fs::write(&path, bytes).unwrap();
        match runtime.block_on(try_out(dir.path())) {
            Err(_) => {}
            Ok(out) if out == all() => {}
            // Blocks of a table are read when they are needed: what cannot be read stays, and is still counted.
            Ok((drained, unread)) => {
                prop_assert!(name.starts_with("db/keyspaces") && unread > 0, "{} lost something", name.display());
                prop_assert_eq!(drained.len() + unread as usize, MESSAGES);
            }
        }
    });
}

//! What a crash in the middle of a write leaves: the store opens by itself, and all that was acknowledged is there.

use std::path::Path;

use celeriac::broker::Broker;
use celeriac::broker::conformance::counts;
use proptest::prelude::*;

use crate::{copy, drain, ids, large, log_file, open, publish, shared, shrink, used};

/// How the end of the last write may look.
#[derive(Clone, Copy, Debug)]
enum Tear {
    /// The file ends there.
    Cut,
    /// The file was made longer, but what belongs there was not written.
    Zeros,
    /// Something else is there.
    Garbage,
    /// Only this page was not written.
    Hole,
}

fn tear(log: &Path, at: usize, how: Tear) {
    let mut bytes = std::fs::read(log).unwrap();
    match how {
        Tear::Cut => bytes.truncate(at),
        Tear::Zeros => {
            bytes[at..].fill(0);
            bytes.resize(bytes.len() + 4096, 0);
        }
        Tear::Garbage => bytes[at..].iter_mut().enumerate().for_each(|(n, b)| *b ^= (n as u8) | 1),
        Tear::Hole => {
            let end = bytes.len().min(at + 512);
            bytes[at..end].iter_mut().for_each(|b| *b ^= 0xff);
        }
    }
    std::fs::write(log, bytes).unwrap();
}

/// The same tail is a loss when it was acknowledged: the store does not open, whatever is left of the write, says what may be
/// missing, and takes nothing off.
#[tokio::test]
async fn a_log_that_was_cut_short_is_an_error() {
    let base = tempfile::tempdir().unwrap();
    let broker = open(base.path()).unwrap();
    publish(&broker, 0..20).await;
    let log = log_file(base.path());
    let before = used(&log);
    publish(&broker, 20..50).await;
    let after = used(&log);
    let killed = tempfile::tempdir().unwrap();
    copy(base.path(), killed.path());
    shrink(killed.path());
    drop(broker);
    for (at, how) in [
        (before, Tear::Cut),
        (after - 1, Tear::Cut),
        (before + 700, Tear::Zeros),
        (after - 200, Tear::Garbage),
        (0, Tear::Zeros),
        (0, Tear::Cut),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copy(killed.path(), dir.path());
        let log = log_file(dir.path());
        tear(&log, at, how);
        let torn = std::fs::read(&log).unwrap();
        for _ in 0..2 {
            let error = open(dir.path()).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(
                error.contains("was cut short") && error.contains("acknowledged up to write"),
                "{at} {how:?}: {error}"
            );
            assert!(std::fs::read(&log).unwrap() == torn, "{at} {how:?}: the log was changed");
        }
    }
    // Without the file that says so, or with one of an older store, it is as it was.
    std::fs::remove_file(killed.path().join("acknowledged")).unwrap();
    tear(&log_file(killed.path()), after - 1, Tear::Cut);
    assert_eq!(drain(&open(killed.path()).unwrap(), "q").await.len(), 49);
}

#[test]
fn a_torn_tail_is_cut_off() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = tempfile::tempdir().unwrap();
    let (before, after) = runtime.block_on(async {
        let broker = open(base.path()).unwrap();
        publish(&broker, 0..20).await;
        let log = log_file(base.path());
        let before = used(&log);
        let acknowledged = std::fs::read(base.path().join("acknowledged")).unwrap();
        broker.publish(large(20, 3000), false).await.unwrap();
        let after = used(&log);
        broker.close().await.unwrap();
        shrink(base.path());
        // A crash in the middle of the write: it was not acknowledged.
        std::fs::write(base.path().join("acknowledged"), acknowledged).unwrap();
        (before, after)
    });
    assert!(after > before + 3000);
    let tears = prop_oneof![Just(Tear::Cut), Just(Tear::Zeros), Just(Tear::Garbage), Just(Tear::Hole)];
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(at in before..after, how in tears)| {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        tear(&log_file(dir.path()), at, how);
        runtime.block_on(async {
            let broker = open(dir.path()).unwrap();
            prop_assert_eq!(counts(&shared(&broker), "q").await.ready, 20);
            publish(&broker, 30..32).await;
            drop(broker);
            let broker = open(dir.path()).unwrap(); // what was written after the cut is there as well
            let drained = drain(&broker, "q").await;
            let expected: Vec<String> = (0..20).chain(30..32).map(|n| format!("q-{n}")).collect();
            prop_assert_eq!(ids(&drained), expected);
            Ok(())
        })?;
    });
}

//! The log before the database: stores of an earlier layout, a process that is killed while the log is written to the database,
//! and what the commands say of a damaged log.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use celeriac::broker::conformance::counts;
use celeriac::broker::embedded::{flush_log, salvage, verify};
use celeriac::broker::{Broker, BrokerError};

use crate::earlier::make_earlier;
use crate::{CHILD, copy, drain, ids, large, log_file, open, publish, shared, shrink};

/// A store of the earlier layout opens with all that is in its journal, and becomes one of this layout. What is settled afterwards
/// does not come back from the journal.
#[tokio::test]
async fn a_store_of_the_earlier_layout_opens() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    publish(&broker, 0..50).await;
    broker.close().await.unwrap();
    drop(broker);
    make_earlier(dir.path());
    let found = verify(dir.path()).unwrap();
    assert_eq!((found.damage, found.waiting), (Vec::new(), 50));
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());

    let broker = open(dir.path()).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("layout")).unwrap(), "celeriac store, layout 3\n");
    assert_eq!(drain(&broker, "q").await.len(), 50);
    publish(&broker, 50..52).await;
    broker.close().await.unwrap();
    drop(broker);
    flush_log(dir.path()).unwrap();
    let broker = open(dir.path()).unwrap();
    assert_eq!(ids(&drain(&broker, "q").await), ["q-50", "q-51"]);
    drop(broker);

    // A process that is killed after it has emptied the journal, and before it wrote the new layout.
    drop(open(killed.path()).unwrap());
    std::fs::write(killed.path().join("layout"), "celeriac store, layout 2\n").unwrap();
    std::fs::remove_file(killed.path().join("acknowledged")).unwrap();
    std::fs::remove_dir_all(killed.path().join("db/log")).unwrap();
    assert_eq!(drain(&open(killed.path()).unwrap(), "q").await.len(), 50);
}

#[tokio::test]
async fn a_store_of_a_later_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    std::fs::write(dir.path().join("layout"), "celeriac store, layout 4\n").unwrap();
    let error = open(dir.path()).err().unwrap();
    assert!(matches!(error, BrokerError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("layout 4"), "{error}");
}

/// The commands name what is damaged in the log, and copy the rest.
#[tokio::test]
async fn what_is_around_damage_in_the_log_is_salvaged() {
    let base = tempfile::tempdir().unwrap();
    let broker = open(base.path()).unwrap();
    publish(&broker, 0..20).await;
    broker.close().await.unwrap();
    drop(broker);
    shrink(base.path());
    for fifths in 1..5 {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        let mut bytes = std::fs::read(log_file(dir.path())).unwrap();
        let at = bytes.len() * fifths / 5;
        bytes[at] ^= 0x11;
        std::fs::write(log_file(dir.path()), bytes).unwrap();
        assert!(open(dir.path()).is_err());
        let found = verify(dir.path()).unwrap();
        assert!(found.damage.iter().any(|text| text.starts_with("db/log/0.log: the writes ")), "{found:?}");
        assert_eq!(found.waiting, 19, "{found:?}");
        let into = tempfile::tempdir().unwrap();
        let salvaged = salvage(dir.path(), into.path()).unwrap();
        assert_eq!(salvaged.waiting, 19, "{salvaged:?}");
        let sound = verify(into.path()).unwrap();
        assert_eq!((sound.damage, sound.waiting), (Vec::new(), 19));
        assert_eq!(drain(&open(into.path()).unwrap(), "q").await.len(), 19);
    }
}

/// The size of a message of which some five hundred fill a file of the log.
const SIZE: usize = 64 << 10;

/// Whenever a process is killed while the log is written to the database, all that it acknowledged is there, once.
#[tokio::test]
async fn killed_while_the_log_is_written_to_the_database() {
    for acknowledged in [500, 515, 530, 1040] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::publisher", "--nocapture", "--include-ignored"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut told = lines.filter_map(|line| line.strip_prefix("taken ")?.parse::<usize>().ok());
        let last = told.find(|taken| *taken >= acknowledged).expect("it publishes until it is killed");
        child.kill().unwrap();
        child.wait().unwrap();
        let last = told.last().unwrap_or(last); // what it said before it was killed
        let broker = open(dir.path()).unwrap();
        let waiting = counts(&shared(&broker), "q").await.ready as usize;
        assert!((last..=last + 1).contains(&waiting), "{last} were taken, and {waiting} wait");
        let drained = drain(&broker, "q").await;
        let expected: Vec<String> = (0..waiting).map(|n| format!("q-{n}")).collect();
        assert_eq!(ids(&drained), expected);
        broker.close().await.unwrap();
        drop(broker);
        let found = verify(dir.path()).unwrap();
        assert_eq!((found.damage, found.waiting), (Vec::new(), 0));
    }
}

/// The process that is killed: says how many messages it has published.
#[tokio::test]
#[ignore = "a part of `killed_while_the_log_is_written_to_the_database`"]
async fn publisher() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let broker = open(Path::new(&dir)).unwrap();
    for n in 0.. {
        broker.publish(large(n, SIZE), false).await.unwrap();
        println!("taken {}", n + 1);
    }
}

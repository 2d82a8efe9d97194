//! One process owns a store.

use std::path::PathBuf;

use celeriac::broker::{Broker, BrokerError};

use crate::{CHILD, PATIENCE, drain, in_a_child, open, publish};

#[tokio::test]
async fn a_second_owner_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    publish(&first, 0..3).await;
    let Err(error) = open(dir.path()) else { panic!("two owners") };
    let owner = std::process::id().to_string();
    assert_eq!(error, BrokerError::InUse { path: dir.path().to_owned(), owner: owner.clone() });
    let text = error.to_string();
    for part in [&owner, dir.path().to_str().unwrap(), "a directory of its own"] {
        assert!(text.contains(part), "{text}");
    }

    let child = in_a_child("ownership::child", dir.path());
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains(&text), "{said}");

    // The first one noticed nothing; when it is closed, or just dropped, the store is free at once.
    publish(&first, 3..4).await;
    let clone = first.clone();
    first.close().await.unwrap();
    let second = open(dir.path()).unwrap();
    drop((first, clone));
    assert!(open(dir.path()).is_err());
    drop(second);
    assert_eq!(drain(&open(dir.path()).unwrap(), "q").await.len(), 4);
}

/// The other process: says what it was told.
#[test]
#[ignore = "a part of `a_second_owner_is_told_who_has_it`"]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    match open(&PathBuf::from(dir)) {
        Ok(_) => panic!("two owners"),
        Err(error) => println!("{error}"),
    }
}

#[test]
fn a_path_that_cannot_be_a_store_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    for path in [file.clone(), file.join("below")] {
        let Err(error) = open(&path) else { panic!("opened a file") };
        let text = error.to_string();
        assert!(text.contains(file.to_str().unwrap()) && text.contains("directory"), "{text}");
    }
}

/// The last handle may go on the store's own thread: a sink owned it.
#[tokio::test]
async fn a_sink_may_own_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let (sender, mut came) = tokio::sync::mpsc::unbounded_channel();
    let owned = broker.clone();
    let sink = std::sync::Arc::new(move |deliveries| {
        let _keeps = &owned;
        let _ = sender.send(deliveries);
    });
    let consumer = broker.consume("q", 1, sink).unwrap();
    publish(&broker, 0..1).await;
    let deliveries: Vec<celeriac::broker::Delivery> = came.recv().await.unwrap();
    drop(broker);
    drop(consumer); // and with it the sink, and with it the last handle
    assert!(came.recv().await.is_none());
    drop(deliveries);
    // The thread ends by itself; the lock goes with it.
    let again = tokio::task::spawn_blocking(move || {
        loop {
            match open(dir.path()) {
                Err(BrokerError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(5)),
                other => return (dir, other),
            }
        }
    });
    let (_dir, again) = tokio::time::timeout(PATIENCE, again).await.unwrap().unwrap();
    assert_eq!(drain(&again.unwrap(), "q").await.len(), 1);
}

/// A first start that was cut short leaves nothing that keeps the next one from starting.
#[tokio::test]
async fn a_first_start_may_be_cut_short() {
    for has_version in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("db/keyspaces/0")).unwrap();
        std::fs::write(dir.path().join("db/0.jnl"), [0; 64]).unwrap();
        if has_version {
            std::fs::write(dir.path().join("db/version"), "").unwrap(); // made, and not written yet
        }
        let broker = open(dir.path()).unwrap();
        publish(&broker, 0..2).await;
        drop(broker);
        assert_eq!(drain(&open(dir.path()).unwrap(), "q").await.len(), 2);
    }
}

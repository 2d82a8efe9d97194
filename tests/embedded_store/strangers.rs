//! Directories that are not a store's, or not all of one: nothing there is made, changed or deleted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use celeriac::broker::embedded::{EmbeddedOptions, salvage, verify};
use celeriac::broker::{BrokerError, EmbeddedBroker};

use crate::{copy, drain, open, publish};

/// All that is in a directory.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.insert(path.clone(), Vec::new());
            all.extend(content(&path));
        } else {
            all.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn a_directory_of_somebody_elses_is_refused_and_stays_as_it_is() {
    let cases: [&[(&str, &str)]; 18] = [
        &[("db/production.sqlite3", "rows")],
        &[("db/version", ""), ("db/production.sqlite3", "rows")],
        &[("db/keyspaces/shop/rows", "rows"), ("db/0.jnl", "")],
        &[("db/log", "of the captain")],
        &[("db/log/0.log", ""), ("db/log/1.txt", "of the captain")],
        &[("lock", "held by the package manager\n")],
        &[("lock", "4711"), ("claims", "of the insurance"), ("letter.txt", "dear")],
        &[("states", "alaska")],
        &[("making", "of")],
        &[("db", "a file")],
        &[("notes.txt", "x")],
        &[("src/main.rs", "fn main() {}"), ("Cargo.toml", "[package]")],
        &[("mending/notes.txt", "x")],
        &[("mended/db/production.sqlite3", "rows")],
        &[("mending-copy/a", "x")],
        &[("mending/notes.txt", "x"), ("mended/db/production.sqlite3", "rows"), ("mending-copy/a", "x")],
        &[("lock", "4711"), ("mended/db/version", ""), ("mended/layout", "of the garden")],
        &[("downloads/holiday.jpg", "x")],
    ];
    for files in cases {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let before = content(home.path());
        for _ in 0..2 {
            let error = open(home.path()).err().unwrap();
            let text = error.to_string();
            let is_typed = matches!(error, BrokerError::NotAStore { .. } | BrokerError::Damaged { .. });
            assert!(is_typed && text.contains(home.path().to_str().unwrap()), "{files:?}: {text}");
        }
        assert!(EmbeddedBroker::open_existing(home.path(), EmbeddedOptions::default()).is_err());
        assert!(verify(home.path()).is_err() && salvage(home.path(), home.path().join("new")).is_err());
        assert_eq!(content(home.path()), before, "{files:?}");
    }
}

/// What a store makes beside its database, and deletes again, may have names that somebody took first.
#[tokio::test]
async fn a_store_leaves_what_somebody_keeps_in_it() {
    let home = tempfile::tempdir().unwrap();
    let broker = open(home.path()).unwrap();
    publish(&broker, 0..3).await;
    drop(broker);
    let files = [
        ("mending/notes.txt".to_owned(), "x"),
        ("mending-copy/a".to_owned(), "x"),
        ("mended/db/production.sqlite3".to_owned(), "rows"),
        (format!("copy-{}-0/notes.txt", std::process::id()), "x"),
    ];
    for (name, text) in &files {
        let path = home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let found = verify(home.path()).unwrap();
    assert_eq!((found.damage, found.waiting), (Vec::new(), 3));
    assert_eq!(drain(&open(home.path()).unwrap(), "q").await.len(), 3);
    for (name, text) in &files {
        assert_eq!(std::fs::read_to_string(home.path().join(name)).unwrap(), *text, "{name}");
    }
    assert!(!home.path().join("db.damaged-0").exists());
}

#[test]
fn nothing_is_salvaged_into_a_directory_of_somebody_elses() {
    let (store, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(open(store.path()).unwrap());
    std::fs::create_dir(into.path().join("mending")).unwrap();
    std::fs::write(into.path().join("mending/notes.txt"), "x").unwrap();
    let before = content(into.path());
    let error = salvage(store.path(), into.path()).unwrap_err();
    assert!(matches!(error, BrokerError::NotAStore { .. }), "{error}");
    assert!(error.to_string().contains("it holds `mending`"), "{error}");
    assert_eq!(content(into.path()), before);
}

/// A database of the same make, in a directory of the same name.
#[test]
fn a_database_of_somebody_elses_is_refused() {
    let home = tempfile::tempdir().unwrap();
    {
        let db = fjall::Database::builder(home.path().join("db")).open().unwrap();
        for n in 0..7 {
            let table = db.keyspace(&format!("shop {n}"), fjall::KeyspaceCreateOptions::default).unwrap();
            table.insert("key", "value").unwrap();
        }
        db.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let error = open(home.path()).err().unwrap();
    assert!(matches!(error, BrokerError::NotAStore { .. }), "{error}");
    let db = fjall::Database::builder(home.path().join("db")).open().unwrap();
    assert_eq!(db.keyspace_count(), 7);
    let table = db.keyspace("shop 3", fjall::KeyspaceCreateOptions::default).unwrap();
    assert_eq!(table.get("key").unwrap().as_deref(), Some(&b"value"[..]));
}

/// A copy that left some of a store out is refused, and complete again when what is missing is put back.
#[tokio::test]
async fn a_restore_that_missed_files_loses_nothing() {
    const TASKS: usize = 6000;
    let base = tempfile::tempdir().unwrap();
    let broker = open(base.path()).unwrap();
    let numbers: Vec<usize> = (0..TASKS).collect();
    for some in numbers.chunks(1000) {
        let published = some.iter().map(|n| publish(&broker, *n..*n + 1));
        futures_util::future::join_all(published).await;
    }
    drop(broker);
    crate::shrink(base.path());
    let missed: [&[&str]; 11] = [
        &["layout", "db/version"],
        &["layout", "db/0.jnl"],
        &["layout", "db"],
        &["layout", "db/version", "claims", "acknowledged"],
        &["layout", "db/keyspaces/3/current"],
        &["layout", "db/keyspaces"],
        &["db"],
        &["db/version"],
        &["db/log"],
        &["db/log", "acknowledged"],
        &["db/log/0.log"],
    ];
    for names in missed {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        for name in names {
            let path = dir.path().join(name);
            let gone = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            gone.unwrap();
        }
        let before = content(dir.path());
        let error = open(dir.path()).err().unwrap_or_else(|| panic!("{names:?}: opened"));
        assert!(matches!(error, BrokerError::Damaged { .. }), "{names:?}: {error}");
        let kept = |all: BTreeMap<PathBuf, Vec<u8>>| -> BTreeMap<_, _> {
            all.into_iter().filter(|(path, _)| !path.ends_with("lock")).collect()
        };
        assert!(kept(content(dir.path())) == kept(before), "{names:?}: something was changed");
        for name in names {
            let (from, to) = (base.path().join(name), dir.path().join(name));
            if from.is_dir() {
                std::fs::create_dir_all(&to).unwrap();
                copy(&from, &to);
            } else {
                std::fs::copy(from, to).unwrap();
            }
        }
        assert_eq!(drain(&open(dir.path()).unwrap(), "q").await.len(), TASKS, "{names:?}");
    }
    // `layout` alone says nothing that the rest does not say.
    std::fs::remove_file(base.path().join("layout")).unwrap();
    assert_eq!(drain(&open(base.path()).unwrap(), "q").await.len(), TASKS);
    assert!(base.path().join("layout").exists());
}

/// What a first start of an earlier version left, which wrote no `making`, is put aside; what one of this version left goes.
#[tokio::test]
async fn an_unfinished_store_is_finished() {
    for marked in [false, true] {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("db/keyspaces/0")).unwrap();
        std::fs::write(home.path().join("db/0.jnl"), [0; 64]).unwrap();
        std::fs::write(home.path().join("db/lock"), "").unwrap();
        if marked {
            std::fs::write(home.path().join("making"), "celeriac store, being made\n").unwrap();
        }
        let broker = open(home.path()).unwrap();
        publish(&broker, 0..2).await;
        drop(broker);
        assert_eq!(home.path().join("db.unfinished-0/0.jnl").exists(), !marked);
        assert!(!home.path().join("making").exists());
        assert_eq!(drain(&open(home.path()).unwrap(), "q").await.len(), 2);
    }
}

/// Wherever the making of the tables was cut short, the next start makes them anew, and every later one finds them.
#[tokio::test]
async fn a_store_whose_tables_were_being_made_opens_again_and_again() {
    let base = tempfile::tempdir().unwrap();
    drop(open(base.path()).unwrap());
    // As it was before it was made whole.
    for later in ["layout", "claims", "acknowledged"] {
        std::fs::remove_file(base.path().join(later)).unwrap();
    }
    std::fs::write(base.path().join("making"), "celeriac store, being made\n").unwrap();
    for tables in [0, 1, 4, 6] {
        for has_current in [false, true] {
            let home = tempfile::tempdir().unwrap();
            copy(base.path(), home.path());
            let keyspaces = home.path().join("db/keyspaces");
            for number in tables + 1..=6 {
                std::fs::remove_dir_all(keyspaces.join(number.to_string())).unwrap();
            }
            if !has_current {
                std::fs::remove_file(keyspaces.join(format!("{tables}/current"))).unwrap();
            }
            for published in 0..2 {
                let broker = open(home.path()).unwrap_or_else(|e| panic!("{tables} tables: {e}"));
                publish(&broker, published..published + 1).await;
            }
            assert_eq!(drain(&open(home.path()).unwrap(), "q").await.len(), 2, "{tables} tables");
        }
    }
}

//! What a store keeps is its owner's to read.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use celeriac::broker::Broker;
use celeriac::store::{EmbeddedStore, Store};
use celeriac::task::TrackedState;

use crate::{open, publish};

/// Everything in a directory that others may do something with, itself included.
fn open_to_others(dir: &Path) -> Vec<(PathBuf, u32)> {
    let mut open = Vec::new();
    let mode = std::fs::metadata(dir).unwrap().permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        open.push((dir.to_owned(), mode));
    }
    if dir.is_dir() {
        open.extend(std::fs::read_dir(dir).unwrap().flat_map(|entry| open_to_others(&entry.unwrap().path())));
    }
    open
}

fn open_up(path: &Path) {
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| open_up(&entry.unwrap().path()));
    }
}

#[tokio::test]
async fn a_store_is_closed_to_others_whoever_made_it() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("below/store");
    for _ in 0..2 {
        let broker = open(&dir).unwrap();
        publish(&broker, 0..3).await;
        let state = TrackedState {
            id: "q-0".into(),
            state: "PROGRESS".into(),
            meta: serde_json::json!({ "secret": 1 }).into(),
            traceback: None,
            lineage: None,
        };
        EmbeddedStore::new(broker.clone()).track(state).await.unwrap();
        assert!(dir.join("states").exists());
        assert_eq!(open_to_others(&home.path().join("below")), []);
        broker.close().await.unwrap();
        drop(broker);
        assert_eq!(open_to_others(&home.path().join("below")), []);
        open_up(&dir); // as an earlier version made it
    }
    // In a directory that somebody else uses too, the store's own files are closed, and the directory stays as it is.
    std::fs::create_dir(dir.join("site")).unwrap();
    open_up(&dir);
    drop(open(&dir).unwrap());
    assert_eq!(open_to_others(&dir), [(dir.clone(), 0o755), (dir.join("site"), 0o755)]);
}

//! Each crash is counted once, whatever is killed when.

use celeriac::broker::conformance::Inbox;

use crate::{copy, drain, open, publish, shared};

/// A process is killed while tasks run, and the next one after it has counted their crashes, but before it could
/// start the file of the starts over.
#[tokio::test]
async fn killed_while_it_counts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    publish(&broker, 0..3).await;
    let mut inbox = Inbox::open(&shared(&broker), "q", 3);
    let mut running = inbox.take(3).await;
    running[0].started();
    running[1].started();
    // What a kill would leave: nothing that was written is taken back, nothing more is written.
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());

    let claims = std::fs::read(killed.path().join("claims")).unwrap();
    drop(open(killed.path()).unwrap());
    std::fs::write(killed.path().join("claims"), claims).unwrap();
    drop(open(killed.path()).unwrap());
    let drained = drain(&open(killed.path()).unwrap(), "q").await;
    let crashes: Vec<_> = drained.iter().map(|message| (message.id.as_str(), message.crashes)).collect();
    assert_eq!(crashes, [("q-0", 1), ("q-1", 1), ("q-2", 0)]);
}

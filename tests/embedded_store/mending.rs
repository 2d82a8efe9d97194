//! A damaged block in a file that the database merges in the background: the store goes on with what can be read.

use std::collections::BTreeSet;
use std::path::Path;

use celeriac::broker::embedded::{salvage, verify};
use celeriac::broker::{Broker, BrokerError, EmbeddedBroker, Settle};
use celeriac::task::{Message, TENANT};

use crate::damaged_block::{damage, flush, table};
use crate::{copy, drain, large, message, open, publish, shared};

/// Files of each table, one less than the database merges.
const FILES: usize = 3;
const EACH: usize = 600;
const SMALL: usize = FILES * EACH;

/// Of three priorities, which are apart in the table: so each file has rows between those of the others, and is merged with them.
/// Every other one has a tenant.
fn one(n: usize, size: usize) -> Message {
    let mut message = Message { priority: u8::try_from(n % 3).unwrap(), ..large(n, size) };
    if n % 2 == 1 {
        message.headers.0.insert(TENANT.to_owned(), format!("tenant {}", n % 10).into());
    }
    message
}

/// A store of which a block in the middle of a file is damaged, and the tasks that it costs.
async fn damaged() -> (tempfile::TempDir, BTreeSet<String>) {
    let dir = tempfile::tempdir().unwrap();
    for file in 0..FILES {
        let broker = open(dir.path()).unwrap();
        let messages = (file * EACH..(file + 1) * EACH).map(|n| broker.publish(one(n, 10), false));
        futures_util::future::try_join_all(messages).await.unwrap();
        broker.close().await.unwrap();
        drop(broker);
        flush(dir.path());
    }
    damage(&table(dir.path(), 1), 50);
    let found = verify(dir.path()).unwrap();
    assert!((1..EACH).contains(&found.lost.len()), "{} are lost", found.lost.len());
    (dir, found.lost.into_iter().map(|id| id.to_string()).collect())
}

/// Publishes large messages until the database has merged its files once; those that were taken, and what the others were told.
async fn publish_until_it_is_mended(broker: &EmbeddedBroker, dir: &Path) -> (Vec<String>, Vec<BrokerError>) {
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for n in SMALL.. {
        assert!(n < SMALL + 100_000, "never merged, or never mended: {:?}", refused.last());
        let message = one(n, 64 << 10);
        let id = message.id.to_string();
        match broker.publish(message, true).await {
            Ok(_) if dir.join("db.damaged-0").exists() => {
                taken.push(id);
                return (taken, refused);
            }
            Ok(_) => taken.push(id),
            Err(error) => refused.push(error),
        }
    }
    unreachable!()
}

fn ids(messages: &[Message]) -> BTreeSet<String> {
    messages.iter().map(|message| message.id.to_string()).collect()
}

#[tokio::test]
async fn a_store_goes_on_when_its_files_cannot_be_merged() {
    let (dir, lost) = damaged().await;
    let broker = open(dir.path()).unwrap();
    // One of the tasks is in somebody's hands while it happens.
    let all = shared(&broker);
    let mut inbox = celeriac::broker::conformance::Inbox::open(&all, "q", 1);
    let in_hand = inbox.take(1).await.remove(0);
    let id = in_hand.message().id.to_string();
    let (taken, refused) = publish_until_it_is_mended(&broker, dir.path()).await;
    for error in &refused {
        let text = error.to_string();
        assert!(text.contains("what can be read is copied now; try again"), "{text}");
    }
    assert!(!refused.is_empty());

    in_hand.settle_and_wait(Settle::Return { crashed: false }).await.unwrap();
    drop(inbox);
    let drained = ids(&drain(&broker, "q").await);
    let small =
        (0..SMALL).map(|n| message(n).id.to_string()).filter(|small| !lost.contains(small) || *small == id);
    assert_eq!(drained, small.chain(taken).collect(), "all but those that could not be read");
    publish(&broker, 0..2).await;
    broker.close().await.unwrap();
    drop((all, broker));

    let found = verify(dir.path()).unwrap();
    assert_eq!((found.damage, found.waiting), (Vec::new(), 2));
    let broker = open(dir.path()).unwrap();
    assert_eq!(drain(&broker, "q").await.len(), 2);
    // The old database is beside it, for who can read more of it.
    assert!(dir.path().join("db.damaged-0/keyspaces").is_dir());
    for gone in ["mending", "mending-copy", "mended"] {
        assert!(!dir.path().join(gone).exists(), "{gone}");
    }
}

/// Wherever a process ends while it mends a store, the next one finds all that could be read.
#[tokio::test]
async fn a_mending_that_was_cut_short_is_finished() {
    let (base, lost) = damaged().await;
    let mended = tempfile::tempdir().unwrap();
    salvage(base.path(), mended.path()).unwrap();
    for step in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        let at = |name: &str| dir.path().join(name);
        let name = if step == 0 { "mending" } else { "mended" };
        std::fs::create_dir(at(name)).unwrap();
        copy(mended.path(), &at(name));
        if step == 0 {
            // It was not whole.
            std::fs::remove_dir_all(at("mending/db/keyspaces/2")).unwrap();
            std::fs::create_dir_all(at("mending-copy/db")).unwrap();
        }
        if step >= 2 {
            std::fs::remove_file(at("acknowledged")).unwrap();
            std::fs::rename(at("db"), at("db.damaged-0")).unwrap();
        }
        if step == 3 {
            std::fs::rename(at("mended/db"), at("db")).unwrap();
        }
        if step == 4 {
            // As step 2, in a copy that missed the file.
            std::fs::remove_file(at("layout")).unwrap();
        }
        let broker = open(dir.path()).unwrap();
        assert_eq!(at("db.damaged-0").exists(), step > 0, "step {step}");
        let drained = ids(&drain(&broker, "q").await);
        assert_eq!(drained.len(), SMALL - lost.len(), "step {step}");
        publish(&broker, SMALL..SMALL + 1).await;
        drop(broker);
        assert_eq!(drain(&open(dir.path()).unwrap(), "q").await.len(), 1, "step {step}");
        for gone in ["mending", "mending-copy", "mended"] {
            assert!(!at(gone).exists(), "step {step}: {gone}");
        }
    }
}

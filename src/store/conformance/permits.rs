//! The promises of named locks and limits.

use std::sync::Arc;
use std::time::Duration;

use super::{HOUR, PATIENCE, StoreUnderTest, soon};
use crate::task::{PermitAnswer, PermitKeeper, Want};

fn wants(names: &[(&str, u32)]) -> Vec<Want> {
    names.iter().map(|(name, limit)| Want { name: (*name).to_owned(), limit: *limit }).collect()
}

/// The tokens of the permits, or the place of the one that is busy.
async fn ask(keeper: &Arc<dyn PermitKeeper>, names: &[(&str, u32)], holder: &str) -> Result<Vec<u64>, usize> {
    match keeper.acquire(&wants(names), holder).await.expect("an answer") {
        PermitAnswer::Granted { tokens, lost } => {
            assert!(!lost.load(std::sync::atomic::Ordering::Acquire));
            Ok(tokens)
        }
        PermitAnswer::Busy(place) => Err(place),
    }
}

async fn holders(keeper: &Arc<dyn PermitKeeper>, name: &str) -> Vec<String> {
    keeper.holders(name).await.expect("an answer").into_iter().map(|held| held.holder).collect()
}

/// No more holders have a permit than its limit; tokens grow; a permit that is given back is free, once.
pub async fn permits_have_limits<S: StoreUnderTest>() {
    let subject = S::open().await;
    let keeper = subject.store().permits().expect("it keeps permits");
    let gateway = [("gateway", 2)];
    let first = ask(&keeper, &gateway, "a").await.expect("it is free")[0];
    let second = ask(&keeper, &gateway, "b").await.expect("it is free")[0];
    assert!(first < second, "tokens grow: {first}, {second}");
    assert_eq!(ask(&keeper, &gateway, "c").await, Err(0));
    assert_eq!(ask(&keeper, &gateway, "a").await, Ok(vec![first]), "its own");
    assert!(ask(&keeper, &[("another", 1)], "c").await.is_ok());
    assert_eq!(ask(&keeper, &[("gateway", 3)], "d").await.map(|tokens| tokens[0] > second), Ok(true));
    assert_eq!(holders(&keeper, "gateway").await, ["a", "b", "d"]);
    let freed = keeper.freed(PATIENCE);
    keeper.release(&wants(&gateway), "nobody");
    keeper.release(&wants(&gateway), "a");
    keeper.release(&wants(&gateway), "a");
    soon("it is given back", async || holders(&keeper, "gateway").await == ["b", "d"]).await;
    drop(freed);
    assert_eq!(ask(&keeper, &gateway, "c").await, Err(0));
    keeper.release(&wants(&gateway), "d");
    soon("one is free", async || ask(&keeper, &gateway, "c").await.is_ok()).await;
    // Many holders ask at once, from many threads.
    let asking = (0..20).map(|n| {
        let keeper = Arc::clone(&keeper);
        tokio::spawn(async move { ask(&keeper, &[("rush", 3)], &n.to_string()).await })
    });
    let had = futures_util::future::try_join_all(asking).await.expect("they run");
    assert_eq!(had.iter().filter(|had| had.is_ok()).count(), 3);
}

/// Several permits are granted together or not at all.
pub async fn permits_are_had_together<S: StoreUnderTest>() {
    let subject = S::open().await;
    let keeper = subject.store().permits().expect("it keeps permits");
    let tokens = ask(&keeper, &[("a", 1), ("b", 1)], "x").await.expect("both are free");
    assert_eq!(tokens.len(), 2);
    assert_eq!(ask(&keeper, &[("a0", 1), ("b", 1)], "y").await, Err(1));
    assert!(holders(&keeper, "a0").await.is_empty(), "not one of two");
    keeper.release(&wants(&[("a", 1), ("b", 1)]), "x");
    soon("both are given back", async || ask(&keeper, &[("a0", 1), ("b", 1)], "y").await.is_ok()).await;
    assert!(ask(&keeper, &[("a", 1)], "z").await.is_ok());
}

/// A permit that is handed over is kept until its time is over, through the end of the process if the store is
/// durable.
pub async fn handed_over_permits_are_kept<S: StoreUnderTest>() {
    let mut subject = S::open().await;
    let keeper = subject.store().permits().expect("it keeps permits");
    let lock = [("lock", 1)];
    let token = ask(&keeper, &lock, "a").await.expect("it is free");
    keeper.park(&wants(&lock), "a", HOUR);
    assert_eq!(ask(&keeper, &lock, "b").await, Err(0));
    assert!(ask(&keeper, &[("short", 1)], "a").await.is_ok());
    keeper.park(&wants(&[("short", 1)]), "a", Duration::from_millis(1));
    soon("its time is over", async || ask(&keeper, &[("short", 1)], "b").await.is_ok()).await;
    drop(keeper);
    let store = subject.store();
    subject = match subject.reopen().await {
        Some(subject) => subject,
        None => return assert!(store.permits().is_some()),
    };
    drop(store);
    let keeper = subject.store().permits().expect("it keeps permits");
    assert_eq!(ask(&keeper, &lock, "b").await, Err(0));
    assert_eq!(ask(&keeper, &lock, "a").await, Ok(token), "it is still its own");
    keeper.release(&wants(&lock), "a");
    soon("it is given back", async || ask(&keeper, &lock, "b").await.is_ok()).await;
}

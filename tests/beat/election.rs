//! Several runtimes on one broker: one beat leads, and a tick is published once, whoever leads.

use std::sync::Arc;
use std::time::Duration;

use celeriac::Celeriac;
use celeriac::actors::BeatError;
use celeriac::broker::{Broker, MemoryBroker};
use celeriac::store::{MemoryStore, Store};

use crate::kit::{LONG, assert_each_once, builder, each, now, status, until, until_ran};

const INTERVAL: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_takes_over_and_no_tick_is_lost_or_doubled() {
    let store = Arc::new(MemoryStore::default());
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let begin = now();
    let start = async || {
        let store: Arc<dyn Store> = Arc::clone(&store) as _;
        builder()
            .broker(Arc::clone(&broker), store)
            .periodic(each("elected", INTERVAL))
            .start()
            .await
            .unwrap()
    };
    let leads = async |celeriac: &Celeriac| celeriac.beat().entries().await.is_ok();
    let first = start().await;
    until("the first leads", async || leads(&first).await).await;
    let second = start().await;
    until_ran("elected", 20).await;
    assert_eq!(second.beat().entries().await, Err(BeatError::NotAnswering), "one leads");
    let before = crate::kit::ran("elected").len();
    // The broker is closed with the runtime that it belongs to, so this one is only told to end its beat.
    first.beat().resign().await.unwrap();
    until("the second leads", async || leads(&second).await).await;
    until_ran("elected", before + 20).await;
    let end = status(&second, "elected").await.last;
    until("all ran", async || {
        let queue = second.queue("io").await.unwrap();
        queue.ready == 0 && queue.running == 0
    })
    .await;
    second.beat().resign().await.unwrap();
    first.shutdown_within(LONG).await.unwrap();
    second.shutdown_within(LONG).await.unwrap();
    assert_each_once("elected", INTERVAL, begin, end);
}

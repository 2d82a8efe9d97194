//! What a body pays for saying how far it is: `cargo bench --bench progress [-- --quick]`.
//!
//! Ten million calls of `ctx.progress` in a loop, and how many of them came to the store. The limit is the loop alone.

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use celeriac::broker::MemoryBroker;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::core::Timestamp;
use celeriac::store::{
    ChordStore, DuplicateStore, GroupStore, MemoryStore, Notes, SharedRates, Store, StoreError,
    UniqueWindowStore,
};
use celeriac::task::{PermitKeeper, TaskResult, TrackedState};
use celeriac::{Celeriac, Context, TaskId, task};
use support::figures::{Series, Table, goal};
use support::{headline, rounds, sized};

/// Nanoseconds that a call takes.
#[task(queue = "cpu")]
fn tell(ctx: &Context, calls: u64) -> f64 {
    let start = Instant::now();
    for call in 0..calls {
        ctx.progress(black_box(call), calls);
    }
    start.elapsed().as_nanos() as f64 / calls as f64
}

/// The loop alone.
#[task(queue = "cpu")]
fn count(calls: u64) -> f64 {
    let start = Instant::now();
    for call in 0..calls {
        black_box(call);
    }
    start.elapsed().as_nanos() as f64 / calls as f64
}

/// Counts what is told of tasks.
#[derive(Default)]
struct Counting {
    store: Arc<MemoryStore>,
    tracked: AtomicU64,
}

#[async_trait]
impl Store for Counting {
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        self.store.put(result).await
    }
    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        self.store.get(id, now).await
    }
    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        self.store.wait(id).await
    }
    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        self.store.forget(id).await
    }
    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.store.sweep(now).await
    }
    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        self.tracked.fetch_add(1, Ordering::Relaxed);
        self.store.track(state).await
    }
    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        self.store.tracked(id).await
    }
    async fn untrack(&self, id: &TaskId) -> Result<(), StoreError> {
        self.store.untrack(id).await
    }
    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        self.store.revoke(id, until).await
    }
    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        self.store.revoked(ids, now).await
    }
    fn is_known_revoked(&self, id: &TaskId, now: Timestamp) -> Option<bool> {
        self.store.is_known_revoked(id, now)
    }

    fn chords(&self) -> Option<&dyn ChordStore> {
        None
    }

    fn groups(&self) -> Option<&dyn GroupStore> {
        None
    }

    fn duplicates(&self) -> Option<&dyn DuplicateStore> {
        None
    }

    fn notes(&self) -> Option<&dyn Notes> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore> {
        None
    }

    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        None
    }
    fn shared_rates(&self) -> Option<&dyn SharedRates> {
        None
    }

    fn reply_to(&self) -> Option<String> {
        None
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    headline("progress");
    let calls = sized(10_000_000, 1_000_000);
    let store = Arc::new(Counting::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store.store)));
    let celeriac = Celeriac::builder()
        .broker(broker, Arc::clone(&store) as Arc<dyn Store>)
        .queue(QueueRow::new("cpu").with_pool(Pool::Cpu).with_workers(1))
        .start()
        .await
        .expect("it starts");
    let (mut told, mut bare, mut writes) = (Series::default(), Series::default(), Series::default());
    for _ in 0..rounds() {
        let before = store.tracked.load(Ordering::Relaxed);
        let each = tell::delay(calls).await.expect("accepted").get(Duration::from_secs(600)).await;
        told.push(each.expect("it counted"));
        writes.push((store.tracked.load(Ordering::Relaxed) - before) as f64);
        let each = count::delay(calls).await.expect("accepted").get(Duration::from_secs(600)).await;
        bare.push(each.expect("it counted"));
    }
    celeriac.shutdown().await.expect("it shuts down");
    let nanos = |ns: f64| format!("{ns:.1} ns");
    let mut table = Table::new(&[&format!("{calls} calls in a loop"), "progress", "the loop alone"]);
    table.row(["a call".to_owned(), told.show(nanos), bare.show(nanos)]);
    table.row(["writes to the store, in all".to_owned(), writes.show(|n| format!("{n:.0}")), String::new()]);
    table.print("ctx.progress");
    println!("\n{}", goal(told.median() <= 50.0, "a call takes no more than 50 ns"));
}

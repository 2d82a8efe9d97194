//! A runtime whose store's own counts can be asked: "settled" means that the store says so, on disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use celeriac::Celeriac;
use celeriac::broker::embedded::EmbeddedOptions;
use celeriac::broker::{Broker, EmbeddedBroker, MemoryBroker};
use celeriac::catalogue::{Catalogue, Pool, QueueRow};
use celeriac::store::{EmbeddedStore, MemoryStore, Store};
use celeriac::task::{Signature, Task};

use super::process::{free, size};

/// The tasks that are filled in by one call.
const AT_ONCE: u64 = 1_000;
/// What a waiting task takes on the disk, with the room in which the database tidies up.
const EACH: u64 = 1_000;
/// What a store takes besides: its log, and what it keeps free.
const BESIDES: u64 = 1 << 30;

/// A directory on the disk that is measured: the build's, or `CELERIAC_BENCH_DIR`.
pub fn directory() -> tempfile::TempDir {
    let parent =
        std::env::var("CELERIAC_BENCH_DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    tempfile::tempdir_in(parent).expect("the benchmark's directory is writable")
}

/// A runtime and its broker.
pub struct Running {
    pub celeriac: Celeriac,
    pub broker: Arc<dyn Broker>,
}

impl Running {
    /// On the embedded store in `dir`.
    pub async fn embedded(dir: &Path, catalogue: Catalogue) -> Self {
        let broker = EmbeddedBroker::open(dir, EmbeddedOptions::default()).expect("the store opens");
        let store = EmbeddedStore::new(broker.clone());
        Self::start(Arc::new(broker), Arc::new(store), catalogue).await
    }

    /// In memory.
    pub async fn memory(catalogue: Catalogue) -> Self {
        let store = Arc::new(MemoryStore::default());
        Self::start(Arc::new(MemoryBroker::new(Arc::clone(&store))), store, catalogue).await
    }

    async fn start(broker: Arc<dyn Broker>, store: Arc<dyn Store>, catalogue: Catalogue) -> Self {
        let builder = Celeriac::builder().catalogue(catalogue).broker(Arc::clone(&broker), store);
        Self { celeriac: builder.start().await.expect("the runtime starts"), broker }
    }

    /// Comes back when nothing of this queue waits or is unsettled. The store answers a count only after it has
    /// committed what came before, so this is what is on disk.
    pub async fn settled(&self, queue: &str) {
        loop {
            let counts = self.broker.counts(queue).await.expect("the broker counts");
            if (counts.ready, counts.unsettled, counts.scheduled, counts.in_line) == (0, 0, 0, 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub async fn shutdown(self) {
        self.celeriac.shutdown().await.expect("the runtime shuts down");
    }
}

/// A catalogue of one queue in the io pool, with so many workers.
pub fn one_queue(name: &str, workers: usize) -> Catalogue {
    Catalogue::new().with_queue(QueueRow::new(name).with_pool(Pool::Io).with_workers(workers))
}

/// How many tasks there are to be, of those that are wanted: as many as the disk takes.
pub fn fitting(dir: &Path, wanted: u64) -> u64 {
    let free = free(dir);
    let fit = free.saturating_sub(BESIDES) / EACH;
    if fit < wanted {
        println!("the disk has {} free, which takes {fit} of {wanted} waiting tasks", size(free));
    }
    wanted.min(fit).max(AT_ONCE)
}

/// Enqueues so many tasks, many at a time, or as many as there is time for. Answers with their number. `call`: that
/// with a number.
pub async fn fill<T: Task>(
    count: u64,
    patience: Duration,
    call: impl Fn(u64) -> Signature<T> + Send + Sync + 'static,
) -> u64 {
    let (next, call, start) = (Arc::new(AtomicU64::new(0)), Arc::new(call), Instant::now());
    let producers = (0..8).map(|_| {
        let (next, call) = (Arc::clone(&next), Arc::clone(&call));
        tokio::spawn(async move {
            let mut filled = 0;
            while start.elapsed() < patience {
                let first = next.fetch_add(AT_ONCE, Ordering::Relaxed);
                if first >= count {
                    break;
                }
                let calls = (0..AT_ONCE.min(count - first)).map(|offset| call(first + offset));
                filled += Signature::delay_many(calls).await.expect("accepted").len() as u64;
            }
            filled
        })
    });
    let mut filled = 0;
    for producer in producers.collect::<Vec<_>>() {
        filled += producer.await.expect("a producer ends");
    }
    filled
}

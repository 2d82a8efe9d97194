//! A runtime whose store's own counts can be asked: "settled" means that the store says so, on disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use celeriac::Celeriac;
use celeriac::broker::embedded::EmbeddedOptions;
use celeriac::broker::{Broker, EmbeddedBroker, MemoryBroker};
use celeriac::catalogue::{Catalogue, Pool, QueueRow};
use celeriac::store::{EmbeddedStore, MemoryStore, Store};

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

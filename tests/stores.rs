//! Each store keeps each promise.

use std::sync::Arc;

use async_trait::async_trait;
use celeriac::broker::{Broker, EmbeddedBroker, embedded::EmbeddedOptions};
use celeriac::store::conformance::Subject;
use celeriac::store::{EmbeddedStore, MemoryStore, Store};
use tempfile::TempDir;

mod memory {
    use super::*;

    struct Memory(Arc<MemoryStore>);

    #[async_trait]
    impl Subject for Memory {
        async fn open() -> Self {
            Self(Arc::default())
        }

        fn store(&self) -> Arc<dyn Store> {
            self.0.clone()
        }
    }

    celeriac::store_conformance!(Memory);
    celeriac::store_conformance!(Memory, notes);
}

mod embedded {
    use super::*;

    struct Embedded {
        dir: TempDir,
        broker: EmbeddedBroker,
    }

    impl Embedded {
        fn open_in(dir: TempDir) -> Self {
            let broker = EmbeddedBroker::open(dir.path(), EmbeddedOptions::default()).unwrap();
            Self { dir, broker }
        }
    }

    #[async_trait]
    impl Subject for Embedded {
        async fn open() -> Self {
            Self::open_in(tempfile::tempdir().unwrap())
        }

        fn store(&self) -> Arc<dyn Store> {
            Arc::new(EmbeddedStore::new(self.broker.clone()))
        }

        async fn reopen(self) -> Option<Self> {
            self.broker.close().await.unwrap();
            Some(Self::open_in(self.dir))
        }
    }

    celeriac::store_conformance!(Embedded, durable);
    celeriac::store_conformance!(Embedded, durable notes);

    #[tokio::test]
    async fn who_waits_hears_of_the_close() {
        let subject = Embedded::open().await;
        let store = subject.store();
        let waiting = tokio::spawn(async move { store.wait(&"never".into()).await });
        tokio::task::yield_now().await; // it waits now
        subject.broker.close().await.unwrap();
        assert_eq!(waiting.await.unwrap(), Err(celeriac::store::StoreError::Closed));
    }
}

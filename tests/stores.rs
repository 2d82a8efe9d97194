//! Each store keeps each promise.

use std::sync::Arc;

use async_trait::async_trait;
use celeriac::broker::{Broker, EmbeddedBroker, embedded::EmbeddedOptions};
use celeriac::store::conformance::StoreUnderTest;
use celeriac::store::{EmbeddedStore, MemoryStore, Store};
#[cfg(feature = "redis")]
use celeriac_test_support as services;
use tempfile::TempDir;

mod memory {
    use super::*;

    struct Memory(Arc<MemoryStore>);

    #[async_trait]
    impl StoreUnderTest for Memory {
        async fn open() -> Self {
            Self(Arc::default())
        }

        fn store(&self) -> Arc<dyn Store> {
            self.0.clone()
        }
    }

    celeriac::store_conformance!(Memory, chords, groups, notes, permits);
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
    impl StoreUnderTest for Embedded {
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

    celeriac::store_conformance!(Embedded, durable, groups, durable_groups, notes, durable_notes, permits);

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

#[cfg(feature = "redis")]
mod redis {
    use std::time::Duration;

    use celeriac::store::{RedisOptions, RedisStore};

    use super::*;
    use crate::services;

    struct Shared {
        store: RedisStore,
        prefix: String,
    }

    impl Shared {
        /// One server for all tests; each has keys of its own.
        async fn open_with(prefix: String) -> Self {
            let server = services::blocking(services::Redis::shared).await;
            let mut options = RedisOptions::default();
            options.global_keyprefix = Some(prefix.clone());
            // Longer than a process that is only slow takes, and short enough to be waited for.
            options.chord_lease = Duration::from_secs(5);
            let store = RedisStore::connect(&server.url_of(1), options).await.unwrap();
            Self { store, prefix }
        }
    }

    #[async_trait]
    impl StoreUnderTest for Shared {
        const EXPIRES_BY_ITSELF: bool = true;

        async fn open() -> Self {
            Self::open_with(celeriac::task::TaskId::new().to_string()).await
        }

        fn store(&self) -> Arc<dyn Store> {
            Arc::new(self.store.clone())
        }

        async fn reopen(self) -> Option<Self> {
            Some(Self::open_with(self.prefix).await)
        }
    }

    celeriac::store_conformance!(
        Shared,
        durable,
        shared,
        chords,
        groups,
        durable_groups,
        notes,
        durable_notes,
        windows,
        permits
    );
}

//! The embedded broker.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use celeriac::broker::conformance::BrokerUnderTest;
use celeriac::broker::{Broker, EmbeddedBroker, embedded::EmbeddedOptions};
use celeriac::store::{EmbeddedStore, Store};
use celeriac::task::Durability;
use tempfile::TempDir;

pub struct Embedded {
    broker: EmbeddedBroker,
    dir: TempDir,
}

impl Embedded {
    fn open_in(dir: TempDir) -> Self {
        let mut options = EmbeddedOptions::default();
        options.delivery_limit = Self::DELIVERY_LIMIT;
        Self { broker: EmbeddedBroker::open(dir.path(), options).unwrap(), dir }
    }
}

/// Copies a directory as it is: what `kill -9` leaves, since all writes are with the system.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[async_trait]
impl BrokerUnderTest for Embedded {
    const DURABILITY: Durability = Durability::Disk;
    const DELIVERY_LIMIT: u32 = 3;

    async fn open() -> Self {
        Self::open_in(tempfile::tempdir().unwrap())
    }

    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(EmbeddedStore::new(self.broker.clone()))
    }

    async fn reopen(self) -> Option<Self> {
        self.broker.close().await.unwrap();
        Some(Self::open_in(self.dir))
    }

    async fn crash(self) -> Option<Self> {
        let after = tempfile::tempdir().unwrap();
        copy(self.dir.path(), after.path());
        Some(Self::open_in(after))
    }
}

celeriac::broker_conformance!(Embedded, durable);
celeriac::broker_conformance!(Embedded, durable results);
celeriac::broker_conformance!(Embedded, durable lanes);
celeriac::broker_conformance!(Embedded, durable windows);
celeriac::broker_conformance!(Embedded, durable failed);
celeriac::broker_conformance!(Embedded, durable tenants);
celeriac::broker_conformance!(Embedded, durable bulk);

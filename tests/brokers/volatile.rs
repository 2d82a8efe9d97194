//! The embedded broker with tasks that ask to wait in memory.

use std::sync::Arc;

use async_trait::async_trait;
use celeriac::broker::Broker;
use celeriac::broker::conformance::Subject;
use celeriac::store::Store;
use celeriac::task::Durability;

use crate::embedded::Embedded;

struct Volatile(Embedded);

#[async_trait]
impl Subject for Volatile {
    const DURABILITY: Durability = Durability::Memory;

    async fn open() -> Self {
        Self(Embedded::open().await)
    }

    fn broker(&self) -> Arc<dyn Broker> {
        self.0.broker()
    }

    fn store(&self) -> Arc<dyn Store> {
        self.0.store()
    }
}

celeriac::broker_conformance!(Volatile);

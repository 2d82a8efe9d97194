//! The broker in memory.

use std::sync::Arc;

use async_trait::async_trait;
use celeriac::broker::conformance::BrokerUnderTest;
use celeriac::broker::{Broker, MemoryBroker};
use celeriac::store::{MemoryStore, Store};
use celeriac::task::Durability;

pub struct Memory {
    broker: Arc<MemoryBroker>,
    store: Arc<MemoryStore>,
}

#[async_trait]
impl BrokerUnderTest for Memory {
    const DURABILITY: Durability = Durability::Memory;

    async fn open() -> Self {
        let store = Arc::new(MemoryStore::default());
        Self { broker: Arc::new(MemoryBroker::new(store.clone())), store }
    }

    fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }
}

celeriac::broker_conformance!(Memory);
celeriac::broker_conformance!(Memory, results);
celeriac::broker_conformance!(Memory, lanes);
celeriac::broker_conformance!(Memory, windows);
celeriac::broker_conformance!(Memory, failed);
celeriac::broker_conformance!(Memory, tenants);
celeriac::broker_conformance!(Memory, bulk);

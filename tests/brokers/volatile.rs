//! The embedded broker with tasks that ask to wait in memory.

use std::sync::Arc;

use async_trait::async_trait;
use celeriac::broker::Broker;
use celeriac::broker::conformance::{BrokerUnderTest, sample};
use celeriac::store::Store;
use celeriac::task::{Durability, LaneName, SerialHeader};

use crate::embedded::Embedded;

struct Volatile(Embedded);

#[async_trait]
impl BrokerUnderTest for Volatile {
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
celeriac::broker_conformance!(Volatile, results);
celeriac::broker_conformance!(Volatile, failed);

// A lane has one place.
#[tokio::test(flavor = "multi_thread")]
async fn serial_tasks_are_on_disk_also_where_they_ask_for_memory() {
    let subject = Volatile::open().await;
    let mut message = sample("q", 0, Durability::Memory);
    message.serial = Some(Box::new(SerialHeader::new(LaneName::new("task", "key"))));
    let receipt = subject.broker().publish(message, false).await.unwrap();
    assert_eq!(receipt.durability, Durability::Disk);
}

//! The deliveries and consumers of a broker that may panic.
//!
//! A settlement that panics has been used up, and it is not known how far the broker came with it. Left alone, the
//! delivery would stay with a consumer that is done with it: the task would neither end nor come back, and take up
//! a place of the prefetch for ever. So the delivery is given back instead, and the task runs again. That counts as
//! a crash, so that an end at which the broker always panics makes a dead letter and no endless loop. If the broker
//! had settled the delivery all the same, it refuses what comes second.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::calm;
use crate::broker::{BrokerError, Consumer, Delivery, Settle, Settler};

/// How often a delivery is given back whose settlement has panicked. If the broker panics at each, the delivery stays
/// with its consumer until that is gone.
const TRIES: u32 = 3;

/// The delivery, with a settler that survives panics of the broker's.
pub(super) fn guarded(delivery: Delivery) -> Delivery {
    delivery.settled_by(|given| Arc::new(GuardedSettler(given)))
}

/// The consumer, with its panics caught.
pub(super) fn guarded_consumer(given: Box<dyn Consumer>) -> Box<dyn Consumer> {
    Box::new(GuardedConsumer(Some(given)))
}

struct GuardedSettler(Arc<dyn Settler>);

impl Settler for GuardedSettler {
    fn note_started(&self, tag: u64) {
        calm("note_started", || self.0.note_started(tag));
    }

    fn write_starts(&self) {
        calm("write_starts", || self.0.write_starts());
    }

    /// After a panic the end does not count, because it might be the second end of a task: the task runs again.
    fn check_fence(&self, tag: u64) -> Option<oneshot::Receiver<bool>> {
        calm("check_fence", || Some(self.0.check_fence(tag))).unwrap_or_else(|| {
            let (told, answer) = oneshot::channel();
            let _ = told.send(false); // the receiver is here
            Some(answer)
        })
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>) {
        let settled = |settle, done| {
            calm("settle", || {
                self.0.settle(tag, settle, done);
                true
            })
        };
        if settled(settle, done) {
            return;
        }
        // Whoever waits for the end hears that it is not safe, since `done` was dropped.
        if !(0..TRIES).any(|_| settled(Settle::Return { crashed: true }, None)) {
            tracing::error!(
                tag,
                "a delivery can be neither settled nor given back; it stays with its consumer"
            );
        }
    }
}

struct GuardedConsumer(Option<Box<dyn Consumer>>);

impl Consumer for GuardedConsumer {
    fn set_prefetch(&self, prefetch: usize) {
        if let Some(given) = &self.0 {
            calm("set_prefetch", || given.set_prefetch(prefetch));
        }
    }
}

impl Drop for GuardedConsumer {
    fn drop(&mut self) {
        let given = self.0.take();
        calm("the drop of a consumer", || drop(given));
    }
}

//! How deliveries of the broker in memory end: under the lock, with all that follows.

use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use super::queue::QueueIndex;
use super::{MemoryInner, MemorySpot};
use crate::broker::dead_letter::{crash_reason, crash_result};
use crate::broker::{BrokerError, Settle, Settler, lane};
use crate::task::Message;
use crate::task::clock::now;

/// Settles the deliveries of one queue.
pub(super) struct MemorySettler {
    pub(super) shared: Weak<MemoryInner>,
    pub(super) queue: QueueIndex,
}

impl Settler for MemorySettler {
    fn note_started(&self, _tag: u64) {} // no count outlives the process

    fn write_starts(&self) {}

    fn check_fence(&self, _tag: u64) -> Option<oneshot::Receiver<bool>> {
        None
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>) {
        let verdict = match self.shared.upgrade() {
            Some(shared) => self.settle_in(&shared, tag, settle),
            None => Err(BrokerError::Closed),
        };
        if let Some(done) = done {
            let _ = done.send(verdict);
        }
    }
}

impl MemorySettler {
    fn settle_in(&self, shared: &Arc<MemoryInner>, tag: u64, settle: Settle) -> Result<(), BrokerError> {
        let mut guard = shared.lock()?;
        let state = &mut *guard;
        let line = state.queues.get_mut(self.queue).ok_or(BrokerError::Stale)?;
        let (rank, at) = line.unsettled.remove(&tag).ok_or(BrokerError::Stale)?;
        let message = state.forget(at).ok_or(BrokerError::Stale)?;
        if let Some(line) = state.queues.get_mut(self.queue) {
            line.ready.ended(&message);
        }
        let (mut record, mut follows) = (None, None);
        let block = lane::block_of(&message, &settle);
        match settle {
            Settle::Ack { result, follow_ups } => {
                (record, follows) = (lane::kept(&message, result), follow_ups);
                state.leave_lane(&message, block);
                state.windows.release(&message);
            }
            Settle::Fail { failed, result, follow_ups } => {
                (record, follows) = (lane::kept(&message, result), follow_ups);
                state.leave_lane(&message, block);
                state.windows.release(&message);
                state.failed.keep(*failed, now());
            }
            Settle::Requeue { message: next, due } => {
                if message.lane() != next.lane() {
                    state.leave_lane(&message, None);
                }
                let queue = state.queue(&next.queue);
                if queue != self.queue {
                    state.stir(queue);
                }
                shared.arrive(state, Arc::new(*next), queue, due, false);
            }
            Settle::Return { crashed: false } => {
                state.put(message, self.queue, MemorySpot::Ready(rank));
            }
            Settle::Return { crashed: true } => {
                let mut message = Message::clone(&message);
                message.crashes = message.crashes.saturating_add(1);
                if message.crashes >= shared.delivery_limit && !message.is_in_canvas() {
                    record = Some(crash_result(&message));
                    state.leave_lane(&message, lane::blocks(&message, record.as_ref()));
                    state.windows.release(&message);
                    state.bury(&message, crash_reason(message.crashes));
                } else {
                    state.put(Arc::new(message), self.queue, MemorySpot::Ready(rank));
                }
            }
            Settle::DeadLetter { reason, result, follow_ups } => {
                (record, follows) = (result, follow_ups);
                state.leave_lane(&message, block);
                state.windows.release(&message);
                state.bury(&message, reason);
            }
        }
        if let Some(record) = record {
            shared.store.insert(record); // the record is stored under the lock, so that the task is never unknown
        }
        shared.follow(state, follows.map(|follow_ups| *follow_ups));
        shared.hand_over(guard, self.queue);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, Delivery, MemoryBroker, Sink};
    use crate::store::MemoryStore;
    use crate::task::Context;

    #[tokio::test]
    async fn two_tasks_of_one_id_end_each_for_itself() {
        let broker = MemoryBroker::new(Arc::new(MemoryStore::default()));
        for _ in 0..2 {
            let (id, queue) = ("one".into(), "q".to_owned());
            let message = Message { id, queue, ..Context::detached().message().clone() };
            broker.publish(message, false).await.unwrap();
        }
        let (sender, inbox) = std::sync::mpsc::channel();
        let sink: Sink = Arc::new(move |deliveries: Vec<Delivery>| {
            deliveries.into_iter().for_each(|delivery| sender.send(delivery).unwrap());
        });
        let _consumer = broker.consume("q", 1, sink).unwrap();
        for is_known in [true, false] {
            let delivery = inbox.try_recv().expect("the next delivery");
            delivery.settle(Settle::Ack { result: None, follow_ups: None });
            assert_eq!(broker.knows(&"one".into()).unwrap(), is_known);
        }
        assert!(inbox.try_recv().is_err());
    }
}

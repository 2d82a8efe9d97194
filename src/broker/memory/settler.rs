//! How deliveries of the broker in memory end: under the lock, with all that follows.

use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use super::{MemoryInner, MemorySpot};
use crate::broker::dead_letter::{crash_reason, crash_result};
use crate::broker::{BrokerError, Settle, Settler, lane};
use crate::task::Message;
use crate::task::clock::now;

/// Settles the deliveries of one queue.
pub(super) struct MemorySettler {
    pub(super) shared: Weak<MemoryInner>,
    pub(super) queue: String,
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
        let mut state = shared.lock()?;
        let line = state.line(&self.queue);
        let (rank, message) = line.unsettled.remove(&tag).ok_or(BrokerError::Stale)?;
        line.ready.ended(&message);
        state.forget(&message.id);
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
                if next.queue != self.queue {
                    state.stirred.push(next.queue.clone());
                }
                shared.arrive(&mut state, Arc::new(*next), due, false);
            }
            Settle::Return { crashed: false } => state.put(message, MemorySpot::Ready(rank)),
            Settle::Return { crashed: true } => {
                let mut message = Message::clone(&message);
                message.crashes = message.crashes.saturating_add(1);
                if message.crashes >= shared.delivery_limit && !message.is_in_canvas() {
                    record = Some(crash_result(&message));
                    state.leave_lane(&message, lane::blocks(&message, record.as_ref()));
                    state.windows.release(&message);
                    state.bury(&message, crash_reason(message.crashes));
                } else {
                    state.put(Arc::new(message), MemorySpot::Ready(rank));
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
        let queues = shared.follow(&mut state, follows.map(|follow_ups| *follow_ups));
        drop(state);
        shared.hand_over(&self.queue);
        queues.iter().for_each(|queue| shared.hand_over(queue));
        Ok(())
    }
}

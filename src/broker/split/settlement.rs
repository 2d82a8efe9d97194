//! How a delivery ends whose record is kept in a store beside its broker. The settler here stands in front of the
//! transport's; an end that needs no store passes through to it.
//!
//! The steps of an end, each with what happens when the process dies right after it:
//!
//! 1. The unique window ends. The task runs again while its window is free; that loses no task.
//! 2. The record is kept. The task is delivered again; its record stays as it is, because the first one is final.
//! 3. Chords are opened and counted. Each member counts once, however often it is counted.
//! 4. The messages that follow are published. They are published again under the same ids.
//! 5. The delivery is acknowledged. From here on the task is over for the transport.
//! 6. Chords that this end has completed are closed. Their parts expire.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use super::SplitInner;
use crate::broker::copies::{self, is_next};
use crate::broker::{BrokerError, Delivery, Settle, Settler};
use crate::task::{Message, TaskResult};

type DoneSender = oneshot::Sender<Result<(), BrokerError>>;

/// The delivery, with a settler that keeps its end in the store.
pub(super) fn through(shared: &Weak<SplitInner>, delivery: Delivery) -> Delivery {
    let message = Arc::clone(delivery.message());
    delivery.settled_by(|inner| {
        Arc::new(SplitSettler { shared: Weak::clone(shared), inner, message, ended: AtomicBool::new(false) })
    })
}

/// Settles one delivery. It keeps neither store nor transport alive, so that leases of a process that has let go of
/// them are not renewed.
struct SplitSettler {
    shared: Weak<SplitInner>,
    inner: Arc<dyn Settler>,
    message: Arc<Message>,
    ended: AtomicBool,
}

impl Settler for SplitSettler {
    fn note_started(&self, tag: u64) {
        self.inner.note_started(tag);
    }

    fn write_starts(&self) {
        self.inner.write_starts();
    }

    fn check_fence(&self, tag: u64) -> Option<oneshot::Receiver<bool>> {
        self.inner.check_fence(tag)
    }

    fn settle(&self, tag: u64, mut settle: Settle, done: Option<DoneSender>) {
        if self.ended.swap(true, Ordering::AcqRel) {
            // A second end has no effect, so its record must not be kept.
            done.map(|done| done.send(Err(BrokerError::Stale)));
            return;
        }
        if let Settle::Requeue { message: next, .. } = &mut settle
            && is_next(next, &self.message)
            && let Some(shared) = self.shared.upgrade()
        {
            copies::mark(std::slice::from_mut(&mut **next), &*shared.transport, &*shared.store);
        }
        if self.is_the_transports(&settle) {
            return self.inner.settle(tag, settle, done);
        }
        // If the steps below are not finished, the delivery drops and goes back, and counts as a crash.
        let mut delivery = Delivery::new(tag, Arc::clone(&self.message), Arc::clone(&self.inner));
        delivery.at_risk();
        let Some(shared) = self.shared.upgrade() else { return };
        let ending = EndGuard::begin(&shared);
        shared.runtime.spawn(async move { ending.0.end(delivery, settle, done).await });
    }
}

impl SplitSettler {
    /// Whether this end concerns the transport only: there is no record, nothing follows, and no window ends.
    fn is_the_transports(&self, settle: &Settle) -> bool {
        match settle {
            Settle::Ack { result, follow_ups }
            | Settle::Fail { result, follow_ups, .. }
            | Settle::DeadLetter { result, follow_ups, .. } => {
                result.is_none() && follow_ups.is_none() && self.message.unique.is_none()
            }
            Settle::Requeue { message: next, .. } => !comes_to_a_lane(&self.message, next),
            Settle::Return { .. } => true,
        }
    }
}

/// Whether the message that takes the place of `message` goes into a lane and `message` has none: it must be
/// published, because the transport cannot move it there.
fn comes_to_a_lane(message: &Message, next: &Message) -> bool {
    message.serial.is_none() && next.serial.is_some()
}

/// An end that is being kept. A close waits until it is dropped.
struct EndGuard(Arc<SplitInner>);

impl EndGuard {
    fn begin(shared: &Arc<SplitInner>) -> Self {
        shared.ending.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.ending.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_waiters();
    }
}

impl SplitInner {
    async fn end(&self, delivery: Delivery, mut settle: Settle, done: Option<DoneSender>) {
        let message = Arc::clone(delivery.message());
        let plan_follow_ups =
            |message: &Message, record: &mut TaskResult| self.plan_follow_ups(message, record);
        let completer = self.completer(&plan_follow_ups);
        let mut completed = Vec::new();
        match &mut settle {
            Settle::Ack { result, follow_ups }
            | Settle::Fail { result, follow_ups, .. }
            | Settle::DeadLetter { result, follow_ups, .. } => {
                // 1. Before the record: whoever reads the record and makes the same call again must get a task of
                //   its own.
                completer.end_window(&message).await;
                // 2. Before all that follows: whoever sees that begin must see how this task ended.
                if let Some(record) = take_record(&message, result) {
                    completer.keep(record).await;
                }
                if let Some(follow_ups) = follow_ups {
                    // 3. Before the messages: a member of a chord is counted by the chord's size.
                    let messages;
                    (messages, completed) = completer.count(std::mem::take(&mut **follow_ups)).await;
                    // 4. Serial messages are published here, because each must enter its lane. The transport
                    //   publishes the others together with step 5.
                    let (serial, plain) = messages.into_iter().partition(|message| message.serial.is_some());
                    completer.publish(serial).await;
                    follow_ups.messages = plain;
                }
            }
            Settle::Requeue { message: next, .. } => {
                completer.publish(vec![Message::clone(next)]).await;
                settle = Settle::Ack { result: None, follow_ups: None };
            }
            Settle::Return { .. } => {}
        }
        if completed.is_empty() {
            return delivery.end(settle, done);
        }
        let settled = delivery.settle_and_wait(settle).await;
        if settled.is_ok() {
            completer.close(completed).await;
        }
        done.map(|done| done.send(settled));
    }
}

/// Takes out the record that the store is to keep. The record of a serial task also stays in the settlement,
/// because the lane must know how its task ended; the store gets it only if the result is kept.
fn take_record(message: &Message, result: &mut Option<TaskResult>) -> Option<TaskResult> {
    if message.serial.is_none() {
        return result.take();
    }
    result.clone().filter(|_| !message.ignore_result)
}

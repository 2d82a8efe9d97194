//! Lanes for a broker that keeps none: who waits for a lane lies in Redis, who is let in goes through the broker.
//!
//! Redis decides, each time in one step ([`store::redis`](crate::store::redis), `lanes.lua`): who enters, who waits, who is
//! next. So the order, the policies, the concurrency and the facts are the same for all processes, and nothing of a lane is in
//! the memory of one. The life of a serial message:
//!
//! - It *comes* ([`Shared::come`]): it waits in Redis, or is let in, gets a pass, and is published with it.
//! - It is *sent* ([`sending`]): what was let in and is not known to be published is sent again after a lease, by any process.
//! - It *starts* ([`intake`]): a delivery has to show the pass that counts. The process holds it from then on, under a token
//!   that is higher than all before it, for as long as it renews its lease ([`claims`]). One whose process may be alive is not
//!   started by another.
//! - It *ends* ([`settlement`]): what follows is published, then the lane is released and the next ones are let in, then the
//!   delivery is acknowledged. An end under a token that does not count any more is refused.
//!
//! A process that is gone: on its own machine the others see that; elsewhere its lease ends, and what it held is sent anew.

mod attendant;
mod claims;
mod intake;
mod process;
mod sending;
mod settlement;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::lane::{self, LaneFacts, LaneLever, SHOWN, Waiting};
use super::{
    Attendant, Broker, BrokerError, Consumer, Counts, DeadLetter, Noted, Place, RecordFn, Remains, Removal,
    Sink,
};
use crate::store::redis::lanes::{Arrived, Facts, Lanes, Seat, Taken};
use crate::store::{NoteChange, Notes, RedisStore, Store, StoreError};
use crate::task::clock::now;
use crate::task::{Durability, LaneName, Message, Pass, Receipt, Refusal, TaskId};
use claims::Claims;

/// How long a close waits for what ends.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// So many of the messages of one call are on their way at a time.
const IN_FLIGHT: usize = 1024;

/// A broker with lanes in front of it.
pub struct LanedBroker {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<dyn Broker>,
    lanes: Lanes,
    claims: Claims,
    /// So many runs that ended with their process make a dead letter.
    delivery_limit: u32,
    attendant: OnceLock<Arc<dyn Attendant>>,
    /// Everything happens on the thread of the store.
    runtime: Handle,
    closing: CancellationToken,
    /// Something is due earlier than was known.
    earlier: Notify,
    /// Something is held, and nothing was.
    holding: Notify,
    /// Something that was held has ended.
    ended: Notify,
    confirmed: mpsc::UnboundedSender<(TaskId, Option<Pass>)>,
}

impl LanedBroker {
    /// Keeps the lanes of `inner` in the database of `store`. Its other processes must use the same one.
    ///
    /// So many runs that ended with their process (`delivery_limit`) make a dead letter of a serial task.
    pub async fn open(inner: Arc<dyn Broker>, store: RedisStore, delivery_limit: u32) -> Self {
        let runtime = store.runtime().clone();
        let lanes = Lanes::new(store);
        for doubt in lanes.doubts().await {
            tracing::warn!(
                redis = lanes.store().address(),
                "lanes of serial tasks are kept in Redis, and {doubt}"
            );
        }
        let (confirmed, sent) = mpsc::unbounded_channel(); // bounded by what is sent
        let shared = Arc::new(Shared {
            inner,
            claims: Claims::new(lanes.lease()),
            lanes,
            delivery_limit,
            attendant: OnceLock::new(),
            runtime,
            closing: CancellationToken::new(),
            earlier: Notify::new(),
            holding: Notify::new(),
            ended: Notify::new(),
            confirmed,
        });
        let until = |closing: CancellationToken, work: future::BoxFuture<'static, ()>| async move {
            let _ = closing.run_until_cancelled(work).await;
        };
        for work in [
            Box::pin(Arc::clone(&shared).renew()) as future::BoxFuture<'static, ()>,
            Box::pin(Arc::clone(&shared).sweep()),
            Box::pin(Arc::clone(&shared).confirm(sent)),
        ] {
            shared.runtime.spawn(until(shared.closing.clone(), work));
        }
        Self { shared }
    }
}

impl Drop for LanedBroker {
    /// What is held is given up: others have it after the lease.
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

fn broken(error: StoreError) -> BrokerError {
    match error {
        StoreError::Closed => BrokerError::Closed,
        error => BrokerError::Io(error.to_string()),
    }
}

impl Shared {
    /// Publishes a message: a serial one comes to its lane. With an ETA it does so when that has come, as a delivery without a
    /// pass.
    async fn take_in(
        self: &Arc<Self>,
        message: Message,
        is_new: bool,
        unique: bool,
    ) -> Result<Receipt, BrokerError> {
        if lane::lane_of(&message).is_none() || message.eta.is_some_and(|eta| eta > now()) {
            return self.inner.publish(message, unique).await;
        }
        self.come(message, is_new, unique).await
    }

    /// A message comes to its lane. If it `is_new`, its policy for newcomers applies.
    async fn come(
        self: &Arc<Self>,
        mut message: Message,
        is_new: bool,
        unique: bool,
    ) -> Result<Receipt, BrokerError> {
        let Some(serial) = message.serial.as_deref_mut() else {
            return self.inner.publish(message, unique).await;
        };
        serial.pass = None;
        let (id, queue) = (message.id.clone(), message.queue.clone());
        let Some(serial) = message.serial.as_deref() else { return Err(BrokerError::Stale) };
        let (arrived, due) = self.lanes.arrive(&message, serial, is_new, unique).await.map_err(broken)?;
        self.send_soon(due);
        let receipt = Receipt::new(id.clone(), queue, Durability::Disk);
        match arrived {
            Arrived::In(pass) => {
                if let Err(error) = self.publish_with(message, pass).await {
                    self.undo(id, pass).await;
                    return Err(error);
                }
                let _ = self.confirmed.send((id, Some(pass)));
                Ok(receipt)
            }
            Arrived::Refused => {
                let refused = lane::refused(message, Refusal::CouldNotAcquireLock);
                self.inner.publish(refused, false).await
            }
            Arrived::Joined(other) => Ok(receipt.joining(other)),
            Arrived::Taken => Err(BrokerError::DuplicateId(id)),
            Arrived::Waits => {
                if serial.patience().is_some() {
                    self.earlier.notify_one();
                }
                Ok(receipt)
            }
        }
    }

    async fn publish_with(&self, mut message: Message, pass: Pass) -> Result<Receipt, BrokerError> {
        if let Some(serial) = &mut message.serial {
            serial.pass = Some(pass);
        }
        self.inner.publish(message, false).await
    }

    /// Whoever is told that it was not taken must be right, even if RabbitMQ has it: without its pass it does not start.
    async fn undo(self: &Arc<Self>, id: TaskId, pass: Pass) {
        match self.lanes.undo(&id, pass).await {
            Ok(due) => self.send_soon(due),
            Err(error) => {
                tracing::warn!(%id, %error, "a task that could not be published stays in its lane, and is sent later");
            }
        }
    }
}

fn facts_of(facts: Facts) -> LaneFacts {
    LaneFacts {
        concurrency: facts.adjusted.unwrap_or(facts.stated),
        is_adjusted: facts.adjusted.is_some(),
        holders: facts.holders,
        waiting: facts.waiting,
        next: facts.first.iter().map(Waiting::of).collect(),
        blocked: facts.blocked,
        name: facts.name,
    }
}

#[async_trait]
impl Broker for LanedBroker {
    fn name(&self) -> &'static str {
        self.shared.inner.name()
    }

    fn settles_results(&self) -> bool {
        false
    }

    fn is_shared(&self) -> bool {
        self.shared.inner.is_shared()
    }

    fn delivery_limit(&self) -> Option<u32> {
        self.shared.inner.delivery_limit()
    }

    fn is_away(&self) -> bool {
        self.shared.inner.is_away()
    }

    fn keeps_lanes(&self) -> bool {
        true
    }

    fn knows_all(&self) -> bool {
        self.shared.inner.knows_all()
    }

    fn notes(&self) -> Option<&dyn Notes> {
        self.shared.inner.notes()
    }

    async fn publish_noted(&self, message: Message, change: NoteChange) -> Result<Noted, BrokerError> {
        self.shared.inner.publish_noted(message, change).await
    }

    fn attend(&self, attendant: Arc<dyn Attendant>) {
        if self.shared.attendant.set(Arc::clone(&attendant)).is_ok() {
            self.shared.inner.attend(Arc::new(attendant::Front::new(attendant, &self.shared)));
        }
    }

    async fn tell_revoked(&self, ids: &[TaskId], terminate: bool) -> Result<(), BrokerError> {
        self.shared.inner.tell_revoked(ids, terminate).await
    }

    async fn declare(&self, queue: &str) -> Result<(), BrokerError> {
        self.shared.inner.declare(queue).await
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        self.shared.inner.queues().await
    }

    async fn publish(&self, message: Message, unique: bool) -> Result<Receipt, BrokerError> {
        let is_new = !message.is_in_canvas();
        self.shared.take_in(message, is_new, unique).await
    }

    async fn publish_all(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        if messages.iter().all(|message| lane::lane_of(message).is_none()) {
            return self.shared.inner.publish_all(messages, sizes, unique).await;
        }
        let publish = |message: Message| self.shared.take_in(message, false, unique);
        let all = stream::iter(messages).map(publish);
        all.buffered(IN_FLIGHT).try_for_each(|_| future::ready(Ok(()))).await
    }

    fn consume(&self, queue: &str, prefetch: usize, sink: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        intake::consume(&self.shared, queue, prefetch, sink)
    }

    async fn counts(&self, queue: &str) -> Result<Counts, BrokerError> {
        let in_line = self.shared.lanes.in_line(queue).await.map_err(broken)?;
        Ok(Counts { in_line, ..self.shared.inner.counts(queue).await? })
    }

    async fn find(&self, id: &TaskId) -> Result<Option<Place>, BrokerError> {
        match self.shared.lanes.find(id).await.map_err(broken)? {
            Seat::Waiting(message) => Ok(Some(Place::Waiting(message))),
            Seat::Held | Seat::Unknown => self.shared.inner.find(id).await,
        }
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        let (taken, due) = self.shared.lanes.remove(id).await.map_err(broken)?;
        self.shared.send_soon(due);
        match taken {
            Taken::Unknown => self.shared.inner.remove(id, record).await,
            Taken::Held { queue } if self.shared.claims.has(id) => Ok(Removal::Delivered { queue }),
            Taken::Held { .. } => Ok(Removal::Unknown),
            Taken::Removed(message) => {
                let Remains { record, sequel } = record(&message);
                if let Some(record) = record {
                    self.shared.lanes.store().put(record).await.map_err(broken)?;
                }
                if let Some(sequel) = sequel {
                    self.publish_all(sequel.messages, Vec::new(), false).await?;
                }
                Ok(Removal::Removed)
            }
        }
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.shared.inner.dead_letters(limit).await
    }

    async fn revive(&self, id: &TaskId) -> Result<bool, BrokerError> {
        self.shared.inner.revive(id).await
    }

    async fn revive_all(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        self.shared.inner.revive_all(ids).await
    }

    async fn lane(&self, lane: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        Ok(self.shared.lanes.facts(lane, SHOWN).await.map_err(broken)?.map(facts_of))
    }

    async fn lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        let all = self.shared.lanes.all(limit).await.map_err(broken)?;
        Ok(all.into_iter().map(facts_of).collect())
    }

    async fn steer_lane(&self, lane: &LaneName, lever: LaneLever) -> Result<bool, BrokerError> {
        let (moved, due) = match lever {
            LaneLever::Unblock => self.shared.lanes.unblock(lane).await,
            LaneLever::Concurrency(limit) => self.shared.lanes.adjust(lane, limit).await,
        }
        .map_err(broken)?;
        self.shared.send_soon(due);
        Ok(moved)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        let shared = Arc::clone(&self.shared);
        let quiet = shared.runtime.clone().spawn(async move {
            let _ = tokio::time::timeout(CLOSE_PATIENCE, shared.quiet()).await;
            let _ = shared.lanes.depart(&shared.claims.process()).await;
        });
        let _ = quiet.await;
        self.shared.closing.cancel();
        self.shared.inner.close().await
    }
}

//! The channel of a line: how the line opens it, follows it, loses it, and opens it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use tokio::time::{Instant, timeout};

use super::super::acks::{AckWindow, Acks};
use super::super::link::{LinkState, LiveConnection, ReconnectPause};
use super::super::partitions::ready;
use super::super::prefetch::PrefetchChange;
use super::super::topology::{NOT_FOUND, broken, short};
use super::deletion::QueueDoubt;
use super::guard_queue::GuardQueue;
use super::{DeliveryLocation, QueueConsumer};
use crate::broker::BrokerError;
use crate::rabbitmq::code;
use crate::rabbitmq::frame_guard::UnreadWatch;

/// How long RabbitMQ may take to answer on a channel.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The most messages of a consumer that the line takes at once.
const CHUNK: usize = 64;

/// A channel, and the deliveries that are unsettled on it.
pub(super) struct Flow {
    pub(super) channel: Channel,
    pub(super) window: AckWindow,
    /// The properties of messages on this channel that cannot be read.
    pub(super) unread: UnreadWatch,
    /// The epoch of the channel's connection.
    pub(super) connection: u64,
    /// Whether the channel is gone. A delivery that came through it and has not started must then not start.
    pub(super) lapsed: Arc<AtomicBool>,
    /// The guard queue for old deliveries, once there are some.
    pub(super) guard_queue: Option<GuardQueue>,
}

/// What has arrived from one consumer of the channel.
pub(super) struct ConsumedBatch {
    pub(super) consumer: u64,
    /// The messages that were there at once.
    pub(super) deliveries: Vec<lapin::message::Delivery>,
    /// The consumer has ended: this process or RabbitMQ cancelled it, or its channel is gone.
    pub(super) end: Option<Option<lapin::Error>>,
}

/// The streams of all consumers of a line.
pub(super) type ConsumerStreams = SelectAll<BoxStream<'static, ConsumedBatch>>;

/// The number of the consumer that reads the guard queue.
pub(super) const KEEPER: u64 = u64::MAX;

/// The messages that a consumer gets, and its end.
pub(super) fn follow(consumer: u64, stream: lapin::Consumer) -> BoxStream<'static, ConsumedBatch> {
    let arrived = move |chunk: Vec<lapin::Result<_>>| {
        let mut arrived = ConsumedBatch { consumer, deliveries: Vec::with_capacity(chunk.len()), end: None };
        for next in chunk {
            match next {
                Ok(delivery) => arrived.deliveries.push(delivery),
                Err(error) => arrived.end = Some(Some(error)),
            }
        }
        arrived
    };
    let end = async move { ConsumedBatch { consumer, deliveries: Vec::new(), end: Some(None) } };
    stream.ready_chunks(CHUNK).map(arrived).chain(stream::once(end)).boxed()
}

impl Flow {
    /// Sends the acknowledgements. Returns `false` if the channel is gone.
    fn acknowledge(channel: &Channel, acks: Acks) -> bool {
        let ack = |tag, multiple| sent(channel.basic_ack(tag, BasicAckOptions { multiple }));
        acks.cumulative.is_none_or(|tag| ack(tag, true)) && acks.single.into_iter().all(|tag| ack(tag, false))
    }

    /// Asks how many messages RabbitMQ has ready in these queues, after everything that was sent on this channel.
    pub(super) async fn ready(&self, queues: &[String]) -> Option<u64> {
        let ready = timeout(PATIENCE, ready(&self.channel, queues)).await.ok()?;
        ready.into_iter().try_fold(0_u64, |all, ready| Some(all.saturating_add(ready?)))
    }

    /// Closes the channel. When RabbitMQ has answered, it has also received the acknowledgements before the close.
    pub(super) async fn close(self) {
        if let Some(guard_queue) = self.guard_queue {
            let _ = timeout(PATIENCE, guard_queue.channel.close(200, "OK".into())).await;
        }
        let _ = timeout(PATIENCE, self.channel.close(200, "OK".into())).await;
    }
}

/// Puts a frame that has no answer on its way. Frames are written in the order of these calls. Returns `false` if the
/// channel is gone.
pub(super) fn sent(frame: impl Future<Output = lapin::Result<()>>) -> bool {
    !matches!(frame.now_or_never(), Some(Err(_)))
}

impl QueueConsumer {
    /// Opens the channel if the line needs one and may have one, and begins and ends consumers as the prefetch plan
    /// says.
    pub(super) async fn look_after_channel(&mut self) {
        // The line comes here in each turn, and mostly there is nothing to do.
        let is_up = matches!(&*self.link.borrow_and_update(), LinkState::Up(up)
            if self.flow.as_ref().is_some_and(|flow| flow.connection == up.epoch));
        if is_up && self.doubt.is_none() && self.retry_at.is_none() && self.plan.is_settled() {
            return;
        }
        let state = self.link.borrow_and_update().clone();
        match (&self.flow, &state) {
            (Some(flow), LinkState::Up(up)) if flow.connection == up.epoch => {}
            (Some(_), LinkState::Up(_)) => self.lose("its connection was replaced"),
            (Some(_), LinkState::Down(why)) => self.lose(why),
            (None, _) => {}
        }
        let LinkState::Up(up) = state else {
            self.retry_at = None; // the link says when a connection is up again
            return;
        };
        self.look_for_queue().await;
        if self.retry_at.is_some_and(|at| at > Instant::now())
            || self.consumer.is_none() && self.flow.is_none()
        {
            return;
        }
        if self.retry_at.take().is_some() {
            self.look_again().await;
        }
        let link = Arc::clone(&self.shared.link);
        match timeout(PATIENCE, link.during(self.follow_ration(&up))).await {
            Ok(Ok(())) => self.pause = ReconnectPause::default(),
            Ok(Err(error)) => self.lose(&error.to_string()),
            Err(_) => self.lose("RabbitMQ does not answer"),
        }
    }

    /// Opens the channel if there is none, and carries out the changes that the prefetch plan asks for.
    async fn follow_ration(&mut self, up: &LiveConnection) -> Result<(), BrokerError> {
        if self.flow.is_none() {
            self.shared.topology.declare(&self.queue).await?;
            self.bind_again().await?;
            if self.shared.options.is_broadcast(&self.queue) {
                let own = self.shared.topology.own_queue(&self.queue, up).await?;
                self.take_from(own);
            }
            let channel = up.connection.create_channel().await.map_err(|e| broken(&e))?;
            let window = AckWindow::default();
            let lapsed = Arc::default();
            let unread = up.aside.watch(channel.id());
            self.flow =
                Some(Flow { channel, window, unread, connection: up.epoch, lapsed, guard_queue: None });
            tracing::debug!(queue = self.queue, "consuming");
        }
        while let Some(change) = self.plan.next() {
            let Some(flow) = &self.flow else { return Ok(()) };
            match change {
                PrefetchChange::Begin(consumer, limit) => {
                    // Each consumer has its own limit, because quorum queues and RabbitMQ 4 have no other kind of
                    // limit.
                    let limit = u16::try_from(limit).unwrap_or(u16::MAX);
                    let qos = flow.channel.basic_qos(limit, BasicQosOptions { global: false });
                    qos.await.map_err(|e| broken(&e))?;
                    let tag = format!("{}-{consumer}", self.shared.node());
                    let options = BasicConsumeOptions::default();
                    let source = self.plan.source_of(consumer);
                    let stream = flow.channel.basic_consume(
                        short(self.source_at(source))?,
                        short(&tag)?,
                        options,
                        FieldTable::default(),
                    );
                    let stream = stream.await.map_err(|error| {
                        if code(&error) == Some(NOT_FOUND) {
                            self.doubt = Some(QueueDoubt::Cancelled);
                            self.cancelled.insert(source);
                        }
                        broken(&error)
                    });
                    self.streams.push(follow(consumer, stream?));
                }
                PrefetchChange::End(consumer) => {
                    let tag = format!("{}-{consumer}", self.shared.node());
                    let cancel = flow.channel.basic_cancel(short(&tag)?, BasicCancelOptions::default());
                    cancel.await.map_err(|e| broken(&e))?;
                }
            }
        }
        Ok(())
    }

    /// Binds a queue that was made anew to the end of the delays, where tasks may be waiting for it.
    async fn bind_again(&mut self) -> Result<(), BrokerError> {
        if !self.remade {
            return Ok(());
        }
        for queue in std::iter::once(&self.queue).chain(&self.partitions) {
            match self.shared.topology.bind_to_delays(queue).await {
                Err(error) if error.is_permanent() => {
                    tracing::warn!(queue, %error, "the queue cannot be bound to the end of the delays");
                }
                bound => bound?,
            }
        }
        self.remade = false;
        Ok(())
    }

    /// Deals with the end of a consumer.
    pub(super) fn ended(&mut self, consumer: u64, error: Option<lapin::Error>) {
        let Some(flow) = &self.flow else { return };
        let gone = !flow.channel.status().connected();
        if consumer == KEEPER {
            let keeper_gone = flow.guard_queue.as_ref().is_some_and(|k| !k.channel.status().connected());
            if gone || keeper_gone {
                self.lose("the channel of the deliveries in the guard queue is closed");
            }
        } else if gone {
            if let Some(error) = error.as_ref().filter(|error| code(error) == Some(NOT_FOUND)) {
                self.note_missing(&error.to_string());
            }
            let why = error.map_or_else(|| "the channel is closed".to_owned(), |error| error.to_string());
            self.lose(&why);
        } else if self.plan.is_live(consumer) {
            // RabbitMQ has cancelled the consumer: the queue was deleted, or has moved to another node.
            self.note_cancelled(self.plan.source_of(consumer));
            self.lose("RabbitMQ has cancelled the consumer; was the queue deleted?");
        }
    }

    /// Gives the channel up, because it is gone or must be closed. RabbitMQ delivers the unsettled messages again. The
    /// line opens another channel after a pause.
    pub(super) fn lose(&mut self, why: &str) {
        let pause = self.pause.next();
        tracing::warn!(
            queue = self.queue,
            why,
            out = self.in_flight.len(),
            ?pause,
            "not consuming; trying again"
        );
        self.shared.topology.forget();
        self.retry_at = Some(Instant::now() + pause);
        self.streams = super::ConsumerStreams::default();
        self.plan.clear();
        if let Some(flow) = self.flow.take() {
            flow.lapsed.store(true, Ordering::Release);
            // If only a consumer has ended, the channel is still open. The deliveries that are unsettled on it must not
            // stay there.
            self.shared.runtime.spawn(flow.close());
        }
        self.doubt = self.doubt.max(Some(QueueDoubt::Away));
        // A delivery that was not handed to a consumer simply comes again, unless its queue was deleted.
        if self.doubt == Some(QueueDoubt::Away) {
            self.forget_early(None);
        }
        let tags: Vec<u64> = self.in_flight.keys().copied().collect();
        for tag in tags {
            self.lost(tag);
        }
    }

    /// Acknowledges the settled deliveries, and answers the callers who wait for an acknowledgement.
    pub(super) fn flush(&mut self) {
        let mut alive = true;
        if let Some(flow) = &mut self.flow {
            alive = Flow::acknowledge(&flow.channel, flow.window.flush());
            if let Some(guard_queue) = &mut flow.guard_queue {
                alive &= Flow::acknowledge(&guard_queue.channel, guard_queue.window.flush());
            }
        }
        if let Some(flow) = self.flow.as_ref().filter(|_| !self.flushed.is_empty()) {
            // RabbitMQ does not answer an acknowledgement, but it answers a question, and it handles both in order.
            // This question changes nothing, because nothing is published on this channel.
            let (channel, waiting) = (flow.channel.clone(), std::mem::take(&mut self.flushed));
            self.shared.runtime.spawn(async move {
                let arrived = channel.confirm_select(ConfirmSelectOptions::default());
                let arrived = matches!(timeout(PATIENCE, arrived).await, Ok(Ok(())));
                for done in waiting {
                    let _ = done.send(if arrived { Ok(()) } else { Err(BrokerError::Stale) });
                }
            });
        }
        for done in self.flushed.drain(..) {
            let _ = done.send(Err(BrokerError::Stale));
        }
        if !alive {
            self.lose("an acknowledgement could not be sent");
        }
    }

    /// Gives a message back to RabbitMQ unchanged.
    pub(super) fn give_back(&mut self, place: DeliveryLocation) {
        let Some(flow) = &mut self.flow else { return };
        let nack = BasicNackOptions { multiple: false, requeue: true };
        match place {
            DeliveryLocation::Queue { consumer, delivery_tag } => {
                flow.window.forget(delivery_tag);
                self.plan.settle(consumer);
                sent(flow.channel.basic_nack(delivery_tag, nack));
            }
            DeliveryLocation::GuardQueue { .. } | DeliveryLocation::Lost | DeliveryLocation::Gone => {}
        }
    }

    /// Notes that the message of this place may be acknowledged.
    pub(super) fn acknowledge(&mut self, place: DeliveryLocation) {
        let Some(flow) = &mut self.flow else { return };
        match place {
            DeliveryLocation::Queue { consumer, delivery_tag } => {
                flow.window.settle(delivery_tag);
                self.plan.settle(consumer);
            }
            DeliveryLocation::GuardQueue { delivery_tag } => {
                if let Some(guard_queue) = &mut flow.guard_queue {
                    guard_queue.window.settle(delivery_tag);
                }
            }
            DeliveryLocation::Lost | DeliveryLocation::Gone => {}
        }
    }
}

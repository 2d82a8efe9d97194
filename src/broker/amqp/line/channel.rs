//! The channel of a line: opened, followed, lost, opened again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use tokio::time::{Instant, timeout};

use super::super::acks::{AckWindow, Acks};
use super::super::link::{Pause, State, Up};
use super::super::ration::Change;
use super::super::topology::{broken, short};
use super::keeping::Keeping;
use super::{Line, Place};
use crate::broker::BrokerError;

/// How long RabbitMQ may take to answer on a channel.
const PATIENCE: Duration = Duration::from_secs(30);

/// So many messages of a consumer are taken at once.
const CHUNK: usize = 64;

/// A channel and what is out on it.
pub(super) struct Flow {
    pub(super) channel: Channel,
    pub(super) window: AckWindow,
    /// The epoch of its connection.
    pub(super) connection: u64,
    /// The channel is gone: what came through it and has not started is not to start.
    pub(super) lapsed: Arc<AtomicBool>,
    /// Where old deliveries are kept, once there are some.
    pub(super) keeping: Option<Keeping>,
}

/// What comes from a consumer.
pub(super) struct Arrived {
    pub(super) consumer: u64,
    /// Messages, all that were there at once.
    pub(super) deliveries: Vec<lapin::message::Delivery>,
    /// Nothing more after them: it was cancelled, by us or by RabbitMQ, or its channel is gone.
    pub(super) end: Option<Option<lapin::Error>>,
}

/// All consumers of a line.
pub(super) type Streams = SelectAll<BoxStream<'static, Arrived>>;

/// The consumer's number that stands for the keeping.
pub(super) const KEEPER: u64 = u64::MAX;

/// What a consumer gets, and its end.
pub(super) fn follow(consumer: u64, stream: lapin::Consumer) -> BoxStream<'static, Arrived> {
    let arrived = move |chunk: Vec<lapin::Result<_>>| {
        let mut arrived = Arrived { consumer, deliveries: Vec::with_capacity(chunk.len()), end: None };
        for next in chunk {
            match next {
                Ok(delivery) => arrived.deliveries.push(delivery),
                Err(error) => arrived.end = Some(Some(error)),
            }
        }
        arrived
    };
    let end = async move { Arrived { consumer, deliveries: Vec::new(), end: Some(None) } };
    stream.ready_chunks(CHUNK).map(arrived).chain(stream::once(end)).boxed()
}

impl Flow {
    /// Sends what the window has; `false`: the channel is gone.
    fn acknowledge(channel: &Channel, acks: Acks) -> bool {
        let ack = |tag, multiple| sent(channel.basic_ack(tag, BasicAckOptions { multiple }));
        acks.cumulative.is_none_or(|tag| ack(tag, true)) && acks.single.into_iter().all(|tag| ack(tag, false))
    }

    /// How many messages RabbitMQ has ready, after all that was sent on this channel.
    pub(super) async fn ready(&self, queue: &str) -> Option<u64> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(short(queue).ok()?, passive, FieldTable::default());
        let queue = timeout(PATIENCE, declared).await.ok()?.ok()?;
        Some(queue.message_count().into())
    }

    /// Closes the channel; when that is answered, the acknowledgements before it have arrived.
    pub(super) async fn close(self) {
        if let Some(keeping) = self.keeping {
            let _ = timeout(PATIENCE, keeping.channel.close(200, "OK".into())).await;
        }
        let _ = timeout(PATIENCE, self.channel.close(200, "OK".into())).await;
    }
}

/// Puts a frame that has no answer on its way; it is written in the order of these calls. `false`: the channel is gone.
fn sent(frame: impl Future<Output = lapin::Result<()>>) -> bool {
    !matches!(frame.now_or_never(), Some(Err(_)))
}

impl Line {
    /// Opens the channel if there should be one and may be, and begins and ends consumers as the ration says.
    pub(super) async fn look_after_channel(&mut self) {
        let state = self.link.borrow_and_update().clone();
        match (&self.flow, &state) {
            (Some(flow), State::Up(up)) if flow.connection == up.epoch => {}
            (Some(_), State::Up(_)) => self.lose("its connection was replaced"),
            (Some(_), State::Down(why)) => self.lose(why),
            (None, _) => {}
        }
        let State::Up(up) = state else {
            self.retry_at = None; // a connection that is up again is heard of
            return;
        };
        if std::mem::take(&mut self.cancelled) {
            self.look_for_queue().await;
        }
        if self.retry_at.is_some_and(|at| at > Instant::now())
            || self.consumer.is_none() && self.flow.is_none()
        {
            return;
        }
        self.retry_at = None;
        let link = Arc::clone(&self.shared.link);
        match timeout(PATIENCE, link.during(self.follow_ration(&up))).await {
            Ok(Ok(())) => self.pause = Pause::default(),
            Ok(Err(error)) => self.lose(&error.to_string()),
            Err(_) => self.lose("RabbitMQ does not answer"),
        }
    }

    /// RabbitMQ has cancelled a consumer. If that was because the queue is gone, before anybody makes it anew, what this
    /// process had of it will not come again.
    async fn look_for_queue(&mut self) {
        let Ok(name) = short(&self.queue) else { return };
        if !matches!(timeout(PATIENCE, self.shared.topology.waiting(&name)).await, Ok(Ok(None))) {
            return;
        }
        let tags: Vec<u64> = self.lost.drain().map(|(_, tag)| tag).collect();
        tracing::warn!(
            queue = self.queue,
            out = tags.len(),
            "the queue was deleted, and what waited in it; what was delivered goes on"
        );
        for tag in tags {
            self.gone(tag);
        }
    }

    async fn follow_ration(&mut self, up: &Up) -> Result<(), BrokerError> {
        if self.flow.is_none() {
            self.shared.topology.declare(&self.queue).await?;
            let channel = up.connection.create_channel().await.map_err(|e| broken(&e))?;
            let window = AckWindow::default();
            let lapsed = Arc::default();
            self.flow = Some(Flow { channel, window, connection: up.epoch, lapsed, keeping: None });
            tracing::debug!(queue = self.queue, "consuming");
        }
        while let Some(change) = self.ration.next() {
            let Some(flow) = &self.flow else { return Ok(()) };
            match change {
                Change::Begin(consumer, limit) => {
                    // Per consumer: quorum queues and RabbitMQ 4 have no other.
                    let limit = u16::try_from(limit).unwrap_or(u16::MAX);
                    let qos = flow.channel.basic_qos(limit, BasicQosOptions { global: false });
                    qos.await.map_err(|e| broken(&e))?;
                    let tag = format!("{}-{consumer}", self.shared.node());
                    let options = BasicConsumeOptions::default();
                    let stream = flow.channel.basic_consume(
                        short(&self.queue)?,
                        short(&tag)?,
                        options,
                        FieldTable::default(),
                    );
                    self.streams.push(follow(consumer, stream.await.map_err(|e| broken(&e))?));
                }
                Change::End(consumer) => {
                    let tag = format!("{}-{consumer}", self.shared.node());
                    let cancel = flow.channel.basic_cancel(short(&tag)?, BasicCancelOptions::default());
                    cancel.await.map_err(|e| broken(&e))?;
                }
            }
        }
        Ok(())
    }

    /// A consumer has ended.
    pub(super) fn ended(&mut self, consumer: u64, error: Option<lapin::Error>) {
        let Some(flow) = &self.flow else { return };
        let gone = !flow.channel.status().connected();
        if consumer == KEEPER {
            let keeper_gone = flow.keeping.as_ref().is_some_and(|k| !k.channel.status().connected());
            if gone || keeper_gone {
                self.lose("the channel of the deliveries in keeping is closed");
            }
        } else if gone {
            let why = error.map_or_else(|| "the channel is closed".to_owned(), |error| error.to_string());
            self.lose(&why);
        } else if self.ration.is_live(consumer) {
            // RabbitMQ has cancelled it: the queue was deleted, or has moved to another node.
            self.cancelled = true;
            self.lose("RabbitMQ has cancelled the consumer; was the queue deleted?");
        }
    }

    /// The channel is gone, and what was out on it comes again. Another one is opened after a pause.
    pub(super) fn lose(&mut self, why: &str) {
        let pause = self.pause.next();
        tracing::warn!(
            queue = self.queue,
            why,
            out = self.holdings.len(),
            ?pause,
            "not consuming; trying again"
        );
        self.shared.topology.forget();
        self.retry_at = Some(Instant::now() + pause);
        self.streams = super::Streams::default();
        self.ration.clear();
        if let Some(flow) = self.flow.take() {
            flow.lapsed.store(true, Ordering::Release);
            // Still open if only a consumer has ended: what is out on it must not stay there.
            self.shared.runtime.spawn(flow.close());
        }
        // What nobody has been given yet simply comes again.
        for (_, tag) in std::mem::take(&mut self.early) {
            self.holdings.remove(&tag);
        }
        let tags: Vec<u64> = self.holdings.keys().copied().collect();
        for tag in tags {
            self.lost(tag);
        }
    }

    /// Acknowledges what was settled, and tells who waits for that.
    pub(super) fn flush(&mut self) {
        let mut alive = true;
        if let Some(flow) = &mut self.flow {
            alive = Flow::acknowledge(&flow.channel, flow.window.flush());
            if let Some(keeping) = &mut flow.keeping {
                alive &= Flow::acknowledge(&keeping.channel, keeping.window.flush());
            }
        }
        if let Some(flow) = self.flow.as_ref().filter(|_| !self.flushed.is_empty()) {
            // An acknowledgement is not answered; whatever is answered after it has come after it. Nothing is published on this
            // channel, so the question means nothing else.
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

    /// Gives a message back to RabbitMQ as it was.
    pub(super) fn give_back(&mut self, place: Place) {
        let Some(flow) = &mut self.flow else { return };
        let nack = BasicNackOptions { multiple: false, requeue: true };
        match place {
            Place::Queue { consumer, delivery_tag } => {
                flow.window.forget(delivery_tag);
                self.ration.settle(consumer);
                sent(flow.channel.basic_nack(delivery_tag, nack));
            }
            Place::Keeping { .. } | Place::Lost | Place::Gone => {}
        }
    }

    /// The message of this place may be acknowledged.
    pub(super) fn acknowledge(&mut self, place: Place) {
        let Some(flow) = &mut self.flow else { return };
        match place {
            Place::Queue { consumer, delivery_tag } => {
                flow.window.settle(delivery_tag);
                self.ration.settle(consumer);
            }
            Place::Keeping { delivery_tag } => {
                if let Some(keeping) = &mut flow.keeping {
                    keeping.window.settle(delivery_tag);
                }
            }
            Place::Lost | Place::Gone => {}
        }
    }
}

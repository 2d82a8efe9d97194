//! A message in the hands of a consumer: how it comes there, and the ways to settle it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use tokio::sync::oneshot;

use super::{BrokerError, FailedTask};
use crate::core::Timestamp;
use crate::store::{ChordPart, ChordSize};
use crate::task::{Message, TaskResult};

/// The messages and chords that follow from the end of a task: brokers that keep [results](super::Broker::results) write it in
/// the same step, all or nothing. A transport that keeps none is given the messages alone, and publishes them, confirmed, before
/// it acknowledges: the rest [is done before](super::SplitBroker).
#[derive(Debug, Default)]
pub struct FollowUps {
    /// The messages that are sent: the next step of a chain, callbacks, errbacks. A message whose id is taken was
    /// sent before, by a run that died after that, and is left out.
    pub messages: Vec<Message>,
    /// The records of tasks that will never run because this task failed.
    pub records: Vec<TaskResult>,
    /// The sizes of the chords whose members are among the messages.
    pub sizes: Vec<ChordSize>,
    /// The parts of chords that are over with this end: the task's own, or those of later steps of its chain that
    /// will never run.
    pub chords: Vec<ChordEnd>,
}

/// The end of a member of a chord's header.
pub struct ChordEnd {
    /// The part that this member contributes to the chord.
    pub part: ChordPart,
    /// Makes what follows when the chord is complete, from all parts in the order of their indices.
    pub then: Box<dyn FnOnce(Vec<ChordPart>) -> FollowUps + Send>,
}

impl fmt::Debug for ChordEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChordEnd").field("part", &self.part).finish_non_exhaustive()
    }
}

/// Calls what makes a complete chord's follow-ups from its parts. `None`: it panicked.
pub(super) fn call_then(
    then: Box<dyn FnOnce(Vec<ChordPart>) -> FollowUps + Send>,
    parts: Vec<ChordPart>,
) -> Option<FollowUps> {
    let follow_ups = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| then(parts)));
    let lost = |panic| {
        let panic = crate::task::panic_message(panic);
        tracing::error!(%panic, "the body of a chord is lost, because what makes it panicked");
    };
    follow_ups.map_err(lost).ok()
}

/// The way in which a delivery ends.
#[derive(Debug)]
pub enum Settle {
    /// Done with; `result` is kept.
    Ack {
        /// The task's record.
        result: Option<TaskResult>,
        /// What follows from the end of the task.
        follow_ups: Option<Box<FollowUps>>,
    },
    /// The task has failed for good: as [`Ack`](Self::Ack), and its message [is kept](super::FailedTasks) in the same step, so
    /// that somebody can look at it and try it again.
    Fail {
        /// The task as it is kept.
        failed: Box<FailedTask>,
        /// The task's record.
        result: Option<TaskResult>,
        /// What follows from the end of the task.
        follow_ups: Option<Box<FollowUps>>,
    },
    /// Another message takes the place of this one, in one step: a retry, a postponement, a continuation.
    Requeue {
        /// The message that waits from now on, under the same id: in the same queue, or in the other one that it names.
        message: Box<Message>,
        /// The time before which the message must not start.
        due: Option<Timestamp>,
    },
    /// The message goes back to where it was.
    Return {
        /// Whether a run of it ended with its worker, which is counted.
        crashed: bool,
    },
    /// The message becomes a dead letter.
    DeadLetter {
        /// Why it is a dead letter.
        reason: String,
        /// The task's record.
        result: Option<TaskResult>,
        /// What follows from the end of the task.
        follow_ups: Option<Box<FollowUps>>,
    },
}

impl Settle {
    /// Whether something follows from this end of a task.
    pub(super) fn has_follow_ups(&self) -> bool {
        matches!(
            self,
            Self::Ack { follow_ups: Some(_), .. }
                | Self::Fail { follow_ups: Some(_), .. }
                | Self::DeadLetter { follow_ups: Some(_), .. }
        )
    }
}

/// The broker's side of a delivery.
pub trait Settler: Send + Sync {
    /// Notes that a body of this delivery is about to start, so that the next run knows it if the process dies. A
    /// [`write_starts`](Self::write_starts) follows before the body starts; until then the note need not be more than
    /// remembered, so that one write notes all bodies that start together.
    fn note_started(&self, tag: u64);

    /// Writes out the notes that [`note_started`](Self::note_started) has only remembered. When this returns, their
    /// bodies may start.
    fn write_starts(&self);

    /// Whether the end of this delivery still counts; `None`: it does, for sure. Asked before its record is stored.
    fn check_fence(&self, tag: u64) -> Option<oneshot::Receiver<bool>>;

    /// Ends a delivery. It is refused, without effect, if the delivery was ended before. `done` is told when the
    /// end is as safe as the broker makes it.
    fn settle(&self, tag: u64, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>);
}

/// The way in which a message came to its consumer: the `delivery_info` of Celery's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeliveryInfo {
    /// The exchange that the message came through; the empty text is the default exchange.
    pub exchange: String,
    /// The routing key that the message came with.
    pub routing_key: String,
    /// The priority that its sender gave the message, if any.
    pub priority: Option<u8>,
    /// Whether the message was delivered before.
    pub redelivered: bool,
}

/// The function to which a consumer's deliveries go. The broker calls it from its own threads, so it must not block. A sink that
/// panics is not called again: its deliveries go back and wait for the next consumer.
pub type Sink = Arc<dyn Fn(Vec<Delivery>) + Send + Sync>;

/// Hands deliveries to a sink. Says whether it took them without a panic.
pub(super) fn call_sink(sink: &Sink, deliveries: Vec<Delivery>) -> bool {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sink(deliveries))) {
        Ok(()) => true,
        Err(panic) => {
            let panic = crate::task::panic_message(panic);
            tracing::error!(%panic, "a consumer panicked; its queue has no consumer now");
            false
        }
    }
}

/// A message that one consumer has and must settle. If it is dropped unsettled, it goes back by itself.
pub struct Delivery {
    tag: u64,
    message: Arc<Message>,
    settler: Option<Arc<dyn Settler>>,
    noted: bool,
    started: bool,
    again: bool,
    announced: bool,
    lapsed: Option<Arc<AtomicBool>>,
    fence: Option<u64>,
    info: Option<Arc<DeliveryInfo>>,
}

impl Delivery {
    /// Makes a delivery of `message`. Brokers call this, with a tag that is never used twice.
    pub fn new(tag: u64, message: Arc<Message>, settler: Arc<dyn Settler>) -> Self {
        Self {
            tag,
            message,
            settler: Some(settler),
            noted: false,
            started: false,
            again: false,
            announced: false,
            lapsed: None,
            fence: None,
            info: None,
        }
    }

    /// Says that the message was delivered before. Brokers call this that do not know whether a run of it had
    /// begun.
    #[must_use]
    pub fn again(mut self, again: bool) -> Self {
        self.again = again;
        self
    }

    /// Says whether listeners to events were told before that the message was received. Brokers call this that send a
    /// message away until its ETA.
    #[must_use]
    pub fn announced(mut self, announced: bool) -> Self {
        self.announced = announced;
        self
    }

    /// Whether listeners to events were told before that the message was received.
    pub fn is_announced(&self) -> bool {
        self.announced
    }

    /// Says that other processes may have the message as soon as `lapsed` is true. Brokers call this that may lose
    /// the right to what they have delivered.
    #[must_use]
    pub fn until(mut self, lapsed: Arc<AtomicBool>) -> Self {
        self.lapsed = Some(lapsed);
        self
    }

    /// Whether other processes may have the message by now. A delivery that has not started is dropped then.
    pub fn has_lapsed(&self) -> bool {
        self.lapsed.as_ref().is_some_and(|lapsed| lapsed.load(Ordering::Acquire))
    }

    /// The flag of [`until`](Self::until), for brokers that stand between a broker and its consumer.
    #[cfg(feature = "redis")]
    pub(super) fn lapsed(&self) -> Option<Arc<AtomicBool>> {
        self.lapsed.clone()
    }

    /// Shows the consumer another message. It is for brokers that stand between a broker and its consumer.
    #[cfg(feature = "redis")]
    pub(super) fn showing(mut self, message: Message) -> Self {
        self.message = Arc::new(message);
        self
    }

    /// For those: it is settled by another one, made of its own.
    pub(super) fn settled_by(mut self, settler: impl FnOnce(Arc<dyn Settler>) -> Arc<dyn Settler>) -> Self {
        self.settler = self.settler.take().map(settler);
        self
    }

    /// Whether its end still counts: brokers that give up processes may have given it to another.
    pub async fn is_still_ours(&self) -> bool {
        match self.settler.as_ref().and_then(|settler| settler.check_fence(self.tag)) {
            Some(answer) => answer.await.unwrap_or(false),
            None => true,
        }
    }

    /// Whether the message was delivered before, so that a run of it may have begun.
    pub fn is_again(&self) -> bool {
        self.again
    }

    /// Gives the delivery of a serial task a fencing token, which grows with each start in its lane.
    #[must_use]
    pub fn fenced(mut self, token: u64) -> Self {
        self.fence = Some(token);
        self
    }

    /// The fencing token, if the delivery has one: see [`fenced`](Self::fenced).
    pub fn fence(&self) -> Option<u64> {
        self.fence
    }

    /// Says how the message came. Brokers call this whose messages have an exchange and a routing key.
    #[must_use]
    pub fn with_info(mut self, info: Option<Arc<DeliveryInfo>>) -> Self {
        self.info = info;
        self
    }

    /// Says how the message came, if its broker knows.
    pub fn info(&self) -> Option<&Arc<DeliveryInfo>> {
        self.info.as_ref()
    }

    /// The delivery's tag, unique in this process's life.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// Returns the message that was delivered.
    pub fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// The settler, for the conformance suite, which tries to settle twice.
    #[cfg(feature = "testing")]
    pub(super) fn settler(&self) -> Option<Arc<dyn Settler>> {
        self.settler.clone()
    }

    /// Notes that a body is about to start, so that a crash from here on is counted.
    pub fn started(&mut self) {
        self.started = true;
        if let Some(settler) = self.settler.as_ref().filter(|_| !self.noted) {
            settler.note_started(self.tag);
            settler.write_starts();
        }
    }

    /// Makes a drop without a settlement count as a crash from now on: what is done with the delivery may panic,
    /// although no body of it starts. The broker is not told.
    pub(crate) fn at_risk(&mut self) {
        self.started = true;
    }

    /// Notes for all of these at once that their bodies are about to start: where a note takes a write, they take
    /// one. Each of them still calls [`started`](Self::started) in its turn; one that is dropped before that goes
    /// back as it was.
    pub fn note_starts<'a>(deliveries: impl Iterator<Item = &'a mut Self>) {
        let mut settlers: Vec<&'a dyn Settler> = Vec::new();
        for delivery in deliveries {
            delivery.noted = delivery.settler.is_some();
            let delivery: &'a Self = delivery;
            if let Some(settler) = &delivery.settler {
                settler.note_started(delivery.tag);
                settlers.push(&**settler);
            }
        }
        // The deliveries may be of different brokers; a broker that has nothing left to note is done at once.
        settlers.iter().for_each(|settler| settler.write_starts());
    }

    /// Ends the delivery without waiting for that.
    pub fn settle(self, settle: Settle) {
        self.end(settle, None);
    }

    /// Ends the delivery, and waits until the end is safe.
    ///
    /// # Errors
    /// It is not known whether the end is safe.
    pub async fn settle_and_wait(self, settle: Settle) -> Result<(), BrokerError> {
        let (done, safe) = oneshot::channel();
        self.end(settle, Some(done));
        safe.await.unwrap_or(Err(BrokerError::Closed))
    }

    /// Ends the delivery. `done` is told when the end is safe.
    pub(super) fn end(mut self, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>) {
        if let Some(settler) = self.settler.take() {
            settler.settle(self.tag, settle, done);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settler) = self.settler.take() {
            settler.settle(self.tag, Settle::Return { crashed: self.started }, None);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("tag", &self.tag)
            .field("id", &self.message.id)
            .field("task", &self.message.task)
            .finish_non_exhaustive()
    }
}

//! A message in the hands of a consumer, and the ways to be rid of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::BrokerError;
use crate::core::Timestamp;
use crate::store::{ChordPart, ChordSize};
use crate::task::{Message, TaskResult};

/// What follows from the end of a task: brokers that [settle results](super::Broker::settles_results) write it in the same
/// step, all or nothing. For the others the runtime stores the records and counts the chord first, and they publish the
/// messages, confirmed, before they acknowledge.
#[derive(Debug, Default)]
pub struct Sequel {
    /// What is sent: the next step of a chain, callbacks, errbacks. A message whose id is taken was sent before, by a run
    /// that died after it, and is left out.
    pub messages: Vec<Message>,
    /// Records of tasks that will never run, because this one failed.
    pub records: Vec<TaskResult>,
    /// The chords whose members are among the messages.
    pub sizes: Vec<ChordSize>,
    /// Parts of chords that are over with this end: the task's own, or those of later steps of its chain that will never
    /// run.
    pub chords: Vec<ChordEnd>,
}

/// The end of a member of a chord's header.
pub struct ChordEnd {
    /// Its part.
    pub part: ChordPart,
    /// What follows when the chord is complete, from all parts in the order of their indices.
    pub then: Box<dyn FnOnce(Vec<ChordPart>) -> Sequel + Send>,
}

impl fmt::Debug for ChordEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChordEnd").field("part", &self.part).finish_non_exhaustive()
    }
}

/// What a complete chord makes of its parts; nothing, should that panic.
pub(super) fn call_then(
    then: Box<dyn FnOnce(Vec<ChordPart>) -> Sequel + Send>,
    parts: Vec<ChordPart>,
) -> Option<Sequel> {
    let sequel = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| then(parts)));
    let lost = |panic| {
        let panic = crate::task::panic_message(panic);
        tracing::error!(%panic, "the body of a chord is lost, because what makes it panicked");
    };
    sequel.map_err(lost).ok()
}

/// How a delivery ends.
#[derive(Debug)]
pub enum Settle {
    /// Done with; `result` is written along by brokers that can.
    Ack {
        /// The task's record.
        result: Option<TaskResult>,
        /// What follows from it.
        sequel: Option<Box<Sequel>>,
    },
    /// This message takes its place, in one step: retry, postpone, continue.
    Requeue {
        /// What waits from now on; same id, same queue.
        message: Box<Message>,
        /// Not before this time.
        due: Option<Timestamp>,
    },
    /// Back to where it was. `crashed`: a run of it ended with its worker.
    Return {
        /// Count it.
        crashed: bool,
    },
    /// To the dead letters.
    DeadLetter {
        /// Why.
        reason: String,
        /// The task's record.
        result: Option<TaskResult>,
        /// What follows from it.
        sequel: Option<Box<Sequel>>,
    },
}

/// The broker's side of a delivery.
pub trait Settler: Send + Sync {
    /// A body of these deliveries is about to start. Should the process die now, the next run knows.
    fn started(&self, tags: &[u64]);

    /// As [`started`](Self::started), for one of several bodies that start together. A `started` without tags follows
    /// before any of them does; until then it need not be more than remembered, so that one write notes them all.
    fn starting(&self, tag: u64) {
        self.started(&[tag]);
    }

    /// Whether the end of this delivery still counts; `None`: it does, for sure. Asked before its record is stored.
    fn affirm(&self, _tag: u64) -> Option<oneshot::Receiver<bool>> {
        None
    }

    /// Ends a delivery. Refused, without effect, when it was ended before. `done` hears when the end is as safe as
    /// the broker makes it.
    fn settle(&self, tag: u64, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>);
}

/// A message that one consumer has and must settle. Dropped unsettled, it goes back by itself.
pub struct Delivery {
    tag: u64,
    message: Arc<Message>,
    settler: Option<Arc<dyn Settler>>,
    noted: bool,
    started: bool,
    again: bool,
    lapsed: Option<Arc<AtomicBool>>,
    fence: Option<u64>,
}

impl Delivery {
    /// For brokers: hands out `message` under a tag that is never used twice.
    pub fn new(tag: u64, message: Arc<Message>, settler: Arc<dyn Settler>) -> Self {
        Self {
            tag,
            message,
            settler: Some(settler),
            noted: false,
            started: false,
            again: false,
            lapsed: None,
            fence: None,
        }
    }

    /// For brokers that do not know whether a run of it had begun: it was delivered before.
    #[must_use]
    pub fn again(mut self, again: bool) -> Self {
        self.again = again;
        self
    }

    /// For brokers that may lose the right to what they have delivered: as soon as `lapsed` is true, others may have it.
    #[must_use]
    pub fn until(mut self, lapsed: Arc<AtomicBool>) -> Self {
        self.lapsed = Some(lapsed);
        self
    }

    /// Whether others may have it by now. If it has not started, it is to be dropped.
    pub fn has_lapsed(&self) -> bool {
        self.lapsed.as_ref().is_some_and(|lapsed| lapsed.load(Ordering::Acquire))
    }

    /// For those who stand between a broker and its consumer: see [`until`](Self::until).
    #[cfg(feature = "redis")]
    pub(super) fn lapsed(&self) -> Option<Arc<AtomicBool>> {
        self.lapsed.clone()
    }

    /// For those: the consumer is to see another message.
    #[cfg(feature = "redis")]
    pub(super) fn showing(mut self, message: Message) -> Self {
        self.message = Arc::new(message);
        self
    }

    /// Whether its end still counts: brokers that give up processes may have given it to another.
    pub async fn is_still_ours(&self) -> bool {
        match self.settler.as_ref().and_then(|settler| settler.affirm(self.tag)) {
            Some(answer) => answer.await.unwrap_or(false),
            None => true,
        }
    }

    /// Whether it was delivered before, and may have been begun.
    pub fn is_again(&self) -> bool {
        self.again
    }

    /// Of a serial task: with a token that grows with each start in its lane.
    #[must_use]
    pub fn fenced(mut self, token: u64) -> Self {
        self.fence = Some(token);
        self
    }

    /// The token of [`fenced`](Self::fenced).
    pub fn fence(&self) -> Option<u64> {
        self.fence
    }

    /// Its tag, unique in this process's life.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// The message.
    pub fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// For the conformance suite, which tries to settle twice.
    #[cfg(feature = "testing")]
    pub(super) fn settler(&self) -> Option<Arc<dyn Settler>> {
        self.settler.clone()
    }

    /// Notes that a body is about to start, so that a crash from here on is counted.
    pub fn started(&mut self) {
        self.started = true;
        if let Some(settler) = self.settler.as_ref().filter(|_| !self.noted) {
            settler.started(&[self.tag]);
        }
    }

    /// Notes for all of these at once that their bodies are about to start: where a note takes a write, one write. Each
    /// of them still says [`started`](Self::started) in its turn; one that is dropped before that goes back as it was.
    pub fn note_starts<'a>(deliveries: impl Iterator<Item = &'a mut Self>) {
        let mut settlers: Vec<Arc<dyn Settler>> = Vec::new();
        for delivery in deliveries {
            if let Some(settler) = &delivery.settler {
                settler.starting(delivery.tag);
                delivery.noted = true;
                settlers.push(Arc::clone(settler));
            }
        }
        // They may be of different brokers, and one with nothing left to note is done at once.
        settlers.iter().for_each(|settler| settler.started(&[]));
    }

    /// Ends it.
    pub fn settle(self, settle: Settle) {
        self.end(settle, None);
    }

    /// Ends it, and waits until that is safe.
    ///
    /// # Errors
    /// It is not known to be safe.
    pub async fn settle_and_wait(self, settle: Settle) -> Result<(), BrokerError> {
        let (done, safe) = oneshot::channel();
        self.end(settle, Some(done));
        safe.await.unwrap_or(Err(BrokerError::Closed))
    }

    fn end(mut self, settle: Settle, done: Option<oneshot::Sender<Result<(), BrokerError>>>) {
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

//! A delivery that is out.

use std::sync::Arc;

use tokio::time::Instant;

use crate::broker::Settle;
use crate::task::{Message, ONCE};

/// A delivery that was taken in and not settled yet.
pub(super) struct Holding {
    pub(super) message: Arc<Message>,
    pub(super) place: Place,
    /// Since when RabbitMQ waits for its acknowledgement; for a lost one, since when it is lost.
    pub(super) since: Instant,
    /// It was delivered before: maybe it has taken a process down.
    pub(super) suspect: bool,
    /// It was sent before, by a publisher that does not know whether it arrived.
    pub(super) copy: bool,
    /// A suspect whose body has started.
    pub(super) started: bool,
    /// What follows from it is being published; it is acknowledged after that.
    pub(super) posting: bool,
    /// A copy for the keeping is on its way.
    pub(super) handing_over: bool,
    /// How it ended while it was lost.
    pub(super) ended: Option<Settle>,
}

/// Where RabbitMQ has what a delivery stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Unacknowledged in its queue, for this consumer, under this delivery tag.
    Queue { consumer: u64, delivery_tag: u64 },
    /// Unacknowledged in the keeping of this process, under this delivery tag.
    Keeping { delivery_tag: u64 },
    /// Wherever it went when its channel was lost.
    Lost,
    /// Nowhere: its queue was deleted while this process had it, and nobody else will ever see it.
    Gone,
}

impl Holding {
    pub(super) fn new(message: Message, place: Place, suspect: bool) -> Self {
        Self {
            message: Arc::new(message),
            place,
            since: Instant::now(),
            suspect,
            copy: false,
            started: false,
            posting: false,
            handing_over: false,
            ended: None,
        }
    }

    /// Whether this is the same attempt of the same task.
    pub(super) fn is_same(&self, message: &Message) -> bool {
        self.message.id == message.id
            && self.message.retries == message.retries
            && self.message.continuations == message.continuations
            && self.message.headers.0.get(ONCE) == message.headers.0.get(ONCE)
    }
}

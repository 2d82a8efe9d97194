//! A delivery that was taken in and is not settled.

use std::sync::Arc;

use tokio::time::Instant;

use crate::broker::{DeliveryInfo, Settle};
use crate::task::{Message, RUN_ONCE_HEADER};

/// A delivery that was taken in and is not settled.
pub(super) struct InFlight {
    pub(super) message: Arc<Message>,
    pub(super) place: DeliveryLocation,
    /// The number of the queue in RabbitMQ that the message is in, or comes back to: 0, or that of a partition.
    pub(super) source: usize,
    /// Since when RabbitMQ waits for the acknowledgement. For a [lost](DeliveryLocation::Lost) delivery, since when the
    /// delivery is lost.
    pub(super) since: Instant,
    /// Whether the message was delivered before, and so perhaps has taken a process down.
    pub(super) suspect: bool,
    /// Whether the publisher sent the message before, without knowing whether it arrived.
    pub(super) copy: bool,
    /// Whether the listeners to events heard that the message was received, when it was sent away until its ETA.
    pub(super) announced: bool,
    /// Whether the body has started. It is noted only for deliveries that may be poison.
    pub(super) started: bool,
    /// Whether the messages that follow are being published. The delivery is acknowledged after that.
    pub(super) posting: bool,
    /// Whether a copy of the message is on its way into the guard queue.
    pub(super) handing_over: bool,
    /// Why RabbitMQ is to make a dead letter of it, when what follows from it is published.
    pub(super) rejected: Option<String>,
    /// How the message came first.
    pub(super) info: Option<Arc<DeliveryInfo>>,
    /// How the run ended while the delivery was lost.
    pub(super) ended: Option<Box<Settle>>,
}

/// The place in RabbitMQ of the message of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeliveryLocation {
    /// The message is unacknowledged in its queue, for this consumer, under this delivery tag.
    Queue { consumer: u64, delivery_tag: u64 },
    /// The message is unacknowledged in the guard queue of this process, under this delivery tag.
    GuardQueue { delivery_tag: u64 },
    /// The channel was lost, and the message is wherever RabbitMQ has put it.
    Lost,
    /// The message is nowhere. Its queue was deleted while this process held the delivery, and it is not waited for.
    Gone,
}

impl InFlight {
    pub(super) fn new(message: Message, place: DeliveryLocation, suspect: bool) -> Self {
        Self {
            message: Arc::new(message),
            place,
            source: 0,
            since: Instant::now(),
            suspect,
            copy: false,
            announced: false,
            started: false,
            posting: false,
            handing_over: false,
            rejected: None,
            info: None,
            ended: None,
        }
    }

    /// Whether it lies in its queue and stays there: no copy of it is on its way into the guard queue.
    pub(super) fn lies_in_queue(&self) -> bool {
        matches!(self.place, DeliveryLocation::Queue { .. }) && !self.handing_over
    }

    /// Whether this message is the same attempt of the same task.
    pub(super) fn is_same(&self, message: &Message) -> bool {
        self.message.id == message.id
            && self.message.retries == message.retries
            && self.message.continuations == message.continuations
            && self.message.headers.0.get(RUN_ONCE_HEADER) == message.headers.0.get(RUN_ONCE_HEADER)
    }
}

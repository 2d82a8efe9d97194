//! The channels on which messages are published, all of one connection.
//!
//! Messages to one queue share a channel, so that they keep their order. Different queues are spread over [`CONFIRMING`]
//! channels: a channel is a process of its own in RabbitMQ, and a message that RabbitMQ refuses by closing its channel then
//! disturbs fewer others. On one more channel, that of all queues, RabbitMQ confirms nothing; the messages there keep their
//! order among themselves only. A channel is opened when it is first needed, and again when it is gone.

use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::link::AmqpLink;
use super::post::Aim;
use super::topology::broken;
use crate::broker::BrokerError;

/// The number of channels on which RabbitMQ confirms messages.
const CONFIRMING: usize = 4;
/// A channel younger than this is not replaced because of a refusal.
const YOUNG: Duration = Duration::from_millis(50);
/// How long a channel waits for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// The channels of one publisher.
pub(super) struct PublishChannels {
    link: Arc<AmqpLink>,
    /// Each lock is held while the frames of a message are put in line, and never during a wait. lapin counts a message and
    /// puts its frames in line in two steps, and RabbitMQ's confirms are told apart by the count alone.
    open: [Mutex<Option<OpenChannel>>; CONFIRMING + 1],
}

/// Which of the channels a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChannelSlot(usize);

/// A channel, and since when it has been open.
struct OpenChannel {
    /// Shared, because each message takes it along, and a clone of a channel is a clone of all of its fifteen parts.
    channel: Arc<Channel>,
    since: Instant,
}

impl ChannelSlot {
    /// The channel on which RabbitMQ confirms nothing.
    pub(super) const UNCONFIRMED: Self = Self(CONFIRMING);

    /// The channel of messages that go to this place and are confirmed.
    pub(super) fn of(aim: &Aim) -> Self {
        let name = match aim {
            Aim::Queue(name) | Aim::Delayed(name) | Aim::Broadcast(name) | Aim::Exchange { name, .. } => name,
            Aim::Dead | Aim::Failed | Aim::GuardQueue | Aim::Anybody => return Self(0),
        };
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(usize::try_from(hasher.finish() % CONFIRMING as u64).unwrap_or_default())
    }
}

impl PublishChannels {
    pub(super) fn new(link: Arc<AmqpLink>) -> Self {
        Self { link, open: std::array::from_fn(|_| Mutex::new(None)) }
    }

    /// The channel of this slot, if it is open.
    pub(super) fn usable(&self, ChannelSlot(slot): ChannelSlot) -> Option<Arc<Channel>> {
        let open = self.open[slot].lock();
        open.as_ref().map(|open| &open.channel).filter(|channel| channel.status().connected()).cloned()
    }

    /// The channel of this slot; it is opened if it is gone.
    pub(super) async fn open(&self, slot: ChannelSlot) -> Result<Arc<Channel>, BrokerError> {
        if let Some(channel) = self.usable(slot) {
            return Ok(channel);
        }
        let channel = Arc::new(self.new_channel(slot != ChannelSlot::UNCONFIRMED).await?);
        let open = OpenChannel { channel: Arc::clone(&channel), since: Instant::now() };
        *self.open[slot.0].lock() = Some(open);
        Ok(channel)
    }

    /// Gives up the channel of this slot, on which RabbitMQ has refused a message, unless it was opened just now.
    pub(super) fn replace_old(&self, ChannelSlot(slot): ChannelSlot) {
        self.open[slot].lock().take_if(|open| open.since.elapsed() > YOUNG);
    }

    /// Opens a channel that no other message takes. With `confirms`, RabbitMQ confirms the messages on it.
    pub(super) async fn new_channel(&self, confirms: bool) -> Result<Channel, BrokerError> {
        let up = self.link.up(Instant::now() + PATIENCE).await?;
        let channel = up.connection.create_channel().await.map_err(|e| broken(&e))?;
        if confirms {
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|e| broken(&e))?;
        }
        Ok(channel)
    }

    /// Puts the frames of a message in line, which lapin does when the future is polled first. Each caller waits for the
    /// confirmation on its own, so that many messages are on their way at a time. `sent` becomes true.
    pub(super) async fn put_in_line<T>(
        &self,
        ChannelSlot(slot): ChannelSlot,
        mut message: Pin<&mut impl Future<Output = T>>,
        sent: &mut bool,
    ) -> Option<T> {
        poll_fn(|cx| {
            let _line = self.open[slot].lock();
            *sent = true;
            Poll::Ready(match message.as_mut().poll(cx) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_queue_has_one_channel_and_many_queues_have_all() {
        let slots: HashSet<usize> = (0..100)
            .map(|n| {
                let name = format!("queue-{n}");
                let [at_once, delayed] =
                    [Aim::Queue(name.clone()), Aim::Delayed(name)].map(|aim| ChannelSlot::of(&aim));
                assert_eq!(at_once, delayed);
                assert_ne!(at_once, ChannelSlot::UNCONFIRMED);
                at_once.0
            })
            .collect();
        assert_eq!(slots, (0..CONFIRMING).collect());
    }
}

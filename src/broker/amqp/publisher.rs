//! Publishes messages to RabbitMQ: each is mandatory, persistent and confirmed, and many are on their way at a time.
//!
//! A publish ends in one of four ways:
//! - Confirmed: RabbitMQ has the message where it belongs.
//! - Refused: RabbitMQ took nothing now, and may take it another time.
//! - Refused for good ([`BrokerError::Refused`]): RabbitMQ took nothing, and never will.
//! - Not known: the connection was lost, or nobody answered before the deadline. The message may be there, even twice, because a
//!   message that was not confirmed is sent again as soon as there is a connection. The second one is marked as a copy.
//!
//! RabbitMQ refuses for good by closing the channel, with all messages that are on their way there, and does not say which
//! message it means. So each of them is sent again on a channel of its own, and only the one that closes that as well is
//! refused. Very large messages, which RabbitMQ's limits concern, have a channel of their own from the start.
//!
//! A call may say that RabbitMQ need not confirm it. Its message is then published once it is written to the connection, and
//! what becomes of it is not known. Where something has to be declared or opened first, it is confirmed all the same.
//!
//! The way of a message. As long as nothing fails, confirmed publishes to one queue keep the order in which they begin:
//! ```text
//! publish_at_once --- declared, channel open, nobody at the gate ---> put in line ---> confirmed?
//!       |                                                                 ^               | no
//!       | otherwise                                                       |               v
//!       +--> announced --> go_on: waits for the gate, declares, opens ----+     go_on, marked as a copy
//! ```

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::link::{AmqpLink, LinkState, LiveConnection, ReconnectPause};
use super::outgoing::{MOST, queue_of_letter};
use super::post::{Aim, OutgoingMessage};
use super::publish_channels::{ChannelSlot, PublishChannels};
use super::table::frame_size;
use super::topology::{NOT_FOUND, Topology, broken};
use crate::broker::BrokerError;
use crate::core::time::deadline;
use crate::rabbitmq::{code, is_refusal};

/// How many refusals of a message are doubted: a channel that was opened while a quorum queue had no leader refuses everything.
const DOUBTS: u32 = 3;
/// The timeout of one attempt of a publish that is retried for ever.
const AT_A_TIME: Duration = Duration::from_secs(30);
/// Makes RabbitMQ send back a message that it cannot route.
const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };
/// The most messages that are tried on channels of their own at a time.
const ALONE: usize = 16;
/// How often publishes on tasks of their own look at the clock.
const LOOK: Duration = Duration::from_secs(1);

/// Publishes on one connection.
pub(super) struct Publisher {
    link: Arc<AmqpLink>,
    topology: Arc<Topology>,
    runtime: Handle,
    /// The gate: publishes that have something to declare or to open first do so here, in their order.
    gate: tokio::sync::Mutex<()>,
    /// The number of publishes at the gate. While there are any, no other publish may overtake them.
    at_the_gate: AtomicUsize,
    channels: PublishChannels,
    /// Ticks every second, for publishes on runtimes that have no timers.
    seconds: watch::Sender<()>,
    /// The permits to open a channel on which a message is tried alone.
    alone: Semaphore,
    /// For each queue, the number of dead letters that this process put there and did not put back.
    letters: Mutex<HashMap<String, u64>>,
}

/// Counts a publish as one at the gate, until it is dropped.
pub(super) struct Announced(Arc<Publisher>);

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.at_the_gate.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How far one publish has come.
pub(super) struct Attempt {
    patience: Duration,
    deadline: Instant,
    /// Whether the message was sent: from then on nobody knows for sure that RabbitMQ has not got it.
    sent: bool,
    /// Whether RabbitMQ has sent the message back once.
    returned: bool,
    /// How often RabbitMQ has refused the message.
    refused: u32,
    /// Whether RabbitMQ has closed the channel that the message was on, because of one of the messages there, and
    /// so perhaps because of this one.
    suspect: bool,
}

impl Attempt {
    /// Begins the first attempt of a message, which may take `patience`.
    pub(super) fn new(patience: Duration) -> Self {
        let deadline = deadline(Instant::now(), patience);
        Self { patience, deadline, sent: false, returned: false, refused: 0, suspect: false }
    }
}

impl Publisher {
    pub(super) fn new(link: Arc<AmqpLink>, topology: Arc<Topology>) -> Arc<Self> {
        let publisher = Arc::new(Self {
            channels: PublishChannels::new(Arc::clone(&link)),
            link,
            topology,
            runtime: Handle::current(),
            gate: tokio::sync::Mutex::new(()),
            at_the_gate: AtomicUsize::new(0),
            seconds: watch::Sender::new(()),
            alone: Semaphore::new(ALONE),
            letters: Mutex::default(),
        });
        let ticking = Arc::downgrade(&publisher);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(publisher) = ticking.upgrade() else { return };
                publisher.seconds.send_replace(());
            }
        });
        publisher
    }

    /// Publishes, and waits for the confirmation however long that takes: the delivery that the message replaces
    /// is not acknowledged before. `full` is called when the queue is first found to be full. Fails only if the
    /// broker is closed, or RabbitMQ refuses the message for good.
    pub(super) async fn insist(
        &self,
        post: &OutgoingMessage,
        full: impl FnOnce(),
    ) -> Result<(), BrokerError> {
        let mut pause = ReconnectPause::default();
        let mut said = false;
        let (mut sent, mut suspect) = (false, false);
        let mut full = Some(full);
        loop {
            let mut attempt = Attempt { sent, suspect, ..Attempt::new(AT_A_TIME) };
            let published = self.go_on(post, &mut attempt).await;
            (sent, suspect) = (attempt.sent, attempt.suspect);
            if matches!(published, Err(BrokerError::Full(_)))
                && !self.is_unavailable()
                && let Some(full) = full.take()
            {
                full();
            }
            match published {
                Ok(()) => return Ok(()),
                Err(error) if error == BrokerError::Closed || error.is_permanent() => return Err(error),
                Err(error) if !std::mem::replace(&mut said, true) => {
                    tracing::warn!(%error, "what follows from a run cannot be published yet; its delivery is kept until it is");
                }
                Err(_) => {}
            }
            pause.rest().await;
        }
    }

    /// Publishes, and waits for the confirmation, but no longer than `patience`.
    pub(super) async fn publish(
        &self,
        post: &OutgoingMessage,
        patience: Duration,
    ) -> Result<(), BrokerError> {
        self.go_on(post, &mut Attempt::new(patience)).await
    }

    /// Counts the caller as one at the gate, until the answer is dropped.
    pub(super) fn announce(self: Arc<Self>) -> Announced {
        self.at_the_gate.fetch_add(1, Ordering::AcqRel);
        Announced(self)
    }

    /// Publishes a task without a detour by the broker's thread, on whatever task and runtime the caller has. `true`: the
    /// message is confirmed, or it is written and need not be confirmed. `false`: something has to be done first, or
    /// again, and [`go_on`](Self::go_on) does it.
    pub(super) async fn publish_at_once(
        &self,
        post: OutgoingMessage,
        attempt: &mut Attempt,
    ) -> Result<bool, BrokerError> {
        // The state of the connection is looked at once: each look takes a lock that all publishers share.
        let (epoch, frame_max) = match &*self.link.now() {
            LinkState::Up(up) if up.blocked.is_none() => (up.epoch, frame_max(up)),
            _ => return Ok(false),
        };
        let waits = self.at_the_gate.load(Ordering::Acquire) > 0;
        if waits || !self.is_declared(&post.aim) || post.goes_alone() {
            return Ok(false);
        }
        // The properties of a task never take more than `MOST`, and are measured once more only where that is too much.
        if frame_max < MOST {
            check_size(&post, frame_max)?;
        }
        let slot = if post.confirm { ChannelSlot::of(&post.aim) } else { ChannelSlot::UNCONFIRMED };
        let Some(channel) = self.channels.usable(slot) else { return Ok(false) };
        let mut seconds = self.seconds.subscribe();
        let OutgoingMessage { exchange, key, properties, body, aim, confirm, .. } = post;
        let options = BasicPublishOptions { mandatory: confirm, ..MANDATORY };
        let transmitted = Box::pin(async move {
            // Without confirms, the second answer is there at once.
            channel.basic_publish(exchange, key, options, &body, properties).await?.await
        });
        let mut message = OnItsWay { transmitted: Some(transmitted), runtime: &self.runtime };
        let first = self.channels.put_in_line(slot, Pin::new(&mut message), &mut attempt.sent).await;
        let confirmed = match first {
            Some(confirmed) => confirmed,
            None => loop {
                tokio::select! {
                    biased;
                    confirmed = &mut message => break confirmed,
                    ticked = seconds.changed() => {
                        if ticked.is_err() || Instant::now() > attempt.deadline {
                            return Err(self.unknown(&self.link.unreachable(), true));
                        }
                        if self.epoch() != Some(epoch) {
                            // RabbitMQ may never answer what was asked at the moment when the connection was lost.
                            message.transmitted = None;
                            return Ok(false);
                        }
                    }
                }
            },
        };
        match confirmed {
            Ok(confirmation) => self.judge(&confirmation, &aim, attempt),
            Err(error) => {
                self.not_confirmed(&error, attempt);
                Ok(false)
            }
        }
    }

    /// Refuses a message for which RabbitMQ would close the connection, with all that others have on it.
    fn check(&self, post: &OutgoingMessage) -> Result<(), BrokerError> {
        let limit = match &*self.link.now() {
            LinkState::Up(up) => frame_max(up),
            LinkState::Down(_) => return Ok(()),
        };
        check_size(post, limit)
    }

    /// Takes note that a channel was closed before a message was confirmed.
    fn not_confirmed(&self, error: &lapin::Error, attempt: &mut Attempt) {
        tracing::debug!(%error, "a publish was not confirmed and is sent again");
        attempt.suspect |= is_refusal(error);
        if code(error) == Some(NOT_FOUND) {
            self.topology.forget(); // an exchange was deleted since it was declared
        }
    }

    /// Publishes on the broker's own thread, and waits for the confirmation, but no longer than the attempt may
    /// take.
    pub(super) async fn go_on(
        &self,
        post: &OutgoingMessage,
        attempt: &mut Attempt,
    ) -> Result<(), BrokerError> {
        let deadline = attempt.deadline;
        let mut pause = ReconnectPause::default();
        let mut copy = None;
        attempt.suspect |= post.goes_alone();
        loop {
            // A blocked connection takes no message, and says only by silence that it does not.
            self.unblocked(attempt).await?;
            self.check(post)?;
            // RabbitMQ may have the first one already, so the second says that it is a copy.
            if attempt.sent
                && (copy.is_none() || post.once)
                && !matches!(post.aim, Aim::Dead | Aim::Failed | Aim::GuardQueue | Aim::Anybody)
            {
                copy = Some(post.copy());
            }
            match timeout_at(deadline, self.send(copy.as_ref().unwrap_or(post), attempt)).await {
                Ok(Ok(confirmation)) => {
                    if self.judge(&confirmation, &post.aim, attempt)? {
                        if let Some(queue) = queue_of_letter(post) {
                            *self.letters().entry(queue).or_default() += 1;
                        }
                        return Ok(());
                    }
                    if attempt.refused > 0 && timeout_at(deadline, pause.rest()).await.is_err() {
                        attempt.refused = DOUBTS;
                    }
                }
                Ok(Err(error)) if error.is_permanent() => return Err(error),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a publish was not confirmed and is sent again");
                    if timeout_at(deadline, pause.rest()).await.is_err() {
                        return Err(self.unknown(&error, attempt.sent));
                    }
                }
                Err(_) => return Err(self.unknown(&self.link.unreachable(), attempt.sent)),
            }
        }
    }

    /// Judges what RabbitMQ has said of a message. `false`: the message is to be sent again.
    fn judge(
        &self,
        confirmation: &Confirmation,
        aim: &Aim,
        attempt: &mut Attempt,
    ) -> Result<bool, BrokerError> {
        match confirmation {
            Confirmation::Ack(None) | Confirmation::NotRequested => Ok(true),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => match aim {
                Aim::Anybody | Aim::Broadcast(_) => Ok(true), // nobody listens, which is no mistake
                Aim::Exchange { .. } => Err(aim.unroutable()),
                // The queue was deleted since it was declared, so it is declared again.
                _ if !attempt.returned => {
                    attempt.returned = true;
                    attempt.sent = false;
                    self.topology.forget();
                    Ok(false)
                }
                _ => Err(aim.unroutable()),
            },
            Confirmation::Nack(None) if attempt.refused < DOUBTS => {
                attempt.refused += 1;
                attempt.sent = false;
                self.channels.replace_old(ChannelSlot::of(aim));
                Ok(false)
            }
            Confirmation::Nack(None) => Err(BrokerError::Full(format!(
                "RabbitMQ has refused the message for {}: the queue is at its `max-length`, or cannot keep it",
                aim
            ))),
        }
    }

    fn letters(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.letters.lock()
    }

    /// The number of dead letters of a queue that this process put there and did not put back.
    pub(super) fn letters_of(&self, queue: &str) -> u64 {
        self.letters().get(queue).copied().unwrap_or_default()
    }

    /// Notes that this process has put a dead letter of this queue back.
    pub(super) fn requeued(&self, queue: &str) {
        if let Some(letters) = self.letters().get_mut(queue) {
            *letters = letters.saturating_sub(1);
        }
    }

    /// Whether everything that a message needs is declared.
    fn is_declared(&self, aim: &Aim) -> bool {
        match aim {
            Aim::Queue(queue) | Aim::Broadcast(queue) => self.topology.knows(queue),
            Aim::Delayed(_) | Aim::Dead | Aim::Failed => false,
            Aim::Exchange { name, .. } => self.topology.has_exchange(name),
            Aim::GuardQueue | Aim::Anybody => true,
        }
    }

    async fn declare(&self, aim: &Aim) -> Result<(), BrokerError> {
        match aim {
            Aim::Queue(queue) | Aim::Broadcast(queue) => self.topology.declare(queue).await,
            Aim::Delayed(queue) => self.topology.declare_delay(queue).await,
            Aim::Dead => self.topology.declare_dead().await,
            Aim::Failed => self.topology.declare_failed().await,
            Aim::Exchange { name, .. } => self.topology.find_exchange(name).await,
            Aim::GuardQueue | Aim::Anybody => Ok(()),
        }
    }

    /// Waits as long as RabbitMQ takes no messages.
    async fn unblocked(&self, attempt: &Attempt) -> Result<(), BrokerError> {
        let Attempt { deadline, patience, sent, .. } = *attempt;
        let mut state = self.link.watch();
        let open =
            timeout_at(deadline, state.wait_for(|s| matches!(s, LinkState::Up(up) if up.blocked.is_none())))
                .await;
        if open.is_ok() {
            return Ok(());
        }
        match self.blocked() {
            Some(why) if !sent => Err(BrokerError::Full(format!(
                "RabbitMQ has blocked publishers for more than {patience:?}: {why}; free some disk or memory there"
            ))),
            _ => Err(self.unknown(&self.link.unreachable(), sent)),
        }
    }

    /// Whether a publish could only wait now.
    pub(super) fn is_unavailable(&self) -> bool {
        match &*self.link.now() {
            LinkState::Up(up) => up.blocked.is_some(),
            LinkState::Down(_) => true,
        }
    }

    fn blocked(&self) -> Option<Arc<str>> {
        match &*self.link.now() {
            LinkState::Up(up) => up.blocked.clone(),
            LinkState::Down(_) => None,
        }
    }

    async fn send(&self, post: &OutgoingMessage, attempt: &mut Attempt) -> Result<Confirmation, BrokerError> {
        self.link.during(self.send_and_confirm(post, attempt)).await
    }

    async fn send_and_confirm(
        &self,
        post: &OutgoingMessage,
        attempt: &mut Attempt,
    ) -> Result<Confirmation, BrokerError> {
        // The order of asking is kept by the gate: it is held until the message is in line.
        let waiting = GateGuard::at(&self.at_the_gate);
        let gate = self.gate.lock().await;
        self.declare(&post.aim).await?;
        // A message that is tried alone holds nobody else up.
        if attempt.suspect {
            drop((gate, waiting));
            return self.send_alone(post, attempt).await;
        }
        let slot = ChannelSlot::of(&post.aim);
        let channel = self.channels.open(slot).await?;
        if !post.confirm {
            self.channels.open(ChannelSlot::UNCONFIRMED).await?; // for those that come after it
        }
        let mut confirmed = pin!(transmit(&channel, post));
        let first = self.channels.put_in_line(slot, confirmed.as_mut(), &mut attempt.sent).await;
        drop((gate, waiting));
        let confirmed = match first {
            Some(confirmed) => confirmed,
            None => confirmed.await,
        };
        confirmed.map_err(|error| {
            self.not_confirmed(&error, attempt);
            BrokerError::io_because(format!("RabbitMQ: {error}"), error)
        })
    }

    /// Sends a message on a channel of its own: if RabbitMQ closes the channel, it is because of this message.
    async fn send_alone(
        &self,
        post: &OutgoingMessage,
        attempt: &mut Attempt,
    ) -> Result<Confirmation, BrokerError> {
        let _one_of_few = self.alone.acquire().await.map_err(|_| BrokerError::Closed)?;
        let channel = self.new_channel().await?;
        attempt.sent = true;
        transmit(&channel, post).await.map_err(|error| match broken(&error) {
            BrokerError::Refused(reason) => {
                BrokerError::Refused(format!("the message for {}: {reason}", post.aim))
            }
            other => {
                self.not_confirmed(&error, attempt);
                other
            }
        })
    }

    /// Opens a channel on the publisher's connection, on which RabbitMQ confirms messages.
    pub(super) async fn new_channel(&self) -> Result<Channel, BrokerError> {
        self.channels.new_channel(true).await
    }

    /// The epoch of the connection, if there is one.
    fn epoch(&self) -> Option<u64> {
        match &*self.link.now() {
            LinkState::Up(up) => Some(up.epoch),
            LinkState::Down(_) => None,
        }
    }

    fn unknown(&self, error: &BrokerError, sent: bool) -> BrokerError {
        match (error, sent, self.blocked()) {
            (BrokerError::Closed, ..) => BrokerError::Closed,
            (_, false, _) => error.clone(),
            (_, true, Some(why)) => BrokerError::io(format!(
                "RabbitMQ has blocked publishers: {why}; whether it takes the task when that is over is not known"
            )),
            (_, true, None) => BrokerError::io(format!(
                "{error}; the task was sent, but whether RabbitMQ has it is not known"
            )),
        }
    }
}

/// The bytes that a frame may take on this connection; 0 is no limit.
fn frame_max(up: &LiveConnection) -> usize {
    usize::try_from(up.connection.configuration().frame_max()).unwrap_or_default()
}

/// Refuses a message whose properties take more than this limit of a frame.
fn check_size(post: &OutgoingMessage, limit: usize) -> Result<(), BrokerError> {
    if limit == 0 {
        return Ok(());
    }
    match frame_size(&post.properties) {
        size if size <= limit => Ok(()),
        size => Err(BrokerError::Refused(format!(
            "the headers of the message for {} take {size} bytes, and RabbitMQ takes {limit} (`frame_max`): put less into headers and stamps, or raise `frame_max` in its configuration",
            post.aim
        ))),
    }
}

/// Counts a publish as one at the gate while it is there.
struct GateGuard<'a>(&'a AtomicUsize);

impl<'a> GateGuard<'a> {
    fn at(gate: &'a AtomicUsize) -> Self {
        gate.fetch_add(1, Ordering::AcqRel);
        Self(gate)
    }
}

impl Drop for GateGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A message that was put in line. If nobody waits for its confirmation any more, a task of its own does, because
/// lapin would keep an unclaimed confirmation for as long as the channel is open.
struct OnItsWay<'a> {
    transmitted: Option<BoxFuture<'static, lapin::Result<Confirmation>>>,
    runtime: &'a Handle,
}

impl Future for OnItsWay<'_> {
    type Output = lapin::Result<Confirmation>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Self::Output> {
        let Some(transmitted) = &mut self.transmitted else { return Poll::Pending };
        let confirmed = transmitted.as_mut().poll(cx);
        if confirmed.is_ready() {
            self.transmitted = None;
        }
        confirmed
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if let Some(transmitted) = self.transmitted.take() {
            self.runtime.spawn(transmitted);
        }
    }
}

/// Sends a message, and waits for what RabbitMQ says of it.
async fn transmit(channel: &Channel, post: &OutgoingMessage) -> lapin::Result<Confirmation> {
    let (exchange, key) = (post.exchange.clone(), post.key.clone());
    channel.basic_publish(exchange, key, MANDATORY, &post.body, post.properties.clone()).await?.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::FOR_EVER;

    /// Each publish adds its patience to the current time; the longest patience is for ever.
    #[test]
    fn patience_for_ever_is_in_the_range_of_the_clock() {
        for patience in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_millis(u64::MAX)] {
            let now = Instant::now();
            assert!(Attempt::new(patience).deadline >= now + FOR_EVER);
        }
        assert!(Attempt::new(Duration::ZERO).deadline <= Instant::now());
    }
}

//! Messages on their way into RabbitMQ: each is mandatory, persistent and confirmed, and many are on their way at a time.
//!
//! A publish ends in one of three ways. Confirmed: RabbitMQ has it where it belongs. Refused: nothing was taken. Not known:
//! the connection was lost, or nobody answered, until the deadline; a message may then be there, even twice, for one that
//! was not confirmed is sent again as soon as there is a connection. It then says so: whoever runs it may be the second.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::link::{Link, Pause, State};
use super::outgoing::{COPY, mark};
use super::topology::{Topology, broken};
use crate::broker::BrokerError;
use crate::task::ONCE;

/// So often a refusal is doubted: in a cluster, a channel that was opened while a quorum queue had lost its leader refuses
/// everything for that queue from then on, and a new channel does not.
const DOUBTS: u32 = 3;
/// A channel that is younger than this is not replaced for a refusal.
const YOUNG: Duration = Duration::from_millis(50);
/// One that insists looks around after this long.
const AT_A_TIME: Duration = Duration::from_secs(30);
/// RabbitMQ sends back what it cannot route.
const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };
/// How often those who wait on tasks of their own look at the clock.
const LOOK: Duration = Duration::from_secs(1);

/// A message, and where it goes.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
    /// Where it has to come out in the end.
    pub(super) aim: Aim,
    /// Each copy that is sent has a mark of its own.
    pub(super) once: bool,
}

impl Post {
    /// The same, sent again.
    fn copy(&self) -> Self {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        headers.insert(COPY.into(), AMQPValue::Boolean(true));
        if self.once {
            headers.insert(ONCE.into(), AMQPValue::LongString(mark().into()));
        }
        Self { properties: self.properties.clone().with_headers(headers), ..self.clone() }
    }
}

/// What has to be declared for a message to arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// A task queue.
    Queue(String),
    /// A task queue, some time later.
    Delayed(String),
    /// The dead letters.
    Dead,
    /// The keeping of this process.
    Keeping,
    /// Whoever is there; nobody, perhaps.
    Anybody,
}

/// Publishes.
pub(super) struct Publisher {
    link: Arc<Link>,
    topology: Arc<Topology>,
    runtime: Handle,
    /// Who has something to declare or to open first does it here, in the order of asking.
    gate: tokio::sync::Mutex<()>,
    /// How many are at the gate: nobody overtakes them.
    at_the_gate: AtomicUsize,
    /// The channel that all publishes share. Held while frames are put in line, never while anything is waited for.
    channel: Mutex<Option<Open>>,
    /// Told every second, to those who have no timers where they wait.
    seconds: watch::Sender<()>,
}

/// Somebody on the way to the gate.
pub(super) struct Announced(Arc<Publisher>);

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.at_the_gate.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How far a publish has come.
pub(super) struct Attempt {
    patience: Duration,
    deadline: Instant,
    /// It was sent: from now on it is not known for sure that RabbitMQ has not got it.
    sent: bool,
    /// It came back once.
    returned: bool,
    /// How often it was refused.
    refused: u32,
}

/// The channel that all publishes share.
struct Open {
    channel: Channel,
    since: Instant,
}

impl Attempt {
    /// The first one of a message.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, deadline: Instant::now() + patience, sent: false, returned: false, refused: 0 }
    }
}

impl Publisher {
    pub(super) fn new(link: Arc<Link>, topology: Arc<Topology>) -> Arc<Self> {
        let publisher = Arc::new(Self {
            link,
            topology,
            runtime: Handle::current(),
            gate: tokio::sync::Mutex::new(()),
            at_the_gate: AtomicUsize::new(0),
            channel: Mutex::new(None),
            seconds: watch::Sender::new(()),
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

    /// Publishes, and waits until it is confirmed, however long that takes: the delivery that it replaces is not
    /// acknowledged before. Fails only when the broker is closed.
    pub(super) async fn insist(&self, post: &Post) -> Result<(), BrokerError> {
        let mut pause = Pause::default();
        let mut said = false;
        let mut sent = false;
        loop {
            let mut attempt = Attempt { sent, ..Attempt::new(AT_A_TIME) };
            let published = self.go_on(post, &mut attempt).await;
            sent = attempt.sent;
            match published {
                Ok(()) => return Ok(()),
                Err(BrokerError::Closed) => return Err(BrokerError::Closed),
                Err(error) if !std::mem::replace(&mut said, true) => {
                    tracing::warn!(%error, "what follows from a run cannot be published yet; its delivery is kept until it is");
                }
                Err(_) => {}
            }
            pause.rest().await;
        }
    }

    /// Publishes, and waits until it is confirmed, but not longer than `patience`.
    pub(super) async fn publish(&self, post: &Post, patience: Duration) -> Result<(), BrokerError> {
        self.go_on(post, &mut Attempt::new(patience)).await
    }

    /// Says that somebody is on the way to the gate, until it is dropped.
    pub(super) fn announce(self: Arc<Self>) -> Announced {
        self.at_the_gate.fetch_add(1, Ordering::AcqRel);
        Announced(self)
    }

    /// Publishes without a detour by the broker's thread, on whatever task and runtime the caller has: `true` if it is
    /// confirmed. Otherwise there is something to be done first, or again, and [`go_on`](Self::go_on) does it.
    pub(super) async fn publish_at_once(
        &self,
        post: Post,
        attempt: &mut Attempt,
    ) -> Result<bool, BrokerError> {
        if self.is_away() || self.at_the_gate.load(Ordering::Acquire) > 0 || !self.is_declared(&post.aim) {
            return Ok(false);
        }
        let (Some(channel), epoch) = (self.usable_channel(), self.epoch()) else { return Ok(false) };
        let mut seconds = self.seconds.subscribe();
        let Post { exchange, key, properties, body, aim, .. } = post;
        let transmitted = Box::pin(async move {
            channel.basic_publish(exchange, key, MANDATORY, &body, properties).await?.await
        });
        let mut message = OnItsWay { transmitted: Some(transmitted), runtime: &self.runtime };
        let first = self.put_in_line(Pin::new(&mut message), &mut attempt.sent).await;
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
                        if self.epoch() != epoch {
                            // What was asked just when the connection was lost may never be answered.
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
                tracing::debug!(%error, "a publish was not confirmed and is sent again");
                Ok(false)
            }
        }
    }

    /// Publishes, and waits until it is confirmed, but not longer than the attempt may take. On the broker's own thread.
    pub(super) async fn go_on(&self, post: &Post, attempt: &mut Attempt) -> Result<(), BrokerError> {
        let deadline = attempt.deadline;
        let mut pause = Pause::default();
        let mut copy = None;
        loop {
            self.unblocked(attempt).await?;
            if attempt.sent
                && (copy.is_none() || post.once)
                && matches!(post.aim, Aim::Queue(_) | Aim::Delayed(_))
            {
                copy = Some(post.copy());
            }
            match timeout_at(deadline, self.send(copy.as_ref().unwrap_or(post), &mut attempt.sent)).await {
                Ok(Ok(confirmation)) => {
                    if self.judge(&confirmation, &post.aim, attempt)? {
                        return Ok(());
                    }
                    if attempt.refused > 0 && timeout_at(deadline, pause.rest()).await.is_err() {
                        attempt.refused = DOUBTS;
                    }
                }
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

    /// What RabbitMQ has said of a message; `false`: it is to be sent again.
    fn judge(
        &self,
        confirmation: &Confirmation,
        aim: &Aim,
        attempt: &mut Attempt,
    ) -> Result<bool, BrokerError> {
        match confirmation {
            Confirmation::Ack(None) | Confirmation::NotRequested => Ok(true),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => match aim {
                Aim::Anybody => Ok(true),
                // The queue was deleted since it was declared.
                _ if !attempt.returned => {
                    attempt.returned = true;
                    attempt.sent = false;
                    self.topology.forget();
                    Ok(false)
                }
                _ => Err(unroutable(aim)),
            },
            Confirmation::Nack(None) if attempt.refused < DOUBTS => {
                attempt.refused += 1;
                attempt.sent = false;
                self.open_channel().take_if(|open| open.since.elapsed() > YOUNG);
                Ok(false)
            }
            Confirmation::Nack(None) => Err(BrokerError::Full(format!(
                "RabbitMQ has refused the message for {}: the queue is at its `max-length`, or cannot keep it",
                place(aim)
            ))),
        }
    }

    /// Whether all is declared that a message needs.
    fn is_declared(&self, aim: &Aim) -> bool {
        match aim {
            Aim::Queue(queue) => self.topology.knows(queue),
            Aim::Delayed(_) | Aim::Dead => false,
            Aim::Keeping | Aim::Anybody => true,
        }
    }

    async fn declare(&self, aim: &Aim) -> Result<(), BrokerError> {
        match aim {
            Aim::Queue(queue) => self.topology.declare(queue).await,
            Aim::Delayed(queue) => self.topology.declare_delay(queue).await,
            Aim::Dead => self.topology.declare_dead().await,
            Aim::Keeping | Aim::Anybody => Ok(()),
        }
    }

    /// Waits while RabbitMQ takes nothing.
    async fn unblocked(&self, attempt: &Attempt) -> Result<(), BrokerError> {
        let Attempt { deadline, patience, sent, .. } = *attempt;
        let mut state = self.link.watch();
        let open =
            timeout_at(deadline, state.wait_for(|s| matches!(s, State::Up(up) if up.blocked.is_none())))
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

    /// Whether a publish would only wait.
    pub(super) fn is_away(&self) -> bool {
        match &*self.link.watch().borrow() {
            State::Up(up) => up.blocked.is_some(),
            State::Down(_) => true,
        }
    }

    fn blocked(&self) -> Option<Arc<str>> {
        match &*self.link.watch().borrow() {
            State::Up(up) => up.blocked.clone(),
            State::Down(_) => None,
        }
    }

    async fn send(&self, post: &Post, sent: &mut bool) -> Result<Confirmation, BrokerError> {
        self.link.during(self.send_and_confirm(post, sent)).await
    }

    async fn send_and_confirm(&self, post: &Post, sent: &mut bool) -> Result<Confirmation, BrokerError> {
        let waiting = Waiting::at(&self.at_the_gate);
        let gate = self.gate.lock().await;
        self.declare(&post.aim).await?;
        let channel = self.channel().await?;
        let mut confirmed = pin!(transmit(&channel, post));
        let first = self.put_in_line(confirmed.as_mut(), sent).await;
        drop((gate, waiting));
        let confirmed = match first {
            Some(confirmed) => confirmed,
            None => confirmed.await,
        };
        confirmed.map_err(|e| broken(&e))
    }

    /// Puts the frames of a message in line, which lapin does when it is polled first. That they are written and confirmed is
    /// waited for elsewhere, by each for itself, so that many are on their way at a time.
    async fn put_in_line<T>(
        &self,
        mut message: Pin<&mut impl Future<Output = T>>,
        sent: &mut bool,
    ) -> Option<T> {
        poll_fn(|cx| {
            let _line = self.open_channel();
            *sent = true;
            Poll::Ready(match message.as_mut().poll(cx) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// The channel that all publishes share; a new one when the old one is gone.
    async fn channel(&self) -> Result<Channel, BrokerError> {
        if let Some(channel) = self.usable_channel() {
            return Ok(channel);
        }
        let up = self.link.up(Instant::now() + Duration::from_secs(10)).await?;
        let channel = up.connection.create_channel().await.map_err(|e| broken(&e))?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|e| broken(&e))?;
        *self.open_channel() = Some(Open { channel: channel.clone(), since: Instant::now() });
        Ok(channel)
    }

    fn usable_channel(&self) -> Option<Channel> {
        self.open_channel().as_ref().map(|open| open.channel.clone()).filter(|c| c.status().connected())
    }

    /// Which connection there is.
    fn epoch(&self) -> Option<u64> {
        match &*self.link.watch().borrow() {
            State::Up(up) => Some(up.epoch),
            State::Down(_) => None,
        }
    }

    fn open_channel(&self) -> MutexGuard<'_, Option<Open>> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown(&self, error: &BrokerError, sent: bool) -> BrokerError {
        match (error, sent, self.blocked()) {
            (BrokerError::Closed, ..) => BrokerError::Closed,
            (_, false, _) => error.clone(),
            (_, true, Some(why)) => BrokerError::Io(format!(
                "RabbitMQ has blocked publishers: {why}; whether it takes the task when that is over is not known"
            )),
            (_, true, None) => BrokerError::Io(format!(
                "{error}; the task was sent, but whether RabbitMQ has it is not known"
            )),
        }
    }
}

/// One at the gate.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn at(gate: &'a AtomicUsize) -> Self {
        gate.fetch_add(1, Ordering::AcqRel);
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A message that was put in line. If nobody waits for its end any more, its end is awaited all the same: lapin would keep
/// what it owes for as long as the channel is open.
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
async fn transmit(channel: &Channel, post: &Post) -> lapin::Result<Confirmation> {
    let (exchange, key) = (post.exchange.clone(), post.key.clone());
    channel.basic_publish(exchange, key, MANDATORY, &post.body, post.properties.clone()).await?.await
}

fn unroutable(aim: &Aim) -> BrokerError {
    BrokerError::Io(format!(
        "RabbitMQ cannot route the message to {}, although that was just declared: does a policy or another program delete it?",
        place(aim)
    ))
}

fn place(aim: &Aim) -> String {
    match aim {
        Aim::Queue(queue) => format!("queue `{queue}`"),
        Aim::Delayed(queue) => format!("queue `{queue}` by way of the delays"),
        Aim::Dead => "the dead letters".to_owned(),
        Aim::Keeping => "the keeping of this process".to_owned(),
        Aim::Anybody => "whoever listens".to_owned(),
    }
}

//! Messages on their way into RabbitMQ: each is mandatory, persistent and confirmed, and many are on their way at a time.
//!
//! A publish ends in one of three ways. Confirmed: RabbitMQ has it where it belongs. Refused: nothing was taken. Not known:
//! the connection was lost, or nobody answered, until the deadline; a message may then be there, even twice, for one that
//! was not confirmed is sent again as soon as there is a connection. It then says so: whoever runs it may be the second.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::link::{Link, Pause, State};
use super::outgoing::COPY;
use super::topology::{Topology, broken};
use crate::broker::BrokerError;

/// So often a refusal is doubted: in a cluster, a channel that was opened while a quorum queue had lost its leader refuses
/// everything for that queue from then on, and a new channel does not.
const DOUBTS: u32 = 3;
/// A channel that is younger than this is not replaced for a refusal.
const YOUNG: Duration = Duration::from_millis(50);
/// One that insists looks around after this long.
const AT_A_TIME: Duration = Duration::from_secs(30);

/// A message, and where it goes.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
    /// Where it has to come out in the end.
    pub(super) aim: Aim,
}

impl Post {
    /// The same, sent again.
    fn copy(&self) -> Self {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        headers.insert(COPY.into(), AMQPValue::Boolean(true));
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
    /// Who has it sends; in the order of asking, whatever has to be declared before.
    gate: Mutex<Option<Open>>,
}

/// The channel that all publishes share.
struct Open {
    channel: Channel,
    since: Instant,
}

impl Publisher {
    pub(super) fn new(link: Arc<Link>, topology: Arc<Topology>) -> Self {
        Self { link, topology, gate: Mutex::new(None) }
    }

    /// Publishes, and waits until it is confirmed, however long that takes: the delivery that it replaces is not
    /// acknowledged before. Fails only when the broker is closed.
    pub(super) async fn insist(&self, post: &Post) -> Result<(), BrokerError> {
        let mut pause = Pause::default();
        let mut said = false;
        let mut sent = false;
        loop {
            match self.try_publish(post, AT_A_TIME, &mut sent).await {
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
        self.try_publish(post, patience, &mut false).await
    }

    /// `sent`: it was sent before, and may have arrived.
    async fn try_publish(&self, post: &Post, patience: Duration, sent: &mut bool) -> Result<(), BrokerError> {
        let deadline = Instant::now() + patience;
        let mut pause = Pause::default();
        let (mut returned, mut refused, mut copy) = (false, 0, None);
        loop {
            self.unblocked(deadline, patience, *sent).await?;
            if *sent && copy.is_none() && matches!(post.aim, Aim::Queue(_) | Aim::Delayed(_)) {
                copy = Some(post.copy());
            }
            match timeout_at(deadline, self.send(copy.as_ref().unwrap_or(post), sent)).await {
                Ok(Ok(Confirmation::Ack(None) | Confirmation::NotRequested)) => return Ok(()),
                Ok(Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)))) => match post.aim {
                    Aim::Anybody => return Ok(()),
                    // The queue was deleted since it was declared.
                    _ if !returned => {
                        returned = true;
                        *sent = false;
                        self.topology.forget();
                    }
                    _ => return Err(unroutable(post)),
                },
                Ok(Ok(Confirmation::Nack(None))) if refused < DOUBTS => {
                    refused += 1;
                    *sent = false;
                    self.gate.lock().await.take_if(|open| open.since.elapsed() > YOUNG);
                    if timeout_at(deadline, pause.rest()).await.is_err() {
                        refused = DOUBTS;
                    }
                }
                Ok(Ok(Confirmation::Nack(None))) => {
                    return Err(BrokerError::Full(format!(
                        "RabbitMQ has refused the message for {}: the queue is at its `max-length`, or cannot keep it",
                        place(&post.aim)
                    )));
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a publish was not confirmed and is sent again");
                    if timeout_at(deadline, pause.rest()).await.is_err() {
                        return Err(self.unknown(&error, *sent));
                    }
                }
                Err(_) => return Err(self.unknown(&self.link.unreachable(), *sent)),
            }
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
    async fn unblocked(&self, deadline: Instant, patience: Duration, sent: bool) -> Result<(), BrokerError> {
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
        let mut gate = self.gate.lock().await;
        self.declare(&post.aim).await?;
        let channel = self.channel(&mut gate).await?;
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, key) = (post.exchange.clone(), post.key.clone());
        *sent = true;
        let confirm =
            channel.basic_publish(exchange, key, options, &post.body, post.properties.clone()).await;
        drop(gate);
        confirm.map_err(|e| broken(&e))?.await.map_err(|e| broken(&e))
    }

    /// The channel that all publishes share; a new one when the old one is gone.
    async fn channel(&self, slot: &mut Option<Open>) -> Result<Channel, BrokerError> {
        if let Some(open) = slot.as_ref().filter(|open| open.channel.status().connected()) {
            return Ok(open.channel.clone());
        }
        *slot = None;
        let up = self.link.up(Instant::now() + Duration::from_secs(10)).await?;
        let channel = up.connection.create_channel().await.map_err(|e| broken(&e))?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|e| broken(&e))?;
        *slot = Some(Open { channel: channel.clone(), since: Instant::now() });
        Ok(channel)
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

fn unroutable(post: &Post) -> BrokerError {
    BrokerError::Io(format!(
        "RabbitMQ cannot route the message to {} (exchange `{}`, key `{}`), although that was just declared: does a policy or another program delete it?",
        place(&post.aim),
        post.exchange,
        post.key
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

//! One connection to RabbitMQ that is made again whenever it is lost, with growing pauses, for as long as the broker is open.
//!
//! Whoever uses it asks for what is up now, or waits until something is. Each new connection has a new epoch, so that what
//! belonged to an old one is never taken for something of the new one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use crate::broker::BrokerError;

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a connection is looked at that says nothing.
const LOOK: Duration = Duration::from_secs(1);

/// A connection that lasts.
pub(super) struct Link {
    role: &'static str,
    address: Address,
    state: watch::Sender<State>,
    closing: CancellationToken,
}

/// Whether there is a connection now.
#[derive(Clone)]
pub(super) enum State {
    /// None, and why.
    Down(Arc<str>),
    /// This one.
    Up(Up),
}

/// A connection that is up.
#[derive(Clone)]
pub(super) struct Up {
    pub(super) connection: Arc<Connection>,
    /// Counts the connections.
    pub(super) epoch: u64,
    /// RabbitMQ takes nothing more on it for now, and why.
    pub(super) blocked: Option<Arc<str>>,
}

impl Link {
    /// Connects, and keeps connected until `closing`.
    pub(super) async fn open(
        role: &'static str,
        address: Address,
        closing: CancellationToken,
    ) -> Result<Arc<Self>, BrokerError> {
        let connection = connect(role, &address.uri).await.map_err(|error| {
            BrokerError::Io(format!(
                "RabbitMQ at {address} is not to be reached: {error}; start it, or correct the address"
            ))
        })?;
        let up = Up { connection: Arc::new(connection), epoch: 1, blocked: None };
        let link =
            Arc::new(Self { role, address, state: watch::Sender::new(State::Up(up.clone())), closing });
        tokio::spawn(Arc::clone(&link).keep(up));
        Ok(link)
    }

    /// Changes of the state.
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The connection, as soon as there is one.
    pub(super) async fn up(&self, deadline: Instant) -> Result<Up, BrokerError> {
        let mut state = self.state.subscribe();
        let found =
            tokio::time::timeout_at(deadline, state.wait_for(|state| matches!(state, State::Up(_)))).await;
        if let Ok(Ok(state)) = found
            && let State::Up(up) = &*state
        {
            return Ok(up.clone());
        }
        Err(self.unreachable())
    }

    /// What to tell somebody who has waited for a connection in vain.
    pub(super) fn unreachable(&self) -> BrokerError {
        match &*self.state.borrow() {
            _ if self.closing.is_cancelled() => BrokerError::Closed,
            State::Down(why) => {
                BrokerError::Io(format!("RabbitMQ at {} is not to be reached: {why}", self.address))
            }
            State::Up(_) => BrokerError::Io(format!("RabbitMQ at {} does not answer", self.address)),
        }
    }

    async fn keep(self: Arc<Self>, mut up: Up) {
        loop {
            let why = tokio::select! {
                why = self.lost(&up) => why,
                () = self.closing.cancelled() => break,
            };
            tracing::warn!(rabbitmq = %self.address, role = self.role, why, "the connection is lost; connecting again");
            self.state.send_replace(State::Down(why.into()));
            let epoch = up.epoch + 1;
            let Some(connection) = self.reconnect().await else { break };
            tracing::info!(rabbitmq = %self.address, role = self.role, "connected again");
            up = Up { connection: Arc::new(connection), epoch, blocked: None };
            self.state.send_replace(State::Up(up.clone()));
        }
        let _ = tokio::time::timeout(PATIENCE, up.connection.close(200, "OK".into())).await;
        self.state.send_replace(State::Down("the broker is closed".into()));
    }

    /// Waits until a connection is lost; says why.
    async fn lost(&self, up: &Up) -> String {
        let mut events = Box::pin(up.connection.events_listener());
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(why)) => self.block(up, Some(why.into())),
                    Some(Event::ConnectionUnblocked) => self.block(up, None),
                    Some(Event::Error(error)) if !up.connection.status().connected() => return error.to_string(),
                    Some(_) => {}
                    None => return "its event loop has ended".to_owned(),
                },
                _ = look.tick() => if !up.connection.status().connected() {
                    return "it was closed".to_owned();
                },
            }
        }
    }

    fn block(&self, up: &Up, why: Option<Arc<str>>) {
        match &why {
            Some(why) => tracing::warn!(rabbitmq = %self.address, %why, "RabbitMQ has blocked publishers"),
            None => tracing::info!(rabbitmq = %self.address, "RabbitMQ takes messages again"),
        }
        self.state.send_replace(State::Up(Up { blocked: why, ..up.clone() }));
    }

    async fn reconnect(&self) -> Option<Connection> {
        let mut pause = Pause::default();
        loop {
            tokio::select! {
                () = pause.rest() => {}
                () = self.closing.cancelled() => return None,
            }
            match connect(self.role, &self.address.uri).await {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    tracing::debug!(rabbitmq = %self.address, role = self.role, %error, "still not connected");
                    self.state.send_replace(State::Down(error.into()));
                }
            }
        }
    }
}

async fn connect(role: &str, uri: &AMQPUri) -> Result<Connection, String> {
    let properties = ConnectionProperties::default().with_connection_name(format!("celeriac {role}").into());
    match tokio::time::timeout(PATIENCE, Connection::connect_uri(uri.clone(), properties)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

/// Pauses that grow from a twentieth of a second to three, each shortened at random so that a fleet does not come back as one.
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(50))
    }
}

impl Pause {
    /// How long the next pause is.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(rand::random_range(0.5..1.0));
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        pause
    }

    /// Rests.
    pub(super) async fn rest(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

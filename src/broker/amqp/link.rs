//! One connection to RabbitMQ that is made again whenever it is lost, with growing pauses, for as long as the broker is open.
//! Of several addresses it takes one after the other, and rests when it has tried them all.
//!
//! Whoever uses it asks for what is up now, or waits until something is. Each new connection has a new epoch, so that what
//! belonged to an old one is never taken for something of the new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, Event};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address::Addresses;
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
    addresses: Addresses,
    /// Whose turn it is.
    turn: AtomicUsize,
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
    /// Connects, and keeps connected until `closing`. `patient`: should RabbitMQ be away, begins without it.
    pub(super) async fn open(
        role: &'static str,
        addresses: Addresses,
        patient: bool,
        closing: CancellationToken,
    ) -> Result<Arc<Self>, BrokerError> {
        let state = watch::Sender::new(State::Down("not connected yet".into()));
        let link = Arc::new(Self { role, addresses, turn: AtomicUsize::new(0), state, closing });
        let up = match link.try_all().await {
            Ok(connection) => Some(link.begin(connection, 1)),
            Err(error) if patient => {
                tracing::warn!(rabbitmq = %link.addresses, role, %error, "RabbitMQ is away; connecting as soon as it is there");
                link.state.send_replace(State::Down(error.into()));
                None
            }
            Err(error) => {
                return Err(BrokerError::Io(format!(
                    "RabbitMQ at {} is not to be reached: {error}; start it, or correct the address",
                    link.addresses
                )));
            }
        };
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

    /// Does something that asks RabbitMQ on this connection, and gives it up when the connection is lost: a question that was
    /// asked just then may never be answered.
    pub(super) async fn during<T>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let mut state = self.state.subscribe();
        let lost = async {
            let epoch = match state.wait_for(|state| matches!(state, State::Up(_))).await.as_deref() {
                Ok(State::Up(up)) => up.epoch,
                _ => return,
            };
            let _ = state.wait_for(|state| !matches!(state, State::Up(up) if up.epoch == epoch)).await;
        };
        tokio::select! {
            biased;
            done = work => done,
            () = lost => match self.unreachable() {
                BrokerError::Closed => Err(BrokerError::Closed),
                _ => Err(BrokerError::Io(format!("the connection to RabbitMQ at {} was lost", self.addresses))),
            },
        }
    }

    /// What to tell somebody who has waited for a connection in vain.
    pub(super) fn unreachable(&self) -> BrokerError {
        match &*self.state.borrow() {
            _ if self.closing.is_cancelled() => BrokerError::Closed,
            State::Down(why) => {
                BrokerError::Io(format!("RabbitMQ at {} is not to be reached: {why}", self.addresses))
            }
            State::Up(_) => BrokerError::Io(format!("RabbitMQ at {} does not answer", self.addresses)),
        }
    }

    async fn keep(self: Arc<Self>, mut up: Option<Up>) {
        loop {
            let mut epoch = 1;
            if let Some(up) = &up {
                let why = tokio::select! {
                    why = self.lost(up) => why,
                    () = self.closing.cancelled() => break,
                };
                tracing::warn!(rabbitmq = %self.addresses, role = self.role, why, "the connection is lost; connecting again");
                self.state.send_replace(State::Down(why.into()));
                epoch = up.epoch + 1;
            }
            let Some(connection) = self.reconnect().await else { break };
            tracing::info!(rabbitmq = %self.addresses, role = self.role, "connected");
            up = Some(self.begin(connection, epoch));
        }
        if let Some(up) = up {
            let _ = tokio::time::timeout(PATIENCE, up.connection.close(200, "OK".into())).await;
        }
        self.state.send_replace(State::Down("the broker is closed".into()));
    }

    fn begin(&self, connection: Connection, epoch: u64) -> Up {
        let up = Up { connection: Arc::new(connection), epoch, blocked: None };
        self.state.send_replace(State::Up(up.clone()));
        up
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
            Some(why) => tracing::warn!(rabbitmq = %self.addresses, %why, "RabbitMQ has blocked publishers"),
            None => tracing::info!(rabbitmq = %self.addresses, "RabbitMQ takes messages again"),
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
            let tried = tokio::select! {
                tried = self.try_all() => tried,
                () = self.closing.cancelled() => return None,
            };
            match tried {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    tracing::debug!(rabbitmq = %self.addresses, role = self.role, %error, "still not connected");
                    self.state.send_replace(State::Down(error.into()));
                }
            }
        }
    }

    /// Tries each address once, beginning with the one that worked last.
    async fn try_all(&self) -> Result<Connection, String> {
        let mut errors = Vec::new();
        for _ in 0..self.addresses.len() {
            let turn = self.turn.load(Ordering::Relaxed);
            match self.connect(turn).await {
                Ok(connection) => return Ok(connection),
                Err(error) if self.addresses.len() == 1 => return Err(error),
                Err(error) => {
                    self.turn.fetch_add(1, Ordering::Relaxed);
                    errors.push(format!("{}: {error}", self.addresses.turn(turn)));
                }
            }
        }
        Err(errors.join("; "))
    }

    async fn connect(&self, turn: usize) -> Result<Connection, String> {
        let connected = self.addresses.connect(turn, format!("celeriac {}", self.role));
        match tokio::time::timeout(PATIENCE, connected).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        }
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

//! Keeps one connection to RabbitMQ. While the broker is open, the link makes the connection anew whenever it is lost,
//! after growing pauses. If there are several addresses, the link tries one after the other, and pauses after the last.
//!
//! A user of the link asks for the connection that is up now, or waits until there is one. Each new connection has a
//! new epoch, so nothing of an old connection is taken for a part of the new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, Event};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{BrokerConnection, BrokerError};
use crate::core::Backoff;
use crate::rabbitmq::frame_guard::Aside;
use crate::rabbitmq::{ACCESS_REFUSED, AddressParts, Addresses, code};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long one attempt to connect may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a connection without events is checked.
const LOOK: Duration = Duration::from_secs(1);

/// A new connection, and the properties that came on it and could not be read.
type Connected = (Connection, Arc<Aside>);

/// A connection that the link makes anew when it is lost.
pub(super) struct AmqpLink {
    role: &'static str,
    addresses: Addresses,
    /// The number of addresses that the link has given up so far. It says which address is next.
    turn: AtomicUsize,
    state: watch::Sender<LinkState>,
    closing: CancellationToken,
}

/// The state of the link: whether there is a connection now.
#[derive(Clone)]
pub(super) enum LinkState {
    /// There is no connection, for this reason.
    Down(Arc<str>),
    /// There is this connection.
    Up(LiveConnection),
}

/// A connection that is up.
#[derive(Clone)]
pub(super) struct LiveConnection {
    pub(super) connection: Arc<Connection>,
    /// The properties that came on the connection and could not be read.
    pub(super) aside: Arc<Aside>,
    /// The number of the connection among those of this link.
    pub(super) epoch: u64,
    /// The reason why RabbitMQ takes no messages on the connection now, if it takes none.
    pub(super) blocked: Option<Arc<str>>,
}

impl AmqpLink {
    /// Connects, and stays connected until `closing`. If the link is `patient` and RabbitMQ is away, the link begins
    /// without a connection.
    pub(super) async fn open(
        role: &'static str,
        addresses: Addresses,
        patient: bool,
        closing: CancellationToken,
    ) -> Result<Arc<Self>, BrokerError> {
        let state = watch::Sender::new(LinkState::Down("is not connected to yet".into()));
        let link = Arc::new(Self { role, addresses, turn: AtomicUsize::new(0), state, closing });
        let up = match link.try_all().await {
            Ok(connection) => Some(link.begin(connection, 1)),
            Err(error) if patient => {
                tracing::warn!(rabbitmq = %link.addresses, role, %error, "RabbitMQ is away; connecting as soon as it is there");
                link.state.send_replace(LinkState::Down(error.into()));
                None
            }
            Err(error) => {
                return Err(BrokerError::io(format!("RabbitMQ at {} {error}", link.addresses)));
            }
        };
        tokio::spawn(Arc::clone(&link).keep(up));
        Ok(link)
    }

    /// Follows the changes of the state.
    pub(super) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// The state now. Nobody can change it while the answer is held.
    pub(super) fn now(&self) -> watch::Ref<'_, LinkState> {
        self.state.borrow()
    }

    /// The address in use, in the form in which Celery's tools show it.
    pub(super) fn connection(&self) -> BrokerConnection {
        let mut parts = self.addresses.parts(self.turn.load(Ordering::Relaxed));
        let Some(AddressParts { host, port, user, vhost, tls, heartbeat }) = parts.next() else {
            return BrokerConnection::default();
        };
        BrokerConnection {
            hostname: host.to_owned(),
            port,
            userid: user.to_owned(),
            virtual_host: vhost.to_owned(),
            ssl: tls,
            heartbeat,
            alternates: parts.map(|other| format!("{}:{}", other.host, other.port)).collect(),
        }
    }

    /// Waits for a connection until the deadline.
    pub(super) async fn up(&self, deadline: Instant) -> Result<LiveConnection, BrokerError> {
        let mut state = self.state.subscribe();
        let found =
            tokio::time::timeout_at(deadline, state.wait_for(|state| matches!(state, LinkState::Up(_))))
                .await;
        if let Ok(Ok(state)) = found
            && let LinkState::Up(up) = &*state
        {
            return Ok(up.clone());
        }
        Err(self.unreachable())
    }

    /// Runs `work`, which asks RabbitMQ on this connection, and gives it up when the connection is lost. A question
    /// that was asked at that moment may never be answered.
    pub(super) async fn during<T>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let mut state = self.state.subscribe();
        let lost = async {
            let epoch = match state.wait_for(|state| matches!(state, LinkState::Up(_))).await.as_deref() {
                Ok(LinkState::Up(up)) => up.epoch,
                _ => return,
            };
            let _ = state.wait_for(|state| !matches!(state, LinkState::Up(up) if up.epoch == epoch)).await;
        };
        tokio::select! {
            biased;
            done = work => done,
            () = lost => match self.unreachable() {
                BrokerError::Closed => Err(BrokerError::Closed),
                _ => Err(BrokerError::io(format!("the connection to RabbitMQ at {} was lost", self.addresses))),
            },
        }
    }

    /// The error for a caller who waited for a connection in vain.
    pub(super) fn unreachable(&self) -> BrokerError {
        match &*self.state.borrow() {
            _ if self.closing.is_cancelled() => BrokerError::Closed,
            LinkState::Down(why) => BrokerError::io(format!("RabbitMQ at {} {why}", self.addresses)),
            LinkState::Up(_) => BrokerError::io(format!("RabbitMQ at {} does not answer", self.addresses)),
        }
    }

    async fn keep(self: Arc<Self>, mut up: Option<LiveConnection>) {
        loop {
            let mut epoch = 1;
            if let Some(up) = &up {
                let why = tokio::select! {
                    why = self.lost(up) => why,
                    () = self.closing.cancelled() => break,
                };
                tracing::warn!(rabbitmq = %self.addresses, role = self.role, why, "the connection is lost; connecting again");
                self.state.send_replace(LinkState::Down(format!("is not to be reached: {why}").into()));
                epoch = up.epoch + 1;
            }
            let Some(connection) = self.reconnect().await else { break };
            tracing::info!(rabbitmq = %self.addresses, role = self.role, "connected");
            up = Some(self.begin(connection, epoch));
        }
        if let Some(up) = up {
            let _ = tokio::time::timeout(PATIENCE, up.connection.close(200, "OK".into())).await;
        }
        self.state.send_replace(LinkState::Down("is not to be reached: the broker is closed".into()));
    }

    fn begin(&self, (connection, aside): Connected, epoch: u64) -> LiveConnection {
        let up = LiveConnection { connection: Arc::new(connection), aside, epoch, blocked: None };
        self.state.send_replace(LinkState::Up(up.clone()));
        up
    }

    /// Waits until a connection is lost. Returns the reason.
    async fn lost(&self, up: &LiveConnection) -> String {
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

    fn block(&self, up: &LiveConnection, why: Option<Arc<str>>) {
        match &why {
            Some(why) => tracing::warn!(rabbitmq = %self.addresses, %why, "RabbitMQ has blocked publishers"),
            None => tracing::info!(rabbitmq = %self.addresses, "RabbitMQ takes messages again"),
        }
        self.state.send_replace(LinkState::Up(LiveConnection { blocked: why, ..up.clone() }));
    }

    async fn reconnect(&self) -> Option<Connected> {
        let mut pause = ReconnectPause::default();
        let mut said = String::new();
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
                    // RabbitMQ is there, and only another address will help. Each such text is logged once.
                    if error.contains(REFUSES) && error != said {
                        tracing::error!(rabbitmq = %self.addresses, role = self.role, %error, "RabbitMQ lets nobody in with this address; trying again");
                        said.clone_from(&error);
                    }
                    tracing::debug!(rabbitmq = %self.addresses, role = self.role, %error, "still not connected");
                    self.state.send_replace(LinkState::Down(error.into()));
                }
            }
        }
    }

    /// Tries each address once. It begins with the address that worked last.
    async fn try_all(&self) -> Result<Connected, String> {
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
        Err(format!("is not to be reached ({})", errors.join("; ")))
    }

    async fn connect(&self, turn: usize) -> Result<Connected, String> {
        let aside = Arc::default();
        let name = format!("celeriac {}", self.role);
        let connected = self.addresses.connect_beside(turn, name, Arc::clone(&aside));
        match tokio::time::timeout(PATIENCE, connected).await {
            Ok(Ok(connection)) => Ok((connection, aside)),
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Err(format!("does not answer within {PATIENCE:?}: is it RabbitMQ that listens there?")),
        }
    }

    /// Whether there is a connection.
    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), LinkState::Up(_))
    }
}

/// The word in an error that says that RabbitMQ is there and refuses the login.
const REFUSES: &str = "refuses";
const NOT_ALLOWED: u16 = 530;

/// Says why there is no connection, as the rest of a sentence about RabbitMQ, and what to do about it.
fn explain(error: &lapin::Error) -> String {
    match code(error) {
        Some(ACCESS_REFUSED) => format!(
            "{REFUSES} the user or the password ({error}): correct them in the address, amqp://user:password@host:5672/vhost; letters such as `@`, `/` or `%` are written there as `%40`, `%2F`, `%25`"
        ),
        Some(NOT_ALLOWED) => format!(
            "{REFUSES} the virtual host ({error}): correct it in the address, make it (`rabbitmqctl add_vhost`), or give the user the right to it (`rabbitmqctl set_permissions`)"
        ),
        _ => format!("is not to be reached: {error}; start it, or correct the address"),
    }
}

/// Pauses that grow from a twentieth of a second to three seconds. Each pause is shortened at random, so that the
/// processes of a fleet do not all come back in one moment.
pub(super) struct ReconnectPause(Backoff);

impl Default for ReconnectPause {
    fn default() -> Self {
        Self(Backoff::new(Duration::from_millis(50), LONGEST_PAUSE))
    }
}

impl ReconnectPause {
    /// The length of the next pause.
    pub(super) fn next(&mut self) -> Duration {
        self.0.pause().mul_f64(rand::random_range(0.5..1.0))
    }

    /// Waits for the next pause.
    pub(super) async fn rest(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

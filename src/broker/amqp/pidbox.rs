//! Remote control as far as tasks are concerned: Celery's pidbox, where revocations are told to all workers.
//!
//! Each process has a queue there under its node's name, which nobody else may have; one that finds the name taken listens
//! under a name with its process id in it. Requests are answered as Celery answers them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};
use serde_json::{Value, json};

use super::link::{Pause, State, Up};
use super::publisher::Aim;
use super::topology::{broken, code, short};
use super::{Shared, outgoing, table};
use crate::broker::{Attendant, BrokerError};
use crate::protocol::control::{self, Request};
use crate::task::TaskId;

const RESOURCE_LOCKED: u16 = 405;
/// How long a reply, or a request that nobody else has answered, is tried to be sent.
const PATIENCE: Duration = Duration::from_secs(10);

/// This side's Lamport clock.
static CLOCK: AtomicU64 = AtomicU64::new(1);

/// Tells all workers.
pub(super) async fn broadcast(shared: &Shared, request: &Request) -> Result<(), BrokerError> {
    let channel = shared.topology.channel().await?;
    shared.link.during(declare_exchange(&channel, control::EXCHANGE, ExchangeKind::Fanout)).await?;
    let wire = control::encode(request, CLOCK.fetch_add(1, Ordering::Relaxed), 0.0);
    let post = outgoing::post(control::EXCHANGE.into(), "".into(), wire, Aim::Anybody);
    shared.publisher.publish(&post, shared.options.publish_timeout).await
}

/// Listens, for as long as the broker is open.
pub(super) async fn listen(shared: Arc<Shared>, attendant: Arc<dyn Attendant>) {
    let mut link = shared.link.watch();
    let mut pause = Pause::default();
    let mut node = shared.node.clone();
    loop {
        let up = match link.wait_for(|state| matches!(state, State::Up(_))).await.as_deref() {
            Ok(State::Up(up)) => up.clone(),
            _ => return,
        };
        let followed = shared.link.during(async { Ok(follow(&shared, &*attendant, &up, &node).await) }).await;
        match followed.unwrap_or_else(|error| Err(error.into())) {
            Ok(()) => pause = Pause::default(),
            Err(Failed { locked: true, .. }) if node == shared.node => {
                let (name, host) = node.split_once('@').unwrap_or((&node, "localhost"));
                let other = format!("{name}-{}@{host}", std::process::id());
                tracing::warn!(
                    node,
                    other,
                    "another process on this machine has this node's name; this one takes the other"
                );
                node = other;
            }
            Err(Failed { error, .. }) => {
                tracing::warn!(node, %error, "no revocations are heard for now; trying again");
            }
        }
        pause.rest().await;
    }
}

struct Failed {
    error: BrokerError,
    /// Somebody else has the queue.
    locked: bool,
}

impl From<BrokerError> for Failed {
    fn from(error: BrokerError) -> Self {
        Self { error, locked: false }
    }
}

async fn declare_exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> Result<(), BrokerError> {
    let options = ExchangeDeclareOptions::default();
    channel.exchange_declare(short(name)?, kind, options, FieldTable::default()).await.map_err(|e| broken(&e))
}

/// Listens on one connection, until that is gone.
async fn follow(shared: &Arc<Shared>, attendant: &dyn Attendant, up: &Up, node: &str) -> Result<(), Failed> {
    let channel = up.connection.create_channel().await.map_err(|e| broken(&e))?;
    declare_exchange(&channel, control::EXCHANGE, ExchangeKind::Fanout).await?;
    // A reply to an exchange that is not there would cost a channel.
    declare_exchange(&channel, control::REPLY_EXCHANGE, ExchangeKind::Direct).await?;
    let queue = short(&control::queue_of(node))?;
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let Value::Object(arguments) = json!({"x-expires": 10_000, "x-message-ttl": 300_000}) else {
        return Ok(());
    };
    let declared = channel.queue_declare(queue.clone(), options, table::to_table(arguments)).await;
    declared.map_err(|e| Failed { error: broken(&e), locked: code(&e) == Some(RESOURCE_LOCKED) })?;
    let none = FieldTable::default;
    let bound = channel.queue_bind(
        queue.clone(),
        control::EXCHANGE.into(),
        "".into(),
        QueueBindOptions::default(),
        none(),
    );
    bound.await.map_err(|e| broken(&e))?;
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut requests =
        channel.basic_consume(queue, "".into(), no_ack, none()).await.map_err(|e| broken(&e))?;
    while let Some(delivery) = requests.next().await {
        let delivery = delivery.map_err(|e| broken(&e))?;
        match control::decode(&table::to_wire(&delivery.properties, delivery.data)) {
            Ok(request) if request.is_for(node) => obey(shared, attendant, node, &request).await,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a control message was refused"),
        }
    }
    Ok(())
}

async fn obey(shared: &Arc<Shared>, attendant: &dyn Attendant, node: &str, request: &Request) {
    let answer = match request.revoked() {
        Some((ids, terminate)) => {
            let answer = flagged(shared, &ids, terminate).await;
            attendant.revoked(ids, terminate);
            answer
        }
        None if request.method == "ping" => json!({"ok": "pong"}),
        None => {
            json!({"error": format!("this worker knows `revoke` and `ping`, but not `{}`", request.method)})
        }
    };
    let (Some(to), Some(ticket)) = (&request.reply_to, &request.ticket) else { return };
    let (Ok(exchange), Ok(key)) = (short(&to.exchange), short(&to.routing_key)) else { return };
    let wire = control::encode_reply(node, ticket, CLOCK.fetch_add(1, Ordering::Relaxed), &answer);
    let post = outgoing::post(exchange, key, wire, Aim::Anybody);
    let shared = Arc::clone(shared);
    shared.runtime.clone().spawn(async move {
        if let Err(error) = shared.publisher.publish(&post, PATIENCE).await {
            tracing::debug!(%error, "a control reply could not be sent");
        }
    });
}

/// Celery's words.
async fn flagged(shared: &Shared, ids: &[TaskId], terminate: bool) -> Value {
    if !terminate {
        let ids: Vec<_> = ids.iter().map(|id| format!("'{id}'")).collect();
        return json!({"ok": format!("tasks {{{}}} flagged as revoked", ids.join(", "))});
    }
    let mut here = Vec::new();
    for id in ids {
        if shared.who_has(id).await.is_some() {
            here.push(id.to_string());
        }
    }
    let here = if here.is_empty() { "tasks unknown".to_owned() } else { here.join(", ") };
    json!({"ok": format!("terminate: {here}")})
}

//! Remote control: Celery's pidbox, through which commands reach all workers.
//!
//! Each process has an exclusive queue there under its node's name. If the queue is locked, the process waits for two
//! heartbeats, in which RabbitMQ notices a peer that is gone, and then listens under a name that has its process id
//! in it. It answers requests as Celery does: some by itself, the others by the runtime. It does not answer questions
//! that nobody here knows, because the asker takes every answer for that of a worker of Celery's, whatever it says.
//!
//! Anybody may send anything there. So a message that cannot be read is counted and dropped, the number of
//! requests in memory is bounded, and no answer goes over a channel on which tasks are published or consumed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::link::{LinkState, LiveConnection, ReconnectPause};
use super::topology::{broken, short};
use super::{AmqpInner, clock, table};
use crate::broker::error::shown;
use crate::broker::{BrokerError, BrokerListener, ControlRequest};
use crate::protocol::control::{self, ControlMessageError, Request};
use crate::rabbitmq::code;
use crate::task::TaskId;

const RESOURCE_LOCKED: u16 = 405;
/// While it is locked, it is looked again after this pause.
const LOOK: Duration = Duration::from_secs(1);
/// A longer heartbeat than this counts as this one.
const LONGEST_BEAT: Duration = Duration::from_secs(60);
/// The number of heartbeats for which a locked queue of this node's name is waited for.
const LOCKED_FOR: u32 = 2;
/// The most requests that are obeyed at a time; further ones wait in RabbitMQ.
const AT_A_TIME: usize = 16;

/// Tells all workers, and waits until RabbitMQ has the message.
pub(super) async fn broadcast(shared: &AmqpInner, request: &Request) -> Result<(), BrokerError> {
    let told = async {
        let mut pause = ReconnectPause::default();
        loop {
            let channel = shared.topology.channel().await?;
            let declared = declare_exchange(&channel, control::EXCHANGE, ExchangeKind::Fanout);
            shared.link.during(declared).await?;
            match shared.replies.tell(shared, control::encode(request, clock::tick(), 0.0)).await {
                Err(error) if error != BrokerError::Closed && !error.is_permanent() => {
                    tracing::debug!(%error, "a revocation is not told yet");
                }
                told => return told,
            }
            pause.rest().await;
        }
    };
    let told = tokio::time::timeout(shared.options.publish_timeout, told).await;
    told.unwrap_or_else(|_| Err(BrokerError::io("RabbitMQ did not take a revocation in time".to_owned())))
}

/// Listens for requests, for as long as the broker is open.
pub(super) async fn listen(shared: Arc<AmqpInner>, listener: Arc<dyn BrokerListener>) {
    let mut link = shared.link.watch();
    let mut pause = ReconnectPause::default();
    let mut locked_since: Option<Instant> = None;
    loop {
        let up = match link.wait_for(|state| matches!(state, LinkState::Up(_))).await.as_deref() {
            Ok(LinkState::Up(up)) => up.clone(),
            _ => return,
        };
        let node = shared.node();
        let own = PidboxQueue { node: node.clone(), queue: control::queue_of(&node), answers: true };
        let followed = shared.link.during(async { Ok(follow(&shared, &listener, &up, &own).await) }).await;
        match followed.unwrap_or_else(|error| Err(error.into())) {
            Ok(()) => (pause, locked_since) = (ReconnectPause::default(), None),
            // RabbitMQ may not have noticed yet that the connection of this process's last life is gone.
            Err(Failed { locked: true, .. }) => {
                let until = *locked_since.get_or_insert_with(Instant::now)
                    + shared.options.heartbeat.min(LONGEST_BEAT) * LOCKED_FOR;
                if Instant::now() < until {
                    let held_out = async {
                        hold_out(&shared, &listener, &up, &node, until).await;
                        Ok(())
                    };
                    let _ = shared.link.during(held_out).await;
                } else {
                    let other = shared.node.give_way();
                    locked_since = None;
                    tracing::warn!(
                        %node,
                        %other,
                        "another process has this node's name; this one takes the other"
                    );
                }
            }
            Err(Failed { error, .. }) => {
                tracing::warn!(%node, %error, "no remote control is heard for now; trying again");
            }
        }
        pause.rest().await;
    }
}

/// A queue of this process for requests.
struct PidboxQueue {
    node: Arc<str>,
    queue: String,
    /// Whether requests are answered. If not, they are obeyed all the same.
    answers: bool,
}

/// Obeys requests in silence, in a queue of another name, until the node's own queue is not locked any more or the
/// time is over. No revocation is missed meanwhile, and no other process's name is answered for.
async fn hold_out(
    shared: &Arc<AmqpInner>,
    listener: &Arc<dyn BrokerListener>,
    up: &LiveConnection,
    node: &Arc<str>,
    until: Instant,
) {
    tracing::debug!(%node, "the queue of this node's name is locked; trying again");
    let queue = control::queue_of(&shared.node.second_name());
    let second = PidboxQueue { node: node.clone(), queue, answers: false };
    let is_free = async {
        while Instant::now() < until {
            tokio::time::sleep_until(until.min(Instant::now() + LOOK)).await;
            // RabbitMQ closes the channel either way: the queue is locked, or it is gone.
            let Ok(channel) = up.connection.create_channel().await else { return };
            let Ok(queue) = short(&control::queue_of(node)) else { return };
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            match channel.queue_declare(queue, passive, FieldTable::default()).await {
                Err(error) if code(&error) == Some(RESOURCE_LOCKED) => {}
                _ => return,
            }
        }
    };
    tokio::select! {
        followed = follow(shared, listener, up, &second) => {
            if let Err(Failed { error, .. }) = followed {
                tracing::debug!(%error, "no remote control is heard for a moment");
            }
        }
        () = is_free => {}
    }
}

/// Why the pidbox cannot be listened to.
struct Failed {
    error: BrokerError,
    /// Whether another connection has the queue.
    locked: bool,
}

impl From<BrokerError> for Failed {
    fn from(error: BrokerError) -> Self {
        Self { error, locked: false }
    }
}

pub(super) async fn declare_exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
) -> Result<(), BrokerError> {
    let options = ExchangeDeclareOptions::default();
    channel.exchange_declare(short(name)?, kind, options, FieldTable::default()).await.map_err(|e| broken(&e))
}

/// Listens on one connection, until that is gone.
async fn follow(
    shared: &Arc<AmqpInner>,
    listener: &Arc<dyn BrokerListener>,
    up: &LiveConnection,
    mailbox: &PidboxQueue,
) -> Result<(), Failed> {
    let PidboxQueue { node, answers, .. } = mailbox;
    let channel = up.connection.create_channel().await.map_err(|e| broken(&e))?;
    declare_exchange(&channel, control::EXCHANGE, ExchangeKind::Fanout).await?;
    // The reply exchange must be there: a reply to an exchange that is not there would close its channel.
    declare_exchange(&channel, control::REPLY_EXCHANGE, ExchangeKind::Direct).await?;
    let queue = short(&mailbox.queue)?;
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let arguments = table::to_table(shared.options.control_queue_arguments());
    let declared = channel.queue_declare(queue.clone(), options, arguments).await;
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
    // Requests are acknowledged one by one, because RabbitMQ would send all that there is to a consumer without
    // acknowledgements.
    let limit = u16::try_from(AT_A_TIME).unwrap_or(u16::MAX);
    channel.basic_qos(limit, BasicQosOptions::default()).await.map_err(|e| broken(&e))?;
    let consume = channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), none());
    let mut requests = consume.await.map_err(|e| broken(&e))?;
    shared.events.named();
    // Revocations and other requests have seats of their own, so that a store that does not answer holds up no
    // ping.
    let (revoking, asking) = (Arc::new(Semaphore::new(AT_A_TIME)), Arc::new(Semaphore::new(AT_A_TIME)));
    while let Some(delivery) = requests.next().await {
        let delivery = delivery.map_err(|e| broken(&e))?;
        let delivery_tag = delivery.delivery_tag;
        match read(shared, delivery) {
            Ok(request) if request.is_for(node) => {
                let seats = if request.revoked().is_some() { &revoking } else { &asking };
                let seat = Arc::clone(seats).acquire_owned().await;
                let (shared, listener) = (Arc::clone(shared), Arc::clone(listener));
                let (node, answers) = (Arc::clone(node), *answers);
                shared.runtime.clone().spawn(async move {
                    let _seat = seat;
                    let answer = match shared.events.obey(&request).await {
                        Some(answer) => Some(answer),
                        None => obey(&*listener, &request, &node).await,
                    };
                    if let Some(answer) = answer.filter(|_| answers) {
                        shared.replies.answer(&shared, &node, &request, &answer).await;
                    }
                });
            }
            Ok(_) => {}
            Err(error) => {
                let refused = shared.replies.refused.fetch_add(1, Ordering::Relaxed) + 1;
                // Logged for the first one, and then less and less often, whoever sends them.
                if refused.is_power_of_two() {
                    tracing::warn!(
                        refused,
                        error = shown(&error.to_string()),
                        "a control message was dropped"
                    );
                }
            }
        }
        channel.basic_ack(delivery_tag, BasicAckOptions::default()).await.map_err(|e| broken(&e))?;
    }
    Ok(())
}

/// Reads a request that is no larger than a task may be.
fn read(shared: &AmqpInner, delivery: Delivery) -> Result<Request, ControlMessageError> {
    let (size, limit) = (delivery.data.len(), shared.options.max_size);
    if size > limit {
        return Err(ControlMessageError::too_large(size, limit));
    }
    let wire = table::to_wire(&delivery.properties, delivery.data);
    clock::hear(wire.headers.get("clock"));
    control::decode(&wire)
}

/// Does what a request says. Answers with what Celery would answer; whether the sender wants an answer is decided
/// elsewhere.
async fn obey(listener: &dyn BrokerListener, request: &Request, node: &str) -> Option<Value> {
    let method = request.method.as_str();
    match request.revoked() {
        // The answer waits until the revocation is stored, so that the asker may rely on it.
        Some((ids, terminate)) => Some(match listener.revoked(ids.clone(), terminate).await {
            Ok(here) => flagged(&ids, terminate, &here),
            Err(error) => json!({ "error": format!("the revocation is not stored: {error}") }),
        }),
        None if matches!(method, "revoke" | "terminate") => {
            Some(json!({ "error": format!("`{method}` needs `task_id`: an id, or a list of them") }))
        }
        None if method == "ping" => Some(json!({"ok": "pong"})),
        None => {
            let request = ControlRequest::new(method, request.arguments.clone(), node, clock::tick());
            match listener.control(request).await {
                None if control::CHANGES.contains(&method) => {
                    Some(json!({ "error": format!("this worker does not know `{method}`") }))
                }
                answer => answer,
            }
        }
    }
}

/// The answer to a revocation, in Celery's words.
fn flagged(ids: &[TaskId], terminate: bool, here: &[TaskId]) -> Value {
    let joined = |ids: &[TaskId], quote: &str| {
        ids.iter().map(|id| format!("{quote}{id}{quote}")).collect::<Vec<_>>().join(", ")
    };
    match (terminate, here) {
        (false, _) => json!({ "ok": format!("tasks {{{}}} flagged as revoked", joined(ids, "'")) }),
        (true, []) => json!({"ok": "terminate: tasks unknown"}),
        (true, here) => json!({ "ok": format!("terminate: {}", joined(here, "")) }),
    }
}

#[cfg(test)]
mod tests {

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use parking_lot::Mutex;
    use serde_json::Map;
    use tokio::sync::oneshot;

    use super::*;
    use crate::broker::{Activity, FollowUps};
    use crate::store::StoreError;
    use crate::task::{EventFunnel, EventGroup, EventStream, Message, TaskOptions, TaskResult};

    type Stored = Result<Vec<TaskId>, StoreError>;

    /// Stores a revocation when the test lets it.
    struct SlowListener(Mutex<Option<oneshot::Receiver<Stored>>>);

    impl BrokerListener for SlowListener {
        fn options(&self, _: &str) -> Option<TaskOptions> {
            None
        }

        fn plan_follow_ups(&self, _: &Message, _: &mut TaskResult) -> Option<Box<FollowUps>> {
            None
        }

        fn over(&self, _: TaskResult, _: Option<&Message>) {}

        fn end(&self, _: TaskResult, _: Option<&Message>) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }

        fn events(&self, groups: &[EventGroup]) -> EventStream {
            EventFunnel::default().listen(groups)
        }

        fn activity(&self) -> Activity {
            Activity::default()
        }

        fn parked(&self, _: &Arc<Message>) -> bool {
            false
        }

        fn lost(&self, _: Vec<u64>) {}

        fn revoked(&self, _: Vec<TaskId>, _: bool) -> BoxFuture<'static, Stored> {
            let stored = self.0.lock().take().expect("one revocation");
            Box::pin(async { stored.await.expect("it is let") })
        }

        fn control(&self, request: ControlRequest) -> BoxFuture<'static, Option<Value>> {
            let answer = (request.method == "clock").then(|| json!({ "asked": request.node }));
            Box::pin(std::future::ready(answer))
        }
    }

    #[test]
    fn a_revocation_is_answered_when_it_is_stored_and_not_before() {
        for (terminate, stored, expected) in [
            (false, Ok(vec![]), json!({"ok": "tasks {'a', 'b'} flagged as revoked"})),
            (true, Ok(vec!["b".into()]), json!({"ok": "terminate: b"})),
            (true, Ok(vec![]), json!({"ok": "terminate: tasks unknown"})),
            (false, Err(StoreError::io("away")), json!({"error": "the revocation is not stored: away"})),
        ] {
            let (store, told) = oneshot::channel();
            let listener = SlowListener(Mutex::new(Some(told)));
            let request = Request::revoke(&["a".into(), "b".into()], terminate);
            let mut answer = Box::pin(obey(&listener, &request, "w@h"));
            assert_eq!((&mut answer).now_or_never(), None, "it is not stored yet");
            store.send(stored).unwrap();
            assert_eq!(answer.now_or_never(), Some(Some(expected)));
        }
    }

    #[test]
    fn what_is_not_known_is_not_answered() {
        let listener = SlowListener(Mutex::new(None));
        let answer =
            |method: &str| obey(&listener, &Request::new(method, Map::new()), "w@h").now_or_never().flatten();
        assert_eq!(answer("ping"), Some(json!({"ok": "pong"})));
        assert_eq!(answer("clock"), Some(json!({"asked": "w@h"})), "the runtime is asked");
        for method in ["stats", "active", "hello", "nosuch", "shutdown", "heartbeat"] {
            assert_eq!(answer(method), None, "{method}");
        }
        assert!(answer("rate_limit").is_some_and(|answer| answer["error"].is_string()));
    }
}

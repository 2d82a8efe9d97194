//! The other programs on the same broker, by Celery's remote control.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::handle::{Celeriac, ControlError};
use crate::broker::Broker;
use crate::protocol::control::Request;

/// How long nodes have to reply, as with Celery's `inspect` and `control`.
const PATIENCE: Duration = Duration::from_secs(1);

/// All programs that consume from the same RabbitMQ: ours, and Celery's workers. [`Celeriac::fleet`] makes one.
///
/// A command goes to all nodes, or to [those named](Self::nodes), and the replies that come within a
/// [second](Self::within) are gathered. Nobody knows how many nodes there are, so a node that is silent is not in the
/// answer: it may be gone, be busy, or not know the command. This program replies too. Celery calls this
/// `app.control`.
///
/// ```no_run
/// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
/// for (node, pong) in celeriac.fleet().ping().await? {
///     println!("{node}: {pong}");
/// }
/// celeriac.fleet().pause("email").await?; // in every program of ours that serves it
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Fleet {
    broker: Arc<dyn Broker>,
    nodes: Option<Vec<String>>,
    patience: Duration,
}

/// The replies of a fleet, by node.
pub type NodeReplies = BTreeMap<String, Value>;

impl Celeriac {
    /// The programs that share the broker with this one: what they do, and levers on them.
    pub fn fleet(&self) -> Fleet {
        Fleet::over(Arc::clone(&self.inner.runtime.broker))
    }
}

impl Fleet {
    /// The programs on a broker.
    pub(crate) fn over(broker: Arc<dyn Broker>) -> Self {
        Self { broker, nodes: None, patience: PATIENCE }
    }

    /// Speaks to these nodes only, and waits no longer than until all have replied.
    #[must_use]
    pub fn nodes<N: Into<String>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.nodes = Some(nodes.into_iter().map(Into::into).collect());
        self
    }

    /// Waits this long for replies. Default one second.
    #[must_use]
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Which nodes are there: each says `{"ok": "pong"}`.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    pub async fn ping(&self) -> Result<NodeReplies, ControlError> {
        self.inspect("ping", Value::Null).await
    }

    /// Asks something, such as `active` or `stats`. `arguments` is an object with the command's arguments by name, or
    /// null. Celery's `app.control.inspect()`.
    ///
    /// # Errors
    /// The broker has no fleet, is closed or cannot be reached, or the arguments are no object.
    pub async fn inspect(&self, method: &str, arguments: Value) -> Result<NodeReplies, ControlError> {
        let arguments = match arguments {
            Value::Object(arguments) => arguments,
            Value::Null => Map::new(),
            other => return Err(ControlError::Arguments(other.to_string())),
        };
        // An empty list of nodes would be all of them on the wire.
        if self.nodes.as_ref().is_some_and(Vec::is_empty) {
            return Ok(NodeReplies::new());
        }
        let Some(events) = self.broker.events() else {
            return Err(ControlError::NoFleet(self.broker.name()));
        };
        let request = Request { destination: self.nodes.clone(), ..Request::new(method, arguments) };
        let replies = events.ask(request, self.patience).await?;
        Ok(replies.into_iter().map(|reply| (reply.node, reply.answer)).collect())
    }

    /// Tells the nodes to change something, such as `rate_limit` or `add_consumer`. Each says `{"ok": …}` or
    /// `{"error": …}`. Celery's `app.control.broadcast(…, reply=True)`.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    pub async fn control(&self, method: &str, arguments: Value) -> Result<NodeReplies, ControlError> {
        self.inspect(method, arguments).await
    }

    /// Starts nothing more in a queue, in all programs of ours that serve it. Celery's workers do not know this.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    pub async fn pause(&self, queue: &str) -> Result<NodeReplies, ControlError> {
        self.control("pause", json!({ "queue": queue })).await
    }

    /// Lets a paused queue go on, in all programs of ours that serve it.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    pub async fn resume(&self, queue: &str) -> Result<NodeReplies, ControlError> {
        self.control("resume", json!({ "queue": queue })).await
    }

    /// Gives a queue so many workers in each program of ours that serves it.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect), or `workers` is 0.
    pub async fn resize(&self, queue: &str, workers: usize) -> Result<NodeReplies, ControlError> {
        if workers == 0 {
            return Err(ControlError::NoWorkers);
        }
        self.control("resize", json!({ "queue": queue, "workers": workers })).await
    }
}

//! Which queues this process takes tasks from, changed while it runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::arguments::python_error;
use super::{BY_REMOTE_CONTROL, CommandResult, ControlCommand, ok};
use crate::actors::queue::Steer;
use crate::broker::QueueBinding;
use crate::catalogue::{Pool, QueueRow};
use crate::core::text::shortened;

/// How long the broker may take to declare a queue before the answer says that the queue is consumed. Celery's tools wait for a
/// second.
const DECLARED_WITHIN: Duration = Duration::from_millis(700);
/// The most queues that are added while a program runs. Each has an actor and workers.
const MOST_ADDED: usize = 100;
/// The most bytes of a text that is shown in an error.
const SHOWN: usize = 100;

/// Takes tasks from a queue: one that was cancelled, or one that is new here. A new one has the defaults of a queue
/// that is in no catalogue, and is served until the program ends. As in Celery, it is bound to the exchange and by the key
/// that the command names, and these are declared; a queue that is served already stays as it is.
pub(super) async fn add(command: &ControlCommand<'_>) -> CommandResult {
    let arguments = &command.arguments;
    let queue = arguments.text("queue")?;
    let exchange = arguments.optional_text("exchange")?.unwrap_or(queue);
    let kind = arguments.optional_text("exchange_type")?.unwrap_or("direct");
    let key = arguments.optional_text("routing_key")?.unwrap_or(queue);
    let done = ok(format!("add consumer {queue}"));
    let known = command.inner.catalogue().queue(queue);
    if let Some(row) = known.filter(|row| row.served) {
        command.inner.queues.tell(&row.name, Steer::AddConsumer);
        command.inner.mark_act(&Steer::AddConsumer, &row.name, Some(BY_REMOTE_CONTROL));
        return Ok(done);
    }
    if command.state().added().iter().any(|row| row.name == queue) {
        command.inner.queues.tell(queue, Steer::AddConsumer);
        command.inner.mark_act(&Steer::AddConsumer, queue, Some(BY_REMOTE_CONTROL));
        return Ok(done);
    }
    if !QueueBinding::TYPES.contains(&kind) {
        let (kind, types) = (shortened(kind, SHOWN), QueueBinding::TYPES.join(", "));
        let text = format!("no exchange of type '{kind}' is made here; the types are {types}");
        return Err(python_error("ValueError", &text));
    }
    let binding = QueueBinding::new(exchange, kind, key);
    let is_foreign = (exchange, kind, key) != (queue, "direct", queue);
    let row = match known {
        Some(row) => row.clone().with_served(true),
        None => QueueRow::new(queue).with_pool(Pool::Io),
    };
    {
        let mut added = command.state().added();
        if added.len() >= MOST_ADDED {
            let text =
                format!("{MOST_ADDED} queues were added since this program started, and no more can be");
            return Err(python_error("ValueError", &text));
        }
        if added.iter().any(|other| other.name == row.name) {
            return Ok(done); // somebody else was a moment faster
        }
        added.push(row.clone());
    }
    // The answer does not wait for a broker that is slow, and a name that the broker refuses at once is told.
    let inner = Arc::clone(command.inner);
    let name = row.name.clone();
    let declared = tokio::spawn(async move {
        let broker = &inner.runtime.broker;
        let declared = match broker.events().filter(|_| is_foreign) {
            Some(events) => events.bind(&row.name, binding).await,
            None => broker.declare(&row.name).await,
        };
        match &declared {
            Ok(()) => drop(inner.with_tree(|tree| tree.add_queue(row))),
            Err(error) => {
                tracing::error!(queue = row.name, %error, "a queue cannot be consumed as remote control asks");
                inner.control.added().retain(|other| other.name != row.name);
            }
        }
        declared
    });
    command.inner.mark_act(&Steer::AddConsumer, &name, Some(BY_REMOTE_CONTROL));
    tracing::info!(queue = name, "a queue is consumed by remote control");
    match timeout(DECLARED_WITHIN, declared).await {
        Ok(Ok(Err(error))) => Err(python_error("ValueError", &error.to_string())),
        _ => Ok(done),
    }
}

/// Takes nothing more from a queue, and gives back what has not started. What runs goes on.
pub(super) fn cancel(command: &ControlCommand<'_>) -> CommandResult {
    let queue = command.arguments.text("queue")?;
    let name = command.inner.catalogue().queue(queue).map_or(queue, |row| row.name.as_str());
    if command.inner.queues.tell(name, Steer::CancelConsumer) {
        command.inner.mark_act(&Steer::CancelConsumer, name, Some(BY_REMOTE_CONTROL));
        tracing::info!(queue = name, "a queue is not consumed any more, by remote control");
    }
    // As in Celery, it is not consumed either if it never was.
    Ok(ok(format!("no longer consuming from {queue}")))
}

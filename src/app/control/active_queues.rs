//! The queues that this process consumes, as kombu's `Queue.as_dict()` shows them. Flower reads their names for its
//! page of queues.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{CommandResult, ControlCommand};
use crate::broker::QueueBinding;

/// The queues, but those that were told to consume nothing.
pub(super) async fn active_queues(command: &ControlCommand<'_>) -> CommandResult {
    let held = command.held(None, 0).await;
    // Who does not answer consumes, as far as anybody knows.
    let cancelled: HashSet<&str> =
        held.iter().filter(|held| !held.is_consuming).map(|held| held.queue.as_str()).collect();
    let events = command.inner.runtime.broker.events();
    let shown = |name: &str| {
        let arguments = events.map(|events| events.queue_arguments(name)).unwrap_or_default();
        let binding = events.and_then(|events| events.binding(name));
        let own = events.and_then(|events| events.own_queue(name));
        described(name, arguments, binding, own)
    };
    let rows = command.rows();
    let consumed = rows.iter().filter(|row| !cancelled.contains(row.name.as_str()));
    Ok(consumed.map(|row| shown(&row.name)).collect())
}

/// Describes a queue. `own` is the queue of this process alone by which it hears a broadcast.
fn described(
    name: &str,
    arguments: Map<String, Value>,
    binding: Option<QueueBinding>,
    own: Option<String>,
) -> Value {
    let arguments = if arguments.is_empty() { Value::Null } else { arguments.into() };
    let QueueBinding { exchange, exchange_type, routing_key, .. } =
        binding.unwrap_or_else(|| QueueBinding::new(name, "direct", name));
    let is_own = own.is_some();
    json!({
        "name": own.as_deref().unwrap_or(name),
        "exchange": {
            "name": exchange,
            "type": exchange_type,
            "arguments": null,
            "durable": true,
            "passive": false,
            "auto_delete": false,
            "delivery_mode": null,
            "no_declare": false,
        },
        "routing_key": routing_key,
        "queue_arguments": arguments,
        "binding_arguments": null,
        "consumer_arguments": null,
        "durable": !is_own,
        "exclusive": is_own,
        "auto_delete": false,
        "no_ack": false,
        "alias": is_own.then_some(name),
        "bindings": [],
        "no_declare": null,
        "expires": null,
        "message_ttl": null,
        "max_length": null,
        "max_length_bytes": null,
        "max_priority": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Celery 5.7 answered (`control_replies.json` of the captures). Its suite compares the whole object.
    #[test]
    fn a_queue_is_described_as_kombu_does() {
        let captured = r#"{"name": "celery", "exchange": {"name": "celery", "type": "direct", "arguments": null,
            "durable": true, "passive": false, "auto_delete": false, "delivery_mode": null, "no_declare": false},
            "routing_key": "celery", "queue_arguments": null, "binding_arguments": null, "consumer_arguments": null,
            "durable": true, "exclusive": false, "auto_delete": false, "no_ack": false, "alias": null, "bindings": [],
            "no_declare": null, "expires": null, "message_ttl": null, "max_length": null, "max_length_bytes": null,
            "max_priority": null}"#;
        let plain = described("celery", Map::new(), None, None);
        assert_eq!(plain, serde_json::from_str::<Value>(captured).unwrap());
        let Value::Object(quorum) = json!({"x-queue-type": "quorum"}) else { panic!("an object") };
        let quorum = described("q", quorum, None, None);
        assert_eq!(quorum["queue_arguments"], json!({"x-queue-type": "quorum"}));
        let broadcast = described(
            "news",
            Map::new(),
            Some(QueueBinding::new("news", "fanout", "")),
            Some("bcast.1".into()),
        );
        let exchange = &broadcast["exchange"];
        assert_eq!((&broadcast["name"], &broadcast["alias"]), (&json!("bcast.1"), &json!("news")));
        assert_eq!((&exchange["name"], &exchange["type"]), (&json!("news"), &json!("fanout")));
        assert_eq!((&broadcast["exclusive"], &broadcast["routing_key"]), (&json!(true), &json!("")));
    }
}

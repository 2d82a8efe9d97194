//! The queues that this process consumes, as kombu's `Queue.as_dict()` shows them. Flower reads their names for its
//! page of queues.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{Answer, ControlCommand};

/// The queues, but those that were told to consume nothing.
pub(super) async fn active_queues(command: &ControlCommand<'_>) -> Answer {
    let held = command.held(None, 0).await;
    // Who does not answer consumes, as far as anybody knows.
    let cancelled: HashSet<&str> =
        held.iter().filter(|held| !held.is_consuming).map(|held| held.queue.as_str()).collect();
    let events = command.inner.runtime.broker.events();
    let arguments = |name: &str| events.map(|events| events.queue_arguments(name)).unwrap_or_default();
    let rows = command.rows();
    let consumed = rows.iter().filter(|row| !cancelled.contains(row.name.as_str()));
    Ok(consumed.map(|row| described(&row.name, arguments(&row.name))).collect())
}

fn described(name: &str, arguments: Map<String, Value>) -> Value {
    let arguments = if arguments.is_empty() { Value::Null } else { arguments.into() };
    json!({
        "name": name,
        "exchange": {
            "name": name,
            "type": "direct",
            "arguments": null,
            "durable": true,
            "passive": false,
            "auto_delete": false,
            "delivery_mode": null,
            "no_declare": false,
        },
        "routing_key": name,
        "queue_arguments": arguments,
        "binding_arguments": null,
        "consumer_arguments": null,
        "durable": true,
        "exclusive": false,
        "auto_delete": false,
        "no_ack": false,
        "alias": null,
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
        assert_eq!(described("celery", Map::new()), serde_json::from_str::<Value>(captured).unwrap());
        let Value::Object(quorum) = json!({"x-queue-type": "quorum"}) else { panic!("an object") };
        assert_eq!(described("q", quorum)["queue_arguments"], json!({"x-queue-type": "quorum"}));
    }
}

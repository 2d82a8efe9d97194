//! The basic properties of AMQP that the message of a run has.

use serde_json::{Map, Value};

use super::{Context, Durability};

impl Context {
    /// The basic properties of AMQP that the task's message has, by their names in AMQP. Celery's
    /// `self.request.properties`.
    ///
    /// The map holds `content_type`, `content_encoding`, `delivery_mode`, `priority` and `correlation_id`, whatever
    /// broker the task has come through, and those of `reply_to`, `message_id`, `app_id` and `type` that the caller has
    /// set. The other properties, such as `timestamp` and `user_id`, are not kept.
    pub fn properties(&self) -> Map<String, Value> {
        let message = self.message();
        let mut properties = Map::new();
        // Arguments wait as JSON, so a message that says otherwise has been refused.
        properties.insert("content_type".to_owned(), "application/json".into());
        properties.insert("content_encoding".to_owned(), "utf-8".into());
        let mode = if message.durability == Durability::Memory { 1 } else { 2 };
        properties.insert("delivery_mode".to_owned(), mode.into());
        properties.insert("priority".to_owned(), message.priority.into());
        properties.insert("correlation_id".to_owned(), message.id.as_str().into());
        let reply_to = message.workflow.as_deref().and_then(|workflow| workflow.reply_to.as_deref());
        let others = ["message_id", "app_id", "type"].map(|name| (name, message.headers.property(name)));
        for (name, value) in [("reply_to", reply_to)].into_iter().chain(others) {
            if let Some(value) = value {
                properties.insert(name.to_owned(), value.into());
            }
        }
        properties
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::task::Sinks;
    use crate::task::Workflow;

    #[test]
    fn what_the_caller_has_set_stands_beside_what_each_message_has() {
        let mut message = Context::detached().message().clone();
        message.priority = 3;
        message.headers.set_property("app_id", "hq".into());
        let workflow = Workflow { reply_to: Some("answers".into()), ..Workflow::default() };
        message.workflow = Some(Box::new(workflow));
        let id = message.id.clone();
        let ctx = Context::new(Arc::new(message), "".into(), Sinks::default());
        let expected = json!({
            "content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 1, "priority": 3,
            "correlation_id": id, "reply_to": "answers", "app_id": "hq",
        });
        assert_eq!(Value::Object(ctx.properties()), expected);
    }
}

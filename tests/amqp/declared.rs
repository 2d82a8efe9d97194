//! Queues are made as the catalogue says, or else as the options say.

use celeriac::Celeriac;
use celeriac::broker::amqp::{AmqpOptions, QueueSetup, QueueType};
use celeriac::catalogue::{Catalogue, QueueRow};
use serde_json::json;

use crate::services::{RabbitMq, blocking};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_their_rows_say() {
    let vhost = "declared-by-rows";
    let url = blocking(move || RabbitMq::shared().vhost(vhost)).await;
    let text = r#"
[[queue]]
name = "plain"
[[queue]]
name = "safe"
queue_type = "quorum"
[[queue]]
name = "urgent"
max_priority = 7
queue_arguments = { x-max-length = 5000, x-overflow = "reject-publish" }
[[queue]]
name = "elsewhere"
served = false
queue_type = "classic"
"#;
    let catalogue = Catalogue::parse(text, "celeriac.toml").unwrap();
    let arguments = json!({"x-max-length": 1, "x-message-ttl": 60_000}).as_object().cloned().unwrap();
    let of_options = QueueSetup { max_priority: Some(3), arguments, ..QueueSetup::default() };
    let options = AmqpOptions::default()
        .queue_type(QueueType::Quorum)
        .queue("urgent", QueueSetup { queue_type: Some(QueueType::Classic), ..of_options });
    let celeriac = Celeriac::builder()
        .amqp(url)
        .amqp_options(options)
        .catalogue(catalogue)
        .queue(QueueRow::new("by options"))
        .start()
        .await
        .unwrap();
    let listed = move || {
        let arguments =
            ["list_queues", "-p", vhost, "--quiet", "--formatter", "json", "name", "type", "arguments"];
        RabbitMq::shared().ctl(&arguments)
    };
    let listed: Vec<serde_json::Value> = serde_json::from_str(&blocking(listed).await).unwrap();
    let queue = |name: &str| {
        let queue = listed.iter().find(|queue| queue["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        // Each of them is a name, a type and a value.
        let arguments = queue["arguments"].as_array().cloned().unwrap_or_default();
        let arguments = arguments.iter().map(|a| (a[0].as_str().unwrap().to_owned(), a[2].clone()));
        // The type says it.
        let arguments: serde_json::Map<_, _> = arguments.filter(|(name, _)| name != "x-queue-type").collect();
        let kind = queue["type"].as_str().unwrap();
        (kind.rsplit('_').nth(1).unwrap_or(kind).to_owned(), serde_json::Value::from(arguments))
    };
    let is_quorum = |name: &str| queue(name).0.contains("quorum");
    assert!(is_quorum("plain") && is_quorum("safe") && is_quorum("by options"), "{listed:?}");
    assert!(!is_quorum("urgent") && !is_quorum("elsewhere"), "{listed:?}");
    let urgent = json!({"x-max-priority": 7, "x-max-length": 5000, "x-overflow": "reject-publish", "x-message-ttl": 60_000});
    assert_eq!(queue("urgent").1, urgent, "the row wins, and the rest is as the options say");
    assert_eq!(queue("elsewhere").1, json!({}));
    celeriac.shutdown().await.unwrap();
}

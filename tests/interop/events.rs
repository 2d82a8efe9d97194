//! The events of our workers, as Celery's own receivers take them in.

use serde_json::json;

use crate::fleet::mixed;

#[test]
fn both_sides_say_the_same_of_the_same_tasks() {
    let workers = mixed().case("events.compared", json!({}));
    assert_eq!(workers["rust"], "rust@localhost");
    assert_ne!(workers["python"], workers["rust"]);
}

/// As celery-exporter does: it takes the queue from the event that says of a task that it was received.
#[test]
fn exporters_read_the_same_of_both() {
    let queues =
        mixed().case("exporters.read", json!({ "nodes": ["python-many@localhost", "rust@localhost"] }));
    assert_eq!(queues, json!({ "python": ["celery"], "rust": ["rust"] }));
}

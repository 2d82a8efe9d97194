//! The events of our workers, as Celery's own receivers take them in.

use serde_json::json;

use crate::fleet::mixed;

#[test]
fn both_sides_say_the_same_of_the_same_tasks() {
    let workers = mixed().case("events.compared", json!({}));
    assert_eq!(workers["rust"], "rust@localhost");
    assert_ne!(workers["python"], workers["rust"]);
}

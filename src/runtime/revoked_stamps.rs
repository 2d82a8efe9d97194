//! Tasks that are revoked by what is stamped on them: Celery's `revoke_by_stamped_headers`.
//!
//! An operator names a stamp and values of it, and every task that bears one of them does not start any more in this
//! process. As in Celery, the list is forgotten with the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use serde_json::Value;

use crate::task::Message;

/// The most values that are remembered, of all stamps together.
const MOST: usize = 10_000;

/// Values by the name of their stamp.
pub(crate) type Stamps = BTreeMap<String, Vec<Value>>;

/// The stamps whose tasks do not start.
#[derive(Default)]
pub(crate) struct RevokedStamps {
    any: AtomicBool,
    stamps: RwLock<Stamps>,
}

impl RevokedStamps {
    /// Tasks with one of these do not start from now on. `false`: there are too many, and not all are remembered.
    pub(crate) fn add(&self, stamps: &Stamps) -> bool {
        let mut known = self.stamps.write();
        let mut count: usize = known.values().map(Vec::len).sum();
        for (name, values) in stamps {
            for value in values {
                if known.get(name).is_some_and(|known| known.contains(value)) {
                    continue;
                }
                if count >= MOST {
                    return false;
                }
                count += 1;
                known.entry(name.clone()).or_default().push(value.clone());
            }
        }
        self.any.store(count > 0, Ordering::Release);
        true
    }

    /// Whether a task is not to start.
    pub(crate) fn has(&self, message: &Message) -> bool {
        self.any.load(Ordering::Acquire) && !matches(&self.stamps.read(), message).is_empty()
    }
}

/// The values that a task's stamps share with these, by name. A stamp may be a list, and then each item counts.
pub(crate) fn matches(stamps: &Stamps, message: &Message) -> Stamps {
    let mut found = Stamps::new();
    let Some(workflow) = message.workflow.as_deref() else { return found };
    for name in &workflow.stamped_headers {
        let (Some(wanted), Some(value)) = (stamps.get(name), workflow.stamps.0.get(name)) else { continue };
        let own = match value {
            Value::Array(items) => items.as_slice(),
            single => std::slice::from_ref(single),
        };
        let shared: Vec<Value> = own.iter().filter(|value| wanted.contains(value)).cloned().collect();
        if !shared.is_empty() {
            found.insert(name.clone(), shared);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::{Context, Headers, Workflow};

    fn stamped(name: &str, value: Value) -> Message {
        let mut message = Context::detached().message().clone();
        message.workflow = Some(Box::new(Workflow {
            stamped_headers: vec![name.to_owned()],
            stamps: Headers([(name.to_owned(), value)].into()),
            ..Workflow::default()
        }));
        message
    }

    #[test]
    fn a_task_is_found_by_any_value_of_its_stamp() {
        let revoked = RevokedStamps::default();
        assert!(!revoked.has(&stamped("tenant", json!("acme"))));
        assert!(revoked.add(&Stamps::from([("tenant".to_owned(), vec![json!("acme"), json!(5)])])));
        for (name, value, expected) in [
            ("tenant", json!("acme"), true),
            ("tenant", json!(["other", 5]), true),
            ("tenant", json!("other"), false),
            ("tenant", json!(null), false),
            ("site", json!("acme"), false),
        ] {
            assert_eq!(revoked.has(&stamped(name, value.clone())), expected, "{name}: {value}");
        }
        assert!(!revoked.has(Context::detached().message()));
        let many = (0..MOST).map(Value::from).collect();
        assert!(!revoked.add(&Stamps::from([("n".to_owned(), many)])), "there is a bound");
    }
}

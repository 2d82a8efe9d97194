//! Tasks that may have been published more than once, and are to run once all the same.
//!
//! A broker that has no transaction with the place where a publish is decided may be given a message twice: whoever decided it
//! died before it could say that it was published, and its successor publishes it again. So each copy that goes out bears a
//! mark of its own, and the first one that is about to start takes the id for itself. The others are dropped. Nothing has to be
//! given back when the holder dies: the copy that has the id is delivered again, and the mark on it is the same; and so it is
//! on the retries that follow from it.

use std::time::Duration;

use crate::core::Timestamp;
use crate::task::{Message, ONCE, TaskId};

/// Where a message says nothing about its end: so long a copy may come after another one.
const DUPLICATES_COME_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Clocks differ; a copy that has expired is dropped for that.
const MARGIN: Duration = Duration::from_secs(3600);

/// One copy of a task asks whether it may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The task.
    pub id: TaskId,
    /// The mark of this copy.
    pub copy: String,
    /// Until when another one may come.
    pub until: Timestamp,
}

impl Claim {
    /// What a message has to ask, if it bears a mark.
    pub(crate) fn of(message: &Message, now: Timestamp) -> Option<Self> {
        let copy = message.headers.0.get(ONCE)?.as_str()?.to_owned();
        let until = message.expires.map_or(now + DUPLICATES_COME_FOR, |at| at.max(now) + MARGIN);
        Some(Self { id: message.id.clone(), copy, until })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::Context;

    #[test]
    fn a_message_with_a_mark_claims_its_id_for_as_long_as_another_may_come() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut message = Context::detached().message().clone();
        message.id = "a".into();
        assert_eq!(Claim::of(&message, now), None);
        message.headers.0.insert(ONCE.to_owned(), json!(true));
        assert_eq!(Claim::of(&message, now), None, "it was never published");
        message.headers.0.insert(ONCE.to_owned(), json!("m"));
        let claim = |until| Some(Claim { id: "a".into(), copy: "m".to_owned(), until });
        assert_eq!(Claim::of(&message, now), claim(now + DUPLICATES_COME_FOR));
        message.expires = Some(now + MARGIN);
        assert_eq!(Claim::of(&message, now), claim(now + 2 * MARGIN));
        message.expires = Some(now - MARGIN);
        assert_eq!(Claim::of(&message, now), claim(now + MARGIN));
    }
}

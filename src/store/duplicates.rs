//! Lets a task run once that may have been published more than once.
//!
//! A broker that has no transaction with the place where a publish is decided may be given a message twice: the
//! process that decided it dies before it can say that the message was published, and its successor publishes it
//! again. So each copy that goes out has a mark of its own, and the first copy that is about to start takes the id
//! for itself. The others are dropped. Nothing has to be given back if the holder dies: the copy that has the id
//! is delivered again, with the same mark.
//!
//! A retry, a continuation and a task that takes the place of another have the id of the message before them, and
//! may be published more than once themselves. So each attempt is claimed by itself.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::core::Timestamp;
use crate::task::{Message, RUN_ONCE_HEADER, SENDING, TaskId};

/// How long a copy may come after another one, if the message does not say when it expires.
const DUPLICATES_COME_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// The same, for messages that follow from the end of a run: as long as the record of that run is kept by default.
const FOLLOWERS_COME_FOR: Duration = Duration::from_secs(24 * 3600);
/// An allowance for clocks that differ; a copy that has expired is dropped for that reason.
const MARGIN: Duration = Duration::from_secs(3600);

/// An ability of stores: they let one copy of a task start that may have been published more than once.
#[async_trait]
pub trait DuplicateStore: Send + Sync {
    /// Lets one copy of each task start that may have been published more than once: the first copy that asks,
    /// however often it asks. Answers for each claim whether that copy may start.
    ///
    /// # Errors
    /// It is not known which copies may start.
    async fn claim(&self, claims: &[DuplicateClaim]) -> Result<Vec<bool>, StoreError>;
}

/// The question of one copy of a task whether it may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateClaim {
    /// The id of the task, with the number of the attempt if it is not the first, and with the number of the sending of a canvas.
    pub id: TaskId,
    /// The mark of this copy.
    pub copy: String,
    /// The time until which another copy may come.
    pub until: Timestamp,
}

impl DuplicateClaim {
    /// The claim of a message, if the message has a mark.
    pub(crate) fn of(message: &Message, now: Timestamp) -> Option<Self> {
        let copy = message.headers.0.get(RUN_ONCE_HEADER)?.as_str()?.to_owned();
        let workflow = message.workflow.as_deref();
        let attempt = (
            message.retries,
            message.continuations,
            workflow.map_or(0, |workflow| workflow.replaced_task_nesting),
        );
        let follows = attempt != (0, 0, 0) || workflow.is_some_and(|workflow| workflow.parent_id.is_some());
        let come_for = if follows { FOLLOWERS_COME_FOR } else { DUPLICATES_COME_FOR };
        let until = message.expires.map_or(now + come_for, |at| at.max(now) + MARGIN);
        let mut id = message.id.to_string();
        if attempt != (0, 0, 0) {
            let (retries, continuations, nesting) = attempt;
            id += &format!("#{retries}.{continuations}.{nesting}");
        }
        if let Some(sending) = message.headers.0.get(SENDING).and_then(|sending| sending.as_str()) {
            id += &format!("@{sending}");
        }
        let id = TaskId::from(id);
        Some(Self { id, copy, until })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::{Context, Workflow};

    #[test]
    fn a_message_with_a_mark_claims_its_id_for_as_long_as_another_may_come() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut message = Context::detached().message().clone();
        message.id = "a".into();
        assert_eq!(DuplicateClaim::of(&message, now), None);
        message.headers.0.insert(RUN_ONCE_HEADER.to_owned(), json!(true));
        assert_eq!(DuplicateClaim::of(&message, now), None, "it was never published");
        message.headers.0.insert(RUN_ONCE_HEADER.to_owned(), json!("m"));
        let claim = |until| Some(DuplicateClaim { id: "a".into(), copy: "m".to_owned(), until });
        assert_eq!(DuplicateClaim::of(&message, now), claim(now + DUPLICATES_COME_FOR));
        message.expires = Some(now + MARGIN);
        assert_eq!(DuplicateClaim::of(&message, now), claim(now + 2 * MARGIN));
        message.expires = Some(now - MARGIN);
        assert_eq!(DuplicateClaim::of(&message, now), claim(now + MARGIN));
    }

    #[test]
    fn each_attempt_is_claimed_by_itself() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut message = Context::detached().message().clone();
        message.id = "a".into();
        message.headers.0.insert(RUN_ONCE_HEADER.to_owned(), json!("m"));
        let claimed = |message: &Message| {
            DuplicateClaim::of(message, now).map(|claim| (claim.id, claim.until)).unwrap()
        };
        assert_eq!(claimed(&message), ("a".into(), now + DUPLICATES_COME_FOR));
        message.retries = 2;
        assert_eq!(claimed(&message), ("a#2.0.0".into(), now + FOLLOWERS_COME_FOR));
        message.retries = 0;
        message.workflow = Some(Box::new(Workflow { parent_id: Some("p".into()), ..Workflow::default() }));
        assert_eq!(claimed(&message), ("a".into(), now + FOLLOWERS_COME_FOR));
        message.workflow = Some(Box::new(Workflow { replaced_task_nesting: 1, ..Workflow::default() }));
        assert_eq!(claimed(&message), ("a#0.0.1".into(), now + FOLLOWERS_COME_FOR));
        message.headers.0.insert(SENDING.to_owned(), json!("s"));
        assert_eq!(claimed(&message).0, "a#0.0.1@s".into());
        message.workflow = None;
        assert_eq!(claimed(&message).0, "a@s".into());
    }
}

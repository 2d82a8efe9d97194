//! Messages that run only if somebody puts them back.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::BrokerError;
#[cfg(feature = "amqp")]
use crate::core::text::{ERROR, shortened};
use crate::core::{Backoff, Timestamp};
use crate::task::clock::now;
use crate::task::{HELD, Lineage, Message, RUN_ONCE_HEADER, SENDING, State, TaskResult};

/// The pauses between two tries to keep a dead letter.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// What stands between the number of a sending and the time at which the last life of the task was enqueued.
const LIFE: char = '~';

/// A message that runs only if somebody puts it back.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DeadLetter {
    /// The message as it was last.
    pub message: Message,
    /// Why the message is a dead letter.
    pub reason: String,
    /// When the message became a dead letter.
    pub died_at: Timestamp,
}

/// An ability of brokers: they keep the dead letters of all queues in one queue, which
/// [counts](super::QueueCounts::dead) them together and takes messages that the broker refuses elsewhere.
#[async_trait]
pub trait DeadLetterQueue: Send + Sync {
    /// Makes a dead letter of a message that the broker refuses for good, although it was promised that it would run.
    ///
    /// # Errors
    /// The message is not kept there, with the reason.
    async fn bury(&self, message: Message, reason: &str) -> Result<(), BrokerError>;

    /// How many dead letters of this queue this process has put there since it started and has not put back.
    fn dead_from_here(&self, queue: &str) -> u64;
}

/// Makes a dead letter of a message that was accepted and that its broker refuses for good. A failure that passes is
/// tried again, however long that takes, because a task without a letter is one that nobody can put back. If the
/// broker refuses the letter as well, for example because it is as large as the message, that is logged, and the
/// reason is in the record of the task alone.
///
/// # Errors
/// The broker is closed before the letter is there.
pub(super) async fn bury_for_sure(
    letters: &dyn DeadLetterQueue,
    message: &Message,
    reason: &str,
) -> Result<(), BrokerError> {
    let mut backoff = BACKOFF;
    loop {
        match letters.bury(message.clone(), reason).await {
            Ok(()) => return Ok(()),
            Err(BrokerError::Closed) => return Err(BrokerError::Closed),
            Err(error) if error.is_permanent() => {
                tracing::error!(id = %message.id, task = message.task, %error, "it is in no dead letters");
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(id = %message.id, task = message.task, %error, "a dead letter cannot be kept yet");
            }
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// The reason of a dead letter whose runs kept ending with their worker, `times` of them. Brokers call this at their
/// [delivery limit](super::BrokerFacts::delivery_limit).
pub fn crash_reason(times: u32) -> String {
    format!("WorkerLost: its worker or process ended {times} times while it ran")
}

/// The record of a task whose runs kept ending with their worker, as many of them as the message counts
/// [crashes](Message::crashes). A broker that keeps no results passes it to [`BrokerListener::end`](super::BrokerListener::end).
pub fn crash_result(message: &Message) -> TaskResult {
    failure(message, crash_reason(message.crashes), "WorkerLost")
}

/// The reason of a dead letter that its broker refuses.
pub(crate) fn refusal_reason(error: &BrokerError) -> String {
    format!("it was not published, and never can be: {error}")
}

/// The record of a task that was promised to run and that its broker refuses.
pub(crate) fn refused_result(message: &Message, reason: String) -> TaskResult {
    TaskResult { lineage: Lineage::of(message), ..failure(message, reason, REFUSED) }
}

/// The name of the error of such a task.
const REFUSED: &str = "Refused";

/// The record of a task that cannot be sent, and never will be.
#[cfg(feature = "amqp")]
pub(super) fn unsendable_result(message: &Message, reason: &str) -> TaskResult {
    failure(message, shortened(reason, ERROR).into_owned(), "EncodeError")
}

fn failure(message: &Message, reason: String, name: &str) -> TaskResult {
    TaskResult {
        errors: vec![reason],
        error_type: Some(name.to_owned()),
        ..TaskResult::of(message, State::Failure, now())
    }
}

/// The record of a task that was promised to run and that cannot be written.
pub(super) fn unwritable_result(message: &Message, error: &BrokerError) -> TaskResult {
    TaskResult {
        errors: vec![format!("it cannot be enqueued: {error}")],
        error_type: Some("ValueError".to_owned()),
        ..crash_result(message)
    }
}

/// The message of a dead letter on its way back into its queue, with its attempts counted anew: what brokers publish in
/// [`Broker::requeue_dead_letters`](super::Broker::requeue_dead_letters). `now` is the time at which it is enqueued again.
pub fn requeued(mut message: Message, now: Timestamp) -> Message {
    number_anew(&mut message);
    message.retries = 0;
    message.crashes = 0;
    message.eta = None;
    message.expires = None;
    message.enqueued_at = now;
    message.first_started_at = None;
    message.forget_failed_attempts();
    message.headers.0.remove(HELD); // what held it was in its last life, and its wait is counted
    message.headers.0.remove(RUN_ONCE_HEADER); // the task's id was given to this copy, which lost it to no other copy
    if let Some(serial) = &mut message.serial {
        serial.refusal = None;
        serial.let_in_at = None;
        serial.pass = None;
    }
    if let Some(workflow) = &mut message.workflow {
        // The steps that were to follow have failed with the task, and finished is final.
        workflow.chain.clear();
        workflow.chord = None;
    }
    message
}

/// Gives the next life of a task a number of its own in the place of that of its [sending](SENDING). Its attempts are
/// counted anew, so under the old number each of them would be taken for a copy of an attempt of the last life, and be
/// dropped. A message that goes back twice, because a process died in between, has the same number both times.
fn number_anew(message: &mut Message) {
    let Some(old) = message.headers.0.remove(SENDING) else { return };
    let Some(first) = old.as_str().and_then(|old| old.split(LIFE).next()) else { return };
    let number = format!("{first}{LIFE}{}", message.enqueued_at.as_micros());
    message.headers.0.insert(SENDING.to_owned(), Value::from(number));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::DuplicateClaim;
    use crate::task::{Context, HeldMark, RawSignature, TaskId, Workflow};

    fn step(task: &str) -> RawSignature {
        RawSignature { task: task.to_owned(), ..RawSignature::default() }
    }

    #[test]
    fn what_goes_back_runs_without_the_steps_that_have_failed_with_it() {
        let group = Some("g".to_owned());
        let (chain, chord, callbacks) = (vec![step("next")], Some(step("body")), vec![step("told")]);
        let alone = Workflow { group, callbacks, ..Workflow::default() };
        let workflow = Workflow { chain, chord, ..alone.clone() };
        let message = Message { workflow: Some(Box::new(workflow)), ..Context::detached().message().clone() };
        assert_eq!(requeued(message, now()).workflow, Some(Box::new(alone)));
    }

    /// It comes to its queue as a new one does, and what a limit held it for before is not counted again.
    #[test]
    fn what_goes_back_has_been_held_by_nothing() {
        let (since, due) = (Timestamp::from_millis(1_000), Timestamp::from_millis(9_000));
        let held = Context::detached().message().held_until(due, HeldMark { since, times: 2 });
        assert!(held.held().is_some());
        let again = requeued(held, Timestamp::from_millis(90_000));
        assert_eq!((again.held(), again.eta, again.due()), (None, None, Timestamp::from_millis(90_000)));
    }

    /// A message of a canvas as it is claimed in its first retry.
    fn claimed(message: &Message, copy: &str) -> TaskId {
        let mut message = Message { retries: 1, ..message.clone() };
        message.headers.0.insert(RUN_ONCE_HEADER.to_owned(), json!(copy));
        DuplicateClaim::of(&message, now()).map(|claim| claim.id).unwrap()
    }

    #[test]
    fn no_attempt_of_the_next_life_is_taken_for_a_copy_of_one_of_the_last() {
        let at = Timestamp::from_millis;
        let mut message = Message { enqueued_at: at(1_000), ..Context::detached().message().clone() };
        message.headers.0.insert(SENDING.to_owned(), json!("s"));
        message.headers.0.insert(RUN_ONCE_HEADER.to_owned(), json!("first"));
        let second = requeued(message.clone(), at(2_000));
        let third = requeued(Message { retries: 1, ..second.clone() }, at(3_000));
        assert!(!second.headers.0.contains_key(RUN_ONCE_HEADER), "its first run is claimed by nobody");
        let claims = [&message, &second, &third].map(|message| claimed(message, "a"));
        assert!(claims[0] != claims[1] && claims[1] != claims[2] && claims[0] != claims[2], "{claims:?}");
        let again = requeued(message.clone(), at(2_500));
        assert_eq!(claimed(&again, "b"), claims[1], "a process died before the letter was gone");
        assert_eq!(third.headers.0[SENDING], json!("s~2000000"), "it does not grow");
        message.headers.0.insert(SENDING.to_owned(), json!(7));
        assert!(
            !requeued(message, at(2_000)).headers.0.contains_key(SENDING),
            "somebody else has written it"
        );
    }
}

//! How a tick is decided and published: in one step where the broker keeps the notes, otherwise in three.
//!
//! A broker that shares no transaction with the notes hears of a tick only after it is decided:
//! 1. One step of the store changes the entry's note and writes the whole message beside it. Both are refused to a
//!    process that does not lead any more.
//! 2. The message is published.
//! 3. When the broker has confirmed it, the message's note is deleted.
//!
//! A new leader publishes the messages whose notes are still there, because nobody knows whether they were
//! published. So a message may be published twice, but it is never lost. The [mark](RUN_ONCE_HEADER) in it lets
//! only one copy start.

use std::sync::atomic::Ordering;

use super::BeatParts;
use crate::broker::{BrokerError, CasOutcome};
use crate::store::{CompareAndSet, StoreError};
use crate::task::{EnqueueError, Message, NewTask, RUN_ONCE_HEADER};

/// The prefix of the notes with decided messages; the id of the task follows.
const DECIDED: &str = "beat/decided/";

fn unpublished(error: StoreError) -> EnqueueError {
    EnqueueError::Broker(error.to_string())
}

/// The error of a broker that never takes a tick.
fn refusal(error: EnqueueError) -> BrokerError {
    BrokerError::Refused(match error {
        EnqueueError::Refused { reason } => reason,
        error => error.to_string(),
    })
}

/// Publishes a tick's task, which has an id of its own, and changes the entry's note, if the note is as expected.
pub(super) async fn publish(
    parts: &BeatParts,
    mut call: NewTask,
    change: CompareAndSet,
) -> Result<CasOutcome, EnqueueError> {
    let runtime = &parts.runtime;
    if parts.publisher().is_none_or(|publisher| publisher.is_closing()) {
        return Err(EnqueueError::ShuttingDown);
    }
    // A broker with notes takes the message and the change in one commit.
    if let Some(notes) = runtime.broker.notes() {
        let message = runtime.dispatcher.message(call)?;
        return match notes.publish_with_cas(message.clone(), change.clone()).await {
            // As in `send`: the tick fails, and the entry goes on with the next one.
            Err(error) if error.is_permanent() => {
                runtime.give_up(&message, &error).await;
                let changed = runtime.notes().compare_and_set_all(vec![change], parts.term()).await;
                Ok(if changed.map_err(unpublished)? { CasOutcome::Changed } else { CasOutcome::Outdated })
            }
            outcome => outcome.map_err(EnqueueError::from),
        };
    }
    // Where other processes see the notes too, another one may publish the message once more, so it is marked.
    if runtime.shares_notes() {
        call.headers.0.insert(RUN_ONCE_HEADER.to_owned(), true.into());
    }
    let message = runtime.dispatcher.message(call)?;
    let text = serde_json::to_string(&message)
        .map_err(|error| EnqueueError::Broker(format!("a tick of `{}`: {error}", message.task)))?;
    let key = format!("{DECIDED}{}", message.id);
    let decided = CompareAndSet { key: key.clone(), expected: None, value: Some(text.clone()) };
    let changes = vec![change, decided];
    if !runtime.notes().compare_and_set_all(changes, parts.term()).await.map_err(unpublished)? {
        return Ok(CasOutcome::Outdated);
    }
    send(parts, message, key, text).await
}

/// Publishes all messages that are decided and may be unpublished, whichever process decided them.
pub(super) async fn finish(parts: &BeatParts) -> Result<(), EnqueueError> {
    let runtime = &parts.runtime;
    // Cleared first: a send that fails below sets it again.
    parts.unfinished.store(false, Ordering::Release);
    if runtime.broker.notes().is_some() {
        return Ok(());
    }
    for (key, text) in runtime.notes().notes(DECIDED).await.map_err(unpublished)? {
        match serde_json::from_str::<Message>(&text) {
            Ok(message) => {
                let (id, task) = (message.id.clone(), message.task.clone());
                tracing::info!(%id, task, "a tick that was decided is published, maybe once more");
                match send(parts, message, key, text).await {
                    Ok(_) => {}
                    Err(EnqueueError::ShuttingDown) => return Err(EnqueueError::ShuttingDown),
                    // A tick whose queue is full must not hold up other entries: it stays decided, and is tried
                    // again.
                    Err(error) => {
                        tracing::warn!(%id, task, %error, "a tick that was decided cannot be published yet")
                    }
                }
            }
            Err(error) => tracing::error!(
                note = key,
                %error,
                "a tick that was decided cannot be read, and is not published: it may be of a later version of Celeriac"
            ),
        }
    }
    Ok(())
}

/// Publishes a decided message, and then deletes its note.
async fn send(
    parts: &BeatParts,
    message: Message,
    key: String,
    text: String,
) -> Result<CasOutcome, EnqueueError> {
    let runtime = &parts.runtime;
    let published = match runtime.publish(message.clone(), true).await {
        Ok(receipt) => CasOutcome::Taken(receipt),
        Err(EnqueueError::DuplicateId { .. }) => CasOutcome::Changed,
        // The broker would refuse it each time, and hold up the entry for ever. So this tick fails, with the reason
        // in its record.
        Err(error) if error.is_permanent() => {
            runtime.give_up(&message, &refusal(error)).await;
            CasOutcome::Changed
        }
        Err(error) => {
            parts.unfinished.store(true, Ordering::Release);
            return Err(error);
        }
    };
    let struck_out = CompareAndSet { key, expected: Some(text), value: None };
    // If the change is refused, another process has published the message too, and has deleted the note before.
    if let Err(error) = runtime.notes().compare_and_set(struck_out).await {
        tracing::warn!(%error, "a tick is published, but its note is not deleted; it is published once more, and the copy does not start");
        parts.unfinished.store(true, Ordering::Release);
    }
    Ok(published)
}

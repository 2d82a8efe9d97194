//! A tick is decided and published: one step where the broker keeps the notes; else three.
//!
//! A broker that shares no transaction with the notes is told of a tick only after it is decided: one step of the store
//! changes the entry's note and writes the whole message beside it, and both are refused to whoever does not lead any more.
//! Then the message is published, and when the broker has confirmed it, its note goes. Whoever begins to lead publishes what
//! is still there, because nobody knows whether that was done. So a message may be published twice, and never not at all; its
//! [mark](ONCE) lets one of them start.

use std::sync::atomic::Ordering;

use super::BeatParts;
use crate::broker::Noted;
use crate::store::{NoteChange, StoreError};
use crate::task::{EnqueueError, Message, NewTask, ONCE};

/// Messages that are decided, by the ids of their tasks.
const DECIDED: &str = "beat/decided/";

fn unpublished(error: StoreError) -> EnqueueError {
    EnqueueError::Broker(error.to_string())
}

/// Publishes a task that has an id of its own, and changes a note, if that is as expected.
pub(super) async fn publish(
    parts: &BeatParts,
    mut call: NewTask,
    change: NoteChange,
) -> Result<Noted, EnqueueError> {
    let runtime = &parts.runtime;
    if parts.publisher().is_none_or(|publisher| publisher.is_closing()) {
        return Err(EnqueueError::ShuttingDown);
    }
    if runtime.broker.notes().is_some() {
        let message = runtime.dispatcher.message(call)?;
        return Ok(runtime.broker.publish_noted(message, change).await?);
    }
    if runtime.shares_notes() {
        call.headers.0.insert(ONCE.to_owned(), true.into());
    }
    let message = runtime.dispatcher.message(call)?;
    let text = serde_json::to_string(&message)
        .map_err(|error| EnqueueError::Broker(format!("a tick of `{}`: {error}", message.task)))?;
    let key = format!("{DECIDED}{}", message.id);
    let decided = NoteChange { key: key.clone(), expected: None, value: Some(text.clone()) };
    let changes = vec![change, decided];
    if !runtime.notes().change_notes(changes, parts.term()).await.map_err(unpublished)? {
        return Ok(Noted::Outdated);
    }
    send(parts, message, key, text).await
}

/// Publishes what was decided and may not be published, by whomever.
pub(super) async fn finish(parts: &BeatParts) -> Result<(), EnqueueError> {
    let runtime = &parts.runtime;
    parts.unfinished.store(false, Ordering::Release);
    if runtime.broker.notes().is_some() {
        return Ok(());
    }
    for (key, text) in runtime.notes().notes(DECIDED).await.map_err(unpublished)? {
        match serde_json::from_str::<Message>(&text) {
            Ok(message) => {
                tracing::info!(id = %message.id, task = message.task, "a tick that was decided is published, maybe once more");
                send(parts, message, key, text).await?;
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

/// Publishes what is decided, and strikes it out.
async fn send(parts: &BeatParts, message: Message, key: String, text: String) -> Result<Noted, EnqueueError> {
    let runtime = &parts.runtime;
    let published = match runtime.publish(message, true).await {
        Ok(receipt) => Noted::Taken(receipt),
        Err(EnqueueError::DuplicateId { .. }) => Noted::Changed,
        Err(error) => {
            parts.unfinished.store(true, Ordering::Release);
            return Err(error);
        }
    };
    let struck_out = NoteChange { key, expected: Some(text), value: None };
    // Refused: somebody else has published it too, and was faster.
    if let Err(error) = runtime.notes().change_note(struck_out).await {
        tracing::warn!(%error, "a tick is published and could not be struck out; it is published once more, and dropped where it would start");
        parts.unfinished.store(true, Ordering::Release);
    }
    Ok(published)
}

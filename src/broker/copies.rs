//! Messages that are sent again although they may have arrived, and how only one copy of each runs.
//!
//! If the broker has no transaction with the store, the end of a task is a series of steps, and a process may die
//! between two of them. Another process then sends the follow-ups once more. Therefore all follow-ups are sent with
//! a [mark](RUN_ONCE_HEADER), and of all copies with an id only the first that is about to start runs.
//!
//! A canvas may be sent again on purpose under the same ids, and then all of it is to run again. So each sending of
//! a canvas has a [number](SENDING), which all that follows from it inherits; only messages of one sending are
//! copies of each other.

use serde_json::Value;

use super::Broker;
use crate::store::Store;
use crate::task::{Message, RUN_ONCE_HEADER, SENDING, TaskId};

/// Gives the sending of a canvas its number. `messages` are those that are sent first.
pub(crate) fn number(messages: &mut [Message], broker: &dyn Broker, store: &dyn Store) {
    if are_apart(broker, store) {
        let sending = Value::from(TaskId::new().to_string());
        for message in messages.iter_mut().filter(|message| has_followers(message)) {
            message.headers.0.insert(SENDING.to_owned(), sending.clone());
        }
    }
}

/// Marks messages that follow from a run, so that only the first copy of each that starts is run. Serial messages
/// need no mark, because a lane knows what it has let in. If another program has sent the canvas, the sending has
/// no number: these messages get one, and their follow-ups are marked.
pub(crate) fn mark(messages: &mut [Message], broker: &dyn Broker, store: &dyn Store) {
    if !are_apart(broker, store) {
        return;
    }
    let mut begun = Vec::new();
    for message in messages {
        match message.headers.0.contains_key(SENDING) {
            true if message.serial.is_none() => {
                message.headers.0.insert(RUN_ONCE_HEADER.to_owned(), Value::Bool(true));
            }
            true => {}
            false => begun.push(message),
        }
    }
    let sending = Value::from(TaskId::new().to_string());
    for message in begun.into_iter().filter(|message| has_followers(message)) {
        message.headers.0.insert(SENDING.to_owned(), sending.clone());
    }
}

/// Whether the broker and the store are two servers that other processes use as well. Elsewhere there are no copies.
fn are_apart(broker: &dyn Broker, store: &dyn Store) -> bool {
    broker.facts().is_shared && store.is_shared()
}

fn has_followers(message: &Message) -> bool {
    message.workflow.as_ref().is_some_and(|workflow| workflow.has_followers())
}

/// Whether `next` is the message of another attempt than `message`. One that only waits longer is not.
pub(crate) fn is_next(next: &Message, message: &Message) -> bool {
    (next.retries, next.continuations) != (message.retries, message.continuations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Context;
    use crate::task::clock::now;

    #[test]
    fn a_message_that_waits_longer_is_of_the_same_attempt() {
        let message = Context::detached().message().clone();
        let mut next = message.clone();
        next.eta = Some(now());
        assert!(!is_next(&next, &message));
        next.retries += 1;
        assert!(is_next(&next, &message));
        next = message.clone();
        next.continuations += 1;
        assert!(is_next(&next, &message));
    }
}

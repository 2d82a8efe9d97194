//! What follows from the end of a task, carried out: messages made, records written, chords counted.
//!
//! A broker that settles results gets all of it with the settlement, and writes all or nothing. For the others the records
//! and the chords go to the store first, then the messages are published and the delivery acknowledged, and then the
//! chords are closed: should the process die in between, the task runs again and does the rest, under the same ids.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::runtime::Runtime;
use crate::broker::{BrokerError, ChordEnd, Sequel};
use crate::protocol::result::Exception;
use crate::store::{ChordJoin, ChordPart, ChordSize, StoreError};
use crate::task::canvas::{Aftermath, Cause, Launch, Part, after, after_chord};
use crate::task::clock::now;
use crate::task::{Dispatcher, Message, Origin, State, TaskId, TaskResult};

/// The chords that were completed: their groups, and the tokens that close them.
pub(super) type Completed = Vec<(String, String)>;

/// What follows from the end of `message`; its record is told where it stood.
pub(super) fn sequel(
    dispatcher: &Arc<Dispatcher>,
    message: &Message,
    record: &mut TaskResult,
) -> Option<Box<Sequel>> {
    message.workflow.as_deref()?;
    let sequel = match after(message, record) {
        Ok(aftermath) => {
            if !aftermath.launch.children.is_empty() {
                let lineage = record.lineage.get_or_insert_default();
                lineage.children.clone_from(&aftermath.launch.children);
            }
            let follower = Follower::of(dispatcher, message);
            follower.sequel(aftermath, &Cause::of(record))
        }
        Err(error) => {
            tracing::error!(id = %message.id, task = message.task, %error, "what should follow from a task cannot");
            if record.state == State::Success {
                (record.state, record.result) = (State::Failure, None);
                record.errors = vec![format!("it succeeded, but what should follow from it cannot: {error}")];
                record.error_type = Some("SignatureError".to_owned());
            }
            None
        }
    };
    sequel.map(Box::new)
}

/// What is sent instead of `message`.
pub(super) fn instead(dispatcher: &Arc<Dispatcher>, message: &Message, launch: Launch) -> Box<Sequel> {
    let aftermath = Aftermath { launch, ..Aftermath::default() };
    let sequel = Follower::of(dispatcher, message).sequel(aftermath, &Cause::none());
    Box::new(sequel.unwrap_or_default())
}

/// Makes sequels of aftermaths; goes along to the end of a chord.
#[derive(Clone)]
struct Follower {
    dispatcher: Arc<Dispatcher>,
    origin: Origin,
    reply_to: Option<String>,
    result_expires: Duration,
}

impl Follower {
    fn of(dispatcher: &Arc<Dispatcher>, message: &Message) -> Self {
        Self {
            dispatcher: Arc::clone(dispatcher),
            origin: Origin::of(message),
            reply_to: message.workflow.as_deref().and_then(|workflow| workflow.reply_to.clone()),
            result_expires: message.result_expires,
        }
    }

    /// Nothing, if nothing follows.
    fn sequel(&self, aftermath: Aftermath, cause: &Cause) -> Option<Sequel> {
        let Aftermath { launch: Launch { calls, chords, .. }, lost, parts } = aftermath;
        if calls.is_empty() && lost.is_empty() && parts.is_empty() {
            return None;
        }
        Some(Sequel {
            messages: calls.into_iter().map(|call| self.dispatcher.next(call, &self.origin)).collect(),
            records: lost.into_iter().map(|(id, task)| self.lost(id, task, cause)).collect(),
            sizes: chords.into_iter().map(|(group, size)| ChordSize { group, size }).collect(),
            chords: parts.into_iter().map(|part| self.chord_end(part, cause)).collect(),
        })
    }

    fn chord_end(&self, part: Part, cause: &Cause) -> ChordEnd {
        let Part { group, id, task, index, state, value, body } = part;
        let follower = self.clone();
        // Python reads the error of a member in the form of its records.
        let error =
            || serde_json::to_value(Exception::of(&self.lost(id.clone(), task, cause))).unwrap_or_default();
        let value = value.unwrap_or_else(error);
        let part = ChordPart { group: group.clone(), id, index, state, value };
        let then = move |parts: Vec<ChordPart>| {
            let parts = parts.into_iter().map(|part| (part.id, part.state, part.value)).collect();
            let (aftermath, cause) = after_chord(&group, body, follower.reply_to.as_deref(), parts);
            let cause = cause.unwrap_or_else(Cause::none);
            follower.sequel(aftermath, &cause).unwrap_or_default()
        };
        ChordEnd { part, then: Box::new(then) }
    }

    /// The record of a task that will never run.
    fn lost(&self, id: TaskId, task: String, cause: &Cause) -> TaskResult {
        let now = now();
        let cause = cause.clone();
        TaskResult {
            id,
            task,
            queue: String::new(),
            state: cause.state,
            result: None,
            errors: cause.errors,
            error_type: cause.error_type,
            error_module: cause.error_module,
            traceback: cause.traceback,
            attempts: 0,
            enqueued_at: now,
            started_at: None,
            finished_at: now,
            worker: None,
            expires_at: now + self.result_expires,
            lineage: None,
            download: None,
        }
    }
}

impl Runtime {
    /// Brings all but the messages to the store, however long that takes; what is left are the messages, and the chords
    /// to be closed when those are published.
    pub(super) async fn bring_to_store(&self, sequel: Sequel) -> (Vec<Message>, Completed) {
        let (mut all, mut completed) = (Vec::new(), Completed::new());
        let mut sequels = VecDeque::from([sequel]);
        while let Some(Sequel { messages, records, sizes, chords }) = sequels.pop_front() {
            all.extend(messages);
            for record in records {
                self.put_result(record).await;
            }
            for ChordSize { group, size } in sizes {
                insist("a chord cannot be opened yet", || self.store.open_chord(&group, size)).await;
            }
            for ChordEnd { part, then } in chords {
                let group = part.group.clone();
                let joined = insist("a chord cannot be counted yet", || self.store.join_chord(part.clone()));
                if let Some(ChordJoin::Complete { token, parts }) = joined.await {
                    sequels.push_back(then(parts));
                    completed.push((group, token));
                }
            }
        }
        (all, completed)
    }

    /// Publishes these, which were promised to run, however long that takes.
    pub(super) async fn line_up(&self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let mut pause = Duration::from_millis(50);
        // Again from the first one: who stands in a lane already is known there.
        while let Err(error) = self.broker.publish_all(messages.clone(), Vec::new(), false).await {
            if error == BrokerError::Closed {
                tracing::error!(%error, "what follows from a task could not be published");
                return;
            }
            tracing::warn!(%error, "what follows from a task cannot be published yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// The bodies are published.
    pub(super) async fn close_chords(&self, completed: Completed) {
        for (group, token) in completed {
            if let Err(error) = self.store.close_chord(&group, &token).await {
                tracing::warn!(group, %error, "a chord could not be closed; its parts go when they expire");
            }
        }
    }
}

/// Asks the store until it answers; `None`: it never will.
async fn insist<T, F: Future<Output = Result<T, StoreError>>>(what: &str, ask: impl Fn() -> F) -> Option<T> {
    let mut pause = Duration::from_millis(50);
    loop {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(error @ (StoreError::Unsupported(_) | StoreError::Closed)) => {
                tracing::error!(%error, "{what}");
                return None;
            }
            Err(error) => tracing::warn!(%error, "{what}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

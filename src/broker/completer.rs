//! The completer carries out the end of a task where that cannot be one step with the broker: it keeps the record,
//! counts chords and publishes the follow-ups. Brokers without results of their own use it for deliveries, and the
//! runtime for tasks that have no delivery.
//!
//! The order: records, then chords, then the messages that follow, then whatever tells the broker that the task is
//! over, and last the chords are closed. If the process dies between two of these, the task is delivered again and
//! the rest is done under the same ids; what was done before is recognised by them. A chord is closed last, because
//! a member that joins a complete chord which is not closed sends the chord's body once more.

mod run_again;

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use futures_util::future::join_all;

use super::failed::keep_for_sure;
use super::{
    Broker, BrokerError, ChordEnd, FollowUps, Remains, Settle, UniqueWindows, copies, dead_letter,
    refusal_reason, refused_result,
};
use crate::core::Backoff;
use crate::store::sent_marks::{marks_of, write_marks};
use crate::store::{self, ChordJoin, ChordPart, ChordSize, Store, StoreError};
use crate::task::{Message, State, TaskResult};

pub(super) use run_again::{requeue_dead_letter, retry_failed};

/// The error type of a record that the store has refused; Celery's name for it.
const REFUSED: &str = "BackendStoreError";
/// How often a store may panic at a record before the record counts as refused.
const PANICS: u32 = 3;
/// The pauses between two tries.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
/// The pause between the record of a member that fails a chord and the record of the chord's body. Celery's clients
/// look first at the tasks that a result follows from and then at the result itself, and raise the error of the
/// first that has failed (`celery.result.AsyncResult.get`: `_maybe_reraise_parent_error`, then
/// `add_pending_result`). If both records came between these two looks, a client would raise the body's
/// `ChordError` instead of the member's own error. No order of writes rules that out, because the client decides
/// how long it takes between its two reads. Celery's own worker leaves 6 to 190 ms between the two records, half of
/// the time more than 60.
const CAUSE_FIRST: Duration = Duration::from_millis(30);

/// Makes the follow-ups of the end of a message with this record; `None`: it has none.
pub(crate) type PlanFollowUps<'a> =
    dyn Fn(&Message, &mut TaskResult) -> Option<Box<FollowUps>> + Send + Sync + 'a;

/// A chord that was completed, and is to be closed when its body is published.
#[derive(Debug)]
pub(super) struct CompletedChord {
    group: String,
    /// The token that closes the chord. The store gives it to whoever completes the chord.
    token: String,
    /// Whether a member has failed, and the chord's body with it.
    has_failed: bool,
}

/// The chords that were completed.
pub(super) type Completed = Vec<CompletedChord>;

/// Carries out ends of tasks. Each step is tried until it succeeds or can never succeed, however long that takes.
pub(crate) struct Completer<'a> {
    /// Where records and chords are kept.
    pub(crate) store: &'a dyn Store,
    /// Where the follow-ups are published.
    pub(crate) broker: &'a dyn Broker,
    /// Whether the store is told of each task that is sent.
    pub(crate) marks_sent: bool,
    /// Keeps the unique windows, which end with their tasks.
    pub(crate) windows: Option<&'a dyn UniqueWindows>,
    /// Makes the follow-ups of tasks that are given up.
    pub(crate) plan_follow_ups: &'a PlanFollowUps<'a>,
}

impl Completer<'_> {
    /// Ends a task that has no delivery to settle any more, because it was acknowledged before it ran.
    pub(crate) async fn end(&self, message: &Message, settle: Settle) {
        match settle {
            Settle::Ack { result, follow_ups } | Settle::DeadLetter { result, follow_ups, .. } => {
                self.end_with(result, follow_ups).await;
            }
            Settle::Fail { failed, result, follow_ups } => {
                // Before the record: whoever reads that the task has failed finds it.
                if let Some(kept) = self.broker.failed_tasks() {
                    keep_for_sure(kept, *failed).await;
                }
                self.end_with(result, follow_ups).await;
            }
            Settle::Requeue { message, due } => {
                let mut next = *message;
                next.eta = due;
                self.publish(vec![next]).await;
            }
            Settle::Return { .. } => {
                tracing::warn!(id = %message.id, "a run was cut short; the task was acknowledged before it ran and does not run again");
            }
        }
    }

    async fn end_with(&self, record: Option<TaskResult>, follow_ups: Option<Box<FollowUps>>) {
        if let Some(record) = record {
            self.keep(record).await;
        }
        self.carry_out(follow_ups).await;
    }

    /// Ends a task that was never delivered, or had no chance to be. `message` is there if it could be read.
    pub(crate) async fn over(&self, message: Option<&Message>, mut record: TaskResult) {
        let follow_ups = message.and_then(|message| (self.plan_follow_ups)(message, &mut record));
        if let Some(message) = message {
            self.end_window(message).await;
        }
        self.keep(record).await;
        self.carry_out(follow_ups).await;
    }

    /// Ends a task that was taken out before it ran, with what it leaves behind.
    pub(super) async fn leave(&self, message: &Message, Remains { record, follow_ups }: Remains) {
        self.end_window(message).await;
        self.end_with(record, follow_ups).await;
    }

    /// Fails a task that was promised to run, but that the broker refuses for good, with the reason; what was to
    /// follow from it fails with it. Its message is kept with the dead letters first, if the broker can, however long
    /// that takes.
    pub(crate) async fn give_up(&self, message: &Message, error: &BrokerError) {
        let reason = refusal_reason(error);
        tracing::error!(id = %message.id, task = message.task, reason, "FAILURE");
        if let Some(letters) = self.broker.dead_letter_queue()
            && let Err(error) = dead_letter::bury_for_sure(letters, message, &reason).await
        {
            // Whatever the task follows from is not acknowledged either, so the next process comes here again.
            tracing::error!(id = %message.id, task = message.task, %error, "it is in no dead letters yet");
        }
        self.over(Some(message), refused_result(message, reason)).await;
    }

    /// Carries out the follow-ups of a task that has no delivery to settle.
    pub(crate) async fn carry_out(&self, follow_ups: Option<Box<FollowUps>>) {
        if let Some(follow_ups) = follow_ups {
            let (messages, completed) = self.count(*follow_ups).await;
            self.publish(messages).await;
            self.close(completed).await;
        }
    }

    /// Ends the unique window of a task. This comes before the record: whoever reads the result and makes the same
    /// call again must get a task of its own.
    pub(super) async fn end_window(&self, message: &Message) {
        if message.unique.is_some()
            && let Some(windows) = self.windows
            && let Err(error) = windows.release(message).await
        {
            tracing::warn!(id = %message.id, %error, "a unique window could not be ended; it ends by its own time");
        }
    }

    /// Keeps a record. It tries until the store takes it. A record that the store refuses is kept as a failure
    /// instead.
    pub(crate) async fn keep(&self, record: TaskResult) {
        let mut record = record;
        if record.worker.is_some() && self.store.is_shared() {
            // Other programs know this process by Celery's node name.
            record.worker = self.broker.events().and_then(|events| events.node()).or(record.worker);
        }
        let (mut backoff, mut panics) = (BACKOFF, 0);
        while let Err(error) = self.store.put(record.clone()).await {
            match error {
                // If the panic comes from this very record, it would come for ever.
                StoreError::Panicked(reason) if panics >= PANICS => {
                    let again = record.error_type.as_deref() == Some(REFUSED);
                    tracing::error!(id = %record.id, reason, again, "the store panics at the record of a task");
                    if again {
                        return;
                    }
                    panics = 0;
                    record = refused(record, reason);
                }
                StoreError::Refused(reason) if record.error_type.as_deref() == Some(REFUSED) => {
                    tracing::error!(id = %record.id, reason, "the end of a task cannot be recorded");
                    return;
                }
                StoreError::Refused(reason) => record = refused(record, reason),
                error if error.is_permanent() => {
                    tracing::error!(id = %record.id, %error, "the end of a task cannot be recorded");
                    return;
                }
                error => {
                    panics += u32::from(matches!(error, StoreError::Panicked(_)));
                    tracing::warn!(id = %record.id, %error, "a result cannot be stored yet");
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Brings the records and chord parts to the store, and those of the chords that this completes. Returns the
    /// messages to publish, and the chords to close when they are published.
    pub(super) async fn count(&self, follow_ups: FollowUps) -> (Vec<Message>, Completed) {
        let (mut all, mut completed) = (Vec::new(), Completed::new());
        let mut follow_ups = VecDeque::from([follow_ups]);
        while let Some(FollowUps { messages, records, sizes, chords }) = follow_ups.pop_front() {
            all.extend(messages);
            for record in records {
                self.keep(record).await;
            }
            for ChordSize { group, size } in sizes {
                // If the chord can never be opened, none of its members can be counted, and each says so.
                let open = async || store::chords(self.store)?.open_chord(&group, size).await;
                let _ = insist("a chord cannot be opened yet", open).await;
            }
            for ChordEnd { part, then } in chords {
                let group = part.group.clone();
                let join = async || store::chords(self.store)?.join_chord(part.clone()).await;
                match insist("a chord cannot be counted yet", join).await {
                    Ok(ChordJoin::Complete { token, parts }) => {
                        let has_failed = parts.iter().any(|part| part.state != State::Success);
                        if has_failed {
                            self.let_the_cause_come_first().await;
                        }
                        follow_ups.push_back(then(parts));
                        completed.push(CompletedChord { group, token, has_failed });
                    }
                    Ok(_) => {}
                    // The chord will never be complete. Its body fails now, as by a member that has failed.
                    Err(error) if error.is_permanent() => {
                        self.let_the_cause_come_first().await;
                        follow_ups.push_back(then(vec![uncounted(part, &error)]));
                    }
                    Err(_) => {}
                }
            }
        }
        copies::mark(&mut all, self.broker, self.store);
        if self.marks_sent {
            write_marks(self.store, marks_of(&all)).await;
        }
        (all, completed)
    }

    /// Pauses between the record of a member and that of the body that fails with it, if clients of other programs may
    /// read both: see [`CAUSE_FIRST`].
    async fn let_the_cause_come_first(&self) {
        if self.store.is_shared() {
            tokio::time::sleep(CAUSE_FIRST).await;
        }
    }

    /// Publishes messages that were promised to run, all at once, so that one whose queue is full holds up no
    /// other. A message that the broker refuses for good is [given up](Self::give_up).
    pub(super) async fn publish(&self, messages: Vec<Message>) {
        join_all(messages.into_iter().map(|message| self.send_on(message))).await;
    }

    async fn send_on(&self, message: Message) {
        let mut backoff = BACKOFF;
        loop {
            // Not with `unique`, as for a new call: the message may stand in its lane already, and is known there.
            match self.broker.publish_all(vec![message.clone()], false).await {
                Ok(()) | Err(BrokerError::DuplicateId(_)) => return,
                Err(error @ BrokerError::Closed) => {
                    let id = &message.id;
                    tracing::error!(%id, %error, "what follows from a task could not be published");
                    return;
                }
                Err(error) if error.is_permanent() => return Box::pin(self.give_up(&message, &error)).await,
                Err(error) => {
                    let id = &message.id;
                    tracing::warn!(%id, %error, "what follows from a task cannot be published yet");
                }
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Closes chords whose bodies are published.
    pub(super) async fn close(&self, completed: Completed) {
        for CompletedChord { group, token, has_failed } in completed {
            let close = async {
                let store = store::chords(self.store)?;
                match has_failed {
                    true => store.close_failed_chord(&group, &token).await,
                    false => store.close_chord(&group, &token).await,
                }
            };
            let closed = close.await;
            if let Err(error) = closed {
                tracing::warn!(group, %error, "a chord could not be closed; its parts go when they expire");
            }
        }
    }
}

/// The record of a task whose own record the store would never take, for example because its value is too large.
fn refused(record: TaskResult, reason: String) -> TaskResult {
    tracing::error!(id = %record.id, task = record.task, reason, "the store refused a result; it is recorded as a failure");
    TaskResult {
        state: State::Failure,
        result: None,
        errors: vec![reason],
        error_type: Some(REFUSED.to_owned()),
        error_module: Some("celery.exceptions".to_owned()),
        error_arguments: None,
        traceback: None,
        download: None,
        ..record
    }
}

/// The part of a member that the store can never count: a failure.
fn uncounted(part: ChordPart, error: &StoreError) -> ChordPart {
    let value = serde_json::json!({
        "exc_type": "ChordError",
        "exc_module": "celery.exceptions",
        "exc_message": [format!("the end of {} cannot be counted: {error}", part.id)],
    });
    ChordPart { state: State::Failure, value: value.into(), ..part }
}

/// Asks the store until it answers, or says that it never will. `what` is the text for the log.
async fn insist<T, F: Future<Output = Result<T, StoreError>>>(
    what: &str,
    ask: impl Fn() -> F,
) -> Result<T, StoreError> {
    let mut backoff = BACKOFF;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error == StoreError::Closed || error.is_permanent() => {
                tracing::error!(%error, "{what}");
                return Err(error);
            }
            Err(error) => tracing::warn!(%error, "{what}"),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

#[cfg(test)]
mod tests;

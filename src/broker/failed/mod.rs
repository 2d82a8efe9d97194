//! Tasks that have failed for good and are kept: to be looked at, tried again, corrected and tried again, or deleted.
//!
//! There are two kinds. A task whose last attempt failed is kept for as long as its queue says, and its broker bounds how many
//! there are: the oldest go first, and are counted. A [dead letter](super::DeadLetter) could not run, rejected itself, or took
//! its process down; it is kept until somebody takes it. Whoever lists failed tasks sees both.

mod edit;
mod filter;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{BrokerError, DeadLetter, TaskPage, limits, requeued, task_page};
use crate::core::{Backoff, Timestamp};
use crate::task::{FailedAttempt, Message, TaskId};

pub use edit::TaskEdit;
pub(crate) use filter::FindParams;
pub use filter::TaskFilter;

/// The most failed tasks that a queue keeps, by default; dead letters do not count. RabbitMQ has one bound for all queues,
/// ten times as large.
pub const MOST_FAILED: u64 = 10_000;
/// The most bytes that the failed tasks of a queue take, by default. RabbitMQ has one bound for all queues, ten times as large.
pub const MOST_FAILED_BYTES: u64 = 64 << 20;

/// The pauses between two tries to keep a failed task.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// A task that has failed for good, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedTask {
    /// The message as it was last, with its arguments and its [attempts](Message::failed_attempts).
    pub message: Message,
    /// The errors of the last attempt, or why the task is a dead letter.
    pub reason: String,
    /// The time at which the task failed for good.
    pub failed_at: Timestamp,
    /// The time until which the task is kept. It is `None` for a dead letter, which is kept until somebody takes it.
    pub expires_at: Option<Timestamp>,
}

impl FailedTask {
    /// The attempts that failed, in their order; of many, the first one and the last nine. Those of a dead letter are the
    /// attempts before the one that made it a dead letter, if there were any.
    pub fn attempts(&self) -> Vec<FailedAttempt> {
        self.message.failed_attempts()
    }

    /// Whether the task is a dead letter.
    pub fn is_dead_letter(&self) -> bool {
        self.expires_at.is_none()
    }

    /// Whether the task is not kept any more.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The message with which the task is tried again, with its attempts counted anew.
    ///
    /// # Errors
    /// The edit cannot be made, or no broker could take what it made. The text says why.
    pub(super) fn again(self, edit: Option<&TaskEdit>, now: Timestamp) -> Result<Message, String> {
        let mut message = requeued(self.message, now);
        if let Some(edit) = edit {
            edit.apply(&mut message)?;
        }
        limits::check(&message).map_err(|error| error.to_string())?;
        Ok(message)
    }
}

impl From<DeadLetter> for FailedTask {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { message, reason, died_at } = letter;
        Self { message, reason, failed_at: died_at, expires_at: None }
    }
}

/// What became of the tasks that were to be tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// The tasks that wait in their queues again.
    pub ids: Vec<TaskId>,
    /// The tasks that stay where they are because the edit cannot be made or the message cannot be sent, each with the
    /// reason. A task that is in neither list is no failed task any more, or waits already, or another process just puts it
    /// back.
    pub refused: Vec<(TaskId, String)>,
}

/// An ability of brokers: they keep tasks that have failed for good.
#[async_trait]
pub trait FailedTasks: Send + Sync {
    /// Keeps a failed task whose delivery was settled before it ran. All others are kept by
    /// [`Settle::Fail`](super::Settle::Fail), in the step that ends them.
    ///
    /// # Errors
    /// The task is not kept.
    async fn keep_failed(&self, task: FailedTask) -> Result<(), BrokerError>;

    /// The failed tasks that the filter chooses, the oldest first, up to `limit`.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn list_failed(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<FailedTask>, BrokerError>;

    /// A page of the failed tasks that the filter chooses, at most `limit` of them. `after`: the [`next`](TaskPage::next) of
    /// the page before. A broker that can begins with the newest, and the page says whether it does.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached, or `after` is no place in its list.
    async fn page_failed(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<FailedTask>, BrokerError> {
        let offset = task_page::offset(after)?;
        let tasks = self.list_failed(filter, offset.saturating_add(limit).saturating_add(1)).await?;
        Ok(TaskPage::of_list(tasks.into_iter().skip(offset), offset, limit))
    }

    /// The ids of all failed tasks that the filter chooses, the oldest first.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn failed_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError>;

    /// Puts the failed tasks of these ids back into their queues, with their attempts counted anew, and with what the edit
    /// makes of each. A task of the same id that waits or runs is left alone.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached. Some tasks may be back by then.
    async fn retry_failed(&self, ids: &[TaskId], edit: Option<&TaskEdit>) -> Result<Retried, BrokerError>;

    /// Deletes the failed tasks of these ids for good. Their records stay. Answers with the ids that it found.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached. Some tasks may be deleted by then.
    async fn delete_failed(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError>;

    /// How many failed tasks this process could not keep, or has dropped because there were too many, since it started.
    fn dropped_failed(&self) -> u64;
}

/// Keeps a failed task that has no delivery. A failure that passes is tried again, however long that takes; one that does
/// not is logged, because the record of the task says all the same that it has failed.
pub(super) async fn keep_for_sure(failed: &dyn FailedTasks, task: FailedTask) {
    let mut backoff = BACKOFF;
    loop {
        match failed.keep_failed(task.clone()).await {
            Ok(()) => return,
            Err(error) if error == BrokerError::Closed || error.is_permanent() => {
                let message = &task.message;
                tracing::error!(id = %message.id, task = message.task, %error, "a failed task is not kept");
                return;
            }
            Err(error) => {
                tracing::warn!(id = %task.message.id, task = task.message.task, %error, "a failed task cannot be kept yet");
            }
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Puts the tasks of several lists into one, the oldest first, at most `limit`.
pub(super) fn oldest_first(mut tasks: Vec<FailedTask>, limit: usize) -> Vec<FailedTask> {
    tasks.sort_by_key(|task| task.failed_at);
    tasks.truncate(limit);
    tasks
}

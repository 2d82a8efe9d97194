//! An ability of brokers: they can find single tasks, and take them out.

use async_trait::async_trait;

use super::{BrokerError, FollowUps, TaskFilter, TaskPage, task_page};
use crate::task::{Message, TaskId, TaskResult};

/// The place of a task that the broker has.
#[derive(Clone, Debug, PartialEq)]
pub enum MessageLocation {
    /// The task waits in its queue, due or not.
    Waiting(Box<Message>),
    /// The task is delivered to the consumer of this queue.
    Delivered {
        /// The name of the queue.
        queue: String,
    },
}

/// A task that is not over.
#[derive(Clone, Debug, PartialEq)]
pub struct UnfinishedTask {
    /// The message as it is now.
    pub message: Message,
    /// The standing of the task: what it waits for, or who has it.
    pub standing: Standing,
}

/// The standing of a task that is not over: what it waits for, or who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Standing {
    /// The task could start, and waits for a worker.
    Ready,
    /// The task waits for its time: its ETA, or the next attempt.
    Scheduled,
    /// The task waits for its lane.
    InLine,
    /// The task is delivered to the consumer of its queue: it runs, or is about to.
    Delivered,
}

impl Standing {
    /// The word for it: `ready`, `scheduled`, `in_line`, `delivered`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Scheduled => "scheduled",
            Self::InLine => "in_line",
            Self::Delivered => "delivered",
        }
    }
}

/// The outcome of taking a task out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The task waited, and is gone. The record that was passed is its record now.
    Removed,
    /// The consumer of this queue has the task and must be asked.
    Delivered {
        /// The name of the queue.
        queue: String,
    },
    /// The broker does not know the task.
    Unknown,
}

/// Makes what a removed task leaves behind from its message.
pub type RecordFn = Box<dyn FnOnce(&Message) -> Remains + Send>;

/// The record and the messages that a removed task leaves behind.
#[derive(Debug, Default)]
pub struct Remains {
    /// The record of the task, if one is kept.
    pub record: Option<TaskResult>,
    /// The follow-ups of the end of the task.
    pub follow_ups: Option<Box<FollowUps>>,
}

impl From<Option<TaskResult>> for Remains {
    fn from(record: Option<TaskResult>) -> Self {
        Self { record, follow_ups: None }
    }
}

/// Knows single tasks: all that wait in the broker or, if it does not [know all](super::BrokerFacts::knows_all),
/// those that it has delivered and some of the others.
#[async_trait]
pub trait Inspect: Send + Sync {
    /// Finds a task. `None`: the broker does not know it.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn find(&self, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError>;

    /// How many tasks of the queue run before this waiting one: those that could start and are before it, and
    /// those that are delivered and not settled, up to `limit`. `None`: that is not known, or the task waits for
    /// its time or its lane. Where [tenants take turns](super::TenantBacklog) it is an estimate: of each other tenant as many
    /// tasks count as this task has turns to wait for.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn position(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError>;

    /// The tasks that are not over and that the filter chooses, up to `limit`, in no certain order. It looks at all that the
    /// broker knows.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn list_unfinished(
        &self,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<Vec<UnfinishedTask>, BrokerError>;

    /// A page of the tasks that are not over and that the filter chooses, of those that stand so, or of all if none is stated,
    /// at most `limit` of them. `after`: the [`next`](TaskPage::next) of the page before. A broker whose whole list is long has a way of its
    /// own to make a page, at a cost that does not grow with the list.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached, or `after` is no place in its list.
    async fn page_unfinished(
        &self,
        filter: &TaskFilter,
        standings: &[Standing],
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<UnfinishedTask>, BrokerError> {
        let offset = task_page::offset(after)?;
        // What stands otherwise is taken out of the list only after it was made.
        let most =
            if standings.is_empty() { offset.saturating_add(limit).saturating_add(1) } else { usize::MAX };
        let mut tasks = self.list_unfinished(filter, most).await?;
        tasks.retain(|task| standings.is_empty() || standings.contains(&task.standing));
        Ok(TaskPage::of_list(tasks.into_iter().skip(offset), offset, limit))
    }

    /// The ids of all tasks that are not over and that the filter chooses. Those in lanes come first: who takes them out in
    /// this order lets none of them into its lane.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn unfinished_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError>;

    /// A page of the [ids of all such tasks](Self::unfinished_ids), in their order, at most `limit` of them. `after`: the
    /// [`next`](TaskPage::next) of the page before. A broker whose whole list is long looks at so many tasks only for a page,
    /// says at [how many](TaskPage::looked_at), and ends a page early, also without an id. Any other broker cuts pages out of
    /// its whole list, so what was taken out of the list since the page before moves the rest up.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached, or `after` is no place in its list.
    async fn page_unfinished_ids(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<TaskId>, BrokerError> {
        let offset = task_page::offset(after)?;
        let ids = self.unfinished_ids(filter).await?;
        Ok(TaskPage::of_list(ids.into_iter().skip(offset), offset, limit))
    }

    /// Takes a waiting task out for good. `record` makes what it leaves behind from its message.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError>;
}

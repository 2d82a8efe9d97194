//! Calls that become tasks when a transaction of the program's own database commits.
//!
//! Such a call is a row in a table of that database, the commit table. It is written with the program's own rows, in the
//! same transaction, so it is there if they are, and not if they are not. A running Celeriac forwards the row to its broker
//! and deletes it: see [`commit_table`](crate::commit_table). Whoever writes a row needs no runtime.
//!
//! The task's id is made at the call and is the row's key, so a row that is forwarded a second time is recognised.

use std::future::{Future, IntoFuture, ready};
use std::pin::Pin;
use std::sync::LazyLock;

use futures_util::FutureExt;
use tokio::sync::watch;

use super::dispatch::CallDocument;
use super::{EnqueueError, NewTask, Signature, Task, TaskId, current};
use crate::core::IoFailure;

/// The future that writes a row; it answers whether the row was written. `false`: the table has a row of this id.
pub type WriteRow<'t> = Pin<Box<dyn Future<Output = Result<bool, CommitTableError>> + Send + 't>>;

/// An open transaction of the program's database, into which a row of the commit table can be written.
///
/// Celeriac implements it for the transactions and connections of `sqlx` and `rusqlite`, and for those of `diesel` in a
/// [wrapper](crate::commit_table), each with a feature of its own. A program with another driver implements it itself: it
/// inserts the row's `id`, `task` and `call` into the table `celeriac_on_commit`.
pub trait CommitTransaction {
    /// Writes the row as a part of the transaction. A driver that blocks does its work before it returns, and answers with
    /// a future that is [ready](std::future::ready).
    fn write(&mut self, row: CommitRow) -> WriteRow<'_>;
}

/// A row of the commit table: a call that waits for its commit, or to be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitRow {
    /// The id of the task.
    pub id: TaskId,
    /// The task's name, for people who look at the table.
    pub task: String,
    /// The call as JSON text. Its form is Celeriac's own.
    pub call: String,
}

impl CommitRow {
    /// A row as it was read from the table.
    pub fn new(id: impl Into<TaskId>, task: impl Into<String>, call: impl Into<String>) -> Self {
        Self { id: id.into(), task: task.into(), call: call.into() }
    }
}

/// The error of a commit table.
#[derive(Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum CommitTableError {
    /// The database has no commit table.
    #[error(
        "the database has no table `celeriac_on_commit`: run its migration (the text `POSTGRES`, `MYSQL` or `SQLITE` of the module `commit_table`), or call `create` of the commit table once: {0}"
    )]
    Missing(#[source] IoFailure),
    /// The database failed, for the reason in the text.
    #[error("the commit table: {0}")]
    Failed(#[source] IoFailure),
}

crate::core::debug_as_display!(CommitTableError);

impl CommitTableError {
    /// The error of a driver. `missing` says whether the driver finds no commit table.
    pub fn of(error: impl std::error::Error + Send + Sync + 'static, missing: bool) -> Self {
        let failure = IoFailure::caused_by(error.to_string(), error);
        if missing { Self::Missing(failure) } else { Self::Failed(failure) }
    }
}

impl<T: Task> Signature<T> {
    /// Enqueues the call when the transaction commits: writes it into the commit table as a part of the transaction.
    /// Await the answer, or block on it with [`OnCommit::wait`]. Celery's and Django's `delay_on_commit`.
    ///
    /// A countdown and an expiry count from now. The queue is found when the row is forwarded.
    pub fn delay_on_commit(self, transaction: &mut impl CommitTransaction) -> OnCommit<'_, T> {
        OnCommit { signature: self, transaction }
    }
}

/// A call that has not been written into the commit table yet. Nothing happens until it is awaited or
/// [waited](Self::wait) for.
#[must_use = "nothing is written until this is awaited"]
pub struct OnCommit<'t, T: Task> {
    signature: Signature<T>,
    transaction: &'t mut dyn CommitTransaction,
}

impl<T: Task> OnCommit<'_, T> {
    /// Writes the call from code that is not asynchronous. With a driver that blocks (`rusqlite`, `diesel`) it works
    /// everywhere.
    ///
    /// # Errors
    /// The call is refused as in an [enqueue](Signature::delay), its id is in the table already, or the database fails.
    ///
    /// # Panics
    /// The driver is asynchronous, and the current thread drives asynchronous tasks. Use `.await` there.
    pub fn wait(self) -> Result<TaskId, EnqueueError> {
        let mut writing = self.into_future();
        if let Some(written) = (&mut writing).now_or_never() {
            return written;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.block_on(writing),
            Err(_) => futures_executor::block_on(writing),
        }
    }

    /// The row, if the call can be taken.
    fn row(signature: Signature<T>) -> Result<CommitRow, EnqueueError> {
        let (call, arguments) = signature.into_parts();
        let arguments =
            arguments.map_err(|error| EnqueueError::Arguments { task: T::NAME.to_owned(), error })?;
        let call = NewTask { id: Some(call.id.unwrap_or_else(TaskId::new)), arguments, ..call };
        // A program that writes rows need not run Celeriac. One that does hears of its mistakes now.
        if let Some(client) = current() {
            client.check(&call)?;
        }
        CallDocument::row(call)
    }
}

impl<'t, T: Task> IntoFuture for OnCommit<'t, T> {
    type Output = Result<TaskId, EnqueueError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 't>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { signature, transaction } = self;
        let row = match Self::row(signature) {
            Ok(row) => row,
            Err(refused) => return Box::pin(ready(Err(refused))),
        };
        let id = row.id.clone();
        let writing = transaction.write(row);
        Box::pin(async move {
            if !writing.await? {
                return Err(EnqueueError::DuplicateId { id });
            }
            WRITES.send_modify(|writes| *writes += 1);
            Ok(id)
        })
    }
}

/// How many rows this process has written, in transactions that may be open still.
static WRITES: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::Sender::new(0));

/// Hears of each row that this process writes.
pub(crate) fn writes() -> watch::Receiver<u64> {
    WRITES.subscribe()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::task;

    #[task(queue = "email")]
    fn send_email(user: u64) {
        let _ = user;
    }

    /// A table in memory, whose transactions are always open.
    #[derive(Default)]
    struct Table {
        rows: BTreeMap<String, CommitRow>,
        is_away: bool,
    }

    impl CommitTransaction for Table {
        fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
            let written = match self.is_away {
                true => Err(CommitTableError::of(std::io::Error::other("the disk is gone"), false)),
                false => Ok(self.rows.insert(row.id.to_string(), row).is_none()),
            };
            Box::pin(ready(written))
        }
    }

    #[test]
    fn a_call_is_a_row_under_its_id() {
        let (mut table, heard) = (Table::default(), writes());
        let id = send_email::delay_on_commit(&mut table, 42).wait().unwrap();
        let row = &table.rows[id.as_str()];
        assert_eq!((&row.id, row.task.as_str()), (&id, send_email::Task::NAME));
        assert!(row.call.contains("[42]") && row.call.contains("\"email\""), "{}", row.call);
        assert!(heard.has_changed().unwrap(), "the forwarder of this process hears of it");
        let own = send_email::s(1).id("mine").countdown(Duration::from_secs(5));
        assert_eq!(own.clone().delay_on_commit(&mut table).wait(), Ok("mine".into()));
        let twice = own.delay_on_commit(&mut table).wait();
        assert_eq!(twice, Err(EnqueueError::DuplicateId { id: "mine".into() }));
    }

    #[test]
    fn what_fails_is_told() {
        let mut table = Table { is_away: true, ..Table::default() };
        let failed = send_email::delay_on_commit(&mut table, 42).wait().unwrap_err();
        assert_eq!(failed.to_string(), "the commit table: the disk is gone");
        assert!(!failed.is_permanent());
        let long = send_email::s(1).id("x".repeat(256)).delay_on_commit(&mut table).wait();
        assert_eq!(long, Err(EnqueueError::BadId { len: 256 }));
    }

    /// A handler of a web program may be moved between threads while it waits.
    #[test]
    fn a_future_of_an_asynchronous_driver_may_change_its_thread() {
        fn is_send<T: Send>(_: &T) {}
        let mut table = Table::default();
        let writing = async { send_email::delay_on_commit(&mut table, 42).await };
        is_send(&writing);
    }
}
